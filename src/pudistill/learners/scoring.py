"""Predictions of fitted learners, in blocks of samples."""

from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _num_samples

from pudistill.data.lazy_pictures import decoded_if_few
from pudistill.learners.calibration import Temperature
from pudistill.learners.linear import affine_map, linear_proba
from pudistill.learners.parts import n_threads
from pudistill.utils import arrays


def take(X: Any, rows: Any) -> Any:
    """Take samples, in a form that learners can compute with.

    Parameters
    ----------
    X : array-like, sparse matrix or data frame of shape (n_samples, ...)
        Samples.
    rows : slice or ndarray of int
        Rows to take.

    Returns
    -------
    block : array, sparse matrix or data frame
        Samples. A few pictures on disk are decoded; many are left to the learner to decode.
        float16, which is meant for storage, becomes float32.
    """
    if isinstance(X, np.ndarray):  # thousands of members take a few samples each
        return widened(X[rows])
    return widened(decoded_if_few(_safe_indexing(X, rows)))


def widened(block: Any) -> Any:
    """Return samples of float16 as float32, all others as they are."""
    is_half = isinstance(block, np.ndarray) and block.dtype == np.float16
    return block.astype(np.float32) if is_half else block


def predict_proba(learner: Any, X: Any, n_classes: int, rows: np.ndarray | None = None) -> Any:
    """Predict the probabilities of samples, in blocks.

    Parameters
    ----------
    learner : fitted estimator
        As returned by `train`.
    X : array-like, sparse matrix or data frame of shape (n_samples, ...)
        Samples.
    n_classes : int
        Number of classes; a class that the learner never saw gets probability 0.
    rows : ndarray of shape (n_rows,), int, default=None
        Rows of the samples to predict; all by default.

    Returns
    -------
    proba : ndarray of shape (n_rows, n_classes)
        Probabilities.
    """

    def predict(block: slice) -> np.ndarray:
        samples = take(X, block if rows is None else rows[block])
        found = linear_proba(learner, samples)
        if found is None:
            found = learner.predict_proba(samples)
        proba = np.zeros((len(found), n_classes))
        proba[:, learner.classes_] = found
        return proba

    n_rows = _num_samples(X) if rows is None else len(rows)
    if not n_rows:
        return np.zeros((0, n_classes))
    is_affine = isinstance(X, np.ndarray) and affine_map(learner) is not None
    return arrays.compute_in_blocks(predict, n_rows, n_threads() if is_affine else 1)


def embed(learner: Any, X: Any) -> np.ndarray:
    """Embed samples, in blocks, by a network that can be the last step of a pipeline.

    Parameters
    ----------
    learner : fitted estimator
        A learner for which `has_trunk` is true.
    X : array-like of shape (n_samples, ...)
        Samples.

    Returns
    -------
    embedding : ndarray of shape (n_samples, n_hidden), float32
        Inputs of the network's last layer.
    """

    def embed_block(block: slice) -> np.ndarray:
        samples, network = take(X, block), learner
        while isinstance(network, Pipeline):
            if len(network) > 1:
                samples = network[:-1].transform(samples)
            network = network.steps[-1][1]
        return network.embed(samples)

    return arrays.compute_in_blocks(embed_block, _num_samples(X))


class Mixture:
    """Several fitted learners as one: the weighted mean of their calibrated probabilities.

    Parameters
    ----------
    members : list of fitted estimators
        Learners for classes 0 … C - 1.
    weights : list of float
        Their weights, which sum to 1.
    temperatures : list of Temperature
        Calibration of each learner.
    n_classes : int
        Number of classes.
    """

    def __init__(
        self,
        members: list,
        weights: list[float],
        temperatures: list[Temperature],
        n_classes: int,
    ) -> None:
        self.members = members
        self.weights = weights
        self.temperatures = temperatures
        self.classes_ = np.arange(n_classes)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Predict probabilities of shape (n_samples, n_classes)."""
        parts = [
            weight * temperature.apply(predict_proba(member, X, len(self.classes_)))
            for member, weight, temperature in zip(
                self.members, self.weights, self.temperatures, strict=True
            )
        ]
        return np.sum(parts, axis=0)
