"The widgets that look: attention of fusions, KDAS and MBCSA blocks, and models that disagree."

import gc, random, weakref

import numpy as np
import pytest
import torch
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from helpers import Items, data, net
from torch import nn

from kdmedlearn import distill, KDAS, phantom_dls, Response
from kdmedlearn.core.outputs import plain
from kdmedlearn.core.taps import n_hooks
from kdmedlearn.core.teacher import as_norm, norm_of, Teacher
from kdmedlearn.evaluation.masks import dice
from kdmedlearn.methods.fusion import AttentionFusion, by_teacher, MeanLogits, RelationAttention
from kdmedlearn.methods.kdas import attend_to_itself, symmetric
from kdmedlearn.models.hdkd import HDKDTeacher
from kdmedlearn.models.mbcsa import MBConv
from kdmedlearn.models.unet import UNet
from kdmedlearn.train.fusing import collect, fit_fusion, rows
from kdmedlearn.viz.live import Live
from kdmedlearn.viz.pictures import data_url, pictures, SIDE
from kdmedlearn.widgets import compare, kdas_attention, mbcsa_attention, relation_attention
from kdmedlearn.viz.style import GREEN, GREY, ORANGE
from kdmedlearn.widgets.attention import KDASView, MapsSeen, MBCSAView, GatesSeen, MOST
from kdmedlearn.widgets.attention import averaged, batches, fixed_share, pair_losses, row_weights
from kdmedlearn.widgets.attention import fewer_places, FusionSeen, RelationView, undisturbed
from kdmedlearn.widgets.disagreement import class_kinds, ClassAnswers, outlined, top_bars


@pytest.fixture(scope="module")
def classes():
    return phantom_dls(16, 12, size=32, bs=8, device="cpu", seed=1)


@pytest.fixture(scope="module")
def masks():
    return phantom_dls(8, 6, size=32, task="segment", bs=4, device="cpu", seed=1)


def guided(classes, grid=2, heads=2, **kw):
    return distill(
        classes,
        net(num_classes=8),
        [net(num_classes=8), net(6, num_classes=8)],
        RelationAttention(d=8, heads=heads, grid=grid, **kw),
    )


def unet():
    return UNet(widths=(4, 6))


def hdkd(**kw):
    return HDKDTeacher(num_classes=8, widths=(8, 16, 16), depths=(1, 1, 2), hidden=8, **kw)


def everything(learn, *more):
    """All that a widget must leave alone: weights and buffers, modes, hooks, gradients, random
    states."""
    models = [
        learn.model,
        *(t.model for t in learn.distill.teachers),
        learn.distill.step.bound,
        *more,
    ]
    return [
        [(k, v.clone()) for m in models for k, v in m.state_dict().items()],
        [o.training for m in models for o in m.modules()],
        [n_hooks(m) for m in models],
        [p.grad for m in models for p in m.parameters()],
        torch.get_rng_state(),
        random.getstate(),
        np.random.get_state()[1].tolist(),
    ]


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def turn(w, image=2):
    "To another image, as a hand would."
    w.move(image=image) if isinstance(w, Live) else setattr(w.at, "value", image)


# --- without a trace


def test_nothing_changes_in_what_is_looked_at(classes, masks):
    learn, kdas, other = guided(classes), distill(masks, unet(), unet(), KDAS()), unet()
    learn.model.train()
    learn.model.norm.eval()
    kdas.model.train()  # modes that differ from layer to layer stay
    for l, look in (
        (learn, lambda: relation_attention(learn)),
        (learn, lambda: relation_attention(learn, classes.train)),
        (kdas, lambda: kdas_attention(kdas)),
        (learn, lambda: compare({"a": learn, "b": learn.distill.teachers[0]}, classes.valid)),
        (kdas, lambda: compare({"a": kdas, "b": other}, masks.train)),
    ):
        before = everything(l, other)
        turn(look())
        assert same(everything(l, other), before)


