"""A noise layer above the softmax: the transition matrix is trained, too (reference [30])."""

from dataclasses import replace
from numbers import Real
from typing import Any

import numpy as np
import torch
from sklearn.utils._param_validation import Interval
from torch import Generator, Tensor, nn
from torch.nn.functional import nll_loss

from pudistill.learners.calibration import LOG_EPSILON
from pudistill.learners.networks.fitting import fit_objective
from pudistill.learners.networks.objectives import Batch, LossFn, Objective
from pudistill.methods.base import LabelledSamples, NetworkMethod

RATE_SHARE = 0.1  # learning rate of the matrix, as a share of the network's


class NoiseLayer(nn.Module):
    """Maps probabilities of the true class to those of the given label; a subclass says how."""

    def log_noisy_proba(self, proba: Tensor, generator: Generator) -> Tensor:
        """Return logarithms of the probabilities of the given labels.

        Parameters
        ----------
        proba : Tensor of shape (n, n_classes)
            Probabilities of the true classes.
        generator : torch.Generator
            Source of randomness while the layer is trained.

        Returns
        -------
        log_proba : Tensor of shape (n, n_classes)
        """
        raise NotImplementedError

    def penalty(self) -> Tensor | float:
        """Return the term of the loss that belongs to the layer."""
        return 0.0


class StochasticLayer(NoiseLayer):
    """A transition matrix `T` of probabilities: ``p(given) = p(true) T``.

    Parameters
    ----------
    n_classes : int
        Number of classes.
    trace_weight : float
        Weight of the mean of the diagonal in the loss.
    """

    def __init__(self, n_classes: int, trace_weight: float) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.eye(n_classes))
        self.matrix.register_hook(lambda gradient: RATE_SHARE * gradient)
        self.trace_weight = trace_weight

    def log_noisy_proba(self, proba: Tensor, generator: Generator) -> Tensor:
        """See `NoiseLayer`."""
        del generator
        with torch.no_grad():  # the last step of the optimiser led away from probabilities
            self.matrix.copy_(nearest_probabilities(self.matrix))
        return (proba @ self.matrix).clamp_min(LOG_EPSILON).log()

    def penalty(self) -> Tensor | float:
        """See `NoiseLayer`."""
        return self.trace_weight * self.matrix.diagonal().mean()


def nearest_probabilities(rows: Tensor) -> Tensor:
    """Project each row to the nearest row of probabilities, by the Euclidean distance.

    Parameters
    ----------
    rows : Tensor of shape (n, n_classes)
        Any numbers.

    Returns
    -------
    proba : Tensor of shape (n, n_classes)
        Rows are not negative and sum to 1.

    References
    ----------
    J. Duchi, S. Shalev-Shwartz, Y. Singer, T. Chandra, "Efficient Projections onto the l1-Ball for
    Learning in High Dimensions", ICML 2008, figure 1.

    Examples
    --------
    >>> import torch
    >>> from pudistill.methods.noise_layer import nearest_probabilities
    >>> nearest_probabilities(torch.tensor([[0.9, 0.3, -0.2]]))
    tensor([[0.8000, 0.2000, 0.0000]])
    """
    ordered = rows.sort(dim=1, descending=True).values
    counts = torch.arange(1, rows.shape[1] + 1, device=rows.device)
    excess = (ordered.cumsum(dim=1) - 1) / counts
    # At least one, also for rows that are not finite, which stay so.
    n_positive = (ordered > excess).sum(dim=1, keepdim=True).clamp_min(1)
    return (rows - excess.gather(1, n_positive - 1)).clamp_min(0)


class NoiseLayerMethod(NetworkMethod):
    """A method that trains a network and a `NoiseLayer` above it; subclasses make the layer."""

    warm_up: float

    def _learn(self, samples: LabelledSamples, seed: int) -> Any:
        network = self._make_network(seed)
        job = network.make_job(samples.X, samples.targets)
        layer = self._make_layer(samples.n_classes).to(job.hardware.device, job.hardware.dtype)
        objective = Adaptation(
            layer,
            torch.tensor(samples.trusted, device=job.hardware.device),
            warm_up=round(self.warm_up * job.recipe.epochs),
        )
        both = WithNoiseLayer(job.module, layer)
        fit_objective([network], [replace(job, module=both, objective=objective)], seed)
        with torch.no_grad():
            proba = torch.eye(samples.n_classes, dtype=job.hardware.dtype)
            layer.eval()
            noisy = layer.log_noisy_proba(proba.to(job.hardware.device), Generator())
        self.transition_matrix_ = noisy.exp().numpy(force=True).astype(float)
        return network

    def _make_layer(self, n_classes: int) -> NoiseLayer:
        """Make the layer."""
        raise NotImplementedError


