"""The part of docs/results.md on losses of answers beside one another, from
docs/results/mri_losses.json; nothing where no draw was run."""

from results.shared import error, fill, mean, pct, read, RESULTS, table, with_error, with_spread
from results.unlabelled import by_arm, differences

TEXT = """
## Which loss? On brain MRI

`{command}`

A tenth of the labels and all training images, as in the part on brain MRI above: the same draws,
teachers, students and 1,000 steps of 64 images. Each loss had a search of its own: three settings
of its main weight, of which the best on the validation images of another draw was kept. Test images
were scored once, after the last step. {draws} draws; the draw is the unit of the error.

{rows}

{verdict}{again} A difference of less than two standard errors is called a tie; with {draws} draws it takes
nearly three to be unlikely by chance. Tf-KD asks no teacher, and hears nothing on images without a
label.

What the search saw, accuracy on the validation images of one draw:

{search}
"""
BASE = "Response"


def verdict(arms):
    "Who is ahead of `BASE`, behind it, and level with it, in words."
    found = {"ahead of": [], "behind": [], "level with": []}
    for name in arms:
        d = differences(arms, name, BASE)
        if name == BASE or len(d) < 2:
            continue
        sure = abs(mean(d)) > 2 * error(d)
        found["level with" if not sure else "ahead of" if mean(d) > 0 else "behind"].append(name)
    told = [f"{how} it: {', '.join(who)}" for how, who in found.items() if who]
    return f"Against {BASE}, paired by draw: {'; '.join(told)}." if told else ""


def again(arms):
    """What chance does within a draw: `BASE` is an arm of the part above, trained once more with
    sums in another order."""
    before = by_arm(read("mri_unlabelled")["runs"], "draw", "test accuracy")
    arm = "taught on all images"
    d = differences({arm: {}} | before | {BASE: arms[BASE]}, BASE, arm)
    if not d:
        return ""
    apart = ", ".join(f"{100 * v:+.1f}" for v in d)
    return (
        f" {BASE} is the arm *taught on all images* of the part above, trained once more with its"
        f" sums in another order; the two differ by {apart} points: so much is chance within a"
        " draw."
    )


def page():
    if not (RESULTS / "mri_losses.json").is_file() or not (f := read("mri_losses"))["runs"]:
        return ""
    arms = by_arm(f["runs"], "draw", "test accuracy")
    method = {r["arm"]: r["method"] for r in f["runs"]}
    rows = []
    for name, of in sorted(arms.items(), key=lambda o: -mean(list(o[1].values()))):
        d = differences(arms, name, BASE) if name != BASE else []
        told = with_error(d) if len(d) > 1 else ""
        rows.append([name, f"`{method[name]}`", with_spread(list(of.values())), told])
    tried = sorted(f["search"], key=lambda r: (r["arm"], -r["valid accuracy"]))
    shown = [[r["arm"], f"`{r['method']}`", pct(r["valid accuracy"])] for r in tried]
    return fill(
        TEXT,
        command=f["command"],
        draws=len(arms[BASE]),
        rows=table(["loss", "setting", "accuracy", f"minus {BASE}"], rows),
        verdict=verdict(arms),
        again=again(arms),
        search=table(["loss", "setting", "accuracy"], shown),
    )
