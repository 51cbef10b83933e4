"""Live widgets in Chromium as a page shows them: no kernel, no server, no other host. What the page
computes is what Python computes."""

import numpy as np
import pandas as pd
import pytest
import torch

from kdmedlearn.viz.live import Live
from kdmedlearn.viz.tables import sortable
from kdmedlearn.methods.kdas import KDAS
from kdmedlearn.widgets import question, temperature
from kdmedlearn.widgets.attention import FusionSeen, GatesSeen, KDASView, MapsSeen, MBCSAView
from kdmedlearn.widgets.attention import RelationView
from kdmedlearn.widgets.weights import Measured, weighed, weights_page
from kdmedlearn.models.small import small_student
from kdmedlearn.widgets.filming import film, plane, Shown, Take
from kdmedlearn.widgets.student import student_page

pytestmark = pytest.mark.browser
PAGE = "<!doctype html><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"


@pytest.fixture
def show(lab, tmp_path):
    "Opens widgets as one page without a kernel; at the end nothing was wrong and nobody asked."
    pages, wrong = [], []

    def shown(*widgets, width=900):
        page = lab.browser.new_page(viewport={"width": width, "height": 900})
        page.on("pageerror", lambda e: wrong.append(str(e)))
        page.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
        page.on("request", lambda r: None if r.url.startswith("file:") else wrong.append(r.url))
        file = tmp_path / f"page{len(pages)}.html"
        file.write_text(PAGE + "".join(w.alone() for w in widgets), encoding="utf-8")
        page.goto(file.as_uri())
        page.locator(".kdm-live").first.wait_for()
        pages.append(page)
        return page

    yield shown
    for page in pages:
        page.close()
    assert not [w for w in wrong if not w.startswith("data:")]


def numbers(page, i=0):
    return page.evaluate("i => document.querySelectorAll('[data-kdm]')[i].numbers", i)


def drag(page, name, value):
    "Put a slider where a hand would."
    page.get_by_role("slider", name=name, exact=True).first.evaluate(
        "(e, v) => { e.value = v; e.dispatchEvent(new Event('input')); }", value
    )


@pytest.mark.parametrize("squared", (True, False))
def test_temperature_computes_what_python_does(show, squared):
    torch.manual_seed(0)
    w = temperature(4 * torch.randn(3, 8), student=torch.randn(3, 8))
    w.move(squared=squared)
    page = show(w)
    for at in (-1, 0, 0.7, 2, 4.3):
        drag(page, "T", at)
        w.move(T=float(f"{2 ** float(page.get_by_role('slider').input_value()):.4g}"))
        for i, seen in enumerate(numbers(page)):
            for k, v in w.numbers().items():
                np.testing.assert_allclose(seen[k], v[i].numpy(), atol=1e-6, err_msg=k)


def test_bars_and_words_follow_the_slider_by_keyboard(show):
    page = show(temperature(torch.tensor([[4.0, 2, 1]]), names=["a", "b", "c"]))
    bar = page.locator("rect.p").first
    wide = float(bar.get_attribute("width"))
    page.get_by_role("slider").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator(".title").text_content().startswith("T = 4.29, with")
    assert float(bar.get_attribute("width")) < wide
    page.get_by_role("checkbox").focus()
    page.keyboard.press("Space")
    assert "without the factor" in page.locator(".title").text_content()
    assert not numbers(page)[0]["g"] == pytest.approx([0, 0, 0])


def test_two_on_a_page_are_two_and_a_name_is_a_word(show):
    bad = "<img src=x onerror=document.title='bad'>"
    w = temperature(torch.randn(2, 3), names=[bad, "</script>", "c"])
    page = show(w, w, temperature(torch.randn(1, 3)))
    drag(page, "T", 0)
    assert page.locator(".kdm-live").count() == 3 and page.title() == ""
    titles = page.locator(".title").all_text_contents()
    assert [t[:5] for t in titles] == ["T = 1", "T = 4", "T = 4"]
    assert page.locator("text", has_text="onerror").count() and not page.locator("img").count()


def test_the_choice_of_a_teacher(show):
    w = Live(
        "temperature",
        dict(
            teachers={"one": [[3.0, 0.0]], "other": [[0.0, 3.0]]},
            student=[[0.0, 0.0]],
            names=["a", "b"],
            truth=[0],
            images=[],
            numbers=[7],
            classes=[0, 1],
            reach=2.0,
            mark=1.0,
        ),
        T=1.0,
        squared=True,
        teacher="one",
    )
    page = show(w)
    before = numbers(page)[0]["p"]
    page.get_by_role("combobox", name="teacher").select_option("other")
    assert numbers(page)[0]["p"] == before[::-1]
    assert page.get_by_text("a, image 7").count()


