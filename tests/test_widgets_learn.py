"""The widgets `temperature` and `loss_weights` without a browser: numbers, messages, and that
nothing is left behind."""

import random
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastai.callback.core import Callback, CancelFitException
from fastai.learner import Learner
from torch import nn

from helpers import data, fingerprint, net
from kdmedlearn import distill, Ensemble, Feature, KDAS, phantom_dls, Response
from kdmedlearn.core.method import Method
from kdmedlearn.core.outputs import plain
from kdmedlearn.core.parameters import Switch, Weight, Whole
from kdmedlearn.core.taps import n_hooks
from kdmedlearn.core.trial import untouched
from kdmedlearn.methods.response import response_loss, soften
from kdmedlearn.models.small import small_student
from kdmedlearn.models.unet import small_unet
from kdmedlearn.widgets import loss_weights, temperature
from kdmedlearn.widgets.soft_targets import entropy_bits, hesitant, pull, ranking, TEMPERATURES
from kdmedlearn.widgets.weights import (
    cosines,
    gram_of,
    lengths,
    measure,
    training_batch,
    with_total,
)


def made(method="response", teachers=None, **kw):
    return distill(data(**kw), net(), teachers or net(8), method, loss_func=F.cross_entropy)


class Dropped(nn.Module):
    "A student with everything that a forward in train mode could leave changed."

    def __init__(self):
        super().__init__()
        self.body, self.drop, self.frozen = net(), nn.Dropout(0.5), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.drop(self.body(self.frozen(x)))


def traces_of(learn):
    "All that looking must not change."
    model, dl = learn.model, learn.dls.train
    return (
        fingerprint(model),
        fingerprint(learn.distill.step.bound),
        [m.training for m in model.modules()],
        [p.grad for p in model.parameters()],
        n_hooks(model),
        "forward" in vars(model),
        torch.get_rng_state().tolist(),
        random.getstate(),
        np.random.get_state()[1].tolist(),
        dl.rng.getstate(),
        repr(learn.distill.method),
        [fingerprint(t.model) for t in learn.distill.teachers],
        [m.training for t in learn.distill.teachers for m in t.model.modules()],
    )


# --- temperature ---------------------------------------------------------------


@pytest.mark.parametrize("T", [0.5, 1.0, 4.0, 20.0])
def test_pull_is_the_gradient_of_the_loss_that_trains(T):
    s, t = 3 * torch.randn(2, 16, 5, dtype=torch.float64)
    a = s.clone().requires_grad_()
    (g,) = torch.autograd.grad(response_loss(a, t, T) * len(a), a)
    torch.testing.assert_close(pull(s, t, T), g)
    torch.testing.assert_close(pull(s, t, T, squared=False), g / T**2)
    assert pull(t, t, T).abs().max() == 0


def test_entropy_and_ranking():
    torch.testing.assert_close(
        entropy_bits(torch.tensor([[1.0, 0, 0, 0], [0.25] * 4, [0.5, 0.5, 0, 0]])),
        torch.tensor([0.0, 2.0, 1.0]),
    )
    p = torch.tensor([0.5, 0.3, 0.1999, 0.0001])
    assert ranking(p, 0, list("abcd")) == ["b 0.300", "c 0.200", "d 1e-04"]
    assert ranking(p, 1, list("abcd"), k=1) == ["a 0.500"]


def test_hesitant_takes_right_unsure_answers_of_different_classes():
    z = torch.tensor([[9.0, 0, 0], [1.0, 0.9, 0], [1.1, 0.9, 0], [0, 2.0, 0], [0, 0, 1.0]])
    assert hesitant(z, [0, 0, 0, 1, 0], 3) == [
        1,
        3,
        2,
    ]  # 4 is wrong; of class 0 the least sure comes first


