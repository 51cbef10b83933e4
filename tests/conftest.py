import gc, os, sys
from pathlib import Path

# The numbers in the tests are a processor's. KDMEDLEARN_TEST_GPU=1 lets them see a GPU: those that
# compare bits of two trainings then fail.
if not os.environ.get("KDMEDLEARN_TEST_GPU"):
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _in_tmp(tmp_path, monkeypatch):
    "fastai writes models below the working directory: let it be an empty one."
    monkeypatch.chdir(tmp_path)


LONG = ("experiments/03_probe", "tutorials/", "test_notebook_runs", "test_browser")


def pytest_collection_finish():
    "No collection of garbage looks again through what the libraries have brought."
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items):
    """The longest first: one that begins last would keep one worker busy while the other has
    nothing left."""
    where = lambda i: next((k for k, name in enumerate(LONG) if name in i.nodeid), len(LONG))
    items.sort(key=where)  # a stable sort


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """JupyterLab and Chromium for the widgets' tests. Where the browser is missing they are
    skipped, unless KDMEDLEARN_BROWSER=required."""
    from lab import CHROMIUM, NO_CHROMIUM, Lab

    missing = "" if CHROMIUM else NO_CHROMIUM
    try:
        import playwright  # noqa: F401
    except ImportError:
        missing = "the package playwright is not installed"
    if missing and os.environ.get("KDMEDLEARN_BROWSER") == "required":
        pytest.fail(missing)
    if missing:
        pytest.skip(missing)
    with Lab(tmp_path_factory.mktemp("lab")) as lab:
        yield lab
