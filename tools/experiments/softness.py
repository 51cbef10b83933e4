"""When does the softness of a teacher's answers help, and not only its labels? Phantom images.

    python tools/experiments/softness.py run CACHE [--seeds 0 1 2 3 4] [--cases good ...]
    python tools/experiments/softness.py collect CACHE --out docs/results/softness.json

Plan, written before the runs.

- Student, images, batches and recipe are those of `phantom_unlabelled.py`: 51 thousand parameters,
  200 images with a label and 2,000 without, 64 pixels, 32 images in a batch, of which 24 have no
  label. 1,000 steps, half of those there.
- Cases. `good`: the package's teacher. `few labels`: its network, fitted on the student's own 200
  images. `noisy labels`: fitted on 2,000 other images, of which four in ten have a label drawn at
  random. Each of the three also `calibrated` (on the student's 1,000 validation images) and `sure`
  (logits times 4). `four classes`, `two classes`: the good teacher with classes put together, its
  probabilities added.
- Arms: soft answers (`Response()`), and the same teacher's hard ones (`PseudoLabels()`), which
  calibration does not change.
- The unit of the error is the seed: other images, other first weights, another teacher in the
  second and third case.
- Test: 1,000 images of seed 999. Nothing is chosen on it.
- What decides: soft minus hard, paired by seed; more than two standard errors is a difference.
"""

import argparse, sys, warnings
from pathlib import Path

warnings.filterwarnings("ignore")
import numpy as np
import torch
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.vision.core import TensorCategory
from fasttransform import Transform
from torch import nn

from kdmedlearn import distill, phantom_dls, Response, Teacher
from kdmedlearn.core.teacher import norm_of
from kdmedlearn.data.loaders import restart
from kdmedlearn.evaluation.calibration import calibrated, calibration
from kdmedlearn.evaluation.classes import predictions
from kdmedlearn.experiments.report import write_json
from kdmedlearn.methods.controls import PseudoLabels
from kdmedlearn.models.small import small_student, small_teacher
from kdmedlearn.train.budget import fit_steps
from kdmedlearn.train.teachers import phantom_teacher

sys.path.insert(0, str(Path(__file__).resolve().parent))
from phantom_unlabelled import BATCH, LABELS, MORE, RECIPE
from runs import kept_runs, one_run

STEPS, TEACHER_STEPS, NOISY, WRONG, SURE, EXTRA = 1000, 600, 2000, 0.4, 4.0, 24
CASES = {  # name -> (teacher, what is done with its logits, classes put together)
    "good": ("good", "as it is", 1),
    "good, calibrated": ("good", "calibrated", 1),
    "good, sure": ("good", "sure", 1),
    "few labels": ("few labels", "as it is", 1),
    "few labels, calibrated": ("few labels", "calibrated", 1),
    "few labels, sure": ("few labels", "sure", 1),
    "noisy labels": ("noisy labels", "as it is", 1),
    "noisy labels, calibrated": ("noisy labels", "calibrated", 1),
    "noisy labels, sure": ("noisy labels", "sure", 1),
    "four classes": ("good", "as it is", 2),
    "two classes": ("good", "as it is", 4),
}
ARMS = {"soft": Response(), "hard": PseudoLabels()}


class Together(Transform):
    "Classes 0 ... n - 1 are one, n ... 2n - 1 the next."

    order = 100

    def __init__(self, n):
        super().__init__()
        self.n = n

    def encodes(self, y: TensorCategory):
        return y // self.n


class Changed(nn.Module):
    "The logits of a network, times a factor, with the probabilities of `n` classes added."

    def __init__(self, model, factor=1.0, n=1):
        super().__init__()
        self.model, self.factor, self.n = model, factor, n

    def forward(self, x):
        z = self.factor * self.model(x)
        return z.unflatten(1, (-1, self.n)).logsumexp(2)


def images(seed, n=1):
    dls = phantom_dls(LABELS, 1000, 64, seed=seed, bs=BATCH, n_unlabelled=MORE, device="cpu")
    if n > 1:
        names = list(dls.vocab)
        dls.vocab = dls.train.vocab = [" or ".join(names[k : k + n]) for k in range(0, 8, n)]
        for dl in (dls.train, dls.valid):
            dl.after_batch.add(Together(n))
    return dls


