"""Calibration of predictions: temperatures and mixture weights, by maximum likelihood."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import softmax

from pudistill.estimates.shares import kish_size

PRIOR_SPREAD = 0.5  # prior standard deviation of the logarithm of a sharpness
LARGEST_LOG = 3.0  # largest absolute logarithm of a sharpness
LOG_EPSILON = 1e-12  # added before a logarithm is taken
MIXTURE_STEPS = 100  # of expectation-maximisation


@dataclass(frozen=True)
class Temperature:
    """Sharpens or softens predictions: `p` becomes proportional to `p ** sharpness`.

    Attributes
    ----------
    sharpness : float
        Above 1 if predictions are underconfident, below 1 if they are overconfident.

    References
    ----------
    C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On Calibration of Modern Neural Networks", ICML
    2017. The sharpness is the inverse of their temperature.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.learners.calibration import Temperature
    >>> Temperature(2.0).apply(np.array([[0.75, 0.25]])).round(3).tolist()
    [[0.9, 0.1]]
    """

    sharpness: float = 1.0

    @classmethod
    def fit(
        cls, proba: np.ndarray, known: np.ndarray, weight: np.ndarray | None = None
    ) -> "Temperature":
        """Fit by maximum a posteriori: close to 1 if there are few samples.

        Parameters
        ----------
        proba : ndarray of shape (n_samples, n_classes)
            Predictions for samples that were not trained on.
        known : ndarray of shape (n_samples, n_classes)
            Likelihood of each sample's label given each true class, as from
            `pseudo_labels.likelihood`; one-hot for a verified label.
        weight : ndarray of shape (n_samples,), default=None
            How many samples each stands for, up to a factor; None: all for as many.
        """
        log_proba, scale = np.log(proba + LOG_EPSILON), scaled_to_kish_size(weight)

        def loss(log_sharpness: float) -> float:
            fitted = softmax(np.exp(log_sharpness) * log_proba, axis=1)
            gain = log_likelihood(fitted, known)
            total = gain.sum() if scale is None else scale @ gain
            return -total + 0.5 * (log_sharpness / PRIOR_SPREAD) ** 2

        best = minimize_scalar(loss, bounds=(-LARGEST_LOG, LARGEST_LOG), method="bounded").x
        return cls(float(np.exp(best)))

    def apply(self, proba: np.ndarray) -> np.ndarray:
        """Calibrate predictions of shape (n_samples, n_classes)."""
        return softmax(self.sharpness * np.log(proba + LOG_EPSILON), axis=1)


def mixture_weights(
    predictions: Sequence[np.ndarray],
    known: np.ndarray,
    weight: np.ndarray | None = None,
) -> np.ndarray:
    """Fit the weights of a mixture of several predictions.

    The weights maximise the likelihood of the labels, with a Dirichlet prior: each prediction
    counts as if it had explained one further sample.

    Parameters
    ----------
    predictions : sequence of ndarray of shape (n_samples, n_classes)
        Calibrated predictions for samples that were not trained on.
    known : ndarray of shape (n_samples, n_classes)
        As for `Temperature.fit`.
    weight : ndarray of shape (n_samples,), default=None
        As for `Temperature.fit`.

    Returns
    -------
    weights : ndarray of shape (n_predictions,)
        Positive weights that sum to 1.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.learners.calibration import mixture_weights
    >>> right, wrong = np.tile([0.9, 0.1], (98, 1)), np.tile([0.1, 0.9], (98, 1))
    >>> mixture_weights([wrong, right], np.tile([1.0, 0.0], (98, 1))).round(2).tolist()
    [0.01, 0.99]
    """
    likelihoods = np.array([(proba * known).sum(axis=1) for proba in predictions]) + LOG_EPSILON
    weights, scale = np.full(len(predictions), 1 / len(predictions)), scaled_to_kish_size(weight)
    n = len(known) if scale is None else scale.sum()
    for _ in range(MIXTURE_STEPS):
        responsibility = weights[:, None] * likelihoods
        responsibility /= responsibility.sum(axis=0)
        explained = responsibility.sum(axis=1) if scale is None else responsibility @ scale
        weights = (explained + 1) / (n + len(predictions))
    return weights


def scaled_to_kish_size(weight: np.ndarray | None) -> np.ndarray | None:
    """Clip weights at 0, and scale them so that their sum is Kish's effective sample size.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.learners.calibration import scaled_to_kish_size
    >>> scaled_to_kish_size(np.array([1.0, 1.0, 2.0, -0.5])).round(2).tolist()
    [0.67, 0.67, 1.33, 0.0]
    """
    if weight is None:
        return None
    weight = np.maximum(weight, 0)
    return weight * kish_size(weight) / max(weight.sum(), 1e-12)


def log_likelihood(proba: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Compute the log-likelihood of each sample's label under predictions: shape (n_samples,)."""
    return np.log((proba * known).sum(axis=1) + LOG_EPSILON)
