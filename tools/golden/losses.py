"""Values and gradients of losses in other packages, on small random inputs, for tests/golden.

    python tools/golden/losses.py tests/golden/losses.json

Run it where these are installed: torchdistill==1.1.5, fasterai==0.4.1, nvidia-modelopt. None of
them is needed by the package or by its tests, which read the file. Inputs come from the formula of
`inputs`, so the file holds only what came out.
"""

import importlib.util
import inspect
import json
import sys
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

T64 = dict(dtype=torch.float64)


def inputs(*shape, seed):
    "Numbers that look random, without a generator that a version of PyTorch may change."
    n = torch.Size(shape).numel()
    k = torch.arange(1, n + 1, **T64) + 1000 * seed
    return (3 * torch.sin(k * k * 0.7371 + seed)).reshape(shape)


def source(package, file):
    "A file of a package as a module of its own: the package's other imports are not needed."
    folder = Path(importlib.util.find_spec(package).submodule_search_locations[0])
    spec = importlib.util.spec_from_file_location(f"{package}_{Path(file).stem}", folder / file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def of_torchdistill(cls, **kw):
    "A loss of torchdistill as a function of two tensors."
    names = ["student", "teacher"]
    at = {f"{n}_{k}": v for n in names for k, v in (("module_path", n), ("module_io", "output"))}
    if "student_output_path" in inspect.signature(cls).parameters:
        at = {f"{n}_output_path": n for n in names}
    loss = cls(**at, **kw)
    return lambda s, t: loss({"student": {"output": s}}, {"teacher": {"output": t}}, None)


def cases():
    from torchdistill.losses import mid_level as td

    fa, mo = source("fasterai", "distill/losses.py"), source("modelopt", "torch/distill/losses.py")
    y = torch.arange(6) % 5
    answers, maps = ((6, 5), (6, 5)), ((3, 4, 6, 6), (3, 4, 6, 6))
    kw = dict(temperature=2.0)
    yield "response", answers, of_torchdistill(td.KDLoss, alpha=0, **kw)
    yield "dist", answers, of_torchdistill(td.DISTLoss, beta=2.0, gamma=0.5, tau=3.0)
    yield "standardised", answers, of_torchdistill(td.LogitStdKDLoss, alpha=0, **kw)
    # fasterai's: torchdistill divides rows by the sum of absolute values, the paper by the length
    yield "similarity", ((6, 5), (6, 7)), lambda s, t: fa.Similarity({"a": s}, {"a": t}, None)
    for name, d, a in (("rkd_distance", 2.0, 0.0), ("rkd_angle", 0.0, 2.0)):
        rkd = dict(dist_factor=d, angle_factor=a, reduction="mean")
        yield name, ((6, 5), (6, 7)), of_torchdistill(td.RKDLoss, **rkd)
    yield "dkd", answers, lambda s, t: fa.DecoupledKD(s, t, T=4, alpha=1.0, beta=8.0, target=y)
    flag = lambda s, t: fa.DecoupledKD(s, t, 4, 1.0, 8.0, target=y, normalize=True)
    yield "dkd, fasterai's normalize", answers, flag
    soft = lambda s, t: fa.SoftTarget(s, t, T=5)
    yield "soft target", answers, soft

    mgd = mo.MGDLoss(4, 4, lambda_mgd=0.0).double()  # nothing covered: no chance in the value
    with torch.no_grad():
        for i, p in enumerate(mgd.parameters()):
            p.copy_(inputs(*p.shape, seed=50 + i) / 10)
    assert isinstance(mgd.align, nn.Identity)
    yield "mgd", maps, mgd


def main(file):
    torch.set_num_threads(1)
    out = {}
    for name, (a, b), loss in cases():
        s, t = inputs(*a, seed=1).requires_grad_(), inputs(*b, seed=2)
        value = loss(s, t)
        (grad,) = torch.autograd.grad(value, s)
        out[name] = dict(value=value.item(), grad=grad.flatten().tolist(), shapes=[a, b])
    packages = ("torchdistill", "fasterai", "nvidia-modelopt")
    about = {p: version(p) for p in packages}
    Path(file).write_text(json.dumps({"made with": about, "losses": out}, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
