"""The soft-target loss against its definition, and what must hold for any logits."""

import pytest
import torch
import torch.nn.functional as F

from kdmedlearn.core.method import as_method, Sum
from kdmedlearn.core.outputs import Outputs, Pass
from kdmedlearn.core.step import total_loss
from kdmedlearn.methods.response import Response, response_loss, soften

T64 = dict(dtype=torch.float64)


def direct(s, t, T):
    "The definition, one sum after the other, in float64."
    total = 0.0
    for a, b in zip(s, t):
        p, q = [(z / T).exp() / (z / T).exp().sum() for z in (b, a)]
        total += sum(p[i] * (p[i].log() - q[i].log()) for i in range(len(p)))
    return T * T * total / len(s)


@pytest.mark.parametrize("T", [0.5, 1.0, 2.0, 4.0, 20.0])
@pytest.mark.parametrize("classes", [2, 8, 23])
def test_equals_the_definition(T, classes):
    s, t = torch.randn(2, 5, classes, **T64) * 4
    assert response_loss(s, t, T).item() == pytest.approx(direct(s, t, T).item(), rel=1e-12)


@pytest.mark.parametrize("T", [1.0, 4.0])
def test_gradient_is_T_times_the_difference_of_the_answers(T):
    s, t = torch.randn(2, 6, 8, **T64) * 3
    s.requires_grad_()
    response_loss(s, t, T).backward()
    torch.testing.assert_close(s.grad, T * (soften(s, T) - soften(t, T)).detach() / 6)


def test_large_T_compares_logits():
    s, t = torch.randn(2, 6, 8, **T64)
    s.requires_grad_()
    response_loss(s, t, 1e4).backward()
    centred = lambda z: z - z.mean(1, keepdim=True)
    torch.testing.assert_close(
        s.grad * 6, (centred(s) - centred(t)).detach() / 8, rtol=1e-3, atol=1e-5
    )


def test_properties():
    s, t = torch.randn(2, 16, 8, **T64) * 5
    assert response_loss(s, t, 3) > 0 and response_loss(t, t, 3).abs() < 1e-12
    shift = torch.randn(16, 1, **T64) * 100  # logits mean the same up to a constant
    torch.testing.assert_close(response_loss(s + shift, t - shift, 3), response_loss(s, t, 3))
    perm = torch.randperm(8)
    torch.testing.assert_close(response_loss(s[:, perm], t[:, perm], 3), response_loss(s, t, 3))


@pytest.mark.parametrize("scale", [50.0, 1000.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_finite_for_large_logits(scale, dtype):
    s = (torch.randn(4, 8) * scale).to(dtype).requires_grad_()
    loss = response_loss(s, (torch.randn(4, 8) * scale).to(dtype), 1.0)
    loss.backward()
    assert loss.dtype == torch.float32 and loss.isfinite() and s.grad.isfinite().all()


def test_one_logit_is_yes_or_no():
    s, t = torch.randn(2, 3, 1, 6, 5, **T64)
    q, p = (s / 2).sigmoid(), (t / 2).sigmoid()
    want = 4 * (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean()
    torch.testing.assert_close(response_loss(s, t, 2), want)
    s.requires_grad_()
    response_loss(s, t, 2).backward()
    assert s.grad.norm() > 1e-3


def test_per_pixel_mean_does_not_grow_with_the_image():
    s, t = torch.randn(2, 2, 3, 4, 4, **T64)
    torch.testing.assert_close(
        response_loss(s.repeat(1, 1, 5, 5), t.repeat(1, 1, 5, 5)), response_loss(s, t)
    )


def test_several_teachers_pull_like_the_mean_of_their_answers():
    s, a, b = torch.randn(3, 6, 8, **T64)
    s.requires_grad_()
    (g,) = torch.autograd.grad(
        Response(T=2).terms(Pass(Outputs(s), (Outputs(a), Outputs(b)), None))["response"], s
    )
    torch.testing.assert_close(
        g, 2 * (soften(s, 2) - (soften(a, 2) + soften(b, 2)) / 2).detach() / 6
    )


def test_weights_and_sums():
    r = Response(alpha=0.25)
    assert r.weights() == {"task": 0.75, "response": 0.25}
    with pytest.raises(ValueError, match="alpha must lie in"):
        Response(alpha=lambda p: 2 * p).weights(1.0)
    with pytest.raises(TypeError, match="number or a schedule"):
        Response(alpha="much")
    with pytest.raises(ValueError, match="term called response"):
        Response() + Response()
    assert as_method(["response"]).hyperparameters() == {"T": 4.0, "alpha": 0.9} and isinstance(
        as_method(Response), Response
    )
    assert (
        total_loss(
            {"task": torch.tensor(1.0), "response": torch.tensor(float("nan"))},
            {"task": 1.0, "response": 0.0},
        )
        == 1
    )


def test_hard_targets_are_cross_entropy():
    s, y = torch.randn(9, 5, **T64), torch.arange(9) % 5
    assert response_loss(s, F.one_hot(y, 5).double() * 1e4, 1.0).item() == pytest.approx(
        F.cross_entropy(s, y).item(), rel=1e-9
    )
