"""Images without labels: the task loss on the labelled ones, the terms on all, one forward."""

import pytest
import torch
import torch.nn.functional as F
from fastai.data.core import DataLoaders
from fastai.data.transforms import ItemTransform
from fastai.losses import BCEWithLogitsLossFlat, CrossEntropyLossFlat
from fastai.metrics import accuracy
from torch import nn
from torch.utils.data import TensorDataset

from kdmedlearn import (
    BernoulliKL,
    distill,
    Feature,
    fit_steps,
    KDAS,
    phantom_dls,
    PixelKL,
    PseudoLabels,
    Response,
    RKD,
    Similarity,
    SoftMasks,
    with_unlabelled,
)
from kdmedlearn.core.step import DistillStep
from kdmedlearn.data.balance import WeightedLoader
from kdmedlearn.data.loaders import restart
from kdmedlearn.data.unlabelled import BothLoader, has_label
from kdmedlearn.evaluation.masks import dice
from kdmedlearn.methods.kdas import StructureLoss
from kdmedlearn.methods.response import response_loss
from kdmedlearn.models.small import small_student, small_teacher
from kdmedlearn.models.unet import small_unet
from kdmedlearn.train.budget import MixUpBoth


class Targets(ItemTransform):
    "Other targets for a batch."

    order = 200

    def __init__(self, f):
        super().__init__()
        self.f = f

    def encodes(self, b):
        return b[0], self.f(b[1].as_subclass(torch.Tensor))


def with_targets(dls, f):
    for dl in dls.loaders:
        dl.after_batch.add(Targets(f))
    return dls


def loaders(task="classify", **kw):
    kw = dict(n_train=16, n_valid=8, size=32, bs=8, device="cpu", n_unlabelled=24) | kw
    return phantom_dls(task=task, **kw)


def fit(learn, steps=3):
    with learn.no_bar(), learn.no_logging():
        fit_steps(learn, steps, looks=1)
    return learn


def images(b=6):
    torch.manual_seed(0)
    return torch.randn(b, 3, 32, 32), torch.tensor([1, 4])


@pytest.mark.parametrize(
    "method",
    [
        Response(),
        PseudoLabels(),
        Feature({"stage3": "stage3"}),
        Similarity(),
        RKD(),
        Response() + Feature({"stage3": "stage3"}),
    ],
    ids=repr,
)
def test_terms_are_over_all_images_and_the_task_over_the_labelled(method):
    x, y = images()
    student, teacher = small_student(), small_teacher()
    student.eval()
    step = DistillStep(student, teacher, method).setup(x[:2], y)
    got = step(x, y)
    whole = step(x, torch.cat([y, y, y]))
    assert torch.allclose(got.terms["task"], F.cross_entropy(student(x)[:2], y))
    for k in set(got.terms) - {"task"}:
        assert torch.allclose(got.terms[k], whole.terms[k])


def test_labels_of_others_change_nothing():
    dls = loaders()
    losses = []
    for mark in (-100, 3):  # what stands where there is no label
        torch.manual_seed(0)
        student = small_student()
        learn = distill(dls, student, small_teacher_fixed(), unlabelled="rest")
        learn.dls.train.ignored = mark
        learn.dls.train.rng.seed(1)
        torch.manual_seed(1)
        fit(learn)
        losses.append(torch.cat([p.detach().flatten() for p in student.parameters()]))
    assert torch.equal(*losses)


def small_teacher_fixed():
    torch.manual_seed(5)
    return small_teacher()


def test_one_forward_of_the_student_and_of_the_teacher_a_step():
    student, teacher, seen = small_student(), small_teacher(), []
    learn = distill(loaders(), student, teacher, unlabelled="rest")
    student.register_forward_hook(lambda m, i, o: seen.append(("student", len(i[0]), m.training)))
    teacher.register_forward_hook(lambda m, i, o: seen.append(("teacher", len(i[0]), m.training)))
    fit(learn, 2)
    trained = [s for s in seen if s[2] or s[0] == "teacher"]
    assert trained == [("teacher", 8, False), ("student", 8, True)] * 2


