"""What a step of response distillation costs, against teacher forward without gradients + plain student step, in one run.

    python tools/bench_step.py [--out docs/results/bench_step.json]

Both are timed in turn, many times, on the same batch and with everything that fastai does around them; the ratio
is that of the medians. Ratios above 1 are what the callback adds.
"""

import argparse, json, warnings
from pathlib import Path
from statistics import median
from time import perf_counter

import torch

warnings.filterwarnings("ignore", category=FutureWarning)
from fastai.learner import Learner
from kdmedlearn import Response, distill, phantom_dls
from kdmedlearn.experiments.experiment import write_json
from kdmedlearn.models.small import small_student
from kdmedlearn.train.teachers import phantom_teacher
from stepping import ready

p = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
p.add_argument("--out")
p.add_argument("--bs", type=int, default=32)
p.add_argument("--size", type=int, default=64)
p.add_argument("--repeats", type=int, default=25)
p.add_argument("--steps", type=int, default=8, help="steps in one timing")
a = p.parse_args()

torch.manual_seed(0)
dls = phantom_dls(n_train=a.bs, n_valid=8, size=a.size, seed=0, bs=a.bs)
x, y = dls.train.one_batch()
teacher = phantom_teacher().to(x.device)
sync = torch.cuda.synchronize if x.is_cuda else lambda: None


def apart():
    "The two things that a step of distillation must do anyway, one after the other."
    with torch.no_grad():
        teacher(xt)
    plain.one_batch(0, (x, y))


plain, kd, xt = (
    ready(Learner(dls, small_student())),
    ready(distill(dls, small_student(), teacher, Response())),
    x.as_subclass(torch.Tensor),
)
timed = {
    "teacher forward + plain student step": apart,
    "distillation step": lambda: kd.one_batch(0, (x, y)),
}
times = {k: [] for k in timed}
for i in range(a.repeats + 2):
    for k, f in timed.items():
        sync()
        start = perf_counter()
        for _ in range(a.steps):
            f()
        sync()
        if i >= 2:
            times[k].append((perf_counter() - start) / a.steps * 1000)
ms = {k: median(v) for k, v in times.items()}
first, second = times.values()
ratio = ms["distillation step"] / ms["teacher forward + plain student step"]
per_round = [d / s for s, d in zip(first, second)]
for k, v in ms.items():
    print(f"{k:38} {v:7.2f} ms")
print(
    f"ratio {ratio:.3f} (median of the rounds' own ratios {median(per_round):.3f}); {a.bs} images"
    f" of {a.size} px, {x.device.type}, {torch.get_num_threads()} threads"
)
if a.out:  # one entry for each number of threads
    out = Path(a.out)
    rows = [
        r
        for r in (json.loads(out.read_text()) if out.exists() else [])
        if r["threads"] != torch.get_num_threads()
    ]
    rows.append(
        {
            "command": (
                f"python tools/bench_step.py --bs {a.bs} --size {a.size} --repeats {a.repeats}"
                f" --steps {a.steps}"
            ),
            "ms": ms,
            "ratio": ratio,
            "median of ratios": median(per_round),
            "device": x.device.type,
            "threads": torch.get_num_threads(),
            "repeats": a.repeats,
            "steps": a.steps,
            "torch": torch.__version__,
        }
    )
    write_json(out, sorted(rows, key=lambda r: r["threads"]))
