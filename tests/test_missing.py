"""A set in which only some images have a label, or a mask: the others are refused, left out, or
unlabelled images whose patient nobody is judged on."""

import shutil
import warnings

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from helpers import net
from kdmedlearn import distill, image_dls, mask_dls, SoftMasks
from kdmedlearn.cli import app
from kdmedlearn.data.images import folds, table_dls
from kdmedlearn.data.reading import Reading
from kdmedlearn.data.splits import hold_out
from kdmedlearn.data.tables import read_table
from kdmedlearn.data.unlabelled import unlabelled_images
from kdmedlearn.models.unet import small_unet
from kdmedlearn.train.budget import fit_steps

PATIENTS, VIEWS = 12, 4  # the first view of each has a label


@pytest.fixture
def scans(tmp_path):
    "A table of patients with four images each, of which one has a label, and its folder."
    rows, rng = [], np.random.default_rng(0)
    for i in range(PATIENTS * VIEWS):
        p, view = divmod(i, VIEWS)
        Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(
            tmp_path / f"{i}.png"
        )
        rows.append((f"{i}.png", f"p{p}", "" if view else ("a", "b")[p % 2]))
    return pd.DataFrame(rows, columns=["file", "patient", "label"]), tmp_path


def read(scans, t=None, **kw):
    kw = dict(size=16, bs=4, valid=0.3, group="patient", missing="rest", device="cpu") | kw
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return image_dls(scans[1], table=scans[0] if t is None else t, **kw)


def patients(scans, files):
    t, path = scans
    who = dict(zip((path / f for f in t.file), t.patient))
    return {who[f] for f in files}


def judged(scans, dls):
    return {p for dl in dls.loaders[1:] for p in patients(scans, dl.items)}


def test_no_patient_who_is_judged_is_among_the_unlabelled(scans):
    dls = read(scans)
    n = len(judged(scans, dls))
    assert len(dls.train_ds) + len(dls.valid_ds) == PATIENTS and n
    assert len(dls.rest) == (PATIENTS - n) * (VIEWS - 1)
    assert not judged(scans, dls) & patients(scans, dls.rest)
    tested = read(scans, test=0.3)
    assert not judged(scans, tested) & patients(scans, tested.rest)
    said = f"36 images have no label, {n * 3} of them share their patient with images of validation"
    said += f" or test and are not used; {36 - 3 * n} in dls.rest"
    with pytest.warns(UserWarning, match=said):
        image_dls(
            scans[1],
            table=scans[0],
            group="patient",
            valid=0.3,
            size=16,
            missing="rest",
            device="cpu",
            leaks=False,
        )


def test_a_student_hears_its_teacher_on_them(scans):
    dls = read(scans)
    learn = distill(dls, net(num_classes=2), net(num_classes=2), unlabelled="rest")
    with learn.no_bar(), learn.no_logging():
        fit_steps(learn, 2, 1e-3)
    assert len(learn.dls.train.dataset) == len(dls.train_ds) + len(dls.rest)
    kept, taken = hold_out(dls, 0.4)
    assert kept.rest == taken.rest == dls.rest


def test_the_default_refuses_and_skip_leaves_out(scans):
    with pytest.raises(ValueError, match="36 of 48 rows have no label.*missing='rest'"):
        read(scans, missing="error")
    dls = read(scans, missing="skip")
    assert not dls.rest and len(dls.train_ds) + len(dls.valid_ds) == PATIENTS
    with pytest.raises(ValueError, match="no training image was left out.*missing='rest'"):
        distill(dls, net(num_classes=2), net(num_classes=2), unlabelled="rest")


@pytest.mark.parametrize("word", ["", "NA", "n/a", "?", None, float("nan")])
def test_a_gap_has_many_names(scans, word):
    t = scans[0].assign(label=[v or word for v in scans[0].label])
    assert len(read(scans, t).aside) == PATIENTS * (VIEWS - 1)


