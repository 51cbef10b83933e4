"ImageNet weights from a package, teachers made of them, and teachers that are checked before use."

import sys
import warnings
from importlib.util import find_spec

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.losses import BCEWithLogitsLossFlat, CrossEntropyLossFlat, DiceLoss
from PIL import Image
from torch import nn

from kdmedlearn import distill, KDAS, SoftMasks
from kdmedlearn.core.outputs import plain
from kdmedlearn.core.teacher import norm_of, Teacher
from kdmedlearn.data.masks import mask_dls, MaskBCE
from kdmedlearn.data.phantom import CLASSES, phantom_dls
from kdmedlearn.evaluation.regions import classes_in
from kdmedlearn.methods.kdas import StructureLoss
from kdmedlearn.models import pretrained as module
from kdmedlearn.models.pretrained import imagenet_weights, mapped, PACKAGED, pretrained_model
from kdmedlearn.models.registry import create_model
from kdmedlearn.models.small import small_student
from kdmedlearn.models.weights import about_model, load_teacher, save_model
from kdmedlearn.models.unet import small_unet
from kdmedlearn.train.finetune import backbone_and_head, finetune, n_maps
from kdmedlearn.train.teachers import check_teacher, fit_teacher, phantom_teacher_path, teachers

NAME = "tf_efficientnet_lite0"
has = lambda package: pytest.mark.skipif(find_spec(package) is None, reason=f"needs {package}")
weights, segment = has(PACKAGED[NAME].package), has("segmentation_models_pytorch")


@pytest.fixture(scope="module")
def released():
    return imagenet_weights(NAME)


def no_internet(*args, pretrained=False, **kwargs):
    raise ConnectionError("no route to host")


@weights
def test_every_tensor_of_the_package_is_used_once_and_its_code_never_runs(released):
    file = module.packaged_file(NAME)
    theirs = module.read_checked(file, PACKAGED[NAME].sha256)
    assert PACKAGED[NAME].package not in sys.modules
    assert len(theirs) == len(released.state)
    for a, (k, b) in zip(theirs.values(), released.state.items()):
        assert torch.equal(a, b), k
    timm.create_model(NAME, pretrained=False).load_state_dict(released.state, strict=True)


def test_weights_of_another_network_are_refused():
    ours = timm.create_model("resnet10t", pretrained=False).state_dict()
    same = mapped({f"theirs.{k}": v for k, v in ours.items()}, ours)
    assert all(torch.equal(same[k], ours[k]) for k in ours)
    old = {k: v for k, v in ours.items() if "num_batches" not in k}
    assert set(mapped(old, ours)) == set(ours)
    with pytest.raises(ValueError, match="weights of another one"):
        mapped(dict(list(ours.items())[1:]), ours)
    with pytest.raises(ValueError, match="does not fit into"):
        mapped(dict(reversed(ours.items())), ours)


def test_a_file_that_is_not_the_known_one_is_not_read(tmp_path):
    (tmp_path / "w.pth").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(ValueError, match="SHA-256"):
        module.read_checked(tmp_path / "w.pth", PACKAGED[NAME].sha256)


