"""Images in fixed random views, small enough to keep, and a teacher that has answered to every one
of them. For experiments that train many students with a teacher on a CPU."""

import numpy as np
import torch
from fastai.data.core import DataLoaders, TfmdDL
from torch import nn

from kdmedlearn import Teacher
from kdmedlearn.data.unlabelled import Compared
from memo import keys


def as_bytes(x):
    "Pixels in [0, 1] as uint8."
    return (x.clamp(0, 1) * 255).round().to(torch.uint8)


def pixels(x):
    return x.float() / 255


class Views:
    "Images in V fixed views, each with its target: every access draws a view."

    def __init__(self, x, y=None):
        self.x, self.y = x, y  # (V, N, C, H, W) uint8; (N,) classes or (V, N, 1, H, W) masks

    def __len__(self):
        return self.x.shape[1]

    def __getitem__(self, i):
        v = np.random.randint(len(self.x))
        x = pixels(self.x[v, i])
        if self.y is None:
            return (x,)
        return x, (self.y[v, i].float() if self.y.ndim > 1 else self.y[i])


class Beside(Compared):
    "`Views` without labels, compared before."

    def __init__(self, views):
        self.views = views

    def __len__(self):
        return len(self.views)

    def __getitem__(self, i):
        return self.views[i]


class Answers(nn.Module):
    "A teacher that has answered beforehand: reads its logits from memory."

    def __init__(self, x, logits):
        super().__init__()
        self.logits, names = logits, [k for b in x.split(256) for k in keys(pixels(b))]
        self.table = {k: i for i, k in enumerate(names)}

    def forward(self, x):
        return self.logits[[self.table[k] for k in keys(x)]].float()


def memory(parts):  # name -> dict(x=(V, N, C, H, W), z=(V, N, ...))
    "The teacher that has answered to all `parts`."
    x = torch.cat([p["x"].flatten(0, 1) for p in parts.values()])
    return Teacher(Answers(x, torch.cat([p["z"].flatten(0, 1) for p in parts.values()])))


def loaders(parts, bs):
    "fastai DataLoaders over the views with a target; to validate, the first view."
    own, valid = parts["labelled"], parts["valid"]
    out = DataLoaders(
        TfmdDL(Views(own["x"], own["y"]), bs=bs, shuffle=True, drop_last=True, num_workers=0),
        TfmdDL(Views(valid["x"], valid["y"]), bs=bs, num_workers=0),
    )
    out.n_inp = 1
    return out
