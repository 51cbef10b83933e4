"""How the cost of kept answers grows: with images, teachers and processes.

    python tools/bench/growth.py [--out docs/results/growth.json] [--images 500 5000 50000]

Made-up images of 32 pixels and small networks, so that it takes minutes. For each number of images:
asking the teacher for all of them, the files, opening them again, and an epoch of the student with
kept answers, with the teacher beside it, and alone. Then an epoch with more teachers, and in
several processes (gloo), each with one thread and 32 images in a batch.
"""

import argparse, json, subprocess, sys, tempfile, warnings
from pathlib import Path
from statistics import median
from time import perf_counter

import torch

warnings.filterwarnings("ignore")
from fastai.learner import Learner
from kdmedlearn import cache_teacher, distill, phantom_dls
from kdmedlearn.core.processes import processes
from kdmedlearn.data.loaders import restart
from kdmedlearn.data.views import with_views
from kdmedlearn.evaluation.cost import in_turn, ratio
from kdmedlearn.experiments.report import write_json
from kdmedlearn.models.registry import create_model
from kdmedlearn.train.several import is_first, join, leave, one_first, together

STEPS = 800  # of each kind of epoch, which take turns: in 3 rounds or more; the medians count
TEACHERS = ("small_teacher", "small_student", "guided_student")  # each cheaper than the one before


def seconds(f):
    "What `f` returns, and how long it took."
    start = perf_counter()
    out = f()
    return out, perf_counter() - start


def images(n):
    return phantom_dls(n, 32, 32, seed=0, bs=32, augment=False, device="cpu")


def networks(n):
    torch.manual_seed(0)
    return [create_model(k).eval() for k in TEACHERS[:n]]


def epoch(dls, teacher=None):
    "Seconds of an epoch of a student."
    restart(dls, 0)
    student = create_model("guided_student")
    learn = Learner(dls, student) if teacher is None else distill(dls, student, teacher)
    together(learn)
    with learn.no_bar(), learn.no_logging():
        return seconds(lambda: learn.fit(1, 1e-3))[1]


def kept(dls, teacher, folder):
    "Loaders and teachers with kept answers; several processes ask once."
    with one_first():
        return cache_teacher(dls, teacher, folder, views=1, log=None)


def of(n, k, folder, most):
    "All that is measured with `n` images and `k` teachers."
    dls, teacher = images(n), networks(k)
    cached, build = seconds(lambda: kept(dls, teacher, folder))
    files = [p for p in Path(folder).rglob("*") if p.is_file()]
    cached, opened = seconds(lambda: kept(dls, teacher, folder))
    views = with_views(dls, 1)  # the same pixels, answered anew
    ways = {
        "epoch with kept answers s": lambda: epoch(*cached),
        "epoch with the teacher s": lambda: epoch(views, teacher),
        "epoch alone s": lambda: epoch(views),
    }
    rounds = max(3, STEPS * 32 // n)
    times = in_turn(ways, min(rounds, most), warm_up=0, measure=lambda way: way())
    return {
        "images": n,
        "teachers": k,
        "build s": build,
        "files MB": sum(p.stat().st_size for p in files) / 1e6,
        "open s": opened,
        **{k: median(v) for k, v in times.items()},
        "kept to alone": ratio(times, "epoch with kept answers s", "epoch alone s")[0],
    }


def in_processes(n, n_images, folder):
    "An epoch with kept answers in `n` processes, which this program starts."
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    part = ["--part", folder, "--images", str(n_images)]
    done = subprocess.run([*run, str(n), __file__, *part], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    return json.loads(done.stdout.strip().splitlines()[-1])


def part_of_it(a):
    "One of several processes."
    torch.set_num_threads(1)
    join("gloo")
    n = a.images[0]
    cached = kept(images(n), networks(1), a.part)
    took = epoch(*cached)
    if is_first():
        print(json.dumps({"processes": processes(), "images": n, "epoch s": took}))
    leave()


def whole(a):
    found = {"images": [], "teachers": [], "processes": []}

    def keeps(what, row):
        print(what, {k: round(v, 2) for k, v in row.items()}, flush=True)
        found[what].append(row)

    middle = a.images[len(a.images) // 2]
    epoch(images(64))  # what is made once
    for n in a.images:
        with tempfile.TemporaryDirectory() as d:
            keeps("images", of(n, 1, d, a.rounds))
    for k in range(1, a.teachers + 1):
        with tempfile.TemporaryDirectory() as d:
            keeps("teachers", of(middle, k, d, a.rounds))
    with tempfile.TemporaryDirectory() as d:
        for n in range(1, a.processes + 1):
            keeps("processes", in_processes(n, middle, d))
    return found


p = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
p.add_argument("--images", type=int, nargs="+", default=[500, 5000, 50_000])
p.add_argument("--teachers", type=int, default=3, help=f"at most, of {', '.join(TEACHERS)}")
p.add_argument("--processes", type=int, default=2, help="at most")
p.add_argument("--rounds", type=int, default=15, help="of epochs, at most")
p.add_argument("--out", help="a JSON file")
p.add_argument("--part", help=argparse.SUPPRESS)  # a process that this program has started
a = p.parse_args()
if a.part:
    part_of_it(a)
else:
    found = whole(a)
    listed = " ".join(map(str, a.images))
    facts = {
        "command": f"python tools/bench/growth.py --images {listed}",
        "device": "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        **found,
    }
    if a.out:
        write_json(a.out, facts)
