"""What the parts of the results page share."""

import json
from pathlib import Path

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"


def read(name):
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def pct(v):
    return f"{100 * v:.1f}"


def table(head, rows):
    return "\n".join(
        ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        + ["| " + " | ".join(map(str, r)) + " |" for r in rows]
    )


def mean(v):
    return sum(v) / len(v)


def spread(v):
    return (sum((x - mean(v)) ** 2 for x in v) / (len(v) - 1)) ** 0.5


def with_spread(v):
    return f"{pct(mean(v))} ± {pct(spread(v))}" if len(v) > 1 else pct(mean(v))
