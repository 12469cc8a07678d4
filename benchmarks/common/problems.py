"""Data sets, noises and learners of the benchmarks, and the teachers that methods share."""

import time
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix
from sklearn.model_selection import StratifiedKFold, train_test_split

from benchmarks.common.paired import packed
from pudistill import PUDistillClassifier, corrupt_labels, load_dataset
from pudistill.experiments import paper
from pudistill.labels.checks import MISSING
from pudistill.labels.corruption import (
    CIFAR10_CLASSES,
    CIFAR10_MAP,
    FASHION_MNIST_MAP,
    CorruptedLabels,
    cyclic_map,
)
from pudistill.labels.pseudo_labels import one_hot
from pudistill.learners.cache import StageCache
from pudistill.learners.defaults import default_learner
from pudistill.learners.scoring import predict_proba
from pudistill.learners.tasks import Training, train
from pudistill.runs.classifiers import make_learner
from pudistill.runs.settings import Settings

KNOWN = "pudistill (originals known)"
N_JOBS = 2
# Of so many test samples, results say which were predicted right, for paired comparisons.
FEW_TEST_SAMPLES = 2000


class Noise(NamedTuple):
    """A kind of noise and its level, which is a share of all samples."""

    kind: str
    level: float


ANY = Noise("any", 0)  # for methods that read no noisy label
REAL = Noise("real", 0)  # the labels that came with the data
NONE, ALL_WRONG, ALL_RANDOM = Noise("none", 0), Noise("all wrong", 1), Noise("all random", 1)
# Kind and level for `corrupt_labels`, as a share of the samples that are not trusted.
EXTREMES = {NONE: ("symmetric", 0), ALL_WRONG: ("pair", 1), ALL_RANDOM: ("symmetric", 1)}


class Split(NamedTuple):
    """Samples with their right labels, as codes, and the given labels of real noise."""

    X: Any
    y: np.ndarray
    X_test: Any
    y_test: np.ndarray
    given: np.ndarray | None = None  # -1 where there is none
    sources: np.ndarray | None = None  # labels of several sources, (n_samples, n_sources)


