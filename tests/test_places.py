"""Maps are read on the axes on which their places lie, or refused; the automatic layer is a whole
one."""

import copy
import pickle

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from helpers import Hint, net
from kdmedlearn.core.outputs import channels_first, Layout
from kdmedlearn.core.places import agreement, changes, find_layouts, last_placed
from kdmedlearn.core.step import DistillStep
from kdmedlearn.core.taps import last_map, n_hooks, read
from kdmedlearn.methods.feature import as_map, Feature
from kdmedlearn.methods.relation import RKD, Similarity
from kdmedlearn.methods.response import Response
from kdmedlearn.models.unet import small_unet

x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
y = torch.tensor([0, 1])


class Hides(nn.Module):
    "A convolution whose map of 8 channels and 8 x 8 places is laid otherwise by `turn`."

    def __init__(self, turn, back=lambda f: f.flatten(2).mean(2)):
        super().__init__()
        self.conv, self.turn, self.back = nn.Conv2d(3, 8, 4, stride=4), turn, back
        self.hidden, self.head = Turned(turn), nn.Linear(8, 3)

    def forward(self, x):
        f = self.conv(x)
        return self.head(self.back(f)) + 0 * self.hidden(f).sum()


class Turned(nn.Module):
    def __init__(self, turn):
        super().__init__()
        self.turn = turn

    def forward(self, f):
        return self.turn(f).contiguous()


def windows(f):  # four windows of 4 x 4 places, one after another
    return f.unfold(2, 4, 4).unfold(3, 4, 4).flatten(2).transpose(1, 2)


WAYS = {
    "as it lies": (lambda f: f, None),
    "channels last": (lambda f: f.permute(0, 2, 3, 1), Layout((3, 1, 2))),
    "height for width": (lambda f: f.transpose(2, 3), Layout((1, 3, 2))),
    "tokens": (lambda f: f.flatten(2).transpose(1, 2), None),
    "tokens, channels first": (lambda f: f.flatten(2), Layout((1, 2))),
    "tokens by columns": (
        lambda f: f.transpose(2, 3).flatten(2).transpose(1, 2),
        Layout((2, 1), by_columns=True),
    ),
    "tokens with one more axis": (lambda f: f.flatten(2).transpose(1, 2)[:, None], Layout((2, 1))),
}


@pytest.mark.parametrize("name", WAYS)
def test_hidden_axes_are_found(name):
    turn, way = WAYS[name]
    model = Hides(turn).eval()
    found = find_layouts(model, ["conv", "hidden"], x)
    assert found == ({} if way is None else {"hidden": way})
    maps = read(model, ["conv", "hidden"], x, layouts=found)[1]
    torch.testing.assert_close(as_map(maps["hidden"]), maps["conv"])


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("side", ["student", "teacher"])
def test_a_term_is_that_of_the_map_itself(name, side):
    hidden, plain_one = Hides(WAYS[name][0]), net()
    other = ("act", "hidden", "conv")
    values = []
    for layer in ("hidden", "conv"):
        pair = {layer: "act"} if side == "student" else {"act": layer}
        both = (hidden, plain_one) if side == "student" else (plain_one, hidden)
        torch.manual_seed(0)
        step = DistillStep(*both, Feature(pair)).setup(x, y)
        values.append(step(x, y).terms["feature"].item())
    assert values[0] == pytest.approx(values[1], rel=1e-5), other


def test_tokens_in_windows_order_are_refused():
    model = Hides(windows)
    with pytest.raises(ValueError, match="order of attention windows; name the output of a whole"):
        DistillStep(net(), model, Feature({"act": "hidden"})).setup(x, y)
    DistillStep(net(), model, Similarity({"act": "hidden"})).setup(x, y)  # compares no places
    DistillStep(net(), model, RKD({"act": "hidden"})).setup(x, y)  # their mean is the same


def test_pooled_vectors_are_over_the_right_axes():
    model = Hides(WAYS["channels last"][0])
    values = [
        DistillStep(net(), model, RKD({"act": n})).setup(x, y)(x, y).terms["distance"].item()
        for n in ("hidden", "conv")
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-5, abs=1e-7)


def test_oblong_images_have_oblong_tokens():
    wide = torch.randn(2, 3, 32, 64, generator=torch.Generator().manual_seed(0))
    model = Hides(WAYS["tokens"][0]).eval()
    way = find_layouts(model, ["hidden"], wide)["hidden"]
    assert way == Layout((2, 1))
    maps = read(model, ["conv", "hidden"], wide, layouts={"hidden": way})[1]
    torch.testing.assert_close(maps["hidden"], maps["conv"])
    step = DistillStep(net(), model, Feature({"act": "hidden"})).setup(wide, y)
    assert step(wide, y).terms["feature"].isfinite()


