"""Forward correction: a loss that knows the transition matrix (reference [5])."""

from typing import Any

import numpy as np

from pudistill.calibration import SMALLEST_PROBA
from pudistill.methods.base import Given, NetworkMethod, seeds
from pudistill.methods.noise_level import anchor_matrix
from pudistill.pseudo_labels import likelihood
from pudistill.validation import MISSING


class ForwardCorrectionClassifier(NetworkMethod):
    """Estimate the transition matrix from typical samples, then learn through it.

    A first network learns the given labels. Of its predictions, the one for a sample that is
    typical of a class is taken for that class's row of the transition matrix `T`. A second one
    learns with the loss `-log sum_c T[c, given] p(c | x)`.

    The authors' networks, rates and epochs are replaced by those of the recipe. The second network
    starts from fresh weights, as theirs. Trusted samples have the loss of certain labels.

    Parameters
    ----------
    estimator : TorchClassifier, default=None
        The network and its recipe; ``None``: one that fits the data.
    use_trusted : bool, default=True
        Whether the labels of trusted samples are their verified ones. False: the paper's protocol,
        in which only its own method knows them.
    random_state : int, RandomState instance or None, default=None
        Decides everything random.

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

    def _learn(self, given: Given, seed: int) -> Any:
        of_noisy, of_model = seeds(seed, 2)
        noisy = given.take(np.flatnonzero(~given.trusted)) if not given.trusted.all() else given
        if len(np.unique(noisy.labels)) < 2:
            self.transition_matrix_ = np.full((given.n_classes,) * 2, 1 / given.n_classes)
        else:
            first = self._fitted(noisy, of_noisy)
            self.transition_matrix_ = anchor_matrix(first.predict_proba(noisy.X))
        T = np.maximum(self.transition_matrix_, SMALLEST_PROBA)
        known = likelihood(T, given.labels, np.where(given.trusted, given.labels, MISSING))
        return self._network(of_model, loss="likelihood").fit(given.X, known)
