"The student of 51 thousand parameters."

import pytest
import torch
from torch import nn

from kdmedlearn.core.taps import taps
from kdmedlearn.models.guided import CHANNELS, GuidedStudent, parameter_table, SeparableBlock
from kdmedlearn.models.registry import create_model
from kdmedlearn.models.weights import load_model, load_teacher, save_model


def n_params(m):
    return sum(p.numel() for p in m.parameters() if p.requires_grad)


def test_it_keeps_the_published_budget():
    assert 51_000 <= n_params(GuidedStudent(8, 3)) <= 51_800
    assert n_params(GuidedStudent(23)) - n_params(GuidedStudent(8)) == 15 * (CHANNELS[-1] + 1)


@pytest.mark.parametrize(
    "chans, h, w", [(3, 32, 32), (3, 64, 64), (1, 33, 47), (4, 97, 32), (3, 224, 224)]
)
def test_any_size_and_channels(chans, h, w):
    m = GuidedStudent(5, chans).eval()
    with torch.no_grad():
        out = m(torch.randn(2, chans, h, w))
    assert out.shape == (2, 5) and out.isfinite().all()


def test_layers_are_tapped_by_name():
    m = GuidedStudent().eval()
    names = ["stem", *(f"stage{i}" for i in range(1, 5)), "head"]
    with torch.no_grad(), taps(m, names) as seen:
        out = m(torch.randn(1, 3, 64, 64))
    assert [tuple(seen[n].shape[1:]) for n in names[:-1]] == [
        (16, 32, 32),
        (32, 32, 32),
        (64, 16, 16),
        (96, 8, 8),
        (128, 8, 8),
    ]
    assert torch.equal(seen["head"], out)


def test_every_3x3_but_the_first_is_depthwise():
    convs = [m for m in GuidedStudent().modules() if isinstance(m, nn.Conv2d)]
    assert convs[0].groups == 1 and convs[0].kernel_size == (3, 3)
    assert all(
        c.kernel_size == (1, 1) or c.groups == c.in_channels == c.out_channels for c in convs[1:]
    )


def test_a_block_has_the_share_of_the_formula():
    n, m = 32, 64
    b = SeparableBlock(n, m)
    weights = b.depthwise[0].weight.numel() + b.pointwise[0].weight.numel()
    assert weights / (9 * n * m) == pytest.approx(1 / m + 1 / 9)


def test_the_residual_is_the_input():
    b = SeparableBlock(8, 8).eval()
    for p in b.pointwise.parameters():
        nn.init.zeros_(p)
    x = torch.randn(2, 8, 9, 9)
    assert torch.equal(b(x), x.relu())
    assert not SeparableBlock(8, 16).residual and not SeparableBlock(8, 8, 2).residual
    assert SeparableBlock(8, 16, 2)(x).shape == (2, 16, 5, 5)


def test_every_parameter_gets_a_gradient():
    m = GuidedStudent()
    nn.functional.cross_entropy(m(torch.randn(4, 3, 32, 32)), torch.arange(4)).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in m.parameters())


def test_width_and_depth():
    sizes = [n_params(GuidedStudent(width=w)) for w in (0.25, 0.5, 1, 2)]
    assert sizes == sorted(sizes) and len(set(sizes)) == 4
    for w in (0.3, 0.7, 1.1):
        assert all(
            m.out_channels % 8 == 0
            for m in GuidedStudent(width=w).modules()
            if isinstance(m, nn.Conv2d)
        )
    assert [len(getattr(GuidedStudent(depth=2), f"stage{i}")) for i in range(1, 5)] == [2] * 4
    assert [len(getattr(GuidedStudent(depth=(1, 3, 1, 2)), f"stage{i}")) for i in range(1, 5)] == [
        1,
        3,
        1,
        2,
    ]


def test_errors_say_what_was_seen():
    m = GuidedStudent()
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\), got \(2, 1, 64, 64\); set in_chans"):
        m(torch.randn(2, 1, 64, 64))
    with pytest.raises(ValueError, match=r"got \(3, 64, 64\)"):
        m(torch.randn(3, 64, 64))
    with pytest.raises(ValueError, match="at least 32 x 32 pixels, got 64 x 31"):
        m(torch.randn(1, 3, 64, 31))
    for w in (0, -1, "wide", None, True, float("nan"), 100):
        with pytest.raises(ValueError, match="width="):
            GuidedStudent(width=w)
    for d in (0, (1, 2), (1, 2, 3, 0), "2", None, 1.5, (1, 2, 3, True), True):
        with pytest.raises(ValueError, match="depth="):
            GuidedStudent(depth=d)
    for n in (0, 2.5, True):
        with pytest.raises(ValueError, match="num_classes="):
            GuidedStudent(n)
        with pytest.raises(ValueError, match="in_chans="):
            GuidedStudent(8, n)


def test_the_table_counts_every_trainable_parameter_once():
    m = GuidedStudent()
    table = parameter_table(m)
    assert [n for n, _ in table] == ["stem", "stage1", "stage2", "stage3", "stage4", "head"]
    assert sum(n for _, n in table) == n_params(m) and dict(table)["head"] == n_params(m.head)
    m.stem.requires_grad_(False)
    assert dict(parameter_table(m)).keys() == dict(table).keys() - {"stem"}


def test_by_name(tmp_path):
    m = create_model("guided_student", 4, in_chans=1).eval()
    assert isinstance(m, GuidedStudent) and m.num_classes == 4
    with pytest.raises(ValueError, match="near: guided_student"):
        create_model("guided_studnt")
    with pytest.raises(ValueError, match="no pretrained weights"):
        create_model("guided_student", pretrained=True)
    p = save_model(
        m,
        tmp_path / "g.safetensors",
        "guided_student",
        list("abcd"),
        in_chans=1,
        norm=([0.5], [0.2]),
    )
    x = torch.randn(2, 1, 40, 40)
    with torch.no_grad():
        assert torch.equal(load_model(p)(x), m(x))
    assert load_teacher(p).vocab == list("abcd")
