"""Teachers that answer once: the same students, and every changed ingredient refused by name."""

import json
import warnings

import pytest
import torch
from fastai.vision.augment import RandomErasing
from fasttransform import Transform

import kdmedlearn.train.cache as cache
from kdmedlearn import cache_teacher, distill, fit_steps, mask_dls, phantom_dls, Teacher
from kdmedlearn import with_unlabelled
from kdmedlearn.core.teacher import norm_of
from kdmedlearn.data.loaders import restart
from kdmedlearn.data.sets.polyps import write_phantom_polyps
from kdmedlearn.data.views import turned, with_views
from kdmedlearn.methods.feature import Feature
from kdmedlearn.methods.kdas import KDAS
from kdmedlearn.methods.soft_masks import SoftMasks
from kdmedlearn.models.small import small_student, small_teacher
from kdmedlearn.models.unet import large_unet, small_unet

slow = pytest.mark.slow


def loaders(seed=0, **kw):
    kw = dict(n_train=40, n_valid=8, size=32, bs=8, device="cpu", seed=seed) | kw
    return phantom_dls(**kw)


def teacher(seed=7, make=small_teacher, **kw):
    torch.manual_seed(seed)
    return Teacher(make(), **kw)


def trained(dls, by, method="response", make=small_student, steps=12, **kw):
    restart(dls, 0)
    learn = distill(dls, make(), by, method, **kw)
    restart(learn.dls, 0)
    with learn.no_bar(), learn.no_logging():
        fit_steps(learn, steps, looks=2)
    return learn


def same(a, b):
    for k, v in a.model.state_dict().items():
        assert torch.equal(v, b.model.state_dict()[k]), k
    assert list(map(list, a.recorder.values)) == list(map(list, b.recorder.values))


@pytest.mark.parametrize("views", [3, *(pytest.param(v, marks=slow) for v in (1, "turns"))])
def test_the_student_is_the_same_to_the_last_bit(tmp_path, views):
    dls, t = loaders(), teacher()
    cached = cache_teacher(dls, t, tmp_path / "a", views, log=None)
    same(trained(with_views(dls, views), t), trained(*cached))


@pytest.mark.slow
def test_a_teacher_with_its_own_norm_size_and_maps(tmp_path):
    dls, method = loaders(), Feature({"stage3": "stage3"})
    t = teacher(norm=((0.4,) * 3, (0.3,) * 3), size=48)
    cached = cache_teacher(dls, t, tmp_path / "a", 2, layers=["stage3"], log=None)
    asked = []
    t.model.register_forward_hook(lambda *_: asked.append(1))
    one = trained(with_views(dls, 2), t, method)
    n = len(asked)
    same(one, trained(*cached, method))
    # the trial and the probe of places before training; 12 batches had their answers
    assert len(asked) - n < 12


@pytest.mark.slow
def test_masks_of_one_logit(tmp_path):
    dls = loaders(task="segment", n_train=16)
    t = teacher(make=large_unet)
    cached = cache_teacher(dls, t, tmp_path / "a", 2, log=None)
    for method in (KDAS(), SoftMasks()):
        kw = dict(make=small_unet, steps=4)
        learn = [
            trained(d, by, method, loss_func=bce, **kw)
            for d, by in ((with_views(dls, 2), t), cached)
        ]
        same(*learn)


def bce(z, y):
    y = y[:, None].float() if y.ndim == 3 else y.float()
    return torch.nn.functional.binary_cross_entropy_with_logits(z, y)


@pytest.mark.slow
def test_images_without_labels(tmp_path):
    dls, t = loaders(n_train=16, n_unlabelled=24), teacher()
    cached = cache_teacher(dls, t, tmp_path / "a", 2, unlabelled="rest", log=None)
    assert cached.dls.train.n_labelled == 2
    assert cached.teacher.store.take("mean", torch.arange(80)).shape == (80,)
    same(trained(with_views(with_unlabelled(dls, "rest"), 2), t), trained(*cached))


