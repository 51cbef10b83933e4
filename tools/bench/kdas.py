"""What a step of KDAS costs: against teacher forward + student forward and backward.

    python tools/bench/kdas.py [--out docs/results/bench_kdas.json]

Polyp-PVT on PVTv2-B2 teaches Polyp-PVT on PVTv2-B0. Three ways to take a training step on the same
batch are timed in turn in one run. The last is that of the released code: the teacher's forward
keeps its graph, and the loss goes back through the teacher too.
"""

import warnings
from copy import deepcopy

import torch

warnings.filterwarnings("ignore", category=FutureWarning)
from fastai.learner import Learner
from kdmedlearn import distill, KDAS, phantom_dls
from kdmedlearn.core.outputs import main_output, Outputs
from kdmedlearn.core.step import DistillStep, total_loss
from kdmedlearn.methods.kdas import StructureLoss
from kdmedlearn.models.polyp_pvt import PolypPVT
from kdmedlearn.experiments.bench import mid_epoch, plain_step
from timing import arguments, bench

a = arguments(__doc__, bs=4, size=352)
torch.manual_seed(0)
dls = phantom_dls(n_train=a.bs, n_valid=4, size=a.size, task="segment", seed=0, bs=a.bs)
x, y = dls.train.one_batch()
xt, yt = (v.as_subclass(torch.Tensor) for v in (x, y))
teacher = PolypPVT("pvt_v2_b2").eval().to(x.device)


def student():
    torch.manual_seed(1)
    return PolypPVT("pvt_v2_b0").to(x.device)


plain = mid_epoch(Learner(dls, student(), loss_func=StructureLoss()), (x, y))
whole = deepcopy(teacher)  # its weights want gradients
kd = mid_epoch(distill(dls, student(), teacher, KDAS()), (x, y))


def apart():
    with torch.no_grad():
        teacher(xt)
    plain()


def loss_as_released(step):
    "The loss of `step`, of whose terms the teacher gets gradients, too."
    plan, told = step.plan(), Outputs(main_output(whole(xt)))
    seen = step.run_student((xt,), plan.student)
    terms = {"task": step.task_loss(seen, (yt,))}
    terms |= step.terms_of(step.make_pass(seen, (told,), (yt,)), plan.parts)
    return total_loss(terms, plan.weights)


step = DistillStep(student(), teacher, KDAS(), StructureLoss()).setup(xt, yt)
step.eval()
losses = [loss_as_released(step).item(), step(xt, yt).loss.item()]
assert abs(losses[0] - losses[1]) < 1e-3 * losses[1], losses
steps = {"apart": apart, "KDAS": kd, "released": plain_step(loss_as_released, step.train())}
bench("kdas", a, steps, "KDAS", "apart", x.is_cuda)
