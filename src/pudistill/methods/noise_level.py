"""How noisy the labels are, for methods that need to be told: estimated, never read.

What their authors read from the generator of the noise (its rate, its kind) comes from a network
that learned the noisy labels: on average over trusted samples of a class it predicts that class's
row of the transition matrix (Gold Loss Correction's estimate, reference [6]); where no sample is
trusted, at samples that are as typical of a class as can be (Forward correction's, reference [5]).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import nnls

from pudistill.learners import predict_proba
from pudistill.methods.base import Given

# What the authors of Forward correction take on CIFAR-10 in place of the largest probability,
# which outliers have.
ANCHOR_QUANTILE = 0.97
# A typical sample is among this share of its class at least: of ten even classes, the same.
RARE_SHARE = 0.3


class NoiseLevel(NamedTuple):
    """How noisy labels are.

    Attributes
    ----------
    rate : float in [0, 1]
        Share of wrong labels among all samples, trusted ones included.
    transition_matrix : ndarray of shape (n_classes, n_classes)
        ``T[c, j] = P(given = j | true = c)`` of the samples that are not trusted.
    """

    rate: float
    transition_matrix: np.ndarray

    @property
    def is_asymmetric(self) -> bool:
        """Whether wrong labels of a class are mostly of one other class."""
        T = self.transition_matrix
        wrong = T - np.diag(np.diag(T))
        if not wrong.sum():
            return False
        concentration = wrong.max(axis=1).sum() / wrong.sum()
        return bool(concentration > (1 + 1 / max(1, len(T) - 1)) / 2)


def estimate_noise_level(learn: Callable[[Given], Any], given: Given) -> NoiseLevel:
    """Estimate the noise from data and trusted samples.

    Parameters
    ----------
    learn : callable
        Returns a model of the labels that it is given.
    given : Given
        Samples and labels.

    Returns
    -------
    level : NoiseLevel
        The estimate.
    """
    noisy = np.flatnonzero(~given.trusted)
    n_classes = given.n_classes
    if len(np.unique(given.labels[noisy])) < 2:  # nothing to learn, or nothing noisy
        return NoiseLevel(0.0, np.eye(n_classes))
    samples = given.take(noisy)
    model = learn(samples)
    if given.trusted.any():
        trusted = given.take(np.flatnonzero(given.trusted))
        proba = predict_proba(model, trusted.X, n_classes)
        T = gold_matrix(proba, trusted.labels)
        prior = trusted.targets.mean(axis=0)
    else:
        T = anchor_matrix(predict_proba(model, samples.X, n_classes))
        # The shares of the true classes that would give those of the noisy labels.
        prior, _ = nnls(T.T, samples.targets.mean(axis=0))
        prior /= max(prior.sum(), 1e-12)
    rate = float(prior @ (1 - np.diag(T)) * len(noisy) / len(given.labels))
    return NoiseLevel(min(max(rate, 0.0), 1.0), T)


def gold_matrix(proba: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Estimate the transition matrix from trusted samples (Hendrycks et al., equation 3).

    Parameters
    ----------
    proba : ndarray of shape (n_trusted, n_classes)
        Predictions of the labels that trusted samples would have been given.
    labels : ndarray of shape (n_trusted,), int
        Their verified labels; each class has one at least.

    Returns
    -------
    T : ndarray of shape (n_classes, n_classes)
        Row `c` is the mean prediction for class `c`.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.methods.noise_level import gold_matrix
    >>> gold_matrix(np.array([[1.0, 0.0], [0.5, 0.5], [0.25, 0.75]]), np.array([0, 0, 1])).tolist()
    [[0.75, 0.25], [0.25, 0.75]]
    """
    return np.array([proba[labels == c].mean(axis=0) for c in range(proba.shape[1])])


def anchor_matrix(proba: np.ndarray, quantile: float = ANCHOR_QUANTILE) -> np.ndarray:
    """Estimate the transition matrix without trusted samples (Patrini et al., equations 12, 13).

    Parameters
    ----------
    proba : ndarray of shape (n_samples, n_classes)
        Predictions of the noisy labels.
    quantile : float in (0, 1], default=0.97
        A class's typical sample has this quantile of the class's probability.

    Returns
    -------
    T : ndarray of shape (n_classes, n_classes)
        Row `c` is the prediction for the typical sample of class `c`.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.methods.noise_level import anchor_matrix
    >>> anchor_matrix(np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]]), quantile=1.0).tolist()
    [[0.9, 0.1], [0.2, 0.8]]
    """
    # Of a rare class, fewer samples than 1 - quantile may be typical.
    shares = np.maximum(quantile, 1 - RARE_SHARE * proba.mean(axis=0))
    typical = [
        np.quantile(p, share, method="nearest") for p, share in zip(proba.T, shares, strict=True)
    ]
    return proba[np.abs(proba - typical).argmin(axis=0)]
