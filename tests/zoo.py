"""Networks of other libraries as student and as teacher: does a step train, or is it refused in
words of ours? `zoo_members.txt` lists them; tools/zoo.py tries all, test_zoo.py a fortieth a
day."""

import importlib.util
import traceback
import warnings
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from helpers import net
from kdmedlearn.core.step import DistillStep
from kdmedlearn.core.taps import read
from kdmedlearn.methods.channels import CWD
from kdmedlearn.methods.feature import Feature
from kdmedlearn.methods.kdas import KDAS, StructureLoss
from kdmedlearn.methods.pixels import BernoulliKL, PixelKL
from kdmedlearn.methods.relation import RKD
from kdmedlearn.methods.response import Response
from kdmedlearn.models.unet import small_unet

HERE = Path(__file__).parent
LIBRARY = str(Path(DistillStep.setup.__code__.co_filename).parents[1])


class Member(NamedTuple):
    "One network: where it comes from, its name, the side of its images in pixels."

    source: str  # timm, torchvision, segmentation, smp, monai, transformers
    name: str
    size: int
    refused: tuple = ()  # methods that are refused for it

    @property
    def masks(self) -> bool:
        return self.source in ("segmentation", "smp") or self.name in MASKS

    def make(self) -> nn.Module:
        torch.manual_seed(0)
        return MAKERS[self.source](self.name, self.size)


MASKS = ("UNet", "BasicUNet", "SegResNet", "AttentionUnet", "UNETR", "SwinUNETR", "DynUNet")
MASKS += ("VNet", "segformer_masks")


def members(path=HERE / "zoo_members.txt") -> list[Member]:
    "All that the list names, one a line: source, name, size, methods that are refused."
    lines = [o.split() for o in path.read_text().splitlines() if o and not o.startswith("#")]
    return [Member(source, name, int(size), tuple(no)) for source, name, size, *no in lines]


def there(source: str) -> bool:
    "Whether the library of a source is installed."
    package = {"segmentation": "torchvision", "smp": "segmentation_models_pytorch"}
    return importlib.util.find_spec(package.get(source, source)) is not None


# --- how each is made


SMALLER = {  # families of which the smallest is large
    "beit_base_patch16_224": {"embed_dim": 96, "depth": 2, "num_heads": 4},
    "samvit_base_patch16": {"embed_dim": 96, "depth": 2, "num_heads": 4},
    "naflexvit_base_patch16_gap": {"embed_dim": 96, "depth": 2, "num_heads": 4},
}


def from_timm(name, size):
    import timm

    kwargs = {"pretrained": False, "num_classes": 3} | SMALLER.get(name, {})
    try:
        return timm.create_model(name, img_size=size, **kwargs)
    except TypeError:  # it takes no such argument
        return timm.create_model(name, **kwargs)


