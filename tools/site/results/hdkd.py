"""The part of docs/results.md on HDKD, from docs/results/hdkd_brain_mri.json and
bench_hdkd.json."""

from results.shared import error, fill, mean, pct, read, table, threads_of, times_table
from results.shared import with_error, with_spread

TEXT = """
## HDKD on brain MRI

`{command}`

{rows}

Behind ± the standard deviation over seeds, for the difference its standard error. More than two
standard errors above the student alone: {sure}; with three seeds the standard error is itself
uncertain. The teacher has seen the labels of all training images, so with a part of them the
students profit from labels that they were not given. The teacher, {t[parameters]:,} parameters,
reaches an accuracy of {accuracy} ({balanced} balanced, macro F1 {f1}); it was trained once, for
{t[epochs]} epochs on the whole training part. Students: {alone:,} parameters alone, {both:,} with a
distillation head; {images}. {size}x{size} pixels{half}, AdamW with one-cycle schedule up to {lr:g},
batches of {bs}, augmentation `{modality}`; nothing of this was tuned. Student alone is the plain
hybrid student; *feature KD* is `{feature}`. Same cleaned copy of the set, same cut by group as
above.
"""
COST = """
## The cost of a step of HDKD

`{command}` (with `--threads {threads}`)

{rows}

Paper widths, batch and size as in the command, {device}, {said_threads}, {repeats} rounds in which
each takes its turn. HDKD takes {ratio:.2f} times (the median of the rounds' own ratios) what
its two forwards and one backward take anyway. The last two rows compute the same loss; they live in
the benchmark alone. Counted in multiplications, running stages 1 to *i* again for each term can
cost at most four times as much, and costs less the more of the work is in the later stages.
"""
ARMS = {"alone": "alone", "logit": "logit KD", "feature": "feature KD", "both": "HDKD (both)"}
SCORES = ("accuracy", "balanced accuracy", "macro F1")
HEAD = ["training images", "student", "seeds", *SCORES, "accuracy, difference to alone"]
STEPS = {
    "apart": "teacher forward + plain student step",
    "HDKD": "HDKD step",
    "stages again": "stages run again for each feature term, as released",
    "models again": "whole models run again for each feature term",
}


def parts(students):
    "For each part of the images, the larger first: its students by arm and seed."
    for f in sorted({s["fraction"] for s in students}, reverse=True):
        yield f, {(s["arm"], s["seed"]): s for s in students if s["fraction"] == f}


def differences(here, arm):
    "Paired differences of accuracy to the student alone of the same seed."
    seeds = sorted(k for a, k in here if a == arm and ("alone", k) in here)
    return [here[arm, k]["accuracy"] - here["alone", k]["accuracy"] for k in seeds]


def rows(students):
    "For each part and student: scores with their spread, and the difference to the student alone."
    for f, here in parts(students):
        for arm, name in ARMS.items():
            seeds = sorted(k for a, k in here if a == arm)
            if not seeds:
                continue
            diff = differences(here, arm) if arm != "alone" else []
            scores = [with_spread([here[arm, k][key] for k in seeds]) for key in SCORES]
            yield [f"{f:.0%}", name, len(seeds), *scores, with_error(diff) if diff else ""]


def beyond_chance(students):
    """The students whose mean difference to the student alone is more than two of its standard
    errors above 0."""
    for f, here in parts(students):
        for arm in list(ARMS)[1:]:
            diff = differences(here, arm)
            if len(diff) > 2 and mean(diff) > 2 * error(diff):
                yield f"{ARMS[arm]} with {f:.0%}"


def result():
    d = read("hdkd_brain_mri")
    a, t, students = d["about"], d["teacher"], d["students"]
    size = lambda arm: next(s["parameters"] for s in students if s["arm"] == arm)
    images = {s["fraction"]: (s["images"], s["epochs"]) for s in students}
    most_first = sorted(images.items(), reverse=True)
    return fill(
        TEXT,
        command=d["command"],
        rows=table(HEAD, rows(students)),
        sure=", ".join(beyond_chance(students)) or "none",
        t=t,
        accuracy=pct(t["accuracy"]),
        balanced=pct(t["balanced accuracy"]),
        f1=pct(t["macro F1"]),
        alone=size("alone"),
        both=size("both"),
        images=", ".join(f"{n:,} images for {e} epochs" for _, (n, e) in most_first),
        half=", half of the paper's widths so that a CPU can train them" if a["half"] else "",
        feature=a["methods"]["feature"],
        **{k: a[k] for k in ("size", "lr", "bs", "modality")},
    )


def cost():
    b = read("bench_hdkd")[-1]  # of the most threads
    return fill(
        COST,
        rows=times_table(b, STEPS, base="HDKD"),
        said_threads=threads_of(b),
        ratio=b["median of ratios"],
        **{k: b[k] for k in ("command", "threads", "device", "repeats")},
    )


def page():
    return result() + cost()
