"""What a step with three teachers costs: against the three forwards, a plain student step and a fusion step, each apart.

    python tools/bench_guidance.py [--out docs/results/bench_guidance.json]

Both ways to take a training step on the same batch are timed in turn in one run; the ratio is of the medians of the
rounds' own ratios. The fusion learns along (joint), which is the dearer of the two schedules.
"""

import argparse, platform, warnings
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
import torch.nn.functional as F

warnings.filterwarnings("ignore", category=FutureWarning)
from fastai.learner import Learner
from fastai.optimizer import Adam
from kdmedlearn import distill, phantom_dls
from kdmedlearn.experiments.experiment import write_json
from kdmedlearn.methods.fusion import AttentionFusion, RelationAttention
from kdmedlearn.models.guided import GuidedStudent
from kdmedlearn.models.small import create_model
from kdmedlearn.core.taps import last_map, taps
from kdmedlearn.train.teachers import DEFAULT_ARCHS
from stepping import ready

p = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
p.add_argument("--out")
p.add_argument("--bs", type=int, default=32)
p.add_argument("--size", type=int, default=64)
p.add_argument("--repeats", type=int, default=31)
a = p.parse_args()

torch.manual_seed(0)
dls = phantom_dls(n_train=a.bs, n_valid=4, size=a.size, seed=0, bs=a.bs)
x, y = dls.train.one_batch()
xt, yt = (o.as_subclass(torch.Tensor) for o in (x, y))
teachers = [create_model(n).eval().to(x.device) for n in DEFAULT_ARCHS]
names = [last_map(t, xt[:2]) for t in teachers]
sync = torch.cuda.synchronize if x.is_cuda else lambda: None


def student():
    torch.manual_seed(1)
    return GuidedStudent(8).to(x.device)


def seen():
    with torch.no_grad():
        for t, n in zip(teachers, names):
            with taps(t, [n]) as f:
                out = t(xt)
            yield out, f[n]


answers, maps = map(list, zip(*seen()))
fusion = AttentionFusion()
fusion.build(answers, maps, 8)
fusion.to(x.device)
opt = Adam(fusion.parameters(), lr=1e-4)


def apart():
    with torch.no_grad():
        for t in teachers:
            t(xt)
    plain.one_batch(0, (x, y))
    F.cross_entropy(fusion(answers, maps).out, yt).backward()
    opt.step()
    opt.zero_grad()


plain, kd = ready(Learner(dls, student())), ready(
    distill(dls, student(), teachers, RelationAttention())
)
for learn in (plain, kd):
    learn.model.train()
timed = {"apart": apart, "three teachers": lambda: kd.one_batch(0, (x, y))}
times = {k: [] for k in timed}
for i in range(a.repeats + 2):
    for k, f in timed.items() if i % 2 else reversed(timed.items()):
        sync()
        start = perf_counter()
        f()
        sync()
        if i >= 2:
            times[k].append(perf_counter() - start)
s = {k: median(v) for k, v in times.items()}
ratio = median(b / c for b, c in zip(times["three teachers"], times["apart"]))
for k, v in s.items():
    print(f"{k:15} {v:6.3f} s   (from {min(times[k]):.3f} to {max(times[k]):.3f})")
print(
    f"three teachers / apart {ratio:.3f}; {a.bs} images of {a.size} px, {x.device.type},"
    f" {torch.get_num_threads()} threads"
)
if a.out:
    write_json(
        Path(a.out),
        {
            "command": (
                f"python tools/bench_guidance.py --bs {a.bs} --size {a.size} --repeats {a.repeats}"
            ),
            "teachers": list(DEFAULT_ARCHS),
            "seconds": s,
            "all": times,
            "ratio": ratio,
            "device": x.device.type,
            "machine": platform.machine(),
            "threads": torch.get_num_threads(),
            "repeats": a.repeats,
            "torch": torch.__version__,
        },
    )
