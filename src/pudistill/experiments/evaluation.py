"""How systems are evaluated: one trusted split, one learner, one test set."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pudistill.data.dataset import TrustedDataset
from pudistill.data.hashing import key_of
from pudistill.distillation.paper import average_proba
from pudistill.labels.checks import MISSING
from pudistill.labels.pseudo_labels import one_hot
from pudistill.learners.cache import StageCache
from pudistill.learners.capabilities import continues_training
from pudistill.methods.registry import METHODS
from pudistill.runs.classifiers import build_classifier, learners_at_once, make_learner
from pudistill.runs.measures import reference_accuracy
from pudistill.runs.settings import Settings
from pudistill.utils.cluster import runs_on_cluster


class NoisyDataset(NamedTuple):
    """The training samples with noise of one kind and level."""

    noise: str
    level: float
    dataset: TrustedDataset

    @property
    def known_labels(self) -> np.ndarray:
        """Verified labels of trusted samples, given labels of all others."""
        return np.where(self.dataset.trusted, self.dataset.verified, self.dataset.y)

    @property
    def overall_level(self) -> float:
        """Share of known labels that are wrong; NaN without true labels."""
        if self.dataset.true_labels is None:
            return np.nan
        return float(np.mean(self.known_labels != self.dataset.true_labels))


FitAndScore = Callable[[NoisyDataset], float]
"""Fits a system to a noisy data set and returns its test accuracy."""


@dataclass(frozen=True)
class Evaluator:
    """Data and settings that all systems of a comparison share, and their test accuracy.

    Attributes
    ----------
    settings : Settings
        Learner, recipe, seed and parameters of the classifier.
    clean : TrustedDataset
        The training samples before any noise: `true_labels`, and which samples are trusted.
    test : TrustedDataset
        Test samples with correct labels.
    stages : StageCache or None
        The cache of finished stages.
    tracks_epochs : bool
        Whether to measure what only the paper's tables need: test accuracy after each epoch, and
        the paper's filter on test samples.
    """

    settings: Settings
    clean: TrustedDataset
    test: TrustedDataset
    stages: StageCache | None = None
    tracks_epochs: bool = False

    @property
    def learner(self) -> Any:
        """The learner that all systems train."""
        return make_learner(self.settings, self.clean.X)

    def settings_for(self, method: str, **changes: Any) -> Settings:
        """Return the settings with another method."""
        return self.settings.model_copy(update={"method": method, **changes})

    def n_jobs(self, system: str) -> int:
        """Return the number of noise settings to measure at once.

        One per core, also of a cluster, but only one here if a network uses all cores by itself.
        """
        if self.settings.n_jobs is not None:
            return self.settings.n_jobs
        if runs_on_cluster():
            return -1
        settings = self.settings_for(system) if system in METHODS else self.settings
        learner = build_classifier(settings, self.clean.X).estimator
        if self.clean.is_pictures and continues_training(learner):
            return 1
        return learners_at_once(learner) or 1

    def learner_accuracy(self, labels: np.ndarray) -> float:
        """Train the learner on `labels`, except where they are None; return its test accuracy."""
        codes = self._codes(labels)
        known = np.flatnonzero(codes != MISSING)
        result = reference_accuracy(
            self.learner,
            self.clean.X,
            one_hot(codes[known], len(self.clean.classes)),
            self.test.X,
            self._codes(self.test.y),
            self.settings.seed,
            known,
        )
        return float(result.accuracy)

    def classifier_accuracy(self, classifier: Any) -> float:
        """Return the test accuracy of a fitted classifier."""
        return float(np.mean(classifier.predict(self.test.X) == self.test.y))

    def networks_accuracy(self, networks: Sequence[Any]) -> float:
        """Return the test accuracy of the networks' mean probabilities."""
        proba = average_proba(list(networks), self.test.X, len(self.clean.classes))
        return float(np.mean(proba.argmax(axis=1) == self._codes(self.test.y)))

    def fingerprint(self) -> str:
        """Hash everything that an accuracy depends on, except the system and the given labels."""
        settings = self.settings.model_dump(exclude={"noises", "levels", "methods", "n_jobs"})
        data = (self.clean.X, self.clean.true_labels, self.clean.verified)
        return key_of((settings, data, self.test.X, self.test.y))

    def _codes(self, labels: np.ndarray) -> np.ndarray:
        return class_codes(labels, self.clean.classes)


Prepare = Callable[[Evaluator], FitAndScore]
"""Does a system's work that reads no noisy label; returns the rest, run once per noise setting."""


def class_codes(labels: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Return each label's position in `classes`; -1 for None."""
    code = {name: n for n, name in enumerate(classes)} | {None: MISSING}
    return np.array([code[name] for name in labels])
