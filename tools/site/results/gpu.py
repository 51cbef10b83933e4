"""The part of docs/results.md on a GPU, from docs/results/bench_gpu.json: entries that the
benchmarks of tools/bench wrote with --out on a machine with a card; and on large batches there,
from docs/results/bench_gpu_large.json, where that exists."""

from results.shared import fill, items, read, RESULTS, table, three

TEXT = """
## The same steps on a GPU

{card}, {cores} processor cores, PyTorch {torch}. The same benchmarks as above, in the order of the
table; the first one three times.

{rows}

The models are small for such a card. A step takes less time to compute than the processor takes to
ask for it, so what is compared is mostly Python, and the rounds differ by a factor of two. Nothing
finer than a tenth can be read from these ratios.
"""
NOT_YET = """
### Batches of 64 images

Networks that fill such a card, in float32, half precision and compiled, were not measured:
`python tools/bench/gpu.py` is prepared for it, and has run with toys on a processor only.
"""
LARGE = """
### Batches of 64 images

`{command}` ({card}, PyTorch {torch})

{rows}

*bound*: teacher forward without gradients and a step of the student alone, in the same precision;
medians of the rounds' own ratios, with the middle half of them. *first*: the first step, in which
PyTorch chooses its algorithms and compiles. Memory is beside weights and the optimizer's averages.
In compiled rows student and teacher are compiled, and the bound is not.

A batch from files, read anew, with so many processes: {loaders}.
"""
NAMES = {
    "step": "response, 51k student",
    "guidance": "three teachers",
    "hdkd": "HDKD",
    "kdas": "KDAS",
}


def page():
    b = read("bench_gpu")
    rows = []
    for e in b["entries"]:
        words = e["command"].split()
        name = words[1].split("/")[-1].removesuffix(".py")
        base, way = list(e["seconds"])[:2]
        low, high = e["seconds, least and most"][way]
        rows.append(
            [NAMES[name], f"`{e['command']}`", f"{1000 * e['seconds'][base]:.1f} ms"]
            + [f"{1000 * e['seconds'][way]:.1f} ms ({1000 * low:.1f} to {1000 * high:.1f})"]
            + [three(e["ratio"]), three(e["median of ratios"])]
        )
    head = ["method", "command", "teacher forward + student step", "the step", "ratio"]
    head += ["median of the rounds' ratios"]
    text = fill(
        TEXT,
        card=b["card"],
        cores=b["processor cores"],
        torch=b["entries"][0]["torch"].split("+")[0],
        rows=table(head, rows),
    )
    return text + large()


def large():
    if not (RESULTS / "bench_gpu_large.json").is_file():
        return fill(NOT_YET)
    b = read("bench_gpu_large")
    head = [
        "method",
        "student, teacher",
        "pixels",
        "precision",
        "the step",
        "step / bound",
        "first",
    ]
    rows = []
    for e in b["steps"]:
        mb = {k: f"{v / 1e6:,.0f} MB" for k, v in e["bytes"].items()}
        how = e["precision"] + ", compiled" * e["compiled"]
        row = [e["method"], f"{e['student']}, {', '.join(e['teachers'])}", e["size"], how]
        row += [f"{1000 * e['seconds']['step']:.1f} ms"]
        row += ["{:.2f} ({:.2f} to {:.2f})".format(*e["step / bound"])]
        rows.append([*row, f"{e['first step s']:.1f} s", mb["alone"], mb["step"]])
    reads = [f"{v['workers']}: {1000 * v['seconds a batch']:.0f} ms" for v in b["loaders"]]
    own = {k: b[k] for k in ("command", "card", "torch")}
    rows = table([*head, "memory, alone", "taught"], rows)
    left_out = "Left out:\n\n" + items(b["left out"]) + "\n\n" if b["left out"] else ""
    return fill(LARGE, rows=rows, loaders=", ".join(reads), **own) + left_out
