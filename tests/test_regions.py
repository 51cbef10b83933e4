"""Masks of several classes and pixels that do not count: scores against counts by hand, and the
same from Python and from the command line, border or not."""

import json

import fastai.callback.all  # no_bar
import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from fastai.learner import Learner
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from helpers import OtherPixels, Wrapped
from kdmedlearn.cli import app
from kdmedlearn.core.method import METHODS
from kdmedlearn.core.outputs import Outputs
from kdmedlearn.core.teacher import norm_of, Teacher
from kdmedlearn.data.masks import IGNORE, mask_dls
from kdmedlearn.evaluation.compare import compare, kind_of, scoring_of
from kdmedlearn.evaluation.masks import dice, evaluate_masks, iou, mask_scores, worst_figure
from kdmedlearn.evaluation.regions import (
    evaluate_regions,
    region_counts,
    region_means,
    region_scores,
    RegionDice,
    score_regions,
)
from kdmedlearn.experiments.experiment import experiment, gain, task_loss
from kdmedlearn.methods.kdas import KDAS
from kdmedlearn.models.unet import small_unet
from kdmedlearn.models.weights import about_model, load_model
from kdmedlearn.train.distillation import distill
from kdmedlearn.train.teachers import check_teacher

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
NAMES = ["wall", "polyp", "tool"]
SIZE, HIGH, WIDE = 32, 36, 44  # of the network; of the files


