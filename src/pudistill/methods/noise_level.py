"""Estimates of the noise level, for methods that need one.

The authors of these methods read the rate and the kind of the noise from its generator; here both
are estimated. A network learns the noisy labels; its predictions then give a class's row of the
transition matrix: their mean over the trusted samples of the class (Gold Loss Correction, reference
[6]) or, without trusted samples, the prediction for a typical sample of the class (Forward
correction, reference [5]).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import nnls

from pudistill.learners.scoring import predict_proba
from pudistill.methods.base import LabelledSamples

# The authors of Forward correction take this quantile on CIFAR-10, not the largest probability,
# which belongs to an outlier.
ANCHOR_QUANTILE = 0.97
# A typical sample is at most this far from the top of its class, as a share of the class; for ten
# balanced classes this is the quantile above.
RARE_SHARE = 0.3


class NoiseLevel(NamedTuple):
    """The rate and the kind of label noise.

    Attributes
    ----------
    rate : float in [0, 1]
        Share of wrong labels among all samples, including trusted samples.
    transition_matrix : ndarray of shape (n_classes, n_classes)
        ``T[c, j] = P(given = j | true = c)`` of the untrusted samples.
    """

    rate: float
    transition_matrix: np.ndarray

    @property
    def is_asymmetric(self) -> bool:
        """Whether the wrong labels of each class mostly name one other class."""
        T = self.transition_matrix
        wrong = T - np.diag(np.diag(T))
        if not wrong.sum():
            return False
        concentration = wrong.max(axis=1).sum() / wrong.sum()
        return bool(concentration > (1 + 1 / max(1, len(T) - 1)) / 2)


def estimate_noise_level(
    fit: Callable[[LabelledSamples], Any], samples: LabelledSamples
) -> NoiseLevel:
    """Estimate the noise level from a model of the noisy labels.

    Parameters
    ----------
    fit : callable
        Takes labelled samples, returns a model fitted to their labels.
    samples : LabelledSamples
        Trusted and untrusted samples.

    Returns
    -------
    level : NoiseLevel
        The estimate.
    """
    noisy = np.flatnonzero(~samples.trusted)
    n_classes = samples.n_classes
    if len(np.unique(samples.labels[noisy])) < 2:  # no noisy labels, or only one class of them
        return NoiseLevel(0.0, np.eye(n_classes))
    untrusted = samples.take(noisy)
    model = fit(untrusted)
    if samples.trusted.any():
        trusted = samples.take(np.flatnonzero(samples.trusted))
        proba = predict_proba(model, trusted.X, n_classes)
        T = gold_matrix(proba, trusted.labels)
        prior = trusted.targets.mean(axis=0)
    else:
        T = anchor_matrix(predict_proba(model, untrusted.X, n_classes))
        # The class prior that T turns into the class shares of the noisy labels.
        prior, _ = nnls(T.T, untrusted.targets.mean(axis=0))
        prior /= max(prior.sum(), 1e-12)
    rate = float(prior @ (1 - np.diag(T)) * len(noisy) / len(samples.labels))
    return NoiseLevel(min(max(rate, 0.0), 1.0), T)


def noise_rate(
    told: float | None, fit: Callable[[LabelledSamples], Any], samples: LabelledSamples
) -> float:
    """Return the noise rate that a method was told; if that is None, estimate it.

    `fit` and `samples` are as for `estimate_noise_level`.
    """
    return estimate_noise_level(fit, samples).rate if told is None else float(told)


def gold_matrix(proba: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Estimate the transition matrix from trusted samples (Hendrycks et al., equation 3).

    Parameters
    ----------
    proba : ndarray of shape (n_trusted, n_classes)
        Predicted probabilities of the noisy label, for trusted samples.
    labels : ndarray of shape (n_trusted,), int
        Their verified labels; each class has at least one.

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
        Predicted probabilities of the noisy label.
    quantile : float in (0, 1], default=0.97
        The typical sample of a class is at this quantile of the class's probability.

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
    # A rare class needs a higher quantile: its samples can be fewer than the share 1 - quantile.
    shares = np.maximum(quantile, 1 - RARE_SHARE * proba.mean(axis=0))
    typical = [
        np.quantile(p, share, method="nearest") for p, share in zip(proba.T, shares, strict=True)
    ]
    return proba[np.abs(proba - typical).argmin(axis=0)]
