"""The part of docs/results.md on phantom images, from docs/results/phantom_gain*.json."""

from results.shared import fill, pct, read, table

TEXT = """
## Phantom images: is there a gain?

`{command}`

`{plain_command}`

{rows}

The teacher reaches {teacher}. It has seen many more phantom images, of other seeds, than the
{images} of the student; a teacher trained on the student's own images would leave less to gain. The
number of images and epochs was chosen, on another test set, so that there is something to gain:
with more images and fewer epochs the same student stays underfitted, and in our trials the
teacher's answers brought it nothing. So this says that the machinery works, not how much
distillation brings on your data.
"""


def gain_row(g):
    difference = f"{100 * g['difference']:+.1f} ± {100 * g['standard error']:.1f}"
    return [g["n"], pct(g["before"]), pct(g["after"]), difference]


def page():
    g, plain = read("phantom_gain"), read("phantom_gain_plain")
    head = ["augmentation", "seeds", "student alone", "student distilled", "difference"]
    return fill(
        TEXT,
        command=g["command"],
        plain_command=plain["command"],
        rows=table(head, [["on", *gain_row(g["gain"])], ["off", *gain_row(plain["gain"])]]),
        teacher=pct(g["teacher"]["accuracy"]),
        images=g["command"].split("--n-train ")[1].split()[0],
    )