def test_twenty_four_places_and_a_class_token_are_no_square():
    "4 x 6 places and one token are 25: a square of 5 would be silently wrong."
    oblong = torch.randn(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    tokens = lambda f: torch.cat([f.flatten(2).mean(2)[:, None], f.flatten(2).transpose(1, 2)], 1)
    model = Hides(tokens).eval()
    assert find_layouts(model, ["hidden"], oblong)["hidden"] == Layout((2, 1), extra=1)


def test_the_probe_leaves_no_trace():
    model, state = net().train(), torch.get_rng_state()
    model.act.eval()
    before = copy.deepcopy(model.state_dict())
    find_layouts(model, ["act"], x)
    last_placed(model, x)
    assert torch.equal(torch.get_rng_state(), state) and n_hooks(model) == 0
    assert model.training and model.norm.training and not model.act.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_readings_go_along_with_copies_and_learners():
    hidden = Hides(WAYS["channels last"][0])
    step = DistillStep(hidden, net(8), Feature({"hidden": "act"})).setup(x, y)
    again = copy.deepcopy(step)
    assert again.layouts == {"hidden": Layout((3, 1, 2))}
    assert again(x, y).loss.item() == pytest.approx(step(x, y).loss.item(), rel=1e-6)
    assert "hidden as (B, H, W, D) of the student" in step.reading()
    pickle.dumps(step.layouts)


def test_methods_that_compare_no_maps_ask_nothing(monkeypatch):
    def fails(*a, **k):
        raise AssertionError("probed")

    monkeypatch.setattr("kdmedlearn.core.places.changes", fails)
    DistillStep(net(), net(8), Response()).setup(x, y)
    DistillStep(net(), net(8), Hint({"conv": "conv"})).setup(x, y)


def test_a_network_that_sees_all_everywhere_is_read_as_it_lies():
    mean = Hides(lambda f: f.mean((2, 3), keepdim=True).expand_as(f))
    assert find_layouts(mean, ["hidden"], x) == {}


# --- networks that are known to mislead


def tiny(name, size=64, **kwargs):
    torch.manual_seed(0)
    kwargs |= {"num_classes": 3}
    try:
        return timm.create_model(name, img_size=size, **kwargs).eval()
    except TypeError:
        return timm.create_model(name, **kwargs).eval()


def images(size):
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def placed(model, name, size):
    "How well a layer follows the places, as methods read it."
    im = images(size)
    ways = find_layouts(model, [name], im)
    e = changes(model, [name], im)[name]
    e = channels_first(e, im, model, ways.get(name))
    return agreement(as_map(e))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, size, layer",
    [
        ("shvit_s1", 64, "stages.1"),  # not the inside of the downsampling that follows
        ("pit_ti_224", 64, "transformers.2.blocks"),  # not the class token
        ("pit_ti_distilled_224", 64, "transformers.2.blocks"),
        ("volo_d1_224", 64, "norm"),  # not the scores of single tokens
        ("levit_128s", 64, "stages.1"),  # not an attention's keys and values
        ("levit_conv_128s", 64, "stages.1"),
        ("nest_tiny", 64, "norm"),
        ("gcvit_xxtiny", 64, "stages"),
        ("resnet10t", 64, "layer4"),
        ("starnet_s050", 64, "norm"),
    ],
)
def test_the_automatic_layer_of_timm(name, size, layer):
    assert last_placed(tiny(name, size), images(size)) == layer


@pytest.mark.slow
def test_hidden_states_are_no_places():
    model = tiny("efficientvim_m1")
    with pytest.raises(
        ValueError, match="no whole layer of EfficientViM .* Name a layer with a map"
    ):
        last_placed(model, images(64))
    step = DistillStep(net(), model, Feature({"act": "patch_embed"}))
    step.setup(images(64), y)


