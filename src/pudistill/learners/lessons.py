"""Training objectives: what a network is shown of a batch, and the loss of its logits."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from sklearn.utils import check_consistent_length
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import assert_all_finite, column_or_1d
from torch import Generator, Tensor, nn

from pudistill.exceptions import InputError, as_input_error
from pudistill.learners.augmentation import AUGMENT, mixup, strong_augment
from pudistill.learners.losses import consistency_loss, label_posterior, likelihood_loss, soft_loss
from pudistill.learners.recipes import Recipe

if TYPE_CHECKING:
    from pudistill.learners.training import Hardware

Price = Callable[[Tensor], Tensor]
"""Maps the network's logits for what it was shown to the mean loss, of shape ()."""


def shape_of(X: Any) -> tuple[int, ...]:
    """Return the shape of any array-like, without copying an array."""
    return tuple(X.shape) if hasattr(X, "shape") else np.asarray(X).shape


def check_target_values(y: Any, inputs: np.ndarray) -> np.ndarray:
    """Return y as labels of shape (n,), or as soft targets of shape (n, n_classes)."""
    if y is None:
        raise InputError(
            "This TorchClassifier estimator requires y to be passed, but the target y is None."
        )
    if len(shape_of(y)) != 2 or shape_of(y)[1] < 2:
        with as_input_error():
            y = column_or_1d(y, warn=True)
            check_consistent_length(inputs, y)
            assert_all_finite(y, input_name="y")
            check_classification_targets(y)
        return y
    with as_input_error():
        check_consistent_length(inputs, y)
    targets = np.asarray(y)
    if targets.dtype.kind != "f":
        raise InputError(
            f"y has the shape {targets.shape} and the dtype {targets.dtype}: pass labels of shape "
            "(n,), or soft targets as floats."
        )
    wrong = ~((targets >= 0).all(axis=1) & np.isclose(targets.sum(axis=1), 1, rtol=0, atol=1e-4))
    if wrong.any():
        row = wrong.argmax()
        raise InputError(
            f"Soft targets must be non-negative and sum to 1, but row {row} of y is "
            f"{targets[row].tolist()}."
        )
    return targets.astype(np.float64)


def are_certain(targets: np.ndarray) -> np.ndarray:
    """Return a mask of the rows of targets or likelihoods that allow one class only."""
    return (targets > 0).sum(axis=1) == 1


@dataclass(frozen=True)
class Batch:
    """The samples of one training step.

    Attributes
    ----------
    rows : Tensor of shape (n,), int64
        Their positions in the training data.
    raw : Tensor of shape (n, height, width, channels) or (n, n_features)
        The samples as they are stored.
    label : Tensor of shape (n, n_classes)
        Their rows of `Lesson.transform_targets`.
    weight : Tensor of shape (n,)
        Sample weights.
    recipe : Recipe
        How the network is trained.
    mean, inverse_scale : Tensor of shape (channels,) or (n_features,)
        Normalisation.
    hardware : Hardware
        Device and precision.
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
        """Return the pictures with the recipe's random changes, drawn anew at each call."""
        pictures = self.raw
        for name in self.recipe.augment:
            pictures = AUGMENT[name](pictures, self.generator)
        return pictures

    def network_input(self, samples: Tensor) -> Tensor:
        """Normalise samples for a network."""
        return network_input(samples, self.mean, self.inverse_scale)

    def view(self) -> Tensor:
        """Return the samples augmented and normalised."""
        return self.network_input(self.augmented())

    @torch.no_grad()
    def answer(self, module: nn.Module, inputs: Tensor) -> Tensor:
        """Return a network's logits without gradient, in the mode that it is in."""
        with self.hardware.autocast():
            return module(inputs).to(self.label.dtype)


def network_input(batch: Tensor, mean: Tensor, inverse_scale: Tensor) -> Tensor:
    """Normalise a batch; return pictures as ``(n, channels, height, width)`` in channels_last."""
    normalised = (batch.to(mean.dtype) - mean) * inverse_scale
    return normalised.permute(0, 3, 1, 2) if normalised.ndim == 4 else normalised


class Lesson:
    """What a network is trained for: what it is shown of a batch, and the loss of its logits.

    A loss that `TorchClassifier` accepts by name is a subclass, whose constructor takes no
    arguments, in a file of its own, and a record in `OBJECTIVES`. The simplest one overrides
    `__call__` only. The losses of methods are subclasses, too; methods pass them by themselves.

    Attributes
    ----------
    is_stateful : bool
        Whether it remembers anything from batch to batch. The training of a stateful objective is
        neither saved in checkpoints nor shared among processes, so that True is always safe.
        Stateless objectives that are equal (as frozen dataclasses are) can train as a stack.
    """

    is_stateful: ClassVar[bool] = True

    def check_targets(
        self, y: Any, inputs: np.ndarray, recipe: Recipe, *, balanced: bool
    ) -> np.ndarray:
        """Check what `TorchClassifier.fit` was passed as `y`.

        Parameters
        ----------
        y : array-like
            As passed by the user.
        inputs : ndarray of shape (n, ...)
            The checked samples.
        recipe : Recipe
            How the network will be trained.
        balanced : bool
            Whether each epoch will be a balanced bootstrap.

        Returns
        -------
        y : ndarray of shape (n,) or (n, n_classes)
            Labels, which become one-hot targets, or targets.

        Raises
        ------
        InputError
            If the objective cannot use these targets, or cannot use them with this recipe.
        """
        del recipe, balanced
        return check_target_values(y, inputs)

    def transform_targets(self, targets: np.ndarray) -> np.ndarray:
        """Transform targets, once before training, to the rows that `Batch.label` holds."""
        return targets

    def begin_epoch(self, epoch: int) -> None:
        """Prepare epoch number `epoch`, from 0; networks may be used for prediction here."""

    def batches(self, generator: Generator) -> tuple[Tensor, ...] | None:
        """Draw the rows of each batch of an epoch; None: as the recipe says."""
        del generator
        return None

    def __call__(self, batch: Batch) -> tuple[Tensor, Price]:
        """Return the network's inputs for a batch, and the loss as a function of its logits.

        Parameters
        ----------
        batch : Batch
            The samples.

        Returns
        -------
        inputs : Tensor
            Passed to the network.
        price : callable
            Maps the network's logits to the mean loss.
        """
        raise NotImplementedError


