"""Bundles: the answers of the network, without PyTorch, and refused where they are not sound."""

import csv
import io
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastai.learner import Learner
from PIL import Image

from helpers import folder_set
from kdmedlearn.clinic.bundle import BadBundle, Bundle, digest_of, RULES, seal, sha256
from kdmedlearn.clinic.card import wilson
from kdmedlearn.clinic.export import export, export_run, Facts, NotTheSame, parity, same_answers
from kdmedlearn import distill
from kdmedlearn.clinic.export import graph_of, known_of, Whole
from kdmedlearn.clinic.predict import main
from kdmedlearn.clinic.run import Predictor, stretched
from kdmedlearn.core.outputs import plain
from kdmedlearn.core.step import at_size
from kdmedlearn.data.images import image_dls
from kdmedlearn.data.phantom import MEAN, phantom, phantom_dls, STD
from kdmedlearn.evaluation.classes import predictions
from kdmedlearn.models.registry import create_mask_model, create_model
from kdmedlearn.models.small import small_student

ROOT = Path(__file__).parents[1]
NORM = (MEAN, STD)
sys.path.insert(0, str(ROOT / "tools" / "release"))


def lively(model, seed=0):
    """A network whose answers differ from image to image: batch norm with statistics that it has
    seen."""
    torch.manual_seed(seed)
    for p in model.parameters():
        if p.ndim == 1:
            torch.nn.init.uniform_(p, 0.5, 1.5)
    return model.eval()


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    "Bundles of classes, one with a hostile name, and of masks."
    home = tmp_path_factory.mktemp("bundles")
    torch.manual_seed(0)
    names = ["=HYPERLINK(1)", "b\x1b[2J<script>alert(1)</script>|c", "polyp"]
    export(lively(small_student(3)), home / "classes", Facts(names, 32, norm=NORM))
    facts = Facts(["background", "polyp"], 48, norm=NORM, task="binary masks", temperature=2.0)
    export(lively(create_mask_model("small_unet")), home / "masks", facts)
    return home


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    (folder / "p1").mkdir(parents=True)
    for i, x in enumerate(phantom(3, 60, seed=1)[0]):
        Image.fromarray(x[:, :45]).save(folder / f"{i}.png")
    shutil.copy(folder / "1.png", folder / "p1" / "0.png")
    return folder


def copy_of(bundle, tmp_path):
    return Path(shutil.copytree(bundle, tmp_path / "copy"))


