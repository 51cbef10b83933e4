"""`temperature` and `loss_weights` in a real JupyterLab, moved by the keyboard."""

import pytest

pytestmark = pytest.mark.browser
SETUP = """
from kdmedlearn import distill, Feature, GuidedStudent, phantom_dls, Response
from kdmedlearn.train.teachers import phantom_teacher
from kdmedlearn.widgets import loss_weights, temperature
dls = phantom_dls(n_train=32, n_valid=16, size=64, seed=0, bs=16)
learn = distill(dls, GuidedStudent(), phantom_teacher(), """
TITLE = "() => document.querySelector('.kdm .js-plotly-plot .gtitle')?.textContent"
BAR = (
    "() => [...document.querySelectorAll('.kdm .js-plotly-plot .bars path')].map(e =>"
    " e.getAttribute('d')).join()"
)
# the colour of the text on every axis, the second and later ones included
TICKS = (
    "() => [...new Set([...document.querySelectorAll('.kdm .js-plotly-plot :is(.xtick, .ytick,"
    " .x2tick, .y2tick, .y3tick) text')].map(e => getComputedStyle(e).fill))]"
)


def changed(s, code, before):
    s.until(f"was => ({code})() !== was", before)


def test_temperature_by_keyboard(lab, tmp_path):
    with lab.open("temperature", SETUP + "Response())\nw = temperature(learn)\nw") as s:
        s.page.locator(".kdm-live .title").first.wait_for(timeout=60_000)
        title = "() => document.querySelector('.kdm-live .title').textContent"
        bars = (
            "() => [...document.querySelectorAll('.kdm-live rect')].map(e =>"
            " e.getAttribute('width')).join()"
        )
        assert s.js(title) == "T = 4, with the factor T²"
        assert s.page.locator(".kdm-live img").count() == 3
        was = s.js(bars)
        s.page.locator(".kdm-live input[type=range]").focus()
        s.page.keyboard.press("ArrowRight")
        s.until(f"() => ({title})().startsWith('T = 4.29')")
        changed(s, bars, was)
        s.page.get_by_role("checkbox", name="with the factor").focus()
        s.page.keyboard.press("Space")
        s.until(f"() => ({title})().includes('without the factor')")
        s.idle()
        state = {"T": 4.287, "squared": False, "teacher": "Sequential"}
        assert s.kernel("w.state") | {"teacher": "Sequential"} == state
        s.kernel("w.move(T=8.0)")
        s.until(f"() => ({title})().startsWith('T = 8')")
        s.shot(tmp_path / "temperature.png")
        assert not s.errors


def test_loss_weights_by_keyboard_in_the_dark(lab, tmp_path):
    with lab.open(
        "weights", SETUP + "Response() + Feature())\nw = loss_weights(learn)\nw", dark=True
    ) as s:
        s.page.locator(".kdm .js-plotly-plot .gtitle").first.wait_for(timeout=60_000)
        title, bars = s.js(TITLE), s.js(BAR)
        s.page.locator(".kdm .noUi-handle").first.focus()  # T: the terms are measured anew
        s.page.keyboard.press("ArrowRight")
        changed(s, BAR, bars)
        changed(s, TITLE, title)
        title = s.js(TITLE)
        s.page.locator(".kdm .noUi-handle").nth(1).focus()  # alpha
        for _ in range(5):
            s.page.keyboard.press("ArrowLeft")
        s.until(
            "() => document.querySelectorAll('.kdm .widget-readout')[1].textContent === '0.850'"
        )
        changed(s, TITLE, title)
        s.idle()
        assert s.kernel("w.values()") == {
            "response.T": 4.12,
            "response.alpha": 0.85,
            "feature.lam": 1.0,
        }
        assert s.kernel("learn.distill.method.parts[0].hyperparameters()") == {
            "T": 4.0,
            "alpha": 0.9,
        }
        s.page.get_by_role("button", name="write to the method").focus()
        s.page.keyboard.press("Enter")
        s.page.locator(".kdm .kdm-note", has_text="Response(T=4.12, alpha=0.85)").wait_for()
        assert s.kernel("learn.distill.method.parts[0].hyperparameters()") == {
            "T": 4.12,
            "alpha": 0.85,
        }
        s.page.get_by_role("button", name="another batch").focus()
        s.page.keyboard.press("Enter")
        s.until(f"() => ({TITLE})().startsWith('batch 1, 16 images')")
        fills = s.js(TICKS)
        assert len(fills) == 1 and all(
            int(v) > 150 for v in fills[0][fills[0].index("(") + 1 : -1].split(",")[:3]
        ), f"dark text on a dark page: {fills}"
        s.shot(tmp_path / "weights.png")
        assert not s.errors
