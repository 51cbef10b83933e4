"""Ranges of params, runs on disk, the search, and the bench without a browser."""

import gc, json, threading, time, weakref

import pytest
import torch
import torch.nn.functional as F

from fastai.learner import Learner
from PIL import Image
from helpers import data, net
from kdmedlearn.core.method import as_method, code_of, Method, METHODS, ranges_of, with_params
from kdmedlearn.core.parameters import (
    Choice,
    Hyperparameter,
    Range,
    Share,
    Switch,
    Temperature,
    Weight,
    Whole,
)
from kdmedlearn.methods.feature import Feature
from kdmedlearn.methods.fusion import AttentionFusion, RelationAttention
from kdmedlearn.methods.hdkd import HDKD
from kdmedlearn.methods.kdas import KDAS
from kdmedlearn.data import unlabelled
from kdmedlearn.data.images import image_dls
from kdmedlearn.data.loaders import restart
from kdmedlearn.data.phantom import phantom_dls
from kdmedlearn.data.unlabelled import with_unlabelled
from kdmedlearn.evaluation.masks import dice
from kdmedlearn.evaluation.regions import RegionDice
from kdmedlearn.methods.kdas import StructureLoss
from kdmedlearn.methods.response import Response
from kdmedlearn.models.small import small_student, small_teacher
from kdmedlearn.models.unet import small_unet
from kdmedlearn.train.budget import fit_steps
from kdmedlearn.tuning.runs import (
    alone_line,
    best_of,
    final,
    lower_is_better,
    Runs,
    runs_of_study,
    table_of,
)
from kdmedlearn.tuning.search import check_task, teacher_line, train_run, tune
from kdmedlearn.viz.figures import runs_figure
from kdmedlearn.widgets.bench import Job, tuning_bench
from kdmedlearn.widgets.panel import log_slider

KW = dict(metrics=[lambda z, y: (z.argmax(1) == y).float().mean()], loss_func=F.cross_entropy)
KW["metrics"][0].__name__ = "accuracy"


class Own(Method):
    "A method with hyperparameters of every kind."

    T = Temperature(2.0)
    share = Share(0.5)
    weight = Weight(3.0)
    on = Switch(True)
    n = Whole(4, low=1, tune=(1, 16))
    zero = Weight(0.0)
    mode = Choice("soft", ("soft", "hard"))
    sched = Weight(lambda pct: 0.5)
    layer = Hyperparameter("conv")

    def weights(self, pct=0.0):
        return {"task": 1 - self.share, "own": self.share * self.weight}

    def terms(self, p):
        return {"own": F.mse_loss(p.student.out / self.T, p.teachers[0].out / self.T)}


# --- params
def test_ranges_are_those_declared():
    assert ranges_of(Own()) == {
        "T": Range("log", 1.0, 20.0),
        "share": Range("linear", 0.0, 1.0),
        "weight": Range("log", 0.03, 300.0),
        "on": Range("switch", choices=(False, True)),
        "n": Range("whole", 1, 16),
        "zero": Range("linear", 0.0, 1.0),
        "mode": Range("choice", choices=("soft", "hard")),
    }


@pytest.mark.parametrize("name", sorted(METHODS.built_in()))
def test_every_setting_in_the_ranges_of_our_methods_can_be_made(name):
    m = as_method(name)
    for k, r in ranges_of(m).items():
        for v in r.choices or (r.low, r.high):
            try:
                assert with_params(m, {k: v}).hyperparameters()[k] == v, k
            except ValueError as e:
                # depends on another one; said when it is tried
                assert k in ("d", "heads") and "do not divide" in str(e)


def test_in_a_sum_knobs_have_the_names_of_their_parts():
    m = Response(T=3) + Feature(lam=0.5)
    n = with_params(m, {"response.T": 5.0, "feature.distance": "cosine"})
    assert (
        [type(p) for p in n.parts] == [Response, Feature]
        and n.parts[0].T == 5
        and n.parts[1].distance == "cosine"
        and n.parts[1].lam == 0.5
        and m.parts[0].T == 3
    )
    assert not set(map(id, n.parts)) & set(map(id, m.parts))
    with pytest.raises(ValueError, match="no hyperparameter 'T'; it has response.T"):
        with_params(m, {"T": 2})


