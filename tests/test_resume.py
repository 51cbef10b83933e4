"""A training that was killed goes on, and ends with the same bits."""

import json, os, re, shutil, warnings
from pathlib import Path

import pytest
import torch
from fastai.callback.core import Callback
from fastai.callback.tracker import EarlyStoppingCallback, SaveModelCallback
from fastai.callback.training import GradientAccumulation, ShortEpochCallback
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import accuracy
from fastai.optimizer import OptimWrapper, ranger, SGD
from fastai.torch_core import set_seed
from torch import nn

import warm
from helpers import data, Hint, net
from kdmedlearn.core.teacher import Teacher
from kdmedlearn.data.loaders import random_state, restart
from kdmedlearn.data.phantom import phantom_dls
from kdmedlearn.experiments.experiment import experiment
from kdmedlearn.methods.feature import Feature
from kdmedlearn.methods.fusion import AttentionFusion, Ensemble
from kdmedlearn.methods.kdas import KDAS, StructureLoss
from kdmedlearn.methods.response import Response
from kdmedlearn.models.small import small_student
from kdmedlearn.models.unet import small_unet
from kdmedlearn.train.budget import fit_steps, WeightAverage
from kdmedlearn.train.callbacks import ClipValue, MultiScale
from kdmedlearn.train.distillation import distill
from kdmedlearn.train.resume import Checkpoint, Checkpoints, packed, state_of
from kdmedlearn.train.teachers import phantom_teacher


class Killed(BaseException):
    "What fastai does not catch."


class Dies(Callback):
    "Kills at the n-th batch of training, or of validation, of this life."

    order, in_checkpoint = 900, False

    def __init__(self, train=None, valid=None):
        self.at, self.n = {True: train, False: valid}, {True: 0, False: 0}

    def after_batch(self):
        self.n[self.training] += 1
        if self.n[self.training] == self.at[self.training]:
            raise Killed


def adapters(learn):
    return learn.distill.step.adapters() if hasattr(learn, "distill") else []


def live(make, folder, every=1, dies=None):
    "One life: everything made anew, and the fit until its end or death."
    warnings.simplefilter("ignore")
    folder.mkdir(parents=True, exist_ok=True)
    set_seed(5)
    learn, fit = make(folder)
    if Checkpoints(folder / "state").files():  # nothing but the file may matter from here on
        set_seed(77)
        for dl in learn.dls.loaders:
            if hasattr(dl, "rng"):
                dl.rng.seed(77)
        with torch.no_grad():
            for p in (*learn.model.parameters(), *adapters(learn)):
                p.add_(1)
    cbs = [Dies(**(dies or {}))]
    cbs += [Checkpoint(folder / "state", every, log=None)] if every != 0 else []
    with learn.no_bar(), learn.no_logging():
        try:
            fit(learn, cbs)
        except Killed:
            return None
    return learn


def whole(learn):
    "All that a training leaves, as JSON and tensors."
    tensors, state = {}, state_of(learn)
    state["attributes"]["Recorder"].pop("log")  # a clock's time stands in it
    for own in state["attributes"].values():
        own.pop("plan", None)  # of the last batch, where this life has had one
    text = packed(state, tensors)
    return json.dumps(text), tensors, packed(random_state(learn.dls), {})


def same(a, b):
    (text, tensors, chance), (text_b, tensors_b, chance_b) = whole(a), whole(b)
    assert text == text_b
    assert tensors.keys() == tensors_b.keys()
    for k, v in tensors.items():
        assert torch.equal(v.nan_to_num(7), tensors_b[k].nan_to_num(7)), k
    assert chance == chance_b


def goes_on(make, tmp_path, deaths, every=1):
    "An undisturbed run, and one that dies of each of `deaths`: the same to the last bit."
    alone = live(make, tmp_path / "alone", every=0)
    for dies in deaths:
        assert live(make, tmp_path / "run", every, dies) is None, "it was to die"
    learn = live(make, tmp_path / "run", every)
    same(alone, learn)
    return alone, learn


def classes(**kw):
    return phantom_dls(24, 16, size=32, bs=8, device="cpu", **kw)


