"""What a step of KDAS costs: against teacher forward + student forward and backward.

    python tools/bench_kdas.py [--out docs/results/bench_kdas.json]

Polyp-PVT on PVTv2-B2 teaches Polyp-PVT on PVTv2-B0. Both ways to take a training step on the same batch are timed in
turn in one run; the ratio is of the medians of the rounds' own ratios.
"""

import argparse, platform, warnings
from pathlib import Path
from statistics import median
from time import perf_counter

import torch

warnings.filterwarnings("ignore", category=FutureWarning)
from fastai.learner import Learner
from kdmedlearn import KDAS, distill, phantom_dls
from kdmedlearn.experiments.experiment import write_json
from kdmedlearn.methods.kdas import StructureLoss
from kdmedlearn.models.polyp_pvt import PolypPVT
from stepping import ready

p = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
p.add_argument("--out")
p.add_argument("--bs", type=int, default=4)
p.add_argument("--size", type=int, default=352)
p.add_argument("--repeats", type=int, default=9)
a = p.parse_args()

torch.manual_seed(0)
dls = phantom_dls(n_train=a.bs, n_valid=4, size=a.size, task="segment", seed=0, bs=a.bs)
x, y = dls.train.one_batch()
xt = x.as_subclass(torch.Tensor)
teacher = PolypPVT("pvt_v2_b2").eval().to(x.device)
sync = torch.cuda.synchronize if x.is_cuda else lambda: None


def student():
    torch.manual_seed(1)
    return PolypPVT("pvt_v2_b0").to(x.device)


def apart():
    with torch.no_grad():
        teacher(xt)
    plain.one_batch(0, (x, y))


plain = ready(Learner(dls, student(), loss_func=StructureLoss()))
kd = ready(distill(dls, student(), teacher, KDAS()))
for learn in (plain, kd):
    learn.model.train()
timed = {"apart": apart, "KDAS": lambda: kd.one_batch(0, (x, y))}
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
ratio = median(b / c for b, c in zip(times["KDAS"], times["apart"]))
for k, v in s.items():
    print(f"{k:6} {v:6.3f} s   (from {min(times[k]):.3f} to {max(times[k]):.3f})")
print(
    f"KDAS / apart {ratio:.3f}; {a.bs} images of {a.size} px, {x.device.type},"
    f" {torch.get_num_threads()} threads"
)
if a.out:
    write_json(
        Path(a.out),
        {
            "command": (
                f"python tools/bench_kdas.py --bs {a.bs} --size {a.size} --repeats {a.repeats}"
            ),
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
