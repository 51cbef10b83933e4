"""Every notebook against the rubric of CONTRIBUTING.md: docs/rubric.md.

    python tools/rubric.py          # write the page
    python tools/rubric.py check    # exit with 1 where a tutorial or chapter misses something that can be counted

Counted from the notebooks: formulas, sources, exported pieces and their length, pictures, errors shown, summary,
exercises, solutions, stated time. Whether a picture adds something, a symbol is defined or the prose is good, no program
knows; what readers found weak stands in WEAK.
"""
import re, statistics, sys
from pathlib import Path

import nbformat

sys.path.insert(0, str(Path(__file__).parent))
from notebooks import ROOT, notebooks

EXPORT = re.compile(r"^#\s*\|\s*export", re.M)
SOURCE = re.compile(r"arxiv\.org|doi\.org|arXiv|\b(19|20)\d\d[a-z]?\)|\((19|20)\d\d|, (19|20)\d\d")
PICTURE = ("image/png", "image/jpeg", "application/vnd.plotly.v1+json")
RAISES = re.compile(r"test_fail|\bexcept\b|pytest\.raises|ExceptionExpected|\bshow_error|\.said\b")

# Chapters about text and files, where a picture would add nothing.
PLAIN = ("04_cli", "data/07_download")

# What no program sees: what readers stumbled over and is not mended, in plain words.
WEAK = {}


def pieces(nb):
    "Lines of code of each exported function, method-less class head and patch: a piece is a top-level statement of an exported cell."
    import ast
    out = []
    for c in nb.cells:
        if c.cell_type != "code" or not EXPORT.search(c.source): continue
        for n in ast.parse(c.source).body:
            if isinstance(n, ast.ClassDef):
                methods = [m for m in n.body if isinstance(m, (ast.FunctionDef, ast.AsyncFunctionDef))]
                out += [m.end_lineno - m.lineno + 1 for m in methods] or [n.end_lineno - n.lineno + 1]
            elif isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef)): out.append(n.end_lineno - n.lineno + 1)
    return out


def exercises(text):
    "How many exercises stand before their folded solutions."
    _, _, rest = text.partition("## Exercise")
    tasks, folded, _ = rest.partition("<details>")
    return len(re.findall(r"^\d+\. ", tasks, re.M)) if folded else 0


def judged(path):
    "What can be counted in a notebook: a dict of column -> value, False where something is missing."
    nb = nbformat.read(path, 4)
    text = "\n".join(c.source for c in nb.cells if c.cell_type == "markdown")
    code = "\n".join(c.source for c in nb.cells if c.cell_type == "code")
    size = pieces(nb)
    outputs = [o for c in nb.cells if c.cell_type == "code" for o in c.outputs]
    time = re.search(r"\*Time:\*\s*(\d+) minutes", text)
    return {"time": f"{time[1]} min" if time else False,
            "formulas": text.count("$$") // 2,
            "source": bool(SOURCE.search(text)),
            "pieces": len(size), "median": statistics.median(size) if size else 0, "longest": max(size, default=0),
            "pictures": sum(any(k in o.get("data", {}) for k in PICTURE) for o in outputs),
            "errors": len(RAISES.findall(code)),
            "summary": bool(re.search(r"^## Summary", text, re.M)),
            "exercises": exercises(text)}


def missing(j, name):
    "What the rubric asks of a notebook and it has not."
    out = [k for k in ("time", "summary") if not j[k]] + ["source"] * (j["formulas"] > 0 and not j["source"])
    out += [k for k in ("exercises", "errors", "pictures") if not j[k] and (k != "pictures" or name not in PLAIN)]
    if j["median"] > 12: out.append(f"short pieces (median {j['median']:g} lines)")
    return out


def title(path):
    return nbformat.read(path, 4).cells[0].source.split("\n")[0].lstrip("# ")


def rows():
    out = []
    for p in sorted(notebooks(), key=lambda p: ("tutorials" not in p.parts, p)):
        if p.stem == "index": continue
        name = str(p.relative_to(ROOT / "nbs").with_suffix(""))
        out.append((name, title(p), judged(p)))
    return out


def page(rows):
    mark = lambda v: "yes" if v is True else "**no**" if v is False else f"{v:g}" if isinstance(v, (int, float)) else v
    columns = ["time", "formulas", "source", "pieces", "median", "longest", "pictures", "errors", "summary", "exercises"]
    lines = ["| notebook | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, what, j in rows:
        show = {**j, **({"median": "", "longest": ""} if not j["pieces"] else {}), **({} if j["formulas"] or j["source"] else {"source": ""})}
        lines.append(f"| [{what}](nbs/{name}.ipynb) | " + " | ".join(mark(show[c]) for c in columns) + " |")
    lacks = [f"- [{what}](nbs/{name}.ipynb): no {', no '.join(m)}." for name, what, j in rows if (m := missing(j, name))]
    weak = [f"- [{what}](nbs/{name}.ipynb): {WEAK[name]}" for name, what, _ in rows if name in WEAK]
    plain = " and ".join(f"[{what.lower()}](nbs/{name}.ipynb)" for name, what, _ in rows if name in PLAIN)
    median = statistics.median([n for name, *_ in rows for n in pieces(nbformat.read(ROOT / "nbs" / f"{name}.ipynb", 4))])
    return f"""# The rubric, chapter by chapter

<!-- made by tools/rubric.py -->

What every chapter and tutorial is held to: why it exists; each formula with its source; every symbol defined once; exported pieces short; pictures that add something, looked at in light and dark; the errors shown; a summary; exercises whose solutions run in the tests; a stated time; no number in prose that no cell makes.

A program counts what can be counted. *Pieces* are exported functions and methods, *median* and *longest* their lines of code; the median of all is {median:g}. *Errors* are the places where one is provoked. Tutorials export nothing; the chapters on {plain} are about text and files and have no picture.

{chr(10).join(lines)}

## What is missing

{chr(10).join(lacks) or "Nothing that can be counted."}

## What is still weak

What readers found and is not mended:

{chr(10).join(weak) or 'Nothing is noted.'}
"""


def main(verb=""):
    found = rows()
    if verb == "check":
        bad = [f"{name}: no {', no '.join(m)}" for name, _, j in found if (m := missing(j, name))]
        sys.exit("\n".join(bad) if bad else 0)
    (ROOT / "docs" / "rubric.md").write_text(page(found), encoding="utf-8")


if __name__ == "__main__": main(*sys.argv[1:])