def test_several_teachers_and_float16(tmp_path):
    dls, ts = loaders(), [teacher(1), teacher(2)]
    cached = cache_teacher(dls, ts, tmp_path / "a", 2, half=True, log=None)
    x, _ = cached.dls.train.one_batch()
    norm = norm_of(dls)
    for t, c in zip(ts, cached.teacher):
        kept, own = c.see((x,), norm).out, t.see((x,), norm).out
        assert kept.dtype == torch.float32 and torch.allclose(kept, own, atol=2e-3)
    asked = []
    for t in ts:
        t.model.register_forward_hook(lambda *_: asked.append(1))
    trained(*cached, "ensemble", steps=2)
    n = len(asked)
    cache_teacher(dls, ts, tmp_path / "a", 2, half=True, log=None)  # both are found again
    assert len(asked) == n + len(ts)  # once each, for one image: are these its answers?


def test_processes_bring_the_rows_along(tmp_path):
    dls, t = loaders(n_train=24), teacher()
    cached = cache_teacher(dls, t, tmp_path / "a", 2, log=None)
    from fastai.data.load import _FakeLoader

    dl = cached.dls.train
    dl.fake_l = _FakeLoader(dl, False, 2, 0, persistent_workers=False, pin_memory_device="")
    norm = norm_of(dls)
    for x, _ in dl:
        assert dl.ticket.rows_of(x) is not None
        kept = cached.teacher.see((x,), norm).out
        assert torch.allclose(kept, t.see((x,), norm).out, atol=1e-5)


CHANGES = {
    "the teacher's weights": dict(teacher=lambda: teacher(8)),
    "the teacher's normalisation": dict(teacher=lambda: teacher(norm=((0.5,) * 3, (0.25,) * 3))),
    "the teacher's image size": dict(teacher=lambda: teacher(size=48)),
    "the teacher's precision": dict(teacher=lambda: teacher(precision="bfloat16")),
    "the images": dict(dls=lambda: loaders(1)),
    "the size of the images": dict(dls=lambda: loaders(size=48)),
    "the views": dict(views=3),
    "the layers": dict(layers=["stage3"]),
    "the precision": dict(half=True),
}


QUICK = ("the teacher's weights", "the images", "the views")


@pytest.mark.parametrize(
    "what", [k if k in QUICK else pytest.param(k, marks=slow) for k in CHANGES]
)
def test_what_has_changed_is_refused_by_name(tmp_path, what):
    folder = tmp_path / "a"
    kw = dict(dls=loaders, teacher=teacher, views=2)
    make = lambda kw: cache_teacher(
        *(kw.pop(k)() for k in ("dls", "teacher")), folder, log=None, **kw
    )
    make(dict(kw))
    make(dict(kw))  # the same once more is taken
    with pytest.raises(ValueError, match=f"something else: .*{what}\\b.*Delete the folder"):
        make(kw | CHANGES[what])


def test_order_normalisation_augmentation_seed_and_versions_are_refused(tmp_path, monkeypatch):
    folder, t = tmp_path / "a", teacher()
    cache_teacher(loaders(), t, folder, 2, log=None)
    turned_round = loaders()
    ds = turned_round.train.dataset
    ds.tls[0].items = type(ds.tls[0].items)(list(ds.tls[0].items)[::-1])
    ds.tls[1].items = type(ds.tls[1].items)(list(ds.tls[1].items)[::-1])
    with pytest.raises(ValueError) as e:
        cache_teacher(turned_round, t, folder, 2, log=None)
    assert "the order of the images" in str(e.value) and "; the images" not in str(e.value)
    other = loaders()
    norm_tfm = next(f for f in other.train.after_batch.fs if hasattr(f, "mean"))
    norm_tfm.mean = norm_tfm.mean + 0.1
    with pytest.raises(ValueError, match="the normalisation of the images"):
        cache_teacher(other, t, folder, 2, log=None)
    with pytest.raises(ValueError, match="the views"):
        cache_teacher(loaders(), t, folder, 2, seed=1, log=None)
    padded = loaders()
    for f in padded.train.after_batch.fs:
        if hasattr(f, "pad_mode"):
            f.pad_mode = "zeros"
    with pytest.raises(ValueError, match="the transforms"):
        cache_teacher(padded, t, folder, 2, log=None)
    monkeypatch.setattr(cache, "version", lambda k: "9.9")
    with pytest.raises(ValueError, match=r"the version of torch \(kept: .*, now: 9.9\)"):
        cache_teacher(loaders(), t, folder, 2, log=None)