@pytest.mark.slow
@pytest.mark.parametrize(
    "make, size, layer",
    [
        (lambda: torchvision.models.inception_v3(init_weights=False), 96, "Mixed_6e"),
        (lambda: torchvision.models.squeezenet1_1(), 64, "features"),  # not the class maps
        (lambda: torchvision.models.mobilenet_v3_small(), 64, "features"),
        (
            lambda: torchvision.models.segmentation.lraspp_mobilenet_v3_large(
                weights_backbone=None, num_classes=3
            ),
            64,
            "classifier.low_classifier",
        ),
        (lambda: small_unet(), 64, None),
    ],
)
def test_the_automatic_layer_of_others(make, size, layer):
    torch.manual_seed(0)
    model = make().eval()
    found = last_placed(model, images(size))
    assert found == layer if layer else found != "head"


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, size, layer",
    [
        ("nest_tiny", 64, "levels.2.transformer_encoder"),
        ("gcvit_xxtiny", 64, "stages.1.blocks.0.mlp"),
        ("swinv2_cr_tiny_224", 128, "stages.1.blocks.0.mlp"),
        ("sequencer2d_s", 64, "stages"),
    ],
)
def test_axes_inside_timm_networks(name, size, layer):
    assert placed(tiny(name, size), layer, size) > 0.8


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, size, layer",
    [
        ("hiera_tiny_224", 64, "blocks.0"),
        ("nest_tiny", 64, "levels.0.transformer_encoder"),
        ("nest_tiny", 64, "levels.1.transformer_encoder"),
    ],
)
def test_windows_inside_timm_networks_are_refused(name, size, layer):
    with pytest.raises(ValueError, match="order of attention windows"):
        find_layouts(tiny(name, size), [layer], images(size))


@pytest.mark.slow
def test_a_torchvision_swin_is_read_channels_last():
    torch.manual_seed(0)
    swin = torchvision.models.swin_t(num_classes=3).eval()
    assert last_placed(swin, images(64)) in ("permute", "norm")
    for layer in ("features.0", "features.1", "features.3", "norm"):
        assert placed(swin, layer, 64) > 0.8


def test_a_learner_says_what_it_chose():
    from helpers import data
    from kdmedlearn import distill

    learn = distill(data(), net(), net(8), Feature(), loss_func=F.cross_entropy)
    assert "act of the student, act of Sequential (the last whole layers, chosen)" in repr(
        learn.distill
    )
    learn = distill(data(), net(), net(8), Feature({"conv": "act"}), loss_func=F.cross_entropy)
    assert "Feature: conv of the student, act of Sequential" in repr(learn.distill)
    assert "chosen" not in repr(learn.distill)


# --- the automatic layer, by hand-made networks


class Block(nn.Module):
    def __init__(self, a, b, stride):
        super().__init__()
        self.one, self.two = nn.Conv2d(a, b, 3, padding=1), nn.Conv2d(b, b, 3, stride, 1)

    def forward(self, x):
        return self.two(self.one(x).relu())


def test_the_inside_of_a_block_is_not_taken():
    m = nn.Sequential(Block(3, 4, 4), Block(4, 8, 8), nn.Flatten(), nn.Linear(8, 3)).eval()
    assert last_map(m, x) == "0"  # behind 1.one there are 8 x 8 places, behind block 1 there is one


def test_a_branch_is_not_taken():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.a, self.b = (nn.Conv2d(c, 4, 3, padding=1) for c in (3, 4, 4))
            self.head = nn.Linear(8, 3)

        def forward(self, x):
            f = self.stem(x)
            return self.head(torch.cat([self.a(f), self.b(f)], 1).mean((2, 3)))

    assert last_map(Branches().eval(), x) == "stem"


def test_the_answer_itself_is_not_taken():
    mask = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 1, 1)).eval()
    assert last_map(mask, x) == "0"
    scores = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 3, 1), nn.AdaptiveAvgPool2d(1))
    assert last_map(nn.Sequential(scores, nn.Flatten()).eval(), x) == "0.0"


def test_a_layer_that_runs_twice_is_not_taken():
    act = nn.ReLU()
    m = nn.Sequential(nn.Conv2d(3, 4, 3), act, nn.Conv2d(4, 4, 3), act, nn.Flatten()).eval()
    assert last_map(m, x) == "2"


def test_few_places_that_agree_by_chance_do_not_hide_tokens_on_the_last_axis():
    "(B, 8, 64) could be four places with four tokens before; it is 64 places of eight channels."

    class Hides(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.hidden = nn.Conv2d(3, 8, 8, stride=8), nn.Identity()

        def forward(self, x):
            return self.hidden(self.conv(x).flatten(2)).flatten(1)

    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found = set()
    for seed in range(60):
        torch.manual_seed(seed)
        found.add(str(find_layouts(Hides(), ["hidden"], x).get("hidden")))
    assert found == {"(B, D, N)"}
