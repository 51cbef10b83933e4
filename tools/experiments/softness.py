"""When does the softness of a teacher's answers help, and not only its labels? Phantom images.

    python tools/experiments/softness.py run CACHE [--seeds 0 1 2 3 4] [--cases good ...]
    python tools/experiments/softness.py collect CACHE --out docs/results/softness.json
    python tools/experiments/softness.py restore CACHE --out docs/results/softness.json

Plan, written before the runs that count. (A first one was stopped after a teacher's score: its soft
answers had T = 4 and its hard ones T = 1, and mixup, of which a hard answer knows one image alone.)

- Student and images are those of `phantom_unlabelled.py`: 51 thousand parameters, 200 images with a
  label and 2,000 without, 64 pixels, 32 images in a batch, of which 24 have no label. 1,000 steps,
  the one-cycle policy to 1e-2, no mixup.
- Cases. `good`: the package's teacher. `few labels`: its network, fitted on the student's own 200
  images. `noisy labels`: fitted on 2,000 other images, four in ten of whose labels are drawn anew.
  Both for 600 steps of 32 to 5e-3, a recipe that was not tuned. Each of the three also
  `calibrated`: its logits divided by the temperature that fits the 1,000 labelled validation
  images. `four classes`, `two classes`: the good teacher, neighbours in the list of classes put
  together, their probabilities added; so the task changes with the number.
- Arms: `soft`, `Response(T=1)`; `hard`, `PseudoLabels()`. They differ in the target alone: the
  teacher's probabilities, or 1 for its first class. Calibration does not change what is hard.
  Beside them `soft, T = 4`, the usual temperature, and the student alone.
- The unit of the error is the seed: other images, other first weights, another teacher where one
  is fitted.
- Test: 1,000 images of seed 999. Nothing is chosen on it.
- What decides: soft minus hard, paired by seed; with five seeds 2.8 standard errors are a
  difference (95 %).
"""

import argparse, os, sys, warnings
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
from phantom_unlabelled import BATCH, LABELS, MORE
from runs import kept_runs, one_run, restore

SETTINGS = dict(steps=1000, lr=1e-2, extra=24)  # of a student; images without a label in a batch
FITTING = dict(teacher_steps=600, teacher_lr=5e-3, others=2000, redrawn=0.4)
CASES = {  # name -> (teacher, calibrated, classes put together)
    "good": ("good", False, 1),
    "good, calibrated": ("good", True, 1),
    "few labels": ("few labels", False, 1),
    "few labels, calibrated": ("few labels", True, 1),
    "noisy labels": ("noisy labels", False, 1),
    "noisy labels, calibrated": ("noisy labels", True, 1),
    "four classes": ("good", False, 2),
    "two classes": ("good", False, 4),
}
ARMS = {
    "alone": None,
    "soft": Response(T=1.0),
    "hard": PseudoLabels(),
    "soft, T = 4": Response(T=4.0),
}


def arms_of(case):
    "A calibrated teacher has the hard answers of the one before, and the same student alone."
    teacher, again, n = CASES[case]
    if again:
        return ["soft"]
    return [a for a in ARMS if a != "alone" or teacher == "good"]


class Together(Transform):
    "Classes 0 ... n - 1 are one, n ... 2n - 1 the next."

    order = 100

    def __init__(self, n):
        super().__init__()
        self.n = n

    def encodes(self, y: TensorCategory):
        return y // self.n


class Added(nn.Module):
    "The logits of a network, with the probabilities of `n` classes added."

    def __init__(self, model, n):
        super().__init__()
        self.model, self.n = model, n

    def forward(self, x):
        return self.model(x).unflatten(1, (-1, self.n)).logsumexp(2)


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
    name = f"{kind.replace(' ', '-')}-{'-'.join(f'{v:g}' for v in FITTING.values())}-{seed}.pt"
    file, model = Path(cache) / name, small_teacher()
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(f".{os.getpid()}.part")
        torch.save(fit(redrawn(seed) if kind == "noisy labels" else images(seed), seed), part)
        os.replace(part, file)
    model.load_state_dict(torch.load(file, weights_only=True))
    return Teacher(model, norm)


