"""Work on the notebooks: draft them as text, execute them, keep what is committed clean.

    python tools/notebooks.py draft  nbs/core/03_taps.ipynb [taps.py]
    python tools/notebooks.py make   taps.py nbs/core/03_taps.ipynb
    python tools/notebooks.py run    [nbs/core/03_taps.ipynb ...]
    python tools/notebooks.py readme

draft writes a notebook as percent-format text, which is easy to edit; make turns such a text into a
notebook with fixed cell ids, not yet executed. run executes notebooks (default: all) from a clean
kernel and keeps clean outputs. readme makes README.md from nbs/index.ipynb.
"""

import hashlib, os, re, sys
from pathlib import Path

import jupytext
import nbformat

ROOT = Path(__file__).resolve().parents[1]
VIEW = "application/vnd.jupyter.widget-view+json"
KERNEL = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}


def with_fixed_ids(nb):
    "Cell ids made from the cell's text: the same text keeps its id, whatever stands around it."
    seen = set()
    for c in nb.cells:
        n = 0
        while (
            i := hashlib.md5(f"{c.cell_type}{c.source}{n or ''}".encode()).hexdigest()[:8]
        ) in seen:
            n += 1
        seen.add(i)
        c["id"] = i
    return nb


def make(text, path):
    nb = jupytext.read(text, fmt="py:percent")
    nb.metadata = nbformat.from_dict(KERNEL)
    nb.nbformat, nb.nbformat_minor = 4, 5
    for c in nb.cells:
        c.metadata = nbformat.from_dict({})
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(with_fixed_ids(nb), path)


def clean(nb):
    """Outputs without stderr, widget state, execution counts, object addresses; metadata reduced to
    the kernel's name."""
    nb.metadata = nbformat.from_dict(KERNEL)
    for c in nb.cells:
        c.metadata = nbformat.from_dict({k: v for k, v in c.metadata.items() if k in ("tags",)})
        if c.cell_type != "code":
            continue
        c.execution_count = None
        c.outputs = [o for o in c.outputs if o.get("name") != "stderr"]
        for o in c.outputs:
            o.pop("execution_count", None)
            if o.output_type == "execute_result":
                o["execution_count"] = None
            if o.get("data", {}).pop(VIEW, None) and set(o["data"]) == {"text/plain"}:
                o["data"] = {}  # a widget's bare name
            o.pop("metadata", None)
            if o.output_type in ("execute_result", "display_data"):
                o["metadata"] = nbformat.from_dict({})
            if "text" in o:
                o["text"] = re.sub(r" at 0x[0-9a-f]{6,}", "", o["text"])
        c.outputs = joined(o for o in c.outputs if o.output_type == "stream" or o.get("data"))
    return nb


def joined(outputs) -> list:
    "Outputs with prints that follow one another in one piece, however busy the machine was."
    out = []
    for o in outputs:
        if out and o.output_type == "stream" == out[-1].output_type and o.name == out[-1].name:
            out[-1].text += o.text
        else:
            out.append(o)
    return out


def execute(path, timeout=600, **kw):
    """The notebook at `path` after a run from a clean kernel started in its own folder; raises on
    the first failing cell."""
    from nbclient import NotebookClient

    nb = nbformat.read(path, 4)
    env = {
        "IN_TEST": "1",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "PYTHONPATH": str(ROOT),
    }
    # two kernels with two threads each on two cores wait for one another, tenfold
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # IN_TEST makes nbdev_export() cells do nothing; the kernel inherits the rest
    os.environ.update(env)
    NotebookClient(
        nb,
        timeout=None if os.environ.get("KDMEDLEARN_RECORD") else timeout,
        kernel_name="python3",
        resources={"metadata": {"path": str(Path(path).parent)}},
        **kw,
    ).execute()
    return nb


def notebooks():
    return sorted(p for p in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)


def readme_text():
    """The index notebook as Markdown: prose, code and its printed output, without hidden cells and
    nbdev's directives."""
    nb = nbformat.read(ROOT / "nbs" / "index.ipynb", 4)
    out = []
    for c in nb.cells:
        if re.search(r"^#\s*\|\s*hide", c.source, re.M):
            continue
        code = re.sub(r"^# ?[|].*\n?", "", c.source, flags=re.M)
        out.append(c.source if c.cell_type == "markdown" else f"```python\n{code}\n```")
        if c.cell_type == "code":
            text = "".join(
                o.get("text", "") or o.get("data", {}).get("text/markdown", "") for o in c.outputs
            )
            if text.strip():
                out.append(
                    text.strip()
                    if text.lstrip().startswith("|")
                    else f"```text\n{text.rstrip()}\n```"
                )
    text = "\n\n".join(out) + "\n"
    # links are relative to nbs/ there, to the root here
    return re.sub(r"\]\((?!http|#|\.\./)", "](nbs/", text).replace("](../", "](")


def main(verb="", *args):
    if verb == "draft":
        nb = nbformat.read(args[0], 4)
        out = args[1] if len(args) > 1 else Path(args[0]).stem + ".py"
        Path(out).write_text(jupytext.writes(nb, fmt="py:percent"), encoding="utf-8")
        print(out)
    elif verb == "make":
        make(*args)
    elif verb == "run":
        for p in args or notebooks():
            print(p, flush=True)
            nb = clean(execute(p))
            nbformat.write(nb, p)
    elif verb == "readme":
        (ROOT / "README.md").write_text(readme_text(), encoding="utf-8")
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(*sys.argv[1:])
