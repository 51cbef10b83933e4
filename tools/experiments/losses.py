"""What experiments that set losses beside one another share: a search of each loss's main weight on
validation images of one draw, then all draws with the best setting."""

from runs import asked, kept_runs, restore

from kdmedlearn.experiments.report import write_json

SEARCHED = 100  # the draw that settings are chosen on


def compare_losses(doc, name, arms, recipe, draws, what, score, one):
    """The command line of such an experiment.

    `arms`: loss -> settings, the default first. `one(a, kind, arm, method, draw)`: the kept scores
    of a training, those of the test only where `kind` is "run". `score`: what the search looks at.
    """
    verbs = ("search", "run", "collect", "restore")
    a = asked(doc, arms, draws, what, verbs)
    names = a.arms or arms

    def chosen(arm):
        return max(arms[arm], key=lambda m: one(a, "search", arm, m, SEARCHED)[score])

    if a.what == "search":
        for arm in names:
            print(arm, chosen(arm), flush=True)
    elif a.what == "run":
        best = {arm: chosen(arm) for arm in names}
        for draw in a.draws:
            for arm, method in best.items():
                one(a, "run", arm, method, draw)
    elif a.what == "restore":
        restore(a.out, a.cache / "losses")
    else:
        rows, command = kept_runs(a.cache / "losses"), f"python tools/experiments/{name}.py run"
        of = lambda kind: [r for r in rows if r["kind"] == kind]
        found = dict(command=f"{command} DATA CACHE", recipe=recipe)
        write_json(a.out, found | dict(search=of("search"), runs=of("run")))
