"""The part of docs/results.md on losses of answers beside one another, from
docs/results/mri_losses.json; nothing where no draw was run."""

from results.shared import fill, mean, pct, read, RESULTS, table, with_spread
from results.unlabelled import by_arm, differences

TEXT = """
## Which loss? On brain MRI

`{command}`

A tenth of the labels and all training images, as in the part on brain MRI above: the same draws,
teachers, students and 1,000 steps of 64 images. Each loss had a search of its own: three settings
of its main weight, of which the best on the validation images of another draw was kept. Test images
were scored once, after the last step. {draws} draws; the draw is the unit of the error.

{rows}

{verdict} The standard error of a difference is {se} points, one for all: with {draws} draws the
differences of one loss can lie close together by luck, so that it is taken from all losses and
draws at once. Less than two of it is called a tie.{again} Tf-KD asks no teacher, and hears nothing
on images without a label.

What the search saw, accuracy on the validation images of one draw:

{search}
"""
BASE = "Response"


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


def verdict(arms, sure):
    "Who is ahead of `BASE`, behind it, and level with it, in words; `sure`: the least difference."
    found = {"ahead of": [], "behind": [], "level with": []}
    for name in arms:
        if name != BASE:
            d = mean(differences(arms, name, BASE))
            found["level with" if abs(d) < sure else "ahead of" if d > 0 else "behind"].append(name)
    told = [f"{how} it: {', '.join(who)}" for how, who in found.items() if who]
    return f"Against {BASE}, paired by draw: {'; '.join(told)}."


def again(arms):
    """What chance does within a draw: `BASE` is an arm of the part above, trained anew with a
    teacher that was fine-tuned anew."""
    before = by_arm(read("mri_unlabelled")["runs"], "draw", "test accuracy")
    arm = "taught on all images"
    d = differences({arm: {}} | before | {BASE: arms[BASE]}, BASE, arm)
    if not d:
        return ""
    apart = ", ".join(f"{100 * v:+.1f}" for v in d)
    return (
        f" {BASE} is the arm *taught on all images* of the part above, trained anew, and its"
        f" teacher too; the two differ by {apart} points. So a gap in the ranking says little."
    )


def page():
    if not (RESULTS / "mri_losses.json").is_file() or not (f := read("mri_losses"))["runs"]:
        return ""
    arms = balanced(by_arm(f["runs"], "draw", "test accuracy"))
    draws = len(arms[BASE])
    if draws < 2:
        return ""
    method = {r["arm"]: r["method"] for r in f["runs"]}
    rows, se = [], pooled(arms)
    for name, of in sorted(arms.items(), key=lambda o: -mean(list(o[1].values()))):
        d = 100 * mean(differences(arms, name, BASE))
        told = f"{d:+.1f}" if name != BASE else ""
        rows.append([name, f"`{method[name]}`", with_spread(list(of.values())), told])
    tried = sorted(f["search"], key=lambda r: (r["arm"], -r["valid accuracy"]))
    shown = [[r["arm"], f"`{r['method']}`", pct(r["valid accuracy"])] for r in tried]
    return fill(
        TEXT,
        command=f["command"],
        draws=draws,
        se=f"{100 * se:.1f}",
        rows=table(["loss", "setting", "accuracy", f"minus {BASE}"], rows),
        verdict=verdict(arms, 2 * se),
        again=again(arms),
        search=table(["loss", "setting", "accuracy"], shown),
    )