def test_modes_come_back_after_an_error():
    m = nn.Sequential(nn.BatchNorm2d(3).eval(), nn.Dropout())
    with pytest.raises(KeyError), undisturbed(m):
        assert not any(o.training for o in m.modules())
        random.random()
        torch.rand(1)
        raise KeyError
    assert [o.training for o in m.modules()] == [True, False, True] and torch.is_grad_enabled()


def test_images_are_the_loaders_first_ones_unaugmented(classes):
    for dl in (classes.train, classes.valid):
        ((x, y, pics),) = batches(dl, 5)
        assert len(x[0]) == len(y) == len(pics) == 5
        for i in range(5):
            assert np.array_equal(pics[i], dl.dataset[i][0].permute(1, 2, 0).numpy()) and int(
                y[i]
            ) == int(dl.dataset[i][1])
    assert [len(y) for _, y, _ in batches(classes.train, 11)] == [8, 3]


def test_pictures_are_small():
    (a,) = pictures(torch.rand(1, 3, 300, 400))
    assert max(a.shape) == SIDE and 1000 < len(data_url(a)) < 30_000


# --- fusions


def test_relation_shows_the_fusions_own_weights(classes):
    learn = guided(classes, grid=2)
    w = relation_attention(learn, items=9)
    part = learn.distill.step.bound[0]
    layers = [n for names in part.layers.teachers for n in names]
    seen = collect(learn.distill.teachers, classes.valid, layers=layers)
    with torch.no_grad():
        f = part.state.fusion.eval()(*rows(seen, slice(0, 9)))
    assert torch.allclose(w.seen.attention, f.attention, atol=1e-5)
    w.move(image=4)
    want = by_teacher(f.attention, 2).mean(1)[3]
    assert torch.allclose(w.numbers()["maps"], want.double(), atol=1e-4)
    w.move(head="head 2")
    want = by_teacher(f.attention, 2)[3, 1]
    assert torch.allclose(w.numbers()["maps"], want.double(), atol=1e-4)
    assert torch.allclose(w.numbers()["matrix"], f.attention[3, 1].double(), atol=1e-4)
    w.move(query=5)  # place 2 (row 1, column 2) of teacher 2
    want = f.attention[3, 1, 5].reshape(2, 4)
    assert torch.allclose(w.numbers()["maps"], want.double(), atol=1e-4)
    assert torch.allclose(w.numbers()["shares"], want.sum(1).double(), atol=1e-4)
    assert w.arrays["pictures"][3] == data_url(w.seen.pictures[3]) and len(w.alone()) < 120_000
    with pytest.raises(ValueError, match="it moves from 1 to 9"):
        w.move(image=10)


def test_many_places_are_put_together():
    "Rows keep their sum and teachers their shares, for every query of a group together."
    a = torch.rand(2, 2, 3 * 64, 3 * 64).softmax(3)
    b = fewer_places(a, 3)
    assert b.shape == (2, 2, 3 * 16, 3 * 16)
    assert torch.allclose(b.sum(3), torch.ones(2, 2, 48), atol=1e-5)
    assert torch.allclose(by_teacher(b, 3).sum(3), by_teacher(a, 3).sum(3), atol=1e-5)
    group = [64 + r * 8 + c for r in (2, 3) for c in (4, 5)]  # teacher 2, row 2, column 3 of 4 x 4
    asked = a[0, 0, group].mean(0)
    assert torch.allclose(b[0, 0, 16 + 1 * 4 + 2, 16 + 1 * 4 + 2], asked[group].sum(), atol=1e-6)
    pics = [np.zeros((8, 8, 3), np.uint8)] * 2
    seen = FusionSeen(pics, a, list("abc"), ["x", "y"], [["x 1.00"] * 3] * 2, [""] * 2)
    w = RelationView(seen)
    assert "8 x 8 places" in w.arrays["note"] and w.ranges["query"] == (-1, 47)
    assert fewer_places(torch.rand(1, 1, 90, 90), 90).shape == (1, 1, 90, 90)  # 90 teachers


