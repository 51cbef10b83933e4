"""Losses against other packages and second implementations, and their methods on tasks, images
without labels, masks and several heads."""

import json
import warnings

import pytest
import torch
import torch.nn.functional as F
from fastai.losses import BCEWithLogitsLossFlat
from golden_values import HERE

from kdmedlearn import distill, fit_steps, phantom_dls
from kdmedlearn.core.method import METHODS
from kdmedlearn.core.outputs import Outputs, Pass
from kdmedlearn.core.step import bind, DistillStep
from kdmedlearn.methods.channels import channel_loss, CWD, CWDFeature
from kdmedlearn.methods.controls import tfkd_loss, TfKD
from kdmedlearn.methods.decoupled import classes_of, DKD, dkd_parts, NKD, nkd_parts, split
from kdmedlearn.methods.dist import DIST, dist_parts
from kdmedlearn.methods.kdas import StructureLoss
from kdmedlearn.methods.masked import generator, MGD
from kdmedlearn.methods.ofa import OFA, ofa_loss
from kdmedlearn.methods.pearson import pearson_loss, PKD
from kdmedlearn.methods.relation import rkd_angle, rkd_distance, similarity_loss
from kdmedlearn.methods.response import response_loss
from kdmedlearn.methods.simkd import reuse_classifier, SimKD
from kdmedlearn.methods.standardised import standardise, Standardised
from kdmedlearn.methods.which_loss import about_all
from kdmedlearn.models.small import small_student, small_teacher
from kdmedlearn.models.unet import small_unet

T64 = dict(dtype=torch.float64)
GOLDEN = json.loads((HERE / "losses.json").read_text())["losses"]
Y = torch.arange(6) % 5


def inputs(*shape, seed):
    "As in tools/golden/losses.py."
    k = torch.arange(1, torch.Size(shape).numel() + 1, **T64) + 1000 * seed
    return (3 * torch.sin(k * k * 0.7371 + seed)).reshape(shape)


def dkd(s, t):
    against, among = dkd_parts(s, t, Y, 4.0)
    return against + 8 * among


def dist(s, t):
    inter, intra = dist_parts(s, t, 3.0)
    return 2 * inter + 0.5 * intra


def mgd(s, t):
    net = generator(4).double()
    with torch.no_grad():
        for i, p in enumerate(net.parameters()):
            p.copy_(inputs(*p.shape, seed=50 + i) / 10)
    return F.mse_loss(net(s), t)


OURS = {  # torchdistill leaves T^2 out where the label has no weight
    "response": lambda s, t: response_loss(s, t, 2.0) / 4,
    "standardised": lambda s, t: response_loss(standardise(s), standardise(t), 2.0) / 4,
    "soft target": lambda s, t: response_loss(s, t, 5.0),
    "dist": dist,
    "dkd": dkd,
    "dkd, fasterai's normalize": dkd,
    "similarity": similarity_loss,
    # it averages over all ordered pairs, an image with itself included: (B - 1) / B of ours
    "rkd_distance": lambda s, t: 2 * rkd_distance(s, t) * 5 / 6,
    "rkd_angle": lambda s, t: 2 * rkd_angle(s, t),
    "mgd": mgd,
}


@pytest.mark.parametrize("name", GOLDEN)
def test_values_and_gradients_of_other_packages(name):
    want = GOLDEN[name]
    a, b = want["shapes"]
    s, t = inputs(*a, seed=1).requires_grad_(), inputs(*b, seed=2)
    value = OURS[name](s, t)
    (grad,) = torch.autograd.grad(value, s)
    assert value.item() == pytest.approx(want["value"], rel=1e-6)
    other = torch.tensor(want["grad"], **T64)
    assert (grad.flatten() - other).abs().max() < 1e-6 * max(1, other.abs().max())


def softmax(row):
    e = [v.exp() for v in row]
    return [v / sum(e) for v in e]


def nkd_by_hand(s, t, y, T):
    first, second = 0.0, 0.0
    for a, b, k in zip(s, t, y):
        first -= softmax(b)[k] * softmax(a)[k].log()
        rest = [i for i in range(len(a)) if i != k]
        pa, pb = softmax(a[rest] / T), softmax(b[rest] / T)
        second -= T * T * sum(q * p.log() for p, q in zip(pa, pb))
    return first / len(s), second / len(s)


