"""Objectives for labels and soft targets; the simplest is cross-entropy."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pudistill.learners.networks.augmentation import mixup
from pudistill.learners.networks.losses import soft_loss
from pudistill.learners.networks.objectives import Batch, LossFn, Objective, with_consistency


class TargetLoss(Objective):
    """A loss of target probabilities, with every term that a recipe can add to it.

    Subclasses implement `loss`.

    Examples
    --------
    >>> from pudistill.learners.networks.cross_entropy import TargetLoss
    >>> class SquaredError(TargetLoss):
    ...     def loss(self, logits, targets, batch):
    ...         return (logits.softmax(dim=1) - targets).square().sum(dim=1).mean()
    >>> SquaredError.is_stateful  # nothing is kept from batch to batch
    False
    """

    is_stateful: ClassVar[bool] = False

    def loss(self, logits: Tensor, targets: Tensor, batch: Batch) -> Tensor:
        """Compute the mean loss of a batch, with the recipe's entropy term.

        Parameters
        ----------
        logits : Tensor of shape (n, n_classes)
            The network's output.
        targets : Tensor of shape (n, n_classes)
            Target probabilities, mixed if the recipe says so; each row is multiplied by the
            sample's weight.
        batch : Batch
            The samples.

        Returns
        -------
        loss : Tensor of shape ()
        """
        raise NotImplementedError

    def __call__(self, batch: Batch) -> tuple[Tensor, LossFn]:
        """See `Objective`."""
        recipe = batch.recipe
        pictures = batch.augmented()
        view, targets = batch.network_input(pictures), batch.label * batch.weight[:, None]
        if recipe.mixup:
            view, targets = mixup(view, targets, batch.rng.beta(recipe.mixup, recipe.mixup))
        return with_consistency(
            batch, pictures, view, lambda logits: self.loss(logits, targets, batch)
        )


@dataclass(frozen=True)
class CrossEntropy(TargetLoss):
    """Cross-entropy to target probabilities.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill import TorchClassifier
    >>> X, y = np.repeat([[0.0], [1.0]], 50, axis=0), np.repeat([0, 1], 50)
    >>> network = TorchClassifier(loss="cross_entropy", epochs=20, random_state=0)
    >>> network.fit(X, y).predict([[0], [1]])
    array([0, 1])
    """

    def loss(self, logits: Tensor, targets: Tensor, batch: Batch) -> Tensor:
        """See `TargetLoss`."""
        return soft_loss(logits, targets, batch.recipe.entropy_weight)
