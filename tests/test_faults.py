"""What happens in the middle of things: kills, full disks, interrupts, other processes, hostile
files."""

import gc
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
from fastai.callback.core import Callback
from fastai.data.load import DataLoader
from fastai.learner import Learner
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from helpers import folder_set
from kdmedlearn import cache_teacher, distill, Feature, phantom_dls, Response
from kdmedlearn.core.taps import n_hooks
from kdmedlearn.core.teacher import Teacher
from kdmedlearn.data.phantom import CLASSES
from kdmedlearn.experiments.report import write_report
from kdmedlearn.models.hdkd import read_state
from kdmedlearn.models.small import small_student, small_teacher
from kdmedlearn.models.weights import load_model, load_teacher, save_model, whole
from kdmedlearn.train.fusing import load_fusion
from kdmedlearn.train.resume import Checkpoint, Checkpoints
from kdmedlearn.train.trial import batches
from kdmedlearn.tuning.runs import Runs

ROOT = Path(__file__).parent.parent


@pytest.fixture
def dls():
    return phantom_dls(16, 8, 32, seed=0, bs=4, device="cpu")


def fit(learn, n=1, **kw):
    with learn.no_bar(), learn.no_logging():
        learn.fit(n, 1e-3, **kw)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="its lives are forked")
def test_killed_and_without_room_and_done_all_the_same():
    command = [sys.executable, "tools/faults.py", "--kills", "2", "--full", "2"]
    env = dict(os.environ, OMP_NUM_THREADS="1")
    r = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert r.returncode == 0, r.stderr[-2000:]
    assert "'killed': 2" in r.stdout and "'errors told': ['OSError']" in r.stdout


# ---- interrupts

EVENTS = ("before_fit", "before_epoch", "before_train", "before_batch", "after_pred", "after_loss")
EVENTS += ("before_backward", "before_step", "after_step", "after_batch", "after_train")
EVENTS += ("before_validate", "after_validate", "after_epoch", "after_fit")


class Interrupts(Callback):
    order = 200

    def __init__(self, event):
        setattr(self, event, self.stop)

    def stop(self):
        raise KeyboardInterrupt


@pytest.mark.parametrize("event", EVENTS)
def test_an_interrupt_leaves_nothing_behind(dls, event):
    teacher = small_teacher()
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    learn = distill(dls, small_student(), teacher, Feature())
    forward = learn.model.forward
    with pytest.raises(KeyboardInterrupt):
        fit(learn, cbs=Interrupts(event))
    assert n_hooks(learn.model) == n_hooks(teacher) == 0
    assert learn.model.forward == forward and not teacher.training
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())
    fit(learn)  # and it goes on


def test_a_hundred_interrupts_keep_no_memory(dls):
    learn = distill(dls, small_student(), small_teacher(), Feature())
    tensors = lambda: sum(isinstance(o, torch.Tensor) for o in gc.get_objects())

    def interrupted(n):
        for i in range(n):
            with pytest.raises(KeyboardInterrupt):
                fit(learn, cbs=Interrupts(EVENTS[i % len(EVENTS)]))
        gc.collect()
        return tensors()

    first = interrupted(len(EVENTS))
    assert interrupted(100) <= first + 20


WITH_WORKERS = """
import signal, sys
from dataclasses import replace
import kdmedlearn.cli as cli

# a shell starts what runs behind it deaf to Ctrl-C, and so all that the tests start
signal.signal(signal.SIGINT, signal.default_int_handler)
as_ever = cli.reading_of
cli.reading_of = lambda asked: replace(as_ever(asked), num_workers=2, cache=False)
cli.app(prog_name="kdmedlearn")
"""


@pytest.mark.skipif(not hasattr(os, "register_at_fork"), reason="workers are not forked here")
@pytest.mark.parametrize("started", [1, 2, 3])
def test_workers_whose_making_is_interrupted_are_taken_down(monkeypatch, started):
    processes, errors = [], []
    start = BaseProcess.start

    def starts(self):
        start(self)
        processes.append(self)
        if len(processes) == started:
            raise KeyboardInterrupt

    monkeypatch.setattr(BaseProcess, "start", starts)
    monkeypatch.setattr(sys, "unraisablehook", lambda u: errors.append(u.exc_value))
    with pytest.raises(KeyboardInterrupt):
        list(batches(DataLoader(list(range(12)), bs=2, num_workers=3)))
    gc.collect()
    assert not errors
    for p in processes:
        p.join(20)
        assert p.exitcode is not None


