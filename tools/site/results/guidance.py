"""The part of docs/results.md on several teachers, from docs/results/guidance_*.json and
bench_guidance.json."""

from scipy.stats import t

from results.shared import error, fill, items, mean, pct, read, table, threads_of, times_table
from results.shared import with_error, with_spread

INTRO = """
## Learning Through Guidance: several teachers

One teacher or three; the simple aggregations and the attention fusion; and what happens when one of
the three is bad. All students are `{student}`, {size}x{size} pixels, one-cycle schedule up to
{lr:g}, T = {T:g}, alpha = {alpha:g}, and lam = {lam:g} where features are compared. Of these only
the learning rate was chosen, by validation images (below), one for all arms; T, alpha and lam are
the library's defaults. Students see {views} fixed random views of each image, so that the teachers'
answers can be kept in memory. Every student of a seed starts from the same weights.

### The learning rate

Chosen by the mean over the student alone and the mean of the logits, on validation images and seeds
that the tables below do not use.

{specialists}:

{specialists_tried}

{few}:

{few_tried}
"""
CASE = """
### {name}

`{command}`

{note} Teachers: {teachers}. The bad one was trained on 150 images with 60% of the labels drawn at
random and takes the place of {replaced}.

What each answer is worth before any student hears it:

{signals}

One fit of each fusion (seed 0), fitted on the students' images, a fifth of which tells when to
stop. Calibration error: by how much confidence and accuracy differ, over 15 bins of confidence,
from 0 to 1; sureness: the mean probability of the answer given, in percent.

The students:

{students}

Behind ± the standard deviation over seeds, for differences the standard error. {arms} arms are
compared with the student alone here, so of the lists below one or another entry may be there by
chance; few seeds give wide intervals, so an arm that is missing is not shown to be equal.

{lists}

*Response*, *feature* and *relation, one teacher* have the teacher that is best on validation
images. Student {parameters:,} parameters; in training only, beside the teachers: {training_only}.
"""
SAID = """
### What this says

**Is the attention a better teacher than an average?** On these two sets: where the teachers know
different classes yes, where all three are good no. (The sets differ in more than that, so the
reason is a guess.) As a classifier the mixture is better than the mean of the logits in both
settings ({p.mixture} against {p.mean}, and {m.mixture} against {m.mean}, one fit each). As a
teacher, against the mean of the logits of the same teachers: where they know different classes,
{p.mixture_to_mean}; on brain MRI, where all three are good, {m.mixture_to_mean}. With a classifier
on the fused feature alone, which is how one would read the paper first: {p.attention_to_mean}; and
{m.attention_to_mean}. *Joint*, a fusion that learns along with its student: {p.joint_to_mean}; and
{m.joint_to_mean}.

**Does it help more than no teacher?** Where teachers know different classes the mixture stands
{p.mixture_to_alone}, from the student alone, the mean of the logits {p.mean_to_alone}. A likely
reason is in the first table: a student alone reaches {alone:.1f} with the labels of 200 images, and
the fused answers are right on {p.mean}% (mean of the logits) and {p.mixture}% (mixture) of the test
images, no better or hardly; with alpha = {alpha:g} it listens to them almost only. The features of
one specialist help by {p.feature_to_alone}; its answers do harm ({p.response_to_alone}), as one
would expect of answers that never name the classes of others. On brain MRI the teachers are far
better than a student alone, and every arm with good teachers comes out ahead, though with three
seeds few intervals leave out 0: the mean of the logits {m.mean_to_alone}; the answers of one
teacher {m.response_to_alone}.

**Which images should a fusion be fitted on?** Fitted on the teachers' own training images, a fusion
becomes surer and worse ([measured in a chapter](../nbs/train/06_fusing.ipynb)). For the student
that is taught by it, fitted there against fitted on held-out images: the mixture {m.seen_mixture};
the attention with a classifier {m.seen_attention}. That a fusion is no better teacher *because* it
was fitted on images its teachers knew, which suggests itself, is {supported} by this table. (It was
fitted there on many more images than on the held-out ones.)

**A bad teacher.** With one bad teacher among three the mixture's students, against those of the
mean of the logits: where teachers know different classes {p.bad_mixture}; on brain MRI
{m.bad_mixture}. The mean of the probabilities, against the mean of the logits:
{p.bad_probabilities}; and {m.bad_probabilities}.
"""
COST = """
### The cost of a step with three teachers

`{command}` (with `--threads {threads}`)

{rows}

Teachers {teachers}; both ways in turn in one run, {repeats} rounds, {device}, {said_threads}: ratio
{ratio:.3f}.
"""
CASES = {
    "specialists": "Phantom images, teachers that know different classes",
    "few": "Brain MRI, a tenth of the images for the students",
}
NOTES = {
    "specialists": (
        """
Each teacher has seen all training images of its own classes (those whose number leaves the same
remainder by 3) and 5% of the others. The students have {images} images of other seeds, which no
teacher has seen; the test images are 2,000 of yet another seed.
"""
    ),
    "few": (
        """
The teachers were trained on nine tenths of the training images, the students and the fusions on the
other tenth, {images} images, cut by group of near duplicates. The scores are of the test folder.
"""
    ),
}
NETS = ("resnet10t", "starnet_s050", "shvit_s1")
SCORES = ("accuracy", "balanced accuracy", "macro F1")
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
MEAN, MIXTURE = "mean of logits", "attention mixture"
STEPS = {
    "apart": "three teacher forwards + plain student step + fusion step",
    "three teachers": "RelationAttention, joint",
}


