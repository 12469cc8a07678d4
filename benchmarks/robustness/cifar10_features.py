"""Run Algorithm 1 with logistic regression on ImageNet features of CIFAR-10 (JPEG).

    python -m benchmarks.robustness.cifar10_features features.npz --output results.json

It takes a minute or two. The file holds `X`, `y`, `X_test` and `y_test`. All noises share one
filter and one set of teachers, which read no noisy label.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

from benchmarks.common.facts import facts
from benchmarks.common.problems import draw_trusted
from pudistill import PUDistillClassifier, corrupt_labels
from pudistill.labels.corruption import CIFAR10_CLASSES

SETTINGS = {"λ=0.5, η=0.7": (0.5, 0.7), "λ=0.9, η=0.5": (0.9, 0.5)}
LEVELS = (0.3, 0.5, 0.7, 0.9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--trusted", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    names = np.array(CIFAR10_CLASSES, dtype=object)
    with np.load(options.data) as data:
        X, X_test = data["X"].astype(np.float32), data["X_test"].astype(np.float32)
        y, y_test = names[data["y"]], names[data["y_test"]]
    trusted = draw_trusted(y, options.trusted, np.random.default_rng(options.seed))

    student = LogisticRegression(C=3, max_iter=1000)
    classifier = PUDistillClassifier(
        student,
        method="paper",
        filter_estimator=LogisticRegression(C=1, max_iter=1000),
        max_iter=5,
        tol=None,
        random_state=options.seed,
    )
    start = time.perf_counter()
    classifier.fit_teachers(X, y, trusted)
    seconds = {"filter": float(classifier.filter_.history_["seconds"].sum())}
    seconds["filter and teachers"] = time.perf_counter() - start
    found = (classifier.filter_.clean_labels_ >= 0) & ~trusted
    right = (classifier.classes_[classifier.filter_.clean_labels_] == y)[found]

    rows = []

    def record(method: str, noise: str, accuracy: float) -> None:
        rows.append({"method": method, "noise": noise, "test_accuracy": accuracy})

    def trained_on(X: np.ndarray, labels: np.ndarray) -> float:
        learner = LogisticRegression(C=3, max_iter=1000)
        return learner.fit(X, labels.astype(str)).score(X_test, y_test.astype(str))

    record("trusted_only", "any", trained_on(X[trusted], y[trusted]))
    record("true_labels", "any", trained_on(X, y))
    for kind in ("symmetric", "asymmetric"):
        for level in LEVELS:
            noise = f"{kind} {level:.0%}"
            given = corrupt_labels(y, kind, level, trusted=trusted, random_state=options.seed).y
            record("given_labels", noise, trained_on(X, given))
            for name, (blend, min_confidence) in SETTINGS.items():
                classifier.set_params(blend=blend, min_confidence=min_confidence)
                classifier.fit_student(X, given, trusted)
                record(f"pudistill ({name})", noise, classifier.score(X_test, y_test))
    print(pd.DataFrame(rows).pivot(index="method", columns="noise", values="test_accuracy"))
    result = {
        "clean_set": {"size": int(found.sum()), "precision": float(right.mean())},
        "test_accuracy": rows,
        "seconds": seconds,
        **facts(),
    }
    options.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
