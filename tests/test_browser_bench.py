"""The tuning bench in JupyterLab: Train makes curves grow, Pause holds, Stop ends, runs come back
after a restart of the kernel."""

import re

import pytest

pytestmark = pytest.mark.browser
CELL = """
from kdmedlearn import phantom_dls, Response
from kdmedlearn.models.small import small_student
from kdmedlearn.train.teachers import phantom_teacher
from kdmedlearn.widgets import tuning_bench
dls, how = phantom_dls(n_train=128, n_valid=32, size=32, seed=0, bs=16), dict(epochs=500, every=.2)
bench = tuning_bench(dls, small_student, phantom_teacher(), Response(), "bench_runs", **how)
bench"""
THREADS = "[t.name for t in __import__('threading').enumerate() if t.name == 'kdmedlearn bench']"
POINTS = (
    "() => Math.max(0, ...[...document.querySelectorAll('.js-plotly-plot .scatterlayer"
    " .trace')].map(e => e.querySelectorAll('.point').length))"
)


def press(s, name):
    s.page.get_by_role("button", name=name).click()


def test_train_pause_stop_and_come_back(lab):
    with lab.open("bench", CELL) as s:
        s.page.get_by_role("button", name="Train").wait_for(timeout=60_000)
        slider = s.page.locator(".jupyter-widgets .noUi-handle").first
        slider.focus()
        for _ in range(5):
            s.page.keyboard.press("ArrowRight")
        s.until("() => parseFloat(document.querySelector('.widget-readout').textContent) > 4")
        T = s.kernel("bench.params['T'].value")
        assert T > 4.2
        press(s, "Train")
        s.until(f"() => ({POINTS})() >= 2", timeout=60)
        n = s.js(POINTS)
        s.until(f"n => ({POINTS})() >= n + 2", n, timeout=60)  # the curves grow
        assert s.kernel(f"bench.job.running, {THREADS}, 2 + 2") == (
            True,
            ["kdmedlearn bench"],
            4,
        )  # and the kernel answers meanwhile
        press(s, "Pause")
        s.page.get_by_role("button", name="Resume").wait_for(timeout=10_000)
        s.until("() => document.querySelector('.kdm-note')?.textContent === 'paused'")
        press(s, "Resume")
        press(s, "Stop")
        s.until(
            "() => document.querySelector('.kdm-note')?.textContent.includes('stopped after')",
            timeout=30,
        )
        assert s.kernel(f"bench.job.running, {THREADS}") == (False, [])
        (run,) = s.kernel(
            "[(r['status'], r['params']['T'], len(r['history']['accuracy'])) for r in"
            " bench.runs.all()]"
        )
        # three digits are trained with
        assert run[0] == "stopped" and abs(run[1] - T) < 0.01 and run[2] >= 4
        assert (
            not s.page.get_by_role("button", name="Train").is_disabled()
            and s.page.get_by_role("button", name="Stop").is_disabled()
        )
        # the output is deleted while a run trains: nothing goes on
        press(s, "Train")
        s.until(
            "() => document.querySelector('.kdm-note')?.textContent.includes('run 2: epoch')",
            timeout=60,
        )
        s.js("() => window.jupyterapp.commands.execute('notebook:clear-all-cell-outputs')")
        for _ in range(60):
            s.page.wait_for_timeout(250)
            if s.kernel("bench.job is None"):
                break
        assert s.kernel(THREADS) == [] and s.kernel("[r['status'] for r in bench.runs.all()]") == [
            "stopped",
            "stopped",
        ]
    with lab.open("bench", CELL, dark=True) as s:  # another kernel, the same folder
        s.page.locator(".widget-select-multiple option").nth(1).wait_for(
            state="attached", timeout=60_000
        )
        s.until(f"() => ({POINTS})() >= 4", timeout=30)
        assert s.kernel("len(bench.list.options)") == 2
        color = s.js(
            "() => getComputedStyle(document.querySelector('.js-plotly-plot .x2tick text')).fill"
        )
        assert min(float(v) for v in re.findall(r"[\d.]+", color)[:3]) > 150, (
            f"tick labels are {color} on the dark theme"
        )
        assert not s.errors


LINES = (
    "() => [...document.querySelectorAll('.js-plotly-plot .annotation-text')].map(e =>"
    " e.textContent).filter(t => /\\d$/.test(t))"
)
INSIDE = (
    "() => [...document.querySelectorAll('.js-plotly-plot')].map(g => g._fullLayout).map(l =>"
    " l.shapes.map(s => l.yaxis.range[0] < s.y0 && s.y0 < l.yaxis.range[1]))[0]"
)


def test_alone_draws_a_line_to_beat(lab, tmp_path):
    cell = CELL.replace("epochs=500", "epochs=2").replace("bench_runs", "beaten")
    with lab.open("alone", cell) as s:
        s.page.get_by_role("button", name="Train").wait_for(timeout=60_000)
        s.until(f"() => ({LINES})().length == 1")
        assert s.js(LINES)[0].startswith("teacher 0.")
        press(s, "Alone")
        ends = "n => document.querySelector('.kdm-note')?.textContent.includes(`run ${n}: done`)"
        s.until(ends, 1, timeout=60)
        s.until(f"() => ({LINES})().length == 2")
        _, alone = s.js(LINES)
        assert alone == s.kernel(
            "f\"student alone {bench.runs.all()[0]['history']['accuracy'][-1]:.3f}\""
        )
        assert s.js(INSIDE) == [True, True]  # the axis makes room for them
        assert s.kernel("bench.best.value") == ""
        s.until(f"() => ({POINTS})() == 2")
        press(s, "Train")
        s.until(ends, 2, timeout=60)
        s.until(f"() => ({LINES})().length == 2")
        assert s.js(INSIDE) == [True, True]
        s.page.locator(".js-plotly-plot").first.scroll_into_view_if_needed()
        s.shot(tmp_path / "alone.png")
        assert not s.errors
