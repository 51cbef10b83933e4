"""The scores of masks against the values of the reference evaluation, and what must hold for any
prediction, any mask and any folder."""

import json
import sys

import fastai.callback.all  # no_bar
import numpy as np
import pandas as pd
import pytest
import torch
from fastai.data.transforms import Normalize
from fastai.learner import Learner
from golden_values import HERE
from helpers import OtherPixels, Wrapped
from PIL import Image
from torch import nn

sod = pytest.importorskip("py_sod_metrics")
import kdmedlearn.evaluation.masks as M
from kdmedlearn.core.teacher import norm_of
from kdmedlearn.data.masks import mask_dls
from kdmedlearn.data.phantom import phantom, phantom_dls
from kdmedlearn.evaluation.masks import (
    bootstrap,
    dice,
    evaluate_masks,
    iou,
    mask_predictions,
    mask_scores,
    save_masks,
    score_folder,
    score_masks,
    summary,
    threshold_curves,
    worst,
    worst_figure,
)

ABOUT, VALUES = json.loads((HERE / "metrics.json").read_text()), np.load(HERE / "metrics.npz")
CASES = list(ABOUT)


def case(name):
    return VALUES[f"{name}.prediction"], VALUES[f"{name}.mask"]


def library(name):
    "What PySODMetrics alone says, without rescaling."
    p, m = case(name)
    kw, x, m = dict(with_dynamic=True, with_adaptive=False), p / 255, m > 127
    s, w, a, e = sod.Smeasure(), sod.WeightedFmeasure(), sod.MAE(), sod.Emeasure()
    f = sod.FmeasureV2(
        {
            "Dic": sod.DICEHandler(**kw),
            "IoU": sod.IOUHandler(**kw),
            "Sen": sod.SensitivityHandler(**kw),
            "Spe": sod.SpecificityHandler(**kw),
        }
    )
    for o in (s, w, a, e, f):
        o.step(x, m, normalize=False)
    c = {k: v["dynamic"] for k, v in f.get_results().items()} | {
        "Em": e.get_results()["em"]["curve"]
    }
    out = {
        "Sm": s.get_results()["sm"],
        "wFm": w.get_results()["wfm"],
        "MAE": a.get_results()["mae"],
    }
    return (
        out
        | {f"mean{k}": v.mean() for k, v in c.items()}
        | {f"max{k}": v.max() for k, v in c.items()}
    )


@pytest.mark.parametrize("name", CASES)
def test_every_score_is_the_reference(name):
    got = mask_scores(*case(name), empty="reference")
    for k, v in ABOUT[name].items():
        if v is None:
            assert np.isnan(got[k]), k
        else:
            assert got[k] == pytest.approx(v, abs=1e-9), k


@pytest.mark.parametrize("name", [n for n in CASES if n != "empty_mask"])
def test_empty_is_about_empty_masks_alone(name):
    assert mask_scores(*case(name)) == mask_scores(*case(name), empty="reference")


def test_every_deviation_of_the_library_is_known():
    """The table of the chapter: which scores of the library differ from the reference by more than
    1e-6, and in which case."""
    curves = {"meanEm", "meanDic", "meanIoU", "meanSen", "meanSpe"}
    known = {
        "close": curves | {"Sm"},
        "shifted": curves | {"Sm"},
        "faint": curves | {"Sm", "maxEm", "maxDic", "maxIoU"},
        "empty_mask": {"wFm", "meanEm", "meanSpe"},
        "blank_prediction": {"meanSpe"},
    }
    for name in CASES:
        lib = library(name)
        differ = {k for k, v in ABOUT[name].items() if v is None or not abs(lib[k] - v) <= 1e-6}
        assert differ == known[name], name
    assert library("empty_mask")["wFm"] == 0 and ABOUT["empty_mask"]["wFm"] is None


def test_the_library_rescales_unless_told_not_to():
    p, m = case("faint")
    a, b = sod.MAE(), sod.MAE()
    a.step(p, m)
    b.step(p / 255, m > 127, normalize=False)
    assert (
        b.get_results()["mae"] == pytest.approx(ABOUT["faint"]["MAE"], abs=1e-12)
        and abs(a.get_results()["mae"] - ABOUT["faint"]["MAE"]) > 0.01
    )


