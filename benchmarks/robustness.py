"""One setting against all peers at every noise level, on the same splits, seeds and learners.

    python benchmarks/robustness.py --data ../shared/data          # everything, or what is left
    python benchmarks/robustness.py --only digits --seeds 0 --methods pudistill given_labels
    python benchmarks/robustness.py --summary                      # tables and picture, no work

DATA is the folder with ``cifar10-features/`` and ``fashion-mnist/``; cleanlab is to be installed.

A cell is one method on one problem, noise and seed. Its result is a small JSON file, written when
it is done, and a cell that has a file is not computed again: an interrupted command goes on where
it stopped, or, in a new clone, from the committed results. After a change to a method, delete its
files and the same command computes them anew (``rm
benchmarks/results/robustness.units/*/*/pudistill*``). What reads no noisy label (split, filter,
teachers, trusted-only and true-label training, self-training) is computed once for all noises of a
problem and seed.
"""

import argparse
import json
import os
import shlex
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from joblib import Parallel, delayed
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.semi_supervised import SelfTrainingClassifier

import robustness_report as report
from pudistill import PUDistillClassifier, corrupt_labels, load_dataset
from pudistill.atomic import write_atomic
from pudistill.learners import Training, default_learner, predict_proba, train
from pudistill.noise import CIFAR10_CLASSES, CIFAR10_MAP, CorruptedLabels, cyclic_map
from pudistill.pseudo_labels import one_hot
from pudistill.runs import Units
from pudistill.workflow import make_learner

RESULTS = Path(__file__).parent / "results"
KNOWN = report.KNOWN
N_JOBS = 2

# The authors' λ and η at levels of 30, 40, … 90 % (design, section 7).
PAPER_LEVELS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
PAPER_SYMMETRIC = ((0.4, 0.5, 0.5, 0.5, 0.9, 0.9, 0.9), (0.8, 0.9, 0.6, 0.5, 0.6, 0.5, 0.5))
PAPER_ASYMMETRIC = ((0.4, 0.4, 0.5, 0.7, 0.8, 0.9, 0.9), (0.8, 0.6, 0.5, 0.5, 0.5, 0.5, 0.5))
PAPER_FIXED = (0.5, 0.7)


class Noise(NamedTuple):
    """A kind of noise and its level, which is a share of all samples."""

    kind: str
    level: float


ANY = Noise("any", 0)  # of methods that read no noisy label
NONE, ALL_WRONG, ALL_RANDOM = Noise("none", 0), Noise("all wrong", 1), Noise("all random", 1)
# What these are in `corrupt_labels`, as shares of the samples that are not trusted.
EXTREMES = {NONE: ("symmetric", 0), ALL_WRONG: ("pair", 1), ALL_RANDOM: ("symmetric", 1)}


class Split(NamedTuple):
    """Samples with their right labels, as codes."""

    X: np.ndarray
    y: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray


@dataclass(frozen=True)
class Problem:
    """A data set, what learns it, and the cells to compute."""

    name: str
    load: Callable[[Path, int], Split]
    learner: Callable[[], Any]
    trusted: float
    seeds: int
    levels: Sequence[float] = (0.3, 0.6, 0.9)
    kinds: Sequence[str] = ("symmetric", "asymmetric", "instance")
    extremes: Sequence[Noise] = tuple(EXTREMES)
    member: Callable[[], Any] | None = None  # of the filter, where it is another learner
    class_map: dict[int, int] | None = None  # of asymmetric noise; cyclic by default
    filter: dict[str, Any] = field(default_factory=dict)  # its size, if not the default
    paper: dict[str, Any] = field(default_factory=dict)  # further settings of the paper's method
    methods: Sequence[str] | None = None  # all that fit tables by default
    seeds_of: dict[str, int] = field(default_factory=dict)  # of methods that get fewer seeds
    cells_apart: bool = False  # a cell is long: cells, not seeds, are what runs side by side

    def cells(self, seed: int) -> "Iterator[Cell]":
        """All cells of a seed; those of one noise follow each other."""
        methods = self.methods or [name for name in METHODS if name != "consistency"]
        grid = [Noise(kind, level) for kind in self.kinds for level in self.levels]
        for noise in (ANY, *grid, *self.extremes):
            for method in methods:
                if (method in NOISE_FREE) != (noise == ANY):
                    continue
                if seed >= self.seeds_of.get(method, self.seeds):
                    continue
                if noise not in EXTREMES or method in IN_EXTREMES:
                    yield Cell(self.name, seed, noise, method)


