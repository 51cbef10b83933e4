"""KDAS on a polyp set (made for Kvasir-SEG): U-Net teacher, small U-Net alone, with Bernoulli KL,
with each KDAS term, with both.

    python tools/experiments/kdas_kvasir.py DATA RUN_FOLDER --select [--seeds 0]
    python tools/experiments/kdas_kvasir.py DATA RUN_FOLDER [--seeds 0 1 2]

The first tries weights on a part of train/; the second learns from train/ and reports on
validation/.

Every trained model leaves its weights and a small file in RUN_FOLDER; what is there is not trained
again, so a run that was stopped goes on (after a kill, delete its empty file first), and several
processes can share the work. `--collect FILE` writes the summary that docs/results/kdas_kvasir.json
holds. With --select an eighth of train/ is held out, from teacher and student alike; validation/ is
not opened. The last epoch counts, and nothing is chosen on validation/.
"""

import argparse, json, warnings
from dataclasses import asdict
from pathlib import Path
from time import perf_counter

import torch
import torch.nn.functional as F

warnings.filterwarnings("ignore", category=FutureWarning)
warnings.filterwarnings("ignore", message="valid=")
from fastai.learner import Learner
from fastai.vision.augment import Dihedral
from safetensors.torch import load_model, save_model
from kdmedlearn import distill, Teacher
from kdmedlearn.core.teacher import norm_of
from kdmedlearn.data.loaders import restart
from kdmedlearn.data.masks import mask_dls
from kdmedlearn.evaluation.cost import n_params
from kdmedlearn.evaluation.masks import bootstrap, dice, evaluate_masks, summary
from kdmedlearn.experiments.report import write_json
from kdmedlearn.methods.kdas import KDAS, mask_like, StructureLoss
from kdmedlearn.methods.pixels import BernoulliKL
from kdmedlearn.models.unet import large_unet, small_unet
from kdmedlearn.train.recipes import Recipe

p = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
p.add_argument("data", type=Path)
p.add_argument("run", type=Path)
p.add_argument("--select", action="store_true")
p.add_argument("--size", type=int, default=128)
p.add_argument("--epochs", type=int, default=15)
p.add_argument("--teacher-epochs", type=int, default=30)
p.add_argument("--lr", type=float, default=3e-3)
p.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
p.add_argument(
    "--loss",
    choices=("structure", "dice"),
    default="structure",
    help="of the label: the structure loss, or cross-entropy + soft Dice",
)
p.add_argument("--arms", nargs="+")
p.add_argument("--collect")
a = p.parse_args()

SELECT = {
    "alone": None,
    "attention 1, sgm 1": KDAS(attention=1.0),
    "attention .3, sgm 1": KDAS(attention=0.3),
    "attention 3, sgm 1": KDAS(attention=3.0),
}
FINAL = {
    "alone": None,
    "bernoulli": BernoulliKL(T=2.0, alpha=0.5),
    "attention": KDAS(sgm=0),
    "sgm": KDAS(attention=0),
    "sgm, raw": KDAS(attention=0, scale="raw"),
    "KDAS": KDAS(),
    "KDAS, raw": KDAS(scale="raw", attention=1.0, sgm=1.0),
}
ARMS = SELECT if a.select else FINAL
LOSSES = {
    "structure": "The label's loss is the structure loss, for the teacher too.",
    "dice": (
        "The label's loss is cross-entropy + soft Dice for the students, the structure loss for the"
        " teacher."
    ),
}
run = a.run / ("select" if a.select else "final")
run.mkdir(parents=True, exist_ok=True)
recipe = Recipe(
    opt="adamw", lr=a.lr, wd=0.01, schedule="cosine", warmup=1, epochs=a.epochs, bs=8, size=a.size
)


def dice_loss(logits, mask):
    "Cross-entropy + soft Dice of one map."
    z, y = logits.as_subclass(torch.Tensor), mask_like(mask.as_subclass(torch.Tensor), logits)
    p, s = z.sigmoid(), lambda v: v.sum((1, 2, 3))
    return (
        F.binary_cross_entropy_with_logits(z, y)
        + (1 - (2 * s(p * y) + 1) / (s(p) + s(y) + 1)).mean()
    )


