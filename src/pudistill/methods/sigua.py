"""SIGUA: labels of large loss are unlearned (reference [24])."""

from functools import partial
from numbers import Real
from typing import Any

import numpy as np
import torch
from sklearn.utils._param_validation import Interval

from pudistill.learners.networks.robust_losses import SIGUA
from pudistill.methods.base import LabelledSamples, derive_seeds
from pudistill.methods.noise_level import noise_rate
from pudistill.methods.robust_losses import RobustLossMethod


class SIGUAClassifier(RobustLossMethod):
    """Learn labels of small loss, and unlearn some of the others by gradient ascent.

    The share of a batch that is not learned rises from 0 to the noise rate. Of these samples, those
    of smallest loss are unlearned with a small weight. The authors know the noise rate; here it is
    estimated. They use Adam for 200 epochs; here optimiser and epochs are the recipe's.

    Parameters
    ----------
    estimator : TorchClassifier, default=None
        The network and its recipe; ``None``: one that fits the data.
    noise_rate : float in [0, 1] or None, default=None
        Share of wrong labels among all samples. ``None``: estimated. The authors use the true rate.
    warm_up : float in [0, 1], default=0.05
        Share of the epochs in which the share of samples that are not learned rises.
    unlearned : float in [0, 1], default=0.3
        Share of these samples that is unlearned; the authors' value for half of the labels wrong.
    scale : float, default=0.01
        Weight of the unlearned samples, `γ`.
    use_trusted : bool, default=True
        Whether trusted samples have their verified labels and are always learned. False: the
        paper's protocol, in which only the paper's own method knows which samples are trusted.
    random_state : int, RandomState instance or None, default=None
        Seeds all random numbers.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    noise_rate_ : float
        The noise rate that was used.
    model_ : TorchClassifier
        The network, for classes 0 … C - 1.
    n_features_in_ : int
        Number of features.

    References
    ----------
    B. Han et al., "SIGUA: Forgetting May Make Learning with Noisy Labels More Robust", ICML 2020,
    algorithm 1 (self-teaching, SIGUA_SL).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_wine
    >>> from pudistill.methods import SIGUAClassifier
    >>> X, y = load_wine(return_X_y=True)
    >>> trusted = np.arange(178) % 10 == 0
    >>> SIGUAClassifier(random_state=0).fit(X, y, trusted=trusted).score(X, y) > 0.9
    True
    """

    _parameter_constraints: dict = {
        **RobustLossMethod._parameter_constraints,
        "noise_rate": [Interval(Real, 0, 1, closed="both"), None],
        "warm_up": [Interval(Real, 0, 1, closed="both")],
        "unlearned": [Interval(Real, 0, 1, closed="both")],
        "scale": [Interval(Real, 0, None, closed="left")],
        "use_trusted": ["boolean"],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        noise_rate: float | None = None,
        warm_up: float = 0.05,
        unlearned: float = 0.3,
        scale: float = 0.01,
        use_trusted: bool = True,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.noise_rate = noise_rate
        self.warm_up = warm_up
        self.unlearned = unlearned
        self.scale = scale
        self.use_trusted = use_trusted
        self.random_state = random_state

    def _learn(self, samples: LabelledSamples, seed: int) -> Any:
        noise_seed, model_seed = derive_seeds(seed, 2)
        fit = partial(self._fit_network, seed=noise_seed)
        self.noise_rate_ = noise_rate(self.noise_rate, fit, samples)
        objective = SIGUA(
            self.noise_rate_,
            self.warm_up,
            self.unlearned,
            self.scale,
            trusted=torch.tensor(samples.trusted),
        )
        return self._fit_loss(objective, samples, model_seed)