def test_numbers_and_several_labels(scans):
    t = scans[0]
    has = t.label != ""
    number = read(scans, t.assign(age=np.where(has, t.index + 0.5, np.nan)), label="age")
    assert number.train_ds[0][1].dtype.is_floating_point and len(number.aside) == 36
    # an empty cell of several labels says that there is none; a word says that nobody knows
    cells = np.where(has, np.where(t.index % 8 == 0, "x|y", "y"), "NA")
    cells[0] = ""
    several = read(scans, t.assign(label=cells), sep="|")
    assert len(several.aside) == 36 and several.vocab == ["x", "y"]
    columns = t.assign(x=np.where(has, t.index % 8 == 0, np.nan), y=np.where(has, 1, np.nan))
    assert len(read(scans, columns, label=["x", "y"]).aside) == 36
    columns.loc[0, "x"] = np.nan  # half of an answer
    with pytest.raises(ValueError, match="column 'x' says ''; expected 0 or 1"):
        read(scans, columns, label=["x", "y"])


def test_a_column_of_splits(scans):
    t = scans[0].assign(split=["train"] * 24 + ["val"] * 8 + ["test"] * 8 + ["Unlabelled"] * 8)
    dls = read(scans, t[t.index < 40])
    assert len(dls.rest) == 18 and patients(scans, dls.rest) == {f"p{i}" for i in range(6)}
    with pytest.raises(ValueError, match="says 'Unlabelled'"):  # two of them have a label
        read(scans, t)
    dls = read(scans, t.assign(label=t.label.where(t.index < 40, "")))
    assert len(dls.rest) == 18 + 8
    # of the validation patients none, though their other views are in no split
    loose = t[t.index < 40].assign(split=lambda t: t.split.where(t.label != "", ""))
    assert patients(scans, read(scans, loose).rest) == {f"p{i}" for i in range(6)}


def test_a_file_that_is_listed_with_and_without_a_label(scans):
    twice = pd.concat([scans[0], scans[0][:2].assign(label="")])
    assert len(read(scans, twice).aside) == 36


def test_a_listed_table_is_read_alike(scans):
    t, path = scans
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        listed = read_table(t, path, group="patient", missing="rest")
        kw = dict(size=16, valid=0.3, group="patient", device="cpu")
        assert table_dls(listed, path, **kw).rest == read(scans).rest
        again = listed.assign(label=listed.label.replace("", np.nan), split="all")
        assert table_dls(again, path, **kw | dict(group="group"), missing="rest").rest


def test_a_folder_called_unlabelled_beside_the_classes(tmp_path):
    rng = np.random.default_rng(5)
    for where in ("train/a", "train/b", "unlabelled/x", "train/Unlabeled"):
        (tmp_path / where).mkdir(parents=True)
        for i in range(6):
            x = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
            Image.fromarray(x).save(tmp_path / where / f"{i}.png")
    (tmp_path / "unlabelled" / "notes.txt").write_text("no image")
    kw = dict(size=16, bs=4, valid=0.3, device="cpu")
    with pytest.warns(UserWarning, match="Unlabeled/ in .* is read as no class"):
        assert image_dls(tmp_path, **kw).vocab == ["a", "b"]
    with pytest.warns(UserWarning, match="12 images have no label; 12 in dls.rest"):
        dls = image_dls(tmp_path, missing="rest", **kw)
    assert len(dls.rest) == 12 and dls.vocab == ["a", "b"]
    for name in ("unlabelled", "train/Unlabeled"):
        shutil.rmtree(tmp_path / name)
    with pytest.raises(ValueError, match="no folder called unlabelled with images in it"):
        image_dls(tmp_path, missing="rest", **kw)


def test_a_reading_that_makes_no_sense(scans):
    with pytest.raises(ValueError, match="missing='skip' speaks of rows without a label"):
        Reading(scans[1], missing="skip")
    with pytest.raises(ValueError, match="missing='empty'; expected one of"):
        Reading(scans[1], table="t.csv", missing="empty")


def test_a_test_set_that_grows_with_the_labels_is_told(scans):
    with pytest.warns(UserWarning, match="with more labels it becomes another one"):
        image_dls(scans[1], table=scans[0], group="patient", test=0.3, missing="rest", device="cpu")


def with_mirrors(folder):
    """A table of 24 images with a label, and of their mirrored copies, called other patients,
    without."""
    rows, rng = [], np.random.default_rng(4)
    for i in range(24):
        low = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        im = Image.fromarray(low).resize((48, 48), Image.Resampling.NEAREST)
        im.save(folder / f"{i}.png")
        Image.fromarray(np.asarray(im)[:, ::-1]).save(folder / f"{i}m.png")
        rows += [(f"{i}.png", f"p{i}", "ab"[i % 2]), (f"{i}m.png", f"q{i}", "")]
    return pd.DataFrame(rows, columns=["file", "patient", "label"])


