"""Prove that a change of the code changes no result: compare the bits of two versions.

``python -m benchmarks.bits write FILE`` computes labels, histories, probabilities and the
parameters of models in some four minutes of one core, and writes their SHA-256 sums as JSON. With
``--parts`` it computes some of them and leaves the other sums in FILE as they are.
``python -m benchmarks.bits compare BEFORE AFTER`` prints which sums differ; if any does, or is in
one file only, the exit code is 1.

Only public names of pudistill are used, so that the same file runs on both versions. The sums
depend on the processor and on the versions of the libraries: compute both files on one machine.
"""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # read by the libraries below; the order of a sum depends on it

import argparse
import hashlib
import json
import platform
import subprocess
import sys
import tempfile
import tomllib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import sklearn
import torch
from sklearn.datasets import load_digits, load_iris, load_wine
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import pudistill
from pudistill import PUDistillClassifier, TieredPUFilter, TorchClassifier, methods

Sums = dict[str, str]
STORED = Path(__file__).parents[1] / "tests" / "stored" / "0.1.0"
CLASSIFIERS = methods.__all__
# Numbers of metrics.json that do not depend on time, machine or wording.
RESULTS = (
    *("n_changed", "sources", "label_accuracy", "n_conflicts", "filter_settings", "noise"),
    *("adapted", "comparison", "expected_accuracy", "clean_set", "test_accuracy"),
)
SKLEARN_LEARNERS = {
    "logistic_regression": LogisticRegression(max_iter=1000),
    "scaled_svm": make_pipeline(StandardScaler(), SVC()),
    "random_forest": RandomForestClassifier(10, random_state=0),
    "neighbours": KNeighborsClassifier(),
}


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    writing = commands.add_parser("write", help="compute all results and write their sums")
    writing.add_argument("file", type=Path)
    writing.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    comparing = commands.add_parser("compare", help="compare two files of sums")
    comparing.add_argument("files", type=Path, nargs=2, metavar="FILE")
    arguments = parser.parse_args()
    if arguments.command == "compare":
        return compare(*(json.loads(file.read_text()) for file in arguments.files))
    warnings.simplefilter("ignore")
    sums: Sums = {}
    if arguments.file.exists():
        stored = json.loads(arguments.file.read_text())
        sums = stored["sums"] if stored["versions"] == versions() else {}
    for part in arguments.parts:
        print(part, file=sys.stderr, flush=True)
        sums = {entry: digest for entry, digest in sums.items() if not entry.startswith(f"{part}/")}
        sums |= {f"{part}/{entry}": digest for entry, digest in PARTS[part]()}
        result = {"versions": versions(), "sums": dict(sorted(sums.items()))}
        arguments.file.write_text(json.dumps(result, indent=1) + "\n")
    return 0


def versions() -> dict[str, str]:
    """Return what the bits depend on besides the code of pudistill."""
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scikit-learn": sklearn.__version__,
        "torch": torch.__version__,
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }


def compare(before: dict[str, Any], after: dict[str, Any]) -> int:
    """Print which sums are equal and which differ; return 1 if any differs, else 0."""
    if before["versions"] != after["versions"]:
        print(f"Not comparable: {before['versions']} against {after['versions']}.")
    sums = before["sums"], after["sums"]
    failed = 0
    for entry in sorted(sums[0].keys() | sums[1].keys()):
        found = [digests.get(entry, "missing")[:12] for digests in sums]
        equal = sums[0].get(entry) == sums[1].get(entry)
        failed += not equal
        print("equal    " if equal else "DIFFERENT", entry, *([] if equal else found))
    print(f"{failed} of {len(sums[0].keys() | sums[1].keys())} sums differ.")
    return int(failed > 0)


# Sums


def sha256(value: Any) -> str:
    """Hash an array with its dtype and shape, a table as CSV, text or bytes as they are."""
    if isinstance(value, pd.DataFrame):
        value = value.to_csv()
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    value = np.asarray(value)
    if value.dtype == object:
        return sha256(repr(value.tolist()))
    if value.dtype.names:  # field by field: the bytes between fields are arbitrary
        return sha256(" ".join(sha256(value[field]) for field in value.dtype.names))
    head = f"{value.dtype.str} {value.shape}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(value).tobytes()).hexdigest()


