"""Try all networks of tests/zoo_members.txt as student and as teacher, and write the counts down.

    python tools/zoo.py             every network whose library is installed
    python tools/zoo.py timm smp    those of some libraries alone

Writes docs/results/zoo.json: for each network the layer that was chosen and what was refused, and
the counts. Networks of libraries that are not installed stay as they were.
"""

import json
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import torch

from zoo import members, there, try_member

FILE = ROOT / "docs" / "results" / "zoo.json"
PACKAGES = ("torch", "timm", "torchvision", "segmentation-models-pytorch", "monai", "transformers")


def row_of(member) -> dict:
    "What became of one network."
    start = time.process_time()
    try:
        found = try_member(member)
    except AssertionError as e:
        found = {"wrong": str(e)}
    layers = {k.split()[0]: found.pop(k) for k in list(found) if k.endswith("layer")}
    failed = {k: v for k, v in found.items() if v != "worked"}
    row = {"size": member.size, "layers": layers, "worked": len(found) - len(failed)}
    return row | {"failed": failed, "seconds": round(time.process_time() - start, 1)}


def counts(rows: dict) -> dict:
    "Networks and trials, worked and refused."
    failed = [v for r in rows.values() for v in r["failed"].values()]
    refused = [v for v in failed if v.startswith("refused")]
    return {
        "networks": len(rows),
        "networks without a refusal": sum(not r["failed"] for r in rows.values()),
        "trials": sum(r["worked"] + len(r["failed"]) for r in rows.values()),
        "worked": sum(r["worked"] for r in rows.values()),
        "refused": len(refused),
        "bare or wrong": len(failed) - len(refused),
    }


def versions() -> dict:
    "Of the libraries that are installed."
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name).split("+")[0]
        except ImportError:
            continue
    return found


def main(sources):
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    old = json.loads(FILE.read_text()) if FILE.exists() else {"networks": {}, "versions": {}}
    known = {f"{m.source} {m.name}" for m in members()}
    rows = {k: v for k, v in old["networks"].items() if k in known}
    for m in members():
        if there(m.source) and (not sources or m.source in sources):
            rows[f"{m.source} {m.name}"] = row_of(m)
            print(f"{m.source} {m.name}", rows[f"{m.source} {m.name}"], flush=True)
    every = {"counts": counts(rows), "versions": old["versions"] | versions()}
    FILE.write_text(json.dumps(every | {"networks": dict(sorted(rows.items()))}, indent=1) + "\n")
    print(json.dumps(every["counts"], indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
