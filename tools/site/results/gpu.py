"""The part of docs/results.md on a GPU, from docs/results/bench_gpu.json: entries that the
benchmarks of tools/bench wrote with --out on a machine with a card."""

from results.shared import fill, read, table, three

TEXT = """
## The same steps on a GPU

{card}, {cores} processor cores, PyTorch {torch}. The same benchmarks as above, in the order of the
table; the first one three times.

{rows}

The models are small for such a card. A step takes less time to compute than the processor takes to
ask for it, so what is compared is mostly Python, and the rounds differ by a factor of two. Nothing
finer than a tenth can be read from these ratios. Larger batches were not measured.
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
    return fill(
        TEXT,
        card=b["card"],
        cores=b["processor cores"],
        torch=b["entries"][0]["torch"].split("+")[0],
        rows=table(head, rows),
    )
