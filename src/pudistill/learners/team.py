"""Processes that train one network together, each of them on its part of every batch.

What is random is drawn by all of them from generators in the same state, so that they agree on a
batch, its augmentation and its mixture without a word. Each asks the network about its part; the
answers are put together, and any loss, one about the batch as a whole too, is what one process
would compute. It has a gradient for the own part only: the sum over the processes is that of the
batch.
"""

import copy
import logging
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

from pudistill.context import installed
from pudistill.exceptions import InputError
from pudistill.mapped import MappedArray

CPU = torch.device("cpu")
FEWEST = 2  # samples of a process: batch normalisation can do nothing with one
log = logging.getLogger(__name__)


class Team:
    """Processes that train together.

    Parameters
    ----------
    rank : int, default=0
        Which of them this one is.
    size : int, default=1
        Number of processes.
    device : torch.device, default=CPU
        On which this one computes.
    messages : ProcessGroup or None, default=None
        By which the first one tells the others what to do; None where there are no others.

    Attributes
    ----------
    n_messages : int
        What the first one has told the others so far.
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
        """Return which of the `n` rows of a batch are this process's; of too few, all are."""
        if self.n_copies(n) > 1:
            return slice(0, n)
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def n_copies(self, n: int) -> int:
        """Count the processes that compute each of `n` rows: one, or all where they are few."""
        return 1 if n >= FEWEST * self.size else self.size

    def gather(self, own: Tensor, n: int, dim: int = 0) -> Tensor:
        """Put the parts of all processes together.

        Parameters
        ----------
        own : Tensor of any shape
            What this process has for its part of `n` rows.
        n : int
            Number of rows.
        dim : int, default=0
            Dimension of the rows.

        Returns
        -------
        everything : Tensor
            With `n` rows. A gradient flows back to `own`, and to no other process.
        """
        if own.shape[dim] == n:
            return own
        place = self.part(n)
        before, after = list(own.shape), list(own.shape)
        before[dim], after[dim] = place.start, n - place.stop
        everything = torch.cat([own.new_zeros(before), own.detach(), own.new_zeros(after)], dim)
        with self._together():
            distributed.all_reduce(everything)
        first, _, last = everything.split([place.start, own.shape[dim], n - place.stop], dim)
        return torch.cat([first, own, last], dim)

    def any(self, happens: bool) -> bool:
        """Find out whether something happens in any of the processes."""
        count = torch.tensor(float(happens), device=self.device)
        self._add_up([count])
        return bool(count)

    def add_gradients(self, weights: Iterable[Tensor]) -> None:
        """Give each weight the sum of its gradients in all processes."""
        self._add_up([weight.grad for weight in weights if weight.grad is not None])

    def average(self, buffers: Iterable[Tensor]) -> None:
        """Give all processes the mean of what each has, as statistics of its parts of batches."""
        if self.size == 1:
            return
        means = [buffer for buffer in buffers if buffer.is_floating_point()]
        self._add_up(means)
        for buffer in means:
            buffer /= self.size

    def normalising(self, network: nn.Module) -> nn.Module:
        """Let batch normalisation look at the parts of all processes, where PyTorch can.

        Parameters
        ----------
        network : nn.Module
            A network.

        Returns
        -------
        network : nn.Module
            On a GPU a copy, to be trained, whose weights and statistics are those of `network`; on
            a CPU, where each process takes the statistics of its own part, `network` itself.
        """
        tensors = list(chain(network.parameters(), network.buffers()))
        if self.size == 1 or not any(tensor.is_cuda for tensor in tensors):
            return network
        return synchronised(network).train()

    def tell(self, *message: Any) -> None:
        """Tell the others what to do; it takes as long as it takes them to listen.

        Arrays travel as they are, those of a mapped file as its path.
        """
        if self.size == 1:
            return
        self.n_messages += 1
        buffers: list[pickle.PickleBuffer] = []
        written = BytesIO()
        _Pickler(written, protocol=5, buffer_callback=buffers.append).dump(message)
        arrays = [np.frombuffer(buffer.raw(), np.uint8) for buffer in buffers]
        about = (written.getvalue(), [len(array) for array in arrays])
        with self._together(), warnings.catch_warnings():
            # Nothing writes to them.
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            distributed.broadcast_object_list([about], src=0, group=self.messages)
            for array in arrays:
                distributed.broadcast(torch.from_numpy(array), src=0, group=self.messages)

    def listen(self) -> tuple:
        """Wait, for as long as it may take, for what the first process says to the others."""
        about: list[Any] = [None]
        with self._together():
            distributed.broadcast_object_list(about, src=0, group=self.messages)
            pickled, sizes = about[0]
            arrays = [torch.empty(size, dtype=torch.uint8) for size in sizes]
            for array in arrays:
                distributed.broadcast(array, src=0, group=self.messages)
        return pickle.loads(pickled, buffers=[array.numpy() for array in arrays])

    def _add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their sums over all processes, in one go."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        with self._together():
            distributed.all_reduce(flat)
        totals = flat.split([tensor.numel() for tensor in tensors])
        for tensor, total in zip(tensors, totals, strict=True):
            tensor.copy_(total.view_as(tensor))

    @contextmanager
    def _together(self) -> Iterator[None]:
        """Name the cause if processes cannot reach each other any more."""
        try:
            yield
        except RuntimeError as error:
            raise ConnectionError(
                f"One of the {self.size} processes that train together has ended, or cannot be "
                "reached"
            ) from error


ALONE = Team()
_team: ContextVar[Team] = ContextVar("pudistill_team", default=ALONE)


@contextmanager
def leading(team: Team) -> Iterator[None]:
    """Let networks inside the ``with`` block be trained by all processes of a team."""
    with installed(_team, team):
        yield


def current_team() -> Team:
    """Return who can train together here: in a thread of a pool, which has no turn, no one."""
    in_turn = threading.current_thread() is threading.main_thread()
    return _team.get() if in_turn else ALONE


def synchronised(network: nn.Module) -> nn.Module:
    """Copy a network, but for weights and buffers; its batch normalisation spans all processes."""
    shared = {id(tensor): tensor for tensor in chain(network.parameters(), network.buffers())}
    return nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(network, shared))


class _Pickler(pickle.Pickler):
    """Writes a mapped array as the path of its file, which all machines must know."""

    def reducer_override(self, value: Any) -> Any:
        mapped = MappedArray.of(value) if isinstance(value, np.ndarray) else None
        return NotImplemented if mapped is None else (_open, (mapped,))


def _open(mapped: MappedArray) -> np.memmap:
    try:
        return mapped.open()
    except (OSError, ValueError) as error:
        raise InputError(
            f"{mapped.path} cannot be read by all processes ({error}): put the data where every "
            "machine finds them under the same path."
        ) from error