@pytest.mark.slow
def test_files_that_are_not_kept_in_memory_are_told_by_size_and_time(tmp_path):
    import os

    write_phantom_polyps(tmp_path / "p", n_train=8, n_valid=4, size=48)
    read = lambda: mask_dls(tmp_path / "p", 32, 4, cache=False, device="cpu")
    t = teacher(make=large_unet)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cache_teacher(read(), t, tmp_path / "a", "turns", log=None)
        cache_teacher(read(), t, tmp_path / "a", "turns", log=None)
        file = read().train.dataset.items[0]
        os.utime(file, ns=(1, 1))
        with pytest.raises(ValueError, match="the images"):
            cache_teacher(read(), t, tmp_path / "a", "turns", log=None)


def test_a_build_that_was_stopped_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "SHARD", 8)
    dls, t, folder = loaders(), teacher(), tmp_path / "a"
    write, n = cache.write_shard, []

    def stops(folder, k, tensors):
        n.append(k)
        if len(n) == 3:
            (folder / f"answers-{k:05d}.1.new.1.part").write_bytes(b"half a fi")
            raise KeyboardInterrupt
        write(folder, k, tensors)

    monkeypatch.setattr(cache, "write_shard", stops)
    with pytest.raises(KeyboardInterrupt):
        cache_teacher(dls, t, folder, 2, log=None)
    said, asked = [], []
    t.model.register_forward_hook(lambda m, i, o: asked.append(len(i[0])))
    again = cache_teacher(dls, t, folder, 2, log=said.append)
    # two shards are there, and of each an image is asked again
    assert asked == [2, 2] + [8] * 6 and said[0].startswith("SmallCNN: 48 answers")
    whole = cache_teacher(dls, t, tmp_path / "b", 2, log=None)
    rows = torch.arange(80)
    assert torch.equal(again.teacher.store.take("out", rows), whole.teacher.store.take("out", rows))


@pytest.mark.slow
def test_a_build_may_go_on_with_another_batch_size(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "SHARD", 16)
    t, folder = teacher(), tmp_path / "a"
    cache_teacher(loaders(), t, folder, 2, log=None)
    next((folder / "teacher-1").glob("answers-00001-*")).unlink()
    again = cache_teacher(loaders(bs=5), t, folder, 2, log=None)  # 5 does not divide a shard
    whole = cache_teacher(loaders(), t, tmp_path / "b", 2, log=None)
    kept = [o.teacher.store.take("out", torch.arange(80)) for o in (again, whole)]
    assert torch.allclose(*kept, atol=1e-6)


@pytest.mark.slow
def test_large_caches_are_read_from_the_files(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "SHARD", 8)
    dls, t = loaders(), teacher()
    small = cache_teacher(dls, t, tmp_path / "a", 2, log=None)
    monkeypatch.setattr(cache, "IN_MEMORY", 0)
    large = cache_teacher(dls, t, tmp_path / "a", 2, log=None)
    assert not large.teacher.store.whole and len(large.teacher.store.shards) == 5
    same(trained(*small), trained(*large))


def test_other_images_than_those_that_were_answered_are_noticed(tmp_path):
    dls = loaders()
    cached = cache_teacher(dls, teacher(), tmp_path / "a", 2, log=None)
    images = cached.dls.train.dataset.items.tls[0]
    images.tfms.add(Transform(lambda x: x.new_full(x.shape, 9).as_subclass(type(x))))
    with pytest.raises(ValueError, match="not the images that SmallCNN has answered to"):
        trained(*cached)


def test_changed_pixels_are_answered_by_the_teacher_itself(tmp_path):
    dls, t = loaders(), teacher()
    cached = cache_teacher(dls, t, tmp_path / "a", 2, log=None)
    x, _ = cached.dls.train.one_batch()
    mixed = 0.5 * x + 0.5 * x.flip(0)
    with pytest.warns(UserWarning, match="mixup.*answers itself"):
        got = cached.teacher.see((mixed,), norm_of(dls)).out
    assert torch.equal(got, t.see((mixed,), norm_of(dls)).out)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cached.teacher.see((mixed,), norm_of(dls))  # said once
        cached.teacher.see((x[:2],), norm_of(dls))


def test_a_full_disk_is_told_before(tmp_path, monkeypatch):
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")(1, 1, 1000)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match="take fewer views or layers, half=True"):
        cache_teacher(loaders(), teacher(), tmp_path / "a", 2, log=None)


