"""The part of docs/results.md on brain MRI, from docs/results/brain_mri.json; and how that file is
made from a run."""

import json
from pathlib import Path

from results.shared import RESULTS, fill, pct, read, table, with_error, with_spread

TEXT = """
## Brain MRI, four classes

`{command}`

{rows}

{seeds} seeds; behind ± for the students the standard deviation over seeds, for the difference its
standard error. Teacher {teacher:,} parameters, trained once on the whole training part for
{teacher_epochs} epochs; students {student:,} parameters, {epochs} epochs, {size}x{size} pixels,
{method}. With a part of the images, all seeds use the same part. Validation images are cut from the
training images by group of near duplicates (`--group near_dup_group`) and train nobody.

The set is a cleaned copy of the public Brain Tumor MRI Dataset, from whose training part near
duplicates of test images were removed; on the public copy, with its leak, all of these numbers
would be several points higher and mean less. There are no patient identifiers, so images of one
patient may still stand on both sides.
"""
HEAD = ["training images", "score", "teacher", "student alone", "student distilled", "difference"]


def keep(folder, name, command):
    "Numbers of a run and of its parts (fractions), without weights, images or paths."
    read_json = lambda p: json.loads(p.read_text(encoding="utf-8"))
    runs = []
    for p in sorted(Path(folder).rglob("metrics.json")):
        run = {"config": read_json(p.parent / "config.json"), **read_json(p)}
        for row in run["table"].values():
            row.pop("ms per image")  # of whatever else the machine did just then
        runs.append(run)
    text = json.dumps({"command": command, "runs": runs}, indent=1) + "\n"
    (RESULTS / f"{name}.json").write_text(text, encoding="utf-8")


def rows(runs):
    for r in sorted(runs, key=lambda r: -r["config"]["fraction"]):
        for key in ("accuracy", "balanced accuracy", "macro F1"):
            of = lambda model: [s[key] for s in r["seeds"] if s["model"] == model]
            alone, distilled = of("student alone"), of("student distilled")
            yield [
                f"{r['config']['fraction']:.0%}",
                key,
                pct(r["table"]["teacher"][key]),
                with_spread(alone),
                with_spread(distilled),
                with_error([d - a for a, d in zip(alone, distilled)]),
            ]


def page():
    m = read("brain_mri")
    first = m["runs"][0]
    c = first["config"]
    return fill(
        TEXT,
        command=m["command"],
        rows=table(HEAD, rows(m["runs"])),
        seeds=sum(s["model"] == "student alone" for s in first["seeds"]),
        teacher=first["table"]["teacher"]["parameters"],
        student=first["table"]["student alone"]["parameters"],
        teacher_epochs=c["teacher_epochs"],
        epochs=c["epochs"],
        size=c["size"],
        method=c["method"],
    )
