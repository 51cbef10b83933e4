"""What a step with three teachers costs: against the three forwards, a plain student step and a
fusion step, each apart.

    python tools/bench/guidance.py [--out docs/results/bench_guidance.json]

Both ways to take a training step on the same batch are timed in turn in one run. The fusion learns
along (joint), which is the dearer of the two schedules.
"""

import warnings

import torch
import torch.nn.functional as F

warnings.filterwarnings("ignore", category=FutureWarning)
from fastai.learner import Learner
from fastai.optimizer import Adam
from kdmedlearn import distill, phantom_dls
from kdmedlearn.core.taps import last_map, taps
from kdmedlearn.methods.fusion import AttentionFusion, RelationAttention
from kdmedlearn.models.guided import GuidedStudent
from kdmedlearn.models.registry import create_model
from kdmedlearn.train.teachers import DEFAULT_ARCHS
from kdmedlearn.experiments.bench import mid_epoch
from timing import arguments, bench

a = arguments(__doc__, bs=32, size=64, repeats=31)
torch.manual_seed(0)
dls = phantom_dls(n_train=a.bs, n_valid=4, size=a.size, seed=0, bs=a.bs)
x, y = dls.train.one_batch()
xt, yt = (o.as_subclass(torch.Tensor) for o in (x, y))
teachers = [create_model(n).eval().to(x.device) for n in DEFAULT_ARCHS]


def student():
    torch.manual_seed(1)
    return GuidedStudent(8).to(x.device)


def seen():
    "The answer and the last map of each teacher."
    with torch.no_grad():
        for t in teachers:
            name = last_map(t, xt[:2])
            with taps(t, [name]) as f:
                out = t(xt)
            yield out, f[name]


answers, maps = map(list, zip(*seen()))
fusion = AttentionFusion()
fusion.build(answers, maps, 8)
fusion.to(x.device)
opt = Adam(fusion.parameters(), lr=1e-4)
plain = mid_epoch(Learner(dls, student()), (x, y))
kd = mid_epoch(distill(dls, student(), teachers, RelationAttention()), (x, y))


def apart():
    with torch.no_grad():
        for t in teachers:
            t(xt)
    plain()
    F.cross_entropy(fusion(answers, maps).out, yt).backward()
    opt.step()
    opt.zero_grad()


steps = {"apart": apart, "three teachers": kd}
bench("guidance", a, steps, "three teachers", "apart", x.is_cuda, teachers=list(DEFAULT_ARCHS))
