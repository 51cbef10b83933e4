"""Two processes with half of the batch each train what one process trains with all of it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parent / "several_processes.py"
CASES = (
    "response feature similarity rkd pseudolabels unlabelled relation hdkd kdas softmasks"
    " bernoullikl dist dkd pkd ofa cwd"
).split()


@pytest.fixture(scope="module")
def one_and_two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    got = {}
    for n in (1, 2):
        file = folder / f"{n}.json"
        done = subprocess.run(
            [*run, str(n), str(SCRIPT), str(file)], capture_output=True, text=True, cwd=folder
        )
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
