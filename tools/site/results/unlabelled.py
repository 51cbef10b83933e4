"""The part of docs/results.md on few labels and many images, from
docs/results/*_unlabelled.json."""

from results.shared import (
    error,
    factor,
    fill,
    mean,
    pct,
    read,
    RESULTS,
    table,
    with_error,
    with_spread,
)

PHANTOM = """
## Few labels, many images: phantoms

`{command}`

A student of 51 thousand parameters, {steps} steps of 32 images of 64 pixels for every arm, 200
images with a label, 2,000 without. Rate, average of the weights and mixup were chosen for the
student alone, on validation images ({tuned} settings, below); for the taught student only alpha was
tried, .9 and 1. Test: 1,000 images, looked at once. The unit of the error is the seed (other images,
other first weights).

{rows}

The teacher reaches {teacher}; it was trained on 6,000 other phantoms with their labels, so the
student hears of labels that it does not have. Taught on all images minus the better arm without a
teacher ({best}): {gain} points, {times:.0f} standard errors. Minus pseudo-labels: {pseudo}.
{verdict} But hard answers are hampered here, since with mixup they name only one of the two images
that are blended; *When softness itself helps*, below, compares them without mixup. An arm is
compared with the student alone of its own seeds.

What the student alone reached on validation images while its recipe was chosen (accuracy, percent;
the last row was chosen):

{tune}
"""

MRI = """
## Few labels, many images: brain MRI

`{command}`

A share of the training images keeps its labels; the draw is the unit of the error. The teacher is
an EfficientNet-Lite0 with ImageNet weights, fine-tuned on those labels alone at 128 pixels; the
student has 51 thousand parameters and sees 64. The images without labels are all other training
images, minus those that stand, nearly, in validation or test. 1,000 steps of 64 images in every arm
but the longer ones (3,000). Rate and mixup were chosen with a tenth of the labels, for the student
alone, on the validation images of another draw: {choice}. Nothing was chosen on test images. Two
test scores of draw 0 had been seen before, of students with another recipe of the teacher; that
recipe was replaced because of validation images, and draw 0 is among the five.

A tenth of the labels was planned first. The other shares and *features on all images* (`Feature` of
both networks' last stages) were added after it was run, with its recipe. The teachers of the
features, and of two of the longer taught students, were fitted anew.

{parts}
"""

PROBE = """
Would it have been known before? `{command}` asks [the probe](../nbs/experiments/03_probe.ipynb) on
draw {draw}: a short training of {short} steps of 32 and one three times as long, validation images
alone. Expected were a gain with a tenth of the labels, and none with all. One seed was planned; the
same with three seeds was added after its answers. Behind a difference stands its standard error over
the validation images and, with three seeds, over these.

{rows}

The answers: {answers}. {why}
"""

KVASIR = """
## Few masks, many images: Kvasir-SEG

`{command}`

700 images to train on, a share of which keeps its masks; the draw is the unit of the error. The
teacher is a U-Net on EfficientNet-Lite0 with ImageNet weights, fine-tuned on those masks alone; the
student is a U-Net of 71 thousand parameters that begins from nothing, so a part of what it gains is
what ImageNet taught the teacher. Both see 128 pixels. 1,000 steps of 16 images. A
taught student hears the teacher on all 700 images, or where it says so on those with a mask. Rate
and augmentation were chosen for the student alone, with a tenth of the masks, on images cut off the
training images of another draw. Mean Dice in percent on the 100 test images (the folder
validation/), scored once. What the teacher says is computed once, for views that are kept: about
5,600 in all of the images with a mask, and eight of each image without one. A student alone gets new
views all the time; *kept views* tells what that is worth. In a first trial images with a mask had eight views
each, and on images cut off the training images repetition cost more than the teacher gave; those
runs are not used. 2 % of the masks are 14, so students without other images then have batches of 14. This
share was added after the two others were run. The longer arms of the plan were not run, and with all
masks not all of the methods. No patient
is known, so frames of one patient may stand on both sides. Behind a Dice stands its spread over
draws, behind a difference its standard error.

{parts}
"""


def by_arm(runs, unit, score):
    "arm -> {unit: score}"
    out = {}
    for r in runs:
        out.setdefault(r["arm"], {})[r[unit]] = r[score]
    return out


