"""The facts about `distill` that go wrong silently: each test fails when its fact is broken."""

import copy, pickle

import pytest
import torch
import torch.nn.functional as F
from fastai.callback.core import Callback
from fastai.callback.schedule import SchedLin
from fastai.callback.tracker import SaveModelCallback
from fastai.callback.training import GradientAccumulation
from fastai.data.core import DataLoaders
from fastai.data.transforms import Normalize
from fastai.learner import Learner, load_learner
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import accuracy
from fastai.optimizer import SGD, OptimWrapper
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from helpers import Hint, data, fingerprint, net
from kdmedlearn import distill, DistillCallback, KDAS, phantom_dls, Response, SoftMasks
from kdmedlearn.core.method import Method
from kdmedlearn.core.outputs import plain
from kdmedlearn.core.step import at_size, DistillStep
from kdmedlearn.core.taps import n_hooks
from kdmedlearn.core.teacher import Teacher
from kdmedlearn.data.loaders import random_state, restart
from kdmedlearn.evaluation.masks import dice
from kdmedlearn.evaluation.regions import RegionDice, score_regions
from kdmedlearn.methods.kdas import StructureLoss
from kdmedlearn.methods.response import response_loss
from kdmedlearn.models.small import small_teacher
from kdmedlearn.models.unet import small_unet
from kdmedlearn.models.weights import load_model, save_model
from kdmedlearn.train.distillation import TermColumns
from kdmedlearn.train.trial import images_of


def make(student=None, teacher=None, method="response", dls=None, **kw):
    return distill(
        dls or data(),
        student or net(),
        net(8) if teacher is None else teacher,
        method=method,
        loss_func=F.cross_entropy,
        **kw,
    )


def fit(learn, n=1, lr=1e-2, **kw):
    with learn.no_bar(), learn.no_logging():
        learn.fit(n, lr, **kw)
    return learn


class Count(nn.Module):
    "A model that counts its forwards and remembers its mode and whether gradients were on."

    def __init__(self, model):
        super().__init__()
        self.model, self.calls = model, []

    def forward(self, x):
        self.calls.append((self.training, torch.is_grad_enabled(), x.device.type))
        return self.model(x)


# --- the teacher
def test_teacher_is_frozen_and_runs_once_a_training_batch():
    t = Count(net(8)).train()
    learn = make(teacher=t)
    before, t.calls = fingerprint(t), []
    fit(learn, 2)
    # eval, no grad, not in validation
    assert t.calls == [(False, False, "cpu")] * (2 * len(learn.dls.train))
    assert fingerprint(t) == before and all(p.grad is None for p in t.parameters())


def test_teacher_does_not_run_at_weight_zero():
    t = Count(net(8))
    learn = make(teacher=t, method=Response(alpha=0.0))
    t.calls.clear()
    fit(learn)
    assert not t.calls
    learn = make(teacher=t, method=Response(alpha=lambda pct: 0.0 if pct < 0.5 else 0.5))
    t.calls.clear()
    fit(learn, 2)
    assert len(t.calls) == len(learn.dls.train)


def test_teacher_in_its_own_normalisation():
    dls = data()
    mean, std = (
        torch.tensor([0.4, 0.5, 0.6]).reshape(1, 3, 1, 1),
        torch.tensor([0.2, 0.3, 0.4]).reshape(1, 3, 1, 1),
    )
    norm = Normalize(mean, std)
    dls.train.after_batch.add(norm)
    dls.valid.after_batch.add(norm)
    seen = []

    class Look(nn.Module):
        def __init__(self):
            super().__init__()
            self.m = net(8)

        def forward(self, x):
            seen.append(x)
            return self.m(x)

    learn = distill(
        dls, net(), Teacher(Look(), norm=([0.0] * 3, [2.0] * 3)), loss_func=F.cross_entropy
    )
    x = torch.rand(2, 3, 8, 8)
    learn.distill.teachers[0].see(((x - mean) / std,), learn.distill.step.norm)
    torch.testing.assert_close(seen[-1], x / 2)
    # a Learner as teacher brings the normalisation of its data
    other = data()
    other.train.after_batch.add(Normalize(mean * 0, std * 0 + 0.5))
    t = distill(
        dls, net(), Learner(other, net(8), loss_func=F.cross_entropy), loss_func=F.cross_entropy
    ).distill.teachers[0]
    assert t.norm[1].flatten().tolist() == [0.5] * 3


