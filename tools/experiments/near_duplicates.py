"""How well are near duplicates found: made-up copies of phantoms, and brain MRI; and how fast.

    python tools/experiments/near_duplicates.py --data BRAIN_MRI --out docs/results/near_duplicates.json
    python tools/experiments/near_duplicates.py --time 10000 --out docs/results/bench_leaks.json

The thresholds are chosen on one set of phantoms and on the groups of brain MRI with an even number;
the tables are of other phantoms and of the groups with an odd number. --time N measures N files
instead. --pairs FILE.csv writes the pairs of brain MRI on which the finder and the groups disagree,
to be looked at.
"""

import argparse, resource, subprocess, sys, tempfile, time, warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch

warnings.filterwarnings("ignore", category=FutureWarning)
from PIL import Image
from kdmedlearn.data.leaks import (
    altered,
    CHANGES,
    connected,
    find_leaks,
    LEAST,
    LIKELY,
    near_pairs,
    thumb,
    thumbs,
)
from kdmedlearn.data.phantom import phantom
from kdmedlearn.experiments.report import write_json

p = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
p.add_argument("--data", type=Path, help="folder of brain MRI, with manifest.csv")
p.add_argument("--out")
p.add_argument("--n", type=int, default=800, help="phantoms of each kind")
p.add_argument("--time", type=int, default=0, metavar="N")
p.add_argument("--pairs")
p.add_argument("--clock", type=Path, help=argparse.SUPPRESS)
a = p.parse_args()

SAME = [c for c in CHANGES if c != "cropped"]
KINDS = {  # name: size, difficulty, grey
    "64 px": (64, 0.5, False),
    "96 px": (96, 0.3, False),
    "64 px, grey": (64, 0.7, True),
    "160 px, grey": (160, 0.5, True),
}
LIKELYS, LEASTS = (0.65, 0.7, 0.75, 0.8, 0.85), (0.85, 0.9, 0.93)  # tried


# --- phantoms
def drawn(kind, seed):
    "Phantoms of a kind; each kind has a seed of its own, for equal seeds are equal scenes."
    size, difficulty, grey = KINDS[kind]
    seed += list(KINDS).index(kind)
    for x in phantom(a.n, size=size, seed=seed, difficulty=difficulty)[0]:
        yield np.array(Image.fromarray(x).convert("L")) if grey else x


def exam(seed):
    "Thumbnails of originals, of one copy of each, and what was done to it: one change or two."
    rng, originals, copies, what, kinds = np.random.default_rng(seed), [], [], [], []
    for kind in KINDS:
        for i, x in enumerate(drawn(kind, seed)):
            two = tuple(rng.choice(SAME, 1 + i % 2, replace=False))
            originals.append(thumb(x))
            copies.append(thumb(altered(x, *two, seed=int(rng.integers(2**31)))))
            what.append(two)
            kinds.append(kind)
    return np.stack(originals + copies), what, kinds


def crops(seed):
    "The same with slight crops alone."
    xs = list(drawn("96 px", seed))
    return np.stack(
        [thumb(x) for x in xs] + [thumb(altered(x, "cropped", seed=i)) for i, x in enumerate(xs)]
    )


def graded(x, near):
    "Which copies were found, and how many pairs are false."
    n = len(x) // 2
    true = (near.b - near.a == n).to_numpy()
    found = np.zeros(n, bool)
    found[near.a[true]] = True
    return found, int((~true).sum())


def numbers(x, near):
    found, false = graded(x, near)
    return {
        "images": len(x),
        "copies": len(found),
        "found": int(found.sum()),
        "pairs": len(near),
        "false": false,
    }


def by_change(what, found):
    rows = {c: [f for w, f in zip(what, found) if w == (c,)] for c in SAME}
    rows["two changes"] = [f for w, f in zip(what, found) if len(w) == 2]
    return {c: {"copies": len(f), "found": int(sum(f))} for c, f in rows.items()}


# --- brain MRI
def mri():
    m = pd.read_csv(a.data / "manifest.csv", dtype={"file": str})
    m["path"] = [a.data / s / c / f for s, c, f in zip(m.split, m["class"], m.file)]
    return m


def in_group(group):
    "All pairs of images of one group."
    i, j = np.triu_indices(len(group), 1)
    same = group[i] == group[j]
    return pd.DataFrame({"a": i[same], "b": j[same]})


def plain_correlation(m):
    "The larger of the correlations of 64 x 64 thumbnails in the four ways of mirroring."
    read = lambda f: np.asarray(Image.open(f).convert("L").resize((64, 64), 2), np.float32)
    x = torch.tensor(np.stack([read(f) for f in m.path]))
    unit = lambda v: torch.nn.functional.normalize((v - v.mean((1, 2), keepdim=True)).flatten(1))
    ways = [unit(x.flip(d)) for d in ((), (1,), (2,), (1, 2))]
    ways = [w.numpy() for w in ways]
    return lambda i, j: np.max([(ways[0][i] * w[j]).sum(1) for w in ways], 0)


