"""Trains a student by every method in the processes that torchrun has started; process 0 writes
the weights, the recorded scores and how far processes have drifted apart."""

import json
import sys
import warnings

warnings.filterwarnings("ignore")
import torch
import torch.distributed as dist
from fastai.optimizer import SGD

from kdmedlearn import cache_teacher, distill, fit_steps, phantom_dls
from kdmedlearn.data.loaders import restart
from kdmedlearn.methods.fusion import RelationAttention
from kdmedlearn.methods.kdas import StructureLoss
from kdmedlearn.methods.ofa import OFA
from kdmedlearn.models.guided import GuidedStudent
from kdmedlearn.models.hdkd import hdkd_student_small, hdkd_teacher_small
from kdmedlearn.models.small import small_student, small_teacher
from kdmedlearn.models.unet import large_unet, small_unet
from kdmedlearn.train.several import join, one_first, together

torch.set_num_threads(1)
join("gloo")
world = dist.get_world_size() if dist.is_initialized() else 1
small, masks = (small_student, [small_teacher]), (small_unet, [large_unet])
hdkd = (
    lambda: hdkd_student_small(num_classes=8, img_size=64),
    [lambda: hdkd_teacher_small(num_classes=8)],
)
CASES = {
    "response": ("response", *small, {}),
    "feature": ("feature", *small, {}),
    "similarity": ("similarity", *small, {}),
    "rkd": ("rkd", *small, {}),
    "pseudolabels": ("pseudolabels", *small, {}),
    "dist": ("dist", *small, {}),
    "dkd": ("dkd", *small, dict(unlabelled="rest", unlabelled_share=0.5)),
    "pkd": ("pkd", *small, {}),
    "ofa": (OFA(layers=["stage2"]), *small, {}),
    "unlabelled": ("response", *small, dict(unlabelled="rest", unlabelled_share=0.5)),
    "relation": (RelationAttention(), GuidedStudent, [small_teacher] * 2, {}),
    "hdkd": ("hdkd", *hdkd, {}),
    "kdas": ("kdas", *masks, {}),
    "softmasks": ("softmasks", *masks, {}),
    "cwd": ("cwd", *masks, dict(loss_func=StructureLoss())),
    "bernoullikl": ("bernoullikl", *masks, dict(loss_func=StructureLoss())),
    "pixelkl": ("pixelkl", lambda: small_unet(2), [lambda: large_unet(2)], {}),
    "ensemble": ("ensemble", small_student, [small_teacher] * 2, {}),
    "cached": ("feature", *small, {}),
}


def loaders(case):
    masks = ("kdas", "softmasks", "bernoullikl", "pixelkl", "cwd")
    kw = dict(task="segment") if case in masks else {}
    kw |= dict(n_unlabelled=16) if case in ("unlabelled", "dkd") else {}
    size = 64 if case == "hdkd" else 32
    return phantom_dls(16, 6, size, seed=0, bs=8 // world, augment=False, device="cpu", **kw)


def trained(case):
    method, student, teachers, kw = CASES[case]
    dls = loaders(case)
    restart(dls, 0)
    ts = [t() for t in teachers]
    if case == "cached":
        layers = distill(dls, student(), ts, method).distill.step.plan().teachers[0]
        with one_first():
            dls, ts = cache_teacher(dls, ts, "answers", 1, layers=layers, log=None)
        restart(dls, 0)
    learn = distill(dls, student(), ts, method, opt_func=SGD, moms=(0, 0, 0), **kw)
    if world > 1 and dist.get_rank():  # a start of its own, which must not matter
        with torch.no_grad():
            for p in [*learn.model.parameters(), *learn.distill.step.adapters()]:
                p.add_(0.1)
    together(learn)
    restart(learn.dls, 0)
    with learn.no_bar(), learn.no_logging():
        fit_steps(learn, 2, 1e-3, looks=1)
    return learn


out = {}
for case in sys.argv[2:] or CASES:
    learn = trained(case)
    state = [*learn.model.state_dict().values(), *learn.distill.step.bound.state_dict().values()]
    flat = torch.cat([v.double().flatten() for v in state])
    drift = 0.0
    if world > 1:
        every = [torch.empty_like(flat) for _ in range(world)]
        dist.all_gather(every, flat)
        drift = max((e - every[0]).abs().max().item() for e in every)
    kinds = sorted({type(m).__name__ for m in learn.model.modules()} & {"SyncNorm", "BatchNorm2d"})
    scores = [float(v) for v in learn.recorder.values[-1][1:]]
    out[case] = dict(weights=flat.tolist(), scores=scores, drift=drift, norms=kinds)
if world == 1 or dist.get_rank() == 0:
    with open(sys.argv[1], "w") as f:
        json.dump(out, f)
if world > 1:
    dist.destroy_process_group()
