"""What the second and the third tutorial show in small, trained long enough to decide: temperatures
and pairs of layers, on phantom images.

    python tools/experiments/phantom_course.py temperature CACHE
    python tools/experiments/phantom_course.py features CACHE
    python tools/experiments/phantom_course.py collect CACHE --out docs/results/phantom_course.json

Plan, written before the runs.

- Student, images, rate and mixup are those of `phantom_unlabelled.py`, where they were chosen for
  the student alone on validation images: 51 thousand parameters, 200 images with a label, 2,000
  without, batches of 32. Here 1,000 steps. Nothing is chosen in these runs.
- `temperature`: alone; taught on all images with T = 1, 2, 4, 8, 16, 64 and the factor T^2; with
  T = 2, 4, 8, 16 and without it.
- `features`: alone; the teacher's answers; its map after stage 1, 2 or 4 beside the student's; answers
  and late map; a pair that cannot work, the student's first stage beside the teacher's last.
- Seeds 0 to 4: other images, other first weights. The seed is the unit of the error.
- Test: 1,000 images of seed 999, scored after the last step.
- What decides: differences paired by seed; less than two standard errors is a tie.
"""

import argparse, sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from phantom_unlabelled import LABELS, RECIPE, score, trained
from runs import kept_runs, one_run

from kdmedlearn import Feature, phantom_dls, Response
from kdmedlearn.experiments.report import write_json

STEPS = 1000


class WithoutFactor(Response, name="response_without_factor"):
    "Softened answers whose gradient falls with the square of T."

    def losses(self, p, teacher):
        return {k: v / self.T**2 for k, v in super().losses(p, teacher).items()}


STUDIES = {
    "temperature": {
        "alone": None,
        **{f"T = {T}": Response(T=T) for T in (1, 2, 4, 8, 16, 64)},
        **{f"T = {T}, without the factor": WithoutFactor(T=T) for T in (2, 4, 8, 16)},
    },
    "features": {
        "alone": None,
        "answers": Response(),
        "early map": Feature({"stage1": "stage1"}),
        "middle map": Feature({"stage2": "stage2"}),
        "late map": Feature({"stage4": "stage4"}),
        "answers and late map": [Response(), Feature({"stage4": "stage4"})],
        "first stage beside the last": Feature({"stage1": "stage4"}),
    },
}


def run(study, folder, seeds, steps=STEPS):
    test = phantom_dls(8, 1000, 64, seed=999, device="cpu").valid
    for seed in seeds:
        for name, how in STUDIES[study].items():
            key = dict(study=study, arm=name, seed=seed, steps=steps) | RECIPE
            extra = 0 if how is None else 24
            go = lambda: score(trained(LABELS, extra, how, **key), test)
            print(one_run(folder / study, key, go), flush=True)


def collect(folder, out):
    command = "python tools/experiments/phantom_course.py {} CACHE"
    found = {k: dict(command=command.format(k), runs=kept_runs(folder / k)) for k in STUDIES}
    write_json(out, dict(recipe=RECIPE, steps=STEPS) | found)


if __name__ == "__main__":
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("what", choices=(*STUDIES, "collect"))
    p.add_argument("cache", type=Path, help="folder of finished runs")
    p.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    p.add_argument("--steps", type=int, default=STEPS)
    p.add_argument("--out")
    a = p.parse_args()
    if a.what == "collect":
        collect(a.cache, a.out)
    else:
        run(a.what, a.cache, a.seeds, a.steps)
