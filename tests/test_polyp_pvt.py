"""Polyp-PVT against the values of the released code, and what must hold for any backbone, any size
and any weights."""

import pytest
import timm
import torch
from golden_values import close, filled, filled_input, golden
from safetensors.torch import save_file
from torch import nn

from kdmedlearn.models.hdkd import HDKDTeacher
from kdmedlearn.models.mbcsa import conv_layer, SpatialAttention
from kdmedlearn.models.polyp_pvt import (
    backbone_of,
    CFM,
    CIM,
    load_released,
    POLYP_PVT_NAMES,
    PolypPVT,
    PVT_V2,
    pyramid,
    SAM,
    up,
)
from kdmedlearn.models.weights import our_name

ABOUT, VALUES = golden("kdas")
SMALL = "mobilenetv3_small_050"


def n_params(m):
    return sum(p.numel() for p in m.parameters())


def inputs(name):
    return [filled_input(s) for s in ABOUT[name]["inputs"]]


@pytest.fixture(scope="module")
def small():
    return PolypPVT(SMALL)


BLOCKS = dict(
    basic_conv=(
        lambda: conv_layer(8, 8, 3, act=False),
        "CFM.conv4.",
        "cfm.out.",
    ),  # released name of the block in the model, ours
    cfm=(lambda: CFM(8), "CFM.", "cfm."),
    sam=(SAM, "SAM.", "sam."),
    channel_attention=(lambda: CIM(32).channel, "ca.", "cim.channel."),
    spatial_attention=(SpatialAttention, "sa.", "cim.spatial."),
)


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_equal_the_release(name):
    make, released, ours = BLOCKS[name]
    model = make().double().eval()
    model.load_state_dict(
        {
            our_name(released + k, POLYP_PVT_NAMES).removeprefix(ours): v
            for k, v in filled(ABOUT[name]["keys"]).items()
        }
    )
    assert n_params(model) == ABOUT[name]["params"]
    assert close(model(*inputs(name)), VALUES[f"{name}.out0"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "name,backbone", [("polyp_pvt_b0", 3_409_760), ("polyp_pvt_b2", 24_849_856)]
)
def test_released_weights_load_and_give_the_released_outputs(name, backbone):
    state = filled(ABOUT[name]["keys"])
    model = load_released(state)
    assert not model.training and {p.dtype for p in model.parameters()} == {torch.float64}
    assert n_params(model) == ABOUT[name]["params"] and n_params(model.backbone) == backbone
    assert backbone_of(state) == name.replace("polyp_pvt", "pvt_v2")
    with torch.no_grad():
        out = model(*inputs(name))
    for i in (0, 1):
        assert close(out[i], VALUES[f"{name}.out{i}"])


@pytest.mark.slow
def test_every_pvt_v2_is_told_by_its_weights():
    with torch.device("meta"):
        for name in (*PVT_V2, "pvt_v2_b2_li"):
            assert backbone_of(PolypPVT(name).state_dict()) == name


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (128, 32)])
def test_any_multiple_of_32(small, size):
    out = small.eval()(torch.randn(2, 3, *size))
    assert isinstance(out, tuple) and [tuple(p.shape) for p in out] == [(2, 1, *size)] * 2


@pytest.mark.parametrize("backbone", ["resnet18", "pvt_v2_b0", "convnext_atto"])
def test_backbones_of_timm_train_in_grey(backbone):
    model = PolypPVT(backbone, in_chans=1, anchors=2)
    assert model.training
    p1, p2 = model(torch.randn(2, 1, 64, 64))
    (p1.square().mean() + p2.square().mean()).backward()
    unused = {n for n, p in model.named_parameters() if p.grad is None}
    assert not unused and all(p.grad.isfinite().all() for p in model.parameters())
    # the edge map reaches the second head
    assert model.cim.spatial.conv.weight.grad.abs().sum() > 0


def test_images_do_not_influence_each_other(small):
    x = torch.randn(3, 3, 64, 64)
    small.eval()
    with torch.no_grad():
        together, alone = small(x), small(x[1:2])
    for a, b in zip(together, alone):
        assert torch.allclose(a[1:2], b, atol=1e-5)


def test_making_a_model_draws_no_random_numbers_for_its_check():
    torch.manual_seed(0)
    net = timm.create_model(SMALL, features_only=True, out_indices=(-4, -3, -2, -1))
    after = torch.rand(1)
    torch.manual_seed(0)
    ours = pyramid(SMALL)
    assert torch.rand(1) == after and all(
        torch.equal(a, b) for a, b in zip(net.state_dict().values(), ours.state_dict().values())
    )


def test_sam_shares_sum_to_one_and_the_edge_map_may_be_smaller():
    sam = SAM(8, anchors=3)
    A = sam.assign(torch.randn(2, 8, 10, 14), torch.randn(2, 8, 5, 7))
    assert A.shape == (2, 9, 140) and torch.allclose(A.sum(1), torch.ones(2, 140))


