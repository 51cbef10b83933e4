"""Bundles: the answers of the network, without PyTorch, and refused where they are not sound."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import time
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
    calibration_keeps_1_where_it_makes_it_worse(learn)


def calibration_keeps_1_where_it_makes_it_worse(learn):
    from kdmedlearn.clinic import export as chapter
    from kdmedlearn.evaluation.calibration import ece

    logits, y = predictions(learn.model, learn.dls.valid)
    for tau in (10.0, 1.0):
        with pytest.MonkeyPatch.context() as m:
            m.setattr(chapter, "fit_temperature", lambda z, y: tau)
            m.setattr(chapter, "ece", lambda z, y: -float(abs(z).mean()))  # worse when divided
            found = chapter.calibration_of(learn)
        assert found["temperature"] == 1 and ("Left as they are" in found["words"]) == (tau > 1)
    found = chapter.calibration_of(learn, learn.dls.valid)
    assert found["ECE"] == pytest.approx(float(ece(logits / found["temperature"], y)))


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
    with zipfile.ZipFile(z, "w") as f:  # as people zip, and their systems
        for p in sorted((bundles / "classes").rglob("*")):
            f.write(p, Path("runs/imgs") / p.relative_to(bundles))
        for name in ("runs/", "__MACOSX/runs/._imgs", "runs/imgs/classes/.DS_Store"):
            f.writestr(name, "")
    assert Predictor(z).bundle.manifest == Bundle(bundles / "classes").manifest
    with zipfile.ZipFile(z, "a") as f:
        f.writestr("runs/other/manifest.json", "{}")
    with pytest.raises(BadBundle, match="several bundles, runs/imgs/classes/, runs/other/"):
        Bundle(z)
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
        dict(temperature=10**400),
        dict(channels=3.0),
        dict(channels=True),
        dict(size=[100_000, 100_000]),
        dict(classes=["a"] * 3),
        dict(selftest=dict(images=["selftest/1.png"], answers=[None], tolerance=1)),
        dict(selftest=dict(images=["a", "b"], answers=[[1], [1, 2]], tolerance=1)),
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
    wrong = ("", "[]", "1", "9" * 6000, "[" * 100_000, "\xff", '{"format": 0}')
    for text in (*wrong, json.dumps({k: None for k in RULES})):
        (folder / "manifest.json").write_text(text, encoding="latin-1")
        with pytest.raises(BadBundle, match="get it again"):
            Bundle(folder)


@pytest.mark.parametrize(
    "changes", [dict(channels=1), dict(size=[16, 16]), dict(task="binary masks")], ids=str
)
def test_a_manifest_that_does_not_fit_its_network_is_refused(
    bundles, images, tmp_path, changes, capsys
):
    folder = copy_of(bundles / "classes", tmp_path)
    with_manifest(folder, **changes)
    assert main([str(folder), str(images)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "do not use it" in err and "Traceback" not in err


def test_what_is_no_file_in_a_bundle_is_not_read(bundles, images, tmp_path, capsys):
    for name, make, says in (
        ("manifest.json", lambda p: os.mkfifo(p), "no file but a folder, a pipe or a device"),
        ("model.onnx", lambda p: p.symlink_to("/dev/zero"), "no file but a folder, a pipe"),
        ("card.md", lambda p: None, "has no file card.md"),
        ("card.html", lambda p: p.write_text("It is a medical device"), "is damaged: card.html"),
    ):
        folder = copy_of(bundles / "classes", tmp_path / name)
        (folder / name).unlink()
        make(folder / name)
        assert main([str(folder), str(images)]) == 2
        assert says in (err := capsys.readouterr().err) and "get it again" in err, err


def test_the_folder_of_a_run_in_the_place_of_its_bundle(bundles, tmp_path):
    (tmp_path / "student.safetensors").write_bytes(b"")
    with pytest.raises(BadBundle, match="first: kdmedlearn export"):
        Bundle(tmp_path)
    shutil.copytree(bundles / "classes", tmp_path / "bundle")
    with pytest.raises(BadBundle, match="its bundle is .*bundle$"):
        Bundle(tmp_path)


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
    (images / "scan.nii.gz").write_bytes(b"packed")
    for name in ("cut.jpg", "cut.bmp", "cut.tif"):  # they open, and break when they are read
        Image.fromarray(phantom(1, 90, seed=2)[0][0]).save(images / name)
        whole = (images / name).read_bytes()
        (images / name).write_bytes(whole[: len(whole) // 2])
    out = tmp_path / "a.csv"
    assert main([str(bundles / "classes"), str(images), "--out", str(out), "--batch", "2"]) == 1
    err = capsys.readouterr().err
    assert "skipped 1.png: image file is truncated" in err and "8 of 11 files could not be" in err
    assert all(f"skipped cut.{kind}: " in err for kind in ("jpg", "bmp", "tif"))
    assert "skipped scan.nii.gz: it is packed; unpack it first" in err
    assert "deep.png: more than 8 bits, values 0 to 6237; the student knows 8 bits" in err
    assert "film.tif: 2 pages; save the one that is meant in a file of its own" in err
    assert "\x1b" not in err and r"note\x1b.txt: it is no image" in err
    assert len(out.read_text().splitlines()) == 4
    before = out.read_text()
    assert main([str(bundles / "classes"), str(images), "--out", str(out)]) == 2
    assert "there already" in capsys.readouterr().err and out.read_text() == before
    assert main([str(bundles / "classes"), str(tmp_path / "none")]) == 2
    assert main([str(tmp_path / "none"), str(images)]) == 2


def test_what_is_no_file_is_named_and_not_left_out(bundles, images, tmp_path, capsys):
    (images / "elsewhere").symlink_to(images / "p1")
    os.mkfifo(images / "pipe.png")
    assert main([str(bundles / "classes"), str(images), str(images / "pipe.png")]) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 5
    assert "skipped elsewhere: a link to a folder, which is not followed" in err
    assert err.count("is a pipe or a device") == 2 and "3 of 7 files" in err
    walk = os.walk

    def closed(top, onerror):
        onerror(PermissionError(13, "Permission denied", str(images / "p1")))
        return ((at, [], names) for at, _, names in list(walk(top))[:1])

    with pytest.MonkeyPatch.context() as m:  # root may read all folders
        m.setattr(os, "walk", closed)
        assert main([str(bundles / "classes"), str(images)]) == 1
    assert "skipped p1: a folder that may not be read" in capsys.readouterr().err


def test_images_of_one_name_are_told_apart(bundles, images, capsys):
    shutil.copytree(images / "p1", images / "p2")
    for words in ((images / "p1", images / "p2"), (images / "p1/0.png", images / "p2/0.png")):
        assert main([str(bundles / "classes"), *map(str, words)]) == 0
        _, *rows = csv.reader(io.StringIO(capsys.readouterr().out))
        assert [r[0] for r in rows] == [f"{images}/p1/0.png", f"{images}/p2/0.png"]


def test_no_two_columns_have_one_name():
    from kdmedlearn.clinic.predict import column_names

    classes = ["file", "file (class)", "note", "a"]
    heads = column_names(["file", "answer", "note"], classes)
    assert heads == ["file (class)", "file (class) (class)", "note (class)", "a"]


def test_no_image_and_no_bundle_is_written_over(bundles, images, tmp_path, capsys):
    bundle, one = copy_of(bundles / "masks", tmp_path), images / "0.png"
    before = {p: p.read_bytes() for p in (*bundle.rglob("*.*"), *images.rglob("*.png"))}
    for words in (
        (one, "--out", one),
        (one, "--out", bundle / "manifest.json"),
        (one, "--masks", images),
        (images, "--masks", images / "masks"),
        (images, "--out", images / "a.csv"),
        (one, "--masks", bundle),
        (one, "--out", images),
        (one, "--masks", one),
    ):
        assert main([str(bundle), *map(str, words), "--overwrite"]) == 2, words
        said = capsys.readouterr().err
        assert "write elsewhere" in said or "; name a f" in said, said
    assert before == {p: p.read_bytes() for p in (*bundle.rglob("*.*"), *images.rglob("*.png"))}
    assert not (images / "a.csv").exists() and not (images / "masks").exists()


def test_masks_of_long_names_and_of_an_earlier_run(bundles, images, tmp_path, capsys):
    shutil.move(images / "1.png", images / (240 * "n" + ".png"))
    words = [str(bundles / "masks"), str(images), "--masks", str(tmp_path / "m"), "--overwrite"]
    assert main([*words, "--out", str(tmp_path / "a.csv")]) == 0
    assert capsys.readouterr().err == "" and len(list((tmp_path / "m").iterdir())) == 8
    (images / "0.png").unlink()
    assert main([*words, "--out", str(tmp_path / "a.csv")]) == 0
    said = capsys.readouterr().err
    assert "2 files in" in said and "of no image of this run, the first 0_mask.png" in said


def test_names_are_given_quickly():
    from kdmedlearn.clinic.predict import stems

    start = time.perf_counter()
    assert len(set(stems(["001.png"] * 20_000))) == 20_000 and time.perf_counter() - start < 2


STOPPED = """
import errno, resource, signal
from kdmedlearn.clinic import predict
from kdmedlearn.clinic.run import Predictor
what, asked = sys.argv[1], Predictor.__call__
if what == "full":  # a table of three rows
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
def call(self, images):
    call.times = getattr(call, "times", 0) + 1
    if call.times > 2 and what != "full":
        raise KeyboardInterrupt if what == "interrupted" else ZeroDivisionError("odd")
    return asked(self, images)
