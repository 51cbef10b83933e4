"""What the parts of the results page share: reading the files, filling the templates, means and
tables."""

import json, re
from pathlib import Path

from scipy.stats import t

RESULTS = Path(__file__).resolve().parents[3] / "docs" / "results"


def read(name):
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def fill(template, **values):
    """`template` with `values` put in. Its paragraphs are wrapped to be read in a program and
    become one line each; what is put in stays as it is, and empty lines part paragraphs."""
    paragraphs = re.split(r"\n\s*\n", template.strip())
    return "\n\n".join(" ".join(p.split()) for p in paragraphs).format(**values) + "\n\n"


def items(lines):
    "A Markdown list."
    return "\n".join(f"- {line}" for line in lines)


def table(head, rows):
    lines = [head, *([str(v) for v in r] for r in rows)]
    text = ["| " + " | ".join(r) + " |" for r in lines]
    return "\n".join([text[0], "|" + "---|" * len(head), *text[1:]])


# --- numbers as text
def pct(v):
    return f"{100 * v:.1f}"


def three(v):
    return f"{v:.3f}"


def with_spread(v, show=pct):
    "The mean over seeds and, where there are several, their standard deviation."
    return f"{show(mean(v))} ± {show(spread(v))}" if len(v) > 1 else show(mean(v))


def with_error(d, show=lambda v: f"{100 * v:.1f}", sign=lambda v: f"{100 * v:+.1f}"):
    "The mean of paired differences and, where there are several, its standard error."
    return sign(mean(d)) + (f" ± {show(error(d))}" if len(d) > 1 else "")


def signed_three(v):
    return f"{v:+.3f}"


def factor(n: int) -> float:
    "Of how many of its standard errors a mean of `n` values has to be, for 95 %."
    return float(t.ppf(0.975, n - 1))


def mean(v):
    return sum(v) / len(v)


def spread(v):
    return (sum((x - mean(v)) ** 2 for x in v) / (len(v) - 1)) ** 0.5


def error(v):
    "The standard error of a mean."
    return spread(v) / len(v) ** 0.5


# --- benchmarks
def threads_of(b):
    return f"{b['threads']} thread{'s' * (b['threads'] > 1)}"


def times_table(b, names, digits=2, unit="s", base=None):
    "Median and range of each way of a benchmark, and its multiple of `base`."
    scale = {"s": 1, "ms": 1000}[unit]
    show = lambda v: f"{scale * v:.{digits}f}"
    rows = []
    for k, s in b["seconds"].items():
        low, high = min(b["all"][k]), max(b["all"][k])
        row = [names[k], f"{show(s)} {unit}", f"{show(low)}, {show(high)} {unit}"]
        rows.append(row + ([f"{s / b['seconds'][base]:.2f}"] if base else []))
    return table(["step", "median", "from, to"] + ([f"times {base}"] if base else []), rows)
