"""What the benchmarks share: their arguments, one way to compare and to keep numbers. The timing
loop is the library's, kdmedlearn.evaluation.cost."""

import argparse, json, platform
from functools import partial
from pathlib import Path
from statistics import median

import torch
from kdmedlearn.evaluation.cost import in_turn, ratio, seconds_of
from kdmedlearn.experiments.report import write_json


def arguments(doc, bs, size, repeats=9, steps=1):
    "The arguments of a benchmark, with its defaults; `doc` is its docstring."
    p = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--out", help="a JSON file; it keeps one entry for each number of threads")
    p.add_argument("--bs", type=int, default=bs, help="images in a batch")
    p.add_argument("--size", type=int, default=size, help="pixels of a side")
    p.add_argument("--repeats", type=int, default=repeats, help="rounds that are counted")
    p.add_argument("--steps", type=int, default=steps, help="steps in one timing")
    p.add_argument("--threads", type=int, help="default: as PyTorch chooses")
    a = p.parse_args()
    if a.threads:
        torch.set_num_threads(a.threads)
    return a


def compared(times, way, base):
    """Medians, `way` against `base` as the ratio of the medians, and as the median of the rounds'
    own ratios."""
    seconds = {k: median(v) for k, v in times.items()}
    return {
        "seconds": seconds,
        "all": times,
        "ratio": seconds[way] / seconds[base],
        "median of ratios": ratio(times, way, base)[0],
    }


def command_of(name, a):
    "The command that takes this measurement again; the number of threads is told apart."
    given = {k: v for k, v in vars(a).items() if k not in ("out", "threads")}
    return " ".join([f"python tools/bench/{name}.py", *(f"--{k} {v}" for k, v in given.items())])


def keep(out, entry):
    """Put `entry` into the file `out`, in the place of an earlier one of the same device and number
    of threads."""
    out, place = Path(out), lambda e: (e["device"], e["threads"])
    old = json.loads(out.read_text()) if out.exists() else []
    entries = [e for e in old if place(e) != place(entry)] + [entry]
    write_json(out, sorted(entries, key=place))


def bench(name, a, steps, way, base, cuda=False, **more):
    """Time the training steps `steps` (name -> function) in turn, print what came out, and keep it
    if `a.out`."""
    device = "cuda" if cuda else "cpu"
    times = in_turn(steps, a.repeats, measure=partial(seconds_of, steps=a.steps, device=device))
    res = compared(times, way, base)
    width = max(map(len, times))
    for k, v in times.items():
        low, high = 1000 * min(v), 1000 * max(v)
        print(f"{k:{width}} {1000 * res['seconds'][k]:8.1f} ms   (from {low:.1f} to {high:.1f})")
    print(
        f"{way} / {base}: {res['ratio']:.3f}, median of the rounds' own ratios"
        f" {res['median of ratios']:.3f}; {a.bs} images of {a.size} px, {device},"
        f" {torch.get_num_threads()} threads"
    )
    entry = {
        "command": command_of(name, a),
        **more,
        **res,
        "device": device,
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "repeats": a.repeats,
        "steps": a.steps,
        "torch": torch.__version__,
    }
    if a.out:
        keep(a.out, entry)
    return entry
