"""The part of docs/results.md on KDAS, from docs/results/kdas_kvasir.json and bench_kdas.json."""

from statistics import median

from results.shared import error, fill, mean, read, signed_three, table, three, threads_of
from results.shared import times_table, with_error, with_spread

TEXT = """
## KDAS on Kvasir-SEG

`{command}` (after the same with `--select --seeds 0`)

{rows}

Scores on the {images:.0f} validation images, at the size of the mask files, by the
[protocol of the field](../nbs/evaluation/02_masks.ipynb). Behind ± the standard deviation over
seeds, for the difference its standard error. The last column is a bootstrap interval of the
difference over images, the seeds averaged. More than two standard errors above the student alone:
{sure}; below it: {harm}. The teacher's Dice is {room:.3f} above that of the student alone, so no
method has much more than that to gain; KDAS, with its default weights, makes {kdas:+.3f} of it.
With {seeds} seeds the standard error is itself uncertain. No method and no weight was chosen on
these images, and the last epoch counts; while the setting was being found, scores of teachers and
of the student alone on them were seen.

The same differences in other measures:

{differences}

Dice at .5 asks only on which side of .5 a pixel lies. The mean over thresholds, which papers
usually report as mean Dice, weighted F and MAE also ask how sure the answer is. Six measures are
six chances to find something, so none of these rows is a proof by itself.

Teacher: `large_unet`, {t[parameters]:,} parameters, {t[epochs]} epochs on the {t[images]} training
images, Dice {t[scores][dice]:.3f}. Students: `small_unet`, {s[parameters]:,} parameters,
{r[epochs]} epochs of {s[images]} images, {r[size]}x{r[size]} pixels, AdamW up to {r[lr]:g} with
cosine, batches of {r[bs]}, quarter turns and mirrors. {loss} All from scratch, on a CPU. The
methods: {methods}. Kvasir-SEG names no patients, so frames of one patient may stand on both sides.

**The weights** were chosen on an eighth of the training images that neither the students nor their
teacher (another one, Dice {select_teacher:.3f} there) had seen:

{select}
"""
COST = """
## The cost of a step of KDAS

`{command}` (with `--threads {threads}`)

{rows}

Polyp-PVT on PVTv2-B2 teaches Polyp-PVT on PVTv2-B0, batch and size as in the command, {device},
{said_threads}, {repeats} rounds in which all take their turn: ratio {ratio:.3f}. In the last row the
teacher's forward keeps its graph and the loss goes back through the teacher too, as in the released
code; the loss is the same. That takes {released:.2f} times as long as a step here. Without any
term the two networks must run anyway, and against these it takes {most:.2f} times as long. All
three are medians of the rounds' own ratios.
"""
ARMS = {
    "alone": "alone",
    "bernoulli": "response (Bernoulli KL)",
    "attention": "attention supervision",
    "sgm": "SGM",
    "sgm, raw": "SGM on raw logits, as published",
    "KDAS": "KDAS",
    "KDAS, raw": "KDAS with SGM on raw logits, as published",
}
MEASURES = {
    "dice": "Dice at .5",
    "meanDic": "mean Dice over thresholds",
    "wFm": "weighted F",
    "Sm": "S-measure",
    "maxEm": "max E-measure",
    "MAE": "MAE (less is better)",
}
SHOWN = {
    "dice": "Dice",
    "iou": "IoU",
    "maxDic": "max Dice",
    "wFm": "weighted F",
    "Sm": "S-measure",
}
STEPS = {
    "apart": "teacher forward + plain student step",
    "KDAS": "KDAS step",
    "released": "gradients for the teacher too, as released",
}


def by_arm(students):
    "The scores of each arm that was run, by seed."
    out = {}
    for arm in ARMS:
        seeds = {s["seed"]: s["scores"] for s in students if s["arm"] == arm}
        if seeds:
            out[arm] = dict(sorted(seeds.items()))
    return out


def differences(here, arm, key="dice"):
    "Paired differences to the student alone of the same seed."
    return [s[key] - here["alone"][k][key] for k, s in here[arm].items()]


def rows(here, over_images):
    """For each arm: scores with their spread over seeds, the paired difference of Dice to the
    student alone, and its interval over images."""
    for arm, scores in here.items():
        shown = [with_spread([s[key] for s in scores.values()], three) for key in SHOWN]
        diff, over = differences(here, arm), over_images.get(arm)
        gain = f"{mean(diff):+.3f} ± {error(diff) if len(diff) > 1 else float('nan'):.3f}"
        interval = f"{over['low']:+.3f} to {over['high']:+.3f}" if over else ""
        yield [ARMS[arm], len(scores), *shown, "" if arm == "alone" else gain, interval]


def other_rows(here):
    "Differences to the student alone in several measures."
    for arm in list(here)[1:]:
        diffs = [differences(here, arm, key) for key in MEASURES]
        yield [ARMS[arm], *(with_error(d, three, signed_three) for d in diffs)]


def beyond(here, sign):
    "The arms whose mean difference, times `sign`, is more than two standard errors above 0."
    for arm in list(here)[1:]:
        d = [sign * v for v in differences(here, arm)]
        if len(d) > 1 and mean(d) > 2 * error(d):
            yield ARMS[arm]


def select_rows(select):
    "The weights that were tried, the best first."
    tried = {}
    for s in select:
        if s["arm"] != "teacher":
            tried.setdefault(s["arm"], []).append(s["dice"])
    for arm, dice in sorted(tried.items(), key=lambda o: -mean(o[1])):
        yield [arm, len(dice), with_spread(dice, three)]


def result():
    d = read("kdas_kvasir")
    about, t, students = d["about"], d["teacher"], d["students"]
    here = by_arm(students)
    alone = mean([s["dice"] for s in here["alone"].values()])
    methods = {k: v for k, v in about["methods"].items() if v != "None" and k in here}
    head = [*SHOWN.values(), "Dice, difference to alone", "95% over images"]
    return fill(
        TEXT,
        command=d["command"],
        rows=table(["student", "seeds", *head], rows(here, d["over images"])),
        images=students[0]["scores"]["images"],
        sure=", ".join(beyond(here, 1)) or "none",
        harm=", ".join(beyond(here, -1)) or "none",
        room=t["scores"]["dice"] - alone,
        kdas=mean(differences(here, "KDAS")),
        seeds=len(here["alone"]),
        differences=table(["student", *MEASURES.values()], other_rows(here)),
        t=t,
        s=students[0],
        r=about["recipe"],
        loss=about["loss"],
        methods="; ".join(f"{ARMS[k]} `{v}`" for k, v in methods.items()),
        select_teacher=next(s["dice"] for s in d["select"] if s["arm"] == "teacher"),
        select=table(["weights", "seeds", "Dice on the part of train"], select_rows(d["select"])),
    )


def cost():
    b = read("bench_kdas")[-1]  # of the most threads
    return fill(
        COST,
        rows=times_table(b, STEPS),
        said_threads=threads_of(b),
        ratio=b["median of ratios"],
        released=median(r / k for r, k in zip(b["all"]["released"], b["all"]["KDAS"])),
        most=median(r / k for r, k in zip(b["all"]["released"], b["all"]["apart"])),
        **{k: b[k] for k in ("command", "threads", "device", "repeats")},
    )


def page():
    return result() + cost()
