"""The training loop of the project, and the arithmetic around it.

The data live on the device from the first step to the last: pictures as the bytes they are, feature
tables as floats. An epoch is a permutation of their indices; a batch is gathered, augmented,
normalised and mixed there, without a data loader and without Python per sample.
"""

import copy
import logging
import math
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from mmap import mmap
from typing import Any, Literal

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from pudistill.data.lazy_pictures import LazyPictures, decoded_if_few, is_lazy
from pudistill.exceptions import DivergedError, InputError
from pudistill.learners.lessons import CROSS_ENTROPY, LIKELIHOOD, Batch, Lesson, network_input
from pudistill.learners.recipes import Recipe
from pudistill.learners.team import ALONE, Team
from pudistill.workers import ahead

Precision = Literal["auto", "fp32", "bf16"]
log = logging.getLogger(__name__)

# Values of input in a batch of prediction: enough to keep the device busy, and few enough for the
# activations, some fifty times as large, to stay in a CPU's cache or a small GPU's memory.
PREDICTION_VALUES = {"cpu": 2**18, "accelerator": 2**22}
# Values of which mean and scale are taken at once.
MEASURED_VALUES = 2**20
# Samples of more than this share of an accelerator's free memory stay outside, and a mapped file of
# more than this share of the memory stays a file.
LARGEST_SHARE = 0.5
# Batches that are gathered ahead where samples come from outside the device.
N_AHEAD = 4
# Steps by which a stack of networks is compared with the networks in turn.
TRIAL_STEPS = 5


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


def drawn_so_far(device: torch.device) -> list[np.ndarray]:
    """Take down where PyTorch's own generators are: the process's, and that of an accelerator."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return [state.numpy() for state in states]


def set_drawn(states: list[np.ndarray], device: torch.device) -> None:
    """Let PyTorch's own generators go on where they were; to be called within `seeded`."""
    of_process, *of_accelerator = (torch.tensor(state) for state in states)
    torch.set_rng_state(of_process)
    for state in of_accelerator:
        torch.cuda.set_rng_state(state, device)


