"""The step in plain PyTorch, declared hyperparameters, the registry, and what networks return."""

import copy, subprocess, sys, warnings
from collections import namedtuple
from functools import partial

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from fastai.callback.mixup import MixUp
from fastai.callback.tracker import EarlyStoppingCallback, SaveModelCallback
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import accuracy
from fastai.optimizer import SGD
from torch import nn

from helpers import Hint, Items, data, fingerprint, net
from kdmedlearn import distill
from kdmedlearn.core.method import as_method, code_of, Method, METHODS, ranges_of, with_params
from kdmedlearn.core.outputs import Outputs, Pass, Unwrap
from kdmedlearn.core.parameters import Share, Weight
from kdmedlearn.core.registry import names_in
from kdmedlearn.core.step import bind, DistillStep
from kdmedlearn.core.teacher import as_norm, as_teachers, Teacher
from kdmedlearn.core.trial import probabilities
from kdmedlearn.methods.feature import Feature
from kdmedlearn.methods.fusion import AttentionFusion, Ensemble, RelationAttention
from kdmedlearn.methods.hdkd import HDKD
from kdmedlearn.methods.kdas import KDAS, StructureLoss
from kdmedlearn.methods.masked import MGD
from kdmedlearn.methods.pearson import PKD
from kdmedlearn.methods.pixels import BernoulliKL, PixelKL
from kdmedlearn.methods.response import labels_loss, Response, response_loss
from kdmedlearn.models.guided import GuidedStudent
from kdmedlearn.models.hdkd import hdkd_student_small, hdkd_teacher_small
from kdmedlearn.models.polyp_pvt import PolypPVT
from kdmedlearn.models.small import small_student, small_teacher
from kdmedlearn.models.unet import large_unet, small_unet


def make(student=None, teacher=None, method="response", dls=None, **kw):
    kw = dict(loss_func=F.cross_entropy) | kw
    student, teacher = student or net(), net(8) if teacher is None else teacher
    return distill(dls or data(), student, teacher, method=method, **kw)


def fit(learn, n=1, lr=1e-2, **kw):
    with learn.no_bar(), learn.no_logging():
        learn.fit(n, lr, **kw)
    return learn


def images(n=16, size=8, channels=3, classes=3, bs=8, target=None):
    g = torch.Generator().manual_seed(0)
    y = target if target is not None else [torch.tensor(i % classes) for i in range(n)]
    items = [(torch.randn(channels, size, size, generator=g), y[i]) for i in range(n)]
    kw = dict(bs=bs, device="cpu", num_workers=0)
    return DataLoaders.from_dsets(Items(items), Items(items[:bs]), **kw)


# --- the step


def test_a_plain_loop_trains_as_a_learner_does():
    s, t = net(), net(8).eval()
    ref, (x, y) = copy.deepcopy(s), data().train.one_batch()
    step = DistillStep(ref, t, Response(T=3, alpha=0.7)).setup(x[:2], y[:2])
    ref.train()
    opt = torch.optim.SGD(step.parameters(), lr=0.1)
    for _ in range(3):
        opt.zero_grad()
        step(x, y).loss.backward()
        opt.step()
    learn = make(s, t, Response(T=3, alpha=0.7), opt_func=SGD)
    learn.dls.train = [(x, y)] * 3
    fit(learn, 1, 0.1, wd=0.0)
    for a, b in zip(s.parameters(), ref.parameters()):
        torch.testing.assert_close(a, b)


def test_the_step_owns_student_and_adapters_and_no_teacher():
    t = net(8)
    step = DistillStep(net(), t, Hint({"conv": "conv"})).setup(torch.randn(2, 3, 8, 8))
    assert len(step.adapters()) == 2
    own = {id(p) for p in step.parameters()}
    assert own == {id(p) for p in [*step.student.parameters(), *step.adapters()]}
    assert not own & {id(p) for p in t.parameters()}


def test_setup_leaves_student_teacher_and_chance_as_they_were():
    s, t = net().train(), net(8).train()
    s.drop = nn.Dropout(0.5)
    prints = fingerprint(s), fingerprint(t)
    torch.manual_seed(3)
    DistillStep(s, t).setup(torch.randn(2, 3, 8, 8), torch.tensor([0, 1]))
    seen = torch.rand(1)
    torch.manual_seed(3)
    torch.randn(2, 3, 8, 8)
    assert torch.equal(seen, torch.rand(1))
    assert (fingerprint(s), fingerprint(t)) == prints and s.training


def test_a_twin_shares_the_student_and_copies_the_method():
    step = DistillStep(net(), net(8), Response() + Feature({"conv": "conv"}))
    step.setup(torch.randn(2, 3, 8, 8), torch.tensor([0, 1]))
    twin = step.twin()
    twin.method.parts[0].T = 9.0
    assert step.method.parts[0].T == 4.0 and twin.bound[0].method.T == 9.0
    assert twin.student is step.student and twin.teachers[0] is step.teachers[0]
    a, b = (s.bound[1].state.convs["0_0"].weight for s in (step, twin))
    assert a is not b and torch.equal(a, b)


