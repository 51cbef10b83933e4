"""Compiled students and teachers, with their layers; half precision: the same training."""

import copy
import shutil

import pytest
import torch
from fastai.callback import fp16
from fastai.callback.core import Callback

from helpers import data, Hint, net
from kdmedlearn import distill, phantom_dls, Teacher
from kdmedlearn.core.step import DistillStep
from kdmedlearn.core.taps import COMPILED, n_hooks, read
from kdmedlearn.data.loaders import restart
from kdmedlearn.methods.feature import Feature
from kdmedlearn.methods.hdkd import HDKD
from kdmedlearn.methods.kdas import StructureLoss
from kdmedlearn.models.hdkd import hdkd_student_small, hdkd_teacher_small
from kdmedlearn.models.small import small_student, small_teacher
from kdmedlearn.models.unet import large_unet, small_unet


class Counts:
    "A backend that compiles nothing, and counts what it is given."

    def __init__(self):
        self.graphs = 0

    def __call__(self, graph, inputs):
        self.graphs += 1
        return graph.forward


def taught(compile=False, epochs=2, method=None, cbs=None, **kw):
    "A Learner that has trained the student of the tests."
    torch.manual_seed(3)
    dls = data(36)
    method = [Hint([("norm", "norm")]), "response"] if method is None else method
    restart(dls, 0)
    loss = torch.nn.CrossEntropyLoss()
    kw = dict(loss_func=loss, compile=compile, cbs=cbs) | kw
    learn = distill(dls, net(), net(6), method, **kw)
    restart(dls, 0)
    with learn.no_bar(), learn.no_logging():
        learn.fit(epochs, 1e-2)
    return learn


@pytest.mark.parametrize("method", [None, "response"], ids=["layers", "answers alone"])
def test_a_compiled_training_is_the_same_training(method):
    counts = Counts()
    one, two = taught(method=method), taught(dict(backend=counts), method=method)
    for k, v in one.model.state_dict().items():
        assert torch.equal(v, two.model.state_dict()[k]), k
    assert list(map(list, one.recorder.values)) == list(map(list, two.recorder.values))
    assert counts.graphs == 2  # student and teacher; nothing is compiled again on the way
    assert two.model in COMPILED and n_hooks(two.model) == 0
    assert one.model.state_dict().keys() == two.model.state_dict().keys()


CASES = {
    "feature": (small_student, small_teacher, Feature(), None, 32),
    "hdkd": (
        lambda: hdkd_student_small(num_classes=8, img_size=64, depths=(1, 1, 1), depth=1),
        lambda: hdkd_teacher_small(num_classes=8, depths=(1, 1, 1)),
        HDKD(),
        None,
        64,
    ),
    "kdas": (small_unet, large_unet, "kdas", StructureLoss(), 32),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradients_of_a_compiled_step(case):
    "Through the part of the compiler that makes backward graphs."
    student, teacher, method, loss, size = CASES[case]
    step = DistillStep(student(), teacher(), method, loss)
    x = torch.randn(4, 3, size, size)
    y = torch.rand(4, 1, size, size).round() if case == "kdas" else torch.arange(4)
    step.setup(x, y)
    was = copy.deepcopy(step.student.state_dict())
    found = []
    for compiled in (False, True):
        step.student.load_state_dict(was)
        step.zero_grad()
        if compiled:
            step.compile(backend="aot_eager")
        loss = step(x, y).loss
        loss.backward()
        grads = [p.grad.clone() for p in step.student.parameters() if p.grad is not None]
        found.append((loss.detach(), grads))
    (a, one), (b, two) = found
    assert torch.allclose(a, b, rtol=1e-5) and len(one) == len(two)
    scale = max(g.abs().max() for g in one)
    assert all(torch.allclose(g, h, atol=1e-4 * float(scale)) for g, h in zip(one, two))


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="PyTorch compiles for a CPU with g++")
def test_the_compiler_itself():
    one, two = taught(epochs=1), taught(compile=True, epochs=1)
    for k, v in one.model.state_dict().items():
        assert torch.allclose(v.float(), two.model.state_dict()[k].float(), atol=1e-4), k


def test_who_replaces_a_tensor_is_seen():
    model, counts, x = net().eval(), Counts(), torch.randn(2, 3, 8, 8)
    step = DistillStep(model, net(6))
    step.compile(backend=counts)
    before, _ = read(model, ["act"], x)
    assert torch.equal(before, model(x))
    model.norm.running_mean = model.norm.running_mean + 1  # as on the way to another device
    model.head[2] = torch.nn.Linear(4, 5)
    after, maps = read(model, ["act"], x)
    assert torch.equal(after, model(x)) and after.shape == (2, 5) and list(maps) == ["act"]
    assert len(COMPILED[model].made) == 1


def test_a_copy_is_not_compiled_and_nothing_is_kept():
    learn = taught(dict(backend="eager"), epochs=1)
    assert copy.deepcopy(learn).model not in COMPILED
    n = len(COMPILED)
    models = [learn.model, learn.distill.teachers[0].model]
    del learn
    import gc

    del models
    gc.collect()
    assert len(COMPILED) < n


# --- half precision


class Seen(Callback):
    "The numbers with which a layer of the student and one of the teacher compute."

    def before_fit(self):
        self.dtypes = {}
        models = {"student": self.learn.model, "teacher": self.learn.distill.teachers[0].model}
        self.hooks = [m.conv.register_forward_hook(self.keep(who)) for who, m in models.items()]

    def keep(self, who):
        def hook(module, args, out):
            self.dtypes.setdefault(who, out.dtype)

        return hook

    def after_fit(self):
        for h in self.hooks:
            h.remove()


@pytest.fixture
def of_the_processor(monkeypatch):
    "fastai's MixedPrecision asks for the autocast of CUDA; here it gets that of the processor."
    own = fp16.autocast
    monkeypatch.setattr(fp16, "autocast", lambda device, **kw: own("cpu", **kw))


@pytest.mark.parametrize("compile", [False, dict(backend="eager")], ids=["plain", "compiled"])
def test_a_training_in_bfloat16(of_the_processor, compile):
    seen = Seen()
    kw = dict(cbs=[fp16.MixedPrecision("bf16")] + [seen] * (not compile))
    half, full = taught(compile, **kw), taught()
    values = zip(half.recorder.values[-1], full.recorder.values[-1])
    assert all(a == pytest.approx(b, rel=0.05) for a, b in values)
    if not compile:
        assert seen.dtypes == {"student": torch.bfloat16, "teacher": torch.bfloat16}
    assert {p.dtype for p in half.model.parameters()} == {torch.float32}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_losses_in_bfloat16_are_near_those_in_float32(of_the_processor, case):
    student, teacher, method, loss, size = CASES[case]
    losses = []
    for half in (False, True):
        torch.manual_seed(0)
        task = dict(task="segment") if case == "kdas" else {}
        dls = phantom_dls(16, 8, size, seed=0, bs=8, augment=False, device="cpu", **task)
        restart(dls, 0)
        by = Teacher(teacher(), precision="bfloat16" if half else None)
        cbs = [fp16.MixedPrecision("bf16")] if half else None
        learn = distill(dls, student(), by, method, cbs=cbs, loss_func=loss)
        restart(dls, 0)
        with learn.no_bar(), learn.no_logging():
            learn.fit(1, 0.0)
        losses.append(learn.recorder.values[-1])
    assert list(losses[1]) == pytest.approx(list(losses[0]), rel=0.05)
