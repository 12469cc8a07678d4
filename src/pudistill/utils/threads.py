"""Threads and worker processes: one thread for each worker, and no worker without its parent."""

import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from functools import cache
from itertools import islice
from typing import TypeVar

from threadpoolctl import ThreadpoolController

from pudistill.utils.context import installed

Item = TypeVar("Item")
Result = TypeVar("Result")
PARENT_CHECK_SECONDS = 1.0  # between two checks by a worker that its parent is alive


# How many workers can share a computation of this process. It stands for an argument of everything
# that computes in blocks, down to sums and predictions; in workers it is 1.
_n_workers: ContextVar[int] = ContextVar("n_workers", default=1)


def n_workers() -> int:
    """Return how many threads, or workers of a cluster, can share a computation."""
    return _n_workers.get()


def shared_by(n: int) -> AbstractContextManager[None]:
    """Let `n` threads, or workers of a cluster, share each computation in the ``with`` block."""
    return installed(_n_workers, n)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread inside the ``with`` block.

    The last digits of a sum depend on the number of threads that add it up. A network trained by
    one of two workers on two cores would therefore differ from a network trained without workers.
    A task that can run beside others always computes on one thread, which costs small problems
    nothing. Blocks can be nested. Workers that are threads of one process, such as dask's, share
    its limit, which ends with the last of their blocks.
    """
    with _thread_limit:
        yield


class _ThreadLimit:
    """The limit of this process, in force while any thread is inside the ``with`` block."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._n_inside = 0
        self._n_before: int | None = None

    def __enter__(self) -> None:
        torch = sys.modules.get("torch")
        with self._lock:
            if torch and self._n_before is None:  # PyTorch can be imported inside the block
                self._n_before = torch.get_num_threads()
            if self._n_inside == 0:
                self._blas = _controller(bool(torch)).limit(limits=1, user_api="blas")
            self._n_inside += 1
            if torch:  # each thread has its own setting
                torch.set_num_threads(1)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._n_inside -= 1
            if self._n_inside == 0:
                self._blas.restore_original_limits()
                if self._n_before is not None:
                    sys.modules["torch"].set_num_threads(self._n_before)
                    self._n_before = None


_thread_limit = _ThreadLimit()


def prefetch(
    call: Callable[[Item], Result], items: Iterable[Item], n_threads: int
) -> Iterator[Result]:
    """Yield ``call(item)`` for each item in order, while threads compute the next results.

    Examples
    --------
    >>> from pudistill.utils.threads import prefetch
    >>> list(prefetch(str.upper, "abc", n_threads=2))
    ['A', 'B', 'C']
    """
    items = iter(items)
    with ThreadPoolExecutor(n_threads) as pool:
        running = deque(pool.submit(call, item) for item in islice(items, n_threads))
        while running:
            result = running.popleft().result()
            running.extend(pool.submit(call, item) for item in islice(items, 1))
            yield result


@cache
def _controller(_: bool) -> ThreadpoolController:
    """Find the libraries that use threads: once, as this is slow, and again with PyTorch."""
    return ThreadpoolController()


def end_with_parent(parent: int) -> None:
    """End this worker process when its parent has been killed, and only then.

    Otherwise joblib's workers would finish their tasks and then wait minutes for more. Ctrl-C in a
    terminal interrupts workers too: they leave it to their parent, which ends them, instead of
    printing a traceback each.

    Parameters
    ----------
    parent : int
        Process id of the parent, which might already have ended.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_when_orphaned, args=(parent,), daemon=True).start()


def _exit_when_orphaned(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_SECONDS)
    os._exit(1)
