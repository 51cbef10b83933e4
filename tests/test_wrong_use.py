"""What is given wrongly is answered with what was seen, what was expected and the cure; numbers by
one rule."""

import inspect
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from fastai.learner import Learner, load_learner
from torch import nn
from torch.utils.data import DataLoader

from helpers import data, Items, net
from kdmedlearn import distill, Response, Teacher
from kdmedlearn.core.method import METHODS
from kdmedlearn.core.parameters import Number, Share, Temperature, Weight
from kdmedlearn.core.step import DistillStep
from kdmedlearn.core.taps import n_hooks
from kdmedlearn.core.teacher import as_teachers
from kdmedlearn.experiments.experiment import experiment
from kdmedlearn.experiments.probe import probe
from kdmedlearn.methods.feature import Feature
from kdmedlearn.methods.response import response_loss, soften
from kdmedlearn.train.budget import fit_steps
from kdmedlearn.train.distillation import parameter_counts
from kdmedlearn.train.teachers import fit_teacher
from kdmedlearn.tuning.search import train_run

x = torch.randn(2, 3, 8, 8)
y = torch.tensor([0, 1])
LOSS = dict(loss_func=F.cross_entropy)


def make(student=None, teacher=None, method="response", dls=None, **kwargs):
    return distill(dls or data(), student or net(), teacher or net(8), method, **LOSS | kwargs)


def fit(learn, *args, **kwargs):
    with learn.no_bar(), learn.no_logging():
        learn.fit(*args, **kwargs)
    return learn


# --- bare errors


def test_a_dict_as_a_batch():
    step = DistillStep(net(), net(8))
    with pytest.raises(
        TypeError, match=r"the batch is a dict with image, label; .*batch\['image'\]"
    ):
        step.setup({"image": x, "label": y})
    items = [{"image": x[0], "label": y[0]}] * 8
    dls = DataLoaders(DataLoader(items, 4), DataLoader(items, 4), device="cpu")
    with pytest.raises(TypeError, match="dict with image, label; .* a collate_fn of the loader"):
        make(dls=dls)


def test_one_loader():
    whole = data()
    dls = DataLoaders(whole.train, device="cpu")
    with pytest.raises(ValueError, match=r"hold one loader; .* DataLoaders\(train, valid\)"):
        make(dls=dls)
    teacher = Learner(dls, net(8), loss_func=F.cross_entropy)
    assert as_teachers(teacher)[0].size == (8, 8)  # a teacher may have one


def test_an_empty_training_set():
    whole = data()
    with pytest.raises(ValueError, match="the training set is empty"):
        make(dls=DataLoaders(whole.train.new(Items()), whole.valid, device="cpu"))
    few = whole.train.new(Items(list(whole.train.dataset)[:5]), bs=8, drop_last=True)
    with pytest.raises(ValueError, match="5 images, and batches of 8 .* give bs=5 at most"):
        make(dls=DataLoaders(few, whole.valid, device="cpu"))


def test_sizes_of_numpy():
    assert Teacher(net(8), size=np.int64(32)).size == (32, 32)
    assert Teacher(net(8), size=(np.int32(16), np.int32(32))).size == (16, 32)
    assert make(student_size=np.int64(8)) is not None
    for size in (2.5, "32", True, 0, (1, 2, 3)):
        with pytest.raises(ValueError, match="expected the side of the teacher's images"):
            Teacher(net(8), size=size)


def test_a_norm_of_two_channels():
    two = Teacher(net(8), norm=([0.5, 0.5], [0.2, 0.2]))
    with pytest.raises(ValueError, match=r"a norm of 2 channels and the images .* have 3; give"):
        DistillStep(net(), two).setup(x, y)
    own = (torch.zeros(1, 2, 1, 1), torch.ones(1, 2, 1, 1))
    with pytest.raises(ValueError, match="the student has a norm of 2 channels"):
        DistillStep(net(), Teacher(net(8), norm=(0.5, 0.2)), norm=own).setup(x, y)


def test_counts_of_a_learner_that_was_exported(tmp_path):
    learn = fit(make(), 1)
    learn.path = tmp_path
    before = parameter_counts(learn)
    learn.export("student.pkl")
    with pytest.warns(UserWarning):
        again = load_learner(tmp_path / "student.pkl")
    assert parameter_counts(again) == {"student": before["student"]}
    assert parameter_counts(learn) == before


def pooled():
    "Batch norm behind the pooling: one value a channel and image."
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.BatchNorm2d(4),
        nn.Flatten(),
        nn.Linear(4, 3),
    )


def test_a_last_batch_of_one_under_batch_norm_is_told_before_the_fit():
    items = Items((torch.randn(3, 8, 8), torch.tensor(i % 3)) for i in range(9))
    for drop in (False, True):
        train = DataLoader(items, 4, drop_last=drop)
        learn = make(pooled(), dls=DataLoaders(train, DataLoader(items, 4), device="cpu"))
        stepped = []
        look = Callback(after_step=lambda self: stepped.append(1))
        if drop:
            assert len(fit(learn, 1, cbs=look).recorder.values) == 1
            continue
        with pytest.raises(ValueError, match="9 images in batches of 4 leave a last batch of one"):
            fit(learn, 1, cbs=look)
        assert not stepped
        fit(make(dls=learn.dls), 1)  # batch norm over many places does not mind


