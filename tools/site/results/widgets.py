"""The part of docs/results.md on the widgets, from docs/results/bench_widgets.json and
bench_tuning.json."""

from results.shared import fill, read

TEXT = """
## The widgets' speed

`{w[command]}`

The temperature widget with {w[images]} images: from a key press on the slider to the changed figure
{w[median_ms]:.0f} ms in a real JupyterLab (median of {w[moves]} moves, at most {w[max_ms]:.0f}) and
{w[page_median_ms]:.0f} ms in a page without a kernel (at most {w[page_max_ms]:.0f}). The page is
{kilobytes:.0f} kB, program, numbers and images. The machine with {w[cores]} cores had a load of
{w[load_average][0]:.1f}, so this is an upper bound.

`{b[command]}`

Training beside an open tuning bench runs at {b[speed with / without]:.3f} times the speed of
training alone, the median of {rounds} rounds in which both take their turn ({beside} against
{alone}): drawing costs the rest.
"""


def page():
    w, b = read("bench_widgets"), read("bench_tuning")
    seconds = lambda v: f"{min(v):.1f} to {max(v):.1f} s"
    return fill(
        TEXT,
        w=w,
        b=b,
        kilobytes=w["page_bytes"] / 1000,
        rounds=len(b["seconds without"]),
        beside=seconds(b["seconds with the bench"]),
        alone=seconds(b["seconds without"]),
    )