def test_the_numbers_are_what_the_formulas_say():
    z, s = torch.tensor([[4.0, 2, 1], [0, 1, 3.0]]), torch.tensor([[0.0, 1, 0], [1, 1, 1.0]])
    w = temperature(z, student=s, names=["a", "b", "c"])
    for T, sq in ((4.0, True), (4.0, False), (0.5, True), (20.0, False)):
        w.move(T=T, squared=sq)
        seen, close = w.numbers(), partial(torch.testing.assert_close, check_dtype=False)
        close(seen["p"], soften(z, T))
        close(seen["q"], soften(s, T))
        close(seen["g"], pull(s, z, T, sq))
        close(seen["entropy"], entropy_bits(soften(z, T)))


def test_the_gradient_axis_holds_all():
    w = temperature(5 * torch.randn(3, 6), student=torch.randn(3, 6))
    for T in TEMPERATURES:
        for sq in (True, False):
            w.move(T=T, squared=sq)
            assert w.numbers()["g"].abs().max() <= w.arrays["reach"]
    assert 0.35 * w.arrays["reach"] <= w.arrays["mark"] <= w.arrays["reach"]


def test_the_page_has_all_and_is_small():
    w = temperature(made(Response()), items=2)
    html = w._repr_mimebundle_()["text/html"]
    assert w.arrays["images"][0] in html and '"T": 4.0' in html and len(html) < 300_000
    assert w.alone() == html  # nothing that changes


def test_a_learner_gives_images_names_and_right_classes():
    learn = made()
    w = temperature(learn, items=[2, 5])
    x, y = learn.dls.valid.one_batch()
    assert (
        w.answers.numbers == [2, 5]
        and w.answers.truth == y[[2, 5]].tolist()
        and len(w.answers.images) == 2
    )
    learn.model.eval()
    torch.testing.assert_close(w.answers.student, plain(learn.model(x))[[2, 5]].detach())
    torch.testing.assert_close(
        *[learn.distill.teachers[0].model(x)[[2, 5]].detach(), w.answers.teachers["Sequential"]]
    )
    assert all(u.startswith("data:image/png;base64,") for u in w.answers.images)


def test_several_teachers_and_their_fusion_are_a_choice():
    learn = made(Ensemble("mean"), [net(8), net(6)])
    w = temperature(learn, items=2)
    assert list(w.arrays["teachers"]) == ["1 Sequential", "2 Sequential", "all, fused"]
    a = w.answers.teachers
    torch.testing.assert_close(a["all, fused"], (a["1 Sequential"] + a["2 Sequential"]) / 2)
    before = w.numbers()["p"]
    w.move(teacher="all, fused")
    assert (w.numbers()["p"] != before).any()


def test_a_teacher_of_other_classes_is_left_out_and_alone_refused():
    learn = made(Feature([("conv", "conv")]), [net(8), net(8, num_classes=5)])
    assert list(temperature(learn).answers.teachers) == ["1 Sequential"]
    with pytest.raises(ValueError, match="student gives 3 logits, the teachers: Sequential 5"):
        temperature(made(Feature([("conv", "conv")]), net(8, num_classes=5)))


def test_many_classes_are_cut_to_the_first_twelve():
    w = temperature(torch.randn(2, 40))
    assert len(w.arrays["classes"]) == 12 and len(w.arrays["names"]) == 40
    best = w.answers.teachers["teacher"].argmax(1).tolist()
    assert set(best) <= set(w.arrays["classes"])


@pytest.mark.parametrize(
    "args, kw, kind, said",
    [
        ((net(),), {}, TypeError, "made by distill.dls, student, teacher"),
        (("x",), {}, TypeError, "got str"),
        ((torch.randn(2, 3, 4),), {}, ValueError, "one answer an image"),
        ((torch.randn(2, 1),), {}, ValueError, "torch.cat"),
        ((torch.tensor([[1.0, float("nan")]]),), {}, ValueError, "finite"),
        ((torch.ones(2, 3).long(),), {}, ValueError, "floating-point"),
        (
            (torch.randn(2, 3),),
            {"student": torch.randn(3, 3)},
            ValueError,
            r"student logits \(3, 3\)",
        ),
        ((torch.randn(2, 3),), {"names": ["a"]}, ValueError, "1 names for 3"),
        ((torch.randn(2, 3), 0), {}, ValueError, "1 to 6"),
        ((torch.randn(2, 3), 2.5), {}, TypeError, "how many images"),
        ((torch.randn(2, 3), [0, 2]), {}, ValueError, "number 2; there are 2"),
    ],
)
def test_temperature_refuses(args, kw, kind, said):
    with pytest.raises(kind, match=said):
        temperature(*args, **kw)


