"""Every notebook against the rubric of CONTRIBUTING.md: docs/rubric.md.

    python tools/rubric.py

Counted from the notebooks: formulas, sources, exported pieces and their length, pictures, errors shown, summary,
exercises, solutions, stated time. Whether a picture adds something, a symbol is defined or the prose is good, no program
knows; what readers found weak stands in WEAK.
"""

import ast, re, statistics, sys
from pathlib import Path

import nbformat

sys.path.insert(0, str(Path(__file__).parent))
from notebooks import ROOT, notebooks

EXPORT = re.compile(r"^#\s*\|\s*export", re.M)
SOURCE = re.compile(r"arxiv\.org|doi\.org|arXiv|\b(19|20)\d\d[a-z]?\)|\((19|20)\d\d|, (19|20)\d\d")
PICTURE = ("image/png", "image/jpeg", "application/vnd.plotly.v1+json")
RAISES = re.compile(r"test_fail|\bexcept\b|pytest\.raises|ExceptionExpected|\bshow_error|\.said\b")

# Chapters about text and files, where a picture would add nothing.
PLAIN = ("cli", "data/05_download")

# What no program sees: what readers stumbled over and is not mended, in plain words.
WEAK = {
    "tutorials/02_temperature": (
        "the gradient against T is derived and measured here, in the chapter on soft targets and in"
        " that of the widget."
    ),
    "tutorials/03_features": (
        "the one effect, of the late map, rests on three seeds of a short training, and was gone in"
        " a shorter one."
    ),
    "tutorials/04_guidance": (
        "one seed; accuracies on test images were seen while the recipe was found; the fused"
        " students cannot be told apart."
    ),
    "tutorials/05_kdas": (
        "on made-up polyps, with these short trainings, a reader does not see KDAS or the response"
        " help."
    ),
    "tutorials/06_hdkd": (
        "the answers of the teacher do not help here, so which channel helps is answered by the"
        " maps alone."
    ),
    "tutorials/08_tuning": (
        "ten trials and three seeds; that a search is worth its cost is not shown."
    ),
    "train/01_distillation": "more checks and plumbing than explanation.",
    "train/06_teachers": "cache keys and files take more room than the idea.",
    "cli": "the report of `kdmedlearn distill` is not shown.",
    "train/07_fusing": (
        "one set of small teachers, two fits each; apart from calibration nothing is beyond one"
        " standard error."
    ),
    "tuning/02_search": "files and checks take more room than the idea.",
    "data/02_images": (
        "finds exact copies only; near duplicates, the leak of the introduction, need a column of"
        " the manifest."
    ),
    "data/03_masks": "finds exact copies only.",
    "data/04_balance": (
        "one rare class, three seeds; weights and SMOTE cannot be told apart, and no distillation"
        " takes part."
    ),
    "data/sets/01_polyps": "everything runs on stand-ins.",
    "data/sets/02_endoscopy": (
        "everything runs on stand-ins; the real table of Hyper-Kvasir has not been read."
    ),
    "data/05_download": "neither distillation nor medicine; long pieces.",
    "experiments/01_experiment": (
        "its experiment is too short to show anything; the [results page](results.md) has longer"
        " ones."
    ),
    "methods/03_relation": (
        "does not show whether either loss helps; the default weight of RKD is heavy by its own"
        " measure."
    ),
    "methods/04_fusion": (
        "that attention learns whom to believe is shown on numbers made for it; the tutorial has"
        " images."
    ),
    "methods/05_hdkd": "how much the weight of the maps and the reduction matter is not measured.",
    "methods/07_kdas": (
        "the attention term is one reading of the paper, since the released one has no gradient."
    ),
    "models/02_mbcsa": (
        "one network, one seed; the attention is shown mainly not to follow the polyps."
    ),
    "models/03_hdkd": (
        "half of it is about loading released files; MBCSA against MBConv stays undecided."
    ),
    "models/04_polyp_pvt": "two of its modules show little after a training this short.",
    "models/06_guided": (
        "the layers are our choice, and the comparison behind it is a program that the page does"
        " not run."
    ),
    "widgets/04_attention": "each test rests on one short training and few images.",
    "widgets/05_compare": "no example in which distillation helped.",
}


