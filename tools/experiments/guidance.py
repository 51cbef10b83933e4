"""Learning Through Guidance, measured: one teacher, several, simple aggregations, attention; a bad
teacher among good ones.

    python tools/experiments/guidance.py phantom RUN_FOLDER [--seeds 0 1 2 3 4]
    python tools/experiments/guidance.py mri RUN_FOLDER --data BRAIN_MRI [--case all few]

Every trained model leaves a small file in RUN_FOLDER; what is there is not trained again, so a run
that was stopped goes on, and several processes can share the work (--arms, --seeds, --case).
`--collect FILE` writes the summary that docs/results holds. Scores are of test images that trained
nobody; nothing is chosen on them: the last epoch counts.

Students see VIEWS fixed random views of each image instead of a new one each time: what a frozen
teacher says of a view is then computed once (tools/experiments/memo.py) and read from memory
afterwards, which makes the table affordable on a CPU.
"""

import argparse, json, os, time, warnings
from pathlib import Path

import numpy as np
import torch

warnings.filterwarnings("ignore", category=FutureWarning)
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from torch import nn
from kdmedlearn import distill, image_dls, phantom_dls, Response
from kdmedlearn.core.outputs import plain
from kdmedlearn.core.teacher import norm_of, Teacher
from kdmedlearn.data.balance import train_labels
from kdmedlearn.data.loaders import restart
from kdmedlearn.data.splits import groups_of, hold_out, part
from kdmedlearn.evaluation.calibration import fit_temperature
from kdmedlearn.evaluation.classes import predictions, scores
from kdmedlearn.evaluation.cost import n_params
from kdmedlearn.experiments.report import write_json
from kdmedlearn.methods.feature import Feature
from kdmedlearn.methods.fusion import (
    AttentionFusion,
    Concatenation,
    Ensemble,
    MeanLogits,
    MeanProbabilities,
    RelationAttention,
)
from kdmedlearn.models.registry import create_model
from kdmedlearn.train.fusing import collect, Collected, fit_fusion, fused
from memo import Memo, Views, loaders

ARCHS = ["resnet10t", "starnet_s050", "shvit_s1"]


def views_of(dls, n_views, seed=0):
    "The training images of `dls` in `n_views` random views each, in order."
    restart(dls, seed)
    dl = dls.train.new(shuffle=False, drop_last=False)
    xs = [torch.cat([plain(x) for x, _ in dl]) for _ in range(n_views)]
    return Views(
        torch.stack(xs),
        torch.cat([plain(y) for _, y in dl]),
        torch.tensor(np.unique(groups_of(dls), return_inverse=True)[1]),
    )


p = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
p.add_argument("set", choices=["phantom", "mri"])
p.add_argument("run", type=Path)
p.add_argument("--data")
p.add_argument("--case", nargs="+", help="phantom: alike specialists; mri: all few")
p.add_argument("--size", type=int, default=64)
p.add_argument("--bs", type=int, default=32)
p.add_argument("--views", type=int, default=8)
p.add_argument("--student", default="guided_student")
p.add_argument("--teacher-epochs", type=int, default=15)
p.add_argument(
    "--epochs",
    type=int,
    default=None,
    help="of the students; default: 60 with few images, 20 with all",
)
p.add_argument("--teacher-lr", type=float, default=3e-3)
p.add_argument("--lr", type=float, default=0.01, help="of the students; see --judge")
p.add_argument("--T", type=float, default=4.0)
p.add_argument("--alpha", type=float, default=0.9)
p.add_argument("--lam", type=float, default=1.0)
p.add_argument("--seeds", type=int, nargs="+")
p.add_argument("--arms", nargs="+")
p.add_argument("--collect")
p.add_argument(
    "--judge",
    choices=["test", "valid"],
    default="test",
    help=(
        "valid: to choose a setting, such as --lr, on images that judge nothing later; give another"
        " RUN_FOLDER"
    ),
)
p.add_argument(
    "--chosen-among",
    nargs="+",
    type=Path,
    default=[],
    metavar="RUN_FOLDER",
    help="with --collect: the folders of --judge valid, so that the summary tells what was tried",
)
a = p.parse_args()
a.run.mkdir(parents=True, exist_ok=True)
a.case = a.case or (["alike", "specialists"] if a.set == "phantom" else ["few", "all"])
a.seeds = a.seeds or list(range(5 if a.set == "phantom" else 3))


# --- data
def mri():
    return image_dls(
        a.data, size=a.size, bs=a.bs, valid=0.1, group="near_dup_group", modality="mri", seed=0
    )