def by_arm(students):
    return {(s["arm"], s["seed"]): s for s in students}


def differences(here, arm, to):
    "Paired differences of accuracy between two arms, by seed."
    seeds = sorted(k for n, k in here if n == arm and (to, k) in here)
    return [here[arm, k]["accuracy"] - here[to, k]["accuracy"] for k in seeds]


def beyond(d):
    "Whether the 95% t interval of the paired differences leaves out 0."
    return len(d) > 1 and abs(mean(d)) > t.ppf(0.975, len(d) - 1) * error(d)


def arms_of(students):
    "The arms in the order of the table, those with a bad teacher last."
    place = lambda arm: ORDER.index(arm) if arm in ORDER else len(ORDER)
    arms = dict.fromkeys(s["arm"] for s in students)
    return sorted(arms, key=lambda arm: (arm.endswith(", bad"), place(arm)))


def base_of(arm):
    "The mean of the logits of the teachers that `arm` has."
    return MEAN + ", bad" * arm.endswith(", bad")


def named(arm):
    return arm.replace(", bad", ", one bad")


def student_rows(students):
    """One row an arm: scores with spread, paired differences to the student alone and to the mean
    of the logits of the same teachers."""
    here = by_arm(students)
    for arm in arms_of(students):
        seeds = sorted(k for n, k in here if n == arm)
        to = lambda other: with_error(differences(here, arm, other))
        yield [
            named(arm),
            len(seeds),
            *(with_spread([here[arm, k][key] for k in seeds]) for key in SCORES),
            "" if arm == "alone" else to("alone"),
            "" if arm in ("alone", base_of(arm)) else to(base_of(arm)),
        ]


def sure_lists(students):
    """The arms whose interval leaves out 0: above and below the student alone, and the mean of the
    logits."""
    here, arms = by_arm(students), arms_of(students)

    def those(other, sign, but):
        pairs = [(arm, differences(here, arm, other(arm))) for arm in arms if arm not in but(arm)]
        return [f"*{named(arm)}*" for arm, d in pairs if beyond(d) and sign * mean(d) > 0]

    alone = lambda arm: "alone", lambda arm: ("alone",)
    base = base_of, lambda arm: ("alone", base_of(arm))
    lists = {
        "95% interval (t, paired by seed) above the student alone": (alone, 1),
        "below the student alone": (alone, -1),
        "above the mean of the logits of the same teachers": (base, 1),
        "below it": (base, -1),
    }
    for name, ((other, but), sign) in lists.items():
        yield f"{name}: {'; '.join(those(other, sign, but)) or 'none'}"


def signal_rows(signals):
    "What each answer is worth by itself; the good teachers stand once, beside the bad one."
    seen = set()
    for r in signals:
        bad = r["teachers"] == "bad" and "(bad)" not in r["signal"] and r["signal"] in seen
        if bad and r["signal"] in NETS:
            continue
        seen.add(r["signal"])
        yield [
            r["signal"] + ", one bad" * bad,
            pct(r["test accuracy"]),
            f"{r['test ece']:.3f}",
            pct(r["train accuracy"]),
            pct(r["sureness on the students' images"]),
        ]


def teacher_said(x):
    accuracy = pct(x["validation accuracy"])
    return f"{x['name']}, {x['parameters']:,} parameters, {accuracy} on validation images"


