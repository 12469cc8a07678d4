"""The objective for labels that can be wrong: the corrected likelihood."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.utils import check_consistent_length
from torch import Tensor

from pudistill.exceptions import InputError, as_input_error
from pudistill.learners.networks.augmentation import strong_augment
from pudistill.learners.networks.input_checks import are_certain, shape_of
from pudistill.learners.networks.losses import consistency_loss, label_posterior, likelihood_loss
from pudistill.learners.networks.objectives import Batch, LossFn, Objective, consistency_weights
from pudistill.learners.networks.recipes import Recipe

SMALLEST_COUNT = 1e-3


@dataclass(frozen=True)
class Likelihood(Objective):
    """The corrected likelihood of possibly wrong labels; see :func:`likelihood_loss`.

    References
    ----------
    G. Patrini et al., "Making Deep Neural Networks Robust to Label Noise: a Loss Correction
    Approach", CVPR 2017, theorem 2.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill import TorchClassifier
    >>> X, y = np.repeat([[0.0], [1.0]], 50, axis=0), np.repeat([0, 1], 50)
    >>> network = TorchClassifier(loss="likelihood", role="noise_aware", epochs=20, random_state=0)
    >>> network.fit(X, np.eye(2)[y]).predict([[0], [1]])
    array([0, 1])
    """

    is_stateful: ClassVar[bool] = False

    def check_targets(
        self, y: Any, inputs: np.ndarray, recipe: Recipe, *, balanced: bool
    ) -> np.ndarray:
        """Check likelihoods, and that the recipe does not need classes, which they leave open."""
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

    def informative_rows(self, y: np.ndarray, recipe: Recipe) -> np.ndarray:
        """Leave out samples whose label says nothing, unless a term needs no label."""
        says_something = (y != y[:, :1]).any(axis=1)
        if recipe.consistency_weight or recipe.entropy_weight or not says_something.any():
            return super().informative_rows(y, recipe)
        return says_something

    def transform_targets(self, targets: np.ndarray) -> np.ndarray:
        """Return logarithms, scaled to a largest value of 0, which changes no gradient.

        The rows are scaled here, in float64, because tiny values could be zero in the network's
        precision.
        """
        with np.errstate(divide="ignore"):
            return np.log(targets / targets.max(axis=1, keepdims=True))

    def __call__(self, batch: Batch) -> tuple[Tensor, LossFn]:
        """See `Objective`."""
        recipe, pictures = batch.recipe, batch.augmented()
        view = batch.network_input(pictures)
        if recipe.consistency_weight:
            return _semi_supervised_loss(batch, pictures, view)
        return view, lambda logits: likelihood_loss(
            logits, batch.label, batch.weight, recipe.entropy_weight
        )


def _semi_supervised_loss(batch: Batch, pictures: Tensor, view: Tensor) -> tuple[Tensor, LossFn]:
    """Add the consistency term to the likelihood; see `Recipe`.

    Parameters
    ----------
    batch : Batch
        The samples.
    pictures : Tensor of shape (n, height, width, channels)
        The augmented pictures.
    view : Tensor of shape (n, channels, height, width)
        The same, normalised.

    Returns
    -------
    inputs : Tensor
        `view` of the samples whose labels say something, followed by strongly augmented views of
        those whose class is not certain.
    loss_fn : callable
        Maps the logits of `inputs` to the loss, as a mean over the whole batch.
    """
    recipe, n = batch.recipe, len(view)
    # 1. What the network says of the samples now needs no gradient, which saves half of the time.
    logits = batch.logits(batch.module, view)
    target = label_posterior(_aligned(logits, batch), batch.label)
    known = (batch.label != batch.label[:, :1]).any(dim=1).nonzero().ravel()
    open_ = (~_certain(batch)).nonzero().ravel()
    weights = (batch.weight * consistency_weights(batch, target.amax(dim=1)))[open_]
    target = target[open_]
    # 2. In one forward pass, so that both views are normalised by the same batch statistics.
    strong = batch.network_input(strong_augment(pictures[open_], batch.generator))

    def loss_fn(both_logits: Tensor) -> Tensor:
        of_known, of_strong = both_logits.tensor_split([len(known)])
        loss = both_logits.new_zeros(())
        if len(known):
            label, weight = batch.label[known], batch.weight[known]
            fit = likelihood_loss(of_known, label, weight, recipe.entropy_weight)
            loss = loss + len(known) / n * fit
        if len(open_):
            agreement = consistency_loss(of_strong, target, weights)
            loss = loss + len(open_) / n * recipe.consistency_weight * agreement
        return loss

    return torch.cat([view[known], strong]), loss_fn


def _certain(batch: Batch) -> Tensor:
    """Return for each sample whether only one class is possible, (n,), bool."""
    return batch.label.isfinite().sum(dim=1) == 1


def _aligned(logits: Tensor, batch: Batch) -> Tensor:
    """Shift logits so that predictions have the class frequencies of the certain labels.

    Else a network that learns from its own predictions favours the classes that it knows best.
    Distribution alignment of ReMixMatch (D. Berthelot et al., ICLR 2020), only with weights that
    adapt, see `Recipe`.
    """
    if batch.recipe.consistency_threshold is not None:
        return logits
    proba = logits.detach().softmax(dim=1)
    certain = batch.label.isfinite() & _certain(batch)[:, None]
    # The share of certain labels in a batch does not matter; without any, all classes are alike.
    n_certain = certain.to(proba.dtype).sum(dim=0) + SMALLEST_COUNT
    prior = batch.running_mean("certain", n_certain)
    return logits + (prior / batch.running_mean("predicted", proba.mean(dim=0))).log()


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