def data(case, seed):
    """(images of the teachers, images of the students, test loader); the fusion learns on the
    students' images."""
    if a.set == "mri":
        dls = mri()
        return (*hold_out(dls, 0.1, seed=0), dls.test) if case == "few" else (dls, dls, dls.test)
    big = phantom_dls(n_train=2000, n_valid=400, size=a.size, seed=7000, bs=a.bs)
    own = phantom_dls(n_train=200, n_valid=300, size=a.size, seed=seed, bs=16)
    return big, own, phantom_dls(n_train=8, n_valid=2000, size=a.size, seed=999).valid


def specialty(dls, k, rest=0.05, seed=0):
    """The training images of `dls` with classes of which teacher `k` has seen little: all but those
    c with c % 3 == k are thinned to `rest`."""
    y, r = train_labels(dls), np.random.default_rng(seed + k)
    return part(dls, np.flatnonzero((y % len(ARCHS) == k) | (r.random(len(y)) < rest)))


class Wrong:
    "A dataset with a share of its labels drawn at random."

    def __init__(self, ds, n_classes, share, seed=0):
        r = np.random.default_rng(seed)
        self.ds, self.lie = (
            ds,
            np.where(r.random(len(ds)) < share, r.integers(0, n_classes, len(ds)), -1),
        )

    def __getitem__(self, i):
        x, y = self.ds[i]
        return x, (y if self.lie[i] < 0 else type(y)(int(self.lie[i])))

    def __len__(self):
        return len(self.ds)

    def __getattr__(self, k):
        if k in ("ds", "lie") or k.startswith("__"):
            raise AttributeError(k)
        return getattr(self.ds, k)


def badly(dls, n=150, share=0.6):
    "A training set that makes a bad teacher: `n` images, `share` of their labels drawn at random."
    few = part(dls, np.random.default_rng(1).choice(len(dls.train_ds), n, replace=False))
    few.loaders[0] = few.train.new(Wrong(few.train.dataset, len(dls.vocab), share))
    return few


# --- teachers
def get_teacher(case, arch, dls, epochs):
    path = a.run / f"teacher-{case}-{arch}.pt"
    model = create_model(arch, len(dls.vocab), dls.one_batch()[0].shape[1])
    if not path.exists():
        restart(dls, 0)
        model = create_model(arch, len(dls.vocab), dls.one_batch()[0].shape[1])
        start = time.perf_counter()
        learn = Learner(dls, model.to(memory_format=torch.channels_last))
        with learn.no_bar(), learn.no_logging():
            learn.fit_one_cycle(epochs, a.teacher_lr)
        torch.save(model.state_dict(), path)
        print(
            f"{path.stem}: {time.perf_counter() - start:.0f} s, validation"
            f" {scores(*predictions(model, dls.valid))['accuracy']:.3f}",
            flush=True,
        )
    model.load_state_dict(torch.load(path))
    return Teacher(model.eval(), vocab=list(dls.vocab), name=arch)


def get_teachers(case, dls):
    "The three teachers of a case, and the bad one that takes the place of the best."
    good = [
        get_teacher(
            case, arch, specialty(dls, k) if case == "specialists" else dls, a.teacher_epochs
        )
        for k, arch in enumerate(ARCHS)
    ]
    return good, get_teacher(
        "bad-" + case.replace("specialists", "alike"), ARCHS[0], badly(dls), 20
    )


# --- students
def memory(teacher, views, norm, path):
    "A Memo, kept on disk: all seeds of a case with the same images share it."
    if path.exists():
        memo = Memo.__new__(Memo)
        nn.Module.__init__(memo)
        memo.map, memo.own = nn.Identity(), teacher.model
        memo.__dict__.update(torch.load(path))
        return memo
    memo = Memo(teacher, views, norm)
    tmp = path.with_suffix(f".{os.getpid()}")
    torch.save({"table": memo.table, "outs": memo.outs, "maps": memo.maps, "name": memo.name}, tmp)
    tmp.rename(path)
    return memo


def seen_of(memos, views):
    "What the teachers show of every view, for fitting a fusion."
    v = len(views.xs)
    return Collected(
        [m.outs for m in memos], [m.maps for m in memos], views.ys.repeat(v), views.group.repeat(v)
    )


