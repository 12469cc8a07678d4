"""JoCoR: two networks with a joint loss that rewards agreement (reference [40])."""

from numbers import Real
from typing import Any

import numpy as np
from sklearn.utils._param_validation import Interval
from torch import Tensor
from torch.nn.functional import cross_entropy

from pudistill.learners.networks.objectives import Batch
from pudistill.methods.small_loss import SmallLoss, SmallLossMethod


class JoCoRClassifier(SmallLossMethod):
    """Train two networks with one loss, which contains their disagreement.

    A sample's loss is `(1 - λ)` times both cross-entropies plus `λ` times both Kullback-Leibler
    divergences between the networks; samples of large loss are left out. The authors know the noise
    rate; here it is estimated. They use Adam for 200 epochs, and the share of samples left out
    rises in the first 10; here optimiser and epochs are the recipe's. The prediction is the mean of
    both networks' probabilities.

    Parameters
    ----------
    estimator : TorchClassifier, default=None
        The network and its recipe; ``None``: one that fits the data.
    noise_rate : float in [0, 1] or None, default=None
        Share of wrong labels among all samples, `τ`. ``None``: estimated. The authors use the true
        rate.
    agreement : float in [0, 1], default=0.3
        `λ`. The authors' 0.9 (0.65 for symmetric noise of 80 %) suits Adam, whose steps do not
        depend on the scale of a loss. With gradient descent the cross-entropies would have a tenth
        of the recipe's learning rate, and the divergence, whose gradient is unbounded, could make
        the loss infinite.
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
    H. Wei, L. Feng, X. Chen, B. An, "Combating Noisy Labels by Agreement: A Joint Training Method
    with Co-Regularization", CVPR 2020; equations 1 to 5, algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_wine
    >>> from pudistill.methods import JoCoRClassifier
    >>> X, y = load_wine(return_X_y=True)
    >>> trusted = np.arange(178) % 10 == 0
    >>> JoCoRClassifier(random_state=0).fit(X, y, trusted=trusted).score(X, y) > 0.9
    True
    """

    _parameter_constraints: dict = {
        **SmallLossMethod._parameter_constraints,
        "noise_rate": [Interval(Real, 0, 1, closed="both"), None],
        "agreement": [Interval(Real, 0, 1, closed="both")],
        "warm_up": [Interval(Real, 0, 1, closed="both")],
        "use_trusted": ["boolean"],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        noise_rate: float | None = None,
        agreement: float = 0.3,
        warm_up: float = 0.05,
        use_trusted: bool = True,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.noise_rate = noise_rate
        self.agreement = agreement
        self.warm_up = warm_up
        self.use_trusted = use_trusted
        self.random_state = random_state

    def _make_objective(
        self, noise_rate: float, n_epochs: int, warm_up: float, trusted: Tensor
    ) -> SmallLoss:
        return JoCoR(noise_rate, n_epochs, warm_up, trusted, agreement=self.agreement)


class JoCoR(SmallLoss):
    """Both networks learn from the samples of small joint loss."""

    def __init__(self, *settings: Any, agreement: float) -> None:
        super().__init__(*settings)
        self.agreement = agreement

    def batch_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """See `SmallLoss`."""
        losses = joint_loss(logits, batch.label.argmax(dim=1), self.agreement)
        return losses[self.smallest(losses, batch)].mean()


def joint_loss(logits: Tensor, labels: Tensor, agreement: float) -> Tensor:
    """Compute each sample's joint loss (equation 1).

    Parameters
    ----------
    logits : Tensor of shape (2, n, n_classes)
        Logits of the two networks.
    labels : Tensor of shape (n,), int64
        Given labels.
    agreement : float in [0, 1]
        `λ`.

    Returns
    -------
    loss : Tensor of shape (n,)
        The samples' losses.
    """
    log_p, log_q = logits.log_softmax(dim=2)
    # KL(p || q) + KL(q || p)
    disagreement = ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(dim=1)
    supervised = sum(cross_entropy(part, labels, reduction="none") for part in logits)
    return (1 - agreement) * supervised + agreement * disagreement
