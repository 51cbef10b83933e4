"""The part of docs/results.md on several teachers, from docs/results/guidance_*.json."""

from scipy.stats import t

from results_numbers import mean, pct, read, spread, table, with_spread

CASES = {
    "specialists": "Phantom images, teachers that know different classes",
    "few": "Brain MRI, a tenth of the images for the students",
}
NOTES = {
    "specialists": (
        "Each teacher has seen all training images of its own classes (those whose number leaves"
        " the same remainder by 3) and 5% of the others. The students have {images} images of other"
        " seeds, which no teacher has seen; the test images are 2,000 of yet another seed."
    ),
    "few": (
        "The teachers were trained on nine tenths of the training images, the students and the"
        " fusions on the other tenth, {images} images, cut by group of near duplicates. The scores"
        " are of the test folder."
    ),
}


def differences(here, arm, to):
    seeds = sorted(k for n, k in here if n == arm and (to, k) in here)
    d = [here[arm, k]["accuracy"] - here[to, k]["accuracy"] for k in seeds]
    return (
        f"{100 * mean(d):+.1f}" + (f" ± {100 * spread(d) / len(d)**.5:.1f}" if len(d) > 1 else ""),
        d,
    )


def beyond(d):
    "Whether the 95% t interval of the paired differences leaves out 0."
    return len(d) > 1 and abs(mean(d)) > t.ppf(0.975, len(d) - 1) * spread(d) / len(d) ** 0.5


def student_rows(students):
    """One row an arm: scores with spread, paired differences to the student alone and to the mean
    of the logits of the same teachers."""
    here = {(s["arm"], s["seed"]): s for s in students}
    rows, sure = [], {"above": [], "below": [], "better": [], "worse": []}
    for arm in dict.fromkeys(
        s["arm"]
        for s in sorted(
            students,
            key=lambda s: (
                s["arm"].endswith("bad"),
                ORDER.index(s["arm"]) if s["arm"] in ORDER else 99,
            ),
        )
    ):
        seeds = sorted(k for n, k in here if n == arm)
        base = "mean of logits" + ", bad" * arm.endswith(", bad")
        (to_alone, d), (to_mean, m) = differences(here, arm, "alone"), differences(here, arm, base)
        if arm != "alone" and beyond(d):
            sure["above" if mean(d) > 0 else "below"].append(arm)
        if arm not in ("alone", base) and beyond(m):
            sure["better" if mean(m) > 0 else "worse"].append(arm)
        rows.append(
            [
                arm.replace(", bad", ", one bad"),
                len(seeds),
                *(
                    with_spread([here[arm, k][key] for k in seeds])
                    for key in ("accuracy", "balanced accuracy", "macro F1")
                ),
                "" if arm == "alone" else to_alone,
                "" if arm in ("alone", base) else to_mean,
            ]
        )
    return rows, sure


ORDER = [
    "alone",
    "response",
    "feature",
    "relation, one teacher",
    "mean of logits",
    "mean of probabilities",
    "mean of logits + features",
    "concatenation",
    "attention",
    "attention mixture",
    "attention, joint",
    "attention mixture, responses alone",
    "attention mixture, calibrated",
    "attention on the teachers' images",
    "attention mixture on the teachers' images",
]


def signal_rows(signals):
    names, seen = [], set()
    for r in signals:
        name = r["signal"] + (
            ", one bad"
            if r["teachers"] == "bad" and "(bad)" not in r["signal"] and r["signal"] in seen
            else ""
        )
        if r["teachers"] == "bad" and name.endswith("one bad") and r["signal"] in NETS:
            continue
        seen.add(r["signal"])
        names.append(
            [
                name,
                pct(r["test accuracy"]),
                f"{r['test ece']:.3f}",
                pct(r["train accuracy"]),
                pct(r["sureness on the students' images"]),
            ]
        )
    return names


NETS = ("resnet10t", "starnet_s050", "shvit_s1")