class Cell(NamedTuple):
    """The unit of work."""

    problem: str
    seed: int
    noise: Noise
    method: str

    @property
    def path(self) -> Path:
        """Where the result is, below the units' folder."""
        noise = f"{self.noise.kind} {self.noise.level:g}"
        return Path(self.problem, noise, f"{self.method}, seed {self.seed}.json")


# Data sets


def held_out(bundled: Callable, _: Path, seed: int) -> Split:
    X, y = bundled(return_X_y=True)
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.25, stratify=y, random_state=seed)
    return Split(X, y, X_test, y_test)


def cifar10_features(data: Path, _: int) -> Split:
    with np.load(data / "cifar10-features" / "features.npz") as file:
        X, X_test = file["X"].astype(np.float32), file["X_test"].astype(np.float32)
        return Split(X, file["y"].astype(int), X_test, file["y_test"].astype(int))


def fashion_mnist(n_train: int, data: Path, seed: int) -> Split:
    folder = data / "fashion-mnist"
    train, test = load_dataset(folder), load_dataset(next(folder.glob("t10k-images*")))
    rows = np.random.default_rng(seed).choice(len(train), n_train, replace=False)
    train = train.take(np.sort(rows))
    y, y_test = (np.searchsorted(FASHION_CLASSES, part.y.astype(str)) for part in (train, test))
    return Split(train.X, y, test.X, y_test)


def fashion_table(data: Path, seed: int) -> Split:
    X, y, X_test, y_test = fashion_mnist(10_000, data, seed)
    X, X_test = (pictures.reshape(len(pictures), -1) / 255 for pictures in (X, X_test))
    pca = PCA(50, random_state=seed).fit(X)
    return Split(pca.transform(X), y, pca.transform(X_test), y_test)


def small_cnn(**params: Any) -> Any:
    from pudistill import TorchClassifier

    return TorchClassifier("small_cnn", **params)


FASHION_CLASSES = [
    *("Ankle boot", "Bag", "Coat", "Dress", "Pullover"),
    *("Sandal", "Shirt", "Sneaker", "T-shirt/top", "Trouser"),
]
# Pairs that people would confuse, as in fashion_mnist_networks.py.
FASHION_MAP = {
    "T-shirt/top": "Shirt",
    "Shirt": "T-shirt/top",
    "Pullover": "Coat",
    "Sneaker": "Ankle boot",
    "Dress": "Trouser",
}


def in_codes(class_map: dict[str, str], classes: list[str]) -> dict[int, int]:
    return {classes.index(name): classes.index(wrong) for name, wrong in class_map.items()}


# What all cells of a problem and seed share