def learner(folder, method, dls=None, student=None, teacher=None, **kw):
    dls = dls or classes()
    restart(dls, 3)
    student = small_student() if student is None else student
    learn = distill(
        dls, student, teacher or phantom_teacher(), method, metrics=accuracy, path=folder, **kw
    )
    restart(learn.dls, 3)
    return learn


def cycle(*cbs, epochs=3):
    return lambda learn, more: learn.fit_one_cycle(epochs, 1e-2, cbs=[*cbs, *more])


# Three batches an epoch: in the first, at its end, in validation, in the last.
DEATHS = [dict(train=2), dict(train=2), dict(valid=1), dict(train=1), dict(valid=2)]


@pytest.mark.slow
def test_soft_targets_with_the_best_epoch_kept(tmp_path):
    saver = lambda: SaveModelCallback("accuracy", fname="best")
    make = lambda folder: (learner(folder, Response()), cycle(saver()))
    alone, learn = goes_on(make, tmp_path, DEATHS)
    assert len(learn.recorder.values) == 3 and len(learn.recorder.losses) == 9
    assert learn.recorder.values == alone.recorder.values


@pytest.mark.slow
def test_adapters_and_a_term_that_fades_out(tmp_path):
    "Adapters without a gradient are still moved by momentum: also after a death."
    fades = lambda pct: 1.0 if pct < 0.3 else 0.0
    make = lambda folder: (learner(folder, Feature(lam=fades)), cycle())
    alone, learn = goes_on(make, tmp_path, [dict(train=5), dict(train=2)])
    a = alone.distill.step.bound.state_dict()
    assert a and all(torch.equal(v, a[k]) for k, v in learn.distill.step.bound.state_dict().items())


@pytest.mark.slow
def test_a_fusion_that_learns_along(tmp_path):
    method = lambda: Ensemble(AttentionFusion(d=8, heads=2, dropout=0.2), lam=0.5)

    def make(folder):
        set_seed(5)
        teachers = [net(4, 8), net(6, 8)]
        return learner(folder, method(), teacher=teachers), cycle(epochs=2)

    goes_on(make, tmp_path, [dict(train=2), dict(train=3)])


@pytest.mark.slow
def test_masks_in_several_sizes(tmp_path):
    "A checkpoint waits until a batch was seen in all sizes."

    def make(folder):
        dls = phantom_dls(16, 8, size=32, task="segment", bs=8, device="cpu")
        restart(dls, 3)
        teacher = phantom_teacher(arch="large_unet")
        learn = distill(dls, small_unet(), teacher, KDAS(), loss_func=StructureLoss(), path=folder)
        restart(dls, 3)
        return learn, cycle(MultiScale((1, 2)), ClipValue(), epochs=2)

    goes_on(make, tmp_path, [dict(train=3), dict(train=2), dict(valid=1)])


@pytest.mark.slow
def test_unlabelled_images_mixup_and_averaged_weights(tmp_path):
    "Passes end in the midst of epochs, and begin there."

    def make(folder):
        dls = phantom_dls(10, 16, size=32, bs=8, device="cpu", n_unlabelled=16)
        learn = learner(folder, Response(), dls, unlabelled="rest")
        fit = lambda learn, cbs: fit_steps(
            learn, 13, looks=4, average=0.9, mixup=0.4, cbs=cbs, wd=0.1
        )
        return learn, fit

    assert len(make(tmp_path)[0].dls.train) == 5
    deaths = [dict(train=4), dict(train=3), dict(valid=1), dict(train=3), dict(train=2)]
    goes_on(make, tmp_path, deaths)


@pytest.mark.slow
def test_checkpoints_after_epochs_alone(tmp_path):
    steps = lambda learn, cbs: fit_steps(learn, 10, looks=4, cbs=cbs)
    for k, fit in enumerate((cycle(), steps)):
        make = lambda folder: (learner(folder, Response()), fit)
        goes_on(make, tmp_path / str(k), [dict(train=2), dict(train=5), dict(valid=1)], every=None)