def parameters(model: Any) -> str:
    """Hash all arrays that a fitted model holds, wherever they are and whatever their name."""
    return sha256("\n".join(sorted({sha256(array) for array in _arrays(model, {})})))


def _arrays(value: Any, seen: dict[int, Any]) -> Iterator[np.ndarray]:
    if id(value) in seen:
        return
    seen[id(value)] = value  # holds it: the id of a temporary object could be given again
    if isinstance(value, torch.nn.Module):
        value = list(value.state_dict().values())
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        value = value.view(torch.int16) if value.dtype == torch.bfloat16 else value
        yield value.numpy()
    elif isinstance(value, np.ndarray) and value.dtype != object:
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _arrays(part, seen)
    elif isinstance(value, list | tuple | np.ndarray):
        for part in value:
            yield from _arrays(part, seen)
    elif type(value).__module__ == "sklearn.tree._tree" and hasattr(value, "__getstate__"):
        yield from _arrays(value.__getstate__(), seen)
    elif hasattr(value, "__dict__") and not isinstance(value, type | Callable):
        yield from _arrays(vars(value), seen)


def model_sums(name: str, classifier: Any, X: Any) -> Iterator[tuple[str, str]]:
    """Yield the sums of a fitted classifier: its parameters and its probabilities for `X`."""
    model = classifier.student_ if hasattr(classifier, "student_") else classifier.model_
    yield f"{name}/model", parameters(model)
    yield f"{name}/probabilities", sha256(classifier.predict_proba(X))


def filter_sums(name: str, pu_filter: TieredPUFilter) -> Iterator[tuple[str, str]]:
    """Yield the sums of a fitted filter: its votes, its clean set and its history."""
    yield f"{name}/votes", sha256(pu_filter.votes_)
    yield f"{name}/clean_labels", sha256(pu_filter.clean_labels_)
    yield f"{name}/history", sha256(pu_filter.history_.drop(columns="seconds"))


def numbers(value: Any) -> Any:
    """Return the value without its texts, whose wording can change, and without times."""
    if isinstance(value, dict):
        return {name: numbers(part) for name, part in value.items() if name != "seconds"}
    if isinstance(value, list):
        return [numbers(part) for part in value]
    return None if isinstance(value, str) else value


# Commands


def pudistill_command(*arguments: object) -> None:
    """Run a command of `pudistill` in a process of its own."""
    command = [sys.executable, "-m", "pudistill", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[1:])} failed:\n{done.stderr}")


def run_sums(run: Path, X: Any) -> Iterator[tuple[str, str]]:
    """Yield the sums of the results of `pudistill fit`."""
    yield "labels.csv", sha256((run / "labels.csv").read_bytes())
    history = pd.read_csv(run / "history.csv", dtype=str)
    yield "history.csv", sha256(history.drop(columns="seconds"))
    metrics = json.loads((run / "metrics.json").read_text())
    for key in RESULTS:
        if key in metrics:
            yield f"metrics.json/{key}", sha256(json.dumps(numbers(metrics[key])))
    yield from model_sums("model", pudistill.load(run), X)


def demo_sums() -> Iterator[tuple[str, str]]:
    """Run `pudistill demo`, as ``make demo`` does."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        pudistill_command("demo", "--output", run)
        yield from run_sums(run, load_digits().data)


def fit_sums() -> Iterator[tuple[str, str]]:
    """Repeat the stored runs of the tests, and predict with them."""
    for config in sorted(STORED.glob("*/config.toml")):
        with tempfile.TemporaryDirectory() as folder:
            run, predictions = Path(folder) / "run", Path(folder) / "predictions.csv"
            pudistill_command("fit", "--config", config, "--output", run)
            settings = [tomllib.loads(file.read_text()) for file in (config, run / "config.toml")]
            yield f"{config.parent.name}/same_settings", str(settings[0] == settings[1])
            X = load_iris(as_frame=True).data
            for entry, digest in run_sums(run, X):
                yield f"{config.parent.name}/{entry}", digest
            pudistill_command("predict", run, "iris", "--output", predictions)
            yield f"{config.parent.name}/predictions.csv", sha256(predictions.read_bytes())


def experiment_sums() -> Iterator[tuple[str, str]]:
    """Run `corrupt`, a small `sweep` and a cell of a table of the paper."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for noise in ("symmetric", "asymmetric", "pair", "instance"):
            table = folder / f"{noise}.csv"
            pudistill_command("corrupt", "iris", "--noise", noise, "--output", table)
            yield f"corrupt/{noise}", sha256(table.read_bytes())
        split = ("--test-fraction", 0.3, "--noises", "symmetric", "--levels", 0.6)
        pudistill_command("sweep", "iris", *split, "--output", folder / "curve")
        yield "sweep/curve.csv", sha256((folder / "curve" / "curve.csv").read_bytes())
        chosen = ("--levels", 0.6, "--seeds", 1, "--methods", "pudistill,mixup")
        pudistill_command("reproduce", "table5", *chosen, "--output", folder / "tables")
        cells = pd.read_csv(folder / "tables" / "table5-smoke" / "cells.csv", dtype=str)
        yield "reproduce/cells.csv", sha256(cells.drop(columns="seconds"))