def fitted(kind, seed, cache, norm):
    "A teacher of a seed, fitted or read."
    file, model = Path(cache) / f"{kind.replace(' ', '-')}-{seed}.pt", small_teacher()
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(fit(with_lies(seed) if kind == "noisy labels" else images(seed), seed), file)
    model.load_state_dict(torch.load(file, weights_only=True))
    return Teacher(model, norm)


def with_lies(seed):
    "Other images, four in ten with a label drawn at random."
    dls = phantom_dls(NOISY, 8, 64, seed=7000 + seed, bs=BATCH, device="cpu")
    lies = np.random.default_rng(seed)
    said = lambda y: type(y)(lies.integers(8)) if lies.random() < WRONG else y
    dls.loaders[0] = dls.train.new([(x, said(y)) for x, y in dls.train.dataset])
    return dls


def fit(dls, seed):
    "The weights of a teacher."
    restart(dls, seed)
    model = small_teacher()
    learn = Learner(dls, model, loss_func=CrossEntropyLossFlat())
    restart(dls, seed)
    with learn.no_bar(), learn.no_logging():
        fit_steps(learn, TEACHER_STEPS, 5e-3, looks=1)
    return model.state_dict()


def teacher_of(case, seed, cache, dls):
    kind, how, n = CASES[case]
    norm = norm_of(dls)
    good = kind == "good"
    t = Teacher(phantom_teacher(), norm) if good else fitted(kind, seed, cache, norm)
    if how == "calibrated":
        t = calibrated(t, dls.valid)
    return Teacher(Changed(t.model, SURE if how == "sure" else 1.0, n), t.norm)


def accuracy(model, dl):
    z, y = predictions(model, dl)
    return float((z.argmax(1) == y).float().mean())


def trained(case, arm, seed, steps, lr, average, mixup, cache, **_):
    n = CASES[case][2]
    dls = images(seed, n)
    teacher = teacher_of(case, seed, cache, dls)
    restart(dls, seed)
    kw = dict(unlabelled="rest", unlabelled_share=EXTRA / BATCH)
    learn = distill(dls, small_student(8 // n), teacher, ARMS[arm], **kw)
    restart(learn.dls, seed)
    with learn.no_bar(), learn.no_logging():
        fit_steps(learn, steps, lr, looks=1, average=average, mixup=mixup)
    return learn


def tests(n=1):
    dls = phantom_dls(8, 1000, 64, seed=999, device="cpu")
    if n > 1:
        dls.valid.after_batch.add(Together(n))
    return dls.valid


def told(case, seed, cache):
    "What a teacher is worth on the test images, and how sure it is of it."
    dls = images(seed)
    z, y = predictions(teacher_of(case, seed, cache, dls), tests(CASES[case][2]))
    return {k: float(v) for k, v in calibration(z, y).items()}


def run(a):
    for seed in a.seeds:
        for case in a.cases or CASES:
            test = tests(CASES[case][2])
            key = dict(kind="teacher", case=case, seed=seed)
            print(one_run(a.cache, key, lambda: told(case, seed, a.cache)), flush=True)
            for arm in ARMS if CASES[case][1] == "as it is" else ("soft",):
                key = dict(kind="run", case=case, arm=arm, seed=seed, steps=STEPS) | RECIPE
                go = lambda: {"accuracy": accuracy(trained(cache=a.cache, **key).model, test)}
                print(one_run(a.cache, key, go), flush=True)


def collect(a):
    rows = kept_runs(a.cache)
    command = "python tools/experiments/softness.py run CACHE"
    write_json(a.out, dict(command=command, recipe=RECIPE, steps=STEPS, runs=rows))


if __name__ == "__main__":
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("what", choices=("run", "collect"))
    p.add_argument("cache", type=Path, help="folder of finished runs")
    p.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    p.add_argument("--cases", nargs="+", choices=CASES, help="some of them")
    p.add_argument("--out")
    a = p.parse_args()
    (run if a.what == "run" else collect)(a)
