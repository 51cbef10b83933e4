"""Every page of the built site in a real browser: no error on the console, no request to elsewhere,
every figure drawn.

    make docs && python tools/site/check_site.py [--shots FOLDER]

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
a = p.parse_args()
SITE = ROOT / "docs" / "_build" / "html"
pages = sorted(f.relative_to(SITE).as_posix() for f in SITE.rglob("*.html"))
if not pages:
    sys.exit("there is no site; run make docs first")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


server = http.server.ThreadingHTTPServer(
    ("127.0.0.1", 0), functools.partial(Quiet, directory=str(SITE))
)
threading.Thread(target=server.serve_forever, daemon=True).start()
base, wrong, figures = f"http://127.0.0.1:{server.server_port}/", [], 0
with sync_playwright() as play:
    browser = play.chromium.launch(executable_path=CHROMIUM, args=ARGS)
    for theme in ("light", "dark") if a.shots else ("light",):
        for name in pages:
            page = browser.new_page(viewport={"width": 1300, "height": 1400}, color_scheme=theme)
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
            for i in page.evaluate(
                "() => [...document.images].filter(i => !i.naturalWidth).map(i => i.src.slice(0,"
                " 80))"
            ):
                wrong.append(f"{name}: no picture {i}")
            if a.shots:
                to = a.shots / theme / f"{name.replace('/', '_')}.png"
                to.parent.mkdir(parents=True, exist_ok=True)
                page.screenshot(path=str(to))
            page.close()
    browser.close()
server.shutdown()
print(
    f"{len(pages)} pages, {figures} plotly figures; "
    + (f"{len(wrong)} things wrong" if wrong else "nothing wrong")
)
if wrong:
    sys.exit("\n".join(dict.fromkeys(wrong)))
