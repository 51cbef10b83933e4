"""Every notebook against the rubric of CONTRIBUTING.md: docs/rubric.md.

    python tools/rubric.py

Counted from the notebooks: formulas, sources, exported pieces and their length, pictures, errors
shown, summary, exercises, solutions, stated time, characters in a line, the share of checks.
Whether a picture adds something, a symbol is defined or the prose is good, no program knows; what
readers found weak stands in WEAK.
"""

import ast, io, re, statistics, sys, tokenize
from pathlib import Path

import nbformat

sys.path.insert(0, str(Path(__file__).parent))
from notebooks import ROOT, notebooks

# What a chapter may have: lines in the median piece, shares of lines over 100 characters and of
# checks.
MEDIAN, OVER_100, CHECKS = 12, 0.05, 0.2

EXPORT = re.compile(r"^#\s*\|\s*export", re.M)
SOURCE = re.compile(
    r"arxiv\.org|doi\.org|dicom\.nema\.org|arXiv|\b(19|20)\d\d[a-z]?\)|\((19|20)\d\d|, (19|20)\d\d"
)
PICTURE = ("image/png", "image/jpeg", "application/vnd.plotly.v1+json")
RAISES = re.compile(r"test_fail|\bexcept\b|pytest\.raises|ExceptionExpected|\bshow_error|\.said\b")

# Chapters about text and files, where a picture would add nothing.
PLAIN = (
    "cli",
    "core/01_checks",
    "core/05_registry",
    "core/09_trial",
    "data/13_download",
    "experiments/02_report",
    "models/07_registry",
    "models/08_weights",
    "train/01_trial",
)

# These exist to check, so that the chapters beside them need not: what a value may be, the trial of
# a step and of a Learner on two images before training, and whether a bundle is as it was written.
CHECKING = ("core/01_checks", "core/09_trial", "train/01_trial", "clinic/01_bundle")

