"""Feature and relation losses against their definitions, and what `Feature` does with shapes,
adapters and names."""

import copy, pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers import data, fingerprint, net
from kdmedlearn import distill
from kdmedlearn.core.outputs import Outputs, Pass
from kdmedlearn.methods.feature import align, as_map, attention_map, Feature, feature_distance
from kdmedlearn.methods.relation import (
    angles,
    distances,
    RKD,
    rkd_angle,
    rkd_distance,
    Similarity,
    similarity_loss,
)


def make(method, student=None, teacher=None, **kw):
    return distill(
        data(),
        student or net(),
        net(8) if teacher is None else teacher,
        method=method,
        loss_func=F.cross_entropy,
        **kw,
    )


def fit(learn, n=1, lr=1e-2, **kw):
    with learn.no_bar(), learn.no_logging():
        learn.fit(n, lr, **kw)
    return learn


# --- definitions, written out
def test_distances_equal_their_formulas():
    torch.manual_seed(0)
    s, t = torch.randn(2, 3, 5, 4, 4, dtype=torch.float64)
    d = {k: feature_distance(s, t, k).item() for k in ("mse", "l1", "cosine", "attention")}
    q = lambda f: (v := (f**2).sum(1).reshape(3, -1)) / v.norm(dim=1, keepdim=True)
    cos = [
        1 - float(s[b, :, i, j] @ t[b, :, i, j] / s[b, :, i, j].norm() / t[b, :, i, j].norm())
        for b in range(3)
        for i in range(4)
        for j in range(4)
    ]
    assert d["mse"] == pytest.approx(float(((s - t) ** 2).mean()), abs=1e-12)
    assert d["l1"] == pytest.approx(float((s - t).abs().mean()), abs=1e-12)
    assert d["cosine"] == pytest.approx(sum(cos) / len(cos), abs=1e-9)
    assert d["attention"] == pytest.approx(float(((q(s) - q(t)) ** 2).sum(1).mean()), abs=1e-9)


