"""Frozen teachers that have answered beforehand: fixed views of the images, and what each teacher
says of every view.

For experiments that train many students with the same teachers on a CPU. Students see one of a few
fixed random views of an image instead of a new one each time; what a teacher says of a view is
computed once and read from memory afterwards.
"""

import numpy as np
import torch
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from torch import nn
from kdmedlearn.core.outputs import plain
from kdmedlearn.core.taps import last_map, taps
from kdmedlearn.core.teacher import Teacher
from kdmedlearn.methods.feature import as_map


class Views:
    "N images in V fixed views each, as a dataset of N items: every access draws a view."

    def __init__(self, xs, ys, group):
        self.xs, self.ys, self.group = xs, ys, group  # (V, N, C, H, W), (N,), (N,)

    def __len__(self):
        return len(self.ys)

    def __getitem__(self, i):
        return self.xs[np.random.randint(len(self.xs)), i], self.ys[i]


def keys(x):
    "A whole number for each image of a batch, the same wherever the image turns up."
    bits = x.contiguous().view(torch.int32).flatten(1).long()
    r = torch.randint(-(2**62), 2**62, bits.shape[1:], generator=torch.Generator().manual_seed(0))
    return (bits * r).sum(1).tolist()


class Memo(nn.Module):
    """A frozen teacher that has answered every view beforehand: reads its logits and its last map
    from memory."""

    def __init__(self, teacher: Teacher, views, norm):
        super().__init__()
        self.map, self.table, outs, maps, n = nn.Identity(), {}, [], [], 0
        teacher.ready("cpu")
        self.name = name = last_map(teacher.model, *teacher.prepare((views.xs[0, :2],), norm))
        flat = views.xs.flatten(0, 1)
        for x in flat.split(256):
            seen = teacher.see((x,), norm, [name])
            outs.append(seen.out)
            maps.append(as_map(seen.features[name]))
            for k in keys(x):
                self.table.setdefault(k, n)
                n += 1  # two views of an image may be equal
        self.outs, self.maps = torch.cat(outs), torch.cat(maps)
        self.own = teacher.model

    def forward(self, x):
        i = [self.table.get(k) for k in keys(x)]
        if None in i:  # the trial before training looks at validation images
            with taps(self.own, [self.name]) as f:
                out = self.own(x)
            self.map(as_map(f[self.name]))
            return out
        self.map(self.maps[i])
        return self.outs[i]


def loaders(views, dls, bs):
    "fastai DataLoaders over views, with a few validation images of `dls`."
    # nothing is chosen by them: only the trial before training looks
    few = [tuple(map(plain, o)) for o in zip(*next(iter(dls.valid)))][:16]
    out = DataLoaders(
        DataLoader(views, bs=bs, shuffle=True, drop_last=len(views) >= bs), DataLoader(few, bs=16)
    )
    out.vocab, out.n_inp = getattr(dls, "vocab", None), 1
    return out
