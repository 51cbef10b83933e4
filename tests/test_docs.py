"""The recipes of docs/howto.md work as they stand there."""

import re
import shutil
import sys
import warnings
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from kdmedlearn.data.phantom import phantom
from kdmedlearn.data.sets.endoscopy import write_phantom_endoscopy
from kdmedlearn.data.sets.polyps import write_phantom_polyps

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools" / "site"))
from names import undefined

HOWTO_FILE = Path(__file__).parents[1] / "docs" / "howto.md"
HOWTO = HOWTO_FILE.read_text(encoding="utf-8")


def save(pixels, file):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)


def write_tables(home):
    """Two sets with a table: lesions with one or two images each, in two folders; X-rays with
    several findings."""
    xs, rows, films = phantom(36, 32, seed=1)[0], [], []
    for i, x in enumerate(xs):
        save(x, home / "my_skin" / f"part_{1 + i // 18}" / f"ISIC_{i:07}.jpg")
        rows.append((f"HAM_{i // 2:07}", f"ISIC_{i:07}", ("nv", "mel", "bkl")[i // 2 % 3]))
        save(x[..., 0], home / "my_chest" / f"{i}.png")
        mass, effusion = i % 2, i // 2 % 2
        found = "|".join(["mass"] * mass + ["effusion"] * effusion)
        films.append((f"{i}.png", found, mass, effusion, i // 3, 40 + i // 3))
    skin = pd.DataFrame(rows, columns=["lesion_id", "image_id", "dx"])
    skin.to_csv(home / "my_skin" / "HAM10000_metadata.csv", index=False)
    columns = ["Image Index", "Finding Labels", "mass", "effusion", "Patient ID", "Age"]
    chest = pd.DataFrame(films, columns=columns)
    chest.to_csv(home / "my_chest" / "labels.csv", index=False)


def write_dicom(file, pixels):  # (H, W) in Hounsfield units
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    ds, meta = Dataset(), FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = generate_uid()
    ds.file_meta, ds.Modality, ds.PhotometricInterpretation = meta, "CT", "MONOCHROME2"
    ds.Rows, ds.Columns = pixels.shape
    ds.SamplesPerPixel, ds.BitsAllocated, ds.BitsStored = 1, 16, 16
    ds.HighBit, ds.PixelRepresentation = 15, 0
    ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
    ds.PixelData = (pixels + 1024).astype(np.uint16).tobytes()
    file.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(file, enforce_file_format=True)


def write_folders(home):
    "Patients in folders of classes, DICOM files, images without labels."
    for i, x in enumerate(phantom(32, 32, seed=2)[0]):
        c = ("healthy", "ill")[i % 2]
        save(x, home / "my_patients" / c / f"patient{i // 4}{c[0]}" / f"{i}.png")
        write_dicom(home / "my_scans" / c / f"{i}.dcm", 4.0 * x[..., 0] - 300)
        save(x, home / "my_unlabelled" / f"{i}.jpg")


def write_masks(home):
    "Masks of three classes with a border of 255; masks with a word behind their name, two missing."
    for i, (x, m) in enumerate(zip(*phantom(16, 32, task="segment", seed=3))):
        values = (m > 0).astype(np.uint8)
        values[:4] = 2 * (i % 3 > 0)
        values[:, :2] = 255
        save(x, home / "my_tools" / "images" / f"{i}.png")
        save(values, home / "my_tools" / "masks" / f"{i}.png")
        save(x, home / "my_lesions" / "images" / f"{i}.jpg")
        if i > 1:
            save(m, home / "my_lesions" / "masks" / f"{i}_segmentation.png")


@pytest.mark.slow
def test_every_recipe_runs(tmp_path):
    "All blocks in one session, in an empty folder beside made-up images."
    classes = write_phantom_endoscopy(tmp_path / "my_images", n_per_class=8, size=32)
    files = sorted(p.relative_to(classes) for p in classes.rglob("*.jpg"))
    pd.DataFrame(
        {"file": [f.as_posix() for f in files], "patient": [i // 2 for i in range(len(files))]}
    ).to_csv(classes / "manifest.csv", index=False)
    polyps = write_phantom_polyps(tmp_path / "polyps", n_train=12, n_valid=4, size=32)
    shutil.copytree(polyps / "train", tmp_path / "my_polyps")
    write_tables(tmp_path)
    write_folders(tmp_path)
    write_masks(tmp_path)
    session, ran = {}, 0
    for before, code in re.findall(r"(<!-- not run -->\n)?```python\n(.*?)```", HOWTO, re.S):
        if before:
            compile(code, "howto", "exec")
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                exec(compile(code, "howto", "exec"), session)
            except Exception as e:
                pytest.fail(f"{type(e).__name__}: {e}\nin\n{code}")
        ran += 1
    assert ran > 10


def test_every_page_links_to_files_that_are_there():
    root = Path(__file__).parents[1]
    for page in (root / "README.md", *sorted((root / "docs").glob("*.md"))):
        text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
        lost = [
            o
            for o in re.findall(r"\]\(([^)#\s]+)", text)
            if not re.match(r"https?:|mailto:", o) and not (page.parent / o).exists()
        ]
        assert not lost, f"{page.name} links to {lost}"
    assert len(re.findall(r"\]\(\.\./nbs/", HOWTO)) > 10


def test_every_module_stands_in_the_reference():
    root = HOWTO_FILE.parents[1]
    listed = (root / "docs" / "api.md").read_text(encoding="utf-8").split()
    files = [p.relative_to(root) for p in (root / "kdmedlearn").rglob("*.py")]
    names = {".".join(p.with_suffix("").parts) for p in files if not p.stem.startswith("_")}
    assert names <= {*listed}, sorted(names - {*listed})


def test_a_page_defines_each_name_that_it_uses(tmp_path):
    import nbformat

    chapters = [p for p in (ROOT / "nbs").rglob("*.ipynb") if p.parent.name[0] != "."]
    assert {p.name: u for p in chapters if (u := undefined(p))} == {}
    cells = [
        "from math import *\nx = sqrt(4)",
        "[y for y in z]",
        "#| default_exp a.b\nw = 1",
        "w + x",
    ]
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    nbformat.write(made, tmp_path / "page.ipynb")
    assert undefined(tmp_path / "page.ipynb") == ["w", "z"]


ASSETS = ROOT / "kdmedlearn" / "assets"


def test_live_widgets_in_the_pages_run_the_programs_of_today():
    "A page holds a copy of the program; who changes it executes the chapters again."
    shared = (ASSETS / "live.mjs").read_text(encoding="utf-8")
    own = [p.read_text(encoding="utf-8") for p in ASSETS.glob("live_*.mjs")]
    found = 0
    for path in (ROOT / "nbs").rglob("*.ipynb"):
        for cell in nbformat.read(path, 4).cells:
            for out in cell.get("outputs", []):
                page = out.get("data", {}).get("text/html", "")
                if "data-kdm=" in page:
                    found += 1
                    assert shared in page, path
                    mine = [p for p in own if p.splitlines()[0] in page]
                    assert mine or "Three bars" in page, path  # or written in the chapter
                    assert all(p in page for p in mine), path
    assert found > 20
