"""What a step of HDKD costs: against teacher forward + student forward and backward, and against running the models again for each term.

    python tools/bench_hdkd.py [--out docs/results/bench_hdkd.json]

Four ways to take a training step on the same batch, timed in turn in one run, ratios of medians:

    apart        teacher forward without gradients, then a plain student step: what no distillation can do without
    HDKD         ours: every term from one forward of each
    stages again the same loss as the released code takes it: stages 1..i of both models run again for feature term i
    models again the same loss with a whole forward of both models for each feature term, as code does that knows no hooks

The last two live here and not in the library. That all three losses are the same number is checked first.
"""

import argparse, json, platform, warnings
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
import torch.nn.functional as F

warnings.filterwarnings("ignore", category=FutureWarning)
from fastai.learner import Learner
from kdmedlearn import HDKD, distill, phantom_dls
from kdmedlearn.experiments.experiment import write_json
from kdmedlearn.methods.hdkd import logit_loss
from kdmedlearn.models.hdkd import HDKDStudent, HDKDTeacher
from kdmedlearn.core.taps import taps
from stepping import ready

p = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
p.add_argument("--out")
p.add_argument("--bs", type=int, default=8)
p.add_argument("--size", type=int, default=224)
p.add_argument("--repeats", type=int, default=9)
a = p.parse_args()

torch.manual_seed(0)
dls = phantom_dls(n_train=a.bs, n_valid=8, size=a.size, seed=0, bs=a.bs)
x, y = dls.train.one_batch()
xt, yt = (o.as_subclass(torch.Tensor) for o in (x, y))
xt = xt.contiguous(
    memory_format=torch.channels_last
)  # as the models do; stages called from here would not
teacher = HDKDTeacher(8, img_size=a.size).eval().to(x.device)
sync = torch.cuda.synchronize if x.is_cuda else lambda: None


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


def apart():
    with torch.no_grad():
        teacher(xt)
    plain.one_batch(0, (x, y))


plain, kd = ready(Learner(dls, student())), ready(distill(dls, student(), teacher, HDKD()))
again = {n: ready(Learner(dls, student())) for n in ("stages again", "models again")}
for learn in (plain, kd, *again.values()):
    learn.model.train()
losses = [repeated_loss(student().train(), f).item() for f in (prefix, whole)]
kd.one_batch(0, (x, y))
losses.append(float(kd.loss))
assert max(losses) - min(losses) < 1e-3 * max(losses), losses

timed = {
    "apart": apart,
    "HDKD": lambda: kd.one_batch(0, (x, y)),
    "stages again": lambda: repeated(again["stages again"], prefix),
    "models again": lambda: repeated(again["models again"], whole),
}
times = {k: [] for k in timed}
for i in range(a.repeats + 2):
    for k, f in timed.items():
        sync()
        start = perf_counter()
        f()
        sync()
        if i >= 2:
            times[k].append(perf_counter() - start)
s = {k: median(v) for k, v in times.items()}
for k, v in s.items():
    print(
        f"{k:14} {v:6.3f} s   {v / s['HDKD']:.2f} times HDKD   (from {min(times[k]):.3f} to"
        f" {max(times[k]):.3f})"
    )
print(
    f"HDKD / apart {s['HDKD'] / s['apart']:.3f}; {a.bs} images of {a.size} px, {x.device.type},"
    f" {torch.get_num_threads()} threads"
)
if a.out:
    write_json(
        Path(a.out),
        {
            "command": (
                f"python tools/bench_hdkd.py --bs {a.bs} --size {a.size} --repeats {a.repeats}"
            ),
            "seconds": s,
            "all": times,
            "ratio to apart": s["HDKD"] / s["apart"],
            "device": x.device.type,
            "machine": platform.machine(),
            "threads": torch.get_num_threads(),
            "repeats": a.repeats,
            "torch": torch.__version__,
        },
    )
