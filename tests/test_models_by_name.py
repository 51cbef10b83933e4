"Names of models, and files that say what they hold."

import json
import subprocess
import sys
from functools import partial

import pytest
import torch
from torch import nn

from kdmedlearn.models import registry
from kdmedlearn.models.registry import (
    create_mask_model,
    create_model,
    is_mask_model,
    is_yours,
    ModelRegistry,
    MODELS,
    register_model,
)
from kdmedlearn.models.weights import about_model, load_model, save_model, write_safetensors


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    "What a test registers is forgotten afterwards."
    monkeypatch.setattr(MODELS, "makers", dict(MODELS.makers))
    monkeypatch.setattr(MODELS, "masks", dict(MODELS.masks))


class Mine(nn.Sequential):
    def __init__(self, num_classes, in_chans):
        super().__init__(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(in_chans, num_classes))


@pytest.mark.parametrize("name", MODELS.names() + MODELS.names(masks=True))
def test_every_name_of_ours_makes_a_model(name):
    masks = is_mask_model(name)
    n = 1 if name.startswith("polyp_pvt") else 3
    m = create_mask_model(name, n) if masks else create_model(name, n)
    if name in ("polyp_pvt_b1", "polyp_pvt_b2", "polyp_pvt_b3", "polyp_pvt_b4", "polyp_pvt_b5"):
        return  # made, and too large to be asked here
    with torch.no_grad():
        out = m.eval()(torch.rand(2, 3, 64, 64))
    out = out if isinstance(out, torch.Tensor) else out[0]
    assert out.shape[:2] == (2, n) and out.ndim == (4 if masks else 2)
    assert not is_yours(name)


# inside they are timm's and segmentation_models_pytorch's
NOT_OURS = ("lite0_unet", *(n for n in MODELS.names(masks=True) if n.startswith("polyp_pvt")))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "name", [n for n in MODELS.names() + MODELS.names(masks=True) if n not in NOT_OURS]
)
def test_ours_work_with_the_channels_last_of_grey_images_too(name, channels):
    make = create_mask_model if is_mask_model(name) else create_model
    m = make(name, 2, in_chans=channels)
    first = next(c for c in m.modules() if isinstance(c, nn.Conv2d))
    maps = []
    first.register_forward_hook(lambda m, x, y: maps.append(y))
    with torch.no_grad():
        m.eval()(torch.rand(2, channels, 64, 64))
    assert not maps[0].is_contiguous()
    assert maps[0].is_contiguous(memory_format=torch.channels_last)


def test_names_are_known_without_importing_the_models():
    code = (
        "import sys; from kdmedlearn.models.registry import MODELS; assert 'small_student' in"
        " MODELS.names() and 'large_unet' in MODELS.names(masks=True); assert not [m for m in"
        " sys.modules if m in ('kdmedlearn.models.small', 'kdmedlearn.models.unet', 'timm')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_model_of_ones_own_works_wherever_a_name_does(tmp_path):
    assert register_model("mine")(Mine) is Mine  # as a decorator it leaves the class
    m = create_model("mine", 4, 1).eval()
    path = save_model(m, tmp_path / "m.safetensors", "mine", list("abcd"), in_chans=1)
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(load_model(path)(x), m(x)) and is_yours("mine")
    with pytest.raises(ValueError, match="mine has no pretrained weights"):
        create_model("mine", pretrained=True)


def test_a_mask_model_of_ones_own():
    register_model("one_layer", masks=True)(lambda n, c: nn.Conv2d(c, n, 1))
    assert is_mask_model("one_layer") and create_mask_model("one_layer", 2, 1).out_channels == 2
    with pytest.raises(ValueError, match="no model is called 'one_layer'"):
        create_model("one_layer")


def test_a_name_is_given_once():
    register_model("mine")(Mine)
    register_model("mine")(Mine)  # a cell that is run again
    with pytest.raises(ValueError, match="there already, from kdmedlearn.models.unet; choose"):
        register_model("small_unet")(Mine)
    register_model("small_unet", replace=True)(Mine)
    assert MODELS.names().count("small_unet") == 1 and not is_mask_model("small_unet")
    assert isinstance(create_model("small_unet", 2), Mine)


def test_two_partials_of_other_modules_are_told_apart():
    r = ModelRegistry()
    r.add("a", partial(Mine, num_classes=2))
    with pytest.raises(ValueError, match="there already"):
        r.add("a", partial(registry.polyp_pvt, "pvt_v2_b0"))


@pytest.mark.parametrize("name, maker", [("", Mine), (3, Mine), ("a", 3), ("a", None)])
def test_what_cannot_be_registered(name, maker):
    with pytest.raises(TypeError):
        ModelRegistry().add(name, maker)


def test_weights_and_description_come_back(tmp_path):
    state = {"a": torch.arange(6.0).reshape(2, 3).T, "b": torch.ones(1, requires_grad=True)}
    path = write_safetensors(state, tmp_path / "new" / "w.safetensors", {"what": ["x", 1]})
    assert about_model(path) == {"what": ["x", 1]}
    size = int.from_bytes(path.read_bytes()[:8], "little")
    head = json.loads(path.read_bytes()[8 : 8 + size])
    assert head["a"]["shape"] == [3, 2] and set(head) == {"a", "b", "__metadata__"}