@pytest.mark.parametrize("order", [-100, 6, 50, 1000])
def test_a_callback_that_fails_leaves_the_student_as_it_is(order, tmp_path):
    class Fails(Callback):
        def before_batch(self):
            raise RuntimeError("mine")

    Fails.order = order
    learn = make(method=Feature({"act": "act"}))
    with pytest.raises(RuntimeError, match="mine"):
        fit(learn, 1, cbs=Fails())
    assert "forward" not in vars(learn.model) and n_hooks(learn.model) == 0
    learn.path = tmp_path
    learn.export("student.pkl")
    assert b"kdmedlearn.core.taps" not in (tmp_path / "student.pkl").read_bytes()
    assert len(fit(learn, 1).recorder.values) == 1


# --- numbers

NUMBERS = [
    (name, k)
    for name in METHODS.names()
    if METHODS[name].__module__.startswith("kdmedlearn.")  # not those of other tests
    for k, h in METHODS[name].hyper.items()
    if isinstance(h, Number)
]


def with_value(name, k, value):
    cls = METHODS[name]
    more = {"fusion": "concatenation"} if name == "ensemble" and k == "lam" else {}
    return cls(**{k: value} | more)


@pytest.mark.parametrize("name, k", NUMBERS, ids=lambda v: v)
def test_numbers_that_cannot_be_are_refused(name, k):
    for value in (math.inf, -math.inf, math.nan, 1e30, 1e155, 10**400, np.float32(np.inf)):
        with pytest.raises(ValueError, match=rf"{k}.*(expected|usual|must lie in)"):
            with_value(name, k, value)
    with pytest.raises((TypeError, ValueError), match=k):
        with_value(name, k, "4")


@pytest.mark.parametrize("name, k", NUMBERS, ids=lambda v: v)
def test_numbers_of_numpy_are_accepted(name, k):
    h = METHODS[name].hyper[k]
    whole = h.whole or not (isinstance(h, Share) or h.high < 2)
    kinds = [np.int64, np.int32] * whole + [np.float32, np.float64] * (not h.whole)
    for kind in kinds:
        value = h.default if whole or callable(h.default) else 0.5
        value = kind(max(value, h.low) if not whole else max(int(value), 1))
        kept = getattr(with_value(name, k, value), k)
        assert kept == pytest.approx(float(value)) and type(kept) in (int, float)


def test_temperatures_of_numpy_in_losses():
    s, t = torch.randn(2, 4, 3)
    for T in (np.float32(4), np.int64(4)):
        assert response_loss(s, t, T).item() == pytest.approx(response_loss(s, t, 4).item())
        assert Response(T=T).T == 4 and repr(Response(T=T)).startswith("Response(T=4")
    for T in (math.inf, 1e30, 1e155):
        with pytest.raises(ValueError, match="temperature T|T=1e"):
            soften(s, T)


def test_a_schedule_that_runs_away():
    with pytest.raises(ValueError, match="too large"):
        Feature(lam=lambda pct: 1 + pct * 1e30)


@pytest.mark.parametrize(
    "norm", [(0.5, math.inf), (math.nan, 0.2), ([0.5] * 3, [0.2, 0.2, math.inf])]
)
def test_norms_are_finite(norm):
    with pytest.raises(ValueError, match="expected .mean, std. of pixels in"):
        Teacher(net(8), norm=norm)


@pytest.mark.parametrize("lr", [math.nan, math.inf])
def test_learning_rates_are_finite(lr, tmp_path):
    words = r"lr=(nan|inf); expected"
    with pytest.raises(ValueError, match=words):
        fit(make(), 1, lr)
    with pytest.raises(ValueError, match=words):
        fit(make(lr=lr), 1)
    with pytest.raises(ValueError, match=words):
        with (learn := make()).no_bar():
            learn.fit_one_cycle(1, lr)
    with pytest.raises(ValueError, match=words):
        fit_steps(make(), 2, lr)
    dls = data()
    with pytest.raises(ValueError, match=words):
        experiment(lambda s: dls, net, net(8), epochs=1, lr=lr, log=None)
    with pytest.raises(ValueError, match=words):
        fit_teacher(dls, net(8), 1, lr, **LOSS)
    from kdmedlearn.tuning.runs import Runs

    with pytest.raises(ValueError, match=words):
        train_run(Runs(tmp_path), dls, net, net(8), "response", 1, lr, **LOSS)


def test_a_learning_rate_of_numpy():
    with (learn := make()).no_bar(), learn.no_logging():
        fit_steps(learn, 2, np.float32(1e-3), looks=1)
        learn.fit_one_cycle(1, slice(1e-4, 1e-3))


@pytest.mark.parametrize("lr", ["nan", "inf"])
def test_the_command_refuses_a_learning_rate(lr, tmp_path):
    from typer.testing import CliRunner

    from kdmedlearn.cli import app

    (tmp_path / "set").mkdir()
    said = CliRunner().invoke(app, ["distill", "--data", str(tmp_path / "set"), "--lr", lr])
    words = {"nan": "'--lr': Input should be", "inf": "expected a finite learning rate"}
    assert said.exit_code == 2 and words[lr] in said.output
