"""Co-teaching: each network selects the samples of the other one (reference [39])."""

from numbers import Real
from typing import Any

import numpy as np
from sklearn.utils._param_validation import Interval
from torch import Tensor
from torch.nn.functional import cross_entropy

from pudistill.learners.networks.objectives import Batch
from pudistill.methods.small_loss import SmallLoss, SmallLossMethod


class CoTeachingClassifier(SmallLossMethod):
    """Train two networks, each on the samples of a batch for which the other one has a small loss.

    The share of samples that is left out rises from 0 to the noise rate. The authors know that
    rate; here it is estimated. They use Adam for 200 epochs, and the share rises in the first 10;
    here optimiser and epochs are the recipe's. The prediction is the mean of both networks'
    probabilities.

    Parameters
    ----------
    estimator : TorchClassifier, default=None
        The network and its recipe; ``None``: one that fits the data.
    noise_rate : float in [0, 1] or None, default=None
        Share of wrong labels among all samples, `τ`. ``None``: estimated. The authors use the true
        rate.
    warm_up : float in [0, 1], default=0.05
        Share of the epochs in which the share of samples left out rises, `T_k`.
    use_trusted : bool, default=True
        Whether trusted samples have their verified labels and are never left out. False: the
        paper's protocol, in which only the paper's own method knows which samples are trusted.
    random_state : int, RandomState instance or None, default=None
        Seeds all random numbers.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    noise_rate_ : float
        The noise rate that was used.
    model_ : Mixture
        Both networks, for classes 0 … C - 1.
    n_features_in_ : int
        Number of features.

    References
    ----------
    B. Han et al., "Co-teaching: Robust Training of Deep Neural Networks with Extremely Noisy
    Labels", NeurIPS 2018, algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_wine
    >>> from pudistill.methods import CoTeachingClassifier
    >>> X, y = load_wine(return_X_y=True)
    >>> trusted = np.arange(178) % 10 == 0
    >>> CoTeachingClassifier(random_state=0).fit(X, y, trusted=trusted).score(X, y) > 0.9
    True
    """

    _parameter_constraints: dict = {
        **SmallLossMethod._parameter_constraints,
        "noise_rate": [Interval(Real, 0, 1, closed="both"), None],
        "warm_up": [Interval(Real, 0, 1, closed="both")],
        "use_trusted": ["boolean"],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        noise_rate: float | None = None,
        warm_up: float = 0.05,
        use_trusted: bool = True,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.noise_rate = noise_rate
        self.warm_up = warm_up
        self.use_trusted = use_trusted
        self.random_state = random_state

    def _make_objective(
        self, noise_rate: float, n_epochs: int, warm_up: float, trusted: Tensor
    ) -> SmallLoss:
        return CoTeaching(noise_rate, n_epochs, warm_up, trusted)


class CoTeaching(SmallLoss):
    """Each network learns from the samples for which the other one has a small loss."""

    def batch_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """See `SmallLoss`."""
        labels = batch.label.argmax(dim=1)
        first, second = (cross_entropy(part, labels, reduction="none") for part in logits)
        return (
            first[self.smallest(second, batch)].mean() + second[self.smallest(first, batch)].mean()
        )
