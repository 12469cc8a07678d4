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
from dataclasses import dataclass, field, replace
from mmap import mmap
from typing import Any, Literal

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from pudistill.data.lazy_pictures import LazyPictures, decoded_if_few, is_lazy
from pudistill.exceptions import DivergedError, InputError
from pudistill.learners.lessons import Batch, CrossEntropy, Lesson, are_certain, network_input
from pudistill.learners.recipes import Recipe
from pudistill.learners.team import SINGLE_PROCESS, ProcessGroup
from pudistill.workers import ahead

Precision = Literal["auto", "fp32", "bf16"]
log = logging.getLogger(__name__)

# Input values in a batch of prediction: enough to keep the device busy, and few enough that the
# activations, about fifty times as large, fit into a CPU's cache or a small GPU's memory.
PREDICTION_VALUES = {"cpu": 2**18, "accelerator": 2**22}
# Input values whose mean and scale are computed at once.
MEASURED_VALUES = 2**20
# Samples larger than this share of an accelerator's free memory, or of the host's memory for a
# mapped file, are not loaded but streamed batch by batch.
LARGEST_SHARE = 0.5
# Batches that threads gather ahead when samples are streamed.
N_AHEAD = 4
# Training steps that compare the speed of a stack with that of its networks one after another.
TRIAL_STEPS = 5


@dataclass(frozen=True)
class Hardware:
    """The device and the precision in which a network computes.

    Parameters
    ----------
    device : torch.device
        Holds the data and the network.
    dtype : torch.dtype
        Type of weights, normalised inputs, targets and loss.
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
    """Choose device and precision.

    `accelerate` chooses the device: the best available one or, under a launcher, the one of this
    process. Its ``Accelerator`` is not used, because it fixes one precision for the whole process,
    in which networks of different precisions may be trained.

    Parameters
    ----------
    device : str or torch.device
        ``"auto"``, or any value that :class:`torch.device` accepts.
    precision : {"auto", "fp32", "bf16"}
        ``"auto"`` means bfloat16 for pictures if the hardware has units for it. Feature tables on
        a CPU are cheap, so they use float64, in which a sample of weight 2 and two copies of it
        give the same network up to the last digits.
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
        # Imported here, because a named device does not need accelerate.
        from accelerate import PartialState

        chosen = PartialState().device
    else:
        try:
            chosen = torch.device(device)
            torch.empty(0, device=chosen)
        except (RuntimeError, AssertionError, TypeError) as error:
            raise InputError(
                f'device={device!r} is not available on this machine: pass "cpu", or "auto" for '
                "the best available device."
            ) from error
    if precision != "auto":
        return Hardware(chosen, torch.float32, bf16=precision == "bf16")
    if not pictures:
        return Hardware(
            chosen, torch.float64 if chosen.type == "cpu" else torch.float32, bf16=False
        )
    return Hardware(chosen, torch.float32, bf16=_computes_bf16(chosen))


def _computes_bf16(device: torch.device) -> bool:
    """Whether `device` multiplies bfloat16 itself, faster than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        # Measured with AVX-512 BF16, one thread, channels_last: training is 1.3 times (small_cnn)
        # to 2 times (preact_resnet18) as fast as in float32. Without AVX-512 BF16, PyTorch
        # emulates bfloat16.
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return False


_seeding = threading.RLock()


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed PyTorch's global generators inside the ``with`` block, and restore them after it.

    Initial weights and dropout can draw from no others. Threads take turns, so that the result
    depends on the seed only.
    """
    accelerators = [] if device.type == "cpu" else [device]
    device_type = "cuda" if device.type == "cpu" else device.type
    with _seeding, torch.random.fork_rng(accelerators, device_type=device_type):
        torch.manual_seed(seed)
        yield


