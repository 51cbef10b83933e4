"""Which image is what: class folders and tables as people have them, each with the right answer or
the message that helps."""

import copy
import pickle
import shutil
import warnings

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from kdmedlearn.data.images import table_dls
from kdmedlearn.data.tables import (
    add_groups,
    file_groups,
    find_column,
    FILES,
    guess_kind,
    kfold,
    kind_of,
    LABELS,
    list_images,
    listed_again,
    locate,
    read_csv_table,
    read_labels,
    read_manifest,
    read_table,
    split_names,
    SPLIT_COLUMNS,
    TableLabel,
)


def picture(file, value=0):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 4), value % 256, np.uint8)).save(file)


def pictures(root, *names):
    for i, n in enumerate(names):
        picture(root / n, i)
    return root


@pytest.fixture
def told():
    "Calls a function and gives its value and what it warned of."

    def call(f, *args, **kw):
        with warnings.catch_warnings(record=True) as got:
            warnings.simplefilter("always")
            out = f(*args, **kw)
        return out, [str(w.message) for w in got]

    return call


def silent(f, *args, **kw):
    "The value of a call that must not warn."
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return f(*args, **kw)


@pytest.fixture
def flat(tmp_path):
    "Twelve images in one folder, and their table: three classes, two images a patient."
    pictures(tmp_path / "images", *(f"im{i:02}.png" for i in range(12)))
    t = pd.DataFrame(
        dict(
            image_id=[f"im{i:02}" for i in range(12)],
            dx=["nv", "mel", "bkl"] * 4,
            who=[f"p{i // 2}" for i in range(12)],
        )
    )
    t.to_csv(tmp_path / "meta.csv", index=False)
    return tmp_path


# --- 1: labels come from the column, wherever the files lie


def test_a_flat_folder_with_a_table_is_read_by_its_column(flat):
    t = silent(read_table, "meta.csv", flat)
    assert list(t) == ["file", "split", "label", "rel"]
    assert list(t.label) == ["nv", "mel", "bkl"] * 4
    assert list(t.rel) == [f"images/im{i:02}.png" for i in range(12)]
    assert list(t.file) == [flat / r for r in t.rel] and set(t.split) == {"all"}
    assert t.attrs == dict(kind="class", vocab=["bkl", "mel", "nv"])


def test_the_label_column_counts_and_not_the_folder(flat):
    t = list_images(two_classes(flat / "set"))
    t["label"] = np.where(t.label == "a", "yes", "no")
    back = silent(read_table, t, flat / "set")
    assert list(back.label) == list(t.label) and list(back.file) == list(t.file)
    label = TableLabel(back)
    assert [label(f) for f in back.file] == list(t.label)


def test_a_label_is_found_for_the_file_and_its_name_and_not_for_another(flat):
    label = TableLabel(read_table("meta.csv", flat))
    f = flat / "images" / "im01.png"
    assert label(f) == label(str(f)) == copy.deepcopy(label)(f) == "mel"
    with pytest.raises(KeyError, match="other.png is not in the table of 12 files"):
        label(flat / "other.png")


def test_an_exported_label_carries_no_file_names(flat):
    blob = pickle.dumps(TableLabel(read_table("meta.csv", flat)))
    assert b"im01" not in blob and b"nv" not in blob
    assert pickle.loads(blob).known == {}


class Sent:
    "What a spawned worker is given while it starts."

    def __init__(self, item):
        self.item = item

    def __call__(self):
        import sys

        sys.exit(0 if self.item.known else 3)


@pytest.mark.slow
def test_a_worker_that_is_started_anew_has_the_labels(flat):
    import multiprocessing

    label = TableLabel(read_table("meta.csv", flat))
    p = multiprocessing.get_context("spawn").Process(target=Sent(label))
    p.start()
    p.join(120)
    assert p.exitcode == 0


# --- 2: splits


@pytest.mark.parametrize(
    "words, means",
    [
        ("train val test", "train valid test"),
        ("Train Test", "train test"),
        ("TRAINING Validation Testing", "train valid test"),
        ("tr dev tst", "train valid test"),
        ("train_set valid_set test_set", "train valid test"),
        ("train test_A test_B", "train test_A test_B"),
        ("train test2 testing", "train test2 test"),
        ("trainset testset", "train test"),
    ],
)
def test_usual_words_for_splits(words, means):
    assert split_names(words.split()) == means.split()


def test_blanks_and_spellings_of_one_test_set_are_one():
    assert split_names([" train ", "Test A", "test_a", "test set "]) == (
        ["train", "Test A", "Test A", "test"]
    )


@pytest.mark.parametrize(
    "values, says",
    [
        (["train", "", "test"], "'split' is empty in 1 of 3 rows"),
        (["train", None, "test"], "empty in 1 of 3"),
        (["0", "1", "0"], "says '0', '1'; expected train .or training., valid"),
        (["train", "control"], "says 'control'; expected train"),
        (["val", "test"], "but no row is train"),
        (["test", "test"], "but no row is train"),
        (["train", "all"], "says 'all'"),
    ],
)
def test_other_words_for_splits_are_refused(values, says):
    with pytest.raises(ValueError, match=says):
        split_names(values)


@pytest.mark.parametrize("word", ["train", "Training", "A"])
def test_one_word_in_all_rows_is_no_split(told, word):
    got, says = told(split_names, [word] * 3)
    assert got == ["all"] * 3 and len(says) == 1 and f"{word!r} in all rows" in says[0]
    assert silent(split_names, ["all"] * 3) == ["all"] * 3


def test_val_in_a_column_is_the_validation_set(flat):
    t = pd.read_csv(flat / "meta.csv").assign(Split=["Train"] * 6 + ["val"] * 3 + ["Test"] * 3)
    got = silent(read_table, t, flat)
    assert list(got.split) == ["train"] * 6 + ["valid"] * 3 + ["test"] * 3


def test_a_column_fold_counts_only_with_names_of_splits(flat, told):
    t = pd.read_csv(flat / "meta.csv")
    named = t.assign(fold=["train"] * 9 + ["test"] * 3)
    assert list(silent(read_table, named, flat).split) == ["train"] * 9 + ["test"] * 3
    got, says = told(read_table, t.assign(fold=[0, 1, 2] * 4), flat)
    assert set(got.split) == {"all"} and "'fold' says 0, 1, 2 and is not used" in says[0]
    with pytest.raises(ValueError, match="column 'fold' says '0', '1', '2'"):
        read_table(t.assign(fold=[0, 1, 2] * 4), flat, split="fold")


