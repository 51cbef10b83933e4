"Rare classes: weights, SMOTE, and DataLoaders whose training loader alone is changed."

import sys

import numpy as np
import pytest
import torch
import fastai.callback.all  # no_bar, fit_one_cycle
from fastai.data.block import DataBlock
from fastai.learner import Learner, load_learner
from fastai.metrics import accuracy
from fastai.vision.data import CategoryBlock, ImageBlock
from helpers import data
from PIL import Image
from torch import nn

from kdmedlearn.data.balance import balance, class_weights, smote, train_labels, WeightedLoader
from kdmedlearn.data.images import image_dls
from kdmedlearn.data.loaders import restart, SetLoaders
from kdmedlearn.data.phantom import phantom_dls

pytestmark = pytest.mark.filterwarnings("ignore:load_learner:UserWarning")
COUNTS = {"a": 20, "b": 12, "c": 7}


def blobs(counts=(20, 12, 7), shape=(3, 6, 6), seed=0):
    r = np.random.default_rng(seed)
    return r.integers(0, 256, (sum(counts), *shape), dtype=np.uint8), np.repeat(
        np.arange(len(counts)), counts
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    "train, valid and test folders of noise; train is unbalanced."
    path, r = tmp_path_factory.mktemp("set"), np.random.default_rng(0)
    for split in ("train", "valid", "test"):
        for c, n in COUNTS.items():
            (path / split / c).mkdir(parents=True)
            for i in range(n if split == "train" else 3):
                Image.fromarray(r.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(
                    path / split / c / f"{i}.png"
                )
    return path


@pytest.fixture
def dls(folders):
    return image_dls(folders, size=16, bs=8, modality="endoscopy", device="cpu")


def drawn(d, n=3):
    return np.bincount(np.concatenate([y.numpy() for _, y in d.train]), minlength=n)


# ---- weights


@pytest.mark.parametrize("power", [0, 0.3, 0.5, 1])
def test_class_weights(power):
    y = np.repeat([4, 0, 9], [50, 10, 2])
    w = class_weights(y, power)
    assert np.isclose(w.mean(), 1) and w.shape == y.shape
    share = np.array([w[y == c].sum() for c in (4, 0, 9)])
    assert np.allclose(share / share[0], (np.array([50, 10, 2]) / 50.0) ** (1 - power))
    order = np.random.default_rng(0).permutation(len(y))
    # an image's weight, wherever it stands
    assert np.allclose(class_weights(y[order], power), w[order])
    assert np.allclose(class_weights(torch.tensor(y), power), w)


@pytest.mark.parametrize("power", [-0.01, 1.01, "1", None, float("nan")])
def test_power_out_of_range(power):
    with pytest.raises(ValueError, match="power="):
        class_weights([0, 1], power)


# ---- smote


def test_smote_fills_every_class_and_stays_on_lines():
    x, y = blobs()
    new, new_y = smote(torch.tensor(x), torch.tensor(y), k=3)
    assert new.dtype == np.uint8 and new.shape == (8 + 13, 3, 6, 6) and new_y.dtype == np.int64
    assert np.bincount(np.r_[y, new_y]).tolist() == [20] * 3
    for s, c in zip(new, new_y):
        own = x[y == c].astype(float)
        left = []
        for i, a in enumerate(own):
            near = np.argsort(((own - a) ** 2).sum((1, 2, 3)))[1:4]  # k=3 nearest of the same class
            for b in own[near]:
                u = np.clip(((s - a) * (b - a)).sum() / ((b - a) ** 2).sum(), 0, 1)
                left.append(np.abs(s - a - u * (b - a)).max())
        assert min(left) < 1.5  # rounding, and its effect on u


def test_smote_does_not_wrap_around():
    "Differences of uint8 would: between 250 and 5 lies no 255."
    x = (
        np.array([250, 245, 5, 10, 128] + [100] * 9, np.uint8)
        .reshape(-1, 1, 1, 1)
        .repeat(4, 2)
        .repeat(4, 3)
    )
    new, _ = smote(x, [0] * 5 + [1] * 9, k=4)
    assert (
        len(new) == 4 and (new == new[:, :, :1, :1]).all() and new.min() >= 5 and new.max() <= 250
    )


def test_smote_seed_grey_and_balanced():
    x, y = blobs(shape=(1, 5, 7))
    assert (smote(x, y)[0] == smote(x, y)[0]).all() and (
        smote(x, y)[0] != smote(x, y, seed=1)[0]
    ).any()
    before = x.copy()
    assert smote(x, y)[0].shape[1:] == (1, 5, 7) and (x == before).all()
    x, y = blobs((3, 3))
    new, new_y = smote(x, y)  # nothing to do, however few
    assert new.shape == (0, 3, 6, 6) and len(new_y) == 0


def test_smote_errors(monkeypatch):
    x, y = blobs((20, 5, 1))
    with pytest.raises(
        ValueError,
        match="class 1 has 5 training images, too few for k=5.*pass k=4 or less.*weights",
    ):
        smote(x, y)
    with pytest.raises(
        ValueError, match="class 'lump' has 1 training image, .*neighbours; collect more"
    ):
        smote(x, y, k=1, vocab=["x", "y", "lump"])
    for bad in (0, 2.5, None):
        with pytest.raises(ValueError, match="k="):
            smote(x, y, k=bad)
    for bad in (x / 255.0, x[0], x[:-1]):
        with pytest.raises(ValueError, match="uint8 pixels"):
            smote(bad, y)
    for m in [m for m in sys.modules if m.split(".")[0] == "imblearn"]:
        monkeypatch.delitem(sys.modules, m)
    monkeypatch.setitem(sys.modules, "imblearn", None)
    with pytest.raises(ImportError, match=r"pip install 'kdmedlearn\[smote\]'"):
        smote(*blobs())


# ---- DataLoaders


@pytest.mark.parametrize("how", ["weights", "smote"])
def test_only_training_changes(dls, how):
    b = balance(dls, how)
    assert (
        type(b) is SetLoaders
        and b.train is not dls.train
        and b.valid is dls.valid
        and b.test is dls.test
    )
    assert (
        b.tests == dls.tests
        and b.table is dls.table
        and b.facts is dls.facts
        and b.vocab == dls.vocab
    )
    assert (b.path, b.device, b.train.bs, b.train.drop_last, b.train.device) == (
        dls.path,
        dls.device,
        8,
        True,
        dls.train.device,
    )
    assert [type(f) for f in b.train.after_batch] == [type(f) for f in dls.train.after_batch]
    # the old one is as it was
    assert len(dls.train_ds) == 39 and not isinstance(dls.train, WeightedLoader)
    assert len(b.train_ds) == (60 if how == "smote" else 39)
    x, y = b.one_batch()
    u, v = dls.one_batch()
    assert (type(x), type(y), x.shape, x.dtype) == (type(u), type(v), u.shape, u.dtype)
    b.show_batch(max_n=4)


@pytest.mark.parametrize("kw", [dict(), dict(power=0.5), dict(how="smote")])
def test_same_seed_same_batches(dls, kw):
    b = balance(dls, **kw)

    def epochs():
        restart(b, 5)
        return [(x, y) for _ in range(2) for x, y in b.train]

    one, two = epochs(), epochs()
    assert all(torch.equal(x, u) and torch.equal(y, v) for (x, y), (u, v) in zip(one, two))
    half = len(one) // 2
    # each epoch draws anew
    assert not all(torch.equal(y, v) for (_, y), (_, v) in zip(one[:half], one[half:]))
    restart(b, 6)
    assert not torch.equal(next(iter(b.train))[0], one[0][0])


@pytest.mark.slow
def test_what_is_drawn(dls):
    restart(w := balance(dls), 0)
    n = sum(drawn(w) for _ in range(40)) / 40
    assert np.abs(n - 32 / 3).max() < 2 and n.sum() == 32  # four batches of 8, the rest dropped
    restart(w := balance(dls, power=0), 0)
    assert np.abs(sum(drawn(w) for _ in range(40)) / 40 - 32 * np.array([20, 12, 7]) / 39).max() < 2
    s = balance(dls, "smote")
    assert np.bincount([int(y) for _, y in s.train_ds]).tolist() == [20] * 3
    assert sorted(s.train.new(shuffle=False).get_idxs()) == list(range(60))
    real = [torch.equal(s.train_ds[i][0], dls.train_ds[i][0]) for i in range(39)]
    assert all(real) and torch.equal(s.train_ds[-1][0], s.train_ds[59][0])
    with pytest.raises(IndexError):
        s.train_ds[60]


def test_new_loaders_keep_weights_only_for_the_same_images(dls):
    t = balance(dls).train
    assert np.allclose(t.new(bs=4).wgts, t.wgts) and t.new(bs=4).bs == 4
    assert t.new(shuffle=False).get_idxs() == list(range(39))
    assert not isinstance(t.new(dls.valid_ds), WeightedLoader)
    again = balance(balance(dls), "smote")
    assert not isinstance(again.train, WeightedLoader) and len(again.train_ds) == 60


@pytest.mark.parametrize("how", ["weights", "smote"])
def test_a_learner_trains_predicts_and_exports(dls, folders, how, tmp_path):
    dls.path = tmp_path
    learn = Learner(
        balance(dls, how),
        nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 3)),
        metrics=accuracy,
    )
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(1)
        f = dls.test.items[0]
        want = learn.predict(f)[2]
        learn.export("s.pkl")
        again = load_learner(tmp_path / "s.pkl")
        with again.no_bar():
            assert torch.allclose(again.predict(f)[2], want, atol=1e-6)
    assert (tmp_path / "s.pkl").stat().st_size < 60_000  # no images in it