def from_torchvision(name, size):
    import torchvision

    kwargs = {"weights": None, "num_classes": 3}
    if name == "vit_b_32":
        from torchvision.models.vision_transformer import VisionTransformer

        wide = {"num_layers": 2, "num_heads": 4, "hidden_dim": 48, "mlp_dim": 64}
        return VisionTransformer(image_size=size, patch_size=8, num_classes=3, **wide)
    if name in ("swin_t", "swin_v2_t"):
        from torchvision.models import swin_transformer as swin

        block = {} if name == "swin_t" else {"block": swin.SwinTransformerBlockV2}
        block |= {} if name == "swin_t" else {"downsample_layer": swin.PatchMergingV2}
        wide = {"embed_dim": 24, "depths": [2] * 4, "num_heads": [2] * 4}
        return swin.SwinTransformer([4, 4], window_size=[4, 4], num_classes=3, **wide, **block)
    kwargs |= {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    if name.startswith("maxvit"):
        kwargs |= {"input_size": (size, size), "partition_size": 2}
        from torchvision.models.maxvit import MaxVit

        kwargs.pop("weights")
        small = {"stem_channels": 16, "block_channels": [16, 32, 64, 64], "block_layers": [1] * 4}
        return MaxVit(head_dim=8, stochastic_depth_prob=0.0, **small, **kwargs)
    return getattr(torchvision.models, name)(**kwargs)


def of_segmentation(name, size):
    import torchvision

    make = getattr(torchvision.models.segmentation, name)
    return make(weights=None, weights_backbone=None, num_classes=3)


def from_smp(name, size):
    import segmentation_models_pytorch as smp

    kwargs = {"encoder_name": "resnet18", "encoder_weights": None, "classes": 1}
    if name == "DPT":
        kwargs |= {"encoder_name": "tu-vit_tiny_patch16_224", "dynamic_img_size": True}
    return getattr(smp, name)(**kwargs)


def from_monai(name, size):
    import monai.networks.nets as nets

    two = {"spatial_dims": 2, "in_channels": 3, "out_channels": 1}
    steps = {"channels": (8, 16, 32), "strides": (2, 2)}
    kwargs = {
        "UNet": two | steps,
        "AttentionUnet": two | steps,
        "BasicUNet": two | {"features": (8, 8, 16, 32, 32, 8)},
        "SegResNet": two | {"init_filters": 8},
        "VNet": two,
        "UNETR": two | {"img_size": size, "hidden_size": 48, "mlp_dim": 64, "num_heads": 4},
        "SwinUNETR": two | {"feature_size": 12},
        "DynUNet": two | {"kernel_size": [3] * 4, "strides": [1, 2, 2, 2]}
        | {"upsample_kernel_size": [2] * 3, "filters": [8, 8, 16, 16]},
        "DenseNet121": two | {"out_channels": 3},
        "SEResNet50": {"spatial_dims": 2, "in_channels": 3, "num_classes": 3},
        "resnet18": {"spatial_dims": 2, "n_input_channels": 3, "num_classes": 3},
        "EfficientNetBN": {"spatial_dims": 2, "in_channels": 3, "num_classes": 3}
        | {"model_name": "efficientnet-b0", "pretrained": False},
        "ViT": {"in_channels": 3, "img_size": (size, size), "patch_size": (8, 8)}
        | {"spatial_dims": 2, "classification": True, "num_classes": 3, "hidden_size": 48}
        | {"mlp_dim": 64, "num_heads": 4, "num_layers": 2, "post_activation": ""},
    }[name]  # fmt: skip
    return getattr(nets, name)(**kwargs)


def from_transformers(name, size):
    import transformers as hf

    small = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    small |= {"intermediate_size": 64, "num_labels": 3}
    patches = {"image_size": size, "patch_size": 8}
    made = {
        "vit": ("ViTForImageClassification", "ViTConfig", small | patches),
        "deit": ("DeiTForImageClassification", "DeiTConfig", small | patches),
        "swin": ("SwinForImageClassification", "SwinConfig", {"image_size": size, "embed_dim": 12}
                 | {"depths": [1, 1, 1], "num_heads": [2, 2, 2], "window_size": 2, "num_labels": 3}),
        "resnet": ("ResNetForImageClassification", "ResNetConfig", {"embedding_size": 8}
                   | {"hidden_sizes": [8, 16, 32], "depths": [1, 1, 1], "num_labels": 3}),
        "convnext": ("ConvNextForImageClassification", "ConvNextConfig", {"num_labels": 3}
                     | {"hidden_sizes": [8, 16, 32, 48], "depths": [1, 1, 1, 1]}),
        "mobilevit": ("MobileViTForImageClassification", "MobileViTConfig", {"num_labels": 3}
                      | {"image_size": size}),
        "segformer": ("SegformerForImageClassification", "SegformerConfig", {"num_labels": 3}
                      | {"hidden_sizes": [8, 16, 32, 48], "depths": [1, 1, 1, 1]}
                      | {"num_attention_heads": [1, 1, 2, 2], "decoder_hidden_size": 32}),
    }  # fmt: skip
    made["segformer_masks"] = ("SegformerForSemanticSegmentation", *made["segformer"][1:])
    model, config, kwargs = made[name]
    return getattr(hf, model)(getattr(hf, config)(**kwargs))


MAKERS = {
    "timm": from_timm,
    "torchvision": from_torchvision,
    "segmentation": of_segmentation,
    "smp": from_smp,
    "monai": from_monai,
    "transformers": from_transformers,
}


# --- what is tried


def methods_for(member: Member) -> list:
    if not member.masks:
        return [Response(), Feature(), RKD()]
    if member.source in ("smp", "monai"):  # one logit a pixel
        return [KDAS(), BernoulliKL(), Feature()]
    return [PixelKL(), CWD(), Feature()]


def partner(member: Member) -> nn.Module:
    "A small network for the same task."
    torch.manual_seed(1)
    if not member.masks:
        return net(8)
    return small_unet(1 if member.source in ("smp", "monai") else 3)


def one_batch(member: Member) -> tuple:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, member.size, member.size, generator=g)
    if not member.masks:
        return x, torch.tensor([0, 1])
    y = (x[:, 0] > 0).long()
    return x, y.float() if member.source in ("smp", "monai") else y