class Group:
    """The split, the trusted samples and the teachers, which read no noisy label."""

    def __init__(self, problem: Problem, seed: int, data: Path, filters: Path) -> None:
        self.problem, self.seed, self.filters = problem, seed, filters
        self.X, self.y, self.X_test, self.y_test = problem.load(data, seed)
        self.n_classes = int(self.y.max()) + 1
        self.learner = problem.learner()
        self.seconds: dict[str, float] = {}
        self._fitted: dict[str, PUDistillClassifier] = {}
        rng = np.random.default_rng([seed, 0])  # as `pudistill.workflow.with_noise` draws them
        self.trusted = np.zeros(len(self.y), dtype=bool)
        for code in range(self.n_classes):
            rows = np.flatnonzero(self.y == code)
            n_trusted = max(1, round(problem.trusted * len(rows)))
            self.trusted[rng.choice(rows, n_trusted, replace=False)] = True

    def corrupt(self, noise: Noise) -> CorruptedLabels | None:
        """Put noise into the labels; None where no noisy label is read."""
        if noise == ANY:
            return None
        kind, share = EXTREMES.get(noise, (noise.kind, noise.level / (1 - self.problem.trusted)))
        return corrupt_labels(
            self.y,
            kind,
            min(1, share),
            share_of="noisy",
            trusted=self.trusted,
            class_map=self.class_map if kind == "asymmetric" else None,
            X=self.X if kind == "instance" else None,
            random_state=self.seed,
        )

    @property
    def class_map(self) -> dict[int, int]:
        """What classes are mistaken for under asymmetric noise."""
        return self.problem.class_map or cyclic_map(range(self.n_classes))

    def ours(self) -> PUDistillClassifier:
        """Fit our method up to its teachers, once."""
        return self._with_teachers("default")

    def paper(self) -> PUDistillClassifier:
        """Fit the paper's method up to its teachers, once for all λ and η."""
        return self._with_teachers("paper", **self.problem.paper)

    def prepare(self, cells: Sequence[Cell]) -> None:
        """Fit the teachers that these cells need."""
        if any(cell.method in OURS for cell in cells):
            self.ours()
        if any(cell.method.startswith("paper") for cell in cells):
            self.paper()

    def _with_teachers(self, method: str, **params: Any) -> PUDistillClassifier:
        if method not in self._fitted:
            apart = self.problem.cells_apart
            start = time.perf_counter()
            classifier = PUDistillClassifier(
                self.learner,
                method=method,
                filter_estimator=self.problem.member and self.problem.member(),
                n_jobs=N_JOBS if apart else None,
                memory=Units(self.filters) if apart else None,
                random_state=self.seed,
                **self.problem.filter,
                **params,
            ).fit_teachers(self.X, self.y, self.trusted)
            self.seconds[method] = time.perf_counter() - start
            self._fitted[method] = classifier.set_params(n_jobs=None)
        return copy(self._fitted[method])

    def scored(self, prediction: np.ndarray) -> dict[str, Any]:
        """Score predicted codes of the test samples."""
        return {"test_accuracy": float(np.mean(prediction == self.y_test))}

    def score(self, model: Any) -> dict[str, Any]:
        """Score a fitted learner."""
        return self.scored(predict_proba(model, self.X_test, self.n_classes).argmax(axis=1))

    def learner_on(self, y: np.ndarray, rows: Any = slice(None)) -> dict[str, Any]:
        """Train the learner alone, and score it."""
        targets = one_hot(y[rows], self.n_classes)
        task = Training(self.learner, self.X[rows], targets, role="student", seed=self.seed)
        return self.score(train(task))

    def learner_with_probabilities(self) -> Any:
        """Return the learner as peers need it, calibrated as `pudistill.learners` does."""
        if hasattr(self.learner, "predict_proba"):
            return self.learner
        folds = StratifiedKFold(3, shuffle=True, random_state=self.seed)
        return CalibratedClassifierCV(self.learner, cv=folds, ensemble=False)


# Methods: from a group, the noise and its labels to a result. `_` is what a method does not read.


def given_labels(group: Group, _: Noise, noisy: CorruptedLabels) -> dict:
    return group.learner_on(noisy.y)


def trusted_only(group: Group, *_: Any) -> dict:
    return group.learner_on(group.y, group.trusted)


def true_labels(group: Group, *_: Any) -> dict:
    return group.learner_on(group.y)


def self_training(group: Group, *_: Any) -> dict:
    classifier = SelfTrainingClassifier(group.learner_with_probabilities())
    classifier.fit(group.X, np.where(group.trusted, group.y, -1))
    return group.scored(classifier.predict(group.X_test))


