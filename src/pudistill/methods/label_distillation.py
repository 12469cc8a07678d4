"""Distillation of labels: a blend of given labels and a model's predictions (reference [25])."""

from functools import partial
from typing import Any

import numpy as np

from pudistill.exceptions import InputError
from pudistill.labels.checks import NO_TRUSTED
from pudistill.learners.cross_fitting import cross_fit_proba
from pudistill.learners.scoring import predict_proba
from pudistill.methods.base import LabelledSamples, Method, derive_seeds, train_learner
from pudistill.methods.noise_level import estimate_noise_level

N_FOLDS = 5


class LabelDistillationClassifier(Method):
    """Learn from a blend of the given labels and the predictions of a model of the trusted samples.

    The pseudo-label of a noisy sample is `λ y + (1 - λ) f(x)`, with one `λ` for all samples. The
    best `λ` is `R_f / (R_f + R_y)`, where `R` is the expected squared distance to the true label.
    The authors choose it on validation data and from the known noise; here `R_f` is measured by
    cross-fitting on the trusted samples and `R_y` is twice the estimated noise rate. Their
    knowledge graph, which needs relations between labels, and the temperature of `f` are left out.

    Parameters
    ----------
    estimator : classifier, default=None
        Any scikit-learn-compatible classifier; ``None``: logistic regression on scaled features, a
        `TorchClassifier` for pictures.
    n_jobs : int, default=None
        Number of models trained at the same time, as in joblib.
    random_state : int, RandomState instance or None, default=None
        Seeds all random numbers.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    blend_ : float in [0, 1]
        `λ`, the weight of the given label.
    model_ : fitted estimator
        The classifier, for classes 0 … C - 1.
    n_features_in_ : int
        Number of features.

    References
    ----------
    Y. Li, J. Yang, Y. Song, L. Cao, J. Luo, L.-J. Li, "Learning from Noisy Labels with
    Distillation", ICCV 2017; equations 3 and 4 and the theorem that follows.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_wine
    >>> from pudistill.methods import LabelDistillationClassifier
    >>> X, y = load_wine(return_X_y=True)
    >>> trusted = np.arange(178) % 10 == 0
    >>> given = np.where(trusted, y, (y + (np.arange(178) % 2)) % 3)  # every second label is wrong
    >>> classifier = LabelDistillationClassifier(random_state=0).fit(X, given, trusted=trusted)
    >>> classifier.score(X, y) > 0.9, classifier.blend_ < 0.5
    (True, True)
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
        learner = self._learner(samples.X)
        noise_seed, model_seed = derive_seeds(seed, 2)
        noisy = np.flatnonzero(~samples.trusted)
        trusted = samples.take(np.flatnonzero(samples.trusted))
        targets = samples.targets
        auxiliary = train_learner(trusted, learner, model_seed)
        if len(noisy) == 0:
            self.blend_ = 1.0
            return auxiliary
        held_out = cross_fit_proba(
            learner,
            trusted.X,
            trusted.targets,
            n_folds=N_FOLDS,
            n_jobs=self.n_jobs,
            seed=model_seed,
            groups=trusted.groups,
        )
        model_risk = float(((held_out - trusted.targets) ** 2).sum(axis=1).mean())
        fit = partial(train_learner, learner=learner, seed=noise_seed)
        level = estimate_noise_level(fit, samples)
        # One-hot rows of two classes have the squared distance 2.
        label_risk = 2 * level.rate * len(samples.labels) / len(noisy)
        self.blend_ = best_blend(model_risk, label_risk)
        proba = predict_proba(auxiliary, samples.X, samples.n_classes, noisy)
        targets[noisy] = self.blend_ * targets[noisy] + (1 - self.blend_) * proba
        return train_learner(samples, learner, model_seed, targets)


def best_blend(model_risk: float, label_risk: float) -> float:
    """Return the weight of the given label that minimises the risk of the blend.

    The errors of label and model are assumed to be independent: the risk is
    ``λ² R_y + (1 - λ)² R_f``.

    Parameters
    ----------
    model_risk, label_risk : float
        Expected squared distances to the true label, `R_f` and `R_y`.

    Returns
    -------
    blend : float in [0, 1]
        `λ`; 1 if both risks are zero.

    Examples
    --------
    >>> from pudistill.methods.label_distillation import best_blend
    >>> best_blend(0.2, 0.6)
    0.25
    """
    total = model_risk + label_risk
    return model_risk / total if total > 0 else 1.0