@pytest.mark.parametrize(
    "m",
    [
        Response(),
        Response(T=1.5, alpha=0.25),
        Feature({"conv": "conv"}, "l1"),
        HDKD(lam=2),
        KDAS(sgm=0.5),
        Response() + Feature(lam=3.0),
        RelationAttention(d=32),
    ],
)
def test_code_makes_the_same_method_again(m):
    again = eval(code_of(m), {c.__name__: c for c in METHODS.classes.values()})
    drop = lambda m: [
        {k: v for k, v in p.hyperparameters().items() if k != "fusion"} for p in m.parts
    ]
    assert drop(again) == drop(m)


def test_a_fusion_that_learns_is_made_anew_and_a_fitted_one_is_kept():
    m = RelationAttention(d=16, heads=2)
    assert m.clone(d=32).fusion.d == 32 and m.clone().fusion is not m.fusion
    f = AttentionFusion(16, 2).freeze()
    assert RelationAttention(fusion=f).clone(T=2.0).fusion is f and "d" not in ranges_of(
        RelationAttention(fusion=f)
    )


# --- runs
def test_a_run_is_kept_with_its_curve_and_is_reproducible(tmp_path):
    runs = Runs(tmp_path / "r")
    teacher = net(6)
    a, b, c = (
        train_run(runs, data(), net, teacher, Response(T=T), epochs=2, seed=s, **KW)
        for T, s in ((2.0, 0), (2.0, 0), (3.0, 0))
    )
    assert [r["run"] for r in runs.all()] == [1, 2, 3] and all(
        r["status"] == "done" for r in runs.all()
    )
    assert (
        a["history"] == b["history"] != c["history"]
        and set(a["history"]) == {"train_loss", "valid_loss", "accuracy", "task", "response"}
        and len(a["history"]["task"]) == 2
    )
    assert (
        runs.all()[2]["params"] == {"T": 3.0, "alpha": 0.9}
        and runs.all()[2]["code"] == "Response(T=3)"
    )
    t = table_of(runs.all())
    # what is the same everywhere is left out
    assert list(t.index) == [1, 2, 3] and "T" in t and "alpha" not in t and "seed" not in t


def test_the_student_and_the_method_given_stay_as_they_are(tmp_path):
    student, m = net(), Feature()
    before = {k: v.clone() for k, v in student.state_dict().items()}
    train_run(Runs(tmp_path), data(), student, net(6), m, epochs=1, **KW)
    assert all(torch.equal(v, before[k]) for k, v in student.state_dict().items())
    assert repr(m) == repr(Feature())


def test_a_run_that_breaks_says_so_on_disk(tmp_path):
    class Breaks(Response):
        def terms(self, p):
            if p.student.out.requires_grad and torch.is_grad_enabled() and len(p.target) > 2:
                raise RuntimeError("out of memory, say")
            return super().terms(p)

    with pytest.raises(RuntimeError):
        train_run(Runs(tmp_path), data(), net, net(6), Breaks(), epochs=1, **KW)
    status = Runs(tmp_path).all()[0]["status"]
    assert status.startswith("failed: RuntimeError") and "out of memory, say" in status


def test_runs_of_a_dead_kernel_and_damaged_files(tmp_path):
    runs = Runs(tmp_path)
    r = runs.new(Response(), lr=0.1, seed=0, of=5)
    assert runs.all()[0]["status"] == "running"
    runs.keep(r | {"process": 2**22 + 1})
    (tmp_path / "run-7.json").write_text("{")
    assert [x["status"] for x in runs.all()] == ["interrupted", "damaged"]
    assert runs.new(Response(), lr=0.1, seed=0, of=5)["run"] == 8
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="name a folder"):
        Runs(tmp_path / "file")


def test_the_best_is_the_highest_or_the_lowest_as_the_name_says():
    runs = [
        {"run": i, "status": s, "history": {"accuracy": [a], "valid_loss": [l]}}
        for i, s, a, l in (
            (1, "done", 0.5, 0.7),
            (2, "done", 0.6, 0.9),
            (3, "stopped", 0.9, 0.1),
            (4, "done", float("nan"), 1.0),
        )
    ]
    assert (
        best_of(runs)["run"] == 2
        and best_of(runs, "valid_loss")["run"] == 1
        and best_of([]) is None
    )
    assert (
        lower_is_better("valid_loss")
        and lower_is_better("MAE")
        and lower_is_better("_rmse")
        and not lower_is_better("dice")
    )
    assert not lower_is_better("response") and lower_is_better(
        "response", [{"terms": ["task", "response"]}]
    )


