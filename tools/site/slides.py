"""Slides of a tutorial: its headings, formulas and pictures, in one HTML file that needs no
network.

python tools/site/slides.py nbs/tutorials/02_temperature.ipynb [slides.html]

Arrow keys turn the page; the browser prints one slide a page. Under each heading stand the
formulas, the lists and the pictures of its section, and of its text the first two sentences.
"""

import html, json, re, sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[2]
PLOTLY = "application/vnd.plotly.v1+json"
STYLE = """
:root { color-scheme: light dark; --bg: #fff; --ink: #1f2328; --mute: #57606a }
@media (prefers-color-scheme: dark) { :root { --bg: #16191d; --ink: #e8eaed; --mute: #a8b1bb } }
html { scroll-snap-type: y mandatory }
body { margin: 0; background: var(--bg); color: var(--ink); font: 1.5rem/1.5 system-ui, sans-serif }
section { min-height: 100vh; box-sizing: border-box; padding: 5vh 7vw; scroll-snap-align: start }
h1 { font-size: 2.6rem } h2 { font-size: 2rem } p.mute { color: var(--mute) }
.dataframe { border-collapse: collapse; font-size: .8em }
.dataframe :is(td, th) { padding: .2em .8em; border: 0; border-bottom: 1px solid var(--mute) }
img { max-width: 100%; max-height: 70vh; background: #fff; border-radius: 6px }
svg.kdp { max-width: 100%; max-height: 75vh; height: auto }
.math { overflow-x: auto; margin: 1em 0; font-size: 1.2em }
@media print { section { break-after: page } }
"""
KEYS = """
const pages = [...document.querySelectorAll('section')];
addEventListener('keydown', e => {
  const step = {ArrowRight: 1, PageDown: 1, ' ': 1, ArrowLeft: -1, PageUp: -1}[e.key];
  if (!step) return;
  e.preventDefault();
  const tops = pages.map(p => Math.abs(p.getBoundingClientRect().top));
  const now = tops.indexOf(Math.min(...tops));
  pages[Math.max(0, Math.min(pages.length - 1, now + step))].scrollIntoView();
});
"""
SIGNS = {r"\lVert": "‖", r"\rVert": "‖", r"\|": "‖", r"\langle": "⟨", r"\rangle": "⟩"}


def math(tex: str, display: str = "inline") -> str:
    "MathML of a formula, as on the site."
    from latex2mathml.converter import convert

    tall = r"(\\[bB]igg?)\s*(\\[lr]Vert|\\\||\\[lr]angle)"
    tex = re.sub(tall, lambda m: m[1] + SIGNS[m[2]], tex)
    return convert(re.sub(r"\\arg(?![a-z])", r"\\operatorname{arg}", tex), display=display)


