"""Near duplicates across splits: what is found, what is not, and what is said of it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from kdmedlearn.data.images import image_dls
from kdmedlearn.data.leaks import (
    altered,
    CHANGES,
    connected,
    correlation,
    find_leaks,
    HOW,
    near_pairs,
    oriented,
    SIDE,
    spectra,
    thumb,
    thumbs,
)
from kdmedlearn.data.phantom import phantom

SAME = [c for c in CHANGES if c != "cropped"]
MRI = Path(__file__).resolve().parents[2] / "shared" / "data" / "brain-mri"


def small(images):
    return np.stack([thumb(x) for x in images])


def exam(images, changes, seed=0):
    "Shares of copies found, and false pairs, where image i is altered by changes[i]."
    rng = np.random.default_rng(seed)
    copies = [altered(x, *c, seed=int(rng.integers(2**31))) for x, c in zip(images, changes)]
    near = near_pairs(np.concatenate([small(images), small(copies)]))
    true = near.b - near.a == len(images)
    return true.sum() / len(images), int((~true).sum())


@pytest.fixture(scope="module")
def frames():
    "Phantoms in colour and grey, of other seeds than those in the tables of results."
    colour = list(phantom(240, size=64, seed=501)[0])
    other = list(phantom(160, size=96, seed=502, difficulty=0.3)[0])
    return colour + [np.array(Image.fromarray(x).convert("L")) for x in other]


@pytest.fixture
def folder(tmp_path):
    "train/ and test/ of two classes; three test images are altered training images."
    x = phantom(40, size=48, seed=503)[0]
    copies = [altered(x[i], "mirrored", "saved again", seed=i) for i in (1, 2, 4)]
    for i, im in enumerate([*x, *copies]):
        d = tmp_path / ("train" if i < 30 else "test") / "ab"[i % 2]
        d.mkdir(parents=True, exist_ok=True)
        Image.fromarray(im).save(d / f"{i:02}.png")
    return tmp_path


def files(folder):
    return {s: sorted((folder / s).rglob("*.png")) for s in ("train", "test")}


@pytest.mark.parametrize("change", SAME)
def test_each_change_is_seen_through(frames, change):
    found, false = exam(frames[::4], [(change,)] * len(frames[::4]), seed=1)
    assert found >= 0.98 and false == 0


def test_copies_with_one_or_two_changes_are_found(frames):
    rng = np.random.default_rng(2)
    changes = [tuple(rng.choice(SAME, 1 + i % 2, replace=False)) for i in range(len(frames))]
    found, false = exam(frames, changes)
    assert found >= 0.99 and false <= 0.001 * 2 * len(frames)


def test_most_slight_crops_are_found(frames):
    found, false = exam(frames[:120], [("cropped",)] * 120)
    assert found >= 0.8 and false == 0


def test_images_without_contrast_match_nothing():
    flat = np.concatenate([np.full((4, SIDE, SIDE), v, np.float32) for v in (0, 128, 255)])
    rng = np.random.default_rng(0)
    nearly = 128 + rng.normal(0, 0.3, (4, SIDE, SIDE)).astype(np.float32)
    x = np.concatenate([flat, nearly])
    assert len(near_pairs(x)) == 0 and not spectra(torch.tensor(x)).any()
    assert find_leaks([f"{i}.png" for i in range(16)], ready=x).blank == 16
    a = torch.zeros(2, SIDE, SIDE)
    assert not correlation(a, torch.rand(2, SIDE, SIDE)).any()


def test_a_black_border_alone_matches_nothing():
    rng = np.random.default_rng(0)
    heads = np.zeros((30, 96, 96), np.uint8)
    y, x = np.mgrid[:96, :96] - 47.5
    inside = (y / 36) ** 2 + (x / 30) ** 2 < 1
    for h in heads:
        noise = np.array(
            Image.fromarray(rng.integers(0, 256, (12, 12), dtype=np.uint8)).resize((96, 96), 3)
        )
        h[inside] = 60 + noise[inside] // 2
    assert len(near_pairs(small(heads))) == 0


def test_other_sizes_modes_and_kinds_give_the_same_thumbnail(tmp_path):
    x = phantom(1, size=128, seed=9)[0][0]
    t = thumb(x)
    assert t.shape == (SIDE, SIDE) and t.dtype == np.float32
    assert (thumb(Image.fromarray(x)) == t).all()
    assert (thumb(torch.tensor(x).permute(2, 0, 1)) == t).all()
    Image.fromarray(x).resize((700, 500)).save(tmp_path / "large.jpg", quality=60)
    Image.fromarray(x).convert("RGBA").save(tmp_path / "alpha.png")
    Image.fromarray(np.array(Image.fromarray(x).convert("L")).astype(np.uint16) * 200).save(
        tmp_path / "deep.png"
    )
    Image.fromarray(x).resize((28, 28)).save(tmp_path / "tiny.png")
    near = near_pairs([t, *thumbs(sorted(tmp_path.iterdir()))])
    assert (near.a == 0).sum() == 4 and set(near.how) == {"same"}


def test_a_file_is_not_spoilt_by_its_thumbnail(tmp_path):
    Image.fromarray(phantom(1, size=512, seed=9)[0][0]).save(tmp_path / "a.jpg")
    im = Image.open(tmp_path / "a.jpg")
    thumb(im)
    assert im.size == (512, 512) and im.mode == "RGB"


def test_the_way_a_copy_lies_is_told(frames):
    x = small(frames[:40])
    for k, how in enumerate(HOW):
        near = near_pairs(np.concatenate([oriented(torch.tensor(x), k).numpy(), x]))
        true = near[near.b - near.a == 40]
        assert len(true) == 40 and (true.how == how).all() and (true.moved < 0.01).all()


def test_blocks_change_nothing(frames, monkeypatch):
    from kdmedlearn.data import leaks

    x = np.concatenate([small(frames[:50]), small(frames[:50])])
    whole, real = near_pairs(x), leaks.candidates
    monkeypatch.setattr(leaks, "candidates", lambda s, likely: real(s, likely, block=7))
    parts = near_pairs(x)
    pairs = lambda t: set(zip(t.a, t.b))
    assert pairs(whole) == pairs(parts) >= {(i, i + 50) for i in range(50)}


def test_groups_are_what_is_connected():
    assert connected(6, [(0, 1), (4, 1), (3, 5)]).tolist() == [0, 0, 1, 2, 0, 2]
    assert connected(2, []).tolist() == [0, 1]
    ring = [(i, (i + 1) % 2000) for i in range(2000)]
    assert set(connected(2000, ring)) == {0}


def test_leaks_are_counted_by_image(folder):
    f = files(folder)
    found = find_leaks(f)
    assert found.shares.loc["test", "in train"] == 3 / 13
    assert found.shares.loc["train", "in test"] == 3 / 30
    assert found.report()["leaks"]["test"] == {"train": 3, "test": 0}
    assert str(found) == "3 of 13 test images (23.1%) have a near duplicate in train"
    assert len(set(found.groups)) == 40 and "23.1%" in found._repr_html_()
    p = found.pairs
    assert set(p.split_a) == {"train"} and set(p.split_b) == {"test"}
    assert all(Path(f).parts[-3] == "test" for f in p.file_b)


def test_every_kind_of_input_says_the_same(folder):
    f = files(folder)
    flat, names = f["train"] + f["test"], ["train"] * 30 + ["test"] * 13
    said = str(find_leaks(f))
    table = pd.DataFrame({"file": flat, "split": names}, index=range(7, 50))
    assert str(find_leaks(table)) == str(find_leaks(flat, names)) == said
    assert str(find_leaks(flat, names, ready=thumbs(flat))) == said
    dls = image_dls(folder, size=32, bs=4, valid=0.2, augment=False, device="cpu")
    by_dls = find_leaks(dls)
    hit = len(by_dls.images("test", "train")) + len(by_dls.images("test", "valid"))
    assert hit == 3 and len(by_dls.table) == 43
    assert str(find_leaks(flat)).endswith("have a near duplicate in the set")


def test_nothing_found_is_said(folder):
    found = find_leaks({"train": files(folder)["train"], "test": files(folder)["test"][:3]})
    assert str(found) == "no test image has a near duplicate in train"
    with pytest.raises(ValueError, match="nothing to show"):
        found.show()


def test_pairs_are_drawn(folder):
    import matplotlib.pyplot as plt

    plt.close("all")
    find_leaks(files(folder)).show(2)
    assert sum(bool(ax.images) for ax in plt.gcf().axes) == 4
    plt.close("all")


def test_groups_keep_copies_on_one_side(folder):
    flat = sum(files(folder).values(), [])
    found = find_leaks(flat)
    manifest = pd.DataFrame(
        {
            "split": [f.parts[-3] for f in flat],
            "class": [f.parts[-2] for f in flat],
            "file": [f.name for f in flat],
            "twins": found.groups,
        }
    )
    with pytest.warns(UserWarning, match="group"):
        dls = image_dls(
            folder, size=32, bs=4, valid=0.2, group="twins", manifest=manifest, device="cpu"
        )
    assert len(find_leaks(dls).images("valid", "train")) == 0


def test_wrong_use_is_answered(folder):
    x = small(phantom(4, size=48)[0])
    f = files(folder)["train"]
    for call, words in (
        (lambda: near_pairs(x[:, :8]), "expected \\(n, 32, 32\\)"),
        (lambda: near_pairs(x, least=90), "least=90"),
        (lambda: near_pairs(x, likely=-1), "likely=-1"),
        (lambda: near_pairs(x[[0] * 9], most=10), "take every tenth frame"),
        (lambda: altered(np.zeros((9, 9), np.uint8), "blured"), "change='blured'"),
        (lambda: find_leaks([]), "no files"),
        (lambda: find_leaks(f, ["train"]), "1 splits for 30 files"),
        (lambda: find_leaks(f, ready=x), "4 thumbnails for 30 files"),
        (lambda: find_leaks(pd.DataFrame({"path": f})), "no column 'file'"),
        (lambda: find_leaks([*f, folder / "nowhere.png"]), "cannot be read as images"),
        (lambda: thumb(np.zeros((9, 9), bool)), "expected uint8"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
    with pytest.raises(TypeError, match="expected a list of files"):
        find_leaks(str(folder))


@pytest.mark.skipif(not MRI.exists(), reason="brain MRI is not here")
def test_near_duplicates_of_brain_mri():
    "A quarter of the groups with an odd number, on which no threshold was chosen."
    m = pd.read_csv(MRI / "manifest.csv", dtype={"file": str})
    m = m[m.near_dup_group % 8 == 3].reset_index(drop=True)
    near = near_pairs(thumbs([MRI / s / c / f for s, c, f in zip(m.split, m["class"], m.file)]))
    group = m.near_dup_group.to_numpy()
    same = (group[near.a] == group[near.b]).sum()
    n = m.near_dup_group.value_counts()
    assert same >= 0.8 * (n * (n - 1) // 2).sum() and same >= 0.9 * len(near)


def test_leaks_of_a_part_are_those_of_its_images(folder):
    from kdmedlearn.data.splits import hold_out

    with pytest.warns(UserWarning):
        dls = image_dls(folder, size=32, bs=4, valid=0.2, leaks=True, device="cpu")
    sides = hold_out(dls, 0.5)
    for side in sides:
        own = set(side.table.file)
        pairs = side.leaks.pairs
        inside = pairs[(pairs.split_a != "rest") & (pairs.split_b != "rest")]
        assert len(side.leaks.table) == len(dls.leaks.table)
        assert set(inside.file_a) | set(inside.file_b) <= own
        every = dls.leaks.pairs
        here = every.file_a.isin(own) & every.file_b.isin(own)
        assert len(inside) == here.sum()