def test_a_run_that_ended_in_nan_has_no_score(tmp_path):
    runs = Runs(tmp_path)
    runs.keep(
        runs.new(Response(), lr=0.1, seed=0, of=3)
        | {
            "status": "done",
            "history": {"accuracy": [0.1, 0.9, float("nan")]},
        }
    )
    assert (
        final(runs.all()[0], "accuracy") != final(runs.all()[0], "accuracy")
        and best_of(runs.all()) is None
    )


def test_a_running_run_is_not_deleted_and_no_number_is_given_twice(tmp_path):
    runs = Runs(tmp_path)
    a = runs.new(Response(), lr=0.1, seed=0, of=3)
    with pytest.raises(ValueError, match="run 1 is training"):
        runs.drop(1)
    runs.keep(a | {"status": "done"})
    runs.drop(1)
    assert runs.new(Response(), lr=0.1, seed=0, of=3)["run"] == 2


def test_a_folder_holds_runs_of_one_task(tmp_path):
    bench(tmp_path).close()
    b = bench(tmp_path)
    train(b)
    b.close()
    with pytest.raises(
        ValueError,
        match="holds runs of another task: run 1 has student Sequential .*, now student Sequential",
    ):
        tuning_bench(data(), lambda: net(5), net(6), "response", tmp_path / "runs", **KW)
    with pytest.raises(
        ValueError,
        match="no column 'dice'; it has train_loss, valid_loss, accuracy, task, response",
    ):
        bench(tmp_path, score="dice")


def test_a_bench_that_cannot_be_made_leaves_the_open_one_alone(tmp_path):
    a = bench(tmp_path)
    with pytest.raises(ValueError):
        tuning_bench(
            data(), lambda: net(num_classes=5), net(6), "response", tmp_path / "runs", **KW
        )
    assert a.train is not None
    a.close()


# --- the student alone, and the lines to beat
def by_hand(dls, student, fit, seed=0, loss=F.cross_entropy):
    "The validation losses of a plain Learner."
    restart(dls, seed)
    learn = Learner(dls, student(), loss_func=loss)
    restart(dls, seed)
    with learn.no_bar(), learn.no_logging():
        fit(learn)
    return [v[1] for v in learn.recorder.values]


def test_the_student_alone_is_a_plain_training(tmp_path):
    runs, teacher = Runs(tmp_path), net(6)
    taught = train_run(runs, data(), net, teacher, Response(), epochs=2, seed=3, **KW)
    alone = train_run(runs, data(), net, teacher, Response(), epochs=2, seed=3, alone=True, **KW)
    assert (alone["code"], alone["params"], alone["terms"], alone["alone"], alone["status"]) == (
        "student alone",
        {},
        [],
        True,
        "done",
    )
    assert set(alone["history"]) == {"train_loss", "valid_loss", "accuracy"}
    assert alone["task"] == taught["task"] and "alone" not in taught
    want = by_hand(data(), net, lambda learn: learn.fit_one_cycle(2, 3e-3), seed=3)
    assert alone["history"]["valid_loss"] == want


def test_with_images_without_labels_the_student_alone_makes_as_many_steps(tmp_path):
    dls = phantom_dls(n_train=16, n_valid=8, size=32, bs=8, device="cpu", n_unlabelled=24)
    steps = []
    watch = lambda run, epoch, batch: steps.append(batch)
    how = dict(epochs=2, metrics=KW["metrics"], unlabelled="rest", unlabelled_share=0.75)
    train = lambda alone: train_run(
        Runs(tmp_path),
        dls,
        small_student,
        small_teacher(),
        Response(),
        watch=watch,
        alone=alone,
        **how,
    )
    each = len(with_unlabelled(dls, "rest").train)
    assert each > len(dls.train)
    taught, n = train(False), len(steps)
    alone = train(True)
    assert n == len(steps) - n and alone["task"] == taught["task"]
    assert len(alone["history"]["valid_loss"]) == 2
    loss = dls.train_ds.loss_func
    fit = lambda learn: fit_steps(learn, 2 * each, 3e-3, looks=2)
    assert alone["history"]["valid_loss"] == by_hand(dls, small_student, fit, loss=loss)


def mask_loaders():
    return phantom_dls(n_train=8, n_valid=4, size=32, bs=4, task="segment", device="cpu")