def line(text: str) -> str:
    "HTML of one line of markdown: formulas, emphasis, code; a link is its text."
    parts = re.split(r"\$([^$\n]+)\$", text)
    for i, part in enumerate(parts):
        if i % 2:
            parts[i] = math(part)
            continue
        part = html.escape(re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", part), quote=False)
        part = re.sub(r"`([^`]+)`", r"<code>\1</code>", part)
        part = re.sub(r"\*\*([^*]+)\*\*", r"<b>\1</b>", part)
        parts[i] = re.sub(r"\*([^*\s][^*]*)\*", r"<i>\1</i>", part)
    return "".join(parts)


def drawn(alt: str, target: str, chapter: Path) -> str:
    "A picture that the text names, put into the page."
    file = (chapter.parent / target).resolve()
    if file.suffix == ".svg":
        return file.read_text(encoding="utf-8")
    return f"<p>{html.escape(alt)}</p>"


def told(text: str, chapter: Path) -> list:
    "The first two sentences, the formulas, lists and pictures of a section's text."
    text = re.sub(r"<details>.*?</details>|```.*?```", "", text, flags=re.S)
    found, first = [], True
    for block in re.split(r"(\$\$.+?\$\$)|\n\s*\n", text, flags=re.S):
        block = (block or "").strip()
        picture = re.match(r"!\[([^\]]*)\]\(([^)]+)\)", block)
        if block.startswith("$$"):
            found.append(f'<div class="math">{math(block.strip("$").strip(), "block")}</div>')
        elif picture:
            found.append(drawn(*picture.groups(), chapter))
        elif re.match(r"([-*]|\d+\.) ", block):
            points = re.split(r"^(?:[-*]|\d+\.) ", block, flags=re.M)[1:]
            items = "".join(f"<li>{line(' '.join(p.split()))}</li>" for p in points)
            found.append(f"<ul>{items}</ul>")
        elif block and first and not block.startswith(("|", "#", "*You need")):
            sentence = " ".join(re.split(r"(?<=[.?!]) (?=[A-Z`*$])", block)[:2])
            found.append(f"<p>{line(sentence.lstrip('> '))}</p>")
            first = False
    return found


def shown(cell) -> list:
    "The pictures that a cell has made."
    import plotly.io as pio

    found = []
    for out in cell.get("outputs", []):
        data = out.get("data", {})
        kind = next((k for k in ("image/png", "image/jpeg") if k in data), None)
        if kind:
            found.append(f'<img alt="" src="data:{kind};base64,{data[kind].strip()}">')
        elif PLOTLY in data:
            fig = pio.from_json(json.dumps(data[PLOTLY]), skip_invalid=True)
            found.append(pio.to_html(fig, include_plotlyjs=False, full_html=False))
        elif 'class="dataframe"' in data.get("text/html", ""):
            found.append(data["text/html"])
    return found


def large(part: str) -> bool:
    "Does a part of a slide fill it?"
    return any(k in part for k in ("<img", "<svg", "plotly-graph-div", "dataframe"))


def spread(heading: str, parts: list) -> list:
    "A drawn picture gets a slide of its own."
    small = [p for p in parts if not large(p)]
    return [[heading, small]] * bool(small) + [[heading, [p]] for p in parts if large(p)]


def slides(chapter: Path) -> list:  # of [heading, parts]
    "One slide for each heading, and one for each picture beyond the first."
    pages = []
    for cell in nbformat.read(chapter, 4).cells:
        if cell.cell_type == "markdown":
            parts = re.split(r"^(#{1,3} .+)$", cell.source, flags=re.M)
            if pages and parts[0].strip():
                pages[-1][1] += told(parts[0], chapter)[1:]  # the sentences were said
            for heading, text in zip(parts[1::2], parts[2::2]):
                pages += spread(heading, told(text, chapter)) or [[heading, []]]
        elif pages:
            for picture in shown(cell):
                if any(large(p) for p in pages[-1][1]):
                    pages.append([pages[-1][0], []])
                pages[-1][1].append(picture)
    leave = ("Solutions", "References", "When something", "Errors")
    return [p for p in pages if p[1] and not p[0].lstrip("# ").startswith(leave)]


def page(chapter: Path) -> str:
    "The whole file."
    import plotly

    pages = slides(chapter)
    body = "".join(
        f"<section><h{min(2, h.count('#'))}>{line(h.lstrip('# '))}</h{min(2, h.count('#'))}>"
        + "\n".join(parts)
        + "</section>\n"
        for h, parts in pages
    )
    script = ""
    if "plotly-graph-div" in body:
        source = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
        script = f"<script>{source.read_text(encoding='utf-8')}</script>"
    title = html.escape(pages[0][0].lstrip("# "))
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style>{script}{body}<script>{KEYS}</script></html>\n"
    )


if __name__ == "__main__":
    chapter = Path(sys.argv[1]).resolve()
    to = Path(sys.argv[2] if len(sys.argv) > 2 else f"{chapter.stem}.html")
    to.write_text(page(chapter), encoding="utf-8")
    print(f"{to}: {len(slides(chapter))} slides, {to.stat().st_size / 1e6:.1f} MB")
