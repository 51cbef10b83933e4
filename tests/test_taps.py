"""Taps read what ran, in the order asked for, and leave nothing behind."""

import copy

import pytest
import torch
from torch import nn

from helpers import net
from kdmedlearn.core.taps import layer, n_hooks, tap_next, taps

x = torch.randn(2, 3, 8, 8)


def test_order_and_values():
    m = net().eval()
    with taps(m, ["act", "conv", "head.2"]) as f:
        out = m(x)
    assert list(f) == ["act", "conv", "head.2"]
    torch.testing.assert_close(f["conv"], m.conv(x))
    torch.testing.assert_close(f["head.2"], out)
    assert n_hooks(m) == 0


def test_other_hooks_stay():
    m, calls = net(), []
    m.conv.register_forward_hook(lambda *a: calls.append(1))
    with taps(m, ["conv"]):
        m(x)
    m(x)
    assert calls == [1, 1] and n_hooks(m) == 1


def test_gradient_flows_through_a_tap():
    m = net()
    with taps(m, ["act"]) as f:
        m(x)
    f["act"].sum().backward()
    assert m.conv.weight.grad.norm() > 0 and m.head[2].weight.grad is None


@pytest.mark.parametrize(
    "names, words",
    [
        (["conv", "conv"], "tapped twice"),
        (["cnv"], "Near: conv"),
        ([""], "has no layer ''"),
        (["encoder.block"], "top layers: conv, norm, act, head"),
    ],
)
def test_wrong_names(names, words):
    m = net()
    with pytest.raises(ValueError, match=words):
        with taps(m, names):
            m(x)
    assert n_hooks(m) == 0


def test_a_layer_that_runs_twice_or_never():
    m = net()
    with pytest.raises(ValueError, match="ran twice"):
        with taps(m, ["conv"]):
            m(x)
            m(x)
    with pytest.raises(ValueError, match="did not run"):
        with taps(m, ["conv"]):
            pass
    assert n_hooks(m) == 0


@pytest.mark.parametrize("exc", [RuntimeError, KeyboardInterrupt])
def test_nothing_left_after_an_exception(exc):
    m = net()
    m.act.forward = lambda x: (_ for _ in ()).throw(exc("stop"))
    with pytest.raises(exc):
        with taps(m, ["conv", "head"]):
            m(x)
    assert n_hooks(m) == 0
    t = tap_next(m, ["conv"])
    with pytest.raises(exc):
        m(x)
    assert n_hooks(m) == 0 and "forward" not in vars(m) and t.features == {}


def test_tap_next_is_for_one_forward():
    m = net()
    t = tap_next(m, ["conv"])
    m(x)
    first = t.features["conv"]
    m(x)
    assert t.features["conv"] is first and n_hooks(m) == 0
    tap_next(m, ["conv"]).cancel()
    assert "forward" not in vars(m)


def test_tap_next_keeps_a_forward_of_the_instance():
    m = net()
    own = m.forward
    m.forward = lambda v: own(v) * 2
    mine = m.forward
    t = tap_next(m, ["conv"])
    m(x)
    assert m.forward is mine and "conv" in t.features


def test_tap_next_looks_inside_a_wrapper():
    inner = net()
    outer = nn.Sequential(inner)
    t = tap_next(outer, ["conv"], inside=inner)
    outer(x)
    assert list(t.features) == ["conv"]
    with pytest.raises(ValueError, match="no layer"):
        tap_next(outer, ["conv"])


def test_a_tapped_model_copies_and_scripts_as_before():
    m = net()
    with taps(m, ["conv"]):
        m(x)
    assert n_hooks(copy.deepcopy(m)) == 0
    torch.jit.trace(m.eval(), x)


def test_layer_returns_the_module():
    m = net()
    assert layer(m, "head.2") is m.head[2]
