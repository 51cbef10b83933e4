"""Every page of the built site in a real browser: no error on the console, no request to elsewhere,
every figure and live widget drawn, no picture without words; at 1280 pixels no code cut off, at 400
nothing wider than the page, no text upon text in the picture of a widget. (That a page defines the
names it uses is a test: `names.py`.)

    make docs && python tools/site/check_site.py [--shots FOLDER] [--only tutorials]

Exit 1 and a list, where something is wrong. Needs Chromium and playwright, as the browser tests do.
With --shots a picture of the top of each page, light and dark.
"""

import argparse, functools, http.server, sys, threading
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from lab import ARGS, CHROMIUM

p = argparse.ArgumentParser()
p.add_argument("--shots", type=Path)
p.add_argument("--only", default="", help="pages with this in their address")
a = p.parse_args()
SITE = ROOT / "docs" / "_build" / "html"
pages = sorted(f.relative_to(SITE).as_posix() for f in SITE.rglob("*.html"))
pages = [f for f in pages if a.only in f]
if not pages:
    sys.exit("there is no site; run make docs first")


# What each width has to show: a list of complaints, from inside the page.
CUT = """() => [...document.querySelectorAll('.content pre')].filter(e => e.offsetParent &&
    e.scrollWidth > e.clientWidth + 1).map(e => 'code is cut: ' + e.textContent.split('\\n')
    .sort((a, b) => b.length - a.length)[0].trim().slice(0, 60))"""
WIDE = """() => {
    const w = document.documentElement.clientWidth, scrolls = e => e && (e.matches(
        '.sidebar-drawer, .toc-drawer') || /auto|scroll|hidden/.test(getComputedStyle(e).overflowX)
        || scrolls(e.parentElement));
    if (document.documentElement.scrollWidth <= w) return [];
    return [...document.querySelectorAll('article *')].filter(e => e.getBoundingClientRect().right
        > w + 1 && !scrolls(e.parentElement)).slice(0, 3).map(e => 'wider than the page: ' +
        e.tagName.toLowerCase() + ' ' + e.textContent.trim().slice(0, 50))}"""
UPON = """() => [...document.querySelectorAll('.kdm .js-plotly-plot, .kdm-live')].flatMap(g => {
    const t = [...g.querySelectorAll('svg text')].map(e => [e.textContent.trim(),
        e.getBoundingClientRect()]).filter(([s, r]) => s && r.width && r.height);
    return t.flatMap(([s, r], i) => t.slice(i + 1).filter(([u, q]) =>
        Math.min(r.right, q.right) - Math.max(r.left, q.left) > 3 &&
        Math.min(r.bottom, q.bottom) - Math.max(r.top, q.top) > 4)
        .map(([u]) => `text upon text: ${s.slice(0, 25)} | ${u.slice(0, 25)}`))}).slice(0, 3)"""
WORDLESS = """() => [...document.images].filter(i => !(i.alt || '').trim() || /^[\\w./-]+\\.\\w{3,4}$/
    .test(i.alt)).map(i => 'a picture without words: ' + i.src.slice(-60))"""
WIDTHS = {1280: (CUT, WORDLESS, UPON), 400: (WIDE, UPON)}


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


server = http.server.ThreadingHTTPServer(
    ("127.0.0.1", 0), functools.partial(Quiet, directory=str(SITE))
)
threading.Thread(target=server.serve_forever, daemon=True).start()
base, wrong, figures, live = f"http://127.0.0.1:{server.server_port}/", [], 0, 0
with sync_playwright() as play:
    browser = play.chromium.launch(executable_path=CHROMIUM, args=ARGS)
    for theme in ("light", "dark") if a.shots else ("light",):
        for name in pages:
            page = browser.new_page(viewport={"width": 1280, "height": 1400}, color_scheme=theme)
            page.route(
                lambda u: not u.startswith((base, "data:", "blob:")),
                lambda r: (wrong.append(f"{name}: asks for {r.request.url}"), r.abort()),
            )
            page.on(
                "console",
                lambda m: m.type == "error" and wrong.append(f"{name}: console: {m.text}"),
            )
            page.on("pageerror", lambda e: wrong.append(f"{name}: {e}"))
            page.on(
                "response",
                lambda r: r.status >= 400 and wrong.append(f"{name}: {r.status} for {r.url}"),
            )
            page.goto(base + name, wait_until="load")
            figures += page.locator(".js-plotly-plot").count()
            undrawn = page.evaluate(
                "() => [...document.querySelectorAll('.plotly-graph-div')].filter(d =>"
                " !d.querySelector('svg')).length"
            )
            if undrawn:
                wrong.append(f"{name}: {undrawn} figures are not drawn")
            widgets = page.locator("[data-kdm]").count()
            live += widgets
            if widgets != (alive := page.locator("[data-kdm] > .kdm-live").count()):
                wrong.append(f"{name}: {widgets - alive} live widgets are not drawn")
            for i in page.evaluate(
                "() => [...document.images].filter(i => !i.naturalWidth).map(i => i.src.slice(0,"
                " 80))"
            ):
                wrong.append(f"{name}: no picture {i}")
            for width, complaints in WIDTHS.items():
                page.set_viewport_size({"width": width, "height": 1400})
                page.wait_for_timeout(60)  # figures follow the width
                for js in complaints:
                    wrong += [f"{name}: {width} px: {t}" for t in page.evaluate(js)]
                if a.shots:
                    to = a.shots / theme / f"{name.replace('/', '_')}-{width}.png"
                    to.parent.mkdir(parents=True, exist_ok=True)
                    page.screenshot(path=str(to))
            page.close()
    browser.close()
server.shutdown()
print(
    f"{len(pages)} pages, {figures} plotly figures, {live} live widgets; "
    + (f"{len(wrong)} things wrong" if wrong else "nothing wrong")
)
if wrong:
    sys.exit("\n".join(dict.fromkeys(wrong)))