def test_both_students_get_the_loss_of_the_method(tmp_path):
    from kdmedlearn.tuning.search import as_taught, without_teacher

    dls = mask_loaders()
    dls.loss_func = torch.nn.CrossEntropyLoss(ignore_index=255)
    taught = as_taught(dls, small_unet(), small_unet(), KDAS(), dice)
    alone = without_teacher(taught, dls, dice, cbs=None)
    for learn in (taught, alone):
        assert isinstance(learn.loss_func, StructureLoss) and learn.loss_func.ignore_index == 255
    assert alone.model is taught.model and not hasattr(alone, "distill")


def test_the_best_is_never_the_student_alone_and_the_line_is_at_its_best(tmp_path):
    runs = Runs(tmp_path)
    kept = lambda method, status, *accuracy: runs.keep(
        runs.new(method, lr=0.1, seed=0, of=2)
        | {
            "status": status,
            "history": {"accuracy": list(accuracy), "train_loss": [1.0]},
        }
    )
    kept(Response(T=2), "done", 0.4)
    kept(None, "done", 0.6)
    kept(None, "done", 0.5)
    kept(None, "stopped", 0.9)
    assert best_of(runs.all())["code"] == "Response(T=2)"
    assert alone_line(runs.all()) == {"student alone": 0.6}
    assert alone_line(runs.all(), "train_loss") == alone_line(runs.all(), "dice") == {}
    assert alone_line(runs.all()[:1]) == {}
    t = table_of(runs.all())
    assert list(t.student) == ["taught", "alone", "alone", "alone"]
    assert t["T"].notna().tolist() == [True, False, False, False]
    kept(Response(T=3), "done", 0.3)
    assert "alpha" not in table_of(runs.all())  # the same in all runs that have one
    runs.drop(2, 3, 4)
    assert "student" not in table_of(runs.all())


def test_the_line_of_the_teacher_is_its_score_as_a_student(tmp_path):
    look = lambda teacher, score="accuracy", **kw: teacher_line(
        check_task(Runs(tmp_path), data(), net, teacher, Response(), score=score, **KW | kw), score
    )
    torch.manual_seed(1)
    a, b = net(6), net(7)
    hits = lambda m: [(m(x).argmax(1) == y).float().tolist() for x, y in data().valid]
    share = lambda m: sum(map(sum, hits(m.eval()))) / 8
    assert look(a) == {"teacher": pytest.approx(share(a))}
    assert share(a) != share(b)
    assert look([a, b]) == {
        "best single teacher, Sequential": pytest.approx(max(share(a), share(b)))
    }
    assert look(a, "valid_loss") == look(a, "response") == {}

    def fails(z, y):
        raise RuntimeError("no number")

    assert look(a, "fails", metrics=[fails]) == {}


def test_a_teacher_of_other_classes_has_no_line(tmp_path):
    what = (data(), net, net(6, num_classes=5), Feature({"conv": "conv"}))
    learn = check_task(Runs(tmp_path), *what, score="accuracy", **KW)
    assert teacher_line(learn, "accuracy") == {}


@pytest.mark.parametrize("metric", [dice, RegionDice()], ids=["dice", "RegionDice"])
def test_the_line_of_a_teacher_of_masks(tmp_path, metric):
    from kdmedlearn.evaluation.regions import score_regions

    dls, teacher = mask_loaders(), small_unet()
    learn = check_task(Runs(tmp_path), dls, small_unet, teacher, KDAS(), metric, "dice")
    want = score_regions(teacher, dls.valid)["dice"]
    assert teacher_line(learn, "dice") == {"teacher": pytest.approx(want, abs=1e-5)}


def test_lines_stand_in_the_picture_of_the_score():
    runs = [
        {"run": 1, "history": {"accuracy": [0.1], "train_loss": [2.0]}},
        {"run": 2, "alone": True, "history": {"accuracy": [0.2], "train_loss": [1.0]}},
    ]
    fig = runs_figure(runs, lines={"student alone": 0.2, "teacher": 0.9})
    assert [(s.y0, s.yref) for s in fig.layout.shapes] == [(0.9, "y"), (0.2, "y")]
    texts = [a.text for a in fig.layout.annotations]
    assert texts[-2:] == ["teacher 0.900", "student alone 0.200"]
    assert {d.name: d.line.dash for d in fig.data} == {"run 1": "solid", "run 2, alone": "dot"}
    assert not runs_figure(runs).layout.shapes
    assert len(runs_figure([], lines={"teacher": 0.9}).layout.shapes) == 1


