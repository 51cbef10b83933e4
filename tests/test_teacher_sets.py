"Several teachers fitted at once, kept, and read again only where nothing has changed."

import os
import random
import warnings
from copy import copy
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from fastai.data.transforms import Normalize
from fastai.learner import Learner
from helpers import data, fingerprint
from torch import nn

from kdmedlearn.core.teacher import norm_of, Teacher
from kdmedlearn.data.balance import balance
from kdmedlearn.data.phantom import CLASSES, phantom_dls
from kdmedlearn.models.guided import GuidedStudent
from kdmedlearn.models.small import small_student, small_teacher
from kdmedlearn.models.weights import about_model, load_teacher, save_model, write_safetensors
from kdmedlearn.train.distillation import distill
from kdmedlearn.train.teachers import DEFAULT_ARCHS, teachers, TeacherSet
import kdmedlearn.train.teachers as module

N = dict(n_train=32, n_valid=24, size=32, bs=16)
quiet = dict(epochs=1, log=None)


@pytest.fixture
def dls():
    return phantom_dls(**N)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    "A folder with one fitted student, the set that made it and its loaders."
    d, dls = tmp_path_factory.mktemp("kept"), phantom_dls(**N)
    return d, teachers(dls, ["small_student"], cache=d, **quiet), dls


@pytest.fixture
def no_fit(monkeypatch):
    "Training fails the test."
    monkeypatch.setattr(module, "fit_teacher", lambda *a, **k: pytest.fail("it has trained"))


def files(d):
    return sorted(p.name for p in Path(d).iterdir())


def my_fit(learn, epochs, lr):
    learn.fit(epochs, lr)


def other_fit(learn, epochs, lr):
    learn.fit(epochs, lr)


@pytest.mark.filterwarnings("ignore:the student has")  # small teachers, for speed
def test_the_list_goes_to_distill(dls, tmp_path):
    lines = []
    ts = teachers(
        dls,
        ["small_student", "guided_student"],
        epochs=1,
        cache=tmp_path / "a" / "b",
        log=lines.append,
    )
    assert (
        isinstance(ts, TeacherSet)
        and isinstance(ts, list)
        and all(isinstance(t, Teacher) for t in ts)
    )
    assert [t.name for t in ts] == list(ts.table.index) == ["small_student", "guided_student"]
    assert list(ts.table.columns) == [
        "parameters",
        "accuracy",
        "balanced accuracy",
        "macro F1",
        "weights",
        "seconds",
    ]
    assert (
        list(ts.table.weights) == ["fitted", "fitted"]
        and (ts.table.seconds > 0).all()
        and ts.table.parameters["guided_student"] == 51_272
    )
    assert len(files(tmp_path / "a" / "b")) == 2 and any("small_student" in l for l in lines)
    learn = distill(dls, small_teacher(), ts)
    assert learn.distill.teachers == list(ts)
    for t in ts:
        assert t.vocab == CLASSES and all(
            torch.allclose(a, b) for a, b in zip(t.norm, norm_of(dls))
        )


def test_the_scores_are_of_the_validation_images(dls, tmp_path):
    ts = teachers(dls, ["small_student"], cache=None, **quiet)
    m, hit, ys = ts[0].model, [], []
    with torch.no_grad():
        for x, y in dls.valid:
            hit.append((m(x).argmax(1) == y).float())
            ys.append(y)
    hit, ys = (
        torch.cat([torch.as_tensor(h) for h in hit]),
        torch.cat([torch.as_tensor(y) for y in ys]),
    )
    assert ts.table.accuracy.iloc[0] == pytest.approx(hit.mean().item())
    assert ts.recall.loc["small_student"].tolist() == pytest.approx(
        [hit[ys == c].mean().item() for c in range(8)]
    )
    assert ts.table["balanced accuracy"].iloc[0] == pytest.approx(ts.recall.mean(axis=1).iloc[0])
    assert not files(tmp_path)  # cache=None keeps nothing


