"""docs/results.md from the results files in docs/results/: every number on the page comes from a file that a command made.

python tools/results_page.py                                        # write the page
python tools/results_page.py keep RUN_FOLDER NAME "COMMAND"         # first copy the numbers of a `kdmedlearn distill` run
"""

import json, sys
from pathlib import Path

import results_guidance
from results_numbers import RESULTS, mean, pct, read, spread, table, with_spread

ROOT = Path(__file__).resolve().parents[1]


def keep(folder, name, command):
    "Numbers of a run and of its parts (fractions), without weights, images or paths."
    runs = [p.parent for p in sorted(Path(folder).rglob("metrics.json"))]
    out = {
        "command": command,
        "runs": [
            {
                "config": json.loads((p / "config.json").read_text()),
                **json.loads((p / "metrics.json").read_text()),
            }
            for p in runs
        ],
    }
    for r in out["runs"]:
        for row in r["table"].values():
            row.pop("ms per image")  # of whatever else the machine did just then
    (RESULTS / f"{name}.json").write_text(json.dumps(out, indent=1) + "\n", encoding="utf-8")


def gain_row(g):
    return [
        g["n"],
        pct(g["before"]),
        pct(g["after"]),
        f"{100 * g['difference']:+.1f} ± {100 * g['standard error']:.1f}",
    ]


ARMS = {"alone": "alone", "logit": "logit KD", "feature": "feature KD", "both": "HDKD (both)"}


def hdkd_rows(d):
    """For each part of the images and each student: scores with their spread, and the paired
    difference to the student alone."""
    rows = []
    for f in sorted({s["fraction"] for s in d["students"]}, reverse=True):
        here = {(s["arm"], s["seed"]): s for s in d["students"] if s["fraction"] == f}
        for arm, name in ARMS.items():
            seeds = sorted(k for a, k in here if a == arm)
            if not seeds:
                continue
            score = lambda key: [here[arm, k][key] for k in seeds]
            diff = [
                here[arm, k]["accuracy"] - here["alone", k]["accuracy"]
                for k in seeds
                if arm != "alone" and ("alone", k) in here
            ]
            rows.append(
                [
                    f"{f:.0%}",
                    name,
                    len(seeds),
                    *(
                        with_spread(score(key))
                        for key in ("accuracy", "balanced accuracy", "macro F1")
                    ),
                    (
                        f"{100 * mean(diff):+.1f}"
                        + (f" ± {100 * spread(diff) / len(diff)**.5:.1f}" if len(diff) > 1 else "")
                        if diff
                        else ""
                    ),
                ]
            )
    return rows


def beyond_chance(d):
    """The students whose mean paired difference to the student alone is more than two of its
    standard errors above 0."""
    out = []
    for f in sorted({s["fraction"] for s in d["students"]}, reverse=True):
        of = lambda arm: {
            s["seed"]: s["accuracy"]
            for s in d["students"]
            if s["fraction"] == f and s["arm"] == arm
        }
        for arm in list(ARMS)[1:]:
            diff = [v - of("alone")[k] for k, v in of(arm).items() if k in of("alone")]
            if len(diff) > 2 and mean(diff) > 2 * spread(diff) / len(diff) ** 0.5:
                out.append(f"{ARMS[arm]} with {f:.0%}")
    return out