@pytest.mark.parametrize("name", CASES)
def test_curves_by_counting_pixels(name):
    p, m = case(name)
    c, m = threshold_curves(p, m, "reference"), m > 127
    for i in range(0, 256, 5):
        a = p / 255 >= np.linspace(1, 0, 256)[i]
        tp = (a & m).sum()
        assert c["Dic"][i] == pytest.approx(2 * tp / max(a.sum() + m.sum(), 1), abs=1e-12)
        assert c["IoU"][i] == pytest.approx(tp / max((a | m).sum(), 1), abs=1e-12)
        assert c["Sen"][i] == pytest.approx(tp / max(m.sum(), 1), abs=1e-12)
        assert c["Spe"][i] == pytest.approx((~a & ~m).sum() / (~m).sum() if tp else 0, abs=1e-12)


def test_dice_and_iou_determine_each_other():
    for name in CASES:
        c = threshold_curves(*case(name))
        assert np.allclose(c["IoU"], c["Dic"] / (2 - c["Dic"]), atol=1e-12)


def test_mirror_turn_and_type_do_not_matter():
    p, m = case("close")
    a = mask_scores(p, m)
    for q, n in ((p[::-1], m[::-1]), (p[:, ::-1], m[:, ::-1]), (p.T, m.T)):
        b = mask_scores(q, n)
        assert all(b[k] == pytest.approx(a[k], abs=1e-9) for k in a if k not in ("Sm", "wFm"))
        assert b["wFm"] == pytest.approx(a["wFm"], abs=1e-3) and b["Sm"] == pytest.approx(
            a["Sm"], abs=1e-2
        )
    for q in (p / 255, (p / 255).astype(np.float32), torch.tensor(p)):
        assert mask_scores(q, m) == a
    for n in (m > 127, m // 255, torch.tensor(m), (m > 127).astype(float)):
        assert mask_scores(p, n) == a


def test_perfect_and_full():
    m = case("close")[1] > 127
    s = mask_scores(m, m)
    assert (
        (s["dice"], s["iou"], s["maxDic"], s["maxIoU"], s["MAE"]) == (1, 1, 1, 1, 0)
        and s["Sm"] == pytest.approx(1)
        and s["wFm"] == pytest.approx(1)
    )
    assert s["maxEm"] == pytest.approx(m.size / (m.size - 1))
    full = np.ones((8, 8), bool)
    s = mask_scores(full, full)
    assert s["dice"] == s["Sm"] == s["maxDic"] == 1 and all(np.isfinite(v) for v in s.values())


@pytest.mark.parametrize("at", [(0, 0), (0, 5), (7, 7), (3, 4)])
def test_one_pixel_anywhere_has_finite_scores(at, recwarn):
    m = np.zeros((8, 8), bool)
    m[at] = True
    assert all(np.isfinite(v) for v in mask_scores(m * 0.9, m).values())
    assert not [w for w in recwarn if issubclass(w.category, RuntimeWarning)]


def test_empty_mask():
    none, zero = np.zeros((16, 16), bool), np.zeros((16, 16))
    spot = zero.copy()
    spot[3, 3] = 0.8
    right, wrong = mask_scores(zero, none), mask_scores(spot, none)
    assert (right["dice"], right["iou"], right["maxDic"], right["meanDic"]) == (1, 1, 1, 255 / 256)
    assert (wrong["dice"], wrong["iou"]) == (0, 0) and 0 < wrong["meanDic"] < 0.25
    assert all(np.isnan(s[k]) for s in (right, wrong) for k in ("wFm", "meanSen"))
    assert right["meanSpe"] == 255 / 256
    ref = mask_scores(zero, none, "reference")
    assert (ref["dice"], ref["iou"], ref["meanDic"], ref["meanSen"], ref["meanSpe"]) == (
        0,
        0,
        0,
        0,
        0,
    ) and np.isnan(ref["wFm"])


def test_just_a_half_is_background_as_in_training():
    m = np.ones((4, 4), bool)
    assert (
        mask_scores(np.full((4, 4), 0.5), m)["dice"]
        == 0
        == dice(torch.zeros(1, 1, 4, 4), torch.tensor(m)[None])
    )
    assert mask_scores(np.full((4, 4), np.float32(0.5) + np.float32(1e-6)), m)["dice"] == 1


@pytest.mark.parametrize(
    "pred, mask, says",
    [
        (np.full((4, 4), 2.0), np.ones((4, 4)), "apply a sigmoid"),
        (np.full((4, 4), np.nan), np.ones((4, 4)), "apply a sigmoid"),
        (np.eye(4, dtype=np.uint8), np.ones((4, 4)), "as bool or times 255"),
        (np.zeros((4, 4), int), np.ones((4, 4)), "expected uint8"),
        (np.zeros((4, 5)), np.ones((4, 4)), "resize the prediction"),
        (np.zeros((1, 4, 4)), np.ones((4, 4)), "expected one image"),
        (np.zeros((0, 4)), np.ones((0, 4)), "expected one image"),
        (np.zeros((4, 4)), np.ones((4, 4, 3)), "expected one mask"),
        (np.zeros((4, 4)), np.full((4, 4), 3.0), "expected bool"),
        (
            np.zeros((4, 4)),
            np.arange(16, dtype=np.uint8).reshape(4, 4) * 15,
            "between the two sides",
        ),
    ],
)
def test_bad_input_is_answered(pred, mask, says):
    with pytest.raises((ValueError, TypeError), match=says.replace("(", r"\(")):
        mask_scores(pred, mask)


def test_what_may_come_in():
    m, a = np.eye(4, dtype=bool), np.eye(4, dtype=np.uint8)
    # all zero, or faint grey levels
    assert mask_scores(a * 0, m)["dice"] == 0 and mask_scores(a * 2, m)["dice"] == 0
    assert mask_scores(a / 255, m)["maxDic"] == 1 and mask_scores(a > 0, m)["dice"] == 1
    assert mask_scores(torch.tensor(m).bfloat16(), torch.tensor(m).bfloat16())["dice"] == 1


def test_the_library_is_asked_for_late_and_by_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "py_sod_metrics", None)
    with pytest.raises(ImportError, match=r"pip install 'kdmedlearn\[segment\]'"):
        mask_scores(np.zeros((4, 4)), np.ones((4, 4), bool))
    assert dice(torch.ones(1, 1, 4, 4), torch.ones(1, 4, 4)) == 1  # needs no library