def global_random_states(device: torch.device) -> list[np.ndarray]:
    """Return the states of PyTorch's global generators: the CPU's, and that of a GPU."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return [state.numpy() for state in states]


def set_global_random_states(states: list[np.ndarray], device: torch.device) -> None:
    """Restore the states from `global_random_states`; to be called inside `seeded`."""
    cpu_state, *gpu_states = (torch.tensor(state) for state in states)
    torch.set_rng_state(cpu_state)
    for state in gpu_states:
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
        """Compute the weighted mean and standard deviation of `inputs`, channels last.

        Parameters
        ----------
        inputs : ndarray of shape (n, height, width, n_channels) or (n, n_features)
            Training data.
        weights : ndarray of shape (n,)
            Positive weights.
        """
        n_channels = inputs.shape[-1]
        share = weights / weights.sum()
        # In small blocks: pictures take eight times as much memory as float64 than as bytes.
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
        # A constant carries no information; the threshold is the rounding error of its mean.
        constant = scale <= 1e-12 * np.maximum(1, np.abs(mean))
        return cls(mean, np.where(constant, 1.0, scale))

    def on(self, hardware: Hardware) -> tuple[Tensor, Tensor]:
        """Return mean and 1 / scale as tensors."""
        mean = torch.as_tensor(self.mean, dtype=hardware.dtype, device=hardware.device)
        scale = torch.as_tensor(self.scale, dtype=hardware.dtype, device=hardware.device)
        return mean, scale.reciprocal()


def split_batches(order: Tensor, batch_size: int) -> tuple[Tensor, ...]:
    """Split an epoch into the fewest batches of at most `batch_size`, of equal size (within one).

    Every sample is in one batch, and no batch is a small remainder: its noisy gradient would count
    as much as any other, and batch normalisation would take its statistics over a sample or two.

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
        Class of every sample; classes without samples are ignored.
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
    # The first `n_rarest` samples of every class, which are in random order.
    chosen = by_class[
        (starts[:, None] + torch.arange(int(sizes.min()), device=labels.device)).ravel()
    ]
    return chosen[shuffled(len(chosen))]


def shared_batches(
    certain: Tensor, share: float, batch_size: int, generator: Generator
) -> tuple[Tensor, ...]:
    """Split an epoch into batches that each hold a fixed share of samples of certain class.

    Otherwise, with few trusted samples among many others, most batches would hold one or none of
    them, and the network would fit uncertain labels before it has learned the certain ones.
    FixMatch, too, draws labelled and unlabelled samples separately.

    Parameters
    ----------
    certain : Tensor of shape (n,), bool
        Which samples are of certain class: at least one is, and one is not.
    share : float in (0, 1)
        Share of certain samples in a batch, which holds at least one sample of either kind.
    batch_size : int
        Number of samples in a batch, within one.
    generator : torch.Generator
        Source of randomness, on the device of `certain`.

    Returns
    -------
    batches : tuple of Tensor
        Indices, each batch in random order. Every uncertain sample is in one batch; the certain
        ones are repeated, each time in a new order.
    """

    def shuffled(n: int) -> Tensor:
        return torch.randperm(n, generator=generator, device=certain.device)

    sure, uncertain = certain.nonzero().ravel(), (~certain).nonzero().ravel()
    n_uncertain = max(1, round((1 - share) * batch_size))
    parts = split_batches(uncertain[shuffled(len(uncertain))], n_uncertain)
    # From the largest part, not from `batch_size`, which small data do not fill.
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
    """One network to be trained, its data and its settings.

    Parameters
    ----------
    module : nn.Module
        A network on ``hardware.device``, which is trained in place.
    inputs : ndarray or LazyPictures of shape (n, height, width, channels), or (n, n_features)
        Raw pictures or features.
    targets : ndarray of shape (n, n_classes)
        Target probabilities, or other targets that `lesson` accepts.
    normalisation : Normalisation
        Applied to every batch after the augmentation.
    recipe : Recipe
        How to train.
    hardware : Hardware
        Device and precision.
    rng : RandomState
        Source of all randomness except the network's own (dropout).
    weights : ndarray of shape (n,), default=None
        Sample weights with the mean 1; None: all are 1.
    lesson : Lesson, default=CrossEntropy()
        The loss.
    balanced : bool, default=False
        Whether each epoch is a balanced bootstrap by the most likely class of the targets.
    seed : int, default=0
        Seed of the network's own randomness while it trains (dropout).
    """

    module: nn.Module
    inputs: np.ndarray | LazyPictures
    targets: np.ndarray
    normalisation: Normalisation
    recipe: Recipe
    hardware: Hardware
    rng: np.random.RandomState
    weights: np.ndarray | None = None
    lesson: Lesson = field(default_factory=CrossEntropy)
    balanced: bool = False
    seed: int = 0

    def predict(self) -> np.ndarray:
        """Return the network's current class probabilities of its samples, (n, n_classes)."""
        return predict_probabilities(self.module, self.inputs, self.normalisation, self.hardware)

    def can_stack_with(self, other: "Job") -> bool:
        """Whether both can train as one stack: same steps, with batches of the same sizes."""
        return (
            self._stack_key == other._stack_key
            and not (self.balanced or other.balanced)
            and not self.recipe.trusted_share
        )

    @property
    def _stack_key(self) -> tuple:
        """Everything that networks of one stack must have in common."""
        weights = [(name, value.shape) for name, value in self.module.state_dict().items()]
        shapes = (self.inputs.shape, self.targets.shape)
        return (type(self.module), weights, shapes, self.recipe, self.hardware, self.lesson)