def pieces(nb):
    "Lines of code of each exported function and method, and of each class without methods."
    out = []
    for c in nb.cells:
        if c.cell_type != "code" or not EXPORT.search(c.source):
            continue
        for n in ast.parse(c.source).body:
            if isinstance(n, ast.ClassDef):
                methods = [
                    m for m in n.body if isinstance(m, (ast.FunctionDef, ast.AsyncFunctionDef))
                ]
                out += [m.end_lineno - m.lineno + 1 for m in methods] or [
                    n.end_lineno - n.lineno + 1
                ]
            elif isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef)):
                out.append(n.end_lineno - n.lineno + 1)
    return out


def exercises(text):
    "How many exercises stand before their folded solutions."
    _, _, rest = text.partition("## Exercise")
    tasks, folded, _ = rest.partition("<details>")
    return len(re.findall(r"^\d+\. ", tasks, re.M)) if folded else 0


def judged(path):
    """What can be counted in a notebook: a dict of column -> value, False where something is
    missing."""
    nb = nbformat.read(path, 4)
    text = "\n".join(c.source for c in nb.cells if c.cell_type == "markdown")
    code = "\n".join(c.source for c in nb.cells if c.cell_type == "code")
    size = pieces(nb)
    outputs = [o for c in nb.cells if c.cell_type == "code" for o in c.outputs]
    time = re.search(r"\*Time:\*\s*(\d+) minutes", text)
    return {
        "time": f"{time[1]} min" if time else False,
        "formulas": text.count("$$") // 2,
        "source": bool(SOURCE.search(text)),
        "pieces": len(size),
        "median": statistics.median(size) if size else 0,
        "longest": max(size, default=0),
        "pictures": sum(any(k in o.get("data", {}) for k in PICTURE) for o in outputs),
        "errors": len(RAISES.findall(code)),
        "summary": bool(re.search(r"^## Summary", text, re.M)),
        "exercises": exercises(text),
    }


def missing(j, name):
    "What the rubric asks of a notebook and it has not."
    out = [k for k in ("time", "summary") if not j[k]] + ["source"] * (
        j["formulas"] > 0 and not j["source"]
    )
    out += [
        k
        for k in ("exercises", "errors", "pictures")
        if not j[k] and (k != "pictures" or name not in PLAIN)
    ]
    if j["median"] > 12:
        out.append(f"short pieces (median {j['median']:g} lines)")
    return out


def title(path):
    return nbformat.read(path, 4).cells[0].source.split("\n")[0].lstrip("# ")


def rows():
    out = []
    for p in sorted(notebooks(), key=lambda p: ("tutorials" not in p.parts, p)):
        if p.stem == "index":
            continue
        name = str(p.relative_to(ROOT / "nbs").with_suffix(""))
        out.append((name, title(p), judged(p)))
    return out


def page(rows):
    mark = lambda v: (
        "yes"
        if v is True
        else "**no**" if v is False else f"{v:g}" if isinstance(v, (int, float)) else v
    )
    columns = [
        "time",
        "formulas",
        "source",
        "pieces",
        "median",
        "longest",
        "pictures",
        "errors",
        "summary",
        "exercises",
    ]
    lines = ["| notebook | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, what, j in rows:
        show = {
            **j,
            **({"median": "", "longest": ""} if not j["pieces"] else {}),
            **({} if j["formulas"] or j["source"] else {"source": ""}),
        }
        lines.append(
            f"| [{what}](../nbs/{name}.ipynb) | "
            + " | ".join(mark(show[c]) for c in columns)
            + " |"
        )
    lacks = [
        f"- [{what}](../nbs/{name}.ipynb): no {', no '.join(m)}."
        for name, what, j in rows
        if (m := missing(j, name))
    ]
    weak = [
        f"- [{what}](../nbs/{name}.ipynb): {WEAK[name]}" for name, what, _ in rows if name in WEAK
    ]
    plain = " and ".join(
        f"[{what.lower()}](../nbs/{name}.ipynb)" for name, what, _ in rows if name in PLAIN
    )
    median = statistics.median(
        [n for name, *_ in rows for n in pieces(nbformat.read(ROOT / "nbs" / f"{name}.ipynb", 4))]
    )
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


if __name__ == "__main__":
    (ROOT / "docs" / "rubric.md").write_text(page(rows()), encoding="utf-8")