def test_kept_teachers_are_the_same_and_are_not_trained_again(kept, no_fit):
    d, first, dls = kept
    # other loaders of the same images
    again = teachers(phantom_dls(**N), ["small_student"], cache=d, **quiet)
    assert list(again.table.weights) == ["loaded"] and again.table.accuracy.equals(
        first.table.accuracy
    )
    assert fingerprint(again[0].model) == fingerprint(first[0].model)
    dls.train.one_batch()  # augmentation remembers what it drew
    assert list(teachers(dls, "small_student", cache=str(d), **quiet).table.weights) == ["loaded"]


CHANGES = {
    "epochs": lambda: (phantom_dls(**N), dict(epochs=2)),
    "lr": lambda: (phantom_dls(**N), dict(lr=1e-3)),
    "seed": lambda: (phantom_dls(**N), dict(seed=1)),
    "fit": lambda: (phantom_dls(**N), dict(fit=my_fit)),
    "arguments of fit": lambda: (
        phantom_dls(**N),
        dict(fit=partial(Learner.fit_one_cycle, pct_start=0.5)),
    ),
    "images": lambda: (phantom_dls(**N, seed=1), {}),
    "one image fewer": lambda: (phantom_dls(**N | dict(n_train=31)), {}),
    "augmentation": lambda: (phantom_dls(**N, augment=False), {}),
    "batch size": lambda: (phantom_dls(**N | dict(bs=8)), {}),
    "size": lambda: (phantom_dls(**N | dict(size=33)), {}),
    "normalisation": lambda: (renormed(), {}),
    "balance": lambda: (balance(phantom_dls(**N)), {}),
    "one label": lambda: (relabelled(), {}),
    "vocab": lambda: (renamed(), {}),
    "loss": lambda: (weighted(), {}),
}


def renormed():
    dls = phantom_dls(**N)
    for t in dls.train.after_batch.fs:
        if isinstance(t, Normalize):
            t.std = t.std * 2
    return dls


def relabelled():
    dls = phantom_dls(**N)

    class Other(list):
        pass

    items = [tuple(o) for o in dls.train_ds]
    items[0] = items[0][0], (items[0][1] + 1) % 8
    return with_train(dls, Other(items))


def with_train(dls, ds):
    out = copy(dls)
    out.loaders = [dls.train.new(ds), dls.valid]
    out.vocab, out.loss_func = CLASSES, dls.loss_func
    return out


def renamed():
    dls = phantom_dls(**N)
    dls.vocab = [c.upper() for c in CLASSES]
    return dls


def weighted():
    from fastai.losses import CrossEntropyLossFlat

    dls = phantom_dls(**N)
    dls.loss_func = CrossEntropyLossFlat(weight=torch.arange(1.0, 9.0))
    return dls


@pytest.mark.parametrize("what", CHANGES)
def test_what_changes_the_training_makes_another_file(what, kept, monkeypatch):
    d, first, _ = kept
    before, content = files(d), {f: (d / f).read_bytes() for f in files(d)}
    # the key is asked about, not the training
    monkeypatch.setattr(module, "fit_teacher", lambda *a, **k: None)
    dls, kw = CHANGES[what]()
    ts = teachers(dls, ["small_student"], cache=d, **quiet | kw)
    assert list(ts.table.weights) == ["fitted"], f"{what} was overlooked"
    assert len(files(d)) == len(before) + 1 and all(
        (d / f).read_bytes() == c for f, c in content.items()
    )  # old ones are left alone
    (set(d.iterdir()) - {d / f for f in before}).pop().unlink()


def test_items_as_plain_tuples_are_the_same_images(kept, no_fit):
    dls = phantom_dls(**N)  # the counterpart of "one label": only the label makes the difference
    same = with_train(dls, type("Other", (list,), {})([tuple(o) for o in dls.train_ds]))
    assert list(teachers(same, ["small_student"], cache=kept[0], **quiet).table.weights) == [
        "loaded"
    ]


