"""Pseudo-labels: the student's targets for noisy samples (paper, section III-B).

Pure functions on arrays. Labels are codes 0 … C - 1; given labels have already been corrected by
the augmented clean set. Where a given label is missing (-1), the pseudo-label is the teacher's
prediction.
"""

from collections.abc import Callable

import numpy as np

from pudistill.utils.arrays import rowwise

PseudoLabels = Callable[..., np.ndarray]

# Added to predictions before Bayes' rule: no class is impossible, so a verified label always wins.
PROBA_FLOOR = 1e-9


def one_hot(labels: np.ndarray, n_classes: int) -> np.ndarray:
    """Turn codes into one-hot rows.

    Parameters
    ----------
    labels : ndarray of shape (n_samples,), int
        Codes 0 … `n_classes` - 1; -1 gives a row of zeros.
    n_classes : int
        Number of classes.

    Returns
    -------
    rows : ndarray of shape (n_samples, n_classes), float64
        One-hot rows.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.labels.pseudo_labels import one_hot
    >>> one_hot(np.array([1, -1]), 3).tolist()
    [[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    """
    rows = np.vstack([np.eye(n_classes), np.zeros(n_classes)])
    return rowwise(lambda codes: rows[codes], labels)


def soft_bootstrap(
    teacher_proba: np.ndarray, given: np.ndarray, *, min_confidence: float, blend: float
) -> np.ndarray:
    r"""Blend the teacher's prediction with the given label where the teacher is confident.

    :math:`\hat y_j = \lambda(x_j) f_t(x_j) + (1 - \lambda(x_j)) y_j`, with
    :math:`\lambda(x_j) = \lambda` where :math:`\max f_t(x_j) \ge \eta`, else 0 (paper, equations 4
    and 5).

    Parameters
    ----------
    teacher_proba : ndarray of shape (n_samples, n_classes)
        The teachers' average prediction, :math:`f_t`.
    given : ndarray of shape (n_samples,), int
        Given labels, corrected by the augmented clean set; -1 where missing.
    min_confidence : float in [0, 1]
        :math:`\eta`.
    blend : float in [0, 1]
        :math:`\lambda`.

    Returns
    -------
    pseudo_labels : ndarray of shape (n_samples, n_classes), float64
        Rows that sum to 1.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.labels.pseudo_labels import soft_bootstrap
    >>> proba = np.array([[0.8, 0.2], [0.6, 0.4]])
    >>> soft_bootstrap(proba, np.array([1, 1]), min_confidence=0.7, blend=0.5).tolist()
    [[0.4, 0.6], [0.0, 1.0]]
    """
    return _bootstrap(teacher_proba, teacher_proba, given, min_confidence, blend)


def hard_bootstrap(
    teacher_proba: np.ndarray, given: np.ndarray, *, min_confidence: float, blend: float
) -> np.ndarray:
    """Blend as in `soft_bootstrap`, with the one-hot vector of the teacher's prediction.

    Parameters and result are those of `soft_bootstrap` (paper, section III-B, second kind).

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.labels.pseudo_labels import hard_bootstrap
    >>> proba = np.array([[0.8, 0.2]])
    >>> hard_bootstrap(proba, np.array([1]), min_confidence=0.7, blend=0.5).tolist()
    [[0.5, 0.5]]
    """
    n_classes = teacher_proba.shape[1]
    prediction = one_hot(teacher_proba.argmax(axis=1), n_classes)
    return _bootstrap(prediction, teacher_proba, given, min_confidence, blend)


def hard_label(
    teacher_proba: np.ndarray, given: np.ndarray, *, min_confidence: float, blend: float = 1.0
) -> np.ndarray:
    """Take the teacher's prediction where it is confident, else the given label (equation 6).

    Parameters and result are those of `soft_bootstrap`; `blend` has no part in equation 6 and is
    ignored, so that the three kinds can be exchanged.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.labels.pseudo_labels import hard_label
    >>> proba = np.array([[0.8, 0.2], [0.6, 0.4]])
    >>> hard_label(proba, np.array([1, 1]), min_confidence=0.7).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    del blend
    return hard_bootstrap(teacher_proba, given, min_confidence=min_confidence, blend=1.0)


def likelihood(
    transition_matrix: np.ndarray, given: np.ndarray, verified: np.ndarray | None = None
) -> np.ndarray:
    """Return the likelihood of each sample's label for every true class.

    Parameters
    ----------
    transition_matrix : ndarray of shape (n_classes, n_classes)
        `T[c, j] = P(given = j | true = c)`.
    given : ndarray of shape (n_samples,), int
        Given labels; a missing label (-1) is equally likely for all classes.
    verified : ndarray of shape (n_samples,), int, default=None
        Verified labels, -1 elsewhere. Only the verified class has a likelihood above 0.

    Returns
    -------
    likelihood : ndarray of shape (n_samples, n_classes), float64
        `P(given | true = c)`: columns of `T`, ones, or one-hot rows.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.labels.pseudo_labels import likelihood
    >>> T = np.array([[0.9, 0.1], [0.4, 0.6]])
    >>> likelihood(T, np.array([1, -1, 1]), np.array([-1, -1, 0])).tolist()
    [[0.1, 0.6], [1.0, 1.0], [1.0, 0.0]]
    """
    rows = np.vstack([transition_matrix.T, np.ones(len(transition_matrix))])[given]
    if verified is not None:
        known = verified >= 0
        rows[known] = one_hot(verified[known], len(transition_matrix))
    return rows


def bayes_rule(proba: np.ndarray, likelihood: np.ndarray) -> np.ndarray:
    r"""Combine predictions with the likelihood of the labels, by Bayes' rule.

    :math:`\hat y \propto f(x) \odot T_{:, \tilde y}`: the given label decides if noise is low, and
    the prediction if it is high. Labels that are always wrong in the same way are as good as right
    labels. Predictions must be calibrated; neither λ nor η is needed.

    Parameters
    ----------
    proba : ndarray of shape (n_samples, n_classes)
        Predictions of models that have not learned the sample's own label.
    likelihood : ndarray of shape (n_samples, n_classes)
        Likelihood of the labels, as returned by :func:`likelihood`.

    Returns
    -------
    pseudo_labels : ndarray of shape (n_samples, n_classes), float64
        Rows that sum to 1.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.labels.pseudo_labels import bayes_rule
    >>> bayes_rule(np.array([[0.8, 0.2]]), np.array([[0.1, 0.4]])).round(6).tolist()
    [[0.5, 0.5]]
    """
    joint = (proba + PROBA_FLOOR) * likelihood
    return joint / joint.sum(axis=1, keepdims=True)


def likeliest(proba: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the likeliest class of each sample, and its probability."""
    code = rowwise(lambda block: block.argmax(axis=1), proba)
    return code, rowwise(lambda block: block.max(axis=1), proba)


def _bootstrap(
    prediction: np.ndarray,
    teacher_proba: np.ndarray,
    given: np.ndarray,
    min_confidence: float,
    blend: float,
) -> np.ndarray:
    weight = np.where(teacher_proba.max(axis=1) >= min_confidence, blend, 0.0)
    weight[given < 0] = 1.0  # without a given label there is only the teacher
    y = one_hot(given, teacher_proba.shape[1])
    return weight[:, None] * prediction + (1 - weight[:, None]) * y


LABEL_TYPES: dict[str, PseudoLabels] = {
    "soft_bootstrap": soft_bootstrap,
    "hard_bootstrap": hard_bootstrap,
    "hard_label": hard_label,
}
