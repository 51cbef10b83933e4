"""Names that a page of the site uses and does not define."""

import ast, builtins, importlib, re

import nbformat

DROPPED = re.compile(r"^\s*#\s*\|\s*default_exp\b|nbdev_export\(\)", re.M)  # as docs/conf.py does
GIVEN = {*dir(builtins), "display", "get_ipython", "__file__", "__name__"}


def code_of(path) -> str:
    "The code that a page shows, folded cells included, without IPython's own commands."
    cells = nbformat.read(path, 4).cells
    shown = [c.source for c in cells if c.cell_type == "code" and not DROPPED.search(c.source)]
    return re.sub(r"^\s*[%!].*$", "pass", "\n\n".join(shown), flags=re.M)


def defined(tree) -> set:
    "All names that are bound somewhere, those of `import *` too."
    found = set()
    for n in ast.walk(tree):
        match n:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()) | ast.arg(arg=name):
                found.add(name)
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
                found.add(name)
            case ast.ImportFrom(module=m, names=[ast.alias(name="*")]):
                whole = importlib.import_module(m)
                found |= set(getattr(whole, "__all__", vars(whole)))
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                found |= {(a.asname or a.name).split(".")[0] for a in names}
    return found


def undefined(path) -> list:
    "Names that the page uses and that it binds nowhere."
    tree = ast.parse(code_of(path))
    used = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    return sorted(used - defined(tree) - GIVEN)