def section(case, d):
    c = d["cases"][case]
    rows, sure = student_rows(c["students"])
    one, ts = c["students"][0], c["teachers"]
    training_only = {s["arm"]: s["training only"] for s in c["students"] if s.get("training only")}
    say = lambda names: "; ".join(f"*{n.replace(', bad', ', one bad')}*" for n in names) or "none"
    return f"""### {CASES[case]}

`{d["command"]}`

{NOTES[case].format(images=one["images"])} Teachers: {"; ".join(f"{x['name']}, {x['parameters']:,} parameters, {pct(x['validation accuracy'])} on validation images" for x in ts)}. The bad one was trained on 150 images with 60% of the labels drawn at random and takes the place of {NETS[0]}.

What each answer is worth before any student hears it:

{table(["answer", "test accuracy", "calibration error", "accuracy on the students' images", "sureness there"], signal_rows(c["signals"]))}

One fit of each fusion (seed 0), fitted on the students' images, a fifth of which tells when to stop. Calibration error: by how much confidence and accuracy differ, over 15 bins of confidence, from 0 to 1; sureness: the mean probability of the answer given, in percent.

The students:

{table(["student taught by", "seeds", "accuracy", "balanced accuracy", "macro F1", "accuracy, difference to alone", "difference to the mean of logits"], rows)}

Behind ± the standard deviation over seeds, for differences the standard error. {len(rows) - 1} arms are compared with the student alone here, so of the lists below one or another entry may be there by chance; few seeds give wide intervals, so an arm that is missing is not shown to be equal.

- 95% interval (t, paired by seed) above the student alone: {say(sure["above"])}
- below the student alone: {say(sure["below"])}
- above the mean of the logits of the same teachers: {say(sure["better"])}
- below it: {say(sure["worse"])}

*Response*, *feature* and *relation, one teacher* have the teacher that is best on validation images. Student {one["parameters"]:,} parameters; in training only, beside the teachers: {"; ".join(f"{k} {v:,}" for k, v in training_only.items() if ", bad" not in k)}.

"""


def in_words(p, m):
    "What the two tables say together; every number from the files."
    phantom, mri = (
        {(s["arm"], s["seed"]): s for s in d["cases"][c]["students"]}
        for d, c in ((p, "specialists"), (m, "few"))
    )
    signal = lambda d, c, name, kind="good": next(
        r["test accuracy"]
        for r in d["cases"][c]["signals"]
        if r["signal"] == name and r["teachers"] == kind
    )

    def d(here, a, b):
        said, v = differences(here, a, b)
        return f"{said} ({'an interval without 0' if beyond(v) else 'an interval with 0 in it'})"

    mix, seen, mean_ = (
        "attention mixture",
        "attention mixture on the teachers' images",
        "mean of logits",
    )
    alone = 100 * mean([v["accuracy"] for (n, _), v in phantom.items() if n == "alone"])
    return f"""### What this says

**Is the attention a better teacher than an average?** On these two sets: where the teachers know different classes yes, where all three are good no. (The sets differ in more than that, so the reason is a guess.) As a classifier the mixture is better than the mean of the logits in both settings ({pct(signal(p, "specialists", mix))} against {pct(signal(p, "specialists", mean_))}, and {pct(signal(m, "few", mix))} against {pct(signal(m, "few", mean_))}, one fit each). As a teacher, against the mean of the logits of the same teachers: where they know different classes, {d(phantom, mix, mean_)}; on brain MRI, where all three are good, {d(mri, mix, mean_)}. With a classifier on the fused feature alone, which is how one would read the paper first: {d(phantom, "attention", mean_)}; and {d(mri, "attention", mean_)}. *Joint*, a fusion that learns along with its student: {d(phantom, "attention, joint", mean_)}; and {d(mri, "attention, joint", mean_)}.

**Does it help more than no teacher?** Where teachers know different classes the mixture stands {d(phantom, mix, "alone")}, from the student alone, the mean of the logits {d(phantom, mean_, "alone")}. A likely reason is in the first table: a student alone reaches {alone:.1f} with the labels of 200 images, and the fused answers are right on {pct(signal(p, "specialists", mean_))}% (mean of the logits) and {pct(signal(p, "specialists", mix))}% (mixture) of the test images, no better or hardly; with alpha = {p["settings"]["alpha"]:g} it listens to them almost only. The features of one specialist help by {d(phantom, "feature", "alone")}; its answers do harm ({d(phantom, "response", "alone")}), as one would expect of answers that never name the classes of others. On brain MRI the teachers are far better than a student alone, and every arm with good teachers comes out ahead, though with three seeds few intervals leave out 0: the mean of the logits {d(mri, mean_, "alone")}; the answers of one teacher {d(mri, "response", "alone")}.

**Which images should a fusion be fitted on?** Fitted on the teachers' own training images, a fusion becomes surer and worse ([measured in a chapter](../nbs/train/07_fusing.ipynb)). For the student that is taught by it, fitted there against fitted on held-out images: the mixture {d(mri, seen, mix)}; the attention with a classifier {d(mri, "attention on the teachers' images", "attention")}. That a fusion is no better teacher *because* it was fitted on images its teachers knew, which suggests itself, is {"supported" if beyond(differences(mri, seen, mix)[1]) and mean(differences(mri, seen, mix)[1]) < 0 else "not supported"} by this table. (It was fitted there on many more images than on the held-out ones.)

**A bad teacher.** With one bad teacher among three the mixture's students, against those of the mean of the logits: where teachers know different classes {d(phantom, mix + ", bad", mean_ + ", bad")}; on brain MRI {d(mri, mix + ", bad", mean_ + ", bad")}. The mean of the probabilities, against the mean of the logits: {d(phantom, "mean of probabilities, bad", mean_ + ", bad")}; and {d(mri, "mean of probabilities, bad", mean_ + ", bad")}.

"""