def redrawn(seed):
    "Other images, a part of whose labels are drawn anew."
    dls = phantom_dls(FITTING["others"], 8, 64, seed=7000 + seed, bs=BATCH, device="cpu")
    lies = np.random.default_rng(seed)
    said = lambda y: type(y)(lies.integers(8)) if lies.random() < FITTING["redrawn"] else y
    dls.loaders[0] = dls.train.new([(x, said(y)) for x, y in dls.train.dataset])
    return dls


def fit(dls, seed):
    "The weights of a teacher."
    restart(dls, seed)
    model = small_teacher()
    learn = Learner(dls, model, loss_func=CrossEntropyLossFlat())
    restart(dls, seed)
    with learn.no_bar(), learn.no_logging():
        fit_steps(learn, FITTING["teacher_steps"], FITTING["teacher_lr"], looks=1)
    return model.state_dict()


def teacher_of(case, seed, cache, dls):
    kind, again, n = CASES[case]
    norm = norm_of(dls)
    good = kind == "good"
    t = Teacher(phantom_teacher(), norm) if good else fitted(kind, seed, cache, norm)
    t = calibrated(t, dls.valid) if again else t
    tau = getattr(t, "tau", 1.0)
    t = Teacher(Added(t.model, n), t.norm) if n > 1 else t
    t.tau = tau
    return t


def accuracy(model, dl):
    z, y = predictions(model, dl)
    return float((z.argmax(1) == y).float().mean())


def trained(case, arm, seed, cache, steps, lr, extra, **_):
    n = CASES[case][2]
    dls = images(seed, n)
    restart(dls, seed)
    student = small_student(8 // n)
    if ARMS[arm] is None:
        learn = Learner(dls, student)
    else:
        kw = dict(unlabelled="rest", unlabelled_share=extra / BATCH)
        learn = distill(dls, student, teacher_of(case, seed, cache, dls), ARMS[arm], **kw)
    restart(learn.dls, seed)
    with learn.no_bar(), learn.no_logging():
        fit_steps(learn, steps, lr, looks=1)
    return learn


def tests(n=1):
    dls = phantom_dls(8, 1000, 64, seed=999, device="cpu")
    if n > 1:
        dls.valid.after_batch.add(Together(n))
    return dls.valid


def told(case, seed, cache, test):
    "What a teacher is worth on the test images, how sure it is of it, and its temperature."
    t = teacher_of(case, seed, cache, images(seed))
    return {k: float(v) for k, v in calibration(*predictions(t, test)).items()} | {"tau": t.tau}


def run(a):
    test = {n: tests(n) for n in {n for *_, n in CASES.values()}}
    for seed in a.seeds:
        for case in a.cases or CASES:
            at = test[CASES[case][2]]
            own = {} if CASES[case][0] == "good" else FITTING
            key = dict(kind="teacher", case=case, seed=seed) | own
            print(one_run(a.cache, key, lambda: told(case, seed, a.cache, at)), flush=True)
            for arm in arms_of(case):
                key = dict(kind="run", case=case, arm=arm, seed=seed) | SETTINGS | own
                go = lambda: {"accuracy": accuracy(trained(cache=a.cache, **key).model, at)}
                print(one_run(a.cache, key, go), flush=True)


def collect(a):
    rows = kept_runs(a.cache)
    command = "python tools/experiments/softness.py run CACHE"
    facts = dict(labels=LABELS, more=MORE, batch=BATCH) | SETTINGS | FITTING
    write_json(a.out, dict(command=command, **facts, runs=rows))


if __name__ == "__main__":
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("what", choices=("run", "collect", "restore"))
    p.add_argument("cache", type=Path, help="folder of finished runs")
    p.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    p.add_argument("--cases", nargs="+", choices=CASES, help="some of them")
    p.add_argument("--out")
    a = p.parse_args()
    back = lambda a: restore(a.out, a.cache)
    {"run": run, "collect": collect, "restore": back}[a.what](a)