@pytest.mark.parametrize(
    "method", [KDAS(), BernoulliKL(), PseudoLabels(), Response(), SoftMasks()], ids=repr
)
def test_masks_of_one_logit_in_floating_point(method):
    "Targets that cannot be ignored by a loss: the step cuts them off."
    dls = with_targets(loaders("segment"), lambda y: y[:, None].float())
    learn = distill(
        dls, small_unet(), small_unet(), method, loss_func=StructureLoss(), unlabelled="rest"
    )
    y = learn.dls.train.one_batch()[1]
    assert y.isfinite().flatten(1).all(1).tolist() == [True] * 2 + [False] * 6
    fit(learn)
    assert all(v == v for v in learn.recorder.values[-1])
    assert all(p.isfinite().all() for p in learn.model.parameters())


@pytest.mark.parametrize("method", [KDAS(), SoftMasks(), BernoulliKL()], ids=repr)
def test_masks_of_one_logit_as_the_loaders_give_them(method):
    "Whole numbers, -100 where there is no mask: the structure loss never sees them."
    dls, seen = loaders("segment"), []

    class Loss(StructureLoss):
        def forward(self, out, mask):
            seen.append(len(mask))
            return super().forward(out, mask)

    how = dict(loss_func=Loss(), unlabelled="rest")
    learn = distill(dls, small_unet(), small_unet(), method, **how)
    seen.clear()
    fit(learn, 2)
    assert seen == [2, 2, 8]  # two steps, then the validation images
    assert all(v == v for v in learn.recorder.values[-1])
    assert learn.distill.targets is None


def test_masks_of_classes_without_a_mask_are_the_teachers_alone():
    dls = loaders("segment")
    learn = distill(dls, small_unet(2), small_unet(2), PixelKL(), unlabelled="rest")
    fit(learn)
    assert learn.distill.tally.seen == {"task": 3 * 2, "pixel": 3 * 8}
    x = torch.rand(3, 3, 32, 32)
    y = torch.full((1, 32, 32), -100)
    step = learn.distill.step
    p = step.make_pass(step.run_student((x,)), step.ask((x,)), (y,))
    assert p.valid is None or p.valid.all()


def test_several_labels_an_image():
    dls = with_targets(loaders(), lambda y: F.one_hot(y, 8).float())
    learn = distill(
        dls,
        small_student(),
        small_teacher(),
        loss_func=BCEWithLogitsLossFlat(),
        unlabelled="rest",
    )
    assert learn.distill.step.task == "several labels"
    fit(learn)
    assert all(v == v for v in learn.recorder.values[-1])


def test_without_any_label():
    x, _ = images()
    student, teacher = small_student().eval(), small_teacher()
    step = DistillStep(student, teacher, Response(alpha=1.0)).setup(x[:2])
    got = step(x)
    want = response_loss(student(x), teacher.eval()(x), 4.0)
    assert list(got.terms) == ["response"] and torch.allclose(got.loss, want)
    nothing = DistillStep(student, teacher, Response(alpha=0.0)).setup(x[:2])
    with pytest.raises(ValueError, match="nothing to learn from"):
        nothing(x)


def test_mixup_within_each_kind():
    learn = distill(loaders(), small_student(), small_teacher(), unlabelled="rest")
    mix = MixUpBoth(0.4)
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, cbs=mix)
    assert len(mix.lam) == 2 and all(v == v for v in learn.recorder.values[-1])


def test_equal_steps_of_equal_batches():
    dls = loaders()
    alone, taught = dls, with_unlabelled(dls, "rest")
    assert alone.train.bs == taught.train.bs == 8
    assert taught.train.n_labelled == 2
    with pytest.raises(ValueError, match="leaves 8 with and 0 without"):
        with_unlabelled(dls, "rest", share=0.01)


def test_images_of_the_validation_set_are_refused():
    dls = loaders()
    dls.rest = dls.valid_ds
    with pytest.raises(ValueError, match="8 of 8 unlabelled images stand in valid"):
        distill(dls, small_student(), small_teacher(), unlabelled="rest")