@pytest.mark.parametrize(
    "opt_func",
    [SGD, ranger, lambda p, **kw: OptimWrapper(p, torch.optim.AdamW, **kw)],
    ids=["SGD", "ranger", "torch's AdamW"],
)
def test_optimizers(tmp_path, opt_func):
    "With adapters in the last of several groups, some of them frozen."

    def make(folder):
        split = lambda m: [list(m.conv.parameters()), list(m.head.parameters())]
        kw = dict(splitter=split, opt_func=opt_func, student=net(), teacher=net(6))
        learn = learner(folder, Hint([("norm", "norm")]), data(), **kw)
        learn.freeze()
        return learn, lambda learn, cbs: learn.fit(2, slice(1e-3, 1e-2), cbs=cbs)

    goes_on(make, tmp_path, [dict(train=1), dict(valid=1)])


def test_accumulated_gradients_a_short_epoch_and_dropout_alone(tmp_path):
    def make(folder):
        dls = data(48)
        restart(dls, 1)
        student = nn.Sequential(net(), nn.Dropout(0.3))
        learn = Learner(dls, student, nn.CrossEntropyLoss(), metrics=accuracy, path=folder)
        restart(dls, 1)
        cbs = lambda: [GradientAccumulation(16), ShortEpochCallback(0.5, short_valid=False)]
        return learn, lambda learn, more: learn.fit_flat_cos(3, 1e-2, cbs=[*cbs(), *more])

    goes_on(make, tmp_path, [dict(train=1), dict(train=3), dict(train=2)])


@pytest.mark.slow
def test_plain_pytorch_loaders(tmp_path):
    def make(folder):
        items = list(data(32).train.dataset)
        g = torch.Generator().manual_seed(1)
        train = torch.utils.data.DataLoader(items, 8, shuffle=True, generator=g)
        dls = DataLoaders(train, torch.utils.data.DataLoader(items, 8), device="cpu")
        set_seed(1)
        learn = Learner(dls, net(), nn.CrossEntropyLoss(), path=folder)
        return learn, cycle()

    goes_on(make, tmp_path, [dict(train=2), dict(train=2), dict(valid=1)])


@pytest.mark.slow
def test_worker_processes(tmp_path):
    "Each worker has random numbers of its own, and reads ahead."

    class Noisy(torch.utils.data.Dataset):
        def __len__(self):
            return 24

        def __getitem__(self, i):
            return torch.randn(3, 8, 8) + i % 3, torch.tensor(i % 3)

    def make(folder):
        dls = DataLoaders.from_dsets(Noisy(), Noisy(), bs=4, device="cpu", num_workers=2)
        restart(dls, 1)
        learn = Learner(dls, net(), nn.CrossEntropyLoss(), path=folder)
        restart(dls, 1)
        return learn, cycle(epochs=2)

    goes_on(make, tmp_path, [dict(train=3), dict(train=6)])


@pytest.mark.slow
def test_early_stopping_ends_the_fit_again(tmp_path):
    stops = lambda: EarlyStoppingCallback("valid_loss", min_delta=9.0, patience=1)
    make = lambda folder: (learner(folder, Response()), cycle(stops(), epochs=5))
    alone, learn = goes_on(make, tmp_path, [dict(train=5), dict(valid=1)])
    assert len(alone.recorder.values) == 2
    # the best value, minus 9, is never reached: the second epoch ended it, and it has ended
    again = live(make, tmp_path / "run", dies=dict(train=1, valid=1))
    same(learn, again)


def test_a_finished_fit_trains_nothing(tmp_path):
    make = lambda folder: (learner(folder, Feature()), cycle(WeightAverage(0.9), epochs=2))
    first = live(make, tmp_path)
    same(first, live(make, tmp_path, dies=dict(train=1, valid=1)))


@pytest.mark.slow
def test_a_program_of_several_fits(tmp_path):
    "fine_tune fits twice with one callback: each fit has its folder."
    fine_tune = lambda learn, cbs: learn.fine_tune(2, 1e-2, cbs=cbs)

    def make(folder):
        split = lambda m: [list(m.conv.parameters()), list(m.head.parameters())]
        kw = dict(splitter=split, student=net(), teacher=net(6))
        return learner(folder, Response(), data(), **kw), fine_tune

    goes_on(make, tmp_path, [dict(train=1), dict(train=3), dict(train=2)])
    assert (tmp_path / "run" / "state" / "fit-2").is_dir()


