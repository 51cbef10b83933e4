"""Format code as the project has it: ruff, and what ruff leaves, long comments and docstrings.

    python tools/format.py [--check] [FILES]

100 characters in .py files and exported cells, 88 in all other cells, since the site cuts what is
longer. Without FILES everything. With --check nothing is written; exit 1 and a list, where
something would change. A string that is too long stays: where to cut it is for its writer to say.
"""

import argparse, ast, io, re, subprocess, sys, textwrap, tokenize
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat

sys.path.insert(0, str(Path(__file__).resolve().parent))
from notebooks import ROOT, notebooks, with_fixed_ids

LIBRARY, OTHER_CELLS = 100, 88
EXPORT = re.compile(r"^#\s*\|\s*export", re.M)
MAGIC = re.compile(r"^[%!]", re.M)
ONLY_HERE = re.compile(r"# ?\||#.*(noqa|fmt:|type:)")  # comments that speak of their line
NOT_PROSE = re.compile(r"\s|[-*|>#$`]|\d+\.|.*\\")  # how lines begin that are no running text


def stable(pieces):
    "Each (source, width) in ruff's stable style: two runs of ruff for any number of them."
    with TemporaryDirectory() as d:
        files = [Path(d, f"{i}-{width}.py") for i, (_, width) in enumerate(pieces)]
        for file, (src, _) in zip(files, pieces):
            file.write_text(src, encoding="utf-8")
        for width in {w for _, w in pieces}:
            call = [sys.executable, "-m", "ruff", "format", "--isolated", "--no-cache", "--quiet"]
            call += [
                f"--line-length={width}",
                *(f.name for f in files if f.stem.endswith(f"-{width}")),
            ]
            subprocess.run(call, cwd=d, check=True)
        return [f.read_text(encoding="utf-8") for f in files]


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
    if len(out) == 1:  # ruff would join the closing quotes with it
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
    "Comments on lines that are too long, above their code; ruff puts nothing of them elsewhere."
    lines = src.split("\n")
    tokens = list(tokenize.generate_tokens(io.StringIO(src).readline))
    for t in reversed([t for t in tokens if t.type == tokenize.COMMENT]):
        row, col = t.start
        line = lines[row - 1]
        if len(line) <= width or ONLY_HERE.match(t.string):
            continue
        code = line[:col].rstrip()
        pad = line[: len(line) - len(line.lstrip())]
        if code.lstrip().startswith(")") and code.endswith(":"):
            pad += "    "  # on what a function returns: it stays within the parentheses
        words = wrap(t.string.lstrip("# "), width - len(pad) - 2)
        lines[row - 1 : row] = [f"{pad}# {w}" for w in words] + ([code] if code else [])
    return "\n".join(lines)


def lift_comments(src, width):
    """A comment for which ruff spread a statement over three lines stands above it, and the
    statement is one line again."""
    lines = src.split("\n")
    tokens = list(tokenize.generate_tokens(io.StringIO(src).readline))
    strings = [t for t in tokens if t.type == tokenize.STRING and "\n" in t.string]
    texts = {r for t in strings for r in range(t.start[0], t.end[0] + 1)}
    for t in reversed([t for t in tokens if t.type == tokenize.COMMENT]):
        end, col = t.start
        if end < 3 or texts & {end - 2, end - 1, end} or ONLY_HERE.match(t.string):
            continue
        first, inner, last = lines[end - 3], lines[end - 2].strip(), lines[end - 1][:col].strip()
        spread = first.endswith(("(", "[", "{")) and last[:1] in tuple(")]}")
        if not spread or inner.endswith(",") or "#" in inner:
            continue
        line = first + inner + last
        if len(line) <= width:
            pad = line[: len(line) - len(line.lstrip())]
            lines[end - 3 : end] = [pad + t.string, line]
    return "\n".join(lines)


def tidied(src, width):
    src = lift_comments(src, width)
    if max(map(len, src.split("\n"))) <= width:
        return src
    return wrap_comments(wrap_docstrings(src, width), width)


# --- cells and files
def formatted(pieces):
    "The sources of (source, width) as the project has them, without a newline at their ends."
    new = stable(pieces)
    for _ in range(3):  # what was wrapped may be joined with other lines
        widths = [w for _, w in pieces]
        wrapped = [tidied(s, w) for s, w in zip(new, widths)]
        again = [i for i, s in enumerate(wrapped) if s != new[i]]
        for i, s in zip(again, stable([(wrapped[i], widths[i]) for i in again])):
            new[i] = s
    # a semicolon at the end keeps the output of the last expression from being shown
    silent = [src.rstrip().endswith(";") for src, _ in pieces]
    return [s.rstrip("\n") + ";" * quiet for s, quiet in zip(new, silent)]


def width_of(cell):
    return LIBRARY if EXPORT.search(cell.source) else OTHER_CELLS


def cells_of(nb):
    "Cells with magics stay as they are."
    code = (c for c in nb.cells if c.cell_type == "code")
    return [c for c in code if c.source.strip() and not MAGIC.search(c.source)]


def read(path):
    "A file's notebook, if it is one, and its sources with their widths."
    if path.suffix != ".ipynb":
        return None, [(path.read_text(encoding="utf-8"), LIBRARY)]
    nb = nbformat.read(path, 4)
    return nb, [(c.source, width_of(c)) for c in cells_of(nb)]


def write(path, nb, sources):
    if nb is None:
        return path.write_text(sources[0] + "\n", encoding="utf-8")
    for cell, src in zip(cells_of(nb), sources):
        cell.source = src
    nbformat.write(with_fixed_ids(nb), path)


def everything():
    modules = [p for d in ("tools", "tests") for p in sorted((ROOT / d).rglob("*.py"))]
    return [ROOT / "setup.py", ROOT / "docs" / "conf.py", *modules, *notebooks()]


def changes(paths):
    "Path -> its notebook and new sources, of files that are not as the project has them."
    files = {p: read(p) for p in paths}
    new = iter(formatted([piece for _, pieces in files.values() for piece in pieces]))
    out = {}
    for path, (nb, pieces) in files.items():
        sources = [next(new) for _ in pieces]
        if any(src != old.rstrip("\n") for src, (old, _) in zip(sources, pieces)):
            out[path] = nb, sources
    return out


def main():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("files", nargs="*", type=Path)
    p.add_argument("--check", action="store_true")
    a = p.parse_args()
    changed = changes(a.files or everything())
    for path, (nb, sources) in changed.items():
        print("would change" if a.check else "changed", path)
        if not a.check:
            write(path, nb, sources)
    return 1 if a.check and changed else 0


if __name__ == "__main__":
    sys.exit(main())
