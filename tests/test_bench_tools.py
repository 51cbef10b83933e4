"""The benchmarks of tools/ run, with toys, and the pages show what they wrote; where a file is
missing, nothing is shown."""

import json
import sys
from pathlib import Path

import pytest

import warm

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools" / "site"))
from results import gpu, methods, peers, several, shared  # noqa: E402


def run(name, out, *args):
    file = ROOT / "tools" / "bench" / f"{name}.py"
    done = warm.run(file, *args, "--out", out)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(out.read_text())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    "The folder of results that the parts of the pages read."
    for part in (gpu, methods, peers, several, shared):
        monkeypatch.setattr(part, "RESULTS", tmp_path)
    return tmp_path


def test_without_a_file_nothing_is_shown(folder):
    assert methods.page() == peers.page() == ""
    assert "How cost grows" not in several.page()
    assert "has run with toys on a processor only" in gpu.large()


@pytest.mark.slow
def test_a_step(tmp_path):
    args = "--bs 4 --size 32 --repeats 1 --steps 1".split()
    entry = run("step", tmp_path / "step.json", *args)[0]
    assert entry["ratio"] > 0 and entry["command"] == f"python tools/bench/step.py {' '.join(args)}"


@pytest.mark.slow
def test_the_script_for_a_gpu(folder):
    found = run("gpu", folder / "bench_gpu_large.json", "--tiny", "--rounds", "1")
    assert len(found["steps"]) == 8 and found["left out"] == []
    page = gpu.large()
    assert "bfloat16, compiled" in page and "small_unet, large_unet" in page


@pytest.mark.slow
def test_what_has_no_time_is_left_out_and_told(folder):
    found = run("gpu", folder / "bench_gpu_large.json", "--tiny", "--minutes", "0")
    assert found["steps"] == [] and len(found["left out"]) == 8
    assert "- kdas, bfloat16, compiled: no time" in gpu.large()


@pytest.mark.slow
def test_growth(folder):
    args = "--images 64 96 --teachers 1 --processes 2".split()
    found = run("growth", folder / "growth.json", *args)
    assert [r["images"] for r in found["images"]] == [64, 96]
    assert [r["processes"] for r in found["processes"]] == [1, 2]
    page = several.page()
    assert "| images | asking once | files | opening again |" in page and "| 2 |" in page