def hdkd_page():
    d, b = read("hdkd_brain_mri"), read("bench_hdkd")
    a, t = d["about"], d["teacher"]
    size = lambda arm: next(s["parameters"] for s in d["students"] if s["arm"] == arm)
    images = {s["fraction"]: (s["images"], s["epochs"]) for s in d["students"]}
    sec, names = b["seconds"], {
        "apart": "teacher forward + plain student step",
        "HDKD": "HDKD step",
        "stages again": "stages run again for each feature term, as released",
        "models again": "whole models run again for each feature term",
    }
    return f"""## HDKD on brain MRI

`{d["command"]}`

{table(["training images", "student", "seeds", "accuracy", "balanced accuracy", "macro F1", "accuracy, difference to alone"], hdkd_rows(d))}

Behind ± the standard deviation over seeds, for the difference its standard error. More than two standard errors above the student alone: {", ".join(beyond_chance(d)) or "none"}; with three seeds the standard error is itself uncertain. The teacher has seen the labels of all training images, so with a part of them the students profit from labels that they were not given. The teacher, {t["parameters"]:,} parameters, reaches an accuracy of {pct(t["accuracy"])} ({pct(t["balanced accuracy"])} balanced, macro F1 {pct(t["macro F1"])}); it was trained once, for {t["epochs"]} epochs on the whole training part. Students: {size("alone"):,} parameters alone, {size("both"):,} with a distillation head; {", ".join(f"{n:,} images for {e} epochs" for f, (n, e) in sorted(images.items(), reverse=True))}. {a["size"]}x{a["size"]} pixels{", half of the paper's widths so that a CPU can train them" if a["half"] else ""}, AdamW with one-cycle schedule up to {a["lr"]:g}, batches of {a["bs"]}, augmentation `{a["modality"]}`; nothing of this was tuned. Student alone is the plain hybrid student; *feature KD* is `{a["methods"]["feature"]}`. Same cleaned copy of the set, same cut by group as above.

## The cost of a step of HDKD

`{b["command"]}` (with `OMP_NUM_THREADS={b["threads"]}`)

{table(["step", "median", "from, to", "times HDKD"], [[names[k], f"{v:.2f} s", f"{min(b['all'][k]):.2f}, {max(b['all'][k]):.2f} s", f"{v / sec['HDKD']:.2f}"] for k, v in sec.items()])}

Paper widths, batch and size as in the command, {b["device"]}, {b["threads"]} threads, {b["repeats"]} rounds in which each takes its turn. HDKD takes {b["ratio to apart"]:.2f} times what its two forwards and one backward take anyway. The last two rows compute the same loss; they live in the benchmark alone. Counted in multiplications, running stages 1 to *i* again for each term can cost at most four times as much, and costs less the more of the work is in the later stages.

"""


KDAS_ARMS = {
    "alone": "alone",
    "bernoulli": "response (Bernoulli KL)",
    "attention": "attention supervision",
    "sgm": "SGM",
    "sgm, raw": "SGM on raw logits, as published",
    "KDAS": "KDAS",
    "KDAS, raw": "KDAS with SGM on raw logits, as published",
}


def three(v):
    return f"{v:.3f}"


def three_with_spread(v):
    return f"{mean(v):.3f} ± {spread(v):.3f}" if len(v) > 1 else three(mean(v))


def kdas_rows(d):
    """For each student: scores with their spread over seeds, the paired difference of Dice to the
    student alone, and its interval over images."""
    here, rows, gains = {(s["arm"], s["seed"]): s["scores"] for s in d["students"]}, [], {}
    for arm, name in KDAS_ARMS.items():
        seeds = sorted(k for a, k in here if a == arm)
        if not seeds:
            continue
        diff = [here[arm, k]["dice"] - here["alone", k]["dice"] for k in seeds if arm != "alone"]
        over = d["over images"].get(arm)
        if diff:
            gains[name] = (
                mean(diff),
                spread(diff) / len(diff) ** 0.5 if len(diff) > 1 else float("nan"),
            )
        rows.append(
            [
                name,
                len(seeds),
                *(
                    three_with_spread([here[arm, k][key] for k in seeds])
                    for key in ("dice", "iou", "maxDic", "wFm", "Sm")
                ),
                f"{gains[name][0]:+.3f} ± {gains[name][1]:.3f}" if diff else "",
                f"{over['low']:+.3f} to {over['high']:+.3f}" if over else "",
            ]
        )
    return rows, gains


KDAS_MEASURES = {
    "dice": "Dice at .5",
    "meanDic": "mean Dice over thresholds",
    "wFm": "weighted F",
    "Sm": "S-measure",
    "maxEm": "max E-measure",
    "MAE": "MAE (less is better)",
}


def kdas_differences(d):
    """Paired differences to the student alone for several measures: mean and standard error over
    seeds."""
    here, rows = {(s["arm"], s["seed"]): s["scores"] for s in d["students"]}, []
    for arm, name in list(KDAS_ARMS.items())[1:]:
        seeds = sorted(k for a, k in here if a == arm)
        if not seeds:
            continue
        diffs = {m: [here[arm, k][m] - here["alone", k][m] for k in seeds] for m in KDAS_MEASURES}
        rows.append(
            [
                name,
                *(
                    f"{mean(v):+.3f}" + (f" ± {spread(v) / len(v)**.5:.3f}" if len(v) > 1 else "")
                    for v in diffs.values()
                ),
            ]
        )
    return rows


