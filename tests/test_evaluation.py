"""Scores, cost and the fair experiment."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastai.data.transforms import Normalize
from fastai.learner import Learner
from torch import nn

from helpers import data, net, OtherPixels, Wrapped
from kdmedlearn import phantom_dls, Response, Teacher
from kdmedlearn.core.teacher import norm_of
from kdmedlearn.data.loaders import restart
from kdmedlearn.evaluation.classes import paired, predictions, scores
from kdmedlearn.evaluation.compare import compare, show_table
from kdmedlearn.evaluation.cost import flops
from kdmedlearn.evaluation.regions import evaluate_regions, region_counts, region_scores
from kdmedlearn.experiments.experiment import experiment, gain, history
from kdmedlearn.experiments.probe import agreeing, constant, dice_of_each, doubts, Probe
from kdmedlearn.experiments.probe import probe, Said, said_of_masks
from kdmedlearn.experiments.report import new_run, write_json, write_report
from kdmedlearn.models.small import small_student
from kdmedlearn.models.unet import small_unet
from kdmedlearn.models.weights import about_model, load_model, load_teacher, save_model
from kdmedlearn.train.distillation import distill
from kdmedlearn.train.finite import Diverged
from kdmedlearn.train.teachers import check_teacher, phantom_teacher
from kdmedlearn.viz.figures import compare_figure


def test_scores_against_the_definitions():
    y, p = torch.tensor([0, 0, 0, 1, 1, 2]), torch.tensor([0, 0, 1, 1, 0, 2])
    s = scores(F.one_hot(p, 3).float(), y)
    assert s["accuracy"] == pytest.approx(4 / 6)
    assert s["balanced accuracy"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert s["macro F1"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)


def test_flops_of_known_layers():
    m = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=False),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 5),
    )
    want = 2 * (3 * 9 * 4 * 8 * 8 + 4 * 5)
    assert flops(m, torch.randn(1, 3, 8, 8)) == flops(m, torch.randn(4, 3, 8, 8)) == want


def test_compare_keeps_models_as_they_were():
    dls, m = data(), net().train()
    before = {k: v.clone() for k, v in m.state_dict().items()}
    t = compare({"a": m, "b": net(8)}, dls.valid)
    assert m.training and all(torch.equal(v, m.state_dict()[k]) for k, v in before.items())
    assert (
        list(t.index) == ["a", "b"]
        and (t["ms per image"] > 0).all()
        and t.loc["b", "parameters"] > t.loc["a", "parameters"]
    )
    assert len(compare_figure(t).data) == 2 and show_table(t).shape == t.shape
    logits, y = predictions(m, dls.valid)
    assert len(y) == dls.valid.n and logits.shape == (len(y), 3)


def test_paired_differences():
    r = paired([1, 2, 3], [2, 4, 3])
    assert r["difference"] == 1 and r["standard error"] == pytest.approx(
        np.std([1, 2, 0], ddof=1) / 3**0.5
    )
    assert np.isnan(paired([1], [2])["standard error"])


def test_restart_repeats_weights_and_order():
    dls = data(n=48)
    seen = []
    for seed in (1, 1, 2):
        restart(dls, seed)
        m = net()
        seen.append((m.conv.weight.detach().clone(), [x.sum().item() for x, _ in dls.train]))
    assert torch.equal(seen[0][0], seen[1][0]) and seen[0][1] == seen[1][1]
    assert not torch.equal(seen[0][0], seen[2][0]) and seen[0][1] != seen[2][1]


def test_a_run_folder_is_never_reused(tmp_path):
    a, b = new_run(tmp_path, "x"), new_run(tmp_path, "x")
    assert a != b and a.is_dir() and b.is_dir()
    for bad in ("a/b", "..", ""):
        with pytest.raises(ValueError, match="without separators"):
            new_run(tmp_path, bad)


def test_report_escapes_and_json_reads_back(tmp_path):
    page = write_report(tmp_path / "r.html", "<b>", ["a & b"]).read_text()
    assert "&lt;b&gt;" in page and "a &amp; b" in page
    write_json(tmp_path / "m.json", {"a": np.float64(1.5), "n": np.int64(2)})
    assert json.loads((tmp_path / "m.json").read_text()) == {"a": 1.5, "n": 2}


@pytest.mark.parametrize("half", [False, True])
def test_saved_models_come_back(tmp_path, half):
    from kdmedlearn.models.small import small_student

    m = small_student(3).eval()
    m(torch.randn(4, 3, 32, 32))
    p = save_model(
        m,
        tmp_path / "sub" / "m.safetensors",
        "small_student",
        list("abc"),
        norm=([0.1] * 3, [0.2] * 3),
        half=half,
    )
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(
        load_model(p)(x), m(x), **({"rtol": 1e-2, "atol": 1e-2} if half else {})
    )
    assert load_model(p).head.weight.dtype == torch.float32
    t = load_teacher(p)
    assert (
        t.vocab == ["a", "b", "c"]
        and t.norm[0].shape == (1, 3, 1, 1)
        and about_model(p)["arch"] == "small_student"
    )


def test_files_that_are_no_models(tmp_path):
    torch.save({}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        load_model(tmp_path / "a.pth")
    with pytest.raises(FileNotFoundError):
        load_model(tmp_path / "none.safetensors")
    from safetensors.torch import save_file

    save_file({"w": torch.zeros(2)}, tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match="without a description"):
        load_model(tmp_path / "b.safetensors")


def test_history_says_when_the_record_is_gone():
    from fastai.learner import Learner
    from fastai.metrics import accuracy
    from helpers import data, net
    from torch.nn.functional import cross_entropy
    from kdmedlearn.experiments.experiment import history

    learn = Learner(data(), net(), loss_func=cross_entropy, metrics=accuracy)
    with learn.no_bar(), learn.no_logging():
        learn.fit(2, 1e-3)
        assert len(history(learn)) == 2
        learn.validate()
    with pytest.raises(ValueError, match="right after the fit"):
        history(learn)


def test_a_spread_that_is_not_known_is_null_in_json(tmp_path):
    import json
    from kdmedlearn.experiments.report import write_json

    write_json(
        tmp_path / "m.json",
        {"gain": {"standard error": float("nan")}, "rows": [1.0, float("nan")], "path": tmp_path},
    )
    assert json.loads((tmp_path / "m.json").read_text(), parse_constant=lambda c: 1 / 0)[
        "rows"
    ] == [1.0, None]


def test_compare_shows_a_teacher_its_own_pixels():
    dls, model = phantom_dls(n_train=8, n_valid=64, size=32, seed=5), phantom_teacher()
    own = Teacher(model, norm=(0.2, 0.4), name="own")
    by_hand = scores(
        own.see(
            (torch.cat([x.as_subclass(torch.Tensor) for x, _ in dls.valid]),), norm_of(dls)
        ).out,
        torch.cat([y.as_subclass(torch.Tensor) for _, y in dls.valid]),
    )
    table = compare({"plain": model, "own": own, "smaller": Teacher(model, size=16)}, dls.valid)
    assert (
        table.loc["own", "accuracy"] == pytest.approx(by_hand["accuracy"])
        and table.loc["own", "accuracy"] != table.loc["plain", "accuracy"]
    )
    assert table.loc["smaller", "MFLOPs"] < 0.3 * table.loc["plain", "MFLOPs"]


@pytest.mark.parametrize(
    "models, on, said",
    [
        ([small_student()], "valid", "give a dict"),
        ({"a": small_student()}, "all", "give one of them"),
        ({"a": "resnet"}, "valid", "a is a str"),
        ({"a": small_student(num_classes=4)}, "valid", "4 classes, the labels go up to 7"),
    ],
)
def test_what_cannot_be_compared_is_said(models, on, said):
    dls = phantom_dls(n_train=8, n_valid=16, size=32, seed=5)
    with pytest.raises((TypeError, ValueError), match=said):
        compare(models, dls if on == "all" else dls.valid)


def phantoms(norm=None, size=64, **kw):
    "Phantoms, normalised otherwise where `norm` is given."
    dls = phantom_dls(n_train=8, n_valid=32, size=size, seed=5, device="cpu", **kw)
    for dl in dls.loaders if norm else ():
        dl.after_batch.fs[-1] = Normalize.from_stats(*norm, cuda=False)
    return dls


def test_a_learner_is_compared_in_its_own_normalisation():
    dls, grey = phantoms(), ((0.0,) * 3, (1 / 255,) * 3)
    model = phantom_teacher().train()  # knows pixels from 0 to 255
    learn = Learner(phantoms(grey), nn.Sequential(OtherPixels(grey, norm_of(dls)), model))
    table = compare({"teacher": learn, "as it was": model}, dls.valid)
    assert table.loc["teacher", "accuracy"] == table.loc["as it was", "accuracy"] > 0.8
    assert table.loc["as it was", "agreement"] == 1
    assert learn.model.training and model.training  # as they were
    assert table.loc["teacher", "accuracy"] == check_teacher(learn, dls)["accuracy"]
    want, got = predictions(model, dls.valid)[0], predictions(learn, dls.valid)[0]
    torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-3)


def test_a_learner_is_compared_at_its_own_size():
    dls, model = phantoms(size=64), phantom_teacher()
    learn = Learner(phantoms(size=32), model)
    table = compare({"teacher": learn, "large": model}, dls.valid)
    assert table.loc["teacher", "MFLOPs"] < 0.3 * table.loc["large", "MFLOPs"]
    assert table.loc["teacher", "accuracy"] == check_teacher(learn, dls)["accuracy"]
    want = predictions(Teacher(model, norm_of(dls), size=32), dls.valid)[0]
    assert torch.equal(predictions(learn, dls.valid)[0], want)


def test_a_learner_of_the_same_pixels_is_asked_as_ever():
    dls, student = phantoms(), small_student()
    taught = distill(dls, student, phantom_teacher())
    want = predictions(student, dls.valid)[0]
    unknown = Learner(data(), student, loss_func=F.cross_entropy)  # their normalisation
    for learn in (taught, Learner(phantoms(), student), Learner(dls, student), unknown):
        assert torch.equal(predictions(learn, dls.valid)[0], want)


@pytest.mark.parametrize("how", ["logits", "out", "one", "object", "named"])
def test_a_wrapped_output_is_compared(how):
    dls, m = data(), net()
    t = compare({"teacher": m, "student": Wrapped(m, how)}, dls.valid)
    assert (t.loc["student", "agreement"], t.loc["student", "KL to teacher"]) == (1, 0)
    kept = ["accuracy", "balanced accuracy", "macro F1", "ECE", "MFLOPs"]
    assert t.loc["student", kept].equals(t.loc["teacher", kept])
    assert torch.equal(*(predictions(o, dls.valid)[0] for o in (m, Wrapped(m, how))))


@pytest.mark.parametrize("how", ["two", "pair"])
def test_an_output_without_a_main_part_is_told_how_to_be_wrapped(how):
    for model in (Wrapped(net(), how), Teacher(Wrapped(net(), how))):
        with pytest.raises(ValueError, match="Wrapped returns a .* model = Unwrap"):
            compare({"student": model}, data().valid)


def test_a_student_with_a_wrapped_output_is_in_an_experiment():
    scores_of, teacher = [], net(8)
    for how in ("plain", "logits"):
        kw = dict(steps=4, epochs=2, controls=["label smoothing"], log=None)
        found = experiment(lambda s: data(), lambda: Wrapped(net(), how), teacher, **kw)
        scores_of.append(found["scores"])
    assert list(scores_of[0].model) == ["student alone", "label smoothing", "student distilled"]
    assert scores_of[0].equals(scores_of[1])


def test_a_student_with_a_wrapped_output_is_probed():
    found = []
    for how in ("plain", "object"):
        student, kw = lambda: Wrapped(small_student(), how), dict(steps=2, seeds=(0,), log=None)
        found.append(probe(phantoms(size=32), student, phantom_teacher(), **kw).right)
    assert list(found[0]) == list(found[1])
    assert all(np.array_equal(found[0][k], found[1][k]) for k in found[0])


@pytest.mark.slow
def test_the_probe_asks_all_teachers():
    "One that knows nothing does not speak for one that does: their mean is asked."
    good, kw = phantom_teacher(), dict(steps=1, seeds=(0,), log=None)
    dls = phantoms(size=32)
    silent = small_student()
    silent.head.weight.data.zero_(), silent.head.bias.data.zero_()
    one = probe(dls, small_student, good, **kw).right["teacher"]
    for both in ([silent, good], [good, silent]):
        assert np.array_equal(probe(dls, small_student, both, **kw).right["teacher"], one)


def test_masks_are_probed_by_their_dice():
    "What `probe` calls a Dice is what `evaluate_regions` does, also with several classes."
    torch.manual_seed(0)
    dls = phantom_dls(8, 6, size=32, bs=4, task="segment", device="cpu")
    teacher, kw = small_unet(2), dict(steps=2, seeds=(0,), log=None)
    found = probe(dls, lambda: small_unet(2), teacher, "pixelkl", **kw)
    assert found.measure == "Dice" and "points of Dice" in str(found.figure().layout.xaxis.title)
    want = evaluate_regions(teacher, dls.valid).iloc[:, 2]
    assert np.allclose(found.right["teacher"], want, atol=1e-6)
    assert 0 <= found.calibration <= 1 and "images with a mask" in str(found)
    answer = torch.randint(0, 3, (5, 16, 16))
    mask = torch.randint(0, 3, (5, 16, 16))
    mask[0, :4] = 255  # does not count
    one_hot = torch.nn.functional.one_hot(answer, 3).permute(0, 3, 1, 2)
    table = region_scores(region_counts(one_hot, mask))
    want = table[["dice 1", "dice 2"]].mean(axis=1)
    assert np.allclose(dice_of_each(answer, mask, 3), want)


def test_teachers_of_masks_are_asked_together():
    "A network and one without an opinion: together they say what the first does."
    torch.manual_seed(0)
    dls = phantom_dls(8, 6, size=32, bs=4, task="segment", device="cpu")
    first, flat = small_unet(2), small_unet(2)
    for p in flat.parameters():
        p.data.zero_()
    one, both = (said_of_masks(nets, dls.valid) for nets in ([first], [flat, first]))
    assert torch.equal(one.answer, both.answer) and np.array_equal(one.score, both.score)
    assert torch.allclose(both.logits.exp().sum(1), torch.ones(len(both.logits)))
    half = 0.5 * one.logits.softmax(1) + 0.25
    assert torch.allclose(both.logits.exp(), half, atol=1e-5)


def test_masks_that_everybody_contradicts_are_counted():
    good = np.zeros((3, 8, 8), int)
    good[:, :4] = 1
    answer = torch.from_numpy(good)
    mask = answer.clone()
    mask[1] = 1 - mask[1]  # somebody painted the background
    score = dice_of_each(answer, mask, 2)
    said = Said(score, answer, torch.zeros(4, 2), torch.zeros(4, dtype=torch.long))
    assert (doubts(said) & agreeing(said, said)).tolist() == [False, True, False]
    other = said._replace(answer=1 - answer)
    assert not (doubts(said) & agreeing(said, other)).any()


class Heads(nn.Module):
    "Two heads of masks, as Polyp-PVT has."

    def __init__(self):
        super().__init__()
        self.body = small_unet(1)

    def forward(self, x):
        z = self.body(x)
        return z / 4, 3 * z / 4


def test_networks_with_several_heads_are_probed():
    torch.manual_seed(0)
    dls = phantom_dls(8, 6, size=32, bs=4, task="segment", device="cpu")
    two = Heads()
    one, both = (said_of_masks([m], dls.valid) for m in (two.body, two))
    assert torch.equal(one.answer, both.answer) and torch.allclose(one.logits, both.logits)


def test_a_student_alone_that_diverges_is_no_result():
    dls = phantoms(size=32)

    class Nan(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = small_student()

        def forward(self, x):
            return self.body(x) * float("nan")

    with pytest.raises(Diverged):
        probe(dls, Nan, phantom_teacher(), steps=1, seeds=(0,), log=None)


def test_a_wrong_number_of_channels_is_told_before_anything_is_compared():
    dls = phantom_dls(8, 6, size=32, bs=4, task="segment", device="cpu")
    kw = dict(steps=1, seeds=(0,), log=None)
    with pytest.raises(ValueError, match="num_classes=2|one logit a pixel"):
        probe(dls, small_unet, small_unet(2), "pixelkl", **kw)


def test_where_nobody_has_learned_nothing_is_known():
    wrong = np.zeros((1, 50), bool)
    right = {"teacher": wrong, "alone": wrong, "taught": wrong}
    right |= {"alone, longer": wrong, "taught, longer": wrong}
    found = Probe(right, 10, 0, 0.0, [], floor=0.0)
    assert found.answer == "too little known" and "has not learned yet" in str(found)
    assert "lr=" in found.advice
    torch.manual_seed(0)
    dls = phantom_dls(8, 6, size=32, bs=4, task="segment", device="cpu")
    said = said_of_masks([small_unet(2)], dls.valid)
    all_of_it = evaluate_regions(Everything(), dls.valid).iloc[:, 2].mean()
    assert constant(dls.valid, said) == pytest.approx(all_of_it)


class Everything(nn.Module):
    "Answers foreground."

    def forward(self, x):
        return torch.ones(len(x), 1, *x.shape[2:])
