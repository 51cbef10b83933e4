"""How much the tuning bench slows a training: the same run beside an open widget in JupyterLab, and without it.

    python tools/bench_tuning.py [--repeats 5] [--epochs 20] [--out docs/results/bench_tuning.json]

Both ways in turn, in one kernel, seconds of the fit alone; the page is open and draws.
"""

import argparse, json, statistics, sys, tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from lab import Lab

p = argparse.ArgumentParser()
p.add_argument("--repeats", type=int, default=5)
p.add_argument("--epochs", type=int, default=20)
p.add_argument("--out", type=Path)
a = p.parse_args()

CELL = f"""
import time
from fastai.metrics import accuracy
from kdmedlearn import GuidedStudent, Response, distill, phantom_dls
from kdmedlearn.experiments.experiment import restart
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

def begin(): bench.buttons["Train"].click()
bench
"""

with tempfile.TemporaryDirectory() as d, Lab(Path(d)) as lab, lab.open("bench", CELL) as s:
    s.page.get_by_role("button", name="Train").wait_for(timeout=60_000)
    s.kernel("plain()", timeout=600)
    rows = []
    for _ in range(a.repeats):
        alone = s.kernel("plain()", timeout=600)
        s.page.get_by_role("button", name="Train").click()
        s.until(
            "() => document.querySelector('.kdm-note')?.textContent.includes('done after')",
            timeout=600,
        )
        rows.append((alone, s.kernel("bench.runs.all()[-1]['seconds']")))
        s.kernel("bench.say('')")

res = {
    "command": f"python tools/bench_tuning.py --repeats {a.repeats} --epochs {a.epochs}",
    "seconds without": [round(r[0], 2) for r in rows],
    "seconds with the bench": [round(r[1], 2) for r in rows],
    "speed with / without": round(statistics.median(w / b for w, b in rows), 3),
}
print(json.dumps(res, indent=1))
if a.out:
    a.out.write_text(json.dumps(res, indent=1) + "\n")
