"""Few labels and many images without any: what a teacher is worth then, on phantom images.

    python tools/experiments/phantom_unlabelled.py tune CACHE     # validation images only
    python tools/experiments/phantom_unlabelled.py run CACHE
    python tools/experiments/phantom_unlabelled.py collect CACHE --out FILE.json

Plan, written before the runs.

- A student of 51 thousand parameters, 200 labelled images of 64 pixels, 2,000 images without
  labels, 2,000 steps of 32 images, the one-cycle policy. The unit of the error is the seed: other
  images, other first weights.
- Choice: the rate, the average of weights and mixup are chosen for the student ALONE with 200
  labels, on 1,000 validation images of seeds 100 and 101 (`tune`). All arms take what suits it;
  of the taught student only alpha was tried besides (.9 and 1, seed 100).
- Arms (`run`), seeds 0 to 4: the student alone; label smoothing .1; taught on the 200 images;
  pseudo-labels on 200 + 2,000; taught on 200 + 2,000; alone with all 2,200 labels as a ceiling.
- Test: 1,000 images of seed 999, looked at once, after the last step.
- What decides: taught on 200 + 2,000 minus the better of the arms without a teacher, paired by
  seed.
"""

import argparse, sys, warnings
from pathlib import Path

warnings.filterwarnings("ignore")
import torch
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat

from kdmedlearn import distill, phantom_dls, Response
from kdmedlearn.data.loaders import restart
from kdmedlearn.evaluation.classes import predictions, scores
from kdmedlearn.experiments.report import write_json
from kdmedlearn.methods.controls import PseudoLabels
from kdmedlearn.models.small import small_student
from kdmedlearn.train.budget import fit_steps
from kdmedlearn.train.teachers import phantom_teacher

sys.path.insert(0, str(Path(__file__).resolve().parent))
from runs import kept_runs, one_run

LABELS, MORE, BATCH, STEPS = 200, 2000, 32, 2000
RECIPE = dict(lr=1e-2, average=None, mixup=0.2)  # what `tune` chose
ARMS = {  # name -> (labelled images, unlabelled in a batch of 32, method or loss)
    "alone": (LABELS, 0, None),
    "label smoothing": (LABELS, 0, CrossEntropyLossFlat(label_smoothing=0.1)),
    "taught on the labelled images": (LABELS, 0, Response()),
    "pseudo-labels": (LABELS, 24, PseudoLabels()),
    "taught on all images": (LABELS, 24, Response()),
    "alone with all labels": (LABELS + MORE, 0, None),
}


def trained(n, extra, how, seed, steps, lr, average, mixup, **_):
    "A student trained on phantoms of `seed`."
    more = MORE if extra else 0
    dls = phantom_dls(n, 1000, 64, seed=seed, bs=BATCH, n_unlabelled=more, device="cpu")
    restart(dls, seed)
    student = small_student()
    if how is None or isinstance(how, CrossEntropyLossFlat):
        learn = Learner(dls, student, loss_func=how or dls.loss_func)
    else:
        kw = dict(unlabelled="rest", unlabelled_share=extra / BATCH) if extra else {}
        learn = distill(dls, student, phantom_teacher(), how, **kw)
    restart(learn.dls, seed)
    with learn.no_bar(), learn.no_logging():
        fit_steps(learn, steps, lr, looks=1, average=average, mixup=mixup)
    return learn


def score(learn, dl):
    return {"accuracy": scores(*predictions(learn.model, dl))["accuracy"]}


def tune(folder, seeds=(100, 101)):
    "The student alone over its rate, average and mixup; then the taught one over its batch."
    grid = [dict(lr=lr, average=None, mixup=None) for lr in (1e-2, 3e-2, 3e-3)]
    grid += [dict(lr=1e-2, average=a, mixup=m) for a, m in ((0.999, None), (None, 0.2))]
    for seed in seeds:
        for kw in grid:
            key = dict(kind="alone", seed=seed, steps=STEPS) | kw
            make = lambda: trained(LABELS, 0, None, **key)
            got = one_run(folder, key, lambda: score(learn := make(), learn.dls.valid))
            print(got, flush=True)


def tune_taught(folder, seed=100):
    "The taught student over alpha, at the rate of the student alone."
    for alpha in (0.9, 1.0):
        key = dict(kind="taught", seed=seed, steps=STEPS, extra=24, alpha=alpha)
        key |= dict(lr=1e-2, average=None, mixup=None)
        make = lambda: trained(LABELS, how=Response(alpha=alpha), **key)
        got = one_run(folder, key, lambda: score(learn := make(), learn.dls.valid))
        print(got, flush=True)


def run(folder, seeds, arms=None):
    "The arms, scored on the test images."
    test = phantom_dls(8, 1000, 64, seed=999, device="cpu").valid
    for seed in seeds:
        for name in arms or ARMS:
            n, extra, how = ARMS[name]
            key = dict(kind="run", arm=name, seed=seed, steps=STEPS) | RECIPE
            go = lambda: score(trained(n, extra, how, **key), test)
            print(one_run(folder, key, go), flush=True)
    key = dict(kind="run", arm="teacher", seed=0)
    go = lambda: {"accuracy": scores(*predictions(phantom_teacher(), test))["accuracy"]}
    print(one_run(folder, key, go), flush=True)


def collect(folder, out):
    rows = kept_runs(folder)
    command = "python tools/experiments/phantom_unlabelled.py run CACHE"
    tuned = [r for r in rows if r["kind"] != "run"]
    runs = [r for r in rows if r["kind"] == "run"]
    write_json(out, dict(command=command, recipe=RECIPE, steps=STEPS, tune=tuned, runs=runs))


if __name__ == "__main__":
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("what", choices=("tune", "run", "collect"))
    p.add_argument("cache", type=Path, help="folder of finished runs")
    p.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    p.add_argument("--arms", nargs="+", choices=ARMS, help="some of them")
    p.add_argument("--out")
    a = p.parse_args()
    if a.what == "tune":
        tune(a.cache), tune_taught(a.cache)
    elif a.what == "run":
        run(a.cache, a.seeds, a.arms)
    else:
        collect(a.cache, a.out)
