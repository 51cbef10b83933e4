"""A set in which only some images have a label, or a mask: the others are refused, left out, or
unlabelled images whose patient nobody is judged on."""

import warnings

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from helpers import net
from kdmedlearn import distill, image_dls, mask_dls, SoftMasks
from kdmedlearn.cli import app
from kdmedlearn.data.images import table_dls
from kdmedlearn.data.reading import Reading
from kdmedlearn.data.splits import hold_out
from kdmedlearn.data.tables import read_table
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
    with pytest.warns(UserWarning, match=f"{n * 3} of 36 images without a label are of a patient"):
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


def test_folders_have_no_gaps(scans):
    with pytest.raises(ValueError, match="missing='rest' speaks of rows without a label"):
        Reading(scans[1], missing="rest")
    with pytest.raises(ValueError, match="missing='empty'; expected one of"):
        Reading(scans[1], table="t.csv", missing="empty")


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