def test_what_cannot_come_again_is_refused(tmp_path):
    dls = loaders()
    dls.train.after_batch.add(RandomErasing())
    with pytest.raises(ValueError, match="RandomErasing cannot be repeated"):
        cache_teacher(dls, teacher(), tmp_path / "a", 2)
    done = cache_teacher(loaders(), teacher(), tmp_path / "b", 1, log=None)
    with pytest.raises(ValueError, match="fixed views already"):
        cache_teacher(done.dls, teacher(), tmp_path / "c", 1)


def test_nothing_in_a_cache_can_run_code(tmp_path):
    cache_teacher(loaders(), teacher(), tmp_path / "a", 1, log=None)
    files = {p.suffix for p in (tmp_path / "a").rglob("*") if p.is_file()}
    assert files == {".json", ".safetensors"}
    about = json.loads((tmp_path / "a" / "teacher-1" / "cache.json").read_text())
    assert str(tmp_path) not in json.dumps(about)


def test_masks_turn_with_their_images():
    dls = loaders(task="segment", n_train=8)
    ds = dls.train.dataset
    own = with_views(dls, "turns")
    for _ in range(4):
        for x, y in own.train:
            for row, image, mask in zip(own.train.ticket.rows.tolist(), x, y):
                i, k = divmod(row, 8)
                assert torch.equal(torch.Tensor(mask), torch.Tensor(turned(ds[i][1], k)))


def test_views_are_drawn_without_touching_other_chance():
    dls = loaders()
    torch.manual_seed(3)
    a = torch.rand(1)
    torch.manual_seed(3)
    with_views(dls, 4)
    assert torch.equal(a, torch.rand(1))
    x = {}
    for seed in (0, 0, 1):
        own = with_views(dls, 4, seed=seed)
        x.setdefault(seed, []).append(own.train.chance["1: mat"])
    assert torch.equal(*x[0]) and not torch.equal(x[0][0], x[1][0])


class Scaled(torch.nn.Module):
    "What no weight tells: a number of its own."

    def __init__(self, scale):
        super().__init__()
        self.scale, self.inner = scale, small_teacher()

    def forward(self, x):
        return self.scale * self.inner(x)


def scaled(scale):
    torch.manual_seed(7)
    return Scaled(scale)


@pytest.mark.parametrize("half", (False, pytest.param(True, marks=slow)))
def test_a_teacher_that_answers_otherwise_is_refused_though_its_weights_are_equal(tmp_path, half):
    dls, kw = loaders(), dict(views=2, log=None, half=half)
    cache_teacher(dls, scaled(1.0), tmp_path, **kw)
    cache_teacher(dls, scaled(1.0), tmp_path, **kw)
    with pytest.raises(ValueError, match="not those of this teacher: to image 0"):
        cache_teacher(dls, scaled(3.0), tmp_path, **kw)
    with pytest.raises(ValueError, match="in another shape|not those of this teacher"):
        cache_teacher(dls, scaled(0.0), tmp_path, **kw)


def test_answers_without_their_description_are_refused(tmp_path):
    dls = loaders()
    cache_teacher(dls, teacher(1), tmp_path, 1, log=None)
    (tmp_path / "teacher-1" / "cache.json").unlink()
    with pytest.raises(ValueError, match="has answers and no cache.json"):
        cache_teacher(dls, teacher(2), tmp_path, 1, log=None)


@pytest.mark.parametrize("rows", (-4, 0, 3.5, "8", None))
def test_a_damaged_description_is_told(tmp_path, rows):
    dls = loaders()
    cache_teacher(dls, teacher(), tmp_path, 1, log=None)
    file = tmp_path / "teacher-1" / "cache.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"rows a shard": rows}))
    with pytest.raises(ValueError, match="is damaged; delete"):
        cache_teacher(dls, teacher(), tmp_path, 1, log=None)


def test_no_answer_is_kept_that_is_no_number(tmp_path):
    dls = loaders()
    with pytest.raises(ValueError, match="gives nan or inf .out., so nothing is kept$"):
        cache_teacher(dls, scaled(float("nan")), tmp_path / "nan", 1, log=None)
    with pytest.raises(ValueError, match="above 65,504 need half=False"):
        cache_teacher(dls, scaled(1e7), tmp_path / "half", 1, half=True, log=None)
    cache_teacher(dls, scaled(1e7), tmp_path / "whole", 1, log=None)


def test_one_layer_may_be_a_name(tmp_path):
    cached = cache_teacher(loaders(), teacher(), tmp_path, 1, layers="stage3", log=None)
    assert "stage3" in cached.teacher.store
