"""Kvasir-SEG with a share of its masks: what a teacher is worth, and the images without a mask.

    python tools/experiments/kvasir_unlabelled.py tune DATA CACHE
    python tools/experiments/kvasir_unlabelled.py run DATA CACHE --share .1 [--draws 0 1 2]
    python tools/experiments/kvasir_unlabelled.py collect DATA CACHE --out docs/results/kvasir_unlabelled.json
    python tools/experiments/kvasir_unlabelled.py restore DATA CACHE --out docs/results/kvasir_unlabelled.json

Plan, written before the runs.

- train/ is cut anew for every draw: 100 images to validate, a share of the other 700 keeps its
  masks. The draw is the unit of the error. validation/ is the test set: scored once, after the last
  step, nothing chosen on it. No patient is known, so frames of one patient may stand on both sides.
- Images are squeezed to 128 pixels, for teacher and student.
- Teacher: a U-Net on EfficientNet-Lite0 with ImageNet weights, 5.6 million parameters, structure
  loss, fine-tuned for 250 steps of 16 on the masks of the draw alone. Student: a U-Net of 71
  thousand parameters.
- Equal steps: 1,000 of 16 images, the one-cycle policy, AdamW. Longer: 3,000.
- Choice: rate and augmentation for the student ALONE with a tenth of the masks, on the validation
  images of draw 100 (`tune`). All arms and all shares take them. Nothing is tuned for the taught.
- Arms: alone; soft masks (structure loss on the teacher's probabilities), Bernoulli KL, CWD,
  pseudo-masks and KDAS, each on all 700 images; soft masks on the images with a mask alone; alone
  and soft masks for 3,000 steps.
- What the teacher says is computed once, for random views that are kept: eight of each image
  without a mask, and so many of one with a mask that they are 5,600 together. Students without a
  teacher get new random views all the time, but for one arm, which has the kept views: it tells
  what they cost.
- Shares: a tenth of the masks, and all. 2 % (14 masks), added after these were run, with the same
  recipe and the same number of draws, without the longer arms; the student alone has batches of 14.
  There the student alone was so far behind that its recipe was searched anew (`tune --share .02`),
  also with 300 steps. On the validation images the same recipe won, so nothing was run again.
- What decides: each arm minus the student alone at equal steps, Dice on test, paired by draw.

One change after a first draw: images with a mask had eight views, too, 560 in all with a tenth of
the masks, and on validation images a student taught on those alone was worse than the student
alone. Those runs are not used.
"""

import sys, warnings
from functools import lru_cache
from pathlib import Path

warnings.filterwarnings("ignore")
import torch
from fastai.learner import Learner
from fastai.vision.augment import Dihedral

from kdmedlearn import BernoulliKL, CWD, distill, KDAS, mask_dls, PseudoLabels, SoftMasks, Teacher
from kdmedlearn.core.outputs import plain
from kdmedlearn.core.teacher import norm_of
from kdmedlearn.data.augment import augmentations
from kdmedlearn.data.loaders import restart
from kdmedlearn.data.unlabelled import unlabelled_images
from kdmedlearn.evaluation.masks import dice
from kdmedlearn.experiments.report import write_json
from kdmedlearn.methods.kdas import StructureLoss
from kdmedlearn.models.pretrained import imagenet_weights, pretrained_unet
from kdmedlearn.models.unet import small_unet
from kdmedlearn.models.weights import load_teacher, save_model
from kdmedlearn.train.budget import fit_steps
from kdmedlearn.train.finetune import AsTeacherSees

sys.path.insert(0, str(Path(__file__).resolve().parent))
from runs import asked, kept_runs, one_run, restore
from views import as_bytes, Beside, loaders, memory, pixels, Views

