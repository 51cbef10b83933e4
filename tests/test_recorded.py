"Trainings that are kept: what answers from the file, what trains, what is refused."

import ast
import json
import re
from hashlib import sha256
from pathlib import Path

import nbformat
import pytest

from kdmedlearn.experiments.recorded import code_of, recorded, Recorded

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "kdmedlearn/assets").glob("recorded_*.json"))


def test_each_page_reads_what_it_recorded():
    "A page whose function has changed since would train for minutes, and show one-off numbers."
    assert FILES
    for file in FILES:
        name = file.stem.removeprefix("recorded_")
        pages = list((ROOT / "nbs").glob(f"*/{name}.ipynb"))
        assert len(pages) == 1, name
        cells = json.loads(pages[0].read_text())["cells"]
        code = "".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
        said = "".join("".join(o.get("text", [])) for c in cells for o in c.get("outputs", []))
        assert re.search(rf'recorded\(\s*"{name}"', code)
        assert "trained now" not in said, name
        assert recorded(name).runs, name


def functions_of(cells):
    "The functions of a page as text, and the names that its call of `recorded` counts as code."
    found, uses = {}, []
    for c in cells:
        src = "".join(c["source"])
        if c["cell_type"] != "code" or re.search(r"^[%!]", src, re.M):
            continue
        for n in ast.walk(ast.parse(src)):
            if isinstance(n, ast.FunctionDef) and n.col_offset == 0:
                first = min([n.lineno, *(d.lineno for d in n.decorator_list)])
                found[n.name] = "\n".join(src.split("\n")[first - 1 : n.end_lineno])
            if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "recorded":
                uses += [[e.id for k in n.keywords for e in k.value.elts]]
    return found, uses


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_what_is_kept_was_made_by_the_code_that_stands(file):
    (page,) = (ROOT / "nbs").glob(f"*/{file.stem.removeprefix('recorded_')}.ipynb")
    code, uses = functions_of(json.loads(page.read_text())["cells"])
    for name, kept in json.loads(file.read_text())["code"].items():
        made = ["\n".join(code[n].strip() for n in [name, *more]) for more in uses]
        assert kept in [sha256(m.encode()).hexdigest()[:16] for m in made], name


TOLD = re.compile(r"(\d+\.\d)(?= points| ±|\)| \(standard error)|(?<=± )(\d+\.\d)")


def printed_by(cells):
    "The numbers with one decimal that a page prints."
    texts = []
    for o in (o for c in cells for o in c.get("outputs", [])):
        data = o.get("data", {})
        texts += [o.get("text", ""), data.get("text/plain", ""), data.get("text/html", "")]
    return set(re.findall(r"(?<![\d.])\d+\.\d(?!\d)", "\n".join(texts)))


@pytest.mark.parametrize(
    "page", sorted((ROOT / "nbs" / "tutorials").glob("*.ipynb")), ids=lambda p: p.stem
)
def test_differences_in_the_text_of_a_tutorial_are_printed_by_it(page):
    cells = nbformat.read(page, 4).cells
    text = "\n".join(c.source for c in cells if c.cell_type == "markdown")
    told = {a or b for a, b in TOLD.findall(text)}
    assert told <= printed_by(cells)


def test_a_file_keeps_results_settings_and_versions(tmp_path, capsys):
    def train(T, seed):
        ran.append((T, seed))
        return {"accuracy": T / 10, "hits": "0101"}

    ran, file = [], tmp_path / "runs.json"
    first = Recorded(file, record=True)
    assert (
        first(train, T=4, seed=0) == first(train, seed=0, T=4) == {"accuracy": 0.4, "hits": "0101"}
    )
    assert ran == [(4, 0)]
    assert Recorded(file)(train, T=4, seed=0)["accuracy"] == 0.4 and ran == [(4, 0)]
    assert "torch" in json.loads(file.read_text())["made"] and "1 trainings" in repr(Recorded(file))
    assert capsys.readouterr().out == ""
    before = file.read_text()
    Recorded(file)(train, T=5, seed=0)
    assert "these settings of train were not recorded" in capsys.readouterr().out
    Recorded(file, uses=[code_of])(train, T=4, seed=0)  # other code
    assert "is not the function that was recorded" in capsys.readouterr().out
    assert ran == [(4, 0), (5, 0), (4, 0)] and file.read_text() == before


@pytest.mark.parametrize("result", [object(), {1: 2}, (1, 2), float("nan"), {0.5}])
def test_what_would_not_come_back_is_refused(tmp_path, result):
    def train(seed):
        return result

    with pytest.raises(TypeError, match="train gives .* what is kept are numbers, texts"):
        Recorded(tmp_path / "r.json", record=True)(train, seed=0)
    assert not (tmp_path / "r.json").exists()


def test_settings_are_numbers_and_texts(tmp_path):
    with pytest.raises(TypeError, match="pass the name of a method"):
        Recorded(tmp_path / "r.json")(test_settings_are_numbers_and_texts, method=object())


def test_an_unknown_page_names_those_there_are(monkeypatch):
    with pytest.raises(FileNotFoundError, match="did you mean|there are"):
        recorded("02_temprature")
    monkeypatch.setenv("KDMEDLEARN_RECORD", "1")
    assert recorded("02_temprature").record


@pytest.mark.parametrize("text", ["[1, 2", "[1, 2]", "{}", "null"])
def test_a_broken_file_is_named(tmp_path, text):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(ValueError, match="r.json is no file of recorded trainings"):
        Recorded(tmp_path / "r.json")