# --- sets of images


def five():
    return score_masks(*zip(*[case(n) for n in CASES]), names=CASES, empty="reference")


def test_summary_takes_the_maximum_of_the_mean_curve():
    t = five()
    s = summary(t)
    c = [threshold_curves(*case(n), "reference") for n in CASES]
    for k in ("Em", "Dic", "IoU"):
        mean = np.mean([x[k] for x in c], 0)
        assert s[f"mean{k}"] == pytest.approx(mean.mean(), abs=1e-12) and s[
            f"max{k}"
        ] == pytest.approx(mean.max(), abs=1e-12)
        assert s[f"max{k}"] <= t[f"max{k}"].mean() + 1e-12
    assert s["images"] == 5 and s["empty masks"] == 1
    assert s["wFm"] == pytest.approx(
        np.mean([v["wFm"] for n, v in ABOUT.items() if n != "empty_mask"])
    )


def test_a_selection_keeps_its_curves():
    t = five()
    for part in (
        t[t.foreground > 0],
        t.sort_values("dice").head(4).drop("empty_mask", errors="ignore"),
        t.loc[["faint"]],
        t.assign(site="a"),
        t.copy(),
    ):
        again = score_masks(
            *zip(*[case(n) for n in part.index]), names=list(part.index), empty="reference"
        )
        pd.testing.assert_series_equal(summary(part), summary(again))
    assert summary(t.loc[["faint"]]).maxDic == pytest.approx(ABOUT["faint"]["maxDic"])


