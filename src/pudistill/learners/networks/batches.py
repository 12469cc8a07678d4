"""The batches of an epoch: which samples they hold, and how these are read.

The data stay on the device from the first step to the last: pictures as bytes, feature tables as
floats. An epoch is a permutation of their indices; a batch is gathered, augmented, normalised and
mixed there, without a data loader and without Python per sample.
"""

import warnings
from collections.abc import Iterator, Sequence
from mmap import mmap
from typing import Any

import numpy as np
import psutil
import torch
from torch import Generator, Tensor

from pudistill.data.lazy_pictures import LazyPictures, decoded_if_few
from pudistill.learners.networks.input_checks import are_certain
from pudistill.learners.networks.job import Job
from pudistill.learners.networks.objectives import Batch
from pudistill.learners.networks.prediction import N_AHEAD
from pudistill.learners.networks.process_group import ProcessGroup
from pudistill.learners.networks.recipes import Recipe
from pudistill.utils.threads import prefetch

# Samples larger than this share of an accelerator's free memory, or of the host's memory for a
# mapped file, are not loaded but streamed batch by batch.
LARGEST_SHARE = 0.5


def split_batches(order: Tensor, batch_size: int) -> tuple[Tensor, ...]:
    """Split an epoch into the fewest batches of at most `batch_size`, of equal size (within one).

    Every sample is in one batch, and no batch is a small remainder: its noisy gradient would count
    as much as any other, and batch normalisation would take its statistics over a sample or two.

    Examples
    --------
    >>> import torch
    >>> from pudistill.learners.networks.batches import split_batches
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
    random_order = _random_order(len(labels), generator)
    by_class = random_order[labels[random_order].argsort(stable=True)]
    sizes = labels.bincount()
    sizes = sizes[sizes > 0]
    starts = sizes.cumsum(0) - sizes
    # The first `n_rarest` samples of every class, which are in random order.
    chosen = by_class[
        (starts[:, None] + torch.arange(int(sizes.min()), device=labels.device)).ravel()
    ]
    return shuffled(chosen, generator)


def shared_batches(
    certain: Tensor, share: float, batch_size: int, generator: Generator
) -> tuple[Tensor, ...]:
    """Split an epoch into batches that each hold a fixed share of samples whose class is certain.

    If few samples among many are trusted, most random batches would hold at most one of them, and
    the network would fit uncertain labels before it has learned the certain labels. FixMatch also
    draws labelled and unlabelled samples separately.

    Parameters
    ----------
    certain : Tensor of shape (n,), bool
        Whether the class of each sample is certain; both kinds of sample must be there.
    share : float in (0, 1)
        Share of certain samples in a batch, which holds at least one sample of either kind.
    batch_size : int
        Number of samples in a batch, within one.
    generator : torch.Generator
        Source of randomness, on the device of `certain`.

    Returns
    -------
    batches : tuple of Tensor
        Indices, each batch in random order. Every uncertain sample is in one batch; the
        certain samples are repeated, each time in a new order.
    """
    certain_rows, uncertain_rows = certain.nonzero().ravel(), (~certain).nonzero().ravel()
    n_uncertain = max(1, round((1 - share) * batch_size))
    parts = split_batches(shuffled(uncertain_rows, generator), n_uncertain)
    # From the largest part, not from `batch_size`, which small data do not fill.
    n_certain = round(share / (1 - share) * len(parts[0]))
    n_certain = max(1, min(n_certain, batch_size - len(parts[0])))
    n_rounds = -(-n_certain * len(parts) // len(certain_rows))
    drawn = torch.cat([shuffled(certain_rows, generator) for _ in range(n_rounds)])
    batches = (
        torch.cat([drawn[i * n_certain : (i + 1) * n_certain], part])
        for i, part in enumerate(parts)
    )
    return tuple(shuffled(batch, generator) for batch in batches)


def same_label_rows(
    labels: Tensor, n_parts: int, generator: Generator, validation: Tensor | None = None
) -> Tensor:
    """Draw rows of `n_parts` samples that have one label, so that each sample is drawn.

    Parameters
    ----------
    labels : Tensor of shape (n_samples,), int64
        Class codes.
    n_parts : int
        Number of samples in a row.
    generator : torch.Generator
        Source of randomness, on the device of `labels`.
    validation : Tensor of shape (n_samples,), bool, default=None
        Samples from which the first of each row is drawn, at least one of each class that occurs;
        None: from all that are not yet drawn.

    Returns
    -------
    rows : Tensor of shape (n_rows, n_parts), int64
        In random order. The last row of a class is filled with samples that were drawn already.
    """

    def filled(rows: Tensor, n: int) -> Tensor:
        return shuffled(rows, generator).repeat(-(-n // len(rows)))[:n]

    n_drawn = n_parts if validation is None else n_parts - 1
    groups = []
    for label in labels.unique():
        of_class = (labels == label).nonzero().ravel()
        n_rows = -(-len(of_class) // n_drawn)
        group = filled(of_class, n_rows * n_drawn).view(n_rows, n_drawn)
        if validation is not None:
            first = filled(of_class[validation[of_class]], n_rows)
            group = torch.cat([first[:, None], group], dim=1)
        groups.append(group)
    return shuffled(torch.cat(groups), generator)


def shuffled(rows: Tensor, generator: Generator) -> Tensor:
    """Return the rows in random order."""
    return rows[_random_order(len(rows), generator)]


def _random_order(n: int, generator: Generator) -> Tensor:
    """Return the numbers from 0 to n - 1 in random order, on the generator's device."""
    return torch.randperm(n, generator=generator, device=generator.device)


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

        self.targets = on_device(job.objective.transform_targets(job.targets))
        n = len(job.inputs)
        self.weights = on_device(np.ones(n) if job.weights is None else job.weights)
        self.mean, self.inverse_scale = job.normalisation.on(job.hardware)
        self.means: dict[str, Tensor] = {}
        self.epochs = _epochs(job.targets, job.recipe, self.generator, balanced=job.balanced)

    def epoch(self) -> tuple[int, Iterator[tuple[Tensor, Tensor]]]:
        """Draw an epoch; return the number of its batches, and the rows and raw samples of each."""
        batches = self.job.objective.batches(self.generator)
        if batches is None:
            batches = next(self.epochs)
        # Reading takes time, so that the processes share it.
        if self.group.any(self.data is None):
            return len(batches), self._read_in_parts(batches)
        return len(batches), self._read(batches)

    def _read_in_parts(self, batches: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield whole batches: read this process's part of each, and gather the other parts."""
        parts = [rows[self.group.part(len(rows))] for rows in batches]
        for rows, (_, raw) in zip(batches, self._read(parts), strict=True):
            yield rows, self.group.gather(raw, len(rows))

    def _read(self, batches: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        if self.data is None:
            return _stream(self.job.inputs, batches, self.generator.device)
        return ((rows, self.data.index_select(0, rows)) for rows in batches)

    def batch(self, rows: Tensor, raw: Tensor) -> Batch:
        """Return samples as a batch, with their targets and weights."""
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
            self.job.module,
            self.means,
        )


def move_to_device(
    inputs: Sequence[np.ndarray | LazyPictures], device: torch.device
) -> list[Tensor | None]:
    """Move the samples of several jobs to the device; move an array that jobs share only once.

    Parameters
    ----------
    inputs : sequence of ndarray or LazyPictures
        Samples of each job.
    device : torch.device
        On a CPU, tensors share the memory of the arrays.

    Returns
    -------
    moved : list of Tensor or None
        None for all if samples must be streamed: more than a few pictures on disk, arrays too large
        for an accelerator, or mapped files too large for memory.
    """
    inputs = [decoded_if_few(samples) for samples in inputs]
    arrays = [samples for samples in inputs if not isinstance(samples, LazyPictures)]
    if len(arrays) < len(inputs):
        return [None] * len(inputs)
    # Tensors cannot have negative strides, which mirrored pictures have.
    distinct = {
        id(array): array.copy() if min(array.strides, default=0) < 0 else array for array in arrays
    }
    size = sum(array.nbytes for array in distinct.values())
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
        streams = size > LARGEST_SHARE * (free - torch.cuda.memory_allocated(device))
    else:
        memory = psutil.virtual_memory().total
        streams = any(map(_is_mapped, distinct.values())) and size > LARGEST_SHARE * memory
    if streams:
        return [None] * len(inputs)
    with warnings.catch_warnings():
        # Nothing writes to these arrays.
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        moved = {key: torch.from_numpy(array).to(device) for key, array in distinct.items()}
    return [moved[id(array)] for array in arrays]


def _is_mapped(array: Any) -> bool:
    """Return whether an array is a view of a mapped file."""
    while array is not None and not isinstance(array, mmap):
        array = getattr(array, "base", None)
    return array is not None


def _stream(
    inputs: np.ndarray | LazyPictures, batches: Sequence[Tensor], device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Read batches in threads, a few batches ahead of the training."""

    def load(rows: np.ndarray) -> Tensor:
        batch = torch.from_numpy(np.asarray(inputs[rows]))
        return batch.pin_memory() if device.type == "cuda" else batch

    # Before the first step, so that reading does not wait for the device at each batch.
    order = [rows.numpy(force=True) for rows in batches]
    for rows, batch in zip(batches, prefetch(load, order, N_AHEAD), strict=True):
        yield rows, batch.to(device, non_blocking=True)


def _epochs(
    targets: np.ndarray, recipe: Recipe, generator: Generator, *, balanced: bool
) -> Iterator[tuple[Tensor, ...]]:
    """Draw the batches of each epoch, without end."""
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
            yield split_batches(_random_order(len(targets), generator), batch_size)
