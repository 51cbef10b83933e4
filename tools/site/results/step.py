"""The part of docs/results.md on the cost of a step, from docs/results/bench_step.json."""

from results.shared import fill, read, table

TEXT = """
## The cost of a step of response distillation

`{command}` (with `--threads` {threads})

{rows}

Both are timed in turn in one run, with everything fastai does around a step ({device}, {repeats}
rounds of {steps} steps, medians). The ratio is what distillation costs beyond the two forwards it
cannot do without.
"""


def page():
    entries = read("bench_step")
    names = list(entries[0]["seconds"])
    rows = [
        [b["threads"], *(f"{1000 * b['seconds'][k]:.1f} ms" for k in names), f"{b['ratio']:.3f}"]
        for b in entries
    ]
    return fill(
        TEXT,
        threads=" and ".join(str(b["threads"]) for b in entries),
        rows=table(["threads", *names, "ratio"], rows),
        **{k: entries[0][k] for k in ("command", "device", "repeats", "steps")},
    )
