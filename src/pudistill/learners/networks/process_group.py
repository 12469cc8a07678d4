"""Processes that train one network together, each on its part of every batch.

All processes draw random numbers from generators in the same state, so that batches, augmentation
and mixup are the same in each without communication. Each computes the logits of its part of a
batch; the parts are gathered, so that every process computes the loss of the whole batch. The loss
has a gradient for the process's own part only; the sum of the gradients over the processes is that
of the batch.
"""

import copy
import pickle
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from io import BytesIO
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn

from pudistill.exceptions import InputError
from pudistill.utils.context import installed
from pudistill.utils.mapped import MappedArray

CPU = torch.device("cpu")
MIN_ROWS = 2  # per process: batch normalisation needs more than one sample


class ProcessGroup:
    """Processes that train together.

    Parameters
    ----------
    rank : int, default=0
        The number of this process; 0 is the main process.
    size : int, default=1
        Number of processes.
    device : torch.device, default=CPU
        Device of this process.
    messages : torch.distributed.ProcessGroup or None, default=None
        Carries the messages of the main process; None if it is the only one.

    Attributes
    ----------
    n_messages : int
        Number of messages that the main process has sent.
    """

    def __init__(
        self,
        rank: int = 0,
        size: int = 1,
        device: torch.device = CPU,
        messages: Any = None,
    ) -> None:
        self.rank, self.size = rank, size
        self.device = device
        self.messages = messages
        self.n_messages = 0

    def part(self, n: int) -> slice:
        """Return this process's part of `n` rows of a batch; all rows if they are too few."""
        if self.n_copies(n) > 1:
            return slice(0, n)
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def n_copies(self, n: int) -> int:
        """Return how many processes compute each of `n` rows: one; all if the rows are too few."""
        return 1 if n >= MIN_ROWS * self.size else self.size

    def gather(self, own: Tensor, n: int, dim: int = 0) -> Tensor:
        """Concatenate the parts of all processes.

        Parameters
        ----------
        own : Tensor of any shape
            This process's part of `n` rows.
        n : int
            Number of rows.
        dim : int, default=0
            Dimension of the rows.

        Returns
        -------
        everything : Tensor
            With `n` rows. The gradient flows back to `own`, not to other processes.
        """
        if own.shape[dim] == n:
            return own
        part = self.part(n)
        before, after = list(own.shape), list(own.shape)
        before[dim], after[dim] = part.start, n - part.stop
        everything = torch.cat([own.new_zeros(before), own.detach(), own.new_zeros(after)], dim)
        with self._as_connection_error():
            distributed.all_reduce(everything)
        first, _, last = everything.split([part.start, own.shape[dim], n - part.stop], dim)
        return torch.cat([first, own, last], dim)

    def any(self, condition: bool) -> bool:
        """Return whether a condition is true in any process."""
        count = torch.tensor(float(condition), device=self.device)
        self._all_reduce([count])
        return bool(count)

    def add_gradients(self, weights: Iterable[Tensor]) -> None:
        """Replace the gradient of each weight by its sum over all processes."""
        self._all_reduce([weight.grad for weight in weights if weight.grad is not None])

    def average(self, buffers: Iterable[Tensor]) -> None:
        """Replace buffers, such as batch statistics, by their means over all processes."""
        if self.size == 1:
            return
        means = [buffer for buffer in buffers if buffer.is_floating_point()]
        self._all_reduce(means)
        for buffer in means:
            buffer /= self.size

    def synchronise_batch_norm(self, network: nn.Module) -> nn.Module:
        """Let batch normalisation take its statistics over all processes, as PyTorch can on a GPU.

        Parameters
        ----------
        network : nn.Module
            A network.

        Returns
        -------
        network : nn.Module
            On a GPU a copy to be trained, which shares its weights and statistics with `network`;
            on a CPU, where each process takes the statistics of its own part, `network` itself.
        """
        tensors = list(chain(network.parameters(), network.buffers()))
        if self.size == 1 or not any(tensor.is_cuda for tensor in tensors):
            return network
        return copy_with_synchronised_norm(network).train()

    def send(self, *message: Any) -> None:
        """Send a message to the other processes; wait until they receive it.

        Arrays are not pickled, and mapped arrays are sent as the path of their file.
        """
        if self.size == 1:
            return
        self.n_messages += 1
        buffers: list[pickle.PickleBuffer] = []
        pickled = BytesIO()
        _Pickler(pickled, protocol=5, buffer_callback=buffers.append).dump(message)
        arrays = [np.frombuffer(buffer.raw(), np.uint8) for buffer in buffers]
        header = (pickled.getvalue(), [len(array) for array in arrays])
        with self._as_connection_error(), warnings.catch_warnings():
            # Nothing writes to these arrays.
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            distributed.broadcast_object_list([header], src=0, group=self.messages)
            for array in arrays:
                distributed.broadcast(torch.from_numpy(array), src=0, group=self.messages)

    def receive(self) -> tuple:
        """Wait, as long as it takes, for a message of the main process."""
        header: list[Any] = [None]
        with self._as_connection_error():
            distributed.broadcast_object_list(header, src=0, group=self.messages)
            pickled, sizes = header[0]
            arrays = [torch.empty(size, dtype=torch.uint8) for size in sizes]
            for array in arrays:
                distributed.broadcast(array, src=0, group=self.messages)
        return pickle.loads(pickled, buffers=[array.numpy() for array in arrays])

    def _all_reduce(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their sums over all processes, in one message."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        with self._as_connection_error():
            distributed.all_reduce(flat)
        totals = flat.split([tensor.numel() for tensor in tensors])
        for tensor, total in zip(tensors, totals, strict=True):
            tensor.copy_(total.view_as(tensor))

    @contextmanager
    def _as_connection_error(self) -> Iterator[None]:
        """Raise an error that names the cause if a process can no longer be reached."""
        try:
            yield
        except RuntimeError as error:
            raise ConnectionError(
                f"One of the {self.size} processes that train together has ended, or cannot be "
                "reached"
            ) from error


SINGLE_PROCESS = ProcessGroup()


# A context variable, because the launcher sets the group around the whole program, and networks are
# trained many calls below it.
_process_group: ContextVar[ProcessGroup] = ContextVar(
    "pudistill_process_group", default=SINGLE_PROCESS
)


@contextmanager
def training_in(group: ProcessGroup) -> Iterator[None]:
    """Let all processes of a group train the networks inside the ``with`` block."""
    with installed(_process_group, group):
        yield


def current_process_group() -> ProcessGroup:
    """Return the processes that train together here; in a thread of a pool, only this process.

    Threads have no fixed order, so that the processes could not agree on which network is next.
    """
    is_main_thread = threading.current_thread() is threading.main_thread()
    return _process_group.get() if is_main_thread else SINGLE_PROCESS


def copy_with_synchronised_norm(network: nn.Module) -> nn.Module:
    """Copy a network, except weights and buffers; its batch normalisation spans all processes."""
    shared = {id(tensor): tensor for tensor in chain(network.parameters(), network.buffers())}
    return nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(network, shared))


class _Pickler(pickle.Pickler):
    """Pickles a mapped array as the path of its file, which all machines must share."""

    def reducer_override(self, value: Any) -> Any:
        mapped = MappedArray.of(value) if isinstance(value, np.ndarray) else None
        return NotImplemented if mapped is None else (_open_mapped, (mapped,))


def _open_mapped(mapped: MappedArray) -> np.memmap:
    try:
        return mapped.open()
    except (OSError, ValueError) as error:
        raise InputError(
            f"{mapped.path} cannot be read by all processes ({error}): store the data where every "
            "machine finds them under the same path."
        ) from error
