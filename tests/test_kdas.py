"KDAS: the reference values, the intended terms, and their use in training."

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastai.callback.core import Callback
from fastai.learner import Learner
from golden_values import close, golden
from PIL import Image
from torch import nn

from kdmedlearn import distill, mask_dls
from kdmedlearn.core.outputs import Outputs, Pass
from kdmedlearn.data.phantom import phantom_dls
from kdmedlearn.data.sets.polyps import write_phantom_polyps
from kdmedlearn.evaluation.masks import dice
from kdmedlearn.methods.kdas import (
    attend_to_itself,
    attention_loss,
    KDAS,
    sgm_loss,
    structure_loss,
    StructureLoss,
)
from kdmedlearn.methods.pixels import bernoulli_kl, BernoulliKL, PixelKL
from kdmedlearn.models.unet import small_unet, UNet
from kdmedlearn.train.callbacks import ClipValue, MultiScale
from kdmedlearn.train.recipes import kdas_recipe

_, VALUES = golden("kdas")
value = lambda name: torch.tensor(VALUES[name])
student_map, teacher_map = (
    lambda: value("kdas.student_map").requires_grad_(),
    lambda: value("kdas.teacher_map"),
)
tiny = lambda n=1: UNet(n, widths=(4, 8))


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = tiny(), tiny()

    def forward(self, x):
        return self.a(x), self.b(x)


class Sum(nn.Module):  # two heads of two channels
    def __init__(self):
        super().__init__()
        self.net = tiny(2)

    def forward(self, x):
        return self.net(x), self.net(x)


@pytest.fixture(scope="module")
def dls():
    return phantom_dls(24, 8, size=32, task="segment", bs=4, device="cpu")


def test_structure_loss_as_released_equals_the_reference():
    assert close(
        structure_loss(value("structure_loss.logits"), value("structure_loss.mask"), "released"),
        VALUES["structure_loss.value"],
    )


def test_structure_loss_as_intended_weights_each_pixel():
    z, y = value("structure_loss.logits").numpy(), value("structure_loss.mask").numpy()
    padded = np.pad(y, ((0, 0), (0, 0), (15, 15), (15, 15)))
    pooled = (
        np.stack(
            [
                [padded[:, :, i : i + 31, j : j + 31].sum((2, 3)) for j in range(48)]
                for i in range(48)
            ]
        ).transpose(2, 3, 0, 1)
        / 31**2
    )
    w, p = 1 + 5 * np.abs(pooled - y), 1 / (1 + np.exp(-z))
    bce = -(y * np.log(p) + (1 - y) * np.log(1 - p))
    s = lambda a: a.sum((2, 3))
    direct = (
        s(w * bce) / s(w) + 1 - (s(w * p * y) + 1) / (s(w * (p + y)) - s(w * p * y) + 1)
    ).mean()
    assert close(structure_loss(torch.tensor(z), torch.tensor(y)), direct)
    assert abs(direct - VALUES["structure_loss.value"]) > 1e-3  # the two weightings do differ here


def test_the_teachers_attention_and_the_module_equal_the_reference():
    assert close(attend_to_itself(teacher_map()), VALUES["kdas.released.teacher_attention"])
    s = student_map()
    loss = sgm_loss(s, teacher_map(), "raw")
    loss.backward()
    assert close(loss, VALUES["kdas.released.sgm"]) and close(
        s.grad, VALUES["kdas.released.sgm_grad"]
    )


def test_the_released_attention_term_has_no_gradient_and_ours_has():
    s = student_map()
    released = F.kl_div(
        F.softmax(s, 1) / 2, attend_to_itself(teacher_map()) / 2, reduction="none"
    ).mean()
    released.backward()
    assert (
        close(released, VALUES["kdas.released.kl"])
        and s.grad.abs().max() == VALUES["kdas.released.kl_grad_absmax"] == 0
    )
    s = student_map()
    attention_loss(s, teacher_map()).backward()
    assert s.grad.norm() > 1e-3


