"""Deep bilevel learning: mini-batches that agree with another one count more (reference [23])."""

from collections.abc import Sequence
from dataclasses import replace
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from sklearn.utils._param_validation import Interval
from torch import Generator, Tensor

from pudistill.exceptions import InputError
from pudistill.learners.networks.batches import same_label_rows
from pudistill.learners.networks.fitting import fit_objective
from pudistill.learners.networks.losses import soft_loss
from pudistill.learners.networks.objectives import Batch, Objective
from pudistill.methods.base import LabelledSamples, NetworkMethod


class DeepBilevelClassifier(NetworkMethod):
    """Weight the gradients of mini-batches by their agreement with that of a validation mini-batch.

    A batch consists of mini-batches with the same labels. The first is for validation. The gradient
    `g` of each of the others counts with the weight `ω = <g_v, g> / (|g|² + μ)`, divided by the sum
    of the weights' absolute values: what lowers the loss of one mini-batch only, as wrong labels
    do, counts less, and against the validation it counts negatively.

    The authors draw all mini-batches from the training samples. Here those for validation are drawn
    from the trusted samples if there are any; trusted samples are in the other mini-batches, too.
    Recipe, network and epochs are those of the other methods.

    Parameters
    ----------
    estimator : TorchClassifier, default=None
        The network and its recipe; ``None``: one that fits the data.
    n_parts : int, default=8
        Mini-batches in a batch, at least 2; the authors' value for CIFAR-10.
    mu : float, default=0.01
        `μ`, which limits the weight of small gradients; the authors' value.
    use_trusted : bool, default=True
        Whether trusted samples have their verified labels, and are the validation samples. False:
        the paper's protocol, in which only the paper's own method knows which samples are trusted.
    random_state : int, RandomState instance or None, default=None
        Seeds all random numbers.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    model_ : TorchClassifier
        The network, for classes 0 … C - 1.
    n_features_in_ : int
        Number of features.

    References
    ----------
    S. Jenni, P. Favaro, "Deep Bilevel Learning", ECCV 2018; equations 6 and 7, algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_wine
    >>> from pudistill.methods import DeepBilevelClassifier
    >>> X, y = load_wine(return_X_y=True)
    >>> trusted = np.arange(178) % 10 == 0
    >>> DeepBilevelClassifier(random_state=0).fit(X, y, trusted=trusted).score(X, y) > 0.9
    True
    """

    _parameter_constraints: dict = {
        **NetworkMethod._parameter_constraints,
        "n_parts": [Interval(Integral, 2, None, closed="left")],
        "mu": [Interval(Real, 0, None, closed="neither")],
        "use_trusted": ["boolean"],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        n_parts: int = 8,
        mu: float = 0.01,
        use_trusted: bool = True,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.n_parts = n_parts
        self.mu = mu
        self.use_trusted = use_trusted
        self.random_state = random_state

    def _learn(self, samples: LabelledSamples, seed: int) -> Any:
        network = self._make_network(seed)
        job = network.make_job(samples.X, samples.targets)
        size = job.recipe.batch_size // self.n_parts
        if size < 2:
            raise InputError(
                f"n_parts={self.n_parts} mini-batches of at least 2 samples do not fit into a "
                f"batch of {job.recipe.batch_size}: lower n_parts, or raise batch_size."
            )
        device = job.hardware.device
        objective = DeepBilevel(
            torch.tensor(samples.labels, device=device),
            torch.tensor(samples.trusted, device=device),
            n_parts=self.n_parts,
            size=size,
            mu=self.mu,
        )
        fit_objective([network], [replace(job, objective=objective)], seed)
        return network


class DeepBilevel(Objective):
    """The objective of the network.

    Parameters
    ----------
    labels : Tensor of shape (n_samples,), int64
        Class codes.
    trusted : Tensor of shape (n_samples,), bool
        Samples for validation; if there are none, all samples are.
    n_parts : int
        Mini-batches in a batch.
    size : int
        Smallest size of a mini-batch, unless there are fewer samples.
    mu : float
        `μ`.
    """

    def __init__(
        self, labels: Tensor, trusted: Tensor, *, n_parts: int, size: int, mu: float
    ) -> None:
        self.labels, self.trusted = labels, trusted
        self.n_parts, self.size, self.mu = n_parts, size, mu

    def batches(self, generator: Generator) -> tuple[Tensor, ...] | None:
        """Draw batches of mini-batches, one after the other, that have the same labels."""
        validation = self.trusted if self.trusted.any() else None
        rows = same_label_rows(self.labels, self.n_parts, generator, validation)
        # No mini-batch is smaller than `size`: batch normalisation needs several samples.
        batches = rows.tensor_split(max(1, len(rows) // self.size))
        return tuple(batch.T.ravel() for batch in batches)

    def backward(self, batch: Batch, rate: float) -> Tensor | None:
        """See `Objective`."""
        del rate
        weights = [weight for weight in batch.module.parameters() if weight.requires_grad]
        size = len(batch.rows) // self.n_parts
        losses, gradients = [], []
        for view, labels in zip(batch.view().split(size), batch.label.split(size), strict=True):
            # Each in a pass of its own, so that batch normalisation sees one mini-batch.
            loss = soft_loss(batch.logits_with_gradient(view), labels)
            gradients.append(torch.autograd.grad(loss, weights, materialize_grads=True))
            losses.append(loss.detach())
        shares = agreement(gradients[0], gradients[1:], self.mu)
        for weight, *of_parts in zip(weights, *gradients[1:], strict=True):
            weight.grad = torch.tensordot(shares, torch.stack(of_parts), dims=1).to(weight.dtype)
        return torch.stack(losses).mean()


def agreement(
    validation: Sequence[Tensor], gradients: Sequence[Sequence[Tensor]], mu: float
) -> Tensor:
    """Compute the weights of gradients by their agreement with that of a validation mini-batch.

    Parameters
    ----------
    validation : sequence of Tensor
        The gradient of the validation mini-batch, one tensor per weight of the network.
    gradients : sequence of sequence of Tensor
        The gradients of the other mini-batches.
    mu : float
        `μ`.

    Returns
    -------
    shares : Tensor of shape (n_gradients,)
        The absolute values sum to 1.

    Examples
    --------
    >>> import torch
    >>> from pudistill.methods.deep_bilevel import agreement
    >>> gradients = [[torch.tensor([2.0, 0.0])], [torch.tensor([-1.0, 3.0])]]
    >>> agreement([torch.tensor([1.0, 0.0])], gradients, mu=1e-6).round(decimals=3)
    tensor([ 0.8330, -0.1670])
    """

    def product(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
        return torch.stack([(x * y).sum() for x, y in zip(a, b, strict=True)]).sum()

    omega = torch.stack([product(validation, own) / (product(own, own) + mu) for own in gradients])
    return omega / omega.abs().sum().clamp_min(torch.finfo(omega.dtype).tiny)
