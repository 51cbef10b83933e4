"""The command line end to end on tiny data, and the wheel in a place without the checkout."""

import shlex
import json, os, re, subprocess, sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from helpers import folder_set
from kdmedlearn.cli import app
from kdmedlearn.models.weights import about_model, load_model

ROOT = Path(__file__).parents[1]


def call(*args):
    r = CliRunner().invoke(app, [str(a) for a in args])
    if r.exception and not isinstance(r.exception, SystemExit):
        raise r.exception
    return r


@pytest.fixture
def runs(tmp_path):
    "Where the runs of a test go."
    return tmp_path / "runs"


@pytest.fixture
def shapes(tmp_path):
    "The folder of made-up images that `distill` learns from."
    return folder_set(tmp_path / "shapes")


@pytest.fixture
def distill(tmp_path, runs):
    "`kdmedlearn distill` on the folder of images that the test has made, short; more options last."

    def run(*args):
        short = ("--epochs", 1, "--size", 32, "--bs", 4)
        return call("distill", "--data", tmp_path / "shapes", "--runs", runs, *short, *args)

    return run


def read(path):
    return json.loads(path.read_text())


@pytest.mark.slow
def test_demo_writes_a_run_and_never_over_one(runs):
    short = ("--steps", 3, "--n-train", 48, "--unlabelled", 48, "--size", 32)
    demo = lambda: call("demo", *short, "--runs", runs)
    first = demo()
    assert first.exit_code == 0
    assert "student distilled" in first.output and "report: " in first.output
    run = runs / "demo"
    assert {p.name for p in run.iterdir()} == {
        "student.safetensors",
        "config.json",
        "metrics.json",
        "report.html",
    }
    before = {p: p.read_bytes() for p in run.iterdir()}
    assert demo().exit_code == 0 and (runs / "demo-2" / "report.html").exists()
    assert all(p.read_bytes() == b for p, b in before.items())

    page = (run / "report.html").read_text()
    assert (
        page.count("Plotly.newPlot(") >= 3
        and "not a medical device" in page
        or "Nothing here is a medical device" in page
    )
    body = re.sub(r"<script.*?</script>", "", page, flags=re.S)
    assert not re.search(r"(src|href)\s*=\s*[\"']?https?:", body)
    assert not re.search(r"<script[^>]+src=", page)
    m = read(run / "metrics.json")
    assert set(m["table"]) == {"teacher", "student alone", "student distilled"}
    assert m["gain"]["n"] == 1
    assert read(run / "config.json")["versions"]["kdmedlearn"]


@pytest.mark.slow
def test_distill_on_a_folder_and_the_student_read_back(tmp_path, shapes, runs, distill):
    args = ("--epochs", 2, "--bs", 8, "--seeds", 2, "--param", "T=2")
    r = distill(*args)
    assert r.exit_code == 0, r.output
    run = runs / "shapes"
    assert about_model(run / "student.safetensors")["vocab"] == ["disc", "ring"]
    assert load_model(run / "student.safetensors").in_chans == 1
    c = read(run / "config.json")
    assert c["method"] == "Response(T=2, alpha=0.9)" and str(tmp_path) not in json.dumps(c)
    # the teacher of that run, again, and two parts of the data
    again = ("--teacher", run / "teacher.safetensors", "--fraction", 1, "--fraction", 0.5)
    r = distill(*args, *again)
    assert r.exit_code == 0 and "training the teacher" not in r.output
    assert {p.parent.name for p in (runs / "shapes-2").rglob("metrics.json")} == {
        "fraction-1",
        "fraction-0.5",
    }


@pytest.mark.parametrize("method, param", [("feature", "lam=.5"), ("relation", "heads=2")])
def test_distill_with_features_and_attention_of_one_teacher(shapes, runs, distill, method, param):
    small = ("--student", "guided_student", "--teacher", "small_student")
    r = distill("--method", method, "--param", param, *small)
    assert r.exit_code == 0, r.output
    m = read(runs / "shapes" / "config.json")
    assert param.split("=")[0] in m["method"] and m["student"] == "guided_student"


