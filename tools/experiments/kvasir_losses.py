"""Kvasir-SEG with a tenth of its masks: one loss of masks against another, each with a weight of
its own.

    python tools/experiments/kvasir_losses.py search DATA CACHE
    python tools/experiments/kvasir_losses.py run DATA CACHE [--draws 0 1 2]
    python tools/experiments/kvasir_losses.py collect DATA CACHE --out docs/results/kvasir_losses.json
    python tools/experiments/kvasir_losses.py restore DATA CACHE --out docs/results/kvasir_losses.json

Plan, written before the runs.

- Draws, teachers, kept views, students and budget are those of `kvasir_unlabelled.py`: 1,000 steps
  of 16, all 700 images, a tenth of them with a mask. Its CACHE is used and filled.
- Arms: the methods that compare masks. Losses of inner maps are not among them: kept are the
  teacher's masks alone.
- `search`: three settings of the main weight of each, on the validation images of draw 100. The
  best is kept for all draws; of equal ones the first, which is that of `kvasir_unlabelled.py`.
- A training that `kvasir_unlabelled.py` has run with the same setting is the same training, and is
  taken from there.
- Test: validation/, scored after the last step, nothing chosen on it.
- What decides: the difference to `Bernoulli KL`, the plain loss of answers for masks, paired by
  draw; less than two standard errors is a tie.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from kvasir_unlabelled import ARMS as FIRST
from kvasir_unlabelled import RECIPE, scored, STEPS, test_of, trained
from losses import compare_losses
from runs import file_of, keep, kept_runs, one_run

from kdmedlearn import BernoulliKL, CWD, KDAS, PseudoLabels, SoftMasks

SHARE = 0.1
ARMS = {  # name -> settings to choose from, the first that of kvasir_unlabelled.py
    "Bernoulli KL": [BernoulliKL(T=2.0, alpha=a) for a in (0.9, 0.5, 1.0)],
    "soft masks": [SoftMasks(alpha=a) for a in (0.9, 0.5, 1.0)],
    "KDAS": [KDAS(attention=w, sgm=w) for w in (1.0, 3.0, 0.3)],
    "CWD": [CWD(lam=w) for w in (3.0, 10.0, 1.0)],
    "pseudo-masks": [PseudoLabels(alpha=a) for a in (0.9, 0.5, 1.0)],
}


def one(a, kind, name, method, draw) -> dict:
    "The scores of one training, kept."
    key = dict(kind=kind, draw=draw, share=SHARE, arm=name, method=repr(method), steps=STEPS)
    key |= RECIPE
    before = dict(kind="run", draw=draw, share=SHARE, arm=name, steps=STEPS) | RECIPE
    if kind == "run" and repr(method) == repr(FIRST[name][0]):
        for row in kept_runs(a.cache / "runs"):
            if before.items() <= row.items():
                keep(file_of(a.cache / "losses", key), row | key)

    def go():
        model, valid = trained(a.data, a.cache, how=method, beside=True, **key)
        test = {} if kind == "search" else {"test": test_of(a.data)}
        return scored(model, {"valid": valid} | test)

    row = one_run(a.cache / "losses", key, go)
    print(row, flush=True)
    return row


if __name__ == "__main__":
    compare_losses(__doc__, "kvasir_losses", ARMS, RECIPE, 3, "masks", "valid dice", one)