def interrupted_at(line: int) -> bool:
    "Interrupt the making of two workers at its `line`th line; whether it has as many."
    seen, made = [], _MultiProcessingDataLoaderIter.__init__.__code__

    def counts(frame, event, arg):
        if event == "line":
            seen.append(frame.f_lineno)
            if len(seen) == line:
                raise KeyboardInterrupt
        return counts

    traced = sys.gettrace()
    sys.settrace(lambda frame, event, arg: counts if frame.f_code is made else None)
    try:
        list(batches(DataLoader(list(range(4)), bs=2, num_workers=2)))
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(traced)
    assert len(seen) < line
    return False


@pytest.mark.skipif(not hasattr(os, "register_at_fork"), reason="workers are not forked here")
@pytest.mark.slow
def test_an_interrupt_at_any_line_of_the_making_is_an_interrupt(monkeypatch):
    errors, line = [], 1
    monkeypatch.setattr(sys, "unraisablehook", lambda u: errors.append((line, u.exc_value)))
    while interrupted_at(line):
        line += 1
    gc.collect()
    assert not errors and line > 40
    for p in multiprocessing.active_children():
        p.join(20)
        assert p.exitcode is not None


@pytest.mark.skipif(not hasattr(os, "register_at_fork"), reason="workers are not forked here")
@pytest.mark.slow
def test_ctrl_c_while_workers_run_leaves_a_run_that_goes_on(tmp_path):
    images = folder_set(tmp_path / "set", n=12, test=False)
    command = [sys.executable, "-c", WITH_WORKERS, "distill", "--data", images, "--size", "32"]
    command += ["--teacher-epochs", "1", "--bs", "4", "--epochs", "999", "--runs", "r"]
    out = open(tmp_path / "out", "w+")
    p = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
    try:
        until = time.monotonic() + 120
        while not list(Path("r").glob("*/unfinished/part-0/students/**/*.safetensors")):
            assert p.poll() is None and time.monotonic() < until, Path("out").read_text()
            time.sleep(0.05)
        os.killpg(p.pid, signal.SIGINT)
        assert p.wait(30) == 130
        with pytest.raises(ProcessLookupError):  # nobody is left
            time.sleep(0.5)
            os.killpg(p.pid, 0)
    finally:
        if p.poll() is None:
            os.killpg(p.pid, signal.SIGKILL)
    said = Path("out").read_text()
    assert "interrupted; this goes on: kdmedlearn distill --resume" in said
    assert "Traceback" not in said and "Process Process" not in said, said
    assert Path("r/set/unfinished/asked.json").is_file()


# ---- folders that cannot be written to

READ_ONLY = """
import sys, warnings
warnings.simplefilter("ignore")
from pathlib import Path
from typer.testing import CliRunner
import kdmedlearn.cli as cli
from kdmedlearn import cache_teacher, phantom_dls
from kdmedlearn.clinic.export import export, Facts
from kdmedlearn.experiments.experiment import experiment
from kdmedlearn.experiments.report import write_report
from kdmedlearn.models.small import small_student, small_teacher
from kdmedlearn.train.distillation import distill
from kdmedlearn.train.resume import Checkpoint
from kdmedlearn.tuning.runs import Runs

d, images = Path(sys.argv[1]), sys.argv[2]
dls = lambda *_: phantom_dls(8, 4, 32, seed=0, bs=4, device="cpu")

def command(*given):
    r = CliRunner().invoke(cli.app, ["distill", "--data", images, *given])
    assert r.exit_code == 2 and "training the teacher" not in r.output, (r.output, r.exception)
    raise ValueError(r.output)

def no_teacher():
    raise AssertionError("trained all the same")

for f in (
    lambda: experiment(dls, small_student, small_teacher(), folder=d / "e", log=None),
    lambda: experiment(dls, no_teacher, small_teacher(), cache=d / "c", log=None),
    lambda: cache_teacher(dls(), small_teacher(), d / "c", 1, log=None),
    lambda: export(small_student(2), d / "b", Facts(["a", "b"], 32)),
    lambda: write_report(d / "r.html", "r", []),
    lambda: distill(
        dls(), small_student(), small_teacher(), cbs=Checkpoint(d / "s", log=None)
    ).fit(1),
    lambda: Runs(d).new(None),
    lambda: command("--runs", str(d / "runs")),
    lambda: command("--cache", str(d / "cache")),
):
    try:
        f()
    except Exception as e:
        said = str(e)
        assert str(d) in said.replace("\\n", "") and "Read-only file system" in said, said
        assert any(w in said for w in ("another", "choose", "name")), said
    else:
        raise AssertionError("it passed in silence")
print("nine told")
"""


