"""Kvasir v2, Hyper-Kvasir and MedMNIST: folders, counts, folds, and what is fetched for them."""

import shutil
import sys
import warnings
import zipfile
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import fastai.callback.all  # no_bar
import numpy as np
import pandas as pd
import pytest
from fastai.learner import Learner, load_learner
from PIL import Image
from torch import nn

from kdmedlearn.data import images, reading
from kdmedlearn.data.balance import balance
from kdmedlearn.data.sets import endoscopy
from kdmedlearn.data.sets.endoscopy import (
    count_trouble,
    download_hyper_kvasir,
    download_kvasir_v2,
    FOLDS,
    HYPER_COUNTS,
    HYPER_KVASIR,
    hyper_kvasir,
    KVASIR_V2,
    kvasir_v2,
    medmnist_dls,
    medmnist_sets,
    read_folds,
    SOURCES,
    write_phantom_endoscopy,
)
from kdmedlearn.data.sets.polyps import MARK


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    root = tmp_path_factory.mktemp("endoscopy")
    write_phantom_endoscopy(root / "kvasir", n_per_class=10, size=32)
    write_phantom_endoscopy(root / "hyper", "hyper-kvasir", n_per_class=4, size=32)
    return root


def said(f, *a, **kw):
    with warnings.catch_warnings(record=True) as got:
        warnings.simplefilter("always")
        out = f(*a, device="cpu", **kw)
    return out, [str(w.message) for w in got]


def files(dls, split):
    return set(dls.table[dls.table.split == split].rel)


# the facts


def test_published_counts():
    assert (
        len(HYPER_COUNTS) == 23
        and sum(HYPER_COUNTS.values()) == 10662
        and (min(HYPER_COUNTS.values()), max(HYPER_COUNTS.values())) == (6, 1148)
    )
    by_organ = {
        o: sum(sum(c.values()) for k, c in HYPER_KVASIR.items() if k.startswith(o))
        for o in ("upper", "lower")
    }
    assert by_organ == {"upper": 3452, "lower": 7210}
    assert len(KVASIR_V2) == 8 and set(KVASIR_V2.values()) == {1000}


def test_counts_account_for_the_length_of_the_official_file_of_folds():
    named = {
        "cecum": "normal-cecum",
        "pylorus": "normal-pylorus",
        "z-line": "normal-z-line",
        "polyps": "polyp",
        "hemorrhoids": "hemorroids",
        "esophagitis-a": "oesophagitis-a",
        "esophagitis-b-d": "oesophagitis-b-d",
    }
    uuid = len("4bf58f1c-8233-41fc-9614-344e6d0fc351.jpg")
    assert (
        len("file-name;class-name;split-index\n")
        + sum(n * (uuid + len(f";{named.get(c, c)};0\n")) for c, n in HYPER_COUNTS.items())
        == 621410
    )


def test_count_trouble():
    assert count_trouble(["a", "b", "b"], {"a": 1, "b": 2}) == []
    assert count_trouble(["a", "c"], {"a": 2, "b": 2}) == [
        "classes not here: b",
        "unknown classes: c",
        "other counts: a 1 (expected 2)",
    ]


# stand-ins


def test_stand_ins_are_the_same_for_the_same_seed(home, tmp_path):
    again, other = (
        write_phantom_endoscopy(tmp_path / "a", n_per_class=10, size=32),
        write_phantom_endoscopy(tmp_path / "b", n_per_class=10, size=32, seed=1),
    )
    names = lambda p: {f.relative_to(p) for f in p.rglob("*.jpg")}
    assert names(again) == names(home / "kvasir") and not names(again) & names(other)
    assert all((again / f).read_bytes() == (home / "kvasir" / f).read_bytes() for f in names(again))
    assert len({f.read_bytes() for f in again.rglob("*.jpg")}) == 80 and {
        p.name for p in again.iterdir()
    } == {*KVASIR_V2, MARK}