# What no program sees: what readers stumbled over and is not mended, in plain words.
WEAK = {
    "tutorials/02_temperature": (
        "trainings of 330 steps, one teacher; the gradient against T is measured here, in the"
        " chapter on soft targets and in that of the widget."
    ),
    "tutorials/03_features": (
        "in trainings this short no taught student is ahead of the one with 32 labels a batch; the"
        " best depth is not shown."
    ),
    "tutorials/04_guidance": (
        "with three specialists the fusions cannot be told apart; the setting was chosen so that"
        " there is something to see."
    ),
    "tutorials/05_kdas": (
        "on made-up polyps no method is ahead in Dice; the response is surer, and the terms of KDAS"
        " are not shown to help."
    ),
    "tutorials/06_hdkd": (
        "the answers of the teacher do not help here, so which channel helps is answered by the"
        " maps alone."
    ),
    "tutorials/08_tuning": (
        "the chosen settings are a point ahead of the default, and not of the student alone."
    ),
    "train/05_teachers": "cache keys and files take more room than the idea.",
    "cli": "the report of `kdmedlearn distill` is not shown.",
    "train/06_fusing": (
        "one set of small teachers, two fits each; apart from calibration nothing is beyond one"
        " standard error."
    ),
    "data/03_files": "every file is made up; of DICOM, no compressed one and none of a device.",
    "data/04_tables": "every folder and table is made up; no published table has been read.",
    "data/08_leaks": (
        "the thresholds were chosen on made-up images and on one real set; other kinds of images"
        " may want others."
    ),
    "data/10_unlabelled": "whether images without labels help a student is not measured.",
    "data/11_images": "several labels and numbers are read, and nothing is trained on them.",
    "data/12_masks": "every mask is made up; the layouts of published sets are copied by hand.",
    "data/05_balance": (
        "one rare class, five seeds; weights and SMOTE cannot be told apart, and no distillation"
        " takes part."
    ),
    "data/sets/01_polyps": "everything runs on stand-ins.",
    "data/sets/02_endoscopy": (
        "everything runs on stand-ins; the real table of Hyper-Kvasir has not been read."
    ),
    "data/13_download": "neither distillation nor medicine; long pieces.",
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


def exported(nb):
    "The sources of the exported cells."
    return [c.source for c in nb.cells if c.cell_type == "code" and EXPORT.search(c.source)]


def others(nb):
    "The sources of the code cells that are not exported."
    return [c.source for c in nb.cells if c.cell_type == "code" and not EXPORT.search(c.source)]


# --- how long
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


def has_docstring(node):
    return isinstance(node, (ast.Module, ast.ClassDef, *FUNCTION)) and ast.get_docstring(node)


def code_lines(src):
    """The numbers of the lines of `src` that hold code: no empty ones, comments or docstrings."""
    skip = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    lines = set()
    for t in tokenize.generate_tokens(io.StringIO(src).readline):
        if t.type not in (*skip, tokenize.ENDMARKER):
            lines |= set(range(t.start[0], t.end[0] + 1))
    for node in ast.walk(ast.parse(src)):
        if has_docstring(node):
            lines -= span(node.body[0])
    return lines


def span(node):
    return set(range(node.lineno, node.end_lineno + 1))


def body_of(node):
    "The statements of a function or class, without the docstring."
    return node.body[1:] if has_docstring(node) else node.body


def functions(src):
    """(name, lines of its body) of each function and method of a cell, and of each class without
    methods."""
    code, out = code_lines(src), []

    def add(name, node):
        body = set().union(*(span(n) for n in body_of(node)))
        out.append((name, len(body & code)))

    for n in ast.parse(src).body:
        if isinstance(n, ast.ClassDef):
            methods = [m for m in n.body if isinstance(m, FUNCTION)]
            for m in methods:
                add(f"{n.name}.{m.name}", m)
            if not methods:
                add(n.name, n)
        elif isinstance(n, FUNCTION):
            add(n.name, n)
    return out


def pieces(nb):
    "Lines of the body of each exported function and method, and of each class without methods."
    return [lines for src in exported(nb) for _, lines in functions(src)]


# --- what a tutorial claims: a sentence, and where its output says the points and their error
NUMBER, CELL = r"([+-]?[\d.]+)", r"</t[hd]>\s*<td>"
CLAIMS = {
    "tutorials/01_first_student": (
        "distilled student minus student alone, five seeds",
        rf"five pairs: {NUMBER} points, standard error over seeds {NUMBER}",
    ),
    "tutorials/02_temperature": (
        "T = 16: with the factor $T^2$ minus without it, five seeds",
        rf"T = 16: with the factor minus without it {NUMBER} ± {NUMBER}",
    ),
    "tutorials/03_features": (
        "answers minus the same batches without them, five seeds",
        rf"<th>answers minus 8 labels a batch{CELL}{NUMBER}{CELL}{NUMBER}",
    ),
    "tutorials/04_guidance": (
        "with a bad teacher: attention minus mean of logits, students, five draws of everything",
        rf"students, these and the bad one: attention minus mean of logits {NUMBER} ± {NUMBER}",
    ),
    "tutorials/05_kdas": (
        "KDAS minus student alone, Dice, five seeds: a tie, and the page says so",
        rf"<th>KDAS{CELL}([+-][\d.]+) ± {NUMBER}",
    ),
    "tutorials/06_hdkd": (
        "answers and maps minus student alone, a tenth of the labels, five seeds",
        rf"10% of the labels, both minus alone: +{NUMBER} points, standard error {NUMBER}",
    ),
    "tutorials/07_own_data": (
        "student of a teacher that saw the test images minus student alone, five seeds",
        rf"leaky teacher minus student alone[^:]*:\s*test images {NUMBER} \({NUMBER}\)",
    ),
    "tutorials/08_tuning": (
        "chosen setting minus default, five searches",
        rf"chosen minus default: {NUMBER} points, standard error over 5 searches {NUMBER}",
    ),
}


def claimed(path, pattern):  # -> points, their standard error
    "What the outputs of a tutorial say of its claim."
    outputs = [o for c in nbformat.read(path, 4).cells for o in c.get("outputs", ())]
    said = [o.get("text") or o.get("data", {}).get("text/html", "") for o in outputs]
    found = re.search(pattern, "\n".join(said))
    if not found:
        raise ValueError(f"{path.name}: no output says {pattern}; mend CLAIMS in tools/rubric.py")
    return float(found[1]), float(found[2])


def claims():
    lines = [["tutorial", "claim", "points", "standard error", "in standard errors"], ["---"] * 5]
    for name, (what, pattern) in CLAIMS.items():
        path = ROOT / "nbs" / f"{name}.ipynb"
        points, error = claimed(path, pattern)
        size = f"{abs(points) / error:.1f}"
        lines.append([link(name, title(path)), what, f"{points:+.1f}", f"{error:.1f}", size])
    return table_of(lines)


def table_of(lines):
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


# --- how wide
def share_over(sources, width):
    "The share of the lines of `sources` that have more than `width` characters."
    lines = [line for src in sources for line in src.split("\n") if line.strip()]
    return sum(len(line) > width for line in lines) / max(1, len(lines))


# --- how much of it is checks
def warns(node):
    "Whether a statement is a call of warnings.warn."
    call = node.value if isinstance(node, ast.Expr) else None
    name = getattr(call, "func", None)
    return isinstance(call, ast.Call) and getattr(name, "attr", getattr(name, "id", "")) == "warn"


def refuses(body):
    "Whether a block does nothing but refuse or warn; it may put its words together before."
    speaks = [isinstance(n, ast.Raise) or warns(n) for n in body]
    return speaks[-1] and all(s or isinstance(n, ast.Assign) for s, n in zip(speaks, body))


def checks(src):
    "The numbers of the lines of `src` that validate: raise, assert and warn, each with its guard."
    lines = set()
    for node in ast.walk(ast.parse(src)):
        if isinstance(node, (ast.Raise, ast.Assert)) or warns(node):
            lines |= span(node)
        elif isinstance(node, (ast.If, ast.ExceptHandler)) and refuses(node.body):
            lines |= set(range(node.lineno, node.body[-1].end_lineno + 1))
    return lines & code_lines(src)


def checked_share(sources):
    "The share of the lines of code in `sources` that validate."
    total = sum(len(code_lines(src)) for src in sources)
    return sum(len(checks(src)) for src in sources) / max(1, total)


# --- the rest
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
        "sizes": size,
        "pieces": len(size),
        "median": statistics.median(size) if size else 0,
        "longest": max(size, default=0),
        "over 100": share_over(exported(nb), 100),
        "over 120": share_over(exported(nb), 120),
        "over 88": share_over(others(nb), 88),
        "checks": checked_share(exported(nb)),
        "pictures": sum(any(k in o.get("data", {}) for k in PICTURE) for o in outputs),
        "errors": len(RAISES.findall(code)),
        "summary": bool(re.search(r"^## Summary", text, re.M)),
        "exercises": exercises(text),
    }