@pytest.mark.slow
def test_a_disk_for_reading_is_told_before_anything_is_trained(tmp_path):
    d = tmp_path / "disk"
    d.mkdir()
    images = folder_set(tmp_path / "set", n=8, test=False)
    mounts = f"mount --bind {d} {d} && mount -o remount,ro,bind {d} && exec"
    alone = ["unshare", "-m", "sh", "-c", mounts + ' "$@"', "sh"]
    if (
        not shutil.which("unshare")
        or subprocess.run([*alone, "true"], capture_output=True).returncode
    ):
        pytest.skip("no mounts of one's own here")
    r = subprocess.run(
        [*alone, sys.executable, "-c", READ_ONLY, d, images], capture_output=True, text=True
    )
    assert r.returncode == 0 and "nine told" in r.stdout, r.stderr[-3000:]


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(30, "ro")])
def test_a_folder_that_refuses_files_is_told(error, tmp_path, monkeypatch):
    def refuse(*a, **k):
        raise error

    monkeypatch.setattr("kdmedlearn.core.checks.TemporaryFile", refuse)
    with pytest.raises(ValueError, match=f"folder='{tmp_path}' cannot be a folder of runs"):
        Runs(tmp_path).new(None)
    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(OSError, match="r.html cannot be written .*choose another folder"):
        write_report(tmp_path / "r.html", "a report", [])


def test_answers_that_are_all_there_are_read_where_nobody_may_write(dls, tmp_path, monkeypatch):
    teacher = small_teacher()
    cache_teacher(dls, teacher, tmp_path, 1, log=None)
    monkeypatch.setattr("kdmedlearn.train.cache.hold", None)
    kept = cache_teacher(dls, teacher, tmp_path, 1, log=None)
    fit(distill(kept.dls, small_student(), kept.teacher))
    with pytest.raises(ValueError, match="teacher"):
        cache_teacher(dls, small_student(), tmp_path, 1, log=None)


# ---- other processes, other times


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the other process is forked")
def test_two_processes_in_one_folder(dls, tmp_path):
    learn = distill(dls, small_student(), small_teacher(), Response())

    class Asks(Callback):
        "Has another process try the same folder."

        def after_train(self):
            pid = os.fork()
            if not pid:
                try:
                    Learner(dls, small_student(), cbs=Checkpoint(tmp_path, log=None))("before_fit")
                except OSError as e:
                    os._exit(7 if "another process trains in" in str(e) else 8)
                finally:
                    os._exit(9)
            self.code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    asks = Asks()
    fit(learn, cbs=[Checkpoint(tmp_path, log=None), asks])
    assert asks.code == 7
    assert [f.suffix for f in tmp_path.iterdir()] == [".safetensors"]  # the lock is gone


@pytest.mark.parametrize("event", ["before_epoch", "after_batch", "after_validate"])
def test_an_interrupt_lets_other_processes_into_the_folder(dls, tmp_path, event):
    learn = distill(dls, small_student(), small_teacher(), Response())
    keeps = Checkpoint(tmp_path, log=None)
    with pytest.raises(KeyboardInterrupt):
        fit(learn, 2, cbs=[keeps, Interrupts(event)])
    assert keeps.one.held is None and not (tmp_path / ".lock").exists()
    learn.export(tmp_path / "l.pkl")  # nothing of the fit hangs on the Learner


def test_a_training_that_is_refused_lets_others_in(dls, tmp_path):
    fit(distill(dls, small_student(), small_teacher(), cbs=Checkpoint(tmp_path, log=None)))
    other = distill(dls, small_student(), small_teacher(), cbs=Checkpoint(tmp_path, log=None))
    with pytest.raises(ValueError, match="another training"):
        fit(other)
    assert not (tmp_path / ".lock").exists()


