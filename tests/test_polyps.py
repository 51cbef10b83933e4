"""The two polyp sets: folders, counts, options, and the made-up stand-ins."""

import shutil
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from kdmedlearn.data.sets.polyps import (
    kvasir_seg,
    LAYOUTS,
    MARK,
    pranet,
    PRANET_TESTS,
    write_phantom_polyps,
)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    root = tmp_path_factory.mktemp("polyps")
    for layout in LAYOUTS:
        write_phantom_polyps(root / layout, 10, 3, 32, layout=layout)
    return root


def said(f, *a, **kw):
    with warnings.catch_warnings(record=True) as got:
        warnings.simplefilter("always")
        out = f(*a, device="cpu", **kw)
    return out, [str(w.message) for w in got if "cut at random" not in str(w.message)]


def test_stand_ins_are_the_same_for_the_same_seed(home, tmp_path):
    again, other = (
        write_phantom_polyps(tmp_path / "a", 10, 3, 32),
        write_phantom_polyps(tmp_path / "b", 10, 3, 32, seed=1),
    )
    for f in (home / "kvasir").rglob("*.jpg"):
        rel = f.relative_to(home / "kvasir")
        assert f.read_bytes() == (again / rel).read_bytes()
    assert (home / "kvasir/train/images/1.jpg").read_bytes() != (
        other / "train/images/1.jpg"
    ).read_bytes()
    assert (again / "train/images/1.jpg").read_bytes() != (
        again / "validation/images/1.jpg"
    ).read_bytes()
    m = np.array(Image.open(home / "kvasir/train/masks/1.jpg"))
    assert m.ndim == 2 and ((m < 64) | (m > 191)).mean() > 0.97 and 0 < (m > 127).mean() < 1
    assert MARK in {f.name for f in again.iterdir()}


@pytest.mark.parametrize(
    "kw, says",
    [
        (dict(layout="voc"), "layout='voc'"),
        (dict(size=8), "at least 32"),
        (dict(n_train=0), "at least 1"),
    ],
)
def test_stand_ins_refuse(tmp_path, kw, says):
    with pytest.raises(ValueError, match=says):
        write_phantom_polyps(tmp_path / "x", **kw)


def test_stand_ins_never_touch_what_is_there(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    for p in (tmp_path / "mine", tmp_path / "mine" / "notes.txt"):
        with pytest.raises(FileExistsError, match="choose a new folder"):
            write_phantom_polyps(p)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep"


@pytest.mark.parametrize("layout, counts", [("kvasir", (10, 3)), ("kvasir-official", (12, 1))])
def test_kvasir(home, layout, counts):
    dls, warned = said(kvasir_seg, home / layout, 32, bs=2)
    assert (dls.train.n, dls.valid.n) == counts and not warned
    x, y = dls.one_batch()
    assert (
        x.shape == (2, 3, 32, 32)
        and y.shape == (2, 1, 32, 32)
        and y.dtype == torch.float32
        and set(y.unique().tolist()) <= {0, 1}
    )
    norm = next(t for t in dls.train.after_batch if type(t).__name__ == "Normalize")
    assert norm.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])


def test_options_pass_through(home):
    dls, _ = said(
        kvasir_seg,
        home / "kvasir-official",
        32,
        bs=2,
        valid=0.3,
        target="index",
        norm="train",
        augment=False,
        fraction=0.5,
    )
    assert dls.valid.n == 4 and dls.one_batch()[1].shape == (2, 32, 32) and dls.train.n < 9
    assert said(kvasir_seg, home / "kvasir")[0].facts["size"] == 352
    with pytest.raises(TypeError, match="thresold"):
        kvasir_seg(home / "kvasir", thresold=0)


def test_pranet(home):
    dls, warned = said(pranet, home / "pranet", 32, bs=2)
    assert (
        set(dls.tests) == set(PRANET_TESTS)
        and all(dl.n == 3 for dl in dls.tests.values())
        and not warned
        and dls.train.n == 9
    )


def test_images_and_masks_may_be_plural(home, tmp_path):
    p = shutil.copytree(home / "pranet", tmp_path / "p")
    for d in ("image", "mask"):
        (p / "TrainDataset" / d).rename(p / "TrainDataset" / f"{d}s")
    assert said(pranet, p, 32)[0].train.n == 9


