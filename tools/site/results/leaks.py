"""The part of docs/results.md on near duplicates, from docs/results/near_duplicates.json and
bench_leaks.json."""

from results.shared import fill, read, table

TEXT = """
## Near duplicates

How well [`find_leaks`](../nbs/data/08_leaks.ipynb) finds the same picture in a set.

`{command}`

**Made-up copies.** {images:,} phantom images: originals of four kinds (64, 96 and 160 pixels,
colour and grey), and of each a copy with one random change or two. {found:,} of {copies:,} copies
were found ({recall}%). Of {pairs:,} reported pairs {false} were false{bound}. Slight crops, which
are no part of this table: {crops} of {all_crops}.

{rows}

The two thresholds, {likely:g} for amplitudes and {least:g} for pixels, were chosen on other
phantoms, on slight crops of others again, and on the half of the groups of brain MRI whose number
is even. A second threshold of .93 was the first choice: it agrees better with those groups. It was
given up because it loses crops:

{grid}

**Brain MRI**, the groups with an odd number, {n:,} images. The manifest's groups are made by
another rule: thumbnails of 64 x 64 with a correlation above .95, or pHash distance of at most 2,
under flips; what is connected is one group, so the ends of a group can be unlike.

{mri}

The way from image to numbers was found while the whole of brain MRI and phantoms of the seeds in
the table of thresholds were looked at. So the odd half judges the thresholds alone; the made-up
copies of the first table judge everything.

What the disagreements are, by eye, on the whole set. Of the 308 pairs within groups that are *not*
found, 48 were drawn at random: none is the same picture. They are other slices, or other heads,
that look alike as thumbnails, or the two ends of a chain. Of the 277 pairs found *across* groups,
96 were drawn at random, and none looks unrelated. About a quarter is one picture that the
manifest's rule has missed: turned by 180 degrees, mirrored top to bottom, cut to another field,
shifted, or with very different contrast. The others look like neighbouring slices of one scan with
the same tumour. They leak as well, but they are no copies. There are no patient identifiers to
check this with.

**What is left between train and test** of this cleaned copy, with the default threshold for the
amplitudes and with a strict one that keeps copies and few neighbours:

{left}

So the cleaning by thumbnails left some twins in place. Other numbers on this page that were
measured on brain MRI are of the copy as it is.
"""
TIMES = """
## The cost of finding near duplicates

`{command}`

{rows}

JPEG files of quality 90, read with one thread per core and compared on {threads:.0f} threads. The
machine has two cores and was busy with other work, so the seconds of the processor (in brackets,
all threads together) say more than those of the clock. Memory is the growth of the peak: for each
image a thumbnail of 4 kB, twice for a moment, and amplitudes of 0.6 kB stay; the rest are blocks
and decoder, which do not grow with the set.
"""


def share(d):
    return f"{d['found']} of {d['copies']} ({100 * d['found'] / d['copies']:.1f}%)"


def bound(p):
    "What no false pair among so many says (the rule of three), or the two shares."
    if p["false"]:
        per_pair, per_image = p["false"] / p["pairs"], p["false"] / p["images"]
        return f", {per_pair:.4f} per reported pair and {per_image:.5f} per image"
    return (
        f"; with 95% confidence that is less than {3 / p['pairs']:.4f} per reported pair and"
        f" {3 / p['images']:.4f} per image"
    )


def agreement(m):
    yield "pairs within the manifest's groups", m["pairs in groups"]
    yield "of them reported as a pair", part(m["of them found"], m["pairs in groups"])
    linked = m["of them in one of our groups"]
    yield "of them in one group of `find_leaks`", part(linked, m["pairs in groups"])
    direct = part(m["direct pairs found"], m["direct pairs"])
    yield "reported, of those with a correlation above .95 themselves", direct
    yield "pairs reported", m["pairs reported"]
    yield "of them within a group (precision)", part(m["in one group"], m["pairs reported"])
    ours = part(m["of them in one group"], m["pairs in our groups"])
    yield "pairs within groups of `find_leaks` that are within a group", ours
    yield "groups of two or more that are found whole", part(m["groups whole"], m["groups"])
    yield "groups of which at least two images are linked", part(m["groups touched"], m["groups"])


def part(k, n):
    return f"{k:,} of {n:,} ({100 * k / n:.1f}%)"


def page():
    m, b = read("near_duplicates"), read("bench_leaks")
    p, c = m["phantoms"], m["crops"]
    rows = [[k, share(d)] for k, d in (m["by change"] | m["by kind"]).items()]
    grid = [
        [
            r["likely"],
            r["least"],
            f"{100 * r['found']:.2f}%",
            r["false"],
            f"{100 * r['crops']:.1f}%",
        ]
        + [r["mri in groups"], r["mri others"]]
        for r in m["grid"]
    ]
    head = ["amplitudes", "pixels", "copies found", "false pairs", "crops found"]
    head += ["MRI: pairs within groups", "across groups"]
    left = [
        [k, r["pairs"], part(r["test images"], r["all test images"]), r["train images"]]
        for k, r in m["leaks left"].items()
    ]
    times = [
        [f"{t['files']:,}", t["pixels"], f"{t['reading']} ({t['reading, CPU']})"]
        + [f"{t['comparing']} ({t['comparing, CPU']})", f"{t['MB']:.0f} MB"]
        for t in b["times"]
    ]
    return fill(
        TEXT,
        **p,
        command=m["command"],
        recall=f"{100 * p['found'] / p['copies']:.2f}",
        bound=bound(p),
        crops=c["found"],
        all_crops=c["copies"],
        rows=table(["change, kind", "copies found"], rows),
        **m["thresholds"],
        grid=table(head, grid),
        n=m["brain MRI"]["images"],
        mri=table(["", "pairs, groups"], agreement(m["brain MRI"])),
        left=table(["amplitudes", "pairs", "test images with one", "train images"], left),
    ) + fill(
        TIMES,
        command=b["command"],
        rows=table(["files", "side", "reading, s (CPU)", "comparing, s (CPU)", "memory"], times),
        threads=b["times"][0]["threads"],
    )