def test_temperature_refuses_learners_it_cannot_show():
    with pytest.raises(ValueError, match="no teacher"):
        temperature(Learner(data(), net(), loss_func=F.cross_entropy))
    with pytest.raises(ValueError, match="brings its own"):
        temperature(made(), names=["a", "b", "c"])


def test_unchanged_restores_after_an_error_too():
    m, state = Dropped(), torch.get_rng_state()
    m.frozen.eval()
    was, modes = fingerprint(m), [o.training for o in m.modules()]
    with pytest.raises(KeyError), untouched(m):
        m.train()(torch.randn(4, 3, 8, 8))
        random.random()
        np.random.rand()
        raise KeyError
    assert (
        fingerprint(m) == was
        and [o.training for o in m.modules()] == modes
        and torch.equal(torch.get_rng_state(), state)
    )


def test_looking_at_the_temperature_changes_nothing():
    learn = distill(data(), Dropped(), net(8), Ensemble("mean"), loss_func=F.cross_entropy)
    learn.model.train()
    learn.model.frozen.eval()
    learn.distill.teachers[0].model.train()
    before = traces_of(learn)
    w = temperature(learn)
    w.move(T=8.0)
    w.alone()
    assert traces_of(learn) == before


# --- loss weights --------------------------------------------------------------


def test_gram_of_the_terms():
    a, b, c = nn.Parameter(torch.randn(3)), nn.Parameter(torch.randn(2, 2)), torch.randn(3)
    terms = {"x": (a * c).sum(), "y": (b**2).sum() + a[0], "none": torch.tensor(2.0)}
    G = gram_of(terms, [a, b])
    torch.testing.assert_close(G[0, 0].float(), c @ c)
    torch.testing.assert_close(G[0, 1].float(), c[0])
    torch.testing.assert_close(G[1, 1].float(), 1 + 4 * (b**2).sum().detach())
    assert a.grad is None and G[2].abs().sum() == 0 and cosines(G)[2].isnan().all()
    w = torch.tensor([2.0, 0.5, 1.0])
    g = 2 * torch.cat([c, torch.zeros(4)]) + 0.5 * torch.cat(
        [torch.tensor([1.0, 0, 0]), 2 * b.detach().flatten()]
    )
    torch.testing.assert_close(lengths(with_total(G, w))[-1].float(), g.norm())


class FirstStep(Callback):
    """Keeps the first batch of a fit, its terms and the length of the student's gradient; then
    stops."""

    order = 90

    def after_backward(self):
        d = self.learn.distill
        self.batch = tuple(o.clone() for o in (*self.xb, *self.yb))
        self.terms = {k: d.tally.mean(k) for k in d.tally.sums}
        self.norm = (
            torch.cat([p.grad.flatten() for p in self.model.parameters() if p.grad is not None])
            .norm()
            .item()
        )
        raise CancelFitException


def test_values_and_total_gradient_are_those_of_a_training_step():
    learn, step = made(Response(T=3, alpha=0.7) + Feature([("conv", "conv")], lam=2.0)), FirstStep()
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 1e-3, cbs=step)
    learn.model.zero_grad(set_to_none=True)
    w = loss_weights(learn, step.batch)
    assert w.measured.values == pytest.approx(step.terms, rel=1e-5)
    assert w.figure.data[1].x[-1] == pytest.approx(step.norm, rel=1e-3)
    total = 0.3 * step.terms["task"] + 0.7 * step.terms["response"] + 2 * step.terms["feature"]
    assert w.figure.layout.title.text.startswith(
        f"the batch given, 8 images: weighted total {total:.3g}"
    )