def test_counts_are_compared_without_the_mark(home, tmp_path):
    p = shutil.copytree(home / "pranet", tmp_path / "p")
    (p / MARK).unlink()
    shutil.rmtree(p / "TestDataset" / "CVC-300")
    (p / "TestDataset" / "Kvasir").rename(p / "TestDataset" / "kvasir")
    warned = said(pranet, p, 32)[1]
    assert len(warned) == 1
    for text in (
        "train: 10 images, expected 1450",
        "Kvasir: 3 images, expected 100",
        "no test set CVC-300",
        "ETIS-LaribPolypDB: 3 images, expected 196",
        "cannot be compared",
    ):
        assert text in warned[0]
    shutil.rmtree(p / "TestDataset")
    assert sum(f"no test set {n};" in said(pranet, p, 32)[1][0] for n in PRANET_TESTS) == 5
    for layout, text in (
        ("kvasir", "seen train 10, valid 3; 987 of 1000 images are not here"),
        ("kvasir-official", "seen 13 images; 987 of 1000"),
    ):
        k = shutil.copytree(home / layout, tmp_path / layout)
        (k / MARK).unlink()
        with pytest.warns(UserWarning, match=text):
            kvasir_seg(k, 32, device="cpu")


@pytest.mark.parametrize(
    "n, says",
    [
        ((900, 100), ""),
        ((880, 120), ""),
        ((1000, None), ""),
        ((800, 100), "seen train 800, valid 100; 100 of 1000 images are not here"),
        ((900, None), "seen 900 images; 100 of 1000"),
        ((1450, None), "seen 1450 images; expected 1000"),
    ],
)
def test_only_the_whole_of_kvasir_is_counted(home, monkeypatch, tmp_path, n, says):
    import kdmedlearn.data.sets.polyps as polyps
    import pandas as pd

    p = shutil.copytree(home / ("kvasir" if n[1] else "kvasir-official"), tmp_path / "p")
    (p / MARK).unlink()
    rows = ["train"] * n[0] + ["valid"] * n[1] if n[1] else ["all"] * n[0]
    monkeypatch.setattr(polyps, "list_pairs", lambda path: pd.DataFrame({"split": rows}))
    warned = said(kvasir_seg, p, 32)[1]
    assert len(warned) == bool(says) and all(says in w for w in warned)


def test_a_test_set_of_another_name_and_copies_are_named(home, tmp_path):
    p = shutil.copytree(home / "pranet", tmp_path / "p")
    tests = p / "TestDataset"
    (tests / "CVC-300").rename(tests / "CVC-T")
    shutil.copy(tests / "CVC-ColonDB/images/1.png", tests / "CVC-T/images/1.png")
    warned = said(pranet, p, 32)[1]  # of made-up images no counts, but copies
    assert (
        len(warned) == 1
        and "2 files have an exact copy in another split (e.g. TestDataset/CVC-ColonDB/1.png = TestDataset/CVC-T/1.png)"
        in warned[0]
    )
    (p / MARK).unlink()
    assert "no test set CVC-300 (of another name: CVC-T)" in said(pranet, p, 32)[1][0]


def test_wrong_folders_are_answered(home, tmp_path):
    for f, where, says in (
        (
            kvasir_seg,
            home,
            (
                r"holds kvasir/, kvasir-official/, pranet/; expected images/ and masks/.*kvasir"
                r" looks right: pass that"
            ),
        ),
        (pranet, home, r"pranet looks right: pass that"),
        (kvasir_seg, home / "pranet", r"Then call pranet\(path\)"),
        (
            pranet,
            home / "kvasir",
            (
                r"holds train/, validation/, PHANTOM.txt; expected TrainDataset/.*Then call"
                r" kvasir_seg\(path\)"
            ),
        ),
        (pranet, home / "kvasir-official", r"Then call kvasir_seg\(path\)"),
        (pranet, home / "pranet" / "TestDataset", "holds CVC-300/.*pranet looks right: pass that"),
        (pranet, home / "pranet" / "TrainDataset", "pranet looks right: pass that"),
        (
            kvasir_seg,
            home / "pranet" / "TrainDataset",
            r"is the training part .*Then call pranet\('.*pranet'\)",
        ),
        (kvasir_seg, home / "kvasir" / "train" / "images", "kvasir looks right"),
        (kvasir_seg, home / "kvasir-official" / "images", "kvasir-official looks right"),
        (kvasir_seg, home / "nowhere", "spelled right"),
        (pranet, home / "nowhere", "spelled right"),
        (kvasir_seg, home / "kvasir" / MARK, "unpack an archive"),
        (kvasir_seg, tmp_path, "holds nothing"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=says):
            f(where, 32)


def test_a_lost_partner_is_an_error(home, tmp_path):
    p = shutil.copytree(home / "pranet", tmp_path / "p")
    (p / "TestDataset" / "Kvasir" / "images" / "2.png").unlink()
    with pytest.raises(ValueError, match="1 masks without an image"):
        pranet(p, 32)
