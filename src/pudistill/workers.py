"""What workers mind: that results do not depend on their number, and that their work is wanted."""

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from itertools import islice
from typing import TypeVar

from threadpoolctl import ThreadpoolController

from pudistill.context import installed

Item = TypeVar("Item")
Result = TypeVar("Result")
PATIENCE = 1.0  # seconds after which a worker whose parent has died ends
_has_one_thread: ContextVar[bool] = ContextVar("pudistill_has_one_thread", default=False)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread inside the ``with`` block.

    Sums over several threads come out a little different for each number of threads, so that a
    network trained by one of two workers on two cores would not be the one that is trained without
    workers. What may be one of several at a time computes on one thread, however many there are;
    small problems lose nothing by it. Workers that are threads of one process, as those of dask,
    share its limits, which end with the last of them.
    """
    if _has_one_thread.get():
        yield
        return
    with installed(_has_one_thread, True), _limited:
        yield


class _Limited:
    """The limits of this process, while anybody is inside the ``with`` block."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._n_inside = 0

    def __enter__(self) -> None:
        torch = sys.modules.get("torch")
        with self._lock:
            if self._n_inside == 0:
                self._n_before = torch.get_num_threads() if torch else None
                self._blas = _controller(bool(torch)).limit(limits=1, user_api="blas")
            self._n_inside += 1
            if torch:  # in each thread anew
                torch.set_num_threads(1)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._n_inside -= 1
            if self._n_inside == 0:
                self._blas.restore_original_limits()
                if self._n_before is not None:
                    sys.modules["torch"].set_num_threads(self._n_before)


_limited = _Limited()


def ahead(
    call: Callable[[Item], Result], items: Iterable[Item], n_threads: int
) -> Iterator[Result]:
    """Call with one item after the other in threads, some ahead; yield the results in order.

    Examples
    --------
    >>> from pudistill.workers import ahead
    >>> list(ahead(str.upper, "abc", n_threads=2))
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
    """Find the libraries that have threads, which takes a while: once, and again with PyTorch."""
    return ThreadpoolController()


def end_with_parent(parent: int) -> None:
    """Let a worker process end when the process that it works for has been killed.

    joblib's own workers would finish what has been sent, and wait for more for minutes.

    Parameters
    ----------
    parent : int
        Number of that process, which may be dead by now.
    """
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PATIENCE)
    os._exit(1)
