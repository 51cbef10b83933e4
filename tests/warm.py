"""Processes that have imported PyTorch and fastai before they begin: forks of one process, each as
clean as a new one.

Some hundred notebooks and a dozen scripts import the same libraries, which takes longer than most
of what they do. Nothing of a notebook and nothing of kdmedlearn is ever run in the parent, so none
sees another. Where there is no fork (Windows), all start as usual.
"""

import asyncio, gc, io, json, os, runpy, signal, socket, subprocess, sys, tempfile, threading, time
import traceback
from pathlib import Path

from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning import LocalProvisioner

LIBRARIES = (
    "fastai.vision.all, fastcore.test, timm, plotly.graph_objects, matplotlib.pyplot,"
    " sklearn.linear_model, ipykernel.kernelapp, ipywidgets, IPython, ipykernel.debugger,"
    " IPython.core.completerlib, matplotlib_inline.backend_inline, nbformat, jsonschema,"
    " plotly.utils, plotly.colors, _plotly_utils.png, torch._dynamo, functorch.compile, networkx,"
    " torch.utils.flop_counter, torchvision.transforms.v2, pandas.io.formats.style"
)


def draw_once():
    "A first figure has plotly read its templates and validators, which takes two seconds."
    import pandas as pd
    from matplotlib.figure import Figure
    from plotly import graph_objects as go, io as pio
    from plotly.subplots import make_subplots

    fig = make_subplots(1, 2)
    fig.add_scatter(x=[1], y=[1])
    fig.add_bar(x=[1], y=[1], row=1, col=2)
    fig.add_heatmap(z=[[1]])
    fig.update_layout(title="drawn")
    fig.add_vline(0, annotation_text="line")
    frame = pd.DataFrame(dict(x=[1], y=[1]))
    fig.add_scatter(x=frame.x, y=frame.y)
    pio.to_json(go.Figure(fig))
    fig._repr_mimebundle_()
    fig = Figure(layout="constrained")  # pyplot would choose its backend for all who come
    fig.subplots().set_title("drawn")
    fig.savefig(io.BytesIO())


# --- in the parent and its forks
def serve():
    """The parent: for each line, a job, on stdin a fork, whose number goes to stdout. A job has
    cwd, env, path, argv, and for a script the files of what it prints and of its exit code."""
    for name in LIBRARIES.split(", "):
        __import__(name)
    draw_once()
    gc.collect()
    gc.freeze()  # no fork looks through what it has from here
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system buries them
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not look like an answer
    print("ready", file=out, flush=True)
    for line in sys.stdin:
        if pid := os.fork():
            print(pid, file=out, flush=True)
            continue
        job = json.loads(line)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        os.chdir(job["cwd"])
        os.environ.clear()
        os.environ.update(job["env"])
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        own = str(Path(__file__).resolve().parent)  # is for scripts from there alone
        sys.path[:] = job["path"] + [p for p in sys.path if p not in (own, *job["path"])]
        try:
            script(job) if "code" in job else kernel(job)
        finally:
            os._exit(0)


def kernel(job):
    from ipykernel import kernelapp

    sys.argv = ["ipykernel_launcher", *job["argv"]]
    kernelapp.launch_new_instance()


