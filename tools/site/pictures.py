"""The drawn pictures of the course, as SVG: three papers, one map of all methods, one training
step.

python tools/site/pictures.py [docs/_static/pictures]

A picture brings its colours for a light and a dark page, and a panel of its own behind them. It is
420 units wide, so that its text can be read on a telephone.
"""

import re, sys
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parents[2]
TO = ROOT / "docs" / "_static" / "pictures"
WIDTH, SHOWN = 420, 560  # units of the drawing, pixels where there is room
SMALL = 12

KINDS = {  # fill and line, on a light page and on a dark one
    "data": ("#eeeff1", "#7d8590", "#2b2f35", "#8b949e"),
    "student": ("#fde4e2", "#c03d36", "#4a2422", "#ee7d76"),
    "teacher": ("#dbe9f7", "#2c6ca6", "#1b3550", "#6cade6"),
    "term": ("#e2f2dc", "#478036", "#22391b", "#7fc267"),
    "loss": ("#faedc8", "#94700f", "#42350f", "#d9b13e"),
}
PAGE = {"bg": ("#ffffff", "#16191d"), "ink": ("#1f2328", "#e8eaed"), "mute": ("#57606a", "#a8b1bb")}


def colours(dark: bool) -> str:
    "The variables of one theme."
    page = [f"--{k}:{v[dark]}" for k, v in PAGE.items()]
    boxes = [f"--{k}:{v[2 * dark]};--{k}-line:{v[2 * dark + 1]}" for k, v in KINDS.items()]
    return ";".join(page + boxes)


def style() -> str:
    """Colours by the reader's theme. The site puts the picture into its page, where the theme that
    was chosen there wins over that of the system."""
    light, dark = colours(False), colours(True)
    kinds = "".join(
        f".kdp .{k}{{fill:var(--{k});stroke:var(--{k}-line)}}"
        f".kdp .to-{k}{{stroke:var(--{k}-line)}}.kdp .in-{k}{{fill:var(--{k}-line)}}"
        for k in KINDS
    )
    return (
        f".kdp{{{light}}}@media(prefers-color-scheme:dark){{.kdp{{{dark}}}}}"
        f'body[data-theme="light"] .kdp{{{light}}}body[data-theme="dark"] .kdp{{{dark}}}'
        ".kdp .bg{fill:var(--bg);stroke:var(--data-line);stroke-opacity:.35}"
        ".kdp text{fill:var(--ink);stroke:none;text-anchor:middle}"
        ".kdp .left{text-anchor:start}"
        f".kdp .small{{font-size:{SMALL}px}}.kdp .mute{{fill:var(--mute)}}"
        ".kdp .bold{font-weight:600}"
        ".kdp .line{fill:none;stroke:var(--data-line);stroke-width:1.6}" + kinds
    )


SHIFTED = re.compile(r"([_^])(?:\{([^}]*)\}|(.))([^_^]?)")


def shifted(m) -> str:
    "P_t and P^{top}: a smaller letter, lower or higher, and the next one on the line again."
    by = 3 if m[1] == "_" else -5
    small = f'<tspan dy="{by}" font-size="78%">{m[2] or m[3]}</tspan>'
    return small + (f'<tspan dy="{-by}">{m[4]}</tspan>' if m[4] else "")


