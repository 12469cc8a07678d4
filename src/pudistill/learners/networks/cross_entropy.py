"""The objective for labels and soft targets: cross-entropy."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pudistill.learners.networks.augmentation import mixup
from pudistill.learners.networks.losses import soft_loss
from pudistill.learners.networks.objectives import Batch, LossFn, Objective, with_consistency


@dataclass(frozen=True)
class CrossEntropy(Objective):
    """Cross-entropy to target probabilities, with every term that a recipe can add to it."""

    is_stateful: ClassVar[bool] = False

    def __call__(self, batch: Batch) -> tuple[Tensor, LossFn]:
        """See `Objective`."""
        recipe = batch.recipe
        pictures = batch.augmented()
        view, targets = batch.network_input(pictures), batch.label * batch.weight[:, None]
        if recipe.mixup:
            view, targets = mixup(view, targets, batch.rng.beta(recipe.mixup, recipe.mixup))
        return with_consistency(
            batch,
            pictures,
            view,
            lambda logits: soft_loss(logits, targets, recipe.entropy_weight),
            lambda _: batch.label,
        )
