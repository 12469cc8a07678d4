"""Backward correction: a loss corrected by the inverse transition matrix (reference [5])."""

from typing import Any

import numpy as np

from pudistill.methods.base import LabelledSamples
from pudistill.methods.forward_correction import ForwardCorrectionClassifier

LARGEST_CONDITION = 10.0


class BackwardCorrectionClassifier(ForwardCorrectionClassifier):
    """Estimate the transition matrix from typical samples, then train with its inverse.

    The transition matrix `T` is that of `ForwardCorrectionClassifier`. The loss of a given label j
    is `sum_c inv(T)[j, c] (-log p(c | x))`, whose mean over given labels is the cross-entropy of
    the true one; for trusted samples it is the cross-entropy of their labels. Wrong labels have
    negative weights: probabilities below 1e-7 count as 1e-7, as in the authors' code, or the loss
    would have no minimum.

    Network, learning rate and epochs are the recipe's, not the authors'. A matrix that is nearly
    singular is mixed with the identity, as they suggest.

    Parameters
    ----------
    estimator : TorchClassifier, default=None
        The network and its recipe; ``None``: one that fits the data.
    use_trusted : bool, default=True
        Whether trusted samples have their verified labels. False: the paper's protocol, in which
        only the paper's own method knows which samples are trusted.
    random_state : int, RandomState instance or None, default=None
        Seeds all random numbers.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    transition_matrix_ : ndarray of shape (n_classes, n_classes)
        ``T[c, j] = P(given = j | true = c)``.
    model_ : TorchClassifier
        The network, for classes 0 … C - 1.
    n_features_in_ : int
        Number of features.

    References
    ----------
    G. Patrini, A. Rozza, A. Krishna Menon, R. Nock, L. Qu, "Making Deep Neural Networks Robust to
    Label Noise: a Loss Correction Approach", CVPR 2017; theorem 1, equations 12 and 13.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_wine
    >>> from pudistill.methods import BackwardCorrectionClassifier
    >>> X, y = load_wine(return_X_y=True)
    >>> trusted = np.arange(178) % 10 == 0
    >>> BackwardCorrectionClassifier(random_state=0).fit(X, y, trusted=trusted).score(X, y) > 0.9
    True
    """

    def _learn_corrected(self, samples: LabelledSamples, seed: int) -> Any:
        says_nothing = np.ptp(self.transition_matrix_, axis=0).max() < 1e-9  # all classes are alike
        if says_nothing and samples.trusted.any():
            samples = samples.take(np.flatnonzero(samples.trusted))
        targets = samples.targets.copy()
        inverse = stable_inverse(self.transition_matrix_)
        targets[~samples.trusted] = inverse[samples.labels[~samples.trusted]]
        return self._make_network(seed, loss="backward_correction").fit(samples.X, targets)


def stable_inverse(T: np.ndarray) -> np.ndarray:
    """Invert a transition matrix, mixed with the identity as far as its condition demands.

    Parameters
    ----------
    T : ndarray of shape (n_classes, n_classes)
        Rows sum to 1.

    Returns
    -------
    inverse : ndarray of shape (n_classes, n_classes)
        Rows sum to 1. The matrix that was inverted has a condition number of at most 10.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.methods.backward_correction import stable_inverse
    >>> stable_inverse(np.array([[0.75, 0.25], [0.25, 0.75]])).tolist()
    [[1.5, -0.5], [-0.5, 1.5]]
    """
    identity = np.eye(len(T))
    for share in np.linspace(0, 1, 101):
        mixed = (1 - share) * T + share * identity
        if np.linalg.cond(mixed) <= LARGEST_CONDITION:
            break
    return np.linalg.inv(mixed)
