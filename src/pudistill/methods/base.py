"""The base classes of all methods: how they read labels, and how they train learners."""

from dataclasses import replace
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import pandas as pd
from sklearn.base import _fit_context, clone
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing, check_random_state
from sklearn.utils._param_validation import HasMethods

from pudistill.data.encoding import is_texts
from pudistill.exceptions import DivergedError, InputError, RecoveredWarning, torch_extra, warn_user
from pudistill.labels.checks import MISSING, Labels
from pudistill.labels.pseudo_labels import one_hot
from pudistill.labels.samples import check_samples, is_pictures
from pudistill.learners.base import NoisyLabelClassifier
from pudistill.learners.calibration import Temperature
from pudistill.learners.capabilities import continues_training
from pudistill.learners.defaults import default_learner
from pudistill.learners.messages import user_messages
from pudistill.learners.networks.recipes import (
    RETRY_FACTOR,
    Recipe,
    find_recipe,
    scaled_learning_rate,
)
from pudistill.learners.scoring import Mixture
from pudistill.learners.tasks import Training, train

# Parameters that switch off the additions of a recipe to the loss of a network.
NO_LOSS_ADDITIONS = {"mixup": 0.0, "entropy_weight": 0.0, "consistency_weight": 0.0}


class LabelledSamples(NamedTuple):
    """Training samples, all with a label."""

    X: Any
    labels: np.ndarray  # (n,) class codes; the verified labels of trusted samples
    trusted: np.ndarray  # (n,) bool; all False if the method must not know which are trusted
    n_classes: int
    checked: Labels  # all labels as they were passed to `fit`

    @property
    def targets(self) -> np.ndarray:
        """Labels as one-hot rows, (n, n_classes)."""
        return one_hot(self.labels, self.n_classes)

    @property
    def groups(self) -> np.ndarray | None:
        """Codes of groups, (n,)."""
        return self.checked.groups

    def take(self, rows: np.ndarray) -> "LabelledSamples":
        """Return the samples at `rows`."""
        return LabelledSamples(
            _safe_indexing(self.X, rows),
            self.labels[rows],
            self.trusted[rows],
            self.n_classes,
            self.checked.take(rows),
        )


class Method(NoisyLabelClassifier):
    """A method that learns from noisy labels; subclasses implement `_learn`.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    learned_from_ : ndarray of shape (n_samples,), bool
        Whether a sample has a label to learn from.
    model_ : fitted estimator
        The classifier, for classes 0 … C - 1.
    n_features_in_ : int
        Number of features.
    """

    _parameter_constraints: dict = {
        "estimator": [HasMethods(["fit"]), None],
        "random_state": ["random_state"],
    }
    __metadata_request__fit = {"trusted": True, "groups": True}

    random_state: Any
    use_trusted: bool = True  # a parameter of the methods that do not need trusted samples
    needs_every_class: ClassVar[bool] = True  # whether each class must have trusted samples

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: Any, trusted: Any = None, groups: Any = None) -> Self:
        """Train the classifier.

        Parameters
        ----------
        X : {array-like, sparse matrix, data frame} of shape (n_samples, n_features), or pictures \
                of shape (n_samples, height, width[, channels])
            Samples.
        y : array-like of shape (n_samples,) or (n_samples, n_sources), or Annotations
            Given labels. Samples with a missing value (NaN, None, NA) that are not trusted are left
            out. Of several sources, methods that do not aggregate them learn the majority vote.
        trusted : array-like of shape (n_samples,), default=None
            A boolean mask, or verified labels with a missing value elsewhere. ``None``: all labels
            are trusted, with a warning; of several sources, none. Samples verified as "none of
            these" are left out.
        groups : array-like of shape (n_samples,), default=None
            The group of each sample, such as a patient, which no fold splits. Methods without folds
            do not need it.

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
        X, labels = check_samples(self, X, y, trusted, [self.estimator], groups=groups)
        self.fitted_on_frame_ = isinstance(X, pd.DataFrame)
        self.classes_ = labels.classes
        codes, is_trusted = labels.given, np.zeros(len(labels.given), dtype=bool)
        if self.use_trusted:
            codes = np.where(labels.trusted, labels.verified, labels.given)
            is_trusted = labels.trusted
        samples = LabelledSamples(X, codes, is_trusted, labels.n_classes, labels)
        self.learned_from_ = (codes != MISSING) & ~labels.no_class
        if not self.learned_from_.all():
            samples = samples.take(np.flatnonzero(self.learned_from_))
        if len(np.unique(samples.labels)) < 2:
            found = "Known labels are all of one class"
            if not len(samples.labels):
                found = "No label is known"
            remedy = "" if self.use_trusted else "set use_trusted=True, or "
            raise InputError(
                f"{found}: there is nothing to learn; {remedy}give labels of two classes or more."
            )
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        with user_messages([self.estimator], labels):
            self.model_ = self._learn_or_retry(samples, seed)
        return self

    def _learn_or_retry(self, samples: LabelledSamples, seed: int) -> Any:
        """Call `_learn`, once more with a smaller learning rate if the training diverges."""
        try:
            return self._learn(samples, seed)
        except DivergedError as error:
            if error.was_repeated:
                raise
            warn_user(
                f"{type(self).__name__} is trained again at {RETRY_FACTOR:g} times the learning "
                f"rate: {error}",
                RecoveredWarning,
            )
            with scaled_learning_rate(RETRY_FACTOR):
                return self._learn(samples, seed)

    def _learner(self, X: Any) -> Any:
        """Return the user's learner, or the default one for the data."""
        if self.estimator is not None:
            return self.estimator
        return default_learner(X, encoded=self.encoder_ is not None)

    def _learn(self, samples: LabelledSamples, seed: int) -> Any:
        """Return a fitted estimator for classes 0 … C - 1."""
        raise NotImplementedError


