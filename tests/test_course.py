"""The pages for readers and lecturers: pictures, symbols, cheat sheet, plan."""

import re
import shlex
import sys
import warnings
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import typer

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
sys.path.insert(0, str(ROOT / "tools" / "site"))
import pictures  # noqa: E402
import slides  # noqa: E402

from kdmedlearn.widgets import check  # noqa: E402

TUTORIALS = sorted((ROOT / "nbs" / "tutorials").glob("*.ipynb"))


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
    for symbols, meaning, chapters in rows:
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


SHEET = page("cheat_sheet.md")
BLOCKS = re.findall(r"```(python|bash)\n(.*?)```", SHEET, re.S)


def test_the_commands_of_the_cheat_sheet_have_these_options():
    from kdmedlearn.cli import app

    commands = typer.main.get_command(app).commands
    lines = [
        x
        for kind, code in BLOCKS
        if kind == "bash"
        for x in code.replace("\\\n", " ").strip().splitlines()
    ]
    assert len(lines) >= 8
    for line in lines:
        name, command, *rest = shlex.split(line)
        assert name == "kdmedlearn"
        if command == "predict":  # hands its arguments on
            from kdmedlearn.clinic.predict import parser

            parser().parse_args(rest)
            continue
        commands[command].make_context(command, rest, resilient_parsing=False)


@pytest.mark.slow
def test_the_calls_of_the_cheat_sheet_run(tmp_path):
    "All in one session, in an empty folder beside made-up images."
    from kdmedlearn.data.sets.endoscopy import write_phantom_endoscopy

    folder = write_phantom_endoscopy(tmp_path / "my_images", n_per_class=8, size=32)
    files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.jpg"))
    patients = [i // 2 for i in range(len(files))]
    table = pd.DataFrame({"file": files, "patient": patients})
    table.to_csv(folder / "manifest.csv", index=False)
    session, calls = {}, [code for kind, code in BLOCKS if kind == "python"]
    assert len(calls) == len(re.findall(r"^\*\*\d+\.", SHEET, re.M)) == 10
    for code in calls:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exec(compile(code, "cheat sheet", "exec"), session)


def test_the_plan_has_eight_weeks_and_the_quiz_answers_each_question():
    text = page("lecturers.md")
    assert re.findall(r"^### Week (\d)", text, re.M) == [*"12345678"]
    quizzes = re.split(r"^### \d\. ", text.split("## Quiz")[1], flags=re.M)[1:]
    tutorials = sorted((ROOT / "nbs" / "tutorials").glob("*.ipynb"))
    assert len(quizzes) == 8 <= len(tutorials)
    for quiz in quizzes:
        asked, answered = quiz.split("<details>")
        count = lambda part: re.findall(r"^(\d)\. ", part, re.M)
        assert 4 <= len(count(asked)) <= 5 and count(asked) == count(answered), quiz[:30]


def test_times_of_the_plan_are_those_of_the_chapters():
    time = lambda p: int(re.search(r"\*Time:\* (\d+) minutes", words_of(p))[1])
    rows = re.findall(
        r"^\| (?:read|run in class) \| (.*) \| (\d+) min \|$", page("lecturers.md"), re.M
    )
    assert len(rows) == 16
    for what, minutes in rows:
        assert sum(map(time, linked(what))) == int(minutes), what


def test_slides_have_the_sections_of_a_tutorial_and_fetch_nothing():
    chapter = ROOT / "nbs" / "tutorials" / "02_temperature.ipynb"
    text = slides.page(chapter)
    headings = re.findall(r"^## (.+)$", words_of(chapter), re.M)
    made = [h for h, _ in slides.slides(chapter)]
    assert {f"## {h}" for h in headings if h not in ("Exercises", "References")} <= {*made}
    own = re.sub(r"<script>.*?</script>", "", text, flags=re.S)
    assert "<math" in own and "data:image" in own and not re.search(r"(src|href)=.?http", own)


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda p: p.stem)
def test_a_tutorial_asks_before_and_after_and_its_solution_is_right(path, capsys):
    nb = nbformat.read(path, 4)
    number = path.stem[1]
    code = [c.source for c in nb.cells if c.cell_type == "code"]
    asked = re.findall(r'question\("(\d) (before|after)"\)', "\n".join(code))
    assert asked == [(number, "before"), (number, "after")]
    turn = next(c.source for c in nb.cells if c.source.startswith("## Your turn"))
    solution = re.search(r"```python\n(.*?)```", turn, re.S)[1]
    stub = next(c for c in code if f'check("{number}"' in c)
    name = re.search(r"def (\w+\(.*\)):", stub)[1]
    assert f"def {name}:" in solution  # the same name and arguments
    known = {}
    exec(solution, known)
    check(number, known[name.split("(")[0]])
    assert capsys.readouterr().out.startswith(f"Exercise {number}: right.")
