"""The part of docs/results.md on when soft answers are more than labels, from
docs/results/softness.json."""

from results.shared import error, factor, fill, mean, pct, read, RESULTS, table, with_error

TEXT = """
## When softness itself helps: phantoms

`{command}`

A teacher on images without labels gives two things: a label for each, and how it doubts. *Soft* is
`Response(T=1)`, which takes both; *hard* is `PseudoLabels`, which takes the label. Nothing else
differs. *T = 4* is `Response` at its usual temperature. The student has 51 thousand parameters,
{labels} labelled images and {more:,} without a label, {steps:,} steps of {batch}. Three teachers of
one network: the package's, one fitted on the student's own {labels} labels, one on {others:,} other
images of whose labels {redrawn:.0%} were drawn anew. *Calibrated* are their logits divided by the
temperature that fits 1,000 labelled validation images, five times as many labels as the student
has. *Four classes* and *two classes*: the first teacher, the eight classes put together by twos and
by fours, as they stand in the list. Sureness is the mean probability of the answer given. Behind a
difference stands its standard error over seeds (other images, other first weights); the test images
were scored once. There is no mixup here and half the steps, so the student alone is lower than in
the first part.

{rows}

{verdict}
"""
HEAD = ["teacher", "seeds", "its accuracy", "its sureness", "alone", "hard", "soft", "T = 4"]


def page():
    if not (RESULTS / "softness.json").is_file():
        return ""
    f = read("softness")
    of = {}
    for r in f["runs"]:
        of.setdefault((r["case"], r.get("arm")), {})[r["seed"]] = r
    rows, apart = [], {}
    for case in dict.fromkeys(case for case, _ in sorted(of, key=str)):
        first = case.split(",")[0]  # a calibrated teacher has the hard answers of its own
        base = case if case.endswith("classes") else "good"
        arms = [of.get(k, {}) for k in ((base, "alone"), (first, "hard"), (case, "soft"))]
        arms.append(of.get((case, "soft, T = 4"), {}))
        seeds = sorted(set(arms[1]) & set(arms[2]))
        if len(seeds) < 5:
            continue
        points = lambda arm: pct(mean([r["accuracy"] for r in arm.values()])) if arm else ""
        said = of[case, None].values()
        teacher = [pct(mean([r[k] for r in said])) for k in ("accuracy", "sureness")]
        d = [arms[2][s]["accuracy"] - arms[1][s]["accuracy"] for s in seeds]
        apart[case] = d
        rows.append([case, len(seeds), *teacher, *map(points, arms), with_error(d)])
    if not rows:
        return ""
    sign = {c: mean(d) / factor(5) / max(error(d), 1e-9) for c, d in apart.items()}
    groups = {
        "soft answers are ahead": [c for c, s in sign.items() if s > 1],
        "behind": [c for c, s in sign.items() if s < -1],
        "not told apart": [c for c, s in sign.items() if abs(s) <= 1],
    }
    told = "; ".join(f"{k}: {', '.join(map(quoted, v))}" for k, v in groups.items() if v)
    verdict = (
        f"By {factor(5):.1f} standard errors, the 95 % of five seeds, {told}. Each of the"
        f" {len(rows)} comparisons by itself has a chance of one in twenty to differ for nothing, and"
        f" they share arms. {sum(mean(d) > 0 for d in apart.values())} of the {len(rows)} differences"
        " are above 0."
    )
    values = {k: f[k] for k in ("command", "labels", "more", "steps", "batch", "others", "redrawn")}
    return fill(TEXT, rows=table([*HEAD, "soft minus hard"], rows), verdict=verdict, **values)


def quoted(case):
    return f"*{case}*"