def test_teachers_as_list_and_learner():
    a, b = Count(net(8)), Count(net(6))
    learn = make(teacher=[a, Learner(data(), b, loss_func=F.cross_entropy)])
    a.calls.clear()
    b.calls.clear()
    fit(learn)
    assert len(a.calls) == len(b.calls) == len(learn.dls.train)


# --- the student
def test_student_runs_once_and_batch_norm_moves_once_a_step():
    s = Count(net())
    learn = make(student=s, method=Response() + Hint({"model.conv": "conv"}), opt_func=SGD)
    s.calls.clear()
    plain = copy.deepcopy(s)
    x, y = learn.dls.train.one_batch()
    plain.train()(x)
    learn.dls.train = [(x, y)]
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 0.0)
    assert [c[0] for c in s.calls].count(True) == 1
    assert s.model.norm.num_batches_tracked == plain.model.norm.num_batches_tracked
    torch.testing.assert_close(s.model.norm.running_mean, plain.model.norm.running_mean)


def test_step_equals_the_loss_written_out():
    s, t = net(), net(8).eval()
    ref = copy.deepcopy(s).train()
    learn = make(s, t, Response(T=3, alpha=0.7), opt_func=SGD)
    x, y = learn.dls.train.one_batch()
    out = ref(x)
    loss = 0.3 * F.cross_entropy(out, y) + 0.7 * response_loss(out, t(x).detach(), 3)
    loss.backward()
    with torch.no_grad():
        for p in ref.parameters():
            p -= 0.1 * p.grad
    learn.dls.train = [(x, y)]
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 0.1, wd=0.0)
    assert learn.recorder.losses[0].item() == pytest.approx(loss.item(), rel=1e-5)
    for a, b in zip(s.parameters(), ref.parameters()):
        torch.testing.assert_close(a, b)


def test_gradient_accumulation_sees_the_distilled_loss():
    grads = []
    for cbs, n in (([], 1), ([GradientAccumulation(16)], 2)):
        torch.manual_seed(1)
        s, t = net(), net(8)
        s.norm.eval()
        s.norm.train = lambda mode=True: s.norm  # batch norm would see other batches
        learn = make(s, t, Response(alpha=0.5), opt_func=SGD, cbs=cbs)
        x, y = (
            torch.cat([b[0] for b in data(bs=8).valid] * 2),
            torch.cat([b[1] for b in data(bs=8).valid] * 2),
        )
        learn.dls.train = [(x[i::n], y[i::n]) for i in range(n)]
        with learn.no_bar(), learn.no_logging():
            learn.fit(1, 0.1, wd=0.0)
        grads.append(s.conv.weight.detach().clone())
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-4, atol=1e-5)


# --- layers, adapters, hooks
def test_pairs_keep_the_order_given():
    m = Hint([("act", "norm"), ("conv", "conv")])
    learn = make(method=m)
    fit(learn)
    assert all(s == ["act", "conv"] and t == [["norm", "conv"]] for s, t in m.seen)


