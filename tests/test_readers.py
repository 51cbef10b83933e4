"""Readers of class folders and of image/mask pairs: splits that do not leak, errors before
training, honest fastai loaders."""

import shutil, warnings
from dataclasses import fields
from inspect import signature

import fastai.callback.all  # no_bar
import numpy as np
import pandas as pd
import pytest
import torch
from fastai.learner import Learner, load_learner
from PIL import Image
from torch import nn

from kdmedlearn.data.images import describe, image_dls, table_dls
from kdmedlearn.data.reading import norm_stats, Reading
from kdmedlearn.data.tables import list_images
from kdmedlearn.data.masks import mask_dls, mask_trouble, MaskReading
from kdmedlearn.data.splits import cut, hold_out

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def picture(seed, n=20, colour=False):
    return np.random.default_rng(seed).integers(
        0, 256, (n, n, 3) if colour else (n, n), dtype=np.uint8
    )


@pytest.fixture
def folders(tmp_path):
    "train/ and test/, two unequal classes, three images per patient, manifest.csv."
    rows, seed = [], 0
    for split in ("train", "test"):
        for label, patients in (("a", 12), ("b", 5)):
            d = tmp_path / split / label
            d.mkdir(parents=True)
            for p in range(patients):
                for i in range(3):
                    seed += 1
                    Image.fromarray(picture(seed)).save(d / f"{p}_{i}.png")
                    rows.append((split, label, f"{p}_{i}.png", f"{split}{label}{p}"))
    pd.DataFrame(rows, columns=["split", "class", "file", "patient"]).to_csv(
        tmp_path / "manifest.csv", index=False
    )
    return tmp_path


@pytest.fixture
def pairs(tmp_path):
    for split, seeds in (("train", range(12)), ("validation", range(12, 16))):
        for k in ("images", "masks"):
            (tmp_path / split / k).mkdir(parents=True)
        for s in seeds:
            im, y0 = picture(s, colour=True), 3 + s % 5
            m = np.zeros((20, 20), np.uint8)
            m[y0 : y0 + 8, 4:12] = 255
            im[m > 0] = 255
            Image.fromarray(im).save(tmp_path / split / "images" / f"{s}.png")
            Image.fromarray(m).save(tmp_path / split / "masks" / f"{s}.png")
    return tmp_path


def dls_of(path, **kw):
    return image_dls(
        path,
        **{**dict(size=16, bs=4, group="patient", valid=0.2, modality="none", device="cpu"), **kw},
    )


def files(dls, split):
    return set(dls.table[dls.table.split == split].file)


@pytest.mark.parametrize("seed", range(5))
def test_groups_never_cross_and_test_is_untouched(folders, seed):
    d = dls_of(folders, seed=seed)
    t = d.table
    assert not set(t[t.split == "train"].group) & set(t[t.split == "valid"].group)
    assert files(d, "test") == {f for f in (folders / "test").rglob("*.png")}
    assert all("train" in str(f.relative_to(folders)) for f in files(d, "valid"))
    assert set(t[t.split == "valid"].label) == set(t[t.split == "train"].label) == {"a", "b"}


def test_same_seed_same_cut_and_fraction_thins_train_only(folders):
    a, b, c = dls_of(folders), dls_of(folders), dls_of(folders, seed=1)
    assert files(a, "valid") == files(b, "valid") != files(c, "valid")
    part = dls_of(folders, fraction=0.3)
    assert files(part, "valid") == files(a, "valid") and files(part, "test") == files(a, "test")
    assert (
        files(part, "train") < files(a, "train")
        and part.table[part.table.split == "train"].label.nunique() == 2
    )
    n = part.table[part.table.split == "train"].groupby("group").size()
    assert (n == 3).all()  # whole patients


