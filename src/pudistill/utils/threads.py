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
from typing import Any, TypeVar

import psutil
from joblib import effective_n_jobs
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.process_executor import TerminatedWorkerError
from joblib.parallel import BACKENDS, get_active_backend
from threadpoolctl import ThreadpoolController

from pudistill.exceptions import InputError, RecoveredWarning, warn_user
from pudistill.utils.context import installed

Item = TypeVar("Item")
Result = TypeVar("Result")
PARENT_CHECK_SECONDS = 1.0  # between two checks by a worker that its parent is alive
# Workers killed one after the other; if there are more, the tasks themselves seem to be the cause.
MAX_KILLED_IN_A_ROW = 3


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


def usable_processes() -> int:
    """Return the number of processes that can compute here: one per core, but one in a worker."""
    is_loky = isinstance(get_active_backend()[0], BACKENDS["loky"])
    return effective_n_jobs(-1) if is_loky else 1


def prefetch_in_processes(
    call: Callable[[Item], Result], items: Iterable[Item], n_processes: int
) -> Iterator[Result]:
    """Yield ``call(item)`` for each item in order, while processes compute the next results.

    At most two items for each process are in memory. If a process is killed, the items without a
    result are computed again. The processes end with the last item.

    Raises
    ------
    InputError
        If processes are killed again and again.
    """
    items = iter(items)
    pending = deque(islice(items, 2 * n_processes))  # drawn, and their results not yet yielded
    futures: deque = deque()  # of the first items of `pending`
    n_killed = 0
    executor: Any = None
    try:
        while pending:
            try:
                # Called again, it returns the same processes, or new ones if one was killed.
                executor = get_reusable_executor(
                    max_workers=n_processes, initializer=end_with_parent, initargs=(os.getpid(),)
                )
                for item in islice(pending, len(futures), None):
                    futures.append(executor.submit(call, item))
                result = futures.popleft().result()
            except TerminatedWorkerError as error:
                n_killed += 1
                if n_killed > MAX_KILLED_IN_A_ROW:
                    raise InputError(
                        f"Worker processes were killed {n_killed} times in a row, which the system "
                        "does when memory is short: allow fewer of them, with LOKY_MAX_CPU_COUNT=1 "
                        "in the environment."
                    ) from error
                warn_user("A worker process was killed: its work is done again.", RecoveredWarning)
                futures.clear()
                continue
            n_killed = 0
            pending.popleft()
            pending.extend(islice(items, 1))
            yield result
    finally:
        if executor is not None:
            executor.shutdown(kill_workers=True)


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
    # Windows never gives an orphan another parent; elsewhere the parent may live on as a zombie.
    while os.getppid() == parent and psutil.pid_exists(parent):
        time.sleep(PARENT_CHECK_SECONDS)
    os._exit(1)
