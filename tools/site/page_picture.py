"""The picture of the clinic's page in its tutorial, taken in Chromium: made-up images only.

    python tools/site/page_picture.py [DIST] [docs/images/clinic_page.png]

DIST is the folder dist of onnxruntime-web; default: by npm.
"""

import sys, tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from lab import ARGS, CHROMIUM
from PIL import Image
from playwright.sync_api import sync_playwright

from kdmedlearn import distill, phantom_dls, Response
from kdmedlearn.clinic.export import export
from kdmedlearn.clinic.page import write_page
from kdmedlearn.data.loaders import restart
from kdmedlearn.models.small import small_student
from kdmedlearn.train.budget import fit_steps
from kdmedlearn.train.teachers import phantom_teacher

web = sys.argv[1] if len(sys.argv) > 1 else None
to = Path(sys.argv[2]) if len(sys.argv) > 2 else ROOT / "docs" / "images" / "clinic_page.png"
dls = phantom_dls(n_train=200, n_valid=200, size=48, difficulty=0.3, n_unlabelled=2000, bs=16)
learn = distill(dls, small_student(), phantom_teacher(), Response(), unlabelled="rest")
restart(learn.dls, 0)
with learn.no_bar(), learn.no_logging():
    fit_steps(learn, 330, 1e-2)
with tempfile.TemporaryDirectory() as d, sync_playwright() as p:
    page_file = write_page(export(learn, Path(d) / "student"), Path(d) / "page.html", web, True)
    image = Path(d) / "image.png"
    Image.fromarray(dls.valid.items[1].image).resize((240, 240)).save(image)
    browser = p.chromium.launch(executable_path=CHROMIUM, args=ARGS)
    page = browser.new_page(viewport=dict(width=720, height=740), color_scheme="light")
    page.goto(page_file.as_uri())
    page.wait_for_selector("#test.good", timeout=60_000)
    page.set_input_files("#file", str(image))
    page.wait_for_timeout(1000)
    page.screenshot(path=str(to))
    browser.close()
with Image.open(to) as im:
    im.convert("RGB").quantize(128).save(to, optimize=True)
print(to, to.stat().st_size // 1000, "kB")