def test_adapters_train_and_stay_out_of_the_student():
    for opt_func in (SGD, lambda p, **kw: OptimWrapper(p, torch.optim.SGD, **kw)):
        learn = make(method=Hint({"conv": "conv"}), opt_func=opt_func)
        before = [p.detach().clone() for p in learn.distill.step.adapters()]
        assert before
        fit(learn)
        assert all((a != b).any() for a, b in zip(before, learn.distill.step.adapters()))
        assert set(learn.model.state_dict()) == set(net().state_dict())
        learn.opt = None
        learn.create_opt()  # as export and reset_opt do
        in_opt = {id(p) for g in learn.opt.param_lists for p in g}
        assert {id(p) for p in learn.distill.step.adapters()} <= in_opt


def test_adapters_reach_an_optimizer_made_before():
    learn = Learner(data(), net(), loss_func=F.cross_entropy)
    learn.create_opt()
    cb = DistillCallback(net(8), Hint({"conv": "conv"}))
    fit(learn, cbs=[cb, TermColumns()])
    assert {id(p) for p in cb.step.adapters()} <= {id(p) for g in learn.opt.param_lists for p in g}
    assert "hint" in learn.recorder.metric_names


@pytest.mark.parametrize("exc", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("where", ["forward", "after_pred", "after_loss", "before_step", None])
def test_hooks_are_gone(exc, where):
    s, t = net(), net(8)
    learn = make(s, t, Hint({"conv": "conv"}))
    if where == "forward":
        s.act.forward = lambda x: (_ for _ in ()).throw(exc("stop")) if s.training else x
        cb = None
    else:

        def stop(self):
            raise exc("stop")

        cb = Callback(**{where: stop}) if where else None
    if where:
        with pytest.raises(exc):
            fit(learn, cbs=cb)
    else:
        fit(learn, cbs=cb)
    assert n_hooks(s) == n_hooks(t) == 0 and "forward" not in vars(s)


def test_a_second_fit_after_an_interrupt_works():
    learn = make(method=Response() + Hint({"conv": "conv"}))

    def stop(self):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(learn, cbs=Callback(after_pred=stop))
    fit(learn)
    assert len(learn.recorder.values) == 1 and n_hooks(learn.model) == 0


# --- loss, columns
def test_validation_loss_is_the_task_loss():
    learn = fit(make(method=Response(alpha=1.0), metrics=accuracy))
    loss = learn.recorder.values[-1][learn.recorder.metric_names.index("valid_loss") - 1]
    learn.model.eval()
    with torch.no_grad():
        task = (
            sum(F.cross_entropy(learn.model(x), y) * len(y) for x, y in learn.dls.valid)
            / learn.dls.valid.n
        )
    assert loss == pytest.approx(task.item(), rel=1e-5)


def test_terms_are_columns():
    learn = make(
        method=Response(alpha=SchedLin(0, 1)) + Hint({"conv": "conv"}, weight=0.0), metrics=accuracy
    )
    fit(learn, 2)
    names = list(learn.recorder.metric_names)
    assert names == [
        "epoch",
        "train_loss",
        "valid_loss",
        "accuracy",
        "task",
        "response",
        "hint",
        "time",
    ]
    assert [len(v) for v in learn.recorder.values] == [6, 6]
    assert all(v[5] != v[5] for v in learn.recorder.values)  # weight 0: not computed
    assert len(learn.validate()) == 2  # outside fit: loss and accuracy alone


def test_column_is_the_mean_over_images():
    s, t = net(), net(8).eval()
    learn = make(s, t, Response(T=2, alpha=0.5), opt_func=SGD)
    batches = [(torch.randn(n, 3, 8, 8), torch.arange(n) % 3) for n in (8, 3)]
    learn.dls.train = batches
    ref = copy.deepcopy(s).train()
    want = sum(response_loss(ref(x), t(x), 2).item() * len(x) for x, _ in batches) / 11
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 0.0)
    assert learn.recorder.values[-1][-1] == pytest.approx(want, rel=1e-4)


# --- fastai idioms
def test_lr_find_restores_student_and_adapters():
    learn = make(method=Response() + Hint({"conv": "conv"}))
    before = fingerprint(learn.model), fingerprint(learn.distill.step.bound)
    with learn.no_bar(), learn.no_logging():
        learn.lr_find(show_plot=False, num_it=10)
    assert (fingerprint(learn.model), fingerprint(learn.distill.step.bound)) == before
    fit(learn)


