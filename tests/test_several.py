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
from torch import manual_seed

manual_seed(0)  # the first weights of a teacher
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