def cwd_by_hand(s, t, T):
    total = 0.0
    for a, b in zip(s.flatten(2).flatten(0, 1), t.flatten(2).flatten(0, 1)):
        p, q = softmax(b / T), softmax(a / T)
        total += T * T * sum(u * (u / v).log() for u, v in zip(p, q))
    return total / (len(s) * s.shape[1])


def pkd_by_hand(s, t):
    total = 0.0
    for c in range(s.shape[1]):
        u, v = s[:, c].flatten(), t[:, c].flatten()
        u, v = ((w - w.mean()) / w.var(correction=0).sqrt() for w in (u, v))
        total += ((u - v) ** 2).mean() / 2
    return total / s.shape[1]


def ofa_by_hand(s, t, y, gamma):
    total = 0.0
    for a, b, k in zip(s, t, y):
        p, q = softmax(b), softmax(a)
        for i in range(len(a)):
            one = 1.0 if i == k else 0.0
            total -= ((p[i] + one) ** gamma - one) * q[i].log()
    return total / len(s)


def tfkd_by_hand(s, y, T, right):
    total, n = 0.0, s.shape[1]
    for a, k in zip(s, y):
        p = torch.full((n,), (1 - right) / (n - 1), **T64)
        p[k] = right
        p, q = softmax(p.log() / T), softmax(a / T)
        total += T * T * sum(u * (u / v).log() for u, v in zip(p, q))
    return total / len(s)


MAPS = inputs(2, 3, 4, 4, seed=3), inputs(2, 3, 4, 4, seed=4)
ROWS = inputs(6, 5, seed=1), inputs(6, 5, seed=2)


@pytest.mark.parametrize(
    "ours, by_hand, of",
    [
        (lambda s, t: nkd_parts(s, t, Y, 2.0)[0], lambda s, t: nkd_by_hand(s, t, Y, 2.0)[0], ROWS),
        (lambda s, t: nkd_parts(s, t, Y, 2.0)[1], lambda s, t: nkd_by_hand(s, t, Y, 2.0)[1], ROWS),
        (channel_loss, lambda s, t: cwd_by_hand(s, t, 4.0), MAPS),
        (pearson_loss, pkd_by_hand, MAPS),
        (lambda s, t: ofa_loss(s, t, Y, 1.3), lambda s, t: ofa_by_hand(s, t, Y, 1.3), ROWS),
        (lambda s, t: tfkd_loss(s, Y), lambda s, t: tfkd_by_hand(s, Y, 20.0, 0.9), ROWS),
    ],
    ids=["nkd target", "nkd others", "cwd", "pkd", "ofa", "tf-kd"],
)
def test_second_implementations(ours, by_hand, of):
    "No package at hand has these: written once more, from the formula, with sums."
    s, t = of
    (a, g), (b, h) = (
        (v := f(z := s.clone().requires_grad_(), t), torch.autograd.grad(v, z)[0])
        for f in (ours, by_hand)
    )
    assert a.item() == pytest.approx(b.item(), rel=1e-6)
    assert (g - h).abs().max() < 1e-6


def test_soft_targets_are_both_parts_with_the_teachers_doubt():
    s, t = ROWS
    each = [dkd_parts(a[None], b[None], k[None], 2.0) for a, b, k in zip(s, t, Y)]
    doubt = 1 - (t / 2).softmax(1).gather(1, Y[:, None])[:, 0]
    whole = torch.stack([b + d * o for (b, o), d in zip(each, doubt)]).mean()
    torch.testing.assert_close(whole, response_loss(s, t, 2.0))


def test_split_sums_to_one_also_for_pixels():
    z, y = torch.randn(2, 4, 3, 3), torch.randint(4, (2, 3, 3))
    for part in split(z, y):
        torch.testing.assert_close(part.exp().sum(1), torch.ones(2, 3, 3))


LABELLED = [DKD(), NKD(), DKD(standardise=True), OFA(), OFA(layers=["stage2"])]
FREE = [DIST(), Standardised(), PKD({"stage3": "stage3"}), MGD({"stage2": "stage2"})]
FREE += [CWDFeature({"stage2": "stage2"})]


def batch():
    torch.manual_seed(0)
    return torch.randn(6, 3, 32, 32), torch.tensor([0, 1])


def step_of(method, n=8):
    torch.manual_seed(1)
    x, y = batch()
    return DistillStep(small_student(n), small_teacher(n), method).setup(x[:2], y)


