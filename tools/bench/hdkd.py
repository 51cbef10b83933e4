"""What a step of HDKD costs: against teacher forward + student forward and backward, and against
running the models again for each term.

    python tools/bench/hdkd.py [--out docs/results/bench_hdkd.json]

Four ways to take a training step on the same batch, timed in turn in one run:

    apart         teacher forward without gradients, then a plain student step: what no
                  distillation can do without
    HDKD          ours: every term from one forward of each
    stages again  the same loss as the released code takes it: stages 1..i of both models again
                  for feature term i
    models again  the same loss with a whole forward of both models for each feature term, as code
                  without hooks does

The last two live here and not in the library. That all three losses are the same number is checked
first.
"""

import warnings

import torch
import torch.nn.functional as F

warnings.filterwarnings("ignore", category=FutureWarning)
from fastai.learner import Learner
from kdmedlearn import distill, HDKD, phantom_dls
from kdmedlearn.core.taps import taps
from kdmedlearn.methods.hdkd import logit_loss
from kdmedlearn.models.hdkd import HDKDStudent, HDKDTeacher
from kdmedlearn.experiments.bench import mid_epoch
from timing import arguments, bench

a = arguments(__doc__, bs=8, size=224)
torch.manual_seed(0)
dls = phantom_dls(n_train=a.bs, n_valid=8, size=a.size, seed=0, bs=a.bs)
x, y = dls.train.one_batch()
xt, yt = (o.as_subclass(torch.Tensor) for o in (x, y))
# as the models lay their input out; stages called from here would not
xt = xt.contiguous(memory_format=torch.channels_last)
teacher = HDKDTeacher(8, img_size=a.size).eval().to(x.device)


def student():
    torch.manual_seed(1)
    return HDKDStudent(8, img_size=a.size).to(x.device)


def prefix(m, i):
    "The map after stage `i`, run from the image."
    h = xt
    for k in range(1, i + 1):
        h = getattr(m, f"stage{k}")(h)
    return h


def whole(m, i):
    "The same map, from a run of the whole model."
    with taps(m, [f"stage{i}"]) as f:
        m(xt)
    return f[f"stage{i}"]


def repeated_loss(s, feature):
    "The loss of HDKD() with new forwards of both models for each feature term."
    with torch.no_grad():
        t = teacher(xt)
    cls, distill_head = s.forward_heads(xt)
    loss = 0.5 * F.cross_entropy(cls, yt) + 0.5 * logit_loss(distill_head, t)
    for i in (1, 2, 3):
        with torch.no_grad():
            ft = feature(teacher, i)
        loss = loss + 10 * i * F.mse_loss(feature(s, i), ft)
    return loss


def repeated(learn, feature):
    repeated_loss(learn.model, feature).backward()
    learn.opt.step()
    learn.opt.zero_grad()


plain = mid_epoch(Learner(dls, student()), (x, y))
learn = distill(dls, student(), teacher, HDKD())
kd = mid_epoch(learn, (x, y))
again = {n: Learner(dls, student()) for n in ("stages again", "models again")}
for own in again.values():
    mid_epoch(own)


def apart():
    with torch.no_grad():
        teacher(xt)
    plain()


losses = [repeated_loss(student().train(), f).item() for f in (prefix, whole)]
kd()
losses.append(float(learn.loss))
assert max(losses) - min(losses) < 1e-3 * max(losses), losses

steps = {
    "apart": apart,
    "HDKD": kd,
    "stages again": lambda: repeated(again["stages again"], prefix),
    "models again": lambda: repeated(again["models again"], whole),
}
bench("hdkd", a, steps, "HDKD", "apart", x.is_cuda)
