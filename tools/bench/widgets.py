"""How long the temperature widget takes from a key press to a changed figure, in a real JupyterLab.

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
w.T.value = 1.
w"""
WATCH = """() => {
  const title = () => document.querySelector('.kdm .js-plotly-plot .gtitle')?.textContent;
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


def measure(moves):
    "Milliseconds of each move of the slider, and the bytes of the figure."
    with tempfile.TemporaryDirectory() as d, Lab(Path(d)) as lab, lab.open("bench", CELL) as s:
        s.page.locator(".kdm .js-plotly-plot .gtitle").first.wait_for(timeout=60_000)
        s.js(WATCH)
        s.page.locator(".kdm .noUi-handle").first.focus()
        for n in range(1, moves + 1):
            s.page.keyboard.press("ArrowRight")
            s.until("n => window.times.length >= n", n)
            s.idle()
        return s.js("() => window.times"), s.kernel("len(w.figure.to_json())")


p = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
p.add_argument("--repeats", type=int, default=20, help="moves of the slider")
p.add_argument("--out")
a = p.parse_args()
if not CHROMIUM:
    sys.exit(NO_CHROMIUM)
ms, size = measure(a.repeats)
res = {
    "command": f"python tools/bench/widgets.py --repeats {a.repeats}",
    "widget": "temperature",
    "images": 3,
    "moves": a.repeats,
    "median_ms": round(median(ms), 1),
    "max_ms": round(max(ms), 1),
    "figure_bytes": size,
    "load_average": [round(v, 2) for v in os.getloadavg()],
    "cores": os.cpu_count(),
}
print(json.dumps(res, indent=1))
if a.out:
    write_json(a.out, res)