def differences(arms, after, before):
    "after minus before, paired."
    both = sorted(set(arms[after]) & set(arms[before]))
    return [arms[after][k] - arms[before][k] for k in both]


def rows_of(arms, order, base="alone"):
    out = []
    for name in order:
        if name not in arms:
            continue
        d = differences(arms, name, base) if name not in (base, "teacher") else []
        told = with_error(d) if d else ""
        out.append([name, len(arms[name]), with_spread(list(arms[name].values())), told])
    return out


def against_pseudo(arms, gain):
    "Soft minus hard answers, and what it says; `gain`: of the soft ones over the best arm."
    d = differences(arms, "taught on all images", "pseudo-labels")
    sure = lambda d: len(d) > 1 and mean(d) > 2 * error(d)
    words = "Soft and hard answers are level."
    if sure(d):
        words = "So soft answers at T = 4 are better in these runs than hard ones."
    elif sure(gain):
        words = "So the images without labels carry the gain, not the softness of the answers."
    return with_error(d), words


ORDER = (
    "alone",
    "label smoothing",
    "taught on the labelled images",
    "pseudo-labels",
    "features on all images",
    "taught on all images",
    "alone, longer",
    "taught on all images, longer",
    "alone with all labels",
)
HEAD = ["arm", "runs", "accuracy", "minus alone"]


def phantom():
    f = read("phantom_unlabelled")
    arms = by_arm(f["runs"], "seed", "accuracy")
    order = [k for k in ORDER if k in arms]
    without = [k for k in ("alone", "label smoothing") if len(arms.get(k, ())) > 1]
    best = max(without, key=lambda k: mean(list(arms[k].values())))
    d = differences(arms, "taught on all images", best)
    pseudo, verdict = against_pseudo(arms, d)
    tune = sorted((r for r in f["tune"] if r["kind"] == "alone"), key=lambda r: r["seed"])
    settings = {}
    for r in tune:
        settings.setdefault((r["lr"], r["average"], r["mixup"]), []).append(r["accuracy"])
    best_last = sorted(settings.items(), key=lambda kv: mean(kv[1]))
    shown = [
        [*(v if v is not None else "no" for v in k), ", ".join(map(pct, vs))] for k, vs in best_last
    ]
    return fill(
        PHANTOM,
        command=f["command"],
        steps=f["steps"],
        tuned=len(settings),
        rows=table(HEAD, rows_of(arms, order)),
        teacher=pct(arms["teacher"][0]),
        best=best,
        gain=with_error(d),
        times=mean(d) / error(d),
        pseudo=pseudo,
        verdict=verdict,
        tune=table(["rate", "average", "mixup", "seeds 100, 101"], shown),
    )


def mri():
    f = read("mri_unlabelled")
    shares = sorted({r["share"] for r in f["runs"]}, key=lambda s: (s != 0.1, s))
    parts = "\n\n".join(
        share_of_labels([r for r in f["runs"] if r["share"] == s], s) for s in shares
    )
    tuned = sorted(f["tune"], key=lambda r: -r["valid accuracy"])
    choice = "; ".join(
        f"rate {r['lr']:g}{', mixup' if r['mixup'] else ''} {pct(r['valid accuracy'])}"
        for r in tuned
    )
    return fill(MRI, command=f["command"], parts=parts, choice=choice)


def probed():
    "What the probe says of two shares of the labels."
    f = read("mri_probe")
    gap = lambda d: f"{100 * d['mean']:+.1f} ± {100 * d['error']:.1f}"
    rows = [
        [
            f"{r['share']:.0%}",
            r["seeds"],
            *(gap(r[k]) for k in ("headroom", "early", "gain")),
            r["answer"],
        ]
        for r in f["runs"]
    ]
    head = ["labels", "seeds", "teacher minus alone", "taught minus alone, short"]
    head += ["longer", "answer"]
    draw, steps = ({r[k] for r in f["runs"]}.pop() for k in ("draw", "steps"))
    return fill(
        PROBE,
        command=f["command"],
        draw=draw,
        short=steps,
        rows=table(head, rows),
        answers="; ".join(
            f"with {r['share']:.0%} of the labels and {many(r['seeds'])}, {r['answer']}"
            for r in f["runs"]
        ),
        why=on_both(),
    )


def many(seeds):
    return "one seed" if seeds == 1 else f"{seeds} seeds"