@pytest.mark.slow
def test_the_same_learner_after_an_interrupt(tmp_path):
    "As in a notebook: the cell with the fit is run again, and once more without a Checkpoint."
    make = lambda folder: (learner(folder, Feature()), cycle())
    whole, (learn, fit) = live(make, tmp_path / "alone", every=0), make(tmp_path)
    for dies in (2, 4, None):
        cbs = [Dies(train=dies), Checkpoint(tmp_path / "state", 1, log=None, data=tmp_path)]
        with learn.no_bar(), learn.no_logging():
            try:
                fit(learn, cbs)
            except Killed:
                restart(learn.dls, 4)
    same(whole, learn)
    assert "_with_events" not in vars(learn) and type(learn.dls.train).__name__ == "TfmdDL"
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
    assert len(learn.recorder.losses) == 3


def test_lr_find_and_validate_write_nothing(tmp_path):
    learn = learner(tmp_path, Response())
    learn.add_cb(Checkpoint(tmp_path / "state", 1, log=None))
    with learn.no_bar(), learn.no_logging():
        learn.lr_find(num_it=6, show_plot=False, suggest_funcs=None)
        learn.validate()
        learn.get_preds()
        assert not (tmp_path / "state").exists()
        learn.fit(1, 1e-3)
    files = Checkpoints(tmp_path / "state").files()
    assert len(files) == 2
    learn.validate()
    assert Checkpoints(tmp_path / "state").files() == files
    assert type(learn.dls.train).__name__ == "TfmdDL"


@pytest.mark.slow
def test_batches_from_elsewhere_are_kept_after_epochs(tmp_path):
    "A callback that trains on its own loader: nobody knows the place in it."

    class Elsewhere(Callback):
        order = -5

        def before_fit(self):
            self.own_loader = self.dls.train

        def before_train(self):
            self.learn.dl = list(self.own_loader)

    make = lambda folder: (learner(folder, Response()), cycle(Elsewhere()))
    goes_on(make, tmp_path, [dict(train=2), dict(train=5)])


# --- what is not gone on with


def tanh():
    "The student with another activation: no weight tells."
    student = small_student()
    for m in student.modules():
        for name, inner in m.named_children():
            if isinstance(inner, nn.ReLU):
                setattr(m, name, nn.Tanh())
    return student


REFUSED = {
    "lr": (dict(lr=1e-1), "highest lr 0.01, here 0.1"),
    "epochs": (dict(epochs=5), "epochs 2, here 5"),
    "hyperparameter": (dict(method=Response(T=2)), "method Response(T=4.0, alpha=0.9), here"),
    "method": (dict(method=Feature()), "here Feature("),
    "more images": (dict(n=40), "training images 24, here 40"),
    "batch size": (dict(bs=4), "batch size 8, here 4"),
    "another network": (
        dict(student=net(4, 8)),
        "student stage1.0.conv.weight [16, 3, 3, 3], here none",
    ),
    "another teacher": (dict(teacher=net(4, 8)), "teachers SmallCNN ("),
    "another optimizer": (dict(opt_func=SGD), "optimizer's 0 sqr_mom 0.99, here none"),
    "another loss": (dict(loss_func=nn.CrossEntropyLoss()), "loss FlattenedLoss"),
    "smoothed labels": (
        dict(loss_func=CrossEntropyLossFlat(label_smoothing=0.1)),
        "loss label_smoothing 0.0, here 0.1",
    ),
    "another activation": (dict(student=tanh()), "here Tanh()"),
    "no augmentation": (dict(augment=False), "transforms after_batch"),
    "a teacher's precision": (
        dict(teacher=Teacher(phantom_teacher(), precision="bfloat16")),
        "the teachers' precision [None], here ['bfloat16']",
    ),
    "a seed": (dict(seed=4), "seed 3, here 4"),
    "averaging": (dict(cbs=[WeightAverage(0.9)]), "callbacks WeightAverage none, here"),
    "weight decay": (dict(wd=0.3), "optimizer's 0 wd 0.01, here 0.3"),
    "other images": (dict(images=5), "first validation batch"),
    "other images to train": (
        dict(trained=5),
        "the training images are not those of the checkpoint",
    ),
}