# --- the search
@pytest.mark.parametrize("method", ["response", Response])
def test_a_method_by_name_or_class_is_searched(method, tmp_path):
    pytest.importorskip("optuna")
    kw = dict(epochs=1, folder=tmp_path, params=["T"], log=None, **KW)
    runs = tune(data(), net, net(6), method, trials=3, **kw)
    assert len({r["params"]["T"] for r in runs.all()}) == 3


def test_tune_varies_only_what_it_is_asked_to_and_goes_on(tmp_path):
    optuna = pytest.importorskip("optuna")
    kw = dict(epochs=1, folder=tmp_path, params=["T"], log=None, **KW)
    runs = tune(data(), net, net(6), Response(alpha=0.7), trials=3, **kw)
    T = [r["params"]["T"] for r in runs.all()]
    with pytest.raises(ValueError, match="this study has epochs 1, now epochs 2"):
        tune(data(), net, net(6), Response(alpha=0.7), trials=1, **kw | {"epochs": 2})
    with pytest.raises(
        ValueError,
        match="score accuracy, direction maximize, now score valid_loss, direction minimize",
    ):
        tune(data(), net, net(6), Response(alpha=0.7), trials=1, score="valid_loss", **kw)
    with pytest.raises(ValueError, match="epochs=0"):
        tune(data(), net, net(6), trials=1, **kw | {"epochs": 0})
    with pytest.raises(TypeError, match="the range of T is .*expected a Range"):
        tune(data(), net, net(6), trials=1, **kw | {"params": {"T": (1, 4)}})
    assert (
        len(set(T)) == 3
        and all(1 <= t <= 20 for t in T)
        and {r["params"]["alpha"] for r in runs.all()} == {0.7}
    )
    tune(data(), net, net(6), Response(alpha=0.7), trials=2, **kw)
    from kdmedlearn.tuning.search import _storage

    study = optuna.load_study(study_name="kdmedlearn", storage=_storage(None, tmp_path))
    assert (
        len(runs.all()) == 5 == len(study.trials)
        and len({r["params"]["T"] for r in runs.all()}) == 5
    )  # not the same proposals again
    seen = runs_of_study(study)
    assert [r["params"] for r in seen] == [r["params"] for r in runs.all()] and table_of(
        seen
    ).equals(table_of(runs.all()))


@pytest.mark.slow
def test_a_study_in_a_database_can_be_shared(tmp_path):
    pytest.importorskip("optuna")
    url = f"sqlite:///{tmp_path}/s.db"
    for machine in "ab":
        tune(
            data(),
            net,
            net(6),
            trials=1,
            epochs=1,
            folder=tmp_path / machine,
            storage=url,
            log=None,
            **KW,
        )
    import optuna

    study = optuna.load_study(study_name="kdmedlearn", storage=url)
    assert len(Runs(tmp_path / "a").all()) == 1 and [r["run"] for r in runs_of_study(study)] == [
        1,
        2,
    ]


def test_the_pruner_is_heard(tmp_path):
    optuna = pytest.importorskip("optuna")

    class Second(optuna.pruners.BasePruner):
        def prune(self, study, trial):
            return trial.number == 1

    runs = tune(
        data(), net, net(6), trials=2, epochs=3, folder=tmp_path, pruner=Second(), log=None, **KW
    )
    assert [(r["status"], len(r["history"]["accuracy"])) for r in runs.all()] == [
        ("done", 3),
        ("pruned", 1),
    ]


def classes_in_folders(path, n=16):
    "Grey noise in two classes, read with half of the training images left out."
    g = torch.Generator().manual_seed(0)
    for c in "ab":
        (path / c).mkdir(parents=True)
        for i in range(n):
            a = torch.randint(0, 256, (8, 8, 3), generator=g).repeat_interleave(4, 0)
            Image.fromarray(a.repeat_interleave(4, 1).byte().numpy()).save(path / c / f"{i}.png")
    return image_dls(path, size=32, bs=4, valid=0.25, fraction=0.5, device="cpu")


