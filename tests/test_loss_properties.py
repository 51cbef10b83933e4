"""What must hold for every loss, old and new: one table, one test a property."""

from dataclasses import dataclass
from typing import Callable

import pytest
import torch
import torch.nn.functional as F

from kdmedlearn.core.method import METHODS
from kdmedlearn.methods.channels import channel_loss
from kdmedlearn.methods.controls import pseudo_label_loss, tfkd_loss
from kdmedlearn.methods.decoupled import dkd_parts, nkd_parts
from kdmedlearn.methods.dist import dist_parts
from kdmedlearn.methods.feature import feature_distance
from kdmedlearn.methods.hdkd import feature_losses, logit_loss
from kdmedlearn.methods.kdas import attention_loss, sgm_loss
from kdmedlearn.methods.masked import generator
from kdmedlearn.methods.ofa import ofa_loss
from kdmedlearn.methods.pearson import pearson_loss
from kdmedlearn.methods.pixels import bernoulli_kl, pixel_kl
from kdmedlearn.methods.relation import rkd_angle, rkd_distance, similarity_loss
from kdmedlearn.methods.response import labels_loss, response_loss
from kdmedlearn.methods.soft_masks import soft_structure_loss
from kdmedlearn.methods.standardised import standardise

ANSWERS, MASKS, MAPS, VECTORS = (6, 5), (3, 1, 6, 6), (3, 4, 6, 6), (6, 5)
Y = torch.arange(6) % 5


@dataclass(frozen=True)
class Loss:
    "A loss of student and teacher and what it promises."

    of: Callable  # (student, teacher, target) -> scalar
    shape: tuple = ANSWERS
    equal: str = "zero"  # at student = teacher it is "zero", at its "least", or neither: ""
    classes: bool = True  # the order of axis 1 does not matter
    places: bool = False  # nor does that of the places


def plain(f, *args, **kw):
    return lambda s, t, y: f(s, t, *args, **kw)


def released(s, t, y):
    return feature_losses({"a": s}, {"a": t}, [("a", "a")])


def standard(s, t, y):
    return response_loss(standardise(s), standardise(t), 2.0)


LOSSES = {
    "response": Loss(plain(response_loss, 4.0)),
    "response, T = 1": Loss(plain(response_loss, 1.0)),
    "labels": Loss(plain(labels_loss, 4.0)),
    "standardised": Loss(standard),
    "dkd target": Loss(lambda s, t, y: dkd_parts(s, t, y)[0]),
    "dkd others": Loss(lambda s, t, y: dkd_parts(s, t, y)[1]),
    "nkd target": Loss(lambda s, t, y: nkd_parts(s, t, y)[0], equal=""),
    "nkd others": Loss(lambda s, t, y: nkd_parts(s, t, y)[1], equal="least"),
    "dist inter": Loss(lambda s, t, y: dist_parts(s, t)[0]),
    "dist intra": Loss(lambda s, t, y: dist_parts(s, t)[1]),
    "ofa": Loss(lambda s, t, y: ofa_loss(s, t, y), equal=""),
    "ofa, gamma = 1": Loss(lambda s, t, y: ofa_loss(s, t, y, gamma=1.0), equal="least"),
    "pseudo-labels": Loss(plain(pseudo_label_loss), equal=""),
    "tf-kd": Loss(lambda s, t, y: tfkd_loss(s, y), equal=""),
    "hdkd soft": Loss(plain(logit_loss)),
    "hdkd hard": Loss(plain(logit_loss, logit="hard"), equal=""),
    "hdkd maps": Loss(released, MAPS, places=True),
    "pixels, one logit": Loss(plain(bernoulli_kl), MASKS, places=True),
    "pixels, classes": Loss(plain(pixel_kl), MAPS, places=True),
    "kdas attention": Loss(plain(attention_loss), MASKS, equal=""),
    "kdas sgm": Loss(plain(sgm_loss), MASKS),
    "soft masks": Loss(plain(soft_structure_loss, window=3), MASKS),
    "cwd, one logit": Loss(plain(channel_loss), MASKS, places=True),
    "cwd": Loss(plain(channel_loss), MAPS, places=True),
    "pkd": Loss(plain(pearson_loss), MAPS, places=True),
    "mse": Loss(plain(feature_distance, "mse"), MAPS, places=True),
    "l1": Loss(plain(feature_distance, "l1"), MAPS, places=True),
    "cosine": Loss(plain(feature_distance, "cosine"), MAPS, places=True),
    "attention": Loss(plain(feature_distance, "attention"), MAPS, places=True),
    "similarity": Loss(plain(similarity_loss), VECTORS),
    "rkd distance": Loss(plain(rkd_distance), VECTORS),
    "rkd angle": Loss(plain(rkd_angle), VECTORS),
}
every = pytest.mark.parametrize("name", LOSSES)


def both(loss, seed=0, **kw):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(2, *loss.shape, generator=g, dtype=torch.float64).mul(2).to(**kw)


