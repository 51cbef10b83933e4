"""The gain on phantom images: student alone against student distilled, several seeds, same start
for both.

    python tools/experiments/phantom_gain.py --out docs/results/phantom_gain.json

Test images come from a seed that neither teacher nor students saw. Nothing is chosen on them: the
students' last epoch counts.
"""

import argparse, sys, warnings
from pathlib import Path

warnings.filterwarnings("ignore", category=FutureWarning)
from kdmedlearn import phantom_dls, Response
from kdmedlearn.evaluation.classes import predictions, scores
from kdmedlearn.experiments.experiment import experiment, gain
from kdmedlearn.experiments.report import write_json
from kdmedlearn.models.small import small_student
from kdmedlearn.train.teachers import phantom_teacher

p = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
p.add_argument("--out")
p.add_argument("--seeds", type=int, default=5)
p.add_argument("--epochs", type=int, default=60)
p.add_argument("--n-train", type=int, default=200)
p.add_argument("--size", type=int, default=64)
p.add_argument("--T", type=float, default=4.0)
p.add_argument("--alpha", type=float, default=0.9)
p.add_argument("--difficulty", type=float, default=0.5)
p.add_argument("--test-seed", type=int, default=999)
p.add_argument("--bs", type=int, default=16)
p.add_argument("--augment", type=int, default=1, help="1: turn and mirror the training images")
a = p.parse_args()

test = phantom_dls(
    n_train=8, n_valid=2000, size=a.size, seed=a.test_seed, difficulty=a.difficulty
).valid
teacher = phantom_teacher().to(test.device)
res = experiment(
    lambda s: phantom_dls(
        n_train=a.n_train,
        n_valid=300,
        size=a.size,
        seed=s,
        difficulty=a.difficulty,
        bs=a.bs,
        augment=bool(a.augment),
    ),
    small_student,
    teacher,
    Response(T=a.T, alpha=a.alpha),
    test=test,
    epochs=a.epochs,
    seeds=range(a.seeds),
)
g, t = gain(res["scores"]), scores(*predictions(teacher, test))
print(
    f"teacher {t['accuracy']:.3f}; alone {g['before']:.3f}, distilled {g['after']:.3f}, gain"
    f" {100 * g['difference']:+.2f} points, standard error {100 * g['standard error']:.2f},"
    f" {g['n']} seeds"
)
if a.out:
    write_json(
        a.out,
        {
            "command": (
                "python tools/experiments/phantom_gain.py "
                + " ".join(f"--{k.replace('_', '-')} {v}" for k, v in vars(a).items() if k != "out")
            ),
            "teacher": t,
            "gain": g,
            "seeds": res["scores"].to_dict("records"),
        },
    )