def two_classes(root, splits=("train", "valid", "test"), n=3):
    for s in splits:
        for c in "ab":
            pictures(root / s / c, *(f"{i}.png" for i in range(n)))
    return root


def test_a_class_that_validation_and_test_lack_is_one_warning(tmp_path, told):
    root = two_classes(tmp_path)
    shutil.rmtree(root / "valid" / "a")
    for f in (root / "test" / "b").iterdir():
        f.unlink()  # an empty folder is as a missing one
    t, says = told(list_images, root)
    assert len(says) == 1
    assert says[0].startswith("valid has no images of a; test has no images of b: no score")
    assert t.groupby("split").size().to_dict() == dict(train=6, valid=3, test=3)


def test_a_class_that_train_lacks_is_an_error_with_the_near_name(tmp_path):
    root = two_classes(tmp_path)
    for s, name in (("train", "disc"), ("valid", "disc"), ("test", "disk")):
        (root / s / "a").rename(root / s / name)
    with pytest.raises(ValueError, match="only in train: disc; only in test: disk; 'disk' may be"):
        list_images(root)
    shutil.rmtree(root / "test" / "disk")
    (root / "test" / "c").mkdir()
    with pytest.raises(ValueError, match="only in test: c"):
        list_images(root)


def test_classes_in_a_table_are_compared_between_its_splits(flat, told):
    t = pd.read_csv(flat / "meta.csv").assign(split=["train"] * 9 + ["test"] * 3)
    t.loc[9, "dx"] = "mel"  # no test image of nv
    got, says = told(read_table, t, flat)
    assert len(says) == 1 and says[0].startswith("test has no images of nv")
    t.loc[9, "dx"] = "nevus"
    with pytest.raises(ValueError, match="only in test: nevus"):
        read_table(t, flat)


def test_an_empty_class_of_train_and_an_empty_split_are_refused(tmp_path):
    root = two_classes(tmp_path)
    (root / "train" / "c").mkdir()
    with pytest.raises(ValueError, match="class 'c' in train has no images"):
        list_images(root)
    (root / "train" / "c").rmdir()
    for f in (root / "valid").glob("*/*"):
        f.unlink()
    with pytest.raises(ValueError, match="valid has no images"):
        list_images(root)


# --- 3: tables as published, folders of patients


@pytest.fixture
def ham(tmp_path):
    "Made-up images in the folders of HAM10000, with its table."
    rows = []
    for i in range(18):
        lesion, part = i // 2, 1 + i // 9
        picture(tmp_path / f"HAM10000_images_part_{part}" / f"ISIC_{i:07}.jpg", i)
        label = ("nv", "mel", "bkl")[lesion % 3]
        rows.append((f"HAM_{lesion:07}", f"ISIC_{i:07}", label, "histo", 40.0, "male", "back"))
    names = ["lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization"]
    pd.DataFrame(rows, columns=names).to_csv(tmp_path / "HAM10000_metadata.csv", index=False)
    return tmp_path


def test_ham10000_is_read_as_it_was_published(ham):
    t = silent(read_table, ham / "HAM10000_metadata.csv", ham, group="lesion_id")
    assert len(t) == 18 and t.label.value_counts().to_dict() == dict(nv=6, mel=6, bkl=6)
    assert t.file[0] == ham / "HAM10000_images_part_1" / "ISIC_0000000.jpg"
    assert t.file[17] == ham / "HAM10000_images_part_2" / "ISIC_0000017.jpg"
    assert list(t.group[:3]) == ["HAM_0000000", "HAM_0000000", "HAM_0000001"]
    assert t.attrs["vocab"] == ["bkl", "mel", "nv"]


def test_without_group_the_column_of_lesions_is_named_and_not_taken(ham, told):
    t, says = told(read_table, "HAM10000_metadata.csv", ham)
    assert "group" not in t
    assert len(says) == 1 and "18 images share their 'lesion_id'" in says[0]
    assert "group='lesion_id' keeps them together" in says[0]


def test_a_column_of_patients_with_one_image_each_is_not_worth_a_word(flat):
    t = pd.read_csv(flat / "meta.csv").assign(patient_id=range(12))
    silent(read_table, t, flat)
    silent(read_table, t.assign(patient_id=7), flat)  # one value divides nothing


def test_patients_are_named_before_their_lesions(flat, told):
    t = pd.read_csv(flat / "meta.csv").assign(lesion_id=[0, 0] * 6, Patient=[1, 2] * 6)
    assert "group='Patient'" in told(read_table, t, flat)[1][0]


def test_a_group_on_both_sides_of_a_given_split_is_told(ham, told):
    t = pd.read_csv(ham / "HAM10000_metadata.csv")
    t["split"] = ["train", "test"] + ["train"] * 10 + ["test"] * 6
    _, says = told(read_table, t, ham, group="lesion_id")
    assert (
        "1 groups of 'lesion_id' have files in more than one split, e.g. 'HAM_0000000'" in says[0]
    )


def test_an_empty_group_is_refused(ham):
    t = pd.read_csv(ham / "HAM10000_metadata.csv")
    t.loc[3, "lesion_id"] = None
    with pytest.raises(ValueError, match="'lesion_id' is empty in 1 rows"):
        read_table(t, ham, group="lesion_id")


@pytest.mark.parametrize("word", ["NA", "nan", "None", "-"])
def test_patients_without_a_name_are_not_one_patient(flat, told, word):
    t = pd.read_csv(flat / "meta.csv").assign(who=[word] * 3 + [""] + [f"p{i}" for i in range(8)])
    t.to_csv(flat / "meta.csv", index=False)
    for table in ("meta.csv", t):
        with pytest.raises(ValueError, match=f"'who' is empty or says {word}, .* in 4 rows; give"):
            read_table(table, flat, group="who")
    t["who"] = t.who.replace("", "p9")
    with pytest.raises(ValueError, match=f"'who' says {word}, as programs do .* in 3 rows; give"):
        read_table(t, flat, group="who")
    with pytest.raises(ValueError, match=f"'who' of the manifest says {word}, .* in 3 rows; give"):
        read_manifest(t.rename(columns=dict(image_id="file")), flat, "who")
    # three images of nobody share no patient
    assert told(read_table, t.rename(columns=dict(who="patient")), flat)[1] == []
    with pytest.raises(ValueError, match=f"'who' says {word}"):
        table_dls(t, flat, size=16, bs=2, group="who")
    with pytest.raises(ValueError, match=f"'who' says {word}"):
        table_dls(read_table(t, flat).assign(who=t.who), flat, size=16, bs=2, group="who")