def one_step(student, teacher, method, loss, x, y) -> DistillStep:
    "Set-up and one step; raises where the loss or a gradient is not finite, or nothing learns."
    step = DistillStep(student, teacher, method, loss).setup(x, y)
    step.student.train()
    result = step(x, y)
    result.loss.backward()
    values = {"the loss": result.loss, **result.terms}
    grads = [p.grad for p in student.parameters() if p.grad is not None]
    bad = [k for k, v in values.items() if not v.isfinite()]
    assert not bad, f"silently wrong: {', '.join(bad)} not finite"
    assert grads and all(g.isfinite().all() for g in grads), "silently wrong: gradients"
    assert any(g.abs().max() > 0 for g in grads), "silently wrong: no gradient"
    return step


def loss_of(member: Member):
    return StructureLoss() if member.source in ("smp", "monai") and member.masks else None


def follows(step: DistillStep, x) -> list[str]:
    """The layers of Feature's maps whose places are not those of the image: a band of the image is
    changed, and another part of the map than the same band changes most."""
    wrong = []
    pairs = [b.layers.pairs for b in step.bound if isinstance(b.method, Feature)]
    for own, other in [p for ps in pairs for p in ps[0]]:
        for model, name, layouts in (
            (step.student, own, step.layouts),
            (step.teachers[0].model, other, step.teachers[0].layouts),
        ):
            if not same_places(model.eval(), name, layouts, x[:1]):
                wrong.append(f"{type(model).__name__}: {name}")
    return wrong


@torch.no_grad()
def same_places(model, name, layouts, x) -> bool:
    "Whether each quarter of the image is seen most by the same quarter of the map, as it is read."
    from kdmedlearn.methods.feature import as_map

    g, (h, w) = torch.Generator().manual_seed(7), (o // 2 for o in x.shape[2:])
    images = [x]
    for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
        mask = torch.zeros_like(x)
        mask[:, :, i * h : (i + 1) * h, j * w : (j + 1) * w] = 1
        images.append(x + mask * torch.randn(x.shape, generator=g))
    batches = [torch.cat([images[0], o]) for o in images[1:]]
    maps = [as_map(read(model, [name], b, layouts=layouts)[1][name]).double() for b in batches]
    change = torch.stack([(m[1] - m[0]).square().sum(0).sqrt() for m in maps])  # (4, H, W)
    if change[0].numel() == 1 or not change.max() > 0:
        return True
    share = change / change.mean((1, 2), keepdim=True).clamp(min=1e-30)
    share = share - share.mean(0)
    if share.abs().max() < 1:  # each place sees most of the image
        return True
    H, W = share.shape[1:]
    hits = 0
    for k, (i, j) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        r, c = divmod(int(share[k].argmax()), W)
        hits += (
            abs((r + 0.5) / H - (0.25 + 0.5 * i)) <= 0.3
            and abs((c + 0.5) / W - (0.25 + 0.5 * j)) <= 0.3
        )
    return hits >= 3


def outcome(f) -> tuple[str, object]:
    '("worked", step), or ("refused", message) for an error that was raised in this library.'
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return "worked", f()
    except (ValueError, TypeError, RuntimeError) as e:
        where = traceback.extract_tb(e.__traceback__)[-1].filename
        if where.startswith(LIBRARY):
            return "refused", str(e)
        return "bare", f"{type(e).__name__}: {e}"
    except Exception as e:
        return "bare", f"{type(e).__name__}: {e}"


def try_member(member: Member) -> dict:
    "Each role and method -> worked, or how it failed; and the layer that was chosen."
    found: dict = {}
    (x, y), loss = one_batch(member), loss_of(member)
    for role in ("student", "teacher"):
        make = lambda: (member.make(), partner(member))[:: 1 if role == "student" else -1]
        kind, got = outcome(lambda: one_step(*make(), methods_for(member), loss, x, y))
        if kind == "worked":
            found |= {f"{role} {type(m).__name__}": "worked" for m in methods_for(member)}
            wrong = follows(got, x)
            assert not wrong, f"silently wrong: {', '.join(wrong)}"
            pairs = [b.layers.pairs for b in got.bound if isinstance(b.method, Feature)][0]
            found[f"{role} layer"] = pairs[0][0][0 if role == "student" else 1]
            continue
        for m in methods_for(member):
            kind, got = outcome(lambda: one_step(*make(), [m], loss, x, y))
            found[f"{role} {type(m).__name__}"] = kind if kind == "worked" else f"{kind}: {got}"
    return found
