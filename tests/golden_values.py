"""Reference values of the released code, and the formula that fills weights and inputs, so that no
weights are stored."""

import json
import math
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent / "golden"


def golden(name):
    return json.loads((HERE / f"{name}.json").read_text()), np.load(HERE / f"{name}.npz")


def filled(keys):
    """The state dict with the released `keys` [(name, shape), ...]: entry i has sin(0.37 k + i) at
    flat index k, scaled by its kind."""
    state = {}
    for i, (name, shape) in enumerate(keys):
        if name.endswith("num_batches_tracked"):
            state[name] = torch.zeros(shape, dtype=torch.long)
            continue
        v = np.sin(0.37 * np.arange(math.prod(shape)) + i)
        if name.endswith("running_var"):
            v = 0.5 + np.abs(v)
        elif name.endswith("running_mean"):
            v = 0.1 * v
        elif len(shape) == 1 and name.endswith("weight"):
            v = 1 + 0.1 * v
        elif len(shape) >= 2:
            v = v / math.sqrt(math.prod(shape[1:]))
        else:
            v = 0.2 * v
        state[name] = torch.tensor(v).reshape(shape)
    return state


def filled_input(shape):
    k = np.arange(math.prod(shape), dtype=float)
    return torch.tensor(
        np.sin(0.011 * k) + 0.5 * np.cos((0.0037 * k**2) % 6.283185307179586)
    ).reshape(shape)


def close(ours, reference):
    return (ours.detach() - torch.as_tensor(reference)).abs().max().item() < 1e-9