def test_similarity_and_rkd_equal_their_formulas():
    torch.manual_seed(1)
    s, t = torch.randn(5, 7, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    g = lambda f: torch.stack([r / r.norm() for r in f @ f.T])
    assert float(similarity_loss(s, t)) == pytest.approx(
        float(((g(s) - g(t)) ** 2).sum() / 25), abs=1e-12
    )
    pairs = [(i, j) for i in range(5) for j in range(i + 1, 5)]
    d = lambda f: (v := torch.stack([(f[i] - f[j]).norm() for i, j in pairs])) / v.mean()
    huber = lambda a, b: torch.where(
        (a - b).abs() <= 1, 0.5 * (a - b) ** 2, (a - b).abs() - 0.5
    ).mean()
    assert float(rkd_distance(s, t)) == pytest.approx(float(huber(d(s), d(t))), abs=1e-12)
    unit = lambda v: v / v.norm() if v.norm() > 0 else v
    a = lambda f: torch.stack(
        [
            unit(f[i] - f[j]) @ unit(f[k] - f[j])
            for j in range(5)
            for i in range(5)
            for k in range(5)
        ]
    )
    assert float(rkd_angle(s, t)) == pytest.approx(float(huber(a(s), a(t))), abs=1e-12)


@pytest.mark.parametrize("loss", [similarity_loss, rkd_distance, rkd_angle])
def test_relation_losses_do_not_overflow_under_autocast(loss):
    s = (200 * torch.randn(8, 512)).bfloat16().requires_grad_()
    t = 300 * torch.randn(8, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        v = loss(s, t)
    v.backward()
    assert v.dtype == torch.float32 and v.isfinite() and s.grad.isfinite().all()
    want = loss(s.detach().float(), t)
    assert v.item() == pytest.approx(want.item(), rel=1e-5)


@pytest.mark.parametrize("n", [1, 2])
def test_batches_too_small_for_a_relation_teach_nothing_and_stay_finite(n):
    s = torch.randn(n, 4, requires_grad=True)
    (
        rkd_angle(s, torch.randn(n, 4)) + (rkd_distance(s, torch.randn(n, 4)) if n == 1 else 0)
    ).backward()
    assert not s.grad.any()


# --- shapes
def test_tokens_become_the_places_of_their_grid():
    m = torch.randn(2, 6, 3, 3)
    tokens = m.flatten(2).transpose(1, 2)
    for extra in (0, 1, 2, 5):
        cls = torch.full((2, extra, 6), 99.0)
        assert torch.equal(as_map(torch.cat([cls, tokens], 1)), m)
    with pytest.raises(ValueError, match="form no square"):
        as_map(torch.zeros(2, 15, 3))


def test_align_pools_the_finer_side_whichever_it_is():
    a, b = torch.randn(2, 3, 8, 8), torch.randn(2, 5, 4, 4)
    for s, t in ((a, b), (b, a)):
        x, y = align(s, t)
        assert x.shape[2:] == y.shape[2:] == (4, 4)
    assert torch.allclose(align(a, b)[0], F.avg_pool2d(a, 2)) and torch.equal(align(a, b)[1], b)
    assert align(b, a, "bilinear")[1].shape == (2, 3, 4, 4) and align(a, b, "bilinear")[
        1
    ].shape == (2, 5, 8, 8)


# --- in training
def test_adapters_only_where_widths_differ():
    adapters = lambda *args, **kw: make(*args, **kw).distill.step.bound[0].state.convs
    m = Feature({"conv": "conv"})
    assert [a.weight.shape for a in adapters(m).values()] == [(8, 4, 1, 1)]
    assert not len(adapters(m, teacher=net(4)))
    assert not len(adapters(Feature({"conv": "conv"}, distance="attention")))
    m = Feature([{"conv": "conv", "act": "norm"}, {"act": "act"}])
    convs = adapters(m, teacher=[net(8), net(6)])
    assert [(k, tuple(a.weight.shape[:2])) for k, a in convs.items()] == [
        ("0_0", (8, 4)),
        ("0_1", (8, 4)),
        ("1_0", (6, 4)),
    ]


def test_adapters_train_and_stay_out_of_the_student(tmp_path):
    m = Feature({"act": "act"})
    learn = make(m)
    adapter = learn.distill.step.bound[0].state.convs["0_0"]
    before = copy.deepcopy(adapter.weight)
    fit(learn)
    assert not torch.equal(before, adapter.weight)
    assert set(learn.model.state_dict()) == set(net().state_dict())
    learn.path = tmp_path
    learn.export("student.pkl")
    assert b"methods.feature" not in (tmp_path / "student.pkl").read_bytes()
    again = copy.deepcopy(adapter.weight)
    # another training begins with another adapter
    second = distill(data(), net(), net(8), m, loss_func=F.cross_entropy).distill.step.bound[0]
    assert torch.equal(again, adapter.weight)
    assert not torch.equal(again, second.state.convs["0_0"].weight)


def test_the_unit_makes_the_term_independent_of_the_teachers_scale():
    torch.manual_seed(0)
    t, values = net(8), []
    for factor in (0.01, 1.0, 100.0):
        louder = copy.deepcopy(t)
        with torch.no_grad():
            louder.conv.weight.mul_(factor), louder.conv.bias.mul_(factor)
        m = Feature({"conv": "conv"})
        learn = make(m, teacher=louder)
        bound = learn.distill.step.bound[0]
        with torch.no_grad():
            for p in bound.state.convs["0_0"].parameters():
                p.zero_()
        x = data().valid.one_batch()[0]
        own, other = (Outputs(None, {"conv": n.conv(x)}) for n in (learn.model, louder))
        values.append(bound.terms(Pass(own, (other,)))["feature"].item())
    assert values == pytest.approx([values[0]] * 3, rel=1e-4) and 0.5 < values[0] < 2


def test_last_maps_are_found_in_any_family():
    import timm

    vit = timm.create_model(
        "vit_tiny_patch16_224",
        img_size=32,
        num_classes=3,
        patch_size=8,
        embed_dim=24,
        depth=1,
        num_heads=2,
    )
    m = Feature()
    learn = distill(big(), net(), [vit, net(8)], m, loss_func=F.cross_entropy)
    pairs = learn.distill.step.bound[0].layers.pairs
    assert pairs == ((("act", "norm"),), (("act", "act"),))
    fit(learn)


def swin():
    t = net(8)
    t.output_fmt = "NHWC"  # as timm's Swin says of itself
    return t


def big():
    from fastai.data.core import DataLoaders
    from helpers import Items

    g = torch.Generator().manual_seed(0)
    items = [(torch.randn(3, 32, 32, generator=g), torch.tensor(i % 3)) for i in range(12)]
    return DataLoaders.from_dsets(
        Items(items[:8]), Items(items[8:]), bs=4, device="cpu", num_workers=0
    )


@pytest.mark.parametrize(
    "method, terms",
    [(Similarity(), ["similarity"]), (RKD(), ["distance", "angle"]), (Feature(), ["feature"])],
)
def test_methods_train_with_several_teachers(method, terms):
    teachers = [net(8), net(6)]
    prints = [fingerprint(t) for t in teachers]
    learn = fit(make(method, teacher=teachers))
    assert learn.recorder.metric_names[3:-1] == ["task", *terms]
    assert [fingerprint(t) for t in teachers] == prints and all(
        p.grad is None for t in teachers for p in t.parameters()
    )


def test_features_of_a_teacher_with_other_classes():
    fit(make(Feature(), teacher=net(8, num_classes=10)))
    with pytest.raises(ValueError, match="the student gives 3 logits, the teachers: Sequential 10"):
        make("response", teacher=net(8, num_classes=10))


# --- wrong use
@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: make(Feature({"cnov": "conv"})), "Near: conv"),
        (lambda: make(Feature({"conv": "cnov"})), "Near: conv"),
        (
            lambda: make(Feature([("conv", "conv"), ("conv", "act")])),
            "student layer conv stands in two pairs",
        ),
        (
            lambda: make(Feature([("conv", "conv"), ("act", "conv")])),
            "teacher layer conv stands in two pairs",
        ),
        (lambda: make(Feature(["conv"])), "a pair is (student layer, teacher layer)"),
        (
            lambda: make(Feature([{"conv": "conv"}] * 3), teacher=[net(8), net(8)]),
            "pairs for 3 teachers, but there are 2",
        ),
        (lambda: Feature([]), "nothing would be compared"),
        (lambda: Similarity({}), "nothing would be compared"),
        (lambda: RKD(["stage4"]), "a pair is (student layer, teacher layer)"),
        (
            lambda: feature_distance(torch.zeros(2, 2, 3, 3), torch.zeros(1, 4, 3, 3), "attention"),
            "cannot be compared by attention",
        ),
        (lambda: Feature(lam="1x"), "lam must be a number or a schedule"),
        (lambda: Feature(align="crop"), "expected one of 'pool', 'bilinear', 'none'"),
        (
            lambda: rkd_angle(torch.zeros(4, 2, 3, 3), torch.zeros(4, 2)),
            "needs a vector for each image",
        ),
        (lambda: rkd_distance([1.0], torch.zeros(4, 2)), "got list from the student"),
        (
            lambda: similarity_loss(torch.zeros(4, 2), torch.zeros(5, 2)),
            "got 4 of the student and 5 of the teacher",
        ),
        (
            lambda: feature_distance(torch.zeros(1, 2, 3, 3), torch.zeros(1, 4, 3, 3)),
            "to one width with an adapter",
        ),
    ],
)
def test_wrong_use_is_answered(call, words):
    with pytest.raises((ValueError, TypeError)) as e:
        call()
    assert words in str(e.value)