def draw_trusted(y: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Draw a share of each class, one sample at least; return a mask of shape (n_samples,)."""
    trusted = np.zeros(len(y), dtype=bool)
    for code in np.unique(y):
        rows = np.flatnonzero(y == code)
        trusted[rng.choice(rows, max(1, round(share * len(rows))), replace=False)] = True
    return trusted


def draw_at_random(y: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Draw a share of all samples, again until each class has one; return a mask."""
    trusted = np.zeros(len(y), dtype=bool)
    n_classes = len(np.unique(y))
    n_drawn = max(n_classes, round(share * len(y)))
    while len(np.unique(y[trusted])) < n_classes:
        trusted[:] = False
        trusted[rng.choice(len(y), n_drawn, replace=False)] = True
    return trusted


@dataclass(frozen=True)
class Problem:
    """A data set, its learner, and the cells to compute."""

    name: str
    load: Callable[[Path, int], Split]
    learner: Callable[[], Any]
    trusted: float
    seeds: int
    draw: Callable[[np.ndarray, float, np.random.Generator], np.ndarray] = draw_trusted
    levels: Sequence[float] = (0.3, 0.6, 0.9)
    kinds: Sequence[str] = ("symmetric", "asymmetric", "instance")
    extremes: Sequence[Noise] = tuple(EXTREMES)
    member: Callable[[], Any] | None = None  # of the filter, where it is another learner
    class_map: dict[int, int] | None = None  # of asymmetric noise; cyclic by default
    filter: dict[str, Any] = field(default_factory=dict)  # its size, if not the default
    paper: dict[str, Any] = field(default_factory=dict)  # further settings of the paper's method
    methods: Sequence[str] | None = None  # all that fit tables by default
    seeds_of: dict[str, int] = field(default_factory=dict)  # of methods that get fewer seeds
    cells_apart: bool = False  # cells are long: run cells, not seeds, in parallel


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
    X, y, X_test, y_test, *_ = fashion_mnist(10_000, data, seed)
    X, X_test = (pictures.reshape(len(pictures), -1) / 255 for pictures in (X, X_test))
    pca = PCA(50, random_state=seed).fit(X)
    return Split(pca.transform(X), y, pca.transform(X_test), y_test)


def small_cnn(**params: Any) -> Any:
    from pudistill import TorchClassifier

    return TorchClassifier("small_cnn", **params)


def mlp() -> Any:
    from pudistill import TorchClassifier

    return TorchClassifier("mlp")


FASHION_CLASSES = [
    *("Ankle boot", "Bag", "Coat", "Dress", "Pullover"),
    *("Sandal", "Shirt", "Sneaker", "T-shirt/top", "Trouser"),
]


def in_codes(class_map: dict[str, str], classes: list[str]) -> dict[int, int]:
    return {classes.index(name): classes.index(wrong) for name, wrong in class_map.items()}


class RealLabels(CorruptedLabels):
    """Labels with real noise; -1 where there is none."""

    @property
    def noise_rate(self) -> float:
        """Share of the noisy samples whose label is wrong, of those that have one."""
        counted = ~self.trusted & (self.y != MISSING)
        return float(np.mean(self.y[counted] != self.true[counted]))


# What all cells of a problem and seed share


class Group:
    """A split, its trusted samples, and the teachers, which read no noisy label."""

    def __init__(self, problem: Problem, seed: int, data: Path, filters: Path) -> None:
        self.problem, self.seed, self.filters = problem, seed, filters
        split = problem.load(data, seed)
        self.X, self.y, self.X_test, self.y_test, self.given, self.sources = split
        self.n_classes = int(self.y.max()) + 1
        self.learner = problem.learner()
        self.seconds: dict[str, float] = {}
        self.cpu_seconds: dict[str, float] = {}
        self._fitted: dict[str, PUDistillClassifier] = {}
        rng = np.random.default_rng([seed, 0])  # as `pudistill corrupt` draws them
        self.trusted = problem.draw(self.y, problem.trusted, rng)

    def corrupt(self, noise: Noise) -> CorruptedLabels | None:
        """Put noise into the labels; return None if the method reads no noisy label."""
        if noise == ANY:
            return None
        if noise == REAL:
            return self._real_labels()
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

    def _real_labels(self) -> RealLabels:
        rows = ~self.trusted & (self.given != MISSING)
        codes = np.arange(self.n_classes)
        return RealLabels(
            y=np.where(self.trusted, self.y, self.given),
            would_be=self.given,
            transition_matrix=confusion_matrix(
                self.y[rows], self.given[rows], labels=codes, normalize="true"
            ),
            classes=codes,
            true=self.y,
            trusted=self.trusted,
        )

    @property
    def class_map(self) -> dict[int, int]:
        """Return the class that each class is mistaken for under asymmetric noise."""
        return self.problem.class_map or cyclic_map(range(self.n_classes))

    def ours(self) -> PUDistillClassifier:
        """Fit the default method up to its teachers, once."""
        return self.with_teachers()

    def paper(self) -> PUDistillClassifier:
        """Fit the paper's method up to its teachers, once for all λ and η."""
        return self.with_teachers(method="paper", **self.problem.paper)

    def with_teachers(self, **params: Any) -> PUDistillClassifier:
        """Fit a classifier with these settings up to its teachers, once, and return a copy."""
        name = ", ".join(f"{key}={value}" for key, value in params.items()) or "default"
        if name not in self._fitted:
            apart = self.problem.cells_apart
            start, cpu_start = time.perf_counter(), time.process_time()
            classifier = PUDistillClassifier(
                self.learner,
                filter_estimator=self.problem.member and self.problem.member(),
                n_jobs=N_JOBS if apart else None,
                memory=StageCache(self.filters) if apart else None,
                random_state=self.seed,
                **self.problem.filter,
                **params,
            ).fit_teachers(self.X, self.y, self.trusted)
            self.seconds[name] = time.perf_counter() - start
            self.cpu_seconds[name] = time.process_time() - cpu_start
            self._fitted[name] = classifier.set_params(n_jobs=None)
        return copy(self._fitted[name])

    def scored(self, prediction: np.ndarray) -> dict[str, Any]:
        """Score predicted codes of the test samples."""
        right = prediction == self.y_test
        result: dict[str, Any] = {"test_accuracy": float(right.mean())}
        if len(right) <= FEW_TEST_SAMPLES:
            result["right"] = packed(right)
        return result

    def score(self, model: Any) -> dict[str, Any]:
        """Score a fitted learner."""
        return self.scored(predict_proba(model, self.X_test, self.n_classes).argmax(axis=1))

    def learner_on(self, y: np.ndarray, rows: Any = slice(None)) -> dict[str, Any]:
        """Train the learner alone, and score it."""
        targets = one_hot(y[rows], self.n_classes)
        task = Training(self.learner, self.X[rows], targets, role="student", seed=self.seed)
        return self.score(train(task))

    def learner_with_probabilities(self) -> Any:
        """Return the learner with `predict_proba`, calibrated as pudistill calibrates it."""
        if hasattr(self.learner, "predict_proba"):
            return self.learner
        folds = StratifiedKFold(3, shuffle=True, random_state=self.seed)
        return CalibratedClassifierCV(self.learner, cv=folds, ensemble=False)


svm = partial(make_learner, Settings(data="digits", learner="svm"), np.empty((0, 0)))
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
# The longest first, so that no long problem is left for the end.
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
        levels=paper.LEVELS,
        # The paper's method with λ = 0.9 is the slowest here: soft labels need weighted copies.
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
        class_map=in_codes(FASHION_MNIST_MAP, FASHION_CLASSES),
        filter={"n_members": 10, "max_iter": 3},
        paper={"min_votes": 9},
        methods=(
            "given_labels",
            "trusted_only",
            "consistency",
            "gold_loss_correction",
            "paper_fixed",
            "pudistill",
            "true_matrix",
            "true_labels",
        ),
        cells_apart=True,
    ),
)
