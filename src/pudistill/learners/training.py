"""The training loop of the project, and the arithmetic around it.

The data live on the device from the first step to the last: pictures as the bytes they are, feature
tables as floats. An epoch is a permutation of their indices; a batch is gathered, augmented,
normalised and mixed there, without a data loader and without Python per sample.
"""

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy

from pudistill.exceptions import InputError
from pudistill.learners.augmentation import AUGMENT, mixup, strong_augment
from pudistill.learners.recipes import Recipe

Precision = Literal["auto", "fp32", "bf16"]
Loss = Literal["cross_entropy", "likelihood"]

# Values of input in a batch of prediction: enough to keep the device busy, and few enough for the
# activations, some fifty times as large, to stay in a CPU's cache or a small GPU's memory.
PREDICTION_VALUES = {"cpu": 2**18, "accelerator": 2**22}


@dataclass(frozen=True)
class Hardware:
    """Where and in which arithmetic a network computes.

    Parameters
    ----------
    device : torch.device
        Holds the data and the network.
    dtype : torch.dtype
        Of weights, normalised inputs, targets and loss.
    bf16 : bool
        Whether convolutions and matrix products compute in bfloat16 (by autocast; weights and loss
        stay in `dtype`).
    """

    device: torch.device
    dtype: torch.dtype
    bf16: bool

    def autocast(self) -> torch.autocast:
        """Return the context in which the network's forward pass runs."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)


def choose_hardware(
    device: str | torch.device, precision: Precision, *, pictures: bool
) -> Hardware:
    """Decide on device and precision.

    `accelerate` chooses the device, from all those it knows and, under a launcher, of this process.
    Its ``Accelerator`` is not used: its precision is one for the whole process, while members,
    teachers and students with different ones may live side by side.

    Parameters
    ----------
    device : str or torch.device
        ``"auto"``, or what :class:`torch.device` accepts.
    precision : {"auto", "fp32", "bf16"}
        ``"auto"`` takes bfloat16 for pictures where the hardware has units for it. Feature tables
        on a CPU are cheap, so that they compute in float64, which makes a sample of weight 2 and
        the same sample twice give the same network to the last digits.
    pictures : bool
        Whether the samples are pictures.

    Returns
    -------
    hardware : Hardware

    Examples
    --------
    >>> from pudistill.learners.training import choose_hardware
    >>> choose_hardware("cpu", "fp32", pictures=True)
    Hardware(device=device(type='cpu'), dtype=torch.float32, bf16=False)
    """
    if precision not in ("auto", "fp32", "bf16"):
        raise InputError(f'precision={precision!r} must be "auto", "fp32" or "bf16".')
    if device == "auto":
        # Imported here: with a device named, nothing of accelerate is needed.
        from accelerate import PartialState

        place = PartialState().device
    else:
        try:
            place = torch.device(device)
            torch.empty(0, device=place)
        except (RuntimeError, AssertionError, TypeError) as error:
            raise InputError(
                f'device={device!r} cannot be used here: pass "cpu", or "auto" for what there is.'
            ) from error
    if precision != "auto":
        return Hardware(place, torch.float32, bf16=precision == "bf16")
    if not pictures:
        return Hardware(place, torch.float64 if place.type == "cpu" else torch.float32, bf16=False)
    return Hardware(place, torch.float32, bf16=_computes_bf16(place))


def _computes_bf16(device: torch.device) -> bool:
    """Whether `device` multiplies bfloat16 itself, faster than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        # Measured with AVX-512 BF16, one thread, channels_last: training is 1.3 times (small_cnn)
        # to 2 times (preact_resnet18) as fast as in float32. Without it, PyTorch emulates.
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return False