def patients(root, splits=("",), names=("p1", "p2")):
    n = 0
    for s in splits:
        for c in "ab":
            for p in names:
                for i in range(2):
                    n += 1
                    picture(root / s / c / f"{c}{p}" / f"{i}.png", n)
    return root


def test_folders_of_patients_are_groups(tmp_path):
    t = silent(list_images, patients(tmp_path), group="folder")
    assert list(t.group) == ["ap1", "ap1", "ap2", "ap2", "bp1", "bp1", "bp2", "bp2"]
    assert list(t.label) == ["a"] * 4 + ["b"] * 4 and t.rel[0] == "a/ap1/0.png"
    t = silent(list_images, patients(tmp_path / "s", ("train",)), group="folder")
    assert set(t.group) == {"ap1", "ap2", "bp1", "bp2"} and set(t.split) == {"train"}


def test_series_below_patients_belong_to_the_patient(tmp_path):
    pictures(tmp_path, "a/p1/s1/0.png", "a/p1/s2/0.png", "b/p2/0.png")
    assert list(silent(list_images, tmp_path, group="folder").group) == ["p1", "p1", "p2"]


def test_a_patient_in_two_splits_is_told(tmp_path, told):
    root = patients(tmp_path, ("train", "test"))
    assert "4 groups of 'folder' have files" in told(list_images, root, group="folder")[1][0]


def test_the_likelier_reading_of_folders_in_class_folders_comes_first(tmp_path):
    def first(root):
        with pytest.raises(ValueError, match="holds folders") as e:
            list_images(root)
        assert "pass group='folder'" in str(e.value) and "Then pass its path" in str(e.value)
        return "patients" if str(e.value).index("group=") < str(e.value).index("path") else "above"

    assert first(patients(tmp_path / "p")) == "patients"
    assert first(pictures(tmp_path / "q", "a/1/0.png", "a/2/0.png", "b/1/0.png")) == "patients"
    assert first(pictures(tmp_path / "r", "A/disc/0.png", "A/ring/0.png", "B/disc/1.png",
                          "B/ring/1.png")) == "above"  # fmt: skip
    two_classes(tmp_path / "s" / "set")
    assert first(tmp_path / "s") == "above"


def test_folders_that_are_no_patients_are_told_or_refused(tmp_path, told):
    root = pictures(tmp_path / "r", *(f"{h}/{c}/0.png" for h in "AB" for c in ("disc", "ring")))
    assert "look like classes or splits" in told(list_images, root, group="folder")[1][0]
    picture(patients(tmp_path / "p") / "a" / "loose.png")
    with pytest.raises(ValueError, match="1 files lie beside the patients' folders"):
        list_images(tmp_path / "p", group="folder")
    with pytest.raises(ValueError, match="group='patient'; expected one of None, 'folder'"):
        list_images(tmp_path / "p", group="patient")


# --- 4: what is asked for: several labels, numbers, ids, folders, folds


@pytest.fixture
def chest(tmp_path):
    "Four images in two folders, findings in one cell and as columns."
    pictures(tmp_path, "images_001/images/1.png", "images_001/images/2.png",
             "images_002/images/3.png", "images_002/images/4.png")  # fmt: skip
    return tmp_path, pd.DataFrame(
        {
            "Image Index": ["1.png", "2.png", "3.png", "4.png"],
            "Finding Labels": ["mass|effusion", "No Finding", "mass", "mass| effusion"],
            "mass": [1, 0, 1, 1],
            "effusion": [1.0, 0.0, 0.0, 1.0],
        }
    )


def test_several_labels_in_one_cell(chest):
    path, table = chest
    t = silent(read_table, table, path, sep="|")
    assert t.attrs == dict(kind="labels", vocab=["No Finding", "effusion", "mass"])
    assert list(t.target) == [[0, 1, 1], [1, 0, 0], [0, 0, 1], [0, 1, 1]]
    assert list(t.label) == ["effusion", "No Finding", "mass", "effusion"]  # the rarest
    assert TableLabel(t)(t.file[2]) == [0, 0, 1]


def test_several_labels_as_columns(chest):
    path, table = chest
    t = silent(read_table, table, path, label=["mass", "effusion"])
    assert t.attrs == dict(kind="labels", vocab=["mass", "effusion"])
    assert list(t.target) == [[1, 1], [0, 0], [1, 0], [1, 1]]
    assert list(t.label) == ["effusion", "(none)", "mass", "effusion"]


def test_an_empty_cell_is_an_image_without_label():
    got = read_labels(pd.DataFrame(dict(x=["a|b|", "", "b|b"])), "x", sep="|")
    assert got.vocab == ["a", "b"] and got.target == [[1, 1], [0, 0], [0, 1]]


@pytest.mark.parametrize("word", ["NA", "nan", "None", "n/a", "?"])
def test_a_word_for_no_value_is_a_label_and_is_told(told, word):
    t = pd.DataFrame(dict(finding=["a|b", word, f"b| {word}", "", "a"]))
    got, says = told(read_labels, t, "finding", sep="|")
    assert got.vocab == sorted(["a", "b", word]) and [sum(row) for row in got.target] == [
        2,
        1,
        2,
        0,
        1,
    ]
    assert len(says) == 1 and f"column 'finding' says {word}, as programs do" in says[0]
    assert "in 2 rows; it is kept as a label: drop these rows" in says[0]
    assert silent(read_labels, t[[True, False, False, True, True]], "finding", sep="|").vocab == (
        ["a", "b"]
    )


def test_several_labels_in_one_cell_need_the_word(chest):
    path, table = chest
    with pytest.raises(ValueError, match="'mass.effusion'; pass sep='.' for several labels"):
        read_table(table, path)
    t = read_table(table, path, kind="class")
    assert t.label[0] == "mass|effusion" and len(t.attrs["vocab"]) == 4


