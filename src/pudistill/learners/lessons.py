"""What networks learn from a batch: what they are shown, and what their answer costs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Generator, Tensor, nn

from pudistill.learners.augmentation import AUGMENT, mixup, strong_augment
from pudistill.learners.losses import consistency_loss, likelihood_loss, posterior, soft_loss
from pudistill.learners.recipes import Recipe

if TYPE_CHECKING:
    from pudistill.learners.training import Hardware

Loss = Literal["cross_entropy", "likelihood"]
Price = Callable[[Tensor], Tensor]
"""Takes the network's answer to what it was shown; returns the mean loss, of shape ()."""


@dataclass(frozen=True)
class Batch:
    """Samples of a step.

    Attributes
    ----------
    rows : Tensor of shape (n,), int64
        Which samples these are.
    raw : Tensor of shape (n, height, width, channels) or (n, n_features)
        As they are stored.
    label : Tensor of shape (n, n_classes)
        What the lesson makes of their targets.
    weight : Tensor of shape (n,)
        Sample weights.
    recipe : Recipe
        How the network is trained.
    mean, inverse_scale : Tensor of shape (channels,) or (n_features,)
        Normalisation.
    hardware : Hardware
        Where, and in which precision.
    generator : torch.Generator
        Source of randomness on the device.
    rng : RandomState
        Source of all other randomness.
    """

    rows: Tensor
    raw: Tensor
    label: Tensor
    weight: Tensor
    recipe: Recipe
    mean: Tensor
    inverse_scale: Tensor
    hardware: "Hardware"
    generator: Generator
    rng: np.random.RandomState

    def augmented(self) -> Tensor:
        """Change pictures at random, as the recipe says, anew with each call."""
        pictures = self.raw
        for name in self.recipe.augment:
            pictures = AUGMENT[name](pictures, self.generator)
        return pictures

    def network_input(self, samples: Tensor) -> Tensor:
        """Normalise samples for a network."""
        return network_input(samples, self.mean, self.inverse_scale)

    def view(self) -> Tensor:
        """Augment and normalise."""
        return self.network_input(self.augmented())

    @torch.no_grad()
    def answer(self, module: nn.Module, inputs: Tensor) -> Tensor:
        """Ask a network, in the mode it is in; nothing learns from the answer."""
        with self.hardware.autocast():
            return module(inputs).to(self.label.dtype)


def network_input(batch: Tensor, mean: Tensor, inverse_scale: Tensor) -> Tensor:
    """Normalise a batch; present pictures as ``(n, channels, height, width)`` in channels_last."""
    normalised = (batch.to(mean.dtype) - mean) * inverse_scale
    return normalised.permute(0, 3, 1, 2) if normalised.ndim == 4 else normalised


class Lesson:
    """What a network is to learn; a method with a loss of its own has a lesson of its own."""

    def known(self, targets: np.ndarray) -> np.ndarray:
        """Turn targets into what `Batch.label` holds rows of."""
        return targets

    def begin_epoch(self, epoch: int) -> None:
        """Prepare epoch number `epoch`, from 0; networks may be used for prediction here."""

    def batches(self, generator: Generator) -> tuple[Tensor, ...] | None:
        """Draw the rows of each batch of an epoch; None: as the recipe says."""
        del generator
        return None

    def __call__(self, batch: Batch) -> tuple[Tensor, Price]:
        """Return what the network is shown, and what makes a loss of its answer.

        Parameters
        ----------
        batch : Batch
            The samples.

        Returns
        -------
        inputs : Tensor
            What the network is given.
        price : callable
            Takes logits, returns the mean loss.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class CrossEntropy(Lesson):
    """Cross-entropy to target probabilities, with all that a recipe adds to it."""

    def __call__(self, batch: Batch) -> tuple[Tensor, Price]:
        """See `Lesson`."""
        recipe = batch.recipe
        pictures = batch.augmented()
        view, wanted = batch.network_input(pictures), batch.label * batch.weight[:, None]
        if recipe.mixup:
            view, wanted = mixup(view, wanted, batch.rng.beta(recipe.mixup, recipe.mixup))
        return _consistent(
            batch,
            pictures,
            view,
            lambda logits: soft_loss(logits, wanted, recipe.entropy_weight),
            lambda _: batch.label,
        )


@dataclass(frozen=True)
class Likelihood(Lesson):
    """The likelihood of what is known of a label, as :func:`likelihood_loss` explains."""

    def known(self, targets: np.ndarray) -> np.ndarray:
        """Take logarithms, scaled to a largest value of 0, which changes no gradient.

        A row's scale is rounded away here and not in the network's precision, where what is tiny
        might be zero, too.
        """
        with np.errstate(divide="ignore"):
            return np.log(targets / targets.max(axis=1, keepdims=True))

    def __call__(self, batch: Batch) -> tuple[Tensor, Price]:
        """See `Lesson`."""
        weight = batch.recipe.entropy_weight
        pictures = batch.augmented()
        return _consistent(
            batch,
            pictures,
            batch.network_input(pictures),
            lambda logits: likelihood_loss(logits, batch.label, batch.weight, weight),
            lambda logits: posterior(logits, batch.label),
        )


CROSS_ENTROPY, LIKELIHOOD = CrossEntropy(), Likelihood()
LESSONS: dict[Loss, Lesson] = {"cross_entropy": CROSS_ENTROPY, "likelihood": LIKELIHOOD}


def _consistent(
    batch: Batch, pictures: Tensor, view: Tensor, price: Price, judged: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Price]:
    """Add the consistency term, where the recipe has one, to a lesson about `view`."""
    recipe = batch.recipe
    if not recipe.consistency_weight:
        return view, price
    strong = batch.network_input(strong_augment(pictures, batch.generator))

    def with_consistency(answers: Tensor) -> Tensor:
        logits, strong_logits = answers.chunk(2)
        agreement = consistency_loss(
            strong_logits, judged(logits), batch.weight, recipe.consistency_threshold
        )
        return price(logits) + recipe.consistency_weight * agreement

    # In one pass: both views are normalised by the same statistics.
    return torch.cat([view, strong]), with_consistency
