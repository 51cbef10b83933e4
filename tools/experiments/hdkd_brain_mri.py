"""HDKD on a folder of images (made for the brain MRI set): CNN teacher, transformer student alone,
with logit KD, with feature KD, with both.

    python tools/experiments/hdkd_brain_mri.py DATA RUN_FOLDER [--size 64] [--half] [--epochs 15]
        [--student-epochs 5] [--seeds 0 1 2] [--fractions 1 .1]

Every trained model leaves a small file in RUN_FOLDER; what is there is not trained again, so a run
that was stopped goes on, and several processes can share the work (--arms, --seeds). `--collect`
writes the summary that docs/results/hdkd_brain_mri.json holds. Scores are of the test folder;
nothing is chosen on it: the last epoch counts.
"""

import argparse, json, warnings
from functools import partial
from pathlib import Path
from time import perf_counter

import torch

warnings.filterwarnings("ignore", category=FutureWarning)
from fastai.learner import Learner
from fastai.metrics import accuracy
from fastai.optimizer import Adam
from safetensors.torch import load_model, save_model
from kdmedlearn import distill, HDKD, image_dls, Teacher
from kdmedlearn.core.teacher import norm_of
from kdmedlearn.data.loaders import restart
from kdmedlearn.evaluation.classes import predictions, scores
from kdmedlearn.evaluation.cost import n_params
from kdmedlearn.experiments.report import write_json
from kdmedlearn.models.hdkd import HDKDStudent, HDKDTeacher

p = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
p.add_argument("data")
p.add_argument("run", type=Path)
p.add_argument("--size", type=int, default=64)
p.add_argument("--bs", type=int, default=32)
p.add_argument("--half", action="store_true", help="half of the paper's widths, for a CPU")
p.add_argument("--epochs", type=int, default=15, help="of the teacher")
p.add_argument("--student-epochs", type=int, default=5, help="of students on all images")
p.add_argument("--few-epochs", type=int, default=40, help="of students on a part of the images")
p.add_argument("--lr", type=float, default=1e-3)
p.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
p.add_argument("--fractions", type=float, nargs="+", default=[1.0, 0.1])
p.add_argument("--arms", nargs="+", default=["alone", "logit", "feature", "both"])
p.add_argument("--group", default="near_dup_group")
p.add_argument("--modality", default="mri")
p.add_argument("--collect")
a = p.parse_args()

METHODS = {"alone": None, "logit": HDKD(lam=0), "feature": HDKD(logit="none"), "both": HDKD()}
WIDTHS = dict(widths=(32, 48, 96)) if a.half else {}
FORMER = dict(dim=128, heads=4) if a.half else {}
adamw = partial(Adam, wd=0.05, eps=1e-8, sqr_mom=0.999)  # decoupled weight decay
a.run.mkdir(parents=True, exist_ok=True)


def make_dls(fraction):
    return image_dls(
        a.data,
        size=a.size,
        bs=a.bs,
        valid=0.1,
        group=a.group,
        modality=a.modality,
        fraction=fraction,
        seed=0,
    )


def fit(learn, epochs):
    start = perf_counter()
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(epochs, a.lr)
    return perf_counter() - start


def result(model, dls):
    return scores(*predictions(model, dls.test))


def get_teacher(dls):
    model, path = (
        HDKDTeacher(len(dls.vocab), dls.facts["channels"], a.size, **WIDTHS),
        a.run / "teacher.safetensors",
    )
    model.to(dls.device)
    if not path.exists():
        restart(dls, 0)
        model = HDKDTeacher(len(dls.vocab), dls.facts["channels"], a.size, **WIDTHS).to(dls.device)
        s = fit(
            Learner(
                dls,
                model,
                metrics=accuracy,
                opt_func=partial(Adam, wd=0.0, eps=1e-8, sqr_mom=0.999),
            ),
            a.epochs,
        )
        save_model(model, str(path))
        write_json(
            a.run / "teacher.json",
            {"parameters": n_params(model), "epochs": a.epochs, "seconds": s} | result(model, dls),
        )
        print("teacher", result(model, dls), f"{s:.0f} s", flush=True)
    load_model(model, str(path))
    return model


def student(arm, fraction, seed, dls, teacher):
    out = a.run / f"{arm}-{fraction:g}-{seed}.json"
    if out.exists():
        return
    out.touch()  # other processes leave it to this one
    try:
        epochs = a.student_epochs if fraction == 1 else a.few_epochs
        restart(dls, seed)
        model = HDKDStudent(
            len(dls.vocab),
            dls.facts["channels"],
            a.size,
            **WIDTHS,
            **FORMER,
            distilled=arm in ("logit", "both"),
        )
        kw = dict(metrics=accuracy, opt_func=adamw)
        learn = (
            Learner(dls, model, **kw)
            if arm == "alone"
            else distill(dls, model, teacher, METHODS[arm], **kw)
        )
        restart(dls, seed)
        s = fit(learn, epochs)
        row = {
            "arm": arm,
            "fraction": fraction,
            "seed": seed,
            "epochs": epochs,
            "parameters": n_params(model),
            "seconds": s,
            "images": len(dls.train_ds),
        } | result(learn.model, dls)
        write_json(out, row)
        print(row, flush=True)
    except BaseException:
        out.unlink()
        raise


if a.collect:
    rows = [json.loads(f.read_text()) for f in sorted(a.run.glob("*-*-*.json")) if f.stat().st_size]
    about = {
        k: v for k, v in vars(a).items() if k not in ("data", "run", "collect", "seeds", "arms")
    } | {"methods": {k: repr(m) for k, m in METHODS.items()}, "torch": torch.__version__}
    command = (
        "python tools/experiments/hdkd_brain_mri.py DATA RUN_FOLDER --size"
        f" {a.size}{' --half' if a.half else ''} --epochs {a.epochs} --student-epochs"
        f" {a.student_epochs} --few-epochs {a.few_epochs}"
    )
    write_json(
        a.collect,
        {
            "command": command,
            "about": about,
            "teacher": json.loads((a.run / "teacher.json").read_text()),
            "students": rows,
        },
    )
else:
    full = make_dls(1.0)
    teacher = Teacher(get_teacher(full), norm=norm_of(full), vocab=list(full.vocab))
    for fraction in a.fractions:
        dls = full if fraction == 1 else make_dls(fraction)
        for seed in a.seeds:
            for arm in a.arms:
                student(arm, fraction, seed, dls, teacher)
