"""Small models and random data for tests: a run takes well under a second."""

import hashlib
from collections import namedtuple

import numpy as np
import torch
import torch.nn.functional as F
from fastai.data.core import DataLoaders
from PIL import Image
from torch import nn

from kdmedlearn.core.method import layer_pairs, Method
from kdmedlearn.core.outputs import Layers
from kdmedlearn.core.parameters import Hyperparameter, Weight, weight_at
from kdmedlearn.core.teacher import as_norm


def net(width=4, num_classes=3):
    "Conv, batch norm, ReLU, head; layers conv, norm, act, head."
    m = nn.Sequential()
    m.conv, m.norm, m.act = nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()
    m.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))
    return m


class Items(list):
    "A list as fastai's datasets are: it can be emptied for export."

    def new_empty(self):
        return Items()


def data(n=24, bs=8, num_classes=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    items = [(torch.randn(3, 8, 8, generator=g), torch.tensor(i % num_classes)) for i in range(n)]
    return DataLoaders.from_dsets(
        Items(items[: 2 * n // 3]), Items(items[2 * n // 3 :]), bs=bs, device="cpu", num_workers=0
    )


def folder_set(root, classes=("ring", "disc"), n=12, size=32, test=True):
    "Class folders under train/ and test/ with two kinds of made-up images."
    yy, xx = np.mgrid[:size, :size] - size / 2
    rng = np.random.default_rng(0)
    for split, m in [("train", n), ("test", n // 2)][: 1 + test]:
        for k, c in enumerate(classes):
            (root / split / c).mkdir(parents=True)
            for i in range(m):
                r = np.hypot(yy + rng.normal(), xx + rng.normal())
                a = np.where((r < 9) & (r > 6 * (1 - k)), 200, 60) + rng.normal(0, 8, (size, size))
                Image.fromarray(a.clip(0, 255).astype("uint8")).save(root / split / c / f"{i}.png")
    return root


def fingerprint(m):
    return hashlib.sha256(
        b"".join(v.detach().cpu().numpy().tobytes() for v in m.state_dict().values())
    ).hexdigest()


class Hint(Method):
    "A method with layers on both sides and a projection made when shapes are known."

    pairs = Hyperparameter(None)
    weight = Weight(1.0)

    def finish(self):
        self.seen = []

    def weights(self, pct=0.0):
        return {"task": 1.0, "hint": self.weight_of("weight", pct)}

    def reads(self, networks):
        s, t = zip(*layer_pairs(self.pairs))
        return Layers(s, (t,) * (len(networks) - 1))

    def setup(self, p):
        maps = zip(p.student.features.values(), p.teachers[0].features.values())
        return nn.ModuleList(nn.Conv2d(s.shape[1], t.shape[1], 1) for s, t in maps)

    def terms(self, p):
        self.seen.append((list(p.student.features), [list(t.features) for t in p.teachers]))
        own, others = p.student.features, p.teachers[0].features
        each = zip(p.state, layer_pairs(self.pairs))
        return {"hint": sum(F.mse_loss(r(own[s]), others[t]) for r, (s, t) in each)}


class Wrapped(nn.Module):
    "A network whose logits, or maps, lie in something else."

    def __init__(self, net, how):
        super().__init__()
        self.net, self.how = net, how

    def forward(self, x):
        z = self.net(x)
        return {
            "plain": lambda: z,
            "logits": lambda: {"logits": z, "hidden": x},
            "out": lambda: {"out": z, "aux": 0 * z},
            "one": lambda: {"answer": z},
            "object": lambda: type("ModelOutput", (), {"logits": z, "loss": None})(),
            "named": lambda: namedtuple("Answer", "logits aux")(z, 0 * z),
            "two": lambda: {"a": z, "b": 2 * z},
            "pair": lambda: (z, x.mean((2, 3))),
        }[self.how]()


class OtherPixels(nn.Module):
    "Images normalised by one (mean, std) as they are by another."

    def __init__(self, now, then):
        super().__init__()
        self.norms = (*as_norm(*now), *as_norm(*then))

    def forward(self, x):
        mean, std, other, spread = self.norms
        return (x * std + mean - other) / spread
