"""Predictions of all samples by the models of one view."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from pudistill.distillation.noise_model import NoiseModel
from pudistill.distillation.views import View
from pudistill.labels.pseudo_labels import bayes_rule, one_hot
from pudistill.utils.arrays import BLOCK_SIZE


class Predictions(NamedTuple):
    """Predictions by the models of one view, and the noise estimated under them.

    Attributes
    ----------
    view : View
        The labels that the models have seen.
    proba : ndarray of shape (n_samples, n_classes)
        Predictions of the true classes by models that have not seen the sample's verified label.
    noise : NoiseModel
        The noise under these predictions.
    is_blind : bool
        Whether each sample is predicted by models that have not seen its given label.
    """

    view: View
    proba: np.ndarray
    noise: NoiseModel
    is_blind: bool = True

    def posterior(self, rows: np.ndarray, given: np.ndarray) -> np.ndarray:
        """Combine predictions and given labels by Bayes' rule: (n_rows, n_classes)."""
        return bayes_rule(self.proba[rows], self.noise.likelihood(given, rows=rows))

    def joint(self, rows: np.ndarray, given: np.ndarray) -> np.ndarray:
        """Return the share of each pair of true and given class by the posterior, as a matrix."""
        total = np.zeros_like(self.noise.T)
        for part in _parts(rows):
            posterior = self.posterior(rows[part], given[part])
            total += posterior.T @ one_hot(given[part], len(total))
        return total / len(rows)

    def counted(self, rows: np.ndarray, given: np.ndarray) -> np.ndarray:
        """Return the share of each pair of predicted and given class, as a matrix."""
        total = np.zeros_like(self.noise.T)
        for part in _parts(rows):
            np.add.at(total, (self.proba[rows[part]].argmax(axis=1), given[part]), 1)
        return total / len(rows)


def _parts(rows: np.ndarray) -> Iterator[slice]:
    return (slice(start, start + BLOCK_SIZE) for start in range(0, len(rows), BLOCK_SIZE))