def test_relation_says_who_is_right(classes):
    y = torch.stack([torch.as_tensor(int(b)) for _, b in classes.valid.dataset])

    class Knows(nn.Module):
        def __init__(self, off):
            super().__init__()
            self.conv, self.off, self.at = nn.Conv2d(3, 4, 1), off, 0

        def forward(self, x):
            out = torch.nn.functional.one_hot((known(x) + self.off) % 8, 8).float() * 9
            return out + 0 * self.conv(x).mean((1, 2, 3))[:, None]

    xs = torch.cat([plain(x) for x, _ in classes.valid])

    def known(x):
        return torch.stack([y[(xs - v).abs().flatten(1).sum(1).argmin()] for v in x])

    ts = [Teacher(Knows(0), name="right"), Teacher(Knows(1), name="wrong")]
    fusion = fit_fusion(
        AttentionFusion(d=8, heads=2, source="answers"),
        collect(ts, classes.valid, layers=()),
        epochs=1,
        stop=0,
    )
    w = relation_attention(fusion=fusion, teachers=ts, dl=classes.valid, items=6)
    assert all(a.endswith("right") and b.endswith("wrong") for a, b in w.seen.says)
    assert w.seen.says[0][0].startswith(w.seen.truth[0]) and "1.00" in w.seen.says[0][0]
    assert w.numbers()["maps"].shape == (2, 1) and "student" not in w.seen.fused[0]


