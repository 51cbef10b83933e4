"""Kills a run at random moments, and fills the disk, until it is done all the same.

    python tools/faults.py [--kills 50] [--full 20] [--out docs/results/faults.json]

One life after the other works in the same folder: a cache of the teacher's answers, an experiment
of two seeds, a run of the tuning bench. A life ends after a random time by SIGKILL, or it may write
only so many bytes to a file, as on a disk that is full. After each death every file that has its
name is whole, the run folder lists, and the next life goes on. The last life ends by itself: its
scores and weights are those of an undisturbed one, to the bit. Needs os.fork (Linux, macOS).
"""

import argparse, json, os, random, resource, signal, sys, tempfile, time, warnings
from pathlib import Path

import numpy as np
import torch

warnings.filterwarnings("ignore")
from safetensors.torch import load_file
from kdmedlearn import cache_teacher, phantom_dls, Response
from kdmedlearn.core.teacher import Teacher
from kdmedlearn.experiments.experiment import experiment
from kdmedlearn.experiments.report import write_json
from kdmedlearn.models.small import small_student, small_teacher
from kdmedlearn.train.resume import Checkpoints
from kdmedlearn.tuning.runs import Runs
from kdmedlearn.tuning.search import train_run


def work(home: Path):
    "What a life has to do; what is done already is read."
    torch.manual_seed(0)
    teacher = Teacher(small_teacher(), name="teacher")
    dls = phantom_dls(48, 16, 32, seed=0, bs=8, device="cpu", augment=False)
    cached = cache_teacher(dls, teacher, home / "cache", views=1, log=None)
    how = dict(epochs=2, seeds=(0, 1), log=None, folder=home / "experiment")
    found = experiment(lambda seed: dls, small_student, teacher, Response(), **how)
    train_run(Runs(home / "runs"), dls, small_student, teacher, Response(), epochs=1)
    scores = {
        "scores": found["scores"].to_dict("list"),
        "history": found["history"].to_dict("list"),
    }
    nets = {k: v.model.state_dict() for k, v in found["learners"].items()}
    rows = torch.arange(48)
    answers = cached.teacher.store.take("out", rows)
    Checkpoints(home / "end").write({"scores": scores, "nets": nets, "answers": answers})


def life(home: Path, dies_after=None, largest=None, seed=0) -> str:
    "How a process ended that worked in `home`: done, killed, or the error that it told."
    told = home / "told"
    told.unlink(missing_ok=True)
    pid = os.fork()
    if not pid:
        try:
            sys.stdout = sys.stderr = open(os.devnull, "w")
            random.seed(os.getpid())
            if largest is not None:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (largest, resource.RLIM_INFINITY))
            work(home)
            os._exit(0)
        except BaseException as e:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
            told.write_text(f"{type(e).__name__}: {e}")
        finally:
            os._exit(1)
    if dies_after is not None:
        end = time.time() + dies_after
        while time.time() < end:
            if os.waitpid(pid, os.WNOHANG)[0]:
                return "error" if told.exists() else "done"
            time.sleep(0.002)
        os.kill(pid, signal.SIGKILL)
    code = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(code):
        return "killed"
    return told.read_text() if told.exists() else "done"


def check(home: Path):
    "Raise where a file that has its name is not whole, or a folder does not list."
    for f in home.rglob("*.safetensors"):
        load_file(f)
    for f in home.rglob("*.json"):
        if f.stat().st_size:  # a run takes its number by an empty file
            json.loads(f.read_text())
    statuses = {r["status"] for r in Runs(home / "runs").all()}
    assert all(s.split(":")[0] in ("done", "interrupted", "failed") for s in statuses), statuses
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for folder in {f.parent for f in home.rglob("0*-*.safetensors")}:
            Checkpoints(folder).read()


def same(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or a != a and b != b


def lives(root: Path, kills: int, full: int, seed: int) -> dict:
    "Deaths of both kinds, then the comparison."
    rng, root = random.Random(seed), Path(root)
    for name in ("alone", "run"):
        (root / name).mkdir()
    begun = time.time()
    assert (how := life(root / "alone")) == "done", how
    took, home, n = time.time() - begun, root / "run", {"killed": 0, "full": 0, "done early": 0}
    errors = set()
    while n["killed"] < kills or n["full"] < full:
        if n["full"] * kills <= n["killed"] * full and n["full"] < full:
            how = life(home, largest=rng.choice([0, 100, 1000, 10_000, 60_000, 150_000]))
            n["full"] += how != "done"
            errors |= {how.split(":")[0]} if how not in ("done", "killed") else set()
        else:
            how = life(home, dies_after=rng.uniform(0.02, 0.7 * took))
            n["killed"] += how == "killed"
        check(home)
        if how == "done":  # all of it is there: lose what was done last, and go on
            n["done early"] += 1
            for f in sorted((home / "experiment").rglob("*.safetensors"))[-2:]:
                f.unlink()
    assert (how := life(home)) == "done", how
    check(home)
    alone, run = (Checkpoints(root / k / "end").read() for k in ("alone", "run"))
    assert same(alone, run), "other numbers than those of an undisturbed life"
    return n | {"errors told": sorted(errors), "runs listed": len(Runs(home / "runs").all())}


def main():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--kills", type=int, default=50)
    p.add_argument("--full", type=int, default=20, help="lives on a disk that is full")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--out")
    a = p.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as root:
        found = lives(Path(root), a.kills, a.full, a.seed)
    command = f"python tools/faults.py --kills {a.kills} --full {a.full} --seed {a.seed}"
    print(found)
    if a.out:
        write_json(a.out, {"command": command} | found)


if __name__ == "__main__":
    main()
