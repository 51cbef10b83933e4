"""The picture of a widget in the README, taken in a real JupyterLab: made-up images only.

python tools/site/readme_picture.py [docs/images/temperature.png]
"""

import sys, tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
from lab import Lab

CELL = """
from kdmedlearn import distill, phantom_dls, Response
from kdmedlearn.models.small import small_student
from kdmedlearn.train.teachers import phantom_teacher
from kdmedlearn.widgets import temperature
dls = phantom_dls(n_train=200, n_valid=200, size=64, seed=0, bs=16)
learn = distill(dls, small_student(), phantom_teacher(), Response(T=4))
with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(3, 3e-3)
widget = temperature(learn)
widget"""

to = Path(
    sys.argv[1]
    if len(sys.argv) > 1
    else Path(__file__).resolve().parents[2] / "docs/images/temperature.png"
)
to.parent.mkdir(parents=True, exist_ok=True)
with tempfile.TemporaryDirectory() as d, Lab(Path(d)) as lab, lab.open("picture", CELL) as s:
    s.page.locator(".kdm-live .title").first.wait_for(timeout=60_000)
    s.page.set_viewport_size({"width": 1250, "height": 1500})
    s.page.wait_for_timeout(1500)  # the page lays itself out anew
    s.page.locator(".jp-OutputArea-output:has(.kdm-live)").first.screenshot(path=str(to))
print(to, to.stat().st_size // 1000, "kB")
