"""Brain MRI with a tenth of its labels: what the images without labels are worth.

    python tools/experiments/mri_unlabelled.py tune DATA CACHE
    python tools/experiments/mri_unlabelled.py run DATA CACHE [--draws 0 1 2 3 4]
    python tools/experiments/mri_unlabelled.py collect DATA CACHE --out docs/results/mri_unlabelled.json
    python tools/experiments/mri_unlabelled.py restore DATA CACHE --out docs/results/mri_unlabelled.json

Plan, written before the runs.

- A draw picks a tenth of the training images (whole near-duplicate groups) and a validation set.
  The draw is the unit of the error: five of them.
- Teacher: EfficientNet-Lite0 with ImageNet weights, fine-tuned on the labelled tenth alone, at 128
  pixels, 400 steps of 32. Student: 51 thousand parameters, 64 pixels.
- The images without labels are the other nine tenths, minus those that stand, nearly, in
  validation or test.
- Equal steps: 1,000 of 64 images, the one-cycle policy. Longer: 3,000.
- Choice: rate and mixup for the student ALONE on the validation images of draw 100 (`tune`). All
  arms take them. The teacher's recipe was chosen there too, among three: batch norm with its
  statistics trained (.869), kept (.78 on draw 0), kept with one rate for all layers (.33). A first
  run of draw 0 with the second was stopped, and two scores on test images had been seen by then:
  the student alone .744, taught .568, by a teacher that was below the student on validation.
- Arms: alone; label smoothing .1; taught on the labelled tenth; pseudo-labels on all images; taught
  on all images; alone and taught on all images for 3,000 steps.
- What the teacher says is computed once, for eight random views of each image, which the taught
  students see in turn; students without a teacher get new random views all the time. Where fewer
  than a tenth have a label, those have more views, so that they are as many: 40 each at 2 %.
- `features on all images`, added after the tenth was run: `Feature` of both networks' last stages,
  at its default weight. The draws' teachers are fitted anew for it, and for the longer taught
  students of draws 3 and 4.
- Other shares, added after the tenth was run, with its recipe: 2 % of the labels, five draws, all
  arms of 1,000 steps; all labels, three draws (seeds), the arms that need no other images.
- Test: the test folder, scored after the last step, nothing chosen on it.
- What decides: taught on all images minus the best arm without a teacher at equal steps (chosen on
  validation images), and minus pseudo-labels, paired by draw.
"""

import sys, warnings
from functools import lru_cache
from pathlib import Path

warnings.filterwarnings("ignore")
import torch
import torch.nn.functional as F
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat

from kdmedlearn import distill, Feature, image_dls, PseudoLabels, Response
from kdmedlearn.core.outputs import plain
from kdmedlearn.core.teacher import norm_of
from kdmedlearn.data.loaders import restart
from kdmedlearn.data.unlabelled import unlabelled_images
from kdmedlearn.evaluation.classes import predictions, scores
from kdmedlearn.experiments.report import write_json
from kdmedlearn.models.small import small_student
from kdmedlearn.models.weights import load_teacher, save_model
from kdmedlearn.train.budget import fit_steps
from kdmedlearn.train.finetune import finetune

sys.path.insert(0, str(Path(__file__).resolve().parent))
from runs import asked, kept_runs, one_run, restore
from views import as_bytes, Beside, loaders, memory, Views

SMALL, LARGE, VIEWS, BATCH, ARCH = 64, 128, 8, 64, "tf_efficientnet_lite0"
RECIPE = dict(lr=1e-2, mixup=None)  # what `tune` chose
ARMS = {  # name -> (method or loss, images without labels, steps)
    "alone": (None, False, 1000),
    "taught on all images": (Response(), True, 1000),
    "pseudo-labels": (PseudoLabels(), True, 1000),
    "label smoothing": ("smooth", False, 1000),
    "taught on the labelled images": (Response(), False, 1000),
    "features on all images": (Feature(pairs={"stage4": "map"}), True, 1000),
    "alone, longer": (None, False, 3000),
    "taught on all images, longer": (Response(), True, 3000),
}


def read(data, draw, size, share=0.1, bs=BATCH, **kw):
    "The loaders of a draw."
    kw = dict(group="near_dup_group", modality="mri", channels=1, device="cpu") | kw
    return image_dls(data, size, bs, fraction=share, seed=draw, leaks=False, **kw)


@lru_cache
def teacher_of(data, cache, draw, share):
    "The teacher of a draw, fine-tuned or read."
    file = Path(cache) / f"teacher-{draw}-{share:g}.safetensors"
    dls = read(data, draw, LARGE, share, bs=32)
    if not file.is_file():
        t = finetune(dls, ARCH, steps=400, seed=draw, keep_stats=False, log=None)
        kw = dict(norm=t.norm, img_size=LARGE, score=t.score)
        save_model(t.model, file, ARCH, list(dls.vocab), 3, **kw)
    return load_teacher(file), dls


