"""HDKD against the values of the released code, and what must hold for any size, any channels and
any weights."""

import copy
import re

import pytest
import timm
import torch
import torch.nn.functional as F
from fastai.learner import Learner
from fastai.metrics import accuracy
from fastai.optimizer import SGD
from golden_values import close, filled, filled_input, golden
from helpers import fingerprint
from safetensors.torch import save_file
from torch import nn

from kdmedlearn import distill, HDKD, phantom_dls, Response
from kdmedlearn.core.outputs import Outputs, Pass
from kdmedlearn.core.step import total_loss
from kdmedlearn.core.taps import taps
from kdmedlearn.evaluation.classes import predictions
from kdmedlearn.methods.hdkd import feature_losses, logit_loss
from kdmedlearn.models.hdkd import (
    DFLT,
    HDKD_NAMES,
    HDKDStudent,
    HDKDTeacher,
    load_released,
    resample,
)
from kdmedlearn.models.mbcsa import (
    CBAM,
    ChannelAttention,
    conv_layer,
    MBConv,
    MBCSA,
    SpatialAttention,
)
from kdmedlearn.models.weights import our_name

ABOUT, VALUES = golden("hdkd")
TINY = dict(widths=(16, 16, 16), depths=(1, 1, 1))
TINY_STUDENT = dict(TINY, dim=16, depth=1, heads=2)


def block_name(released, block):
    """Name of a parameter inside one block, from the renaming of whole models; without expansion
    the released layers 0, 1, 3, 4 are what else are 3, 4, 7, 8."""
    if block == "cbam":
        return our_name(f"x.conv.fn.6.{released}", HDKD_NAMES).removeprefix("x.attend.")
    if block == "mbcsa_expansion1_down":
        released = re.sub(
            r"fn\.(\d)", lambda m: f"fn.{ {0: 3, 1: 4, 3: 7, 4: 8}[int(m[1])] }", released
        )
    return our_name(f"x.{released}", HDKD_NAMES).removeprefix("x.")


def dflt_name(released):
    return our_name(f"DFLT_module.{released}", HDKD_NAMES).removeprefix("dflt.")


BLOCKS = dict(
    stem_down=lambda: conv_layer(3, 8, 3, 2),
    cbam=lambda: CBAM(32),
    mbcsa_down=lambda: MBCSA(8, 12, downsample=True),
    mbcsa_same=lambda: MBCSA(12, 12),
    mbcsa_train=lambda: MBCSA(12, 12),
    mbcsa_expansion1_down=lambda: MBCSA(8, 12, downsample=True, expansion=1),
    mbconv_down=lambda: MBConv(8, 12, downsample=True),
)


@pytest.mark.parametrize("name", [*BLOCKS, "channel_attention", "spatial_attention"])
def test_blocks_equal_the_release(name):
    about = ABOUT[name]
    model = {
        **BLOCKS,
        "channel_attention": lambda: ChannelAttention(32),
        "spatial_attention": SpatialAttention,
    }[name]().double()
    state = filled(about["keys"])
    if name in ("channel_attention", "spatial_attention"):
        state = {
            k.replace("fc.0", "squeeze").replace("fc.2", "excite").replace("conv1", "conv"): v
            for k, v in state.items()
        }
    elif name != "stem_down":
        state = {block_name(k, name): v for k, v in state.items()}
    model.load_state_dict(state)
    model.train(about["mode"] == "train")
    assert sum(p.numel() for p in model.parameters()) == about["params"]
    assert close(model(filled_input(about["input"])), VALUES[f"{name}.out0"])


