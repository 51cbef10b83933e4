"""Bad inputs, and the message that each must give: what was seen, what was expected, or the cure.

A case is a function of a folder of its own. None may pass in silence, and none may end in the words
of a dependency. To try one: pytest -k "files and dangling".
"""

import os
import re
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.core import Callback
from fastai.callback.tracker import EarlyStoppingCallback, ReduceLROnPlateau, SaveModelCallback
from fastai.data.core import DataLoaders
from PIL import Image
from torch import nn

import kdmedlearn.cli as cli
from helpers import data, net
from kdmedlearn import *
from kdmedlearn.clinic.export import export, Facts
from kdmedlearn.core.step import DistillStep
from kdmedlearn.core.taps import read
from kdmedlearn.data.files import open_image
from kdmedlearn.evaluation.compare import compare
from kdmedlearn.experiments.experiment import experiment
from kdmedlearn.models.registry import create_mask_model, create_model, register_model
from kdmedlearn.models.small import small_student, small_teacher
from kdmedlearn.models.weights import about_model, load_model, load_teacher, save_model
from kdmedlearn.models.weights import write_safetensors
from kdmedlearn.train.budget import fit_steps
from kdmedlearn.train.fusing import load_fusion
from kdmedlearn.train.recipes import hdkd_student_recipe, kdas_recipe
from kdmedlearn.train.resume import Checkpoint, Checkpoints
from kdmedlearn.train.teachers import fit_teacher
from kdmedlearn.tuning.runs import Runs
from kdmedlearn.tuning.search import train_run, tune

nan, inf = float("nan"), float("inf")

# ---- what the cases are made of


def noise(size=(16, 16), seed=0):
    return np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8)


def png(file, x):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(x).save(file)
    return file


def classes(d, n=4, names="ab"):
    for k, c in enumerate(names):
        for i in range(n):
            png(d / c / f"{i}.png", noise(seed=100 * k + i))
    return d


def pairs(d, n=4):
    for i in range(n):
        png(d / "images" / f"{i}.png", noise(seed=i))
        mask = np.zeros((16, 16), np.uint8)
        mask[3:9, 2 : 8 + i] = 255
        png(d / "masks" / f"{i}.png", mask)
    return d


def wrote(d, name, content):
    (d / name).parent.mkdir(parents=True, exist_ok=True)
    (d / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return d


def cut(file, n):
    file.write_bytes(file.read_bytes()[:n])


def flipped(file, place=-5):
    b = bytearray(file.read_bytes())
    b[place] ^= 64
    file.write_bytes(b)


def images(d, **kw):
    return image_dls(d, **dict(size=32, bs=4, device="cpu", valid=0.25) | kw)


def table(d, rows, **kw):
    classes(d)
    pd.DataFrame(rows).to_csv(d / "t.csv", index=False)
    return images(d, table=d / "t.csv", **kw)


ROWS = [dict(file=f"{c}/{i}.png", label=c) for c in "ab" for i in range(4)]


def masks(d, change):
    change(pairs(d))
    return mask_dls(d, size=32, bs=2, device="cpu", valid=0.25)


def student():
    return net()


def distilled(d=None, dls=None, method="response", **kw):
    return distill(dls or data(), kw.pop("student", net()), kw.pop("teacher", net(6)), method, **kw)


def fit(learn, lr=1e-3, **kw):
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, lr, **kw)


class Says(nn.Module):
    "A teacher whose answer was changed."

    def __init__(self, change):
        super().__init__()
        self.net, self.change = net(6), change

    def forward(self, x):
        return self.change(self.net(x))


def spoilt(model):
    next(model.parameters()).data.fill_(nan)
    return model


def saved(d, change=lambda file: None):
    file = d / "m.safetensors"
    save_model(small_student(3), file, "small_student", list("abc"), 3, ([0.5] * 3, [0.2] * 3))
    change(file)
    return file


def pickled(d, name="m.pth"):
    torch.save({"a": 1}, d / name)
    return d / name


def bare(d):
    from safetensors.torch import save_file

    save_file({"w": torch.zeros(2)}, d / "o.safetensors")
    return d / "o.safetensors"


def cached(d, change):
    dls, teacher = phantom_dls(8, 4, 32, seed=0, bs=4, device="cpu", augment=False), small_teacher()
    cache_teacher(dls, teacher, d / "c", 1, log=None)
    change(d / "c" / "teacher-1")
    return cache_teacher(dls, teacher, d / "c", 1, log=None)


def shard(folder):
    return next(folder.glob("answers-*"))


