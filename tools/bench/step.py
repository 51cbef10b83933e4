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
from kdmedlearn.experiments.bench import mid_epoch
from timing import arguments, bench

a = arguments(__doc__, bs=32, size=64, repeats=25, steps=8)
torch.manual_seed(0)
dls = phantom_dls(n_train=a.bs, n_valid=8, size=a.size, seed=0, bs=a.bs)
x, y = dls.train.one_batch()
xt = x.as_subclass(torch.Tensor)
teacher = phantom_teacher().to(x.device)
plain = mid_epoch(Learner(dls, small_student()), (x, y))
kd = mid_epoch(distill(dls, small_student(), teacher, Response()), (x, y))


def apart():
    "The two things that a step of distillation must do anyway, one after the other."
    with torch.no_grad():
        teacher(xt)
    plain()


steps = {
    "teacher forward + plain student step": apart,
    "distillation step": kd,
}
bench("step", a, steps, "distillation step", "teacher forward + plain student step", x.is_cuda)