SIZE, VIEWS, BATCH, STEPS = 128, 8, 16, 1000
RECIPE = dict(lr=1e-2, augment="strong")  # what `tune` chose
AUGMENT = {
    "turns": lambda: [Dihedral(p=0.9)],  # an endoscope has no up
    "strong": lambda: augmentations("endoscopy"),  # any angle, a little zoom and light, too
}
ARMS = {  # name -> (method, images without a mask, steps)
    "alone": (None, False, STEPS),
    "soft masks": (SoftMasks(), True, STEPS),
    "KDAS": (KDAS(), True, STEPS),
    "Bernoulli KL": (BernoulliKL(T=2.0, alpha=0.9), True, STEPS),
    "CWD": (CWD(), True, STEPS),
    "pseudo-masks": (PseudoLabels(), True, STEPS),
    "soft masks, labelled images": (SoftMasks(), False, STEPS),
    "alone, kept views": ("kept views", False, STEPS),
    "alone, longer": (None, False, 3 * STEPS),
    "soft masks, longer": (SoftMasks(), True, 3 * STEPS),
}
ONLY_FEW = ("soft masks, labelled images",)  # the same as another arm where all have a mask


def read(data, draw, share, augment=RECIPE["augment"], norm=((0.0,) * 3, (1.0,) * 3)):
    "The loaders of a draw, to validate on a part of train/."
    kw = dict(target="channel", valid=0.125, leaks=False, device="cpu", norm=norm)
    kw |= dict(fraction=share, seed=draw, augment=AUGMENT[augment]())
    return mask_dls(data / "train", SIZE, BATCH, **kw)


@lru_cache(1)
def test_of(data):
    kw = dict(target="channel", leaks=False, device="cpu", norm=((0.0,) * 3, (1.0,) * 3))
    return mask_dls(data, SIZE, BATCH, **kw).valid


def scored(model, parts):
    "The mean Dice of a model on loaders by name."
    out = {}
    model.eval()
    for name, dl in parts.items():
        with torch.no_grad():
            each = [dice(model(plain(x[None])), y[None]) for b in dl for x, y in zip(*b)]
        out[f"{name} dice"] = torch.stack(each).mean().item()
    return out


@lru_cache(1)
def teacher_of(data, cache, draw, share):
    "The teacher of a draw, fine-tuned or read."
    file = Path(cache) / f"teacher-{draw}-{share:g}.safetensors"
    if not file.is_file():
        dls = read(data, draw, share, norm="imagenet")
        restart(dls, draw)
        t = Teacher(pretrained_unet(), imagenet_weights().norm, size=SIZE)
        t.model.to(memory_format=torch.channels_last)
        learn = Learner(dls, t.model, loss_func=StructureLoss(), cbs=AsTeacherSees(t))
        restart(dls, draw)
        with learn.no_bar(), learn.no_logging():
            fit_steps(learn, 250, 3e-3, looks=1)
        t.model.to(memory_format=torch.contiguous_format)
        kw = dict(norm=t.norm, img_size=SIZE)
        save_model(t.model, file, "lite0_unet", dls.vocab, **kw)
    t = load_teacher(file).ready("cpu")
    t.model.to(memory_format=torch.channels_last)
    return t


@lru_cache(1)
def answered(data, cache, draw, share):
    "Views of labelled, unlabelled and validation images, and the teacher's answers to them."
    file = Path(cache) / f"answers-{draw}-{share:g}.pt"
    if file.is_file():
        return torch.load(file, weights_only=True)
    t, dls = teacher_of(data, cache, draw, share), read(data, draw, share)
    norm, dl = norm_of(dls), dls.train.new(shuffle=False, drop_last=False, bs=32)
    restart(dls, draw)
    parts = {"labelled": dl, "valid": dls.valid.new(bs=32)}
    if share < 1:
        rest = unlabelled_images(dls, "rest", seen="skip")
        parts["rest"] = dls.test_dl(list(rest), bs=32)
        parts["rest"].after_batch = dl.after_batch
    out = {}
    for name, loader in parts.items():
        random, views = name != "valid", []
        of_each = {"valid": 1, "rest": VIEWS, "labelled": round(VIEWS / share)}
        for _ in range(of_each[name]):
            loader.after_batch.split_idx = 0 if random else 1
            views.append([torch.cat(k) for k in zip(*(seen(t, b, norm) for b in loader))])
        x, z, *y = map(torch.stack, zip(*views))
        out[name] = dict(x=x, z=z) | (dict(y=y[0]) if name != "rest" else {})
    torch.save(out, file)
    return out


