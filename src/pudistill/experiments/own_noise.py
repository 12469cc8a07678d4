"""Systems on Clothing1M, whose labels are noisy by themselves: table 3."""

import numpy as np
import pandas as pd

from pudistill.experiments import paper
from pudistill.experiments.evaluation import Evaluator, FitAndScore, NoisyDataset
from pudistill.experiments.levels import (
    COMPARED,
    PAPER,
    PAPER_TUNED,
    PREPARE_COMPARED,
    REPORTED,
    TITLES,
)
from pudistill.experiments.measuring import measure_on
from pudistill.experiments.setup import NOT_RUN, Result, Setup
from pudistill.experiments.systems import distilled
from pudistill.methods.registry import OURS


def table3(setup: Setup) -> Result:
    """Test accuracy on Clothing1M, whose noise is its own."""
    our_names = {reported: name for name, reported in REPORTED.items()} | {PAPER: PAPER}
    reported = {our_names.get(name, name): accuracy for name, accuracy in paper.TABLE_3.items()}
    clothing1m = setup.on_clothing1m("test")
    results = pd.DataFrame(columns=["final", "best", "seconds", "seeds"])
    if clothing1m is not None:
        results = _measure_own_noise(clothing1m)
    rows = []
    for name in dict.fromkeys([*reported, *COMPARED, *setup.methods]):
        is_measured = name in results.index
        if not is_measured and name not in reported and name != OURS:
            continue
        status = ""
        if not is_measured:
            status = NOT_RUN if clothing1m is None else "not run"
        measured = list(results.loc[name]) if is_measured else [None] * 4
        # No system knows the noise level of Clothing1M.
        title = TITLES.get(name, name).replace(", told the noise level", "")
        rows.append((title, *measured, reported.get(name), status))
    return Result(pd.DataFrame(rows, columns=["method", *results.columns, "paper", "status"]))


def _measure_own_noise(setup: Setup) -> pd.DataFrame:
    """Measure the systems on data whose given labels are noisy already."""

    def paper_on_clothing1m(evaluator: Evaluator) -> FitAndScore:
        settings = evaluator.settings_for("paper", **setup.scale.paper_settings)
        return distilled(evaluator, settings)

    prepare = PREPARE_COMPARED | {PAPER: paper_on_clothing1m}
    unknown = (PAPER_TUNED, "true_labels")  # nobody knows the noise level or the true labels
    systems = {name: prepare[name] for name in setup.methods if name not in unknown}
    noisy = NoisyDataset("own", np.nan, setup.train)
    parts = []
    for seed in setup.seeds:
        evaluator = Evaluator(
            setup.settings(seed), setup.train, setup.test, setup.stages, tracks_epochs=True
        )
        parts.append(measure_on(evaluator, [noisy], systems).assign(seed=seed))
    results = pd.concat(parts, ignore_index=True)
    results[["final", "best"]] = 100 * results[["accuracy", "best_over_epochs"]]
    groups = results.groupby("method", sort=False)
    averages = groups[["final", "best", "seconds"]].mean()
    return averages.assign(seeds=groups["seed"].nunique())