def with_gradient(loss, s, t, y=Y):
    s = s.clone().requires_grad_()
    value = loss.of(s, t, y)
    return value, torch.autograd.grad(value, s)[0]


@every
def test_at_a_student_that_equals_its_teacher(name):
    loss = LOSSES[name]
    _, t = both(loss)
    value, grad = with_gradient(loss, t, t)
    if loss.equal == "zero":
        assert abs(value) < 1e-7
    if loss.equal and name not in ("l1",):  # which has a corner there
        assert grad.abs().max() < 1e-6
    if loss.equal:
        for i in range(5):
            assert loss.of(t + 0.1 * both(loss, i)[0], t, Y) >= value - 1e-12


@every
def test_never_negative(name):
    "In float32, near the teacher, where rounding is larger than the loss."
    loss = LOSSES[name]
    for i in range(40):
        s, t = both(loss, i, dtype=torch.float32)
        assert loss.of(t + 10.0 ** -(i % 8) * s, t, Y) >= 0


@every
def test_order_of_the_batch_does_not_matter(name):
    loss = LOSSES[name]
    s, t = both(loss)
    at = torch.randperm(len(s))
    y = Y[: len(s)]
    torch.testing.assert_close(loss.of(s[at], t[at], y[at]), loss.of(s, t, y))


@pytest.mark.parametrize("name", [n for n, v in LOSSES.items() if v.classes and v.shape[1] > 1])
def test_order_of_classes_or_channels_does_not_matter(name):
    loss = LOSSES[name]
    s, t = both(loss)
    at = torch.randperm(s.shape[1])
    y = at.argsort()[Y] if loss.shape == ANSWERS else Y
    torch.testing.assert_close(loss.of(s[:, at], t[:, at], y), loss.of(s, t, Y))


@pytest.mark.parametrize("name", [n for n, v in LOSSES.items() if v.places])
def test_order_of_places_does_not_matter(name):
    loss = LOSSES[name]
    s, t = both(loss)
    at = torch.randperm(36)
    moved = lambda f: f.flatten(2)[..., at].reshape(f.shape)
    torch.testing.assert_close(loss.of(moved(s), moved(t), Y), loss.of(s, t, Y))


@every
def test_gradient_is_that_of_finite_differences(name):
    loss = LOSSES[name]
    s, t = both(loss)
    y = Y[:2]
    few = lambda z: z[:3] if loss.shape is VECTORS else z[:2]
    s, t = (few(z)[..., :4, :4] if z.ndim == 4 else few(z) for z in (s, t))
    y = Y[: len(s)]
    assert torch.autograd.gradcheck(lambda z: loss.of(z, t, y), s.clone().requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@every
def test_finite_where_numbers_are_large(name, dtype):
    loss = LOSSES[name]
    s, t = both(loss) * 5e3
    for a, b in ((s, t), (t, t), (s, 0 * t), (0 * s, t), (0 * s, 0 * t)):
        value, grad = with_gradient(loss, a.to(dtype), b.to(dtype))
        assert value.isfinite() and grad.isfinite().all(), (value, grad)


@every
def test_half_precision_and_autocast_change_little(name):
    "Against float64, on inputs that half precision can hold."
    loss = LOSSES[name]
    s, t = both(loss).to(torch.bfloat16)
    want, slope = with_gradient(loss, s.double(), t.double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got, grad = with_gradient(loss, s, t)
    assert got.dtype == torch.float32
    assert got.item() == pytest.approx(want.item(), rel=1e-4, abs=1e-5)
    assert F.cosine_similarity(grad.double().flatten(), slope.flatten(), 0) > 0.999


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("n", [1, 2])
@every
def test_a_last_batch_of_one_or_two_images(name, n, dtype):
    loss = LOSSES[name]
    s, t = (both(loss)[:, :n] * 100).to(dtype)
    value, grad = with_gradient(loss, s, t, Y[:n])
    assert value.isfinite() and grad.isfinite().all()


def test_the_generator_of_mgd_has_a_gradient_of_finite_differences():
    net = generator(2).double()
    s, t = torch.randn(2, 1, 2, 4, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda z: F.mse_loss(net(z), t), s.requires_grad_())


def test_every_method_has_its_loss_in_the_table():
    "A new method is thought of here: by its loss, or as one that combines losses of the table."
    of = {"ensemble", "relation"}  # fused answers and maps, by response_loss and mse
    same = {"mgd", "cwdfeature", "feature", "simkd"}  # cwd, mse and others, through adapters
    known = {
        "bernoullikl", "cwd", "dist", "dkd", "hdkd", "kdas", "nkd", "ofa", "pixelkl", "pkd",
        "pseudolabels", "response", "rkd", "similarity", "softmasks", "standardised", "tfkd",
    }  # fmt: skip
    assert set(METHODS.built_in()) - {"sum"} <= known | of | same