def seen(t, batch, norm):
    "A batch as it is kept, the teacher's logits to just these pixels, and the masks."
    x = as_bytes(plain(batch[0]))
    z = t.see((pixels(x),), norm).out.half()
    return x, z, *(plain(y).to(torch.uint8) for y in batch[1:2])


def trained(data, cache, draw, share, how, beside, steps, lr, augment, **_):
    "A student, and the loader of its validation images."
    dls = read(data, draw, share, augment)
    restart(dls, draw)
    student = small_unet().to(memory_format=torch.channels_last)
    if how is None:
        learn = Learner(dls, student, loss_func=StructureLoss())
    elif how == "kept views":
        kept = loaders(answered(data, cache, draw, share), BATCH)
        learn = Learner(kept, student, loss_func=StructureLoss())
    else:
        a = answered(data, cache, draw, share)
        kw = dict(unlabelled=Beside(Views(a["rest"]["x"]))) if beside and share < 1 else {}
        teacher = memory(a)
        learn = distill(loaders(a, BATCH), student, teacher, how, loss_func=StructureLoss(), **kw)
    restart(learn.dls, draw)
    with learn.no_bar(), learn.no_logging():
        fit_steps(learn, steps, lr, looks=1)
    return learn.model, dls.valid


def tune(a):
    """Rate and augmentation of the student alone, on validation images; of few masks the length,
    too."""
    settings = [(1e-2, "turns"), (1e-2, "strong"), (3e-2, "strong"), (3e-3, "strong")]
    settings = [(lr, augment, STEPS) for lr, augment in settings]
    settings += [(1e-2, "strong", 300), (3e-3, "strong", 300)] if a.share < 0.1 else []
    for lr, augment, steps in settings:
        key = dict(kind="tune", draw=100, share=a.share, steps=steps, lr=lr, augment=augment)

        def go():
            model, valid = trained(a.data, a.cache, how=None, beside=False, **key)
            return scored(model, {"valid": valid})

        print(one_run(a.cache / "runs", key, go), flush=True)


def run(a):
    for draw in a.draws:
        for name in a.arms or ARMS:
            if name in ONLY_FEW and a.share == 1:
                continue
            how, beside, steps = ARMS[name]
            key = dict(kind="run", draw=draw, share=a.share, arm=name, steps=steps) | RECIPE

            def go():
                model, valid = trained(a.data, a.cache, how=how, beside=beside, **key)
                return scored(model, {"valid": valid, "test": test_of(a.data)})

            print(one_run(a.cache / "runs", key, go), flush=True)
        key = dict(kind="run", draw=draw, share=a.share, arm="teacher")
        print(one_run(a.cache / "runs", key, lambda: teacher_scores(a, draw)), flush=True)


def teacher_scores(a, draw):
    t, dls = teacher_of(a.data, a.cache, draw, a.share), read(a.data, draw, a.share)
    norm = norm_of(dls)

    class Seeing(torch.nn.Module):
        def forward(self, x):
            return t.see((x,), norm).out

    return scored(Seeing(), {"valid": dls.valid, "test": test_of(a.data)})


def collect(a):
    kept = kept_runs(a.cache / "runs")
    command = "python tools/experiments/kvasir_unlabelled.py run DATA CACHE --share SHARE"
    tuned, rows = ([r for r in kept if r["kind"] == k] for k in ("tune", "run"))
    write_json(a.out, dict(command=command, recipe=RECIPE, tune=tuned, runs=rows))


if __name__ == "__main__":
    args = asked(__doc__, ARMS, 3, "masks")
    back = lambda a: restore(a.out, a.cache / "runs")
    {"tune": tune, "run": run, "collect": collect, "restore": back}[args.what](args)