def with_consistency(
    batch: Batch,
    pictures: Tensor,
    view: Tensor,
    price: Price,
    posterior: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Price]:
    """Add the consistency term, if the recipe has one, to a loss on `view`.

    Parameters
    ----------
    batch : Batch
        The samples.
    pictures : Tensor of shape (n, height, width, channels)
        The augmented pictures; the strongly augmented view is made from them.
    view : Tensor of shape (n, channels, height, width)
        The network's inputs.
    price : callable
        Maps the logits of `view` to the mean loss.
    posterior : callable
        Maps the logits of `view` to class probabilities.

    Returns
    -------
    inputs : Tensor
        `view`, followed by the strongly augmented view if the recipe has a consistency term.
    price : callable
        Maps the logits of `inputs` to the mean loss.
    """
    recipe = batch.recipe
    if not recipe.consistency_weight:
        return view, price
    strong = batch.network_input(strong_augment(pictures, batch.generator))

    def loss_with_consistency(both_logits: Tensor) -> Tensor:
        logits, strong_logits = both_logits.chunk(2)
        agreement = consistency_loss(
            strong_logits, posterior(logits), batch.weight, recipe.consistency_threshold
        )
        return price(logits) + recipe.consistency_weight * agreement

    # In one forward pass, so that both views are normalised by the same batch statistics.
    return torch.cat([view, strong]), loss_with_consistency


@dataclass(frozen=True)
class CrossEntropy(Lesson):
    """Cross-entropy to target probabilities, with every term that a recipe can add to it."""

    is_stateful: ClassVar[bool] = False

    def __call__(self, batch: Batch) -> tuple[Tensor, Price]:
        """See `Lesson`."""
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


@dataclass(frozen=True)
class Likelihood(Lesson):
    """The corrected likelihood of possibly wrong labels; see :func:`likelihood_loss`."""

    is_stateful: ClassVar[bool] = False

    def check_targets(
        self, y: Any, inputs: np.ndarray, recipe: Recipe, *, balanced: bool
    ) -> np.ndarray:
        """Check likelihoods, and that nothing needs the classes, which they leave open."""
        if recipe.mixup:
            raise InputError(
                f'loss="likelihood" cannot be used with mixup={recipe.mixup:g}: set mixup=0, or '
                'role="noise_aware".'
            )
        likelihoods = check_likelihoods(y, inputs)
        if balanced and not are_certain(likelihoods).all():
            row = (~are_certain(likelihoods)).argmax()
            raise InputError(
                "balanced_bootstrap=True needs to know every sample's class, but row "
                f"{row} of y allows several: set balanced_bootstrap=False."
            )
        return likelihoods

    def transform_targets(self, targets: np.ndarray) -> np.ndarray:
        """Return logarithms, scaled to a largest value of 0, which changes no gradient.

        The rows are scaled here, in float64, because tiny values could be zero in the network's
        precision.
        """
        with np.errstate(divide="ignore"):
            return np.log(targets / targets.max(axis=1, keepdims=True))

    def __call__(self, batch: Batch) -> tuple[Tensor, Price]:
        """See `Lesson`."""
        weight = batch.recipe.entropy_weight
        pictures = batch.augmented()
        return with_consistency(
            batch,
            pictures,
            batch.network_input(pictures),
            lambda logits: likelihood_loss(logits, batch.label, batch.weight, weight),
            lambda logits: label_posterior(logits, batch.label),
        )


def check_likelihoods(y: Any, inputs: np.ndarray) -> np.ndarray:
    """Return y as likelihoods of shape (n, n_classes)."""
    shape = () if y is None else shape_of(y)
    if len(shape) != 2 or shape[1] < 2:
        raise InputError(
            f'loss="likelihood" takes y of shape (n, n_classes), but y has the shape {shape}: pass '
            "a row of likelihoods for each sample, one-hot where its label is certain."
        )
    with as_input_error():
        check_consistent_length(inputs, y)
        likelihoods = np.asarray(y).astype(np.float64)
    wrong = ~(np.isfinite(likelihoods) & (likelihoods >= 0)).all(axis=1)
    wrong |= ~(likelihoods > 0).any(axis=1)
    if wrong.any():
        row = wrong.argmax()
        raise InputError(
            "Likelihoods must be finite and non-negative, and positive for at least one class, but "
            f"row {row} of y is {likelihoods[row].tolist()}."
        )
    return likelihoods


LESSONS: dict[str, type[Lesson]] = {"cross_entropy": CrossEntropy, "likelihood": Likelihood}
"""The values of ``TorchClassifier(loss=…)``."""
