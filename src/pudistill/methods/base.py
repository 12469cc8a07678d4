"""What all methods have in common: the interface, and how trusted samples are used."""

import warnings
from dataclasses import replace
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd
from sklearn.base import _fit_context, clone
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing, check_random_state
from sklearn.utils._param_validation import HasMethods

from pudistill.base import NoisyLabelClassifier
from pudistill.calibration import Temperature
from pudistill.exceptions import DivergedError, InputError, RecoveredWarning, torch_extra
from pudistill.learners import Mixture, Training, continues_training, train
from pudistill.learners.recipes import SMALLER_RATE, Recipe, find_recipe, learning_at
from pudistill.pseudo_labels import one_hot
from pudistill.validation import MISSING, check_samples, is_pictures

# What a recipe may add to the loss, and other methods' losses have not.
PLAIN = {"mixup": 0.0, "entropy_weight": 0.0, "consistency_weight": 0.0}


class Given(NamedTuple):
    """What a method learns from: samples that have a label."""

    X: Any
    labels: np.ndarray  # (n,) codes; verified ones where `trusted`
    trusted: np.ndarray  # (n,) bool: their labels are known to be right
    n_classes: int

    @property
    def targets(self) -> np.ndarray:
        """Labels as one-hot rows, (n, n_classes)."""
        return one_hot(self.labels, self.n_classes)

    def take(self, rows: np.ndarray) -> "Given":
        """Return some of the samples."""
        return Given(
            _safe_indexing(self.X, rows), self.labels[rows], self.trusted[rows], self.n_classes
        )


class Method(NoisyLabelClassifier):
    """A method that learns from noisy labels; each has `_learn`.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    model_ : fitted estimator
        The classifier, for classes 0 … C - 1.
    n_features_in_ : int
        Number of features.
    """

    _parameter_constraints: dict = {
        "estimator": [HasMethods(["fit"]), None],
        "random_state": ["random_state"],
    }
    __metadata_request__fit = {"trusted": True}

    random_state: Any
    use_trusted: bool = True  # not all methods can do without trusted samples

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: Any, trusted: Any = None) -> Self:
        """Learn.

        Parameters
        ----------
        X : {array-like, sparse matrix, data frame} of shape (n_samples, n_features), or pictures \
                of shape (n_samples, height, width[, channels])
            Samples.
        y : array-like of shape (n_samples,)
            Given labels. Samples with a missing value (NaN, None, NA) that are not trusted are left
            out.
        trusted : array-like of shape (n_samples,), default=None
            A boolean mask, or verified labels with a missing value elsewhere. ``None``: all labels
            are trusted, with a warning.

        Returns
        -------
        self : Method
            The fitted classifier.

        Raises
        ------
        InputError
            If no sample is trusted, a class has no trusted sample, `trusted` is ambiguous, or the
            loss stops being finite even at a tenth of the learning rate.
        """
        X, labels = check_samples(self, X, y, trusted, [self.estimator])
        self._fitted_on_frame = isinstance(X, pd.DataFrame)
        self.classes_ = labels.classes
        codes, is_trusted = labels.given, np.zeros(len(labels.given), dtype=bool)
        if self.use_trusted:
            codes = np.where(labels.trusted, labels.verified, labels.given)
            is_trusted = labels.trusted
        known = np.flatnonzero(codes != MISSING)
        given = Given(X, codes, is_trusted, labels.n_classes)
        if len(known) < len(codes):
            given = given.take(known)
        if len(np.unique(given.labels)) < 2:
            raise InputError(
                "All given labels are of one class: there is nothing to learn without the trusted "
                "samples' labels; set use_trusted=True."
            )
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        try:
            self.model_ = self._learn(given, seed)
        except DivergedError as error:
            warnings.warn(
                f"{type(self).__name__} learns once more, at {SMALLER_RATE:g} times the rate: "
                f"{error}",
                RecoveredWarning,
                stacklevel=2,
            )
            with learning_at(SMALLER_RATE):
                self.model_ = self._learn(given, seed)
        return self

    def _learn(self, given: Given, seed: int) -> Any:
        """Learn; return a fitted estimator for classes 0 … C - 1."""
        raise NotImplementedError


class NetworkMethod(Method):
    """A method whose loss is its own, so that it can train networks only."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = False
        return tags

    def _fitted(self, given: Given, seed: int) -> Any:
        """Train a network on labels as they are."""
        return self._network(seed).fit(given.X, given.targets)

    def _network(self, seed: int, **params: Any) -> Any:
        """Make a network that trains as a student, but without what the recipe adds to the loss."""
        with torch_extra():
            from pudistill.learners.torch_classifier import TorchClassifier
        network = TorchClassifier() if self.estimator is None else clone(self.estimator)
        if not isinstance(network, TorchClassifier):
            raise InputError(
                f"{type(self).__name__} has a loss of its own, which {type(network).__name__} "
                "cannot learn by: pass a TorchClassifier."
            )
        fresh = {"role": "student", "loss": "cross_entropy", "warm_start": False}
        return network.set_params(**PLAIN | fresh | {"random_state": seed} | params)


def at_constant_rate(network: Any, X: Any, **changes: Any) -> Recipe:
    """Return a student's recipe without a schedule: the rate stays at its largest."""
    recipe = find_recipe(network.recipe, "student", pictures=is_pictures(X))
    return replace(recipe, schedule="step", milestones=(), **changes)


def train_plainly(given: Given, learner: Any, seed: int, targets: np.ndarray | None = None) -> Any:
    """Train any learner on labels, or on `targets`, and a network without further loss terms."""
    if continues_training(learner):
        learner = clone(learner)
        final = learner.steps[-1][1] if isinstance(learner, Pipeline) else learner
        final.set_params(**{name: PLAIN[name] for name in PLAIN if name in final.get_params()})
    targets = given.targets if targets is None else targets
    return train(Training(learner, given.X, targets, role="student", seed=seed))


def seeds(seed: int, n: int) -> list[int]:
    """Derive seeds."""
    return [int(one) % 2**31 for one in np.random.SeedSequence(seed).generate_state(n)]


def average(networks: list, n_classes: int) -> Mixture:
    """Let networks predict as one: the mean of their probabilities."""
    return Mixture(
        networks, [1 / len(networks)] * len(networks), [Temperature(1.0)] * len(networks), n_classes
    )