def asked(
    folder, lr=1e-2, epochs=2, method=None, n=24, bs=8, images=0, seed=3, cbs=(), dies=None, **kw
):
    trained = kw.pop("trained", None)
    fit = dict(wd=kw.pop("wd", None))
    kind = dict(size=32, bs=bs, device="cpu", seed=images, augment=kw.pop("augment", True))
    dls = phantom_dls(n, 16, **kind)
    if trained is not None:
        dls.loaders[0] = phantom_dls(n, 16, **kind | dict(seed=trained)).train
    learn = learner(folder, method or Response(), dls, **kw)
    cbs = [Checkpoint(folder / "state", 1, log=None, seed=seed), Dies(train=dies), *cbs]
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(epochs, lr, cbs=cbs, **fit)
    return learn


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    "A folder with the checkpoints of a training that died."
    folder = tmp_path_factory.mktemp("begun")
    with pytest.raises(Killed):
        asked(folder, dies=5)
    return folder


QUICK = ("lr", "hyperparameter", "another teacher", "other images", "other images to train")


@pytest.mark.parametrize(
    "what", [k if k in QUICK else pytest.param(k, marks=pytest.mark.slow) for k in REFUSED]
)
def test_another_training_is_refused_by_name(begun, tmp_path, what):
    changed, words = REFUSED[what]
    shutil.copytree(begun, tmp_path / "run")
    with pytest.raises(ValueError, match=re.escape(words)) as e:
        asked(tmp_path / "run", **changed)
    text = str(e.value)
    if what != "other images to train":
        assert "or another folder, or delete" in text and "0x" not in text
        assert len(text) < 900


def test_a_setting_has_no_name_that_is_taken(tmp_path):
    learn = learner(tmp_path, Response())
    with learn.no_bar(), learn.no_logging(), pytest.raises(ValueError, match="another name than"):
        learn.fit(1, 1e-3, cbs=Checkpoint(tmp_path / "state", epochs=3))


@pytest.mark.slow
def test_steps_and_mixup_are_settings(tmp_path):
    def fit(**kw):
        learn = learner(tmp_path, Response())
        with learn.no_bar(), learn.no_logging():
            fit_steps(learn, **dict(steps=4, looks=2, mixup=0.2, average=0.9) | kw)

    fit(cbs=Checkpoint(tmp_path / "state", log=None))
    for changed, words in (
        (dict(steps=6), "callbacks FixedSteps steps 4, here 6"),
        (dict(mixup=0.4), "callbacks MixUpBoth alpha 0.2, here 0.4"),
        (dict(average=0.99), "callbacks WeightAverage decay 0.9, here 0.99"),
    ):
        with pytest.raises(ValueError, match=re.escape(words)):
            fit(cbs=Checkpoint(tmp_path / "state"), **changed)