Predictor.__call__ = call
sys.exit(predict.main(sys.argv[3:]))
"""


@pytest.mark.parametrize(
    "what, code, says",
    [
        ("interrupted", 130, "interrupted; 2 of 4 answered"),
        ("full", 2, "a.csv takes no more rows (File too large); those in it are whole"),
        ("odd", 1, "skipped 2.png: odd"),
    ],
)
def test_what_stops_the_command_leaves_whole_rows(bundles, images, tmp_path, what, code, says):
    out = tmp_path / "a.csv"
    r = asked(STOPPED, what, 200, bundles / "classes", images, "--batch", 1, "--out", out)
    assert r.returncode == code and says in r.stderr and "Traceback" not in r.stderr, r.stderr
    text = out.read_text()
    assert text.endswith("\n") and len(text.splitlines()) >= 2
    assert {len(row) for row in csv.reader(io.StringIO(text))} == {6}


def test_a_terminal_without_the_letters_and_one_that_reads_no_more(bundles, images, monkeypatch):
    shutil.copy(images / "0.png", images / "Ödem.png")
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    code = "from kdmedlearn.clinic.predict import main; sys.exit(main())"
    r = asked(code, bundles / "classes", images)
    assert r.returncode == 0 and r.stdout.count("\n") == 6 and "\\xd6dem.png" in r.stdout, r.stderr
    gone = "import os; r, w = os.pipe(); os.close(r); os.dup2(w, 1)\n" + code
    r = asked(gone, bundles / "classes", images)
    assert r.returncode == 2 and r.stderr == ""


def test_words_of_the_command_that_make_no_sense(bundles, images, capsys):
    for words in (("--threads", "-1"), ("--threads", "10000"), ("--batch", "0")):
        with pytest.raises(SystemExit) as e:
            main([str(bundles / "classes"), str(images), *words])
        assert e.value.code == 2 and "expected 1 to" in capsys.readouterr().err
    assert main([str(bundles / "classes"), str(images / "0.png"), "--out", "-"]) == 0
    assert capsys.readouterr().out.count("\n") == 2 and not Path("-").exists()


def test_cures_are_such_that_the_command_has_them():
    from kdmedlearn.clinic.predict import why_not

    of_files = (
        ValueError("more than 9 pixels; if you trust it, raise PIL.Image.MAX_IMAGE_PIXELS"),
        ValueError("window=(0, 9) is for more than 8 bits, and this image has 8 (a set)"),
        ValueError("page=2 of 1 pages; the first is page=0"),
        ValueError("a window of the width 0, and the standard has 1; pass window=(low, high)"),
    )
    for e in of_files:
        assert not any(w in why_not(e) for w in ("PIL.Image", "window=", "page=")), why_not(e)
        assert "save" in why_not(e)


@pytest.mark.parametrize("width, how", [(0, "LINEAR"), (0.5, "LINEAR"), (0, "LINEAR_EXACT")])
def test_a_dicom_window_of_no_width_is_refused(width, how, tmp_path):
    pytest.importorskip("pydicom")
    from kdmedlearn.data.files import open_image
    from test_docs import write_dicom

    x = np.arange(64).reshape(8, 8) - 32
    write_dicom(tmp_path / "a.dcm", x)
    write_window(tmp_path / "a.dcm", 0, width, how)
    with pytest.raises(ValueError, match=f"a window of the width {width:g}, and the standard has"):
        open_image(tmp_path / "a.dcm")
    write_window(tmp_path / "a.dcm", 0.5, 1, "LINEAR")  # a threshold, at 0
    seen = np.asarray(open_image(tmp_path / "a.dcm"))
    assert (seen == 255 * (x > 0)).all()


def write_window(file, center, width, how):
    import pydicom

    ds = pydicom.dcmread(file)
    ds.WindowCenter, ds.WindowWidth, ds.VOILUTFunction = center, width, how
    ds.save_as(file)


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
    assert "ECE before the temperature | 0.100" in card  # a run of before
    for name, text, says in (
        ("config.json", json.dumps(about | dict(student_size=48)), "was trained on 32 pixels"),
        ("config.json", json.dumps(dict(data="set")), "the file was changed"),
        ("config.json", '{"data": "s', "config.json is cut or damaged"),
        ("metrics.json", "[1]", "metrics.json holds a list"),
        ("metrics.json", '{"table": []}', "no object table"),
    ):
        was = (run / name).read_text()
        (run / name).write_text(text)
        with pytest.raises(ValueError, match=says):
            export_run(run, tmp_path / "none")
        (run / name).write_text(was)
    with pytest.raises(FileExistsError, match="name another one .--out"):
        export_run(run)


def test_a_run_that_is_not_finished_says_how_to_finish_it(tmp_path):
    (tmp_path / "unfinished").mkdir()
    with pytest.raises(FileNotFoundError, match="kdmedlearn distill --resume"):
        export_run(tmp_path)


def test_a_card_in_8_bits_has_its_own_scores():
    from kdmedlearn.clinic.quantise import in_int8_words, int8_card
    from kdmedlearn.clinic.card import as_html, as_markdown, card, Known, Score

    facts = dict(name="s", task="classes", classes=["a"], size=[9, 9], channels=3, window=None)
    facts |= dict(temperature=1.0, precision="float32")
    sections = card(facts, Known(scores=[Score("accuracy", 0.876, 400)]), ["differ by 4.6e-07"])
    found = dict(way="per channel", score="accuracy", images=8, allowed=0.01)
    words = in_int8_words(found | {"float32": 0.875, "int8": 0.75})
    section = [("", []), ("Scores", words)]
    new = as_markdown(section).partition("\n\n")[2] + "\n"
    text = int8_card(as_markdown(sections), lambda h: f"## {h}\n", new)
    own, rest = text.split("## Scores of the student in float32, from which")
    assert (
        "0.750" in own and "0.876" not in own and "0.876" in rest and "8 images cannot show" in own
    )
    assert "## Checked at export of the student in float32" in rest and "in int8." in own
    new = as_html(section).partition("</h1>")[2].removesuffix("</body></html>")
    page = int8_card(as_html(sections), lambda h: f"<h2>{h}</h2>", new)
    own, rest = page.split("<h2>Scores of the student in float32")
    assert "0.750" in own and "0.876" in rest and page.count("</html>") == 1
    assert page.count("<h1>") == 1


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
    card = (tmp_path / "int8" / "card.md").read_text()
    own, rest = card.split("## Scores of the student in float32")
    assert "Scored in 8 bits on 24" in own and "dice" in own and "Computed in int8" in own
    with pytest.raises(ValueError, match="most=nan; expected a number from 0 to 1"):
        quantise(tmp_path / "full", dls, tmp_path / "x", most=float("nan"))
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


@pytest.mark.slow
@pytest.mark.parametrize("how", ["crop", "pad", "squish"])
def test_loaders_that_do_not_squeeze_are_refused(tmp_path, how):
    "fastai's Resize crops where nothing is said; a bundle would answer other images."
    from fastai.vision.all import ImageDataLoaders, Resize

    rng = np.random.default_rng(0)
    for c in "ab":
        (tmp_path / "set" / c).mkdir(parents=True)
        for i in range(6):
            x = np.linspace(0, 255, 64)[None, :, None] * np.linspace(0, 1, 32)[:, None, None]
            x = (x + 40 * rng.random()).clip(0, 255).repeat(3, 2)
            Image.fromarray(x.astype(np.uint8)).save(tmp_path / "set" / c / f"{i}.png")
    kw = dict(item_tfms=Resize(32, method=how), num_workers=0, device="cpu", seed=0)
    dls = ImageDataLoaders.from_folder(tmp_path / "set", valid_pct=0.5, bs=4, **kw)
    learn = distill(dls, small_student(2), small_student(2))
    if how != "squish":
        with pytest.raises(ValueError, match="squeezes each image to 32 x 32 pixels, and these"):
            export(learn, tmp_path / "bundle")
        return
    known = Predictor(export(learn, tmp_path / "bundle", calibrate=False))
    file = dls.valid.items[0]
    with learn.no_bar():
        p = learn.predict(file)[2]
    assert np.allclose(known([file])[0].values, p, atol=0.02)
