"""How long the temperature widget takes from a key press to a changed figure, in a real JupyterLab; prints JSON.

    python tools/bench_widgets.py

Three phantom images, a slider moved by the keyboard. Needs Chromium and playwright, as the browser tests do. The load
average says how quiet the machine was: a number measured beside other work is an upper bound.
"""

import json, os, sys, tempfile
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from lab import CHROMIUM, Lab

MOVES = 20
CELL = """
from kdmedlearn import GuidedStudent, Response, distill, phantom_dls
from kdmedlearn.train.teachers import phantom_teacher
from kdmedlearn.widgets import temperature
dls = phantom_dls(n_train=32, n_valid=32, size=64, seed=0, bs=16)
w = temperature(distill(dls, GuidedStudent(), phantom_teacher(), Response(T=4)), items=3)
w.T.value = 1.
w"""
WATCH = """() => {
  const title = () => document.querySelector('.kdm .js-plotly-plot .gtitle')?.textContent;
  window.times = []; let last = title(), pressed = null;
  document.addEventListener('keydown', () => { pressed = performance.now() }, true);
  new MutationObserver(() => {
    if (title() && title() !== last) { last = title(); if (pressed !== null) window.times.push(performance.now() - pressed); pressed = null }
  }).observe(document.body, {subtree: true, childList: true, characterData: true, attributes: true});
}"""


def main():
    if not CHROMIUM:
        sys.exit(
            "no Chromium found: install the package chromium, or name the program in the variable"
            " CHROMIUM"
        )
    with tempfile.TemporaryDirectory() as d, Lab(Path(d)) as lab, lab.open("bench", CELL) as s:
        s.page.locator(".kdm .js-plotly-plot .gtitle").first.wait_for(timeout=60_000)
        s.js(WATCH)
        s.page.locator(".kdm .noUi-handle").first.focus()
        for n in range(1, MOVES + 1):
            s.page.keyboard.press("ArrowRight")
            s.until("n => window.times.length >= n", n)
            s.idle()
        ms, size = s.js("() => window.times"), s.kernel("len(w.figure.to_json())")
    print(
        json.dumps(
            {
                "command": "python tools/bench_widgets.py",
                "widget": "temperature",
                "images": 3,
                "moves": MOVES,
                "median_ms": round(median(ms), 1),
                "max_ms": round(max(ms), 1),
                "figure_bytes": size,
                "load_average": [round(v, 2) for v in os.getloadavg()],
                "cores": os.cpu_count(),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