def test_validation_images_count_for_a_fit_of_ones_own_alone(kept, tmp_path, no_fit):
    more = phantom_dls(**N | dict(n_valid=32))
    assert list(teachers(more, ["small_student"], cache=kept[0], **quiet).table.weights) == [
        "loaded"
    ]
    key = lambda dls, fit: module._conditions(dls, CLASSES, [3, 32, 32], 1, 3e-3, 0, fit)
    assert key(phantom_dls(**N), my_fit) != key(more, my_fit) and key(more, my_fit) != key(
        more, other_fit
    )


def test_what_transforms_are_made_with_is_told_apart():
    from fastai.data.transforms import Transform
    from fastai.vision.augment import Brightness, Rotate, aug_transforms
    from kdmedlearn.data.augment import Blur, hdkd_augment

    def brighter(x):
        return x + 1

    def darker(x):
        return x - 1

    said = module._said
    assert said(Rotate(10)) == said(Rotate(10)) != said(Rotate(20)) and said(
        Brightness(0.2)
    ) != said(Brightness(0.3))
    assert said(Transform(brighter)) != said(Transform(darker)) and said(Blur()) != said(
        Blur(high=3.0)
    )
    assert said(aug_transforms()) != said(aug_transforms(max_rotate=30.0)) and "0x" not in str(
        said(hdkd_augment())
    )
    dls, x = phantom_dls(**N), None
    tfms = hdkd_augment()
    before = said(tfms)
    x = dls.valid.one_batch()[0]
    for t in tfms:
        x = t(x, split_idx=0)
    assert said(tfms) == before  # what they drew is no setting


def test_a_dict_names_models_of_ones_own(dls, tmp_path, monkeypatch):
    mine = {"wide": lambda: GuidedStudent(width=0.5)}
    a = teachers(dls, ["small_student", mine], cache=tmp_path, **quiet)
    assert a[1].name == "wide" and isinstance(a[1].model, GuidedStudent)
    assert list(teachers(dls, mine, cache=tmp_path, **quiet).table.weights) == ["loaded"]
    monkeypatch.setattr(module, "fit_teacher", lambda *a, **k: None)
    # the same name, other shapes
    b = teachers(dls, {"wide": lambda: GuidedStudent(width=0.25)}, cache=tmp_path, **quiet)
    assert list(b.table.weights) == ["fitted"] and len(files(tmp_path)) == 3
    with_dropout = lambda p: {
        "wide": lambda: nn.Sequential(nn.Dropout(p), GuidedStudent(width=0.25))
    }  # the same shapes
    for p in (0.1, 0.2):
        assert list(teachers(dls, with_dropout(p), cache=tmp_path, **quiet).table.weights) == [
            "fitted"
        ]


def test_trained_ones_are_only_scored(dls, tmp_path, no_fit):
    own = ([0.1] * 3, [0.9] * 3)
    p = save_model(
        small_student(), tmp_path / "from_file.safetensors", "small_student", CLASSES, norm=own
    )
    before = fingerprint(load_teacher(p).model)
    t, learn = (
        Teacher(GuidedStudent(), norm=([0.3] * 3, [0.4] * 3), vocab=CLASSES, name="mine"),
        Learner(dls, small_teacher()),
    )
    ts = teachers(dls, [t, p, learn], cache=tmp_path / "c", **quiet)
    assert [o.name for o in ts] == ["mine", "from_file", "SmallCNN"] and list(ts.table.weights) == [
        "given"
    ] * 3
    assert ts[0] is t and ts[2].model is learn.model and fingerprint(ts[1].model) == before
    assert ts[1].norm[0].flatten().tolist() == pytest.approx(own[0]) and ts[0].norm[
        0
    ].flatten().tolist() == pytest.approx([0.3] * 3)
    assert list(teachers(dls, str(p), cache=None, **quiet).table.index) == ["from_file"]