def section(case, d):
    "One setting: its teachers, what their answers are worth, its students."
    c = d["cases"][case]
    students, one = c["students"], c["students"][0]
    rows = list(student_rows(students))
    training_only = {s["arm"]: s["training only"] for s in students if s.get("training only")}
    signal_head = ["answer", "test accuracy", "calibration error"]
    signal_head += ["accuracy on the students' images", "sureness there"]
    head = ["student taught by", "seeds", *SCORES, "accuracy, difference to alone"]
    return fill(
        CASE,
        name=CASES[case],
        command=d["command"],
        note=fill(NOTES[case], images=one["images"]).strip(),
        teachers="; ".join(map(teacher_said, c["teachers"])),
        replaced=NETS[0],
        signals=table(signal_head, signal_rows(c["signals"])),
        students=table([*head, "difference to the mean of logits"], rows),
        arms=len(rows) - 1,
        lists=items(sure_lists(students)),
        parameters=one["parameters"],
        training_only="; ".join(f"{k} {v:,}" for k, v in training_only.items() if ", bad" not in k),
    )


class Findings:
    "What the text says of one setting, each number from its file."

    def __init__(self, d, case):
        self.signals, self.here = d["cases"][case]["signals"], by_arm(d["cases"][case]["students"])
        self.mixture, self.mean = self.signal(MIXTURE), self.signal(MEAN)
        self.mixture_to_mean = self.against(MIXTURE, MEAN)
        self.attention_to_mean = self.against("attention", MEAN)
        self.joint_to_mean = self.against("attention, joint", MEAN)
        self.mixture_to_alone = self.against(MIXTURE, "alone")
        self.mean_to_alone = self.against(MEAN, "alone")
        self.feature_to_alone = self.against("feature", "alone")
        self.response_to_alone = self.against("response", "alone")
        self.bad_mixture = self.against(f"{MIXTURE}, bad", f"{MEAN}, bad")
        self.bad_probabilities = self.against("mean of probabilities, bad", f"{MEAN}, bad")

    def signal(self, name):
        "Accuracy of an answer on test images, with good teachers."
        found = (r for r in self.signals if r["signal"] == name and r["teachers"] == "good")
        return pct(next(found)["test accuracy"])

    def against(self, arm, other):
        d = differences(self.here, arm, other)
        interval = "an interval without 0" if beyond(d) else "an interval with 0 in it"
        return f"{with_error(d)} ({interval})"


def in_words(p, m):
    "What the two tables say together."
    phantom, mri = Findings(p, "specialists"), Findings(m, "few")
    seen = "on the teachers' images"
    mri.seen_mixture = mri.against(f"{MIXTURE} {seen}", MIXTURE)
    mri.seen_attention = mri.against(f"attention {seen}", "attention")
    worse = differences(mri.here, f"{MIXTURE} {seen}", MIXTURE)
    alone = [v["accuracy"] for (arm, _), v in phantom.here.items() if arm == "alone"]
    return fill(
        SAID,
        p=phantom,
        m=mri,
        alone=100 * mean(alone),
        alpha=p["settings"]["alpha"],
        supported="supported" if beyond(worse) and mean(worse) < 0 else "not supported",
    )


def tried(d):
    """What the learning rate was chosen by: accuracy on validation images, of seeds that do not
    appear in the tables."""
    rows = d["tried on validation images"]
    arms = list(dict.fromkeys(r["arm"] for r in rows))
    seeds = ", ".join(str(k) for k in sorted({r["seed"] for r in rows}))
    cells = []
    for lr in sorted({r["lr"] for r in rows}):
        here = [r for r in rows if r["lr"] == lr]
        of = lambda arm: ", ".join(pct(r["accuracy"]) for r in here if r["arm"] == arm)
        cells.append([f"{lr:g}", *map(of, arms), pct(mean([r["accuracy"] for r in here]))])
    head = ["highest learning rate", *(f"{arm}, seeds {seeds}" for arm in arms), "mean"]
    return table(head, cells)


def cost():
    b = read("bench_guidance")[-1]  # of the most threads
    return fill(
        COST,
        rows=times_table(b, STEPS, digits=0, unit="ms"),
        teachers=", ".join(b["teachers"]),
        said_threads=threads_of(b),
        ratio=b["median of ratios"],
        **{k: b[k] for k in ("command", "threads", "device", "repeats")},
    )


def page():
    p, m = read("guidance_phantom"), read("guidance_mri")
    intro = fill(
        INTRO,
        **{k: p["settings"][k] for k in ("student", "size", "lr", "T", "alpha", "lam", "views")},
        **CASES,
        specialists_tried=tried(p),
        few_tried=tried(m),
    )
    return intro + section("specialists", p) + section("few", m) + in_words(p, m) + cost()