def on_both(share=0.1):
    "The gain over the student alone, on test images and on those that a probe sees."
    if not (RESULTS / "mri_unlabelled.json").is_file():
        return ""
    runs = [r for r in read("mri_unlabelled")["runs"] if r["share"] == share]
    gains = {
        part: with_error(
            differences(by_arm(runs, "draw", f"{part} accuracy"), "taught on all images", "alone")
        )
        for part in ("test", "valid")
    }
    return (
        f"Over all draws with {share:.0%} of the labels, taught on all images minus alone is"
        f" {gains['test']} on test images and {gains['valid']} on validation images. A probe reads"
        " the latter alone. Whether the two differ by chance, or because the test images come from a"
        " folder of their own, these draws do not say."
    )


def share_of_labels(runs, share):
    "The table of one share of the labels, and what it says."
    arms = by_arm(runs, "draw", "test accuracy")
    seen = by_arm(runs, "draw", "valid accuracy")
    table_of = table(HEAD, rows_of(arms, ["teacher", *ORDER]))
    base = best_of(seen, ("alone", "label smoothing"))
    on_all = "taught on all images"
    taught = on_all if on_all in arms else "taught on the labelled images"
    d = differences(arms, taught, base)
    words = "So few draws decide nothing."
    if len(d) > 2:
        words = (
            f"Without a teacher the best arm on validation images is: {base}."
            f" {taught.capitalize()} minus that: {with_error(d)},"
            f" {mean(d) / error(d):.1f} standard errors; on the validation images"
            f" {with_error(differences(seen, taught, base))}. {settled(d)}"
        )
        if "pseudo-labels" in arms:
            pseudo, verdict = against_pseudo(arms, d)
            words += f" Minus pseudo-labels: {pseudo}. {verdict}{once_more(share, arms)}"
        long = (
            differences(arms, "taught on all images, longer", "alone, longer")
            if ("alone, longer" in arms)
            else []
        )
        if long and len(long) == len(arms["alone"]):  # not before all draws are there
            words += f" Three times longer, taught minus alone: {with_error(long)}."
    of_all = {k: mean(list(arms[k].values())) for k in ("teacher", "alone") if k in arms}
    if len(d) > 2 and of_all.get("teacher", 1) <= of_all["alone"]:
        there = with_error(differences(seen, "teacher", "alone"))
        words += (
            " The teacher minus the student alone is"
            f" {with_error(differences(arms, 'teacher', 'alone'))} (on the validation images {there})."
        )
    draws = f"{share:.0%} of the labels, {len(arms['alone'])} draws:"
    return f"{draws}\n\n{table_of}\n\n{words}"


def settled(d):
    "Whether paired differences are told from nothing, by the 95 % of so many runs."
    least = factor(len(d)) * error(d)
    if abs(mean(d)) <= least:
        return f"So this is not decided: 95 % of {len(d)} draws ask for {100 * least:.1f} points."
    return "It is better." if mean(d) > 0 else "It is worse."


def once_more(share, before):
    "The same question in the runs of `mri_losses.py`, with other teachers."
    if share != 0.1 or not (RESULTS / "mri_losses.json").is_file():
        return ""
    arms = by_arm(read("mri_losses")["runs"], "draw", "test accuracy")
    if not {"Response", "pseudo-labels"} <= set(arms):
        return ""
    d = differences(arms, "Response", "pseudo-labels")
    both = {"anew": arms["Response"], "alone": before["alone"]}
    return (
        " The same two arms stand in *Which loss?* below, with teachers fitted anew: there the"
        f" difference is {with_error(d)}, and taught on all images minus alone"
        f" {with_error(differences(both, 'anew', 'alone'))}. So a training done again differs by"
        " more than the errors above say, and whether softness helps here is open."
    )


def best_of(arms, names):
    "The arm that is best on the draws that all of them have."
    have = [k for k in names if k in arms]
    common = set.intersection(*(set(arms[k]) for k in have))
    return max(have, key=lambda k: mean([arms[k][d] for d in common]))


def balanced(arms):
    "The same arms, with the draws that all of them have."
    draws = sorted(set.intersection(*map(set, arms.values())))
    return {name: {d: of[d] for d in draws} for name, of in arms.items()}