class Picture:
    "Shapes are added from back to front; `svg` gives the file."

    def __init__(self, name: str, title: str, about: str, height: int):
        self.name, self.title, self.about, self.height = name, title, about, height
        self.parts = []

    def text(self, x, y, words, css="small mute"):
        words = SHIFTED.sub(shifted, escape(words))
        self.parts.append(f'<text x="{x:g}" y="{y:g}" class="{css}">{words}</text>')

    def box(self, x, y, w, h, kind, *lines, css=""):
        "A box with centred lines of text; the first is larger."
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="6" class="{kind}"'
            ' stroke-width="1.4"/>'
        )
        steps = [16 if i else 0 for i in range(len(lines))]
        first = y + h / 2 + 5 - sum(steps) / 2
        for i, words in enumerate(lines):
            self.text(x + w / 2, first + sum(steps[: i + 1]), words, css if not i else "small")

    def arrow(self, *points, kind="data", dashed=False, head=True):
        "A line through points, with a head at its end."
        path = "M" + "L".join(f"{x:g} {y:g}" for x, y in points)
        extra = ' stroke-dasharray="5 4"' if dashed else ""
        mark = f' marker-end="url(#{self.name}-{kind})"' if head else ""
        self.parts.append(f'<path d="{path}" class="line to-{kind}"{extra}{mark}/>')

    def heads(self) -> str:
        "Arrow heads, one for each colour in use; a page may hold several pictures."
        used = [k for k in KINDS if any(f"#{self.name}-{k})" in p for p in self.parts)]
        return "".join(
            f'<marker id="{self.name}-{k}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7"'
            ' markerHeight="7" orient="auto-start-reverse">'
            f'<path d="M0 0L10 5L0 10z" class="in-{k}"/></marker>'
            for k in used
        )

    def svg(self) -> str:
        n = self.name
        size = f'width="{SHOWN}" height="{round(SHOWN * self.height / WIDTH)}"'
        lines = [
            (
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self.height}"'
                f' {size} class="kdp" role="img" font-family="system-ui, sans-serif" font-size="14"'
                f' aria-labelledby="{n}-title {n}-desc">'
            ),
            f'<title id="{n}-title">{escape(self.title)}</title>',
            f'<desc id="{n}-desc">{escape(self.about)}</desc>',
            f"<style>{style()}</style>",
            f"<defs>{self.heads()}</defs>",
            (
                f'<rect x=".5" y=".5" width="{WIDTH - 1}" height="{self.height - 1}" rx="8"'
                ' class="bg"/>'
            ),
            *self.parts,
            "</svg>",
        ]
        return "\n".join(lines) + "\n"


def guidance() -> Picture:
    p = Picture(
        "guidance",
        "Learning Through Guidance: three ways to teach one small student",
        "Left the frozen teachers, right the student of 51.8 thousand parameters, between them what"
        " is compared. Response: the softened answers of one teacher. Feature: one map. Relation:"
        " three teachers are fused by multi-head attention into a fused feature and a fused"
        " response, and the student is compared with both. The label trains the student by"
        " cross-entropy in all three.",
        570,
    )
    p.text(14, 24, "Frozen teachers", "left bold")
    p.text(406 - 37, 24, "Student", "bold")
    p.box(330, 40, 76, 478, "student", "CNN", "at most", "51.8k", "parameters")
    p.text(14, 54, "1. Response: answers", "left small mute")
    p.box(14, 62, 80, 46, "teacher", "teacher")
    p.box(128, 62, 166, 46, "term", "T² · KL", "of the softened answers")
    p.text(14, 138, "2. Feature: maps", "left small mute")
    p.box(14, 146, 80, 46, "teacher", "teacher")
    p.box(128, 146, 166, 46, "term", "distance of maps", "through an adapter")
    for y in (85, 169):
        p.arrow((94, y), (126, y), kind="teacher")
        p.arrow((330, y), (296, y), kind="student")
    p.text(14, 222, "3. Relation: several teachers, fused by attention", "left small mute")
    for i, y in enumerate((232, 290, 348)):
        p.box(14, y, 84, 46, "teacher", f"teacher {i + 1}", "map: tokens")
        p.arrow((98, y + 23), (110, y + 23), kind="teacher")
    p.box(112, 232, 82, 162, "loss", "attention", "multi-head:", "every token", "asks all")
    p.box(212, 232, 92, 70, "term", "distance", "to the fused", "feature g")
    p.box(212, 324, 92, 70, "term", "T² · KL", "to the fused", "response z")
    for y in (267, 359):
        p.arrow((194, y), (210, y), kind="loss")
        p.arrow((330, y), (306, y), kind="student")
    p.text(14, 416, "The fusion learns from labels: CE(z, y).", "left small mute")
    p.text(14, 452, "In all three: the label y", "left small mute")
    p.box(14, 462, 80, 46, "data", "label y")
    p.box(128, 462, 166, 46, "term", "CE", "cross-entropy")
    p.arrow((94, 485), (126, 485))
    p.arrow((330, 485), (296, 485), kind="student")
    p.text(14, 540, "The teachers get no gradient, and the fusion", "left small mute")
    p.text(14, 556, "none from the student's terms.", "left small mute")
    return p