def test_lost_curves_and_names_are_answered(tmp_path):
    t = five()
    t.to_csv(tmp_path / "t.csv")
    for lost in (pd.concat([t, five()]), pd.read_csv(tmp_path / "t.csv", index_col=0)):
        with pytest.raises(ValueError, match="lost its threshold curves"):
            summary(lost)
    with pytest.raises(ValueError, match="keep the names"):
        summary(t.rename(index=str.upper))
    with pytest.raises(ValueError, match="no rows"):
        summary(t[t.dice > 2])
    with pytest.raises(ValueError, match="names must differ"):
        score_masks([case("close")[0]] * 2, [case("close")[1]] * 2, names="aa")
    with pytest.raises(ValueError, match="no predictions"):
        score_masks([], [])
    with pytest.raises(ValueError, match="2 predictions, 1 masks"):
        score_masks([0, 0], [0])


def test_worst_first():
    t = five()
    assert (
        list(worst(t, 2, "maxDic").index) == ["empty_mask", "blank_prediction"]
        and worst(t, 1, "MAE").index[0] == t.MAE.idxmax()
    )
    assert worst(t, 9, "wFm").index[-1] == "empty_mask"  # NaN last
    with pytest.raises(ValueError, match="by='foreground'"):
        worst(t, by="foreground")
    with pytest.raises(ValueError, match="n=0; expected a number of images"):
        worst(t, 0)


def test_bootstrap():
    v = np.random.default_rng(0).normal(0.8, 0.1, 200)
    b = bootstrap(v, seed=1)
    half = 1.96 * v.std(ddof=1) / 200**0.5
    assert (
        b["mean"] == v.mean()
        and b["low"] == pytest.approx(v.mean() - half, abs=0.003)
        and b["high"] == pytest.approx(v.mean() + half, abs=0.003)
    )
    assert (
        b
        == bootstrap(list(v), seed=1)
        == bootstrap(pd.Series(v), seed=1, group=range(200))
        != bootstrap(v, seed=2)
    )
    assert (b["images"], b["groups"]) == (200, 200)
    same = np.repeat(v[:20], 10)  # ten copies tell no more than one
    copies, once = bootstrap(same, group=np.repeat(np.arange(20), 10)), bootstrap(v[:20])
    assert copies["high"] - copies["low"] == pytest.approx(once["high"] - once["low"], rel=1e-9)
    assert copies["high"] - copies["low"] > 2 * (lambda a: a["high"] - a["low"])(bootstrap(same))
    uneven = bootstrap([1, 1, 1, 0], group=["a", "a", "a", "b"])
    assert uneven["mean"] == 0.75 and (uneven["low"], uneven["high"]) == (0, 1)
    assert bootstrap([np.nan, 0.2, 0.4], group=["a", "b", "c"])["groups"] == 2
    for kw, says in (
        (dict(level=95), "level=95"),
        (dict(n=0), "n=0"),
        (dict(group=[1, 1, 1]), "one group"),
        (dict(group=[1]), "3 values and 1 groups"),
    ):
        with pytest.raises(ValueError, match=says):
            bootstrap([0.1, 0.2, 0.3], **kw)
    with pytest.raises(ValueError, match="no values"):
        bootstrap([np.nan])
    for table in (five(), five()[["dice"]], v.reshape(20, 10)):
        with pytest.raises(ValueError, match="one number for each image, such as table.dice"):
            bootstrap(table)


# --- models


def logits(b=3, c=1):
    return torch.randn(b, c, 8, 8, generator=torch.Generator().manual_seed(0))


def test_training_metrics():
    z, y = logits(), (logits(3, 2)[:, 1] > 0.3).long()
    want = np.mean([mask_scores((a[0] > 0).numpy(), b.numpy() > 0)["dice"] for a, b in zip(z, y)])
    assert dice(z, y).item() == pytest.approx(want, abs=1e-6) and dice(
        (z - 1, torch.ones_like(z)), y[:, None].float()
    ).item() == pytest.approx(want, abs=1e-6)
    two = torch.cat([torch.randn(3, 1, 8, 8), torch.zeros(3, 1, 8, 8)], 1)
    assert iou(two, y) == iou(two.softmax(1)[:, 1:] - 0.5, y)
    assert (
        dice(z - 99, 0 * y) == iou(z - 99, 0 * y) == 1
        and dice(z + 99, 0 * y) == iou(z - 99, y) == 0
    )
    with pytest.raises(ValueError, match="do not fit"):
        dice(z, y[:, :4])
    with pytest.raises(ValueError, match="segmentation model"):
        dice(z[0, 0], y)