def test_fit_one_cycle_save_export_load(tmp_path):
    learn = make(
        method=Response() + Hint({"conv": "conv"}),
        metrics=accuracy,
        cbs=SaveModelCallback(monitor="accuracy"),
        path=tmp_path,
    )
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(2, 1e-2)
    learn.export("kd.pkl")
    plain = Learner(
        data(),
        copy.deepcopy(learn.model),
        loss_func=F.cross_entropy,
        metrics=accuracy,
        path=tmp_path,
        cbs=SaveModelCallback(monitor="accuracy"),
    )
    with plain.no_bar(), plain.no_logging():
        plain.fit_one_cycle(2, 1e-5)
    plain.export("plain.pkl")
    assert (tmp_path / "kd.pkl").stat().st_size <= (tmp_path / "plain.pkl").stat().st_size + 2000
    again = load_learner(tmp_path / "kd.pkl")
    assert not any(isinstance(c, (DistillCallback, TermColumns)) for c in again.cbs)
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(again.model.eval()(x), learn.model.eval()(x))
    fit(learn)  # and the exporting one still distils
    assert learn.recorder.values[-1][-1] > 0


def test_an_exported_learner_holds_no_adapter(tmp_path):
    learn = fit(make(method=Hint({"conv": "conv"}), path=tmp_path))
    learn.export("kd.pkl")
    assert b"Hint" not in (tmp_path / "kd.pkl").read_bytes()


def test_deepcopy_keeps_distilling():
    learn = copy.deepcopy(make(method=Response(T=3)))
    fit(learn)
    assert learn.distill.method.T == 3 and learn.recorder.values[-1][-1] > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_terms_are_float32_under_autocast(dtype):
    seen = {}

    class Half(Callback):
        "fastai's mixed precision is CUDA's; this does the same with the CPU's autocast."

        order = 10

        def before_batch(self):
            self.cast = torch.autocast("cpu", dtype=dtype)
            self.cast.__enter__()

        def after_pred(self):
            seen["pred"] = self.pred.dtype

        def after_loss(self):
            self.cast.__exit__(None, None, None)
            seen["loss"] = self.loss_grad.dtype

    class Spy(Response):
        def terms(self, p):
            out = super().terms(p)
            seen.update(teacher=p.teachers[0].out.dtype, term=out["response"].dtype)
            return out

    learn = make(method=Spy())
    fit(learn, cbs=Half())
    assert seen == {"pred": dtype, "teacher": dtype, "term": torch.float32, "loss": torch.float32}
    assert learn.recorder.values[-1][-1] == learn.recorder.values[-1][-1]


# --- wrong use
@pytest.mark.parametrize(
    "call, words",
    [
        (
            lambda: make(teacher=net(8, num_classes=5)),
            "the student gives 3 logits, the teachers: Sequential 5",
        ),
        (
            lambda: make(teacher=nn.Conv2d(1, 3, 3)),
            "teacher Conv2d fails on a batch of shape (2, 3, 8, 8)",
        ),
        (lambda: make(student=nn.Conv2d(1, 3, 3)), "the student fails"),
        (lambda: make(method=Hint({"convv": "conv"})), "Near: conv"),
        (lambda: make(method=Hint({"conv": "cnov"})), "Near: conv"),
        (lambda: make(method="respose"), "near: response"),
        (lambda: make(teacher=[]), "no teacher"),
        (lambda: make(teacher=net), "got function"),
        (lambda: distill(data(), net, net(8)), "call it first"),
        (
            lambda: distill(data(), Learner(data(), net(), loss_func=F.cross_entropy), net(8)),
            "student.model",
        ),
    ],
)
def test_wrong_use_is_answered_before_training(call, words):
    with pytest.raises((ValueError, TypeError, RuntimeError)) as e:
        call()
    assert words in str(e.value)


