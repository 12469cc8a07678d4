"""Training objectives: the inputs that a network gets for a batch, and the loss of its logits."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from pudistill.learners.networks.augmentation import augmented, strong_augment
from pudistill.learners.networks.hardware import Hardware
from pudistill.learners.networks.input_checks import check_target_values
from pudistill.learners.networks.losses import confidence_weights, consistency_loss
from pudistill.learners.networks.normalisation import network_input
from pudistill.learners.networks.own import check_logits, naming_failures
from pudistill.learners.networks.recipes import Recipe

MOMENTUM = 0.99  # of running means: they forget half of a batch within 70 batches
LossFn = Callable[[Tensor], Tensor]
"""Maps the network's logits to the mean loss, of shape ()."""


@dataclass(frozen=True)
class Batch:
    """The samples of one training step.

    Attributes
    ----------
    rows : Tensor of shape (n,), int64
        Their positions in the training data.
    raw : Tensor of shape (n, height, width, channels) or (n, n_features), or tokens, int32 of \
            shape (n, n_tokens)
        The samples as they are stored.
    label : Tensor of shape (n, n_classes)
        Their rows of the targets that `Objective.transform_targets` returned.
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
    module : nn.Module
        The network, which objectives of a network that trains in a stack must not use.
    means : dict of str to Tensor
        Running means over the batches of this training, which `running_mean` keeps.
    """

    rows: Tensor
    raw: Tensor
    label: Tensor
    weight: Tensor
    recipe: Recipe
    mean: Tensor
    inverse_scale: Tensor
    hardware: Hardware
    generator: Generator
    rng: np.random.RandomState
    module: nn.Module
    means: dict[str, Tensor] = field(default_factory=dict)

    def running_mean(self, name: str, value: Tensor) -> Tensor:
        """Add a batch's value to a running mean that forgets old batches; return the mean."""
        mean = self.means.get(name, value).lerp(value, 1 - MOMENTUM)
        self.means[name] = mean
        return mean

    def augmented(self) -> Tensor:
        """Return the pictures with the recipe's random changes, drawn anew at each call."""
        pictures = self.raw
        for change in self.recipe.augment:
            pictures = augmented(pictures, change, self.generator)
        return pictures

    def network_input(self, samples: Tensor) -> Tensor:
        """Normalise samples for a network."""
        return network_input(samples, self.mean, self.inverse_scale)

    def view(self) -> Tensor:
        """Return the samples augmented and normalised."""
        return self.network_input(self.augmented())

    @torch.no_grad()
    def logits(self, module: nn.Module, inputs: Tensor) -> Tensor:
        """Return a network's logits without gradient, in the mode that it is in."""
        with self.hardware.autocast():
            return module(inputs).to(self.label.dtype)

    def logits_with_gradient(
        self, inputs: Tensor, weights: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Return the network's logits with first and second derivatives, for `Objective.backward`.

        Parameters
        ----------
        inputs : Tensor of shape (n, ...)
            Passed to the network.
        weights : dict of str to Tensor, default=None
            Weights on trial, by the names of ``module.named_parameters()``: the network's own
            weights and its batch statistics stay as they are. None: the network's own.

        Returns
        -------
        logits : Tensor of shape (n, n_classes)
            In the type of `label`.
        """
        # Fused attention has no second derivatives.
        with (
            self.hardware.autocast(),
            sdpa_kernel(SDPBackend.MATH),
            naming_failures(self.module, inputs),
        ):
            if weights is None:
                logits = self.module(inputs)
            else:
                buffers = {name: buffer.clone() for name, buffer in self.module.named_buffers()}
                logits = functional_call(self.module, buffers | dict(weights), (inputs,))
        return check_logits(logits, (len(inputs), self.label.shape[1])).to(self.label.dtype)

    def part(self, rows: slice | Tensor) -> "Batch":
        """Return some samples of the batch, by a slice or a mask, as a batch of their own."""
        own = {name: getattr(self, name)[rows] for name in ("rows", "raw", "label", "weight")}
        return replace(self, **own)


class Objective:
    """What a network is trained for: its inputs for a batch, and the loss of its logits.

    A loss that `TorchClassifier` accepts by name is a subclass, whose constructor needs no
    arguments, and a record in `OBJECTIVES`. The simplest subclass overrides `__call__`
    only. The methods in `pudistill.methods` create objectives without a record.

    Attributes
    ----------
    is_stateful : bool
        Whether the objective remembers anything from batch to batch. The training of a stateful
        objective is neither saved in checkpoints nor shared among processes: True is always safe.
        Stateless objectives that are equal (as frozen dataclasses are) can train as a stack.

    Examples
    --------
    >>> from torch.nn.functional import cross_entropy
    >>> from pudistill.learners.networks.objectives import Objective
    >>> class CrossEntropy(Objective):
    ...     def __call__(self, batch):
    ...         return batch.view(), lambda logits: cross_entropy(logits, batch.label)
    >>> CrossEntropy.is_stateful  # the safe value
    True
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

    def informative_rows(self, y: np.ndarray, recipe: Recipe) -> np.ndarray:
        """Return which samples the loss depends on, (n,), bool; the training leaves out the others.

        `y` is as from `check_targets`.
        """
        del recipe
        return np.ones(len(y), dtype=bool)

    def transform_targets(self, targets: np.ndarray) -> np.ndarray:
        """Transform targets, once before training, to the rows that `Batch.label` holds."""
        return targets

    def begin_epoch(self, epoch: int) -> None:
        """Prepare epoch number `epoch`, from 0; networks can be used for prediction here."""

    def batches(self, generator: Generator) -> tuple[Tensor, ...] | None:
        """Draw the rows of each batch of an epoch; return None to let the recipe decide."""
        del generator
        return None

    def __call__(self, batch: Batch) -> tuple[Tensor, LossFn]:
        """Return the network's inputs for a batch, and the loss as a function of its logits.

        Parameters
        ----------
        batch : Batch
            The samples.

        Returns
        -------
        inputs : Tensor
            Passed to the network.
        loss_fn : callable
            Maps the network's logits to the mean loss.
        """
        raise NotImplementedError

    def backward(self, batch: Batch, rate: float) -> Tensor | None:
        """Set the gradients of the network's weights; return None to leave that to the trainer.

        The trainer's gradient is that of the loss from `__call__`, which is then called. An
        objective whose step is another one, such as one that looks ahead at the loss after a step,
        overrides this method instead. `Batch.logits_with_gradient` computes the logits, also those
        of other weights. The trainer makes the step of the optimiser afterwards. Such an objective
        must be stateful, so that its network trains alone and in one process.

        Parameters
        ----------
        batch : Batch
            The samples, and the network, in training mode; its gradients are None.
        rate : float
            The learning rate of the step that follows.

        Returns
        -------
        loss : Tensor of shape () or None
            The mean loss, after the attributes ``grad`` of the weights were set.
        """
        del batch, rate
        return None


def step_on_trial(
    module: nn.Module, loss: Tensor, rate: float, *, create_graph: bool = False
) -> dict[str, Tensor]:
    """Return the weights that a network would have after a step of plain gradient descent.

    Parameters
    ----------
    module : nn.Module
        The network, which stays as it is.
    loss : Tensor of shape ()
        A loss of its logits; its graph is kept.
    rate : float
        Learning rate.
    create_graph : bool, default=False
        Whether the weights returned have a gradient, which contains second derivatives of the loss.

    Returns
    -------
    weights : dict of str to Tensor
        By the names of ``module.named_parameters()``; those that are not trained are left out.

    Examples
    --------
    >>> import torch
    >>> from pudistill.learners.networks.objectives import step_on_trial
    >>> layer = torch.nn.Linear(1, 1, bias=False)
    >>> torch.nn.init.constant_(layer.weight, 2.0)
    Parameter containing:
    tensor([[2.]], requires_grad=True)
    >>> step_on_trial(layer, (layer.weight**2).sum(), rate=0.1)
    {'weight': tensor([[1.6000]])}
    """
    weights = {name: w for name, w in module.named_parameters() if w.requires_grad}
    gradients = torch.autograd.grad(
        loss,
        list(weights.values()),
        retain_graph=True,
        create_graph=create_graph,
        materialize_grads=True,
    )
    stepped = {
        name: weight - rate * gradient
        for (name, weight), gradient in zip(weights.items(), gradients, strict=True)
    }
    if create_graph:
        return stepped
    return {name: weight.detach() for name, weight in stepped.items()}


def with_consistency(
    batch: Batch, pictures: Tensor, view: Tensor, loss_fn: LossFn
) -> tuple[Tensor, LossFn]:
    """Add the consistency term, if the recipe has one, to a loss of known labels.

    Parameters
    ----------
    batch : Batch
        The samples; the strongly augmented views are to agree with their labels.
    pictures : Tensor of shape (n, height, width, channels)
        The augmented pictures; the strongly augmented view is made from them.
    view : Tensor of shape (n, channels, height, width)
        The network's inputs.
    loss_fn : callable
        Maps the logits of `view` to the mean loss.

    Returns
    -------
    inputs : Tensor
        `view`, followed by the strongly augmented view if the recipe has a consistency term.
    loss_fn : callable
        Maps the logits of `inputs` to the mean loss.
    """
    recipe = batch.recipe
    if not recipe.consistency_weight:
        return view, loss_fn
    strong = batch.network_input(strong_augment(pictures, batch.generator))
    weights = batch.weight * consistency_weights(batch, batch.label.amax(dim=1))

    def loss_with_consistency(both_logits: Tensor) -> Tensor:
        logits, strong_logits = both_logits.chunk(2)
        agreement = consistency_loss(strong_logits, batch.label, weights)
        return loss_fn(logits) + recipe.consistency_weight * agreement

    # In one forward pass, so that both views are normalised by the same batch statistics.
    return torch.cat([view, strong]), loss_with_consistency


def consistency_weights(batch: Batch, confidence: Tensor) -> Tensor:
    """Weight samples by their largest posterior, by the recipe's threshold or adaptively."""
    threshold = batch.recipe.consistency_threshold
    if threshold is not None:
        return (confidence >= threshold).to(confidence.dtype)
    # Verified labels, whose posterior is 1, say nothing about how sure the network is.
    is_open = (confidence < 1).to(confidence.dtype)
    n_open = is_open.sum().clamp_min(1)
    mean = batch.running_mean("confidence", (is_open * confidence).sum() / n_open)
    variance = (is_open * (confidence - mean) ** 2).sum() / n_open
    return confidence_weights(confidence, mean, batch.running_mean("variance", variance))