def test_columns_with_exactly_one_1_are_classes_when_asked(told):
    t = pd.DataFrame(dict(mel=["1", "0", "0"], nv=["0", "1", "1"]))
    got, says = told(read_labels, t, ["mel", "nv"])
    assert got.kind == "labels" and "kind='class' reads them as classes" in says[0]
    got = silent(read_labels, t, ["mel", "nv"], "class")
    assert (got.kind, got.label, got.vocab) == ("class", ["mel", "nv", "nv"], ["mel", "nv"])
    with pytest.raises(ValueError, match="x2 have not exactly one"):
        read_labels(t.replace("1", "0").assign(mel=["1", "0", "1"]), ["mel", "nv"], "class",
                    names=["x1", "x2", "x3"])  # fmt: skip


@pytest.mark.parametrize("odd", ["-1", "", "2", "0.5"])
def test_columns_of_labels_hold_0_and_1(odd):
    t = pd.DataFrame(dict(mass=["1", odd], fluid=["TRUE", "False"]))
    with pytest.raises(ValueError, match=f"column 'mass' says '{odd}'; expected 0 or 1"):
        read_labels(t, ["mass", "fluid"])


def test_a_label_without_images_is_told(told):
    t = pd.DataFrame(dict(mass=["1", "0"], fluid=["0", "0"]))
    assert "no image has the label fluid" in told(read_labels, t, ["mass", "fluid"])[1][0]


def test_a_label_that_no_training_image_has_is_told(chest, told):
    path, table = chest
    table = table.assign(split=["test", "train", "train", "test"])
    _, says = told(read_table, table, path, label=["mass", "effusion"])
    assert "no training image has the label effusion" in says[0]


def test_a_wrong_separator_is_told(told):
    t = pd.DataFrame(dict(x=["a;b", "a", "b"]))
    assert "no cell holds two labels with '|'" in told(read_labels, t, "x", sep="|")[1][0]


@pytest.mark.parametrize(
    "kw, says",
    [
        (dict(column="x", kind="multi"), "kind='multi'; expected one of None, 'class'"),
        (dict(column=["x"], sep="|"), "sep='|' is for one column"),
        (dict(column="x", sep="|", kind="number"), "sep='|' is for one column"),
        (dict(column="x", kind="labels"), "as sep='|'"),
        (dict(column="x", sep=""), "as sep='|'"),
        (dict(column=["x", "y"], kind="number"), "kind='number' is for one column"),
    ],
)
def test_kinds_and_separators_that_do_not_go_together(kw, says):
    t = pd.DataFrame(dict(x=["a", "b|c"], y=["0", "1"]))
    with pytest.raises(ValueError) as e:
        read_labels(t, **kw)
    assert says in str(e.value)


def test_fractions_are_a_number_and_few_whole_numbers_are_classes(flat):
    t = pd.read_csv(flat / "meta.csv").drop(columns="dx")
    got = silent(read_table, t.assign(label=np.arange(12) / 8), flat)
    assert got.attrs == dict(kind="number", vocab=None) and list(got.target[:2]) == [0.0, 0.125]
    assert got.label.value_counts().tolist() == [3, 3, 3, 3]  # quarters
    assert TableLabel(got)(got.file[3]) == 0.375
    got = silent(read_table, t.assign(label=[0, 1, 10] * 4), flat)
    assert got.attrs == dict(kind="class", vocab=["0", "1", "10"]) and got.label[2] == "10"


def test_very_many_whole_numbers_are_neither_until_said(flat):
    t = pd.read_csv(flat / "meta.csv").drop(columns="dx").assign(label=range(20, 32))
    with pytest.raises(ValueError, match="'label' has 12 different values in 12 rows; pass kind="):
        read_table(t, flat)
    assert list(read_table(t, flat, kind="number").target[:2]) == [20.0, 21.0]
    assert read_table(t, flat, kind="class").attrs["vocab"][0] == "20"


def test_a_column_of_free_text_is_no_class():
    with pytest.raises(ValueError, match="has 90 different values in 100 rows"):
        guess_kind([f"a lesion of {i % 90} mm" for i in range(100)], "report")


@pytest.mark.parametrize(
    "cells, says",
    [
        (["3", "4", "NA"], "says NA among numbers"),
        (["0.5", "?", "1.5"], "says [?] among numbers"),
        (["1,5", "2", "3,5"], "decimal comma, or sep=','"),
    ],
)
def test_cells_with_two_readings_are_refused(cells, says):
    with pytest.raises(ValueError, match=says):
        guess_kind(cells, "grade")


def test_numbers_with_a_decimal_comma_and_cells_that_are_none():
    t = pd.DataFrame(dict(x=["1,5", "2", "-3e1"]))
    assert read_labels(t, "x", "number").target == [1.5, 2.0, -30.0]
    t = pd.DataFrame(dict(x=["1,5", "inf", "2"]))
    with pytest.raises(ValueError, match="no number: b .inf."):
        read_labels(t, "x", "number", names=["a", "b", "c"])
    with pytest.raises(ValueError, match="all numbers in column 'x' are 2"):
        read_labels(pd.DataFrame(dict(x=["2", "2.0"])), "x", "number")


def test_missing_labels_are_refused_by_name(flat):
    t = pd.read_csv(flat / "meta.csv")
    t.loc[[2, 5], "dx"] = None
    with pytest.raises(ValueError, match="2 of 12 rows have no label in column 'dx': im02, im05;"):
        read_table(t, flat)


def test_classes_that_a_person_reads_as_one_are_refused(flat):
    t = pd.read_csv(flat / "meta.csv")
    t.loc[3, "dx"] = "NV"
    with pytest.raises(ValueError, match="differ only in case or blanks: 'NV' and 'nv'"):
        read_table(t, flat)
    with pytest.raises(ValueError, match="only one class, nv"):
        read_table(t.assign(dx=" nv"), flat)


# --- files


def test_ids_paths_and_names_find_their_file(tmp_path):
    pictures(tmp_path, "x/1.JPG", "x/y/2.png", "3.tiff", "x/1.2.840.dcm.png")
    ids = ["1", "1.jpg", "x/1", "./x/1.JPG", "x\\1.jpg", "y/2", "D:\\set\\x\\y\\2.png", "3.tiff"]
    want = ["x/1.JPG"] * 5 + ["x/y/2.png"] * 2 + ["3.tiff"]
    got = [locate([i, "1", "2", "3", "1.2.840.dcm"], tmp_path)[0] for i in ids]
    assert got == [tmp_path / w for w in want]
    assert silent(locate, [tmp_path / "3.tiff"], tmp_path) == [tmp_path / "3.tiff"]


