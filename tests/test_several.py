"""Two processes with half of the batch each train what one process trains with all of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import warm
from helpers import folder_set

SCRIPT = Path(__file__).parent / "several_processes.py"
CASES = (
    "response feature similarity rkd pseudolabels unlabelled relation hdkd kdas softmasks"
    " bernoullikl pixelkl ensemble cached dist dkd pkd ofa cwd"
).split()


@pytest.fixture(scope="module")
def one_and_two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    got = {}
    for n in (1, 2):
        file = folder / f"{n}.json"
        for done in warm.run_ranks(n, SCRIPT, file, cwd=folder):
            assert done.returncode == 0, done.stderr[-3000:]
        got[n] = json.loads(file.read_text())
    return got


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_what_one_trains(one_and_two, case):
    one, two = (one_and_two[n][case] for n in (1, 2))
    a, b = torch.tensor(one["weights"]), torch.tensor(two["weights"])
    assert a.shape == b.shape and (a - b).abs().max() < 1e-6
    assert two["drift"] == 0
    assert torch.allclose(torch.tensor(one["scores"]), torch.tensor(two["scores"]), atol=1e-5)
    assert "SyncNorm" not in two["norms"]  # the student is a plain one afterwards


# --- the command

COMMAND = """
import sys
from functools import partial
import kdmedlearn.experiments.experiment as experiment
import kdmedlearn.train.teachers as teachers
from fastai.optimizer import SGD

# Adam makes a step of full size of a gradient that is nothing but rounding
alone = "CheckedLearner"
for module, name in ((experiment, alone), (experiment, "distill"), (teachers, alone)):
    own = getattr(module, name)
    setattr(module, name, partial(own, opt_func=SGD, moms=(0, 0, 0)))
from kdmedlearn.cli import app

app(sys.argv[1:])
"""


def told(n, script, folder, *args):
    "The command in `n` processes, several started by torchrun: its output and exit code."
    env = dict(os.environ, OMP_NUM_THREADS="1")
    if n == 1:
        return warm.run(script, *args, cwd=folder, env=env)
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    command = [*run, str(n), str(script), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=env)


@pytest.mark.slow
def test_the_command_in_two_processes(tmp_path):
    script = tmp_path / "command.py"
    script.write_text(COMMAND)
    folder_set(tmp_path / "shapes", n=10)  # 16 to train on, 4 to validate
    short = "--epochs 2 --size 32 --valid .2 --modality none --method feature".split()
    for n in (1, 2):
        asked = ("distill", "--data", "shapes", "--runs", f"runs-{n}", "--bs", 8 // n, *short)
        r = told(n, script, tmp_path, *asked)
        assert r.returncode == 0, r.stdout + r.stderr[-3000:]
        assert r.stdout.count("report: ") == 1 and r.stdout.count("training the teacher") == 1
        assert ("2 processes, each with 4 images" in r.stdout) == (n == 2)
    one, two = (tmp_path / f"runs-{n}" / "shapes" for n in (1, 2))
    assert {p.name for p in one.iterdir()} == {p.name for p in two.iterdir()}
    assert len(list((tmp_path / "runs-2").iterdir())) == 1  # one folder, not two
    for name in ("teacher", "student"):
        a, b = (load_file(run / f"{name}.safetensors") for run in (one, two))
        for k, v in a.items():
            assert torch.allclose(v.double(), b[k].double(), rtol=0, atol=1e-6), k
    a, b = (json.loads((run / "metrics.json").read_text()) for run in (one, two))
    for before, after in zip(a["seeds"], b["seeds"]):
        assert {k for k in before if before[k] != pytest.approx(after[k], abs=1e-5)} == set()
    config = [json.loads((run / "config.json").read_text()) for run in (one, two)]
    assert [c.get("processes") for c in config] == [None, 2]


@pytest.mark.slow
def test_what_several_processes_cannot_do_is_said_once(tmp_path):
    script = tmp_path / "command.py"
    script.write_text(COMMAND)
    for asked, words in (
        (("demo",), "Error: only kdmedlearn distill runs in several processes"),
        (("distill", "--resume", "runs"), "Error: --resume is for one process"),
    ):
        ranks = warm.run_ranks(2, script, *asked, cwd=tmp_path)
        said = "".join(r.stderr for r in ranks)
        assert all(r.returncode for r in ranks) and said.count(words) == 1, said[-3000:]


BY_RANK = """
import os, torch
from kdmedlearn import distill, phantom_dls, Response
from kdmedlearn.models.small import small_student, small_teacher
from kdmedlearn.train.several import join, leave, together

torch.set_num_threads(1)
join("gloo")
second = os.environ["RANK"] == "1"
for case in ("images", "other images", "batch", "method", "epochs", "rate", "nothing"):
    of = lambda k, a, b: b if second and k == case else a
    torch.manual_seed(0)
    kw = dict(size=32, seed=of("other images", 0, 1), bs=of("batch", 4, 2), device="cpu")
    dls = phantom_dls(of("images", 16, 24), 8, **kw)
    taught = distill(dls, small_student(), small_teacher(), Response(T=of("method", 4.0, 2.0)))
    learn, said = together(taught), "trained"
    try:
        with learn.no_bar(), learn.no_logging():
            learn.fit(of("epochs", 1, 2), of("rate", 1e-3, 1e-2))
    except ValueError as e:
        said = str(e).split("do not train the same: ")[-1].split(";")[0]
    print(f"{case} -> {said}", flush=True)
leave()
"""


@pytest.mark.slow
def test_processes_that_would_train_otherwise_are_stopped(tmp_path):
    script = tmp_path / "by_rank.py"
    script.write_text(BY_RANK)
    for r in warm.run_ranks(2, script, cwd=tmp_path):
        assert r.returncode == 0, r.stderr[-3000:]
        said = dict(line.split(" -> ") for line in r.stdout.splitlines() if " -> " in line)
        assert said["nothing"] == "trained"
        for case, words in {
            "images": "the number of images is [16, 8] in process 0, [24, 8] in process 1",
            "other images": "the first validation image is",
            "batch": "the batch size is 4 in process 0, 2 in process 1",
            "method": "the method is Response(T=4.0",
            "epochs": "the number of epochs is 1 in process 0, 2 in process 1",
            "rate": "the optimizer's lr is 0.001 in process 0, 0.01 in process 1",
        }.items():
            assert said[case].startswith(words), said