def test_weights_are_arithmetic_and_temperature_measures_anew(monkeypatch):
    import kdmedlearn.widgets.weights as weights

    calls = []
    monkeypatch.setattr(weights, "measure", lambda *a: calls.append(1) or measure(*a))
    w = loss_weights(made(Response()))
    assert {k.name: k.kind for k in w.params} == {"T": "terms", "alpha": "weights"} and len(
        calls
    ) == 1
    w.sliders["alpha"].value = 0.25
    assert len(calls) == 1 and w.figure.data[0].text[0].startswith("0.75 ×")
    n = lengths(with_total(w.measured.gram, torch.tensor([0.75, 0.25])))[-1].item()
    assert w.figure.data[1].x[-1] == pytest.approx(n, rel=1e-3)
    before = w.measured.values["response"]
    w.sliders["T"].value = 8.0
    assert len(calls) == 2 and w.measured.values["response"] != before
    w.sliders["T"].value = 4.0
    assert w.measured.values["response"] == pytest.approx(before, rel=1e-6)


def test_the_learners_method_keeps_its_values_until_the_button():
    learn = made(Response() + Feature([("conv", "conv")]))
    w = loss_weights(learn)
    w.sliders["response.alpha"].value, w.sliders["response.T"].value = 0.5, 8.0
    assert learn.distill.method.weights()["response"] == 0.9
    w.keep.click()
    r, f = learn.distill.method.parts
    assert (
        (r.T, r.alpha, f.lam) == (8.0, 0.5, 1.0)
        and "Response(T=8, alpha=0.5) + Feature(" in w.said.value
        and "kdm-note" in w.said.value
    )
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 1e-3)
    w.sliders["feature.lam"].value = 2.0
    assert w.said.value == "" and f.lam == 1.0


def test_an_untouched_slider_keeps_the_exact_value():
    learn = made(Response(T=3, alpha=1 / 3))
    w = loss_weights(learn)
    w.sliders["alpha"].value = 0.33  # where the browser puts it
    w.keep.click()
    m = learn.distill.method
    assert m.alpha == 1 / 3 and m.T == 3


def test_a_schedule_is_read_at_the_progress():
    def half(pct):
        return 1 - pct / 2

    w = loss_weights(made(Response(alpha=half)))
    assert "alpha" not in w.sliders and "half, 1 at progress 0.00" in w.fixed.value
    w.progress.value = 1.0
    assert "half, 0.5 at progress 1.00" in w.fixed.value and w.figure.data[0].text[1].startswith(
        "0.5 ×"
    )


def test_a_number_without_effect_gets_no_slider():
    class Odd(Method):
        lam = Weight(1.0)
        width = Whole(4, low=1, tune=(1, 16))
        flag = Switch(True)

        def weights(self, pct=0.0):
            return {"task": 1.0, "odd": self.weight_of("lam", pct)}

        def terms(self, p):
            return {"odd": p.student.out.pow(2).mean()}

    w = loss_weights(made(Odd()))
    assert (
        list(w.sliders) == ["lam"] and "width=4" in w.fixed.value and "flag=True" in w.fixed.value
    )


def test_opposite_terms_are_said_to_pull_against_each_other():
    class Against(Method):
        push = Weight(1.0)

        def weights(self, pct=0.0):
            return {"task": 1.0, "against": self.weight_of("push", pct)}

        def terms(self, p):
            return {"against": -F.cross_entropy(p.student.out, p.target)}

    w = loss_weights(made(Against(push=3.0)))
    t = w.figure.layout.title.text
    assert (
        "task and against pull against each other (cosine -1.00)" in t
        and "a step along the total makes task worse (cosine -1.00)" in t
    )
    w.sliders["push"].value = 1.0
    assert w.said.value == ""  # equal and opposite: the total has no direction