def script(job):
    for fd, file in ((1, job["out"]), (2, job["err"])):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), fd)
    code, sys.argv = 1, job["argv"]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
        code = 0
    except SystemExit as e:
        code = e.code if isinstance(e.code, int) else int(e.code is not None)
        print(e.code if isinstance(e.code, str) else "", file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        Path(job["code"]).write_text(str(code))


# --- in the tests
class Forked:
    "What a provisioner needs of a process, for one that is not our child."

    stdin = stdout = stderr = None
    server = None  # the parent; one for each process that asks, it ends with it
    ready, one_at_a_time = False, threading.Lock()

    @classmethod
    def begin(cls):
        "Start the parent, which takes some seconds, without waiting for it."
        if cls.server is None or cls.server.poll() is not None:
            cls.ready = False
            cls.server = subprocess.Popen(
                [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )

    @classmethod
    def until_ready(cls):
        with cls.one_at_a_time:
            cls.begin()
            if not cls.ready:
                line = cls.server.stdout.readline()
                assert line == "ready\n", "the warm process did not start"
                cls.ready = True

    def __init__(self, job):
        self.until_ready()
        server = Forked.server
        paths = job["env"].get("PYTHONPATH", "").split(os.pathsep)
        job = job | {"path": [job.pop("first"), *filter(None, paths)]}
        server.stdin.write(json.dumps(job) + "\n")
        server.stdin.flush()
        self.pid, self.returncode = int(server.stdout.readline()), None

    def poll(self):
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            self.returncode = 0
        return self.returncode

    def wait(self, timeout=None):
        end = time.monotonic() + (timeout or 60)
        while self.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        return self.returncode

    def send_signal(self, n):
        try:
            os.kill(self.pid, n)
        except ProcessLookupError:
            pass

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)


def run(script, *args, cwd=None, env=None, timeout=600):
    """`python script args`, started warm: a `subprocess.CompletedProcess` with its texts; its exit
    code is -9 where it ended without one."""
    return run_together([{}], script, *args, cwd=cwd, env=env, timeout=timeout)[0]


def run_together(envs, script, *args, cwd=None, env=None, timeout=600):
    "`run` once for each of `envs`, at the same time, with that added to the environment."
    env, cwd = dict(env or os.environ), str(cwd or os.getcwd())
    argv = [str(script), *map(str, args)]
    if not hasattr(os, "fork"):
        start = lambda more: subprocess.Popen(
            [sys.executable, *argv],
            cwd=cwd,
            env=env | more,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        ran = [(p, p.communicate(timeout=timeout)) for p in [start(more) for more in envs]]
        return [subprocess.CompletedProcess(argv, p.returncode, *texts) for p, texts in ran]
    with tempfile.TemporaryDirectory() as d:
        files = [{k: f"{d}/{i}.{k}" for k in ("out", "err", "code")} for i, _ in enumerate(envs)]
        first = str(Path(script).resolve().parent)  # as Python does
        given = dict(cwd=cwd, argv=argv, first=first)
        forks = [Forked(given | f | {"env": env | more}) for f, more in zip(files, envs)]
        for p in forks:
            p.wait(timeout)
        for p in forks:
            p.kill()
        read = lambda f: Path(f).read_text() if Path(f).exists() else ""
        return [
            subprocess.CompletedProcess(
                argv, int(read(f["code"]) or -9), read(f["out"]), read(f["err"])
            )
            for f in files
        ]


def run_ranks(n, script, *args, **kw):
    "`run_together` as `n` processes that torchrun would start, in the same environment."
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    every = dict(MASTER_ADDR="127.0.0.1", MASTER_PORT=port, WORLD_SIZE=n, LOCAL_WORLD_SIZE=n)
    envs = [every | dict(RANK=i, LOCAL_RANK=i) for i in range(n)]
    envs = [{k: str(v) for k, v in e.items()} for e in envs]
    return run_together(envs, script, *args, **kw)


# --- kernels
class ForkProvisioner(LocalProvisioner):
    async def launch_kernel(self, cmd, **kwargs):
        await asyncio.to_thread(Forked.until_ready)  # a server answers meanwhile
        cwd = str(kwargs.get("cwd") or os.getcwd())
        env = dict(kwargs.get("env") or os.environ)
        self.process = Forked(dict(cwd=cwd, env=env, argv=cmd[cmd.index("-f") :], first=cwd))
        self.pid, self.pgid = self.process.pid, None
        return self.connection_info


class WarmKernels:
    "Mixed into a kernel manager: its kernels are forks."

    async def _async_pre_start_kernel(self, **kw):
        out = await super()._async_pre_start_kernel(**kw)
        if hasattr(os, "fork"):
            self.provisioner.__class__ = ForkProvisioner
        return out


class WarmKernelManager(WarmKernels, AsyncKernelManager):
    pass


if __name__ == "__main__":
    serve()