@pytest.mark.parametrize("width", (400, 1280))
def test_nothing_is_wider_than_the_page(show, width):
    long = [f"a class with a name that does not end, number {i}" for i in range(12)]
    page = show(temperature(torch.randn(6, 12), items=6, names=long), width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    left = page.evaluate(
        "() => Math.min(...[...document.querySelectorAll('svg text')].map(e =>"
        " e.getBoundingClientRect().left - e.ownerSVGElement.getBoundingClientRect().left))"
    )
    assert left > -12  # no name leaves its column


def two_trainings():
    "Weights at three steps of two networks over the plane, and of one that does not move."
    g = torch.Generator().manual_seed(0)
    made = lambda: {
        k: torch.randn(*shape, generator=g)
        for k, shape in dict(w1=(5, 2), b1=(5,), w2=(3, 5), b2=(3,)).items()
    }
    shown = [Shown(n, [made() for _ in range(3)], [0.3, 0.5, 0.7], [], []) for n in "ab"]
    still = Shown("still", [made()], [0.9], [(0.0, 1.0, 2)], [(1.0, 1.0)])
    return [*shown, still]


def test_the_plane_is_what_the_networks_answer(show):
    panels = two_trainings()
    page = show(plane(panels, [0, 10, 20]))
    for frame in (0, 2):
        drag(page, "step", frame)
        seen = numbers(page)
        assert [v["accuracy"] for v in seen] == [(0.3, 0.5, 0.7)[frame]] * 2 + [0.9]
        at = (np.arange(8) + 0.5) / 8
        x, y = np.meshgrid(5 * at - 2.5, 4 * at[::-1] - 2)
        x = torch.tensor(np.stack([x, y], -1))
        for v, panel in zip(seen, panels):
            n = {k: w.double() for k, w in panel.frames[min(frame, len(panel.frames) - 1)].items()}
            p = ((x @ n["w1"].T + n["b1"]).tanh() @ n["w2"].T + n["b2"]).softmax(-1)
            np.testing.assert_allclose(v["p"], p.numpy(), atol=1e-6)
    assert page.locator("canvas").count() == 3 and page.locator("circle").count() == 2


def filmed():
    settings = [dict(student="alone"), dict(student="taught", T=1), dict(student="taught", T=4)]
    g = torch.Generator().manual_seed(0)
    takes = [Take(s, [0.1, 0.5 + 0.1 * i], torch.randn(2, 1, 3, generator=g)) for i, s in
             enumerate(settings)]  # fmt: skip
    x = torch.rand(1, 3, 8, 8, generator=g)
    return film(takes, [0, 9], torch.randn(1, 3, generator=g), x, [2], "abc", 0.9), takes


def test_the_film_shows_the_take_that_was_chosen(show):
    w, takes = filmed()
    page = show(w)
    for choices, i in (({"student": "taught", "T": "1"}, 1), ({"T": "4"}, 2)):
        for k, v in choices.items():
            page.get_by_role("combobox", name=k, exact=True).select_option(v)
        for frame in (1, 0):
            drag(page, "step", frame)
            seen = numbers(page)
            p = takes[i].logits[frame].double().softmax(-1).numpy()
            np.testing.assert_allclose(seen["p"], p, atol=1e-6)
            assert seen["accuracy"] == pytest.approx(takes[i].accuracy[frame])
            assert seen["step"] == [0, 9][frame]
    page.get_by_role("combobox", name="student").select_option("alone")  # filmed without a T
    np.testing.assert_allclose(
        numbers(page)["p"], takes[0].logits[0].double().softmax(-1).numpy(), atol=1e-6
    )
    assert page.locator(".title").text_content().startswith("alone: 10.0 %")


def test_a_film_plays_and_stops_at_the_end(show):
    w, _ = filmed()
    w.move(frame=0)
    page = show(w)
    page.get_by_role("button", name="play").click()
    page.wait_for_function("document.querySelector('[data-kdm]').numbers.step === 9")
    page.get_by_role("button", name="play").wait_for()  # not "stop" any more
    step = "e => { e.click(); return document.querySelector('[data-kdm]').numbers.step; }"
    assert page.get_by_role("button", name="play").evaluate(step) == 0  # from the start again


@pytest.mark.parametrize("width", (400, 1280))
def test_films_fit_the_page(show, width):
    page = show(plane(two_trainings(), [0, 10, 20]), filmed()[0], width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_question_replies_to_what_is_chosen(show):
    page = show(question("2 before"), question("2 after"))
    reply = page.locator("[role=status]").first
    assert reply.text_content() == ""
    page.get_by_label("The order of the classes.").check()
    assert reply.text_content().startswith("Not quite. Never") and not numbers(page)["right"]
    page.get_by_label("The sizes: the small").check()
    assert reply.text_content().startswith("Yes.") and numbers(page)["right"]
    assert page.locator("[role=status]").nth(1).text_content() == ""  # the other is another


class Alone:
    "What `show` wants of a widget, of HTML."

    def __init__(self, html):
        self.html = html

    def alone(self):
        return self.html


def test_loss_weights_in_a_page_are_those_of_python(show):
    g = torch.Generator().manual_seed(0)
    vectors = torch.randn(3, 9, generator=g).double()
    vectors[2] = -vectors[1] + 0.3 * vectors[0]
    m = Measured(dict(task=1.5, response=4.0, feature=0.2), vectors @ vectors.T)
    page = show(Alone(weights_page(m, dict(task=0.1, response=0.9, feature=1.0), "batch 0")))
    for name, value in (("task", 0.55), ("feature", 2.0), ("response", 0.0)):
        drag(page, f"weight of {name}", value)
        now = {n: float(page.get_by_role("slider", name=f"weight of {n}").input_value())
               for n in m.values}  # fmt: skip
        want, seen = weighed(m, now), numbers(page)
        assert seen["total"] == pytest.approx(want.total)
        np.testing.assert_allclose(seen["shares"], want.shares, atol=1e-6)
        np.testing.assert_allclose(seen["heard"], want.heard, atol=1e-6)
        np.testing.assert_allclose(seen["cos"], want.cos.numpy(), atol=1e-6)
    assert page.get_by_text("response and feature pull against each other").count()
    assert page.locator("tbody tr").count() == 4


def some_pictures(n):
    return list(np.random.default_rng(0).integers(0, 255, (n, 24, 24, 3), np.uint8))


def believed(K=3, n=4, N=4, names=None, truth=None):
    "What a fusion of K teachers with n places each could have said of N images."
    g = torch.Generator().manual_seed(0)
    a = (2 * torch.randn(N, 2, K * n, K * n, generator=g)).softmax(3)
    truth = truth or ["polyp"] * N
    names = names or [f"teacher {k}" for k in "abcde"[:K]]
    says = [[f"{t} 0.{k}1, right" for k in range(K)] for t in truth]
    return RelationView(FusionSeen(some_pictures(N), a, names, truth, says, ["fused: x"] * N))


def compared(sizes=((32, 32),), teachers=("one",), N=3, **kw):
    "Maps of a student and of teachers, one pair for each of `sizes`."
    g = torch.Generator().manual_seed(0)
    own = [2 * torch.randn(N, 1, *s, generator=g) for s in sizes]
    maps = {(t, h): (s, s + torch.randn(s.shape, generator=g))
            for t in teachers for h, s in enumerate(own)}  # fmt: skip
    y = torch.rand(N, *sizes[0], generator=g) > 0.7
    return KDASView(MapsSeen(some_pictures(N), y, maps, KDAS(**kw), list(teachers)))


def gated(C=(6, 40), N=4, side=(8, 4), titles=None):
    "Weights of two blocks."
    g = torch.Generator().manual_seed(0)
    channel = {f"stage{i}": torch.rand(N, c, generator=g) for i, c in enumerate(C)}
    spatial = {f"stage{i}": torch.rand(N, s, s, generator=g) for i, s in enumerate(side)}
    return MBCSAView(GatesSeen(some_pictures(N), titles or [""] * N, channel, spatial), "stage1")


def same_numbers(seen, want):
    for k, v in want.items():
        if isinstance(v, dict):
            same_numbers(seen[k], v)
        elif v is None:
            assert seen[k] is None, k
        else:
            np.testing.assert_allclose(seen[k], np.asarray(v), rtol=1e-6, atol=1e-9, err_msg=k)


def choose(page, name, value):
    page.get_by_role("combobox", name=name, exact=True).select_option(value)


DRAWN = (
    "() => [...document.querySelectorAll('.layers > :is(img, canvas)')].map(e =>"
    " e.toDataURL ? e.toDataURL() : e.src)"
)


def test_relation_in_a_page_is_that_of_python(show):
    w = believed()
    page = show(w)
    pictures = page.evaluate(DRAWN)
    for image, head, query in ((1, 0, -1), (3, 0, -1), (3, 2, 7), (4, 1, 0)):
        w.move(image=image, head=w.ranges["head"][head], query=query)
        drag(page, "image", image)
        drag(page, "query", query)
        choose(page, "head", w.ranges["head"][head])
        same_numbers(numbers(page), w.numbers())
    assert (
        page.locator(".title")
        .text_content()
        .endswith("weights: head 1; query teacher a, row 1, column 1")
    )
    assert all(a != b for a, b in zip(page.evaluate(DRAWN), pictures))
    shares = [f"{100 * v:.0f} %" for v in w.numbers()["shares"]]
    assert [
        t.split(" of")[0] for t in page.locator(".panels .said").all_text_contents()[1:]
    ] == shares


@pytest.mark.parametrize("case", ("plain", "several, raw", "oblong", "large"))
def test_kdas_in_a_page_is_that_of_python(show, case):
    w = {
        "plain": lambda: compared(),
        "several, raw": lambda: compared(((32, 32), (16, 16)), ("one", "two"), scale="raw", T=3.0),
        "oblong": lambda: compared(((12, 20),), sgm=0),
        "large": lambda: compared(((96, 96),)),
    }[case]()
    page = show(w)
    before = page.evaluate(DRAWN)
    for image, row in ((1, 0), (3, 11), (2, 5)):
        w.move(image=image, row=row)
        drag(page, "image", image)
        drag(page, "row r", row)
        same_numbers(numbers(page), w.numbers())
    if case == "several, raw":
        w.move(teacher="two", map="map 2", row=w.ranges["row"][1])  # below the second map's end
        choose(page, "teacher", "two")
        choose(page, "map", "map 2")
        drag(page, "row r", w.ranges["row"][1])
        same_numbers(numbers(page), w.numbers())
    said, now = page.locator(".title").text_content(), w.numbers()
    assert f"Latt {now['att']:.3f} nats" in said and ("Lsgm" in said) == (now["sgm"] is not None)
    assert ("Dice: student" in said) == (now["dice"] is not None)
    assert len(before) == (10 if case == "oblong" else 12)
    assert all(a != b for a, b in zip(page.evaluate(DRAWN), before))
    assert page.get_by_text("drawn as means").count() == (case == "large")


def test_mbcsa_in_a_page_is_that_of_python(show):
    w = gated(side=(80, 4), titles=["polyp", "ulcer", "", "polyp"])
    page = show(w)
    for image, block, order in ((1, 1, 0), (2, 1, 1), (2, 0, 0), (4, 0, 1)):
        w.move(image=image, block=w.ranges["block"][block], order=w.ranges["order"][order])
        drag(page, "image", image)
        choose(page, "block", w.state["block"])
        choose(page, "order by", w.state["order"])
        same_numbers(numbers(page), w.numbers())
        assert page.locator("svg[role=img] rect").count() == (6, 40)[block]
    assert page.get_by_text(f"explains {w.numbers()['share']:.0%}".replace("%", " %")).count()
    assert page.get_by_text("80 x 80 places, drawn averaged").count()


def test_a_colour_is_a_number(show):
    "The lowest weight is black, the highest light; logits below 0 are blue, above 0 red."
    page = show(gated(), compared())
    seen = page.evaluate(
        "() => [...document.querySelectorAll('canvas')].map(c => { const d = c.getContext('2d')"
        ".getImageData(0, 0, c.width, c.height).data; return Array.from({length: d.length / 4},"
        " (_, i) => [d[4 * i], d[4 * i + 1], d[4 * i + 2]]); })"
    )
    place = np.array(numbers(page, 0)["place"]).ravel()
    light = np.array(seen[0]).sum(1)
    assert (np.diff(light[place.argsort()]) >= 0).all() and np.ptp(light) > 300
    P, red = np.array(numbers(page, 1)["student"]["P"]).ravel(), np.array(seen[2])
    assert (red[P > 0.5, 0] > red[P > 0.5, 2]).all() and (red[P < -0.5, 0] < red[P < -0.5, 2]).all()


@pytest.mark.parametrize("width", (400, 820))
def test_attention_at_its_worst_fits_the_page(show, width):
    "Twenty long names of classes, five teachers with long names, one image, maps of one row."
    long = [f"a class with a name that does not end, number {i}" for i in range(20)]
    teachers = [f"a_teacher_whose_name_is_longer_than_its_column_{i}" for i in range(5)]
    w = believed(5, 4, 20, teachers, long)
    w.move(query=6)
    page = show(
        w,
        believed(5, 1, 1, teachers, long[:1]),
        compared(((1, 9), (1, 9)), teachers, 1, sgm=0),
        compared(),
        gated((1, 700), 1, titles=long[:1]),
        width=width,
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    upon = page.evaluate(
        "() => [...document.querySelectorAll('.kdm-live')].flatMap(g => { const r = [...g"
        ".querySelectorAll('b, .said, .title, .layers, label, .legend > span')].filter(e =>"
        " e.textContent || e.firstChild).map(e => [e, e.getBoundingClientRect()]); return r"
        ".flatMap(([e, a], i) => r.slice(i + 1).filter(([f, b]) => !e.contains(f) && Math.min("
        "a.right, b.right) - Math.max(a.left, b.left) > 2 && Math.min(a.bottom, b.bottom) -"
        " Math.max(a.top, b.top) > 2).map(([f]) => e.textContent + ' | ' + f.textContent)) })"
    )
    assert upon == []
    cut = page.evaluate(
        "() => [...document.querySelectorAll('.kdm-live :is(b, .said, .title, label)')].filter("
        "e => e.scrollWidth > e.clientWidth + 2 && e.clientWidth).map(e => e.textContent)"
    )
    assert cut == []
    assert page.evaluate(
        "() => [...document.querySelectorAll('img, canvas')].every(e => (e.alt ||"
        " e.getAttribute('aria-label')).length > 5 && e.getBoundingClientRect().width > 60)"
    )


def test_a_table_sorts_as_python_does_and_names_are_words(show):
    bad = "<img src=x onerror=document.title='bad'>"
    rows = {"student": ["b", bad, "B", "a", None], "T": [4, 1, 4, None, 16], "ok": [True] * 5}
    df = pd.DataFrame(rows).assign(accuracy=[0.7645, 0.7648, float("nan"), -1.0, float("inf")])
    w = sortable(df, by="accuracy", caption="runs")
    page = show(w, width=400)
    assert numbers(page) == w.order() == [1, 0, 3, 2, 4]
    for name in ("student", "T", "T", "ok", "accuracy", "accuracy"):
        head = page.get_by_role("columnheader").nth(list(df).index(name))
        down = head.get_attribute("aria-sort")
        head.get_by_role("button").click()
        now = head.get_attribute("aria-sort")
        assert now != down and now in ("ascending", "descending")
        w.move(by=name, down=now == "descending")
        assert numbers(page) == w.order()
        first = page.locator("tbody tr").first.locator("td").first.text_content()
        assert first == (rows["student"][w.order()[0]] or "")
    assert page.title() == "" and not page.locator("td img").count()
    body, wide = page.evaluate("[document.body.scrollWidth, innerWidth]")
    assert body <= wide  # a wide table moves in its own frame


def two_students():
    "Two networks that remember something, and three images."
    g = torch.Generator().manual_seed(0)
    nets = {}
    for name in ("alone", "taught"):
        torch.manual_seed(len(name))
        nets[name] = small_student(3)
        for _ in range(3):
            nets[name](2 * torch.randn(8, 3, 24, 24))
        nets[name].eval()
    images = torch.randint(0, 256, (3, 24, 24, 3), generator=g).byte().numpy()
    norm = (torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.25]))
    return student_page(nets, images, [0, 2, 1], ["a", "b", "c"], norm)


def test_students_in_a_page_answer_as_in_python(show):
    w = two_students()
    page = show(w)
    change = dict(image=3, light=0.65, noise=0.21, cover=7, across=3, down=20)
    names = dict(
        zip(
            change,
            ("image", "light", "noise", "square", "square, from the left", "square, from the top"),
        )
    )
    for key, value in change.items():
        drag(page, names[key], value)
        w.move(**{key: value})
        for seen, p in zip(numbers(page), w.numbers().values()):
            np.testing.assert_allclose(seen, p.numpy(), atol=1e-6, err_msg=key)
    assert page.locator(".said").text_content().startswith("True class: b.")


def test_a_square_follows_the_pointer(show):
    page = show(two_students())
    before = numbers(page)
    at = page.locator("canvas").bounding_box()
    page.mouse.move(at["x"] + at["width"] / 4, at["y"] + at["height"] / 2)
    page.mouse.down()
    page.mouse.move(at["x"] + at["width"] / 2, at["y"] + 3 * at["height"] / 4, steps=3)
    page.mouse.up()
    across = page.get_by_role("slider", name="square, from the left")
    page.wait_for_function("e => e.value === '12'", arg=across.element_handle())
    values = [s.input_value() for s in page.get_by_role("slider").all()[3:]]
    assert values == ["6", "12", "18"] and numbers(page) != before
    page.mouse.move(at["x"] + 2, at["y"] + 2)  # not pressed: it stays
    page.wait_for_timeout(100)
    assert across.input_value() == "12"


@pytest.mark.parametrize("width", (400, 1280))
def test_students_fit_the_page(show, width):
    page = show(two_students(), width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