def kdas_page():
    d, b = read("kdas_kvasir"), read("bench_kdas")
    r, t = d["about"]["recipe"], d["teacher"]
    rows, gains = kdas_rows(d)
    sure = [n for n, (m, e) in gains.items() if m > 2 * e]
    harm = [n for n, (m, e) in gains.items() if m < -2 * e]
    by = {}
    for s in d["select"]:
        if s["arm"] != "teacher":
            by.setdefault(s["arm"], []).append(s["dice"])
    room = t["scores"]["dice"] - mean(
        [s["scores"]["dice"] for s in d["students"] if s["arm"] == "alone"]
    )
    teacher_select = next(s for s in d["select"] if s["arm"] == "teacher")
    return f"""## KDAS on Kvasir-SEG

`{d["command"]}` (after the same with `--select --seeds 0`)

{table(["student", "seeds", "Dice", "IoU", "max Dice", "weighted F", "S-measure", "Dice, difference to alone", "95% over images"], rows)}

Scores on the {d["students"][0]["scores"]["images"]:.0f} validation images, at the size of the mask files, by the [protocol of the field](../nbs/evaluation/02_masks.ipynb). Behind ± the standard deviation over seeds, for the difference its standard error. The last column is a bootstrap interval of the difference over images, the seeds averaged. More than two standard errors above the student alone: {", ".join(sure) or "none"}; below it: {", ".join(harm) or "none"}. The teacher's Dice is {room:.3f} above that of the student alone, so no method has much more than that to gain; KDAS, with its default weights, makes {gains["KDAS"][0]:+.3f} of it. With {rows[0][1]} seeds the standard error is itself uncertain. No method and no weight was chosen on these images, and the last epoch counts; while the setting was being found, scores of teachers and of the student alone on them were seen.

The same differences in other measures:

{table(["student", *KDAS_MEASURES.values()], kdas_differences(d))}

Dice at .5 asks only on which side of .5 a pixel lies. The mean over thresholds, which papers usually report as mean Dice, weighted F and MAE also ask how sure the answer is. Six measures are six chances to find something, so none of these rows is a proof by itself.

Teacher: `large_unet`, {t["parameters"]:,} parameters, {t["epochs"]} epochs on the {t["images"]} training images, Dice {t["scores"]["dice"]:.3f}. Students: `small_unet`, {d["students"][0]["parameters"]:,} parameters, {r["epochs"]} epochs of {d["students"][0]["images"]} images, {r["size"]}x{r["size"]} pixels, AdamW up to {r["lr"]:g} with cosine, batches of {r["bs"]}, quarter turns and mirrors. {d["about"]["loss"]} All from scratch, on a CPU. The methods: {"; ".join(f"{KDAS_ARMS[k]} `{v}`" for k, v in d["about"]["methods"].items() if v != "None" and any(s["arm"] == k for s in d["students"]))}. Kvasir-SEG names no patients, so frames of one patient may stand on both sides.

**The weights** were chosen on an eighth of the training images that neither the students nor their teacher (another one, Dice {teacher_select["dice"]:.3f} there) had seen:

{table(["weights", "seeds", "Dice on the part of train"], [[k, len(v), three_with_spread(v)] for k, v in sorted(by.items(), key=lambda o: -mean(o[1]))])}

## The cost of a step of KDAS

`{b["command"]}` (with `OMP_NUM_THREADS={b["threads"]}`)

{table(["step", "median", "from, to"], [[{"apart": "teacher forward + plain student step", "KDAS": "KDAS step"}[k], f"{v:.2f} s", f"{min(b['all'][k]):.2f}, {max(b['all'][k]):.2f} s"] for k, v in b["seconds"].items()])}

Polyp-PVT on PVTv2-B2 teaches Polyp-PVT on PVTv2-B0, batch and size as in the command, {b["device"]}, {b["threads"]} threads, {b["repeats"]} rounds in which both take their turn: ratio {b["ratio"]:.3f}.

"""


