"""docs/results.md, and docs/several.md, from the results files in docs/results/: every number comes
from a file that a command made.

    python tools/site/results_page.py
    python tools/site/results_page.py keep RUN_FOLDER NAME "COMMAND"

The first writes the pages. The second first copies the numbers of a `kdmedlearn distill` run. One
module of results/ writes one part of a page."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from results import (
    brain_mri,
    clinic,
    faults,
    gpu,
    guidance,
    hdkd,
    kdas,
    leaks,
    losses,
    methods,
    peers,
    phantom,
    several,
    softness,
    step,
    unlabelled,
    widgets,
)
from results.shared import fill

DOCS = Path(__file__).resolve().parents[2] / "docs"
HEAD = """
# Results

<!-- made by tools/site/results_page.py from docs/results/*.json; edit those by running the commands -->

What was measured, and the command that measured it. Accuracies in percent. Behind a score stands its
standard deviation over runs. A difference is the mean of the *paired* differences over runs (seeds,
or draws of the labels), with its standard error. Nothing was chosen on a test set,
and the last step counts. Hyperparameters are the defaults where a part does not say that they were
chosen, on validation images.
"""
PARTS = (
    unlabelled,
    softness,
    losses,
    phantom,
    brain_mri,
    hdkd,
    kdas,
    guidance,
    leaks,
    methods,
    peers,
    step,
    gpu,
    clinic,
    faults,
    widgets,
)


def page():
    return (fill(HEAD) + "".join(part.page() for part in PARTS)).rstrip("\n") + "\n"


PAGES = {"results.md": page, "several.md": several.page}


if __name__ == "__main__":
    if sys.argv[1:2] == ["keep"]:
        brain_mri.keep(*sys.argv[2:])
    for name, made in PAGES.items():
        (DOCS / name).write_text(made(), encoding="utf-8")
    if (DOCS / "results" / "clinic.json").is_file():
        clinic.draw(DOCS / "images" / "clinic_cost.svg")