def blob(p: Picture, x, y, kind, sure):
    "A map of logits with one bright place."
    p.parts.append(
        f'<rect x="{x}" y="{y}" width="44" height="44" class="{kind}" fill-opacity=".5"/>'
        f'<ellipse cx="{x + 27}" cy="{y + 18}" rx="10" ry="7" class="in-{kind}"'
        f' fill-opacity="{sure}"/>'
    )


def kdas() -> Picture:
    p = Picture(
        "kdas",
        "KDAS: a large polyp network teaches a small one of the same family",
        "Left the frozen teacher, Polyp-PVT on PVTv2-B2, right the student, Polyp-PVT on PVTv2-B0."
        " Each turns the image into a map of logits. Three terms compare: attention supervision,"
        " where the teacher's map attended to itself meets the student's map; the Symmetrical"
        " Guiding Module, where each map is added to its transpose; and the structure loss, where"
        " the mask meets the student's map.",
        560,
    )
    p.box(150, 14, 120, 34, "data", "image")
    p.arrow((150, 31), (74, 31), (74, 62))
    p.arrow((270, 31), (346, 31), (346, 62))
    p.box(14, 64, 120, 66, "teacher", "teacher, frozen", "Polyp-PVT, B2", "25.1M parameters")
    p.box(286, 64, 120, 66, "student", "student", "Polyp-PVT, B0", "3.7M parameters")
    blob(p, 52, 154, "teacher", 0.95)
    blob(p, 324, 154, "student", 0.55)
    p.arrow((74, 130), (74, 152), kind="teacher")
    p.arrow((346, 130), (346, 152), kind="student")
    p.text(210, 172, "maps of logits", "small mute")
    p.text(210, 190, "teacher: P_t    student: P_s", "small")
    rows = (
        (
            226,
            "attends to itself",
            "softmax(P P^⊤ / √W) P",
            "attention",
            "supervision",
            "T² · KL",
            "P_s",
        ),
        (312, "with its mirror", "S(P) = P + P^⊤", "SGM", "mean squared", "error", "S(P_s)"),
    )
    for y, a, b, t1, t2, t3, s in rows:
        p.box(14, y, 138, 62, "teacher", a, b)
        p.box(180, y, 100, 62, "term", t1, t2, t3)
        p.box(308, y, 76, 62, "student", s)
        p.arrow((152, y + 31), (178, y + 31), kind="teacher")
        p.arrow((308, y + 31), (282, y + 31), kind="student")
    p.box(14, 398, 138, 62, "data", "mask y", "0 and 1")
    p.box(180, 398, 100, 62, "term", "structure", "loss: CE + IoU,", "by pixel")
    p.box(308, 398, 76, 62, "student", "P_s")
    p.arrow((152, 429), (178, 429))
    p.arrow((308, 429), (282, 429), kind="student")
    p.arrow((74, 198), (74, 224), kind="teacher")
    p.arrow((346, 198), (346, 224), kind="student")
    p.arrow((368, 176), (398, 176), (398, 429), (386, 429), kind="student")
    p.arrow((398, 343), (386, 343), kind="student")
    p.arrow((52, 176), (6, 176), (6, 343), (12, 343), kind="teacher")
    p.box(
        40,
        486,
        340,
        56,
        "loss",
        "L = (1 − α) L_{seg} + α (λ_{att} L_{att} + λ_{sgm} L_{sgm})",
        "α = 0.3, T = 2, λ_{att} = λ_{sgm} = 1",
    )
    return p