def drawn(k, border=255):
    "Image and mask of a made-up polyp with a border, and a tool on two of three."
    rng = np.random.default_rng(k)
    far = np.hypot(*(np.mgrid[:HIGH, :WIDE] - np.array([14 + k % 8, 15 + k % 11])[:, None, None]))
    m = np.zeros((HIGH, WIDE), np.uint8)
    m[far < 11], m[far < 8] = border, 1
    if k % 3:
        m[:, 34 + k % 5 : 38 + k % 5] = 2
    x = np.array([60, 190, 120])[np.where(m == border, 0, m)] + rng.integers(0, 30, m.shape)
    return np.stack([x, x // 2, 255 - x], -1).astype(np.uint8), m


def write(root, n=14, border=255, tool=True):
    for d in ("images", "masks"):
        (root / d).mkdir(parents=True)
    for k in range(n):
        x, m = drawn(k, border)
        m = m if tool else np.where(m == 2, 0, m)
        Image.fromarray(x).save(root / "images" / f"{k}.png")
        Image.fromarray(m).save(root / "masks" / f"{k}.png")
    return root


def read(root, **kw):
    said = dict(size=SIZE, bs=4, valid=0.4, device="cpu", ignore=255)
    return mask_dls(root, **said | kw)


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    "Three classes, the border ignored."
    return read(write(tmp_path_factory.mktemp("three") / "set"), classes=NAMES)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    "Two classes, the border ignored, one channel."
    root = write(tmp_path_factory.mktemp("two") / "set", tool=False)
    return read(root, target="channel")


def by_hand(answer, mask, c, border=255):
    "Dice and IoU of class `c`, pixel by pixel; NaN where it is nowhere."
    both = either = sizes = 0
    for a, m in zip(answer.ravel(), mask.ravel()):
        if m == border:
            continue
        both += a == c and m == c
        either += a == c or m == c
        sizes += int(a == c) + int(m == c)
    return (2 * both / sizes, both / either) if either else (np.nan, np.nan)


def answers(model, dl, thresholded=False):
    "For each image its file, what the model answers at the size of the file, and the mask there."
    model = model.eval()
    with torch.no_grad():
        z = torch.cat([model(x).as_subclass(torch.Tensor) for x, _ in dl])
    z = F.interpolate(z, size=(HIGH, WIDE), mode="bilinear")
    a = z[:, 0] > 0 if thresholded else z.argmax(1)
    file = lambda f: np.array(Image.open(f.parents[1] / "masks" / f.name))
    return [(f.name, o.numpy().astype(int), file(f)) for f, o in zip(dl.items, a)]


# ---- counts and scores


def random_case(n, seed, shape=(3, 9, 11)):
    g = torch.Generator().manual_seed(seed)
    z = torch.randn(shape[0], max(n, 1), *shape[1:], generator=g)
    y = torch.randint(0, max(n, 2), shape, generator=g)
    y[torch.rand(shape, generator=g) < 0.2] = IGNORE
    return z, y


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", range(3))
def test_scores_are_the_loop_over_pixels(n, seed):
    z, y = random_case(n, seed)
    y[0][y[0] == 1] = 0  # a class may be missing
    t = region_scores(region_counts(z, y))
    a = (z[:, 0] > 0).long() if n == 1 else z.argmax(1)
    for i in range(len(z)):
        for c in range(max(n, 2)):
            d, j = by_hand(a[i].numpy(), y[i].numpy(), c)
            np.testing.assert_allclose(t.loc[i, [f"dice {c}", f"iou {c}"]], [d, j], rtol=1e-12)


def test_what_is_answered_on_ignored_pixels_changes_nothing():
    z, y = random_case(3, 0)
    other = torch.where((y == IGNORE)[:, None], torch.randn_like(z), z)
    assert torch.equal(region_counts(z, y), region_counts(other, y))
    assert torch.equal(region_counts(z, y), region_counts(z, y[:, None].float()))
    assert region_counts(z, torch.full_like(y, IGNORE)).sum() == 0


def test_heads_are_added_and_one_logit_is_the_second_class():
    z, y = random_case(1, 4)
    assert torch.equal(region_counts((z / 4, 3 * z / 4), y), region_counts(z, y))
    assert torch.equal(region_counts(torch.cat([0 * z, z], 1), y), region_counts(z, y))


def test_a_class_that_is_nowhere_counts_for_nothing_and_one_of_them_is_0():
    y = torch.tensor([[[0, 1, 1, 0]], [[0, 0, 0, 0]], [[0, 0, 0, 0]]])
    a = torch.tensor([[[0, 1, 0, 0]], [[0, 0, 0, 0]], [[0, 1, 0, 0]]])
    t = region_scores(region_counts(F.one_hot(a, 3).movedim(-1, 1), y), NAMES)
    assert t["dice polyp"].tolist()[::2] == [pytest.approx(2 / 3), 0]
    assert np.isnan(t["dice polyp"][1]) and t["dice tool"].isna().all()
    means = region_means(t, NAMES)
    assert means["dice"] == means["dice polyp"] == pytest.approx(1 / 3)
    assert np.isnan(means["dice tool"]) and means["iou"] == pytest.approx(1 / 4)


@pytest.mark.parametrize(
    "z, y, says",
    [
        (torch.zeros(1, 3, 4, 4), torch.full((1, 4, 4), 3), "classes from 3 to 3, the map 3"),
        (torch.zeros(1, 1, 4, 4), torch.full((1, 4, 4), 2), "the map 2 channels"),
        (torch.zeros(1, 3, 4, 4), torch.zeros(1, 4, 5), "do not fit"),
        (torch.zeros(1, 3), torch.zeros(1), "is it a segmentation model"),
    ],
)
def test_what_does_not_fit_is_answered(z, y, says):
    with pytest.raises(ValueError, match=says):
        region_counts(z, y)


# ---- a loader


def test_three_classes_of_files_are_counted_by_hand(three):
    torch.manual_seed(0)
    net = small_unet(3)
    t, means = evaluate_regions(net, three.valid), score_regions(net, three.valid)
    assert net.training and list(t.index) == [f.name for f in three.valid.items]
    for name, a, m in answers(net, three.valid):
        for c, k in enumerate(NAMES):
            want = by_hand(a, m, c)
            np.testing.assert_allclose(t.loc[name, [f"dice {k}", f"iou {k}"]], want, rtol=1e-12)
    each = [t[f"dice {k}"].mean() for k in NAMES[1:]]
    assert [means[f"dice {k}"] for k in NAMES[1:]] == each
    assert means["dice"] == pytest.approx(np.mean(each), abs=1e-12)


def test_a_training_loader_is_taken_in_order_and_still(three):
    net = small_unet(3)
    a, b = (evaluate_regions(net, three.train) for _ in range(2))
    assert a.equals(b) and len(a) == len(three.train_ds)


def test_a_learner_is_asked_in_its_own_pixels(three):
    norm, net = ((0.3,) * 3, (0.5,) * 3), small_unet(3).train()
    other = read(three.valid.items[0].parents[1], classes=NAMES, norm=norm)
    learn = Learner(other, nn.Sequential(OtherPixels(norm, norm_of(three)), net))
    assert norm_of(other)[0].flatten().tolist() == pytest.approx(norm[0])
    want, got = evaluate_regions(net, three.valid), evaluate_regions(learn, three.valid)
    np.testing.assert_allclose(got, want, atol=1e-3)
    assert evaluate_regions(Learner(three, net), three.valid).equals(want)  # as ever
    assert learn.model.training and net.training
    found = compare({"teacher": learn}, three.valid).loc["teacher", "dice"]
    assert found == check_teacher(learn, three)["dice"]


@pytest.mark.parametrize("how", ["logits", "out", "one", "object", "named"])
def test_a_wrapped_map_is_scored(three, how):
    net = small_unet(3)
    want, model = evaluate_regions(net, three.valid), Wrapped(net, how)
    assert evaluate_regions(model, three.valid).equals(want)
    assert compare({"a": model}, three.valid).loc["a", "dice"] == region_means(want, NAMES)["dice"]
    x, y = three.valid.one_batch()
    assert torch.equal(region_counts(model(x), y), region_counts(net(x), y))


def test_a_map_without_a_name_is_told_how_to_be_wrapped(three):
    model = Wrapped(small_unet(3), "two")
    with pytest.raises(ValueError, match="Wrapped returns a dict with a, b.* = Unwrap"):
        score_regions(model, three.valid)
    x, y = three.valid.one_batch()
    with pytest.raises(ValueError, match="returns a dict with a, b.* = Unwrap"):
        region_counts(model(x), y)


def test_a_teacher_is_asked_in_its_own_pixels(three):
    net = small_unet(3).eval()
    mean, std = (v.flatten().tolist() for v in three.train.after_batch[-1].__dict__.values()
                 if isinstance(v, torch.Tensor))  # fmt: skip
    same = score_regions(Teacher(net, norm=(mean, std)), three.valid)
    assert same["dice"] == pytest.approx(score_regions(net, three.valid)["dice"], abs=1e-3)
    assert list(compare({"teacher": Teacher(net, norm=(mean, std))}, three.valid))[:2] == [
        "dice",
        "iou",
    ]


def test_the_metric_of_a_learner_is_the_table_at_the_networks_size(three, two):
    for dls, n in ((three, 3), (two, 1)):
        learn = Learner(dls, small_unet(n), metrics=RegionDice())
        with learn.no_bar(), learn.no_logging():
            learn.fit(1, 1e-2)
            watched = learn.validate()[1]
        assert learn.recorder.metric_names[3] == "dice"
        table = score_regions(learn, dls.valid, original=False)
        assert watched == pytest.approx(table["dice"], abs=1e-9)


# ---- two classes, scored as the benchmarks do


def test_two_classes_leave_the_border_out(two):
    net = small_unet(1)
    t = evaluate_masks(net, two.valid)
    for name, a, m in answers(net, two.valid, thresholded=True):
        d, j = by_hand(a, m, 1)
        assert t.loc[name, "dice"] == pytest.approx(d) and t.loc[name, "iou"] == pytest.approx(j)
        assert t.loc[name, "foreground"] == pytest.approx((m == 1).sum() / (m != 255).sum())
    x, y = two.valid.one_batch()
    z = torch.where(y == 255, 9.0, torch.where(y == 1, 5.0, -5.0))
    assert dice(z, y) == iou(z, y) == 1
    assert len(worst_figure(net, two.valid, n=2, table=t).axes) >= 2


def test_no_score_of_two_classes_looks_at_the_border():
    pytest.importorskip("py_sod_metrics")
    m = drawn(4)[1]
    gaps = np.ma.array(m == 1, mask=m == 255)
    p = np.random.default_rng(0).random(m.shape)
    a, b = (mask_scores(np.where(m == 255, v, p), gaps) for v in (0.0, 1.0))
    assert a == pytest.approx(b, abs=1e-12, nan_ok=True)
    whole = mask_scores(p, m == 1)
    assert mask_scores(p, np.ma.array(m == 1)) == pytest.approx(whole, abs=1e-12)
    assert a["dice"] != pytest.approx(whole["dice"], abs=1e-3)
    with pytest.raises(ValueError, match="no pixel of the mask counts"):
        mask_scores(p, np.ma.array(m == 1, mask=True))


def test_a_photograph_that_is_stored_lying_is_drawn_upright(tmp_path):
    write(tmp_path, n=8, tool=False)
    lying = Image.Exif()
    lying[0x0112] = 6
    for k in range(8):
        f = tmp_path / "images" / f"{k}.png"
        x = np.array(Image.open(f))
        f.unlink()
        Image.fromarray(np.rot90(x)).save(f.with_suffix(".jpg"), exif=lying, quality=95)
    dls = read(tmp_path)
    fig = worst_figure(small_unet(2), dls.valid, n=1)
    name = fig.axes[0].get_title().split(":")[0].split(".")[0]
    shown = fig.axes[0].images[0].get_array()
    # of JPEG; turned wrongly it is 25
    assert np.abs(shown.astype(int) - drawn(int(name))[0]).mean() < 12


# ---- nothing is taught on the border


class Map(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.conv = nn.Conv2d(3, n, 1)

    def forward(self, x):
        return self.conv(x)


def on_answers(task):
    "The built-in methods that compare answers in masks, without layers."
    made = {name: METHODS[name]() for name in METHODS.built_in() if name != "hdkd"}
    return [n for n, m in made.items() if task in m.tasks and m.compares_outputs]


CASES = [(1, m) for m in on_answers("binary masks")] + [(3, m) for m in on_answers("class masks")]


@pytest.mark.parametrize("n, name", CASES)
def test_no_term_looks_at_what_is_answered_on_the_border(three, two, n, name):
    dls, method = two if n == 1 else three, METHODS[name]()
    learn = distill(dls, Map(n), Map(n), method, loss_func=task_loss(dls, method))
    x, y = dls.train.one_batch()
    x, y = x.as_subclass(torch.Tensor), y.as_subclass(torch.Tensor)
    border = (y if y.ndim == 4 else y[:, None]) == 255
    assert border.any()
    s, t = torch.randn(2, len(x), n, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    step = learn.distill.step

    def terms(out):
        p = step.make_pass(Outputs(out), (Outputs(t),), (y,))
        got = {k: v for part in step.bound for k, v in part.terms(p).items()}
        return got | {"task": step.loss_func(out, y)}

    first, second = terms(s), terms(torch.where(border, 7.0, s))
    assert first.keys() == second.keys() and len(first) > 1
    for k in first:
        assert second[k].item() == pytest.approx(first[k].item(), rel=1e-5), k


def test_the_loss_of_a_method_leaves_out_what_the_data_ignore(two, three):
    assert task_loss(two, KDAS()).ignore_index == 255
    assert task_loss(three, "pixelkl") is None and three.loss_func.func.ignore_index == 255


# ---- an experiment, from Python and from the command line


def test_what_is_scored_follows_from_the_data(three, two):
    assert [kind_of(d) for d in (three, two.valid)] == ["masks", "masks"]
    assert scoring_of(three).main == scoring_of(two.valid).main == "dice"


@pytest.mark.parametrize("n", [1, 3])
def test_an_experiment_on_masks_is_scored_without_the_border(three, two, n):
    dls = two if n == 1 else three
    method = KDAS() if n == 1 else "pixelkl"
    make = lambda: small_unet(n)
    res = experiment(lambda seed: dls, make, small_unet(n), method, epochs=1, log=None)
    assert res["score"] == "dice" and res["history"]["dice"].notna().all()
    assert gain(res["scores"], "dice")["n"] == 1
    names = list(dls.vocab)
    for _, row in res["scores"].iterrows():
        net = res["learners"][row.model].model
        got = answers(net, dls.valid, thresholded=n == 1)
        each = [np.nanmean([by_hand(a, m, c)[0] for _, a, m in got]) for c in range(1, len(names))]
        assert row.dice == pytest.approx(np.nanmean(each), abs=1e-9)


def call(*args):
    r = CliRunner().invoke(app, [str(a) for a in args])
    if r.exception and not isinstance(r.exception, SystemExit):
        raise r.exception
    return r


def command(root, *args):
    short = ("--epochs", 1, "--size", SIZE, "--bs", 4, "--valid", 0.4, "--runs", root / "runs")
    return call("distill", "--data", root / "set", *short, *args)


def test_three_classes_and_a_border_from_the_command_line(tmp_path):
    write(tmp_path / "set")
    r = command(tmp_path, "--classes", "wall,polyp,tool", "--ignore", 255, "--method", "pixelkl")
    assert r.exit_code == 0, r.output
    run = tmp_path / "runs" / "set"
    about, config = (
        about_model(run / "student.safetensors"),
        json.loads((run / "config.json").read_text()),
    )
    assert (about["arch"], about["vocab"]) == ("small_unet", NAMES)
    assert (config["classes"], config["ignore"]) == ("wall,polyp,tool", "255")
    metrics = json.loads((run / "metrics.json").read_text())
    assert list(metrics["table"]["teacher"])[:4] == ["dice", "iou", "dice polyp", "dice tool"]
    # the student that was kept, on the images that the run lists, counted by hand
    dls = read(tmp_path / "set", classes=NAMES, norm=tuple(about["norm"]))
    kept = pd.read_csv(run / "images.csv")
    held = set(kept.file[kept.split == "valid"])
    assert {f.name for f in dls.valid.items} == held
    got = answers(load_model(run / "student.safetensors"), dls.valid)
    each = [np.nanmean([by_hand(a, m, c)[0] for _, a, m in got]) for c in (1, 2)]
    said = metrics["table"]["student distilled"]
    assert [said["dice polyp"], said["dice tool"]] == pytest.approx(each, abs=1e-6)
    assert said["dice"] == pytest.approx(np.mean(each), abs=1e-6)
    assert "dice on the validation set" in (run / "report.html").read_text()


def test_two_classes_by_their_folders_and_the_teacher_of_that_run_again(tmp_path):
    write(tmp_path / "set", border=0, tool=False)
    r = command(tmp_path)
    assert r.exit_code == 0, r.output
    run = tmp_path / "runs" / "set"
    assert about_model(run / "teacher.safetensors")["num_classes"] == 1
    again = ("--teacher", run / "teacher.safetensors", "--method", "bernoullikl")
    r = command(tmp_path, *again, "--fraction", 0.5)
    assert r.exit_code == 0 and "training the teacher" not in r.output, r.output


def test_masks_beside_their_images_and_images_without_a_mask(tmp_path):
    (tmp_path / "set").mkdir()
    for k in range(10):
        x, m = drawn(k, 0)
        Image.fromarray(x).save(tmp_path / "set" / f"{k}.png")
        if k:
            Image.fromarray((m == 1) * np.uint8(255)).save(tmp_path / "set" / f"{k}_mask.png")
    assert "missing='empty'" in command(tmp_path, "--suffix", "_mask").output
    r = command(tmp_path, "--suffix", "_mask", "--missing", "empty")
    assert r.exit_code == 0, r.output
    assert len(pd.read_csv(tmp_path / "runs" / "set" / "images.csv")) == 10


@pytest.mark.parametrize(
    "args, words",
    [
        (("--classes", "wall,polyp,tool"), "name them in classes= or in ignore="),
        (("--classes", "wall,wall"), "a name stands twice"),
        (("--classes", "wall=0,polyp"), "name=value for all of them"),
        (("--classes", "wall=0,polyp=red"), "colour #rrggbb"),
        (("--ignore", "300"), "ignore=300; expected a whole number from 0 to 255"),
        (("--table", "t.csv", "--ignore", "255"), "t.csv"),
        (("--balance", "weights", "--ignore", "255"), "about classes of images"),
        (("--missing", "no"), "missing='no'"),
        (("--masks", "annotations"), "no annotations folder"),
        (("--window", "4095"), "expected low,high"),
        (("SET", "--method", "kdas"), "for these there are"),
        (("SET", "--method", "bernoullikl"), "the data have class masks"),
        (("SET", "--student", "small_student"), "near: small_unet"),
        (("SET", "--student", "polyp_pvt_b0"), "not of 3 classes"),
    ],
)
def test_wrong_use_for_masks_is_one_sentence(tmp_path, args, words):
    write(tmp_path / "set", n=6)
    right = ("--classes", "wall,polyp,tool", "--ignore", "255")
    args = right + args[1:] if args[0] == "SET" else args
    r = command(tmp_path, *args)
    text = " ".join(r.output.split())
    assert r.exit_code == 2 and words in text and "Traceback" not in text
    assert "training the teacher" not in text and not (tmp_path / "runs").exists()
