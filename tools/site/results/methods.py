"""The part of docs/results.md on what a step of every method costs, from
docs/results/bench_methods.json and, with larger networks, bench_large*.json."""

from results.shared import fill, read, RESULTS, table

TEXT = """
## What a step of every method costs

`{command}` ({threads} threads, {device}, PyTorch {torch}){later}

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
LARGER = """
### With networks of a practical size

{tables}

The networks above are so small that what a method computes itself can be seen beside them. Here
{dearest} costs {most:.2f} times the bound: it has a generator as wide as the teacher's last map. All
others cost {low:.2f} to {high:.2f} times theirs. What lies below 1 is noise: in the rounds of a
machine that others use nothing finer than a tenth can be read.
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
    later = "".join(f"; {m} on another day, `{c}`" for m, c in f.get("later", {}).items())
    text = fill(
        TEXT,
        rows=table(["method", "step", *columns], rows),
        memory=table(["method", *WORDS], memory),
        later=later,
        **{k: f[k] for k in ("command", "threads", "device", "torch")},
    )
    return text + larger(columns)


def larger(columns):
    "The same from runs with networks of a practical size, a table for each file."
    tables, bound = [], {}
    for file in sorted(RESULTS.glob("bench_large*.json")):
        f = read(file.stem)
        rows = [[m, f"{r['ms']:.0f} ms", *(r[c] for c in columns)] for m, r in f["table"].items()]
        shown = table(["method", "step", *columns], rows)
        tables.append(f"`{f['command']}` ({f['threads']} threads)\n\n{shown}")
        bound |= {m: float(r["step / bound"].split()[0]) for m, r in f["table"].items()}
    if not tables:
        return ""
    dearest = max(bound, key=bound.get)
    others = [v for m, v in bound.items() if m != dearest]
    own = dict(dearest=dearest, most=bound[dearest], low=min(others), high=max(others))
    return fill(LARGER, tables="\n\n".join(tables), **own)
