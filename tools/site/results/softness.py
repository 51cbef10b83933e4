"""The part of docs/results.md on when soft answers are more than labels, from
docs/results/softness.json."""

from results.shared import error, fill, mean, pct, read, RESULTS, table, with_error

TEXT = """
## When softness itself helps: phantoms

`{command}`

A teacher on images without labels gives two things: a label for each, and how it doubts. `Response`
takes both, `PseudoLabels` the label alone. The student has 51 thousand parameters, 200 labelled
images and 2,000 without a label, {steps:,} steps of 32, the recipe of the phantoms above. Three
teachers of one network: the package's, one fitted on the student's own 200 labels, one on 2,000
other images with four labels in ten drawn at random. *Calibrated* on validation images, and *sure*:
logits times 4. *Four classes* and *two classes*: the first teacher, classes put together. Sureness
is the mean probability of the answer given. Five seeds; the test images were scored once.

{rows}

{verdict}
"""
HEAD = ["teacher", "accuracy", "sureness", "soft", "hard", "soft minus hard"]


def page():
    if not (RESULTS / "softness.json").is_file():
        return ""
    f = read("softness")
    of = {k: {} for k in ("teacher", "run")}
    for r in f["runs"]:
        of[r["kind"]].setdefault((r["case"], r.get("arm")), {})[r["seed"]] = r
    cases = list(dict.fromkeys(case for case, _ in of["run"]))
    cases.sort(key=lambda case: (case.endswith("classes"), case))  # a calibrated one after its own
    rows, apart = [], {}
    for case in cases:
        said = of["teacher"][case, None].values()
        soft, hard = of["run"][case, "soft"], of["run"].get((case.split(",")[0], "hard"), {})
        d = [soft[s]["accuracy"] - hard[s]["accuracy"] for s in sorted(set(soft) & set(hard))]
        if len(d) < 3:
            continue
        apart[case] = (mean(d), error(d))
        scores = [mean([r["accuracy"] for r in o.values()]) for o in (soft, hard)]
        of_teacher = [mean([r[k] for r in said]) for k in ("accuracy", "sureness")]
        rows.append([case, *map(pct, of_teacher), *map(pct, scores), with_error(d)])
    if not rows:
        return ""
    helps = [c for c, (m, e) in apart.items() if m > 2 * e]
    harms = [c for c, (m, e) in apart.items() if m < -2 * e]
    level = [c for c in apart if c not in (*helps, *harms)]
    said = {"Soft answers are ahead": helps, "Behind": harms, "Level": level}
    verdict = "By two standard errors: " + " ".join(
        f"{k}: {'; '.join(v)}." for k, v in said.items() if v
    )
    rows_ = table(HEAD, rows)
    return fill(TEXT, command=f["command"], steps=f["steps"], rows=rows_, verdict=verdict)
