"""The data, labels and learner of a step, passed as one object."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils.validation import _num_samples

from pudistill.distillation.earlier_fit import EarlierFit
from pudistill.labels.checks import Labels
from pudistill.learners.scoring import predict_proba
from pudistill.learners.tasks import Training, is_dealt


@dataclass(frozen=True)
class Problem:
    """The data, labels and learner of a step.

    Attributes
    ----------
    X : samples of shape (n_samples, ...)
        Samples.
    labels : Labels
        Given and verified labels.
    student : classifier
        Template of the models that the step trains; `teach` has another one for the teachers.
    n_jobs : int or None
        Number of workers.
    seed : int
        Source of randomness.
    tunes_student : bool, default=False
        Whether to choose the regularisation of the student; only for the default learner.
    metric : str, default="accuracy"
        The metric that decides which candidate is shipped.
    single_model : bool, default=False
        Whether the shipped model must be one model.
    own_proba : ndarray of shape (n_samples, n_classes), default=None
        Predictions of the user's own model, which join the first guess.
    semi_supervised : bool, default=False
        Whether a network also learns pictures without any of the noisy labels.
    earlier : EarlierFit, default=None
        A fit of the same samples with fewer verified labels, from which this one starts.
    """

    X: Any
    labels: Labels
    student: Any
    n_jobs: int | None
    seed: int
    tunes_student: bool = False
    metric: str = "accuracy"
    single_model: bool = False
    own_proba: np.ndarray | None = None
    semi_supervised: bool = False
    earlier: EarlierFit | None = None

    @property
    def n_tasks(self) -> int | None:
        """Number of models to train at the same time: one if workers share the steps of a fit."""
        targets = np.broadcast_to(0.0, self.shape)
        fit = Training(self.student, self.X, targets, role="student", seed=self.seed)
        return 1 if is_dealt(fit) else self.n_jobs

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return self.labels.n_classes

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of predictions for all samples: (n_samples, n_classes)."""
        return _num_samples(self.X), self.n_classes

    def predict_proba(self, model: Any, rows: np.ndarray | None = None) -> np.ndarray:
        """Predict the samples at `rows`, all by default."""
        return predict_proba(model, self.X, self.n_classes, rows)
