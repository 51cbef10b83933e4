"The widgets that look, in JupyterLab: a figure appears, the keyboard turns it, the kernel follows."

import pytest

pytestmark = pytest.mark.browser
SETUP = """
import torch
from kdmedlearn import distill, KDAS, phantom_dls, Teacher
from kdmedlearn.methods.fusion import RelationAttention
from kdmedlearn.models.hdkd import HDKDTeacher
from kdmedlearn.models.small import SmallCNN
from kdmedlearn.models.unet import UNet
from kdmedlearn.widgets import compare, kdas_attention, mbcsa_attention, relation_attention
torch.manual_seed(0)
cnn, unet = lambda: SmallCNN(8, widths=(4, 8)), lambda: UNet(widths=(4, 6))
dls = phantom_dls(8, 6, size=32, bs=4, device="cpu")
masks = phantom_dls(8, 6, size=32, task="segment", bs=4, device="cpu")
"""
TEXT = (
    "() => [...document.querySelectorAll('.js-plotly-plot :is(.infolayer, .xtick, .ytick)"
    " text')].map(e => e.textContent)"
)
IMAGES = (
    "() => [...document.querySelectorAll('.js-plotly-plot .imagelayer image')].map(e =>"
    " e.getAttribute('href') || e.getAttribute('xlink:href'))"
)
HOLDS = (
    "t => [...document.querySelectorAll('.js-plotly-plot :is(.infolayer, .xtick, .ytick)"
    " text')].some(e => e.textContent.includes(t))"
)


def press(s, selector, key, n=0, times=1):
    "Focus the n-th control of the widget and press a key."
    s.page.locator(f".jupyter-widgets {selector}").nth(n).focus()
    for _ in range(times):
        s.page.keyboard.press(key)


def shown(s, text):
    "Wait until the figure says `text`; its pictures."
    s.until(HOLDS, text)
    # while a figure is drawn anew its pictures are there without a source
    s.until(f"() => ({IMAGES})().every(Boolean)")
    return s.js(IMAGES)


def readable(s, dark):
    "The figure's text stands out from the page."
    light = s.js(
        "() => { const c = getComputedStyle(document.querySelector('.js-plotly-plot .infolayer"
        " text')).fill.match(/[0-9.]+/g).map(Number); return (c[0] + c[1] + c[2]) / 3 }"
    )
    assert light > 150 if dark else light < 105


DRAWN = (
    "() => [...document.querySelectorAll('.kdm-live .layers > :is(img, canvas)')].map(e =>"
    " e.toDataURL ? e.toDataURL() : e.src)"
)


def drawn(s, label, key, times=1, says=""):
    "Press a key on the control `label` of a live widget; when it says so, its pictures."
    s.page.locator(f".kdm-live [aria-label='{label}']").first.focus()
    for _ in range(times):
        s.page.keyboard.press(key)
    s.until("t => document.querySelector('.kdm-live').textContent.includes(t)", says)
    return s.js(DRAWN)


def in_kernel(s, expression, want):
    "Wait until the kernel has heard of it."
    for _ in range(50):
        if (got := s.kernel(expression)) == want:
            return
        s.page.wait_for_timeout(100)
    assert got == want


def test_relation_attention(lab):
    cell = (
        "w = relation_attention(distill(dls, cnn(), [cnn(), Teacher(cnn(), name='other')],"
        " RelationAttention(d=8, heads=2)))\nw"
    )
    with lab.open("relation", SETUP, cell) as s:
        s.page.locator(".kdm-live .title").first.wait_for(timeout=60_000)
        first = s.js(DRAWN)
        assert len(first) == 4 and s.page.locator(".kdm-live", has_text="2 other").count()
        third = drawn(s, "image", "ArrowRight", 2, "image 3:")
        assert all(a != b for a, b in zip(third, first))
        in_kernel(s, "w.state['image']", 3)
        words = "() => [...document.querySelectorAll('.layers text')].map(e => e.textContent)"
        assert len(s.js(words)) == 8 and all(t.endswith("%") for t in s.js(words))
        asked = drawn(s, "query", "ArrowRight", 2, "row 1, column 2")
        assert asked[3] == third[3] and asked[1:3] != third[1:3]  # the matrix is of all queries
        # the frames around the place that asks, and around its row of the matrix
        assert s.page.locator(".layers rect").count() == 2
        head = drawn(s, "head", "ArrowDown", 1, "weights: head 1; query")
        assert head[0] == asked[0] and head[3] != asked[3]
        in_kernel(s, "(w.state['query'], w.state['head'])", (1, "head 1"))
        s.kernel("w.move(image=1)")
        s.until("() => document.querySelector('.title').textContent.startsWith('image 1:')")
        assert not s.errors