def test_near_copies_with_a_column_of_patients_are_left_out(tmp_path):
    t = with_mirrors(tmp_path)
    dls = read((t, tmp_path), size=32)  # nobody says that p1 is q1
    with pytest.warns(UserWarning, match="unlabelled images stand in valid.*left out"):
        used = unlabelled_images(dls, "rest")
    number = lambda files: {f.stem.strip("m") for f in files}
    assert used and not number(used) & number(dls.valid.items)


def pairs(root, drawn, folders=("",)):
    "Images with masks of some of them, in folders of patients."
    rng, n = np.random.default_rng(1), 0
    for f in folders:
        for d in ("images", "masks"):
            (root / d / f).mkdir(parents=True)
        for _ in range(6):
            n += 1
            x = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(x).save(root / "images" / f / f"{n}.png")
            if drawn(n):
                m = np.zeros((32, 32), np.uint8)
                m[8 : 8 + n % 9 + 4, 8:24] = 255
                Image.fromarray(m).save(root / "masks" / f / f"{n}.png")
    return root


def masks(path, **kw):
    kw = dict(size=32, bs=4, valid=0.3, target="channel", missing="rest", device="cpu") | kw
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return mask_dls(path, **kw)


def test_images_without_a_mask_teach(tmp_path):
    path = pairs(tmp_path, lambda n: n % 2, folders=[f"p{i}" for i in range(4)])
    dls = masks(path, group="folder")
    where = lambda files: {f.parent.name for f in files}
    assert not where(dls.valid.items) & where(dls.rest)
    assert len(dls.rest) == 3 * len(where(dls.rest)) == 3 * len(where(dls.train.items))
    learn = distill(dls, small_unet(), small_unet(), SoftMasks(), unlabelled="rest")
    with learn.no_bar(), learn.no_logging():
        fit_steps(learn, 2, 1e-3)
    assert len(masks(path, missing="skip").rest) == 0
    with pytest.raises(ValueError, match="12 images without a mask.*missing='rest'"):
        masks(path, missing="error")


def test_without_any_mask_there_is_nothing_to_learn(tmp_path):
    path = pairs(tmp_path, lambda n: n < 3)
    (path / "masks" / "1.png").unlink()
    (path / "masks" / "2.png").rename(path / "masks" / "2_mask.png")
    with pytest.raises(ValueError, match="1 masks without an image"):
        masks(path)


