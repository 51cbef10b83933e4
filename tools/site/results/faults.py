"""What faults have done, from docs/results/faults.json; and the bad inputs that are tried."""

from statistics import quantiles

from results.shared import fill, read

TEXT = """
## Holding under faults

`{command}`: one work (a cache of the teacher's answers, an experiment of two seeds, a run of the
tuning bench) that died {killed} times by SIGKILL at random moments, and {full} times since a disk
was full. After every death all files with a name were whole, the folder of runs listed, and the
next life went on. In the end scores, weights and answers were those of a life without a death, to
the bit. The full disk was told as {told}.

`pytest tests/test_bad_inputs.py`: more than 330 bad inputs (files, folders, tables, masks, models,
teachers, students, methods, trainings, caches, checkpoints, experiments, the command), each with the
words that must answer it. None passes in silence, none ends in the words of a dependency.

`{guard_command}`: what it costs to [look at each loss]({guard}), the worst case, the smallest
student: a step with the guard takes {ratio:.2f} times as long as one without, as the median of {n}
rounds in turn; half of the rounds lie between {low:.2f} and {high:.2f}. So what the guard costs does
not show beside what two equal steps differ by.
"""


def page():
    found, guard = read("faults"), read("bench_finite")[-1]
    times = guard["all"]
    ratios = [a / b for a, b in zip(times["guarded"], times["without"])]
    low, middle, high = quantiles(ratios, n=4)
    return fill(
        TEXT,
        **found,
        told=", ".join(found["errors told"]),
        guard_command=guard["command"],
        guard="../nbs/train/13_finite.ipynb",
        ratio=middle,
        n=len(ratios),
        low=low,
        high=high,
    )
