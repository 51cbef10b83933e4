"""The part of docs/results.md that compares with fasterai, from docs/results/bench_peers.json."""

from results.shared import fill, read, RESULTS, table, threads_of

TEXT = """
## Beside fasterai

`{command}`, in an environment of its own ({device}, {threads}, fasterai {fasterai}, fastai {fastai},
PyTorch {torch})

{rows}

Response distillation of one student from the same first weights, on the same batch, with one loss:
that both compute the same number is checked first. {repeats} rounds of {steps} steps, in which all
ways take their turn; medians, and the middle half of the rounds' own ratios. *bound*: teacher
forward without gradients and a step of the student alone. fasterai's callback runs the teacher with
gradients and backward through it.
"""
HEAD = ["", "teacher, student", "bound", "here", "fasterai", "fasterai / here", "memory here"]


def page():
    if not (RESULTS / "bench_peers.json").is_file():
        return ""
    return "".join(map(part, read("bench_peers")))


def part(b):
    rows = []
    for name, m in b["pairs"].items():
        ms = {k: f"{1000 * v:.1f} ms" for k, v in m["seconds"].items()}
        mb = {k: f"{v / 1e6:.1f} MB" for k, v in m["bytes"].items()}
        times = "{:.2f} ({:.2f} to {:.2f})".format(*m["fasterai / here"])
        row = [name, f"{m['teacher']}, {m['student']}", ms["bound"], ms["here"], ms["fasterai"]]
        rows.append([*row, times, mb["here"], mb["fasterai"]])
    keys = ("command", "device", "fasterai", "fastai", "torch", "repeats", "steps")
    own = {k: b[k] for k in keys}
    return fill(TEXT, rows=table([*HEAD, "in fasterai"], rows), threads=threads_of(b), **own)