class Trainer:
    """Trains networks in lockstep; iterating over it trains one epoch after the other.

    Several networks make every step together, as one stack. Each draws its own random numbers, so
    that all get the weights, within rounding, that they would get alone.

    Parameters
    ----------
    jobs : sequence of Job
        One, or several networks of one architecture whose jobs can be stacked. Between
        epochs the networks may be used for prediction.
    group : ProcessGroup, default=SINGLE_PROCESS
        Processes that train one network together, whose objective is stateless. The main process
        iterates; the others run the epochs that it announces.

    Yields
    ------
    losses : list of float, one a job
        Mean training loss of the epoch.

    Raises
    ------
    DivergedError
        If a loss is no longer a finite number.
    InputError
        If a network does not return one logit for each class.
    """

    def __init__(self, jobs: Sequence[Job], group: ProcessGroup = SINGLE_PROCESS) -> None:
        self.jobs = jobs
        self.group = group
        self.recipe, self.hardware = jobs[0].recipe, jobs[0].hardware
        data = move_to_device([job.inputs for job in jobs], self.hardware.device)
        self.feeds = [
            BatchFeed(job, samples, group) for job, samples in zip(jobs, data, strict=True)
        ]
        self.network = (
            Stack([job.module for job in jobs])
            if len(jobs) > 1
            else SingleNetwork(group.synchronise_batch_norm(jobs[0].module))
        )
        self.optimiser = torch.optim.SGD(
            self.network.parameters(),
            lr=self.recipe.learning_rate,
            momentum=self.recipe.momentum,
            weight_decay=self.recipe.weight_decay,
            fused=self.hardware.device.type in ("cpu", "cuda"),
        )
        self.epoch = 0  # the next one

    def __iter__(self) -> Iterator[list[float]]:
        self._send_job()
        while self.epoch < self.recipe.epochs:
            self.group.send("epoch")
            yield self.run_epoch()

    def _send_job(self) -> None:
        """Send the job and its progress to the other processes of the group."""
        if self.group.size > 1:
            (job,) = self.jobs
            log.info("together", extra={"processes": self.group.size})
            on_cpu = replace(job, module=copy.deepcopy(job.module).cpu())
            self.group.send("train", on_cpu, self.state())

    def run_epoch(self) -> list[float]:
        """Train for one epoch; return the mean loss of each job."""
        epoch = self.epoch
        # 1. Draw the epoch's batches.
        for job in self.jobs:
            job.lesson.begin_epoch(epoch)
            job.module.train()
        n_batches, batches = zip(*(feed.epoch() for feed in self.feeds), strict=True)
        # 2. Make a step for each batch.
        total = torch.zeros(len(self.jobs), device=self.hardware.device)
        n_samples = 0
        for number, drawn in enumerate(zip(*batches, strict=True)):
            n_drawn = len(drawn[0][0])
            rate = self.recipe.rate(epoch + number / n_batches[0])
            total += self._step(drawn, rate) * n_drawn
            n_samples += n_drawn
        # 3. Bring weights and statistics back to the networks.
        self.network.write_back()
        for job in self.jobs:
            self.group.average(job.module.buffers())
        # 4. Read the losses, once an epoch: every read waits for all that a GPU still has to do.
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
        """Make one step with the (rows, raw samples) of each job; return the jobs' losses."""
        self.optimiser.param_groups[0]["lr"] = rate
        self.optimiser.zero_grad()
        # 1. Ask the objectives for inputs and loss functions.
        batches = (feed.batch(*samples) for feed, samples in zip(self.feeds, drawn, strict=True))
        lessons = [job.lesson(batch) for job, batch in zip(self.jobs, batches, strict=True)]
        inputs, prices = zip(*lessons, strict=True)
        # 2. Compute the logits of this process's part of the batch; gather those of the others.
        n_inputs = len(inputs[0])
        parts = [own_inputs[self.group.part(n_inputs)] for own_inputs in inputs]
        with self.hardware.autocast():
            answers = self.network(parts)
        logits = [
            self.group.gather(
                _check_logits(own, part, job).to(self.hardware.dtype), n_inputs, dim=-2
            )
            for own, part, job in zip(answers, parts, self.jobs, strict=True)
        ]
        # 3. Update the weights. The losses can be added: no network has a part in another's loss.
        losses = torch.stack([price(own) for price, own in zip(prices, logits, strict=True)])
        (losses.sum() / self.group.n_copies(n_inputs)).backward()
        self.group.add_gradients(self.network.parameters())
        self.optimiser.step()
        return losses.detach()

    @property
    def can_be_saved(self) -> bool:
        """Whether `state` contains all that is needed to continue."""
        return len(self.jobs) == 1 and not self.jobs[0].lesson.is_stateful

    def state(self) -> dict[str, Any]:
        """Return the state of the training of one network, between two epochs, as arrays."""
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
        """Continue a training of the same job from its `state`."""
        (job,), (feed,) = self.jobs, self.feeds
        self.epoch = int(state["epoch"])
        weights = {name: torch.tensor(value) for name, value in state["weights"].items()}
        job.module.load_state_dict(weights)
        for n, weight in enumerate(self.network.parameters()):
            if str(n) in state["momenta"]:
                # In the memory layout of the weight, which fused steps assume.
                buffer = torch.empty_like(weight).copy_(torch.tensor(state["momenta"][str(n)]))
                self.optimiser.state[weight]["momentum_buffer"] = buffer.detach()
        feed.generator.set_state(torch.tensor(state["generator"]))
        key, position, has_gauss, cached = state["rng"]
        job.rng.set_state(("MT19937", key, int(position), int(has_gauss), float(cached)))

    def _momenta(self) -> list[Tensor | None]:
        state = self.optimiser.state
        return [state[weight].get("momentum_buffer") for weight in self.network.parameters()]