@pytest.mark.parametrize("name", ["dflt_distilled", "dflt_plain"])
def test_transformer_equals_the_release(name):
    about = ABOUT[name]
    model = (
        DFLT(24, (4, 4), dim=32, depth=2, heads=4, distilled=name == "dflt_distilled")
        .double()
        .eval()
    )
    model.load_state_dict({dflt_name(k): v for k, v in filled(about["keys"]).items()})
    out = model(filled_input(about["input"]))
    for i in range(out.shape[1]):
        assert close(out[:, i], VALUES[f"{name}.out{i}"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "name,cls",
    [("teacher", HDKDTeacher), ("student_hdkd", HDKDStudent), ("student_plain", HDKDStudent)],
)
def test_released_weights_load_and_give_the_released_outputs(name, cls):
    about, x = ABOUT[name], filled_input(ABOUT[name]["input"])
    model = load_released(filled(about["keys"]))
    assert (
        type(model) is cls
        and not model.training
        and sum(p.numel() for p in model.parameters()) == about["params"]
    )
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    heads = model.forward_heads(x) if cls is HDKDStudent else (model(x),)
    for i, z in enumerate(heads):
        assert close(z, VALUES[f"{name}.out{i}"])
    assert close(model(x), sum(VALUES[f"{name}.out{i}"] for i in range(len(heads))) / len(heads))


def test_parameters_at_full_size():
    count = {
        k: sum(p.numel() for p in m.parameters())
        for k, m in dict(
            teacher_7=HDKDTeacher(7),
            hdkd_7=HDKDStudent(7),
            student_7=HDKDStudent(7, distilled=False),
        ).items()
    }
    assert (
        count
        == ABOUT["full_size_params_224px"]
        == {
            "teacher_7": 3_948_677,
            "hdkd_7": 3_727_288,
            "student_7": 3_724_977,
        }
    )


@pytest.fixture(scope="module")
def seen():
    "The released models, their input and labels, as a `Pass` whose student still has its graph."
    teacher, student = (
        load_released(filled(ABOUT[n]["keys"])) for n in ("teacher", "student_hdkd")
    )
    x, y = filled_input(ABOUT["teacher"]["input"]), torch.tensor([1, 3])
    with torch.no_grad(), taps(teacher, HDKD().teacher_layers) as ft:
        zt = teacher(x)
    with taps(student, ["head_cls", *HDKD().student_layers]) as fs:
        zs = student(x)
    return student, Pass(Outputs(zs, fs), (Outputs(zt, ft),), y)


def value(method, p):
    """What the Learner would train with: the terms of the method and the task loss of the layer it
    names, weighted."""
    # with logit="none" the released task loss is of this head too
    head = p.student.features["head_cls"]
    return total_loss({"task": F.cross_entropy(head, p.target)} | method.terms(p), method.weights())


@pytest.mark.parametrize("logit", ["soft", "hard"])
@pytest.mark.parametrize("T", [1, 4])
def test_logit_loss_equals_the_release(seen, logit, T):
    assert close(
        value(HDKD(T=T, lam=0, logit=logit), seen[1]), VALUES[f"loss.logit.{logit}.tau{T}.alpha0.5"]
    )


@pytest.mark.parametrize("T", [1, 4])
def test_without_logit_term_the_class_heads_loss_remains(seen, T):
    m = HDKD(T=T, logit="none")
    assert m.weights()["task"] == 1 and "logit" not in m.terms(seen[1])
    assert close(
        F.cross_entropy(seen[1].student.features["head_cls"], seen[1].target),
        VALUES[f"loss.logit.none.tau{T}.alpha0.5"],
    )


@pytest.mark.parametrize("beta", [0, 1, 2])
def test_feature_loss_equals_the_release(seen, beta):
    assert close(HDKD(beta=beta).terms(seen[1])["feature"], VALUES[f"loss.feature.alpha{beta}"])


def test_total_and_its_gradients_equal_the_release(seen):
    student, p = seen
    loss = value(HDKD(), p)
    assert close(loss, VALUES["loss.total.lambda10"])
    grads = dict(
        zip(
            dict(student.named_parameters()),
            torch.autograd.grad(loss, list(student.parameters()), retain_graph=True),
        )
    )
    norm = torch.stack([g.norm() for g in grads.values()]).norm()
    assert abs(norm.item() / float(VALUES["grad.total.norm"]) - 1) < 1e-9
    names = [
        k.removeprefix("grad.total.")
        for k in VALUES.files
        if k.startswith("grad.total.") and k != "grad.total.norm"
    ]
    assert len(names) == 6
    for k in names:
        assert close(grads[our_name(k, HDKD_NAMES)], VALUES[f"grad.total.{k}"]), k


def test_batchmean_is_the_released_value_times_the_classes():
    s, t = torch.randn(2, 5, 7)
    assert torch.allclose(logit_loss(s, t, 3.0, reduction="batchmean"), 7 * logit_loss(s, t, 3.0))
    assert torch.allclose(
        logit_loss(s, t, 3.0, reduction="batchmean"),
        9 * F.kl_div((s / 3).log_softmax(1), (t / 3).softmax(1), reduction="batchmean"),
        rtol=1e-5,
    )


def test_feature_loss_counts_later_pairs_more():
    a, b = (
        {"x": torch.zeros(2, 3, 4, 4), "y": torch.zeros(2, 3, 4, 4)},
        {
            "x": torch.ones(2, 3, 4, 4),
            "y": torch.ones(2, 3, 4, 4),
        },
    )
    assert [
        feature_losses(a, b, [("x", "x"), ("y", "y")], beta).item() for beta in (0, 1, 2, 3)
    ] == [2, 3, 5, 9]


# ---- models of other sizes


@pytest.mark.parametrize("size,chans", [(16, 1), (32, 3), ((32, 48), 4), ((64, 16), 2)])
def test_any_size_divisible_by_16_and_any_channels(size, chans):
    h, w = (size, size) if isinstance(size, int) else size
    x = torch.randn(2, chans, h, w)
    for distilled in (True, False):
        assert HDKDStudent(5, chans, size, **TINY_STUDENT, distilled=distilled)(x).shape == (2, 5)
    assert HDKDTeacher(5, chans, size, **TINY)(x).shape == (2, 5)


@pytest.mark.parametrize("size", ["32", 32.0, None, (32, 32, 32), (16.0, 16)])
def test_sizes_that_are_none_are_answered(size):
    with pytest.raises(ValueError, match="whole number of pixels or a pair"):
        HDKDStudent(img_size=size)


@pytest.mark.parametrize("size", [8, 40, (32, 33), 0])
def test_other_sizes_are_answered(size):
    for make in (HDKDStudent, HDKDTeacher):
        with pytest.raises(ValueError, match="multiples of 16; got"):
            make(img_size=size)
    if size == 40:
        with pytest.raises(ValueError, match="40x40.*32x32|40x40.*48x48"):
            HDKDTeacher(**TINY)(torch.randn(1, 3, 40, 40))


def test_images_that_do_not_fit_are_answered():
    s = HDKDStudent(3, img_size=32, **TINY_STUDENT)
    with pytest.raises(ValueError, match=r"made for images of 32x32, got 48x48.*set_input_size"):
        s(torch.randn(1, 3, 48, 48))
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\), got \(1, 1, 32, 32\)"):
        s(torch.randn(1, 1, 32, 32))
    with pytest.raises(ValueError, match="at least 16 channels"):
        HDKDStudent(widths=(2, 4, 8))
    with pytest.raises(ValueError, match="heads"):
        HDKDStudent(dim=30, heads=4)
    with pytest.raises(ValueError, match="three stages"):
        HDKDTeacher(widths=(16, 16))
    with pytest.raises(ValueError, match="same width; got 8 and 12"):
        MBCSA(8, 12)


