"""Rows that compare the default method with cleanlab and with plain fits of the same learner.

All calls compute in one process, on one thread, on the same samples.
"""

import statistics
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone

from benchmarks.speed.measurement import Figures, Goal, alternate, medians, ratio, row
from pudistill.utils.threads import one_thread


def compare(
    samples: Any,
    given: np.ndarray,
    trusted: Any,
    plain: Any,
    encoded: Any,
    estimator: Any = None,
) -> Figures:
    """Time a plain fit, CleanLearning, Gold Loss Correction and the default method in turn."""
    from cleanlab.classification import CleanLearning

    from pudistill import PUDistillClassifier
    from pudistill.methods import GoldLossCorrectionClassifier

    codes = pd.factorize(pd.Series(given), sort=True)[0]

    def default(compare: bool) -> Callable[[], Any]:
        classifier = PUDistillClassifier(estimator, compare=compare, random_state=0)
        return lambda: clone(classifier).fit(samples, given, trusted)

    with warnings.catch_warnings(), one_thread():
        warnings.simplefilter("ignore")
        seconds = alternate(
            1,
            warm_up=False,  # each call takes seconds
            plain_fit=lambda: clone(plain).fit(encoded, codes),
            cleanlab=lambda: CleanLearning(
                clone(plain), find_label_issues_kwargs={"n_jobs": 1}
            ).fit(encoded, codes),
            gold_loss_correction=lambda: GoldLossCorrectionClassifier(
                estimator, random_state=0
            ).fit(samples, given, trusted),
            default=default(True),
            default_without_comparison=default(False),
        )
    return medians(seconds) | {
        "default / cleanlab": ratio(seconds, "default", "cleanlab"),
        "without comparison / cleanlab": ratio(seconds, "default_without_comparison", "cleanlab"),
    }


def noisy_features(data: Path, n: int, n_features: int = 256) -> tuple[np.ndarray, ...]:
    """Return features of CIFAR-10, labels of which half are random, and a tenth verified."""
    with np.load(data / "cifar10-features" / "features.npz") as file:
        X, y = file["X"][:n, :n_features], file["y"][:n].astype(int)
    rng = np.random.default_rng(0)
    given = np.where(rng.random(n) < 0.5, rng.integers(10, size=n), y)
    verified = np.full(n, np.nan)
    rows = rng.choice(n, n // 10, replace=False)
    verified[rows] = y[rows]
    return X, given, verified


@row(
    "default method on 50,000 x 256 features, symmetric 50 %, against CleanLearning",
    {
        "default / cleanlab": Goal(at_most=1.5),
        "without comparison / cleanlab": Goal(at_most=1.2),
    },
)
def features_against_cleanlab(data: Path) -> Figures:
    from pudistill.learners.defaults import default_learner

    X, given, verified = noisy_features(data, 50_000)
    wide = X.astype(np.float32)
    return compare(X, given, verified, default_learner(X), wide)


@row(
    "default method on 5,000 texts, against CleanLearning on the same TF-IDF features",
    {"default / cleanlab": Goal(at_most=4)},
)
def texts_against_cleanlab(data: Path) -> Figures:
    from pudistill.data.encoding import TableEncoder
    from pudistill.learners.defaults import default_learner

    table = pd.read_csv(data / "texts" / "texts.csv").set_index("id")
    checked = pd.read_csv(data / "texts" / "checked.csv").set_index("id").iloc[:, -1]
    verified = checked.reindex(table.index).to_numpy()
    texts, given = table["text"].tolist(), table["label"].to_numpy()
    encoded = TableEncoder().fit_transform(table["text"])
    return compare(texts, given, verified, default_learner(encoded), encoded)


def trees_against_cleanlab(data: Path, learner: Any) -> Figures:
    X, given, verified = noisy_features(data, 3500, 20)
    X = X.astype(np.float32)
    return compare(X, given, verified, learner, X, learner)


@row("the same with a random forest, 3,500 x 20", {"default / cleanlab": Goal(at_most=4)}, "long")
def forest_against_cleanlab(data: Path) -> Figures:
    from sklearn.ensemble import RandomForestClassifier

    return trees_against_cleanlab(data, RandomForestClassifier(random_state=0))


@row(
    "the same with histogram boosting, 3,500 x 20",
    {"default / cleanlab": Goal(at_most=4)},
    "long",
)
def boosting_against_cleanlab(data: Path) -> Figures:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return trees_against_cleanlab(data, HistGradientBoostingClassifier(random_state=0))


@row(
    "1,000 classes with two trusted samples each, 20,000 x 64",
    {"seconds": Goal(at_most=60)},
    "long",
)
def many_classes(_: Path) -> Figures:
    from pudistill import PUDistillClassifier

    rng, n, n_classes = np.random.default_rng(0), 20_000, 1000
    y = np.arange(n) % n_classes
    X = rng.normal(size=(n_classes, 64))[y] + 0.7 * rng.normal(size=(n, 64))
    given = np.where(rng.random(n) < 0.3, rng.integers(n_classes, size=n), y)
    verified = np.where(np.arange(n) < 2 * n_classes, y, np.nan)
    classifier = PUDistillClassifier(random_state=0)
    with warnings.catch_warnings(), one_thread():
        warnings.simplefilter("ignore")
        seconds = alternate(1, warm_up=False, fit=lambda: clone(classifier).fit(X, given, verified))
    return {"seconds": statistics.median(seconds["fit"])}


@row(
    "default method on 1,500 pictures, small_cnn, against one training on all of them",
    {"default / one training": Goal(at_most=6)},
    "long",
)
def pictures_against_training(data: Path) -> Figures:
    from benchmarks.common.problems import fashion_mnist
    from pudistill import PUDistillClassifier, TorchClassifier

    X, y, *_ = fashion_mnist(1500, data, seed=0)
    rng, n = np.random.default_rng(0), len(y)
    given = np.where(rng.random(n) < 0.5, rng.integers(10, size=n), y)
    verified = np.where(rng.permutation(n) < n // 10, y, np.nan)
    network = TorchClassifier("small_cnn", random_state=0)
    classifier = PUDistillClassifier(network, random_state=0)
    with warnings.catch_warnings(), one_thread():
        warnings.simplefilter("ignore")
        seconds = alternate(
            1,
            warm_up=False,  # a fit takes a minute
            one_training=lambda: clone(network).fit(X, given),
            default=lambda: clone(classifier).fit(X, given, verified),
        )
    return medians(seconds) | {"default / one training": ratio(seconds, "default", "one_training")}
