"""The pages for readers and lecturers: pictures, symbols, cheat sheet, plan."""

import re
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
sys.path.insert(0, str(ROOT / "tools" / "site"))
import pictures  # noqa: E402


def page(name):
    return (DOCS / name).read_text(encoding="utf-8")


def words_of(chapter):
    "The markdown of a notebook."
    cells = nbformat.read(chapter, 4).cells
    return "\n".join(c.source for c in cells if c.cell_type == "markdown")


def linked(text):
    "The chapters that a text in docs/ links to."
    return [(DOCS / link).resolve() for link in re.findall(r"\]\((\.\./nbs/[^)#]+)", text)]


def test_the_drawn_pictures_are_what_the_program_draws():
    made = pictures.made()
    assert {p.name for p in pictures.TO.glob("*.svg")} == set(made)
    for name, svg in made.items():
        now = (pictures.TO / name).read_text(encoding="utf-8")
        assert now == svg, f"{name}: python tools/site/pictures.py"


def test_the_map_holds_every_method():
    from kdmedlearn.core.method import METHODS

    svg = pictures.methods_map().svg()
    names = [n for n in METHODS.built_in() if n in METHODS]
    missing = [n for n in names if f">{METHODS[n].__name__}</text>" not in svg]
    assert len(names) > 20 and not missing
    groups = {pictures.group_of(METHODS[n]()) for n in names}
    assert groups == set(pictures.GROUPS)


def test_a_method_finds_its_group_by_what_it_declares():
    from kdmedlearn.core.method import METHODS

    where = {
        "response": "answers",
        "tfkd": "answers",
        "feature": "maps",
        "hdkd": "maps",
        "rkd": "relations",
        "relation": "attention",
        "kdas": "attention",
    }
    assert {n: pictures.group_of(METHODS[n]()) for n in where} == where


def test_pictures_say_what_they_show_and_stand_in_chapters():
    text = "\n".join(words_of(p) for p in (ROOT / "nbs").rglob("*.ipynb"))
    for name, svg in pictures.made().items():
        assert re.search(r"<title [^>]*>[^<]{10,}</title>\n<desc [^>]*>[^<]{80,}</desc>", svg)
        assert "prefers-color-scheme:dark" in svg and 'data-theme="dark"' in svg
        assert not re.search(r"(href|src)=|url\((?!#)", svg), "a picture fetches nothing"
        here = rf"!\[[^\]]{{20,}}\]\([./a-z]*_static/pictures/{name}\)"
        assert re.search(here, text) and re.search(here, page("overview.md")), name


def table_below(text, heading):
    "Rows of the first table below a heading, as lists of cells."
    lines = text.split(heading + "\n", 1)[1].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|---"))
    rows = []
    for line in lines[start + 1 :]:
        if not line.startswith("|"):
            break
        rows.append([c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]])
    return rows


def occurs(symbol, formulas):
    "Does a letter, with its marks, stand in one of the formulas?"
    bare = re.escape(symbol)
    after = r"(?![A-Za-z])" if symbol[-1].isalpha() else ""
    return any(re.search(r"(?<![A-Za-z\\])" + bare + after, f) for f in formulas)


def test_each_symbol_occurs_in_a_chapter_that_it_links_to():
    rows = table_below(page("glossary.md"), "## Symbols")
    assert len(rows) > 25
    seen = []
    for symbols, meaning, _, chapters in rows:
        formulas = [
            a or b
            for chapter in linked(chapters)
            for a, b in re.findall(r"\$\$(.+?)\$\$|\$([^$\n]+)\$", words_of(chapter), re.S)
        ]
        for symbol in re.findall(r"\$([^$]+)\$", symbols):
            seen.append(symbol)
            assert occurs(symbol, formulas), f"{symbol}, {meaning}: in no chapter of its row"
    assert len(seen) == len(set(seen)), "a letter has two rows"


def test_each_word_links_to_a_chapter():
    rows = table_below(page("glossary.md"), "## Words")
    assert len(rows) > 30 and rows == sorted(rows, key=lambda r: r[0].lower())
    assert all(linked(row[-1]) for row in rows)