class Net(nn.Module):
    """One conv on the picture; `heads` maps, or two channels. Batch norm tells whether it was left
    alone."""

    def __init__(self, heads=1, channels=1):
        super().__init__()
        torch.manual_seed(1)
        self.norm, self.conv, self.heads = (
            nn.BatchNorm2d(3),
            nn.Conv2d(3, channels, 5, padding=2),
            heads,
        )

    def forward(self, x):
        z = self.conv(self.norm(x))
        return z if self.heads == 1 else tuple(z * w for w in (0.25, 0.75))


def dls(**kw):
    return phantom_dls(10, 7, 32, task="segment", bs=4, device="cpu", **kw)


def test_a_learner_is_asked_in_its_own_pixels():
    data, other, net, norm = dls(), dls(), Net().train(), ((0.0,) * 3, (1 / 255,) * 3)
    for dl in other.loaders:
        dl.after_batch.fs[-1] = Normalize.from_stats(*norm, cuda=False)
    kw = dict(loss_func=nn.BCEWithLogitsLoss())
    learn = Learner(other, nn.Sequential(OtherPixels(norm, norm_of(data)), net), **kw)
    want = evaluate_masks(net, data.valid)
    np.testing.assert_allclose(evaluate_masks(learn, data.valid), want, atol=1e-2)
    for same in (Learner(data, net, **kw), Learner(dls(), net, **kw)):
        assert evaluate_masks(same, data.valid).equals(want)
    assert learn.model.training and net.training


@pytest.mark.parametrize("how", ["logits", "out", "one", "object", "named"])
def test_a_wrapped_map_is_scored(how):
    data, net = dls(), Net()
    assert evaluate_masks(Wrapped(net, how), data.valid).equals(evaluate_masks(net, data.valid))
    z, y = logits(), (logits(3, 2)[:, 1] > 0.3).long()
    out = Wrapped(nn.Identity(), how)(z)
    assert (dice(out, y), iou(out, y)) == (dice(z, y), iou(z, y))
    with pytest.raises(ValueError, match="Wrapped returns a dict with a, b.* = Unwrap"):
        evaluate_masks(Wrapped(net, "two"), data.valid)


def test_evaluate_on_phantoms_by_hand():
    net, data = Net(), dls()
    t = evaluate_masks(net.train(), data.valid)
    assert (
        len(t) == 7
        and list(t.index) == list(range(7))
        and net.training
        and net.norm.num_batches_tracked == 0
    )
    net.eval()
    k = 0
    for x, y in data.valid:
        for p, m in zip(net(x.as_subclass(torch.Tensor)).double().sigmoid()[:, 0], y):
            assert t.iloc[k].drop("foreground").to_dict() == pytest.approx(
                {a: b for a, b in mask_scores(p, m).items() if a != "foreground"}, abs=2e-3
            )
            k += 1


def test_heads_and_channels_are_one_answer():
    data, one = dls(), Net()
    two = Net(channels=2)
    with torch.no_grad():
        two.conv.weight[1] = one.conv.weight[0]
        two.conv.bias[1] = one.conv.bias[0]
        two.conv.weight[0] = 0
        two.conv.bias[0] = 0
    want = evaluate_masks(one, data.valid)
    for other in (Net(heads=2), two):
        assert np.allclose(evaluate_masks(other, data.valid), want, atol=2e-3)
    with pytest.raises(ValueError, match="3 channels"):
        evaluate_masks(Net(channels=3), data.valid)


def test_a_training_loader_is_taken_in_order_and_still():
    net, data = Net(), dls()
    a, b = (list(mask_predictions(net, data.train)) for _ in range(2))
    assert [o[0] for o in a] == list(range(10)) and all((p[1] == q[1]).all() for p, q in zip(a, b))
    assert all((o[2] == (o[3].target > 0)).all() for o in a)
    x = data.train.one_batch()[0]  # the loader itself is as it was
    assert data.train.shuffle and x.shape[0] == 4