def test_teachers_get_their_own_normalisation(classes):
    seen = []

    class Spy(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net(num_classes=8)

        def forward(self, x):
            seen.append(x)
            return self.net(x)

    t = Teacher(Spy(), norm=((0.0,) * 3, (1.0,) * 3), name="pixels")
    compare({"pixels": t, "own": net(num_classes=8)}, classes.valid, items=4)
    want = (
        torch.stack([classes.valid.dataset[i][0].as_subclass(torch.Tensor) for i in range(4)]) / 255
    )
    assert torch.allclose(seen[-1], want, atol=1e-5)


@pytest.mark.parametrize(
    "call, kind, match",
    [
        (
            lambda c, m: relation_attention(
                distill(c, net(num_classes=8), net(num_classes=8), Response())
            ),
            ValueError,
            "no attention over teachers",
        ),
        (
            lambda c, m: relation_attention(Learner(c, net(num_classes=8))),
            ValueError,
            "has no teachers",
        ),
        (lambda c, m: relation_attention(net()), TypeError, "expected the Learner"),
        (lambda c, m: relation_attention(), TypeError, "fusion=, teachers= and dl="),
        (
            lambda c, m: relation_attention(fusion=MeanLogits(), teachers=[net()], dl=c.valid),
            TypeError,
            "MeanLogits, which has no attention",
        ),
        (
            lambda c, m: relation_attention(fusion=AttentionFusion(), teachers=[net()], dl=c.valid),
            ValueError,
            "nothing to fuse with yet",
        ),
        (
            lambda c, m: relation_attention(guided(c), fusion=AttentionFusion()),
            ValueError,
            "either the Learner or",
        ),
        (lambda c, m: relation_attention(guided(c), m.valid), ValueError, "one class an image"),
        (lambda c, m: relation_attention(guided(c), c), TypeError, "such as dls.valid"),
        (lambda c, m: relation_attention(guided(c), items=0), ValueError, "items=0"),
        (lambda c, m: relation_attention(guided(c), [1, 2]), TypeError, "got list"),
        (lambda c, m: kdas_attention(guided(c)), ValueError, "not with KDAS"),
        (
            lambda c, m: kdas_attention(distill(m, unet(), unet(), KDAS()), c.valid),
            ValueError,
            "KDAS needs masks",
        ),
        (lambda c, m: mbcsa_attention(net(), c.valid), ValueError, "no MBCSA block"),
        (
            lambda c, m: mbcsa_attention(hdkd(block=MBConv), c.valid),
            ValueError,
            "its blocks are MBConv",
        ),
        (
            lambda c, m: mbcsa_attention(hdkd(), c.valid, layer="stage3.7"),
            ValueError,
            "no MBCSA block is called 'stage3.7'; near: stage3",
        ),
        (lambda c, m: mbcsa_attention(hdkd()), TypeError, "give the images"),
        (lambda c, m: mbcsa_attention([hdkd(), hdkd()], c.valid), TypeError, "one model at a time"),
        (lambda c, m: compare([net(), net()], c.valid), TypeError, "given by name"),
        (lambda c, m: compare({"a": net()}, c.valid), ValueError, "1 model; a disagreement needs"),
        (lambda c, m: compare({"a": net(), "b": [net()]}, c.valid), TypeError, "'b' is a list"),
        (
            lambda c, m: compare({"a": net(num_classes=8), "b": net()}, c.valid),
            ValueError,
            "a 8, b 3 classes",
        ),
        (
            lambda c, m: compare({"a": net(), "b": net()}, c.valid),
            ValueError,
            "3 classes and the data 8",
        ),
        (
            lambda c, m: compare({"a": net(num_classes=8), "b": net(num_classes=8)}, m.valid),
            ValueError,
            "a answers with .* and the loader has masks",
        ),
        (
            lambda c, m: compare({"a": net(num_classes=8), "b": unet()}, c.valid),
            ValueError,
            "is it a mask model",
        ),
        (
            lambda c, m: compare(
                {"a": net(num_classes=8), "b": Teacher(net(num_classes=8), vocab=list("hgfedcba"))},
                c.valid,
            ),
            ValueError,
            "name their classes differently",
        ),
        (
            lambda c, m: compare({"a": net(num_classes=8), "b": nn.Linear(3, 8)}, c.valid),
            ValueError,
            "b fails on a batch of shape",
        ),
        (
            lambda c, m: compare(
                {"a": net(num_classes=8), "b": net(num_classes=8)}, c.valid, kind="nobody"
            ),
            ValueError,
            "no kind of disagreement",
        ),
    ],
)
def test_wrong_use_is_answered(classes, masks, call, kind, match):
    with pytest.raises(kind, match=match):
        call(classes, masks)


def test_a_loader_without_images_or_targets_is_answered():
    empty = DataLoaders.from_dsets(
        Items(data().train_ds), Items(), bs=4, device="cpu", num_workers=0
    ).valid
    with pytest.raises(ValueError, match="no images"):
        compare({"a": net(), "b": net()}, empty)
    bare = DataLoaders.from_dsets(
        Items([(torch.rand(3, 8, 8),)] * 4),
        Items([(torch.rand(3, 8, 8),)] * 4),
        bs=4,
        device="cpu",
        num_workers=0,
    ).valid
    with pytest.raises(ValueError, match="without targets"):
        compare({"a": net(), "b": net()}, bare)


# --- KDAS


def test_kdas_shows_the_methods_maps(masks):
    learn = distill(masks, unet(), [unet(), unet()], KDAS())
    w = kdas_attention(learn, items=5)
    P_s, P_t = w.pair()
    x = torch.cat([plain(x) for x, _ in masks.valid])[:5]
    with torch.no_grad():
        assert torch.allclose(P_s, learn.model.eval()(x), atol=1e-5) and torch.allclose(
            P_t, learn.distill.teachers[0].model(x), atol=1e-5
        )
    for P in (P_s, P_t):
        A = attend_to_itself(P[2:3])[0, 0]
        assert torch.allclose(row_weights(P[2:3]) @ P[2, 0], A, atol=1e-5)
        assert torch.allclose(row_weights(P[2:3], 5), row_weights(P[2:3])[5])
    w.move(image=3, row=3)
    now = w.numbers()
    for who, P in (("student", P_s), ("teacher", P_t)):
        near = dict(rtol=1e-3, atol=1e-4)  # of numbers with 4 digits
        assert torch.allclose(now[who]["P"], P[2, 0].double(), **near)
        assert torch.allclose(now[who]["A"], attend_to_itself(P[2:3])[0, 0].double(), **near)
        assert torch.allclose(now[who]["half"], symmetric(P[2:3])[0, 0].double() / 2, **near)
        assert torch.allclose(now[who]["w"], row_weights(P[2:3], 3).double(), **near)
    for k, v in pair_losses(P_s[2:3], P_t[2:3], w.seen.method).items():
        assert now[k] == pytest.approx(v, rel=2e-3, abs=1e-6)
    both = [dice(P[2:3], w.seen.masks[2:3]).item() for P in (P_s, P_t)]
    assert now["dice"] == pytest.approx(both) and len(w.alone()) < 250_000
    was = now["teacher"]["P"]
    w.move(teacher=w.seen.names[1])
    assert not torch.equal(w.numbers()["teacher"]["P"], was)
    assert torch.equal(w.numbers()["student"]["P"], now["student"]["P"])


def test_large_maps_are_averaged_and_their_numbers_are_not():
    g = torch.Generator().manual_seed(0)
    P_s, P_t = (2 * torch.randn(2, 1, 96, 96, generator=g) for _ in range(2))
    y = torch.rand(2, 96, 96, generator=g) > 0.5
    pics = [np.zeros((96, 96, 3), np.uint8)] * 2
    w = KDASView(MapsSeen(pics, y, {("t", 0): (P_s, P_t)}, KDAS(), ["t"]))
    w.move(image=2, row=40)
    now = w.numbers()
    assert w.ranges["row"] == (0, MOST - 1) and "96 x 96" in w.arrays["note"]
    for k, v in pair_losses(P_s[1:], P_t[1:], KDAS()).items():
        assert now[k] == pytest.approx(v, rel=1e-6)
    assert now["dice"] == pytest.approx([dice(P[1:], y[1:]).item() for P in (P_s, P_t)])
    A = averaged(attend_to_itself(P_t[1:])[0, 0])
    assert torch.allclose(now["teacher"]["A"], A.double(), atol=1e-3) and A.shape == (MOST, MOST)
    assert torch.allclose(
        now["teacher"]["half"], averaged(symmetric(P_t[1:])[0, 0]).double() / 2, atol=1e-3
    )
    assert float(now["teacher"]["w"].sum()) == pytest.approx(1, abs=1e-3)
    # 96 rows in 64 parts: the first two parts are the rows 0 to 2, in proportion 2 to 1 and 1 to 2
    own, row = row_weights(P_t[1:]), w.arrays["teachers"]["t"][0]["maps"][1]["w"][0]
    asks = (2 * own[0] + own[1]) / 3
    assert row[0] == pytest.approx(float(asks[0] + asks[1] / 2), rel=1e-3, abs=1e-6)
    thin = averaged(torch.randn(1, 200))
    assert thin.shape == (1, 64)


def test_kdas_without_squares_has_no_symmetric_part(masks):
    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = unet()

        def forward(self, x):
            return self.net(x[..., :16])

    class Half(torch.nn.Module):
        def __init__(self):
            super().__init__()

        def forward(self, out, y):
            return sum(o.mean() for o in (out,))

    learn = distill(masks, Wide(), Wide(), KDAS(sgm=0), loss_func=Half())
    w = kdas_attention(learn)
    assert w.numbers()["sgm"] is w.numbers()["dice"] is w.numbers()["student"]["half"] is None


def test_kdas_turns_heads(masks):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = unet()

        def forward(self, x):
            z = self.net(x)
            return z, -z

    w = kdas_attention(distill(masks, Two(), Two(), KDAS()))
    a = w.pair()[0]
    w.move(map="map 2")
    assert torch.equal(w.pair()[0], -a)


# --- MBCSA


def test_mbcsa_shows_the_blocks_gates(classes):
    m = hdkd()
    w = mbcsa_attention(m, classes.valid, items=7)
    assert w.ranges["block"] == ["stage2.0", "stage3.0", "stage3.1"]
    assert w.state["block"] == "stage3.1"
    x, got = torch.cat([plain(x) for x, _ in classes.valid])[:7], {}
    for k in ("channel", "spatial"):
        getattr(m.stage2[0].attend, k).register_forward_hook(
            lambda o, i, w, k=k: got.update({k: w})
        )
    with torch.no_grad():
        m.eval()(x)
    w.move(block="stage2.0", image=5)
    gates, now = got["channel"][4, :, 0, 0].double(), w.numbers()
    assert torch.allclose(now["channel"], gates.sort(descending=True).values, atol=1e-3)
    assert torch.allclose(w.seen.spatial["stage2.0"], got["spatial"][:, 0], atol=1e-5)
    assert torch.allclose(now["place"], got["spatial"][4, 0].double(), atol=1e-3)
    assert now["share"] == pytest.approx(fixed_share(got["spatial"][:, 0]), rel=1e-2)
    w.move(order="the mean")
    mean, now = got["channel"][:, :, 0, 0].mean(0).double(), w.numbers()
    order = mean.argsort(descending=True)
    assert torch.allclose(now["channel"], gates[order], atol=2e-3)
    assert torch.allclose(now["channelMean"], mean[order], atol=1e-3)
    assert m.training is False and len(w.alone()) < 250_000


def test_large_places_are_averaged_and_their_share_is_not():
    places = 0.1 + 0.8 * torch.rand(3, 96, 80)
    places[:, 0, 0] = torch.tensor([0.0, 1e-3, 2e-3])  # an end that an average does not reach
    seen = GatesSeen([np.zeros((8, 8, 3), np.uint8)] * 3, [""] * 3, dict(b=torch.rand(3, 5)),
                     dict(b=places))  # fmt: skip
    w = MBCSAView(seen, "b")
    w.move(image=2)
    now = w.numbers()
    assert now["share"] == pytest.approx(fixed_share(places)) and now["place"].shape == (64, 53)
    assert now["low"] == pytest.approx(1e-3) and now["high"] == pytest.approx(
        float(places[1].max())
    )
    assert w.arrays["places"]["b"] == "96 x 80 places, drawn averaged"


def test_mbcsa_takes_teachers_learners_and_masks(classes, masks):
    t = Teacher(hdkd().train(), norm=(norm_of(classes)[0].flatten(), norm_of(classes)[1].flatten()))
    a, b = (
        mbcsa_attention(t, classes.valid),
        mbcsa_attention(Learner(classes, t.model, loss_func=nn.CrossEntropyLoss())),
    )
    assert (
        torch.allclose(a.seen.spatial["stage2.0"], b.seen.spatial["stage2.0"], atol=1e-5)
        and t.model.training
        and n_hooks(t.model) == 0
    )
    assert set(mbcsa_attention(t, masks.valid).seen.titles) == {""}


# --- disagreement


def test_kinds_partition_and_sort():
    g = torch.Generator().manual_seed(0)
    s = ClassAnswers(
        [],
        torch.randint(4, (50,), generator=g),
        {n: torch.randn(50, 4, generator=g).softmax(1) for n in "abc"},
        list("wxyz"),
    )
    k = class_kinds(s)
    assert sorted(k["some right, some wrong"] + k["all wrong"] + k["all right"]) == list(range(50))
    one = sum((k[f"only {m} right"] for m in "abc"), []) + sum(
        (k[f"only {m} wrong"] for m in "abc"), []
    )
    assert sorted(one) == sorted(k["some right, some wrong"])
    r = {m: s.p[m].argmax(1) == s.y for m in "abc"}
    assert set(k["b right where a is wrong"]) == {
        i for i in range(50) if r["b"][i] and not r["a"][i]
    }
    spread = torch.stack([p[torch.arange(50), s.y] for p in s.p.values()])
    spread = (spread.amax(0) - spread.amin(0))[k["all images"]]
    assert (spread.diff() <= 0).all() and spread[0] > spread[-1]


def test_compare_pages_through_a_kind(classes):
    models = {"a": net(num_classes=8), "b": net(num_classes=8)}
    w = compare(models, classes.valid, items=10)
    for m in models.values():
        m.eval()
    x = torch.cat([plain(x) for x, _ in classes.valid])[:10]
    with torch.no_grad():
        for n, m in models.items():
            assert torch.allclose(w.seen.p[n], m(x).softmax(1), atol=1e-5)
    drawn = []
    show = w.show
    w.show = lambda f: (drawn.append(1), show(f))
    w.kind.value = "all images"
    assert w.at.max == 10 and drawn == [1]  # one redraw for one choice
    for i, at in enumerate(w.kinds["all images"], 1):
        w.at.value = i
        assert (
            w.figure.layout.title.text == f"{i} of 10: image {at + 1} of the loader"
            and w.figure.layout.xaxis.title.text == f"true class: {classes.vocab[w.seen.y[at]]}"
        )
        names, p, _ = top_bars(w.seen.p["b"][at], int(w.seen.y[at]), classes.vocab)
        assert list(w.figure.data[2].y) == names and np.allclose(w.figure.data[2].x, p, atol=1e-4)
    none = next(k for k, v in w.kinds.items() if not v)
    before = w.figure.layout.title.text
    w.kind.value = none
    assert (
        "none of the 10 images" in w.said.value
        and w.figure.layout.title.text == before
        and w.at.disabled
    )
    w.kind.value = "all images"
    assert w.said.value == "" and not w.at.disabled and len(w.figure.to_json()) < 40_000


def test_top_bars_show_the_true_class():
    p = torch.tensor([0.5, 0.3, 0.1, 0.06, 0.04])
    assert top_bars(p, 4, list("abcde")) == (
        list("abce"),
        pytest.approx([0.5, 0.3, 0.1, 0.04]),
        [ORANGE, GREY, GREY, GREEN],
    )
    assert (
        top_bars(p, 0, list("abcde"))[2][0] == GREEN and len(top_bars(p[:2], 1, list("ab"))[0]) == 2
    )


def test_compare_masks(masks):
    class Says(nn.Module):  # everywhere yes, or no
        def __init__(self, v):
            super().__init__()
            self.v = nn.Parameter(torch.tensor(v))

        def forward(self, x):
            return self.v.expand(len(x), 1, 16, 16)  # another size than the mask: brought to it

    w = compare({"yes": Says(1.0), "no": Says(-1.0), "net": unet()}, masks.valid)
    y = torch.cat([plain(y) for _, y in masks.valid]) > 0
    share = y.flatten(1).float().mean(1)
    assert (
        torch.allclose(w.seen.score["yes"], 2 * share / (1 + share), atol=1e-5)
        and (w.seen.score["no"] == 0).all()
    )
    assert len(w.figure.data) == 4 and "(nothing)" in w.figure.layout.annotations[2].text
    d = torch.stack(list(w.seen.score.values()))
    assert (((d.amax(0) - d.amin(0))[w.kinds["all images"]]).diff() <= 0).all()


def test_outline_lies_on_the_masks_border():
    m = np.zeros((80, 80), bool)
    m[20:60, 20:60] = True
    im, _ = outlined(np.full((80, 80, 3), 100, np.uint8), m, [np.zeros_like(m)])
    k = im.shape[0] // 80
    assert (
        (im[20 * k, 40 * k] == 255).all()
        and (im[20 * k + 1, 40 * k] == 0).all()
        and (im[40 * k, 40 * k] == 100).all()
        and (im[5 * k, 5 * k] == 100).all()
    )
    _, full = outlined(np.full((80, 80, 3), 100, np.uint8), np.zeros_like(m), [np.ones_like(m)])
    assert (full[..., 2] > full[..., 0] + 50).all()  # blue all over, no outline


# --- life and death


@pytest.mark.slow
def test_close_gives_back_what_is_held(classes, masks):
    held = {
        lambda: relation_attention(guided(classes)): lambda s: s.attention,
        lambda: kdas_attention(distill(masks, unet(), unet(), KDAS())): lambda s: s.masks,
        lambda: mbcsa_attention(hdkd(), classes.valid): lambda s: s.spatial["stage2.0"],
        lambda: compare(
            {"a": net(num_classes=8), "b": net(num_classes=8)}, classes.valid
        ): lambda s: s.y,
    }
    for make, big in held.items():
        w = make()
        ref = weakref.ref(big(w.seen))
        assert w._repr_mimebundle_()
        w.close()
        del w
        gc.collect()
        assert ref() is None


# --- with images without labels


def beside(task, student, method, n=1):
    "A Learner whose training batches hold images without labels, and the loaders without these."
    kw = dict(n_train=6, n_valid=4, size=32, bs=8, device="cpu", n_unlabelled=24, seed=1)
    dls = phantom_dls(task=task, **kw)
    teachers = [student() for _ in range(n)]
    return distill(dls, student(), teachers, method, unlabelled="rest"), dls


def test_compare_shows_the_labelled_images_alone():
    for task, student, method in (
        ("classify", lambda: net(num_classes=8), Response()),
        ("segment", unet, KDAS()),
    ):
        learn, dls = beside(task, student, method)
        models = {"student": learn, "teacher": learn.distill.teachers[0]}
        seen, want = (compare(models, d.train).seen for d in (learn.dls, dls))
        assert len(seen.y) == 6 and torch.equal(seen.y, want.y)
        assert len(compare(models, learn.dls.valid).seen.y) == 4


def test_attention_shows_the_labelled_images_alone():
    few = lambda: net(num_classes=8)
    learn, dls = beside("classify", few, RelationAttention(d=8, heads=2, grid=2), n=2)
    seen, want = (relation_attention(learn, d.train).seen for d in (learn.dls, dls))
    assert len(seen.truth) == 6 and seen.truth == want.truth
    assert len(relation_attention(learn).seen.truth) == 4
    learn, dls = beside("segment", unet, KDAS())
    seen, want = (kdas_attention(learn, d.train).seen for d in (learn.dls, dls))
    assert len(seen.masks) == 6 and torch.equal(seen.masks, want.masks)


def test_long_names_leave_room_for_the_image(classes, monkeypatch):
    long = [f"a finding with a name that does not come to an end, {i}" for i in range(8)]
    monkeypatch.setattr(classes.valid, "vocab", long, raising=False)
    monkeypatch.setattr(classes, "vocab", long, raising=False)
    w = compare({f"a model, {'x' * 60} {i}": net(num_classes=8) for i in range(2)}, classes.valid)
    w.kind.value = "all images"
    fig = w.draw()
    for axis in (fig.layout.yaxis2, fig.layout.yaxis3):
        assert all(
            len(t) <= 24 and t.endswith(v[-3:]) for t, v in zip(axis.ticktext, axis.tickvals)
        )
    assert len(fig.layout.xaxis.title.text) <= 34
    assert all(len(a.text) <= 48 for a in fig.layout.annotations)


def test_the_bench_before_its_first_run_has_the_axis_of_a_score():
    from kdmedlearn.viz.figures import runs_figure

    assert tuple(runs_figure([], lines={"teacher": 0.5}).layout.yaxis.range) == (0, 1.05)
    run = dict(run=1, history={"accuracy": [0.1, 0.2]})
    assert runs_figure([run]).layout.yaxis.range is None
