"""The recipes of docs/howto.md work as they stand there."""

import re
import shutil
import warnings
from pathlib import Path

import pandas as pd
import pytest

from kdmedlearn.data.sets.endoscopy import write_phantom_endoscopy
from kdmedlearn.data.sets.polyps import write_phantom_polyps

HOWTO = (Path(__file__).parents[1] / "docs" / "howto.md").read_text(encoding="utf-8")


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
