"""What faults have done, from docs/results/faults.json; and the bad inputs that are tried."""

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
"""


def page():
    found = read("faults")
    return fill(TEXT, **found, told=", ".join(found["errors told"]))
