"Training by steps: averaged weights that a callback saves, and what mixup can blend."

import pytest
import torch
from fastai.callback.core import Callback
from fastai.callback.tracker import SaveModelCallback
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from torch import nn

from helpers import data, net
from kdmedlearn.train.budget import fit_steps, WeightAverage


class Raw(Callback):
    "The weights at the beginning of each epoch's training."

    order = 30  # after the average has put them back

    def before_fit(self):
        self.seen = []

    def before_train(self):
        self.seen.append(next(self.learn.model.parameters()).detach().clone())


def test_the_weights_that_are_saved_are_those_that_were_scored(tmp_path):
    "The best look is not the last one, since the rate is far too high."
    learn = Learner(data(), net(), nn.CrossEntropyLoss(), path=tmp_path)
    saves = SaveModelCallback(monitor="valid_loss")
    with learn.no_bar(), learn.no_logging():
        fit_steps(learn, 40, 3.0, looks=8, average=0.9, cbs=saves)
    scored = [v[1] for v in learn.recorder.values]
    assert min(scored) < scored[-1]
    with learn.no_bar():
        assert learn.validate()[0] == pytest.approx(min(scored), rel=1e-5)


def test_training_goes_on_with_its_own_weights():
    "A look at the validation images changes nothing of the steps after it."
    ends = []
    for looks in (1, 4):
        torch.manual_seed(0)
        learn, raw = Learner(data(), net(), nn.CrossEntropyLoss()), Raw()
        torch.manual_seed(1)
        learn.dls.train.rng.seed(0)
        with learn.no_bar(), learn.no_logging():
            fit_steps(learn, 8, 1e-2, looks=looks, average=0.9, cbs=raw)
        ends.append(raw.seen)
    assert len(ends[1]) == 4 and not torch.equal(ends[1][0], ends[1][1])
    assert torch.equal(ends[0][0], ends[1][0])


def test_a_look_outside_of_a_fit_is_at_the_weights_there_are():
    learn = Learner(data(), net(), nn.CrossEntropyLoss(), cbs=WeightAverage(0.9))
    with learn.no_bar(), learn.no_logging():
        before = learn.validate()
        learn.fit(1, 1e-2)
        assert learn.validate() == learn.validate() != before


@pytest.mark.parametrize("what", ["classes", "ignored", "shares"])
def test_mixup_is_refused_for_masks_that_cannot_be_blended(what):
    x = torch.rand(8, 3, 8, 8)
    y = torch.randint(0, 2, (8, 8, 8))
    if what != "classes":
        y = y[:, None].float()
    if what == "ignored":
        y[:, :, 0] = 255
    items = list(zip(x, y))
    dls = DataLoaders.from_dsets(items, items, bs=4, device="cpu", num_workers=0)
    loss = CrossEntropyLossFlat(axis=1) if what == "classes" else nn.BCEWithLogitsLoss()
    learn = Learner(dls, nn.Conv2d(3, 2 if what == "classes" else 1, 1), loss)
    fit = lambda: fit_steps(learn, 2, looks=1, mixup=0.2)
    with learn.no_bar(), learn.no_logging():
        if what == "shares":  # a blend of them is a mask again
            return fit()
        with pytest.raises(ValueError, match="mixup blends targets, and these masks have"):
            fit()
