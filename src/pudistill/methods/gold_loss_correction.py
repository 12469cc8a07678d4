"""Gold Loss Correction: the transition matrix from a model of the noisy labels (reference [6])."""

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import HasMethods
from sklearn.utils.validation import check_is_fitted

from pudistill.calibration import SMALLEST_PROBA
from pudistill.learners import (
    continues_training,
    default_learner,
    predict_proba,
    train,
)
from pudistill.noise_aware import learn, likelihood_training, train_on_labels, whole_view
from pudistill.validation import check_features, check_samples


class GoldLossCorrectionClassifier(ClassifierMixin, BaseEstimator):
    """Learn from noisy labels with a transition matrix measured on trusted samples.

    A model of the *noisy* labels predicts the trusted samples; its mean prediction for each class
    is that class's row of the transition matrix. The classifier then learns from all samples with
    the corrected likelihood, which is plain cross-entropy for trusted ones.

    Parameters
    ----------
    estimator : classifier, default=None
        Any scikit-learn-compatible classifier; ``None`` as in `PUDistillClassifier`. A network is
        trained on the corrected likelihood itself, any other learner in rounds of posterior labels
        with cross-fitted predictions, which start from a model of the trusted samples.
    n_jobs : int, default=None
        Models trained at the same time, as in joblib.
    random_state : int, RandomState instance or None, default=None
        Decides everything random.

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
    >>> given = np.where(trusted, y, (y + (np.arange(178) % 2)) % 3)  # every second one is wrong
    >>> classifier = GoldLossCorrectionClassifier(random_state=0).fit(X, given, trusted=trusted)
    >>> classifier.score(X, y) > 0.9
    True
    """

    _parameter_constraints: dict = {
        "estimator": [HasMethods(["fit"]), None],
        "n_jobs": [int, None],
        "random_state": ["random_state"],
    }
    __metadata_request__fit = {"trusted": True}

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

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: Any, trusted: Any = None) -> "GoldLossCorrectionClassifier":
        """Estimate the transition matrix, then learn with it.

        Parameters
        ----------
        X : {array-like, sparse matrix, data frame} of shape (n_samples, n_features), or pictures \
                of shape (n_samples, height, width[, channels])
            Samples.
        y : array-like of shape (n_samples,)
            Given labels; a missing value (NaN, None, NA) where a sample has none.
        trusted : array-like of shape (n_samples,), default=None
            A boolean mask, or verified labels with a missing value elsewhere. ``None``: all labels
            are trusted, with a warning.

        Returns
        -------
        self : GoldLossCorrectionClassifier
            The fitted classifier.
        """
        X, labels = check_samples(self, X, y, trusted, [self.estimator])
        estimator = default_learner(X) if self.estimator is None else self.estimator
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        self.classes_ = labels.classes
        n_classes, view = labels.n_classes, whole_view(labels)

        if len(view.labelled) == 0 or len(np.unique(view.given[view.labelled])) == 1:
            self.transition_matrix_ = np.full((n_classes, n_classes), 1 / n_classes)
        else:
            noisy = train_on_labels(estimator, X, view.given, n_classes, seed)
            prediction = predict_proba(noisy, X, n_classes, view.trusted)
            true = view.verified[view.trusted]
            self.transition_matrix_ = np.array(
                [prediction[true == c].mean(axis=0) for c in range(n_classes)]
            )
        T = np.maximum(self.transition_matrix_, SMALLEST_PROBA)
        if continues_training(estimator):
            self.model_ = train(likelihood_training(estimator, X, view, T, seed))
            return self
        model = train_on_labels(estimator, X, view.verified, n_classes, seed)
        guess = predict_proba(model, X, n_classes)
        self.model_ = learn(
            estimator, X, [view], [guess], transition_matrix=T, n_jobs=self.n_jobs, seed=seed
        ).student
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Predict class probabilities.

        Parameters
        ----------
        X : samples as in `fit`
            Samples.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes)
            Probabilities; columns in the order of `classes_`.
        """
        check_is_fitted(self, "model_")
        X = check_features(self, X, [self.estimator], reset=False)
        return predict_proba(self.model_, X, len(self.classes_))

    def predict(self, X: Any) -> np.ndarray:
        """Predict classes.

        Parameters
        ----------
        X : samples as in `fit`
            Samples.

        Returns
        -------
        y : ndarray of shape (n_samples,)
            Class labels.
        """
        proba = self.predict_proba(X)
        return self.classes_[proba.argmax(axis=1)]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
