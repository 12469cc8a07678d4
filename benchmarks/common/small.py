"""Small problems: bundled tables, overlapping classes, and features that say nothing."""

from functools import partial
from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer, load_wine, make_classification

from benchmarks.common.problems import (
    ALL_RANDOM,
    KNOWN,
    NONE,
    Noise,
    Problem,
    Split,
    draw_at_random,
    held_out,
    logistic_regression,
)

N_TEST = 2000


def overlapping(n: int, weights: list[float] | None, _: Path, seed: int) -> Split:
    """Make four classes that no classifier can separate, in another place for each seed."""
    X, y = make_classification(
        n + N_TEST,
        n_features=10,
        n_informative=5,
        n_classes=4,
        n_clusters_per_class=1,
        weights=weights,
        class_sep=0.7,
        flip_y=0,
        random_state=seed,
    )
    return Split(X[:n], y[:n], X[n:], y[n:])


def around_centres(n: int, distance: float, _: Path, seed: int) -> Split:
    """Draw three classes around centres; at distance 0 the features say nothing."""
    rng = np.random.default_rng([seed, 1])
    y = rng.integers(3, size=n + N_TEST)
    X = rng.normal(size=(n + N_TEST, 5)) + distance * np.eye(3, 5)[y]
    return Split(X[:n], y[:n], X[n:], y[n:])


SYMMETRIC = Noise("symmetric", 0.4)
MOST_COMMON = [0.72, 0.12, 0.1, 0.06]  # shares of the classes, if they are not balanced
LOSABLE_PROBLEMS = tuple(
    Problem(
        f"{name}, {100 * share:.0f} % trusted",
        load,
        logistic_regression,
        trusted=share,
        seeds=30,
        kinds=(SYMMETRIC.kind,),
        levels=(SYMMETRIC.level,),
        extremes=(),
        methods=("trusted_only", "given_labels", "true_labels", "pudistill", KNOWN),
    )
    for name, load in (
        ("wine", partial(held_out, load_wine)),
        ("breast_cancer", partial(held_out, load_breast_cancer)),
        ("four overlapping classes", partial(overlapping, 500, None)),
        ("four classes, 72 % in one", partial(overlapping, 500, MOST_COMMON)),
    )
    for share in (0.05, 0.15)
)
hard = partial(Problem, learner=logistic_regression, seeds=200, draw=draw_at_random)
HARD_PROBLEMS = (
    hard(
        "four overlapping classes, 10 % verified",
        partial(overlapping, 500, None),
        trusted=0.1,
        levels=(0.3,),
        extremes=(NONE,),
    ),
    hard(
        "features without information, 20 % verified",
        partial(around_centres, 200, 0.0),
        trusted=0.2,
        kinds=("symmetric",),
        levels=(0.4,),
        extremes=(NONE,),
    ),
    hard(
        "one sample not verified",
        partial(around_centres, 200, 1.5),
        trusted=0.995,
        kinds=(),
        extremes=(NONE, ALL_RANDOM),
    ),
)