# --- hyperparameters


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: Response(T=True), "T must be a number"),
        (lambda: Response(T=float("inf")), "positive and finite"),
        (lambda: Response(temperature=4), "has no hyperparameter 'temperature'; "),
        (lambda: Response(4, 0.5, 1), "has 2 hyperparameters"),
        (lambda: Response(4, T=2), "got T twice"),
        (lambda: StructureLoss(window=True), "a whole number"),
        (lambda: AttentionFusion(d=True), "a whole number"),
        (lambda: Feature(relative=1), "expected True or False"),
        (lambda: Response(alpha=lambda pct: 2 * pct), "of its schedule"),
        (lambda: HDKD(beta="x"), "beta="),
    ],
)
def test_hyperparameters_are_checked(call, words):
    with pytest.raises((TypeError, ValueError)) as e:
        call()
    assert words in str(e.value)


def test_a_clone_changes_what_it_is_told_and_nothing_else():
    assert HDKD(lam=0).clone(lam=10).stages == HDKD().stages
    assert Response(T=3).clone(alpha=0.2).hyperparameters() == {"T": 3, "alpha": 0.2}
    m = Response(T=3)
    with pytest.raises(ValueError):
        m.T = -1
    assert m.T == 3


def test_a_method_of_ones_own_has_ranges_code_and_a_name():
    class Squares(Method, name="squares of the test"):
        lam = Weight(2.0)

        def weights(self, pct=0.0):
            return {"task": 1.0, "squares": self.weight_of("lam", pct)}

        def terms(self, p):
            return {"squares": p.student.out.pow(2).mean()}

    assert ranges_of(Squares())["lam"].kind == "log"
    assert code_of(Squares(lam=5.0)) == "Squares(lam=5)"
    learn = fit(make(method="squares of the test"))
    assert "squares" in learn.recorder.metric_names


def test_methods_of_version_0_1_are_told_what_to_change():
    with pytest.raises(TypeError, match="`setup` returns what depends on shapes"):

        class Old(Method):
            def build(self, p):
                pass


def test_a_method_with_an_init_of_its_own_is_told_to_declare():
    with pytest.raises(TypeError, match="declare its arguments in the class"):

        class Own(Method):
            def __init__(self, w=1.0):
                super().__init__()
                self.w = w


@pytest.mark.parametrize("method", ["response", Response, Response()])
def test_hyperparameters_are_set_in_a_method_by_name_class_and_object(method):
    assert with_params(method, {"T": 6.0}).hyperparameters() == {"T": 6.0, "alpha": 0.9}


def test_hyperparameters_are_set_in_a_list_of_names():
    m = with_params(["response", "feature"], {"response.T": 6.0, "feature.lam": 2.0})
    assert (m.parts[0].T, m.parts[1].lam) == (6.0, 2.0)


# --- the registry


