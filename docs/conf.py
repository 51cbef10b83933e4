"""Sphinx site from nbs/**/*.ipynb with their saved outputs. Nothing is fetched: not at build time,
not by the reader's browser."""

import configparser, json, re, shutil, sys
from pathlib import Path

import nbformat, plotly
import plotly.io as pio
from docutils import nodes
from latex2mathml.converter import convert

here = Path(__file__).parent
root = here.parent
sys.path.insert(0, str(root))
ini = configparser.ConfigParser(delimiters=["="])
ini.read(root / "settings.ini", encoding="utf-8")
cfg = ini["DEFAULT"]

project, author, release = cfg["lib_name"], cfg["author"], cfg["version"]
copyright = author
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.viewcode"]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]
nb_execution_mode = "off"  # show the outputs saved in the notebooks
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
autosummary_generate = True
autodoc_default_options = {
    "members": True,
    "undoc-members": True,
    "show-inheritance": True,
    "exclude-members": (
        "__init__, encodes"
    ),  # the latter: of fasttransform, by the type of its input
}
autodoc_typehints = "description"
nitpicky = True
nitpick_ignore_regex = [
    (
        "py:.*",
        r".*(np|numpy|matplotlib|ipywidgets|_PerPixel|_Paired|_MapMethod|_AnswerMethod"
        r"|_OnMaps|_Decoupled|torch|nn|fastai|fastcore|pd|pandas"
        r"|go|plotly|typer|PIL|ndarray|Tensor|Callback|Learner|DataLoader|Transform|Path|Module"
        r"|argparse|Image|Iterable|Iterator|Sequence|Callable|L).*",
    ),
    ("py:class", r"(optional|module|a |an ).*"),
]
html_math_renderer = "mathml"
html_theme = "furo"
html_title = project
html_static_path = ["_static"]
html_css_files = ["widgets.css"]
suppress_warnings = ["mystnb.unknown_mime_type"]

# --- notebooks: copied to docs/nbs without nbdev's directives -----------------
DIRECTIVE = re.compile(r"^\s*#\s*\|.*\n?", re.M)
DROP = re.compile(r"^\s*#\s*\|\s*(hide|default_exp)\b|nbdev_export\(\)", re.M)
PLOTLY = "application/vnd.plotly.v1+json"
CLEAR = "rgba(0,0,0,0)"
NOTE = '<p class="needs-kernel">The first picture of a widget. Its controls work in JupyterLab.</p>'


def clean(src, dst):
    nb = nbformat.read(src, 4)
    up = "../" * (len(dst.relative_to(here).parts) - 1)
    script = (  # once a page, before the first figure
        f'<script src="{up}_static/plotly.min.js"></script>'
    )
    nb.cells = [c for c in nb.cells if not (c.cell_type == "code" and DROP.search(c.source))]
    for c in nb.cells:
        if c.cell_type == "markdown":
            c.source = re.sub(
                r"\]\(((?:\.\./)+)docs/", r"](\1", c.source
            )  # the site's root is docs/
        if c.cell_type != "code":
            continue
        c.source = DIRECTIVE.sub("", c.source)
        for i, out in enumerate(c.outputs):
            data = out.get("data", {})
            if PLOTLY in data:
                fig = pio.from_json(json.dumps(data.pop(PLOTLY)), skip_invalid=True)
                drawn = pio.to_html(
                    fig,
                    include_plotlyjs=False,
                    full_html=False,
                    auto_play=False,
                    div_id=f"fig-{c.id}-{i}",
                )
                widget = (
                    fig.layout.paper_bgcolor == CLEAR
                )  # the picture of a widget: its text takes the page's colour
                data["text/html"] = script + (
                    f'<div class="kdm">{drawn}</div>{NOTE}' if widget else drawn
                )
                script = ""
    nb.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
    dst.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nb, dst)


out = here / "nbs"
shutil.rmtree(out, ignore_errors=True)
for p in sorted((root / "nbs").rglob("*.ipynb")):
    if ".ipynb_checkpoints" not in p.parts and p.name != "index.ipynb":
        clean(p, out / p.relative_to(root / "nbs"))
shutil.copy(
    Path(plotly.__file__).parent / "package_data" / "plotly.min.js",
    here / "_static" / "plotly.min.js",
)


# --- math as MathML (no MathJax), nbdev's parameter comments in the API pages
SIGNS = {
    r"\lVert": "‖",
    r"\rVert": "‖",
    r"\|": "‖",
    r"\langle": "⟨",
    r"\rangle": "⟩",
}  # the converter does not know them after \big


def mathml(tex, **kwargs):
    """MathML of a formula. What cannot be converted would stand on the page as TeX, so it stops the
    build."""
    known = re.sub(
        r"(\\[bB]igg?)\s*(\\[lr]Vert|\\\||\\[lr]angle)", lambda m: m[1] + SIGNS[m[2]], tex
    )
    known = re.sub(r"\\arg(?![a-z])", r"\\operatorname{arg}", known)
    out = convert(known, **kwargs)
    if "\\" in re.sub("<[^>]*>", "", out):
        raise ValueError(f"a part of this formula has no MathML: {tex}")
    return out


def inline_math(self, node):
    self.body.append(mathml(node.astext()))
    raise nodes.SkipNode


def block_math(self, node):
    self.body.append(f'<div class="mathblock">{mathml(node.astext(), display="block")}</div>')
    raise nodes.SkipNode


def add_docments(app, what, name, obj, options, lines):
    if what in ("class", "function", "method"):
        from fastcore.docments import docments

        if what == "class" and getattr(obj, "hyper", None):  # declared hyperparameters
            about = {k: f"{h.help} (default {h.default!r})" for k, h in obj.hyper.items()}
            lines += [""] + [f":param {k}: {text}" for k, text in about.items()]
            return
        if what == "class" and "__init__" not in vars(obj):  # what it inherits is told elsewhere
            return
        try:
            doc = {k: v for k, v in docments(obj).items() if v and k != "self"}
        except Exception:
            return
        lines += [""] + [
            (":returns: " if k == "return" else f":param {k}: ") + str(v) for k, v in doc.items()
        ]


def links_on_the_site(app, docname, source):
    """A page of docs/ points to ../nbs/, as in the repository; on the site the notebooks lie in
    nbs/, below it."""
    if not docname.startswith("nbs/"):
        source[0] = source[0].replace("](../nbs/", "](nbs/")


def drawn_pictures_in_the_page(app, doctree, docname):
    """Our own SVGs stand in the page itself, where they see the theme that the reader has chosen;
    as a file they would follow the system's. Their title and description are read out."""
    for node in list(doctree.findall(nodes.image)):
        if node["uri"].startswith("_static/pictures/"):
            svg = (here / node["uri"]).read_text(encoding="utf-8")
            node.replace_self(nodes.raw("", svg, format="html"))


def setup(app):
    app.connect("source-read", links_on_the_site)
    app.connect("doctree-resolved", drawn_pictures_in_the_page)
    app.add_html_math_renderer("mathml", (inline_math, None), (block_math, None))
    app.connect("autodoc-process-docstring", add_docments)
