"""Recipes: checked fields, the learning rate as drawn, PyTorch's Adam, augmentation of images only,
loaders and training."""

from dataclasses import FrozenInstanceError, asdict

import fastai.callback.all  # no_bar
import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.core import Callback
from fastai.learner import Learner
from fastai.torch_core import TensorImage, TensorMask
from helpers import data, net
from PIL import Image
from torch.nn.functional import cross_entropy

from kdmedlearn.data.augment import Blur, hdkd_augment, Sharpen
from kdmedlearn.data.balance import WeightedLoader, WithSynthetic
from kdmedlearn.data.images import image_dls
from kdmedlearn.data.reading import TensorGrey
from kdmedlearn.data.loaders import restart
from kdmedlearn.data.masks import mask_dls
from kdmedlearn.train.distillation import distill
from kdmedlearn.train.recipes import hdkd_student_recipe, hdkd_teacher_recipe, Recipe

RECIPES = {
    "plain": Recipe(),
    "warm": Recipe(epochs=4, warmup=1.5, warmup_lr=1e-5),
    "cosine": Recipe(epochs=3, schedule="cosine", lr=1e-2, min_lr=1e-4),
    "teacher": hdkd_teacher_recipe(),
    "student": hdkd_student_recipe(),
    "short": hdkd_student_recipe(epochs=7, lr=5e-4),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    path, r = tmp_path_factory.mktemp("set"), np.random.default_rng(0)
    for split, counts in (("train", (12, 7)), ("valid", (4, 4))):
        for c, n in zip("ab", counts):
            (path / split / c).mkdir(parents=True)
            for i in range(n):
                Image.fromarray(r.integers(0, 256, (20, 20), dtype=np.uint8)).save(
                    path / split / c / f"{i}.png"
                )
    return path


def train(recipe, learn, **kw):
    with learn.no_bar(), learn.no_logging():
        return recipe.fit(learn, **kw)


# ---- fields


@pytest.mark.parametrize(
    "kw,says",
    [
        (dict(opt="sgd"), "opt='sgd'; expected one of 'adam', 'adamw'"),
        (dict(opt="AdamW"), "near: 'adamw'"),
        (dict(schedule=None), "schedule=None"),
        (dict(augment="endoscopi"), "near: 'endoscopy'"),
        (dict(norm="image_net"), "near: 'imagenet'"),
        (dict(balance="weight"), "near: 'weights'"),
        (dict(lr=0), "lr=0; expected a number above 0"),
        (dict(lr=-1.0), "lr="),
        (dict(lr="1e-3"), "lr="),
        (dict(lr=float("inf")), "lr=inf"),
        (dict(eps=0), "eps=0"),
        (dict(wd=-1), "wd=-1"),
        (dict(epochs=0), "epochs=0; expected a whole number"),
        (dict(epochs=1.0), "epochs=1.0"),
        (dict(epochs=True), "epochs=True"),
        (dict(bs=0), "bs=0"),
        (dict(size=0.5), "size=0.5"),
        (dict(warmup=-1), "warmup=-1"),
        (dict(warmup=20), "warmup=20 epochs leave nothing"),
        (dict(warmup=1, warmup_lr=1.0), "warmup_lr=1.0 is above"),
        (dict(schedule="cosine", min_lr=1.0), "min_lr=1.0 is above"),
    ],
    ids=str,
)
def test_mistakes_are_answered(kw, says):
    with pytest.raises(ValueError, match=says):
        Recipe(**kw)
    with pytest.raises(ValueError, match=says):
        Recipe().changed(**kw)


def test_changed_and_printed():
    r = hdkd_student_recipe()
    s = r.changed(epochs=20, lr=5e-4, size=64)
    assert s == hdkd_student_recipe(epochs=20, lr=5e-4, size=64) and (r.epochs, r.lr) == (200, 5e-5)
    assert {k for k in asdict(r) if getattr(r, k) != getattr(s, k)} == {"epochs", "lr", "size"}
    assert r.changed() == r and hash(r.changed()) == hash(r)
    with pytest.raises(TypeError, match="no field 'epoch'; near: epochs"):
        r.changed(epoch=3)
    with pytest.raises(TypeError, match="no field 'momentum'.*it has opt, lr"):
        hdkd_teacher_recipe(momentum=0.9)
    with pytest.raises(FrozenInstanceError):
        r.lr = 1
    lines = str(r).splitlines()
    assert [line.split()[0] for line in lines] == list(asdict(r))
    assert all(line.endswith(repr(v)) for line, v in zip(lines, asdict(r).values()))


def test_presets():
    t, s = hdkd_teacher_recipe(), hdkd_student_recipe()
    assert (t.opt, t.lr, t.wd, t.schedule, t.warmup) == ("adam", 1e-3, 0, "constant", 0)
    assert (s.opt, s.lr, s.wd, s.schedule, s.warmup, s.warmup_lr, s.min_lr) == (
        "adamw",
        5e-5,
        0.05,
        "cosine",
        5,
        2e-5,
        2e-5,
    )
    for r in (t, s):
        assert (r.epochs, r.bs, r.size, r.augment, r.norm, r.balance, r.eps) == (
            200,
            16,
            224,
            "hdkd",
            "imagenet",
            None,
            1e-8,
        )


# ---- learning rate


def formula(r, e):
    if e < r.warmup:
        return r.warmup_lr + (r.lr - r.warmup_lr) * e / r.warmup
    if r.schedule == "constant":
        return r.lr
    return r.min_lr + 0.5 * (r.lr - r.min_lr) * (
        1 + np.cos(np.pi * (e - r.warmup) / (r.epochs - r.warmup))
    )


@pytest.mark.parametrize("r", RECIPES.values(), ids=RECIPES)
def test_lr_at(r):
    es = np.linspace(0, r.epochs, 203)
    lrs = [r.lr_at(e) for e in es]
    assert np.allclose(lrs, [formula(r, e) for e in es], rtol=1e-4)
    assert np.isclose(r.lr_at(r.warmup), r.lr, rtol=1e-5)
    for bad in (-0.1, r.epochs + 0.1):
        with pytest.raises(ValueError, match=f"from 0 to {r.epochs}"):
            r.lr_at(bad)


@pytest.mark.parametrize("name", ["plain", "warm", "cosine", "short"])
def test_fit_moves_the_learning_rate_as_drawn(name):
    r = RECIPES[name].changed(bs=8)
    learn = train(r, Learner(dls := data(), net(), loss_func=cross_entropy))
    n = len(dls.train)
    assert len(learn.recorder.lrs) == n * r.epochs
    assert np.allclose(
        learn.recorder.lrs, [formula(r, i / n) for i in range(n * r.epochs)], rtol=1e-4
    )
    assert all(
        h["wd"] == r.wd and (h["mom"], h["sqr_mom"], h["eps"]) == (0.9, 0.999, r.eps)
        for h in learn.opt.hypers
    )


class Seen(Callback):
    def before_fit(self):
        self.batches = 0

    def after_batch(self):
        self.batches += self.training


def test_fit_keeps_callbacks_and_starts_afresh():
    r = Recipe(epochs=3, warmup=1, schedule="cosine", wd=0.1)
    learn = Learner(data(), net(), loss_func=cross_entropy, cbs=Seen(), wd=0.5)
    names = {type(c).__name__ for c in learn.cbs}
    assert train(r, learn) is learn
    first, state = learn.opt, len(learn.recorder.lrs)
    assert (
        learn.seen.batches == 6
        and {type(c).__name__ for c in learn.cbs} == names
        and learn.opt.hypers[0]["wd"] == 0.1
    )
    train(r, learn, epochs=2)
    assert learn.opt is not first and (state, len(learn.recorder.lrs)) == (6, 4)
    assert np.allclose(
        learn.recorder.lrs, [formula(r.changed(epochs=2), i / 2) for i in range(4)], rtol=1e-4
    )
    with pytest.raises(ValueError, match="warmup=1 epochs leave nothing of epochs=1"):
        train(r, learn, epochs=1)


def test_fit_trains_a_distilled_student():
    learn = distill(data(), net(), net(8), loss_func=cross_entropy)
    before = {k: v.clone() for k, v in learn.model.state_dict().items()}
    train(Recipe(epochs=1, opt="adamw", wd=0.05), learn)
    assert any(not torch.equal(v, before[k]) for k, v in learn.model.state_dict().items())
    assert "response" in learn.recorder.metric_names


@pytest.mark.parametrize(
    "recipe,theirs",
    [
        (Recipe(lr=1e-2), torch.optim.Adam),
        (Recipe(lr=1e-2, wd=0.1), torch.optim.Adam),
        (Recipe(lr=1e-2, wd=0.1, opt="adamw"), torch.optim.AdamW),
    ],
    ids=["adam", "adam and decay", "adamw"],
)
def test_a_training_is_pytorchs(recipe, theirs):
    "Against a plain PyTorch loop over the same batches; every weight decays."
    dls, a, b = data(), net(), net()
    b.load_state_dict(a.state_dict())
    restart(dls, 0)
    train(recipe.changed(epochs=3), Learner(dls, a, wd_bn_bias=True, loss_func=cross_entropy))
    opt = theirs(b.parameters(), lr=recipe.lr, weight_decay=recipe.wd)
    restart(dls, 0)
    for _ in range(3):
        for x, y in dls.train:
            cross_entropy(b(x), y).backward()
            opt.step()
            opt.zero_grad()
        for x, y in dls.valid:
            pass  # the Learner looks at them too
    for (k, u), v in zip(a.state_dict().items(), b.state_dict().values()):
        if not k.startswith(("conv.bias", "norm.running")):
            # batch norm undoes that bias: its gradient is noise
            assert torch.allclose(u, v, atol=1e-4), k


# ---- augmentation


@pytest.mark.parametrize("kind", [TensorImage, TensorGrey])
def test_augment_images_in_training_only(kind):
    x = torch.rand(16, 1 if kind is TensorGrey else 3, 24, 24).as_subclass(kind)
    before, out = x.clone(), x.clone()
    for f in hdkd_augment():
        # fastai resamples on the same grid
        assert torch.allclose(f(x.clone(), split_idx=1), x, atol=1e-5)
        out = f(out, split_idx=0)
        assert type(out) is kind and out.shape == x.shape and 0 <= out.min() and out.max() <= 1
        assert f.order < 99
    assert torch.equal(x, before) and not torch.equal(out, x)
    y = TensorMask(torch.randint(0, 2, (16, 24, 24)))
    for f in (Sharpen(share=1.0), Blur()):
        assert f(y, split_idx=0) is y
        xs, ys = f((x, y), split_idx=0)
        assert torch.equal(ys, y) and not torch.equal(xs, x)
    assert torch.equal(x, before)


def test_sharpen_and_blur():
    x = TensorImage(torch.rand(400, 3, 8, 8))
    touched = (Sharpen()(x, split_idx=0) != x).flatten(1).any(1)
    assert 0.4 < touched.float().mean() < 0.6
    assert torch.equal(Sharpen(share=0.0)(x, split_idx=0), x)
    torch.manual_seed(3)
    a = Sharpen()(x, split_idx=0)
    torch.manual_seed(3)
    assert torch.equal(Sharpen()(x, split_idx=0), a)
    line = TensorImage(torch.zeros(1, 1, 5, 5))
    line[0, 0, 2, 2] = 1.0
    g = np.exp(-np.array([1, 0, 1]) / 2)
    g = np.outer(g, g) / g.sum() ** 2
    # a 3x3 Gaussian of sigma 1
    assert np.allclose(Blur(1.0, 1.0)(line, split_idx=0)[0, 0, 1:4, 1:4], g, atol=1e-6)


# ---- loaders


def test_image_dls(folders):
    r = Recipe(size=16, bs=4, augment="hdkd", norm="imagenet")
    d = r.image_dls(folders, device="cpu")
    # grey files, three channels
    assert d.one_batch()[0].shape == (4, 3, 16, 16) and d.valid.bs == 4
    assert [type(f).__name__ for f in d.train.after_batch][-3:] == ["Sharpen", "Blur", "Normalize"]
    assert torch.equal(d.valid.one_batch()[0], d.valid.one_batch()[0])
    assert r.changed(norm="train").image_dls(folders, device="cpu").one_batch()[0].shape[1] == 1
    assert [
        type(f).__name__
        for f in r.changed(augment="none").image_dls(folders, device="cpu").train.after_batch
    ] == ["IntToFloatTensor", "Normalize"]
    ref = image_dls(
        folders, size=16, bs=4, modality="mri", norm="imagenet", channels=3, device="cpu"
    )
    mine = r.changed(augment="mri").image_dls(folders, device="cpu")
    epochs = [(restart(d, 1), [x for x, _ in d.train])[1] for d in (ref, mine)]
    assert all(torch.equal(x, u) for x, u in zip(*epochs))
    assert isinstance(
        r.changed(balance="weights").image_dls(folders, device="cpu").train, WeightedLoader
    )
    assert (
        isinstance(
            s := r.changed(balance="smote").image_dls(folders, device="cpu").train_ds, WithSynthetic
        )
        and len(s) == 24
    )
    for name, value in dict(size=3, bs=1, norm="train", augment=False, balance=None).items():
        with pytest.raises(TypeError, match=rf"recipe.changed\({name}="):
            r.image_dls(folders, **{name: value})
    with pytest.raises(TypeError, match=r"recipe.changed\(augment='mri'"):
        r.image_dls(folders, modality="mri")


def test_the_options_of_the_readers_pass_through(folders, tmp_path):
    r = Recipe(size=16, bs=4)
    rows = [(f.relative_to(folders), f.parent.name, i % 5) for i, f in enumerate(
        sorted(folders.glob("train/*/*.png")))]  # fmt: skip
    pd.DataFrame(rows, columns=["image", "dx", "patient"]).to_csv(tmp_path / "t.csv", index=False)
    d = r.image_dls(
        folders, table=tmp_path / "t.csv", group="patient", valid=0.4, test=0.2, device="cpu"
    )
    assert list(d.vocab) == ["a", "b"] and len(d.table) == 19
    assert d.table.groupby("group").split.nunique().max() == 1
    for k in ("images", "annotations"):
        (tmp_path / k).mkdir()
    for i in range(8):
        m = np.zeros((20, 20), np.uint8)
        m[4:9, i : i + 9], m[12:15], m[9] = 1, 2, 255
        Image.fromarray(100 * (m == 1).astype(np.uint8)).save(tmp_path / "images" / f"{i}.png")
        Image.fromarray(m).save(tmp_path / "annotations" / f"{i}_m.png")
    said = dict(masks="annotations", suffix="_m", ignore=255, valid=0.4, device="cpu")
    with pytest.warns(UserWarning):
        d = r.mask_dls(tmp_path, classes=["wall", "polyp", "tool"], **said)
        two = r.mask_dls(tmp_path, classes={"wall": [0, 2], "polyp": 1}, **said)
    y, z = d.one_batch()[1], two.one_batch()[1]
    assert y.shape == (4, 16, 16) and set(y.unique().tolist()) == {0, 1, 2, 255}
    assert z.shape == (4, 1, 16, 16) and set(z.unique().tolist()) == {0, 1, 255}
    assert d.loss_func.func.ignore_index == two.loss_func.ignore_index == 255
    with pytest.raises(ValueError, match="target='channel' has two classes"):
        r.mask_dls(tmp_path, classes=["wall", "polyp", "tool"], target="channel", **said)


def test_the_same_seed_gives_the_same_batches(folders):
    d = Recipe(size=16, bs=4, augment="hdkd", balance="weights").image_dls(folders, device="cpu")

    def epoch(seed):
        restart(d, seed)
        return torch.cat([x.as_subclass(torch.Tensor) for x, _ in d.train])

    assert torch.equal(epoch(0), epoch(0)) and not torch.equal(epoch(0), epoch(1))


def test_readers_take_a_list_of_transforms(folders, tmp_path):
    tfms = hdkd_augment()
    d = image_dls(folders, size=16, bs=4, augment=tfms, modality="mri", device="cpu")
    assert [f for f in d.train.after_batch if f in tfms] == tfms and len(
        d.train.after_batch.fs
    ) == 6
    assert (
        len(image_dls(folders, size=16, bs=4, augment=[], device="cpu").train.after_batch.fs) == 2
    )
    for bad in ("mri", ["mri"], None):
        with pytest.raises(ValueError, match="augment=.*list of fastai batch transforms"):
            image_dls(folders, augment=bad)
    for k in ("images", "masks"):
        (tmp_path / "train" / k).mkdir(parents=True)
    for i in range(6):
        m = np.zeros((20, 20), np.uint8)
        m[4:9, i : i + 9] = 255
        Image.fromarray(m).save(tmp_path / "train" / "images" / f"{i}.png")
        Image.fromarray(m).save(tmp_path / "train" / "masks" / f"{i}.png")
    with pytest.warns(UserWarning):
        m = mask_dls(
            tmp_path,
            size=20,
            bs=4,
            valid=0.4,
            norm=(0, 1),
            augment=[Sharpen(share=1.0)],
            device="cpu",
        )
    x, y = m.train.one_batch()
    # the mask was left alone
    assert torch.equal(x[:, 0].as_subclass(torch.Tensor) > 0.5, y.as_subclass(torch.Tensor).bool())