def consistency(group: Group, *_: Any) -> dict:
    """Train as FixMatch does: on trusted samples and unlabeled pictures, without given labels."""
    network = small_cnn(
        role="noise_aware", loss="likelihood", consistency_weight=1.0, random_state=group.seed
    )
    likelihood = np.where(group.trusted[:, None], one_hot(group.y, group.n_classes), 1.0)
    return group.score(network.fit(group.X, likelihood))


def cleanlab(group: Group, _: Noise, noisy: CorruptedLabels) -> dict:
    from cleanlab.classification import CleanLearning

    classifier = CleanLearning(
        group.learner_with_probabilities(),
        seed=group.seed,
        find_label_issues_kwargs={"n_jobs": 1},  # two cells run side by side already
    )
    try:
        classifier.fit(group.X, noisy.y)
    except Exception as error:  # it may leave a class without samples, for one
        return {"test_accuracy": None, "error": f"{type(error).__name__}: {error}"}
    return group.scored(classifier.predict(group.X_test))


def gold_loss_correction(group: Group, _: Noise, noisy: CorruptedLabels) -> dict:
    from pudistill.methods import GoldLossCorrectionClassifier

    classifier = GoldLossCorrectionClassifier(group.learner, random_state=group.seed)
    classifier.fit(group.X, noisy.y, trusted=group.trusted)
    return group.scored(classifier.predict(group.X_test))


def paper_fixed(group: Group, _: Noise, noisy: CorruptedLabels) -> dict:
    return students_result(group, noisy, *PAPER_FIXED)


def paper_per_level(group: Group, noise: Noise, noisy: CorruptedLabels) -> dict:
    blends, confidences = PAPER_ASYMMETRIC if noise.kind == "asymmetric" else PAPER_SYMMETRIC
    nearest = int(np.argmin(np.abs(np.array(PAPER_LEVELS) - noise.level)))
    return students_result(group, noisy, blends[nearest], confidences[nearest])


def students_result(
    group: Group, noisy: CorruptedLabels, blend: float, min_confidence: float
) -> dict:
    classifier = group.paper().set_params(blend=blend, min_confidence=min_confidence)
    classifier.fit_student(group.X, noisy.y, group.trusted)
    return group.scored(classifier.predict(group.X_test))


def pudistill(group: Group, noise: Noise, noisy: CorruptedLabels) -> dict:
    return our_result(group, noise, group.ours(), noisy.y, group.trusted)


def pudistill_originals_known(group: Group, noise: Noise, noisy: CorruptedLabels) -> dict:
    verified = np.where(group.trusted, group.y, np.nan)
    return our_result(group, noise, group.ours(), noisy.would_be, verified)


def true_matrix(group: Group, noise: Noise, noisy: CorruptedLabels) -> dict:
    classifier = group.ours().set_params(transition_matrix=noisy.transition_matrix)
    return our_result(group, noise, classifier, noisy.y, group.trusted)


def our_result(
    group: Group, noise: Noise, classifier: Any, y: np.ndarray, trusted: np.ndarray
) -> dict:
    """Fit the student, and keep what it says about the data and itself."""
    classifier.fit_student(group.X, y, trusted)
    result = group.scored(classifier.predict(group.X_test))
    result["noise_rate_estimate"] = float(classifier.noise_.rate)
    if noise.kind == "asymmetric":
        result["flips_found"] = flips_found(classifier.noise_.transition_matrix, group.class_map)
    if (expected := classifier.expected_accuracy_) is not None:
        result["expected_accuracy"] = float(expected.value)
        result["interval"] = [float(bound) for bound in expected.interval]
    result["shipped"] = classifier.shipped_
    result["held_out"] = {
        candidate["name"]: candidate["accuracy"] for candidate in classifier.comparison_.candidates
    }
    result["candidates"] = {
        name: group.score(candidate)["test_accuracy"]
        for name, candidate in getattr(classifier, "candidates_", {}).items()
    }
    return result