def test_stand_in_of_hyper_kvasir_has_the_folders_and_both_tables(home):
    top = home / "hyper" / "labeled-images"
    assert {p.relative_to(top).as_posix() for p in top.glob("*/*/*")} == {
        f"{d}/{c}" for d, cs in HYPER_KVASIR.items() for c in cs
    }
    s = pd.read_csv(home / "hyper" / FOLDS, sep=";")
    assert (
        list(s) == ["file-name", "class-name", "split-index"]
        and (s["split-index"].value_counts() == 46).all()
        and "normal-pylorus" in set(s["class-name"])
    )
    t = pd.read_csv(top / "image-labels.csv")
    assert (
        list(t) == ["Video file", "Organ", "Finding", "Classification"]
        and set(t.Organ) == {"Upper GI", "Lower GI"}
        and len(t) == 92
    )


@pytest.mark.parametrize(
    "kw, says",
    [
        (dict(layout="kvasir"), "layout='kvasir'; expected 'kvasir-v2' or"),
        (dict(n_per_class=3), "at least 4"),
        (dict(size=8), "at least 32"),
    ],
)
def test_stand_ins_refuse(tmp_path, kw, says):
    with pytest.raises(ValueError, match=says):
        write_phantom_endoscopy(tmp_path / "x", **kw)
    assert not (tmp_path / "x").exists()