@pytest.fixture
def files(tmp_path):
    "Files of three sizes, in train and validation."
    x, m = phantom(16, 64, task="segment", seed=5)
    for k in range(16):
        split, size = (
            ("train", (64, 64)) if k < 10 else ("validation", [(64, 64), (90, 70), (40, 50)][k % 3])
        )
        for d, a in (("images", x), ("masks", m)):
            (tmp_path / "set" / split / d).mkdir(parents=True, exist_ok=True)
            Image.fromarray(a[k]).resize(size, Image.Resampling.NEAREST).save(
                tmp_path / "set" / split / d / f"{k}.png"
            )
    return tmp_path / "set"


def test_save_and_score_give_the_same_numbers(files, tmp_path):
    net, data = Net(), mask_dls(files, size=32, target="channel", device="cpu")
    t = evaluate_masks(net, data.valid)
    out = save_masks(net, data.valid, tmp_path / "out" / "answers")
    again = score_folder(out, files / "validation" / "masks")
    assert sorted(t.index) == [f"{k}.png" for k in range(10, 16)] and np.allclose(
        t, again.loc[t.index], atol=1e-12, equal_nan=True
    )
    assert np.allclose(summary(t), summary(again.loc[t.index]), atol=1e-12)
    for k in range(10, 16):
        with (
            Image.open(out / f"{k}.png") as p,
            Image.open(files / "validation" / "images" / f"{k}.png") as im,
        ):
            assert p.mode == "L" and p.size == im.size
    with pytest.raises(FileExistsError, match="overwrite=True"):
        save_masks(net, data.valid, out)
    save_masks(net, data.valid, out, overwrite=True)
    assert list(evaluate_masks(net, data.valid, original=False).index) == list(t.index)
    assert save_masks(net, dls().valid, tmp_path / "phantoms").joinpath("0.png").exists()


def test_rescaling_is_that_of_the_released_test_code(files):
    net, data = Net(), mask_dls(files, size=32, target="index", device="cpu")
    for (_, p, *_), (_, q, *_) in zip(
        mask_predictions(net, data.valid), mask_predictions(net, data.valid, rescale=True)
    ):
        assert (q.min(), q.max()) == (0, 255)
        x = p.astype(float)
        assert (
            np.abs((x - x.min()) / (x.max() - x.min()) * 255 - q).max()
            < 255 / (x.max() - x.min()) + 1
        )


def test_colliding_stems_and_unnamed_masks(files, tmp_path):
    net, data = Net(), mask_dls(files, size=32, device="cpu")
    dl = data.test_dl(
        [files / "validation" / "images" / "11.png", files / "train" / "images" / "3.png"],
        with_labels=True,
    )
    assert list(evaluate_masks(net, dl).index) == ["11.png", "3.png"]
    for d in ("images", "masks"):
        (files / "train" / d / "3.png").rename(files / "train" / d / "11.png")
    dl = data.test_dl(
        [files / s / "images" / "11.png" for s in ("validation", "train")], with_labels=True
    )
    data.valid.dataset.tls[0].tfms[0].kept.clear()
    data.valid.dataset.tls[1].tfms[0].kept.clear()
    assert list(evaluate_masks(net, dl).index) == [
        "validation/images/11.png",
        "train/images/11.png",
    ]
    with pytest.raises(ValueError, match="overwrite each other"):
        save_masks(net, dl, tmp_path / "out")