class NetworkMethod(Method):
    """A method whose loss only a network can be trained with."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = False
        return tags

    def _fit_network(self, samples: LabelledSamples, seed: int) -> Any:
        """Train a network on the labels of the samples, with cross-entropy."""
        return self._make_network(seed).fit(samples.X, samples.targets)

    def _make_network(self, seed: int, **params: Any) -> Any:
        """Make an unfitted network with the student's recipe, without its additions to the loss."""
        with torch_extra():
            from pudistill.learners.networks.classifier import TorchClassifier
        network = TorchClassifier() if self.estimator is None else clone(self.estimator)
        if not isinstance(network, TorchClassifier):
            raise InputError(
                f"{type(self).__name__} has its own loss, with which {type(network).__name__} "
                "cannot be trained: pass a TorchClassifier."
            )
        fresh = {"role": "student", "loss": "cross_entropy", "warm_start": False}
        return network.set_params(**NO_LOSS_ADDITIONS | fresh | {"random_state": seed} | params)


def constant_rate_recipe(network: Any, X: Any, **changes: Any) -> Recipe:
    """Return the student's recipe with a constant learning rate: the largest of its schedule."""
    recipe = find_recipe(network.recipe, "student", pictures=is_pictures(X), texts=is_texts(X))
    return replace(recipe, schedule="step", milestones=(), **changes)


def train_learner(
    samples: LabelledSamples, learner: Any, seed: int, targets: np.ndarray | None = None
) -> Any:
    """Train any learner on labels or `targets`; switch off a network's additions to the loss."""
    if continues_training(learner):
        learner = clone(learner)
        final = learner.steps[-1][1] if isinstance(learner, Pipeline) else learner
        names = NO_LOSS_ADDITIONS.keys() & final.get_params()
        final.set_params(**{name: NO_LOSS_ADDITIONS[name] for name in names})
    targets = samples.targets if targets is None else targets
    task = Training(learner, samples.X, targets, role="student", seed=seed, groups=samples.groups)
    return train(task)


def derive_seeds(seed: int, n: int) -> list[int]:
    """Derive `n` independent seeds from one."""
    return [int(state) % 2**31 for state in np.random.SeedSequence(seed).generate_state(n)]


def average_networks(networks: list, n_classes: int) -> Mixture:
    """Return a classifier that predicts the mean of the networks' probabilities."""
    return Mixture(
        networks, [1 / len(networks)] * len(networks), [Temperature(1.0)] * len(networks), n_classes
    )
