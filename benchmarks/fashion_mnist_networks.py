"""Algorithm 1 with networks on real pictures, on a CPU: Fashion-MNIST and `small_cnn`.

One filter and one set of teachers serve all noise settings, since neither reads a noisy label.

    python benchmarks/fashion_mnist_networks.py DATA --output results.json

DATA is the folder with Fashion-MNIST's four IDX files. Units of finished work are kept beside the
output, so an interrupted run goes on where it stopped.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed

from pudistill import PUDistillClassifier, TorchClassifier, corrupt_labels, load_dataset
from pudistill.distillation import average_proba
from pudistill.pseudo_labels import one_hot
from pudistill.runs import Units
from pudistill.workflow import reference_accuracy

# Pairs that people would confuse, as CIFAR-10's in the paper.
CLASS_MAP = {
    "T-shirt/top": "Shirt",
    "Shirt": "T-shirt/top",
    "Pullover": "Coat",
    "Sneaker": "Ankle boot",
    "Dress": "Trouser",
}
NOISES = [("symmetric", 0.5), ("asymmetric", 0.4), ("asymmetric", 0.8)]
# The paper's λ and η for medium and for high noise; neither is chosen by the noise here.
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
    units = Units(options.output.with_suffix(".units"))

    train = load_dataset(options.data)
    test = load_dataset(next(options.data.glob("t10k-images*")))
    classes = np.array(train.classes)
    rng = np.random.default_rng(options.seed)
    train = train.take(np.sort(rng.choice(len(train), options.n_train, replace=False)))
    y, y_test = (np.searchsorted(classes, part.y.astype(str)) for part in (train, test))
    trusted = np.zeros(len(train), dtype=bool)
    for c in range(len(classes)):
        rows = np.flatnonzero(y == c)
        trusted[rng.choice(rows, round(options.trusted * len(rows)), replace=False)] = True

    network = TorchClassifier("small_cnn")
    classifier = PUDistillClassifier(
        network,
        n_members=options.members,
        max_iter=options.iterations,
        min_votes=options.min_votes,
        threshold=options.threshold,
        tol=None,
        n_jobs=2,
        memory=units,
        random_state=options.seed,
    )
    start = time.perf_counter()
    classifier.fit_teachers(train.X, y, trusted, eval_set=test.X)
    seconds = {"filter": float(classifier.filter_.history_["seconds"].sum())}
    seconds["filter and teachers, this run"] = time.perf_counter() - start
    print(clean_set_table(classifier, y, y_test, trusted, classes).to_string(), flush=True)

    jobs = {("trusted_only", "any"): (train.X[trusted], one_hot(y[trusted], 10))}
    jobs["true_labels", "any"] = (train.X, one_hot(y, 10))
    for kind, level in NOISES:
        class_map = {"class_map": CLASS_MAP} if kind == "asymmetric" else {}
        names = corrupt_labels(
            classes[y], kind, level, trusted=trusted, random_state=options.seed, **class_map
        ).y
        noisy = np.searchsorted(classes, names.astype(str))
        noise = f"{kind} {level:.0%}"
        jobs["given_labels", noise] = (train.X, one_hot(noisy, 10))
        for name, (blend, min_confidence) in STUDENTS.items():
            classifier.set_params(blend=blend, min_confidence=min_confidence)
            jobs[name, noise] = (train.X, classifier.pseudo_labels(noisy, trusted))
    start = time.perf_counter()
    train_and_test = units.cache(reference_accuracy)
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

    result = {
        "settings": {name: str(value) for name, value in vars(options).items() if name != "output"},
        "clean_set": clean_set_table(classifier, y, y_test, trusted, classes).to_dict("records"),
        "test_accuracy": accuracy,
        "seconds": seconds,
        "peak_memory_mib": peak_memory(),
        "device": f"CPU, {os.cpu_count()} cores",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip(),
    }
    options.output.write_text(json.dumps(result, indent=2))


def clean_set_table(
    classifier: PUDistillClassifier,
    y: np.ndarray,
    y_test: np.ndarray,
    trusted: np.ndarray,
    classes: np.ndarray,
) -> pd.DataFrame:
    """Precision and size by class, on the noisy set and, as the paper's table I, the test set."""
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


def peak_memory() -> int:
    """Peak of this process and of its largest worker, in MiB."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(resource.getrusage(kind).ru_maxrss for kind in kinds) // 1024


if __name__ == "__main__":
    main()
