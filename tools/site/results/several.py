"""docs/several.md: several processes, and how the cost of kept answers grows, from
docs/results/growth.json."""

from results.shared import fill, items, read, RESULTS, table, threads_of

TEXT = """
# When one machine is not enough

<!-- made by tools/site/results_page.py from docs/results/growth.json -->

Before you ask for a second machine, ask the first one for less. A teacher that
[answers once](../nbs/train/10_cache.ipynb) costs nothing from the second epoch on.
[A student may see fewer pixels](howto.md) than its teacher. `kdmedlearn bench` says
[what a step costs](../nbs/experiments/04_bench.ipynb) against the least that it must do, and how
much memory it needs. What then still takes too long can be spread over several processes, each with
its own GPU and its own part of every batch.

## How to start it

{start}

The batch size is that of one process. Files are written once, by the first process.
[The chapter](../nbs/train/12_several.ipynb) explains what `together` does.

## What is tested here

Two processes on one CPU, with gloo, against one process that has the whole batch:

{tested}

## What was only planned

Nothing of this has run on more than one GPU, or on more than one machine. `join` takes NCCL where
there are GPUs, and each process the GPU of its `LOCAL_RANK`, as PyTorch's documentation says; that
is all. `accelerate launch` sets the variables that `torchrun` sets, and was not tried. There is no
launcher for notebooks, and no sharding of a teacher that is too large for one GPU.
[Checkpoints](../nbs/train/09_resume.ipynb) are for one process: a run of several starts over when
it was killed. `kdmedlearn demo`, `probe` and `bench` refuse to run in several processes.
"""
START = """```bash
torchrun --nproc-per-node 4 train.py     # a script with join() and together(learn)
torchrun --nproc-per-node 4 --no-python kdmedlearn distill --data my_images
```"""
TESTED = (
    (
        "the weights of student, adapters and a fusion that learns along are the same to 1e-6, for"
        " every method, also with images without labels and with kept answers; and the processes do"
        " not drift apart"
    ),
    (
        "losses that compare images with one another see the images of both, and batch norm takes"
        " its mean and variance from both"
    ),
    "each validation image is counted once, in accuracy, validation loss and the terms",
    (
        "processes that would train otherwise are stopped before the first step, with what differs:"
        " the method, the number of epochs or images, the batch size, the first validation image,"
        " the optimizer's rates"
    ),
    (
        "`kdmedlearn distill` under `torchrun` writes one folder, with the teacher, the student and"
        " the scores of one process with the joint batch"
    ),
)
GROWTH = """
## How cost grows

`{command}` ({device}, {threads}, PyTorch {torch})

Made-up images of 32 pixels in one view, a student of 51 thousand parameters (`guided_student`).
With images:

{images}

Build, files and opening grow with the images. What an epoch costs with kept answers is to be
compared with an epoch of the student alone (medians of three epochs or more of each kind, in
turn). With teachers:

{teachers}

With processes, each with one thread and 32 images in a batch, so that two make half as many
steps{later}:

{processes}

Networks as small as these wait for one another longer than they compute, and two processes on one
CPU share its memory. Read the last table as what waiting costs, not as what a second GPU brings.
"""
COLUMNS = {
    "build s": "asking once",
    "files MB": "files",
    "open s": "opening again",
    "epoch with kept answers s": "epoch, kept answers",
    "epoch with the teacher s": "epoch, teachers answer",
    "epoch alone s": "epoch, student alone",
    "kept to alone": "kept answers to alone",
    "epoch s": "epoch, kept answers",
}


def shown(column, v):
    if column == "kept to alone":
        return f"{v:.2f}"
    return f"{v:.2f} MB" if column.endswith("MB") else f"{v:.1f} s"


def grown(rows, by):
    "A table of one of the three parts of the file."
    columns = [c for c in rows[0] if c in COLUMNS]
    body = [[f"{r[by]:,}", *(shown(c, r[c]) for c in columns)] for r in rows]
    return table([by, *(COLUMNS[c] for c in columns)], body)


def page():
    text = fill(TEXT, start=START, tested=items(TESTED))
    if not (RESULTS / "growth.json").is_file():
        return text.rstrip("\n") + "\n"
    f = read("growth")
    tables = {k: grown(f[k], k) for k in ("images", "teachers", "processes")}
    own = {k: f[k] for k in ("command", "device", "torch")}
    own["later"] = f.get("processes later", "")
    return (text + fill(GROWTH, threads=threads_of(f), **own, **tables)).rstrip("\n") + "\n"