def test_a_search_with_images_without_labels_compares_them_once(tmp_path, monkeypatch):
    pytest.importorskip("optuna")
    dls, calls = classes_in_folders(tmp_path / "set"), []
    compare = unlabelled.seen_in_tests
    monkeypatch.setattr(
        unlabelled, "seen_in_tests", lambda *args: calls.append(1) or compare(*args)
    )
    kw = dict(trials=2, epochs=1, folder=tmp_path / "runs", log=None, unlabelled="rest", **KW)
    student = lambda: net(num_classes=2)
    runs = tune(dls, student, net(6, num_classes=2), "response", **kw)
    assert [r["status"] for r in runs.all()] == ["done", "done"] and len(calls) == 1
    (images, _), n = runs.all()[0]["task"]["images"], len(dls.train_ds)
    assert images == n + len(dls.rest)


# --- the bench
def bench(tmp_path, method="response", teacher=None, **kw):
    return tuning_bench(
        data(),
        net,
        teacher or net(6),
        method,
        tmp_path / "runs",
        **{"epochs": 2, "every": 0.0} | kw,
        **KW,
    )


def train(b, wait=60):
    b.buttons["Train"].click()
    b.job.thread.join(wait)


@pytest.mark.slow
def test_the_bench_trains_what_its_controls_say(tmp_path):
    teacher = net(6)
    b = bench(tmp_path, teacher=teacher)
    assert (
        b.params["T"].value,
        b.params["alpha"].value,
        b.buttons["Train"].disabled,
        b.buttons["Stop"].disabled,
    ) == (4.0, 0.9, False, True)
    train(b)
    b.params["T"].value, b.epochs.value, b.seed.value = 8.0, 1, 3
    train(b)
    one, two = Runs(tmp_path / "runs").all()
    assert (one["params"]["T"], two["params"]["T"], two["seed"], two["of"], two["status"]) == (
        4.0,
        8.0,
        3,
        1,
        "done",
    )
    direct = train_run(
        Runs(tmp_path / "x"), data(), net, teacher, Response(T=8.0), epochs=1, seed=3, **KW
    )
    assert direct["history"] == two["history"]
    b.list.value = (1,)
    b.buttons["Set sliders"].click()
    assert (b.params["T"].value, b.seed.value, b.epochs.value) == (4.0, 0, 2)
    names = {d.name for d in b.figure.data}
    assert names == {"run 1", "run 2"} and len(b.figure.data) == 10
    b.close()


def test_alone_trains_without_the_teacher_and_draws_a_line(tmp_path):
    b = bench(tmp_path)
    lines = lambda: [a.text for a in b.figure.layout.annotations if a.text[-1].isdigit()]
    assert [t.split()[0] for t in lines()] == ["teacher"]
    b.params["T"].value, b.epochs.value, b.seed.value = 8.0, 1, 3
    b.buttons["Alone"].click()
    assert b.buttons["Alone"].disabled and b.buttons["Train"].disabled
    b.job.thread.join(60)
    assert not b.buttons["Alone"].disabled and b.best.value == ""
    (run,) = Runs(tmp_path / "runs").all()
    assert (run["code"], run["seed"], run["of"], run["status"]) == ("student alone", 3, 1, "done")
    reached = f"student alone {final(run, 'accuracy'):.3f}"
    assert reached in lines() and len(lines()) == 2
    assert "student alone" in b.list.options[0][0]
    assert {d.name for d in b.figure.data} == {"run 1, alone"}
    b.seed.value = 0
    b.list.value = (1,)
    b.buttons["Set sliders"].click()
    assert (b.seed.value, b.params["T"].value) == (3, 8.0)
    train(b)
    assert b.best.value.startswith("Response(T=8)")
    b.close()


def test_the_bench_with_images_without_labels(tmp_path):
    kw = dict(n_train=8, n_valid=4, size=32, bs=8, device="cpu", n_unlabelled=24, task="segment")
    dls, how = phantom_dls(**kw), dict(epochs=1, metrics=dice, unlabelled="rest")
    b = tuning_bench(dls, small_unet, small_unet(), KDAS(), tmp_path / "runs", **how)
    train(b)
    b.buttons["Alone"].click()
    b.job.thread.join(60)
    taught, alone = b.runs.all()
    assert (taught["status"], alone["status"]) == ("done", "done")
    assert b.best.value.startswith("KDAS()") and alone_line([alone], "dice")
    b.close()