@weights
def test_photographs_are_recognised(released):
    from sklearn.datasets import load_sample_image

    net = timm.create_model(NAME, pretrained=False).eval()
    net.load_state_dict(released.state)
    t = Teacher(net, released.norm, size=released.size)
    for name, known in (("china.jpg", 698), ("flower.jpg", 985)):  # palace, daisy
        x = torch.tensor(load_sample_image(name)).permute(2, 0, 1)[None].float() / 255
        side = min(x.shape[2:])
        top, left = ((s - side) // 2 for s in x.shape[2:])
        x = x[:, :, top : top + side, left : left + side]
        assert t.see((x,), None).out.argmax().item() == known


@weights
def test_other_channels_and_classes(released):
    x = torch.rand(2, 3, 64, 64)
    full = create_model(NAME, 1000, pretrained=True).eval()
    assert "package" in full.weights_from
    four = create_model(NAME, 4, pretrained=True).eval()
    with torch.no_grad():
        torch.testing.assert_close(four.forward_features(x), full.forward_features(x))
        grey = create_model(NAME, 4, in_chans=1, pretrained=True).eval()
        torch.testing.assert_close(
            grey.forward_features(x[:, :1]),
            full.forward_features(x[:, :1].repeat(1, 3, 1, 1)),
            atol=1e-3,
            rtol=1e-3,
        )
    assert four(x).shape == (2, 4)
    assert four.pretrained_cfg["mean"] == (127 / 255,) * 3


@pytest.mark.parametrize("name", [NAME, "resnet18"])
def test_without_package_and_internet_the_cure_is_said(name, monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda n: None)
    monkeypatch.setattr(timm, "create_model", no_internet)
    with pytest.raises(RuntimeError, match=r"cannot be downloaded.*kdmedlearn\[teachers\]"):
        pretrained_model(name, 4)
    with pytest.raises(ImportError, match=r"kdmedlearn\[teachers\]"):
        imagenet_weights(NAME)


def test_without_the_package_timm_is_asked(monkeypatch):
    asked = []

    def download(name, pretrained=False, **kwargs):
        asked.append((name, pretrained))
        return nn.Linear(2, 2)

    monkeypatch.setattr(module, "find_spec", lambda n: None)
    monkeypatch.setattr(timm, "create_model", download)
    assert pretrained_model(NAME, 4).weights_from == "timm's download"
    assert asked == [(NAME, True)]


@weights
@segment
def test_the_encoder_of_the_unet_is_the_classifiers_backbone(released, tmp_path):
    unet = module.pretrained_unet().eval()
    net = timm.create_model(NAME, pretrained=False).eval()
    net.load_state_dict(released.state)
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        want = net.blocks(net.bn1(net.conv_stem(x)))
        torch.testing.assert_close(unet.encoder(x)[-1], want)
        out = unet(x)
    file = save_model(
        unet, tmp_path / "u.safetensors", "lite0_unet", ["rest", "polyp"], img_size=64
    )
    torch.testing.assert_close(load_teacher(file).see((x,), None).out, out)


# --- size and score in files


def test_a_loaded_teacher_answers_at_the_size_it_was_saved_for(tmp_path):
    m, score = small_student(3).eval(), dict(metric="accuracy", value=0.9, images=50)
    args = ("small_student", "abc")
    file = save_model(m, tmp_path / "m.safetensors", *args, img_size=32, score=score)
    t, x = load_teacher(file), torch.rand(4, 3, 64, 64)
    own = F.interpolate(x, (32, 32), mode="bilinear", antialias=True)
    assert torch.equal(t.see((x,), None).out, t.see((own,), None).out)
    assert torch.equal(t.see((own,), None).out, m(own).detach())
    assert t.score == score and t.size == (32, 32)
    t = load_teacher(save_model(m, tmp_path / "n.safetensors", *args))
    assert t.score is None and t.size is None
    assert torch.equal(t.see((x,), None).out, m(x).detach())


def test_fitted_and_kept_teachers_know_size_and_score(tmp_path):
    dls = phantom_dls(n_train=32, n_valid=24, size=32, bs=16)
    kw = dict(epochs=1, log=None, cache=tmp_path)
    for weights in ("fitted", "loaded"):
        ts = teachers(dls, ["small_student"], **kw)
        assert list(ts.table.weights) == [weights] and ts[0].size == (32, 32)
        assert ts[0].score["images"] == 24
        assert ts[0].score["value"] == pytest.approx(ts.table.accuracy.iloc[0], abs=1e-4)
    (file,) = tmp_path.glob("*.safetensors")
    assert load_teacher(file).score == ts[0].score == about_model(file)["score"]


# --- a teacher is scored before anything is trained


def said_of(teacher, dls, **kwargs):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        scores = check_teacher(teacher, dls, **kwargs)
    return scores, " ".join(str(w.message) for w in said if "look at" in str(w.message))


def test_a_teacher_is_checked_against_its_record():
    dls = phantom_dls(n_train=8, n_valid=100, size=64, seed=77)
    t = load_teacher(phantom_teacher_path())
    t.score = dict(metric="accuracy", value=0.85, images=1000)
    scores, said = said_of(t, dls)
    assert scores["accuracy"] > 0.8 and not said
    wrong = Teacher(t.model, (0.0, 0.2), CLASSES, score=t.score)
    scores, said = said_of(wrong, dls)
    assert "0.85 where it was trained" in said and scores["accuracy"] < 0.8
    for word in ("size", "normalisation", "order of the classes", "channels"):
        assert word in said
    assert not said_of(wrong, dls, fall=1)[1]
    with pytest.raises(ValueError, match="class"):
        check_teacher(Teacher(t.model, t.norm, CLASSES[::-1]), dls)


def test_a_teacher_that_knows_one_word_is_found():
    dls = phantom_dls(n_train=8, n_valid=40, size=32)
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 8))
    net[2].weight.data.zero_()
    assert "always naming the largest class" in said_of(net, dls)[1]