def test_student_as_its_own_teacher():
    s = net()
    with pytest.raises(ValueError, match="the same module"):
        make(s, s)


def test_a_term_that_is_no_scalar():
    class Bad(Method):
        def weights(self, pct=0.0):
            return {"task": 1.0, "bad": 1.0}

        def terms(self, p):
            return {"bad": p.student.out}

    with pytest.raises(ValueError, match="term bad of Bad.* must be a scalar"):
        make(method=Bad())


@pytest.mark.parametrize("few", [dict(val_bs=1), dict(n_valid=1), dict(n_valid=1, bs=1)], ids=str)
def test_a_student_is_tried_on_two_images_where_a_batch_has_one(few):
    dls = phantom_dls(**dict(n_train=16, n_valid=8, size=32, bs=8, device="cpu") | few)
    pooled = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    learn = distill(dls, nn.Sequential(pooled, nn.BatchNorm1d(4), nn.Linear(4, 8)), small_teacher())
    if dls.train.bs > 1:
        fit(learn)
    else:
        with pytest.raises(ValueError, match="cannot train on one image"):
            fit(learn)


@pytest.mark.parametrize("task", ["classify", "segment"])
def test_a_batch_of_one_is_tried_with_its_image_mirrored(task):
    kw = dict(n_train=4, n_valid=3, size=32, task=task, device="cpu")
    for bs in (1, 2, 3):
        dls = phantom_dls(bs=2, val_bs=bs, **kw)
        restart(dls, 0)
        (x, y), known = plain(dls.valid.one_batch()), random_state(dls)
        restart(dls, 0)
        (seen,), (target,) = images_of(dls, "cpu")
        assert str(random_state(dls)) == str(known)  # nothing more is drawn
        turned = (x.flip(-1), y if y.ndim == 1 else y.flip(-1))
        want = [torch.cat(pair) for pair in zip((x, y), turned)] if bs == 1 else (x[:2], y[:2])
        assert torch.equal(seen, want[0]) and torch.equal(target, want[1])
        assert len(images_of(dls, "cpu", 1)[0][0]) == 1


def test_the_trial_leaves_the_student_as_it_was():
    s = net().train()
    before = fingerprint(s)
    make(s)
    assert fingerprint(s) == before and s.training and all(p.grad is None for p in s.parameters())


def test_column_counts_only_the_images_it_was_computed_for():
    s, t = net(), net(8).eval()
    learn = make(s, t, Response(T=2, alpha=lambda pct: 0.0 if pct < 0.4 else 0.5), opt_func=SGD)
    batches = [(torch.randn(4, 3, 8, 8), torch.arange(4) % 3) for _ in range(2)]
    learn.dls.train = batches
    ref = copy.deepcopy(s).train()
    # the first batch had weight 0
    want = [response_loss(ref(x), t(x), 2).item() for x, _ in batches][1]
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 0.0)
    assert learn.recorder.values[-1][-1] == pytest.approx(want, rel=1e-4)


def test_loaders_without_transforms_have_no_normalisation():
    from fastai.data.core import DataLoaders
    from fastai.data.load import DataLoader
    from kdmedlearn.core.teacher import norm_of

    items = list(data().train.dataset)
    assert norm_of(DataLoaders(DataLoader(items, bs=4), DataLoader(items, bs=4))) is None


def test_arguments_in_the_wrong_place_are_named():
    with pytest.raises(
        TypeError, match="method Response; the order is distill.dls, student, teacher, method"
    ):
        distill(data(), net(), Response())
    with pytest.raises(TypeError, match="DataLoaders, got str; image_dls"):
        distill("my_images", net(), net())


