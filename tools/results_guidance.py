"""The part of docs/results.md on several teachers, from docs/results/guidance_*.json."""
from results_numbers import mean, pct, read, spread, table, with_spread

CASES = {"specialists": "Phantom images, teachers that know different classes", "few": "Brain MRI, a tenth of the images for the students"}
NOTES = {
    "specialists": "Each teacher has seen all training images of its own classes (those whose number leaves the same remainder by 3) and 5% of the others. The students have {images} images of other seeds, which no teacher has seen; the test images are 2,000 of yet another seed.",
    "few": "The teachers were trained on nine tenths of the training images, the students and the fusions on the other tenth, {images} images, cut by group of near duplicates. The scores are of the test folder.",
}


def differences(here, arm, to):
    seeds = sorted(k for n, k in here if n == arm and (to, k) in here)
    d = [here[arm, k]["accuracy"] - here[to, k]["accuracy"] for k in seeds]
    return f"{100 * mean(d):+.1f}" + (f" ± {100 * spread(d) / len(d)**.5:.1f}" if len(d) > 1 else ""), d


def beyond(d): return len(d) > 1 and abs(mean(d)) > 2 * spread(d) / len(d)**.5


def student_rows(students):
    "One row an arm: scores with spread, paired differences to the student alone and to the mean of the logits of the same teachers."
    here = {(s["arm"], s["seed"]): s for s in students}
    rows, sure = [], {"above": [], "below": [], "better": [], "worse": []}
    for arm in dict.fromkeys(s["arm"] for s in sorted(students, key=lambda s: (s["arm"].endswith("bad"), ORDER.index(s["arm"]) if s["arm"] in ORDER else 99))):
        seeds = sorted(k for n, k in here if n == arm)
        base = "mean of logits" + ", bad" * arm.endswith(", bad")
        (to_alone, d), (to_mean, m) = differences(here, arm, "alone"), differences(here, arm, base)
        if arm != "alone" and beyond(d): sure["above" if mean(d) > 0 else "below"].append(arm)
        if arm not in ("alone", base) and beyond(m): sure["better" if mean(m) > 0 else "worse"].append(arm)
        rows.append([arm.replace(", bad", ", one bad"), len(seeds), *(with_spread([here[arm, k][key] for k in seeds]) for key in ("accuracy", "balanced accuracy", "macro F1")),
                     "" if arm == "alone" else to_alone, "" if arm in ("alone", base) else to_mean])
    return rows, sure


ORDER = ["alone", "response", "feature", "relation, one teacher", "mean of logits", "mean of probabilities", "mean of logits + features", "concatenation", "attention", "attention mixture", "attention, joint",
         "attention mixture, responses alone", "attention mixture, calibrated", "attention on the teachers' images", "attention mixture on the teachers' images"]


def signal_rows(signals):
    names, seen = [], set()
    for r in signals:
        name = r["signal"] + (", one bad" if r["teachers"] == "bad" and "(bad)" not in r["signal"] and r["signal"] in seen else "")
        if r["teachers"] == "bad" and name.endswith("one bad") and r["signal"] in NETS: continue
        seen.add(r["signal"])
        names.append([name, pct(r["test accuracy"]), f"{r['test ece']:.3f}", pct(r["train accuracy"]), pct(r["sureness on the students' images"])])
    return names


NETS = ("resnet10t", "starnet_s050", "shvit_s1")


def section(case, d):
    c = d["cases"][case]
    rows, sure = student_rows(c["students"])
    one, t = c["students"][0], c["teachers"]
    training_only = {s["arm"]: s["training only"] for s in c["students"] if s.get("training only")}
    say = lambda names: ", ".join(n.replace(", bad", ", one bad") for n in names) or "none"
    return f"""### {CASES[case]}

`{d["command"]}`

{NOTES[case].format(images=one["images"])} Teachers: {"; ".join(f"{x['name']}, {x['parameters']:,} parameters, {pct(x['validation accuracy'])} on validation images" for x in t)}. The bad one was trained on 150 images with 60% of the labels drawn at random and takes the place of {NETS[0]}.

What each answer is worth before any student hears it:

{table(["answer", "test accuracy", "calibration error", "accuracy on the students' images", "sureness there"], signal_rows(c["signals"]))}

One fit of each fusion (seed 0), fitted on the students' images, a fifth of which tells when to stop.

The students:

{table(["student taught by", "seeds", "accuracy", "balanced accuracy", "macro F1", "accuracy, difference to alone", "difference to the mean of logits"], rows)}

Behind ± the standard deviation over seeds, for differences the standard error. More than two standard errors above the student alone: {say(sure["above"])}; below it: {say(sure["below"])}. Above the mean of the logits of the same teachers: {say(sure["better"])}; below it: {say(sure["worse"])}. *Response*, *feature* and *relation, one teacher* have the teacher that is best on validation images. Student {one["parameters"]:,} parameters; in training only, beside the teachers: {"; ".join(f"{k} {v:,}" for k, v in training_only.items() if ", bad" not in k)}.

"""


