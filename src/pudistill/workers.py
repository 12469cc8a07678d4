"""What workers mind: that results do not depend on their number, and that their work is wanted."""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

from threadpoolctl import ThreadpoolController

from pudistill.context import installed

PATIENCE = 1.0  # seconds after which a worker whose parent has died ends
_has_one_thread: ContextVar[bool] = ContextVar("pudistill_has_one_thread", default=False)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread inside the ``with`` block.

    Sums over several threads come out a little different for each number of threads, so that a
    network trained by one of two workers on two cores would not be the one that is trained without
    workers. What may be one of several at a time computes on one thread, however many there are;
    small problems lose nothing by it. In threads of a pool nothing is done: the number is one for
    the whole process.
    """
    if _has_one_thread.get() or threading.current_thread() is not threading.main_thread():
        yield
        return
    torch = sys.modules.get("torch")
    n_before = torch.get_num_threads() if torch else 1
    limits = _controller(bool(torch)).limit(limits=1, user_api="blas")
    with installed(_has_one_thread, True), limits:
        if torch:
            torch.set_num_threads(1)
        try:
            yield
        finally:
            if torch:
                torch.set_num_threads(n_before)


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