def test_names_with_dots_and_without_ending(tmp_path):
    pictures(tmp_path, "1.2.840.113.dcm.png")
    (tmp_path / "1.2.840.113.dcm.png").rename(tmp_path / "1.2.840.113.dcm")
    (tmp_path / "IM0001").write_bytes((tmp_path / "1.2.840.113.dcm").read_bytes())
    got = locate(["1.2.840.113", "IM0001"], tmp_path)
    assert [f.name for f in got] == ["1.2.840.113.dcm", "IM0001"]


def test_an_ambiguous_id_is_refused_with_both_paths(tmp_path):
    pictures(tmp_path, "images/1.png", "masks/1.png")
    with pytest.raises(ValueError, match="'1' can be images/1.png or masks/1.png"):
        locate(["1"], tmp_path)
    assert locate(["masks/1", "images/1.png"], tmp_path)[0] == tmp_path / "masks" / "1.png"
    pictures(tmp_path / "b", "1.png", "1.jpg", "old/1.png")
    with pytest.raises(ValueError, match="'1' can be 1.jpg or 1.png"):
        locate(["1"], tmp_path / "b")
    assert locate(["1.png", "1.jpg", "old/1"], tmp_path / "b")[0] == tmp_path / "b" / "1.png"


APART, ONE = "mu\u0308ller", "m\u00fcller"  # as a Mac stores it, as a table has it


@pytest.mark.parametrize("there, said", [(APART, ONE), (ONE, APART), (APART, APART), (ONE, ONE)])
def test_accents_are_one_letter_or_two(tmp_path, there, said):
    root = pictures(tmp_path / "set", *(f"{there}/{there} {i}.png" for i in range(4)))
    files = [root / there / f"{there} {i}.png" for i in range(4)]
    for ids in (
        [f"{said} {i}" for i in range(4)],
        [f"{said} {i}.PNG" for i in range(4)],
        [f"{said}/{said} {i}.png" for i in range(4)],
        [f"D:\\{said}\\set\\{said}\\{said} {i}.png" for i in range(4)],
        [str(root / said / f"{said} {i}.png") for i in range(4)],
    ):
        got = silent(locate, ids, root)
        assert got == files and all(f.is_file() for f in got)
    table = pd.DataFrame(dict(file=[f"{said} {i}.png" for i in range(4)], label=list("abab")))
    table.to_csv(root / "t.csv", index=False)
    t = silent(read_table, "t.csv", root)
    assert list(t.file) == files and TableLabel(t)(files[1]) == "b"
    with pytest.raises(ValueError, match="1 of 1 files .*; the same names are there with another"):
        locate([f"{said} 1.dcm"], root)


def test_two_files_whose_names_look_the_same_are_found_as_they_are_written(tmp_path, told):
    root = pictures(tmp_path, f"{ONE}.png", f"{APART}.png", "o\u0308.png")
    got, says = told(locate, [APART, f"{ONE}.png"], root)
    assert [f.name for f in got] == [f"{APART}.png", f"{ONE}.png"] and "1 images in" in says[0]
    with pytest.raises(ValueError, match=r"not in .*: \xf6; there: .*'o.u0308.png'"):
        locate(["\u00f6"], root)
    pictures(root / "dirs", f"{ONE}/1.png", f"{APART}/1.png")
    with pytest.raises(ValueError, match=r"'1' can be 'mu.u0308ller/1.png' or m\xfcller/1.png in"):
        locate(["1"], root / "dirs")
    assert told(locate, [f"{APART}/1"], root / "dirs")[0] == [root / "dirs" / APART / "1.png"]


def test_one_name_in_two_folders_is_refused_in_any_spelling(tmp_path):
    root = pictures(tmp_path, f"a/{ONE}.png", f"b/{APART}.png")
    with pytest.raises(ValueError, match="can be a/.* or b/"):
        locate([ONE], root)


def test_missing_files_are_counted_and_shown_with_what_is_there(flat):
    with pytest.raises(ValueError, match="2 of 3 files are not in .*: x1, x2; there: images/im00"):
        locate(["x1", "im01", "x2"], flat)
    with pytest.raises(
        ValueError, match=r"another ending or .* \(images/im01.png\): write names without"
    ):
        locate(["im01.dcm"], flat)
    with pytest.raises(ValueError, match="there: no images"):
        locate(["im01"], (flat / "empty", (flat / "empty").mkdir())[0])
    with pytest.raises(ValueError, match="1 of 2 rows name no file"):
        locate(["im01", " "], flat)
    with pytest.raises(FileNotFoundError, match="spelled right"):
        locate(["im01"], flat / "imgs")


def test_images_that_the_table_does_not_name_are_counted(flat, told):
    t, says = told(read_table, pd.read_csv(flat / "meta.csv")[:10], flat)
    assert len(t) == 10 and len(says) == 1
    assert says[0].startswith("2 images in ") and "images/im10.png, images/im11.png" in says[0]


def test_hidden_files_and_linked_folders(tmp_path, flat):
    pictures(tmp_path / "set", ".cache/im00.png", "__MACOSX/im01.png")
    (tmp_path / "set" / "linked").symlink_to(flat / "images")
    t = silent(read_table, flat / "meta.csv", tmp_path / "set")
    assert t.rel[0] == "linked/im00.png"


def test_a_file_listed_twice(flat, told):
    t = pd.read_csv(flat / "meta.csv")
    got, says = told(read_table, pd.concat([t, t[:2].assign(image_id=["im00.png", "im01"])]), flat)
    assert len(got) == 12 and "2 files are listed more than once" in says[0]
    with pytest.raises(ValueError, match="two values of label, such as images/im00.png: nv and me"):
        read_table(pd.concat([t, t[:1].assign(dx="mel")]), flat)
    both = pd.concat([t.assign(split="train"), t[:1].assign(split="test")])
    with pytest.raises(ValueError, match="two values of split, .*: train and test"):
        read_table(both, flat)
    with pytest.raises(ValueError, match="two values of group, .*: p0 and p9"):
        read_table(pd.concat([t, t[:1].assign(who="p9")]), flat, group="who")


def test_two_sets_of_labels_for_one_file_are_shown_by_name(chest):
    path, table = chest
    with pytest.raises(ValueError, match="two values of target, .*1.png: effusion.mass and mass"):
        read_table(pd.concat([table, table[2:3].assign(**{"Image Index": "1.png"})]), path, sep="|")


# --- the csv file


