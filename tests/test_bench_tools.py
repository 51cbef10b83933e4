"""The benchmarks of tools/ run, with toys, and the pages show what they wrote; where a file is
missing, nothing is shown."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch

import warm
from kdmedlearn.core.taps import taps

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools" / "site"))
from results import gpu, methods, peers, several, shared  # noqa: E402


def run(name, out, *args):
    file = ROOT / "tools" / "bench" / f"{name}.py"
    done = warm.run(file, *args, "--out", out)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(out.read_text())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    "The folder of results that the parts of the pages read."
    for part in (gpu, methods, peers, several, shared):
        monkeypatch.setattr(part, "RESULTS", tmp_path)
    return tmp_path


def test_without_a_file_nothing_is_shown(folder):
    assert methods.page() == peers.page() == ""
    assert "How cost grows" not in several.page()
    assert "has run with toys on a processor only" in gpu.large()


@pytest.mark.slow
def test_a_step(tmp_path):
    args = "--bs 4 --size 32 --repeats 1 --steps 1".split()
    entry = run("step", tmp_path / "step.json", *args)[0]
    assert entry["ratio"] > 0 and entry["command"] == f"python tools/bench/step.py {' '.join(args)}"


@pytest.mark.slow
def test_the_script_for_a_gpu(folder):
    found = run("gpu", folder / "bench_gpu_large.json", "--tiny", "--rounds", "1")
    assert len(found["steps"]) == 8 and found["left out"] == []
    page = gpu.large()
    assert "bfloat16, compiled" in page and "small_unet, large_unet" in page


@pytest.mark.slow
def test_what_has_no_time_is_left_out_and_told(folder):
    found = run("gpu", folder / "bench_gpu_large.json", "--tiny", "--minutes", "0")
    assert found["steps"] == [] and len(found["left out"]) == 8
    assert "- kdas, bfloat16, compiled: no time" in gpu.large()


@pytest.mark.slow
def test_growth(folder):
    args = "--images 64 96 --teachers 1 --processes 1 --rounds 1".split()
    found = run("growth", folder / "growth.json", *args)
    assert [r["images"] for r in found["images"]] == [64, 96]
    assert [r["processes"] for r in found["processes"]] == [1]
    page = several.page()
    assert "| images | asking once | files | opening again |" in page and "| 1 |" in page
    assert f"| {found['images'][0]['kept to alone']:.2f} |" in page  # a ratio has no seconds


@pytest.mark.slow
def test_the_cost_of_a_student(tmp_path, monkeypatch):
    import torch

    from kdmedlearn import distill
    from kdmedlearn.data.phantom import phantom_dls
    from kdmedlearn.models.small import small_student
    from kdmedlearn.train.teachers import phantom_teacher

    monkeypatch.syspath_prepend(ROOT / "tools" / "bench")
    bench = importlib.import_module("clinic")
    monkeypatch.setattr(bench, "timed_in_browser", lambda *a: [2.0, 3.0, 4.0])
    monkeypatch.setattr(torch, "compile", lambda network: network)
    dls = phantom_dls(n_train=32, n_valid=48, size=32, bs=16, device="cpu")
    learn = distill(dls, small_student(len(dls.vocab)), phantom_teacher(), "response")
    rows = bench.cost_of("small_student", learn, dls, dls.valid, 3, None)
    by = {r["way"]: r for r in rows}
    assert {"PyTorch", "torch.compile", "ONNX Runtime", "ONNX Runtime, int8", "browser"} <= set(by)
    same = by["PyTorch"]["accuracy"]
    assert all(r["accuracy"] == same for k, r in by.items() if "int8" not in k)
    assert by["ONNX Runtime, int8"]["kB"] < by["ONNX Runtime"]["kB"]
    assert by["browser"]["ms"] == 3 and all(r["quarters"][0] <= r["ms"] for r in rows)


def test_losses_beside_one_another_are_ranked_and_ties_called_ties(monkeypatch):
    losses = importlib.import_module("results.losses")
    score = {"Response": (0.8, 0.7, 0.9), "DKD": (0.85, 0.75, 0.95), "DIST": (0.81, 0.69, 0.9)}
    runs = [
        {"arm": a, "draw": d, "test accuracy": v, "method": f"{a}()"}
        for a, of in score.items()
        for d, v in enumerate(of)
    ]
    search = [{"arm": "DKD", "method": "DKD()", "valid accuracy": 0.9}]
    made = dict(command="c", search=search, runs=runs)
    before = [{"arm": "taught on all images", "draw": d, "test accuracy": 0.78} for d in (0, 3)]
    of = dict(mri_losses=made, mri_unlabelled=dict(runs=before), kvasir_losses=dict(runs=[]))
    monkeypatch.setattr(losses, "read", of.get)
    page = losses.page()
    assert "differ by +2.0 points" in page  # the one draw that both have
    assert "ahead of it: DKD; level with it: DIST." in page and "behind" not in page
    assert page.index("| DKD | `DKD()` | 85.0") < page.index("| Response |")
    assert "| DIST | `DIST()` | 80.0 ± 10.5 | +0.0 |" in page and "3 draws" in page
    # what is left of a two-way table of the three
    assert "error of a difference is 0.5 points" in page
    made["runs"] = []
    assert losses.page() == ""


def test_shares_of_masks_are_judged_by_both_errors(monkeypatch):
    part = importlib.import_module("results.unlabelled")
    score = {
        "teacher": (0.9, 0.9, 0.9),
        "alone": (0.70, 0.72, 0.74),
        "sure": (0.80, 0.82, 0.84),
        "by luck": (0.70, 0.72, 0.88),
        "worse": (0.60, 0.62, 0.64),
    }
    runs = [
        {"arm": a, "draw": d, "share": 0.1, "test dice": v}
        for a, of in score.items()
        for d, v in enumerate(of)
    ]
    said = part.share_of_masks(runs, 0.1)
    assert "above the student alone: sure; below the student alone: worse." in said
    assert "by 4.3 of it, 95 % of 3 draws, these differ: sure; worse." in said
    assert "| by luck | 3 | 76.7 ± 9.9 | +4.7 ± 4.7 |" in said and "10% of the masks" in said
    few = part.share_of_masks([r for r in runs if r["draw"] < 2], 0.1)
    assert "So few draws decide nothing." in few and "sure;" not in few


def test_kept_answers_and_maps_are_those_of_the_view():
    sys.path.insert(0, str(ROOT / "tools" / "experiments"))
    views = importlib.import_module("views")
    x = torch.randint(0, 256, (2, 5, 1, 8, 8), dtype=torch.uint8)
    kept = dict(x=x, z=torch.randn(2, 5, 4), maps=torch.randn(2, 5, 3, 2, 2).half())
    model = views.memory({"labelled": kept}).model
    with taps(model, ["map"]) as seen:
        out = model(views.pixels(x[1]))
    assert torch.equal(out, kept["z"][1]) and torch.equal(seen["map"], kept["maps"][1].float())
    with taps(model, ["map"]) as seen:  # two images that it never saw: their places, no more
        model(torch.rand(2, 1, 8, 8))
    assert torch.equal(seen["map"][:, 0], seen["map"][:, 2])
    with pytest.raises(KeyError, match="not answered"):
        model(torch.rand(views.PROBES - 1, 1, 8, 8))


def test_what_the_probe_says_of_the_mri_is_shown(monkeypatch):
    part = importlib.import_module("results.unlabelled")
    gap = dict(mean=0.031, error=0.012)
    row = dict(share=0.1, draw=0, steps=300, seeds=1, headroom=gap, early=gap, gain=gap)
    rows = [row | dict(answer="likely gain"), row | dict(share=1.0, seeds=3, answer="no gain")]
    arms = {"alone": (0.7, 0.8), "taught on all images": (0.72, 0.84)}
    runs = [
        {"arm": a, "draw": d, "share": 0.1, "test accuracy": v, "valid accuracy": 0.9}
        for a, of in arms.items()
        for d, v in enumerate(of)
    ]
    of = dict(mri_probe=dict(command="c", runs=rows), mri_unlabelled=dict(runs=runs))
    monkeypatch.setattr(part, "read", of.get)
    said = part.probed()
    assert "| 10% | 1 | +3.1 ± 1.2 | +3.1 ± 1.2 | +3.1 ± 1.2 | likely gain |" in said
    assert "| 100% | 3 |" in said and "a short training of 300 steps" in said
    assert "is +3.0 ± 1.0 on test images and +0.0 ± 0.0 on validation images" in said


def test_soft_answers_are_told_from_hard_ones(monkeypatch):
    part = importlib.import_module("results.softness")
    up, far = (0.80, 0.82, 0.84, 0.81, 0.80), (0.70, 0.72, 0.75, 0.70, 0.70)
    soft = {"good": up, "good, calibrated": far, "noisy labels": (0.7, 0.8, 0.6, 0.7, 0.8)}
    hard = {"good": (0.75, 0.77, 0.80, 0.76, 0.75), "noisy labels": (0.71, 0.72, 0.71, 0.7, 0.7)}
    row = lambda case, arm, k, v: dict(kind="run", case=case, arm=arm, seed=k, accuracy=v)
    arms = (("soft", soft), ("hard", hard), ("alone", {"good": (0.6,) * 5}))
    runs = [row(c, a, k, v) for a, of in arms for c, vs in of.items() for k, v in enumerate(vs)]
    said = dict(kind="teacher", seed=0, accuracy=0.9, sureness=0.95)
    f = dict(command="c", labels=200, more=2000, steps=1000, batch=32, others=2000, redrawn=0.4)
    f["runs"] = runs + [said | {"case": c} for c in soft]
    monkeypatch.setattr(part, "read", lambda name: f)
    monkeypatch.setattr(part, "RESULTS", Path(__file__).parent)
    assert part.page() == ""  # no file
    monkeypatch.setattr(Path, "is_file", lambda self: True)
    page = part.page()
    assert (
        "soft answers are ahead: *good*; behind: *good, calibrated*; not told apart: *noisy" in page
    )
    assert "| good, calibrated | 5 | 90.0 | 95.0 | 60.0 | 76.6 | 71.4 |  | -5.2 ± 0.2 |" in page
    assert (
        "3 comparisons" in page
        and "2 of the 3 differences are above 0" in page
        and "40% were drawn anew" in page
    )
    f["runs"] = [r for r in f["runs"] if r["seed"] < 3]
    assert part.page() == ""  # not before all seeds are there


def test_scores_of_a_search_stand_in_the_order_of_their_seeds(monkeypatch):
    part = importlib.import_module("results.unlabelled")
    alone = lambda seed, v: (
        dict(kind="alone", lr=0.01, average=None, mixup=None, seed=seed) | dict(accuracy=v)
    )
    runs = [
        dict(arm=a, seed=s, accuracy=v + v * s / 50)
        for a, v in (("alone", 0.6), ("pseudo-labels", 0.8), ("taught on all images", 0.9))
        for s in range(3)
    ]
    runs.append(dict(arm="teacher", seed=0, accuracy=0.95))
    f = dict(command="c", steps=9, tune=[alone(101, 0.5), alone(100, 0.7)], runs=runs)
    monkeypatch.setattr(part, "read", lambda name: f)
    assert "| 0.01 | no | no | 70.0, 50.0 |" in part.phantom()


def test_the_search_with_few_masks_is_shown_beside_them():
    part = importlib.import_module("results.unlabelled")
    row = lambda lr, v, share=0.02: {
        "share": share,
        "lr": lr,
        "augment": "strong",
        "steps": 1000,
        "valid dice": v,
    }
    rows = [row(0.01, 0.41), row(0.003, 0.44), row(0.03, 0.9, 0.1)]
    said = part.searched(rows, 0.02, dict(lr=0.003, augment="strong"))
    assert said.index("| 0.003 | strong | 1,000 | 44.0 |") < said.index("| 0.01 |")
    assert "0.03 |" not in said and "is the best again" in said
    assert "Another recipe is better" in part.searched(rows, 0.02, dict(lr=0.01))
    assert part.searched([row(0.01, 0.4, 0.1)], 0.1, {}) == ""
