"""Losses that are more robust to wrong labels than cross-entropy.

Most are a function, which returns the loss that each class would have as the label, and an
objective of `TorchClassifier`, which weights these by the target probabilities. p is the network's
prediction for a sample, c its label and C the number of classes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from pudistill.exceptions import InputError
from pudistill.learners.networks.cross_entropy import TargetLoss
from pudistill.learners.networks.input_checks import check_target_values
from pudistill.learners.networks.losses import entropy, kept_share, sample_losses, split_by_loss
from pudistill.learners.networks.objectives import Batch
from pudistill.learners.networks.recipes import Recipe

SMALLEST_PROBABILITY = 1e-7


def cross_entropy(logits: Tensor) -> Tensor:
    """Return -log p_c of each class, (n, C)."""
    return -logits.log_softmax(dim=1)


def mean_absolute_error(logits: Tensor) -> Tensor:
    r"""Return the distance of the prediction from each label, :math:`\|e_c - p\|_1 = 2 - 2 p_c`.

    Its sum over the classes is the same for every prediction, so that uniform noise changes no
    minimum. But it learns slowly: its gradient is small wherever the label is improbable.

    Parameters
    ----------
    logits : Tensor of shape (n, C)
        The network's output.

    Returns
    -------
    losses : Tensor of shape (n, C)
        In [0, 2].

    References
    ----------
    A. Ghosh, H. Kumar, P. Sastry, "Robust Loss Functions under Label Noise for Deep Neural
    Networks", AAAI 2017.

    Examples
    --------
    >>> import torch
    >>> from pudistill.learners.networks.robust_losses import mean_absolute_error
    >>> mean_absolute_error(torch.tensor([[0.75, 0.25]]).log())
    tensor([[0.5000, 1.5000]])
    """
    return 2 - 2 * logits.softmax(dim=1)


def generalised_cross_entropy(logits: Tensor, q: float = 0.7, threshold: float = 0.0) -> Tensor:
    r"""Return :math:`(1 - p_c^q) / q`, which is constant where p_c is below a threshold.

    It is the cross-entropy in the limit q → 0, and half of `mean_absolute_error` at q = 1.

    Parameters
    ----------
    logits : Tensor of shape (n, C)
        The network's output.
    q : float in (0, 1], default=0.7
        Exponent.
    threshold : float in [0, 1), default=0.0
        `k`: labels of a smaller probability have no gradient.

    Returns
    -------
    losses : Tensor of shape (n, C)
        In [0, 1 / q].

    References
    ----------
    Z. Zhang, M. R. Sabuncu, "Generalized Cross Entropy Loss for Training Deep Neural Networks with
    Noisy Labels", NeurIPS 2018; equations 6 and 8.

    Examples
    --------
    >>> import torch
    >>> from pudistill.learners.networks.robust_losses import generalised_cross_entropy
    >>> generalised_cross_entropy(torch.tensor([[0.64, 0.36]]).log(), q=0.5)
    tensor([[0.4000, 0.8000]])
    """
    log_probabilities = logits.log_softmax(dim=1)
    if threshold:
        log_probabilities = log_probabilities.clamp_min(math.log(threshold))
    # From logarithms, because p^q has an infinite slope at 0.
    return -(q * log_probabilities).expm1() / q


def reverse_cross_entropy(logits: Tensor, smallest_label: float = 1e-4) -> Tensor:
    r"""Return the cross-entropy of each label to the prediction, with `log 0` replaced.

    It is :math:`-\sum_j p_j \log e_{cj} = -A (1 - p_c)`, where A is the logarithm of
    `smallest_label`.

    Parameters
    ----------
    logits : Tensor of shape (n, C)
        The network's output.
    smallest_label : float in (0, 1), default=1e-4
        What replaces zeros of one-hot labels.

    Returns
    -------
    losses : Tensor of shape (n, C)
        In [0, -A].

    References
    ----------
    Y. Wang et al., "Symmetric Cross Entropy for Robust Learning with Noisy Labels", ICCV 2019.

    Examples
    --------
    >>> import torch
    >>> from pudistill.learners.networks.robust_losses import reverse_cross_entropy
    >>> reverse_cross_entropy(torch.tensor([[0.75, 0.25]]).log())
    tensor([[2.3026, 6.9078]])
    """
    return -math.log(smallest_label) * (1 - logits.softmax(dim=1))


def taylor_cross_entropy(logits: Tensor, order: int = 2) -> Tensor:
    r"""Return the Taylor series of the cross-entropy, :math:`\sum_{i=1}^t (1 - p_c)^i / i`.

    Of order 1 it is half of `mean_absolute_error`; the cross-entropy is its limit.

    Parameters
    ----------
    logits : Tensor of shape (n, C)
        The network's output.
    order : int, default=2
        Number of terms `t`, at least 1.

    Returns
    -------
    losses : Tensor of shape (n, C)
        At least 0.

    References
    ----------
    L. Feng et al., "Can Cross Entropy Loss Be Robust to Label Noise?", IJCAI 2020.

    Examples
    --------
    >>> import torch
    >>> from pudistill.learners.networks.robust_losses import taylor_cross_entropy
    >>> taylor_cross_entropy(torch.tensor([[0.8, 0.2]]).log())
    tensor([[0.2200, 1.1200]])
    """
    error = 1 - logits.softmax(dim=1)
    series = error / order
    for i in range(order - 1, 0, -1):
        series = error * (series + 1 / i)
    return series


def focal_loss(logits: Tensor, gamma: float = 0.5) -> Tensor:
    """Return `-(1 - p_c)^γ log p_c` of each class, (n, C)."""
    # A power below 1 has an infinite slope at 0.
    error = (1 - logits.softmax(dim=1)).clamp_min(SMALLEST_PROBABILITY)
    return error**gamma * cross_entropy(logits)


def normalised(losses: Tensor) -> Tensor:
    """Divide the loss of each class by the sum over all classes, which makes any loss robust.

    Parameters
    ----------
    losses : Tensor of shape (n, C)
        Losses of all classes, at least 0.

    Returns
    -------
    losses : Tensor of shape (n, C)
        In [0, 1]; each row sums to 1.

    References
    ----------
    X. Ma et al., "Normalized Loss Functions for Deep Learning with Noisy Labels", ICML 2020,
    equation 4.

    Examples
    --------
    >>> import torch
    >>> from pudistill.learners.networks.robust_losses import normalised
    >>> normalised(torch.tensor([[1.0, 3.0]]))
    tensor([[0.2500, 0.7500]])
    """
    return losses / losses.sum(dim=1, keepdim=True)


def mean_loss(losses: Tensor, logits: Tensor, targets: Tensor, batch: Batch) -> Tensor:
    """Return the mean loss of a batch, with the recipe's entropy term, from those of all classes.

    `losses` has the shape (n, C); for the others see `TargetLoss.loss`.
    """
    weight = batch.recipe.entropy_weight
    return sample_losses(losses, logits.log_softmax(dim=1), targets, weight).mean()


class RobustLoss(TargetLoss):
    """A loss of each class; subclasses implement `losses`.

    Examples
    --------
    >>> import torch
    >>> from pudistill.learners.networks.robust_losses import RobustLoss
    >>> class SquaredError(RobustLoss):
    ...     def losses(self, logits):
    ...         proba = logits.softmax(dim=1)
    ...         return 1 - 2 * proba + proba.square().sum(dim=1, keepdim=True)
    >>> SquaredError().losses(torch.zeros(1, 2))
    tensor([[0.5000, 0.5000]])
    """

    def losses(self, logits: Tensor) -> Tensor:
        """Return the losses of all classes, of shape (n, C)."""
        raise NotImplementedError

    def loss(self, logits: Tensor, targets: Tensor, batch: Batch) -> Tensor:
        """See `TargetLoss`."""
        return mean_loss(self.losses(logits), logits, targets, batch)


@dataclass(frozen=True)
class SoftBootstrap(RobustLoss):
    """Cross-entropy to a mixture of the label and the prediction.

    Parameters
    ----------
    label_weight : float in (0, 1], default=0.95
        Share of the label, `β`.

    References
    ----------
    S. Reed et al., "Training Deep Neural Networks on Noisy Labels with Bootstrapping", ICLR
    workshop 2015, equation 6.

    Examples
    --------
    >>> import torch
    >>> from pudistill.learners.networks.robust_losses import SoftBootstrap
    >>> SoftBootstrap().losses(torch.tensor([[2.0, 0.0]]))
    tensor([[0.1388, 2.0388]])
    """

    label_weight: float = 0.95

    def losses(self, logits: Tensor) -> Tensor:
        """See `RobustLoss`."""
        return self._mixed(logits, entropy(logits.log_softmax(dim=1)))

    def _mixed(self, logits: Tensor, own: Tensor) -> Tensor:
        """Mix the losses of all classes with the loss of what the network predicts."""
        return self.label_weight * cross_entropy(logits) + (1 - self.label_weight) * own[:, None]


@dataclass(frozen=True)
class HardBootstrap(SoftBootstrap):
    """Cross-entropy to a mixture of the label and the most probable class.

    Parameters
    ----------
    label_weight : float in (0, 1], default=0.8
        Share of the label, `β`.

    References
    ----------
    S. Reed et al., as for `SoftBootstrap`, equation 7.

    Examples
    --------
    >>> import torch
    >>> from pudistill.learners.networks.robust_losses import HardBootstrap
    >>> HardBootstrap().losses(torch.tensor([[2.0, 0.0]]))
    tensor([[0.1269, 1.7269]])
    """

    label_weight: float = 0.8

    def losses(self, logits: Tensor) -> Tensor:
        """See `RobustLoss`."""
        return self._mixed(logits, cross_entropy(logits).amin(dim=1))


@dataclass(frozen=True)
class MeanAbsoluteError(RobustLoss):
    """The objective of `mean_absolute_error`.

    References
    ----------
    A. Ghosh, H. Kumar, P. Sastry, "Robust Loss Functions under Label Noise for Deep Neural
    Networks", AAAI 2017.

    Examples
    --------
    >>> import torch
    >>> from pudistill.learners.networks.robust_losses import MeanAbsoluteError
    >>> MeanAbsoluteError().losses(torch.tensor([[2.0, 0.0]]))
    tensor([[0.2384, 1.7616]])
    """

    def losses(self, logits: Tensor) -> Tensor:
        """See `RobustLoss`."""
        return mean_absolute_error(logits)


@dataclass
class GeneralisedCrossEntropy(TargetLoss):
    """The objective of `generalised_cross_entropy`, which is truncated after some epochs.

    It is truncated only for samples of which a class is more probable than the threshold: a short
    training, in which hardly any is, would else stop there.

    Parameters
    ----------
    q : float in (0, 1], default=0.7
        Exponent.
    threshold : float in [0, 1), default=0.5
        `k`: labels of a smaller probability are not learned. 0: all are.
    warm_up : float in [0, 1], default=1/3
        Share of the epochs in which all labels are learned.

    References
    ----------
    Z. Zhang, M. R. Sabuncu, "Generalized Cross Entropy Loss for Training Deep Neural Networks with
    Noisy Labels", NeurIPS 2018; equations 6 and 8.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill import TorchClassifier
    >>> X, y = np.repeat([[0.0], [1.0]], 50, axis=0), np.repeat([0, 1], 50)
    >>> network = TorchClassifier(loss="generalised_cross_entropy", epochs=20, random_state=0)
    >>> network.fit(X, y).predict([[0], [1]])
    array([0, 1])
    """

    q: float = 0.7
    threshold: float = 0.5
    warm_up: float = 1 / 3
    epoch: int = field(default=0, init=False)

    def begin_epoch(self, epoch: int) -> None:
        """See `Objective`."""
        self.epoch = epoch

    def loss(self, logits: Tensor, targets: Tensor, batch: Batch) -> Tensor:
        """See `TargetLoss`."""
        losses = generalised_cross_entropy(logits, self.q)
        if self.threshold and self.epoch >= self.warm_up * batch.recipe.epochs:
            decided = logits.softmax(dim=1).amax(dim=1, keepdim=True) > self.threshold
            truncated = generalised_cross_entropy(logits, self.q, self.threshold)
            losses = losses.where(~decided, truncated)
        return mean_loss(losses, logits, targets, batch)


@dataclass(frozen=True)
class SymmetricCrossEntropy(RobustLoss):
    """Weighted sum of `cross_entropy` and `reverse_cross_entropy`.

    Parameters
    ----------
    forward_weight, reverse_weight : float, default=0.1, 1.0
        `α` and `β`.
    smallest_label : float in (0, 1), default=1e-4
        What replaces zeros of one-hot labels.

    References
    ----------
    Y. Wang et al., "Symmetric Cross Entropy for Robust Learning with Noisy Labels", ICCV 2019.

    Examples
    --------
    >>> import torch
    >>> from pudistill.learners.networks.robust_losses import SymmetricCrossEntropy
    >>> SymmetricCrossEntropy().losses(torch.tensor([[2.0, 0.0]]))
    tensor([[1.1106, 8.3251]])
    """

    forward_weight: float = 0.1
    reverse_weight: float = 1.0
    smallest_label: float = 1e-4

    def losses(self, logits: Tensor) -> Tensor:
        """See `RobustLoss`."""
        reverse = reverse_cross_entropy(logits, self.smallest_label)
        return self.forward_weight * cross_entropy(logits) + self.reverse_weight * reverse


@dataclass(frozen=True)
class TaylorCrossEntropy(RobustLoss):
    """The objective of `taylor_cross_entropy`.

    Parameters
    ----------
    order : int, default=2
        Number of terms, at least 1.

    References
    ----------
    L. Feng et al., "Can Cross Entropy Loss Be Robust to Label Noise?", IJCAI 2020.

    Examples
    --------
    >>> import torch
    >>> from pudistill.learners.networks.robust_losses import TaylorCrossEntropy
    >>> TaylorCrossEntropy().losses(torch.tensor([[2.0, 0.0]]))
    tensor([[0.1263, 1.2687]])
    """

    order: int = 2

    def losses(self, logits: Tensor) -> Tensor:
        """See `RobustLoss`."""
        return taylor_cross_entropy(logits, self.order)


ACTIVE: dict[str, Callable[[Tensor], Tensor]] = {
    "cross_entropy": cross_entropy,
    "focal_loss": focal_loss,
}
"""Losses that, normalised, raise the probability of the label."""
PASSIVE: dict[str, Callable[[Tensor], Tensor]] = {
    "mean_absolute_error": lambda logits: mean_absolute_error(logits) / 2,
    "reverse_cross_entropy": reverse_cross_entropy,
}
"""Losses that also lower the probabilities of other classes."""


@dataclass(frozen=True)
class ActivePassive(RobustLoss):
    """Weighted sum of a normalised active loss and a passive loss.

    Parameters
    ----------
    active : str, default="cross_entropy"
        A name in `ACTIVE`.
    passive : str, default="reverse_cross_entropy"
        A name in `PASSIVE`.
    active_weight, passive_weight : float, default=1.0, 1.0
        `α` and `β`. With ``passive_weight=0``, the loss is a normalised loss alone.

    References
    ----------
    X. Ma et al., "Normalized Loss Functions for Deep Learning with Noisy Labels", ICML 2020,
    equation 12.

    Examples
    --------
    >>> import torch
    >>> from pudistill.learners.networks.robust_losses import ActivePassive
    >>> ActivePassive().losses(torch.tensor([[2.0, 0.0]]))
    tensor([[1.1542, 9.0561]])
    """

    active: str = "cross_entropy"
    passive: str = "reverse_cross_entropy"
    active_weight: float = 1.0
    passive_weight: float = 1.0

    def losses(self, logits: Tensor) -> Tensor:
        """See `RobustLoss`."""
        active = normalised(ACTIVE[self.active](logits))
        return self.active_weight * active + self.passive_weight * PASSIVE[self.passive](logits)


@dataclass(frozen=True)
class BackwardCorrection(RobustLoss):
    """Cross-entropy whose targets are rows of an inverse transition matrix, partly negative.

    Probabilities below 1e-7 count as 1e-7: else the loss has no lower bound.

    References
    ----------
    G. Patrini et al., "Making Deep Neural Networks Robust to Label Noise: a Loss Correction
    Approach", CVPR 2017, theorem 1.

    Examples
    --------
    >>> import torch
    >>> from pudistill.learners.networks.robust_losses import BackwardCorrection
    >>> BackwardCorrection().losses(torch.tensor([[2.0, 0.0]]))
    tensor([[0.1269, 2.1269]])
    """

    def check_targets(
        self, y: Any, inputs: np.ndarray, recipe: Recipe, *, balanced: bool
    ) -> np.ndarray:
        """Check labels, or rows that sum to 1, and that no term needs probabilities."""
        del balanced
        if recipe.consistency_weight:
            raise InputError(
                'loss="backward_correction" cannot be used with '
                f"consistency_weight={recipe.consistency_weight:g}: set consistency_weight=0."
            )
        return check_target_values(y, inputs, signed=True)

    def losses(self, logits: Tensor) -> Tensor:
        """See `RobustLoss`."""
        return cross_entropy(logits).clamp_max(-math.log(SMALLEST_PROBABILITY))


@dataclass
class SIGUA(TargetLoss):
    """Cross-entropy that learns labels of small loss and unlearns some of the others.

    Of a batch, `split_by_loss` keeps all but a share, which rises to `noise_rate`. The others of
    smallest loss are unlearned: their mean loss is subtracted with a small weight.

    Parameters
    ----------
    noise_rate : float in [0, 1], default=0.2
        Share of the labels that is not learned at the end of the training.
    warm_up : float in [0, 1], default=0.05
        Share of the epochs in which the share of labels that are not learned rises from 0.
    unlearned : float in [0, 1], default=0.3
        Share of these labels that is unlearned.
    scale : float, default=0.01
        Weight of the unlearned labels, `γ`.
    trusted : Tensor of shape (n_samples,), bool, or None, default=None
        Samples that are always learned. They cannot be known with mixup.

    References
    ----------
    B. Han et al., "SIGUA: Forgetting May Make Learning with Noisy Labels More Robust", ICML 2020,
    algorithm 1 with self-teaching (SIGUA_SL).

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill import TorchClassifier
    >>> X, y = np.repeat([[0.0], [1.0]], 50, axis=0), np.repeat([0, 1], 50)
    >>> TorchClassifier(loss="sigua", epochs=20, random_state=0).fit(X, y).predict([[0], [1]])
    array([0, 1])
    """

    noise_rate: float = 0.2
    warm_up: float = 0.05
    unlearned: float = 0.3
    scale: float = 0.01
    trusted: Tensor | None = field(default=None, compare=False)
    epoch: int = field(default=0, init=False)

    def begin_epoch(self, epoch: int) -> None:
        """See `Objective`."""
        self.epoch = epoch

    def loss(self, logits: Tensor, targets: Tensor, batch: Batch) -> Tensor:
        """See `TargetLoss`."""
        by_class, weight = cross_entropy(logits), batch.recipe.entropy_weight
        losses = (targets * by_class).sum(dim=1)
        share = kept_share(self.noise_rate, self.warm_up, self.epoch, batch.recipe.epochs)
        trusted = self.trusted
        if trusted is not None:
            trusted = trusted.to(batch.rows.device)[batch.rows]
        kept, others = split_by_loss(losses / targets.sum(dim=1), share, trusted)
        with_entropy = sample_losses(by_class, logits.log_softmax(dim=1), targets, weight)
        learned = with_entropy[kept].mean()
        unlearned = others[: int(self.unlearned * len(others))]
        return learned - self.scale * losses[unlearned].mean() if len(unlearned) else learned
