"""Forward correction: a loss that contains the transition matrix (reference [5])."""

from typing import Any

import numpy as np

from pudistill.labels.checks import MISSING
from pudistill.labels.pseudo_labels import likelihood
from pudistill.learners.calibration import LOG_EPSILON
from pudistill.methods.base import LabelledSamples, NetworkMethod, derive_seeds
from pudistill.methods.noise_level import anchor_matrix


class ForwardCorrectionClassifier(NetworkMethod):
    """Estimate the transition matrix from typical samples, then train with the corrected loss.

    A first network learns the given labels. Its prediction for a typical sample of a class is that
    class's row of the transition matrix `T`. A second network, from new initial weights, is trained
    with the loss `-log sum_c T[c, given] p(c | x)`; for trusted samples it is the cross-entropy of
    their labels.

    Network, learning rate and epochs are the recipe's, not the authors'.

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
    Label Noise: a Loss Correction Approach", CVPR 2017; theorem 2, equations 12 and 13.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_wine
    >>> from pudistill.methods import ForwardCorrectionClassifier
    >>> X, y = load_wine(return_X_y=True)
    >>> trusted = np.arange(178) % 10 == 0
    >>> ForwardCorrectionClassifier(random_state=0).fit(X, y, trusted=trusted).score(X, y) > 0.9
    True
    """

    _parameter_constraints: dict = {
        **NetworkMethod._parameter_constraints,
        "use_trusted": ["boolean"],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        use_trusted: bool = True,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.use_trusted = use_trusted
        self.random_state = random_state

    def _learn(self, samples: LabelledSamples, seed: int) -> Any:
        noisy_seed, model_seed = derive_seeds(seed, 2)
        noisy = samples
        if not samples.trusted.all():
            noisy = samples.take(np.flatnonzero(~samples.trusted))
        if len(np.unique(noisy.labels)) < 2:
            self.transition_matrix_ = np.full((samples.n_classes,) * 2, 1 / samples.n_classes)
        else:
            first = self._fit_network(noisy, noisy_seed)
            self.transition_matrix_ = anchor_matrix(first.predict_proba(noisy.X))
        return self._learn_corrected(samples, model_seed)

    def _learn_corrected(self, samples: LabelledSamples, seed: int) -> Any:
        """Train the second network with the transition matrix."""
        T = np.maximum(self.transition_matrix_, LOG_EPSILON)
        targets = likelihood(T, samples.labels, np.where(samples.trusted, samples.labels, MISSING))
        return self._make_network(seed, loss="likelihood").fit(samples.X, targets)
