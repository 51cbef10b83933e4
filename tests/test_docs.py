"""The recipes of docs/howto.md work as they stand there."""
import re
import shutil
import warnings
from pathlib import Path

import pandas as pd
import pytest

from kdmedlearn.data.endoscopy import write_phantom_endoscopy
from kdmedlearn.data.polyps import write_phantom_polyps

HOWTO = (Path(__file__).parents[1] / "docs" / "howto.md").read_text(encoding="utf-8")


def test_every_recipe_runs(tmp_path):
    "All blocks in one session, in an empty folder beside made-up images."
    classes = write_phantom_endoscopy(tmp_path / "my_images", n_per_class=8, size=32)
    files = sorted(p.relative_to(classes) for p in classes.rglob("*.jpg"))
    pd.DataFrame({"file": [f.as_posix() for f in files], "patient": [i // 2 for i in range(len(files))]}).to_csv(classes / "manifest.csv", index=False)
    polyps = write_phantom_polyps(tmp_path / "polyps", n_train=12, n_valid=4, size=32)
    shutil.copytree(polyps / "train", tmp_path / "my_polyps")
    session, ran = {}, 0
    for before, code in re.findall(r"(<!-- not run -->\n)?```python\n(.*?)```", HOWTO, re.S):
        if before: compile(code, "howto", "exec"); continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try: exec(compile(code, "howto", "exec"), session)
            except Exception as e: pytest.fail(f"{type(e).__name__}: {e}\nin\n{code}")
        ran += 1
    assert ran > 10


def test_every_recipe_names_a_page_that_is_there():
    pages = re.findall(r"\]\((nbs/[^)]*)\)", HOWTO)
    assert len(pages) > 10 and all((Path(__file__).parents[1] / p).is_file() for p in pages), [p for p in pages if not (Path(__file__).parents[1] / p).is_file()]
