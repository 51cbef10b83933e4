"""The part of docs/results.md on the widgets, from docs/results/bench_widgets.json and
bench_tuning.json."""

from results.shared import fill, read

TEXT = """
## The widgets' speed

`{w[command]}`

The temperature widget with {w[images]} images in a real JupyterLab: from a key press on the slider
to the changed figure {w[median_ms]:.0f} ms (median of {w[moves]} moves, at most {w[max_ms]:.0f}). A
move carries {kilobytes:.0f} kB of figure. The machine with {w[cores]} cores had a load of
{w[load_average][0]:.1f} and was not idle, so this is an upper bound.

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
        kilobytes=w["figure_bytes"] / 1000,
        rounds=len(b["seconds without"]),
        beside=seconds(b["seconds with the bench"]),
        alone=seconds(b["seconds without"]),
    )
