"""Small models and random data for tests: a run takes well under a second."""

import hashlib

import torch
import torch.nn.functional as F
from fastai.data.core import DataLoaders
from torch import nn

from kdmedlearn.core.method import layer_pairs, Method
from kdmedlearn.core.parameters import weight_at


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


def fingerprint(m):
    return hashlib.sha256(
        b"".join(v.detach().cpu().numpy().tobytes() for v in m.state_dict().values())
    ).hexdigest()


class Hint(Method):
    "A method with layers on both sides and a projection made when shapes are known."

    def __init__(self, pairs, weight=1.0):
        super().__init__()
        self.pairs, self.weight, self.r, self.seen = layer_pairs(pairs), weight, nn.ModuleList(), []
        self.student_layers, self.teacher_layers = zip(*self.pairs)

    def weights(self, pct=0.0):
        return {"task": 1.0, "hint": weight_at(self.weight, pct, "weight")}

    def build(self, p):
        if not len(self.r):
            self.r.extend(
                nn.Conv2d(p.student.features[s].shape[1], p.teachers[0].features[t].shape[1], 1)
                for s, t in self.pairs
            )

    def terms(self, p):
        self.seen.append((list(p.student.features), [list(t.features) for t in p.teachers]))
        return {
            "hint": sum(
                F.mse_loss(r(p.student.features[s]), p.teachers[0].features[t])
                for r, (s, t) in zip(self.r, self.pairs)
            )
        }
