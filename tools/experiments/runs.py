"""One file for each finished training, so that an interrupted experiment goes on where it stopped
and two processes may share the work. `restore` brings the trainings of a results file back into an
empty CACHE: what is published is not trained again."""

import argparse, json, os
from hashlib import sha256
from pathlib import Path


def one_run(folder, key: dict, train) -> dict:
    """The result of `train()`, a dict of numbers, for the settings `key`: read from `folder` where
    it was kept, else computed and kept."""
    file = file_of(folder, key)
    if file.is_file():
        return json.loads(file.read_text())
    for row in kept_runs(folder):
        if key.items() <= row.items():  # restored: its file has another name
            return row
    return keep(file, key | train())


def file_of(folder, key: dict) -> Path:
    text = json.dumps(key, sort_keys=True)
    return Path(folder) / f"{sha256(text.encode()).hexdigest()[:16]}.json"


def keep(file: Path, row: dict) -> dict:
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(row))
    os.replace(part, file)
    return row


def kept_runs(folder) -> list:
    "All results in `folder`."
    return [json.loads(f.read_text()) for f in sorted(Path(folder).glob("*.json"))]


def restore(results, folder):
    "The trainings of a results file, put into `folder` unless they are there."
    old = json.loads(Path(results).read_text())
    here = kept_runs(folder)
    for row in (r for rows in old.values() if isinstance(rows, list) for r in rows):
        if row not in here:
            keep(file_of(folder, row), row)


def asked(
    doc, arms, draws, what, verbs=("tune", "run", "collect", "restore")
) -> argparse.Namespace:
    "The arguments of an experiment over draws of the labels; `doc` is its docstring."
    p = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("what", choices=verbs)
    p.add_argument("data", type=Path)
    p.add_argument("cache", type=Path)
    p.add_argument("--draws", type=int, nargs="+", default=list(range(draws)))
    p.add_argument("--share", type=float, default=0.1, help=f"of the {what}")
    p.add_argument("--arms", nargs="+", choices=arms, help="some of them")
    p.add_argument("--out")
    return p.parse_args()