def test_stand_ins_never_touch_what_is_there(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    for p in (tmp_path / "mine", tmp_path / "mine" / "notes.txt"):
        with pytest.raises(FileExistsError, match="choose a new folder"):
            write_phantom_endoscopy(p)


# Kvasir v2


def test_kvasir(home):
    dls, warned = said(kvasir_v2, home / "kvasir", 32, bs=4)
    assert [(dls.table.split == s).sum() for s in ("train", "valid", "test")] == [
        56,
        8,
        16,
    ] and dls.test.n == 16
    assert (pd.crosstab(dls.table.split, dls.table.label).nunique(axis=1) == 1).all() and list(
        dls.vocab
    ) == sorted(KVASIR_V2)
    assert len(warned) == 1 and "test and validation are cut at random by image" in warned[0]
    assert dls.one_batch()[0].shape == (4, 3, 32, 32)


def test_the_test_set_stays_when_seed_and_fraction_change(home):
    a, b, c = (
        said(kvasir_v2, home / "kvasir", 32, **kw)[0]
        for kw in ({}, dict(seed=1), dict(fraction=0.5, valid=0.3))
    )
    assert files(a, "test") == files(b, "test") == files(c, "test") and files(a, "valid") != files(
        b, "valid"
    )
    assert len(files(c, "train")) < len(files(a, "train"))
    none = said(kvasir_v2, home / "kvasir", 32, test=None)
    assert not none[0].tests and "validation is cut" in none[1][0]
    with pytest.raises(AttributeError, match="no test folder"):
        none[0].test


def test_groups_stay_together_in_every_part(home, tmp_path):
    names = sorted((home / "kvasir").rglob("*.jpg"))
    manifest = pd.DataFrame(
        {
            "file": [f.name for f in names],
            "video": [f"{f.parent.name}{i // 2}" for i, f in enumerate(names)],
        }
    )
    dls, warned = said(kvasir_v2, home / "kvasir", 32, group="video", manifest=manifest)
    assert (
        not warned
        and (dls.table.groupby("group").split.nunique() == 1).all()
        and set(dls.table.split) == {"train", "valid", "test"}
    )


def test_copies_stay_on_one_side(home, tmp_path):
    p = Path(shutil.copytree(home / "kvasir", tmp_path / "p"))
    for f in list((p / "polyps").iterdir()):
        for k in range(3):
            shutil.copy(f, f.with_name(f"copy{k}_{f.name}"))
    dls, warned = said(kvasir_v2, p, 32)
    assert (
        not any("exact copy in another" in w for w in warned)
        and (dls.table.groupby("print").split.nunique() == 1).all()
    )


def test_divided_copies_are_read_as_they_are(home, tmp_path):
    for split, part in (("train", slice(0, 8)), ("test", slice(8, 10))):
        for c in KVASIR_V2:
            (tmp_path / split / c).mkdir(parents=True)
            for f in sorted((home / "kvasir" / c).iterdir())[part]:
                shutil.copy(f, tmp_path / split / c)
    dls, warned = said(kvasir_v2, tmp_path, 32)
    assert dls.test.n == 16 and all(f.startswith("test/") for f in files(dls, "test"))
    assert "polyps 10 (expected 1000)" in warned[0] or "other counts" in warned[0]


def test_counts_are_compared_without_the_mark(home, tmp_path, monkeypatch):
    p = Path(shutil.copytree(home / "kvasir", tmp_path / "kvasir-dataset-v2"))
    # the folder above is fine, too
    assert not any("published" in w for w in said(kvasir_v2, tmp_path, 32)[1])
    (p / MARK).unlink()
    monkeypatch.setattr(endoscopy, "KVASIR_V2", dict.fromkeys(KVASIR_V2, 10))
    assert not any("published" in w for w in said(kvasir_v2, p, 32)[1])
    (p / "polyps").rename(p / "polyp")
    next((p / "esophagitis").iterdir()).unlink()
    w = said(kvasir_v2, p, 32)[1][0]
    assert all(
        x in w
        for x in (
            "classes not here: polyps",
            "unknown classes: polyp",
            "esophagitis 9 (expected 10)",
            "cannot be compared",
        )
    )


def test_wrong_folders_are_answered(home, tmp_path):
    for f, where, says in (
        (kvasir_v2, home, "kvasir looks right: pass that"),
        (kvasir_v2, home / "hyper", r"Then call hyper_kvasir\(path\)"),
        (hyper_kvasir, home / "kvasir", r"Then call kvasir_v2\(path\)"),
        (hyper_kvasir, home, "hyper looks right: pass that"),
        (
            hyper_kvasir,
            home / "hyper/labeled-images/upper-gi-tract",
            "hyper looks right: pass that",
        ),
        (kvasir_v2, tmp_path, "holds nothing"),
        (kvasir_v2, home / "nowhere", "spelled right"),
        (hyper_kvasir, home / "kvasir" / MARK, "unpack an archive"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=says):
            f(where, size=32)


@pytest.mark.parametrize(
    "kw, error, says",
    [
        (dict(test=20), ValueError, "test=20; expected a share"),
        (dict(size=0), ValueError, "size=0"),
        (
            dict(valdi=0.1),
            TypeError,
            "kvasir_v2 has no argument 'valdi'; near: valid.*known: size, test, bs, ",
        ),
        (dict(valid=0), ValueError, "valid=0"),
    ],
)
def test_options_are_checked_before_a_file_is_read(home, monkeypatch, kw, error, says):
    monkeypatch.setattr(images, "fill_memory", lambda *a: pytest.fail("files were read"))
    with pytest.raises(error, match=says):
        kvasir_v2(home / "kvasir", **kw)


# Hyper-Kvasir


def test_hyper_kvasir_folds(home):
    (a, warned), (b, _) = (said(hyper_kvasir, home / "hyper", fold=k, size=32) for k in (0, 1))
    s = read_folds(home / "hyper" / "labeled-images")
    assert {Path(f).name for f in files(a, "test")} == set(s.index[s == 1]) and len(s) == 92
    assert files(b, "test") == files(a, "train") | files(a, "valid") and files(a, "test") == files(
        b, "train"
    ) | files(b, "valid")
    assert (
        (a.table.groupby("label").split.nunique() == 3).all()
        and list(a.vocab) == sorted(HYPER_COUNTS)
        and a.test.n == 46
    )
    assert len(warned) == 1 and "validation is cut at random by image" in warned[0]
    assert balance(a).train.n == a.train.n


def test_labels_are_those_of_the_folders(home):
    dls, _ = said(hyper_kvasir, home / "hyper" / "labeled-images", size=32, valid=0.3)
    assert (
        dls.table.label == [Path(r).parent.name for r in dls.table.rel]
    ).all() and "normal-pylorus" not in dls.vocab
    x, y = dls.test.dataset[0]
    assert dls.vocab[y] == dls.table[dls.table.split == "test"].label.iloc[0]


def test_the_file_of_folds(home, tmp_path):
    p = Path(shutil.copytree(home / "hyper", tmp_path / "p"))
    s = pd.read_csv(p / FOLDS, sep=";")
    (p / FOLDS).unlink()
    with pytest.raises(
        FileNotFoundError,
        match=(
            "no 2_fold_split.csv in or beside .*get"
            " https://raw.githubusercontent.com/simula/hyper-kvasir/.*pass split="
        ),
    ):
        hyper_kvasir(p)
    with pytest.raises(FileNotFoundError, match="no .*gone.csv"):
        hyper_kvasir(p, split=p / "gone.csv")
    for place in (
        p / "labeled-images",
        p / "official_splits",
        p / "labeled-images/official_splits",
    ):
        place.mkdir(exist_ok=True)
        s.to_csv(place / FOLDS, sep=";", index=False)
        assert said(hyper_kvasir, p, size=32)[0].test.n == 46
        (place / FOLDS).unlink()
    own = tmp_path / "own.csv"
    for wrong, says in (
        (
            s.rename(columns={"split-index": "fold"}),
            "has the columns file-name, class-name, fold; expected",
        ),
        (s.assign(**{"split-index": s.index % 5}), "folds 0, 1, 2, 3, 4; expected 0 and 1"),
        (s.iloc[3:], "3 of 92 images are not in the file of folds"),
        (pd.concat([s, s[:1]]), "twice"),
        (s.assign(**{"split-index": 0}), "folds 0; expected 0 and 1"),
    ):
        wrong.to_csv(own, sep=";", index=False)
        with pytest.raises(ValueError, match=says):
            hyper_kvasir(p, split=own)


def test_the_folds_leave_no_test_set_to_cut(home):
    with pytest.raises(TypeError, match="hyper_kvasir has no argument 'test'"):
        hyper_kvasir(home / "hyper", size=32, test=0.2)
    with pytest.raises(TypeError, match="hyper_kvasir has no argument 'flod'; near: fold"):
        hyper_kvasir(home / "hyper", flod=1)


def test_random_changes_are_those_of_endoscopy(home, monkeypatch):
    asked, real = [], reading.augmentations
    monkeypatch.setattr(reading, "augmentations", lambda m=None: (asked.append(m), real(m))[1])
    said(kvasir_v2, home / "kvasir", 32)
    said(hyper_kvasir, home / "hyper", size=32)
    assert set(asked) == {"endoscopy"}
    asked.clear()
    said(kvasir_v2, home / "kvasir", 32, modality="none")
    assert set(asked) == {"none"}


@pytest.mark.parametrize("fold", [2, -1, True, "0", None])
def test_a_fold_is_0_or_1(home, fold):
    with pytest.raises(ValueError, match="expected 0 or 1"):
        hyper_kvasir(home / "hyper", fold=fold)


def test_hyper_counts_are_compared_without_the_mark(home, tmp_path):
    p = Path(shutil.copytree(home / "hyper", tmp_path / "p"))
    assert not any("published" in w for w in said(hyper_kvasir, p, size=32)[1])
    (p / "labeled-images" / MARK).unlink()
    shutil.rmtree(p / "labeled-images/lower-gi-tract/anatomical-landmarks/ileum")
    w = said(hyper_kvasir, p, size=32)[1][0]
    assert (
        "classes not here: ileum" in w
        and "cecum 4 (expected 1009)" in w
        and "cannot be compared" in w
    )


# downloads


def archive(folder, to):
    with zipfile.ZipFile(to, "w") as z:
        for f in sorted(folder.rglob("*")):
            z.write(f, f.relative_to(folder.parent))
    return to.read_bytes()


def fake_download(monkeypatch, sources):
    "`download` without a network: copies; what was asked."
    asked = []

    def fake(url, to, **kw):
        asked.append((url, kw))
        return Path(shutil.copy(sources[url], Path(to) / Path(url).name))

    monkeypatch.setattr(endoscopy, "download", fake)
    return asked


def test_sets_are_fetched_unpacked_and_read(home, tmp_path, monkeypatch):
    real = Path(shutil.copytree(home / "kvasir", tmp_path / "src" / "kvasir-dataset-v2"))
    archive(real, tmp_path / "k.zip")
    asked = fake_download(monkeypatch, {SOURCES["kvasir-v2"]: tmp_path / "k.zip"})
    p = download_kvasir_v2(tmp_path / "data", sha256="abc", tries=2)
    assert asked == [(SOURCES["kvasir-v2"], dict(sha256="abc", tries=2))]
    assert (
        p == tmp_path / "data" / "kvasir-dataset-v2"
        and said(kvasir_v2, p, 32)[0].test.n
        == said(kvasir_v2, tmp_path / "data", 32)[0].test.n
        == 16
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # what is there is not fetched again
        assert download_kvasir_v2(tmp_path / "data", tries=3) == p and len(asked) == 1
    with pytest.warns(
        UserWarning,
        match=(
            "is there, so no archive was fetched and nothing compared with sha256 and size; .*"
            " remove this folder"
        ),
    ):
        assert download_kvasir_v2(tmp_path / "data", sha256="abc", size=5) == p and len(asked) == 1
    for where in ("data", "other"):
        with pytest.raises(
            TypeError, match="download_kvasir_v2 has no argument 'sha265'; near: sha256"
        ):
            download_kvasir_v2(tmp_path / where, sha265="abc")
    assert not (tmp_path / "other").exists()


def test_hyper_kvasir_comes_with_its_folds(home, tmp_path, monkeypatch):
    archive(home / "hyper" / "labeled-images", tmp_path / "h.zip")
    asked = fake_download(
        monkeypatch,
        {SOURCES["hyper-kvasir"]: tmp_path / "h.zip", SOURCES[FOLDS]: home / "hyper" / FOLDS},
    )
    p = download_hyper_kvasir(tmp_path / "data", sha256="abc")
    assert asked == [
        (SOURCES[FOLDS], dict(bar=False)),
        (SOURCES["hyper-kvasir"], dict(sha256="abc")),
    ]  # the checksum is the archive's
    assert (
        p == tmp_path / "data" / "labeled-images" and said(hyper_kvasir, p, size=32)[0].test.n == 46
    )
    asked.clear()
    (tmp_path / "data" / FOLDS).unlink()
    assert download_hyper_kvasir(tmp_path / "data", tries=2) == p and asked == [
        (SOURCES[FOLDS], dict(tries=2, bar=False))
    ]  # what is missing is fetched
    assert download_hyper_kvasir(tmp_path / "data") == p and len(asked) == 1
    (tmp_path / "data" / "official_splits").mkdir()
    (tmp_path / "data" / FOLDS).rename(tmp_path / "data" / "official_splits" / FOLDS)
    # wherever the reader finds it
    assert download_hyper_kvasir(tmp_path / "data") == p and len(asked) == 1


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "f").write_text("")
    with pytest.raises(OSError, match="cannot make the folder .*choose another"):
        download_kvasir_v2(tmp_path / "f")


# MedMNIST


def made_up(root, flag, size=28, n=(12, 4, 4), labels=None):
    medmnist = pytest.importorskip("medmnist")
    info, rng, arrays = medmnist.INFO[flag], np.random.default_rng(0), {}
    for s, k in zip(("train", "val", "test"), n):
        arrays[f"{s}_images"] = rng.integers(
            0, 256, (k, size, size, 3)[: 3 + (info["n_channels"] == 3)], dtype=np.uint8
        )
        arrays[f"{s}_labels"] = np.arange(k, dtype=np.uint8)[:, None] % (
            labels or len(info["label"])
        )
    root.mkdir(exist_ok=True)
    np.savez_compressed(root / f"{flag}{'' if size == 28 else f'_{size}'}.npz", **arrays)
    return arrays


@pytest.mark.parametrize(
    "flag, size, channels, shape",
    [
        ("bloodmnist", 28, None, (3, 28, 28)),
        ("octmnist", 28, None, (1, 28, 28)),
        ("octmnist", 28, 3, (3, 28, 28)),
        ("pneumoniamnist", 64, None, (1, 64, 64)),
    ],
)
def test_medmnist(tmp_path, flag, size, channels, shape):
    import medmnist

    arrays = made_up(tmp_path, flag, size)
    (tmp_path / MARK).write_text("")
    dls, warned = said(medmnist_dls, flag, size, tmp_path, channels=channels, bs=2)
    assert (
        not warned
        and (dls.train.n, dls.valid.n, dls.test.n) == (12, 4, 4)
        and list(dls.vocab) == list(medmnist.INFO[flag]["label"].values())
    )
    assert dls.one_batch()[0].shape == (2, *shape) and dls.facts["license"] == "CC BY 4.0"
    ours = getattr(medmnist, medmnist.INFO[flag]["python_class"])
    for split, ds in (("train", dls.train_ds), ("val", dls.valid_ds), ("test", dls.test.dataset)):
        theirs = ours(split, root=str(tmp_path), size=size, as_rgb=shape[0] == 3)
        for i in range(4):
            x, y = ds[i]
            px, py = np.asarray(theirs[i][0]), theirs.labels[i]
            assert int(y) == int(py[0]) and np.array_equal(
                np.asarray(x).reshape(shape), px.transpose(2, 0, 1) if shape[0] == 3 else px[None]
            )


def test_medmnist_counts_fraction_and_options(tmp_path):
    made_up(tmp_path, "octmnist", n=(40, 4, 4))
    dls, warned = said(medmnist_dls, "octmnist", root=tmp_path, fraction=0.5)
    assert (
        "octmnist.npz, train: 40 images, expected 97477" in warned[0]
        and dls.train.n == 20
        and dls.valid.n == 4
    )
    for kw, says in (
        (dict(channels=4), "octmnist has 1, expected 1 or 3"),
        (dict(fraction=2), "fraction=2"),
        (dict(norm="x"), "norm='x'"),
    ):
        with pytest.raises(ValueError, match=says):
            medmnist_dls("octmnist", root=tmp_path, **kw)


@pytest.mark.parametrize(
    "flag, says",
    [
        ("chestmnist", "several labels for each image, or volumes; .*pathmnist, dermamnist"),
        ("organmnist3d", "or volumes"),
        ("pathmist", "near: 'pathmnist'"),
        (3, "is no set of MedMNIST"),
    ],
)
def test_medmnist_sets_that_do_not_fit(flag, says):
    pytest.importorskip("medmnist")
    with pytest.raises(ValueError, match=says):
        medmnist_dls(flag)
    assert (
        len(medmnist_sets()) == 11
        and medmnist_sets().loc["dermamnist", "license"] == "CC BY-NC 4.0"
    )


def test_medmnist_files(tmp_path, monkeypatch):
    medmnist = pytest.importorskip("medmnist")
    with pytest.raises(ValueError, match="size=32; MedMNIST has 28"):
        medmnist_dls("octmnist", 32, tmp_path)
    with pytest.raises(
        FileNotFoundError, match="octmnist_64.npz; pass download=True to fetch it from https://"
    ):
        medmnist_dls("octmnist", 64, tmp_path)
    asked = []
    monkeypatch.setattr(
        endoscopy,
        "download",
        lambda url, to, md5: (asked.append((url, md5)), made_up(tmp_path, "octmnist", 64)),
    )
    assert said(medmnist_dls, "octmnist", 64, tmp_path, download=True)[0].train.n == 12
    assert asked == [(medmnist.INFO["octmnist"]["url_64"], medmnist.INFO["octmnist"]["MD5_64"])]
    made_up(tmp_path, "octmnist", labels=9, n=(12, 9, 9))
    with pytest.raises(
        ValueError, match="labels from 0 to 8; expected 28 x 28 pixels, 1 channels and 4 classes"
    ):
        medmnist_dls("octmnist", root=tmp_path)
    shutil.copy(tmp_path / "octmnist.npz", tmp_path / "bloodmnist.npz")
    with pytest.raises(ValueError, match="expected 28 x 28 pixels, 3 channels"):
        medmnist_dls("bloodmnist", root=tmp_path)


# its import makes a folder in the home folder
def test_medmnist_is_imported_only_when_asked(home, monkeypatch):
    monkeypatch.setitem(sys.modules, "medmnist", None)  # from here on, to import it is an error
    spec = spec_from_file_location("kdmedlearn.data.sets.afresh", endoscopy.__file__)
    fresh = module_from_spec(spec)
    spec.loader.exec_module(fresh)
    assert said(fresh.kvasir_v2, home / "kvasir", 32)[0].test.n == 16
    with pytest.raises(ImportError):
        fresh.medmnist_sets()


def test_a_missing_package_is_answered_with_its_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "medmnist", None)
    with pytest.raises(ImportError, match=r"pip install 'kdmedlearn\[medmnist\]'"):
        medmnist_dls("octmnist")


def test_an_exported_learner_holds_no_images(tmp_path):
    made_up(tmp_path, "bloodmnist", n=(200, 8, 8))
    dls = said(medmnist_dls, "bloodmnist", root=tmp_path, bs=4)[0]
    learn = Learner(
        dls, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 8)), path=tmp_path
    )
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
    learn.export("x.pkl")
    assert (tmp_path / "x.pkl").stat().st_size < 200 * 28 * 28 * 3 / 2
    x = Image.fromarray(np.zeros((40, 40, 3), np.uint8))
    learn = load_learner(tmp_path / "x.pkl")
    with learn.no_bar():
        assert learn.predict(x)[0] in dls.vocab