def test_several_teachers_and_no_test_set(tmp_path, runs, distill):
    folder_set(tmp_path / "shapes", test=False)
    two = ("--method", "ensemble", "--teacher", "small_student", "--teacher", "guided_student")
    r = distill(*two)
    assert r.exit_code == 0, r.output
    run = runs / "shapes"
    assert {p.name for p in run.glob("*.safetensors")} == {
        "teacher-1.safetensors",
        "teacher-2.safetensors",
        "student.safetensors",
    }
    assert list(read(run / "metrics.json")["table"]) == [
        "teacher 1: small_student",
        "teacher 2: guided_student",
        "student alone",
        "student distilled",
    ]
    assert "There is no test set" in (run / "report.html").read_text()
    r = distill(*two, "--teacher", "small_student")
    assert r.exit_code == 2 and "--teacher small_student is given twice" in r.output


@pytest.mark.slow
def test_distill_with_hdkd_and_rare_classes(tmp_path, runs, distill):
    data = folder_set(tmp_path / "shapes", n=10)
    for p in list((data / "train" / "ring").iterdir())[:6]:
        p.unlink()
    hdkd = lambda student, *args: distill(
        "--method", "hdkd", "--teacher", "hdkd_teacher_small", "--student", student, *args
    )
    small = "hdkd_student_small"
    r = hdkd(small, "--balance", "weights", "--param", "lam=1")
    assert r.exit_code == 0, r.output
    run = runs / "shapes"
    assert about_model(run / "student.safetensors")["img_size"] == 32
    assert load_model(run / "student.safetensors").img_size == (32, 32)
    assert read(run / "config.json")["balance"] == "weights"
    # what does not fit is answered before a teacher is trained or a folder is made
    r = hdkd("small_student")
    assert r.exit_code == 2 and "no layer 'head_" in r.output
    assert "training the teacher" not in r.output and not (runs / "shapes-2").exists()
    r = hdkd(small, "--balance", "smote", "--fraction", ".5")
    assert r.exit_code == 2 and "too few for k=" in r.output
    assert "training the teacher" not in r.output
    r = hdkd(small, "--balance", "weight")
    assert r.exit_code == 2 and "weights" in r.output


def ham(root, lesions=16):
    "Made-up images in the form of HAM10000: two folders, a table, lesions seen twice."
    rows = []
    for i in range(2 * lesions):
        lesion, part = i // 2, 1 + i // lesions
        kind = lesion % 2
        rng = np.random.default_rng(i)
        x = rng.integers(0, 60, (24, 32, 3)) + 120 * kind
        f = root / "shapes" / f"HAM10000_images_part_{part}" / f"ISIC_{i:07}.jpg"
        f.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(x.astype(np.uint8)).save(f)
        rows.append((f"HAM_{lesion:07}", f.stem, ("nv", "mel")[kind], "histo"))
    names = ["lesion_id", "image_id", "dx", "dx_type"]
    pd.DataFrame(rows, columns=names).to_csv(root / "shapes" / "HAM10000_metadata.csv", index=False)
    return root


def test_a_table_of_lesions(tmp_path, runs, distill):
    ham(tmp_path)
    table = ("--table", "HAM10000_metadata.csv", "--group", "lesion_id", "--test", 0.25)
    r = distill(*table)
    assert r.exit_code == 0, r.output
    run = runs / "shapes"
    t = pd.read_csv(run / "images.csv")
    assert set(t.split) == {"train", "valid", "test"} and len(t) == 32
    assert t.groupby("group").split.nunique().max() == 1 and t.group.nunique() == 16
    true = pd.read_csv(tmp_path / "shapes" / "HAM10000_metadata.csv").set_index("image_id")
    listed = t.assign(id=t.file.str.extract(r"(ISIC_\d+)")[0]).set_index("id")
    assert (listed.label == true.dx[listed.index]).all()
    assert (listed.group == true.lesion_id[listed.index]).all()
    config = json.loads((run / "config.json").read_text())
    assert (config["table"], config["test"]) == ("HAM10000_metadata.csv", 0.25)
    assert str(tmp_path) not in json.dumps(config)
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["near duplicates"]["said"] in (run / "report.html").read_text()