# --- loaders that name no loss
def bare(y, n=8):
    "Loaders of PyTorch, of bare tensors."
    both = TensorDataset(torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(0)), y)
    return DataLoaders(DataLoader(both, batch_size=4, shuffle=True), DataLoader(both, batch_size=4))


def test_class_numbers_without_a_loss_get_cross_entropy():
    y = torch.arange(8) % 3
    learn = fit(distill(bare(y), net(), net(8), metrics=accuracy))
    assert isinstance(learn.loss_func, CrossEntropyLossFlat)
    z = learn.model.eval()(learn.dls.valid.dataset.tensors[0])
    assert learn.validate()[0] == pytest.approx(F.cross_entropy(z, y).item(), rel=1e-5)
    given = F.cross_entropy
    assert distill(bare(y), net(), net(8), loss_func=given).loss_func is given
    dls = data()
    dls.train_ds.loss_func = given
    assert distill(dls, net(), net(8)).loss_func is given


@pytest.mark.parametrize(
    "y",
    [
        torch.rand(8, 3),
        torch.ones(8, 3).long(),
        torch.arange(8.0),
        torch.arange(8)[:, None] % 3,
        torch.zeros(8).bool(),
        torch.zeros(8, 8, 8).long(),
    ],
)
def test_other_targets_without_a_loss_are_asked_for_one(y):
    with pytest.raises(ValueError) as e:
        distill(bare(y), net(), net(8))
    said = str(e.value)
    assert str(tuple(y[:2].shape)) in said and "loss_func=nn.BCEWithLogitsLoss()" in said


# --- a student of masks that sees fewer pixels
def mask_dls(**kw):
    kw = dict(n_train=8, n_valid=4, size=64, bs=4, task="segment", device="cpu") | kw
    return phantom_dls(**kw)


def shrunk(x, size=32):
    return F.interpolate(x, (size, size), mode="bilinear", antialias=True)


def enlarged(z, size=64):
    return F.interpolate(z, (size, size), mode="bilinear")