@dataclass(frozen=True, eq=False)
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
    def of(cls, inputs: np.ndarray | LazyPictures, weights: np.ndarray) -> "Normalisation":
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
        # Pictures as floats take eight times the memory that they take as bytes.
        at_once = max(1, MEASURED_VALUES // math.prod(inputs.shape[1:]))

        def average(power: int, centre: np.ndarray | float) -> np.ndarray:
            total = np.zeros(n_channels)
            for start in range(0, len(inputs), 1024):
                end = min(start + 1024, len(inputs))
                means = []
                for first in range(start, end, at_once):
                    block = np.asarray(inputs[first : min(first + at_once, end)])
                    values = block.reshape(len(block), -1, n_channels) - centre
                    means.append((values**power).mean(axis=1))
                total += share[start:end] @ np.concatenate(means)
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


@dataclass(frozen=True)
class Job:
    """A network to be trained, and all that decides how.

    Parameters
    ----------
    module : nn.Module
        A network on ``hardware.device``. It is trained in place.
    inputs : ndarray or LazyPictures of shape (n, height, width, channels), or (n, n_features)
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
    lesson : Lesson, default=CROSS_ENTROPY
        What the network learns from a batch, and so what `targets` are.
    balanced : bool, default=False
        Whether each epoch is a balanced bootstrap by the targets' most likely class.
    """

    module: nn.Module
    inputs: np.ndarray | LazyPictures
    targets: np.ndarray
    normalisation: Normalisation
    recipe: Recipe
    hardware: Hardware
    rng: np.random.RandomState
    weights: np.ndarray | None = None
    lesson: Lesson = CROSS_ENTROPY
    balanced: bool = False

    def predict(self) -> np.ndarray:
        """Predict the samples as they are, of shape (n, n_classes), by the network as it is."""
        return predict_probabilities(self.module, self.inputs, self.normalisation, self.hardware)

    def fits_beside(self, other: "Job") -> bool:
        """Whether both take the same steps with batches of the same sizes."""
        return (
            self._kind == other._kind
            and not (self.balanced or other.balanced)
            and not self.recipe.trusted_share
        )

    @property
    def is_self_contained(self) -> bool:
        """Whether this is all there is to know: lessons of methods remember more."""
        return self.lesson in (CROSS_ENTROPY, LIKELIHOOD)

    @property
    def _kind(self) -> tuple:
        """What must be the same for networks to take the same steps."""
        weights = [(name, value.shape) for name, value in self.module.state_dict().items()]
        shapes = (self.inputs.shape, self.targets.shape)
        return (type(self.module), weights, shapes, self.recipe, self.hardware, self.lesson)


def train(jobs: Sequence[Job]) -> Iterator[list[float]]:
    """Train networks in lockstep, one epoch for each answer that is asked for; see `Trainer`."""
    return iter(Trainer(jobs))


class Trainer:
    """Trains networks in lockstep, an epoch for each answer that is asked for.

    Several networks make every step together, as one stack; each draws its own random numbers, so
    that all end up with the weights, within rounding, that they would have got alone.

    Parameters
    ----------
    jobs : sequence of Job
        One, or several networks of one architecture whose jobs fit beside each other. Between
        epochs the networks may be used for prediction.
    team : Team, default=ALONE
        Processes that train one network together, whose job `is_self_contained`. The first one
        asks for epochs; the others run those that it tells them of.

    Yields
    ------
    losses : list of float, one a job
        Mean training loss of the epoch; that of likelihoods scaled to a largest value of 1.

    Raises
    ------
    DivergedError
        If a loss is no longer a finite number.
    InputError
        If a network does not answer with one logit for each class.
    """

    def __init__(self, jobs: Sequence[Job], team: Team = ALONE) -> None:
        self.jobs = jobs
        self.team = team
        self.recipe, self.hardware = jobs[0].recipe, jobs[0].hardware
        data = _on_device([job.inputs for job in jobs], self.hardware.device)
        self.feeds = [_Feed(job, samples, team) for job, samples in zip(jobs, data, strict=True)]
        self.network = (
            Stack([job.module for job in jobs])
            if len(jobs) > 1
            else _Alone(team.normalising(jobs[0].module))
        )
        self.optimiser = torch.optim.SGD(
            self.network.parameters(),
            lr=self.recipe.learning_rate,
            momentum=self.recipe.momentum,
            weight_decay=self.recipe.weight_decay,
            fused=self.hardware.device.type in ("cpu", "cuda"),
        )
        self.epoch = 0  # which comes next

    def __iter__(self) -> Iterator[list[float]]:
        self._call_others()
        while self.epoch < self.recipe.epochs:
            self.team.tell("epoch")
            yield self.run_epoch()

    def _call_others(self) -> None:
        """Tell the other processes of the team what is to be trained, and how far it is."""
        if self.team.size > 1:
            (job,) = self.jobs
            log.info("together", extra={"processes": self.team.size})
            elsewhere = replace(job, module=copy.deepcopy(job.module).cpu())
            self.team.tell("train", elsewhere, self.state())

    def run_epoch(self) -> list[float]:
        """Train for an epoch, the next one; return the losses."""
        epoch = self.epoch
        for job in self.jobs:
            job.lesson.begin_epoch(epoch)
            job.module.train()
        n_batches, batches = zip(*(feed.epoch() for feed in self.feeds), strict=True)
        total = torch.zeros(len(self.jobs), device=self.hardware.device)
        n_samples = 0
        for number, drawn in enumerate(zip(*batches, strict=True)):
            n_drawn = len(drawn[0][0])
            rate = self.recipe.rate(epoch + number / n_batches[0])
            total += self._step(drawn, rate) * n_drawn
            n_samples += n_drawn
        self.network.write_back()
        for job in self.jobs:
            self.team.average(job.module.buffers())
        # Read once an epoch: whoever asks a GPU for a number waits for all it has to do before.
        mean_losses = (total / n_samples).tolist()
        for mean_loss in mean_losses:
            if not math.isfinite(mean_loss):
                raise DivergedError(
                    f"The training loss became {mean_loss} in epoch {epoch + 1}: lower "
                    f"learning_rate, which is {self.recipe.learning_rate:g}."
                )
        self.epoch += 1
        return mean_losses

    def _step(self, drawn: Sequence[tuple[Tensor, Tensor]], rate: float) -> Tensor:
        self.optimiser.param_groups[0]["lr"] = rate
        self.optimiser.zero_grad()
        jobs = self.jobs
        batches = (feed.batch(*one) for feed, one in zip(self.feeds, drawn, strict=True))
        lessons = [job.lesson(batch) for job, batch in zip(jobs, batches, strict=True)]
        shown, prices = zip(*lessons, strict=True)
        n_shown = len(shown[0])
        parts = [inputs[self.team.part(n_shown)] for inputs in shown]
        with self.hardware.autocast():
            answers = self.network(parts)
        logits = [
            self.team.gather(_checked(own, part, job).to(self.hardware.dtype), n_shown, dim=-2)
            for own, part, job in zip(answers, parts, jobs, strict=True)
        ]
        losses = torch.stack([price(one) for price, one in zip(prices, logits, strict=True)])
        # No network has a part in another's loss.
        (losses.sum() / self.team.n_copies(n_shown)).backward()
        self.team.add_gradients(self.network.parameters())
        self.optimiser.step()
        return losses.detach()

    @property
    def can_be_saved(self) -> bool:
        """Whether `state` says all that is needed to go on."""
        return len(self.jobs) == 1 and self.jobs[0].is_self_contained

    def state(self) -> dict[str, Any]:
        """Take down, as arrays, where the training of one network is between two epochs."""
        (job,), (feed,) = self.jobs, self.feeds
        _, *rng = job.rng.get_state()
        return {
            "epoch": np.array(self.epoch),
            "weights": _as_arrays(job.module.state_dict()),
            "momenta": _as_arrays(
                {str(n): buffer for n, buffer in enumerate(self._momenta()) if buffer is not None}
            ),
            "generator": feed.generator.get_state().numpy(),
            "rng": [np.asarray(part) for part in rng],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where a training of the same job was; `state` is from `state`."""
        (job,), (feed,) = self.jobs, self.feeds
        self.epoch = int(state["epoch"])
        weights = {name: torch.tensor(value) for name, value in state["weights"].items()}
        job.module.load_state_dict(weights)
        for n, weight in enumerate(self.network.parameters()):
            if str(n) in state["momenta"]:
                # In the weight's layout, which fused steps take for granted.
                buffer = torch.empty_like(weight).copy_(torch.tensor(state["momenta"][str(n)]))
                self.optimiser.state[weight]["momentum_buffer"] = buffer.detach()
        feed.generator.set_state(torch.tensor(state["generator"]))
        key, position, has_gauss, cached = state["rng"]
        job.rng.set_state(("MT19937", key, int(position), int(has_gauss), float(cached)))

    def _momenta(self) -> list[Tensor | None]:
        known = self.optimiser.state
        return [known[weight].get("momentum_buffer") for weight in self.network.parameters()]


def _as_arrays(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.numpy(force=True).copy() for name, tensor in tensors.items()}


def _checked(logits: Tensor, inputs: Tensor, job: Job) -> Tensor:
    expected = (len(inputs), job.targets.shape[1])
    if logits.shape[-2:] != expected:
        raise InputError(
            f"The module answers a batch with the shape {tuple(logits.shape)}: it must return "
            f"logits of shape (n, n_classes), here {expected}."
        )
    return logits


class _Alone:
    """A network by itself, with the interface of a stack."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def parameters(self) -> Iterable[Tensor]:
        return self.module.parameters()

    def __call__(self, batches: Sequence[Tensor]) -> list[Tensor]:
        return [self.module(batches[0])]

    def write_back(self) -> None:
        pass


class Stack:
    """Networks of one architecture that compute together: their weights have a first dimension.

    Parameters
    ----------
    modules : sequence of nn.Module
        The networks, all in training or all in evaluation mode.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self.modules = modules
        self.weights, self.buffers = stack_module_state(list(modules))
        self._call = vmap(self._answer, randomness="different")

    def parameters(self) -> Iterable[Tensor]:
        """Return all weights, stacked."""
        return self.weights.values()

    def __call__(self, batches: Sequence[Tensor]) -> list[Tensor]:
        """Give each network its batch; all batches are of one shape."""
        return list(self._call(self.weights, self.buffers, torch.stack(list(batches))).unbind())

    def _answer(self, weights: dict, buffers: dict, batch: Tensor) -> Tensor:
        return functional_call(self.modules[0], (weights, buffers), (batch,))

    @torch.no_grad()
    def write_back(self) -> None:
        """Give the networks their weights."""
        stacked = self.weights | self.buffers
        for number, module in enumerate(self.modules):
            for name, value in module.state_dict(keep_vars=True).items():
                value.copy_(stacked[name][number])


_pays: dict[tuple, bool] = {}


def stacking_pays(jobs: Sequence[Job]) -> bool:
    """Find out, by a few steps of either, whether a stack is faster than its networks in turn.

    On a CPU it is not, which is known without a trial: convolutions of several networks at once
    are grouped convolutions, which take two to five times as long as the same ones in turn.

    Parameters
    ----------
    jobs : sequence of Job
        Networks of one architecture whose jobs fit beside each other.

    Returns
    -------
    pays : bool
        The answer is remembered for this number of networks of this kind.
    """
    first = jobs[0]
    device = first.hardware.device
    if len(jobs) == 1 or device.type == "cpu":
        return False
    recipe = first.recipe.lasting(1)
    key = (type(first.module), first.inputs.shape[1:], len(jobs), recipe, first.hardware)
    if key not in _pays:
        _pays[key] = _faster_as_stack(jobs)
    return _pays[key]


def _faster_as_stack(jobs: Sequence[Job]) -> bool:
    """Time a few steps of copies of the networks, in turn and as a stack.

    A stack that does not work here, for want of memory or because what it needs has not been
    written for this device and precision, is not faster.
    """
    recipe = jobs[0].recipe.lasting(1)
    stride = max(1, len(jobs[0].inputs) // (TRIAL_STEPS * recipe.batch_size))

    def copies() -> list[Job]:
        return [
            replace(
                job,
                module=copy.deepcopy(job.module),
                inputs=job.inputs[::stride],
                targets=job.targets[::stride],
                weights=None,
                recipe=recipe,
                rng=np.random.RandomState(0),
            )
            for job in jobs
        ]

    def seconds(groups: list[list[Job]]) -> float:
        start = time.perf_counter()
        for group in groups:
            list(train(group))  # which reads the loss, and so waits for the device
        return time.perf_counter() - start

    try:
        for _ in range(2):  # the first time warms up
            in_turn = seconds([[job] for job in copies()])
            together = seconds([copies()])
    except (RuntimeError, InputError):
        return False
    return together < in_turn


class _Feed:
    """The data of a job and its batches; `data` are the samples if the device has room for them."""

    def __init__(self, job: Job, data: Tensor | None, team: Team) -> None:
        self.job = job
        self.data = data
        self.team = team
        device = job.hardware.device
        self.generator = Generator(device).manual_seed(int(job.rng.randint(2**31 - 1)))

        def on_device(array: np.ndarray) -> Tensor:
            return torch.tensor(array, dtype=job.hardware.dtype, device=device)

        self.known = on_device(job.lesson.known(job.targets))
        n = len(job.inputs)
        self.weights = on_device(np.ones(n) if job.weights is None else job.weights)
        self.mean, self.inverse_scale = job.normalisation.on(job.hardware)
        self.epochs = _epochs(job.targets, job.recipe, self.generator, balanced=job.balanced)

    def epoch(self) -> tuple[int, Iterator[tuple[Tensor, Tensor]]]:
        """Draw an epoch: the number of its batches, and for each the samples and their inputs."""
        batches = self.job.lesson.batches(self.generator)
        if batches is None:
            batches = next(self.epochs)
        if self.team.any(self.data is None):  # reading takes time, which is shared
            return len(batches), self._in_parts(batches)
        return len(batches), self._read(batches)

    def _in_parts(self, batches: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Let each process of the team read a part of every batch, and give it to the others."""
        parts = [chosen[self.team.part(len(chosen))] for chosen in batches]
        for chosen, (_, raw) in zip(batches, self._read(parts), strict=True):
            yield chosen, self.team.gather(raw, len(chosen))

    def _read(self, batches: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        if self.data is None:
            return _streamed(self.job.inputs, batches, self.generator.device)
        return ((chosen, self.data.index_select(0, chosen)) for chosen in batches)

    def batch(self, rows: Tensor, raw: Tensor) -> Batch:
        """Gather what belongs to the samples."""
        return Batch(
            rows,
            raw,
            self.known.index_select(0, rows),
            self.weights.index_select(0, rows),
            self.job.recipe,
            self.mean,
            self.inverse_scale,
            self.job.hardware,
            self.generator,
            self.job.rng,
        )


def _on_device(
    inputs: Sequence[np.ndarray | LazyPictures], device: torch.device
) -> list[Tensor | None]:
    """Move samples to the device, once if they are the same; None if they are to be streamed.

    On a CPU they are shared and not copied; a mapped file that fills the memory is streamed, and so
    are pictures on disk, but for few.
    """
    inputs = [decoded_if_few(one) for one in inputs]
    arrays = [one for one in inputs if not isinstance(one, LazyPictures)]
    if len(arrays) < len(inputs):
        return [None] * len(inputs)
    # PyTorch knows no negative strides, such as mirrored pictures have.
    distinct = {id(one): one.copy() if min(one.strides, default=0) < 0 else one for one in arrays}
    size = sum(one.nbytes for one in distinct.values())
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
        streams = size > LARGEST_SHARE * (free - torch.cuda.memory_allocated(device))
    else:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        streams = any(map(_is_mapped, distinct.values())) and size > LARGEST_SHARE * memory
    if streams:
        return [None] * len(inputs)
    with warnings.catch_warnings():
        # Nothing writes to them.
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        moved = {key: torch.from_numpy(one).to(device) for key, one in distinct.items()}
    return [moved[id(one)] for one in arrays]


def _is_mapped(array: Any) -> bool:
    """Whether an array is a view of a file."""
    while array is not None and not isinstance(array, mmap):
        array = getattr(array, "base", None)
    return array is not None


def _streamed(
    inputs: np.ndarray | LazyPictures, batches: Sequence[Tensor], device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Gather batches in threads, some ahead of the device, which computes meanwhile."""

    def load(rows: np.ndarray) -> Tensor:
        batch = torch.from_numpy(np.asarray(inputs[rows]))
        return batch.pin_memory() if device.type == "cuda" else batch

    order = [chosen.numpy(force=True) for chosen in batches]  # one wait for the device, not many
    for chosen, batch in zip(batches, ahead(load, order, N_AHEAD), strict=True):
        yield chosen, batch.to(device, non_blocking=True)


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


def predict_probabilities(
    module: nn.Module,
    inputs: np.ndarray | LazyPictures,
    normalisation: Normalisation,
    hardware: Hardware,
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
    logits = _answers(module, module, inputs, normalisation, hardware)
    return logits.double().softmax(dim=1).numpy()


def embed(
    module: nn.Module,
    inputs: np.ndarray | LazyPictures,
    normalisation: Normalisation,
    hardware: Hardware,
) -> np.ndarray:
    """Return what the last linear layer is given, in evaluation mode, without augmentation.

    Parameters are those of `predict_probabilities`.

    Returns
    -------
    embedding : ndarray of shape (n, n_hidden), float32
        One row a sample.

    Raises
    ------
    InputError
        If the network has no linear layer.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    if not layers:
        raise InputError(
            f"{type(module).__name__} has no linear layer, whose input would be the embedding of a "
            "sample: use another network."
        )
    given: list[Tensor] = []
    hook = layers[-1].register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))

    def hidden(batch: Tensor) -> Tensor:
        given.clear()
        module(batch)
        if not given:
            raise InputError(f"{type(module).__name__} does not use its last linear layer.")
        return given[-1].flatten(1)

    try:
        return _answers(module, hidden, inputs, normalisation, hardware).float().numpy()
    finally:
        hook.remove()


@torch.inference_mode()
def _answers(
    module: nn.Module,
    answer: Callable[[Tensor], Tensor],
    inputs: np.ndarray | LazyPictures,
    normalisation: Normalisation,
    hardware: Hardware,
) -> Tensor:
    """Give all samples to `module` in evaluation mode, and gather what `answer` makes of them."""
    module.eval()
    mean, inverse_scale = normalisation.on(hardware)
    values = PREDICTION_VALUES["cpu" if hardware.device.type == "cpu" else "accelerator"]
    batch_size = max(1, values // int(np.prod(inputs.shape[1:])))
    starts = range(0, len(inputs), batch_size)

    def load(start: int) -> np.ndarray:
        # Copied batch by batch: `inputs` may be a read-only map of a file larger than memory.
        return np.ascontiguousarray(inputs[start : start + batch_size])

    # One piece for all answers: small ones that are kept would lie in the gaps that batches leave,
    # none of which could be used again.
    result = None
    parts = ahead(load, starts, N_AHEAD) if is_lazy(inputs) else map(load, starts)
    for start, part in zip(starts, parts, strict=True):
        batch = torch.tensor(part, device=hardware.device)
        with hardware.autocast():
            answers = answer(network_input(batch, mean, inverse_scale))
        if result is None:
            result = torch.empty((len(inputs), *answers.shape[1:]), dtype=answers.dtype)
        result[start : start + len(part)] = answers
    assert result is not None, "there are no samples"
    return result