def hdkd() -> Picture:
    p = Picture(
        "hdkd",
        "HDKD: a CNN teaches a student that is half CNN, half transformer",
        "Left the teacher, a CNN of three stages, right the student. Its three stages have the"
        " same shapes with fewer blocks, so that maps are compared stage by stage without a"
        " projection. A transformer follows with a class token and a distillation token. The label"
        " trains the class head, the teacher's answer the distillation head, and the mean of both"
        " heads is the prediction.",
        580,
    )
    p.text(14, 26, "Teacher, frozen", "left bold")
    p.text(378, 26, "Student", "bold")
    p.box(150, 14, 120, 34, "data", "image")
    p.arrow((150, 31), (84, 31), (84, 62))
    p.arrow((270, 31), (336, 31), (336, 62))
    stages = (("conv 3×3", 64, 6, 2), ("MBCSA", 96, 6, 2), ("MBCSA", 192, 9, 3))
    for i, (kind, width, teacher, student) in enumerate(stages):
        y = 64 + 80 * i
        p.box(
            14, y, 140, 56, "teacher", f"stage {i + 1}: {kind}", f"{teacher} blocks, width {width}"
        )
        p.box(
            266, y, 140, 56, "student", f"stage {i + 1}: {kind}", f"{student} blocks, width {width}"
        )
        p.box(174, y + 4, 72, 48, "term", "MSE", f"weight {i + 1}")
        p.arrow((154, y + 28), (172, y + 28), kind="teacher")
        p.arrow((266, y + 28), (248, y + 28), kind="student")
        if i < 2:
            p.arrow((84, y + 56), (84, y + 78), kind="teacher")
            p.arrow((336, y + 56), (336, y + 78), kind="student")
    p.arrow((84, 280), (84, 306), kind="teacher")
    p.arrow((336, 280), (336, 306), kind="student")
    p.box(14, 308, 140, 66, "teacher", "mean over places", "two linear layers,", "3.9M parameters")
    p.box(
        210,
        308,
        196,
        66,
        "student",
        "transformer DFLT",
        "3 layers, width 256, 8 heads",
        "in all 3.7M parameters",
    )
    p.box(210, 402, 92, 50, "student", "distillation", "token, head")
    p.box(314, 402, 92, 50, "student", "class", "token, head")
    p.arrow((256, 374), (256, 400), kind="student")
    p.arrow((360, 374), (360, 400), kind="student")
    p.box(14, 402, 72, 50, "teacher", "answer", "logits t")
    p.arrow((50, 374), (50, 400), kind="teacher")
    p.box(106, 402, 84, 50, "term", "KL, or CE", "of answers")
    p.arrow((86, 427), (104, 427), kind="teacher")
    p.arrow((210, 427), (192, 427), kind="student")
    p.box(314, 476, 92, 40, "term", "CE")
    p.arrow((360, 452), (360, 474), kind="student")
    p.box(210, 476, 72, 40, "data", "label y")
    p.arrow((282, 496), (312, 496))
    p.text(14, 488, "Prediction: the mean of", "left small mute")
    p.text(14, 504, "the two heads' logits.", "left small mute")
    p.box(14, 532, 392, 34, "loss", "L = (1 − α) CE + α KL + λ (MSE_1 + 2 MSE_2 + 3 MSE_3)")
    return p


GROUPS = {  # what is compared -> heading, one sentence
    "answers": ("Answers", "what the networks say of an image or a pixel"),
    "maps": ("Maps", "what their layers hold, place by place"),
    "relations": ("Relations", "one image beside the others of the batch"),
    "attention": ("Attention", "where a map, or a teacher, is attended to"),
}


def group_of(method) -> str:
    "Where on the map a method stands, read off what it declares."
    from kdmedlearn.methods.which_loss import compares

    if "attention" in method.weights(0.0) or "Attention" in type(method).__name__:
        return "attention"
    if method.relates:
        return "relations"
    return "answers" if compares(method).endswith(("answers", "label")) else "maps"


def note_of(method) -> str:
    "The second line of a method's box."
    from kdmedlearn.methods.which_loss import compares

    seen = compares(method)
    if seen == "the answer and the label":
        return "answers, labels"
    return seen + (", labels" if method.labels == "needed" else "")