@pytest.mark.parametrize(
    "encoding, sep, head",
    [
        ("utf-8", ",", ""),
        ("utf-8-sig", ";", ""),
        ("utf-16", "\t", ""),
        ("utf-8", ";", "sep=;\r\n"),
    ],
)
def test_csv_files_as_programs_write_them(tmp_path, encoding, sep, head):
    rows = [["id", "dx", '"a, b; c"'], ["0012", "NA", "1.0"], ["12", "None", ""], ["é", "nan", "x"]]
    f = tmp_path / "t.csv"
    f.write_bytes((head + "\r\n".join(sep.join(r) for r in rows) + "\r\n").encode(encoding))
    t = read_csv_table("t.csv", tmp_path)
    assert list(t) == ["id", "dx", "a, b; c"]
    assert t.to_numpy().tolist() == [["0012", "NA", "1.0"], ["12", "None", ""], ["é", "nan", "x"]]


def test_a_class_called_na_stays(flat):
    f = flat / "meta.csv"
    f.write_text(f.read_text().replace(",nv,", ",NA,").replace(",mel,", ",None,"))
    with pytest.warns(UserWarning, match="'dx' says NA, None, .* in 8 rows; it is kept as a class"):
        assert read_table("meta.csv", flat).attrs["vocab"] == ["NA", "None", "bkl"]
    said = silent(read_table, "meta.csv", flat, kind="class")
    assert said.attrs["vocab"] == ["NA", "None", "bkl"]
    with pytest.raises(ValueError, match="12 cells that are no number"):
        read_table("meta.csv", flat, kind="number")


@pytest.mark.parametrize("group", [None, "folder"])
def test_a_folder_called_na_is_a_class(tmp_path, group):
    for c in ("NA", "none", "mel"):
        pictures(tmp_path, *(f"{c}/{c}{p}/{i}.png" for p in range(3) for i in range(2)))
        if group is None:
            pictures(tmp_path / "flat", *(f"{c}/{i}.png" for i in range(6)))
    path = tmp_path if group else tmp_path / "flat"
    t = list_images(path, group)
    assert sorted(set(t.label)) == ["NA", "mel", "none"]
    for again in (read_table(t, path), listed_again(t, path, label="label")):
        assert again.attrs == dict(kind="class", vocab=["NA", "mel", "none"])
        assert list(again.label) == list(t.label)
    t.to_csv(tmp_path / "t.csv", index=False)
    assert list(read_table(tmp_path / "t.csv", path).label) == list(t.label)
    other = pd.read_csv(tmp_path / "t.csv", dtype=str, keep_default_na=False)
    other.loc[other.label == "mel", "label"] = "nan"  # no folder is called so
    with pytest.warns(UserWarning, match="says NA, nan, none, .* it is kept as a class"):
        assert read_table(other, path).attrs["vocab"] == ["NA", "nan", "none"]


def test_cells_of_a_dataframe_become_text():
    t = pd.DataFrame({"id": ["0012", 7, 3.0], 5: [1.0, None, 2.5], "ok": [True, False, pd.NA]})
    got = read_csv_table(t)
    assert got.to_numpy().tolist() == [["0012", "1", "True"], ["7", "", "False"], ["3", "2.5", ""]]
    assert list(got) == ["id", "5", "ok"]
    indexed = read_csv_table(pd.DataFrame(dict(dx=["a"]), index=pd.Index(["f"], name="image_id")))
    assert indexed.to_dict("list") == dict(image_id=["f"], dx=["a"])
    with pytest.raises(ValueError, match="join several labels to one text"):
        read_csv_table(pd.DataFrame(dict(x=[["a", "b"], ["a"]])))


def test_whole_numbers_as_labels_are_written_without_a_point(flat):
    t = pd.read_csv(flat / "meta.csv").drop(columns="dx").assign(grade=[0.0, 1.0, 2.0] * 4)
    assert read_table(t, flat, label="grade").attrs["vocab"] == ["0", "1", "2"]
    t.to_csv(flat / "g.csv", index=False)  # pandas writes 0.0
    assert read_table("g.csv", flat, label="grade").attrs["vocab"] == ["0", "1", "2"]


@pytest.mark.parametrize(
    "data, says",
    [
        (b"PK\x03\x04 and more", "Excel file.*pandas.read_excel"),
        ("größe,b\n1,2".encode("latin-1"), "no text in UTF-8"),
        (b"file,label\na.png,x,y\n", "line 2 of t.csv has 3 cells, its first line 2"),
        (b"file,label\na.png,x\nb.png\n", "line 3 of t.csv has 1 cells"),
        (b"file,label\n", "t.csv has no rows"),
        (b"", "t.csv has no rows"),
        (b"file,file\na,b\n", "two columns of the table are called 'file'"),
    ],
)
def test_csv_files_that_cannot_be_read(tmp_path, data, says):
    (tmp_path / "t.csv").write_bytes(data)
    with pytest.raises(ValueError, match=says):
        read_csv_table("t.csv", tmp_path)


def test_tables_that_are_none(tmp_path, flat):
    with pytest.raises(FileNotFoundError, match="no table metta.csv; near: meta.csv"):
        read_table("metta.csv", flat)
    with pytest.raises(TypeError, match="table=dict; expected a csv file or a DataFrame"):
        read_table(dict(a=1), flat)
    with pytest.raises(ValueError, match="the table has no rows"):
        read_table(pd.read_csv(flat / "meta.csv")[:0], flat)


def test_empty_columns_and_lines_of_a_spreadsheet_are_left_out(tmp_path):
    (tmp_path / "t.csv").write_text("file;label;;\n\na;x;;\n;;;\nb;y;;\n")
    assert read_csv_table("t.csv", tmp_path).to_dict("list") == dict(file=["a", "b"],
                                                                     label=["x", "y"])  # fmt: skip


# --- columns


def test_columns_by_usual_names_and_by_name():
    t = pd.DataFrame(columns=["Image Index", "Finding Labels", "Patient ID", "SPLIT"])
    assert find_column(t, None, FILES, "file") == "Image Index"
    assert find_column(t, None, LABELS, "label") == "Finding Labels"
    assert find_column(t, None, SPLIT_COLUMNS, "split") == "SPLIT"
    assert find_column(t, "patient id", (), "group") == "Patient ID"
    assert find_column(t.rename(columns={"SPLIT": "part"}), None, SPLIT_COLUMNS, "s", False) is None