# --- the same answers
EVERY = {
    "small_student": 64,
    "guided_student": 64,
    "hdkd_student_small": 64,
    "hdkd_teacher_small": 64,
    "resnet10t": 64,
    "small_unet": 64,
    "polyp_pvt_b0": 64,
    "lite0_unet": 64,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_graphs_answer_as_their_networks(name):
    "Every model of the package, one of timm, one of segmentation-models-pytorch; batches 1, 2, 7."
    masks = name.endswith("unet") or name.startswith("polyp")
    torch.manual_seed(0)
    model = create_mask_model(name) if masks else create_model(name, 3, img_size=EVERY[name])
    classes, task = ("ab", "binary masks") if masks else ("abc", "classes")
    whole = Whole(model, Facts(classes, EVERY[name], norm=NORM, task=task))
    found = parity(whole, graph_of(whole))
    assert list(found) == [1, 2, 7] and max(found.values()) < 1e-5


def test_a_student_that_sees_fewer_pixels_has_its_resize_in_the_graph():
    whole = Whole(at_size(lively(small_student(3)), 32), Facts("abc", 64, norm=NORM))
    assert max(parity(whole, graph_of(whole)).values()) < 1e-5


def test_a_graph_with_other_answers_is_refused(bundles):
    graph = Bundle(bundles / "classes").read("model.onnx")
    other = Whole(lively(small_student(3)), Facts("abc", 32, norm=((0.5,), (0.25,))))
    with pytest.raises(NotTheSame, match="differ by up to .* 1e-05 is allowed; nothing was"):
        same_answers(parity(other, graph), 1e-5)


def turned(file):
    "A JPEG that lies on its side and says so."
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(file) as im:
        im.load()
    im.save(file.with_suffix(".jpg"), quality=95, exif=exif)
    file.unlink()


def answers_of(learn, dl):
    logits, _ = predictions(learn.model, dl)
    return logits


def test_files_are_read_as_in_training(tmp_path):
    """From a Learner: EXIF, colour, sizes that are not square, the temperature of its validation
    images."""
    home = folder_set(tmp_path / "set", n=8)
    for f in sorted((home / "train" / "disc").iterdir())[:3]:
        turned(f)
    with pytest.warns(UserWarning):
        dls = image_dls(home, size=32, bs=4, channels=3, device="cpu", valid=0.5, leaks=False)
    learn = Learner(dls, lively(small_student(2)))
    student = Predictor(export(learn, tmp_path / "bundle"))
    tau = student.bundle.temperature
    assert student.bundle.classes == list(dls.vocab) and tau != 1
    got = np.stack([a.values for a in student(list(dls.valid.items))])
    known = (answers_of(learn, dls.valid) / tau).softmax(1)
    assert abs(got - known.numpy()).max() < 1e-5
    text = (tmp_path / "bundle" / "card.md").read_text()
    assert "validation images" in text and "Not a medical device" in text


def test_sixteen_bits_and_dicom_are_seen_through_the_window_of_the_training(tmp_path):
    pytest.importorskip("pydicom")
    from test_docs import write_dicom

    rng, home = np.random.default_rng(0), tmp_path / "set"
    for i in range(12):
        x = rng.integers(0, 1200, (40, 30))
        write_dicom(home / "ab"[i % 2] / f"{i}.dcm", x - 300)
    deep = dict(window=(0, 800), valid=0.5, leaks=False, device="cpu", bs=4)
    learn = Learner(image_dls(home, size=32, **deep), lively(small_student(2, in_chans=1)))
    student = Predictor(export(learn, tmp_path / "bundle", calibrate=False))
    assert student.bundle.window == [0, 800] and student.bundle.channels == 1
    got = np.stack([a.values for a in student(list(learn.dls.valid.items))])
    assert abs(got - answers_of(learn, learn.dls.valid).softmax(1).numpy()).max() < 1e-5
    Image.fromarray(rng.integers(0, 1200, (40, 30)).astype(np.uint16)).save(tmp_path / "deep.png")
    assert np.ptp(np.asarray(student.open(tmp_path / "deep.png"))) > 200
    with pytest.raises(ValueError, match="this image has 8"):
        student([np.zeros((8, 8), np.uint8)])


def test_masks_have_the_size_of_the_image(bundles):
    student = Predictor(bundles / "masks")
    (x,), _ = phantom(1, 97, seed=2)
    (a,) = student([x[:, :71]])
    pixels = torch.from_numpy(student.pixels([Image.fromarray(x[:, :71])]))
    model = lively(create_mask_model("small_unet"))
    whole = Whole(model, Facts("ab", 48, norm=NORM, task="binary masks", temperature=2.0))
    z = student.raw(pixels.numpy())["logits"]
    assert a.mask.shape == (97, 71) and set(np.unique(a.mask)) <= {0, 1}
    known = F.interpolate(torch.from_numpy(z), (97, 71), mode="bilinear")[0]
    assert (a.mask == (known[0] > 0).numpy()).mean() > 0.9999
    assert np.allclose(stretched(z[0], (97, 71)), known.numpy(), atol=1e-5)
    assert a.values.sum() == pytest.approx(1) and whole.outputs == ["answers", "logits"]


def test_openvino_gives_the_same_answers(bundles, images):
    pytest.importorskip("openvino")
    for name in ("classes", "masks"):
        a, b = (Predictor(bundles / name, e, threads=1) for e in ("onnxruntime", "openvino"))
        x = a.pixels([a.open(f) for f in sorted(images.glob("*.png"))])
        for k, v in a.raw(x).items():
            assert abs(v - b.raw(x)[k]).max() < (1e-5 if k == "answers" else 1e-3)


# --- without PyTorch
BLOCKED = """
import sys
for name in ("torch", "fastai", "fastcore", "pandas", "timm", "rich", "matplotlib", "plotly"):
    sys.modules[name] = None
"""


def asked(code, *words, path=ROOT):
    "A program in a process of its own, in which PyTorch and its like cannot be imported."
    program = f"{BLOCKED}\nsys.path.insert(0, {str(path)!r})\n{code}"
    command = [sys.executable, "-c", program, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True)


def test_classes_and_masks_are_answered_without_pytorch(bundles, images, tmp_path):
    code = "from kdmedlearn.clinic.predict import main; sys.exit(main())"
    r = asked(code, bundles / "classes", images)
    assert r.returncode == 0, r.stderr
    rows = list(csv.DictReader(io.StringIO(r.stdout)))
    assert [row["file"] for row in rows] == ["0.png", "1.png", "2.png", "p1/0.png"]
    assert rows[1]["polyp"] == rows[3]["polyp"] != rows[0]["polyp"]
    masks = ("--masks", tmp_path / "masks", "--out", tmp_path / "masks.csv")
    r = asked(code, bundles / "masks", images, *masks)
    assert r.returncode == 0 and r.stdout == "" and r.stderr == ""
    made = sorted(p.name for p in (tmp_path / "masks").iterdir())
    assert len(made) == 8 and "p1_0_mask.png" in made
    with Image.open(tmp_path / "masks" / "0_mask.png") as im:
        assert im.size == (45, 60) and {v for _, v in im.getcolors()} <= {0, 255}


def test_the_small_wheel_has_all_that_it_takes(bundles, images, tmp_path):
    from clinic_wheel import changed, PACKAGE, pyproject, write_package

    home = write_package(tmp_path / "wheel")
    source = "\n".join(p.read_text() for p in home.glob("*.py"))
    assert "from .." not in source and "kdmedlearn[" not in source
    assert f'"{PACKAGE}.predict:main"' in pyproject()
    assert changed("from ..data.files import x") == "from .files import x"
    code = (
        f"from {PACKAGE}.predict import main; assert 'kdmedlearn' not in sys.modules;"
        " sys.exit(main())"
    )
    r = asked(code, bundles / "classes", images / "0.png", path=home.parent)
    assert r.returncode == 0 and r.stdout.count("\n") == 2, r.stderr


def test_the_top_of_the_library_stays_light():
    light = "import kdmedlearn.clinic.run, kdmedlearn; assert 'distill' in dir(kdmedlearn)"
    r = asked(light + "; sys.exit('onnxruntime' in sys.modules)")
    assert r.returncode == 0, r.stderr


# --- what is not sound
def test_a_changed_byte_is_found_in_every_file(bundles, tmp_path):
    whole = copy_of(bundles / "classes", tmp_path)
    known = Bundle(whole).manifest["files"]
    assert {p.suffix for p in whole.rglob("*.*")} == {".onnx", ".json", ".png", ".md", ".html"}
    for name in [*known, "manifest.json"]:
        data = bytearray((whole / name).read_bytes())
        data[len(data) // 2] ^= 1
        (whole / name).write_bytes(data)
        with pytest.raises(BadBundle, match="damaged|changed|no sense"):
            Bundle(whole).read(name)
        data[len(data) // 2] ^= 1
        (whole / name).write_bytes(data)
    assert Bundle(whole).read("model.onnx")


def zipped(folder, file):
    with zipfile.ZipFile(file, "w") as z:
        for p in folder.rglob("*"):
            z.write(p, p.relative_to(folder.parent))
    return file


def test_a_zip_is_read_and_a_broken_one_refused(bundles, images, tmp_path, capsys):
    z = zipped(bundles / "classes", tmp_path / "b.zip")
    assert Predictor(z).bundle.manifest == Bundle(bundles / "classes").manifest
    data = z.read_bytes()
    for cut in (data[: len(data) // 2], data[:10], b"", b"PK" + data[5000:]):
        z.write_bytes(cut)
        assert main([str(z), str(images)]) == 2
        assert capsys.readouterr().err.startswith("Error: b.zip ")
    with zipfile.ZipFile(z, "w") as f:
        f.writestr("manifest.json", "{}")
        f.writestr("../../evil.py", "")
    with pytest.raises(BadBundle, match="belong in no bundle"):
        Bundle(z)


def with_manifest(folder, **changes):
    "The manifest with changes and a digest that fits."
    m = json.loads((folder / "manifest.json").read_text()) | changes
    m["digest"] = digest_of(m)
    (folder / "manifest.json").write_text(json.dumps(m))


@pytest.mark.parametrize(
    "changes",
    [
        dict(format=2),
        dict(format="1"),
        dict(classes=[]),
        dict(classes=["a", 1]),
        dict(size=[10**9, 1]),
        dict(size=[32.0, 32]),
        dict(norm=[["0"], [1]]),
        dict(temperature=0),
        dict(selftest=dict(images=["../x"], answers=[], tolerance=1)),
        dict(files={"model.onnx": "0", "/etc/passwd": "0"}),
        dict(files={}),
        dict(task=["classes"]),
    ],
    ids=str,
)
def test_a_manifest_that_makes_no_sense_is_refused(bundles, tmp_path, changes):
    folder = copy_of(bundles / "classes", tmp_path)
    with_manifest(folder, **changes)
    with pytest.raises(BadBundle, match="newer" if changes == dict(format=2) else None):
        Bundle(folder)


def test_manifests_that_are_no_objects(bundles, tmp_path):
    folder = copy_of(bundles / "classes", tmp_path)
    for text in ("", "[]", "1", "[" * 100_000, "\xff", json.dumps({k: None for k in RULES})):
        (folder / "manifest.json").write_text(text, encoding="latin-1")
        with pytest.raises(BadBundle):
            Bundle(folder)


def test_a_network_that_is_none_and_answers_that_are_others(bundles, tmp_path):
    folder = copy_of(bundles / "classes", tmp_path)
    m, files = Bundle(folder).manifest, dict(Bundle(folder).manifest["files"])
    wrong = m["selftest"] | {"answers": [[0.2, 0.3, 0.5]] * 4}
    with_manifest(folder, selftest=wrong)
    with pytest.raises(BadBundle, match="self-test fails"):
        Predictor(folder)
    data = (folder / "model.onnx").read_bytes()
    for broken in (b"", data[: len(data) // 2], b"\x00" * 100):
        (folder / "model.onnx").write_bytes(broken)
        with_manifest(folder, files=files | {"model.onnx": sha256(broken)})
        with pytest.raises(BadBundle, match="cannot load the network|self-test"):
            Predictor(folder)


# --- words that somebody else wrote
def test_hostile_names_are_shown_and_not_obeyed(bundles, images, capsys):
    (images / "=1+1.png").write_bytes((images / "0.png").read_bytes())
    assert main([str(bundles / "classes"), str(images)]) == 0
    out = capsys.readouterr().out
    head, *rows = csv.reader(io.StringIO(out))
    assert head[2].startswith("'=HYPERLINK") and "\x1b" not in out
    assert rows[-2][0] == "'=1+1.png" or rows[0][0] != "=1+1.png"
    assert not [c for row in rows for c in row if c[:1] in "=+-@" and c]
    page = (bundles / "classes" / "card.html").read_text()
    assert "<script" not in page and "&lt;script" in page and "\x1b" not in page
    assert "<script" not in (bundles / "classes" / "card.md").read_text().replace(r"\<script", "")
    assert "\x1b" not in repr(Bundle(bundles / "classes"))


# --- the command
def test_broken_files_are_named_and_the_others_answered(bundles, images, tmp_path, capsys):
    (images / "1.png").write_bytes((images / "1.png").read_bytes()[:2000])
    (images / "note\x1b.txt").write_text("no image")
    Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 99).save(images / "deep.png")
    film = [Image.new("RGB", (8, 8), c) for c in ("red", "blue")]
    film[0].save(images / "film.tif", save_all=True, append_images=film[1:])
    out = tmp_path / "a.csv"
    assert main([str(bundles / "classes"), str(images), "--out", str(out), "--batch", "2"]) == 1
    err = capsys.readouterr().err
    assert "skipped 1.png: image file is truncated" in err and "4 of 7 files could not be" in err
    assert "deep.png: more than 8 bits, values 0 to 6237; the student knows 8 bits" in err
    assert "film.tif: 2 pages; save the one that is meant in a file of its own" in err
    assert "\x1b" not in err and r"note\x1b.txt: it is no image" in err
    assert len(out.read_text().splitlines()) == 4
    before = out.read_text()
    assert main([str(bundles / "classes"), str(images), "--out", str(out)]) == 2
    assert "there already" in capsys.readouterr().err and out.read_text() == before
    assert main([str(bundles / "classes"), str(tmp_path / "none")]) == 2
    assert main([str(tmp_path / "none"), str(images)]) == 2


KILLED = """
from kdmedlearn.clinic import predict
from kdmedlearn.clinic.run import Predictor
opened = Predictor.open
def open(self, path):
    if path.name.startswith("stop"):
        os.kill(os.getpid(), signal.SIGKILL)
    return opened(self, path)
Predictor.open = open
sys.exit(predict.main())
"""


@pytest.mark.parametrize("what", ["classes", "masks"])
def test_a_command_that_is_killed_leaves_the_rows_that_it_had(bundles, images, tmp_path, what):
    shutil.rmtree(images / "p1")
    shutil.copy(images / "0.png", images / "stop.png")  # the last of two batches
    out, masks = tmp_path / "a.csv", ("--masks", tmp_path / "m") * (what == "masks")
    words = (bundles / what, images, "--batch", "2", "--out", out, *masks)
    r = asked("import os, signal\n" + KILLED, *words)
    assert r.returncode == -9, r.stderr
    left = out.read_text().splitlines()
    (images / "stop.png").unlink()
    whole = tmp_path / "b.csv"
    masks = ("--masks", str(tmp_path / "n")) * (what == "masks")
    assert main([str(bundles / what), str(images), "--out", str(whole), *masks]) == 0
    assert len(left) == 3 and left == whole.read_text().splitlines()[:3]
    kept = 4 * (what == "masks")  # a row comes after its files
    assert len(list((tmp_path / "m").glob("*"))) == kept


def test_a_table_without_rows_has_its_head(bundles, tmp_path, capsys):
    (tmp_path / "broken.png").write_text("no image")
    assert main([str(bundles / "classes"), str(tmp_path / "broken.png")]) == 1
    assert capsys.readouterr().out.splitlines()[0].startswith("file,answer,'=HYPERLINK")
    out = tmp_path / "none" / "a.csv"  # said before an image is asked for
    assert main([str(bundles / "classes"), str(tmp_path / "broken.png"), "--out", str(out)]) == 2
    err = capsys.readouterr().err
    assert "skipped" not in err and "there is no folder" in err


def test_a_link_to_nothing_is_named_and_a_refusal_makes_no_folder(
    bundles, images, tmp_path, capsys
):
    (images / "lost.png").symlink_to(tmp_path / "nowhere.png")
    assert main([str(bundles / "classes"), str(images)]) == 1
    assert "skipped lost.png" in capsys.readouterr().err
    masks = tmp_path / "masks"
    assert main([str(bundles / "classes"), str(images), "--masks", str(masks)]) == 2
    assert "--masks is for bundles of masks" in capsys.readouterr().err and not masks.exists()


def test_a_card_names_the_images_that_were_scored(tmp_path):
    from kdmedlearn.clinic.card import known_of_run
    from kdmedlearn.experiments.report import write_json

    write_json(tmp_path / "config.json", dict(data="set"))
    write_json(tmp_path / "metrics.json", dict(table={"student distilled": {"accuracy": 0.5}}))
    rows = "a.png,valid,x\n" * 12 + "b.png,train,x\n" * 108
    (tmp_path / "images.csv").write_text("file,split,label\n" + rows)
    known = known_of_run(tmp_path)
    assert known.scored_on == "the split valid" and known.scores[0].images == 12


def test_a_card_counts_images_without_a_label(bundles):
    dls = phantom_dls(20, 8, 32, n_unlabelled=40, bs=8)
    learn = distill(dls, small_student(), small_student(), unlabelled="rest")
    sizes = {r["split"]: r["images"] for r in known_of(learn).splits}
    assert sizes == {"train": 20, "valid": 8, "without a label": 40}


def test_a_run_becomes_a_bundle(tmp_path):
    "`kdmedlearn distill` has written weights, settings, scores; the student saw smaller images."
    from kdmedlearn.experiments.report import write_json
    from kdmedlearn.models.weights import save_model

    run = tmp_path / "run"
    run.mkdir()
    about = dict(data="set", size=64, student_size=32, method="Response()", window=None)
    write_json(run / "config.json", about | dict(student="small_student"))
    table = {"student distilled": {"accuracy": 0.75, "ECE": 0.1, "parameters": 5.0}}
    calibration = {"temperature": 1.5, "words": "Fitted on 40 validation images."}
    write_json(run / "metrics.json", dict(table=table, seeds=[], calibration=calibration))
    (run / "images.csv").write_text("file,split,label\n" + "a.png,test,x\n" * 40)
    model = lively(small_student(2))
    save_model(
        model, run / "student.safetensors", "small_student", ["a", "b"], norm=NORM, img_size=32
    )
    student = Predictor(export_run(run))
    assert student.bundle.temperature == 1.5 and student.bundle.size == [64, 64]
    (x,), _ = phantom(1, 64, seed=3)
    pixels = torch.from_numpy(x).permute(2, 0, 1)[None] / 255
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in NORM)
    with torch.no_grad():
        known = plain(at_size(model, 32)((pixels - mean) / std) / 1.5).softmax(1)[0]
    assert abs(student([x])[0].values - known.numpy()).max() < 1e-5
    card = (run / "bundle" / "card.md").read_text()
    low, high = wilson(0.75, 40)
    assert f"{low:.3f} to {high:.3f}" in card and "Fitted on 40" in card


def test_seal_writes_what_a_bundle_reads(tmp_path, bundles):
    m = Bundle(bundles / "classes").manifest
    assert m["parity"]["allowed"] == 1e-5 and max(m["parity"]["by batch"].values()) < 1e-5
    assert seal(copy_of(bundles / "classes", tmp_path), m, m["files"])["digest"] == m["digest"]


# --- eight bits
@pytest.mark.slow
def test_eight_bits_keep_the_score_or_are_refused(tmp_path):
    from kdmedlearn.clinic.quantise import best_way, calibration_pixels, quantise, TooMuchLost
    from kdmedlearn.data.phantom import phantom_dls

    dls = phantom_dls(16, 24, 48, task="segment", device="cpu", bs=8)
    learn = Learner(dls, lively(create_mask_model("small_unet")))
    export(learn, tmp_path / "full")
    first = np.asarray(dls.train_ds[0][0]).transpose(1, 2, 0)
    assert (calibration_pixels(dls, 16)[0][0] == first).all()  # neither turned nor rounded
    table = quantise(tmp_path / "full", dls, tmp_path / "int8", most=1.0)
    assert "float32" in table.index and table.kB.min() < table.kB["float32"] / 2
    small = Predictor(tmp_path / "int8")
    assert small.bundle.precision == "int8" and small.bundle.manifest["quantisation"]["way"]
    assert "In 8 bits" in (tmp_path / "int8" / "card.md").read_text()
    with pytest.raises(TooMuchLost, match="nothing was written"):
        best_way(table.assign(lost=0.5), 0.01)
    other = phantom_dls(16, 24, 48, device="cpu")
    with pytest.raises(ValueError, match="the images have the classes"):
        quantise(tmp_path / "full", other, tmp_path / "x")
    assert not (tmp_path / "x").exists()


class Shortcut(torch.nn.Module):
    "Maps from a depthwise convolution with a way around it."

    def __init__(self):
        super().__init__()
        conv = torch.nn.Conv2d
        self.stem, self.norm = conv(3, 8, 3, padding=1), torch.nn.BatchNorm2d(8)
        self.depthwise, self.act = conv(8, 8, 3, padding=1, groups=8), torch.nn.ReLU()
        self.head = conv(8, 1, 1)

    def forward(self, x):
        x = self.act(self.norm(self.stem(x)))
        return self.head(self.act(x + self.depthwise(x)))


@pytest.mark.slow
@pytest.mark.parametrize("make", [Shortcut, lambda: create_mask_model("small_unet")])
def test_a_student_that_is_trained_to_be_rounded_rounds_as_its_graph(make):
    from kdmedlearn.clinic.aware import as_int8
    from kdmedlearn.clinic.export import answers_of as answers_of_logits, example_pixels
    from kdmedlearn.clinic.quantise import in_int8
    from kdmedlearn.clinic.run import start

    torch.manual_seed(0)
    model = lively(make())
    facts = Facts("ab", 64, norm=NORM, task="binary masks")
    whole, raw = Whole(model, facts), example_pixels(8, facts)
    x = (torch.from_numpy(raw).permute(0, 3, 1, 2) / 255 - whole.mean) / whole.std
    before, hooks = model.state_dict(), lambda: [m._forward_hooks for m in model.modules()]
    # 7 bits: with 8 so little is lost that ties, which fall either way, are a good part of it
    small = start(in_int8(graph_of(whole), [raw], True, True))(raw)["answers"]
    with torch.no_grad():
        known = whole(torch.from_numpy(raw))[0].numpy()
        with as_int8(model, [x], seven=True):
            rounded = answers_of_logits(model(x)).numpy()
    assert abs(rounded - small).mean() < 0.3 * abs(known - small).mean()
    assert not any(hooks()) and model.state_dict().keys() == before.keys()
    assert all((v == before[k]).all() for k, v in model.state_dict().items())