# Classifiers


def problem(
    X: np.ndarray, y: np.ndarray, *, verified: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Corrupt labels; return samples, given labels, trusted samples, and new samples."""
    train = np.arange(len(y)) % 4 != 0
    X_new, X, y = X[~train], X[train], y[train]
    trusted = np.random.default_rng(0).random(len(y)) < 0.2
    given = pudistill.corrupt_labels(y, "symmetric", 0.4, trusted=trusted, random_state=0).y
    if verified:  # trusted samples keep their noisy given labels, as a sample of the noise
        labels = np.where(trusted, y, np.nan)
        given = pudistill.corrupt_labels(y, "symmetric", 0.4, random_state=0).y
        return X, given, labels, X_new
    return X, given, trusted, X_new


def small_tables() -> tuple[np.ndarray, np.ndarray]:
    """Return samples and labels of scikit-learn's wine, scaled."""
    X, y = load_wine(return_X_y=True)
    return (X - X.mean(axis=0)) / X.std(axis=0), y


def small_pictures() -> tuple[np.ndarray, np.ndarray]:
    """Return 240 pictures of three digits and their labels."""
    X, y = load_digits(n_class=3, return_X_y=True)
    return (X[:240] * 15).astype(np.uint8).reshape(-1, 8, 8), y[:240]


def fitted_sums(name: str, classifier: PUDistillClassifier, data: tuple) -> Iterator:
    """Fit PUDistillClassifier and yield the sums of all its results."""
    X, given, trusted, X_new = data
    classifier.fit(X, given, trusted=trusted)
    yield from filter_sums(f"{name}/filter", classifier.filter_)
    yield f"{name}/targets", sha256(classifier.targets_)
    yield f"{name}/teacher_proba", sha256(classifier.teacher_proba_)
    yield f"{name}/label_table", sha256(classifier.label_table_)
    if classifier.noise_ is not None:
        yield f"{name}/transition_matrix", sha256(classifier.noise_.transition_matrix)
        yield f"{name}/rate_interval", sha256(classifier.noise_.rate_interval)
    if classifier.expected_accuracy_ is not None:
        yield f"{name}/expected", sha256(classifier.expected_accuracy_.interval)
    yield from model_sums(name, classifier, X_new)


def pudistill_sums() -> Iterator[tuple[str, str]]:
    """Fit PUDistillClassifier by both methods with all kinds of learners."""
    small = {"n_members": 5, "max_iter": 2, "random_state": 0}
    tables, verified = problem(*small_tables()), problem(*small_tables(), verified=True)
    for name, learner in {"none": None, **SKLEARN_LEARNERS}.items():
        for method in ("default", "paper"):
            classifier = PUDistillClassifier(learner, method=method, **small)
            yield from fitted_sums(f"{method}/{name}", classifier, tables)
    yield from fitted_sums("default/verified", PUDistillClassifier(**small), verified)
    T = np.full((3, 3), 0.2) + 0.4 * np.eye(3)
    given_matrix = PUDistillClassifier(transition_matrix=T, compare=False, **small)
    yield from fitted_sums("default/given_matrix", given_matrix, tables)
    for label_type in ("hard_bootstrap", "hard_label"):
        classifier = PUDistillClassifier(method="paper", label_type=label_type, **small)
        yield from fitted_sums(f"paper/{label_type}", classifier, tables)
    pictures = problem(*small_pictures())
    for method in ("default", "paper"):
        for name, data in {"mlp": tables, "small_cnn": pictures}.items():
            classifier = PUDistillClassifier(
                TorchClassifier(name, epochs=3), method=method, n_jobs=1, **small
            )
            yield from fitted_sums(f"{method}/{name}", classifier, data)


def filter_part() -> Iterator[tuple[str, str]]:
    """Fit TieredPUFilter with chosen and with given rules, also on many samples."""
    tables, pictures = problem(*small_tables()), problem(*small_pictures())
    rules = {"auto": {}, "given": {"threshold": 0.7, "min_votes": 0.8, "tol": None}}
    for rule, options in rules.items():
        for name, learner in {"none": None, "svm": SKLEARN_LEARNERS["scaled_svm"]}.items():
            pu_filter = TieredPUFilter(learner, n_members=4, max_iter=3, random_state=0, **options)
            yield from filter_sums(f"{rule}/{name}", pu_filter.fit(*tables[:2], trusted=tables[2]))
        for share_trunk in (False, True):
            network = TorchClassifier("small_cnn", epochs=2)
            pu_filter = TieredPUFilter(
                network, n_members=3, max_iter=2, share_trunk=share_trunk, random_state=0, **options
            )
            fitted = pu_filter.fit(*pictures[:2], trusted=pictures[2])
            yield from filter_sums(f"{rule}/small_cnn/{share_trunk}", fitted)
    # More samples than a block holds, in single precision.
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=20_000)
    X = (rng.normal(size=(20_000, 6)) + np.eye(3, 6)[y] * 2).astype(np.float32)
    classifier = PUDistillClassifier(n_members=5, max_iter=2, compare=False, random_state=0)
    yield from fitted_sums("many_samples", classifier, problem(X, y))


