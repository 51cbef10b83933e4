"""What a step of response distillation costs: against teacher forward + plain student step.

    python tools/bench/step.py [--out docs/results/bench_step.json]

Both are timed in turn, many times, on the same batch and with everything that fastai does around
them. Ratios above 1 are what the callback adds.
"""

import warnings

import torch

warnings.filterwarnings("ignore", category=FutureWarning)
from fastai.learner import Learner
from kdmedlearn import distill, phantom_dls, Response
from kdmedlearn.models.small import small_student
from kdmedlearn.train.teachers import phantom_teacher
from timing import arguments, bench, ready

a = arguments(__doc__, bs=32, size=64, repeats=25, steps=8)
torch.manual_seed(0)
dls = phantom_dls(n_train=a.bs, n_valid=8, size=a.size, seed=0, bs=a.bs)
x, y = dls.train.one_batch()
xt = x.as_subclass(torch.Tensor)
teacher = phantom_teacher().to(x.device)
plain = ready(Learner(dls, small_student()))
kd = ready(distill(dls, small_student(), teacher, Response()))


def apart():
    "The two things that a step of distillation must do anyway, one after the other."
    with torch.no_grad():
        teacher(xt)
    plain.one_batch(0, (x, y))


steps = {
    "teacher forward + plain student step": apart,
    "distillation step": lambda: kd.one_batch(0, (x, y)),
}
bench("step", a, steps, "distillation step", "teacher forward + plain student step", x.is_cuda)
