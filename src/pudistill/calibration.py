"""Calibration of predictions by a temperature, fitted on held-out trusted samples."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

# Standard deviation of the logarithm of a temperature, before any sample was seen.
PRIOR_SPREAD = 0.5
LARGEST = 3.0
SMALLEST_PROBA = 1e-12


@dataclass(frozen=True)
class Temperature:
    """Sharpens or softens predictions: `p` becomes proportional to `p ** sharpness`.

    Attributes
    ----------
    sharpness : float
        Above 1 for predictions that were not sure enough, below 1 for ones that were too sure.
    spread : float
        Standard error of its logarithm.

    References
    ----------
    C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On Calibration of Modern Neural Networks", ICML
    2017. The sharpness is one over its temperature.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.calibration import Temperature
    >>> Temperature(2.0).apply(np.array([[0.75, 0.25]])).round(3).tolist()
    [[0.9, 0.1]]
    """

    sharpness: float = 1.0
    spread: float = PRIOR_SPREAD

    @classmethod
    def fit(cls, proba: np.ndarray, labels: np.ndarray) -> "Temperature":
        """Fit by maximum likelihood, held near 1 where there are few samples.

        Parameters
        ----------
        proba : ndarray of shape (n_samples, n_classes)
            Predictions for samples that were not trained on.
        labels : ndarray of shape (n_samples,), int
            Their true classes.
        """
        log_proba = np.log(proba + SMALLEST_PROBA)
        rows = np.arange(len(labels))

        def loss(log_sharpness: float) -> float:
            fitted = log_softmax(np.exp(log_sharpness) * log_proba, axis=1)
            return -fitted[rows, labels].sum() + 0.5 * (log_sharpness / PRIOR_SPREAD) ** 2

        best = minimize_scalar(loss, bounds=(-LARGEST, LARGEST), method="bounded").x
        step = 0.05
        curvature = (loss(best + step) - 2 * loss(best) + loss(best - step)) / step**2
        return cls(float(np.exp(best)), float(1 / np.sqrt(max(curvature, PRIOR_SPREAD**-2))))

    def apply(self, proba: np.ndarray) -> np.ndarray:
        """Calibrate predictions of shape (n_samples, n_classes)."""
        return softmax(self.sharpness * np.log(proba + SMALLEST_PROBA), axis=1)

    def residual(self, rng: np.random.Generator) -> "Temperature":
        """Draw a temperature by which calibrated predictions may still be off."""
        return Temperature(float(np.exp(rng.normal(0, self.spread))), self.spread)
