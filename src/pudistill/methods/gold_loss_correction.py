"""Gold Loss Correction: a transition matrix measured on trusted samples (reference [6])."""

from functools import partial
from typing import Any

import numpy as np

from pudistill.distillation.learning import learn
from pudistill.distillation.network_student import likelihood_training
from pudistill.distillation.noise_free_models import train_on_labels
from pudistill.distillation.noise_model import NoiseModel
from pudistill.distillation.problem import Problem
from pudistill.distillation.views import whole_view
from pudistill.exceptions import InputError
from pudistill.labels.checks import MISSING, NO_TRUSTED, Labels
from pudistill.learners.calibration import LOG_EPSILON
from pudistill.learners.capabilities import continues_training
from pudistill.learners.scoring import predict_proba
from pudistill.learners.tasks import train
from pudistill.methods.base import LabelledSamples, Method, train_learner
from pudistill.methods.noise_level import estimate_noise_level


class GoldLossCorrectionClassifier(Method):
    """Learn from noisy labels with a transition matrix measured on trusted samples.

    A model of the *noisy* labels predicts the trusted samples; its mean prediction for each class
    is that class's row of the transition matrix. The classifier then learns from all samples with
    the corrected likelihood, which is plain cross-entropy for trusted samples.

    Parameters
    ----------
    estimator : classifier, default=None
        Any scikit-learn-compatible classifier; ``None`` as in `PUDistillClassifier`. A network is
        trained on the corrected likelihood itself. Any other learner is trained in rounds on
        posterior labels with cross-fitted predictions, starting from a model of the trusted
        samples.
    n_jobs : int, default=None
        Number of models trained at the same time, as in joblib.
    random_state : int, RandomState instance or None, default=None
        Seeds all random numbers.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    transition_matrix_ : ndarray of shape (n_classes, n_classes)
        `T[c, j] = P(given = j | true = c)`.
    model_ : fitted estimator
        The classifier, for classes 0 … C - 1.
    n_features_in_ : int
        Number of features.

    References
    ----------
    D. Hendrycks, M. Mazeika, D. Wilson, K. Gimpel, "Using Trusted Data to Train Deep Networks on
    Labels Corrupted by Severe Noise", NeurIPS 2018.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_wine
    >>> from pudistill.methods import GoldLossCorrectionClassifier
    >>> X, y = load_wine(return_X_y=True)
    >>> trusted = np.arange(178) % 10 == 0
    >>> given = np.where(trusted, y, (y + (np.arange(178) % 2)) % 3)  # every second label is wrong
    >>> classifier = GoldLossCorrectionClassifier(random_state=0).fit(X, given, trusted=trusted)
    >>> classifier.score(X, y) > 0.9
    True
    """

    _parameter_constraints: dict = {**Method._parameter_constraints, "n_jobs": [int, None]}

    def __init__(
        self,
        estimator: Any = None,
        *,
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.n_jobs = n_jobs
        self.random_state = random_state

    def _learn(self, samples: LabelledSamples, seed: int) -> Any:
        if not samples.trusted.any():
            raise InputError(NO_TRUSTED)
        estimator = self._learner(samples.X)
        X, n_classes = samples.X, samples.n_classes
        verified = np.where(samples.trusted, samples.labels, MISSING)
        labels = Labels(
            np.arange(n_classes), samples.labels, samples.trusted, verified, groups=samples.groups
        )
        view = whole_view(labels)
        if len(view.labelled) == 0 or len(np.unique(view.given[view.labelled])) == 1:
            self.transition_matrix_ = np.full((n_classes, n_classes), 1 / n_classes)
        else:
            fit = partial(train_learner, learner=estimator, seed=seed)
            self.transition_matrix_ = estimate_noise_level(fit, samples).transition_matrix
        T = np.maximum(self.transition_matrix_, LOG_EPSILON)
        if continues_training(estimator):
            return train(likelihood_training(estimator, X, view, NoiseModel(T), seed))
        model = train_on_labels(estimator, X, view.verified, n_classes, seed, samples.groups)
        first_guess = predict_proba(model, X, n_classes)
        problem = Problem(X, labels, estimator, self.n_jobs, seed)
        return learn(problem, [view], [first_guess], transition_matrix=T).student