@pytest.mark.parametrize("method", [KDAS(), SoftMasks()], ids=repr)
def test_a_small_student_of_masks_is_that_written_out(method):
    dls, student, teacher = mask_dls(), small_unet(), small_unet()
    alike = copy.deepcopy(student)
    learn = distill(dls, student, teacher, method, student_size=32)
    x, y = map(plain, dls.valid.one_batch())
    z = enlarged(alike.eval()(shrunk(x)))
    torch.testing.assert_close(learn.model.eval()(x), z)

    class ByHand(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = alike

        def forward(self, images):
            return enlarged(self.net(shrunk(images)))

    step = DistillStep(ByHand(), teacher, method, learn.loss_func).setup(x, y)
    want, got = step(x, y), learn.distill.step(x, y)
    assert list(got.terms) == list(want.terms)
    for k in want.terms:
        torch.testing.assert_close(got.terms[k], want.terms[k])
    torch.testing.assert_close(learn.validate()[0], StructureLoss()(z, y).item(), rtol=1e-5, atol=0)
    preds, _ = learn.get_preds(dl=dls.valid)
    torch.testing.assert_close(plain(preds), z.sigmoid())
    got.loss.backward()
    want.loss.backward()
    for a, b in zip(student.parameters(), alike.parameters()):
        torch.testing.assert_close(a.grad, b.grad)


@pytest.mark.parametrize("method", [KDAS(), SoftMasks(), KDAS() + SoftMasks()], ids=repr)
@pytest.mark.parametrize("more", [{}, {"unlabelled": "rest"}], ids=["labelled", "unlabelled"])
def test_a_small_student_of_masks_trains_and_is_saved_as_a_plain_one(method, more, tmp_path):
    dls, student = mask_dls(n_unlabelled=8 if more else 0), small_unet()
    sizes, names = [], list(small_unet().state_dict())
    first = next(m for m in student.modules() if isinstance(m, nn.Conv2d))
    first.register_forward_pre_hook(lambda m, x: sizes.append(tuple(x[0].shape[2:])))
    kw = dict(metrics=[dice, RegionDice()], student_size=32) | more
    learn = fit(distill(dls, student, small_unet(), method, **kw))
    assert set(sizes) == {(32, 32)}
    losses = learn.recorder.values[-1]
    assert len(losses) == 4 + len(learn.distill.term_names) and all(v == v for v in losses)
    assert score_regions(learn, dls.valid, original=False)["dice"] == pytest.approx(losses[3])
    # the file is that of the plain student
    file = save_model(learn.model, tmp_path / "s.safetensors", "small_unet", list(dls.vocab))
    plain_one, x = load_model(file), plain(dls.valid.one_batch()[0])
    assert list(plain_one.state_dict()) == names and not n_hooks(plain_one)
    z = plain_one(shrunk(x))
    torch.testing.assert_close(learn.model.eval()(x), enlarged(z))
    teacher = Teacher(plain_one, size=32)  # as a teacher of that size it answers the same
    torch.testing.assert_close(teacher.see((x,), None).out, enlarged(z))


def test_an_exported_small_student_of_masks_answers_the_same(tmp_path):
    dls = mask_dls()
    learn = distill(dls, small_unet(), small_unet(), KDAS(), student_size=32)
    x = plain(dls.valid.one_batch()[0])
    want = learn.model.eval()(x)
    learn.export(tmp_path / "s.pkl")
    again = load_learner(tmp_path / "s.pkl").model
    assert type(again) is type(small_unet()) and n_hooks(again) == 2
    torch.testing.assert_close(again.eval()(x), want)
    at_size(again, None)
    assert not n_hooks(again)
    torch.testing.assert_close(again(shrunk(x)), shrunk_answer(learn.model, x))


def shrunk_answer(model, x):
    bare = at_size(copy.deepcopy(model), None)
    return bare(shrunk(x))


@pytest.mark.parametrize(
    "wrap",
    [lambda z: (z, 2 * z), lambda z: {"out": z, "aux": [z]}, lambda z: [z]],
    ids=["tuple", "dict", "list"],
)
def test_maps_of_several_heads_and_wrapped_ones_come_back(wrap):
    class Wrapped(nn.Conv2d):
        def forward(self, x):
            return wrap(super().forward(x))

    x, model = torch.rand(2, 3, 64, 48), at_size(Wrapped(3, 1, 1), (32, 24))
    small = F.interpolate(x, (32, 24), mode="bilinear", antialias=True)
    out, bare = model(x), at_size(copy.deepcopy(model), None)(small)
    heads = lambda o: [o] if isinstance(o, torch.Tensor) else list(o)
    bare = heads(bare["out"] if isinstance(bare, dict) else bare)
    assert len(heads(out)) == len(bare)
    for a, b in zip(heads(out), bare):
        torch.testing.assert_close(a, F.interpolate(b, (64, 48), mode="bilinear"))
    same = model(small)  # of that size already: the output as it is
    assert type(same) is type(wrap(small))


def test_a_size_given_twice_is_the_last_one():
    x, m = torch.rand(1, 3, 16, 16), nn.Conv2d(3, 1, 1)
    seen = []
    m.register_forward_hook(lambda m, i, o: seen.append(tuple(i[0].shape[2:])))
    at_size(at_size(m, 8), 4)
    assert m(x).shape[2:] == (16, 16) and seen == [(4, 4)] and n_hooks(m) == 3


def test_all_students_of_an_experiment_see_the_size():
    from kdmedlearn.experiments.experiment import train_arms

    learners = train_arms(
        mask_dls(), small_unet, small_unet(), KDAS(), 1, 1e-3, seed=0, student_size=32
    )
    x = torch.rand(1, 3, 64, 64)
    for learn in learners.values():
        m = learn.model.eval()
        torch.testing.assert_close(m(x), enlarged(shrunk_answer(m, x)))
