"""The part of docs/results.md on what a step of every method costs, from
docs/results/bench_methods.json."""

from results.shared import fill, read, RESULTS, table

TEXT = """
## What a step of every method costs

`{command}` ({threads} threads, {device}, PyTorch {torch})

{rows}

*bound*: each teacher forward without gradients, student forward and backward, AdamW. *terms*: what
the method itself computes on answers and maps, with the layers that it trains for this: an adapter,
a fusion, MGD's generator. *step*: the step in a plain loop. *Learner*: the same in fastai, against
the bound in fastai. *naive*: a forward for each layer that is read. *cached*: the teachers' answers
and maps looked up instead, against a Learner of the student alone. Each way takes its turn in every
round; medians of the rounds' own ratios, with the middle half of them.

What a step has in memory at most, beside weights and the optimizer's averages, and what the
teachers' weights take; and the time in which the loader makes a batch:

{memory}

On a processor this counts the tensors that PyTorch's operations make, on a GPU what PyTorch has
allocated.
"""
MEMORY = ("MB alone", "MB", "MB of teachers", "loader ms")
WORDS = ("student alone", "student taught", "teachers' weights", "a batch from the loader")


def page():
    if not (RESULTS / "bench_methods.json").is_file():
        return ""
    f = read("bench_methods")
    columns = [k for k in next(iter(f["table"].values())) if k not in ("ms", *MEMORY)]
    rows = [[m, f"{r['ms']:.0f} ms", *(r[c] for c in columns)] for m, r in f["table"].items()]
    units = ("MB", "MB", "MB", "ms")
    memory = [
        [m, *(f"{r[k]:.1f} {unit}" for k, unit in zip(MEMORY, units))]
        for m, r in f["table"].items()
    ]
    return fill(
        TEXT,
        rows=table(["method", "step", *columns], rows),
        memory=table(["method", *WORDS], memory),
        **{k: f[k] for k in ("command", "threads", "device", "torch")},
    )
