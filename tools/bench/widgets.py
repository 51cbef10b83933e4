"""How long the temperature widget takes from a key press to a changed figure: in a real JupyterLab,
and in a page without a kernel.

    python tools/bench/widgets.py [--repeats 20] [--out docs/results/bench_widgets.json]

Three phantom images, a slider moved by the keyboard. Needs Chromium and playwright, as the browser
tests do. The load average says how quiet the machine was: a number measured beside other work is an
upper bound.
"""

import argparse, json, os, sys, tempfile
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
from kdmedlearn.experiments.report import write_json
from lab import CHROMIUM, NO_CHROMIUM, Lab

CELL = """
from kdmedlearn import distill, GuidedStudent, phantom_dls, Response
from kdmedlearn.train.teachers import phantom_teacher
from kdmedlearn.widgets import temperature
dls = phantom_dls(n_train=32, n_valid=32, size=64, seed=0, bs=16)
w = temperature(distill(dls, GuidedStudent(), phantom_teacher(), Response(T=4)), items=3)
w.move(T=1.)
w"""
WATCH = """() => {
  const title = () => document.querySelector('.kdm-live .title')?.textContent;
  window.times = [];
  let last = title(), pressed = null;
  document.addEventListener('keydown', () => { pressed = performance.now() }, true);
  new MutationObserver(() => {
    if (!title() || title() === last) return;
    last = title();
    if (pressed !== null) window.times.push(performance.now() - pressed);
    pressed = null;
  }).observe(document.body, {
    subtree: true, childList: true, characterData: true, attributes: true
  });
}"""


def moved(page, moves, ready=lambda: None):
    "Milliseconds of each move of the slider."
    page.locator(".kdm-live .title").first.wait_for(timeout=60_000)
    page.evaluate(WATCH)
    page.locator(".kdm-live input[type=range]").first.focus()
    for n in range(1, moves + 1):
        page.keyboard.press("ArrowRight")
        page.wait_for_function("n => window.times.length >= n", arg=n)
        ready()
    return page.evaluate("() => window.times")


def measure(moves):
    "In JupyterLab, in a page, and the bytes of the page."
    with tempfile.TemporaryDirectory() as d, Lab(Path(d)) as lab:
        with lab.open("bench", CELL) as s:
            in_lab, html = moved(s.page, moves, s.idle), s.kernel("w.alone()")
        file = Path(d) / "page.html"
        file.write_text("<!doctype html><meta charset='utf-8'>" + html, encoding="utf-8")
        page = lab.browser.new_page()
        page.goto(file.as_uri())
        return in_lab, moved(page, moves), len(html.encode())


p = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
p.add_argument("--repeats", type=int, default=20, help="moves of the slider")
p.add_argument("--out")
a = p.parse_args()
if not CHROMIUM:
    sys.exit(NO_CHROMIUM)
in_lab, in_page, size = measure(a.repeats)
res = {
    "command": f"python tools/bench/widgets.py --repeats {a.repeats}",
    "widget": "temperature",
    "images": 3,
    "moves": a.repeats,
    "median_ms": round(median(in_lab), 1),
    "max_ms": round(max(in_lab), 1),
    "page_median_ms": round(median(in_page), 1),
    "page_max_ms": round(max(in_page), 1),
    "page_bytes": size,
    "load_average": [round(v, 2) for v in os.getloadavg()],
    "cores": os.cpu_count(),
}
print(json.dumps(res, indent=1))
if a.out:
    write_json(a.out, res)