def methods_map() -> Picture:
    from kdmedlearn.core.method import METHODS

    methods = [METHODS[n]() for n in sorted(METHODS.built_in()) if n in METHODS]
    rows = {g: [m for m in methods if group_of(m) == g] for g in GROUPS}
    columns, w, h, gap = 3, 126, 42, 8
    tall = {g: 50 + (h + gap) * -(-len(ms) // columns) for g, ms in rows.items()}
    said = "; ".join(
        f"{GROUPS[g][0].lower()}: {', '.join(type(m).__name__ for m in ms)}"
        for g, ms in rows.items()
    )
    p = Picture(
        "methods",
        "All methods, by what each compares",
        f"Four groups. {said[0].upper() + said[1:]}. The second line in a box says what of the"
        " networks the method reads.",
        sum(tall.values()) + 4,
    )
    y = 14
    for kind, (g, ms) in zip(("teacher", "term", "loss", "student"), rows.items()):
        p.text(14, y + 16, GROUPS[g][0], "left bold")
        p.text(104, y + 16, GROUPS[g][1], "left small mute")
        for i, m in enumerate(ms):
            x, top = 14 + (i % columns) * (w + 7), y + 28 + (i // columns) * (h + gap)
            p.box(x, top, w, h, kind, type(m).__name__, note_of(m))
        y += tall[g]
    return p


def lane(p: Picture, y, who, *bars):
    "One line of the timetable: who, and what it does when."
    p.text(14, y + 22, who, "left small bold")
    p.arrow((96, y + 17), (406, y + 17), head=False)
    for x, w, kind, *lines in bars:
        p.box(x, y, w, 34, kind, *lines, css="small")


def timeline() -> Picture:
    p = Picture(
        "timeline",
        "A training step, from left to right: who runs when",
        "First the teachers answer the batch, without gradients. Then the student runs forward"
        " once. The method makes its terms of both, and they are weighted and added to the task"
        " loss. The gradient goes back through the student and the adapters alone, and the"
        " optimizer changes them. With a cache the teachers do not run: their answers are read.",
        500,
    )
    p.text(14, 26, "Teachers asked in every step", "left bold")
    lane(p, 42, "teachers", (100, 90, "teacher", "forward"))
    lane(p, 84, "student", (192, 58, "student", "forward"), (308, 68, "student", "backward"))
    lane(p, 126, "method", (252, 54, "term", "terms"))
    lane(p, 168, "optimizer", (366, 40, "loss", "step"))
    p.text(200, 54, "without gradients", "left small mute")
    p.arrow((190, 76), (190, 143), (250, 143), kind="teacher")
    p.arrow((250, 110), (264, 110), (264, 124), kind="student")
    p.arrow((290, 126), (290, 101), (306, 101), kind="term")
    p.arrow((372, 118), (384, 134), (384, 166), kind="student")
    p.arrow((100, 222), (406, 222))
    p.text(253, 240, "time")
    p.text(14, 274, "With a cache: the answers are read", "left bold")
    lane(p, 290, "cache", (100, 40, "data", "read"))
    lane(p, 332, "student", (142, 58, "student", "forward"), (258, 68, "student", "backward"))
    lane(p, 374, "method", (202, 54, "term", "terms"))
    lane(p, 416, "optimizer", (328, 40, "loss", "step"))
    p.arrow((140, 324), (140, 391), (200, 391), kind="data")
    p.arrow((200, 358), (214, 358), (214, 372), kind="student")
    p.arrow((240, 374), (240, 349), (256, 349), kind="term")
    p.arrow((322, 366), (346, 382), (346, 414), kind="student")
    p.arrow((100, 470), (406, 470))
    p.text(253, 488, "time (lengths are not to scale)")
    return p


PICTURES = (guidance, kdas, hdkd, methods_map, timeline)


def made() -> dict[str, str]:  # name of the file -> its text
    pictures = [make() for make in PICTURES]
    return {f"{p.name}.svg": p.svg() for p in pictures}


if __name__ == "__main__":
    to = Path(sys.argv[1]) if len(sys.argv) > 1 else TO
    to.mkdir(parents=True, exist_ok=True)
    for name, text in made().items():
        (to / name).write_text(text, encoding="utf-8")
        print(to / name)