_seeding = threading.RLock()


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed PyTorch's own generators, for code that can use no other, and put them back after.

    Initial weights and dropout draw from generators of the whole process. Threads take turns, so
    that the result depends on the seed alone.
    """
    accelerators = [] if device.type == "cpu" else [device]
    device_type = "cuda" if device.type == "cpu" else device.type
    with _seeding, torch.random.fork_rng(accelerators, device_type=device_type):
        torch.manual_seed(seed)
        yield


@dataclass(frozen=True)
class Normalisation:
    """Mean and scale of every input channel, or every feature, of the training data.

    Parameters
    ----------
    mean, scale : ndarray of shape (n_channels,) or (n_features,), float64
        Inputs are mapped to ``(input - mean) / scale``.
    """

    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, inputs: np.ndarray, weights: np.ndarray) -> "Normalisation":
        """Measure `inputs`, channels last, each sample counted with its weight.

        Parameters
        ----------
        inputs : ndarray of shape (n, height, width, n_channels) or (n, n_features)
            Training data.
        weights : ndarray of shape (n,)
            Positive weights.
        """
        n_channels = inputs.shape[-1]
        share = weights / weights.sum()

        def average(power: int, centre: np.ndarray | float) -> np.ndarray:
            total = np.zeros(n_channels)
            # In slices: pictures as floats would take eight times the memory they take as bytes.
            for start in range(0, len(inputs), 1024):
                part = slice(start, start + 1024)
                values = inputs[part].reshape(len(inputs[part]), -1, n_channels) - centre
                total += share[part] @ (values**power).mean(axis=1)
            return total

        mean = average(1, centre=0.0)
        scale = np.sqrt(average(2, centre=mean))
        # What never varies carries nothing; the threshold is the rounding error of its mean.
        constant = scale <= 1e-12 * np.maximum(1, np.abs(mean))
        return cls(mean, np.where(constant, 1.0, scale))

    def on(self, hardware: Hardware) -> tuple[Tensor, Tensor]:
        """Return mean and 1 / scale as tensors."""
        mean = torch.as_tensor(self.mean, dtype=hardware.dtype, device=hardware.device)
        scale = torch.as_tensor(self.scale, dtype=hardware.dtype, device=hardware.device)
        return mean, scale.reciprocal()


def split_batches(order: Tensor, batch_size: int) -> tuple[Tensor, ...]:
    """Split an epoch into the fewest batches of at most `batch_size`, of equal size (within one).

    So no batch is a small remainder, whose noisy gradient would count as much as any other, and of
    which batch normalisation would take its statistics over a sample or two. Every sample is seen.

    Examples
    --------
    >>> import torch
    >>> from pudistill.learners.training import split_batches
    >>> [len(batch) for batch in split_batches(torch.arange(257), batch_size=128)]
    [86, 86, 85]
    """
    return order.tensor_split(-(-len(order) // batch_size))


def balanced_order(labels: Tensor, generator: Generator) -> Tensor:
    """Draw as many samples of every class as the rarest class has, in random order.

    The paper's balanced bootstrap, section III-B: drawn anew each epoch, without replacement.

    Parameters
    ----------
    labels : Tensor of shape (n,), int64
        Class of every sample; classes that no sample has do not count.
    generator : torch.Generator
        Source of randomness, on the device of `labels`.

    Returns
    -------
    order : Tensor of shape (n_present_classes * n_rarest,), int64
        Indices into `labels`.
    """

    def shuffled(n: int) -> Tensor:
        return torch.randperm(n, generator=generator, device=labels.device)

    random_order = shuffled(len(labels))
    by_class = random_order[labels[random_order].argsort(stable=True)]
    sizes = labels.bincount()
    sizes = sizes[sizes > 0]
    starts = sizes.cumsum(0) - sizes
    # The first `n_rarest` of every class, whose members stand in random order.
    chosen = by_class[
        (starts[:, None] + torch.arange(int(sizes.min()), device=labels.device)).ravel()
    ]
    return chosen[shuffled(len(chosen))]


def are_certain(targets: np.ndarray) -> np.ndarray:
    """Tell which rows of targets or likelihoods allow one class only."""
    return (targets > 0).sum(axis=1) == 1


def shared_batches(
    certain: Tensor, share: float, batch_size: int, generator: Generator
) -> tuple[Tensor, ...]:
    """Split an epoch into batches of which certain samples make up a fixed share.

    In a large pool with a few trusted samples most batches would hold none or one of them, and
    the network would fit what it is unsure of long before it has learnt what it can be sure of.
    FixMatch, too, draws labelled and unlabelled samples separately.

    Parameters
    ----------
    certain : Tensor of shape (n,), bool
        Which samples are of certain class. There must be some of either kind.
    share : float in (0, 1)
        Share of a batch; at least one sample of either kind is in it.
    batch_size : int
        Number of samples in a batch, more or less by one.
    generator : torch.Generator
        Source of randomness, on the device of `certain`.

    Returns
    -------
    batches : tuple of Tensor
        Indices, each batch in random order. Every other sample is in one batch; the certain ones
        are gone through again and again, each time in a new order.
    """

    def shuffled(n: int) -> Tensor:
        return torch.randperm(n, generator=generator, device=certain.device)

    sure, others = certain.nonzero().ravel(), (~certain).nonzero().ravel()
    parts = split_batches(others[shuffled(len(others))], max(1, round((1 - share) * batch_size)))
    # Of the largest part, so that small data, which fill no batch, get their share as well.
    n_sure = round(share / (1 - share) * len(parts[0]))
    n_sure = max(1, min(n_sure, batch_size - len(parts[0])))
    n_rounds = -(-n_sure * len(parts) // len(sure))
    drawn = torch.cat([sure[shuffled(len(sure))] for _ in range(n_rounds)])
    batches = (
        torch.cat([drawn[i * n_sure : (i + 1) * n_sure], part]) for i, part in enumerate(parts)
    )
    return tuple(batch[shuffled(len(batch))] for batch in batches)


def soft_loss(logits: Tensor, targets: Tensor, entropy_weight: float = 0.0) -> Tensor:
    """Cross-entropy with soft targets, plus the entropy of the predictions, paper equation (2).

    Parameters
    ----------
    logits : Tensor of shape (n, n_classes)
        What the network answers.
    targets : Tensor of shape (n, n_classes)
        Target probabilities, each row multiplied by the sample's weight.
    entropy_weight : float, default=0.0
        Weight of the entropy regularisation.

    Returns
    -------
    loss : Tensor of shape ()
        Mean over the batch.
    """
    log_probabilities = logits.log_softmax(dim=1)
    loss = -(targets * log_probabilities).sum(dim=1)
    if entropy_weight:
        loss = loss + entropy_weight * targets.sum(dim=1) * _entropy(log_probabilities)
    return loss.mean()


def likelihood_loss(
    logits: Tensor, log_likelihood: Tensor, weights: Tensor, entropy_weight: float = 0.0
) -> Tensor:
    r"""Negative log-likelihood of what is known of the labels: the corrected likelihood.

    A sample's loss is :math:`-\log \sum_c p(c \mid x) L_c`, where :math:`L_c` is the probability of
    what is known of its label if it were of class c. Where L is positive for one class only, that
    is the cross-entropy, up to a constant; where nothing is known, all :math:`L_c` are the same and
    the sample teaches nothing. Its gradient is that of the cross-entropy with the `posterior` as
    the target: every step is one of expectation-maximisation, with the network as its own teacher.

    Parameters
    ----------
    logits : Tensor of shape (n, n_classes)
        What the network answers.
    log_likelihood : Tensor of shape (n, n_classes)
        log L, which may be minus infinity, but not for all of a row.
    weights : Tensor of shape (n,)
        Sample weights.
    entropy_weight : float, default=0.0
        Weight of the entropy regularisation.

    Returns
    -------
    loss : Tensor of shape ()
        Mean over the batch.
    """
    log_probabilities = logits.log_softmax(dim=1)
    loss = -(log_probabilities + log_likelihood).logsumexp(dim=1)
    if entropy_weight:
        loss = loss + entropy_weight * _entropy(log_probabilities)
    return (weights * loss).mean()


def posterior(logits: Tensor, log_likelihood: Tensor) -> Tensor:
    """Class probabilities given the sample and what is known of its label, ∝ p(c | x) L_c.

    Parameters
    ----------
    logits : Tensor of shape (n, n_classes)
        What the network answers. No gradient flows back to it.
    log_likelihood : Tensor of shape (n, n_classes)
        As for `likelihood_loss`.

    Returns
    -------
    posterior : Tensor of shape (n, n_classes)
        Rows sum to 1.
    """
    return (logits.detach().log_softmax(dim=1) + log_likelihood).softmax(dim=1)


def consistency_loss(
    logits: Tensor, posterior: Tensor, weights: Tensor, threshold: float
) -> Tensor:
    """Cross-entropy of strongly augmented views to the class that the weak views are sure of.

    FixMatch's scheme [1]_ with the posterior in place of the prediction. Where nothing is known of
    any label but the trusted ones, it is FixMatch.

    Parameters
    ----------
    logits : Tensor of shape (n, n_classes)
        What the network answers to the strongly augmented views.
    posterior : Tensor of shape (n, n_classes)
        Class probabilities of the same samples by their weakly augmented views.
    weights : Tensor of shape (n,)
        Sample weights.
    threshold : float
        Samples count whose largest posterior is at least this.

    Returns
    -------
    loss : Tensor of shape ()
        Sum over the samples that count, divided by the number of all.

    References
    ----------
    .. [1] K. Sohn et al., "FixMatch: Simplifying semi-supervised learning with consistency and
       confidence", NeurIPS 2020.
    """
    confidence, label = posterior.max(dim=1)
    counts = weights * (confidence >= threshold)
    return (counts * cross_entropy(logits, label, reduction="none")).mean()


def _entropy(log_probabilities: Tensor) -> Tensor:
    return -(log_probabilities.exp() * log_probabilities).sum(dim=1)


def network_input(batch: Tensor, mean: Tensor, inverse_scale: Tensor) -> Tensor:
    """Normalise a batch; present pictures as ``(n, channels, height, width)`` in channels_last."""
    normalised = (batch.to(mean.dtype) - mean) * inverse_scale
    return normalised.permute(0, 3, 1, 2) if normalised.ndim == 4 else normalised


def train(
    module: nn.Module,
    inputs: np.ndarray,
    targets: np.ndarray,
    normalisation: Normalisation,
    recipe: Recipe,
    hardware: Hardware,
    rng: np.random.RandomState,
    *,
    weights: np.ndarray | None = None,
    loss: Loss = "cross_entropy",
    balanced: bool = False,
) -> Iterator[float]:
    """Train `module` in place, one epoch for each loss that is asked for.

    Parameters
    ----------
    module : nn.Module
        A network on ``hardware.device``. Between epochs it may be used for prediction.
    inputs : ndarray of shape (n, height, width, channels) or (n, n_features)
        Raw pictures or features.
    targets : ndarray of shape (n, n_classes)
        Target probabilities, or likelihoods.
    normalisation : Normalisation
        Applied to every batch after the augmentation.
    recipe : Recipe
        How to train. Likelihoods cannot be mixed: they need ``mixup=0``.
    hardware : Hardware
        Where, and in which precision.
    rng : RandomState
        Source of all randomness, but for what the network itself draws (dropout).
    weights : ndarray of shape (n,), default=None
        Sample weights with the mean 1; None: all are 1.
    loss : {"cross_entropy", "likelihood"}, default="cross_entropy"
        What `targets` are, and so which loss they are trained with: `soft_loss` or
        `likelihood_loss`.
    balanced : bool, default=False
        Whether each epoch is a balanced bootstrap by the targets' most likely class.

    Yields
    ------
    loss : float
        Mean training loss of the epoch; that of likelihoods scaled to a largest value of 1.

    Raises
    ------
    InputError
        If the loss is no longer a finite number, or the network does not answer with one logit for
        each class.
    """
    device = hardware.device
    generator = torch.Generator(device).manual_seed(int(rng.randint(2**31 - 1)))

    def on_device(array: np.ndarray) -> Tensor:
        return torch.tensor(array, dtype=hardware.dtype, device=device)

    data = torch.tensor(inputs, device=device)
    epochs = _epochs(targets, recipe, generator, balanced=balanced)
    if loss == "likelihood":
        # Scaled to a largest value of 1, which changes no gradient: a row's scale is rounded away
        # here and not in the network's precision, where what is tiny might be zero, too.
        with np.errstate(divide="ignore"):
            known = on_device(np.log(targets / targets.max(axis=1, keepdims=True)))
    else:
        known = on_device(targets)
    sample_weights = on_device(np.ones(len(inputs)) if weights is None else weights)
    mean, inverse_scale = normalisation.on(hardware)
    augmentations = [AUGMENT[name] for name in recipe.augment]
    optimiser = torch.optim.SGD(
        module.parameters(),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        fused=device.type in ("cpu", "cuda"),
    )

    def answer(batch: Tensor) -> Tensor:
        with hardware.autocast():
            logits = module(batch)
        expected = (len(batch), known.shape[1])
        if logits.shape != expected:
            raise InputError(
                f"The module answers a batch with the shape {tuple(logits.shape)}: it must return "
                f"logits of shape (n, n_classes), here {expected}."
            )
        return logits.to(known.dtype)

    def batch_loss(chosen: Tensor) -> Tensor:
        batch = data.index_select(0, chosen)
        for augment in augmentations:
            batch = augment(batch, generator)
        label, weight = known.index_select(0, chosen), sample_weights.index_select(0, chosen)
        view, wanted = network_input(batch, mean, inverse_scale), label
        if loss == "cross_entropy":
            wanted = label * weight[:, None]
        if recipe.mixup:
            view, wanted = mixup(view, wanted, rng.beta(recipe.mixup, recipe.mixup))
        if recipe.consistency_weight:
            strong = network_input(strong_augment(batch, generator), mean, inverse_scale)
            # In one pass: both views are normalised by the same statistics.
            logits, strong_logits = answer(torch.cat([view, strong])).chunk(2)
        else:
            logits = answer(view)
        if loss == "likelihood":
            total = likelihood_loss(logits, wanted, weight, recipe.entropy_weight)
        else:
            total = soft_loss(logits, wanted, recipe.entropy_weight)
        if recipe.consistency_weight:
            q = posterior(logits, label) if loss == "likelihood" else label
            agreement = consistency_loss(strong_logits, q, weight, recipe.consistency_threshold)
            total = total + recipe.consistency_weight * agreement
        return total

    def step(chosen: Tensor, rate: float) -> Tensor:
        optimiser.param_groups[0]["lr"] = rate
        optimiser.zero_grad()
        batch_mean = batch_loss(chosen)
        batch_mean.backward()
        optimiser.step()
        return batch_mean.detach()

    for epoch in range(recipe.epochs):
        module.train()
        batches = next(epochs)
        total = torch.zeros((), device=device)
        for number, chosen in enumerate(batches):
            total += step(chosen, recipe.rate(epoch + number / len(batches))) * len(chosen)
        # Read once an epoch: whoever asks a GPU for a number waits for all it has to do before.
        mean_loss = total.item() / sum(map(len, batches))
        if not math.isfinite(mean_loss):
            raise InputError(
                f"The training loss became {mean_loss} in epoch {epoch + 1}: lower learning_rate, "
                f"which is {recipe.learning_rate:g}."
            )
        yield mean_loss


def _epochs(
    targets: np.ndarray, recipe: Recipe, generator: Generator, *, balanced: bool
) -> Iterator[tuple[Tensor, ...]]:
    """Draw the batches of one epoch after the other."""
    device, batch_size, share = generator.device, recipe.batch_size, recipe.trusted_share
    labels = torch.tensor(targets.argmax(axis=1), device=device)
    certain = torch.tensor(are_certain(targets), device=device)
    too_few = 0 < int(certain.sum()) < share * len(targets)
    while True:
        if balanced:
            yield split_batches(balanced_order(labels, generator), batch_size)
        elif too_few:
            yield shared_batches(certain, share, batch_size, generator)
        else:
            order = torch.randperm(len(targets), generator=generator, device=device)
            yield split_batches(order, batch_size)


@torch.inference_mode()
def predict_probabilities(
    module: nn.Module, inputs: np.ndarray, normalisation: Normalisation, hardware: Hardware
) -> np.ndarray:
    """Class probabilities in evaluation mode, without augmentation.

    Parameters
    ----------
    module : nn.Module
        A trained network on ``hardware.device``.
    inputs : ndarray of shape (n, height, width, channels) or (n, n_features)
        Raw pictures or features.
    normalisation : Normalisation
        That of the training data.
    hardware : Hardware
        Where, and in which precision.

    Returns
    -------
    probabilities : ndarray of shape (n, n_classes), float64
        Rows sum to 1.
    """
    module.eval()
    mean, inverse_scale = normalisation.on(hardware)
    values = PREDICTION_VALUES["cpu" if hardware.device.type == "cpu" else "accelerator"]
    batch_size = max(1, values // int(np.prod(inputs.shape[1:])))
    parts = []
    for start in range(0, len(inputs), batch_size):
        # Copied batch by batch: `inputs` may be a read-only map of a file larger than memory.
        batch = torch.tensor(inputs[start : start + batch_size], device=hardware.device)
        with hardware.autocast():
            logits = module(network_input(batch, mean, inverse_scale))
        parts.append(logits.cpu())
    return torch.cat(parts).double().softmax(dim=1).numpy()