@pytest.mark.parametrize("T", (1.0, 2.0, 5.0))
@pytest.mark.parametrize("dtype", (torch.float64, torch.float32))
def test_attention_term_equals_a_direct_computation_for_logits_from_minus_50_to_50(T, dtype):
    rng = np.random.default_rng(0)
    s, t = rng.uniform(-50, 50, (2, 3, 1, 12, 12))
    direct = 0
    for a, b in zip(s[:, 0], t[:, 0]):
        e = b @ b.T / 12**0.5
        e = np.exp(e - e.max(1, keepdims=True))
        A = e / e.sum(1, keepdims=True) @ b
        log = lambda m: m / T - (m / T).max() - np.log(np.exp(m / T - (m / T).max()).sum())
        direct += T**2 * (np.exp(log(A)) * (log(A) - log(a))).sum() / 3
    z = torch.tensor(s, dtype=dtype, requires_grad=True)
    loss = attention_loss(z, torch.tensor(t, dtype=dtype), T)
    loss.backward()
    assert loss.isfinite() and z.grad.isfinite().all() and z.grad.norm() > 0
    assert abs(loss.item() - direct) < (1e-9 if dtype == torch.float64 else 1e-4) * direct


def test_one_image_and_rectangles():
    s, t = torch.randn(1, 1, 8, 12, requires_grad=True), torch.randn(1, 1, 8, 12)
    assert attention_loss(s, t).shape == ()  # rows are tokens: any height and width
    with pytest.raises(ValueError, match="needs square maps, got 8 x 12"):
        sgm_loss(s, t)
    with pytest.raises(ValueError, match="sgm=0"):
        KDAS().terms(Pass(Outputs(s), (Outputs(t),), None))
    assert set(KDAS(sgm=0).terms(Pass(Outputs(s), (Outputs(t),), None))) == {"attention"}


