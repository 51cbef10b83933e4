"""Sphinx site from nbs/**/*.ipynb with their saved outputs. Nothing is fetched: not at build time,
not by the reader's browser."""

import ast, configparser, html, json, re, shutil, sys
from pathlib import Path

import nbformat, plotly, ziamath
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
extensions += ["sphinx_copybutton"]
copybutton_selector = ".cell_input pre, .highlight-python pre, .highlight-bash pre"
copybutton_prompt_text = "$ "
exclude_patterns = ["_build", "**.ipynb_checkpoints"]
nb_execution_mode = "off"  # show the outputs saved in the notebooks
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
autosummary_generate = True
autodoc_default_options = {
    "members": True,
    "undoc-members": True,
    "show-inheritance": True,
    # the latter: of fasttransform, by the type of its input
    "exclude-members": ("__init__, encodes"),
}
autodoc_typehints = "description"
nitpicky = True
nitpick_ignore_regex = [
    (
        "py:.*",
        r".*(np|numpy|matplotlib|ipywidgets|anywidget|_PerPixel|_Paired|_MapMethod|_AnswerMethod"
        r"|_OnMaps|_Decoupled|fasttransform|torch|nn|fastai|fastcore|pd|pandas"
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
html_favicon = "_static/favicon.svg"
suppress_warnings = ["mystnb.unknown_mime_type"]

# --- notebooks: copied to docs/nbs without nbdev's directives -----------------
DIRECTIVE = re.compile(r"^\s*#\s*\|.*\n?", re.M)
DROP = re.compile(r"^\s*#\s*\|\s*default_exp\b|nbdev_export\(\)", re.M)
FOLD = re.compile(r"^\s*#\s*\|\s*hide\b", re.M)  # shown folded: a page uses what it defines
PLOTLY = "application/vnd.plotly.v1+json"
CLEAR = "rgba(0,0,0,0)"
NOTE = '<p class="needs-kernel">The first picture of a widget. Its controls work in JupyterLab.</p>'
TITLE = re.compile(r"title|suptitle|set_title")
SOURCE = cfg["git_url"].removeprefix("https://github.com/") + "/blob/" + cfg.get("branch", "main")


def said_title(source):
    "The first title that code gives a picture, in words; None without one."
    for node in ast.walk(ast.parse(re.sub(r"^\s*[%!].*", "", source, flags=re.M))):
        for kw in getattr(node, "keywords", ()):
            v = kw.value
            if kw.arg and TITLE.fullmatch(kw.arg) and isinstance(v, ast.Constant) and v.value:
                return str(v.value)
        if isinstance(node, ast.Call) and TITLE.fullmatch(getattr(node.func, "attr", "")):
            for v in node.args[:1]:
                if isinstance(v, ast.Constant):
                    return str(v.value)


def in_words(markdown):
    "The last sentence of a text, without its markup; a formula becomes three dots."
    text = re.sub(r"\$[^$]*\$", "...", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", markdown))
    text = re.sub(r"[*`#|>]", "", text.strip().split("\n\n")[-1].replace("\n", " "))
    return re.split(r"(?<=[.:?!]) ", text.strip())[-1][:200].rstrip(":")


class About:
    """What a reader who cannot see a picture is told of it: its title, else where it stands and
    what the text before it says."""

    def __init__(self):
        self.heading, self.before = "", ""

    def read(self, markdown):
        heads = re.findall(r"^#+\s+(.*)$", markdown, re.M)
        self.heading = in_words(heads[-1]) if heads else self.heading
        self.before = in_words(markdown)

    def of(self, cell):
        said = said_title(cell.source)
        where = [self.heading, said or ("" if self.before == self.heading else self.before)]
        return ". ".join(filter(None, where)).replace("<br>", " ")


def links_of(name):
    "The line at the top of a notebook's page: the file itself, and where it runs."
    up = "../" * (len(Path(name).parts) + 1)
    colab = f"https://colab.research.google.com/github/{SOURCE}/nbs/{name}"
    binder = f"https://mybinder.org/v2/gh/{cfg['user']}/{cfg['repo']}/HEAD?labpath=nbs/{name}"
    return (
        f"{{download}}`Notebook <{up}nbs/{name}>` · [Colab]({colab}) (run"
        f" `%pip install {cfg['lib_name']}` there first) · [Binder]({binder})"
    )


def drawn(fig, cell, i, about):
    "A plotly figure as HTML, without plotly's bar."
    body = pio.to_html(
        fig,
        include_plotlyjs=False,
        full_html=False,
        auto_play=False,
        div_id=f"fig-{cell.id}-{i}",
        config=dict(displayModeBar=False, responsive=True),
    )
    words = html.escape(about.of(cell), quote=True)
    return f'<div class="figure" role="figure" aria-label="{words}">{body}</div>'


def clean(src, dst):
    nb, about = nbformat.read(src, 4), About()
    up = "../" * (len(dst.relative_to(here).parts) - 1)
    script = (  # once a page, before the first figure
        f'<script src="{up}_static/plotly.min.js"></script>'
    )
    nb.cells = [c for c in nb.cells if not (c.cell_type == "code" and DROP.search(c.source))]
    for c in nb.cells:
        if c.cell_type == "markdown":
            about.read(c.source)
            # the site's root is docs/
            c.source = re.sub(r"\]\(((?:\.\./)+)docs/", r"](\1", c.source)
        if c.cell_type != "code":
            continue
        if FOLD.search(c.source):
            c.metadata["tags"] = [*c.metadata.get("tags", []), "hide-cell"]
        c.source = DIRECTIVE.sub("", c.source)
        c.metadata["mystnb"] = {"image": {"alt": about.of(c)}}
        for i, out in enumerate(c.outputs):
            data = out.get("data", {})
            if PLOTLY in data:
                fig = pio.from_json(json.dumps(data.pop(PLOTLY)), skip_invalid=True)
                # the picture of a widget: its text takes the page's colour
                widget = fig.layout.paper_bgcolor == CLEAR
                # on the page's own ground, light or dark; widgets.css gives the words its colour
                fig.update_layout(paper_bgcolor=CLEAR, plot_bgcolor=CLEAR)
                shown = drawn(fig, c, i, about)
                data["text/html"] = script + (
                    f'<div class="kdm">{shown}</div>{NOTE}' if widget else shown
                )
                script = ""
    links = nbformat.v4.new_markdown_cell(links_of(src.relative_to(root / "nbs").as_posix()))
    nb.cells.insert(1, links)
    nb.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
    dst.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nb, dst)


out = here / "nbs"
shutil.rmtree(out, ignore_errors=True)
for p in sorted((root / "nbs").rglob("*.ipynb")):
    if ".ipynb_checkpoints" not in p.parts and p.name != "index.ipynb":
        clean(p, out / p.relative_to(root / "nbs"))
for package, file in (
    (plotly, "package_data/plotly.min.js"),
    (ziamath, "fonts/STIXTwoMath-Regular.ttf"),  # formulas look the same everywhere
):
    kept = Path(package.__file__).parent / file
    shutil.copy(kept, here / "_static" / kept.name)


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