def test_scores_are_taken_in_the_teachers_own_normalisation(dls):
    class Mean(nn.Module):  # says class 0 exactly where it sees pixels as they are
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(1))

        def forward(self, x):
            ok = ((x >= -1e-4) & (x <= 1 + 1e-4)).flatten(1).all(1)
            return nn.functional.one_hot(torch.where(ok, 0, 1), 8).float()

    ts = teachers(dls, [Teacher(Mean(), norm=(0.0, 1.0), vocab=CLASSES)], cache=None, **quiet)
    assert ts.recall.iloc[0].tolist() == [1.0] + [0.0] * 7


@pytest.mark.parametrize("vocab", [CLASSES[::-1], CLASSES[:7], [*CLASSES, "more"]])
def test_other_classes_are_an_error_that_shows_both(vocab, dls, tmp_path, no_fit):
    p = save_model(small_student(len(vocab)), tmp_path / "x.safetensors", "small_student", vocab)
    for o in (p, Teacher(small_student(len(vocab)), vocab=vocab)):
        with pytest.raises(ValueError, match="name their classes differently") as e:
            teachers(dls, ["small_student", o], cache=None, **quiet)
        assert str(vocab) in str(e.value) and str(CLASSES) in str(e.value)


def test_one_epoch_is_what_fit_teacher_does_whatever_stands_beside(dls, tmp_path):
    alone = teachers(dls, ["guided_student"], cache=None, **quiet)
    beside = teachers(dls, ["small_student", "guided_student"], cache=tmp_path, **quiet)
    after = teachers(
        dls, ["small_student", "guided_student"], cache=tmp_path, **quiet | dict(seed=0)
    )
    assert (
        fingerprint(alone[0].model) == fingerprint(beside[1].model) == fingerprint(after[1].model)
    )


def test_random_numbers_go_on_as_if_nothing_had_been_fitted(dls, tmp_path):
    def draw():
        return (
            torch.rand(3).tolist(),
            np.random.rand(3).tolist(),
            random.random(),
            dls.train.rng.random(),
        )

    def state():
        torch.manual_seed(7)
        np.random.seed(7)
        random.seed(7)
        dls.train.rng = random.Random(7)

    state()
    expected = draw()
    for _ in ("fitted", "loaded"):
        state()
        rng = dls.train.rng
        assert list(teachers(dls, ["small_student"], cache=tmp_path, **quiet).table.weights) == [_]
        assert draw() == expected and dls.train.rng is rng


def test_an_interrupted_fit_leaves_no_file(dls, tmp_path):
    def stop(learn, epochs, lr):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        teachers(dls, ["small_student"], cache=tmp_path, fit=stop, **quiet)
    assert files(tmp_path) == []


def test_an_interrupted_write_leaves_no_file(dls, tmp_path, monkeypatch):
    def half(model, path, *a, **k):
        Path(path).write_bytes(b"half of it")
        raise OSError("no space left")

    monkeypatch.setattr(module, "keep_model", half)
    monkeypatch.setattr(module, "fit_teacher", lambda *a, **k: None)
    with pytest.raises(OSError):
        teachers(dls, ["small_student"], cache=tmp_path, **quiet)
    assert files(tmp_path) == []