def pooled(arms):
    """The standard error of a difference of two arms, from what is left of all accuracies when the
    means of arms and of draws are taken out."""
    table = [list(of.values()) for of in arms.values()]
    k, n = len(table), len(table[0])
    rows, columns = [mean(r) for r in table], [mean(c) for c in zip(*table)]
    left = [v - r - c + mean(rows) for r, of in zip(rows, table) for c, v in zip(columns, of)]
    return (2 * sum(v * v for v in left) / ((k - 1) * (n - 1)) / n) ** 0.5


def share_of_masks(runs, share):
    "The table of one share of the masks, and what it says."
    arms = by_arm([r for r in runs if r["share"] == share], "draw", "test dice")
    first = ("teacher", "alone")
    others = sorted(set(arms) - set(first), key=lambda k: -mean(list(arms[k].values())))
    order = [*first, *others]
    whole = {k: of for k, of in arms.items() if k != "teacher" and len(of) == len(arms["alone"])}
    se = pooled(balanced(whole))
    apart = {k: mean(differences(arms, k, "alone")) for k in whole if k != "alone"}
    least = {k: 2 * max(se, error(differences(arms, k, "alone"))) for k in apart}
    groups = {
        "above": [k for k, d in apart.items() if d > least[k]],
        "below": [k for k, d in apart.items() if d < -least[k]],
    }
    said = [f"{way} the student alone: {'; '.join(ks)}" for way, ks in groups.items() if ks]
    said = "; ".join(said) or "no arm differs from the student alone"
    rows = []
    bases = [k for k in ("alone", "alone, kept views") if k in whole]
    for k in order:
        of = list(arms[k].values())
        own = [with_error(differences(arms, k, b)) if k in apart and k != b else "" for b in bases]
        rows.append([k, len(of), with_spread(of), *own])
    head = ["arm", "draws", "Dice", *(f"minus {b}" for b in bases)]
    n = len(arms["alone"])
    words = (
        "Pooled over arms (what is left when the means of arms and of draws are taken out), the"
        f" standard error of a difference is {100 * se:.1f} points."
    )
    judged = f"By more than two of it, and more than two of the arm's own error, {said}."
    if n > 2:
        own = {k: differences(arms, k, "alone") for k in apart}
        sure = [k for k, d in own.items() if abs(mean(d)) > factor(n) * error(d)]
        judged += (
            f" The own error of {n} draws is known badly; by {factor(n):.1f} of it, 95 % of {n}"
            f" draws, {'no arm differs' if not sure else 'these differ: ' + '; '.join(sure)}."
        )
    words += f" {judged}" if n > 2 else " So few draws decide nothing."
    return f"{share:.0%} of the masks:\n\n{table(head, rows)}\n\n{words}"


def kvasir():
    if not (f := read("kvasir_unlabelled"))["runs"]:
        return ""  # as yet only the rate is chosen
    shares = sorted({r["share"] for r in f["runs"]})
    parts = "\n\n".join(
        share_of_masks(f["runs"], s) + searched(f["tune"], s, f["recipe"]) for s in shares
    )
    return fill(KVASIR, command=f["command"], parts=parts)


def searched(tune, share, recipe):
    "The search of the student alone with this share of the masks."
    rows = [r for r in tune if r["share"] == share]
    if not rows or share == 0.1:  # the choice for all of them
        return ""
    rows = sorted(rows, key=lambda r: -r["valid dice"])
    same = recipe.items() <= rows[0].items()
    cells = [[r["lr"], r["augment"], f"{r['steps']:,}", pct(r["valid dice"])] for r in rows]
    head = ["rate", "augmentation", "steps", "Dice"]
    return (
        "\n\nIs the student alone so far behind because its recipe was chosen with more masks? It was"
        f" searched anew, on the validation images of another draw:\n\n{table(head, cells)}\n\n"
        + (
            "The recipe of all arms is the best again, so it does not explain the gap."
            if same
            else "Another recipe is better there."
        )
    )


def page():
    has = lambda name: (RESULTS / f"{name}.json").is_file()
    parts = [phantom] if has("phantom_unlabelled") else []
    parts += [mri] if has("mri_unlabelled") else []
    parts += [probed] if has("mri_probe") else []
    parts += [kvasir] if has("kvasir_unlabelled") else []
    return "".join(part() for part in parts)