def test_columns_that_are_not_there(flat):
    with pytest.raises(ValueError, match="group='patient', but the table has no column 'patient';"):
        read_table("meta.csv", flat, group="patient")
    with pytest.raises(ValueError, match="'whoo'; near: who; it has image_id, dx, who"):
        read_table("meta.csv", flat, group="whoo")
    t = pd.read_csv(flat / "meta.csv").rename(columns=dict(dx="what"))
    with pytest.raises(ValueError, match="is called label, labels, class.*it has image_id, what"):
        read_table(t, flat)
    with pytest.raises(ValueError, match="label='effusion', but the table has no column"):
        read_table(t, flat, label=["what", "effusion"])
    with pytest.raises(ValueError, match=r"label=\[\]"):
        read_table(t, flat, label=[])


def test_a_file_name_in_another_column(flat):
    t = pd.read_csv(flat / "meta.csv").rename(columns=dict(image_id="scan no"))
    got = silent(read_table, t, flat, file="scan no")
    assert got.rel[1] == "images/im01.png"


def test_two_columns_of_labels_are_told(flat, told):
    t = pd.read_csv(flat / "meta.csv").assign(target=[0, 1, 1] * 4)
    got, says = told(read_table, t, flat)
    assert "taken from column 'dx'; the table has target too" in says[0] and got.label[0] == "nv"
    assert silent(read_table, t, flat, label="target").label[0] == "0"


# --- old tables


def test_a_table_of_the_library_goes_through_as_it_is(tmp_path, told):
    listed = list_images(two_classes(tmp_path))
    assert silent(read_table, listed, tmp_path).to_dict("list") == listed.to_dict("list")
    elsewhere, says = told(read_table, listed, tmp_path / "train")
    assert list(elsewhere.file) == list(listed.file) and not says
    assert elsewhere.rel[0] == "a/0.png"


def test_a_table_made_with_a_relative_path_goes_through(tmp_path, monkeypatch):
    two_classes(tmp_path / "set")
    monkeypatch.chdir(tmp_path)
    listed = list_images("set")
    assert silent(read_table, listed, "set").to_dict("list") == listed.to_dict("list")


def test_manifests_still_give_groups(tmp_path):
    t = list_images(two_classes(tmp_path, ("train", "test")))
    m = pd.DataFrame(dict(file=t.rel, patient=range(12)))
    assert list(add_groups(t.assign(print="x"), tmp_path, "patient", m).group) == (
        [str(i) for i in range(12)]
    )


# --- folds


def lesions(n=60, rare=6, seed=0):
    g = np.repeat(np.arange(n), np.random.default_rng(seed).integers(1, 6, n))
    return pd.DataFrame(
        dict(
            rel=[f"{i}.png" for i in range(len(g))],
            label=np.where(g < rare, "mel", np.where(g % 2, "nv", "bkl")),
            split=np.where(g >= n - 10, "test", np.where(g % 7 == 0, "valid", "train")),
            group=g.astype(str),
        )
    )


@pytest.mark.parametrize("seed", range(4))
def test_folds_are_whole_groups_with_all_classes(seed):
    t = lesions(seed=seed)
    folds = silent(kfold, t, 5, seed)
    valid = [set(f.rel[f.split == "valid"]) for f in folds]
    assert len(folds) == 5 and sum(map(len, valid)) == len(set().union(*valid))
    assert set().union(*valid) == set(t.rel[t.split != "test"])  # each image once
    for f in folds:
        v, tr = f[f.split == "valid"], f[f.split == "train"]
        assert not set(v.group) & set(tr.group)
        assert list(f.split == "test") == list(t.split == "test")
        assert set(v.label) == set(tr.label) == {"mel", "nv", "bkl"}
    shares = [(f.label[f.split == "valid"] == "nv").mean() for f in folds]
    assert max(shares) - min(shares) < 0.15
    assert list(t.split) == list(lesions(seed=seed).split)  # the table stays as it was


def test_the_same_seed_gives_the_same_folds():
    a, b, c = (kfold(lesions(), 3, seed) for seed in (0, 0, 1))
    assert all(list(x.split) == list(y.split) for x, y in zip(a, b))
    assert any(list(x.split) != list(y.split) for x, y in zip(a, c))


def test_folds_without_groups_are_stratified_by_image_and_told(told):
    t = pd.DataFrame(dict(rel=[str(i) for i in range(50)], label=["a"] * 40 + ["b"] * 10))
    folds, says = told(kfold, t.assign(split="all"), 5)
    assert len(says) == 1 and "cut at random by image" in says[0]
    for f in folds:
        v = f[f.split == "valid"]
        assert v.label.value_counts().to_dict() == dict(a=8, b=2)


def test_more_folds_than_groups_are_refused():
    with pytest.raises(ValueError, match="k=7, but 'mel' has 6 groups.*k=6 is the most"):
        kfold(lesions(), 7)
    with pytest.raises(ValueError, match="'mel' has 1 groups.*leave the class out"):
        kfold(lesions(rare=1), 2)
    for k in (1, 2.5, True):
        with pytest.raises(ValueError, match="expected a whole number of at least 2"):
            kfold(lesions(), k)


def test_rare_labels_do_not_stop_folds(chest):
    t = lesions().assign(target=[[1, 0]] * len(lesions()))
    t.loc[t.index[0], "label"] = "once"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert len(kfold(t, 5)) == 5
        with pytest.raises(ValueError, match="'the set' has 50 groups"):
            kfold(t, 51)


# --- what must not be misread in silence


@pytest.mark.parametrize(
    "cells, says",
    [
        (["1,234", "2"], "says a .1,234.: is the comma decimal, or between thousands"),
        (["1,234", "2,500"], "says a .1,234., b .2,500.: is the comma"),
        (["1,234,567", "2"], "1 cells that are no number: a .1,234,567. .commas between"),
        (["1,5", "2.5"], "with a comma, a .1,5., and others with a point, b .2.5."),
        (["1,234.5", "2"], "1 cells that are no number: a .1,234.5."),
        (["1e400", "2"], "1 numbers that are too large: a .1e400."),
        (["2", "-1e999"], "too large: b .-1e999."),
    ],
)
def test_numbers_that_are_not_plain_are_refused_with_their_rows(cells, says):
    with pytest.raises(ValueError, match=says):
        read_labels(pd.DataFrame(dict(x=cells)), "x", "number", names=["a", "b"])


