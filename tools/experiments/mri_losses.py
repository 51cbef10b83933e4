"""Brain MRI with a tenth of its labels: one loss of answers against another, each with a weight of
its own.

    python tools/experiments/mri_losses.py search DATA CACHE
    python tools/experiments/mri_losses.py run DATA CACHE [--draws 0 1 2 3 4]
    python tools/experiments/mri_losses.py collect DATA CACHE --out docs/results/mri_losses.json
    python tools/experiments/mri_losses.py restore DATA CACHE --out docs/results/mri_losses.json

Plan, written before the runs.

- Draws, teachers, views, students and budget are those of `mri_unlabelled.py`: 1,000 steps of 64,
  all training images, a tenth of them with a label. Its CACHE is used and filled.
- Arms: the methods that compare answers of several classes. Losses of maps are not among them: kept
  are the teacher's answers alone.
- `search`: three settings of the main weight of each, on the validation images of draw 100. The
  best is kept for all draws; of equal ones the first, which is the method's default.
- Test: the test folder, scored after the last step, nothing chosen on it.
- What decides: the difference to `Response`, paired by draw; less than two standard errors is a tie.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from losses import compare_losses
from mri_unlabelled import RECIPE, scored, trained
from runs import one_run

from kdmedlearn import DIST, DKD, NKD, OFA, PseudoLabels, Response, Standardised, TfKD

STEPS = 1000
ARMS = {  # name -> settings to choose from, the default first
    "Response": [Response(alpha=a) for a in (0.9, 0.5, 1.0)],
    "Standardised": [Standardised(alpha=a) for a in (0.99, 0.9, 1.0)],
    "DKD": [DKD(others=w) for w in (8.0, 2.0, 0.5)],
    "NKD": [NKD(others=w) for w in (1.5, 5.0, 0.5)],
    "DIST": [DIST(inter=w, intra=w) for w in (1.0, 2.0, 4.0)],
    "OFA": [OFA(answer=w) for w in (1.0, 3.0, 0.3)],
    "pseudo-labels": [PseudoLabels(alpha=a) for a in (0.9, 0.5, 1.0)],
    "Tf-KD": [TfKD(alpha=a) for a in (0.1, 0.5, 0.9)],  # labelled images alone: it asks no teacher
}


def one(a, kind, name, method, draw) -> dict:
    "The scores of one training, kept."
    key = (
        dict(kind=kind, draw=draw, share=a.share, arm=name, method=repr(method), steps=STEPS)
        | RECIPE
    )
    beside = method.labels != "needed"
    go = lambda: scored(*trained(a.data, a.cache, how=method, beside=beside, **key), kind == "run")
    row = one_run(a.cache / "losses", key, go)
    print(row, flush=True)
    return row


if __name__ == "__main__":
    compare_losses(__doc__, "mri_losses", ARMS, RECIPE, 5, "labels", "valid accuracy", one)
