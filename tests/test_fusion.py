"""Several teachers as one: what the fusions compute, where gradients go, how they are fitted, and
wrong use."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers import data, fingerprint, net
from kdmedlearn import distill
from kdmedlearn.core.teacher import Teacher
from kdmedlearn.data.splits import hold_out, part
from kdmedlearn.evaluation.calibration import fit_temperature
from kdmedlearn.methods.fusion import (
    AttentionFusion,
    by_teacher,
    Concatenation,
    Ensemble,
    Fusion,
    MeanLogits,
    MeanProbabilities,
    RelationAttention,
)
from kdmedlearn.methods.response import response_loss
from kdmedlearn.train.fusing import collect, Collected, cross_collect, fit_fusion, fused

TEACHERS = lambda k=3: [net(4 + 2 * i) for i in range(k)]
SMALL = dict(d=8, heads=2)


def make(method, student=None, teacher=None, **kw):
    return distill(
        data(),
        student or net(),
        TEACHERS() if teacher is None else teacher,
        method=method,
        loss_func=F.cross_entropy,
        **kw,
    )


def fit(learn, n=1, lr=1e-2, **kw):
    with learn.no_bar(), learn.no_logging():
        learn.fit(n, lr, **kw)
    return learn


def seen(k=3, n=40, c=3, side=2):
    g = torch.Generator().manual_seed(0)
    return Collected(
        [torch.randn(n, c, generator=g) for _ in range(k)],
        [torch.randn(n, 4 + i, side, side, generator=g) for i in range(k)],
        torch.arange(n) % c,
        torch.arange(n),
    )


# --- what the fusions compute
def test_means_equal_their_definitions():
    a = [torch.randn(5, 4) for _ in range(3)]
    assert torch.allclose(MeanLogits()(a).out, (a[0] + a[1] + a[2]) / 3, atol=1e-6)
    assert torch.allclose(MeanLogits([1, 0, 3])(a).out, (a[0] + 3 * a[2]) / 4, atol=1e-6)
    p = [x.softmax(1) for x in a]
    assert torch.allclose(MeanProbabilities()(a).out.exp(), (p[0] + p[1] + p[2]) / 3, atol=1e-6)
    assert torch.allclose(
        MeanProbabilities([1, 0, 3])(a).out.exp(), (p[0] + 3 * p[2]) / 4, atol=1e-6
    )


def test_one_teacher_is_itself():
    a = [torch.randn(5, 4)]
    assert torch.allclose(MeanLogits()(a).out, a[0]) and torch.allclose(
        MeanProbabilities()(a).out.softmax(1), a[0].softmax(1), atol=1e-6
    )


def test_attention_is_a_distribution_over_all_teachers_tokens():
    torch.manual_seed(0)
    s = seen(side=4)
    f = AttentionFusion(**SMALL, grid=2)
    f.build(s.answers, s.maps, 3)
    out = f(s.answers, s.maps)
    assert (
        out.out.shape == (40, 3)
        and out.feature.shape == (40, 8)
        and out.attention.shape == (40, 2, 12, 12)
    )
    assert torch.allclose(out.attention.sum(-1), torch.ones(40, 2, 12), atol=1e-5)
    paid = by_teacher(out.attention, 3)
    assert paid.shape == (40, 2, 3, 4) and torch.allclose(
        paid.sum((2, 3)), torch.ones(40, 2), atol=1e-5
    )
    # the second teacher's places
    assert torch.allclose(paid[:, :, 1], out.attention[..., 4:8].mean(2), atol=1e-6)


def test_a_mixture_begins_as_the_weighted_mean_of_the_teachers():
    torch.manual_seed(0)
    s = seen()
    f = AttentionFusion(**SMALL, answer="mixture")
    f.build(s.answers, s.maps, 3)
    out = f(s.answers, s.maps)
    a = by_teacher(out.attention, 3).mean(1).sum(2)
    assert torch.allclose(
        out.out, torch.stack([a[:, i, None] * t for i, t in enumerate(s.answers)]).sum(0), atol=1e-5
    )
    assert (a - 1 / 3).abs().max() < 0.2


@pytest.mark.slow
def test_the_attention_follows_the_right_teacher():
    """Teacher 0 knows class 0 and 1, teacher 1 knows class 2; which one is right is written in the
    maps."""
    g = torch.Generator().manual_seed(0)
    y = torch.randint(0, 3, (600,), generator=g)
    truth, noise = (
        4.0 * F.one_hot(y, 3),
        lambda: 4 * F.one_hot(torch.randint(0, 3, (600,), generator=g), 3).float(),
    )
    knows = y < 2
    answers = [
        torch.where(knows[:, None], truth, noise()),
        torch.where(knows[:, None], noise(), truth),
    ]
    sign = torch.tensor([2.0, -2.0, 2.0, -2.0])[:, None, None]
    maps = [
        torch.randn(600, 4, 1, 1, generator=g) + sign * (k.float() * 2 - 1)[:, None, None, None]
        for k in (knows, ~knows)
    ]
    s = Collected([a[:400] for a in answers], [m[:400] for m in maps], y[:400], torch.arange(400))
    test = Collected(
        [a[400:] for a in answers], [m[400:] for m in maps], y[400:], torch.arange(200)
    )
    f = fit_fusion(
        AttentionFusion(**SMALL, grid=1, answer="mixture"), s, epochs=60, lr=1e-2, stop=0
    )
    acc = lambda z: float((z.argmax(1) == test.target).float().mean())
    assert acc(fused(f, test)) > acc(MeanLogits()(test.answers).out) + 0.1
    paid = by_teacher(f(test.answers, test.maps).attention, 2).mean(1).sum(2)
    assert paid[knows[400:], 0].mean() > paid[~knows[400:], 0].mean() + 0.2


# --- where gradients go
@pytest.mark.parametrize("answer", ["classifier", "mixture"])
def test_no_gradient_into_teachers_and_none_from_the_guidance_into_the_fusion(answer):
    teachers = TEACHERS()
    prints = [fingerprint(t) for t in teachers]
    m = RelationAttention(**SMALL, answer=answer)
    learn = make(m, teacher=teachers)
    x, y = learn.dls.train.one_batch()
    learn.model.train()
    step = learn.distill.step
    m, terms = step.bound[0].state, step(x, y).terms
    (terms["fused_response"] + terms["fused_feature"]).backward(retain_graph=True)
    assert all(q.grad is None for q in m.fusion.parameters())  # guidance: not into the fusion
    assert learn.model.conv.weight.grad.abs().sum() > 0 and m.adapter.weight.grad.abs().sum() > 0
    step.zero_grad()
    terms["fusion"].backward()
    # what trains the fusion: not into the student
    assert all(q.grad is None for q in learn.model.parameters()) and m.adapter.weight.grad is None
    assert sum(float(q.grad.abs().sum()) for q in m.fusion.parameters() if q.grad is not None) > 0
    fit(learn, 2)
    assert [fingerprint(t) for t in teachers] == prints and all(
        q.grad is None for t in teachers for q in t.parameters()
    )


def test_joint_trains_the_fusion_and_first_leaves_it_alone():
    m = RelationAttention(**SMALL)
    learn = make(m)
    joint = learn.distill.step.bound[0].state.fusion
    before = copy.deepcopy(joint.state_dict())
    fit(learn)
    assert "fusion" in learn.recorder.metric_names and not all(
        torch.equal(v, before[k]) for k, v in joint.state_dict().items()
    )
    teachers = TEACHERS()
    fusion = fit_fusion(
        AttentionFusion(**SMALL, dropout=0.5), collect(teachers, data().train), epochs=1
    )
    before = copy.deepcopy(fusion.state_dict())
    learn = fit(make(RelationAttention(fusion=fusion), teacher=teachers))
    assert "fusion" not in learn.recorder.metric_names and all(
        torch.equal(v, before[k]) for k, v in fusion.state_dict().items()
    )
    # no dropout in what the student is taught
    assert not any(sub.training for sub in fusion.modules())


def test_students_are_saved_without_the_fusion():
    learn = fit(make(RelationAttention(**SMALL)))
    assert set(learn.model.state_dict()) == set(net().state_dict())


def test_the_fused_response_is_what_the_student_is_compared_with():
    teachers = TEACHERS()
    learn = make(Ensemble("mean", T=2.0, alpha=0.5), teacher=teachers)
    from kdmedlearn.core.outputs import Outputs, Pass

    x, y = learn.dls.valid.one_batch()
    with torch.no_grad():
        outs, s = [t.eval()(x) for t in teachers], learn.model.eval()(x)
    p = Pass(Outputs(s), tuple(Outputs(o) for o in outs), y)
    got = learn.distill.step.bound[0].terms(p)
    assert got["fused_response"].item() == pytest.approx(
        response_loss(s, sum(outs) / 3, 2.0).item(), rel=1e-5
    )
    assert learn.distill.method.weights() == {"task": 0.5, "fused_response": 0.5}


@pytest.mark.parametrize(
    "method",
    [
        Ensemble("probabilities"),
        Ensemble("concatenation", lam=0.5),
        RelationAttention(**SMALL),
        RelationAttention(**SMALL, source="answers", answer="mixture"),
    ],
)
@pytest.mark.parametrize("k", [1, 4])
def test_any_number_of_teachers(method, k):
    learn = fit(make(copy.deepcopy(method), teacher=TEACHERS(k)))
    assert all(np.isfinite(v) for v in learn.recorder.values[-1])


def test_teachers_with_their_own_size_and_normalisation():
    """A teacher that wants 16 pixels and other numbers gets them; the student's batch is left as it
    is."""
    sizes = []

    class Spy(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net(6)

        def forward(self, x):
            sizes.append((tuple(x.shape[2:]), round(float(x.mean()), 3)))
            return self.net(x)

    spy = Spy()
    learn = make(
        RelationAttention(**SMALL),
        teacher=[net(4), Teacher(spy, norm=([0.5] * 3, [0.1] * 3), size=16)],
    )
    fit(learn)
    assert {s for s, _ in sizes} == {(16, 16)} and all(-7 < m < -3 for _, m in sizes)


def test_fused_terms_stand_beside_those_of_other_methods():
    from kdmedlearn import Feature, Response

    learn = fit(make(RelationAttention(**SMALL) + Feature() + Response(alpha=0.5)))
    assert learn.recorder.metric_names[3:-1] == [
        "task",
        "fused_response",
        "fused_feature",
        "fusion",
        "feature",
        "response",
    ]


def test_temperatures_must_be_positive():
    f = MeanLogits()
    f.temperatures = [0.0, 1.0]
    with pytest.raises(ValueError, match="must be above 0"):
        f([torch.zeros(1, 2)] * 2)


def test_half_precision_answers_are_fused_in_float32():
    a = [
        torch.full((2, 3), 60000.0, dtype=torch.float16),
        torch.full((2, 3), 60000.0, dtype=torch.float16),
    ]
    assert MeanLogits()(a).out.dtype == torch.float32 and MeanLogits()(a).out.isfinite().all()


# --- fitting
def test_collect_keeps_the_order_and_equals_the_teachers():
    dls, teachers = data(), TEACHERS(2)
    s = collect(teachers, dls.train, layers="act", places=2)
    xs, ys = map(torch.stack, zip(*dls.train.dataset))
    assert torch.equal(s.target, ys) and len(s.target) == len(dls.train.dataset)
    with torch.no_grad():
        for t, a, m in zip(teachers, s.answers, s.maps):
            assert torch.allclose(t.eval()(xs), a, atol=1e-5)
            assert torch.allclose(F.adaptive_avg_pool2d(t.act(t.norm(t.conv(xs))), 2), m, atol=1e-5)
    assert not collect(teachers, dls.train, layers=()).maps
    assert len(collect(teachers, dls.train, passes=2).target) == 2 * len(dls.train.dataset)


def test_fit_fusion_is_reproducible_learns_and_leaves_chance_alone():
    s = seen(n=60)
    for a, i in zip(s.answers, range(3)):
        a[s.target == i, i] += 4  # each teacher knows one class
    torch.manual_seed(3)
    want = torch.rand(1)
    torch.manual_seed(3)
    one, two = (fit_fusion(AttentionFusion(**SMALL), s, epochs=5) for _ in range(2))
    assert torch.equal(torch.rand(1), want)
    assert (
        torch.equal(fused(one, s), fused(two, s))
        and one.frozen
        and not any(p.requires_grad for p in one.parameters())
    )
    assert F.cross_entropy(
        fused(
            fit_fusion(AttentionFusion(**SMALL, answer="mixture"), s, epochs=40, lr=1e-2, stop=0), s
        ),
        s.target,
    ) < F.cross_entropy(MeanLogits()(s.answers).out, s.target)


def test_fitting_stops_where_the_held_out_part_says_and_keeps_groups_together():
    g = torch.Generator().manual_seed(0)
    # 40 images, 3 views of each; labels are noise
    y = torch.randint(0, 2, (40,), generator=g).repeat(3)
    s = Collected(
        [torch.zeros(120, 2)],
        [torch.randn(40, 24, 1, 1, generator=g).repeat(3, 1, 1, 1)],
        y,
        torch.arange(40).repeat(3),
    )
    f = fit_fusion(AttentionFusion(**SMALL, grid=1), s, epochs=25, lr=1e-2, stop=0.3)
    held = [v for _, v in f.record]
    # learned by heart, if allowed to
    assert len(held) == 25 and f.record[-1][0] < 0.5 * f.record[0][0]
    assert held[-1] > min(held) + 0.2  # which an image's other views would not have shown
    with_stop, without = (
        F.cross_entropy(fused(x, s), y)
        for x in (f, fit_fusion(AttentionFusion(**SMALL, grid=1), s, epochs=25, lr=1e-2, stop=0))
    )
    assert with_stop > 2 * without
    with pytest.raises(ValueError, match="fitted and frozen"):
        fit_fusion(f, s)


def test_temperature_undoes_overconfidence():
    g = torch.Generator().manual_seed(0)
    z = 2 * torch.randn(4000, 5, generator=g)
    y = torch.distributions.Categorical(logits=z).sample()
    assert fit_temperature(z, y) == pytest.approx(1, abs=0.1) and fit_temperature(
        3 * z, y
    ) == pytest.approx(3, abs=0.3)
    f = MeanLogits()
    f.temperatures = [3.0, 1.0]
    assert torch.allclose(f([3 * z, z]).out, z, atol=1e-5)


def test_hold_out_and_part_cut_the_training_images_only():
    dls = data(n=60)
    rest, held = hold_out(dls, 0.25, seed=1)
    a, b = ({tuple(x.flatten()[:3].tolist()) for x, _ in d.train.dataset} for d in (rest, held))
    assert len(a) + len(b) == len(dls.train.dataset) == len(a | b) and len(b) == pytest.approx(
        10, abs=3
    )
    assert len(rest.valid.dataset) == len(held.valid.dataset) == len(dls.valid.dataset)
    assert [tuple(x.flatten()[:3].tolist()) for x, _ in part(dls, [3, 1]).train.dataset] == [
        tuple(dls.train.dataset[i][0].flatten()[:3].tolist()) for i in (3, 1)
    ]
    assert {
        tuple(x.flatten()[:3].tolist()) for x, _ in hold_out(dls, 0.25, seed=1)[1].train.dataset
    } == b


def test_hold_out_keeps_groups_together(tmp_path):
    import pandas as pd
    from PIL import Image
    from kdmedlearn import image_dls

    rows, r = [], np.random.default_rng(0)
    for c in "ab":
        for i in range(24):
            f = tmp_path / "set" / "train" / c / f"{i}.png"
            f.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(r.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(f)
            rows.append(("train", c, f.name, f"{c}{i // 3}"))
    pd.DataFrame(rows, columns=["split", "class", "file", "patient"]).to_csv(
        tmp_path / "set" / "manifest.csv", index=False
    )
    dls = image_dls(tmp_path / "set", size=16, bs=4, group="patient", device="cpu")
    rest, held = hold_out(dls, 0.3)
    groups = [set(d.table[d.table.split == "train"].group) for d in (rest, held)]
    assert not groups[0] & groups[1] and groups[0] | groups[1] == set(
        dls.table[dls.table.split == "train"].group
    )
    for d in (rest, held):
        assert len(d.table[d.table.split == "train"]) == len(
            d.train.dataset
        ) and d.train.one_batch()[0].shape[1:] == (3, 16, 16)


def test_cross_collected_answers_come_from_teachers_that_did_not_see_the_image():
    dls = data(n=36)
    key = lambda x: tuple(x.flatten()[:3].tolist())

    class Remembers(nn.Module):
        "Answers 1 for an image it was given for training, else 0."

        def __init__(self, xs):
            super().__init__()
            self.known, self.p = set(map(key, xs)), nn.Parameter(torch.zeros(1))

        def forward(self, x):
            return torch.tensor([[float(key(i) in self.known)] * 3 for i in x])

    s = cross_collect(dls, lambda d: [Remembers([x for x, _ in d.train.dataset])], folds=4)
    assert s.answers[0].shape == (24, 3) and not s.answers[0].any() and not s.maps
    assert torch.equal(s.target, torch.stack([y for _, y in dls.train.dataset]))


# --- wrong use
def vocab(names):
    d = data()
    d.vocab = names
    return d


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: make(RelationAttention(**SMALL), teacher=[]), "no teacher was given"),
        (
            lambda: make(Ensemble("mean"), teacher=[net(8), net(8, num_classes=5)]),
            "the student gives 3 logits, the teachers: Sequential 3, Sequential 5",
        ),
        (
            lambda: make(
                RelationAttention(**SMALL, answer="mixture"),
                teacher=[net(8), net(8, num_classes=5)],
            ),
            "the teachers: Sequential 3, Sequential 5",
        ),
        (
            lambda: distill(
                vocab(list("abc")),
                net(),
                [
                    Teacher(net(), vocab=list("abc")),
                    Teacher(net(), vocab=list("acb"), name="second"),
                ],
                Ensemble("mean"),
                loss_func=F.cross_entropy,
            ),
            "teacher second and the data name their classes differently",
        ),
        (
            lambda: make(
                Ensemble("mean"),
                teacher=[
                    Teacher(net(), vocab=list("abc"), name="first"),
                    Teacher(net(), vocab=list("acb"), name="second"),
                ],
            ),
            "teacher second and teacher first name their classes differently",
        ),
        (
            lambda: make(RelationAttention(**SMALL, layers=["conv", "conv"])),
            "2 layers for 3 teachers",
        ),
        (lambda: make(RelationAttention(**SMALL, layers="cnov")), "Near: conv"),
        (lambda: make(RelationAttention(**SMALL, student_layer="cnov")), "Near: conv"),
        (lambda: make(Ensemble(MeanLogits([1, 2]))), "weights=[1, 2] for 3 teachers"),
        (lambda: make(Ensemble(MeanLogits([1, -2, 1]))), "numbers of at least 0"),
        (lambda: Ensemble("median"), "fusion='median'; near: 'mean'"),
        (lambda: Ensemble(nn.Linear(2, 2)), "a fusion is a name or a Fusion, got Linear"),
        (lambda: Ensemble("mean", lam=1.0), "MeanLogits has no fused feature"),
        (lambda: RelationAttention(d=10, heads=4), "heads=4 do not divide d=10"),
        (lambda: AttentionFusion(grid=0), "grid=0; expected a whole number of at least 1"),
        (lambda: AttentionFusion(heads=0), "heads=0; expected a whole number"),
        (lambda: AttentionFusion(dropout=2), "dropout=2"),
        (
            lambda: RelationAttention(fusion="attention"),
            "RelationAttention takes an AttentionFusion",
        ),
        (
            lambda: RelationAttention(answer="mixture", fusion=AttentionFusion(8, 2)),
            "answer='mixture' and a fusion that has d=8",
        ),
        (
            lambda: fit_fusion(
                AttentionFusion(**SMALL), Collected(seen().answers, [], seen().target, seen().group)
            ),
            "reads maps and none were given",
        ),
        (
            lambda: fit_fusion(AttentionFusion(**SMALL), seen(side=4)),
            "collected with places=4, but this AttentionFusion reads 2 x 2",
        ),
        (lambda: fit_fusion(AttentionFusion(**SMALL), seen(side=2), epochs=0), "epochs=0"),
        (
            lambda: fit_fusion(AttentionFusion(**SMALL), seen(side=2), lr=1e8),
            "loss is not finite after epoch",
        ),
        (lambda: part(data(), []), "idxs is empty"),
        (lambda: AttentionFusion(answer="gate"), "expected one of 'classifier', 'mixture'"),
        (lambda: fit_fusion(MeanLogits(), seen()), "MeanLogits has nothing to learn"),
        (lambda: MeanLogits()([]), "a fusion needs the answers of at least one"),
        (lambda: hold_out(data(), 1.0), "expected a share between 0 and 1"),
        (lambda: cross_collect(data(), lambda d: [net()], folds=1), "folds=1 of 16 groups"),
        (lambda: collect([net(), net()], data().train, layers=["conv"]), "1 layers for 2 teachers"),
        (
            lambda: make(
                RelationAttention(fusion=fit_fusion(AttentionFusion(**SMALL), seen(k=2), epochs=1))
            ),
            "was fitted with 2 teachers",
        ),
    ],
)
def test_wrong_use_is_answered(call, words):
    with pytest.raises((ValueError, TypeError)) as e:
        call()
    assert words in str(e.value)


# --- the experiments' shortcut
def test_a_teacher_from_memory_teaches_what_the_teacher_teaches():
    "tools/experiments/memo.py, with which the results page was made."
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).parents[1] / "tools" / "experiments"))
    from memo import Memo, Views, loaders
    from kdmedlearn.data.loaders import restart

    g = torch.Generator().manual_seed(0)
    views = Views(torch.randn(3, 16, 3, 8, 8, generator=g), torch.arange(16) % 3, torch.arange(16))
    torch.manual_seed(0)
    teachers, weights = TEACHERS(2), []
    for ts in (teachers, [Memo(Teacher(t), views, None) for t in teachers]):
        dls = loaders(views, data(), 4)
        restart(dls, 0)
        m = RelationAttention(**SMALL, layers="act" if ts is teachers else None)
        learn = distill(dls, net(), ts, m, loss_func=F.cross_entropy)
        restart(dls, 0)
        fit(learn, 3)
        weights.append(torch.cat([q.flatten() for q in learn.model.parameters()]))
    assert torch.allclose(*weights, atol=1e-4) and not torch.allclose(
        weights[0], torch.cat([q.flatten() for q in net().parameters()]), atol=1e-2
    )


# --- what a first user tried
def test_part_takes_a_mask_or_numbers_and_nothing_else():
    dls = data()
    y = np.array([int(t) for _, t in dls.train.dataset])
    assert (
        all(int(t) == 2 for _, t in part(dls, y == 2).train.dataset)
        and len(part(dls, y == 2).train.dataset) == (y == 2).sum()
    )
    for bad, words in (([99], "image 99 of 16"), (y[:3] == 2, "a mask of 3 for 16")):
        with pytest.raises(ValueError, match=words):
            part(dls, bad)


def test_too_little_to_stop_on_is_said_so():
    s = seen(n=12)
    with pytest.raises(ValueError, match="stop=0.2 of 1 groups leaves no image to stop on"):
        fit_fusion(AttentionFusion(**SMALL), s._replace(group=torch.zeros(12, dtype=torch.long)))


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: fit_fusion("attention", seen()), "fits a Fusion such as AttentionFusion"),
        (lambda: collect([net()], data()), "collect runs over one DataLoader"),
        (lambda: collect([net()], data().train, passes=0), "passes=0"),
        (lambda: hold_out(data().train, 0.2), "hold_out cuts DataLoaders"),
        (
            lambda: make(Ensemble("mean"), teacher=Teacher(make(Ensemble("mean")))),
            "the teacher's model is a Learner",
        ),
        (
            lambda: Teacher(net(), norm=([123.0] * 3, [58.0] * 3)),
            "values for 0..255 are divided by 255",
        ),
        (
            lambda: make(RelationAttention(**SMALL, layers=["conv", "conv", "cnov"])),
            "teacher Sequential: ",
        ),
        (
            lambda: make(RelationAttention(**SMALL), teacher=nn.Sequential(nn.Conv2d(1, 4, 3))),
            "it takes images of 1 channels and these have 3",
        ),
        (lambda: make("response", teacher="resnet10t"), "teachers(dls, [name]) trains one"),
    ],
)
def test_more_wrong_use_is_answered(call, words):
    with pytest.raises((ValueError, TypeError, RuntimeError)) as e:
        call()
    assert words in str(e.value)


def test_a_cut_does_not_undo_balancing_in_silence():
    from kdmedlearn.data.balance import balance

    with pytest.raises(ValueError, match="cut first, then balance"):
        hold_out(balance(data(), "weights"), 0.2)
    balance(hold_out(data(), 0.3)[1], "weights").train.one_batch()


def test_a_schedule_that_leaves_its_range_is_found_before_training():
    from kdmedlearn import Feature

    with pytest.raises(ValueError, match="lam must lie in"):
        make(Feature(lam=lambda pct: 1 - 2 * pct))


@pytest.mark.parametrize(
    "make_dls",
    [
        lambda: data(n=60),
        lambda: __import__("kdmedlearn").phantom_dls(n_train=48, n_valid=8, size=32, seed=0, bs=8),
    ],
)
def test_labels_and_weights_of_a_part_are_its_own(make_dls):
    from kdmedlearn.data.balance import balance, class_weights, train_labels

    for d in hold_out(make_dls(), 0.3):
        read = np.array([int(y) for _, y in d.train.dataset])
        assert np.array_equal(train_labels(d), read)
    few = part(
        d, np.flatnonzero((read != 0) | (np.arange(len(read)) == np.flatnonzero(read == 0)[0]))
    )  # one image of class 0
    w = np.asarray(balance(few, "weights").train.wgts)
    y = np.array([int(t) for _, t in few.train.dataset])
    # not all equal: there is something to weigh
    assert np.allclose(w / w.mean(), class_weights(y)) and w.max() > 1.5 * w.min()


# --- fitted fusions know their teachers
def fitted_on(names=("a", "b", "c"), **kw):
    "A fusion fitted on three networks of the same kind, and these as teachers, by name."
    ts = [Teacher(net(), name=n) for n in names]
    return (
        fit_fusion(
            AttentionFusion(**SMALL, answer="mixture", **kw),
            collect(ts, data().train),
            epochs=1,
            stop=0,
        ),
        ts,
    )


def test_a_fitted_fusion_refuses_its_teachers_in_another_order():
    f, (a, b, c) = fitted_on()
    assert f.fitted_on["teachers"] == ["a", "b", "c"]
    make(RelationAttention(fusion=f), teacher=[a, b, c])
    with pytest.raises(
        ValueError,
        match="fitted on the teachers a, b, c, now they are b, a, c; give them in the same order",
    ):
        make(RelationAttention(fusion=f), teacher=[b, a, c])
    with pytest.raises(
        ValueError, match="fitted on the teachers a, b, c, now they are a, b; give as many"
    ):
        make(RelationAttention(fusion=f), teacher=[a, b])
    with pytest.warns(UserWarning, match="now they are a, b, d"):
        make(RelationAttention(fusion=f), teacher=[a, b, Teacher(net(), name="d")])


def test_a_fusion_is_not_applied_to_what_its_teachers_showed_in_another_order():
    f, ts = fitted_on()
    with pytest.raises(ValueError, match="give them in the same order"):
        fused(f, collect(ts[::-1], data().train))
    with pytest.warns(UserWarning, match="teachers share a name"):
        fit_fusion(
            AttentionFusion(**SMALL), collect([net(), net()], data().train), epochs=1, stop=0
        )


def test_the_layers_a_fusion_was_fitted_on_are_the_ones_read():
    ts = [Teacher(net(), name=n) for n in "ab"]
    s = collect(ts, data().train, layers="conv")
    learn = make(
        RelationAttention(fusion=fit_fusion(AttentionFusion(**SMALL), s, epochs=1, stop=0)),
        teacher=ts,
    )
    assert s.layers == ("conv", "conv") and learn.distill.step.bound[0].layers.teachers == (
        ("conv",),
        ("conv",),
    )


@pytest.mark.parametrize(
    "fusion",
    [
        lambda: Concatenation(8),
        lambda: AttentionFusion(**SMALL, answer="mixture"),
        lambda: AttentionFusion(**SMALL, source="answers", dropout=0.1),
    ],
)
def test_a_fusion_comes_back_from_its_file(fusion, tmp_path):
    from kdmedlearn.train.fusing import load_fusion, save_fusion

    s = seen()._replace(names=("a", "b", "c"))
    f = fusion()
    f.temperatures = [1.0, 2.0, 3.0]
    fit_fusion(f, s, epochs=2)
    again = load_fusion(save_fusion(f, tmp_path / "new" / "f.safetensors"))
    assert (
        type(again) is type(f)
        and again.hyperparameters() == f.hyperparameters()
        and again.frozen
        and not any(p.requires_grad for p in again.parameters())
    )
    assert (
        torch.equal(fused(again, s), fused(f, s))
        and again.fitted_on == f.fitted_on
        and again.fitted_on["teachers"] == ["a", "b", "c"]
    )


def test_what_cannot_be_kept_or_read_says_so(tmp_path):
    from kdmedlearn.train.fusing import load_fusion, save_fusion
    from kdmedlearn.train.teachers import phantom_teacher_path

    class Mine(AttentionFusion):
        pass

    with pytest.raises(TypeError, match="Mine is a fusion of your own"):
        save_fusion(fit_fusion(Mine(**SMALL), seen(), epochs=1, stop=0), tmp_path / "f")
    with pytest.raises(ValueError, match="MeanLogits has nothing to keep"):
        save_fusion(MeanLogits(), tmp_path / "f")
    with pytest.raises(ValueError, match="holds a model, not a fusion"):
        load_fusion(phantom_teacher_path())


def test_leaving_a_teacher_out():
    s = seen()._replace(names=("a", "b", "c"), layers=("x", "y", "z"))
    t = s.of([2, 0])
    assert (
        t.names == ("c", "a")
        and t.layers == ("z", "x")
        and t.answers[0] is s.answers[2]
        and t.maps[1] is s.maps[0]
        and t.target is s.target
    )
    assert s._replace(maps=[]).of([1]).maps == []


def test_the_fused_answer_may_have_other_classes_than_the_teachers():
    s = seen(c=3)
    f = fit_fusion(
        Concatenation(8), s._replace(target=torch.arange(40) % 5), epochs=1, stop=0, num_classes=5
    )
    assert fused(f, s).shape == (40, 5)


# --- one method, one Learner
def test_a_method_given_to_a_second_learner_has_another_state_there():
    m = RelationAttention(**SMALL)
    first = make(m)
    state = first.distill.step.bound[0]
    parts, was = list(state.parameters()), fingerprint(state)
    second = make(m)
    assert all(p is q for p, q in zip(parts, state.parameters())) and fingerprint(state) == was
    others = {id(p) for p in second.distill.step.adapters()}
    assert others and not {id(p) for p in parts} & others
    fit(second)
    assert fingerprint(state) == was
    fit(first)
    assert fingerprint(state) != was


def test_a_fusion_that_learned_with_one_student_is_left_to_it():
    f = AttentionFusion(**SMALL)
    first = fit(make(RelationAttention(fusion=f)))
    own = first.distill.step.bound[0].state.fusion
    was = fingerprint(own)
    second = fit(make(RelationAttention(fusion=f)))
    assert second.distill.step.bound[0].state.fusion is not own
    assert fingerprint(own) == was and f.widths is None
