"""Run Algorithm 1 with `small_cnn` on Fashion-MNIST, on a CPU.

All noises share one filter and one set of teachers, which read no noisy label.

    python -m benchmarks.robustness.fashion_mnist_networks DATA --output results.json

DATA is the folder with Fashion-MNIST's four IDX files. Finished stages are stored beside the
output, so an interrupted run continues where it stopped.
"""

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from benchmarks.common.facts import facts
from benchmarks.common.problems import draw_trusted
from pudistill import PUDistillClassifier, TorchClassifier, corrupt_labels, load_dataset
from pudistill.distillation.paper import average_proba
from pudistill.labels.corruption import FASHION_MNIST_MAP
from pudistill.labels.pseudo_labels import one_hot
from pudistill.learners.cache import StageCache
from pudistill.learners.scoring import predict_proba
from pudistill.learners.tasks import Training, train
from pudistill.runs.measures import reference_accuracy

NOISES = [("symmetric", 0.5), ("asymmetric", 0.4), ("asymmetric", 0.8)]
# The paper's λ and η for medium and for high noise; both are used at every noise here.
STUDENTS = {"pudistill": (0.5, 0.7), "pudistill (λ=0.9, η=0.5)": (0.9, 0.5)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--n-train", type=int, default=10_000)
    parser.add_argument("--trusted", type=float, default=0.1)
    parser.add_argument("--members", type=int, default=10)
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--min-votes", type=int, default=9)
    parser.add_argument("--threshold", type=float, default=0.9)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    stages = StageCache(options.output.with_suffix(".stages"))

    data = load_dataset(options.data)
    test = load_dataset(next(options.data.glob("t10k-images*")))
    classes = np.array(data.classes)
    rng = np.random.default_rng(options.seed)
    data = data.take(np.sort(rng.choice(len(data), options.n_train, replace=False)))
    y, y_test = (np.searchsorted(classes, part.y.astype(str)) for part in (data, test))
    trusted = draw_trusted(y, options.trusted, rng)

    network = TorchClassifier("small_cnn")
    classifier = PUDistillClassifier(
        network,
        method="paper",
        n_members=options.members,
        max_iter=options.iterations,
        min_votes=options.min_votes,
        threshold=options.threshold,
        tol=None,
        n_jobs=2,
        memory=stages,
        random_state=options.seed,
    )
    start = time.perf_counter()
    classifier.fit_teachers(data.X, y, trusted, eval_set=test.X)
    seconds = {"filter": float(classifier.filter_.history_["seconds"].sum())}
    seconds["filter and teachers, this run"] = time.perf_counter() - start
    print(clean_set_table(classifier, y, y_test, trusted, classes).to_string(), flush=True)

    jobs = {("trusted_only", "any"): (data.X[trusted], one_hot(y[trusted], 10))}
    jobs["true_labels", "any"] = (data.X, one_hot(y, 10))
    for kind, level in NOISES:
        class_map = {"class_map": FASHION_MNIST_MAP} if kind == "asymmetric" else {}
        names = corrupt_labels(
            classes[y], kind, level, trusted=trusted, random_state=options.seed, **class_map
        ).y
        noisy = np.searchsorted(classes, names.astype(str))
        noise = f"{kind} {level:.0%}"
        jobs["given_labels", noise] = (data.X, one_hot(noisy, 10))
        for name, (blend, min_confidence) in STUDENTS.items():
            classifier.set_params(blend=blend, min_confidence=min_confidence)
            jobs[name, noise] = (data.X, classifier.pseudo_labels(noisy, trusted))
    start = time.perf_counter()
    train_and_test = stages.cache(reference_accuracy)
    accuracies = Parallel(n_jobs=2)(
        delayed(train_and_test)(network, X, targets, test.X, y_test, options.seed)
        for X, targets in jobs.values()
    )
    seconds["students and references, this run"] = time.perf_counter() - start
    accuracy = [
        {"method": name, "noise": noise, "test_accuracy": float(result.accuracy)}
        for (name, noise), result in zip(jobs, accuracies, strict=True)
    ]
    teacher = average_proba(classifier.teachers_, test.X, 10).argmax(axis=1)
    accuracy.append(
        {"method": "teacher", "noise": "any", "test_accuracy": float((teacher == y_test).mean())}
    )
    print(pd.DataFrame(accuracy).to_string(), flush=True)
    gap = explain_teacher(classifier, data.X, y, trusted, test.X, y_test, options.seed)
    print(pd.DataFrame(gap).to_string(), flush=True)

    own_peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    numbers = {
        name: value for name, value in vars(options).items() if name not in ("data", "output")
    }
    result = {
        "settings": numbers,
        "clean_set": clean_set_table(classifier, y, y_test, trusted, classes).to_dict("records"),
        "test_accuracy": accuracy,
        "one_teacher_on_other_data": gap,
        "seconds": seconds,
        "peak_memory_mib_without_workers": own_peak // 1024,
        **facts(),
    }
    options.output.write_text(json.dumps(result, indent=2))


def explain_teacher(
    classifier: PUDistillClassifier,
    X: np.ndarray,
    y: np.ndarray,
    trusted: np.ndarray,
    X_test: np.ndarray,
    y_test: np.ndarray,
    seed: int,
) -> list[dict]:
    """Train a teacher on other data, to see what wrong labels, easy samples and bootstrap cost."""
    labels = classifier.filter_.clean_labels_
    P, D_c = np.flatnonzero(labels >= 0), np.flatnonzero(trusted)
    found = np.setdiff1d(P, D_c)
    rng = np.random.default_rng(seed)
    as_large = np.concatenate(
        [D_c, rng.choice(np.flatnonzero(~trusted), len(found), replace=False)]
    )
    often = np.concatenate([np.repeat(D_c, 5), found])
    bootstrap = {"balanced_bootstrap": True}
    network, mixed = TorchClassifier("small_cnn"), TorchClassifier("small_cnn", mixup=2.0)
    cases = {
        "trusted samples only": (network, D_c, y, None),
        "P, balanced bootstrap (the algorithm's teacher)": (network, P, labels, bootstrap),
        "P, balanced bootstrap, mixup": (mixed, P, labels, bootstrap),
        "P, no bootstrap": (network, P, labels, None),
        "P with its wrong labels mended, no bootstrap": (network, P, y, None),
        "random samples, as many, right labels": (network, as_large, y, None),
        "P with trusted samples five times, no bootstrap": (network, often, labels, None),
    }

    def accuracy(estimator, rows, targets, params, n):
        task = Training(estimator, X[rows], one_hot(targets[rows], 10), "teacher", n, params=params)
        prediction = predict_proba(train(task), X_test, 10).argmax(axis=1)
        return float((prediction == y_test).mean())

    seeds = (seed, seed + 1)
    results = iter(
        Parallel(n_jobs=2)(delayed(accuracy)(*case, n) for case in cases.values() for n in seeds)
    )
    return [{"data": name, "test_accuracy": [next(results) for _ in seeds]} for name in cases]


def clean_set_table(
    classifier: PUDistillClassifier,
    y: np.ndarray,
    y_test: np.ndarray,
    trusted: np.ndarray,
    classes: np.ndarray,
) -> pd.DataFrame:
    """Return precision and size by class, on the noisy set and, as in table I, on the test set."""
    found = np.where(trusted, -1, classifier.filter_.clean_labels_)
    rows = []
    for c, name in [*enumerate(classes), (None, "overall")]:
        row = {"class": name}
        for where, labels, right in (
            ("noisy", found, y),
            ("test", classifier.filter_.eval_labels_, y_test),
        ):
            chosen = labels == c if c is not None else labels >= 0
            row[f"{where}_precision"] = (
                float((labels == right)[chosen].mean()) if chosen.any() else None
            )
            row[f"{where}_size"] = int(chosen.sum())
        rows.append(row)
    return pd.DataFrame(rows)


if __name__ == "__main__":
    main()
