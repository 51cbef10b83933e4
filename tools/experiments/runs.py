"""One file for each finished training, so that an interrupted experiment goes on where it stopped
and two processes may share the work."""

import json, os
from hashlib import sha256
from pathlib import Path


def one_run(folder, key: dict, train) -> dict:
    """The result of `train()`, a dict of numbers, for the settings `key`: read from `folder` where
    it was kept, else computed and kept."""
    text = json.dumps(key, sort_keys=True)
    file = Path(folder) / f"{sha256(text.encode()).hexdigest()[:16]}.json"
    if file.is_file():
        return json.loads(file.read_text())
    file.parent.mkdir(parents=True, exist_ok=True)
    got = key | train()
    part = file.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(got))
    os.replace(part, file)
    return got


def kept_runs(folder) -> list:
    "All results in `folder`."
    return [json.loads(f.read_text()) for f in sorted(Path(folder).glob("*.json"))]