def test_folders_are_checked(tmp_path):
    x, m = phantom(3, 32, task="segment")
    a, b = tmp_path / "answers", tmp_path / "masks"
    for d in (a, b):
        d.mkdir()
        for k in range(3):
            Image.fromarray(m[k]).save(d / f"{k}.png")
    assert summary(score_folder(a, b)).dice == 1
    with pytest.raises(ValueError, match="0.png is a file; expected a folder"):
        score_folder(a / "0.png", b)

    def fails(says, **kw):
        with pytest.raises((ValueError, FileNotFoundError), match=says):
            score_folder(a, b, **kw)

    fails("not above threshold=255", threshold=255)
    Image.fromarray(m[0]).save(a / "9.png")
    fails("1 predictions without a mask: 9.png")
    (a / "9.png").unlink()
    (b / "1.png").rename(tmp_path / "1.png")
    fails("predictions without a mask: 1.png")
    (tmp_path / "1.png").rename(b / "1.png")
    (a / "1.png").rename(tmp_path / "1.png")
    fails("masks without a prediction: 1.png")
    (tmp_path / "1.png").rename(a / "1.png")
    Image.fromarray(m[1]).save(a / "1.jpg")
    fails("same name up to the extension")
    (a / "1.jpg").unlink()
    Image.fromarray(m[1][:16]).save(a / "1.png")
    fails("32 x 16, its mask 32 x 32")
    Image.fromarray(x[1]).save(a / "1.png")
    fails("a colour mask")
    (a / "1.png").write_text("no")
    fails("cannot be read")
    for k in range(3):
        Image.fromarray(m[k] // 255).save(a / f"{k}.png")
    fails("multiply by 255")
    Image.fromarray(m[1] // 2).save(b / "1.png")
    fails("mask 1.png has")


def test_worst_figure(files):
    net, data = Net(), mask_dls(files, size=32, device="cpu")
    for dl in (data.valid, dls().valid):
        t = evaluate_masks(net, dl)
        fig = worst_figure(net, dl, 4, table=t)
        assert [ax.get_title().split("\n")[0] for ax in fig.axes[:4]] == [
            f"{n}: dice {t.dice[n]:.2f}" for n in worst(t, 4).index
        ]
    with pytest.raises(ValueError, match="pass the loader it was made with"):
        worst_figure(net, data.valid, table=t)


def test_what_has_no_outline_is_named():
    net = Net()
    net.conv.weight.data.zero_()
    dl = [(torch.zeros(2, 3, 32, 32), torch.stack([torch.zeros(32, 32), torch.eye(32)]))]

    class Loader(list):  # one empty mask, one with a polyp
        dataset = [0, 1]

    for bias, said in ((-9.0, "nothing"), (9.0, "everything")):
        net.conv.bias.data.fill_(bias)
        titles = {
            t.split("\n")[0][0]: t.split("\n")[1:]
            for t in (ax.get_title() for ax in worst_figure(net, Loader(dl), 2).axes)
        }
        assert titles == {"0": ["mask: nothing", f"answer: {said}"], "1": [f"answer: {said}"]}


def test_a_sure_nothing_may_be_of_levels_0_and_1(files, tmp_path):
    net, data = Net(), mask_dls(files, size=32, device="cpu")
    net.conv.weight.data.zero_()
    net.conv.bias.data.fill_(-6)  # .0025: level 1
    t = evaluate_masks(net, data.valid)
    assert {p.max() for _, p, *_ in mask_predictions(net, data.valid)} == {1} and (
        t.dice == 0
    ).all()
    out = save_masks(net, data.valid, tmp_path / "out")
    name = t.index[0]
    Image.fromarray(np.full(np.array(Image.open(out / name)).shape, 200, np.uint8)).save(out / name)
    assert len(score_folder(out, files / "validation" / "masks")) == len(t)


def test_loaders_without_masks_are_answered(files):
    data = mask_dls(files, size=32, device="cpu")
    labels = phantom_dls(8, 8, 32, bs=4, device="cpu").valid
    for dl in (labels, data.test_dl([files / "validation" / "images" / "11.png"])):
        net = Net().train()
        with pytest.raises(ValueError, match="images without masks; expected one of mask_dls"):
            evaluate_masks(net, dl)
        assert net.training


def test_learner_metrics_agree_with_the_table():
    from fastai.learner import Learner
    from kdmedlearn.methods.kdas import StructureLoss

    learn = Learner(dls(), Net(heads=2), loss_func=StructureLoss(window=5), metrics=[dice, iou])
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
        got = learn.validate()
    t = evaluate_masks(learn, learn.dls.valid)
    assert (t.dice.mean(), t.iou.mean()) == pytest.approx(tuple(got[1:]), abs=2e-3)