def test_kdas_attention_in_the_dark(lab):
    with lab.open(
        "kdas",
        SETUP,
        """
# a new network says nearly the same everywhere; this one's rows differ
def loud():
    net = unet()
    for p in net.parameters(): p.data *= 3
    return net
w = kdas_attention(distill(masks, loud(), loud(), KDAS()))
w""",
        dark=True,
    ) as s:
        s.page.locator(".kdm-live .title").first.wait_for(timeout=60_000)
        first = s.js(DRAWN)
        assert len(first) == 12  # two rows of five, where the weights lie over the image
        light = s.js(
            "() => Math.min(...[...document.querySelectorAll('.kdm-live :is(.title, b, .said)')]"
            ".map(e => getComputedStyle(e).color.match(/[0-9.]+/g).slice(0, 3)"
            ".reduce((a, v) => a + v / 3, 0)))"
        )
        assert light > 150  # words stand out from the page
        moved = drawn(s, "row r", "ArrowLeft", 5, "weights of row 11")
        other = {i for i, (a, b) in enumerate(zip(first, moved)) if a != b}
        assert {5} <= other <= {5, 11}  # the weights of this row, of one or both; the maps stay
        in_kernel(s, "w.state['row']", 11)
        second = drawn(s, "image", "ArrowRight", 1, "image 2")
        assert second[1] != first[1] and not s.errors
        in_kernel(s, "w.state['image']", 2)


def test_mbcsa_attention(lab):
    with lab.open(
        "mbcsa",
        SETUP,
        "w = mbcsa_attention(HDKDTeacher(8, widths=(8, 16, 16), depths=(1, 1, 2), hidden=8),"
        " dls.valid)\nw",
    ) as s:
        s.page.locator(".kdm-live .title").first.wait_for(timeout=60_000)
        first = s.js(DRAWN)
        bars = s.page.locator(".kdm-live svg[role=img] rect")
        assert len(first) == 4 and bars.count() == 64
        second = drawn(s, "image", "ArrowRight", 1, "image 2:")
        assert second[0] != first[0] and second[3] == first[3]  # the mean map stays
        drawn(s, "block", "ArrowUp", 2, "stage2.0: weights of 32 channels")
        in_kernel(s, "w.state['block']", "stage2.0")
        assert bars.count() == 32 and not s.errors


def test_compare(lab):
    with lab.open(
        "compare",
        SETUP,
        "w = compare({'teacher': cnn(), 'alone': cnn(), 'distilled': cnn()},"
        " dls.valid)\nw.kind.value = 'all images'\nw",
    ) as s:
        first = shown(s, "1 of 6:")
        text = s.js(TEXT)
        assert (
            all(
                any(t.startswith(n) for t in text)
                for n in ("true class: ", "teacher: ", "alone: ", "distilled: ")
            )
            and s.page.locator(".js-plotly-plot .barlayer .point").count() >= 9
        )
        press(s, ".noUi-handle", "ArrowRight", times=3)
        assert shown(s, "4 of 6:") != first
        assert f"4 of 6: image {s.kernel('w.kinds[w.kind.value][3]') + 1} of the loader" in s.js(
            TEXT
        )
        press(s, ".noUi-handle", "Home", n=1)  # another kind: its first image, or a sentence
        n = s.kernel("len(w.kinds['some right, some wrong'])")
        if n:
            shown(s, f"1 of {n}:")
        else:
            s.until(
                "() => document.querySelector('.kdm-said')?.textContent.includes('none of the 6"
                " images')"
            )
        assert s.kernel("w.kind.value") == "some right, some wrong" and not s.errors


def test_compare_masks_in_the_dark(lab):
    with lab.open(
        "comparemasks", SETUP, "w = compare({'a': unet(), 'b': unet()}, masks.valid)\nw", dark=True
    ) as s:
        first = shown(s, "1 of 6:")
        assert len(first) == 3 and all(o.startswith("data:image/jpeg") for o in first)
        readable(s, True)
        press(s, ".noUi-handle", "ArrowRight")
        assert shown(s, "2 of 6:") != first and s.kernel("w.at.value") == 2 and not s.errors


EVIL = "<img src=x onerror='window.hit=1'><script>window.hit=1</script>"


def test_names_that_are_scripts_are_text(lab, tmp_path):
    import pandas as pd
    import plotly.graph_objects as go

    from kdmedlearn.experiments.report import write_report

    cell = (
        f"evil = {EVIL!r}\ndls.valid.vocab = dls.vocab = [evil + str(i) for i in range(8)]\n"
        "w = compare({evil: cnn(), 'other': cnn()}, dls.valid)\nw.kind.value = 'all images'\nw"
    )
    with lab.open("evil", SETUP, cell) as s:
        shown(s, "1 of 6:")
        press(s, ".noUi-handle", "ArrowRight")
        shown(s, "2 of 6:")
        assert s.js("() => window.hit") is None and not s.errors
    figure = go.Figure(go.Bar(x=[EVIL, "b"], y=[1, 2], name=EVIL, hovertext=EVIL))
    figure.update_layout(title=EVIL)
    table = pd.DataFrame({EVIL: [EVIL]}, index=[EVIL])
    report = write_report(tmp_path / "r.html", EVIL, [EVIL, (EVIL, table), figure])
    page = lab.browser.new_page()
    page.goto(report.as_uri())
    page.wait_for_selector(".js-plotly-plot .barlayer")
    page.hover(".js-plotly-plot .barlayer .point >> nth=0", force=True)
    page.wait_for_timeout(500)
    assert page.evaluate("() => window.hit") is None
    assert page.locator("h1").inner_text() == EVIL
    page.close()