@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float16))
def test_half_precision_is_computed_in_float32(dtype):
    s, t = (
        20 * torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(k)) for k in (0, 1)
    )
    s, t = s.to(dtype), t.to(dtype)
    p = lambda a, b: (
        KDAS(scale="raw").terms(Pass(Outputs(a), (Outputs(b),), None))
        | BernoulliKL().terms(Pass(Outputs(a), (Outputs(b),), None))
    )
    outside = p(s.float(), t.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = p(s, t)
    for k in outside:
        assert inside[k].dtype == torch.float32 and torch.allclose(
            inside[k], outside[k], rtol=1e-5
        ), k


def test_heads_add_up_and_the_module_takes_the_first():
    s, t = [torch.randn(2, 1, 8, 8) for _ in range(2)], [torch.randn(2, 1, 8, 8) for _ in range(2)]
    out = KDAS().terms(Pass(Outputs(tuple(s)), (Outputs(tuple(t)), Outputs(list(t))), None))
    torch.testing.assert_close(
        out["attention"], attention_loss(s[0], t[0]) + attention_loss(s[1], t[1])
    )
    torch.testing.assert_close(out["sgm"], sgm_loss(s[0], t[0]))
    out = KDAS(heads="sum").terms(Pass(Outputs(sum(s)), (Outputs(tuple(t)),), None))
    torch.testing.assert_close(out["attention"], attention_loss(sum(s), sum(t)))


def test_the_teachers_scale_makes_the_module_independent_of_the_size_of_its_logits():
    s, t = torch.randn(2, 1, 8, 8), torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(sgm_loss(3 * s, 3 * t), sgm_loss(s, t))
    torch.testing.assert_close(sgm_loss(3 * s, 3 * t, "raw"), 9 * sgm_loss(s, t, "raw"))


def test_a_softmax_over_one_channel_is_refused_and_the_bernoulli_kl_does_not_grow_with_the_map():
    s, t = torch.randn(2, 1, 8, 8), torch.randn(2, 1, 8, 8)
    with pytest.raises(ValueError, match="take BernoulliKL"):
        PixelKL().terms(Pass(Outputs(s), (Outputs(t),), None))
    torch.testing.assert_close(
        bernoulli_kl(s.repeat(1, 1, 3, 3), t.repeat(1, 1, 3, 3)), bernoulli_kl(s, t)
    )


@pytest.mark.slow
def test_kdas_trains_two_heads_with_its_own_loss_and_teaches(dls):
    torch.manual_seed(0)
    teacher = TwoHeads()
    with torch.no_grad():
        teacher.a.head.weight *= 30
        teacher.b.head.weight *= 30  # a teacher that is sure of itself
    before = [p.clone() for p in teacher.parameters()]
    learn = distill(dls, TwoHeads(), teacher, "kdas", metrics=dice)
    assert isinstance(learn.loss_func, StructureLoss)
    with learn.no_bar(), learn.no_logging():
        learn.fit(2, 1e-2)
    assert list(learn.recorder.metric_names) == [
        "epoch",
        "train_loss",
        "valid_loss",
        "dice",
        "task",
        "attention",
        "sgm",
        "time",
    ]
    assert all(torch.equal(a, b) for a, b in zip(before, teacher.parameters()))
    with learn.no_bar():
        assert learn.get_preds()[0].shape == (8, 1, 32, 32)  # probabilities of the sum of heads

    learn = distill(dls, TwoHeads(), teacher, KDAS(alpha=1.0))  # the teacher alone
    with learn.no_bar(), learn.no_logging():
        learn.fit(6, 1e-2)
    first, last = (
        dict(zip(learn.recorder.metric_names[1:], learn.recorder.values[i])) for i in (0, -1)
    )
    assert last["attention"] < 0.9 * first["attention"]


def test_a_loss_of_ones_own_is_kept(dls):
    mine = lambda out, y: StructureLoss()(out, y) * 2
    assert distill(dls, tiny(), tiny(), KDAS(), loss_func=mine).loss_func is mine


@pytest.mark.parametrize(
    "student, teacher, method, says",
    (
        (tiny(), TwoHeads(), KDAS(), "the student returns 1 map and the teacher 2"),
        (tiny(), nn.Sequential(nn.AvgPool2d(2), tiny()), KDAS(), "resize=True"),
        (tiny(), nn.Sequential(nn.AvgPool2d(2), tiny()), BernoulliKL(), "resize=True"),
        (tiny(2), tiny(), KDAS(), "one logit a pixel"),
        (tiny(2), tiny(), BernoulliKL(), "one logit a pixel|predict the same classes"),
        (nn.Sequential(nn.Flatten(), nn.Linear(3072, 2)), tiny(), KDAS(), "segmentation model"),
    ),
)
def test_wrong_pairs_are_answered_before_training(dls, student, teacher, method, says):
    with pytest.raises(ValueError, match=says):
        distill(dls, student, teacher, method, loss_func=StructureLoss())


def test_a_loss_that_does_not_fit_is_answered_before_training(dls):
    with pytest.raises(ValueError, match="cross-entropy over one class is 0 whatever it says"):
        distill(dls, TwoHeads(), TwoHeads(), BernoulliKL())
    with pytest.raises(
        ValueError, match="CrossEntropyLossFlat fails on the student's output .* loss_func"
    ):
        distill(dls, Sum(), Sum(), PixelKL())

    class Soften(Callback):  # turns the target into what the loss expects
        def before_batch(self):
            self.learn.yb = (self.y[:, None].float(),)

    distill(dls, tiny(), tiny(), BernoulliKL(), loss_func=nn.BCEWithLogitsLoss(), cbs=Soften())


def test_two_classes_a_pixel_are_refused_by_kdas():
    s = torch.randn(2, 2, 8, 8)
    for m in (KDAS(), KDAS(sgm=0), KDAS(attention=0)):
        with pytest.raises(ValueError, match="take PixelKL"):
            m.terms(Pass(Outputs(s), (Outputs(s),), None))
    with pytest.raises(ValueError, match="weighting='paper'"):
        structure_loss(s[:, :1], torch.zeros(2, 1, 8, 8), "paper")


def test_masks_with_three_values_are_answered():
    with pytest.raises(ValueError, match="values from 0 to 2"):
        StructureLoss()(torch.zeros(2, 1, 8, 8), torch.arange(128).reshape(2, 1, 8, 8) % 3)


def test_every_scale_reaches_student_and_teacher_and_gradients_are_clipped(dls):
    seen = []

    class Watch(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = tiny()

        def forward(self, x):
            seen.append(tuple(x.shape[-2:]))
            return self.net(x)

    class Largest(Callback):
        order = ClipValue.order + 1
        top = 0.0

        def before_step(self):
            self.top = max(self.top, *(p.grad.abs().max().item() for p in self.model.parameters()))

    big = phantom_dls(4, 4, size=128, task="segment", bs=4, device="cpu")
    student, teacher = Watch(), Watch()
    learn = distill(big, student, teacher, KDAS(), cbs=Largest())
    seen.clear()
    r = kdas_recipe(epochs=1, size=128, bs=4, lr=1e-3, clip=1e-4)
    with learn.no_bar(), learn.no_logging():
        r.fit(learn)
    # student, teacher; student, teacher; ...
    assert seen[:6] == [(n, n) for n in (96, 96, 128, 128, 160, 160)]
    assert seen[6:] == [(128, 128)]  # the student in validation
    assert 0 < learn.largest.top <= 1e-4 * 1.0001


def test_the_recipe_is_the_published_one():
    r = kdas_recipe()
    assert (r.opt, r.lr, r.wd, r.epochs, r.bs, r.size, r.scales, r.clip, r.norm) == (
        "adamw",
        1e-4,
        1e-4,
        100,
        16,
        352,
        (0.75, 1.0, 1.25),
        0.5,
        "imagenet",
    )
    assert [type(c) for c in r.cbs] == [MultiScale, ClipValue] and r.changed(
        scales=(), clip=None
    ).cbs == []


def test_a_student_trained_at_several_sizes_is_saved_alone(dls, tmp_path):
    learn = Learner(
        dls,
        small_unet(),
        loss_func=StructureLoss(),
        cbs=[MultiScale((1.0,)), ClipValue()],
        path=tmp_path,
    )
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
    learn.export("s.pkl")
    assert (tmp_path / "s.pkl").stat().st_size < 2_000_000


@pytest.fixture(scope="module")
def polyps(tmp_path_factory):
    from kdmedlearn.data.sets.polyps import write_phantom_polyps

    return write_phantom_polyps(
        tmp_path_factory.mktemp("set") / "polyps", n_train=8, n_valid=4, size=32
    )


def test_prediction_of_a_file_is_a_whole_mask(polyps, tmp_path):
    from fastai.learner import load_learner
    from kdmedlearn.data.masks import mask_dls

    for target in ("channel", "index"):
        d = mask_dls(polyps, size=32, bs=4, device="cpu", target=target, save_to=tmp_path)
        learn = distill(d, tiny(), tiny(), KDAS())
        with learn.no_bar():
            mask, _, p = learn.predict(d.valid.items[0])
            learn.show_results(max_n=2)
        assert mask.shape == (32, 32) and p.shape == (1, 32, 32)
        learn.export("s.pkl")
        again = load_learner(tmp_path / "s.pkl")
        with again.no_bar():
            assert torch.equal(again.predict(d.valid.items[0])[0], mask)


@pytest.mark.filterwarnings("ignore:the student has")  # a teacher of one layer
def test_a_teacher_of_probabilities_is_warned_of_and_one_of_nan_refused(dls):
    red = nn.Conv2d(3, 1, 1)
    nn.init.constant_(red.weight, 2.0)
    for method in (KDAS(), BernoulliKL()):
        with pytest.warns(UserWarning, match="leave out its last sigmoid"):
            distill(
                dls, tiny(), nn.Sequential(red, nn.Sigmoid()), method, loss_func=StructureLoss()
            )
    broken = tiny()
    nn.init.constant_(broken.head.bias, float("nan"))
    with pytest.raises(ValueError, match="not finite"):
        distill(dls, tiny(), broken, KDAS())


def test_a_student_map_of_another_size_is_told_what_to_do(dls):
    with pytest.raises(ValueError, match="bring it to that size"):
        distill(dls, nn.Sequential(nn.AvgPool2d(2), tiny()), tiny(), KDAS(resize=True))


def test_masks_are_not_taken_for_classes(polyps, tmp_path):
    from kdmedlearn.cli import fits_task, method_with
    from kdmedlearn.data.images import image_dls
    from kdmedlearn.data.masks import mask_dls
    from kdmedlearn.evaluation.masks import evaluate_masks, save_masks

    with pytest.raises(ValueError, match="read them with mask_dls"):
        image_dls(polyps)
    with pytest.raises(ValueError, match="kdas is for binary masks, and the data have classes"):
        fits_task("kdas", method_with("kdas", []), "classes")
    d = mask_dls(polyps, size=32, bs=4, device="cpu")
    with pytest.raises(TypeError, match="dls.valid"):
        evaluate_masks(tiny(), d)
    with pytest.raises(FileExistsError, match="folder of the data set"):
        save_masks(tiny(), d.valid, polyps / "validation" / "masks")


def test_a_set_of_empty_masks_is_refused(polyps, tmp_path):
    import shutil
    from PIL import Image
    from kdmedlearn.data.masks import mask_dls

    empty = shutil.copytree(polyps, tmp_path / "empty")
    for f in empty.rglob("masks/*"):
        Image.new("L", (32, 32)).save(f)
    with pytest.raises(ValueError, match="masks are empty"):
        mask_dls(empty, size=32, device="cpu")


def test_fewer_phantoms_than_a_batch_still_train():
    assert len(phantom_dls(6, 4, size=32, task="segment", bs=32, device="cpu").train) == 1


def test_response_sends_models_with_several_maps_to_the_methods_for_them(dls):
    with pytest.raises(ValueError, match="compared by BernoulliKL"):
        distill(dls, TwoHeads(), TwoHeads(), "response", loss_func=StructureLoss())


def test_soft_masks_are_the_structure_loss_where_the_teacher_is_sure_and_least_at_the_teacher():
    from kdmedlearn.methods.soft_masks import soft_structure_loss

    torch.manual_seed(0)
    z, t = torch.randn(3, 1, 24, 24), torch.randn(3, 1, 24, 24)
    valid = torch.rand(3, 24, 24) > 0.3
    sure = soft_structure_loss(z, 1e6 * t)
    assert torch.allclose(sure, structure_loss(z, (t > 0).float()), atol=1e-5)
    student = t.clone().requires_grad_()
    loss = soft_structure_loss(student, t)
    assert abs(loss.item()) < 1e-6
    for step in (0.1, -0.1):  # the usual IoU falls when the student is surer than its teacher
        assert soft_structure_loss(t + step * t.sign(), t) > 0
    # pixels that do not count change nothing
    other = torch.where(valid[:, None], z, torch.randn_like(z))
    both = [soft_structure_loss(o, t, valid=valid) for o in (z, other)]
    assert torch.allclose(*both)
    # less sure at a higher temperature: towards a half everywhere
    flat = torch.zeros_like(z)
    assert soft_structure_loss(flat, t, T=4.0) < soft_structure_loss(flat, t)


@pytest.mark.parametrize("method", ["kdas", "softmasks"])
def test_a_method_s_own_loss_leaves_out_what_the_data_do(tmp_path, method):
    "Borders of 255; without it, 255 would count as a mask of 255."
    write_phantom_polyps(tmp_path, n_train=6, n_valid=2, size=32, seed=0)
    for f in sorted(tmp_path.rglob("masks/*")):
        m = np.array(Image.open(f).convert("L"))
        m[0], m[1:] = 255, m[1:] > 127
        Image.fromarray(m).save(f.with_suffix(".png"))
        if f.suffix != ".png":
            f.unlink()
    kw = dict(classes=["wall", "polyp"], ignore=255, target="channel", size=32, bs=2)
    dls = mask_dls(tmp_path, device="cpu", leaks=False, **kw)
    learn = distill(dls, small_unet(), small_unet(), method)
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 1e-3)
    assert learn.loss_func.ignore_index == 255
    assert 0 < learn.recorder.values[-1][1] < 10
