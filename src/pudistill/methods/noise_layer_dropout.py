"""A noise layer that is a second softmax, with dropout of its weights (reference [29])."""

from numbers import Real
from typing import Any

import numpy as np
import torch
from sklearn.utils._param_validation import Interval
from torch import Generator, Tensor, nn

from pudistill.methods.base import NetworkMethod
from pudistill.methods.noise_layer import NoiseLayer, NoiseLayerMethod


class NoiseLayerDropoutClassifier(NoiseLayerMethod):
    """Train a second softmax above the network's, with dropout of its weights.

    The probability of a given label is ``softmax(p(x) W)``, where `W` is the identity at first and
    has no constraint. Dropout of the weights of `W` while it is trained keeps it from staying the
    identity, so that the network itself need not learn the noise. For trusted samples the loss is
    the cross-entropy of their labels, without the second softmax.

    Only the abstract of the paper and one unofficial implementation were at hand: the form of the
    layer follows them, and the share of dropped weights is the latter's.

    Parameters
    ----------
    estimator : TorchClassifier, default=None
        The network and its recipe; ``None``: one that fits the data.
    dropout : float in [0, 1), default=0.1
        Share of the weights of `W` that are dropped in each step.
    warm_up : float in [0, 1], default=0.0
        Share of the epochs without the second softmax.
    use_trusted : bool, default=True
        Whether trusted samples have their verified labels, which are learned without `W`. False:
        the paper's protocol, in which only the paper's own method knows which samples are trusted.
    random_state : int, RandomState instance or None, default=None
        Seeds all random numbers.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    transition_matrix_ : ndarray of shape (n_classes, n_classes)
        ``softmax(W)`` by row: the probabilities of the given labels if the true class is certain.
    model_ : TorchClassifier
        The network, for classes 0 … C - 1.
    n_features_in_ : int
        Number of features.

    References
    ----------
    I. Jindal, M. Nokleby, X. Chen, "Learning Deep Networks from Noisy Labels with Dropout
    Regularization", ICDM 2016.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_wine
    >>> from pudistill.methods import NoiseLayerDropoutClassifier
    >>> X, y = load_wine(return_X_y=True)
    >>> trusted = np.arange(178) % 10 == 0
    >>> NoiseLayerDropoutClassifier(random_state=0).fit(X, y, trusted=trusted).score(X, y) > 0.9
    True
    """

    _parameter_constraints: dict = {
        **NetworkMethod._parameter_constraints,
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "warm_up": [Interval(Real, 0, 1, closed="both")],
        "use_trusted": ["boolean"],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        dropout: float = 0.1,
        warm_up: float = 0.0,
        use_trusted: bool = True,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.dropout = dropout
        self.warm_up = warm_up
        self.use_trusted = use_trusted
        self.random_state = random_state

    def _make_layer(self, n_classes: int) -> NoiseLayer:
        return SoftmaxLayer(n_classes, self.dropout)


class SoftmaxLayer(NoiseLayer):
    """A linear map of probabilities and a softmax: ``p(given) = softmax(p(true) W)``.

    Parameters
    ----------
    n_classes : int
        Number of classes.
    dropout : float in [0, 1)
        Share of the weights that are dropped while the layer is trained; the others are divided by
        one minus that share.
    """

    def __init__(self, n_classes: int, dropout: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(n_classes))
        self.dropout = dropout

    def log_noisy_proba(self, proba: Tensor, generator: Generator) -> Tensor:
        """See `NoiseLayer`."""
        weight: Tensor = self.weight
        if self.training and self.dropout:
            drawn = torch.rand(
                weight.shape, generator=generator, device=weight.device, dtype=weight.dtype
            )
            weight = weight * (drawn >= self.dropout) / (1 - self.dropout)
        return (proba @ weight).log_softmax(dim=1)