@pytest.mark.parametrize("damage", ["cut", "empty", "other model", "renamed"])
def test_a_damaged_file_is_fitted_anew_with_a_warning(damage, kept, tmp_path):
    d, first, dls = kept
    f = tmp_path / files(d)[0]
    whole = (d / f.name).read_bytes()
    if damage == "cut":
        f.write_bytes(whole[: len(whole) // 2])
    elif damage == "empty":
        f.write_bytes(b"")
    elif damage == "other model":
        write_safetensors(GuidedStudent().state_dict(), f, about_model(d / f.name))
    else:
        save_model(first[0].model, f, "small_student", CLASSES, key="0" * 64)
    with pytest.warns(UserWarning, match="cannot be used .*fitting it anew"):
        ts = teachers(dls, ["small_student"], cache=tmp_path, **quiet)
    assert list(ts.table.weights) == ["fitted"] and fingerprint(ts[0].model) == fingerprint(
        first[0].model
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert list(teachers(dls, ["small_student"], cache=tmp_path, **quiet).table.weights) == [
            "loaded"
        ]


def test_the_file_is_one_of_save_model(kept):
    d, first, dls = kept
    about, t = about_model(d / files(d)[0]), load_teacher(d / files(d)[0])
    assert (
        about["recipe"]["epochs"] == 1
        and about["arch"] == "small_student"
        and about["key"][:12] in files(d)[0]
        and set(about["made_with"]) == {"torch", "timm"}
    )
    assert fingerprint(t.model) == fingerprint(first[0].model) and t.vocab == CLASSES


def test_errors_come_before_training(dls, tmp_path, no_fit):
    def fails(kind, match, archs=("small_student",), loaders=dls, **kw):
        with pytest.raises(kind, match=match):
            teachers(loaders, archs, **quiet | dict(cache=tmp_path / "c") | kw)

    fails(ValueError, "archs is empty; give names such as", [])
    fails(ValueError, "near: small_student", ["small_teacher", "small_studnt"])
    fails(ValueError, "two teachers are called 'small_student'", ["small_student", "small_student"])
    fails(
        ValueError,
        "two teachers are called 'a'",
        [{"a": small_student}, Teacher(small_student(), name="a")],
    )
    fails(ValueError, "no pretrained weights", pretrained=True)
    fails(ValueError, "epochs=0", epochs=0)
    fails(TypeError, "give learn.dls", loaders=Learner(dls, small_student()))
    fails(TypeError, "fastai DataLoaders, got list", loaders=[1, 2])
    fails(ValueError, "masks or several labels", loaders=phantom_dls(**N, task="segment"))
    fails(ValueError, "set dls.vocab", loaders=data())
    fails(FileNotFoundError, "there is no file", ["small_student", tmp_path / "none.safetensors"])
    fails(TypeError, r"Teacher\(model, norm=..., vocab=...\)", [small_student()])
    fails(TypeError, "got int", [3])
    fails(TypeError, "a function that makes a new module, got SmallCNN", {"a": small_student()})
    fails(TypeError, "the function gave int", {"a": lambda: 3})
    fails(ValueError, r"gives \(2, 5\) for 2 images of 8 classes", {"a": lambda: small_student(5)})
    fails(
        ValueError,
        r"a fails on a batch of shape \(2, 3, 32, 32\)",
        {"a": lambda: small_student(8, 1)},
    )
    fails(ValueError, "fit is a lambda", fit=lambda learn, epochs, lr: None)
    (tmp_path / "file").write_text("x")
    fails(ValueError, "cannot be a folder of teachers", cache=tmp_path / "file")
    fails(ValueError, "cannot be a folder of teachers", cache=tmp_path / "file" / "below")
    fails(ValueError, "cannot be a folder of teachers", cache=3)
    assert not (tmp_path / "c").exists() or files(tmp_path / "c") == []


def test_weights_that_are_not_finite_are_not_kept(dls, tmp_path):
    def spoil(learn, epochs, lr):
        nn.init.constant_(learn.model.head.weight, float("nan"))

    with pytest.raises(ValueError, match="not finite after training; a smaller lr"):
        teachers(dls, ["small_student"], cache=tmp_path, fit=spoil, **quiet)
    assert files(tmp_path) == []


def test_it_shows_itself(kept):
    ts = kept[1]
    assert "small_student" in repr(ts) and "macro F1" in repr(ts) and "<table" in ts._repr_html_()
    fig = ts.figure()
    assert (
        fig.data[0].type == "heatmap"
        and np.allclose(fig.data[0].z, ts.recall.to_numpy(), equal_nan=True)
        and list(fig.data[0].x) == CLASSES
    )
    assert repr(TeacherSet())


def test_the_defaults_are_known_names():
    import timm

    assert len(set(DEFAULT_ARCHS)) == 3 and all(timm.is_model(n) for n in DEFAULT_ARCHS)
