"""Kernels that have imported PyTorch and fastai before they begin: forks of one process, each as
clean as a new one.

Some fifty notebooks import the same libraries, which takes longer than most of what they do.
Nothing of a notebook and nothing of kdmedlearn is ever run in the parent, so no notebook sees
another. Where there is no fork (Windows), kernels start as usual.
"""

import json, os, signal, subprocess, sys, time
from pathlib import Path

from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning import LocalProvisioner

LIBRARIES = (
    "fastai.vision.all, fastcore.test, timm, plotly.graph_objects, matplotlib.pyplot,"
    " sklearn.linear_model, ipykernel.kernelapp, ipywidgets, IPython"
)


def draw_once():
    "A first figure has plotly read its templates and validators, which takes two seconds."
    from plotly import graph_objects as go
    from plotly.subplots import make_subplots

    fig = make_subplots(1, 2)
    fig.add_scatter(x=[1], y=[1])
    fig.add_bar(x=[1], y=[1], row=1, col=2)
    fig.add_heatmap(z=[[1]])
    fig.update_layout(title="drawn")
    go.Figure(fig).to_json()


def serve():
    """The parent: for each line {cwd, env, argv} on stdin a forked kernel, whose number goes to
    stdout."""
    for name in LIBRARIES.split(", "):
        __import__(name)
    draw_once()
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
        os.environ.update(job["env"])
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        sys.path[:] = job["path"] + [p for p in sys.path if p not in job["path"]]
        sys.argv = ["ipykernel_launcher", *job["argv"]]
        from ipykernel import kernelapp

        try:
            kernelapp.launch_new_instance()
        finally:
            os._exit(0)


class Forked:
    "What a provisioner needs of a process, for one that is not our child."

    stdin = stdout = stderr = None

    def __init__(self, pid):
        self.pid, self.returncode = pid, None

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


class ForkProvisioner(LocalProvisioner):
    server = None  # the parent; one for each process that runs notebooks, it ends with it

    async def launch_kernel(self, cmd, **kwargs):
        cls = ForkProvisioner
        if cls.server is None or cls.server.poll() is not None:
            cls.server = subprocess.Popen(
                [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            assert (
                cls.server.stdout.readline() == "ready\n"
            ), "the parent of the kernels did not start"
        cwd = kwargs.get("cwd") or os.getcwd()
        env = {k: v for k, v in (kwargs.get("env") or os.environ).items()}
        job = {
            "cwd": str(cwd),
            "env": env,
            "argv": cmd[cmd.index("-f") :],
            "path": [str(cwd), *env.get("PYTHONPATH", "").split(os.pathsep)],
        }
        cls.server.stdin.write(json.dumps(job) + "\n")
        cls.server.stdin.flush()
        self.process = Forked(int(cls.server.stdout.readline()))
        self.pid, self.pgid = self.process.pid, None
        return self.connection_info


class WarmKernelManager(AsyncKernelManager):
    async def _async_pre_start_kernel(self, **kw):
        out = await super()._async_pre_start_kernel(**kw)
        if hasattr(os, "fork"):
            self.provisioner.__class__ = ForkProvisioner
        return out


if __name__ == "__main__":
    serve()