def test_other_dataloaders():
    assert train_labels(d := data(n=24)).tolist() == [i % 3 for i in range(16)]  # plain pairs
    restart(b := balance(d), 0)
    assert b.one_batch()[0].shape == (8, 3, 8, 8)
    with pytest.raises(ValueError, match="uint8 pixels.*float32.*use how='weights'"):
        balance(d, "smote")
    p = phantom_dls(40, 8, 32, bs=8, device="cpu")
    assert len(balance(p, "smote", k=2).train_ds) == 40 and balance(p).one_batch()[0].shape == (
        8,
        3,
        32,
        32,
    )


def test_datablock(folders):
    block = DataBlock(
        (ImageBlock, CategoryBlock),
        get_items=lambda p: sorted((p / "train").rglob("*.png")),
        get_y=lambda f: f.parent.name,
    )
    d = block.dataloaders(folders, bs=8, device="cpu", num_workers=0)
    assert balance(d).one_batch()[0].shape == (8, 3, 16, 16)
    with pytest.raises(ValueError, match="PILImage"):
        balance(d, "smote")


def test_balance_errors(dls):
    with pytest.raises(ValueError, match="near: 'weights'; expected one of 'weights', 'smote'"):
        balance(dls, "weight")
    with pytest.raises(ValueError, match="how=None; expected"):
        balance(dls, None)
    with pytest.raises(ValueError, match="class 'c' has 7 training images, too few for k=7"):
        balance(dls, "smote", k=7)
    for how in ("weights", "smote"):
        with pytest.raises(ValueError, match="masks"):
            balance(phantom_dls(8, 8, 32, task="segment", device="cpu"), how)