def method_sums() -> Iterator[tuple[str, str]]:
    """Fit every method of `pudistill.methods` with each kind of learner that it takes."""
    tables, pictures = problem(*small_tables()), problem(*small_pictures())
    for name in CLASSIFIERS:
        kind = getattr(methods, name)
        for learner, data in {"mlp": tables, "small_cnn": pictures}.items():
            classifier = kind(TorchClassifier(learner, epochs=6, batch_size=32), random_state=0)
            yield from method_part(f"{name}/{learner}", classifier, data)
        if "use_trusted" in classifier.get_params():
            classifier.set_params(use_trusted=False)
            yield from method_part(f"{name}/blind", classifier, pictures)
    for name in ("CrossEntropy", "GoldLossCorrection", "LabelDistillation"):
        for learner, estimator in {"none": None, **SKLEARN_LEARNERS}.items():
            classifier = getattr(methods, f"{name}Classifier")(estimator, random_state=0)
            yield from method_part(f"{name}Classifier/{learner}", classifier, tables)


def method_part(name: str, classifier: Any, data: tuple) -> Iterator[tuple[str, str]]:
    """Fit a method and yield the sums of its model."""
    X, given, trusted, X_new = data
    yield from model_sums(name, classifier.fit(X, given, trusted=trusted), X_new)


def network_sums() -> Iterator[tuple[str, str]]:
    """Train networks by each recipe, role and loss."""
    X, y = small_pictures()
    for recipe in ("fast", "paper"):
        for role in ("member", "teacher", "student"):
            network = TorchClassifier(
                "small_cnn", recipe=recipe, role=role, epochs=2, batch_size=64, random_state=0
            ).fit(X, y)
            yield f"{recipe}/{role}/losses", sha256(np.array(network.loss_curve_))
            yield f"{recipe}/{role}/model", parameters(network.module_)
            yield f"{recipe}/{role}/probabilities", sha256(network.predict_proba(X))
    for module in ("airbench", "preact_resnet18"):
        network = TorchClassifier(module, epochs=1, random_state=0).fit(X[:32], y[:32])
        yield f"{module}/model", parameters(network.module_)
    likelihoods = np.full((len(y), 3), 0.2) + 0.4 * np.eye(3)[y]
    network = TorchClassifier(
        "small_cnn", loss="likelihood", role="noise_aware", epochs=2, random_state=0
    ).fit(X, likelihoods)
    yield "likelihood/model", parameters(network.module_)


PARTS: dict[str, Callable[[], Iterator[tuple[str, str]]]] = {
    "demo": demo_sums,
    "fit": fit_sums,
    "experiments": experiment_sums,
    "pudistill": pudistill_sums,
    "filter": filter_part,
    "methods": method_sums,
    "networks": network_sums,
}


if __name__ == "__main__":
    sys.exit(main())