def checkpoint(d, change):
    file = Checkpoints(d / "s").write({"a": 1})
    change(file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Checkpoints(d / "s").read()


def tried(d=None, **kw):
    given = dict(make_dls=lambda seed: data(), make_student=net, teacher=net(6)) | kw
    return experiment(log=None, **dict(epochs=1) | given)


def drawn():
    return phantom_dls(8, 4, 32, seed=0, bs=4, device="cpu")


drawn_nets = dict(make_student=small_student, teacher=small_teacher())


def run(d, *given):
    "What the command says; its exit code must be 2."
    from typer.testing import CliRunner

    told = [str(g) for g in given]
    small = ["--epochs", "1", "--size", "32", "--bs", "4", "--runs", str(d / "runs")]
    if told[0] == "distill" and "--resume" not in told:
        told[1:1] = small
    r = CliRunner().invoke(cli.app, told)
    if r.exception is not None and not isinstance(r.exception, SystemExit):
        raise AssertionError("a bare traceback") from r.exception
    assert r.exit_code == 2, r.output
    raise ValueError(r.output)


def asked(d, text):
    wrote(d, "unfinished/asked.json", text)
    return run(d, "distill", "--resume", d)


CASES = {}


def case(area, name, says, f):
    CASES[f"{area}: {name}"] = says, f


# ---- files

F = lambda name, says, f: case("files", name, says, f)
F(
    "empty",
    "a/x.png .the first: it is no image",
    lambda d: images(wrote(classes(d), "a/x.png", b"")),
)
F("text called png", "it is no image", lambda d: images(wrote(classes(d), "a/x.png", "hello")))
F("cut", "truncated.*bad='skip'", lambda d: (cut(classes(d) / "a/1.png", 200), images(d)))


def link(d, name, to):
    (d / name).symlink_to(to)
    return d


F(
    "dangling link",
    "git annex get, dvc pull",
    lambda d: images(link(classes(d), "a/x.png", "/no/x")),
)
F("dangling class", "fetch what it stands", lambda d: images(link(classes(d), "c", "/no/c")))
F("link to itself", "delete the link", lambda d: images(link(classes(d), "a/x.png", "x.png")))
if hasattr(os, "mkfifo"):
    F("pipe", "a pipe or a device", lambda d: (os.mkfifo(classes(d) / "a/x.png"), images(d)))


def animated(d):
    frames = [Image.fromarray(noise(seed=i)) for i in range(3)]
    frames[0].save(classes(d) / "a/x.gif", save_all=True, append_images=frames[1:])
    return d


F("animated", "3 pages; say which is meant", lambda d: images(animated(d)))


def deep(d):
    png(classes(d) / "a/x.png", (np.arange(256).reshape(16, 16) * 200).astype(np.uint16))
    return d


F("one of 16 bits", "more than 8 bits.*save all with one depth", lambda d: images(deep(d)))


def bomb(d):
    Image.new("1", (20000, 20000)).save(classes(d) / "a/x.png")
    return d


F("bomb", "raise the limit, PIL.Image.MAX_IMAGE_PIXELS", lambda d: images(bomb(d)))
F("nifti", "save its slices", lambda d: images(wrote(classes(d), "a/x.nii.gz", b"\x1f\x8b1")))
F("whole slide", "cut tiles first", lambda d: images(wrote(classes(d), "a/x.svs", b"II*\0")))
F("gone", "there is no file", lambda d: open_image(d / "x.png"))
F("folder", "a folder, and no file", lambda d: open_image(d))
F("floats", "expected uint8", lambda d: open_image(np.zeros((4, 4, 3))))
F("five channels", "expected uint8 .H, W. or", lambda d: open_image(np.zeros((4, 4, 5), np.uint8)))
F("a number", "an image is a path", lambda d: open_image(3))
F("window", "is for more than 8 bits", lambda d: open_image(noise(), window=(5, 1)))
F(
    "page",
    "page=4 of 1 pages",
    lambda d: open_image(noise(), page=4) or open_image(png(d / "a.png", noise()), page=4),
)
F("dicom without pixels", "DICOM file without", lambda d: open_image(b"\0" * 128 + b"DICM"))

# ---- folders

D = lambda name, says, f: case("folders", name, says, f)
D("gone", "is the path spelled right", lambda d: images(d / "no"))
D("a file", "expected the folder of the set", lambda d: images(png(d / "x.png", noise())))
D("empty", "expected one folder of images per class", images)
D("one class", "expected at least two", lambda d: images(classes(d, names="a")))
D(
    "class without images",
    "'c' in all has no images",
    lambda d: ((classes(d) / "c").mkdir(), images(d)),
)
D("unknown option", "near: channels", lambda d: images(classes(d), chanels=3))
for v in (2, 0, nan, "a"):
    D(f"valid={v}", "expected a share", lambda d, v=v: images(classes(d), valid=v))
for k in ("size", "bs"):
    for v in (0, -3, "64", 2.5, nan):
        D(f"{k}={v!r}", "expected a whole number", lambda d, k=k, v=v: images(classes(d), **{k: v}))
D("size for a wall", "from 1 to 16384", lambda d: images(classes(d), size=10**6))
D("device gpu", "expected 'cpu', 'cuda'", lambda d: images(classes(d), device="gpu"))
D("device of others", "device='cpu' works everywhere", lambda d: images(d, device="cuda:77"))
for v in (None, 3, b"data", ["data"]):
    D(f"path {v!r}", "expected the path of a folder", lambda d, v=v: images(v))


def twins(d):
    for i, name in enumerate(("\u00e9", "e\u0301")):
        png(d / name / "1.png", noise(seed=i))
    return d


D(
    "one name in two spellings of Unicode",
    "differ only in case or blanks",
    lambda d: images(twins(d)),
)
D("fraction", "expected a share", lambda d: images(classes(d), fraction=0))
D(
    "norm of two",
    "does not fit 3 channels",
    lambda d: images(classes(d), norm=([0.5] * 2, [0.2] * 2)),
)
for v in ((0.5, 0), (0.5, inf), (nan, 0.2), (120, 60)):
    D(f"norm {v}", "divide by 255", lambda d, v=v: images(classes(d), norm=v))
D("channels", "expected one of None, 1, 3", lambda d: images(classes(d), channels=2))
D("modality", "expected one of", lambda d: images(classes(d), modality="xray"))
D("bad", "expected 'error' or 'skip'", lambda d: images(classes(d), bad="ignore"))
D("group", "needs a csv with columns", lambda d: images(classes(d), group="patient"))
D(
    "two trains",
    "looks like a split",
    lambda d: images((classes(d / "train"), classes(d / "train 2"), d)[2]),
)
D(
    "other classes in test",
    "only in test: z",
    lambda d: images((classes(d / "train"), classes(d / "test", names="az"), d)[2]),
)

# ---- tables

T = lambda name, says, f: case("tables", name, says, f)
T("gone", "no table none.csv", lambda d: images(classes(d), table="none.csv"))
T("column", "has no column 'klass'", lambda d: table(d, ROWS, label="klass"))
T("file gone", "are not in", lambda d: table(d, ROWS + [dict(file="a/99.png", label="a")]))
T("outside", "are not in", lambda d: table(d, ROWS + [dict(file="../../etc/passwd", label="a")]))
T("no label", "have no label", lambda d: table(d, ROWS + [dict(file="a/0.png", label=None)]))
T("two labels", "two values of label", lambda d: table(d, ROWS + [dict(file="a/0.png", label="b")]))
T("one class", "only one class", lambda d: table(d, ROWS[:4]))
T("kind", "expected one of", lambda d: table(d, ROWS, kind="klass"))
for v in (nan, inf):
    rows = [r | dict(v=v if i == 3 else i) for i, r in enumerate(ROWS)]
    T(f"number {v}", "no label|no number", lambda d, r=rows: table(d, r, label="v", kind="number"))
T(
    "bytes",
    "no text in UTF-8",
    lambda d: images(wrote(classes(d), "t.csv", bytes(range(256))), table="t.csv"),
)
T("empty", "has no rows", lambda d: images(wrote(classes(d), "t.csv", b""), table="t.csv"))
T("option without table", "none is given", lambda d: images(classes(d), label="x"))

# ---- masks

M = lambda name, says, f: case("masks", name, says, f)
M("mask gone", "missing='empty'", lambda d: masks(d, lambda d: (d / "masks/2.png").unlink()))
M(
    "image gone",
    "masks without an image",
    lambda d: masks(d, lambda d: (d / "images/2.png").unlink()),
)
M(
    "size",
    "which one was resized",
    lambda d: masks(d, lambda d: png(d / "masks/2.png", np.zeros((9, 16), np.uint8))),
)
M(
    "third value",
    "say what each means",
    lambda d: masks(d, lambda d: png(d / "masks/2.png", np.full((16, 16), 7, np.uint8))),
)
M(
    "all empty",
    "nothing can be learned",
    lambda d: masks(
        d, lambda d: [png(d / f"masks/{i}.png", np.zeros((16, 16), np.uint8)) for i in range(4)]
    ),
)
M(
    "colours",
    "a photograph, or a mask saved as JPEG",
    lambda d: masks(d, lambda d: png(d / "masks/2.png", noise())),
)
M("cut", "cannot be read as images", lambda d: masks(d, lambda d: cut(d / "masks/2.png", 40)))
M(
    "dangling",
    "git annex get",
    lambda d: masks(d, lambda d: ((d / "masks/2.png").unlink(), link(d, "masks/2.png", "/no"))),
)
M("no masks", "expected images/", lambda d: mask_dls(classes(d)))
M("missing", "expected one of", lambda d: mask_dls(pairs(d), missing="none"))
M("classes", "name them in classes=", lambda d: mask_dls(pairs(d), classes={"a": 0, "b": 9}))

# ---- images without labels

U = lambda name, says, f: case("unlabelled", name, says, f)
U("gone", "is it spelled right", lambda d: with_unlabelled(data(), d / "no"))
U("empty", "no images in", lambda d: with_unlabelled(data(), d))
U("no rest", "read the set with fraction=", lambda d: with_unlabelled(data(), "rest"))
U("a number", "a folder, a list of files, a table, or 'rest'", lambda d: with_unlabelled(data(), 5))
U(
    "tensors",
    "a folder, a list of files, a table, or 'rest'",
    lambda d: with_unlabelled(data(), [torch.zeros(3, 8, 8)]),
)
for v in (0, 1):
    U(
        f"share {v}",
        "there must be one of each",
        lambda d, v=v: with_unlabelled(images(classes(d / "a")), classes(d / "b"), v),
    )
U("of validation", "stand in valid", lambda d: with_unlabelled(images(classes(d)), d))

# ---- models

N = lambda name, says, f: case("models", name, says, f)
N("mistyped", "near: resnet18", lambda d: create_model("resnet81", 3))
N("mistyped, ours", "near: small_student", lambda d: create_model("smal_student", 3))
for v in (0, "3", 2.5):
    N(f"{v!r} classes", "expected a whole number", lambda d, v=v: create_model("small_student", v))
N("channels", "expected a whole number", lambda d: create_mask_model("small_unet", 1, 0))
N("classes for masks", "no mask model", lambda d: create_mask_model("small_student", 1))
N("masks for classes", "no model is called", lambda d: create_model("small_unet", 3))
N(
    "name taken",
    "choose another name",
    lambda d: register_model("small_student")(lambda num_classes=1, in_chans=3: nn.Identity()),
)
N("no maker", "expected a function", lambda d: register_model("mine")(3))
N("file gone", "there is no file", lambda d: load_model(d / "x.safetensors"))
N(
    "file cut",
    "cannot be read as safetensors",
    lambda d: load_model(saved(d, lambda f: cut(f, 5000))),
)
N(
    "huge header",
    "cannot be read as safetensors",
    lambda d: load_model(
        saved(d, lambda f: f.write_bytes((2**40).to_bytes(8, "little") + f.read_bytes()[8:]))
    ),
)
N("pickle", "they can run code", lambda d: load_model(pickled(d)))
N("pickle in disguise", "they can run code", lambda d: load_teacher(pickled(d, "m.safetensors")))
N("others' file", "without a description", lambda d: load_model(bare(d)))
N("a folder", "there is no file", lambda d: load_model(d))
N("others' fusion", "without a description", lambda d: load_fusion(bare(d)))


def kept(d, model=None, arch="small_student", vocab=list("abc"), *more, **kw):
    return save_model(model or small_student(3), d / "m.safetensors", arch, vocab, *more, **kw)


def changed(d, **about):
    "A file whose description was changed."
    file = kept(d)
    write_safetensors(load_model(file).state_dict(), file, about_model(file) | about)
    return file


N("a name too many", "would be .4, 64. and is .3, 64", lambda d: kept(d, vocab=list("abcd")))
N("a name for a list", "p more than once", lambda d: kept(d, vocab="polyp"))
N("a name twice", "a more than once", lambda d: kept(d, vocab=list("aba")))
N("a name None", "a class name is a text", lambda d: kept(d, vocab=["a", None, "b"]))
N("another arch", "has other tensors", lambda d: kept(d, arch="small_teacher"))
N("an arch mistyped", "near: small_student", lambda d: kept(d, arch="smal_student"))
N("other channels", "has other tensors", lambda d: kept(d, None, "small_student", list("abc"), 1))
N("std 0", "std above 0", lambda d: kept(d, norm=(0.5, 0)))
N("size", "expected the side", lambda d: kept(d, img_size=0))
N("of others", "would be", lambda d: kept(d, net()))
N("names changed", "names 2 classes", lambda d: load_teacher(changed(d, vocab=["a", "b"])))
N(
    "logits changed",
    "holds other tensors",
    lambda d: load_model(changed(d, num_classes=1, vocab=["a"])),
)
N("no names", "has no vocab", lambda d: load_model(changed(d, vocab=None)))
N("description of nothing", "has no arch", lambda d: load_model(changed(d, arch=5)))
N(
    "no folder to save in",
    "choose another folder",
    lambda d: save_model(
        small_student(3), png(d / "x.png", noise()) / "m.safetensors", "small_student", list("abc")
    ),
)

# ---- teachers

H = lambda name, says, f: case("teachers", name, says, f)
H("a class", "a teacher is a module", lambda d: distilled(teacher=small_teacher))
H("a number", "a teacher is a module", lambda d: Teacher(3))
H("none", "a teacher is a module", lambda d: distilled(teacher=[None]))
H("no teacher", "the list is empty", lambda d: distilled(teacher=[]))
H("std 0", "std above 0", lambda d: Teacher(net(), norm=(0.5, 0.0)))
for v in ("big", 0, -2):
    H(f"size {v!r}", "expected the side", lambda d, v=v: Teacher(net(), size=v))
H("precision", "expected one of", lambda d: Teacher(net(), precision="fp4"))
H("weights not finite", "are its weights read rightly", lambda d: distilled(teacher=spoilt(net(6))))
H(
    "answers not finite",
    "are its weights read rightly",
    lambda d: distilled(teacher=Says(lambda z: z / 0)),
)
H("other classes", "all need the same classes", lambda d: distilled(teacher=net(6, 5)))
H("probabilities", "Expected are logits", lambda d: distilled(teacher=Says(lambda z: z.softmax(1))))
H("a dict", "wrap it", lambda d: distilled(teacher=Says(lambda z: {"a": z, "b": z})))
H("maps", "a map of one place", lambda d: distilled(teacher=Says(lambda z: z[..., None, None])))
H("one vector", "at the same size", lambda d: distilled(teacher=Says(lambda z: z[0])))
H("raises", "fails on a batch of shape", lambda d: distilled(teacher=Says(lambda z: z @ z)))


def itself(d):
    m = net()
    return distilled(student=m, teacher=m)


H("the student", "copy.deepcopy", itself)
H("half weights", "fails on a batch", lambda d: distilled(teacher=net(6).half()))
H(
    "names one too few",
    "gives 3 logits and names 2 classes",
    lambda d: distilled(teacher=Teacher(net(6), vocab=["a", "b"])),
)
H("names in one text", "expected a list of class names", lambda d: Teacher(net(), vocab="abc"))
H("to train a number", "expected a network", lambda d: fit_teacher(data(), 5, 1, 1e-3))

# ---- students

S = lambda name, says, f: case("students", name, says, f)
S("a function", "call it first", lambda d: distilled(student=small_student))
S("a name", "must be a module", lambda d: distilled(student="small_student"))
S("frozen", "requires_grad_", lambda d: distilled(student=net().requires_grad_(False)))
S("not finite", "are its weights finite", lambda d: distilled(student=spoilt(net())))
S("nothing to train", "nothing would be trained", lambda d: distilled(student=nn.Flatten()))
S("other classes", "num_classes=3", lambda d: distilled(student=net(4, 2), teacher=net(6, 2)))
for v in (0, "small"):
    S(f"size {v!r}", "expected the side", lambda d, v=v: distilled(student_size=v))

for kind in (torch.float64, torch.float16, torch.bfloat16):
    S(f"of {kind}", "give model.float", lambda d, k=kind: distilled(student=net().to(k)))
S("meta", "lies on the device meta", lambda d: distilled(student=net().to("meta")))
H("meta", "lies on the device meta", lambda d: distilled(teacher=net(6).to("meta")))
H("of float64", "give model.float", lambda d: distilled(teacher=net(6).double()))


def same_head(d):
    student, teacher = net(), net()
    student.head = teacher.head
    return distilled(student=student, teacher=teacher)


def inside(d):
    teacher = net()
    return distilled(student=nn.Sequential(teacher), teacher=teacher)


def same_numbers(d):
    student, teacher = net(), net()
    teacher.conv.weight.data = student.conv.weight.data
    return distilled(student=student, teacher=teacher)


H("the student's head", "shares 2 tensors with the student .head.2.weight", same_head)
H("inside the student", "shares 9 tensors with", inside)
H("the student's numbers", "shares 1 tensors with the student .conv.weight", same_numbers)
H(
    "random in eval mode",
    "is there a dropout",
    lambda d: distilled(teacher=Says(lambda z: nn.functional.dropout(z, 0.5))),
)

# ---- methods

W = lambda name, says, f: case("methods", name, says, f)
W("mistyped", "near: response", lambda d: distilled(method="responce"))
W("a number", "a method is a name", lambda d: distilled(method=3))
for v in (0, -1, nan, inf, "4", None, True):
    W(f"T={v!r}", "temperature T must be", lambda d, v=v: Response(T=v))
for v in (2, -0.5, nan, inf):
    W(f"alpha={v!r}", "must lie in|finite", lambda d, v=v: Response(alpha=v))
W("unknown option", "it has T=4.0", lambda d: Response(temp=4))
W("layer", "has no layer|near", lambda d: distilled(method=Feature(pairs=[("convv", "conv")])))
W("KDAS on classes", "is it a segmentation model", lambda d: distilled(method=KDAS()))
W("HDKD on others", "HDKD reads", lambda d: distilled(method=HDKD()))
W("a term twice", "keep one", lambda d: distilled(method=Response() + Response()))
two = dict(teacher=net(6, 2), student=net(4, 2))
W(
    "DKD of two classes",
    "has no formula for two classes",
    lambda d: distilled(dls=data(num_classes=2), method="dkd", **two),
)
W(
    "z-scores of two classes",
    "has no formula for two",
    lambda d: distilled(dls=data(num_classes=2), method="standardised", **two),
)
W(
    "softmax of one map",
    "cross-entropy over one class",
    lambda d: distill(
        masks(d, lambda d: None),
        create_mask_model("small_unet", 1),
        create_mask_model("large_unet", 1),
        "response",
    ),
)


class BadNoWeights(Method):
    def terms(self, p):
        return {}


class BadTensor(BadNoWeights):
    def weights(self, pct=0.0):
        return {"task": 1.0, "mine": 1.0}

    def terms(self, p):
        return p.student.out.mean()


class BadVector(BadTensor):
    def terms(self, p):
        return {"mine": p.student.out}


W("own without weights", "write def weights", lambda d: distilled(method=BadNoWeights()))
W("own gives a tensor", "dict", lambda d: distilled(method=BadTensor()))
W("own gives a vector", "must be a scalar tensor", lambda d: distilled(method=BadVector()))

# ---- loaders, steps, trainings

L = lambda name, says, f: case("trainings", name, says, f)
L(
    "a loader",
    "first argument is fastai DataLoaders, got .*DataLoader|DL",
    lambda d: distilled(dls=data().train),
)
L("a list", "first argument is fastai DataLoaders", lambda d: distilled(dls=[1, 2]))
L("a path", "first argument is fastai DataLoaders", lambda d: distilled(dls="data"))
L("other loss", "give one that fits", lambda d: distilled(loss_func=nn.MSELoss()))
L("rate 1e20", "a smaller learning rate", lambda d: fit(distilled(), 1e20))
for v in (0, "10", 2.5):
    L(f"steps {v!r}", "expected a whole number", lambda d, v=v: fit_steps(distilled(), v, 1e-3))
for v in (nan, 0, -1, inf):
    L(f"rate {v}", "lr=.*expected", lambda d, v=v: fit_steps(distilled(), 4, v))
L("mixup", "mixup=-1", lambda d: fit_steps(distilled(), 4, 1e-3, mixup=-1))
L(
    "no setup",
    "call step.setup",
    lambda d: DistillStep(net(), net(6))((torch.rand(2, 3, 8, 8),), (torch.tensor([1, 2]),)),
)
L("text in a batch", "expected tensors", lambda d: DistillStep(net(), net(6)).setup((["a"],)))
L(
    "bytes as images",
    "networks expect torch.float32",
    lambda d: DistillStep(net(), net(6)).setup(
        torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.tensor([1, 2])
    ),
)
L(
    "grey images",
    "channels=3",
    lambda d: DistillStep(net(), net(6)).setup(torch.rand(2, 1, 8, 8), torch.tensor([1, 2])),
)
L("unknown layer", "has no layer 'no'. Near", lambda d: read(net(), ["no"], torch.rand(1, 3, 8, 8)))


def with_later(change, **kw):
    "A training of which batch 2 is changed: (images, targets) -> batch."
    return trained(lambda n, b: change(*b) if n > 1 else b, **kw)


def trained(change, classes=3, **kw):
    items = data().train_ds
    made = []

    def collate(each):
        made.append(0)
        return change(len(made), tuple(map(torch.stack, zip(*each))))

    train = torch.utils.data.DataLoader(items, batch_size=8, collate_fn=collate)
    loss = dict(loss_func=nn.CrossEntropyLoss()) | kw
    fit(distilled(dls=DataLoaders(train, data().valid, device="cpu"), **loss))


def labelled(label):
    "Loaders of fastai, image 5 of the training has another label."
    dls = data()
    dls.train_ds[5] = (dls.train_ds[5][0], label)
    return dls


two_says = "training batch 2 of epoch 1: "
L("no targets", two_says + "the batch has images and no", lambda d: with_later(lambda x, y: (x,)))
L("targets None", two_says + "the batch holds None", lambda d: with_later(lambda x, y: (x, None)))
L("images alone", two_says + "the batch is one tensor", lambda d: with_later(lambda x, y: x))
L(
    "a later dict",
    two_says + ".*such as batch..image",
    lambda d: with_later(lambda x, y: {"image": x, "label": y}),
)
L("a later list", two_says + "the batch holds a list", lambda d: with_later(lambda x, y: (x, [1])))
L("an empty batch", two_says + "the batch is empty", lambda d: with_later(lambda x, y: (x[:0], y)))
L(
    "bytes later",
    "teacher .* fails .*x.float.. / 255",
    lambda d: with_later(lambda x, y: (x.byte(), y)),
)
L(
    "grey later",
    two_says + "the student fails.*images of 3 channels and these have 1",
    lambda d: with_later(lambda x, y: (x[:, :1], y), teacher=Says(lambda z: z)),
)
L("half the targets", two_says + "the loss", lambda d: with_later(lambda x, y: (x, y[:4])))
L("float targets", "class numbers are whole", lambda d: with_later(lambda x, y: (x, y.float())))
L("label -1", "from 0 to 2", lambda d: with_later(lambda x, y: (x, y - 1)))
L(
    "label 9",
    "training batch . of epoch 1 .image 5.: .*for class numbers from 0 to 2",
    lambda d: fit(distilled(dls=labelled(torch.tensor(9)))),
)
L(
    "label None",
    "the loader makes no batch of its items",
    lambda d: fit(distilled(dls=labelled(None))),
)
L(
    "validation without targets",
    "no targets; expected .images, targets.",
    lambda d: distilled(
        dls=DataLoaders(data().train, torch.utils.data.DataLoader([(torch.zeros(3, 8, 8),)])),
        loss_func=nn.CrossEntropyLoss(),
    ),
)
L("label 9, alone", "from 0 to 2", lambda d: tried(make_dls=lambda s: labelled(torch.tensor(9))))
for c in (EarlyStoppingCallback, SaveModelCallback, ReduceLROnPlateau):
    L(
        f"{c.__name__} watches nothing",
        "near: valid_loss.*expected one of",
        lambda d, c=c: fit(distilled(cbs=c(monitor="valid_los"), path=d)),
    )
for v in (0, -1, 2.5, "8"):
    L(f"bs={v!r}", "bs=.*at least 1", lambda d, v=v: distilled(dls=data(bs=v)))
LOSSES = {
    "of each image": (lambda p, y: (p - 1).sum(1), "gives a tensor .2,. of torch.float32"),
    "a number": (lambda p, y: 1.0, "gives a float"),
    "nothing": (lambda p, y: None, "gives None"),
    "counted": (lambda p, y: (p.argmax(1) != y).sum(), "gives a tensor .. of torch.int64"),
    "detached": (lambda p, y: (p.sum(1) - y).mean().detach(), "without gradient"),
    "a name": ("ce", "is not callable"),
    "a class": (nn.CrossEntropyLoss, "the loss CrossEntropyLoss fails"),
}
for name, (loss, says) in LOSSES.items():
    L(f"loss {name}", says, lambda d, o=loss: distilled(loss_func=o))
L("metric's name", "not their names", lambda d: distilled(metrics="accuracy"))
L("callback's name", "expected callbacks", lambda d: distilled(cbs="early"))
L("optimizer's name", "opt_func='adam'", lambda d: distilled(opt_func="adam"))
L("compile", "expected True, or a dict", lambda d: distilled(compile="yes"))
L("rate in words", "lr='1e-3'", lambda d: distilled().fit(1, "1e-3"))
L("rates nan", "lr=nan|lr=.*nan", lambda d: distilled().fit(1, [1e-3, nan]))


class Takes(Callback):
    "Takes something away."

    def __init__(self, event, what):
        setattr(self, event, lambda: setattr(self.learn, what, () if what == "yb" else None))


L(
    "targets taken away",
    "no target left",
    lambda d: fit(distilled(cbs=Takes("before_batch", "yb"))),
)
L(
    "answer taken away",
    "the loss .* fails",
    lambda d: fit(distilled(cbs=Takes("after_pred", "pred"))),
)
for v in (-1, "3"):
    L(f"{v!r} epochs", "n_epoch=.*at least 0", lambda d, v=v: distilled().fit(v))
L("recipe's field", "near: epochs", lambda d: hdkd_student_recipe(epoch=3))
L("recipe's rate", "lr=nan", lambda d: hdkd_student_recipe(lr=nan))
L("recipe's epochs", "epochs=-1", lambda d: kdas_recipe(epochs=-1))

# ---- what is kept

K = lambda name, says, f: case("kept", name, says, f)
K(
    "views",
    "expected a whole number",
    lambda d: cache_teacher(phantom_dls(8, 4, 32, device="cpu"), small_teacher(), d, 0, log=None),
)
K(
    "views in words",
    "or 'turns'",
    lambda d: cache_teacher(
        phantom_dls(8, 4, 32, device="cpu"), small_teacher(), d, "many", log=None
    ),
)
K(
    "cache in a file",
    "give another one",
    lambda d: cache_teacher(
        phantom_dls(8, 4, 32, device="cpu"), small_teacher(), png(d / "x.png", noise()), 1, log=None
    ),
)
K("shard cut", "answers for its images anew", lambda d: cached(d, lambda c: cut(shard(c), 300)))
K("shard's byte", "a byte was changed", lambda d: cached(d, lambda c: flipped(shard(c))))
for text in ("", "[]", "null", '{"a":', '{"rows": 0, "rows a shard": 0, "made with": {}}'):
    K(
        f"cache.json {text!r}",
        "is damaged",
        lambda d, t=text: cached(d, lambda c: wrote(c, "cache.json", t)),
    )
K("checkpoint cut", "to begin anew", lambda d: checkpoint(d, lambda f: cut(f, 20)))
K("checkpoint's byte", "to begin anew", lambda d: checkpoint(d, lambda f: flipped(f, -1)))
K("checkpoints in a file", "name a folder", lambda d: Checkpoint(png(d / "x.png", noise())))
K("checkpoints every 0", "every=0", lambda d: Checkpoint(d, 0))


def other_training(d):
    for lr in (1e-3, 1e-2):
        fit(distilled(cbs=Checkpoint(d / "s", log=None), teacher=net(6)), lr)


K("another training", "holds another training", other_training)
K("runs in a file", "name a folder", lambda d: Runs(png(d / "x.png", noise())))

# ---- experiments and searches

E = lambda name, says, f: case("experiments", name, says, f)
E("no seeds", "give at least one", lambda d: tried(seeds=()))
E("seed in words", "seed='a'", lambda d: tried(seeds=["a"]))
E("control", "expected one of", lambda d: tried(controls=("none",)))
for v in (0, -1, 1.5, "2"):
    E(f"epochs {v!r}", "epochs=", lambda d, v=v: tried(epochs=v))
for v in (nan, inf, 0.0, -1.0):
    E(f"rate {v}", "lr=", lambda d, v=v: tried(lr=v))
E(
    "mixup without steps",
    "give steps=",
    lambda d: tried(mixup=0.2, make_dls=lambda seed: drawn(), **drawn_nets),
)
E("option", "no option 'monitor'", lambda d: tried(monitor="accuracy"))
E("a student", "expected a function", lambda d: tried(make_student=net()))
E("loaders", "expected a function", lambda d: tried(make_dls=data()))
E(
    "in a file",
    "choose another one",
    lambda d: tried(folder=png(d / "x.png", noise()), make_dls=lambda seed: drawn(), **drawn_nets),
)
E("nothing to compare", "give a dict", lambda d: compare({}, data().valid))
E("others' classes", "knows other classes", lambda d: compare({"a": net(4, 2)}, data().valid))
E("trials", "trials", lambda d: tune(data(), net(), net(6), trials=0, folder=d))
E(
    "unknown hyperparameter",
    "no hyperparameter foo to vary",
    lambda d: tune(data(), net(), net(6), params=["foo"], folder=d),
)
E(
    "student of a run",
    "a function that makes one",
    lambda d: train_run(Runs(d), data(), 5, net(6), "response"),
)

# ---- bundles

B = lambda name, says, *given, model=None: case(
    "bundles", name, says, lambda d: export(model or small_student(3), d / "b", Facts(*given))
)
B("a name too few", "answers .2, 3. for 2 images, and the facts name 2 classes", list("ab"), 32)
B("of masks", "has shape|must return a map", list("ab"), 32, 3, ((0.5,), (0.2,)), "binary masks")
B("of grey images", "it takes images of 3 channels|fails on a batch", list("abc"), 32, 1)
B("without facts' size", "expected the side", list("abc"), 0)
case("bundles", "no facts", "a module does not know", lambda d: export(small_student(3), d / "b"))
case(
    "bundles",
    "a teacher without names",
    "name 0 classes",
    lambda d: export(Teacher(small_student(3), size=32), d / "b"),
)

# ---- phantoms

P = lambda name, says, **kw: case(
    "phantoms", name, says, lambda d: phantom_dls(**dict(n_train=8, n_valid=4, size=32) | kw)
)
P("task", "choose one of classify, segment", task="detect")
P("size", "at least 32", size=2)
P("none", "at least 1", n_train=0)
for v in (0, -1, 2.5, "8", None):
    P(f"bs={v!r}", "bs=.*at least 1", bs=v)
P("seed", "seed must be", seed=-1)
P("in words", "whole number", n_train="8")
P("difficulty", "between 0", difficulty=nan)

# ---- the command

C = lambda name, says, *given: case(
    "command", name, says, lambda d: run(d, "distill", "--data", classes(d / "set", 12), *given)
)
C("method", "near: response", "--method", "respons")
C("parameter", "it has T=4.0", "--param", "temp=3")
C("parameter without value", "name=value", "--param", "T")
C("T=Infinity", "positive and finite", "--param", "T=Infinity")
C("T=nan", "must be a number", "--knob", "T=nan")
C("T in words", "must be a number", "--param", "T=warm")
C("student", "no model is called", "--student", "smal")
C("teacher", "no model is called", "--teacher", "resnt")
C("pickled teacher", "can run code", "--teacher", "a.pth")
C("teacher gone", "there is no file", "--teacher", "gone.safetensors")
C(
    "teacher twice",
    "name each teacher once",
    "--teacher",
    "small_teacher",
    "--teacher",
    "small_teacher",
)
C("rate 1e20", "the training diverged", "--lr", "1e20")
C("rate inf", "lr=inf", "--lr", "inf")
C("rate 0", "--lr=0", "--lr", "0")
C("rate nan", "--lr", "--lr", "nan")
C("seeds", "--seeds", "--seeds", "0")
C("valid", "expected a share", "--valid", "3")
C("fraction", "expected a share", "--fraction", "0")
C("mixup without steps", "give --steps", "--mixup", ".2")
C("mixup", "--mixup=nan", "--mixup", "nan", "--steps", "3")
C("unlabelled without steps", "--steps 2000", "--unlabelled", "rest")
C("unlabelled gone", "is it spelled right", "--unlabelled", "no", "--steps", "3")
C("control", "expected one of", "--control", "nothing")
C("views", "or 'turns'", "--views", "lots")
C("balance", "expected one of", "--balance", "more")
C("name", "without separators", "--name", "../../x")
C("window", "expected low,high", "--window", "a,b")
C("table", "no table", "--table", "no.csv")
C("group", "needs a csv", "--group", "patient")
C("teacher's data", "expected one of", "--teacher-data", "some")
C("bad", "expected 'error' or 'skip'", "--bad", "never")
case("command", "no data", "--data is missing", lambda d: run(d, "distill"))
case(
    "command",
    "data gone",
    "is the path spelled right",
    lambda d: run(d, "distill", "--data", d / "no"),
)
case(
    "command",
    "data not in UTF-8",
    "is the path spelled right",
    lambda d: run(d, "distill", "--data", os.fsdecode(b"/no/\xff")),
)
case(
    "command",
    "runs in a file",
    "name another one",
    lambda d: run(d, "distill", "--data", classes(d / "set"), "--runs", png(d / "x.png", noise())),
)
case(
    "command",
    "cache in a file",
    "name another one",
    lambda d: run(d, "distill", "--data", classes(d / "set"), "--cache", png(d / "x.png", noise())),
)
case(
    "command",
    "resume with options",
    "leave out --lr",
    lambda d: run(d, "distill", "--resume", d, "--lr", "3"),
)
case("command", "no run to resume", "is no run of", lambda d: run(d, "distill", "--resume", d))
for text in (
    "",
    "{}",
    "[]",
    "null",
    '{"in": "/", "asked": {"data": "x", "foo": 1}}',
    '{"in": "/", "asked": 5}',
):
    case("command", f"asked.json {text!r}", "is damaged", lambda d, t=text: asked(d, t))
case("command", "mistyped", "distill", lambda d: run(d, "distil"))


def test_there_are_as_many_as_the_page_says():
    assert len(CASES) > 330


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_answered(name, tmp_path):
    says, f = CASES[name]
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            f(tmp_path)
        except Exception as e:
            told = [str(e)]
        else:
            told = [str(w.message) for w in warned if issubclass(w.category, UserWarning)]
    assert any(re.search(says, t, re.S) for t in told), told or "it passed in silence"
