"""Trainings that diverge: stopped at the step, named, and never reported as a result."""

import warnings

import pytest
import torch
from torch import nn

from kdmedlearn import distill, Feature, phantom_dls, Response
from kdmedlearn.experiments.experiment import experiment
from kdmedlearn.core.method import Method
from kdmedlearn.models.small import small_student, small_teacher
from kdmedlearn.train.finite import Diverged, FiniteLoss
from kdmedlearn.tuning.runs import Runs, best_of
from kdmedlearn.tuning.search import train_run


@pytest.fixture
def dls():
    return phantom_dls(32, 8, 32, seed=0, bs=8, device="cpu")


def fit(learn, lr=1e-3, n=1):
    with learn.no_bar(), learn.no_logging():
        learn.fit(n, lr)


def good(model):
    return all(v.isfinite().all() for v in model.state_dict().values() if v.is_floating_point())


class GoesBad(nn.Module):
    "A teacher whose answers are not finite from its `after`th batch on."

    def __init__(self, after):
        super().__init__()
        self.net, self.asked, self.after = small_teacher(), 0, after

    def forward(self, x):
        self.asked += 1
        return self.net(x) * (float("nan") if self.asked > self.after else 1)


class _Explodes(Method):
    "A term that is infinite from the middle of training on."

    pct = 0.0

    def weights(self, pct=0.0):
        self.pct = pct or self.pct  # weights are asked without progress too
        return {"task": 1.0, "own": 1.0}

    def terms(self, p):
        return {"own": p.student.out.square().mean() * (float("inf") if self.pct >= 0.5 else 1)}


@pytest.mark.parametrize("method", [Response(), Feature()])
def test_a_rate_that_is_too_high_stops_the_training_with_good_weights(dls, method):
    learn = distill(dls, small_student(), small_teacher(), method)
    with pytest.raises(Diverged, match="smaller learning rate") as e:
        fit(learn, 1e20)
    assert e.value.culprit == "student" and e.value.epoch == 0 and good(learn.model)
    assert good(learn.distill.step.bound) and e.value.batch.shape == (8, 3, 32, 32)


def test_a_teacher_that_goes_bad_later_is_named(dls):
    learn = distill(dls, small_student(), [small_teacher(), GoesBad(6)], Response())
    with pytest.raises(Diverged, match="of teacher 2 not all") as e:
        fit(learn, n=5)
    assert len(e.value.files) == 8 and good(learn.model)


def test_a_term_that_explodes_is_named_with_its_value(dls):
    learn = distill(dls, small_student(), small_teacher(), _Explodes())
    with pytest.raises(Diverged, match="term own") as e:
        fit(learn, n=2)
    assert e.value.terms["own"] == float("inf") and e.value.epoch == 1 and e.value.step == 5


def test_left_out_batches_count_in_no_mean(dls):
    class _Once(Method):
        asked = 0

        def weights(self, pct=0.0):
            return {"task": 1.0, "own": 1.0}

        def terms(self, p):
            self.asked += 1
            bad = float("nan") if self.asked == 7 else 1.0
            return {"own": p.student.out.square().mean() * bad}

    learn = distill(dls, small_student(), small_teacher(), _Once(), cbs=FiniteLoss(skip=1))
    fit(learn, n=3)
    assert learn.finite_loss.left_out == 1
    assert all(v == v for row in learn.recorder.values for v in row)


def test_the_rate_finder_may_go_where_the_loss_explodes(dls):
    learn = distill(dls, small_student(), small_teacher(), Response())
    with learn.no_bar(), learn.no_logging(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        learn.lr_find(end_lr=1e20, num_it=20, show_plot=False)


def test_a_run_that_diverged_says_so_and_is_never_the_best(dls, tmp_path):
    runs = Runs(tmp_path)
    kw = dict(epochs=2, lr=1e20)
    with pytest.raises(Diverged):
        train_run(runs, dls, small_student, small_teacher(), Response(), **kw)
    assert runs.all()[0]["status"].startswith("diverged") and best_of(runs.all()) is None


def test_an_experiment_computes_no_gain_from_it(dls):
    with pytest.raises(Diverged):
        experiment(lambda s: dls, small_student, small_teacher(), epochs=1, lr=1e20, log=None)


def test_exported_learners_need_none_of_it(dls, tmp_path):
    learn = distill(dls, small_student(), small_teacher(), Response(), path=tmp_path)
    fit(learn)
    learn.export("s.pkl")
    assert b"kdmedlearn.train.finite" not in (tmp_path / "s.pkl").read_bytes()