@pytest.mark.parametrize(
    "make,message",
    [
        (lambda: PolypPVT("pvt_v2_b22"), r"no model 'pvt_v2_b22'\. Near: .*pvt_v2_b2"),
        (lambda: PolypPVT("levit_128s"), "cannot make levit_128s with four maps"),
        (lambda: PolypPVT("test_vit"), r"lie at 1/16, 1/16, 1/16, 1/16 of the image"),
        (
            lambda: PolypPVT("swin_tiny_patch4_window7_224"),
            "does not take images of 64x64.*img_size=",
        ),
        (lambda: PolypPVT("swin_tiny_patch4_window7_224", img_size=224), "channels last"),
        (lambda: PolypPVT(SMALL, nonsense=1), "nonsense"),
        (lambda: PolypPVT(SMALL, channels=1), "at least 2"),
        (lambda: PolypPVT(SMALL, anchors=0), "at least one anchor"),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_wrong_images_are_refused(small):
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\), got \(1, 1, 64, 64\); set in_chans"):
        small(torch.zeros(1, 1, 64, 64))
    with pytest.raises(
        ValueError, match=r"\(B, 3, H, W\), got \(3, 64, 64\); the batch dimension is missing"
    ):
        small(torch.zeros(3, 64, 64))
    with pytest.raises(ValueError, match="got 350x100, near it lies 352x96"):
        small(torch.zeros(1, 3, 350, 100))
    with pytest.raises(ValueError, match="got 8x64, near it lies 32x64"):
        small(torch.zeros(1, 3, 8, 64))


def test_names_and_sources_of_another_type_are_refused(small):
    with pytest.raises(TypeError, match="by its name in timm, such as 'pvt_v2_b0'; got a PolypPVT"):
        PolypPVT(small)
    with pytest.raises(
        TypeError, match=r"file or a state dict; got a PolypPVT; pass its state_dict\(\)"
    ):
        load_released(small)
    with pytest.raises(TypeError, match="got a NoneType$"):
        load_released(None)


def test_up_spreads_the_places_from_the_first_to_the_last():
    x = torch.tensor([0.0, 1.0, 0.0, 2.0], dtype=torch.float64)
    at = torch.arange(8, dtype=torch.float64) * 3 / 7
    k = at.long().clamp(max=2)
    assert torch.allclose(up(x.expand(1, 1, 4, 4))[0, 0, 0], x[k] + (at - k) * (x[k + 1] - x[k]))


def test_a_failed_download_says_what_to_do(monkeypatch):
    def fails(*args, **kwargs):
        raise OSError("Name or service not known")

    monkeypatch.setattr(timm, "create_model", fails)
    with pytest.raises(
        RuntimeError,
        match=(
            r"weights of pvt_v2_b0 \(OSError: Name or service not"
            r" known\).*pretrained=False.*load_released"
        ),
    ):
        PolypPVT("pvt_v2_b0", pretrained=True)


@pytest.fixture(scope="module")
def released():
    return {k: v.float() for k, v in filled(ABOUT["polyp_pvt_b0"]["keys"]).items()}


def test_released_names_become_ours_one_to_one(released):
    ours = [our_name(k, POLYP_PVT_NAMES) for k in released]
    assert len(set(ours)) == len(ours) and [our_name(k, POLYP_PVT_NAMES) for k in ours] == ours


def test_load_from_files_and_from_our_names(released, tmp_path):
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = load_released(released)(x)
    torch.save({"state_dict": {"module." + k: v for k, v in released.items()}}, tmp_path / "b0.pth")
    save_file(released, tmp_path / "b0.safetensors")
    for source in (
        tmp_path / "b0.pth",
        str(tmp_path / "b0.safetensors"),
        load_released(released).state_dict(),
        released
        | {
            "backbone.head.weight": torch.zeros(1000, 256),
            "backbone.head.bias": torch.zeros(1000),
        },
    ):
        with torch.no_grad():
            out = load_released(source)(x)
        assert all(torch.equal(a, b) for a, b in zip(out, expected))


def test_load_keeps_half_precision(released):
    model = load_released(
        {k: v.half() if v.is_floating_point() else v for k, v in released.items()}
    )
    assert {v.dtype for v in model.state_dict().values()} == {torch.float16, torch.long}
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 64, 64).half())[0].dtype == torch.float16


def test_load_keeps_grey_and_other_decoders():
    model = PolypPVT("pvt_v2_b0", in_chans=1, channels=16, anchors=3).eval()
    again, x = load_released(model.state_dict()), torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(model(x), again(x)))


def test_other_weights_are_refused(released, small):
    for state, message in [
        (
            {k: v for k, v in released.items() if k != "SAM.conv_proj.bias"},
            "1 of the tensors are missing: sam.proj.bias",
        ),
        (
            released | {"extra.weight": torch.zeros(2)},
            "1 of the tensors are not known here: extra.weight",
        ),
        (
            HDKDTeacher(4, widths=(16, 32, 64), depths=(1, 1, 1)).state_dict(),
            "of no Polyp-PVT: no head_cfm.weight",
        ),
        (
            {
                k.removeprefix("backbone."): v
                for k, v in released.items()
                if k.startswith("backbone.")
            },
            "of no Polyp-PVT",
        ),
        (small.state_dict(), "on no PVTv2"),
        (
            {k: v for k, v in released.items() if not k.startswith("backbone.block3.1.")},
            r"no PVTv2 has stages of widths \(32, 64, 160, 256\) and depths \(2, 2, 1, 2\)",
        ),
        ({}, "expected a state dict"),
    ]:
        with pytest.raises(ValueError, match=message):
            load_released(state)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load_released("nowhere.pth")


def test_a_pickled_model_is_not_run(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "model.pth")
    with pytest.raises(ValueError, match="could run code and is not loaded"):
        load_released(tmp_path / "model.pth")