def flips_found(T: np.ndarray, class_map: dict[int, int]) -> float:
    """Share of flipped classes whose largest off-diagonal entry is the class they flip to."""
    off_diagonal = np.where(np.eye(len(T), dtype=bool), -np.inf, T)
    found = off_diagonal.argmax(axis=1)
    return float(np.mean([found[right] == wrong for right, wrong in class_map.items()]))


NOISE_FREE = {
    "trusted_only": trusted_only,
    "true_labels": true_labels,
    "self_training": self_training,
    "consistency": consistency,
}
OURS = {
    "pudistill": pudistill,
    KNOWN: pudistill_originals_known,
    "true_matrix": true_matrix,
}
METHODS: dict[str, Callable[..., dict]] = NOISE_FREE | {
    "given_labels": given_labels,
    "gold_loss_correction": gold_loss_correction,
    "cleanlab": cleanlab,
    "paper_per_level": paper_per_level,
    "paper_fixed": paper_fixed,
    **OURS,
}
IN_EXTREMES = ("given_labels", "gold_loss_correction", "paper_fixed", "pudistill")

svm = partial(make_learner, "svm", "fast", np.empty((0, 0)))
logistic_regression = partial(default_learner, np.empty((0, 0)))
on_features = partial(LogisticRegression, C=3, max_iter=1000)
members_on_features = partial(LogisticRegression, C=1, max_iter=1000)
cifar10 = partial(
    Problem,
    load=cifar10_features,
    learner=on_features,
    member=members_on_features,
    seeds=2,
    class_map=in_codes(CIFAR10_MAP, CIFAR10_CLASSES),
    seeds_of={
        "cleanlab": 1,
        "self_training": 1,
        "paper_per_level": 1,
        "true_matrix": 1,
        KNOWN: 1,
    },
)
# The longest first: nothing long is left for the end.
PROBLEMS = (
    cifar10("cifar10-features, 10 % trusted", trusted=0.1),
    cifar10("cifar10-features, 2 % trusted", trusted=0.02),
    Problem(
        "fashion-mnist table",
        fashion_table,
        logistic_regression,
        trusted=0.1,
        seeds=5,
        seeds_of={"true_matrix": 1, KNOWN: 2},
    ),
    Problem(
        "digits",
        partial(held_out, load_digits),
        svm,
        trusted=0.05,
        seeds=5,
        levels=PAPER_LEVELS,
        # Copies for soft labels make the paper's method with λ = 0.9 the dearest of all here.
        seeds_of={"paper_per_level": 1, "true_matrix": 2, KNOWN: 2},
    ),
    Problem(
        "breast_cancer",
        partial(held_out, load_breast_cancer),
        logistic_regression,
        trusted=0.1,
        seeds=5,
    ),
    Problem(
        "fashion-mnist networks",
        partial(fashion_mnist, 20_000),
        small_cnn,
        trusted=0.02,
        seeds=1,
        levels=(0.6, 0.9),
        kinds=("symmetric", "asymmetric"),
        extremes=(),
        class_map=in_codes(FASHION_MAP, FASHION_CLASSES),
        filter={"n_members": 10, "max_iter": 3},
        paper={"min_votes": 9},
        methods=(
            "given_labels",
            "trusted_only",
            "consistency",
            "gold_loss_correction",
            "paper_fixed",
            "pudistill",
            "true_labels",
            "true_matrix",
        ),
        cells_apart=True,
    ),
)


# Work


def work(group: Group, cells: Sequence[Cell], units: Path, deadline: float, commit: str) -> int:
    """Compute cells and store each when it is done; returns how many failed."""
    failures = 0
    for noise, of_one_noise in groupby(cells, key=lambda cell: cell.noise):
        noisy = group.corrupt(noise)
        for cell in of_one_noise:
            if time.time() > deadline:
                return failures
            try:
                result = compute(group, cell, noisy)
            except Exception:  # the other cells are worth having; this one is tried again
                print(f"FAILED {cell.path}\n{traceback.format_exc()}", flush=True)
                failures += 1
                continue
            path = units / cell.path
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, json.dumps(result | {"commit": commit}, indent=1).encode())
            outcome = result.get("error") or f"{result['test_accuracy']:.4f}"
            print(f"{outcome} in {result['seconds']:.1f} s: {cell.path}", flush=True)
    return failures