def test_masks_are_checked_at_the_teachers_size():
    dls = phantom_dls(n_train=8, n_valid=16, size=32, task="segment")
    t = load_teacher(phantom_teacher_path("large_unet"))
    sized = Teacher(t.model, t.norm, size=64, score=dict(metric="dice", value=1.0))
    assert not said_of(sized, dls)[1]
    scores, said = said_of(sized, dls, fall=0)
    assert scores["dice"] > 0.8 and "dice" in said and "64x64" in said


# --- fine-tuning


@weights
def test_a_finetuned_teacher_knows_what_it_is():
    dls = phantom_dls(n_train=24, n_valid=16, size=32, bs=8)
    t = finetune(dls, steps=5, looks=1, log=None)
    assert t.size == (32, 32) and t.vocab == list(CLASSES) and t.name == NAME
    assert t.norm[0].flatten().tolist() == pytest.approx([127 / 255] * 3)
    assert t.score["images"] == 16
    found = check_teacher(t, dls, fall=1)
    assert found["accuracy"] == pytest.approx(t.score["value"], abs=1e-4)
    again = finetune(dls, steps=5, looks=1, log=None)
    assert all(map(torch.equal, t.model.parameters(), again.model.parameters()))


@weights
def test_the_head_is_trained_first_and_the_backbone_slower(monkeypatch):
    import kdmedlearn.train.finetune as ft

    rates = []

    def spy(learn, steps, lr, **kwargs):
        trained = [[p.requires_grad for p in g] for g in backbone_and_head(learn.model)]
        rates.append((steps, lr, sum(trained[0]) < len(trained[0]), all(trained[1])))

    monkeypatch.setattr(ft, "fit_steps", spy)
    finetune(phantom_dls(n_train=8, n_valid=8, size=32), steps=50, lr=1e-2, log=None)
    assert rates == [(10, 1e-2, True, True), (40, slice(2e-3, 1e-2), False, True)]


# --- fine-tuning for masks


def masks(**kw):
    return phantom_dls(**dict(n_train=8, n_valid=4, size=32, bs=4, task="segment") | kw)


def quick(dls, **kw):
    return finetune(dls, **dict(steps=5, looks=1, log=None, loss_func=StructureLoss()) | kw)


def statistics(part):
    return [v.clone() for k, v in part.state_dict().items() if "running" in k]