def test_gradients_are_those_of_the_loss_written_out():
    x, y = images()
    teacher = small_teacher_fixed().eval()
    grads = []
    for how in ("step", "by hand"):
        torch.manual_seed(0)
        student = small_student().eval()
        if how == "step":
            step = DistillStep(student, teacher, Response(T=2, alpha=0.6)).setup(x[:2], y)
            step(x, y).loss.backward()
        else:
            z = student(x)
            kl = response_loss(z, teacher(x).detach(), 2)
            (0.4 * F.cross_entropy(z[:2], y) + 0.6 * kl).backward()
        grads.append(torch.cat([p.grad.flatten() for p in student.parameters()]))
    assert torch.allclose(*grads, atol=1e-7)


def test_the_same_images_are_compared_once(monkeypatch):
    from kdmedlearn.data import unlabelled

    dls, times, find = (
        phantom_dls(8, 4, 32, n_unlabelled=8, bs=4, device="cpu"),
        [],
        unlabelled.unseen,
    )
    monkeypatch.setattr(unlabelled, "unseen", lambda *a: times.append(1) or find(*a))
    for _ in range(3):
        with_unlabelled(dls, "rest")
    assert len(times) == 1
    other = phantom_dls(8, 4, 32, seed=1, n_unlabelled=8, bs=4, device="cpu")
    with_unlabelled(other, dls.rest)
    assert len(times) == 2


class ReadsMarks(nn.Module):
    "Answers with the class that stands in an image, as `marked` has it."

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return 100 * self.scale * F.one_hot(x[:, 0, 0, 0].round().long(), 3)


def marked(n=16, drop_last=True, weighted=False):
    "Loaders of images that say their class, some in training and others to validate."
    items = [(torch.full((3, 8, 8), float(i % 3)), torch.tensor(i % 3)) for i in range(n + 6)]
    dls = DataLoaders.from_dsets(
        items[:n], items[n:], bs=8, device="cpu", num_workers=0, drop_last=drop_last
    )
    if weighted:
        dls.loaders[0] = dls.train.new(cls=WeightedLoader, wgts=[1.0] * n)
    return dls


def taught_by_marks(dls):
    others = TensorDataset(torch.arange(24.0)[:, None, None, None].expand(-1, 3, 8, 8) % 3)
    kw = dict(metrics=accuracy, loss_func=CrossEntropyLossFlat())
    with pytest.warns(UserWarning, match="are not compared"):
        return distill(dls, ReadsMarks(), ReadsMarks(), unlabelled=others, **kw)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("drop_last", [False, True])
def test_training_images_are_scored_and_answered_where_they_have_a_label(weighted, drop_last):
    learn = taught_by_marks(marked(19, drop_last, weighted))
    with learn.no_bar(), learn.no_logging():
        loss, share = learn.validate(ds_idx=0)
        p, y = learn.get_preds(ds_idx=0)
        again = learn.get_preds(dl=learn.dls.train)
    assert share == 1 and loss < 1e-6
    assert y.tolist() == [i % 3 for i in range(19)] == p.argmax(1).tolist()
    assert torch.equal(p, again[0]) and torch.equal(y, again[1])


def test_scores_of_masks_in_training_are_those_of_the_labelled():
    dls = loaders("segment", augment=False)
    learn = distill(dls, small_unet(2), small_unet(2), PixelKL(), unlabelled="rest", metrics=dice)
    with learn.no_bar(), learn.no_logging():
        y = learn.get_preds(ds_idx=0)[1]
        got, want = learn.validate(ds_idx=0), learn.validate(dl=dls.train)
    assert list(got) == pytest.approx(list(want))
    assert torch.equal(y, torch.stack([m for _, m in dls.train_ds]).as_subclass(type(y)))


def test_looking_at_training_images_leaves_the_training_as_it_is():
    orders = []
    for look in (False, True):
        learn = taught_by_marks(marked())
        restart(learn.dls, 3)
        assert isinstance(learn.dls.train.new(), BothLoader)  # as several processes take it
        if look:
            learn.dls.train.new(shuffle=False, drop_last=False)
            restart(learn.dls, 3)
        batches = list(learn.dls.train)
        orders.append(torch.cat([x[:, 0, 0, 0] for x, _ in batches]))
        assert [has_label(y).sum().item() for _, y in batches] == [2] * len(batches)
    assert torch.equal(*orders)