@pytest.mark.parametrize(
    "name",
    [
        "hdkd_teacher",
        "hdkd_student",
        "hdkd_student_plain",
        "hdkd_teacher_small",
        "hdkd_student_small",
        "hdkd_student_small_plain",
    ],
)
def test_timm_finds_them(name):
    assert timm.is_model(name)
    m = timm.create_model(name, num_classes=5, in_chans=1, img_size=32)
    assert m(torch.randn(2, 1, 32, 32)).shape == (2, 5) and m.num_classes == 5
    m.reset_classifier(2)
    assert m(torch.randn(2, 1, 32, 32)).shape == (2, 2) and m.num_classes == 2
    with pytest.raises(ValueError, match="load_released"):
        timm.create_model(name, pretrained=True)


def test_prediction_is_the_mean_of_the_heads_in_training_and_evaluation():
    s, x = HDKDStudent(3, img_size=32, **TINY_STUDENT).eval(), torch.randn(2, 3, 32, 32)
    a, b = s.forward_heads(x)
    assert torch.equal(s(x), (a + b) / 2) and not torch.allclose(a, b)
    assert s.train()(x).shape == (2, 3)


def test_position_embeddings_are_resampled():
    pos = torch.randn(1, 2 + 16, 8)
    same, more = resample(pos, 2, (4, 4)), resample(pos, 2, (8, 6))
    assert same is pos and more.shape == (1, 50, 8) and torch.equal(more[:, :2], pos[:, :2])
    flat = torch.cat([pos[:, :2], torch.full((1, 16, 8), 3.0)], 1)
    # what is equal everywhere stays so
    assert torch.allclose(resample(flat, 2, (7, 5))[:, 2:], torch.tensor(3.0), atol=1e-5)
    with pytest.raises(ValueError, match="15 position embeddings"):
        resample(pos[:, :17], 2, (4, 4))
    a, b = HDKDStudent(3, img_size=64, **TINY_STUDENT), HDKDStudent(3, img_size=32, **TINY_STUDENT)
    b.load_state_dict(a.state_dict())
    assert torch.equal(b.dflt.pos_embed, resample(a.dflt.pos_embed, 2, (2, 2)))
    b.set_input_size((32, 64))
    assert b(torch.randn(1, 3, 32, 64)).shape == (1, 3)
    with pytest.raises(RuntimeError):
        b.load_state_dict(HDKDStudent(3, img_size=64, **TINY_STUDENT, distilled=False).state_dict())