@weights
@segment
def test_a_finetuned_unet_knows_what_it_is_and_teaches(tmp_path, released):
    dls = masks()
    t = quick(dls)
    assert (t.name, t.size, t.score["metric"], t.score["images"]) == (
        "lite0_unet",
        (32, 32),
        "dice",
        4,
    )
    assert t.vocab == classes_in(dls.valid) and len(t.vocab) == 2
    assert t.norm[0].flatten().tolist() == pytest.approx(released.norm[0])
    assert check_teacher(t, dls, fall=1)["dice"] == pytest.approx(t.score["value"], abs=1e-4)
    kw = dict(norm=t.norm, img_size=32, score=t.score)
    again = load_teacher(save_model(t.model, tmp_path / "t.safetensors", t.name, t.vocab, **kw))
    x = plain(dls.valid.one_batch()[0])
    out = t.see((x,), norm_of(dls)).out
    assert out.shape == (4, 1, 32, 32) and torch.equal(again.see((x,), norm_of(dls)).out, out)
    for method in (KDAS(), SoftMasks()):
        learn = distill(dls, small_unet(), again, method)
        with learn.no_bar(), learn.no_logging():
            learn.fit(1)
        assert all(v == v for v in learn.recorder.values[-1])


@weights
@segment
def test_batch_norm_keeps_its_statistics_in_the_encoder_alone(monkeypatch):
    import kdmedlearn.train.finetune as ft

    made = ft.pretrained_unet()
    monkeypatch.setattr(ft, "pretrained_unet", lambda maps: made)
    encoder, decoder = statistics(made.encoder), statistics(made.decoder)
    first = [p.clone() for p in made.encoder.parameters()]
    quick(masks(), freeze=0.6)  # 3 steps of the decoder, 2 of all
    assert all(map(torch.equal, encoder, statistics(made.encoder)))
    assert not any(map(torch.equal, decoder, statistics(made.decoder)))
    assert not all(map(torch.equal, first, made.encoder.parameters()))  # weights have moved
    quick(masks(), keep_stats=False)
    assert not all(map(torch.equal, encoder, statistics(made.encoder)))


@weights
@segment
def test_a_long_training_takes_the_statistics_of_its_batches(monkeypatch):
    import kdmedlearn.train.finetune as ft

    kept = []

    def spy(learn, steps, lr, **kwargs):
        kept.append(any(isinstance(c, ft.KeepStatistics) for c in learn.cbs))

    monkeypatch.setattr(ft, "fit_steps", spy)
    for asked in (dict(steps=199), dict(steps=200), dict(), dict(keep_stats=True)):
        quick(masks(), **dict(steps=400, freeze=0) | asked)
    assert kept == [True, False, False, True]


@weights
@segment
def test_the_encoder_is_frozen_first_and_slower_then(monkeypatch):
    import kdmedlearn.train.finetune as ft

    rates = []

    def spy(learn, steps, lr, **kwargs):
        learn.create_opt()
        groups = [[p.requires_grad for p in g] for g in backbone_and_head(learn.model)]
        assert sum(map(len, groups)) == len(list(learn.model.parameters()))
        assert len(groups[0]) == len(list(learn.model.encoder.parameters()))
        rates.append((steps, lr, any(groups[0]), all(groups[1])))
        assert isinstance(learn.loss_func, StructureLoss) and learn.metrics[0].name == "dice"

    monkeypatch.setattr(ft, "fit_steps", spy)
    quick(masks(), steps=50, lr=1e-2)
    assert rates == [(10, 1e-2, False, True), (40, slice(2e-3, 1e-2), True, True)]
    rates.clear()
    quick(masks(), steps=50, pretrained=False)
    assert [r[0] for r in rates] == [50]


@pytest.mark.parametrize(
    "loss, shape, maps",
    [
        (StructureLoss(), (2, 8, 8), 1),
        (StructureLoss(), (2, 1, 8, 8), 1),
        (nn.BCEWithLogitsLoss(), (2, 1, 8, 8), 1),
        (BCEWithLogitsLossFlat(), (2, 1, 8, 8), 1),
        (MaskBCE(), (2, 8, 8), 1),
        (nn.CrossEntropyLoss(), (2, 8, 8), 2),
        (CrossEntropyLossFlat(axis=1), (2, 8, 8), 2),
        (DiceLoss(), (2, 8, 8), 2),
    ],
    ids=lambda v: str(v) if isinstance(v, (int, tuple)) else type(v).__name__,
)
def test_the_loss_says_how_many_maps_there_are(loss, shape, maps):
    y = torch.zeros(shape)
    y[..., :4] = 1
    y = y if len(shape) == 4 else y.long()
    dls = DataLoaders.from_dsets(
        *[[(torch.rand(3, 8, 8), m) for m in y] for _ in "ab"], bs=2, num_workers=0, device="cpu"
    )
    assert n_maps(dls, ["rest", "polyp"], loss) == maps
    assert n_maps(dls, ["rest", "polyp", "tool"], loss) == 3