@pytest.mark.slow
def test_a_damaged_checkpoint_is_told_and_the_one_before_is_used(begun, tmp_path):
    whole = asked(tmp_path / "alone")
    for k, harm in enumerate((lambda b: b[: len(b) // 2], lambda b: b[:-1] + bytes([b[-1] ^ 1]))):
        run = tmp_path / str(k)
        shutil.copytree(begun, run)
        newest, before = Checkpoints(run / "state").files()
        newest.write_bytes(harm(newest.read_bytes()))
        with pytest.warns(UserWarning, match=f"{newest.name} is damaged"):
            same(whole, asked(run))
    shutil.copytree(begun, tmp_path / "both")
    for file in Checkpoints(tmp_path / "both" / "state").files():
        file.write_bytes(b"")
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="no checkpoint in .* is whole"):
        asked(tmp_path / "both")


def test_the_best_weights_are_missed_at_once(tmp_path):
    def fit():
        learn = learner(tmp_path, Response())
        cbs = [SaveModelCallback(fname="best"), Checkpoint(tmp_path / "state", log=None)]
        with learn.no_bar(), learn.no_logging():
            learn.fit(1, 1e-3, cbs=cbs)

    fit()
    (tmp_path / "models" / "best.pth").unlink()
    with pytest.raises(FileNotFoundError, match="best.pth, the best weights so far, is gone"):
        fit()


def test_a_checkpoint_runs_no_code(begun):
    "Tensors and JSON: whatever stands in it, reading it makes numbers, text, lists, dicts."
    from safetensors import safe_open

    for file in Checkpoints(begun / "state").files():
        with safe_open(file, "pt") as f:
            json.loads(f.metadata()["kdmedlearn"])
        assert b"torch" not in file.read_bytes()[:100]


# --- experiments


@pytest.mark.slow
def test_an_experiment_goes_on(tmp_path, monkeypatch):
    "Killed in the second student of the first seed, and in the first of the second."
    left = [None]

    class Bomb(Callback):
        in_checkpoint = False

        def after_batch(self):
            left[0] = left[0] and left[0] - 1
            if left[0] == 0:
                raise Killed

    def student():
        return small_student()

    def run(folder, dies=None, **kw):
        left[0] = dies
        kw = dict(epochs=2, seeds=(0, 1), log=None) | kw
        make = lambda seed: classes(seed=seed)
        return experiment(make, student, phantom_teacher(), folder=folder, **kw)

    from fastai.learner import defaults

    monkeypatch.setattr(defaults, "callbacks", [*defaults.callbacks, Bomb])
    whole = run(None)
    batches = 2 * (3 + 2)
    for dies in (batches + 7, 3 + batches, 2):
        with pytest.raises(Killed):
            run(tmp_path, dies)
    again = run(tmp_path)
    for k in ("scores", "history"):
        assert whole[k].equals(again[k]), k
    for name, learn in whole["learners"].items():
        for k, v in learn.model.state_dict().items():
            assert torch.equal(v, again["learners"][name].model.state_dict()[k])
    left[0] = 1  # nothing is trained any more
    assert run(tmp_path, 1)["scores"].equals(whole["scores"])
    with pytest.raises(ValueError, match="lr 0.003, here 0.1"):
        run(tmp_path, lr=0.1)


# --- a process that is killed

WORKER = """
import os, signal, sys, warnings
from pathlib import Path

warnings.simplefilter("ignore")
import torch
from fastai.callback.core import Callback
from fastai.callback.tracker import SaveModelCallback
sys.path.insert(0, TESTS)
from helpers import data, Hint, net
from kdmedlearn.data.loaders import restart
from kdmedlearn.data.phantom import phantom_dls
from kdmedlearn.methods.fusion import AttentionFusion, Ensemble
from kdmedlearn.methods.kdas import KDAS
from kdmedlearn.methods.response import Response
from kdmedlearn.models import weights
from kdmedlearn.models.unet import small_unet
from kdmedlearn.train.budget import MixUpBoth
from kdmedlearn.train.distillation import distill
from kdmedlearn.train.resume import Checkpoint, Checkpoints, packed, state_of

torch.set_num_threads(1)
die = lambda: os.kill(os.getpid(), signal.SIGKILL)
counts = {}


def comes(event):
    "The n-th event of this kind in this life is the last one."
    counts[event] = counts.get(event, 0) + 1
    if (event, counts[event]) == KILL:
        die()


class Watch(Callback):
    in_checkpoint = False

    def before_batch(self):
        comes("train" if self.training else "valid")

    def after_backward(self):
        comes("backward")

    def after_epoch(self):
        comes("epoch")


def half(f, event, at):
    "`f`, that writes the file `at` names; killed, it leaves half of one."
    def g(*args, **kw):
        if (event, counts.get(event, 0) + 1) == KILL:
            Path(args[at]).write_bytes(b"half of a file")
        comes(event)
        return f(*args, **kw)
    return g


def between(f, event):
    def g(*args, **kw):
        comes(f"before {event}")
        out = f(*args, **kw)
        comes(f"after {event}")
        return out
    return g


weights.save_file = half(weights.save_file, "part", 1)
torch.save = half(torch.save, "best", 1)
os.replace = between(os.replace, "replace")
Path.unlink = between(Path.unlink, "unlink")


def asked():
    "Loaders, student, teachers, method; four batches to train on and two to validate."
    if CASE == "masks":
        dls = phantom_dls(8, 4, size=32, task="segment", bs=2, device="cpu")
        restart(dls, 0)
        return dls, small_unet(), small_unet(), KDAS()
    dls = data(48, bs=8)
    restart(dls, 0)
    if CASE == "joint fusion":
        fusion = AttentionFusion(d=8, heads=2, dropout=0.2)
        return dls, net(), [net(4), net(6)], Ensemble(fusion, lam=0.5)
    return dls, net(), net(6), Response() if CASE == "response" else Hint([("norm", "norm")])


def life(folder, kill, resume=True):
    global KILL
    KILL = kill
    counts.clear()
    dls, *taught = asked()
    learn = distill(dls, *taught, path=folder)
    restart(dls, 0)
    cbs = [Watch(), SaveModelCallback(fname="best")]
    cbs += [] if CASE == "masks" else [MixUpBoth(0.4)]
    cbs += [Checkpoint(folder / "state", 2, log=None)] if resume else []
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(3, 1e-2, cbs=cbs)
    tensors, state = {}, state_of(learn)
    state["attributes"]["DistillCallback"].pop("plan", None)
    state["attributes"]["Recorder"].pop("log")
    about = packed(state, tensors)
    Checkpoints(folder / "end").write({"about": str(about), "tensors": tensors})


def child(*args):
    "Whether a process of its own was killed."
    pid = os.fork()
    if not pid:
        try:
            sys.stdout = open(os.devnull, "w")
            life(*args)
            os._exit(0)
        finally:
            os._exit(1)
    code = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(code) or code == 0, code
    return os.WIFSIGNALED(code)


home = Path(HOME)
assert not child(home / "alone", None, False)
for kill in KILLS:
    assert child(home / "run", kill), kill
    print("killed", kill, len(Checkpoints(home / "run" / "state").files()), flush=True)
assert not child(home / "run", None)
"""

# Four batches an epoch. Each checkpoint: part, replace to its first name, replace to its number,
# unlink of the third. The three epochs are gone through slowly: most lives end before they write.
KILLS = [
    ("train", 1),  # nothing is written yet
    ("part", 1),  # half of the first checkpoint
    ("before replace", 2),  # whole, and without its number
    ("after replace", 2),  # the first one that can be used, after two steps
    ("backward", 2),
    ("valid", 1),
    ("best", 1),  # half of the best weights
    ("epoch", 1),
    ("part", 1),
    ("train", 4),
    ("before unlink", 1),  # three files are there
    ("valid", 2),
    ("before replace", 1),
]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes of this test are forked")
@pytest.mark.parametrize("case", ["response", "adapters", "joint fusion", "masks"])
def test_killed_at_any_moment_and_the_same_bits(tmp_path, case):
    given = dict(KILLS=KILLS, HOME=str(tmp_path), TESTS=str(Path(__file__).parent), KILL=None)
    given["CASE"] = case
    script = tmp_path / "worker.py"
    script.write_text("\n".join(f"{k} = {v!r}" for k, v in given.items()) + WORKER)
    r = warm.run(script, env=dict(os.environ, OMP_NUM_THREADS="1"))
    assert r.returncode == 0, r.stdout + r.stderr[-3000:]
    alone, run = (Checkpoints(tmp_path / k / "end").read() for k in ("alone", "run"))
    assert alone["about"] == run["about"]
    for k, v in alone["tensors"].items():
        assert torch.equal(v, run["tensors"][k]), k
    left = sorted(p.name for p in (tmp_path / "run" / "state").iterdir())
    assert len(left) == 2 and all(p.endswith(".safetensors") for p in left), left


@pytest.mark.slow
@pytest.mark.parametrize("other", ["images", "size", "normalisation"])
def test_a_finished_training_of_other_images_is_not_this_one(tmp_path, other):
    "Counts, names and shapes are the same, or all but one."

    def fitted(seed=0, size=32, norm=None):
        dls = phantom_dls(8, 6, size, seed=seed, bs=4, device="cpu")
        if norm:
            dls.valid.after_batch.fs[-1].mean = dls.valid.after_batch.fs[-1].mean + norm
        learn = Learner(
            dls, small_student(), nn.CrossEntropyLoss(), cbs=Checkpoint(tmp_path, log=None)
        )
        with learn.no_bar(), learn.no_logging():
            learn.fit(1, 1e-3)

    fitted()
    fitted()  # the same once more: read
    changed = dict(images=dict(seed=1), size=dict(size=48), normalisation=dict(norm=0.3))[other]
    with pytest.raises(ValueError, match="holds another training: first validation batch"):
        fitted(**changed)