# ---- released checkpoints


def released_state(name="student_hdkd"):
    return {
        k: v.float() if v.is_floating_point() else v for k, v in filled(ABOUT[name]["keys"]).items()
    }


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_load_released_from_a_file(tmp_path, suffix):
    state, path = released_state(), tmp_path / f"best{suffix}"
    if suffix == ".pth":
        torch.save({"model": {"module." + k: v for k, v in state.items()}, "epoch": 3}, path)
    else:
        save_file(state, path)
    m = load_released(path, num_classes=4)
    assert (
        next(m.parameters()).dtype == torch.float32
        and m.img_size == (64, 64)
        and m.num_classes == 4
    )
    assert torch.equal(m.head_cls.weight, state["head_cls.weight"])
    other = load_released(str(path), img_size=(96, 64))
    assert other(torch.randn(1, 3, 96, 64)).shape == (1, 4)


def test_load_released_answers_what_does_not_fit(tmp_path):
    state = released_state()
    with pytest.raises(ValueError, match=r"4 classes, you asked for 7.*reset_classifier\(7\)"):
        load_released(state, num_classes=7)
    with pytest.raises(RuntimeError, match="stage2.1.norm.bias"):
        load_released({k: v for k, v in state.items() if k != "stage2.1.conv.norm.bias"})
    with pytest.raises(RuntimeError, match="Unexpected"):
        load_released(state | {"extra.weight": torch.zeros(2)})
    with pytest.raises(ValueError, match="no HDKD model"):
        load_released(timm.create_model("resnet10t").state_dict())
    with pytest.raises(FileNotFoundError):
        load_released(tmp_path / "none.pth")
    with pytest.raises(ValueError, match="state dict"):
        load_released({})
    narrow = HDKDStudent(3, img_size=32, **TINY_STUDENT).eval()
    with pytest.raises(ValueError, match="say heads="):
        load_released(narrow.state_dict())  # 8 heads would load too, and answer something else
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(load_released(narrow.state_dict(), heads=2)(x), narrow(x))
    torch.save(HDKDTeacher(**TINY), tmp_path / "whole.pth")  # a pickled module may run code
    with pytest.raises(ValueError, match="could run code"):
        load_released(tmp_path / "whole.pth")


# ---- training


@pytest.fixture(scope="module")
def dls():
    return phantom_dls(n_train=16, n_valid=8, size=32, seed=0, bs=8)


def models(seed=0, **kw):
    torch.manual_seed(seed)
    return (
        HDKDStudent(8, img_size=32, **TINY_STUDENT | kw),
        HDKDTeacher(8, img_size=32, **TINY).eval(),
    )


def one_epoch(learn):
    "`learn` after one short epoch, without bars."
    learn.remove_cb(learn.progress)
    with learn.no_logging():
        learn.fit(1, 1e-3)
    return learn


