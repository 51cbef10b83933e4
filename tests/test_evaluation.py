"""Scores, cost and the fair experiment."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers import data, net
from kdmedlearn import phantom_dls, Response, Teacher
from kdmedlearn.core.teacher import norm_of
from kdmedlearn.data.loaders import restart
from kdmedlearn.evaluation.classes import paired, predictions, scores
from kdmedlearn.evaluation.compare import compare, show_table
from kdmedlearn.evaluation.cost import flops
from kdmedlearn.experiments.experiment import gain, history
from kdmedlearn.experiments.report import new_run, write_json, write_report
from kdmedlearn.models.small import small_student
from kdmedlearn.models.weights import about_model, load_model, load_teacher, save_model
from kdmedlearn.train.teachers import phantom_teacher
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