def in_words(p, m):
    "What the two tables say together; every number from the files."
    phantom, mri = ({(s["arm"], s["seed"]): s for s in d["cases"][c]["students"]} for d, c in ((p, "specialists"), (m, "few")))
    d = lambda here, a, b: differences(here, a, b)[0]
    mix, seen, mean_ = "attention mixture", "attention mixture on the teachers' images", "mean of logits"
    return f"""### What this says

**Is the attention a better teacher than an average?** As a classifier, with three good teachers, the mixture is the best of the fusions in both settings. Its students stand {d(phantom, mix, mean_)} points from those of the mean of the logits where teachers know different classes, and {d(mri, mix, mean_)} on brain MRI, where all three are good: {"more" if beyond(differences(mri, mix, mean_)[1]) else "not more"} than two standard errors on brain MRI, {"more" if beyond(differences(phantom, mix, mean_)[1]) else "not more"} on the phantoms. The mean of the probabilities does as well on brain MRI ({d(mri, "mean of probabilities", mean_)}) and worse on the phantoms ({d(phantom, "mean of probabilities", mean_)}). The attention with a classifier alone, which is how one would read the paper first, is no better teacher than the mean of the logits in either ({d(phantom, "attention", mean_)}, {d(mri, "attention", mean_)}).

**Why not?** Two reasons are likely. A classifier trained on few images gives up what the teachers' answers say about the wrong classes, and the mixture keeps it: that is the only difference between the two. And on the images that the teachers were trained on a fusion learns little about them: how much surer and worse its answers then become is [measured in a chapter](nbs/07_fusing.ipynb). Here, fitted there instead of on held-out images, the mixture's students lose {d(mri, seen, mix).replace("-", "")} points of accuracy ({"more" if beyond(differences(mri, seen, mix)[1]) else "not more"} than two standard errors), although the fusion had many more images to learn from.

**A bad teacher.** Where teachers know different classes and one is replaced by a bad one, the mixture's students stand {d(phantom, mix + ", bad", mean_ + ", bad")} from the mean of the logits: attention learns whom not to believe. On brain MRI, where the two that remain know all classes, the mean of the logits loses nothing by the bad one and attention is not better ({d(mri, mix + ", bad", mean_ + ", bad")}). The mean of the probabilities suffers in both.

**One teacher.** With the answers of a single specialist students learn worse than alone ({d(phantom, "response", "alone")}): they learn not to know what it does not know. Its features help nevertheless ({d(phantom, "feature", "alone")}).

"""


def page():
    p, m, b = read("guidance_phantom"), read("guidance_mri"), read("bench_guidance")
    s = p["settings"]
    return f"""## Learning Through Guidance: several teachers

One teacher or three; the simple aggregations and the attention fusion; and what happens when one of the three is bad. All students are `{s["student"]}`, {s["size"]}x{s["size"]} pixels, one-cycle schedule up to {s["lr"]:g}, T = {s["T"]:g}, alpha = {s["alpha"]:g}, and lam = {s["lam"]:g} where features are compared. Nothing of this was tuned, and the learning rate is too low for this student: in trials with 0.01, judged on validation images, the student alone did far better, and what teachers add became smaller. These tables are to be made again with a rate chosen on validation images. Students see {s["views"]} fixed random views of each image, so that the teachers' answers can be kept in memory. Every student of a seed starts from the same weights.

{section("specialists", p)}{section("few", m)}{in_words(p, m)}### The cost of a step with three teachers

`{b["command"]}` (with `OMP_NUM_THREADS={b["threads"]}`)

{table(["step", "median", "from, to"], [[{"apart": "three teacher forwards + plain student step + fusion step", "three teachers": "RelationAttention, joint"}[k], f"{1000 * v:.0f} ms", f"{1000 * min(b['all'][k]):.0f}, {1000 * max(b['all'][k]):.0f} ms"] for k, v in b["seconds"].items()])}

Teachers {", ".join(b["teachers"])}; both ways in turn in one run, {b["repeats"]} rounds, {b["device"]}, {b["threads"]} thread{"s" * (b["threads"] > 1)}: ratio {b["ratio"]:.3f}.

"""
