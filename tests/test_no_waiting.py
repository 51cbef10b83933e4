"""A step never waits for the device: no number is fetched from a tensor, and no shape depends on
what is in one."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from kdmedlearn import distill, phantom_dls
from kdmedlearn.core.checks import may_look
from kdmedlearn.core.step import DistillStep
import kdmedlearn.methods.kdas as kdas
from kdmedlearn.methods.fusion import Ensemble
from kdmedlearn.methods.hdkd import HDKD
from kdmedlearn.methods.kdas import StructureLoss
from kdmedlearn.models.hdkd import hdkd_student_small, hdkd_teacher_small
from kdmedlearn.train.finite import FiniteLoss
from kdmedlearn.models.small import small_student, small_teacher
from kdmedlearn.models.unet import large_unet, small_unet

WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "equal")


class Waits(TorchDispatchMode):
    "Counts the operations for which a GPU would have to be waited for."

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name().split("::")[1].split(".")[0]
        if any(name.startswith(w) for w in WAITS):
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


def images(n=4, size=32):
    torch.manual_seed(0)
    return torch.randn(n, 3, size, size)


CLASSES = ["response", "feature", "similarity", "rkd", "pseudolabels", "response + feature"]


@pytest.mark.parametrize("method", CLASSES)
def test_classes(method):
    names = method.split(" + ")
    step = DistillStep(small_student(), small_teacher(), names if len(names) > 1 else method)
    counted(step, torch.randint(8, (4,)))


def test_several_teachers():
    step = DistillStep(small_student(), [small_teacher(), small_teacher()], Ensemble("mean"))
    counted(step, torch.randint(8, (4,)))


def test_hdkd():
    student = hdkd_student_small(num_classes=8, img_size=64)
    counted(
        DistillStep(student, hdkd_teacher_small(num_classes=8), HDKD()), torch.randint(8, (4,)), 64
    )


@pytest.mark.parametrize("method", ["kdas", "bernoullikl", "softmasks"])
def test_masks(method):
    loss = torch.nn.functional.binary_cross_entropy_with_logits
    step = DistillStep(small_unet(), large_unet(), method, loss)
    counted(step, torch.rand(4, 1, 32, 32).round())


def counted(step, y, size=32):
    x = images(size=size)
    step.setup(x, y)
    with Waits() as w:
        step(x, y).loss.backward()
    assert w.seen == []


def test_in_the_learner_only_what_fastai_waits_for():
    dls = phantom_dls(n_train=16, n_valid=8, size=32, bs=8, device="cpu")
    from fastai.learner import Learner

    def seen(learn):
        with learn.no_bar(), learn.no_logging():
            learn.fit(1)
            with Waits() as w:
                learn.fit(1)
        return w.seen

    plain = seen(Learner(dls, small_student()))
    # as on a GPU: whether all losses were finite is read at the first step and after the epoch
    guard = FiniteLoss(at_once=False)
    taught = distill(dls, small_student(), small_teacher(), cbs=guard)
    assert len(seen(taught)) <= len(plain) + 4


def test_a_number_that_is_fetched_is_counted():
    with Waits() as w:
        torch.ones(1).item()
        bool(torch.ones(1) > 0)
    assert len(w.seen) == 2


def test_the_structure_loss_looks_at_its_mask_on_a_processor_only(monkeypatch):
    z, y = torch.randn(2, 1, 16, 16), torch.rand(2, 1, 16, 16).round()
    with pytest.raises(ValueError, match="expected 0"):
        StructureLoss()(z, 2 * y)
    monkeypatch.setattr(kdas, "may_look", lambda t: False)  # as on a GPU
    with Waits() as w:
        StructureLoss()(z, y)
    assert w.seen == []


def test_while_a_step_is_set_up_masks_are_looked_at_everywhere():
    seen = []
    loss = lambda z, y: (seen.append(may_look(torch.zeros(1, device="meta"))), z.sum() * 0)[1]
    step = DistillStep(small_unet(), large_unet(), "bernoullikl", loss)
    x, y = images(), torch.rand(4, 1, 32, 32).round()
    step.setup(x, y)
    step(x, y)
    assert seen[0] and not seen[-1]