def compute(group: Group, cell: Cell, noisy: CorruptedLabels | None) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        group.prepare([cell])
        start = time.perf_counter()
        result = METHODS[cell.method](group, cell.noise, noisy)
        seconds = time.perf_counter() - start
    where = {"problem": cell.problem, "seed": cell.seed, "method": cell.method}
    where["n_test"] = len(group.y_test)
    if noisy is not None:
        where["noise_rate"] = noisy.noise_rate  # the realised share of wrong labels in D_n
    teachers = {"teacher_seconds": group.seconds} if group.seconds else {}
    return where | cell.noise._asdict() | result | {"seconds": seconds} | teachers


def start_group(problem: Problem, seed: int, cells: list[Cell], place: dict, rest: dict) -> int:
    """Compute all cells of a problem and seed, in this process."""
    if time.time() > rest["deadline"]:
        return 0
    return work(Group(problem, seed, **place), cells, **rest)


def run(todo: list[tuple[Problem, int, list[Cell]]], place: dict, rest: dict) -> int:
    """Compute what there is to do, two processes side by side; returns how many cells failed."""
    parallel = Parallel(n_jobs=N_JOBS, batch_size=1, pre_dispatch=N_JOBS)
    failures = sum(
        parallel(
            delayed(start_group)(problem, seed, cells, place, rest)
            for problem, seed, cells in todo
            if not problem.cells_apart
        )
    )
    for problem, seed, cells in todo:
        if problem.cells_apart and time.time() < rest["deadline"]:
            group = Group(problem, seed, **place)
            group.prepare(cells)
            failures += sum(parallel(delayed(work)(group, [cell], **rest) for cell in cells))
    return failures


def take_up(output: Path, units: Path) -> None:
    """Go on from results that were measured elsewhere: make a unit of each."""
    for row in json.loads(output.read_bytes())["rows"]:
        noise = Noise(row["kind"], row["level"])
        path = units / Cell(row["problem"], row["seed"], noise, row["method"]).path
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(row, indent=1).encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    data = Path(os.environ.get("PUDISTILL_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=data, help="or the variable PUDISTILL_DATA")
    parser.add_argument("--only", nargs="+", default=[""], help="beginnings of problems' names")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=range(5))
    parser.add_argument("--levels", nargs="+", type=float, help="grid cells of these levels only")
    parser.add_argument("--max-minutes", type=float, default=float("inf"))
    parser.add_argument("--output", type=Path, default=RESULTS / "robustness.json")
    parser.add_argument("--summary", action="store_true", help="from the finished cells")
    options = parser.parse_args()
    units = options.output.with_suffix(".units")
    if not units.exists() and options.output.exists():
        take_up(options.output, units)
    units.mkdir(parents=True, exist_ok=True)

    todo, failures = [], 0
    for problem in PROBLEMS:
        for seed in set(range(problem.seeds)) & set(options.seeds):
            if problem.name.startswith(tuple(options.only)):
                cells = [
                    cell
                    for cell in problem.cells(seed)
                    if cell.method in options.methods
                    and (options.levels is None or cell.noise.level in (0, *options.levels))
                    and not (units / cell.path).exists()
                ]
                todo += [(problem, seed, cells)] if cells else []
    if not options.summary:
        start = time.time()
        commit = report.commit()
        place = {"data": options.data, "filters": units / f"filters {commit}"}
        rest = {"units": units, "deadline": start + 60 * options.max_minutes, "commit": commit}
        print(f"{sum(len(cells) for *_, cells in todo)} cells to compute", flush=True)
        try:
            failures = run(todo, place, rest)
        finally:
            report.log_run(units, shlex.join(sys.argv), time.time() - start, commit)
    report.summarise(units, options.output)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