def test_trains_by_name_with_its_columns_and_leaves_the_teacher_alone(dls):
    s, t = models()
    before, heads = fingerprint(t), copy.deepcopy((s.head_cls.weight, s.head_distill.weight))
    learn = distill(dls, s, t, "hdkd", metrics=accuracy)
    one_epoch(learn)
    assert {"task", "logit", "feature"} <= set(learn.recorder.metric_names)
    assert fingerprint(t) == before and not any(p.grad is not None for p in t.parameters())
    assert not torch.equal(heads[0], s.head_cls.weight) and not torch.equal(
        heads[1], s.head_distill.weight
    )
    assert learn.model is s and not [k for k in s.state_dict() if "teacher" in k]


def test_task_loss_is_of_the_class_head_in_training_and_of_the_mean_in_validation(dls):
    s, t = models()
    learn = distill(dls, s, t, HDKD(alpha=0.5, lam=0), opt_func=SGD)
    got = {}
    learn.add_cb(_Keep(got))
    one_epoch(learn)
    x, y = got["batch"]
    copy_of, _ = models()
    a, b = copy_of.train().forward_heads(x)
    assert got["task"] == pytest.approx(F.cross_entropy(a, y).item(), rel=1e-5)
    z, y = predictions(s, dls.valid)
    s.eval()
    xb = torch.cat([x for x, _ in dls.valid]).as_subclass(torch.Tensor)
    with torch.no_grad():
        assert torch.allclose(z, sum(s.forward_heads(xb)) / 2, atol=1e-5)
    assert float(learn.validate()[0]) == pytest.approx(F.cross_entropy(z, y).item(), rel=1e-5)


from fastai.callback.core import Callback  # noqa: E402


class _Keep(Callback):
    "The first batch of training and its task term."

    order = 6

    def __init__(self, got):
        self.got = got

    def after_loss(self):
        if self.training and "batch" not in self.got:
            self.got["batch"] = tuple(o.as_subclass(torch.Tensor).clone() for o in (self.x, self.y))
            self.got["task"] = float(self.learn.distill.tally.mean("task"))


@pytest.mark.parametrize("method", [HDKD(), HDKD(lam=0), HDKD(logit="hard"), HDKD(logit="none")])
def test_batch_norm_statistics_after_a_step_equal_those_of_a_plain_step(dls, method):
    """One forward of the student: the statistics move as often as without a teacher, and to the
    same numbers (learning rate 0)."""
    stats, forwards = [], []
    for distilling in (True, False):
        s, t = models()
        calls = {"student": 0, "teacher": 0}
        s.stage1.register_forward_hook(
            lambda *a: calls.__setitem__("student", calls["student"] + s.training)
        )
        t.stage1.register_forward_hook(
            lambda *a: calls.__setitem__("teacher", calls["teacher"] + 1)
        )
        learn = (
            distill(dls, s, t, method, opt_func=SGD)
            if distilling
            else Learner(dls, s, opt_func=SGD)
        )
        calls["teacher"] = calls["student"] = 0  # the trial
        learn.remove_cb(learn.progress)
        from kdmedlearn.data.loaders import restart

        restart(dls, 1)
        with learn.no_logging():
            learn.fit(1, 0.0)
        stats.append(
            {k: v.clone() for k, v in s.state_dict().items() if "running" in k or "batches" in k}
        )
        forwards.append(dict(calls))
    assert forwards[0] == {"student": len(dls.train), "teacher": len(dls.train)} and forwards[1][
        "student"
    ] == len(dls.train)
    assert all(torch.equal(stats[0][k], stats[1][k]) for k in stats[1])
    assert any(v.ne(0).any() for k, v in stats[0].items() if "running_mean" in k)


def test_a_teacher_with_other_stages_is_answered_with_both_shapes_and_names(dls):
    s, _ = models()
    wide = HDKDTeacher(8, img_size=32, widths=(16, 32, 16), depths=(1, 1, 1))
    with pytest.raises(
        ValueError,
        match=(
            r"student layer 'stage2' gives maps \(2, 16, 8, 8\), teacher layer 'stage2' \(2, 32,"
            r" 8, 8\)"
        ),
    ):
        distill(dls, s, wide, HDKD())
    one_epoch(distill(dls, s, wide, HDKD(pairs=[("stage1", "stage1"), ("stage3", "stage3")])))
    one_epoch(distill(dls, s, wide, HDKD(lam=0)))  # answers alone: any teacher will do
    with pytest.raises(ValueError, match="the student gives 8 logits, the teachers: HDKDTeacher 5"):
        distill(dls, s, HDKDTeacher(5, img_size=32, **TINY), HDKD())