def test_several_labels_an_image(tmp_path, runs, distill):
    ham(tmp_path)
    f = tmp_path / "shapes" / "HAM10000_metadata.csv"
    t = pd.read_csv(f)
    t.assign(dx=[("nv", "mel", "nv;mel")[i // 2 % 3] for i in range(len(t))]).to_csv(f, index=False)
    said = ("--table", f.name, "--sep", ";", "--group", "lesion_id", "--valid", 0.4)
    r = distill(*said)
    assert r.exit_code == 0, r.output
    m = read(runs / "shapes" / "metrics.json")
    assert list(m["table"]["teacher"])[:2] == ["mean AUC", "macro F1"]
    assert about_model(runs / "shapes" / "student.safetensors")["vocab"] == ["mel", "nv"]
    assert "Mean AUC: student alone" in r.output
    r = distill(*said, "--method", "ensemble")
    assert r.exit_code == 2 and "the data have several labels" in r.output
    t.assign(dx=range(len(t))).to_csv(f, index=False)
    r = distill("--table", f.name, "--kind", "number")
    assert r.exit_code == 2 and "answered with numbers" in r.output


@pytest.mark.parametrize(
    "args, words",
    [
        (("--label", "diagnosis"), "diagnosis"),
        (("--group", "patient"), "patient"),
        (("--kind", "clas"), "near: 'class'"),
        (("--label", "lesion_id", "--kind", "number"), "number"),
        (("--masks", "masks"), "mask"),
    ],
)
def test_wrong_use_of_a_table_is_one_sentence(tmp_path, distill, args, words):
    ham(tmp_path, 4)
    r = distill("--table", "HAM10000_metadata.csv", *args)
    text = " ".join(r.output.split())
    assert r.exit_code == 2 and words in text and "Traceback" not in text


def test_images_of_more_than_8_bits_have_a_window(tmp_path, distill):
    for k in range(16):
        x = np.random.default_rng(k).integers(0, 900, (20, 20)) + 2000 * (k % 2)
        f = tmp_path / "shapes" / ("dark", "light")[k % 2] / f"{k}.png"
        f.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(x.astype(np.uint16)).save(f)
    assert distill().exit_code == 2
    r = distill("--window", "0,4095")
    assert r.exit_code == 0, r.output


@pytest.mark.parametrize(
    "args, words",
    [
        (["distill", "--data", "nowhere"], "nowhere"),
        (
            ["distill", "--data", "DATA", "--method", "hdkd", "--param", "T=0"],
            "temperature T must be positive",
        ),
        (
            ["distill", "--data", "DATA", "--student", "hdkd_student", "--size", "40"],
            "multiples of 16; got 40x40",
        ),
        (["distill", "--data", "DATA", "--method", "respons"], "near: response"),
        (["distill", "--data", "DATA", "--param", "alpha=7"], "alpha must lie in"),
        (["distill", "--data", "DATA", "--param", "beta=1"], "no hyperparameter 'beta'"),
        (["distill", "--data", "DATA", "--student", "smal_student"], "near: small_student"),
        (["distill", "--data", "DATA", "--teacher", "none.safetensors"], "no file"),
        (["distill", "--data", "DATA", "--teacher", "best.pth"], "pickled files can run code"),
        (
            ["distill", "--data", "DATA", "--size", "32", "--teacher", "inception_v3"],
            "teacher InceptionV3 fails on a batch of shape",
        ),
        (["distill", "--data", "DATA", "--group", "patient"], "patient"),
        (["demo", "--size", "8"], "--size"),
        (["notebooks", "FILE"], "is a file"),
    ],
)
def test_wrong_use_is_one_sentence(tmp_path, args, words):
    folder_set(tmp_path / "d", n=4)
    (tmp_path / "f").write_text("x")
    r = call(*[{"DATA": tmp_path / "d", "FILE": tmp_path / "f"}.get(a, a) for a in args])
    text = re.sub(r"\s*[│\n]\s*", " ", r.output)
    assert r.exit_code == 2 and words in text and "Traceback" not in r.output


@pytest.mark.slow
def test_wheel_works_without_the_checkout(tmp_path):
    src = tmp_path / "src"
    files = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split("\n")
    for f in filter(None, files):  # as a clone has them: building must not write into this one
        if not (ROOT / f).is_file():
            continue
        (src / f).parent.mkdir(parents=True, exist_ok=True)
        (src / f).write_bytes((ROOT / f).read_bytes())
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", tmp_path, src],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    subprocess.run([sys.executable, "-m", "zipfile", "-e", wheel, tmp_path / "site"], check=True)
    assert (tmp_path / "site" / "kdmedlearn" / "py.typed").exists()
    env = dict(os.environ, PYTHONPATH=str(tmp_path / "site"))
    code = (
        "import kdmedlearn, sys; from kdmedlearn.train.teachers import phantom_teacher;"
        " phantom_teacher(); print(kdmedlearn.__file__); from kdmedlearn.cli import app;"
        " app(['notebooks', 'course'])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=env,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert str(tmp_path / "site") in out
    assert {p.name for p in (tmp_path / "course").rglob("*.ipynb")} == {
        p.name for p in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts
    }


class Killed(BaseException):
    "What nothing catches."


@pytest.fixture
def dies(monkeypatch):
    "A function: the n-th batch from now on, of training or validation, is the last one."
    from fastai.learner import Learner

    left, one = [None], Learner.one_batch

    def one_batch(self, i, b):
        one(self, i, b)
        if left[0] is not None:
            left[0] -= 1
            if not left[0]:
                raise Killed

    monkeypatch.setattr(Learner, "one_batch", one_batch)
    return lambda n: left.__setitem__(0, n)


def results(run):
    "Weights and scores of a run, without what a clock says."
    found = {str(p.relative_to(run)): p.read_bytes() for p in run.rglob("*.safetensors")}
    for p in run.rglob("metrics.json"):
        m = read(p)
        for row in m["table"].values():
            row.pop("ms per image")
        found[str(p.relative_to(run))] = m
    return found


@pytest.mark.slow
def test_resume_after_any_death_gives_the_same_results(shapes, runs, distill, dies, monkeypatch):
    "A teacher and two students for each of two parts of the images, five deaths, six lives."
    import torch

    from kdmedlearn.experiments import report

    two = ("--epochs", 2, "--bs", 8, "--fraction", 1, "--fraction", 0.5)
    two += ("--teacher", "small_student")
    torch.manual_seed(3)
    assert distill(*two, "--name", "whole").exit_code == 0
    torch.manual_seed(3)
    batches = 3 + 1  # an epoch's, of training and validation, of all images
    dies(batches + 2)  # the teacher's second epoch
    with pytest.raises(Killed):
        distill(*two, "--name", "killed")
    run = runs / "killed"
    again = lambda: call("distill", "--resume", run)
    for n in (
        batches,  # the teacher's last validation, then the student alone
        2 * batches,
        batches + 1,
        2 * batches + 3,
    ):
        dies(n)
        with pytest.raises(Killed):
            again()
    dies(None)

    def killed(*args):
        raise Killed

    with monkeypatch.context() as m, pytest.raises(Killed):
        m.setattr(report, "write_report", killed)
        again()
    r = again()
    assert r.exit_code == 0, r.output
    assert {p.name for p in run.iterdir()} == {p.name for p in (runs / "whole").iterdir()}
    assert results(run) == results(runs / "whole")
    r = again()
    assert r.exit_code == 0 and "is finished, nothing to do" in " ".join(r.output.split())


def test_resume_takes_no_other_options_and_no_other_folder(tmp_path, runs, distill):
    r = call("distill", "--resume", runs, "--lr", 0.1, "--param", "T=2")
    text = " ".join(r.output.split())
    assert r.exit_code == 2 and "leave out --param, --lr" in text
    r = call("distill", "--resume", tmp_path)
    assert r.exit_code == 2 and "is no run of kdmedlearn distill" in " ".join(r.output.split())
    r = call("distill")
    assert r.exit_code == 2 and "--data is missing" in r.output


def test_a_student_of_masks_may_see_fewer_pixels():
    from kdmedlearn import phantom_dls
    from kdmedlearn.cli import Asked, student_for

    dls = phantom_dls(n_train=4, n_valid=4, size=32, bs=4, task="segment", device="cpu")
    dls.facts = {"channels": 3, "size": 32}
    m, sizes = student_for(Asked(data="", student="small_unet", student_size=16), dls)(), []
    m.register_forward_hook(lambda m, i, o: sizes.append(i[0].shape[2]))
    x = dls.valid.one_batch()[0]
    assert m(x).shape == (4, 1, 32, 32) and sizes == [16]


def test_what_was_asked_comes_back_with_its_paths(tmp_path):
    "JSON knows text alone; each option that takes a path is one again."
    from kdmedlearn.cli import ARE_PATHS, AskedRun, Unfinished

    given = {k: tmp_path / k for k in ARE_PATHS}
    asked = AskedRun(**given, mixup=0.2)
    Unfinished(tmp_path).begin(asked)
    assert {"data", "manifest", "table", "runs", "cache", "resume"} == set(ARE_PATHS)
    assert Unfinished(tmp_path).asked()[0] == asked


@pytest.mark.parametrize("option", ["--mixup", "--cache", "--views", "--control"])
def test_the_probe_takes_no_option_that_it_does_not_use(option):
    r = call("probe", "--data", ".", option, "1")
    assert r.exit_code == 2 and "No such option" in r.output


@pytest.mark.slow
def test_masks_are_probed(tmp_path, runs):
    from kdmedlearn.data.sets.polyps import write_phantom_polyps

    polyps = write_phantom_polyps(tmp_path / "polyps", n_train=12, n_valid=6, size=32, seed=0)
    few = ("--size", 32, "--bs", 4, "--fraction", 0.5, "--unlabelled", "rest", "--seen", "skip")
    few += ("--teacher", "small_unet", "--teacher-epochs", 1, "--steps", 2, "--seeds", 1)
    r = call("probe", "--data", polyps, "--method", "softmasks", *few, "--runs", runs)
    assert r.exit_code == 0, r.output
    assert "images with a mask" in r.output and "Validation masks that" in r.output
    (found,) = (read(f) for f in runs.rglob("probe.json"))
    assert set(found["dice"]) >= {"teacher", "alone", "taught, longer"} and found["unlabelled"]
    assert "Dice on the validation images" in next(runs.rglob("report.html")).read_text()


@pytest.mark.slow
@pytest.mark.parametrize("wrong", ["rate", "method", "mixup"])
def test_what_is_wrong_is_said_before_a_teacher_is_trained(tmp_path, shapes, runs, wrong):
    from kdmedlearn.data.sets.polyps import write_phantom_polyps

    small = ("--size", 32, "--bs", 2, "--epochs", 1, "--runs", runs)
    if wrong == "rate":
        r = call("probe", "--data", shapes, "--lr", 0, *small)
    else:
        polyps = write_phantom_polyps(tmp_path / "polyps", n_train=6, n_valid=4, size=32, seed=0)
        if wrong == "method":
            r = call("probe", "--data", polyps, "--method", "hdkd", *small)
        else:
            for f in sorted(polyps.rglob("masks/*")):  # three classes, as PNG
                m = np.array(Image.open(f).convert("L")) // 86
                f.unlink()
                Image.fromarray(m).save(f.with_suffix(".png"))
            mixed = ("--method", "pixelkl", "--classes", "wall,polyp,tool", "--mixup", 0.2)
            r = call("distill", "--data", polyps, "--steps", 2, *mixed, *small)
    said = {"rate": "lr", "method": "hdkd is for", "mixup": "mixup blends targets"}[wrong]
    assert r.exit_code and said in " ".join(r.output.split()) and not runs.exists(), r.output


def test_lines_to_copy_survive_a_shell(tmp_path):
    from kdmedlearn.cli import resume_line

    assert shlex.split(resume_line(tmp_path / "my set"))[-1] == str(tmp_path / "my set")