@pytest.mark.parametrize("method", [m for m in FREE if not isinstance(m, MGD)], ids=repr)
def test_terms_that_need_no_label_are_the_same_with_and_without(method):
    (x, y), step = batch(), step_of(method)
    step.student.eval()
    assert method.labels == "unused"
    some, all_, none = (step(x, v).terms for v in (y, torch.cat([y, y, y]), None))
    for k in set(some) - {"task"}:
        torch.testing.assert_close(some[k], all_[k])
        torch.testing.assert_close(some[k], none[k])


@pytest.mark.parametrize("method", LABELLED, ids=repr)
def test_an_image_without_a_label_has_its_teachers_class(method):
    (x, y), step = batch(), step_of(method)
    step.student.eval()
    assert method.labels == "guessed"
    guess = step.ask((x,))[0].out.argmax(1)
    some, told = step(x, y).terms, step(x, torch.cat([y, guess[2:]])).terms
    none, ignored = step(x, None).terms, step(x, guess).terms
    for k in set(some) - {"task"}:
        torch.testing.assert_close(some[k], told[k])
        torch.testing.assert_close(none[k], ignored[k])


def test_mixed_labels_count_by_their_largest_share():
    t = torch.zeros(2, 3)
    p = Pass(Outputs(t), (Outputs(t),), torch.tensor([[0.3, 0.0, 0.7], [0.0, 0.6, 0.4]]))
    assert classes_of(p, t).tolist() == [2, 1]


@pytest.mark.parametrize("method", [*LABELLED[:2], *FREE[:2], FREE[3], LABELLED[4]], ids=repr)
def test_training_with_unlabelled_images(method):
    kw = dict(n_train=8, n_valid=4, size=32, bs=8, device="cpu", n_unlabelled=16)
    learn = distill(phantom_dls(**kw), small_student(), small_teacher(), method, unlabelled="rest")
    with learn.no_bar(), learn.no_logging():
        fit_steps(learn, 2, looks=1)
    assert all(v == v for v in learn.recorder.values[-1])
    assert all(p.isfinite().all() for p in learn.model.parameters())


def test_a_loss_made_of_labels_is_refused_beside_images_without():
    kw = dict(n_train=8, n_valid=4, size=32, bs=8, device="cpu", n_unlabelled=16)
    with pytest.raises(ValueError, match="TfKD is made of labels, and some images have none"):
        distill(phantom_dls(**kw), small_student(), small_teacher(), "tfkd", unlabelled="rest")
    (x, y), step = batch(), step_of(TfKD())
    step(x[:2], y)
    with pytest.raises(ValueError, match="such as Response"):
        step(x, y)


@pytest.mark.parametrize("name", ["dkd", "nkd", "dist", "standardised", "tfkd"])
def test_two_classes_are_refused_with_what_to_take(name):
    with pytest.raises(ValueError, match="no formula for two classes; .*(Response|smoothing)"):
        step_of(name, 2)


@pytest.mark.parametrize("name", ["dkd", "nkd", "dist", "standardised", "ofa", "tfkd", "cwd"])
def test_several_labels_are_refused(name):
    x, y = batch()
    loss = BCEWithLogitsLossFlat()
    step = DistillStep(small_student(), small_teacher(), name, loss)
    with pytest.raises(ValueError, match="no formula for several labels; .*take"):
        step.setup(x[:2], (torch.rand(2, 8) > 0.5).float())


def masks(method, n, **kw):
    x, loss = torch.randn(3, 3, 16, 16), F.cross_entropy if n > 1 else StructureLoss()
    y = torch.randint(max(n, 2), (3, 16, 16))
    y = y if n > 1 else y[:, None].float()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return DistillStep(small_unet(n), small_unet(n), method, loss).setup(x, y)(x, y)


@pytest.mark.parametrize("name", ["dkd", "nkd", "dist", "standardised", "ofa", "cwd"])
def test_masks_of_several_classes(name):
    assert masks(name, 3).loss.isfinite()


@pytest.mark.parametrize("name", ["dkd", "nkd", "dist", "standardised", "ofa"])
def test_masks_of_one_logit_are_refused(name):
    with pytest.raises(ValueError, match="no formula for binary masks; .*BernoulliKL"):
        masks(name, 1)


