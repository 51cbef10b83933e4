"""A real JupyterLab in a real Chromium, with nothing beyond the loopback address: what the widgets'
tests drive."""

import ast, json, os, secrets, shutil, socket, subprocess, sys, time, urllib.request
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

CHROMIUM = (
    os.environ.get("CHROMIUM")
    or shutil.which("chromium")
    or shutil.which("chromium-browser")
    or shutil.which("google-chrome")
)
NO_CHROMIUM = (
    "no Chromium found: install the package chromium, or name the program in the variable CHROMIUM"
)
ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
]
HERE = str(Path(__file__).resolve().parent)
FIRST = "import warnings; warnings.filterwarnings('ignore')"


class Lab:
    "A server and a browser; `open` gives a `Sheet`, a notebook that has been run."

    def __init__(self, root: Path):
        from playwright.sync_api import sync_playwright

        self.root, self.token = root, secrets.token_hex(16)
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        env = dict(
            os.environ,
            OMP_NUM_THREADS="1",
            PYTHONPATH=os.pathsep.join(filter(None, (HERE, os.environ.get("PYTHONPATH")))),
            JUPYTER_CONFIG_DIR=str(root / "cfg"),
            JUPYTER_RUNTIME_DIR=str(root / "run"),
            JUPYTER_DATA_DIR=str(root / "data"),
            IPYTHONDIR=str(root / "ipy"),
            JUPYTERLAB_SETTINGS_DIR=str(root / "set"),
            JUPYTERLAB_WORKSPACES_DIR=str(root / "ws"),
        )
        quiet = (
            root / "set" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
        )
        quiet.parent.mkdir(parents=True)
        quiet.write_text('{"fetchNews": "false", "checkForUpdates": false}')
        self.log = open(root / "lab.log", "w")
        self.server = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "jupyterlab",
                "--no-browser",
                "--allow-root",
                "--ip=127.0.0.1",
                f"--port={self.port}",
                "--ServerApp.port_retries=0",
                f"--IdentityProvider.token={self.token}",
                f"--ServerApp.root_dir={root}",
                "--expose-app-in-browser",
                "--MappingKernelManager.kernel_manager_class=warm_lab.WarmLabKernelManager",
                "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
            ],
            env=env,
            stdout=self.log,
            stderr=self.log,
        )
        for _ in range(600):
            try:
                self.api("status")
                break
            except OSError:
                time.sleep(0.1)
        else:
            raise RuntimeError(
                "JupyterLab did not start: " + (root / "lab.log").read_text()[-2000:]
            )
        self.playwright = sync_playwright().start()
        self.browser = self.playwright.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        self.contexts = {}

    def api(self, path):
        return json.load(
            urllib.request.urlopen(
                f"http://127.0.0.1:{self.port}/api/{path}?token={self.token}", timeout=5
            )
        )

    def page(self, dark: bool):
        "A page; all of one theme share what the browser keeps, so JupyterLab is read once."
        if dark not in self.contexts:
            self.contexts[dark] = self.browser.new_context(
                viewport={"width": 1200, "height": 1000}, color_scheme="dark" if dark else "light"
            )
        return self.contexts[dark].new_page()

    def open(self, name: str, *cells: str, dark=False, wait=120):
        return Sheet(self, name, [FIRST, *cells], dark, wait)

    def close(self):
        self.browser.close()
        self.playwright.stop()
        self.server.terminate()
        self.server.wait(20)
        self.log.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Sheet:
    """A notebook in the browser. Use as a context manager: on leaving, no request may have gone
    elsewhere."""

    def __init__(self, lab, name, cells, dark, wait):
        self.lab, self.foreign, self.errors = lab, [], []
        nb = new_notebook(
            cells=[new_code_cell(c) for c in cells],
            metadata={
                "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}
            },
        )
        nbformat.write(nb, lab.root / f"{name}.ipynb")
        self.page = lab.page(dark)
        self.page.route(
            lambda u: "127.0.0.1" not in u and not u.startswith(("data:", "blob:")),
            lambda r: (self.foreign.append(r.request.url), r.abort()),
        )
        self.page.on("pageerror", lambda e: self.errors.append(str(e)))
        before = {k["id"] for k in lab.api("kernels")}
        self.page.goto(f"http://127.0.0.1:{lab.port}/lab/tree/{name}.ipynb?token={lab.token}&reset")
        self.page.locator(".jp-NotebookPanel .jp-Cell").first.wait_for(timeout=60_000)
        self.idle()
        self.js(
            "theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})",
            "JupyterLab Dark" if dark else "JupyterLab Light",
        )  # the server keeps the last one
        self.kernel_id = next(iter({k["id"] for k in lab.api("kernels")} - before))
        self.run(wait)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.page.close()
        kernel = f"http://127.0.0.1:{self.lab.port}/api/kernels/{self.kernel_id}"
        urllib.request.urlopen(
            urllib.request.Request(f"{kernel}?token={self.lab.token}", method="DELETE"),
            timeout=20,
        )
        if kind is None:
            assert not self.foreign, f"requests to elsewhere: {self.foreign}"

    def js(self, code, arg=None):
        return self.page.evaluate(code, arg)

    def until(self, code, arg=None, timeout=30):
        return self.page.wait_for_function(code, arg=arg, timeout=1000 * timeout)

    def idle(self, timeout=180):
        self.until(
            "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status ==="
            " 'idle'",
            timeout=timeout,
        )

    def run(self, timeout=120):
        "Run all cells; raises what a cell raised."
        self.js("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")
        error = ".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.error']"
        self.until(
            "error => document.querySelector(error) || [...document.querySelectorAll('.jp-CodeCell"
            " .jp-InputArea-prompt')].every(e => /\\[\\d+\\]/.test(e.textContent))",
            error,
            timeout,
        )
        bad = self.page.locator(error)
        if bad.count():
            raise AssertionError(bad.first.inner_text())

    def shot(self, path):
        self.page.screenshot(path=path)

    def kernel(self, expression, timeout=30):
        "The value of a Python expression in the notebook's kernel."
        from jupyter_client import BlockingKernelClient

        kc = BlockingKernelClient(
            connection_file=str(self.lab.root / "run" / f"kernel-{self.kernel_id}.json")
        )
        kc.load_connection_file()
        kc.start_channels()
        try:
            kc.wait_for_ready(timeout=timeout)
            v = kc.execute_interactive("", user_expressions={"v": expression}, timeout=timeout)[
                "content"
            ]["user_expressions"]["v"]
        finally:
            kc.stop_channels()
        if v["status"] != "ok":
            raise AssertionError(f"{v['ename']}: {v['evalue']}")
        return ast.literal_eval(v["data"]["text/plain"])