def _as_arrays(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.numpy(force=True).copy() for name, tensor in tensors.items()}


def _check_logits(logits: Tensor, inputs: Tensor, job: Job) -> Tensor:
    expected = (len(inputs), job.targets.shape[1])
    if logits.shape[-2:] != expected:
        raise InputError(
            f"The module returns the shape {tuple(logits.shape)} for a batch: it must return "
            f"logits of shape (n, n_classes), here {expected}."
        )
    return logits


class SingleNetwork:
    """One network with the interface of a `Stack`."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def parameters(self) -> Iterable[Tensor]:
        """Return the weights."""
        return self.module.parameters()

    def __call__(self, batches: Sequence[Tensor]) -> list[Tensor]:
        """Return the network's logits of the only batch."""
        return [self.module(batches[0])]

    def write_back(self) -> None:
        """Do nothing: the network is trained in place."""


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
        self._forward_all = vmap(self._forward, randomness="different")

    def parameters(self) -> Iterable[Tensor]:
        """Return all weights, stacked."""
        return self.weights.values()

    def __call__(self, batches: Sequence[Tensor]) -> list[Tensor]:
        """Return each network's logits of its batch; all batches have one shape."""
        stacked = torch.stack(list(batches))
        return list(self._forward_all(self.weights, self.buffers, stacked).unbind())

    def _forward(self, weights: dict, buffers: dict, batch: Tensor) -> Tensor:
        return functional_call(self.modules[0], (weights, buffers), (batch,))

    @torch.no_grad()
    def write_back(self) -> None:
        """Copy the stacked weights and buffers to the networks."""
        stacked = self.weights | self.buffers
        for number, module in enumerate(self.modules):
            for name, value in module.state_dict(keep_vars=True).items():
                value.copy_(stacked[name][number])


_is_stack_faster: dict[tuple, bool] = {}


