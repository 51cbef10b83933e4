"""What the benchmarks share: their arguments, a Learner in the middle of an epoch, one timing loop,
one way to keep numbers."""

import argparse, json, platform
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from kdmedlearn.experiments.report import write_json

WARM_UP = 2  # rounds that are not counted


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


def ready(learn, lr=1e-4):
    """`learn` in the middle of an epoch, without bars: `learn.one_batch(0, (x, y))` is then a
    training step with all that fastai does around it."""
    learn.remove_cb(learn.progress)
    learn.fit(0, lr)
    learn.n_epoch = 1
    learn("before_fit")
    learn("before_epoch")
    learn("before_train")
    learn.dl, learn.n_iter = learn.dls.train, 1
    learn.model.train()
    return learn


def seconds_of(step, steps=1, cuda=False):
    "A function that takes `step` `steps` times and returns the seconds of one."
    sync = torch.cuda.synchronize if cuda else lambda: None

    def run():
        sync()
        start = perf_counter()
        for _ in range(steps):
            step()
        sync()
        return (perf_counter() - start) / steps

    return run


def in_turn(ways, repeats, warm_up=WARM_UP):
    """Seconds of each way, round by round: `ways` are functions that return seconds. They take
    their turn, forwards and backwards, so that what slows the machine for a while slows all of
    them."""
    times = {k: [] for k in ways}
    for i in range(warm_up + repeats):
        for k, way in ways.items() if i % 2 else reversed(ways.items()):
            s = way()
            if i >= warm_up:
                times[k].append(s)
    return times


def compared(times, way, base):
    """Medians, `way` against `base` as the ratio of the medians, and as the median of the rounds'
    own ratios."""
    seconds = {k: median(v) for k, v in times.items()}
    return {
        "seconds": seconds,
        "all": times,
        "ratio": seconds[way] / seconds[base],
        "median of ratios": median(w / b for w, b in zip(times[way], times[base])),
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
    ways = {k: seconds_of(f, a.steps, cuda) for k, f in steps.items()}
    times = in_turn(ways, a.repeats)
    res = compared(times, way, base)
    width = max(map(len, times))
    for k, v in times.items():
        low, high = 1000 * min(v), 1000 * max(v)
        print(f"{k:{width}} {1000 * res['seconds'][k]:8.1f} ms   (from {low:.1f} to {high:.1f})")
    device = "cuda" if cuda else "cpu"
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
