"""Dawid and Skene's model: a confusion matrix for each source, by expectation-maximisation."""

from typing import Any

import numpy as np

from pudistill.labels.sources import Sources, count_labels
from pudistill.methods.aggregation import AggregatingMethod, maximise_expectation
from pudistill.methods.base import LabelledSamples


class DawidSkeneClassifier(AggregatingMethod):
    """Weigh each source by its confusion matrix, and train on the probabilities of the classes.

    Verified labels fix the classes of their samples, and so anchor the matrices. Each source counts
    as if it had given one label more in each class, spread evenly. Silence says nothing.

    Parameters
    ----------
    estimator : classifier, default=None
        Any scikit-learn-compatible classifier, which learns from the aggregated labels; ``None``:
        logistic regression on scaled features, a `TorchClassifier` for pictures.
    use_trusted : bool, default=True
        Whether verified labels are used.
    random_state : int, RandomState instance or None, default=None
        Seeds all random numbers.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    label_proba_ : ndarray of shape (n_samples, n_classes)
        Probabilities of the aggregated labels, one-hot where verified; NaN for samples that are
        left out, as nobody says anything of them.
    source_names_ : ndarray of shape (n_sources,)
        Names of the sources, without those that never speak.
    transition_matrices_ : ndarray of shape (n_sources, n_classes, n_classes)
        `[s, c, j]`: `P(s says j | true = c, s speaks)`.
    model_ : fitted estimator
        The classifier, for classes 0 … C - 1.
    n_features_in_ : int
        Number of features.

    Notes
    -----
    Without the added labels, and with none verified, each step is that of crowd-kit 1.4.2's
    ``DawidSkene``: on the crowds of LabelMe and sentiment and the rules of youtube all labels are
    the same.

    References
    ----------
    A. P. Dawid, A. M. Skene, "Maximum Likelihood Estimation of Observer Error-Rates Using the EM
    Algorithm", Applied Statistics 28(1), 1979: equations 2.3 to 2.5.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_wine
    >>> from pudistill import simulate_sources
    >>> from pudistill.methods import DawidSkeneClassifier
    >>> X, y = load_wine(return_X_y=True)
    >>> sources = simulate_sources(y, 5, level=0.4, random_state=0)
    >>> classifier = DawidSkeneClassifier(random_state=0).fit(X, sources)
    >>> float(np.mean(classifier.label_proba_.argmax(axis=1) == y)) > 0.8
    True
    """

    def _aggregate(self, samples: LabelledSamples, sources: Sources, *_: Any) -> np.ndarray:
        def estimate(proba: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            counts = count_labels(sources.said, proba) + 1 / samples.n_classes
            self.transition_matrices_ = counts / counts.sum(axis=2, keepdims=True)
            return proba.mean(axis=0), self.transition_matrices_

        return maximise_expectation(samples, sources, estimate)
