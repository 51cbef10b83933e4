"""How much the tuning bench slows a training: the same run beside an open widget in JupyterLab, and
without it.

    python tools/bench/tuning.py [--repeats 5] [--epochs 20] [--out docs/results/bench_tuning.json]

Both ways in turn, in one kernel, seconds of the fit alone; the page is open and draws. Needs
Chromium and playwright, as the browser tests do.
"""

import argparse, json, sys, tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
from kdmedlearn.evaluation.cost import in_turn
from kdmedlearn.experiments.report import write_json
from lab import CHROMIUM, NO_CHROMIUM, Lab
from timing import compared

p = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
p.add_argument("--repeats", type=int, default=5)
p.add_argument("--epochs", type=int, default=20)
p.add_argument("--out")
a = p.parse_args()
if not CHROMIUM:
    sys.exit(NO_CHROMIUM)

CELL = f"""
import time
from fastai.metrics import accuracy
from kdmedlearn import distill, GuidedStudent, phantom_dls, Response
from kdmedlearn.data.loaders import restart
from kdmedlearn.train.teachers import phantom_teacher
from kdmedlearn.widgets import tuning_bench
dls, teacher = phantom_dls(n_train=256, n_valid=128, size=64, seed=0, bs=16), phantom_teacher()
bench = tuning_bench(dls, GuidedStudent, teacher, Response(), "bench_runs", epochs={a.epochs})

def plain():
    restart(dls, 0)
    learn = distill(dls, GuidedStudent(), teacher, Response(), metrics=accuracy)
    start = time.perf_counter()
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle({a.epochs}, 3e-3)
    return time.perf_counter() - start

bench
"""
DONE = "() => document.querySelector('.kdm-note')?.textContent.includes('done after')"

with tempfile.TemporaryDirectory() as d, Lab(Path(d)) as lab, lab.open("bench", CELL) as s:
    s.page.get_by_role("button", name="Train").wait_for(timeout=60_000)

    def beside_the_bench():
        "Seconds of a run that was started by a click on Train."
        s.page.get_by_role("button", name="Train").click()
        s.until(DONE, timeout=600)
        seconds = s.kernel("bench.runs.all()[-1]['seconds']")
        s.kernel("bench.say('')")
        return seconds

    ways = {
        "without": lambda: s.kernel("plain()", timeout=600),
        "with the bench": beside_the_bench,
    }
    times = in_turn(ways, a.repeats, warm_up=1, measure=lambda run: run())

res = {
    "command": f"python tools/bench/tuning.py --repeats {a.repeats} --epochs {a.epochs}",
    **{f"seconds {k}": [round(t, 2) for t in v] for k, v in times.items()},
    "speed with / without": round(
        compared(times, "without", "with the bench")["median of ratios"], 3
    ),
}
print(json.dumps(res, indent=1))
if a.out:
    write_json(a.out, res)