def tried(d):
    """What the learning rate was chosen by: accuracy on validation images, of seeds that do not
    appear in the tables."""
    rows = d["tried on validation images"]
    rates, arms = sorted({r["lr"] for r in rows}), list(dict.fromkeys(r["arm"] for r in rows))
    cells = [
        [
            f"{lr:g}",
            *(
                ", ".join(pct(r["accuracy"]) for r in rows if r["lr"] == lr and r["arm"] == arm)
                for arm in arms
            ),
            pct(mean([r["accuracy"] for r in rows if r["lr"] == lr])),
        ]
        for lr in rates
    ]
    return table(
        [
            "highest learning rate",
            *(
                f"{arm}, seeds {', '.join(str(k) for k in sorted({r['seed'] for r in rows}))}"
                for arm in arms
            ),
            "mean",
        ],
        cells,
    )


def page():
    p, m, b = read("guidance_phantom"), read("guidance_mri"), read("bench_guidance")
    s = p["settings"]
    return f"""## Learning Through Guidance: several teachers

One teacher or three; the simple aggregations and the attention fusion; and what happens when one of the three is bad. All students are `{s["student"]}`, {s["size"]}x{s["size"]} pixels, one-cycle schedule up to {s["lr"]:g}, T = {s["T"]:g}, alpha = {s["alpha"]:g}, and lam = {s["lam"]:g} where features are compared. Of these only the learning rate was chosen, by validation images (below), one for all arms; T, alpha and lam are the library's defaults. Students see {s["views"]} fixed random views of each image, so that the teachers' answers can be kept in memory. Every student of a seed starts from the same weights.

### The learning rate

Chosen by the mean over the student alone and the mean of the logits, on validation images and seeds that the tables below do not use.

{CASES["specialists"]}:

{tried(p)}

{CASES["few"]}:

{tried(m)}

{section("specialists", p)}{section("few", m)}{in_words(p, m)}### The cost of a step with three teachers

`{b["command"]}` (with `OMP_NUM_THREADS={b["threads"]}`)

{table(["step", "median", "from, to"], [[{"apart": "three teacher forwards + plain student step + fusion step", "three teachers": "RelationAttention, joint"}[k], f"{1000 * v:.0f} ms", f"{1000 * min(b['all'][k]):.0f}, {1000 * max(b['all'][k]):.0f} ms"] for k, v in b["seconds"].items()])}

Teachers {", ".join(b["teachers"])}; both ways in turn in one run, {b["repeats"]} rounds, {b["device"]}, {b["threads"]} thread{"s" * (b["threads"] > 1)}: ratio {b["ratio"]:.3f}.

"""
