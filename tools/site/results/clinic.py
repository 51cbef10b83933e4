"""The part of docs/results.md on what an answer costs, from docs/results/clinic.json, and its
picture."""

from pathlib import Path

from results.shared import fill, pct, read, RESULTS, table

TEXT = """
## What an answer costs

`{b[command]}`

A teacher and its students, distilled on made-up images of {b[size]} pixels, asked for one image at
a time on one thread: accuracy on {images:,} other images, bytes on the disk, milliseconds from
bytes to probabilities (median of {b[rounds]} rounds in which the ways take their turn, and the
quarters around it). The browser is Chromium with WebAssembly on the same machine; its time includes
squeezing the image, and its accuracy is that of the graph, which it runs. PyTorch
{b[versions][torch]}, ONNX Runtime {b[versions][onnxruntime]}; {b[cores]} cores, load
{b[load_average][0]:.1f}.{missing}

{table}

![Accuracy against milliseconds, a mark for each network and way, larger for larger files](images/clinic_cost.svg)
"""
WAYS = {  # -> marker
    "PyTorch": "o",
    "torch.compile": "s",
    "ONNX Runtime": "^",
    "ONNX Runtime, int8": "v",
    "OpenVINO": "D",
    "browser": "*",
}
# Okabe and Ito's; they are told apart on white and on black
COLOURS = ("#56b4e9", "#d55e00", "#009e73")


def page():
    if not (RESULTS / "clinic.json").is_file():
        return ""
    b = read("clinic")
    head = ["network", "parameters", "way", "accuracy", "kB", "ms", "quarters"]
    missing = sorted(set(WAYS) - {r["way"] for r in b["rows"]})
    return fill(
        TEXT,
        b=b,
        images=b["test images"],
        missing=f" Not measured: {', '.join(missing)}." if missing else "",
        table=table(head, map(row, b["rows"])),
    )


def row(r):
    low, high = (f"{v:.2f}" for v in r["quarters"])
    ms, size = f"{r['ms']:.2f}", f"{r['kB']:.0f}"
    parameters = f"{r['parameters']:,}"
    return [r["network"], parameters, r["way"], pct(r["accuracy"]), size, ms, f"{low}, {high}"]


def draw(file: Path):
    "The picture, in colours for a light and a dark page."
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator

    grey, rows = "#888888", read("clinic")["rows"]
    of = {"svg.hashsalt": "kdmedlearn", "text.color": grey, "axes.labelcolor": grey}
    of |= {"axes.edgecolor": grey, "xtick.color": grey, "ytick.color": grey, "svg.fonttype": "none"}
    names = list(dict.fromkeys(r["network"] for r in rows))
    with plt.rc_context(of):
        fig, ax = plt.subplots(figsize=(8, 4), layout="constrained")
        for r in rows:
            colour = COLOURS[names.index(r["network"])]
            size = 5 + r["kB"] ** 0.5 / 3
            how = dict(marker=WAYS[r["way"]], color=colour, ms=size, ls="", alpha=0.8)
            ax.plot(r["ms"], 100 * r["accuracy"], **how)
        for colour, n in zip(COLOURS, names):
            own = [r for r in rows if r["network"] == n]
            size = f"{n}: {own[0]['parameters']:,} parameters"
            ax.plot([], [], "o", color=colour, label=size)
        for way in dict.fromkeys(r["way"] for r in rows):
            ax.plot([], [], WAYS[way], color=grey, label=way)
        ax.margins(y=0.15)
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter("")
        ax.set_xlabel("milliseconds for an image, one thread")
        ax.set_ylabel("accuracy in %")
        how = dict(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
        ax.legend(title="a larger mark is a larger file", **how)
        fig.savefig(file, transparent=True, metadata={"Date": None})
        plt.close(fig)