def stacking_pays(jobs: Sequence[Job]) -> bool:
    """Find out, by a few steps of either, whether a stack is faster than its networks in turn.

    On a CPU it never is, which needs no trial: convolutions of several networks at once are
    grouped convolutions, which take two to five times as long as the same ones in turn.

    Parameters
    ----------
    jobs : sequence of Job
        Networks of one architecture whose jobs can be stacked.

    Returns
    -------
    pays : bool
        Measured once for each kind and number of networks.
    """
    first = jobs[0]
    device = first.hardware.device
    if len(jobs) == 1 or device.type == "cpu":
        return False
    recipe = first.recipe.lasting(1)
    key = (type(first.module), first.inputs.shape[1:], len(jobs), recipe, first.hardware)
    if key not in _is_stack_faster:
        _is_stack_faster[key] = _measure_stack(jobs)
    return _is_stack_faster[key]


def _measure_stack(jobs: Sequence[Job]) -> bool:
    """Time a few steps of copies of the networks, in turn and as a stack.

    A stack that fails, for lack of memory or because PyTorch does not support an operation on this
    device and in this precision, counts as slower.
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
            list(Trainer(group))  # reads the losses, and so waits for the device
        return time.perf_counter() - start

    try:
        for _ in range(2):  # the first round warms up
            in_turn = seconds([[job] for job in copies()])
            together = seconds([copies()])
    except (RuntimeError, InputError):
        return False
    return together < in_turn


class BatchFeed:
    """Draws the batches of a job.

    Parameters
    ----------
    job : Job
        The training.
    data : Tensor or None
        The samples on the device; None: they are streamed from ``job.inputs``.
    group : ProcessGroup
        Processes that share the reading of streamed samples.
    """

    def __init__(self, job: Job, data: Tensor | None, group: ProcessGroup) -> None:
        self.job = job
        self.data = data
        self.group = group
        device = job.hardware.device
        self.generator = Generator(device).manual_seed(int(job.rng.randint(2**31 - 1)))

        def on_device(array: np.ndarray) -> Tensor:
            return torch.tensor(array, dtype=job.hardware.dtype, device=device)

        self.targets = on_device(job.lesson.transform_targets(job.targets))
        n = len(job.inputs)
        self.weights = on_device(np.ones(n) if job.weights is None else job.weights)
        self.mean, self.inverse_scale = job.normalisation.on(job.hardware)
        self.epochs = _epochs(job.targets, job.recipe, self.generator, balanced=job.balanced)

    def epoch(self) -> tuple[int, Iterator[tuple[Tensor, Tensor]]]:
        """Draw an epoch: the number of its batches, and the rows and raw samples of each."""
        batches = self.job.lesson.batches(self.generator)
        if batches is None:
            batches = next(self.epochs)
        # Reading takes time, so that the processes share it.
        if self.group.any(self.data is None):
            return len(batches), self._read_in_parts(batches)
        return len(batches), self._read(batches)

    def _read_in_parts(self, batches: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Read this process's part of every batch, and gather the parts of the others."""
        parts = [rows[self.group.part(len(rows))] for rows in batches]
        for rows, (_, raw) in zip(batches, self._read(parts), strict=True):
            yield rows, self.group.gather(raw, len(rows))

    def _read(self, batches: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        if self.data is None:
            return _stream(self.job.inputs, batches, self.generator.device)
        return ((rows, self.data.index_select(0, rows)) for rows in batches)

    def batch(self, rows: Tensor, raw: Tensor) -> Batch:
        """Return the samples with their targets and weights."""
        return Batch(
            rows,
            raw,
            self.targets.index_select(0, rows),
            self.weights.index_select(0, rows),
            self.job.recipe,
            self.mean,
            self.inverse_scale,
            self.job.hardware,
            self.generator,
            self.job.rng,
        )


def move_to_device(
    inputs: Sequence[np.ndarray | LazyPictures], device: torch.device
) -> list[Tensor | None]:
    """Move the samples of several jobs to the device; an array that jobs share is moved once.

    Parameters
    ----------
    inputs : sequence of ndarray or LazyPictures
        Samples of each job.
    device : torch.device
        A CPU shares their memory.

    Returns
    -------
    moved : list of Tensor or None
        None if the samples are to be streamed: pictures on disk, except a few; arrays too large for
        an accelerator; mapped files too large for the memory.
    """
    inputs = [decoded_if_few(samples) for samples in inputs]
    arrays = [samples for samples in inputs if not isinstance(samples, LazyPictures)]
    if len(arrays) < len(inputs):
        return [None] * len(inputs)
    # Tensors have no negative strides, such as mirrored pictures have.
    distinct = {
        id(array): array.copy() if min(array.strides, default=0) < 0 else array for array in arrays
    }
    size = sum(array.nbytes for array in distinct.values())
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
        moved = {key: torch.from_numpy(array).to(device) for key, array in distinct.items()}
    return [moved[id(array)] for array in arrays]


def _is_mapped(array: Any) -> bool:
    """Whether an array is a view of a mapped file."""
    while array is not None and not isinstance(array, mmap):
        array = getattr(array, "base", None)
    return array is not None


def _stream(
    inputs: np.ndarray | LazyPictures, batches: Sequence[Tensor], device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Gather batches in threads, some ahead of the device, which computes meanwhile."""

    def load(rows: np.ndarray) -> Tensor:
        batch = torch.from_numpy(np.asarray(inputs[rows]))
        return batch.pin_memory() if device.type == "cuda" else batch

    order = [rows.numpy(force=True) for rows in batches]  # waits for the device once, not often
    for rows, batch in zip(batches, ahead(load, order, N_AHEAD), strict=True):
        yield rows, batch.to(device, non_blocking=True)


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
    """Compute class probabilities in evaluation mode, without augmentation.

    Parameters
    ----------
    module : nn.Module
        A trained network on ``hardware.device``.
    inputs : ndarray of shape (n, height, width, channels) or (n, n_features)
        Raw pictures or features.
    normalisation : Normalisation
        That of the training data.
    hardware : Hardware
        Device and precision.

    Returns
    -------
    probabilities : ndarray of shape (n, n_classes), float64
        Rows sum to 1.
    """
    logits = _forward(module, module, inputs, normalisation, hardware)
    return logits.double().softmax(dim=1).numpy()


def compute_embeddings(
    module: nn.Module,
    inputs: np.ndarray | LazyPictures,
    normalisation: Normalisation,
    hardware: Hardware,
) -> np.ndarray:
    """Compute the inputs of the last linear layer in evaluation mode, without augmentation.

    Parameters are those of `predict_probabilities`.

    Returns
    -------
    embeddings : ndarray of shape (n, n_hidden), float32
        One row a sample.

    Raises
    ------
    InputError
        If the network has no linear layer.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    if not layers:
        raise InputError(
            f"{type(module).__name__} has no linear layer, whose inputs would be the embeddings: "
            "use another network."
        )
    last_inputs: list[Tensor] = []
    hook = layers[-1].register_forward_pre_hook(lambda _, inputs: last_inputs.append(inputs[0]))

    def embed_batch(batch: Tensor) -> Tensor:
        last_inputs.clear()
        module(batch)
        if not last_inputs:
            raise InputError(f"{type(module).__name__} does not use its last linear layer.")
        return last_inputs[-1].flatten(1)

    try:
        return _forward(module, embed_batch, inputs, normalisation, hardware).float().numpy()
    finally:
        hook.remove()


@torch.inference_mode()
def _forward(
    module: nn.Module,
    function: Callable[[Tensor], Tensor],
    inputs: np.ndarray | LazyPictures,
    normalisation: Normalisation,
    hardware: Hardware,
) -> Tensor:
    """Put `module` in evaluation mode; apply `function` to all inputs, batch by batch."""
    module.eval()
    mean, inverse_scale = normalisation.on(hardware)
    n_values = PREDICTION_VALUES["cpu" if hardware.device.type == "cpu" else "accelerator"]
    batch_size = max(1, n_values // int(np.prod(inputs.shape[1:])))
    starts = range(0, len(inputs), batch_size)

    def load(start: int) -> np.ndarray:
        # Copied batch by batch: `inputs` may be a read-only map of a file larger than memory.
        return np.ascontiguousarray(inputs[start : start + batch_size])

    # All results are written to one array: small ones that are kept would lie in the gaps that
    # freed batches leave, so that the gaps could not be used again.
    results = None
    parts = ahead(load, starts, N_AHEAD) if is_lazy(inputs) else map(load, starts)
    for start, part in zip(starts, parts, strict=True):
        batch = torch.tensor(part, device=hardware.device)
        with hardware.autocast():
            result = function(network_input(batch, mean, inverse_scale))
        if results is None:
            results = torch.empty((len(inputs), *result.shape[1:]), dtype=result.dtype)
        results[start : start + len(part)] = result
    assert results is not None, "there are no samples"
    return results
