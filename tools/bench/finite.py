"""What it costs to look at each loss: a step of response distillation with the guard and without.

    python tools/bench/finite.py [--out docs/results/bench_finite.json]

Three ways, timed in turn in one run: without `FiniteLoss`; with it, as `distill` brings it along;
and with it as on a GPU, where flags are kept in every step and read every 50 steps. The last one is
timed on the CPU here, too.
"""

import warnings

import torch

warnings.filterwarnings("ignore", category=FutureWarning)
from kdmedlearn import distill, phantom_dls, Response
from kdmedlearn.experiments.bench import mid_epoch
from kdmedlearn.models.small import small_student
from kdmedlearn.train.finite import FiniteLoss
from kdmedlearn.train.teachers import phantom_teacher
from timing import arguments, bench

a = arguments(__doc__, bs=32, size=64, repeats=25, steps=8)
torch.manual_seed(0)
dls = phantom_dls(n_train=a.bs, n_valid=8, size=a.size, seed=0, bs=a.bs)
batch = dls.train.one_batch()
teacher = phantom_teacher().to(batch[0].device)


def step(guard):
    learn = distill(dls, small_student(), teacher, Response())
    learn.remove_cbs(learn.finite_loss)
    if guard is not None:
        learn.add_cb(guard)
    return mid_epoch(learn, batch)


steps = {
    "without": step(None),
    "guarded": step(FiniteLoss()),
    "as on a GPU": step(FiniteLoss(at_once=False)),
}
bench("finite", a, steps, "guarded", "without", batch[0].is_cuda)