def against_groups(m, near):
    "Pairs and groups that were found, against the column near_dup_group."
    group = m.near_dup_group.to_numpy()
    truth = in_group(group)
    hit = group[near.a] == group[near.b]
    corr = plain_correlation(m)
    direct = corr(truth.a.to_numpy(), truth.b.to_numpy()) > 0.95
    found = set(zip(near.a, near.b))
    got = np.array([p in found for p in zip(truth.a, truth.b)])
    ours = connected(len(m), zip(near.a, near.b))
    large = [
        np.flatnonzero(group == g) for g, n in m.near_dup_group.value_counts().items() if n > 1
    ]
    linked = np.array([ours[i] == ours[j] for i, j in zip(truth.a, truth.b)])
    comp = in_group(ours)
    return {
        "images": len(m),
        "pairs in groups": len(truth),
        "of them found": int(got.sum()),
        "of them in one of our groups": int(linked.sum()),
        "direct pairs": int(direct.sum()),
        "direct pairs found": int(got[direct].sum()),
        "pairs reported": len(near),
        "in one group": int(hit.sum()),
        "others": int((~hit).sum()),
        "others, correlation above .95": int(
            (corr(*near[~hit][["a", "b"]].to_numpy().T) > 0.95).sum()
        ),
        "pairs in our groups": len(comp),
        "of them in one group": int((group[comp.a] == group[comp.b]).sum()),
        "groups": len(large),
        "groups whole": sum(len(set(ours[g])) == 1 for g in large),
        "groups touched": sum(len(set(ours[g])) < len(g) for g in large),
    }


def halves(m, x):
    "Rows and thumbnails of the groups with an even and with an odd number."
    for odd in (0, 1):
        at = np.flatnonzero(m.near_dup_group % 2 == odd)
        yield m.iloc[at].reset_index(drop=True), x[at]


def leaks_left(m, x):
    "What is left between the splits of the cleaned copy; at the threshold, and at a high one."
    out = {}
    for likely in (LIKELY, 0.9):
        found = find_leaks(list(m.path), list(m.split), likely=likely, ready=x)
        p = found.pairs
        across = p[p.split_a != p.split_b]
        out[f"{likely:g}"] = {
            "pairs": len(across),
            "test images": len(found.images("test", "train")),
            "all test images": int((m.split == "test").sum()),
            "train images": len(found.images("train", "test")),
        }
    return out


# --- time
def clock(folder):
    "Prints seconds and the growth of the peak of memory for the files in `folder`."
    files = sorted(folder.iterdir())
    find_leaks(files[:64])
    peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    now = lambda: np.array([time.perf_counter(), time.process_time()])
    was, start = peak(), now()
    x = thumbs(files)
    middle = now()
    near_pairs(x)
    print(*(middle - start), *(now() - middle), peak() - was, torch.get_num_threads())


def picture(rng, size):
    "Random blobs with some noise: as costly to decode as a photograph, and never twice the same."
    blobs = Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)).resize(
        (size, size), 3
    )
    return Image.fromarray(
        (blobs + rng.normal(0, 6, (size, size, 1))).clip(0, 255).astype(np.uint8)
    )


def timed(n):
    rng = np.random.default_rng(0)
    for size, count in ((160, n // 4), (160, n), (512, n)):
        with tempfile.TemporaryDirectory() as d:
            for i in range(count):
                picture(rng, size).save(Path(d) / f"{i:06}.jpg", quality=90)
            run = [sys.executable, __file__, "--clock", d]
            out = subprocess.run(run, check=True, capture_output=True, text=True).stdout
        values = [round(float(v), 1) for v in out.split()]
        names = ("reading", "reading, CPU", "comparing", "comparing, CPU", "MB", "threads")
        yield {"files": count, "pixels": size} | dict(zip(names, values))


if a.clock:
    clock(a.clock)
    sys.exit()

if a.time:
    command = f"python tools/experiments/near_duplicates.py --time {a.time}"
    res = {"command": command, "times": list(timed(a.time))}
    print(res)
    if a.out:
        write_json(a.out, res)
    sys.exit()

command = f"python tools/experiments/near_duplicates.py --data BRAIN_MRI --n {a.n}"
res = {"command": command}
res["thresholds"] = {"likely": LIKELY, "least": LEAST}
choose, _, _ = exam(seed=1)
choose_crops = crops(seed=11)
x, what, kinds = exam(seed=101)
if a.data:
    m = mri()
    mx = thumbs(m.path)
    (even, even_x), (odd, odd_x) = halves(m, mx)

res["grid"] = []
for likely in LIKELYS:
    near, cropped = (near_pairs(v, likely, LEASTS[0]) for v in (choose, choose_crops))
    near_even = near_pairs(even_x, likely, LEASTS[0]) if a.data else None
    for least in LEASTS:
        found, false = graded(choose, near[near.correlation >= least])
        row = {"likely": likely, "least": least, "found": float(found.mean()), "false": false}
        row["crops"] = float(graded(choose_crops, cropped[cropped.correlation >= least])[0].mean())
        if a.data:
            pairs = near_even[near_even.correlation >= least][["a", "b"]].to_numpy()
            hit = even.near_dup_group.to_numpy()[pairs]
            row["mri in groups"] = int((hit[:, 0] == hit[:, 1]).sum())
            row["mri others"] = len(pairs) - row["mri in groups"]
        res["grid"].append(row)
        print(row, flush=True)

near = near_pairs(x)
found, false = graded(x, near)
res["phantoms"] = numbers(x, near)
res["by change"] = by_change(what, found)
res["by kind"] = {
    k: {"copies": kinds.count(k), "found": int(found[np.array(kinds) == k].sum())} for k in KINDS
}
c = crops(seed=201)
res["crops"] = numbers(c, near_pairs(c))
print({k: res[k] for k in ("phantoms", "by change", "by kind", "crops")}, flush=True)

if a.data:
    res["brain MRI"] = against_groups(odd, near_pairs(odd_x))
    res["leaks left"] = leaks_left(m, mx)
    print(res["brain MRI"], res["leaks left"], flush=True)
    if a.pairs:
        near = near_pairs(mx)
        out = near.assign(
            **{
                f"{c}_{s}": m[c].to_numpy()[near[s]]
                for c in ("path", "near_dup_group")
                for s in "ab"
            }
        )
        out[out.near_dup_group_a != out.near_dup_group_b].to_csv(a.pairs, index=False)
if a.out:
    write_json(a.out, res)