def test_built_in_names_are_known_without_importing_them():
    code = (
        "import sys; from kdmedlearn.core.method import METHODS;"
        "assert 'kdas' in METHODS.names();"
        "assert not [m for m in sys.modules if m.startswith('kdmedlearn.methods.')];"
        "METHODS['response'];"
        "assert 'kdmedlearn.methods.kdas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_name_that_is_taken_is_refused_unless_asked_for():
    with pytest.raises(ValueError, match="'response' exists already .*replace=True"):

        class Mine(Method, name="response"):
            pass

    assert METHODS["response"] is Response
    try:

        class Other(Method, name="response", replace=True):
            def weights(self, pct=0.0):
                return {"task": 1.0}

        assert METHODS["response"] is Other
    finally:
        METHODS.classes["response"] = Response


def test_every_built_in_class_has_its_name_in_its_statement():
    for name in names_in("kdmedlearn.methods"):
        assert as_method(name).parts[0].hyper is METHODS[name].hyper
    assert type(as_method("relationattention")) is RelationAttention  # by its class, too


CHAPTER = """
"Logit MSE, as a chapter exports it."
from kdmedlearn.core.method import Method
from kdmedlearn.core.parameters import Share


class LogitMSE(Method, name="logitmse"):
    "Mean squared difference of logits (Ba and Caruana 2014)."

    alpha = Share(0.5)

    def weights(self, pct=0.0):
        a = self.weight_of("alpha", pct)
        return {"task": 1 - a, "logitmse": a}

    def terms(self, p):
        gaps = [(p.student.out - t.out).pow(2).mean() for t in p.teachers]
        return {"logitmse": sum(gaps) / len(gaps)}
"""


def test_a_new_loss_is_one_chapter_and_nothing_else(tmp_path, monkeypatch):
    import kdmedlearn.methods
    from kdmedlearn.cli import method_with
    from kdmedlearn.tuning.search import tune
    from kdmedlearn.widgets.bench import tuning_bench

    (tmp_path / "logit_mse.py").write_text(CHAPTER)
    folders = [*kdmedlearn.methods.__path__, str(tmp_path)]
    monkeypatch.setattr(kdmedlearn.methods.__spec__, "submodule_search_locations", folders)
    monkeypatch.setattr(kdmedlearn.methods, "__path__", folders)
    assert "logitmse" in METHODS.names()
    kw = dict(loss_func=F.cross_entropy, metrics=accuracy)
    learn = fit(distill(data(), net(), net(8), "logitmse", **kw))
    assert "logitmse" in learn.recorder.metric_names
    assert method_with("logitmse", ["alpha=.25"]).alpha == 0.25
    runs = tune(
        data(), net, net(8), "logitmse", trials=1, epochs=1, folder=tmp_path / "t", log=None, **kw
    )
    assert list(runs.all()[0]["params"]) == ["alpha"]
    bench = tuning_bench(data(), net, net(8), "logitmse", folder=tmp_path / "b", **kw)
    assert list(bench.params) == ["alpha"]
    bench.close()


# --- what networks return


class Wrapped(nn.Module):
    "`inner`, with its logits wrapped."

    def __init__(self, inner, how):
        super().__init__()
        self.inner, self.how = inner, how

    def forward(self, x):
        z = self.inner(x)
        if self.how == "logits":
            return {"logits": z, "hidden": x}
        if self.how == "out":
            return {"out": z, "aux": z.detach() * 0}
        if self.how == "one":
            return {"prediction": z}
        if self.how == "object":
            return type("ModelOutput", (), {"logits": z, "loss": None})()
        return namedtuple("Named", "aux logits")(z.detach() * 0, z)


@pytest.mark.parametrize("how", ["logits", "out", "one", "object", "named"])
def test_wrapped_outputs_are_taken_where_it_is_plain_what_is_meant(how):
    s, t, learns, batch = net(), net(8).eval(), [], data().train.one_batch()
    for student, teacher in (
        (copy.deepcopy(s), t),
        (Wrapped(copy.deepcopy(s), how), Wrapped(t, how)),
    ):
        learn = make(student, teacher, opt_func=SGD, metrics=accuracy)
        learn.dls.train = [batch]
        learns.append(fit(learn, 1, 0.1))
    plain, wrapped = ([float(v) for v in learn.recorder.values[-1]] for learn in learns)
    assert plain == pytest.approx(wrapped, rel=1e-5)
    assert learns[1].validate()[1] == pytest.approx(learns[0].validate()[1])


def test_an_exported_student_with_wrapped_outputs_predicts(tmp_path):
    from fastai.learner import load_learner

    learn = fit(make(Unwrap(Pair(net()), 0), path=tmp_path))
    learn.export("s.pkl")
    assert type(load_learner(tmp_path / "s.pkl")) is Learner


class Pair(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        z = self.inner(x)
        return z, z.mean()


def test_what_is_not_plain_is_answered_with_how_to_wrap_it():
    with pytest.raises(ValueError, match="returns a tuple of 2.*Unwrap"):
        make(teacher=Pair(net(8)))
    fit(make(teacher=Unwrap(Pair(net(8)), 0)))


@pytest.mark.filterwarnings("ignore:the student has")  # the teacher is one of the tests
def test_students_with_auxiliary_heads_use_their_main_head():
    s = torchvision.models.googlenet(weights=None, num_classes=3, init_weights=False)
    dls = images(n=4, size=96, bs=2)
    print_before = fingerprint(s)
    with pytest.warns(UserWarning, match="GoogLeNet gives 3 outputs; its main one is used"):
        learn = make(s, net(8), dls=dls)
    assert fingerprint(s) == print_before
    fit(learn)
    assert learn.recorder.values[-1][-1] > 0


@pytest.mark.filterwarnings("ignore:the student has")  # the teacher is one of the tests
@pytest.mark.slow
def test_inception_with_its_auxiliary_head():
    s = torchvision.models.inception_v3(weights=None, num_classes=3, init_weights=False)
    with pytest.warns(UserWarning, match="Inception3 gives 2 outputs"):
        learn = make(s, net(8), dls=images(n=2, size=299, bs=2))
    fit(learn)


@pytest.mark.filterwarnings("ignore:the student has")  # the teacher is one of the tests
def test_a_distilled_deit_in_training_mode_is_told_to_be_wrapped():
    s = timm.create_model(
        "deit_tiny_distilled_patch16_224", num_classes=3, img_size=32, depth=1, embed_dim=24,
        num_heads=2,
    )  # fmt: skip
    dls = images(n=4, size=32, bs=2)
    fit(make(s, net(8), dls=dls))  # it averages its heads
    s.set_distilled_training(True)
    with pytest.raises(ValueError, match="the student in training mode returns a tuple of 2"):
        make(s, net(8), dls=dls)


# --- data and tasks


def test_plain_pytorch_loaders_train():
    items = [(torch.randn(3, 8, 8), i % 3) for i in range(16)]
    loader = lambda **kw: torch.utils.data.DataLoader(items, batch_size=8, **kw)
    dls = DataLoaders(loader(shuffle=True), loader())
    learn = fit(make(dls=dls, method=Response() + Feature({"conv": "conv"})))
    assert len(learn.recorder.values) == 1 and learn.recorder.values[0][-1] > 0


def test_several_labels_are_taught_label_by_label():
    y = [torch.tensor([1.0, 1.0, 0.0]), torch.tensor([0.0, 1.0, 0.0])] * 8
    dls, s, t = images(target=y), net(), net(8).eval()
    learn = make(s, t, Response(T=3), dls, loss_func=nn.BCEWithLogitsLoss())
    assert learn.distill.step.task == "several labels"
    x, target = dls.train.one_batch()
    got = learn.distill.step(x, target).terms["response"]
    q, p = (s(x) / 3).sigmoid(), (t(x) / 3).sigmoid()
    want = 9 * (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean()
    assert got.item() == pytest.approx(want.item(), rel=1e-4)
    assert labels_loss(s(x), t(x), 3).item() == pytest.approx(want.item(), rel=1e-4)
    fit(learn)


def test_answer_methods_refuse_numbers_and_say_what_to_take():
    ages = [torch.tensor([float(i)]) for i in range(16)]
    dls, s, t = images(target=ages), net(num_classes=1), net(8, num_classes=1)
    for method in ("response", "ensemble"):
        with pytest.raises(ValueError, match="no formula for numbers.*Feature"):
            make(s, t, method, dls, loss_func=nn.MSELoss())
    fit(make(s, t, "feature", dls, loss_func=nn.MSELoss()))


@pytest.mark.parametrize("method", ["kdas", "pixelkl", "bernoullikl"])
def test_methods_for_masks_refuse_classes(method):
    with pytest.raises(ValueError, match="no formula for classes.*Response"):
        make(method=method)


def test_grey_images_under_a_student_of_three_channels_are_answered_with_the_cure():
    with pytest.raises(RuntimeError, match="channels=3.*reads grey images"):
        make(net(4), net(8), "response", images(channels=1))


def test_a_teacher_of_three_channels_teaches_a_grey_student():
    s = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    with pytest.warns(UserWarning, match="takes 3 channels and the images have 1"):
        learn = make(s, net(8), "response", images(channels=1))
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
    assert all(v == v for v in learn.recorder.values[-1])


@pytest.mark.parametrize("own", [None, ([0.5, 0.4, 0.3], [0.2, 0.3, 0.25]), (0.5, 0.2)])
def test_grey_as_one_channel_is_answered_as_the_same_grey_in_three(own):
    t, v = Teacher(net(8), norm=own).ready("cpu"), torch.rand(4, 1, 8, 8)
    one = as_norm(0.3, 0.2)
    three = as_norm([0.3] * 3, [0.2] * 3)
    seen = ((v.repeat(1, 3, 1, 1) - three[0]) / three[1],)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(2):
            got = t.see(((v - one[0]) / one[1],), one, ["conv"])
    want = t.see(seen, three, ["conv"])
    assert len(said) == 1
    assert torch.allclose(got.out, want.out, atol=1e-5)
    assert torch.allclose(got.features["conv"], want.features["conv"], atol=1e-5)


@pytest.mark.filterwarnings("ignore:the student has")  # a teacher of its size, but for channels
def test_colour_images_under_a_grey_teacher_are_refused_with_the_cure():
    t = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    for norm in (None, (0.5, 0.2)):
        with pytest.raises(ValueError, match="is for grey images.*channels=1.*to_grey") as e:
            make(net(4), Teacher(t, norm=norm), "response", images())
        assert str(e.value).count("channels=1") == 1
    to_grey = nn.Sequential(Mean(), t)  # its first convolution takes one channel, and it fits
    make(net(4), to_grey, "response", images())


class Mean(nn.Module):
    def forward(self, x):
        return x.mean(1, keepdim=True)


def test_a_teacher_sees_its_own_size_and_its_masks_have_the_students():
    whole = nn.Sequential(nn.Conv2d(3, 2, 1))
    t = Teacher(whole, size=(8, 12))
    x = torch.rand(2, 3, 16, 16)
    got = t.see((x,), None, ["0"])
    assert got.features["0"].shape == (2, 2, 8, 12) and got.out.shape == (2, 2, 16, 16)
    small = torch.rand(2, 3, 8, 12)
    assert torch.equal(t.see((small,), None).out, whole(small).detach())


def test_a_learner_as_a_teacher_keeps_the_size_of_its_images():
    learn = Learner(images(size=8), net(8), loss_func=F.cross_entropy)
    before = torch.get_rng_state()
    (t,) = as_teachers(learn)
    assert t.size == (8, 8) and torch.equal(torch.get_rng_state(), before)
    x = torch.rand(2, 3, 16, 16)
    x8 = F.interpolate(x, (8, 8), mode="bilinear", antialias=True)
    t.ready("cpu")
    assert torch.equal(t.see((x,), None).out, t.see((x8,), None).out)


# --- adapters that are kept, terms that are monitored


def test_a_training_goes_on_where_it_was_saved(tmp_path):
    def learner():
        torch.manual_seed(1)
        m = Response() + Feature({"conv": "conv"})
        learn = make(net(), t, m, path=tmp_path)
        learn.dls.train = [(x, y)] * 2
        return learn

    t, (x, y) = net(8), data().train.one_batch()
    whole = fit(learner())
    whole.save("half")
    whole.fit_state = fingerprint(whole.distill.step.bound)
    fit(whole)
    other = learner()
    with torch.no_grad():
        for p in other.distill.step.adapters():
            p.add_(1.0)
    other.load("half")
    assert fingerprint(other.distill.step.bound) == whole.fit_state
    fit(other)
    for a, b in zip(whole.distill.step.parameters(), other.distill.step.parameters()):
        torch.testing.assert_close(a, b)
    # the student alone can still be read by a Learner that knows nothing of it
    plain = Learner(data(), net(), loss_func=F.cross_entropy, path=tmp_path)
    plain.load("half", with_opt=False)


def test_the_best_epoch_brings_its_adapters_back(tmp_path):
    best = SaveModelCallback(monitor="valid_loss", with_opt=True)
    learn = make(method=Feature({"conv": "conv"}), path=tmp_path, cbs=best)
    fit(learn, 2)
    assert torch.load(tmp_path / "models" / "model.pth", weights_only=False)["opt"]["adapters"]


def test_a_monitored_term_keeps_its_smallest_value(tmp_path):
    best = SaveModelCallback(monitor="response", fname="best")
    learn = make(path=tmp_path)
    fit(learn, 3, cbs=best)
    values = [v[-1] for v in learn.recorder.values]
    assert best.best == pytest.approx(min(values)) and values[0] > min(values)
    stop = EarlyStoppingCallback(monitor="response", patience=1, min_delta=0.0)
    fit(learn, 3, cbs=stop)
    assert len(learn.recorder.values) == 3  # it falls, so nothing stops


# --- compiled students, channels last


@pytest.mark.parametrize("in_place", [False, True])
def test_a_compiled_student_is_read_on_its_layers(in_place):
    s, t = net(), net(8)
    m = Feature({"conv": "conv"})
    torch.manual_seed(2)
    plain = make(copy.deepcopy(s), t, m)
    torch.manual_seed(2)
    compiled = copy.deepcopy(s)
    if in_place:
        compiled.compile(backend="eager")
    else:
        compiled = torch.compile(compiled, backend="eager")
    compiled.eval()(torch.randn(2, 3, 8, 8))  # compiled before anybody listened
    compiled.train()
    with pytest.warns(UserWarning, match="in training it runs uncompiled"):
        other = make(compiled, t, m)
    other.distill.step.bound.load_state_dict(plain.distill.step.bound.state_dict())
    x, y = data().train.one_batch()
    for learn in (plain, other):
        learn.dls.train = [(x, y)]
        fit(learn, 1, 0.0)
    both = [[float(v) for v in o.recorder.values[-1]] for o in (plain, other)]
    assert both[0] == pytest.approx(both[1], rel=1e-5)


def test_maps_with_channels_last_are_read_on_the_right_axes():
    class Last(nn.Module):
        "The maps of `net(8)`, channels last."

        def __init__(self, inner):
            super().__init__()
            self.inner, self.turn = inner, Turn()

        def forward(self, x):
            f = self.turn(self.inner.conv(x))
            return self.inner.head(f.permute(0, 3, 1, 2))

    class Turn(nn.Module):
        def forward(self, f):
            return f.permute(0, 2, 3, 1).contiguous()

    t = net(4)
    dls = images(size=16)
    one = make(net(), t, Feature({"conv": "conv"}), dls).distill.step
    x, y = dls.train.one_batch()
    two = DistillStep(one.student, Last(t), Feature({"conv": "turn"})).setup(x, y)
    two.bound[0].state.unit = one.bound[0].state.unit  # measured on other images
    assert two(x, y).terms["feature"].item() == pytest.approx(
        one(x, y).terms["feature"].item(), rel=1e-5
    )
    assert not two.adapters()  # four channels on both sides


def test_a_swin_teaches_by_its_maps():
    swin = timm.create_model(
        "swin_tiny_patch4_window7_224", num_classes=3, img_size=64, window_size=2, embed_dim=12,
        depths=(1, 1), num_heads=(2, 2),
    )  # fmt: skip
    learn = make(net(), swin, Feature({"act": "layers.0"}), images(size=64, n=4, bs=2))
    assert learn.distill.step.bound[0].state.convs["0_0"].weight.shape[0] == 12
    fit(learn)


# --- mixed labels, ignored pixels


def test_a_learning_fusion_sees_the_labels_that_mixup_mixed():
    teachers = [net(8), net(6)]
    m = Ensemble(AttentionFusion(d=8, heads=2), lam=0.0)
    loss = CrossEntropyLossFlat()
    learn = make(net(), teachers, m, images(n=8), opt_func=SGD, loss_func=loss)
    seen = {}

    class Mixed(MixUp):
        "Mixes as always; keeps what it mixed."

        def after_loss(self):
            seen.update(y=self.y, y1=self.yb1[0], lam=self.lam)

    x, y = learn.dls.train.one_batch()
    learn.dls.train = [(x, y)]
    spy = learn.distill.step.bound[0]
    terms = spy.terms

    def look(p):
        out = terms(p)
        z = spy.state.fusion(*spy.method.shown(p._replace(layers=spy.layers))).out
        seen.update(z=z.detach(), term=out["fusion"].detach())
        return out

    spy.terms = look
    fit(learn, 1, 0.0, cbs=Mixed(1.0))
    each = lambda y: F.cross_entropy(seen["z"], y, reduction="none")
    want = torch.lerp(each(seen["y1"]), each(seen["y"]), seen["lam"].to("cpu")).mean()
    assert seen["term"].item() == pytest.approx(want.item(), rel=1e-4)


class Map(nn.Module):
    "One convolution: a map of `n` channels."

    def __init__(self, n):
        super().__init__()
        self.conv = nn.Conv2d(3, n, 3, padding=1)

    def forward(self, x):
        return self.conv(x)


@pytest.mark.parametrize(
    "method, n, loss",
    [
        (PixelKL(), 3, nn.CrossEntropyLoss(ignore_index=255)),
        (Response(), 3, nn.CrossEntropyLoss(ignore_index=255)),
        (BernoulliKL(), 1, StructureLoss(ignore_index=255)),
        (KDAS(), 1, StructureLoss(ignore_index=255)),
    ],
)
def test_pixels_that_the_task_ignores_are_not_taught(method, n, loss):
    g = torch.Generator().manual_seed(0)
    y = torch.randint(0, max(n, 2), (2, 16, 16), generator=g)
    y[:, 4:9, 2:11] = 255
    x = torch.randn(2, 3, 16, 16, generator=g)
    step = DistillStep(Map(n), Map(n), method, loss).setup(x, y)
    s, t = torch.randn(2, 2, n, 16, 16, generator=g)
    s.requires_grad_()
    p = step.make_pass(Outputs(s), (Outputs(t),), (y,))
    assert (p.valid == (y != 255)).all()
    total = sum(step.bound[0].terms(p).values())
    (grad,) = torch.autograd.grad(total, s)
    assert not grad[(y == 255)[:, None].expand_as(grad)].any()
    assert grad[(y != 255)[:, None].expand_as(grad)].any()
    assert total.isfinite() and loss(s, y).isfinite()
    other = torch.where((y == 255)[:, None], torch.full_like(t, 7.0), t)
    same = step.bound[0].terms(p._replace(teachers=(Outputs(other),)))
    assert sum(same.values()).item() == pytest.approx(total.item(), rel=1e-5)
    everything = step.bound[0].terms(p._replace(valid=None))
    assert sum(everything.values()).item() != pytest.approx(total.item(), rel=1e-3)


# --- what a newcomer stumbles over
def batch(n=4, size=8, classes=3):
    g = torch.Generator().manual_seed(0)
    return torch.randn(n, 3, size, size, generator=g), torch.arange(n) % classes


def step_of(student=None, teacher=None, method="response", loss=None):
    return DistillStep(student or net(), teacher or net(8), method, loss)


@pytest.mark.parametrize(
    "change, loss, words",
    [
        (lambda y: y.float(), None, ["(4,) of torch.float32 from 0 to 2", "3 logits", "y.long()"]),
        (lambda y: y + 1, None, ["from 1 to 3", "from 0 to 2", "count from 1: y - 1"]),
        (lambda y: y + 2, None, ["from 2 to 4", "num_classes=5"]),
        (lambda y: y - 1, None, ["from -1 to 1", "class numbers from 0 to 2"]),
        (lambda y: y[:, None], None, ["(4, 1) of torch.int64", "y[:, 0]"]),
        (lambda y: y[:, None].float(), None, ["y[:, 0].long()"]),
        (lambda y: F.one_hot(y), None, ["y.argmax(1)"]),
        (lambda y: F.one_hot(y), nn.BCEWithLogitsLoss(), ["y.float()"]),
        (lambda y: torch.cat([y, y]), None, ["8 targets for 4 images"]),
    ],
)
def test_targets_that_the_loss_does_not_take_are_told_at_setup_and_at_each_step(
    change, loss, words
):
    x, y = batch()
    with pytest.raises(ValueError) as e:
        step_of(loss=loss).setup(x, change(y))
    assert all(w in str(e.value) for w in ["the student's output (4, 3)", *words])
    step = step_of(loss=loss).setup(x)  # without targets nothing is known
    with pytest.raises(ValueError) as again:
        step(x, change(y))
    assert str(again.value) == str(e.value)


def test_targets_may_be_shares_fewer_than_the_images_or_none():
    x, y = batch()
    for given in (y, y[:2], None, F.one_hot(y).float()):
        step_of().setup(x, given)


def test_labels_from_1_are_told_in_the_batch_that_has_the_last_one():
    x, y = batch()
    step = step_of().setup(x[:2], y[:2] + 1)  # 1 and 2 are class numbers, too
    with pytest.raises(ValueError, match="count from 1: y - 1"):
        step(x, y + 1)


def test_cross_entropy_over_one_logit_is_refused():
    x, y = batch()
    with pytest.raises(ValueError, match="one logit, and cross-entropy over one class is 0"):
        step_of(net(num_classes=1), net(8, 1)).setup(x, y * 0)


class NoWeights(Method):
    def terms(self, p):
        return {"mine": p.student.out.mean()}


class Mine(NoWeights):
    def weights(self, pct=0.0):
        return {"task": 1.0, "mine": 1.0}


class NoTerms(Method):
    weights = Mine.weights


class NoTask(NoWeights):
    def weights(self, pct=0.0):
        return {"mine": 1.0}


class NoProgress(NoWeights):
    def weights(self):
        return {"task": 1.0, "mine": 1.0}


class NoDefault(NoWeights):
    def weights(self, pct):
        return {"task": 1.0, "mine": pct}


class NoWeight(NoWeights):
    def weights(self, pct=0.0):
        return {"task": 1.0, "yours": 1.0}


class NoDict(Mine):
    def terms(self, p):
        return p.student.out.mean()


class TermTask(Mine):
    def terms(self, p):
        return {"task": p.student.out.mean()}


class NoReads(Mine):
    def terms(self, p):
        return {"mine": p.student.features["conv"].mean()}


class NoReadsTeacher(Mine):
    student_layers = ("conv",)

    def setup(self, p):
        return nn.Conv2d(p.teachers[0].features["conv"].shape[1], 4, 1)


@pytest.mark.parametrize(
    "method, words",
    [
        (NoWeights, "NoWeights has no `weights`; write def weights(self, pct=0.0)"),
        (NoTerms, "NoTerms has no `terms`; write def terms(self, p)"),
        (NoTask, "with the task loss in it"),
        (NoProgress, "expected def weights(self, pct=0.0)"),
        (NoDefault, "expected def weights(self, pct=0.0)"),
        (NoWeight, "term mine of NoWeight has no weight; `weights` must name every term"),
        (NoDict, "`terms` of NoDict returned a Tensor; expected a dict"),
        (TermTask, "term task of TermTask is the name of the task loss"),
        (NoReads, "'conv' of the student, and no layer was read; name it in student_layers"),
        (
            NoReadsTeacher,
            "'conv' of teacher Sequential, and no layer was read; name it in teacher_",
        ),
    ],
)
def test_a_method_that_is_not_whole_is_told_at_setup(method, words):
    x, y = batch()
    for start in (lambda: step_of(method=method()).setup(x, y), lambda: make(method=method())):
        with pytest.raises((NotImplementedError, TypeError, ValueError)) as e:
            start()
        assert words in str(e.value)


def test_a_term_that_does_not_depend_on_the_student_is_warned_of():
    class Still(Mine):
        def terms(self, p):
            hit = (p.student.out.argmax(1) == p.teachers[0].out.argmax(1)).float().mean()
            return {"mine": hit}

    with pytest.warns(UserWarning, match="term mine of Still.* does not depend on the student"):
        step_of(method=Still()).setup(*batch())


def said_by(f):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        f()
    return [str(w.message) for w in said if w.category is UserWarning]


@pytest.mark.parametrize(
    "method", ["response", "pseudolabels", "similarity", "rkd", Feature({"conv": "conv"})]
)
def test_nothing_is_warned_of_where_nothing_is_wrong(method):
    x, y = batch()
    assert said_by(lambda: step_of(method=method).setup(x, y)) == []
    assert said_by(lambda: make(method=method)) == []


class Squashed(nn.Module):
    "A network that ends in probabilities, which no module says."

    def __init__(self, model, f):
        super().__init__()
        self.model, self.f = model, f

    def forward(self, x):
        return self.f(self.model(x))


softmax = lambda z: z.softmax(1)


@pytest.mark.parametrize("whose", ["student", "teacher"])
@pytest.mark.parametrize("f, kind", [(softmax, "softmax"), (torch.sigmoid, "sigmoid")])
def test_probabilities_are_warned_of(whose, f, kind):
    x, y = batch()
    pair = [net(), net(8)]
    i = whose == "teacher"
    pair[i] = Squashed(pair[i], f)
    yes = F.one_hot(y).float()
    for start in (
        lambda: DistillStep(*pair, loss_func=nn.BCEWithLogitsLoss()).setup(x, yes),
        lambda: make(*pair),
    ):
        (message,) = said_by(start)
        who = "teacher Squashed" if i else "the student"
        assert f"the answers of {who} lie in [0, 1]" in message and f"after a {kind}" in message
        assert "leave out its last sigmoid or softmax" in message and ("Unwrap" in message) == i


def test_the_cure_for_a_teacher_of_probabilities_teaches_as_its_logits_do():
    (x, y), t = batch(), net(8).eval()
    for f, inverse in (
        (softmax, lambda p: p.clamp(min=1e-6).log()),
        (torch.sigmoid, lambda p: torch.logit(p, 1e-6)),
    ):
        cured = Unwrap(Squashed(t, f), inverse)
        assert said_by(lambda: step_of(teacher=cured).setup(x, y)) == []
        torch.testing.assert_close(cured(x).softmax(1), t(x).softmax(1))


class OneLogit(nn.Module):
    def __init__(self, bias, sigmoid=False):
        super().__init__()
        self.conv, self.sigmoid = nn.Conv2d(3, 1, 3, padding=1), sigmoid
        nn.init.constant_(self.conv.bias, bias)
        nn.init.normal_(self.conv.weight, std=0.01)

    def forward(self, x):
        z = F.interpolate(self.conv(x), x.shape[-2:], mode="bilinear")
        return z.sigmoid()[:, :] if self.sigmoid else z


def test_masks_of_one_logit_between_0_and_1_are_no_probabilities():
    x = torch.randn(2, 3, 16, 16)
    for bias in (0.3, 0.5, 0.7):
        m = OneLogit(bias)
        assert 0 < m(x).min() and m(x).max() < 1 and probabilities(m(x), m, (x,)) == ""
    m = OneLogit(0.5, sigmoid=True)
    assert probabilities(m(x), m, (x,)) == "sigmoid"
    frozen = m.requires_grad_(False)
    assert probabilities(frozen(x), frozen, (x,)) == "sigmoid"
    assert probabilities(m(x)[:1], m, (x[:1],)) == ""  # of one image nothing is said


def numbers_in_01():
    return nn.Sequential(net(num_classes=1), nn.Sigmoid())


def test_numbers_from_0_to_1_and_a_loss_of_probabilities_are_meant():
    x, y = batch()
    similar = Feature({"0.conv": "conv"})
    s = numbers_in_01()
    assert (
        said_by(lambda: step_of(s, method=similar, loss=nn.MSELoss()).setup(x, y[:, None] / 3.1))
        == []
    )
    s = numbers_in_01()
    one = (y[:, None] > 0).float()
    assert said_by(lambda: step_of(s, method=similar, loss=nn.BCELoss()).setup(x, one)) == []


def tiny_pvt():
    return PolypPVT("pvt_v2_b0")


@pytest.mark.parametrize(
    "make_one, size",
    [
        (small_student, 32),
        (small_teacher, 32),
        (GuidedStudent, 32),
        (hdkd_student_small, 224),
        (hdkd_teacher_small, 64),
        (small_unet, 32),
        (large_unet, 32),
        (lambda: small_unet(1), 32),
        (lambda: small_unet(3), 32),
        (tiny_pvt, 64),
    ],
)
def test_no_untrained_network_of_ours_is_taken_for_one_of_probabilities(make_one, size):
    for seed in range(8 if size == 32 else 2):
        torch.manual_seed(seed)
        m, x = make_one().eval(), torch.rand(2, 3, size, size)
        with torch.no_grad():
            assert probabilities(m(x), m, (x,)) == ""


def test_a_student_that_gives_no_numbers_is_refused():
    x, y = batch()
    for bad in (float("nan"), float("inf")):
        s = net()
        nn.init.constant_(s.head[2].bias, bad)
        for start in (lambda: step_of(s).setup(x, y), lambda: make(s)):
            with pytest.raises(ValueError, match="the student answers with values that are not"):
                start()


def test_a_teacher_put_in_training_mode_answers_in_eval_mode_and_stays_as_it_is():
    (x, y), t = batch(), net(8)
    step = step_of(teacher=t).setup(x, y)
    want, before = step(x, y).terms["response"].item(), fingerprint(t)
    for _ in range(2):
        t.train()
        assert step(x, y).terms["response"].item() == pytest.approx(want)
        assert not t.training
    assert fingerprint(t) == before


class Cut(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net()

    def forward(self, x):
        return self.net(x).detach()


class Places(nn.Module):
    "Logits that keep the height and width of a pooled map."

    def __init__(self):
        super().__init__()
        self.conv, self.pool = nn.Conv2d(3, 3, 3), nn.AdaptiveAvgPool2d(1)

    def forward(self, x):
        return self.pool(self.conv(x))


@pytest.mark.parametrize(
    "student, words",
    [
        (lambda: net().requires_grad_(False), "student.requires_grad_(True)"),
        (Cut, "the student's output has no gradient"),
        (Places, "nn.Flatten()"),
    ],
)
def test_students_that_cannot_learn_are_told_why(student, words):
    x, y = batch()
    for start in (lambda: step_of(student()).setup(x, y), lambda: make(student())):
        with pytest.raises(ValueError) as e:
            start()
        assert words in str(e.value)


def test_a_teacher_with_a_map_of_one_place_is_told_to_flatten():
    with pytest.raises(ValueError, match="teacher Places gives .*nn.Flatten"):
        step_of(teacher=Places()).setup(*batch())


@pytest.mark.parametrize("method", ["response", "feature", "similarity"])
def test_a_step_is_set_up_before_it_is_used(method):
    x, y = batch()
    step = step_of(method=method)
    with pytest.raises(RuntimeError, match="call step.setup"):
        step(x, y)
    step.setup(x, y)
    assert step(x, y).loss.isfinite() and copy.deepcopy(step)(x, y).loss.isfinite()


def test_lists_are_batches_and_arrays_are_refused():
    x, y = batch()
    step = step_of().setup([x], [y])
    step.student.eval()
    assert torch.equal(step([x], [y]).loss, step(x, y).loss)
    for xb, yb in ((x.numpy(), y), (x, y.numpy()), (x, y.tolist())):
        with pytest.raises(TypeError, match="torch.as_tensor"):
            step_of().setup(xb, yb)
        with pytest.raises(TypeError, match="torch.as_tensor"):
            step(xb, yb)
    with pytest.raises(RuntimeError, match="the images are torch.float64.*x.float()"):
        step_of().setup(x.double(), y)


@pytest.mark.parametrize("pct", [50, -0.1, 1.2, float("nan")])
def test_the_progress_is_from_0_to_1(pct):
    x, y = batch()
    step = step_of().setup(x, y)
    with pytest.raises(ValueError, match="a number from 0 to 1, such as epoch / epochs"):
        step(x, y, pct=pct)


def test_a_student_larger_than_its_teacher_is_warned_of_once():
    x, y = batch()
    words = "the student has 267 parameters and its teacher has 135; are they swapped?"
    for start in (lambda: step_of(net(8), net()).setup(x, y), lambda: make(net(8), net())):
        (message,) = said_by(start)
        assert words in message
    assert said_by(lambda: make(net(), net())) == []  # equals
    assert said_by(lambda: make(net(8), [net(), net(), net()])) == []  # together they are larger


class Apart(nn.Module):
    "The loss on its answers does not reach its map, so a method alone does."

    def __init__(self):
        super().__init__()
        self.conv, self.head, self.back = nn.Conv2d(3, 6, 3), nn.Linear(6, 2), []

    def forward(self, x):
        f = self.conv(x)
        if f.requires_grad:
            f.register_hook(lambda g: self.back.append(g))
        return self.head(f.detach().mean((2, 3)))


@pytest.mark.parametrize("method", (Feature, PKD, MGD, partial(Feature, distance="l1")))
def test_gradients_come_back_to_a_map_in_the_order_of_its_memory(method):
    student = Apart().to(memory_format=torch.channels_last)
    x, y = torch.rand(4, 3, 8, 8).to(memory_format=torch.channels_last), torch.tensor([0, 1, 0, 1])
    step = DistillStep(student, Apart(), method(pairs={"conv": "conv"})).setup(x, y)
    step(x, y).loss.backward()
    (g,) = student.back
    assert g.any() and g.is_contiguous(memory_format=torch.channels_last)


def test_in_a_learner_too():
    student = Apart().to(memory_format=torch.channels_last)
    dls = data(24, 8, 2)
    learn = distill(dls, student, Apart(), Feature(pairs={"conv": "conv"}))
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 1e-3)
    taught = [g for g in student.back if g.any()]
    assert taught and all(g.is_contiguous(memory_format=torch.channels_last) for g in taught)
