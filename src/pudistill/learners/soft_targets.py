"""Soft targets for learners that take only hard labels."""

import numpy as np

# A copy with less than this share of the weight of the sample's heaviest copy is left out: it would
# cost a row in the learner's fit and hardly change the sample's cross-entropy.
SMALLEST_COPY = 1e-3


def weighted_copies(
    targets: np.ndarray, sample_weight: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Write soft targets as weighted samples with hard labels.

    Parameters
    ----------
    targets : ndarray of shape (n_samples, n_classes)
        Rows that sum to 1.
    sample_weight : ndarray of shape (n_samples,), default=None
        Weights of the samples.

    Returns
    -------
    rows, labels : ndarrays of shape (n_copies,), int
        Sample and class of each copy.
    weights : ndarray of shape (n_copies,)
        Weights; the weights of a sample's copies add up to the sample's weight.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.learners.soft_targets import weighted_copies
    >>> rows, labels, weights = weighted_copies(np.array([[0.0, 1.0], [0.75, 0.25]]))
    >>> rows.tolist(), labels.tolist(), weights.tolist()
    ([0, 1, 1], [1, 0, 1], [1.0, 0.75, 0.25])
    """
    heaviest = targets.max(axis=1, keepdims=True)
    shares = np.where(targets >= SMALLEST_COPY * heaviest, targets, 0.0)
    shares /= shares.sum(axis=1, keepdims=True)
    if sample_weight is not None:
        shares *= sample_weight[:, None]
    rows, labels = np.nonzero(shares)
    return rows, labels, shares[rows, labels]


def draw_labels(targets: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw one label per sample from its target, for a learner that takes no weights."""
    cumulated = targets.cumsum(axis=1)
    drawn = (rng.random(len(targets))[:, None] * cumulated[:, -1:] >= cumulated).sum(axis=1)
    return np.minimum(drawn, targets.shape[1] - 1)