def test_cut_is_stratified_without_groups_and_keeps_every_class_behind():
    labels = np.repeat(["x", "y", "z"], [200, 50, 2])
    took = cut(labels, np.arange(252), 0.1)
    assert [int(took[labels == c].sum()) for c in "xyz"] == [20, 5, 1]
    for share in (0.05, 0.5, 0.9):
        for groups in (np.arange(252) // 3, np.arange(252) % 7):
            took = cut(labels, groups, share)
            assert not set(groups[took]) & set(groups[~took])
            assert set(labels[~took]) >= {"x", "y"}


def test_random_cut_warns_and_exact_copies_stay_together(folders):
    src = folders / "train" / "a" / "0_0.png"
    for k in range(6):
        (folders / "train" / "a" / f"copy{k}.png").write_bytes(src.read_bytes())
    with pytest.warns(UserWarning, match="cut at random by image"):
        d = dls_of(folders, group=None)
    t = d.table
    assert t[t.print == t[t.file == src].print.iloc[0]].split.nunique() == 1
    (folders / "test" / "b" / "copy.png").write_bytes(src.read_bytes())
    with pytest.warns(UserWarning, match="exact copy in another split"):
        dls_of(folders, group=None)
    with pytest.warns(UserWarning, match="exact copy in another label"):
        dls_of(folders, group=None)


@pytest.mark.parametrize("layout", ["train valid", "Training Testing", "train val test", "flat"])
def test_layouts(folders, layout):
    if layout == "flat":
        path = folders / "train"
    else:
        path, names = folders / "new", layout.split()
        path.mkdir()
        for k, n in zip(("train", "test", "test"), names):
            shutil.copytree(folders / k, path / n)
    (path / ".DS_Store").touch()
    d = dls_of(path, group=None)
    assert hasattr(d, "test") == ("est" in layout)
    assert set(d.table.split) == {"train", "valid"} | ({"test"} if "est" in layout else set())
    if not hasattr(d, "test"):
        with pytest.raises(AttributeError, match="no test folder"):
            d.test
    assert describe(d).loc[["train", "valid"], "images"].sum() == (d.table.split != "test").sum()


def spoil_text(p):
    (p / "train" / "a" / "x.txt").write_text("x")


def spoil_cut(p):
    f = p / "train" / "a" / "0_0.png"
    f.write_bytes(f.read_bytes()[:90])


def spoil_empty(p):
    (p / "train" / "c").mkdir()


def spoil_case(p):
    (p / "train" / "A").mkdir()


def spoil_test(p):
    (p / "test" / "b").rename(p / "test" / "bb")


def spoil_column(p):
    (p / "manifest.csv").write_text("split,class,file\n")


def spoil_manifest(p):
    (p / "manifest.csv").unlink()


def spoil_rows(p):
    f = p / "manifest.csv"
    f.write_text("\n".join(f.read_text().splitlines()[:-60]))


def spoil_one(p):
    f = p / "manifest.csv"
    pd.read_csv(f).assign(patient=1).to_csv(f, index=False)


def spoil_16bit(p):
    Image.fromarray(picture(0).astype(np.uint16)).save(p / "train" / "a" / "0_0.png")


@pytest.mark.parametrize(
    "spoil,exc,says",
    [
        (spoil_text, ValueError, "1 of 103 files .*train/a/x.txt"),
        (spoil_cut, ValueError, "0_0.png"),
        (spoil_empty, ValueError, "class 'c'"),
        (spoil_case, ValueError, "'A' and 'a'"),
        (spoil_test, ValueError, "only in train: b; only in test: bb"),
        (spoil_column, ValueError, "no column 'patient'"),
        (spoil_manifest, FileNotFoundError, "no manifest"),
        (spoil_rows, ValueError, "does not list 9 training files"),
        (spoil_one, ValueError, "in one group"),
        (spoil_16bit, ValueError, "more than 8 bits"),
    ],
    ids=lambda x: getattr(x, "__name__", None),
)
def test_mistakes_are_answered(folders, spoil, exc, says):
    spoil(folders)
    with pytest.raises(exc, match=says):
        dls_of(folders)


def test_a_split_column_beside_folders_without_splits_is_not_ignored_in_silence(folders):
    m = pd.read_csv(folders / "manifest.csv")
    m = m[m.split == "train"].assign(
        split=np.where(m[m.split == "train"].patient.str.endswith("0"), "test", "train")
    )
    with pytest.warns(
        UserWarning, match="column split .test, train., the folders have none.*table_dls"
    ):
        image_dls(folders / "train", size=16, group="patient", manifest=m)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image_dls(folders / "train", size=16, group="patient", manifest=m.drop(columns="split"))
        dls_of(folders, group="patient")


def test_skip_is_reported(folders):
    spoil_text(folders)
    with pytest.warns(UserWarning, match="1 of 103 files"):
        d = dls_of(folders, bad="skip")
    assert len(d.table) == 102


@pytest.mark.parametrize(
    "kw",
    [
        dict(size=0),
        dict(bs=0),
        dict(valid=0),
        dict(valid=1),
        dict(fraction=0),
        dict(fraction=2),
        dict(channels=4),
        dict(modality="x"),
        dict(norm="x"),
        dict(norm=(1, 0)),
        dict(bad="x"),
        dict(norm="imagenet"),
        dict(group=None, manifest="manifest.csv"),
    ],
)
def test_options_out_of_range(folders, kw):
    with pytest.raises(ValueError, match=list(kw)[-1]):
        dls_of(folders, **kw)


def test_channels_and_normalisation(folders):
    d = dls_of(folders)
    x = torch.cat(
        [b.as_subclass(torch.Tensor) for b, _ in d.train.new(shuffle=False, drop_last=False)]
    )
    assert x.shape[1] == 1 and abs(x.mean()) < 0.01 and abs(x.std() - 1) < 0.01
    f = folders / "train" / "a" / "0_0.png"
    Image.fromarray(picture(1, colour=True)).save(f)
    assert dls_of(folders, channels=None).one_batch()[0].shape == (4, 3, 16, 16)
    mean, std = norm_stats("imagenet", None, 3)
    d = dls_of(folders, norm="imagenet", channels=3, cache=False)
    x = d.valid.one_batch()[0]
    raw = x * torch.tensor(std)[:, None, None] + torch.tensor(mean)[:, None, None]
    assert raw.min() > -1e-4 and raw.max() < 1 + 1e-4


def test_memory_and_file_give_the_same_batches(folders):
    a, b = dls_of(folders), dls_of(folders, cache=False)
    for (x, y), (u, v) in zip(a.valid, b.valid):
        assert torch.equal(x, u) and torch.equal(y, v)
    w = dls_of(folders, num_workers=1)
    for (x, y), (u, v) in zip(a.test, w.test):
        assert torch.equal(x, u) and torch.equal(y, v)


def test_augmentation_in_training_only(folders):
    d = dls_of(folders, modality="endoscopy")
    a, b = (torch.cat([x.as_subclass(torch.Tensor) for x, _ in d.valid]) for _ in range(2))
    assert torch.equal(a, b)
    still = d.train.new(shuffle=False)
    assert not torch.equal(still.one_batch()[0], still.one_batch()[0])


def test_predict_and_export_without_images_or_names(folders, tmp_path):
    d = dls_of(folders, save_to=tmp_path / "out")
    (tmp_path / "out").mkdir()
    learn = Learner(d, nn.Sequential(nn.Flatten(), nn.Linear(256, 2)))
    f = d.test.items[3]
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
        want = learn.predict(f)
        for same in (str(f), Image.open(f), np.array(Image.open(f))):
            assert torch.allclose(learn.predict(same)[2], want[2])
        assert want[0] in d.vocab and torch.allclose(
            learn.get_preds(dl=d.test)[0][3], want[2], atol=1e-6
        )
        learn.export()
    data = (tmp_path / "out" / "export.pkl").read_bytes()
    assert b".png" not in data and len(data) < 60_000
    again = load_learner(tmp_path / "out" / "export.pkl")
    with again.no_bar():
        assert torch.allclose(again.predict(f)[2], want[2], atol=1e-6)


# ---- masks


def masks_of(path, **kw):
    return mask_dls(path, **{**dict(size=20, bs=4, device="cpu"), **kw})


def test_mask_pairs_stay_aligned(pairs):
    """The polyp is white in the images, so the target must be where the normalised image is at its
    maximum."""
    for target in ("index", "channel"):
        d = masks_of(pairs, augment=False, target=target)
        for dl in (d.train, d.valid):
            for x, y in dl:
                assert y.dtype == (torch.int64 if target == "index" else torch.float32)
                y = y if y.ndim == 3 else y[:, 0]
                white = (
                    x.as_subclass(torch.Tensor)
                    > x.as_subclass(torch.Tensor).amax((0, 2, 3), keepdim=True) - 1e-3
                ).all(1)
                assert (white == (y.as_subclass(torch.Tensor) > 0)).float().mean() > 0.99
    a, b = (
        masks_of(pairs).valid.one_batch(),
        masks_of(pairs, cache=False).valid.one_batch(),
    )  # kept, or read by name
    assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])
    d = masks_of(pairs, modality="endoscopy", norm=(0, 1))
    x, y = d.train.one_batch()
    assert set(y.unique().tolist()) == {0, 1}
    assert x.mean(1)[y == 1].mean() > x.mean(1)[y == 0].mean() + 0.2