def test_a_table_of_masks_with_gaps(tmp_path):
    path = pairs(tmp_path, lambda n: True, folders=("a", "b"))
    files = sorted(f.relative_to(path).as_posix() for f in (path / "images").rglob("*.png"))
    t = pd.DataFrame(dict(file=files, mask=[f.replace("images", "masks") for f in files]))
    t["patient"], t["mask"] = [f[7] for f in files], t["mask"].where(t.index % 3 == 0, "NA")
    t["patient"] += [str(i % 6 // 3) for i in range(12)]
    dls = masks(path, table=t, group="patient")
    who = dict(zip((path / f for f in t.file), t.patient))
    assert len(dls.train_ds) + len(dls.valid_ds) == 4 and len(dls.aside) == 8
    assert not {who[f] for f in dls.rest} & {who[f] for f in dls.valid.items}


def test_on_the_command_line(scans):
    t, path = scans
    t.to_csv(path / "scans.csv", index=False)
    args = ("--data", path, "--table", "scans.csv", "--group", "patient", "--size", 32, "--bs", 4)
    args += ("--missing", "rest", "--valid", 0.3, "--steps", 2, "--runs", path / "runs")
    args += ("--unlabelled", "rest", "--name", "few")
    r = CliRunner().invoke(app, ["distill", *map(str, args)])
    assert r.exit_code == 0, r.output
    said = (path / "runs" / "few" / "config.json").read_text()
    assert '"missing": "rest"' in said and '"unlabelled": "rest"' in said


def more_of(scans, first=PATIENTS * VIEWS, who=("p0", "p1", "p2", "new")):
    "Further images, one of each patient in `who`."
    rng, path = np.random.default_rng(7), scans[1] / "more"
    path.mkdir()
    for i, _ in enumerate(who):
        x = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(x).save(path / f"m{i}.png")
    return pd.DataFrame(dict(file=[f"more/m{i}.png" for i in range(len(who))], patient=who))


def test_a_table_of_unlabelled_images_tells_their_patients(scans):
    more = more_of(scans, who=[f"p{i}" for i in range(PATIENTS)])
    dls = read(scans)
    n = len(judged(scans, dls))
    with pytest.raises(ValueError, match=f"{n} of 12 unlabelled images stand in valid.*same group"):
        unlabelled_images(dls, more)
    with pytest.warns(UserWarning, match=f"{n} of 12 unlabelled images.*left out"):
        kept = unlabelled_images(dls, more, seen="skip")
    assert {more.patient[int(f.stem[1:])] for f in kept} == {*more.patient} - judged(scans, dls)
    more.to_csv(scans[1] / "more.csv", index=False)
    with pytest.warns(UserWarning, match="left out"):
        table = scans[1] / "more.csv"
        assert list(unlabelled_images(dls, table, seen="skip")) == list(kept)
    with pytest.raises(ValueError, match="group='patient', but the table has no column"):
        unlabelled_images(dls, more.drop(columns="patient"))
    with pytest.raises(ValueError, match="'patient' is empty in 1 rows"):
        unlabelled_images(dls, more.assign(patient=["", *more.patient[1:]]))
    numbers = scans[0].assign(patient=scans[0].patient.str[1:].astype(int))
    dls = read((numbers, scans[1]))
    with pytest.raises(ValueError, match="same group"):
        unlabelled_images(dls, more.assign(patient=range(12)))


def test_a_manifest_and_folders_tell_them_too(tmp_path):
    rng, rows = np.random.default_rng(3), []
    for p in range(8):
        for i in range(4):
            where = "unlabelled" if i == 3 else ("a", "b")[p % 2]
            f = tmp_path / "set" / where / f"p{p}" / f"{p}-{i}.png"
            f.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(f)
            rows.append((f.relative_to(tmp_path / "set").as_posix(), f"p{p}"))
    kw = dict(size=16, bs=4, valid=0.3, device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dls = image_dls(tmp_path / "set", group="folder", **kw)
    n = dls.table[dls.table.split == "valid"].group.nunique()
    more = tmp_path / "set" / "unlabelled"
    with pytest.raises(ValueError, match=f"{n} of 8 unlabelled images stand in valid"):
        unlabelled_images(dls, more)
    with pytest.raises(ValueError, match=f"{n} of 8 unlabelled images stand in valid"):
        unlabelled_images(dls, sorted(more.rglob("*.png")))
    flat = tmp_path / "flat"
    for f, _ in rows:
        new = flat / f.split("/")[0] / f.split("/")[2]
        new.parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / f).rename(new)
    names = [f"{f.split('/')[0]}/{f.split('/')[2]}" for f, _ in rows]
    manifest = pd.DataFrame(dict(file=names, patient=[p for _, p in rows]))
    manifest.to_csv(flat / "manifest.csv", index=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dls = image_dls(flat, group="patient", **kw)
    n = dls.table[dls.table.split == "valid"].group.nunique()
    with pytest.raises(ValueError, match=f"{n} of 8 unlabelled images stand in valid.*same group"):
        unlabelled_images(dls, flat / "unlabelled")


def test_a_word_is_a_gap_unless_it_is_said_to_be_a_class(scans):
    t = scans[0]
    named = [["none", "mild", "severe"][i % 3] if i < 36 else "" for i in range(48)]
    t = t.assign(label=named)
    kw = dict(group="patient", valid=0.3, size=16, device="cpu", missing="rest", leaks=False)
    with pytest.warns(UserWarning, match="says none in 12 rows: no label; kind='class' keeps it"):
        assert image_dls(scans[1], table=t, **kw).vocab == ["mild", "severe"]
    dls = read(scans, t, kind="class")
    assert dls.vocab == ["mild", "none", "severe"] and len(dls.aside) == 12


def test_empty_cells_of_several_labels_are_told(scans):
    t = scans[0].assign(label=["x|y", "y", ""] * 16)
    with pytest.warns(UserWarning, match="empty in 16 rows: images with none of the labels"):
        image_dls(scans[1], table=t, sep="|", missing="rest", size=16, device="cpu")


@pytest.mark.parametrize("column, value", [("split", "train"), ("patient", "zz")])
def test_rows_of_an_unlabelled_file_have_to_agree(scans, column, value):
    t = scans[0].assign(split=["train"] * 32 + ["test"] * 16)
    row = t[t.file == "45.png"].assign(**{column: value})
    name = "group" if column == "patient" else column
    for both in (pd.concat([row, t]), pd.concat([t, row])):
        with pytest.raises(ValueError, match=f"listed with two values of {name}"):
            read(scans, both)


def test_near_copies_of_judged_images_are_not_among_them(tmp_path):
    t = with_mirrors(tmp_path)
    number = lambda files: {f.stem.strip("m") for f in files}
    for group in ("near", None):
        dls = read((t, tmp_path), group=group, size=32)
        assert dls.rest and not number(dls.rest) & number(dls.valid.items)
        for fold in folds(dls, 3):
            assert fold.rest and not number(fold.rest) & number(fold.valid.items)


def test_what_was_taken_out_by_hand_stays_out(scans):
    dls = read(scans, scans[0].assign(label=[*"ab"] * 24), fraction=0.5)
    gone, dls.rest = dls.rest[3:], dls.rest[:3]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert not any(set(gone) & set(f.rest) for f in folds(dls, 2))


def test_a_broken_file_without_a_label(scans):
    (scans[1] / "1.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="cannot be read.*1.png"):
        read(scans)
    assert scans[1] / "1.png" not in {*read(scans, bad="skip").aside.file}


def test_a_fold_column_counts_where_there_is_a_label(scans):
    t = scans[0]
    fold = np.where(t.label == "", "", np.where(t.index < 32, "train", "test"))
    assert read(scans, t.assign(fold=fold)).test_names == ("test",)


def test_judged_images_without_any_label(scans):
    t = scans[0]
    split = np.where(t.index < 24, "train", np.where(t.index < 36, "val", "test"))
    with pytest.raises(ValueError, match="no training image has a label; 6 of validation or test"):
        read(scans, t.assign(split=split, label=t.label.where(t.index >= 24, "")))
    t = t.assign(split=split, label=t.label.where(t.index < 24, ""))
    with pytest.warns(UserWarning, match="24 images without a label.*nothing is left of test, val"):
        read_table(t, scans[1], group="patient", missing="rest")
    assert len(read(scans, t, test=0.3).test.items)  # so one can be cut


def test_all_of_them_are_of_judged_patients(scans):
    t = scans[0]
    dls = read(scans)
    judge = judged(scans, dls)
    few = t[(t.label != "") | t.patient.isin(judge)]
    dls = read(scans, few)
    assert not dls.rest
    with pytest.raises(ValueError, match="all .* images without a label are of patients"):
        unlabelled_images(dls, "rest")


def test_a_listed_table_without_labels_is_refused(scans):
    t, path = scans
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        listed = read_table(t, path, group="patient", missing="rest")
    with pytest.raises(ValueError, match="36 of 48 images of the listed table have no label"):
        table_dls(listed.assign(split="all"), path)
    listed.drop(columns="file").assign(file=listed.rel).to_csv(path / "again.csv", index=False)
    assert len(read(scans, "again.csv", group="group").aside) == 36
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        table_dls(listed, path, group="group", size=16, device="cpu", leaks=False)
    assert not any("a leak that is there" in str(w.message) for w in said)


def test_skip_asks_nothing_of_the_rows_it_drops(scans):
    t = scans[0].assign(patient=scans[0].patient.where(scans[0].label != "", ""))
    t.loc[1, "file"] = "gone.png"
    assert len(read(scans, t, missing="skip").table) == PATIENTS


def test_a_manifest_has_to_know_the_patients_of_all(tmp_path):
    path = pairs(tmp_path, lambda n: n % 2, folders=[f"p{i}" for i in range(4)])
    files = sorted((path / "images").rglob("*.png"))
    rel = [f.relative_to(path).as_posix() for f in files]
    m = pd.DataFrame(dict(file=rel, patient=[f.parent.name for f in files]))
    dls = masks(path, group="patient", manifest=m)
    where = lambda files: {f.parent.name for f in files}
    assert dls.rest and not where(dls.rest) & where(dls.valid.items)
    drawn = m[[int(f.stem) % 2 == 1 for f in files]]
    with pytest.raises(ValueError, match="the manifest does not list 12 training files"):
        masks(path, group="patient", manifest=drawn)


def test_a_patient_of_whom_no_mask_is_drawn(tmp_path):
    for p in range(4):
        pairs(tmp_path / f"p{p}", lambda n: True)
    for f in (tmp_path / "p2" / "masks").iterdir():
        f.unlink()
    shutil.rmtree(tmp_path / "p3" / "masks")
    dls = masks(tmp_path, group="folder")
    assert {f.parts[-3] for f in dls.rest} == {"p2", "p3"} and len(dls.rest) == 12


def test_a_folder_of_its_own_for_what_is_not_drawn(tmp_path):
    path = pairs(tmp_path, lambda n: True, folders=[f"p{i}" for i in range(4)])
    for p in range(4):
        new = path / "images" / f"p{p}" / "later"
        new.mkdir()
        Image.fromarray(np.full((32, 32, 3), 40 * p, np.uint8)).save(new / f"{p}.png")
    (path / "images" / "readme.txt").write_text("who drew these?")
    with pytest.warns(UserWarning, match="1 files among the images are none: .*readme.txt"):
        mask_dls(path, size=32, bs=4, group="folder", missing="rest", device="cpu")
    dls = masks(path, group="folder")
    judge = {f.parent.name for f in dls.valid.items}
    assert {f.parts[-3] for f in dls.rest} == {f"p{i}" for i in range(4)} - judge
    with pytest.raises(FileNotFoundError, match="no mask of"):
        dls.test_dl(dls.rest, with_labels=True).one_batch()


def test_a_table_of_masks_takes_the_same_words(tmp_path):
    path = pairs(tmp_path, lambda n: True)
    t = pd.DataFrame(dict(image=[f"images/{i}.png" for i in range(1, 7)]))
    t["mask"] = [f"masks/{i}.png" for i in range(1, 5)] + ["", "NA"]
    t["split"] = ["train"] * 2 + ["val"] * 2 + ["", "unlabelled"]
    dls = masks(path, table=t)
    assert [f.stem for f in dls.rest] == ["5", "6"] and len(dls.valid_ds) == 2


def test_a_table_of_masks_on_the_command_line(tmp_path):
    path = pairs(tmp_path / "set", lambda n: n < 5)
    t = pd.DataFrame(dict(image=[f"images/{i}.png" for i in range(1, 7)]))
    t["mask"] = [f"masks/{i}.png" for i in range(1, 5)] + ["", ""]
    t.to_csv(path / "pairs.csv", index=False)
    args = ("--data", path, "--table", "pairs.csv", "--size", 32, "--bs", 2, "--valid", 0.3)
    args += ("--steps", 2, "--teacher", "small_unet", "--runs", tmp_path / "runs", "--method")
    call = lambda *more: CliRunner().invoke(app, ["distill", *map(str, (*args, *more))])
    r = call("bernoullikl", "--missing", "skip")
    assert r.exit_code == 0 and "dice" in r.output, r.output
    r = call("bernoullikl", "--missing", "rest")
    assert r.exit_code == 2 and "keeps 2 images without a label or a mask" in r.output, r.output


def test_files_that_the_sets_own_table_knows(scans):
    dls = read(scans, missing="skip")
    gone = [scans[1] / f for f, label in zip(scans[0].file, scans[0].label) if not label]
    n = 3 * len(judged(scans, dls))
    with pytest.raises(ValueError, match=f"{n} of 36 unlabelled images.*same group"):
        unlabelled_images(dls, gone)


def test_a_bare_name_elsewhere_is_another_image(tmp_path):
    rng, rows = np.random.default_rng(8), []
    for i in range(16):
        for where in (f"set/{'ab'[i % 2]}", "other"):
            (tmp_path / where).mkdir(parents=True, exist_ok=True)
            x = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
            Image.fromarray(x).save(tmp_path / where / f"{i}.png")
        rows.append((f"{i}.png", "ab"[i % 2], f"p{i // 2}"))
    t = pd.DataFrame(rows, columns=["file", "class", "patient"])
    t.to_csv(tmp_path / "set" / "manifest.csv", index=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kw = dict(size=16, bs=4, valid=0.3, device="cpu")
        dls = image_dls(tmp_path / "set", group="patient", **kw)
    assert len(unlabelled_images(dls, tmp_path / "other")) == 16


def test_numbers_of_patients_have_to_be_written_alike(scans):
    t = scans[0].assign(patient=scans[0].patient.str[1:].astype(int))
    more = more_of(scans, who=range(6))
    dls = read(scans, t)
    for spelled in ("{}.0", "00{}"):
        other = more.assign(patient=[spelled.format(p) for p in more.patient])
        with pytest.raises(ValueError, match="write them alike"):
            unlabelled_images(dls, other)
    twice = pd.concat([more, more]).assign(patient="new")
    assert len(unlabelled_images(dls, twice)) == 6


def test_a_table_of_masks_asks_nothing_of_rows_that_skip_drops(tmp_path):
    path = pairs(tmp_path, lambda n: True)
    t = pd.DataFrame(dict(image=[f"images/{i}.png" for i in range(1, 7)]))
    t["mask"] = [f"masks/{i}.png" for i in range(1, 5)] + ["", "NA"]
    t["split"], t["patient"] = ["train", "train", "val", "val", "", ""], [*"abcd", "", ""]
    t.loc[5, "image"] = "gone.png"
    assert len(masks(path, table=t, missing="skip", group="patient").table) == 4
    gaps = t.drop(columns="split")[:5].assign(fold=["train"] * 3 + ["test", ""], patient=[*"abcde"])
    assert len(masks(path, table=gaps.replace("NA", ""), missing="empty").table) == 5


def test_many_images_without_a_label_are_told_where_nobody_looks_for_copies(scans, monkeypatch):
    monkeypatch.setattr("kdmedlearn.data.images.MANY", 20)
    with pytest.warns(UserWarning, match="not looked for among 48 images, of which 12 have a"):
        image_dls(scans[1], table=scans[0], group="patient", missing="rest", device="cpu")


def test_a_manifest_with_splits_is_told(tmp_path):
    path = pairs(tmp_path, lambda n: n % 2, folders=["p0", "p1", "p2"])
    files = sorted((path / "images").rglob("*.png"))
    m = pd.DataFrame(dict(file=[f.relative_to(path).as_posix() for f in files]))
    m["patient"], m["split"] = [f.parent.name for f in files], ["train", "test"] * 9
    with pytest.warns(UserWarning, match="test images of the column may train"):
        kw = dict(size=32, bs=4, device="cpu", missing="rest")
        mask_dls(path, group="patient", manifest=m, **kw)


@pytest.mark.parametrize("columns", [["image", "mask"], ["image", "mask", "label"]])
def test_what_the_command_line_takes_for_masks(tmp_path, columns):
    from kdmedlearn.cli import AskedData

    path = pairs(tmp_path / "set", lambda n: n < 5)
    t = pd.DataFrame({c: ["x"] for c in columns})
    t.to_csv(path / "t.csv", index=False)
    asked = lambda **kw: AskedData(data=path, table="t.csv", **kw)
    assert asked().of_masks == ("label" not in columns)
    if "label" in columns:
        with pytest.raises(ValueError, match="--label label or --mask mask says of which"):
            asked(missing="skip").of_masks
        assert asked(missing="skip", mask="mask").of_masks
        assert not asked(missing="skip", label="label").of_masks
    nested = tmp_path / "nested" / "train" / "p0"
    nested.mkdir(parents=True)
    (path / "images").rename(nested / "images"), (path / "masks").rename(nested / "masks")
    assert AskedData(data=tmp_path / "nested").of_masks


def test_a_bare_name_in_another_folder_of_the_set_is_another_image(scans):
    t, path = scans
    (path / "images").mkdir(), (path / "later").mkdir()
    rng = np.random.default_rng(11)
    for f in t.file:
        (path / f).rename(path / "images" / f)
        x = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(x).save(path / "later" / f)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kw = dict(size=16, bs=4, valid=0.3, group="patient", device="cpu")
        labels = t.assign(label=[*"ab"] * 24, file=t.file.str[:-4])  # ids
        dls = image_dls(path / "images", table=labels, **kw)
        assert len(unlabelled_images(dls, path / "later")) == 48  # outside of the set
        dls = image_dls(path, table=labels.assign(file="images/" + t.file), **kw)
        assert len(unlabelled_images(dls, path / "later")) == 48  # the table names a path
        m = pd.DataFrame(dict(file=t.file, patient=t.patient))
        listed = dict(group="patient", manifest=m) | {k: kw[k] for k in ("size", "bs", "device")}
        sides = labels.assign(where=labels.label.map("class {}".format))
        for f, where in zip(t.file, sides["where"]):
            (path / "set" / where).mkdir(parents=True, exist_ok=True)
            (path / "images" / f).rename(path / "set" / where / f)
        (path / "later").rename(path / "set" / "unlabelled")
        dls = image_dls(path / "set", valid=0.3, **listed)
    assert len(unlabelled_images(dls, path / "set" / "unlabelled")) == 48