def test_batches_are_repeatable_and_the_loader_is_not_disturbed():
    learn = made()
    a, b = training_batch(learn.dls, 1), training_batch(learn.dls, 1)
    assert torch.equal(a[0], b[0]) and not torch.equal(a[0], training_batch(learn.dls, 2)[0])
    w = loss_weights(learn)
    first = w.measured.values["task"]
    w.another.click()
    assert w.measured.values["task"] != first and w.figure.layout.title.text.startswith(
        "batch 1, 8 images"
    )


def test_another_batch_sees_the_student_and_method_as_they_are_now():
    learn = made(Response() + Feature([("conv", "conv")]))
    w = loss_weights(learn)
    with torch.no_grad():
        for p in learn.distill.step.adapters():
            p.zero_()
        for p in learn.model.parameters():
            p.zero_()
    w.another.click()
    assert w.measured.values["task"] == pytest.approx(np.log(3), rel=1e-5)
    assert all(not p.any() for p in w.step.bound.parameters())


def test_looking_at_the_weights_changes_nothing():
    learn = distill(
        data(),
        Dropped(),
        net(8),
        Response() + Feature([("body.conv", "conv")]),
        loss_func=F.cross_entropy,
    )
    learn.model.eval()
    learn.model.drop.train()
    learn.distill.teachers[0].model.train()
    before = traces_of(learn)
    w = loss_weights(learn)
    w.sliders["response.T"].value = 8.0
    w.another.click()
    assert traces_of(learn) == before
    w.close()
    assert w.learn is None and w.method is None


def test_loss_weights_refuses():
    with pytest.raises(TypeError, match="distill.dls, student"):
        loss_weights(net())
    with pytest.raises(ValueError, match="no method"):
        loss_weights(Learner(data(), net(), loss_func=F.cross_entropy))
    with pytest.raises(TypeError, match="got Tensor"):
        loss_weights(made(), torch.randn(4, 3, 8, 8))
    with pytest.raises(ValueError, match="no batch"):
        loss_weights(made(n=6, bs=8))
    frozen = made()
    frozen.model.requires_grad_(False)
    assert "no trainable parameter" in loss_weights(frozen).said.value


@pytest.mark.parametrize("task", ["classify", "segment"])
def test_loss_weights_with_images_without_labels(task):
    kw = dict(n_train=8, n_valid=4, size=32, bs=8, device="cpu", n_unlabelled=24, task=task)
    masks, make = task == "segment", {"segment": small_unet, "classify": small_student}[task]
    method = KDAS() if masks else Response()
    learn = distill(phantom_dls(**kw), make(), make(), method, unlabelled="rest")
    before = traces_of(learn)
    w = loss_weights(learn)
    assert repr(traces_of(learn)) == repr(before)
    assert len(w.xb[0]) == 8 and len(w.yb[0]) == 2
    assert "8 images, 2 with a label" in w.figure.layout.title.text
    with untouched(learn.model):
        want = learn.distill.step(w.xb, w.yb).terms
    assert w.measured.values == pytest.approx(
        {k: float(v.detach()) for k, v in want.items()}, rel=1e-4
    )
    w.another.click()
    assert len(w.yb[0]) == 2 and not w.said.value
    x, y = learn.dls.valid.one_batch()
    assert len(loss_weights(learn, (x, y)).yb[0]) == 4  # a batch in which all have one
    w.close()


def test_temperature_with_images_without_labels():
    kw = dict(n_train=8, n_valid=4, size=32, bs=8, device="cpu", n_unlabelled=24)
    dls = phantom_dls(**kw)
    learn = distill(dls, small_student(), small_student(), unlabelled="rest")
    a = temperature(learn).answers
    assert all(dls.valid_ds[i][1] == k for i, k in zip(a.numbers, a.truth))