def test_mask_trouble():
    m = np.zeros((40, 40), np.uint8)
    m[5:20, 5:20] = 255
    assert (
        mask_trouble(m, 127) is None
        and mask_trouble(m * 0, 127) is None
        and mask_trouble(m // 255, 0) is None
    )
    assert "threshold=0" in mask_trouble(m // 255, 127)
    noisy = np.where(
        m, 211 + np.arange(1600).reshape(40, 40) % 45, np.arange(1600).reshape(40, 40) % 44
    ).astype(np.uint8)
    assert mask_trouble(noisy, 127) is None and "threshold=127" in mask_trouble(noisy, 0)
    m[30:, 30:] = 128
    assert "128" in mask_trouble(m, 127)


def lose_mask(p):
    (p / "train" / "masks" / "3.png").unlink()


def lose_image(p):
    (p / "train" / "images" / "3.png").unlink()


def other_size(p):
    Image.new("L", (21, 20)).save(p / "train" / "masks" / "3.png")


def third_class(p):
    f = p / "train" / "masks" / "3.png"
    m = np.array(Image.open(f))
    m[15:] = 128
    Image.fromarray(m).save(f)


def zero_one(p):
    for f in (p / "train" / "masks").iterdir():
        Image.fromarray(np.array(Image.open(f)) // 255).save(f)


def no_folder(p):
    (p / "train" / "masks").rename(p / "train" / "labels")


@pytest.mark.parametrize(
    "spoil,says",
    [
        (lose_mask, "1 images without a mask.*3.png"),
        (lose_image, "1 masks without an image.*3.png"),
        (other_size, "image 3.png is 20 x 20, mask 3.png is 21 x 20"),
        (third_class, r"(?s)values 0 .*128 \(.*first in train/3.png\), 255 .*ignore=128"),
        (zero_one, r"values 0 .*, 1 \(.*\), 255 \("),
        (no_folder, "no masks folder"),
    ],
    ids=lambda x: getattr(x, "__name__", None),
)
def test_mask_mistakes_are_answered(pairs, spoil, says):
    spoil(pairs)
    with pytest.raises(ValueError, match=says):
        masks_of(pairs)


def test_mask_layouts_and_several_test_sets(pairs):
    d = masks_of(pairs / "train", valid=0.25)
    assert (len(files(d, "train")), len(files(d, "valid"))) == (9, 3)
    (pairs / "TestDataset").mkdir()
    (pairs / "validation").rename(pairs / "TestDataset" / "clinic")
    (pairs / "TestDataset" / "clinic" / "images").rename(pairs / "TestDataset" / "clinic" / "image")
    d = masks_of(pairs)
    assert (
        list(d.tests) == ["clinic"]
        and len(d.test.dataset) == 4
        and not files(d, "valid") & files(d, "clinic")
    )


def test_mask_learner(pairs, tmp_path):
    d = masks_of(pairs, save_to=tmp_path)
    assert d.vocab == ["background", "polyp"]
    learn = Learner(d, nn.Conv2d(3, 2, 3, padding=1))
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
        f = d.valid.items[0]
        assert learn.predict(f)[0].shape == (20, 20)
        learn.export("s.pkl")
        assert b".png" not in (tmp_path / "s.pkl").read_bytes()
        again = load_learner(tmp_path / "s.pkl")
        with again.no_bar():
            assert torch.allclose(again.predict(f)[2], learn.predict(f)[2], atol=1e-6)


def test_rows_numbered_twice_do_not_move_images_between_splits(folders):
    """Tables put together by pd.concat have every number twice; a cut by number would take test
    images into validation."""
    t = pd.concat(
        [
            list_images(folders / s).assign(split=s, rel=lambda d: s + "/" + d.rel)
            for s in ("train", "test")
        ]
    )
    assert t.index.duplicated().any()
    dls = table_dls(t, folders, size=16, group="patient", valid=0.3, fraction=0.6, device="cpu")
    assert {s: set(d.rel.str.split("/").str[0]) for s, d in dls.table.groupby("split")} == {
        "train": {"train"},
        "valid": {"train"},
        "test": {"test"},
    }
    assert len(dls.test.dataset) == 51 and dls.table.rel.is_unique


def test_a_misspelt_column_is_answered_with_the_near_one(folders):
    with pytest.raises(ValueError, match="no column 'pateint'; near: patient"):
        image_dls(folders, size=16, group="pateint")


def test_options_are_checked_when_they_are_made_and_stay_as_they_are():
    "Each bad option is answered before a file is read, by its name."
    wrong = dict(
        size=0, bs=0, valid=1.0, fraction=0, channels=2, modality="ct", norm=(127, 50), bad="no"
    )
    for kind in (Reading, MaskReading):
        for name, value in (wrong | dict(augment="mri")).items():
            with pytest.raises(ValueError, match=f"{name}="):
                kind(**{name: value})
    for name, value in dict(threshold=300, target="logit", codes=("polyp",)).items():
        with pytest.raises(ValueError, match=f"{name}="):
            MaskReading(**{name: value})
    with pytest.raises(AttributeError):
        Reading().size = 32


@pytest.mark.parametrize("read, kind", [(image_dls, Reading), (mask_dls, MaskReading)])
def test_options_are_the_arguments_of_their_reader(read, kind):
    "Same names, same defaults: an option added to one is added to the other."
    said = {k: p.default for k, p in signature(read).parameters.items() if k != "path"}
    assert said == {f.name: f.default for f in fields(kind) if f.name != "path"}


# --- what must not be misread in silence


def told(f, *args, **kw):
    "What a call returns, and what it warned of."
    with warnings.catch_warnings(record=True) as got:
        warnings.simplefilter("always")
        out = f(*args, **kw)
    return out, [str(w.message) for w in got]


@pytest.mark.parametrize(
    "kw, says",
    [
        (dict(group="folder", manifest="m.csv"), "group='folder' does not look into manifest="),
        (dict(group="near", manifest="m.csv"), "group='near' does not look into manifest="),
        (dict(table="t.csv", manifest="m.csv"), "group= names a column of the table"),
        (dict(table="t.csv", group="folder"), "name a column of the table"),
        (dict(kind="class"), "kind='class' speaks of a table, and none is given"),
    ],
)
def test_options_that_could_not_be_used_are_refused(tmp_path, kw, says):
    with pytest.raises(ValueError, match=says):
        image_dls(tmp_path, **kw)
    if "kind" not in kw:
        with pytest.raises(ValueError, match=says):
            mask_dls(tmp_path, **kw)


def test_a_share_of_validation_beside_a_validation_set_is_said(folders):
    (folders / "test").rename(folders / "valid")
    _, says = told(dls_of, folders, group=None, valid=0.3)
    assert any("valid=0.3 is not used" in s for s in says)
    _, says = told(dls_of, folders, group=None, valid=0.1)
    assert not any("is not used" in s for s in says)


def listed_of(folders):
    t = list_images(folders).assign(split="all")
    return t.assign(who=[f.split("/")[-1].split("_")[0] for f in t.rel], age=np.arange(len(t)) / 4)


def table_of(t, folders, **kw):
    return table_dls(t, folders, **{**dict(size=16, bs=4, valid=0.2, device="cpu"), **kw})


def test_options_beside_a_listed_table_are_used(folders):
    t = listed_of(folders)
    d = table_of(t, folders, label="age", group="who")
    assert d.train_ds[0][1].item() == d.table.age[d.table.split == "train"].iloc[0]
    assert d.table.groupby("who").split.nunique().max() == 1
    t["part"] = np.where(t.index % 3 == 0, "val", "train")
    d = table_of(t, folders, split="part")
    assert set(d.table[d.table.split == "valid"].index) == set(t.index[::3])
    d = table_of(t.assign(label=np.arange(len(t)) % 5), folders, kind="number", group="who")
    assert d.table.target.tolist() == (np.arange(len(t)) % 5.0)[d.table.index].tolist()
    moved = t.assign(other=t.rel[::-1].to_numpy())
    d = table_of(moved, folders, file="other", split="part")
    assert [d.table.rel[0], d.table.file[0]] == [t.rel.iloc[-1], t.file.iloc[-1]]


def test_options_beside_a_listed_table_that_do_not_fit_are_refused(folders):
    t = listed_of(folders)
    aged = table_of(t, folders, label="age", group="who").table
    with pytest.raises(ValueError, match="kind='class', but the labels of this table are read"):
        table_of(aged, folders, kind="class")
    with pytest.raises(ValueError, match="label='agee', but the table has no column 'agee'"):
        table_of(t, folders, label="agee")
    with pytest.raises(ValueError, match="this table is listed already"):
        table_of(t, folders, group="folder")
    with pytest.raises(ValueError, match="manifest= without group="):
        table_of(t.assign(group="x"), folders, manifest="manifest.csv")


def test_a_listed_table_keeps_its_kind_through_merge_and_copy(folders):
    t = listed_of(folders)
    aged = table_of(t, folders, label="age", group="who").table.drop(columns="print")
    bare = pd.DataFrame(aged.to_dict("list")).merge(aged[["rel"]])
    assert not bare.attrs
    d = table_of(bare, folders)
    assert "mean" in describe(d) and d.train_ds[0][1].dtype == torch.float32
    several = t.assign(x=t.index % 2, y=t.index % 3 // 2)
    d = table_of(several, folders, label=["x", "y"], group="who")
    bare = pd.DataFrame(d.table.to_dict("list"))
    d = table_of(bare, folders)
    assert d.vocab == ["x", "y"] and d.one_batch()[1].shape == (4, 2)


def test_copies_with_other_numbers_and_labels_are_found(folders):
    t = listed_of(folders)
    t.file[1].write_bytes(t.file[0].read_bytes())
    d, says = told(table_of, t.assign(age=5 + t.index / 1000), folders, label="age", group="who")
    assert d.table.label[0] == d.table.label[1]  # one quarter of the values
    assert any("an exact copy in another number" in s for s in says)
    several = t.assign(x=1, y=t.index % 2)
    _, says = told(table_of, several, folders, label=["x", "y"], group="who")
    assert any("an exact copy in another set of labels" in s for s in says)


def test_a_class_that_a_cut_test_set_lacks_is_said(folders):
    t = listed_of(folders)
    t.loc[:2, "label"] = "rare"  # one patient
    t["who"] = t.label + t.rel.str[:5] + t.who
    _, says = told(table_of, t, folders, group="who", test=0.2)
    assert any("no test image of rare" in s for s in says)
    assert any("no validation image of rare" in s for s in says)


@pytest.mark.parametrize("seed", range(5))
def test_fraction_keeps_an_image_of_each_class(folders, seed):
    for kw in (dict(group="patient"), dict(group=None)):
        d, says = told(dls_of, folders, fraction=0.01, seed=seed, bs=1, **kw)
        assert set(d.table[d.table.split == "train"].label) == {"a", "b"}
        assert not any("is left after the cuts" in s for s in says)


@pytest.mark.parametrize("seed", range(5))
def test_labels_that_fall_out_of_the_training_set_are_said(folders, seed):
    "`far` is never the rarest label of an image, so no cut looks at it."
    t = listed_of(folders)
    t["near"], t["often"] = (t.index % 4 == 0).astype(int), 1
    t["far"] = (t.index % 8 == 4).astype(int) + (t.index % 4 == 1)
    names = ["near", "far", "often"]
    d, says = told(table_of, t, folders, label=names, fraction=0.01, seed=seed, bs=1, group="who")
    hot = np.array(d.table[d.table.split == "train"].target.tolist()).sum(0)
    lost = [n for n, k in zip(names, hot) if not k]
    said = [s for s in says if "is left after the cuts" in s]
    assert len(said) == bool(lost)
    assert all(
        s.startswith(f"no training image of {', '.join(sorted(lost))} is left") for s in said
    )


def test_a_label_that_only_left_out_images_have_is_said(folders):
    from kdmedlearn.data.images import warn_lost

    t = pd.DataFrame(dict(split=["train"] * 3, label=["a", "a", "b"]))
    t["target"], t["names"] = [[1, 1], [1, 0], [0, 1]], [("a", "b")] * 3
    _, says = told(warn_lost, t, t.assign(split=["rest", "train", "rest"]))
    assert len(says) == 1 and says[0].startswith("no training image of b is left after the cuts")
    assert told(warn_lost, t, t[:1])[1] == []
    masks = t.assign(share=0.5).assign(**{"share polyp": [0, 0.5, 0], "share tool": [0.1, 0, 0.1]})
    assert "of polyp is left" in told(warn_lost, masks, masks[:1])[1][0]


def test_only_bad_files_of_a_quarter_of_the_numbers_stop_nothing(folders):
    t = listed_of(folders)
    kw = dict(label="age", kind="number", group="who", bad="skip")
    for f in t.file[t.age > t.age.quantile(0.75)]:
        f.write_text("no image")
    d, says = told(table_of, t, folders, **kw)
    assert len(d.table) < 80 and any("cannot be read" in s for s in says)
    for f in t.file:
        f.write_text("no image")
    with pytest.raises(ValueError, match=f"nothing is left of all .{len(t)} files.; repair them"):
        table_of(t, folders, **kw)


def test_parts_keep_what_is_known(folders):
    d = dls_of(folders, fraction=0.6, leaks=True)
    sides = hold_out(d, 0.4)
    assert sum(len(s.train_ds) for s in sides) == len(d.train_ds)
    for side in sides:
        counts = side.leaks.table.split.value_counts()
        assert counts["train"] == len(side.train_ds) and counts["test"] == len(d.test.dataset)
        assert list(side.rest) == list(d.rest)
        assert side.again(side.table).train.n == len(side.train_ds)


def test_unlabelled_images_are_added_after_holding_out(folders):
    from kdmedlearn.data.unlabelled import with_unlabelled

    d = dls_of(folders, fraction=0.5)
    with pytest.raises(ValueError, match="hold out first, then add unlabelled"):
        hold_out(with_unlabelled(d, "rest"))
    rest, _ = hold_out(d, 0.3)
    both = with_unlabelled(rest, "rest").train
    assert (both.one_batch()[0].shape[0], both.n_labelled) == (4, 1)


def test_a_late_colour_image_in_a_grey_set_is_refused(folders):
    files, at = list(list_images(folders).file), 5  # every second file is looked at
    Image.fromarray(picture(1, colour=True)).save(files[at])
    with pytest.raises(ValueError, match=f"1 of 102 files are in colour, {files[at].name}"):
        dls_of(folders)
    assert dls_of(folders, channels=1).one_batch()[0].shape[1] == 1
    assert dls_of(folders, channels=3).one_batch()[0].shape[1] == 3


def test_two_depths_in_one_set_are_refused(folders):
    files = list(list_images(folders).file)
    Image.fromarray(picture(1).astype(np.uint16) * 16).save(files[5])
    with pytest.raises(ValueError, match="more than 8 bits.*The others have 8 bits"):
        dls_of(folders)
    for window in ((0, 4095), "range"):
        with pytest.raises(ValueError, match="two scales of grey"):
            dls_of(folders, window=window)


def test_a_listed_table_with_groups_needs_no_manifest(folders):
    for f in folders.parent.rglob("manifest.csv"):
        f.unlink()
    t = listed_of(folders)
    d = table_of(t.assign(group=t.who).drop(columns="who"), folders, group="patient")
    assert d.table.groupby("group").split.nunique().max() == 1
    assert set(d.table.group) == set(t.who)
