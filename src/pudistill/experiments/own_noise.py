"""Methods on Clothing1M, whose noise is its own: table 3."""

import numpy as np
import pandas as pd

from pudistill.experiments import paper
from pudistill.experiments.curve import Bench, NoisySet, Score, distilled, measure_on
from pudistill.experiments.levels import COMPARED, NAMES, PAPER, PREPARE, REPORTED, TOLD
from pudistill.experiments.setup import NOT_RUN, Result, Setup
from pudistill.methods.registry import OURS


def table3(setup: Setup) -> Result:
    """Test accuracy on Clothing1M, whose noise is its own."""
    our_name = {of: name for name, of in REPORTED.items()} | {PAPER: PAPER}
    theirs = {our_name.get(name, name): accuracy for name, accuracy in paper.TABLE_3.items()}
    found = setup.on_clothing1m("test")
    results = pd.DataFrame(columns=["final", "best", "seconds", "seeds"])
    if found is not None:
        results = _on_own_noise(found)
    rows = []
    for name in dict.fromkeys([*theirs, *COMPARED]):
        ours = results.loc[name] if name in results.index else None
        if ours is None and name not in theirs and name != OURS:
            continue
        status = ""
        if name not in PREPARE:
            status = "reported only"
        elif ours is None:
            status = NOT_RUN if found is None else "not run"
        measured = [None] * 4 if ours is None else list(ours)
        called = NAMES.get(name, name).replace(", told the noise level", "")  # nobody knows it
        rows.append((called, *measured, theirs.get(name), status))
    return Result(pd.DataFrame(rows, columns=["method", *results.columns, "paper", "status"]))


def _on_own_noise(setup: Setup) -> pd.DataFrame:
    """Measure the methods on data whose noise is their own."""

    def authors(bench: Bench) -> Score:
        return distilled(bench, bench.settings_of("paper", **setup.scale.of_paper))

    prepare = PREPARE | {PAPER: authors}
    wanted = {name: prepare[name] for name in setup.methods if name != TOLD}
    noisy = NoisySet("own", np.nan, setup.train)
    parts = []
    for seed in setup.seeds:
        bench = Bench(setup.settings(seed), setup.train, setup.test, setup.units, watches=True)
        parts.append(measure_on(bench, [noisy], wanted).assign(seed=seed))
    results = pd.concat(parts, ignore_index=True)
    results[["final", "best"]] = 100 * results[["accuracy", "best_over_epochs"]]
    groups = results.groupby("method", sort=False)
    averages = groups[["final", "best", "seconds"]].mean()
    return averages.assign(seeds=groups["seed"].nunique())
