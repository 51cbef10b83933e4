"Phantoms: made from a seed, balanced, masks that fit, DataLoaders that train, predict and export."

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from fastai.vision.all import Learner, load_learner
from PIL import Image
from scipy.ndimage import binary_dilation, label

from kdmedlearn.data import phantom as P
from kdmedlearn.data.phantom import CLASSES, phantom, phantom_dls


class Tiny(torch.nn.Module):
    def __init__(self, n_out, dense=False):
        super().__init__()
        self.conv, self.dense = torch.nn.Conv2d(3, n_out, 3, padding=1), dense

    def forward(self, x):
        return self.conv(x) if self.dense else self.conv(x).mean((2, 3))


@pytest.mark.parametrize("task", ["classify", "segment"])
def test_shapes_and_same_seed_same_images(task):
    (x, y), (x2, y2) = phantom(20, 40, task, seed=7), phantom(20, 40, task, seed=7)
    assert x.shape == (20, 40, 40, 3) and x.dtype == np.uint8
    assert y.shape == ((20,) if task == "classify" else (20, 40, 40)) and y.dtype == (
        np.int64 if task == "classify" else np.uint8
    )
    assert np.array_equal(x, x2) and np.array_equal(y, y2)
    assert all((a != b).any() for a, b in zip(x, phantom(20, 40, task, seed=8)[0]))


@pytest.mark.parametrize("task", ["classify", "segment"])
def test_an_image_does_not_depend_on_how_many_are_asked_for(task):
    (x, y), (x2, y2) = (
        phantom(P.CHUNK + 9, 32, task, seed=3),
        phantom(P.CHUNK + 3, 32, task, seed=3),
    )
    assert np.array_equal(x[: len(x2)], x2) and np.array_equal(y[: len(y2)], y2)
    assert task == "classify" or len({m.tobytes() for m in y}) == len(y)  # and no scene comes twice


def test_global_random_state_is_neither_read_nor_moved():
    np.random.seed(1)
    torch.manual_seed(1)
    x = phantom(4, 32)[0]
    assert np.random.rand() == np.random.RandomState(1).rand() and torch.rand(1) == torch.rand(
        1, generator=torch.Generator().manual_seed(1)
    )
    np.random.seed(2)
    torch.manual_seed(2)
    assert np.array_equal(x, phantom(4, 32)[0])


@pytest.mark.parametrize("n", [1, 7, 8, 43])
def test_classes_are_balanced_and_shuffled(n):
    y = phantom(n, 32, seed=1)[1]
    counts = np.bincount(y, minlength=8)
    assert counts.max() - counts.min() <= 1
    if n > 16:
        assert not np.array_equal(y[:8], y[8:16])


def test_classes_of_one_scene_look_different():
    """Same dice, eight recipes: any two differ clearly inside the frame, and similar classes less
    than dissimilar ones."""
    x = P.render(2, [1] * 8, np.arange(8), 64, 0.0).rgb
    d = np.abs(x[:, None] - x[None]).mean((2, 3, 4))
    assert d[~np.eye(8, dtype=bool)].min() > 0.01
    i = CLASSES.index
    assert d[i("polyps"), i("dyed-lifted-polyps")] < d[i("polyps"), i("normal-z-line")]
    assert d[i("esophagitis"), i("normal-z-line")] < d[i("esophagitis"), i("ulcerative-colitis")]


def test_difficulty_brings_the_classes_closer():
    def spread(difficulty):  # mean distance of class means, in standard deviations of an image
        x, y = phantom(160, 32, seed=2, difficulty=difficulty)
        x = x.reshape(160, -1) / 255.0
        means = np.stack([x[y == c].mean(0) for c in range(8)])
        return means.std(0).mean() / np.mean([x[y == c].std(0).mean() for c in range(8)])

    easy, middle, hard = (spread(d) for d in (0.0, 0.5, 1.0))
    assert easy > 1.3 * middle and middle > 1.1 * hard


def test_the_own_class_weighs_at_least_half():
    """Without fading, the mix is nearer to the image's own recipe than to any other, at every
    difficulty."""
    recipes = np.array(list(P.RECIPES.values()))
    y = np.arange(400) % 8

    class NoFade(P.Scene):
        def rand(self, lo=0.0, hi=1.0):
            r = super().rand(lo, hi)
            return np.ones_like(r) if hi == 1.0 and lo != 0.0 else r

    a = P.amounts(NoFade(0, range(400), 32), y, 1.0)
    nearest = ((a[:, None] - recipes) ** 2).sum(-1).argmin(1)
    assert (nearest == y).all()
    assert np.abs(a - recipes[y]).max() > 0.4  # and the mix does reach far


@pytest.mark.slow
def test_a_thousand_images_take_less_than_ten_seconds_of_one_core():
    def took():
        start = time.process_time()
        phantom(100, 96)
        return time.process_time() - start

    assert min(took() for _ in range(3)) < 1.0


def test_masks_fit_the_polyps():
    x, m = phantom(200, 64, "segment", seed=4)
    share = (m > 0).mean((1, 2))
    assert set(np.unique(m)) == {0, 255} and share.min() > 0.025 and share.max() < 0.42
    parts = np.array([label(k)[1] for k in m])
    assert (parts >= 1).all() and 0.02 < (parts >= 2).mean() < 0.3
    fill = [k.any(0).sum() * k.any(1).sum() for k in m > 0]
    # blobs of many forms, not one
    assert np.std([(k > 0).sum() / f for k, f in zip(m, fill)]) > 0.02


