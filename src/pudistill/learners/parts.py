"""Parts of a computation that stay where they are, and are called again and again.

A step of a large fit takes some ten milliseconds for every part of its samples. Tasks that are sent
anew for each step would cost as much; here threads of this process, or nodes of a cluster that hold
their parts, are asked once a step.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from joblib import effective_n_jobs
from joblib.parallel import BACKENDS, get_active_backend

from pudistill.utils.cluster import runs_on_cluster
from pudistill.utils.threads import n_workers, one_thread, prefetch, shared_by

# Calls a method of each part with the same arguments; yields the results in the order of the parts.
Each = Callable[..., Iterator[Any]]


# Multiplications of a step from which on it gains by threads, 1.5 ms, and from which on by nodes of
# a cluster: 0.4 s, as it takes a second or two until they hold their parts.
WORTH_THREADS = 2**22
WORTH_CLUSTER = 2**30


@contextmanager
def dealt(parts: Sequence[Any], work: int) -> Iterator[Each]:
    """Deal parts to threads or to the nodes of a cluster for the time of a ``with`` block.

    Parameters
    ----------
    parts : sequence of object
        Objects whose methods can be called; on a cluster, they are pickled.
    work : int
        About how many multiplications a call of all parts makes.

    Yields
    ------
    each : callable
        ``each(name, *args)`` yields the result of this method of each part, in order. Whoever
        computes it, the results are the same.

    Examples
    --------
    >>> from pudistill.learners.parts import dealt
    >>> with dealt(["a b", "c"], work=0) as each:
    ...     list(each("split", " "))
    [['a', 'b'], ['c']]
    """
    if not is_worth_dealing(len(parts), work):
        # On one thread if there could be several: then nothing depends on the number of workers.
        with one_thread() if work >= WORTH_THREADS else nullcontext():
            yield lambda name, *args: (getattr(part, name)(*args) for part in parts)
    elif runs_on_cluster():
        with one_thread(), get_active_backend()[0].holding(parts) as each:
            yield each
    else:
        with one_thread(), ThreadPoolExecutor(n_workers(), "pudistill-part") as pool:
            yield lambda name, *args: pool.map(lambda part: getattr(part, name)(*args), parts)


def is_worth_dealing(n_parts: int, work: int) -> bool:
    """Return whether `dealt` deals so many parts of so much work to anybody."""
    worth = WORTH_CLUSTER if runs_on_cluster() else WORTH_THREADS
    return min(n_parts, n_workers()) > 1 and work >= worth


def dealing(n_jobs: int | None) -> AbstractContextManager[None]:
    """Let threads, or the workers of a cluster, share computations inside the ``with`` block.

    Parameters
    ----------
    n_jobs : int or None
        How many, as in joblib. Workers of dask share none: to them, tasks are sent.
    """
    is_local = isinstance(get_active_backend()[0], (BACKENDS["loky"], BACKENDS["threading"]))
    return shared_by(effective_n_jobs(n_jobs) if is_local or runs_on_cluster() else 1)


def n_threads() -> int:
    """Return how many threads of this process can share a computation."""
    return 1 if runs_on_cluster() else n_workers()


def shared_map(call: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """Yield ``call(item)`` for each item in order; the threads of `n_threads` share the items."""
    if n_threads() == 1:
        yield from map(call, items)
        return
    with one_thread():
        yield from prefetch(call, items, n_threads())
