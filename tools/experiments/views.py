"""Images in fixed random views, small enough to keep, and a teacher that has answered to every one
of them. For experiments that train many students with a teacher on a CPU."""

import numpy as np
import torch
from fastai.data.core import DataLoaders, TfmdDL
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d

from kdmedlearn import Teacher
from kdmedlearn.data.unlabelled import Compared
from memo import keys

PROBES = 9  # changed images, by which `distill` finds the places of a map


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
    """A teacher that has answered beforehand: reads its logits from memory, and its maps, which
    pass through its layer `map`."""

    def __init__(self, x, logits, maps=None):
        super().__init__()
        self.logits, names = logits, [k for b in x.split(256) for k in keys(pixels(b))]
        self.table = {k: i for i, k in enumerate(names)}
        self.map, self.maps, self.strange = nn.Identity(), maps, set()

    def forward(self, x):
        names = keys(x)
        if self.maps is None:
            return self.logits[[self.table[k] for k in names]].float()
        i = torch.tensor([self.table.get(k, 0) for k in names])
        new = [k not in self.table for k in names]
        self.strange |= {k for k, n in zip(names, new) if n}
        if len(self.strange) > PROBES:
            raise KeyError("images that the teacher has not answered")
        maps = self.maps[i].float()
        if any(new):  # where the places of a map are is asked with changed images: where they were
            small = adaptive_avg_pool2d(x[new], maps.shape[2:]).mean(1, keepdim=True)
            maps[new] = small.expand_as(maps[new])
        self.map(maps)
        return self.logits[i].float()


# name -> dict(x=(V, N, C, H, W), z=(V, N, ...), and perhaps maps=(V, N, D, h, w))
def memory(parts):
    "The teacher that has answered to all `parts`."
    whole = lambda k: torch.cat([p[k].flatten(0, 1) for p in parts.values()])
    return Teacher(Answers(*map(whole, [k for k in ("x", "z", "maps") if k in parts["labelled"]])))


def loaders(parts, bs):
    "fastai DataLoaders over the views with a target; to validate, the first view."
    own, valid = parts["labelled"], parts["valid"]
    views = Views(own["x"], own["y"])
    full = len(views) >= bs  # fewer images than that are one batch
    out = DataLoaders(
        TfmdDL(views, bs=bs, shuffle=True, drop_last=full, num_workers=0),
        TfmdDL(Views(valid["x"], valid["y"]), bs=bs, num_workers=0),
    )
    out.n_inp = 1
    return out