def test_a_comma_that_can_only_be_decimal_is_read_so_and_said(told):
    for cells, want in ((["1,5", "1,234"], [1.5, 1.234]), (["0,234", "7"], [0.234, 7.0])):
        got, says = told(read_labels, pd.DataFrame(dict(x=cells)), "x", "number")
        assert got.target == want
        assert len(says) == 1 and f"{cells[0]} is {want[0]}" in says[0]
    t = pd.DataFrame(dict(x=["1,234", "2,500"]))  # the cures of the message
    for cure, want in (("", [1234.0, 2500.0]), (".", [1.234, 2.5])):
        cured = t.assign(x=t["x"].str.replace(",", cure))
        assert silent(read_labels, cured, "x", "number").target == want


def test_images_beside_the_splits_are_named(tmp_path, told):
    root = two_classes(tmp_path)
    pictures(root, "logo.png", "figures/roc.png", "unlabelled/0.png", "train/loose.png")
    (root / "docs").mkdir()
    (root / "notes.txt").write_text("")
    t, says = told(list_images, root)
    assert len(t) == 18 and len(says) == 2
    assert "figures/ (1 images), logo.png, since only train, valid, test are" in says[0]
    assert "loose.png" in says[1] and "unlabelled" not in "".join(says)


@pytest.mark.parametrize("name", ["holdout", "test_external", "Test 2", "external", "train_extra"])
def test_a_folder_that_looks_like_one_more_split_is_refused(tmp_path, name):
    root = two_classes(tmp_path, ("train", "test"))
    (root / name / "a").mkdir(parents=True)
    silent(list_images, root)  # it is empty
    picture(root / name / "a" / "0.png")
    with pytest.raises(ValueError, match=f"{name} in .* looks like a split, and only"):
        list_images(root)


@pytest.mark.parametrize(
    "lines, says",
    [
        (['a.png,"disc', "b.png,ring", 'c.png,disc"'], "in line 2 of t.csv .* lines 2 to 4"),
        (["a.png,disc", 'b.png,"ring', "c.png,disc"], "in line 3 of t.csv .* lines 3 to 4"),
        (['"a.png,disc', "b.png,ring"], "in line 2 of t.csv .* lines 2 to 3"),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_stray_quote_swallows_no_rows(tmp_path, lines, says, end):
    (tmp_path / "t.csv").write_bytes(end.join(["file,label", *lines, ""]).encode())
    with pytest.raises(ValueError, match=says):
        read_csv_table("t.csv", tmp_path)


def test_line_breaks_in_a_cell_and_quotes_in_the_middle_stay(tmp_path):
    text = 'file,label,note\na.png,disc,"one\ntwo"\nb.png,ring,5" wide\n'
    (tmp_path / "t.csv").write_text(text)
    t = silent(read_csv_table, "t.csv", tmp_path)
    assert t.note.tolist() == ["one\ntwo", '5" wide'] and t.file.tolist() == ["a.png", "b.png"]
    (tmp_path / "t.csv").write_text("sep=;\n\nfile;label\na.png;x\nb.png\n")
    with pytest.raises(ValueError, match="line 5 of t.csv has 1 cells"):
        read_csv_table("t.csv", tmp_path)


def test_the_advice_on_other_values_of_labels_works(flat, tmp_path):
    "CheXpert: -1 is unsure, an empty cell is not mentioned."
    t = pd.read_csv(flat / "meta.csv").drop(columns="dx")
    t["Edema"] = [1.0, 0.0, -1.0, np.nan] * 3
    t["Mass"] = [-1.0, 1.0, 1.0, 0.0] * 3
    t.to_csv(flat / "chexpert.csv", index=False)
    path = flat
    for table in (t, "chexpert.csv"):
        with pytest.raises(ValueError, match="expected 0 or 1") as e:
            read_table(table, path, label=["Edema", "Mass"])
        lines = [s.strip() for s in str(e.value).splitlines() if s.startswith("    ")]
        known = dict(table=table, path=path)
        exec("\n".join(lines), known)
        got = silent(read_table, known["t"], path, label=["Edema", "Mass"])
        assert got.target[:4].tolist() == [[1, 0], [0, 1], [0, 1], [0, 0]]


def test_the_kind_of_a_table_outlives_its_attrs(flat, chest):
    meta = pd.read_csv(flat / "meta.csv").assign(age=np.arange(12) + 0.5)
    path, table = chest
    flat = flat / "images"
    aged = silent(read_table, meta, flat, label="age")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # both sets lie in one folder
        found = read_table(table, path, sep="|")
    for t in (aged, found, silent(read_table, meta, flat, label="dx")):
        bare = pd.DataFrame(t.to_dict("list")).merge(t[["rel"]])
        assert not bare.attrs and kind_of(bare) == kind_of(t) == (t.attrs["kind"], t.attrs["vocab"])
    with pytest.raises(ValueError, match="'target' of the table holds something else"):
        kind_of(found.assign(target=found.target.map(str)))


@pytest.mark.parametrize("there, said", [(APART, ONE), (ONE, APART)])
def test_a_manifest_finds_files_in_either_spelling(tmp_path, there, said):
    for c in "ab":
        pictures(tmp_path / there, *(f"{c}{there}/{there} {i}.png" for i in range(4)))
    t = list_images(tmp_path / there).assign(print="x")
    m = pd.DataFrame({"class": list("aaaabbbb"), "file": [f"{said} {i}.png" for i in range(4)] * 2})
    m = m.assign(**{"class": m["class"] + said}, patient=[f"p{i // 2}" for i in range(8)])
    assert list(add_groups(t, tmp_path, "patient", m).group) == list(m.patient)
    whole = pd.DataFrame(dict(file=m["class"] + "/" + m.file, patient=m.patient))
    assert list(add_groups(t, tmp_path, "patient", whole).group) == list(m.patient)
    # two files with names that look the same: each is the one that is written so
    rel = [f"a/{ONE}.png", f"a/{APART}.png"]
    assert file_groups(rel, pd.DataFrame(dict(file=rel, who=["1", "2"])), "who") == ["1", "2"]


def test_a_manifest_is_read_as_any_table(tmp_path):
    root = two_classes(tmp_path, ("train", "test"))
    t = list_images(root)
    m = pd.DataFrame(dict(file=t.rel, patient=[f"{i // 2:03}" for i in range(12)]))
    m.to_csv(root / "who.csv", sep=";", index=False, encoding="utf-16")
    got = add_groups(t.assign(print="x"), root, "patient", "who.csv")
    assert list(got.group) == list(m.patient)
