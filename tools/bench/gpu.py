"""What steps cost on a GPU where the networks fill it: float32, half precision, compiled; memory;
loaders. At most 8 minutes.

    python tools/bench/gpu.py [--out docs/results/bench_gpu_large.json] [--minutes 8]
    python tools/bench/gpu.py --tiny          # the same on a processor with toys, to try the script

Batches of 64 images, 224 pixels a side for classes and 352 for masks. The file is written after
each measurement, so one that was stopped has what was measured. What does not fit the card or the
time is told in it.
"""

import argparse, tempfile, warnings
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter

import torch

warnings.filterwarnings("ignore")
from kdmedlearn import image_dls
from kdmedlearn.data.sets.endoscopy import write_phantom_endoscopy
from kdmedlearn.evaluation.cost import in_turn, peak_bytes, ratio, seconds_of
from kdmedlearn.experiments.bench import Case, plain_step, Ready
from kdmedlearn.experiments.report import write_json

CASES = (  # method, task, student, teachers, pixels, images
    Case("response", "classes", "resnet18", ("resnet50",), 224, 64),
    Case("feature", "classes", "resnet18", ("resnet50",), 224, 64),
    Case("hdkd", "classes", "hdkd_student", ("hdkd_teacher",), 224, 64),
    Case("kdas", "binary masks", "polyp_pvt_b0", ("polyp_pvt_b2",), 352, 64),
)
TINY = (
    Case("response", "classes", "small_student", ("small_teacher",), 32, 4),
    Case("kdas", "binary masks", "small_unet", ("large_unet",), 32, 4),
)
PRECISIONS = {"float32": None, "float16": torch.float16, "bfloat16": torch.bfloat16}


class Clock:
    "Says whether there is time for more."

    def __init__(self, minutes):
        self.end = perf_counter() + 60 * minutes

    def left(self):
        return self.end - perf_counter()


def ways_of(ready, dtype, compiled, a):
    "A step alone, the bound, and the taught step, all in one precision."
    device, x, y = a.device, ready.x, ready.y

    def inside(f):
        def run(*args):
            with torch.autocast(device, dtype) if dtype else nullcontext():
                return f(*args)

        return run

    step = ready.step()
    if compiled:
        step.compile(**({"backend": "eager"} if a.tiny else {}))
    hear, near = inside(ready.hear), plain_step(inside(ready.task), ready.student())
    return {
        "alone": plain_step(inside(ready.task), ready.student()),
        "bound": lambda: (hear(), near()),
        "step": plain_step(inside(lambda m: m(x, y).loss), step),
    }


def measured(ready, precision, compiled, a):
    ways = ways_of(ready, PRECISIONS[precision], compiled, a)
    first = seconds_of(ways["step"], device=a.device)
    times = in_turn(ways, a.rounds, measure=partial(seconds_of, device=a.device))
    case = ready.case
    return {
        "method": case.method,
        "student": case.student,
        "teachers": list(case.teachers),
        "size": case.size,
        "bs": case.bs,
        "precision": precision,
        "compiled": compiled,
        "first step s": first,
        "seconds": {k: median(v) for k, v in times.items()},
        "all": times,
        "step / bound": ratio(times, "step", "bound"),
        "bytes": {k: peak_bytes(way, a.device) for k, way in ways.items()},
    }


def loaders(a):
    "Seconds of a batch from files, read anew, with some numbers of processes."
    size, bs, n = (32, 4, 4) if a.tiny else (224, 64, 64)
    with tempfile.TemporaryDirectory() as d:
        write_phantom_endoscopy(Path(d) / "images", n_per_class=n, size=size)
        for workers in (0, 2) if a.tiny else (0, 4, 8, 16):
            kw = dict(size=size, bs=bs, cache=False, leaks=False, device=a.device)
            dls = image_dls(Path(d) / "images", num_workers=workers, **kw)
            seconds = seconds_of(lambda: [None for _ in dls.train], device=a.device)
            yield {"workers": workers, "seconds a batch": seconds / len(dls.train)}


def main(a):
    clock, out = (
        Clock(a.minutes),
        {
            "command": "python tools/bench/gpu.py" + " --tiny" * a.tiny,
            "card": torch.cuda.get_device_name() if a.device == "cuda" else "none",
            "torch": torch.__version__,
            "steps": [],
            "loaders": [],
            "left out": [],
        },
    )

    def keep(kind, entry, said):
        print(said, flush=True)
        out[kind].append(entry)
        if a.out:
            write_json(a.out, out)

    for entry in loaders(a):
        ms = 1000 * entry["seconds a batch"]
        keep("loaders", entry, f"loader, {entry['workers']} processes: {ms:.0f} ms a batch")
    whats = [(p, False) for p in PRECISIONS] + [("bfloat16", True)]  # compiling takes longest
    for what in whats:
        for case in TINY if a.tiny else CASES:
            name = f"{case.method}, {what[0]}" + ", compiled" * what[1]
            if clock.left() < (90 if what[1] else 30):
                keep("left out", f"{name}: no time", f"{name}: no time")
                continue
            try:
                e = measured(Ready(case, a.device), *what, a)
            except torch.OutOfMemoryError:
                keep("left out", f"{name}: no memory", f"{name}: no memory")
                continue
            ms, times = 1000 * e["seconds"]["step"], e["step / bound"][0]
            keep("steps", e, f"{name}: {ms:.1f} ms, {times:.2f} of the bound")


p = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
p.add_argument("--out", help="a JSON file")
p.add_argument("--minutes", type=float, default=8)
p.add_argument("--rounds", type=int, default=15)
p.add_argument("--tiny", action="store_true", help="toys on a processor: to try the script")
a = p.parse_args()
a.device = "cpu" if a.tiny or not torch.cuda.is_available() else "cuda"
if a.device == "cpu" and not a.tiny:
    raise SystemExit("there is no GPU here; --tiny tries the script on a processor")
main(a)