def missing(j, name):
    "What the rubric asks of a notebook and it has not, in words."
    asked = ["time", "summary", "exercises", "errors"] + ["source"] * (j["formulas"] > 0)
    if name not in PLAIN:
        asked.append("pictures")
    out = [f"no {k}" for k in asked if not j[k]]
    if j["median"] > MEDIAN:
        out.append(f"pieces of {j['median']:g} lines in the median")
    if j["over 100"] > OVER_100 or j["over 120"]:
        out.append("lines that are too long")
    if j["over 88"]:
        out.append("lines over 88 characters in cells that are not exported")
    if j["checks"] > CHECKS and not name.startswith("data/") and name not in CHECKING:
        out.append(f"{j['checks']:.0%} of its code are checks")
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


COLUMNS = ("time", "formulas", "source", "pieces", "median", "longest", "over 100", "over 120")
COLUMNS += ("over 88", "checks", "pictures", "errors", "summary", "exercises")
SHARES = ("over 100", "over 120", "over 88", "checks")
OF_PIECES = ("median", "longest", "over 100", "over 120", "checks")  # empty without pieces
PAGE = """
# The rubric, chapter by chapter

<!-- made by tools/rubric.py -->

What every chapter and tutorial is held to: why it exists; each formula with its source; every
symbol defined once; exported pieces short; pictures that add something, looked at in light and
dark; the errors shown; a summary; exercises whose solutions run in the tests; a stated time; no
number in prose that no cell makes.

A program counts what can be counted. *Pieces* are exported functions and methods, *median* and
*longest* the lines of code in their bodies, without signature, docstring, comments and empty lines;
the median of all is {median:g}. *Over 100* and *over 120* are shares of the lines of exported code
by their characters, *over 88* of the other cells. *Checks* is the share of a module's code that
validates: raises, assertions and warnings, each with its guard; at most a fifth, apart from the
readers of data and the chapters that exist to check. *Errors* are the places where one is provoked.
Tutorials export nothing. Chapters about text and files have no picture: {plain}.

{table}

## What the tutorials claim

The main claim of each tutorial, as its outputs have it, and how many of its standard errors it is
large. [Tutorial 9](../nbs/tutorials/09_clinic.ipynb) claims no gain: the bundle answers as the
student does.

{claims}

## What is missing

{lacks}

## What is still weak

What readers found and is not mended:

{weak}
"""


def shown(column, j):
    "A value of the table as text; empty where there is nothing to count."
    v = j[column]
    if column in OF_PIECES and not j["pieces"] or column == "source" and not (v or j["formulas"]):
        return ""
    if isinstance(v, bool):
        return "yes" if v else "**no**"
    if column in SHARES:
        return f"{v:.1%}" if 0 < v < 0.01 else f"{v:.0%}"
    return f"{v:g}" if isinstance(v, (int, float)) else v


def link(name, what):
    return f"[{what}](../nbs/{name}.ipynb)"


def page(rows):
    lines = [["notebook", *COLUMNS], ["---"] * (len(COLUMNS) + 1)]
    lines += [[link(name, what), *(shown(c, j) for c in COLUMNS)] for name, what, j in rows]
    lacks = [(link(name, what), missing(j, name)) for name, what, j in rows]
    weak = [f"- {link(name, what)}: {WEAK[name]}" for name, what, _ in rows if name in WEAK]
    template = re.sub(r"(?<=[^\n])\n(?=[^\n])", " ", PAGE.strip()) + "\n"
    return template.format(
        median=statistics.median(n for *_, j in rows for n in j["sizes"]),
        plain=", ".join(link(name, what.lower()) for name, what, _ in rows if name in PLAIN),
        table=table_of(lines),
        claims=claims(),
        lacks="\n".join(f"- {at}: {', '.join(m)}." for at, m in lacks if m)
        or "Nothing that can be counted.",
        weak="\n".join(weak) or "Nothing is noted.",
    )


if __name__ == "__main__":
    (ROOT / "docs" / "rubric.md").write_text(page(rows()), encoding="utf-8")
