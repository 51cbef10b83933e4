"""What a step of KDAS costs: against teacher forward + student forward and backward.

    python tools/bench/kdas.py [--out docs/results/bench_kdas.json]

Polyp-PVT on PVTv2-B2 teaches Polyp-PVT on PVTv2-B0. Both ways to take a training step on the same
batch are timed in turn in one run.
"""

import warnings

import torch

warnings.filterwarnings("ignore", category=FutureWarning)
from fastai.learner import Learner
from kdmedlearn import distill, KDAS, phantom_dls
from kdmedlearn.methods.kdas import StructureLoss
from kdmedlearn.models.polyp_pvt import PolypPVT
from kdmedlearn.experiments.bench import mid_epoch
from timing import arguments, bench

a = arguments(__doc__, bs=4, size=352)
torch.manual_seed(0)
dls = phantom_dls(n_train=a.bs, n_valid=4, size=a.size, task="segment", seed=0, bs=a.bs)
x, y = dls.train.one_batch()
xt = x.as_subclass(torch.Tensor)
teacher = PolypPVT("pvt_v2_b2").eval().to(x.device)


def student():
    torch.manual_seed(1)
    return PolypPVT("pvt_v2_b0").to(x.device)


plain = mid_epoch(Learner(dls, student(), loss_func=StructureLoss()), (x, y))
kd = mid_epoch(distill(dls, student(), teacher, KDAS()), (x, y))


def apart():
    with torch.no_grad():
        teacher(xt)
    plain()


steps = {"apart": apart, "KDAS": kd}
bench("kdas", a, steps, "KDAS", "apart", x.is_cuda)