def test_another_number_of_classes_than_the_data_have_is_answered(dls):
    s, t = HDKDStudent(5, img_size=32, **TINY_STUDENT), HDKDTeacher(5, img_size=32, **TINY)
    with pytest.raises(ValueError, match="5 logits and the data have 8 classes"):
        distill(dls, s, t, HDKD())


def test_students_without_its_heads_are_answered(dls):
    s, t = models(distilled=False)
    with pytest.raises(ValueError, match="no layer 'head_distill'.*logit='none'"):
        distill(dls, s, t, HDKD())
    one_epoch(distill(dls, s, t, HDKD(logit="none")))
    cnn = HDKDTeacher(8, img_size=32, **TINY)
    with pytest.raises(ValueError, match="no layer 'head_"):
        distill(dls, cnn, t, "hdkd")


@pytest.mark.parametrize(
    "kw,message",
    [
        (dict(T=0), "temperature T must be positive"),
        (dict(T=-1), "temperature T must be positive"),
        (dict(alpha=1.2), r"alpha must lie in \[0, 1\], got 1.2"),
        (dict(alpha=-0.1), "alpha must lie"),
        (dict(lam=-1), "lam must lie"),
        (dict(logit="medium"), "expected one of 'soft', 'hard', 'none'"),
        (dict(reduction="mean"), "'released', 'batchmean'"),
        (dict(logit="none", lam=0), "nothing is distilled"),
        (dict(pairs=[]), "without maps"),
        (dict(pairs=[1, 2]), "a pair is"),
        (dict(beta=float("nan")), "beta="),
    ],
)
def test_knobs_out_of_range_are_answered(kw, message):
    with pytest.raises(ValueError, match=message):
        HDKD(**kw)


def test_a_head_that_nothing_trains_is_warned_of():
    with pytest.warns(UserWarning, match="distillation head"):
        HDKD(alpha=0)
    with pytest.warns(UserWarning, match="class head"):
        HDKD(alpha=1)


def test_adds_up_with_other_methods_and_takes_schedules(dls):
    s, t = models()
    m = HDKD(alpha=lambda pct: pct, lam=lambda pct: 10 * pct) + Response(alpha=0.5)
    assert m.task_layer == "head_cls" and m.weights(0.5) == {
        "task": 0.25,
        "logit": 0.5,
        "feature": 5.0,
        "response": 0.5,
    }
    one_epoch(distill(dls, s, t, m))


def test_knobs_make_the_same_method_again():
    for m in (
        HDKD(),
        HDKD(T=2, alpha=0.3, beta=2, lam=0),
        HDKD(logit="none", pairs=[("stage3", "stage3")]),
    ):
        again = HDKD(**m.hyperparameters())
        assert (
            repr(again) == repr(m)
            and again.weights() == m.weights()
            and again.student_layers == m.student_layers
        )


@pytest.mark.slow
def test_copied_pickled_exported_it_is_the_same_model(dls, tmp_path):
    s, t = models()
    learn = one_epoch(distill(dls, s, t, HDKD(), path=tmp_path))
    x = torch.randn(2, 3, 32, 32)
    s.eval()
    expected = sum(s.forward_heads(x)) / 2
    assert torch.equal(copy.deepcopy(s)(x), expected)
    assert torch.allclose(torch.export.export(s, (x,)).module()(x), expected, atol=1e-6)
    learn.export("student.pkl")
    loaded = torch.load(tmp_path / "student.pkl", weights_only=False)
    assert (
        torch.allclose(loaded.model.cpu().eval()(x), expected, atol=1e-6)
        and type(loaded.model) is HDKDStudent
    )
    # still resamples, and to its own grid
    loaded.model.load_state_dict(HDKDStudent(8, img_size=64, **TINY_STUDENT).state_dict())
    assert loaded.model.dflt.pos_embed.shape == s.dflt.pos_embed.shape