def test_mask_covers_what_the_polyp_changes():
    "Drawing the polyp changes the image inside its mask, and outside only its near shadow."
    s = P.Scene(1, range(6), 64)
    P.main_place(s, 0.3)
    P.mucosa(s)
    before = s.rgb.copy()
    P.polyp(s, np.ones((6, 1, 1), np.float32))
    changed, mask = np.abs(s.rgb - before).max(1) > 0.02, s.main.r < 1
    assert (changed & mask).sum() > 0.98 * mask.sum()
    near = np.stack([binary_dilation(k, iterations=8) for k in mask])
    assert not (changed & ~near).any()


def test_masks_end_at_the_frame():
    s = P.render(0, range(32), np.full(32, CLASSES.index("polyps")), 48, 1.0, segment=True)
    # some polyp does reach the frame
    assert not (s.mask & ~s.open).any() and (s.main.r < 1)[~s.open].any()
    assert np.abs(s.rgb[np.broadcast_to(~s.open[:, None], s.rgb.shape)]).max() == 0


@pytest.mark.parametrize(
    "kw,says",
    [
        (dict(task="detect"), "choose one of classify, segment"),
        (dict(n=0), "at least 1"),
        (dict(size=31), "at least 32"),
        (dict(difficulty=-0.1), "between 0"),
        (dict(difficulty=1.1), "between 0"),
        (dict(difficulty=float("nan")), "between 0"),
        (dict(seed=-1), "seed"),
    ],
)
def test_errors_say_the_cure(kw, says):
    with pytest.raises(ValueError, match=says):
        phantom(**{"n": 4, **kw})


def test_train_and_valid_share_nothing_and_valid_stays_when_train_grows():
    digest = lambda ds: [it.image.tobytes() for it in ds.items]
    a, b = phantom_dls(24, 16, 32), phantom_dls(40, 16, 32)
    assert (
        not set(digest(a.train_ds)) & set(digest(a.valid_ds)) and len(set(digest(a.train_ds))) == 24
    )
    assert digest(a.valid_ds) == digest(b.valid_ds)
    assert not set(digest(phantom_dls(24, 16, 32, seed=1).train_ds)) & set(
        digest(a.train_ds) + digest(a.valid_ds)
    )


def test_batches_are_normalised_and_carry_the_vocab():
    dls = phantom_dls(64, 128, 32, augment=False, device="cpu")
    x, y = dls.valid.one_batch()
    items = dls.valid_ds.items[:32]
    want = (np.stack([it.image for it in items]) / 255.0 - P.MEAN) / P.STD
    assert np.allclose(np.asarray(x).transpose(0, 2, 3, 1), want, atol=1e-4)
    assert y.tolist() == [it.target for it in items] and list(dls.vocab) == CLASSES and dls.c == 8
    pixels = phantom(200, 32, seed=11)[0] / 255.0
    assert np.allclose(pixels.mean((0, 1, 2)), P.MEAN, atol=0.03) and np.allclose(
        pixels.std((0, 1, 2)), P.STD, atol=0.03
    )


def test_augmentation_turns_image_and_mask_together():
    dls = phantom_dls(32, 8, 32, task="segment", bs=8, shuffle=False, device="cpu")
    plain = phantom_dls(32, 8, 32, task="segment", bs=8, shuffle=False, augment=False, device="cpu")
    (x, y), (x0, y0) = dls.train.one_batch(), plain.train.one_batch()
    assert set(y.unique().tolist()) == {0, 1} and y.dtype == torch.int64 and not torch.equal(y, y0)
    for a, m, a0, m0 in zip(*(torch.as_tensor(np.asarray(t)) for t in (x, y, x0, y0))):
        ways = [
            (f(a0.rot90(k, (1, 2)), -1), f(m0.rot90(k, (0, 1)), -1))
            for k in range(4)
            for f in (lambda t, d: t, lambda t, d: t.flip(d))
        ]
        assert any(torch.allclose(a, p, atol=1e-3) and torch.equal(m, q) for p, q in ways)


@pytest.mark.parametrize("task", ["classify", "segment"])
def test_learner_trains_predicts_and_exports_without_images(task, tmp_path):
    dls = phantom_dls(64, 16, 48, task=task, bs=16, device="cpu")
    learn = Learner(dls, Tiny(8) if task == "classify" else Tiny(2, dense=True))
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 1e-2)
        x = phantom(1, 48, seed=9)[0][0]
        name, _, p = learn.predict(x)
        assert torch.equal(p, learn.predict(Image.fromarray(x))[2])
        # other sizes are resized
        assert learn.predict(np.asarray(Image.fromarray(x).resize((90, 70))))[2].shape == p.shape
        assert (str(name) in CLASSES) if task == "classify" else (name.shape == (48, 48))
        file = tmp_path / "learner.pkl"
        learn.export(file)
        assert file.stat().st_size < 100_000 < 64 * 48 * 48 * 3
        again = load_learner(file)
        with again.no_bar():
            assert torch.allclose(again.predict(x)[2], p, atol=1e-6)


def test_predict_refuses_what_is_no_uint8_image():
    for bad in (
        np.zeros((32, 32, 3)),
        np.zeros((32, 32), np.uint8),
        np.zeros((3, 32, 32), np.uint8),
    ):
        with pytest.raises(ValueError, match="uint8 array"):
            P.ReadShot(32)(bad)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_learners_exported_by_0_1_0_find_their_reader():
    "The reader of phantoms was called `ReadImage` there."
    assert P.ReadImage is P.ReadShot
    with pytest.raises(AttributeError, match="has no attribute 'ReadMask'"):
        P.ReadMask
    learn = load_learner(Path(__file__).parent / "files_0_1_0" / "learner.pkl")
    assert type(learn.dls.tfms[0][0]) is P.ReadShot
