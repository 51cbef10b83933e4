"""Every notebook runs from a clean kernel."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import notebooks as nbtool  # noqa: E402
from warm import WarmKernelManager  # noqa: E402


@pytest.mark.notebook
@pytest.mark.parametrize("path", nbtool.notebooks(), ids=lambda p: str(p.relative_to(ROOT / "nbs")))
def test_notebook_runs(path):
    nbtool.execute(path, kernel_manager_class=WarmKernelManager)