def test_a_clock_that_was_set_back(dls, tmp_path):
    runs = Runs(tmp_path / "runs")
    run = runs.new(Response(), lr=1e-3, seed=0, of=1)
    later = 2 * 10**9
    os.utime(runs.path(1), (later, later))
    assert runs.all()[0]["status"] == "running" and runs.new(Response())["run"] == 2
    runs.keep(run | {"status": "done"})
    kept = Checkpoints(tmp_path / "state")
    os.utime(kept.write({"a": 1}), (later, later))
    kept.write({"a": 2})
    assert kept.read() == {"a": 2}  # the newest by number, not by time


def saved(folder, name="m.safetensors"):
    file = folder / name
    save_model(small_student(), file, "small_student", CLASSES, 3, ([0.5] * 3, [0.2] * 3))
    return file


def test_a_teacher_file_that_is_replaced_during_training(dls, tmp_path):
    teacher = load_teacher(saved(tmp_path))
    before = {k: v.clone() for k, v in teacher.model.state_dict().items()}
    learn = distill(dls, small_student(), teacher, Response())
    saved(tmp_path)
    fit(learn)
    assert all(torch.equal(v, before[k]) for k, v in teacher.model.state_dict().items())


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    file = tmp_path / "a.json"
    file.write_text("old")
    with pytest.raises(OSError, match="no room"):
        with whole(file) as part:
            part.write_text("half of")
            raise OSError("no room")
    assert file.read_text() == "old" and [f.name for f in tmp_path.iterdir()] == ["a.json"]


def test_a_record_that_cannot_be_written_is_no_run_that_goes_on(tmp_path, monkeypatch):
    runs = Runs(tmp_path)
    run = runs.new(Response(), lr=1e-3, seed=0, of=1)

    def no_room(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr("kdmedlearn.tuning.runs.write_json", no_room)
    with pytest.raises(OSError):
        runs.keep(run | {"status": "failed: OSError"})
    assert runs.all()[0]["status"] == "interrupted"
    runs.drop(1)
    assert runs.all() == []


# ---- files that would run code


class Evil:
    "Unpickled, it makes a file."

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def cached(folder, change):
    dls = phantom_dls(8, 4, 32, seed=0, bs=4, device="cpu", augment=False)
    teacher = Teacher(small_teacher(), name="t")
    cache_teacher(dls, teacher, folder, 1, log=None)
    change(folder / "teacher-1")
    cache_teacher(dls, teacher, folder, 1, log=None)


def checkpoint(folder, bad):
    Checkpoints(folder).write({"a": 1})
    [f.write_bytes(bad) for f in folder.iterdir()]
    with pytest.warns(UserWarning, match="damaged"):
        Checkpoints(folder).read()


def put(folder, name, bad):
    file = folder / name
    file.write_bytes(bad)
    return file


READERS = {
    "model": lambda d, bad: load_model(put(d, "m.safetensors", bad)),
    "teacher": lambda d, bad: load_teacher(put(d, "m.safetensors", bad)),
    "pickled model": lambda d, bad: load_model(put(d, "m.pth", bad)),
    "released weights": lambda d, bad: read_state(put(d, "m.pth", bad)),
    "fusion": lambda d, bad: load_fusion(put(d, "f.safetensors", bad)),
    "checkpoint": checkpoint,
    "cache": lambda d, bad: cached(
        d, lambda f: [s.write_bytes(bad) for s in f.glob("*.safetensors")]
    ),
    "cache's description": lambda d, bad: cached(d, lambda f: (f / "cache.json").write_bytes(bad)),
}


@pytest.mark.parametrize("reader", READERS)
def test_nothing_that_is_read_can_run_code(tmp_path, reader):
    mark = tmp_path / "ran"
    torch.save({"a": Evil(mark)}, tmp_path / "bad")
    bad = (tmp_path / "bad").read_bytes()
    (tmp_path / "home").mkdir()
    with pytest.raises(ValueError):
        READERS[reader](tmp_path / "home", bad)
    assert not mark.exists()
    torch.load(tmp_path / "bad", weights_only=False)
    assert mark.exists()  # that it would


# ---- no network


@pytest.mark.slow
def test_an_import_asks_no_network():
    code = (
        "import socket\n"
        "def no(*a, **k): raise OSError('the network was asked')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = no\n"
        "import kdmedlearn\n"
        "for name in kdmedlearn.__all__: getattr(kdmedlearn, name)\n"
        "kdmedlearn.phantom_dls(4, 4, 32, device='cpu')\n"
    )
    r = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert r.returncode == 0, r.stderr[-2000:]
