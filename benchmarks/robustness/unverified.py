"""Measure what predictions alone can correct, and what verified labels add to them.

    python -m benchmarks.robustness.unverified --data ../shared/data

Predictions are cross-validated on the given labels, by a random forest and a logistic regression:
of digits with noise that is added, and of pictures and comments with labels of crowds and rules.
All shares are those of the samples that nobody verified in the last column.
"""

import argparse
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.common.facts import (
    RESULTS,
    add_data_option,
    described,
    facts,
    markdown,
    write_results,
)
from benchmarks.common.real_noise import from_arrays
from pudistill import correct_labels, corrupt_labels
from pudistill.utils.files import write_atomic

SEEDS, LEVEL, VERIFIED = range(3), 0.25, 0.1
MODELS = {
    "random forest": lambda seed: RandomForestClassifier(100, random_state=seed),
    "logistic regression": lambda _: make_pipeline(
        StandardScaler(), LogisticRegression(max_iter=1000)
    ),
}
ALONE, BESIDE = "nothing verified", "10 % verified"
SHARES = ("given", "favourite", "cleanlab", ALONE, BESIDE)


def problems(data: Path, seed: int) -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """Yield name, features, given and true labels."""
    X, y = load_digits(return_X_y=True)
    for kind in ("symmetric", "pair", "instance"):
        noisy = corrupt_labels(y, kind, LEVEL, X=X, random_state=seed)
        yield f"digits, {kind}", X, noisy.y, y
    noisy = corrupt_labels(y, "symmetric", LEVEL, random_state=seed)
    yield "digits by 3 pixels, symmetric", X[:, [10, 20, 30]], noisy.y, y
    for name in ("labelme", "youtube"):
        split = from_arrays(name, data, seed)
        has_label = split.given >= 0
        yield name, split.X[has_label], split.given[has_label], split.y[has_label]


def measured(given: np.ndarray, truth: np.ndarray, proba: np.ndarray, seed: int) -> dict:
    """Return the shares of right labels before and after, and how well wrong ones are ranked."""
    from cleanlab.filter import find_label_issues

    is_verified = np.random.default_rng(seed).random(len(truth)) < VERIFIED
    favourite, rest = proba.argmax(axis=1), ~is_verified
    alone = correct_labels(given, proba).label_table
    beside = correct_labels(given, proba, np.where(is_verified, truth, np.nan)).label_table
    labels = {
        "given": given,
        "favourite": favourite,
        "cleanlab": np.where(find_label_issues(given, proba), favourite, given),
        ALONE: alone["label"].to_numpy(),
        BESIDE: beside["label"].to_numpy(),
    }
    right = {name: (found == truth)[rest].mean() for name, found in labels.items()}
    ranks = roc_auc_score((given != truth)[rest], -alone["given_quality"][rest])
    return right | {"changed": alone["changed"][rest].mean(), "AUC of given_quality": ranks}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_data_option(parser)
    parser.add_argument("--output", type=Path, default=RESULTS / "unverified")
    options, begin, rows = parser.parse_args(), time.time(), []
    warnings.simplefilter("ignore", UserWarning)
    for seed in SEEDS:
        for problem, X, given, truth in problems(options.data, seed):
            for model, learner in MODELS.items():
                proba = cross_val_predict(learner(seed), X, given, cv=5, method="predict_proba")
                about = {"problem": problem, "model": model, "seed": seed}
                rows.append(about | measured(given, truth, proba, seed))
                print(rows[-1], flush=True)
    results = pd.DataFrame(rows)
    run = facts() | {"wall_minutes": round((time.time() - begin) / 60, 1)}
    write_results(results, run, options.output.with_suffix(".json"))
    means = results.drop(columns="seed").groupby(["problem", "model"], sort=False).mean()
    for name in (*SHARES, "changed"):
        means[name] = [f"{100 * share:.1f}" for share in means[name]]
    means["AUC of given_quality"] = means["AUC of given_quality"].round(2)
    text = (
        "# Predictions without verified labels\n\nLabels that are right (%), mean of "
        f"{len(SEEDS)} seeds: as given; the model's favourites; with cleanlab's issues replaced by "
        "favourites; by `correct_labels` with nothing and with a tenth verified. `changed`: by "
        f"`correct_labels` with nothing verified.\n\n{described(run)}\n"
        f"{markdown(means.reset_index())}"
    )
    write_atomic(options.output.with_suffix(".md"), text.encode())


if __name__ == "__main__":
    main()