@pytest.mark.slow
def test_runs_come_back_and_a_second_bench_closes_the_first(tmp_path):
    a = bench(tmp_path)
    train(a)
    a.epochs.value = 10_000
    a.buttons["Train"].click()
    job = a.job
    b = bench(tmp_path)
    assert not job.thread.is_alive() and a.job is None and len(b.list.options) == 2
    assert [r["status"] for r in b.runs.all()] == ["done", "stopped"]
    b.buttons["Delete"].click()
    assert "choose runs in the list" in b.said.value
    b.list.value = (2,)
    b.buttons["Delete"].click()
    assert [r["run"] for r in b.runs.all()] == [1]
    b.close()


@pytest.mark.slow
def test_pause_holds_and_goes_on(tmp_path):
    b = bench(tmp_path, epochs=10_000)
    b.buttons["Train"].click()
    while not (r := b.runs.all()) or not r[0]["history"]:
        time.sleep(0.02)
    b.buttons["Pause"].click()
    time.sleep(0.3)
    n = len(b.runs.all()[0]["history"]["task"])
    time.sleep(0.3)
    assert (
        len(b.runs.all()[0]["history"]["task"]) == n and b.buttons["Pause"].description == "Resume"
    )
    b.buttons["Pause"].click()
    while len(b.runs.all()[0]["history"]["task"]) == n:
        time.sleep(0.02)
    b.buttons["Stop"].click()
    b.job.thread.join(30)
    assert not b.job.running and "stopped" in b.said.value and not b.buttons["Train"].disabled
    b.close()


@pytest.mark.slow
def test_nothing_is_left_after_twenty_starts_and_stops(tmp_path):
    made = []

    def student():
        made.append(weakref.ref(m := net()))
        return m

    teacher = net(6)
    b = tuning_bench(data(), student, teacher, Feature(), tmp_path / "runs", epochs=10_000, **KW)
    hooks = lambda: sum(
        len(m._forward_hooks) + len(m._forward_pre_hooks) for m in teacher.modules()
    )
    threads, tensors = threading.active_count(), None
    for i in range(20):
        b.buttons["Train"].click()
        while not any(r["status"] == "running" and r["history"] for r in b.runs.all()):
            time.sleep(0.01)
        b.buttons["Stop"].click()
        b.job.thread.join(30)
        if i in (1, 19):  # this looks through all objects there are
            gc.collect()
            n = sum(isinstance(o, torch.Tensor) for o in gc.get_objects())
            tensors = n if i == 1 else tensors
    assert threading.active_count() == threads and hooks() == 0
    assert not [r for r in made if r() is not None]
    assert n <= tensors, (
        f"{n - tensors} tensors more after the twentieth stop than after the second"
    )
    assert len(b.runs.all()) == 20
    b.close()


def test_what_breaks_in_the_thread_is_said_in_the_widget(tmp_path):
    b = bench(tmp_path)
    b.params["T"].value = 5.0
    b.train = lambda watch, *a: (_ for _ in ()).throw(RuntimeError("the disk is full"))
    train(b)
    assert "RuntimeError: the disk is full" in b.said.value and not b.buttons["Train"].disabled
    b.close()


def test_a_method_of_ones_own_has_its_sliders(tmp_path):
    b = bench(tmp_path, Own())
    assert {k: type(c).__name__ for k, c in b.params.items()} == {
        "T": "FloatLogSlider",
        "share": "FloatSlider",
        "weight": "FloatLogSlider",
        "on": "Checkbox",
        "n": "IntSlider",
        "zero": "FloatSlider",
        "mode": "SelectionSlider",
    }
    train(b)
    assert b.runs.all()[0]["status"] == "done"
    b.close()


@pytest.mark.parametrize(
    "v, low, high", [(4.0, 1.0, 20.0), (0.003, 1e-5, 1.0), (1.0, 1.0, 20.0), (20.0, 1.0, 20.0)]
)
def test_a_value_lies_on_a_step_of_its_slider(v, low, high):
    s = log_slider(v, low, high)
    k = (torch.tensor(v).double().log10() - s.min) / s.step
    assert s.value == pytest.approx(v) and float(k) == pytest.approx(round(float(k)), abs=1e-4)


@pytest.mark.slow
def test_masks_are_searched_by_their_dice(tmp_path):
    dls = phantom_dls(8, 4, 32, task="segment", bs=4, device="cpu")
    kw = dict(trials=1, epochs=1, folder=tmp_path, log=None, seed=0)
    (run,) = tune(dls, small_unet, small_unet(), "softmasks", **kw).all()
    assert len(run["history"]["dice"]) == 1 and "accuracy" not in run["history"]
