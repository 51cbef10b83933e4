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
from kdmedlearn import distill, DistillCallback, Response
from kdmedlearn.core.method import Method
from kdmedlearn.core.taps import n_hooks
from kdmedlearn.core.teacher import Teacher
from kdmedlearn.methods.response import response_loss
from kdmedlearn.train.distillation import TermColumns


def make(student=None, teacher=None, method="response", dls=None, **kw):
    return distill(
        dls or data(),
        student or net(),
        net(8) if teacher is None else teacher,
        method=method,
        loss_func=F.cross_entropy,
        **kw
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
    assert t.calls == [(False, False, "cpu")] * (
        2 * len(learn.dls.train)
    )  # eval, no grad, not in validation
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
    mean, std = torch.tensor([0.4, 0.5, 0.6]).reshape(1, 3, 1, 1), torch.tensor(
        [0.2, 0.3, 0.4]
    ).reshape(1, 3, 1, 1)
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
        x, y = torch.cat([b[0] for b in data(bs=8).valid] * 2), torch.cat(
            [b[1] for b in data(bs=8).valid] * 2
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
    want = [response_loss(ref(x), t(x), 2).item() for x, _ in batches][
        1
    ]  # the first batch had weight 0
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