def three_classes(path):
    "Images with a bright and a dark square, in masks of three values."
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (path / folder).mkdir(parents=True)
    for i in range(12):
        x, y = rng.integers(90, 160, (32, 32, 3)), np.zeros((32, 32))
        for k in (1, 2):
            a, b = rng.integers(0, 20, 2)
            x[a : a + 12, b : b + 12], y[a : a + 12, b : b + 12] = 120 * k, k
        Image.fromarray(x.astype("uint8")).save(path / "images" / f"{i}.png")
        Image.fromarray(y.astype("uint8")).save(path / "masks" / f"{i}.png")
    classes = {"rest": 0, "dark": 1, "bright": 2}
    return mask_dls(path, size=32, bs=4, valid=0.34, classes=classes, device="cpu")


@weights
@segment
def test_masks_of_several_classes_and_of_two_maps(tmp_path):
    for dls, n in ((three_classes(tmp_path / "set"), 3), (masks(), 2)):
        t = quick(dls, loss_func=None, steps=3)  # the loss of the loaders: cross-entropy
        x = plain(dls.valid.one_batch()[0])
        out = t.see((x,), norm_of(dls)).out
        assert out.shape == (4, n, 32, 32) and len(t.vocab) == max(n, 2)
        assert t.score["metric"] == "dice" and 0 <= t.score["value"] <= 1
        file = save_model(t.model, tmp_path / "t.safetensors", t.name, t.vocab, norm=t.norm)
        assert about_model(file)["num_classes"] == n
        assert torch.equal(load_teacher(file).see((x,), norm_of(dls)).out, out)


@weights
@segment
def test_a_unet_of_another_size_answers_at_that_of_the_loaders():
    dls = masks()
    t = quick(dls, size=64, steps=2)
    x = plain(dls.valid.one_batch()[0])
    seen = []
    t.model.register_forward_hook(lambda m, i, o: seen.append(tuple(i[0].shape[2:])))
    assert t.size == (64, 64) and t.see((x,), norm_of(dls)).out.shape == (4, 1, 32, 32)
    assert seen == [(64, 64)]


@segment
def test_a_network_with_an_encoder_is_finetuned_too():
    import segmentation_models_pytorch as smp

    dls, unet = masks(), smp.Unet("resnet18", encoder_weights=None, classes=1)
    before = statistics(unet.encoder)
    t = quick(dls, arch=unet, steps=3)
    assert t.model is unet and t.name == "Unet" and t.score["metric"] == "dice"
    assert all(map(torch.equal, t.norm, norm_of(dls)))  # the images as it was given them
    assert all(map(torch.equal, before, statistics(unet.encoder)))


def test_masks_without_an_encoder_are_refused():
    for arch, words in (
        ("small_unet", "no encoder with ImageNet weights; take lite0_unet"),
        (small_unet(), "no part called encoder"),
    ):
        with pytest.raises(ValueError, match=words):
            quick(masks(), arch=arch)


def test_what_cannot_be_finetuned_is_refused():
    dls = phantom_dls(n_train=8, n_valid=8, size=32)
    with pytest.raises(ValueError, match="no pretrained weights"):
        finetune(dls, "small_student", log=None)
    with pytest.raises(ValueError, match="not one of timm's networks"):
        finetune(dls, "small_student", pretrained=False, log=None)
    with pytest.raises(ValueError, match="freeze=2"):
        finetune(dls, freeze=2, log=None)
    with pytest.raises(TypeError, match="got a Learner"):
        finetune(Learner(dls, small_student()), log=None)
    assert norm_of(dls) is not None
