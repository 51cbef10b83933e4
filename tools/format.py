"""Format code as the project has it: black, and what black leaves, long comments and docstrings.

    python tools/format.py [--check] [FILES]

100 characters in .py files and exported cells, 88 in all other cells, since the site cuts what is
longer. Without FILES everything. With --check nothing is written; exit 1 and a list, where
something would change.
"""

import argparse, ast, io, re, sys, textwrap, tokenize
from pathlib import Path

import black
import nbformat
from black.mode import Preview

sys.path.insert(0, str(Path(__file__).resolve().parent))
from notebooks import ROOT, notebooks, with_fixed_ids

LIBRARY, OTHER_CELLS = 100, 88
EXPORT = re.compile(r"^#\s*\|\s*export", re.M)
MAGIC = re.compile(r"^[%!]", re.M)
NOT_PROSE = re.compile(r"\s|[-*|>#$`]|\d+\.|.*\\")  # how lines begin that are no running text


def stable(src, width):
    "`src` in black's stable style; the directives of nbdev keep their form."
    src = re.sub(r"^#\|", "# |", src, flags=re.M)  # black's form: what it changes it reads twice
    return directives(black.format_str(src, mode=black.Mode(line_length=width)))


def split_strings(src, width):
    "`src` with strings over `width` split, which only black's preview does."
    features = {Preview.string_processing}
    mode = black.Mode(line_length=width, preview=True, enabled_features=features)
    return directives(black.format_str(src, mode=mode))


def directives(src):
    return re.sub(r"^# \|", "#|", src, flags=re.M)


def wrap(text, width):
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


# --- docstrings
def docstrings(src):
    "The docstrings' nodes, the last first, so that lines above keep their numbers."
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = []
    for node in ast.walk(ast.parse(src)):
        if isinstance(node, owners) and node.body and isinstance(node.body[0], ast.Expr):
            value = node.body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                found.append(value)
    return sorted(found, key=lambda s: -s.lineno)


def one_line_docstring(line, text, width):
    "A docstring of one line that is too long, as the lines of a longer one."
    pad = line[: len(line) - len(line.lstrip())]
    out = wrap(text, width - len(pad) - 3)
    if len(out) == 1:  # black would join the closing quotes with it
        out = wrap(text, width - len(pad) - 6)
    if out[-1].endswith('"'):
        out[-1] += " "
    prefix = "r" if "\\" in text else ""
    new = [pad + prefix + '"""' + out[0], *(pad + o for o in out[1:])]
    if len(new[-1]) + 3 > width:
        return [*new, pad + '"""']
    new[-1] += '"""'
    return new


def paragraphs(lines):
    "Runs of lines between empty ones."
    run = []
    for line in lines:
        if run and bool(line.strip()) != bool(run[-1].strip()):
            yield run
            run = []
        run.append(line)
    if run:
        yield run


def reflowed(lines, width):
    """The lines of a longer docstring; a paragraph of running text with too long a line is wrapped
    anew."""
    indent = lambda line: len(line) - len(line.lstrip())
    rest = min((indent(o) for o in lines[1:] if o.strip()), default=0)
    for run in paragraphs(lines):
        closing = [run.pop()] if len(run) > 1 and run[-1].strip() == '"""' else []
        # the first line stands behind the quotes, so its indent is that of the code
        inner = [o.lstrip() if o is lines[0] else o[rest:] for o in run]
        prose = not any(NOT_PROSE.match(o) for o in inner if o.strip())
        if prose and max(map(len, run)) > width:
            start = " " * indent(run[0])
            text = " ".join(o.strip() for o in run)
            run = [start + o for o in wrap(text, width - len(start))]
        yield from run + closing


def wrap_docstrings(src, width):
    lines = src.split("\n")
    for node in docstrings(src):
        first, last = node.lineno - 1, node.end_lineno
        if max(map(len, lines[first:last])) <= width:
            continue
        if last > first + 1:
            lines[first:last] = reflowed(lines[first:last], width)
        elif lines[first].endswith(('"', "'")):  # nothing stands behind it
            lines[first:last] = one_line_docstring(lines[first], node.value, width)
    return "\n".join(lines)


# --- comments
def wrap_comments(src, width):
    "Comments on lines that are too long, above their code; black puts nothing of them elsewhere."
    lines = src.split("\n")
    tokens = list(tokenize.generate_tokens(io.StringIO(src).readline))
    for t in reversed([t for t in tokens if t.type == tokenize.COMMENT]):
        row, col = t.start
        line = lines[row - 1]
        if len(line) <= width or re.match(r"# ?\||#.*noqa", t.string):
            continue
        code = line[:col].rstrip()
        pad = line[: len(line) - len(line.lstrip())]
        if code.lstrip().startswith(")") and code.endswith(":"):
            pad += "    "  # on what a function returns: it stays within the parentheses
        words = wrap(t.string.lstrip("# "), width - len(pad) - 2)
        lines[row - 1 : row] = [f"{pad}# {w}" for w in words] + ([code] if code else [])
    return "\n".join(lines)


# --- cells and files
def formatted(src, width):
    "`src` as the project has it, without a newline at its end."
    silent = src.rstrip().endswith(";")  # the output of the last expression is not shown
    for _ in range(2):
        src = stable(split_strings(directives(src), width), width)
        src = wrap_comments(wrap_docstrings(src, width), width)
    return stable(src, width).rstrip("\n") + ";" * silent


def width_of(cell):
    return LIBRARY if EXPORT.search(cell.source) else OTHER_CELLS


def format_notebook(path, check):
    "Cells with magics stay as they are."
    nb, changed = nbformat.read(path, 4), False
    for c in nb.cells:
        if c.cell_type == "code" and c.source.strip() and not MAGIC.search(c.source):
            new = formatted(c.source, width_of(c))
            changed |= new != c.source
            c.source = new
    if changed and not check:
        nbformat.write(with_fixed_ids(nb), path)
    return changed


def format_module(path, check):
    old = path.read_text(encoding="utf-8")
    new = formatted(old, LIBRARY) + "\n"
    if new != old and not check:
        path.write_text(new, encoding="utf-8")
    return new != old


def everything():
    modules = [p for d in ("tools", "tests") for p in sorted((ROOT / d).rglob("*.py"))]
    return [ROOT / "setup.py", ROOT / "docs" / "conf.py", *modules, *notebooks()]


def main():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("files", nargs="*", type=Path)
    p.add_argument("--check", action="store_true")
    a = p.parse_args()
    changed = []
    for path in a.files or everything():
        work = format_notebook if path.suffix == ".ipynb" else format_module
        if work(path, a.check):
            changed.append(path)
            print("would change" if a.check else "changed", path)
    return 1 if a.check and changed else 0


if __name__ == "__main__":
    sys.exit(main())