def predictions_of(model):
    "What `model` says of each validation image, and the image's mask."
    model.eval()
    with torch.no_grad():
        return [(o[None], m[None]) for x, y in dls.valid for o, m in zip(model(x), y)]


def fit(learn, r):
    start = perf_counter()
    with learn.no_bar(), learn.no_logging():
        r.fit(learn)
    return perf_counter() - start


def trained(name, make, seed, method=None, teacher=None, r=recipe):
    out, weights = run / f"{name}-{seed}.json", run / f"{name}-{seed}.safetensors"
    if out.exists():
        return
    out.touch()  # other processes leave it to this one
    try:
        restart(dls, seed)
        model = make().to(dls.device, memory_format=torch.channels_last)  # a third faster on a CPU
        kw = dict(
            loss_func=dice_loss if a.loss == "dice" and name != "teacher" else StructureLoss(),
            opt_func=r.opt_func,
        )
        learn = (
            Learner(dls, model, **kw)
            if method is None
            else distill(dls, model, teacher, method, **kw)
        )
        restart(dls, seed)
        s = fit(learn, r)
        d = [dice(*o).item() for o in predictions_of(learn.model)]
        save_model(learn.model.to(memory_format=torch.contiguous_format), str(weights))
        row = {
            "arm": name,
            "seed": seed,
            "method": repr(method),
            "epochs": r.epochs,
            "parameters": n_params(model),
            "seconds": round(s),
            "images": len(dls.train_ds),
            "dice": sum(d) / len(d),
        }
        write_json(out, row)
        print(row, flush=True)
    except BaseException:
        out.unlink()
        raise


# an endoscope has no up: quarter turns and mirrors
kw = dict(size=a.size, bs=8, target="channel", augment=[Dihedral(p=0.9)])
dls = mask_dls(a.data / "train", valid=0.125, seed=0, **kw) if a.select else mask_dls(a.data, **kw)


def load(name, seed, make):
    net = make()
    load_model(net, str(run / f"{name}-{seed}.safetensors"))
    return net


def collect(path):
    """Scores of every student by the protocol, at the size of the mask files, and paired
    differences to the student alone."""
    rows = {
        f.stem: json.loads(f.read_text()) for f in sorted(run.glob("*.json")) if f.stat().st_size
    }
    teacher, tables = rows.pop("teacher-0"), {}
    for k, r in rows.items():
        tables[r["arm"], r["seed"]] = t = evaluate_masks(
            load(r["arm"], r["seed"], small_unet), dls.valid
        )
        r["scores"] = summary(t).round(5).to_dict()
    teacher["scores"] = (
        summary(evaluate_masks(load("teacher", 0, large_unet), dls.valid)).round(5).to_dict()
    )
    images = {}
    for arm in dict.fromkeys(a for a, _ in tables):
        seeds = [s for a, s in tables if a == arm and ("alone", s) in tables]
        if arm != "alone":
            images[arm] = bootstrap(
                sum(tables[arm, s].dice - tables["alone", s].dice for s in seeds) / len(seeds)
            )
    select = [
        json.loads(f.read_text())
        for f in sorted((a.run / "select").glob("*.json"))
        if f.stat().st_size
    ]
    about = dict(
        recipe=asdict(recipe),
        teacher_epochs=a.teacher_epochs,
        methods={k: repr(m) for k, m in FINAL.items()},
        loss=LOSSES[a.loss],
        torch=torch.__version__,
    )
    write_json(
        path,
        {
            "command": (
                f"python tools/experiments/kdas_kvasir.py DATA RUN_FOLDER --size {a.size} --epochs"
                f" {a.epochs} --teacher-epochs {a.teacher_epochs} --lr {a.lr:g} --loss {a.loss}"
            ),
            "about": about,
            "teacher": teacher,
            "students": list(rows.values()),
            "over images": images,
            "select": select,
        },
    )


if a.collect:
    collect(a.collect)
else:
    trained("teacher", large_unet, 0, r=recipe.changed(epochs=a.teacher_epochs))
    if a.arms != ["teacher"]:
        teacher = Teacher(
            load("teacher", 0, large_unet).to(memory_format=torch.channels_last), norm=norm_of(dls)
        )
        for seed in a.seeds:
            for arm in a.arms or ARMS:
                trained(arm, small_unet, seed, ARMS[arm], teacher)