class NoiseLayerClassifier(NoiseLayerMethod):
    """Train a transition matrix above the network's softmax, together with the network.

    The probability of a given label is ``sum_c p(c | x) T[c, given]``. For a share of the epochs
    the loss leaves `T` out, which weight decay alone moves; then it is trained like every other
    weight. For trusted samples the loss is the cross-entropy of their labels, without `T`.

    As the authors do, each step projects the rows of `T` to probabilities, and weight decay keeps
    the network from learning the noise itself and leaving `T` the identity: it is that of the
    recipe. Their theory has the trace of `T` in its place, which `trace_weight` adds. The
    gradient of `T` counts a tenth, and its weight decay in full, because at the full rate `T` can
    become a permutation of the classes before the network knows them.

    Parameters
    ----------
    estimator : TorchClassifier, default=None
        The network and its recipe; ``None``: one that fits the data.
    trace_weight : float, default=0.0
        Weight of the mean of the diagonal of `T` in the loss. Positive values help networks that
        learn the noise within few steps; in a long training they lead to a wrong `T`.
    warm_up : float in [0, 1], default=0.1
        Share of the epochs in which the loss leaves `T` out.
    use_trusted : bool, default=True
        Whether trusted samples have their verified labels, which are learned without `T`. False:
        the paper's protocol, in which only the paper's own method knows which samples are trusted.
    random_state : int, RandomState instance or None, default=None
        Seeds all random numbers.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    transition_matrix_ : ndarray of shape (n_classes, n_classes)
        The trained ``T[c, j] = P(given = j | true = c)``.
    model_ : TorchClassifier
        The network, for classes 0 … C - 1.
    n_features_in_ : int
        Number of features.

    References
    ----------
    S. Sukhbaatar, J. Bruna, M. Paluri, L. Bourdev, R. Fergus, "Training Convolutional Networks with
    Noisy Labels", ICLR 2015 workshop; section 3.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_wine
    >>> from pudistill.methods import NoiseLayerClassifier
    >>> X, y = load_wine(return_X_y=True)
    >>> trusted = np.arange(178) % 10 == 0
    >>> NoiseLayerClassifier(random_state=0).fit(X, y, trusted=trusted).score(X, y) > 0.9
    True
    """

    _parameter_constraints: dict = {
        **NetworkMethod._parameter_constraints,
        "trace_weight": [Interval(Real, 0, None, closed="left")],
        "warm_up": [Interval(Real, 0, 1, closed="both")],
        "use_trusted": ["boolean"],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        trace_weight: float = 0.0,
        warm_up: float = 0.1,
        use_trusted: bool = True,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.trace_weight = trace_weight
        self.warm_up = warm_up
        self.use_trusted = use_trusted
        self.random_state = random_state

    def _make_layer(self, n_classes: int) -> NoiseLayer:
        return StochasticLayer(n_classes, self.trace_weight)


class WithNoiseLayer(nn.Module):
    """A network whose optimiser also trains a noise layer; the logits are the network's own."""

    def __init__(self, network: nn.Module, layer: NoiseLayer) -> None:
        super().__init__()
        self.network, self.layer = network, layer

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of the true classes, (n, n_classes)."""
        return self.network(x)


class Adaptation(Objective):
    """The objective of a network and its noise layer.

    Parameters
    ----------
    layer : NoiseLayer
        The layer.
    trusted : Tensor of shape (n_samples,), bool
        Samples whose labels have no noise.
    warm_up : int
        Number of epochs without the layer.
    """

    def __init__(self, layer: NoiseLayer, trusted: Tensor, *, warm_up: int) -> None:
        self.layer, self.trusted, self.warm_up = layer, trusted, warm_up
        self.is_used = False

    def begin_epoch(self, epoch: int) -> None:
        """Begin to use the layer after the warm-up."""
        self.is_used = epoch >= self.warm_up

    def __call__(self, batch: Batch) -> tuple[Tensor, LossFn]:
        """See `Objective`."""

        def loss(logits: Tensor) -> Tensor:
            log_proba = logits.log_softmax(dim=1)
            noisy = self.layer.log_noisy_proba(log_proba.exp(), batch.generator)
            # Without the layer its gradient is 0 and not None, which fused optimisers need.
            has_no_noise = self.trusted[batch.rows] | (not self.is_used)
            of_labels = torch.where(has_no_noise[:, None], log_proba, noisy)
            loss = nll_loss(of_labels, batch.label.argmax(dim=1))
            return loss + self.layer.penalty() if self.is_used else loss

        return batch.view(), loss