@lru_cache(1)
def answered(data, cache, draw, share):
    "Views of labelled, unlabelled and validation images, and the teacher's answers to them."
    file = Path(cache) / f"answers-{draw}-{share:g}.pt"
    if file.is_file():
        return torch.load(file, weights_only=True)
    t, dls = teacher_of(data, cache, draw, share)
    t.ready("cpu")
    norm = norm_of(dls)
    rest = unlabelled_images(dls, "rest", seen="skip") if share < 1 else []
    out, dl = {}, dls.train.new(shuffle=False, drop_last=False, bs=64)
    restart(dls, draw)
    parts = {"labelled": dl, "valid": dls.valid.new(bs=64)}
    if rest:
        parts["rest"] = dls.test_dl(list(rest), bs=64)
        parts["rest"].after_batch = dl.after_batch
    for name, loader in parts.items():
        views = []
        for _ in range(views_of(name, share)):
            loader.after_batch.split_idx = 1 if name == "valid" else 0
            views.append([torch.cat(k) for k in zip(*(seen(t, b, norm) for b in loader))])
        x, z, maps, *y = map(torch.stack, zip(*views))
        out[name] = dict(x=x, z=z, maps=maps) | (dict(y=y[0][0]) if name != "rest" else {})
    torch.save(out, file)
    return out


def views_of(part, share):
    "How many views of an image are kept."
    return {"valid": 1, "labelled": max(VIEWS, round(VIEWS * 0.1 / share))}.get(part, VIEWS)


def seen(t, batch, norm):
    "A batch as the student will see it, in bytes, the teacher's logits, its last stage, classes."
    x, *y = map(plain, batch)
    pixels = x * norm[1] + norm[0]
    small = F.interpolate(pixels, (SMALL, SMALL), mode="bilinear", antialias=True)
    said = t.see((x,), norm, ["blocks"])
    return as_bytes(small), said.out, said.features["blocks"].half(), *y


def trained(data, cache, draw, share, how, beside, steps, lr, mixup, **_):
    "A student; for its scores also the loaders whose images it can read."
    dls = read(data, draw, SMALL, share, norm=((0.0,), (1.0,)))
    restart(dls, draw)
    student = small_student(4, 1)
    if how is None or how == "smooth":
        loss = CrossEntropyLossFlat(label_smoothing=0.1 if how else 0.0)
        learn = Learner(dls, student, loss_func=loss)
    else:
        a = answered(data, cache, draw, share)
        kw = dict(unlabelled=Beside(Views(a["rest"]["x"]))) if beside else {}
        loss = CrossEntropyLossFlat()
        learn = distill(loaders(a, BATCH), student, memory(a), how, loss_func=loss, **kw)
    restart(learn.dls, draw)
    with learn.no_bar(), learn.no_logging():
        fit_steps(learn, steps, lr, looks=1, mixup=mixup)
    return learn, dls


def scored(learn, dls, test):
    out = {}
    for name, dl in {"valid": dls.valid, **({"test": dls.test} if test else {})}.items():
        s = scores(*predictions(learn.model, dl))
        out |= {f"{name} {k}": v for k, v in s.items()}
    return out


def tune(a):
    "Rate and mixup of the student alone, on validation images."
    for draw in (100,):
        for lr, mixup in ((1e-2, None), (3e-2, None), (1e-2, 0.2), (3e-2, 0.2)):
            key = dict(kind="tune", draw=draw, share=0.1, steps=1000, lr=lr, mixup=mixup)
            run = lambda: scored(*trained(a.data, a.cache, how=None, beside=False, **key), False)
            print(one_run(a.cache / "runs", key, run), flush=True)


def run(a):
    for draw in a.draws:
        for name in a.arms or ARMS:
            how, beside, steps = ARMS[name]
            key = dict(kind="run", draw=draw, share=a.share, arm=name, steps=steps) | RECIPE
            go = lambda: scored(*trained(a.data, a.cache, how=how, beside=beside, **key), True)
            print(one_run(a.cache / "runs", key, go), flush=True)
        key = dict(kind="run", draw=draw, share=a.share, arm="teacher")
        print(one_run(a.cache / "runs", key, lambda: teacher_scores(a, draw)), flush=True)


def teacher_scores(a, draw):
    t, dls = teacher_of(a.data, a.cache, draw, a.share)
    out = {}
    for name, dl in (("valid", dls.valid), ("test", dls.test)):
        s = scores(*predictions(t, dl))
        out |= {f"{name} {k}": v for k, v in s.items()}
    return out


def collect(a):
    rows = [r for r in kept_runs(a.cache / "runs") if r["kind"] == "run"]
    command = "python tools/experiments/mri_unlabelled.py run DATA CACHE"
    tuned = [r for r in kept_runs(a.cache / "runs") if r["kind"] == "tune"]
    write_json(a.out, dict(command=command, recipe=RECIPE, tune=tuned, runs=rows))


if __name__ == "__main__":
    args = asked(__doc__, ARMS, 5, "labels")
    back = lambda a: restore(a.out, a.cache / "runs")
    {"tune": tune, "run": run, "collect": collect, "restore": back}[args.what](args)
