"""The parts of docs/results.md on losses beside one another, from docs/results/mri_losses.json and
kvasir_losses.json; nothing where no draw was run."""

from results.shared import fill, mean, pct, read, RESULTS, table, with_spread
from results.unlabelled import balanced, by_arm, differences, pooled

MRI = """
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
KVASIR = """
## Which loss? On Kvasir-SEG

`{command}`

A tenth of the masks and all training images, as in the part on Kvasir-SEG above: the same draws,
teachers, kept views, students and 1,000 steps of 16 images. Each loss had a search of its own:
three settings of its main weight, of which the best on the validation images of another draw was
kept. Test images were scored once, after the last step. {draws} draws; the draw is the unit of the
error.

{rows}

{verdict} The standard error of a difference is {se} points, one for all losses and draws; less than
two of it is called a tie.

What the search saw, Dice on the validation images of one draw:

{search}
"""


def verdict(arms, base, sure):
    "Who is ahead of `base`, behind it, and level with it, in words; `sure`: the least difference."
    found = {"ahead of": [], "behind": [], "level with": []}
    for name in arms:
        if name != base:
            d = mean(differences(arms, name, base))
            found["level with" if abs(d) < sure else "ahead of" if d > 0 else "behind"].append(name)
    told = [f"{how} it: {', '.join(who)}" for how, who in found.items() if who]
    return f"Against {base}, paired by draw: {'; '.join(told)}."


def again(arms, base):
    """What chance does within a draw: `base` is an arm of the part above, trained anew with a
    teacher that was fine-tuned anew."""
    tenth = [r for r in read("mri_unlabelled")["runs"] if r.get("share", 0.1) == 0.1]
    before = by_arm(tenth, "draw", "test accuracy")
    arm = "taught on all images"
    d = differences({arm: {}} | before | {base: arms[base]}, base, arm)
    if not d:
        return ""
    apart = ", ".join(f"{100 * v:+.1f}" for v in d)
    return (
        f" {base} is the arm *taught on all images* of the part above, trained anew, and its"
        f" teacher too; the two differ by {apart} points. So a gap in the ranking says little."
    )


def part(name, text, score, base, unlike=None):
    "One comparison; `unlike(arms, base)`: what else its text is told."
    if not (RESULTS / f"{name}.json").is_file() or not (f := read(name))["runs"]:
        return ""
    arms = balanced(by_arm(f["runs"], "draw", f"test {score}"))
    draws = len(arms[base])
    if draws < 2:
        return ""
    method = {r["arm"]: r["method"] for r in f["runs"]}
    rows, se = [], pooled(arms)
    for arm, of in sorted(arms.items(), key=lambda o: -mean(list(o[1].values()))):
        d = 100 * mean(differences(arms, arm, base))
        told = f"{d:+.1f}" if arm != base else ""
        rows.append([arm, f"`{method[arm]}`", with_spread(list(of.values())), told])
    tried = sorted(f["search"], key=lambda r: (r["arm"], -r[f"valid {score}"]))
    shown = [[r["arm"], f"`{r['method']}`", pct(r[f"valid {score}"])] for r in tried]
    return fill(
        text,
        command=f["command"],
        draws=draws,
        se=f"{100 * se:.1f}",
        rows=table(["loss", "setting", score, f"minus {base}"], rows),
        verdict=verdict(arms, base, 2 * se),
        search=table(["loss", "setting", score], shown),
        **(dict(again=unlike(arms, base)) if unlike else {}),
    )


def page():
    mri = part("mri_losses", MRI, "accuracy", "Response", again)
    return mri + part("kvasir_losses", KVASIR, "dice", "Bernoulli KL")