def test_masks_of_two_classes_are_refused_where_the_loss_needs_three():
    for name in ("dkd", "nkd", "standardised"):
        with pytest.raises(ValueError, match="three classes and more, got two classes"):
            masks(name, 2)


def test_cwd_serves_masks_of_one_logit_several_heads_and_other_sizes():
    assert masks("cwd", 1).terms["cwd"] >= 0
    s, t = torch.randn(2, 2, 1, 8, 8, **T64)
    p = Pass(Outputs((s, s)), (Outputs((t, t)), Outputs((t, t))))
    torch.testing.assert_close(bind(CWD(), p).terms(p)["cwd"], channel_loss(s, t))
    large = F.interpolate(t, scale_factor=2, mode="nearest")
    p = Pass(Outputs(s), (Outputs(large),))
    assert bind(CWD(resize=True), p).terms(p)["cwd"].isfinite()


def test_what_trains_beside_the_student_is_in_the_optimizer_and_in_its_file():
    dls = phantom_dls(8, 4, 32, bs=4, device="cpu")
    learn = distill(dls, small_student(), small_teacher(), MGD({"stage2": "stage2"}))
    bound = learn.distill.step.bound[0]
    assert {"convs", "generators"} <= {n.split(".")[1] for n, _ in bound.named_parameters()}
    before = [p.detach().clone() for p in bound.parameters()]
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 1e-2)
        assert not any(torch.equal(a, b) for a, b in zip(before, bound.parameters()))
        learn.save("it")
        kept = [p.detach().clone() for p in bound.parameters()]
        learn.fit(1, 1e-2)
        learn.load("it")
    assert all(torch.equal(a, b) for a, b in zip(kept, learn.distill.step.bound[0].parameters()))
    assert not any("generators" in k for k in learn.model.state_dict())


def test_a_student_with_its_teachers_classifier():
    "Body and projector learn, the classifier does not; the file holds all three."
    dls = phantom_dls(8, 4, 32, bs=4, device="cpu", n_unlabelled=8)
    x = dls.one_batch()[0].as_subclass(torch.Tensor)
    teacher = small_teacher().eval()
    student = reuse_classifier(small_student(), teacher, x)
    before = {k: v.clone() for k, v in student.state_dict().items()}
    learn = distill(dls, student, teacher, SimKD(), unlabelled="rest")
    assert learn.distill.step.adapters() == []
    with learn.no_bar(), learn.no_logging():
        fit_steps(learn, 2, looks=1)
    after = learn.model.state_dict()
    same = {k.split(".")[0] for k in before if torch.equal(before[k], after[k].cpu())}
    assert same == {"head"} and {k.split(".")[0] for k in after} == {"body", "head", "projector"}
    other = reuse_classifier(small_student(), small_teacher().eval(), x)
    other.load_state_dict(after)
    assert torch.equal(other.eval()(x), learn.model.eval()(x))
    exported = torch.export.export(other, (x,)).module()
    torch.testing.assert_close(exported(x), other(x))


def test_only_students_that_were_built_for_it_are_trained_by_simkd():
    with pytest.raises(ValueError, match="reuse_classifier"):
        step_of("simkd")


@pytest.fixture
def built_in_alone(monkeypatch):
    "Without the methods of other tests, some of which are wrong on purpose."
    for name in METHODS.built_in():
        METHODS[name]  # imported once: what registers meanwhile would be forgotten afterwards
    own = {n: c for n, c in METHODS.classes.items() if c.__module__.startswith("kdmedlearn.")}
    monkeypatch.setattr(METHODS, "classes", own)


def test_the_table_of_methods_knows_all_and_their_papers(built_in_alone):
    rows = {r["method"]: r for r in about_all()}
    assert set(rows) == set(METHODS.names())
    new = "dkd nkd dist standardised cwd cwdfeature pkd mgd ofa simkd tfkd".split()
    assert all(rows[n]["source"] for n in new)
    assert rows["dkd"]["needs labels"] == "or the teacher's class"
    assert rows["pkd"]["compares"] == "maps, image with image"


def test_every_method_says_what_it_does_with_labels_and_for_which_tasks(built_in_alone):
    for name in METHODS.names():
        m = METHODS[name]()
        assert m.labels in ("unused", "guessed", "needed")
        assert m.tasks and (m.instead or len(m.tasks) == 6), name