def fitted(fusion, memos, views, calibrated=False):
    "`fusion`, trained on the students' images, a fifth of them telling when to stop."
    seen, fusion = seen_of(memos, views), fusion()
    if calibrated:
        fusion.temperatures = [fit_temperature(o, seen.target) for o in seen.answers]
    return fit_fusion(fusion, seen, epochs=max(3, 1000 * 64 // len(seen.target)))


def method(arm, memos, views):
    "The teachers and the method of an arm."
    bad = arm.endswith(", bad")
    base = arm.removesuffix(", bad")
    several = memos["bad"] if bad else memos["good"]
    kw = dict(T=a.T, alpha=a.alpha)
    attention = dict(answer="mixture") if "mixture" in base else {}
    one = memos["best"]
    if base == "response":
        return [one], Response(**kw)
    if base == "feature":
        return [one], Feature(lam=a.lam)
    if base == "response + feature":
        return [one], Response(**kw) + Feature(lam=a.lam)
    if base == "relation, one teacher":
        return [one], RelationAttention(
            **kw, lam=a.lam, fusion=fitted(AttentionFusion, [one], views)
        )
    if base == "mean of logits":
        return several, Ensemble(MeanLogits(), **kw)
    if base == "mean of probabilities":
        return several, Ensemble(MeanProbabilities(), **kw)
    if base == "features of three":
        return several, Feature(lam=a.lam)
    if base == "mean of logits + features":
        return several, Ensemble(MeanLogits(), **kw) + Feature(lam=a.lam)
    if base == "concatenation":
        return several, Ensemble(fitted(Concatenation, several, views), **kw, lam=a.lam)
    if base == "attention, joint":
        return several, RelationAttention(**kw, lam=a.lam)
    if "teachers' images" in base:
        fusion = fit_fusion(AttentionFusion(**attention), memos["seen"]())
    else:
        fusion = fitted(
            lambda: AttentionFusion(**attention), several, views, calibrated="calibrated" in base
        )
    lam = 0 if "responses" in base else a.lam
    return several, RelationAttention(**kw, lam=lam, fusion=fusion)


WHY = [
    "attention on the teachers' images",
    "attention mixture on the teachers' images",
    "attention mixture, calibrated",
    "attention mixture, responses alone",
    "mean of logits + features",
]
ARMS = [
    "alone",
    "response",
    "feature",
    "relation, one teacher",
    "mean of logits",
    "mean of probabilities",
    "concatenation",
    "attention",
    "attention mixture",
    "attention, joint",
    *(
        f"{n}, bad"
        for n in (
            "mean of logits",
            "mean of probabilities",
            "concatenation",
            "attention",
            "attention mixture",
        )
    ),
]


def student(case, arm, seed, own, views, memos, test):
    out = a.run / f"{case}--{arm.replace(' ', '_')}--{seed}.json"
    try:
        out.touch(exist_ok=False)  # other processes leave it to this one
    except FileExistsError:
        return
    try:
        epochs = a.epochs or (20 if (a.set, case) == ("mri", "all") else 60)
        dls = loaders(views, own, own.train.bs)
        restart(dls, seed)
        model = create_model(a.student, len(own.vocab), views.xs.shape[2]).to(
            memory_format=torch.channels_last
        )
        row = {
            "case": case,
            "arm": arm,
            "seed": seed,
            "epochs": epochs,
            "lr": a.lr,
            "images": len(views),
        }
        if arm == "alone":
            learn = Learner(dls, model, loss_func=CrossEntropyLossFlat())
        else:
            teachers, m = method(arm, memos, views)
            learn = distill(dls, model, teachers, m, loss_func=CrossEntropyLossFlat())
            row |= {"training only": sum(q.numel() for q in m.parameters())}
        restart(dls, seed)
        start = time.perf_counter()
        with learn.no_bar(), learn.no_logging():
            learn.fit_one_cycle(epochs, a.lr)
        row |= {
            "seconds": round(time.perf_counter() - start, 1),
            "parameters": n_params(model),
        } | scores(*predictions(learn.model, test))
        write_json(out, row)
        print(
            f"{case} seed {seed} {arm}: accuracy {row['accuracy']:.3f}, {row['seconds']:.0f} s",
            flush=True,
        )
    except BaseException:
        out.unlink()
        raise


def on_disk(path, f):
    "The value of `f`, computed once and kept."
    if not path.exists():
        torch.save(f(), path)
    return torch.load(path, weights_only=False)


def ece(z, y, bins=15):
    """Expected calibration error: how far confidence and accuracy are apart, over bins of
    confidence."""
    conf, hit = z.softmax(1).max(1).values, (z.argmax(1) == y).float()
    which = (conf * bins).long().clamp(max=bins - 1)
    return sum(
        abs(float(conf[which == b].sum() - hit[which == b].sum())) for b in range(bins)
    ) / len(y)


def signals(case, memos, views, test):
    """What each signal is worth by itself: accuracy and calibration on test images, sureness on the
    students' images."""
    path = a.run / f"signals-{case}.json"
    if path.exists():
        return
    rows = []
    norm = None
    for kind in ("good", "bad"):
        ms, teachers = memos[kind], memos[kind + " teachers"]
        train, tested = seen_of(ms, views), collect(teachers, test, places=2)
        fusions = {
            "mean of logits": MeanLogits(),
            "mean of probabilities": MeanProbabilities(),
            "concatenation": fitted(Concatenation, ms, views),
            "attention": fitted(AttentionFusion, ms, views),
            "attention mixture": fitted(lambda: AttentionFusion(answer="mixture"), ms, views),
        }
        zs = {
            t.name + (" (bad)" if t is memos["bad one"] else ""): (
                i,
                tested.answers[i],
                train.answers[i],
            )
            for i, t in enumerate(teachers)
        } | {n: (f, fused(f, tested), fused(f, train)) for n, f in fusions.items()}
        for name, (f, zt, zs_) in zs.items():
            p = zs_.softmax(1)
            rows.append(
                {
                    "teachers": kind,
                    "signal": name,
                    "test accuracy": scores(zt, tested.target)["accuracy"],
                    "test ece": ece(zt, tested.target),
                    "train accuracy": float((zs_.argmax(1) == train.target).float().mean()),
                    "sureness on the students' images": float(p.max(1).values.mean()),
                    "entropy at T": float(
                        -(q := (zs_ / a.T).softmax(1)).mul(q.log()).sum(1).mean()
                    ),
                }
            )
    write_json(path, rows)
    for r in rows:
        print({k: round(v, 3) if isinstance(v, float) else v for k, v in r.items()}, flush=True)


def work(case):
    for seed in a.seeds:
        first, own, test = data(case, seed)
        good, bad = get_teachers(case, first)
        norm, shared = norm_of(own), a.set == "mri"
        if a.judge == "valid":
            test = own.valid
        views = views_of(own, a.views, seed=0 if shared else seed)
        where = lambda t: a.run / f"memory-{case}-{t}-{0 if shared else seed}.pt"
        g = [memory(t, views, norm, where(t.name)) for t in good]
        b = [memory(bad, views, norm, where("bad")), *g[1:]]
        best = max(
            range(len(good)),
            key=lambda i: scores(*predictions(good[i].model, first.valid))["accuracy"],
        )
        memos = {
            "good": g,
            "bad": b,
            "best": g[best],
            "good teachers": good,
            "bad teachers": [bad, *good[1:]],
            "bad one": bad,
            "seen": lambda: Collected(
                *on_disk(
                    a.run / f"seen-{case}.pt",
                    lambda: tuple(collect(good, first.train, groups=groups_of(first))),
                )
            ),
        }
        if seed == 0:
            signals(case, memos, views, test)
        for arm in a.arms or ARMS + (WHY if a.set == "mri" else []):
            student(case, arm, seed, own, views, memos, test)


def about_teachers(case):
    first, own, test = data(case, 0)
    good, bad = get_teachers(case, first)
    return [
        {
            "name": t.name + (" (bad)" if t is bad else ""),
            "parameters": n_params(t.model),
            "images": len(train_labels(first)),
            "validation accuracy": scores(*predictions(t.model, first.valid))["accuracy"],
        }
        for t in (*good, bad)
    ]


def collect_results(path):
    """The summary that docs/results holds: numbers and how they came about, no weights, images or
    paths."""
    cases = {}
    for case in a.case:
        done = [
            json.loads(f.read_text())
            for f in sorted(a.run.glob(f"{case}--*.json"))
            if f.stat().st_size
        ]
        cases[case] = {
            "students": [{k: v for k, v in r.items() if k != "case"} for r in done],
            "signals": json.loads((a.run / f"signals-{case}.json").read_text()),
            "teachers": about_teachers(case),
        }
    tried = [
        json.loads(f.read_text())
        for folder in a.chosen_among
        for f in sorted(folder.glob("*--*.json"))
        if f.stat().st_size
    ]
    settings = {
        k: getattr(a, k)
        for k in (
            "size",
            "views",
            "student",
            "teacher_epochs",
            "teacher_lr",
            "lr",
            "T",
            "alpha",
            "lam",
        )
    }
    write_json(
        path,
        {
            "command": (
                f"python tools/experiments/guidance.py {a.set} RUN_FOLDER"
                + " --data BRAIN_MRI" * (a.set == "mri")
                + f" --case {' '.join(a.case)} --lr {a.lr:g}"
            ),
            "settings": settings,
            "cases": cases,
            "tried on validation images": [
                {k: r[k] for k in ("case", "arm", "seed", "lr", "epochs", "accuracy")}
                for r in tried
            ],
            "torch": torch.__version__,
        },
    )


if __name__ == "__main__":
    if a.collect:
        collect_results(a.collect)
    else:
        for case in a.case:
            work(case)
