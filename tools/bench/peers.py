"""What a step of response distillation costs here and in fasterai 0.4.1, side by side.

    python -m venv .venv-peers                       # an environment of its own, for this alone
    .venv-peers/bin/pip install -c constraints.txt -e . fasterai==0.4.1
    .venv-peers/bin/python tools/bench/peers.py [--out docs/results/bench_peers.json]

Networks of equal size and teachers that are larger. The same student, teacher, batch, optimizer and
loss: that both compute the same number is checked first. All ways take their turn in one run, each
with all that fastai does around a step.
"""

import sys, warnings
from functools import partial
from importlib.metadata import version
from statistics import median

import torch

warnings.filterwarnings("ignore", category=FutureWarning)
try:
    from fasterai.distill.all import KnowledgeDistillationCallback, SoftTarget
except ImportError:
    sys.exit("fasterai is not installed; the first lines of this file say how")
from fastai.learner import Learner
from kdmedlearn import distill, phantom_dls, Response
from kdmedlearn.evaluation.cost import in_turn, peak_bytes, ratio, seconds_of
from kdmedlearn.experiments.bench import mid_epoch
from kdmedlearn.models.registry import create_model
from kdmedlearn.train.memory import keep_freed_memory
from timing import arguments, command_of, keep

PAIRS = {  # teacher, student
    "equal networks": ("small_student", "small_student"),
    "larger teacher": ("small_teacher", "small_student"),
    "ResNet-18 as teacher": ("resnet18", "small_student"),
    "ResNet-50 as teacher": ("resnet50", "small_student"),
}
T, ALPHA = 4.0, 0.5


def learners(dls, teacher, student):
    "Ours, theirs, and the student alone, from the same first weights."

    def new():
        torch.manual_seed(1)
        return create_model(student).to(dls.device)

    asks = KnowledgeDistillationCallback(teacher, partial(SoftTarget, T=T), weight=ALPHA)
    ours = distill(dls, new(), teacher, Response(T=T, alpha=ALPHA))
    return {"here": ours, "fasterai": Learner(dls, new(), cbs=asks), "alone": Learner(dls, new())}


def measured(dls, names, a):
    "Seconds and bytes of a step, each way, and their ratios."
    batch = dls.train.one_batch()
    x = batch[0].as_subclass(torch.Tensor)
    torch.manual_seed(0)
    teacher = create_model(names[0]).eval().to(dls.device)
    made = learners(dls, teacher, names[1])
    steps = {k: mid_epoch(learn, batch) for k, learn in made.items()}
    alone = steps.pop("alone")

    def bound():
        with torch.no_grad():
            teacher(x)
        alone()

    steps["bound"] = bound
    for step in steps.values():
        step()
    ours, theirs = (float(made[k].loss.detach()) for k in ("here", "fasterai"))
    assert abs(ours - theirs) < 1e-4 * abs(ours), (ours, theirs)
    measure = partial(seconds_of, steps=a.steps, device=dls.device)
    times = in_turn(steps, a.repeats, measure=measure)
    return {
        "teacher": names[0],
        "student": names[1],
        "seconds": {k: median(v) for k, v in times.items()},
        "all": times,
        "bytes": {k: peak_bytes(step, dls.device) for k, step in steps.items()},
        "fasterai / here": ratio(times, "fasterai", "here"),
        "here / bound": ratio(times, "here", "bound"),
    }


a = arguments(__doc__, bs=32, size=64, repeats=15, steps=4)
keep_freed_memory()  # in both: it is one process
dls = phantom_dls(n_train=a.bs, n_valid=8, size=a.size, seed=0, bs=a.bs)
pairs = {}
for name, names in PAIRS.items():
    pairs[name] = m = measured(dls, names, a)
    said = ", ".join(f"{k} {1000 * s:.1f} ms" for k, s in m["seconds"].items())
    times = "{:.2f} ({:.2f} to {:.2f})".format(*m["fasterai / here"])
    print(f"{name}: {said}; fasterai / here {times}")
entry = {
    "command": command_of("peers", a),
    "device": dls.device.type,
    "threads": torch.get_num_threads(),
    "repeats": a.repeats,
    "steps": a.steps,
    **{k: version(k) for k in ("fasterai", "fastai", "torch")},
    "pairs": pairs,
}
if a.out:
    keep(a.out, entry)