def widgets_page():
    w, b = read("bench_widgets"), read("bench_tuning")
    seconds = lambda k: f"{min(b[k]):.1f} to {max(b[k]):.1f} s"
    return f"""## The widgets' speed

`{w["command"]}`

The temperature widget with {w["images"]} images in a real JupyterLab: from a key press on the slider to the changed figure {w["median_ms"]:.0f} ms (median of {w["moves"]} moves, at most {w["max_ms"]:.0f}). A move carries {w["figure_bytes"] / 1000:.0f} kB of figure. The machine with {w["cores"]} cores had a load of {w["load_average"][0]:.1f} and was not idle, so this is an upper bound.

`{b["command"]}`

Training beside an open tuning bench runs at {b["speed with / without"]:.3f} times the speed of training alone, the median of {len(b["seconds without"])} rounds in which both take their turn ({seconds("seconds with the bench")} against {seconds("seconds without")}): drawing costs the rest.
"""


def page():
    g, gp, b, m = (
        read("phantom_gain"),
        read("phantom_gain_plain"),
        read("bench_step"),
        read("brain_mri"),
    )
    mri = []
    for r in sorted(m["runs"], key=lambda r: -r["config"]["fraction"]):
        for key in ("accuracy", "balanced accuracy", "macro F1"):
            by = {
                k: [s[key] for s in r["seeds"] if s["model"] == k]
                for k in ("student alone", "student distilled")
            }
            a, d = by.values()
            diff = [y - x for x, y in zip(a, d)]
            mri.append(
                [
                    f"{r['config']['fraction']:.0%}",
                    key,
                    pct(r["table"]["teacher"][key]),
                    with_spread(a),
                    with_spread(d),
                    f"{100 * mean(diff):+.1f} ± {100 * spread(diff) / len(diff)**.5:.1f}",
                ]
            )
    c, first = m["runs"][0]["config"], m["runs"][0]["table"]
    return f"""# Results

<!-- made by tools/results_page.py from docs/results/*.json; edit those by running the commands -->

What was measured, and the command that measured it. Accuracies in percent. A difference is the mean over seeds of the *paired* differences, with its standard error. Nothing was chosen on a test set: the last epoch counts, and the knobs are the defaults.

## Phantom images: is there a gain?

`{g["command"]}`

`{gp["command"]}`

{table(["augmentation", "seeds", "student alone", "student distilled", "difference"], [["on", *gain_row(g["gain"])], ["off", *gain_row(gp["gain"])]])}

The teacher reaches {pct(g["teacher"]["accuracy"])}. It has seen many more phantom images, of other seeds, than the {g["command"].split("--n-train ")[1].split()[0]} of the student; a teacher trained on the student's own images would leave less to gain. The number of images and epochs was chosen, on another test set, so that there is something to gain: with more images and fewer epochs the same student stays underfitted, and in our trials the teacher's answers brought it nothing. So this says that the machinery works, not how much distillation brings on your data.

## Brain MRI, four classes

`{m["command"]}`

{table(["training images", "score", "teacher", "student alone", "student distilled", "difference"], mri)}

{len([s for s in m["runs"][0]["seeds"] if s["model"] == "student alone"])} seeds; behind ± for the students the standard deviation over seeds, for the difference its standard error. Teacher {first["teacher"]["parameters"]:,} parameters, trained once on the whole training part for {c["teacher_epochs"]} epochs; students {first["student alone"]["parameters"]:,} parameters, {c["epochs"]} epochs, {c["size"]}x{c["size"]} pixels, {c["method"]}. With a part of the images, all seeds use the same part. Validation images are cut from the training images by group of near duplicates (`--group near_dup_group`) and train nobody.

The set is a cleaned copy of the public Brain Tumor MRI Dataset, from whose training part near duplicates of test images were removed; on the public copy, with its leak, all of these numbers would be several points higher and mean less. There are no patient identifiers, so images of one patient may still stand on both sides.

{hdkd_page()}{kdas_page()}{results_guidance.page()}## The cost of a step of response distillation

`{b[0]["command"]}` (with `OMP_NUM_THREADS` 1 and 2)

{table(["threads", "teacher forward + plain student step", "distillation step", "ratio"], [[r["threads"], *(f"{v:.1f} ms" for v in r["ms"].values()), f"{r['ratio']:.3f}"] for r in b])}

Both are timed in turn in one run, with everything fastai does around a step ({b[0]["device"]}, {b[0]["repeats"]} rounds of {b[0]["steps"]} steps, medians). The ratio is what distillation costs beyond the two forwards it cannot do without.

{widgets_page()}"""


if __name__ == "__main__":
    if sys.argv[1:2] == ["keep"]:
        keep(*sys.argv[2:])
    (ROOT / "docs" / "results.md").write_text(page(), encoding="utf-8")
