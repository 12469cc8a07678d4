"""Tasks in parallel: results in order, warnings passed on, lost tasks run again."""

import os
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

from joblib import Parallel, delayed, effective_n_jobs
from joblib.externals.loky.process_executor import TerminatedWorkerError
from joblib.parallel import BACKENDS, get_active_backend

from pudistill.exceptions import InputError, RecoveredWarning, warn_user
from pudistill.learners.cache import StageFile, caching_in_worker, current_cache
from pudistill.utils import arrays
from pudistill.utils.cluster import runs_on_cluster
from pudistill.utils.threads import MAX_KILLED_IN_A_ROW, end_with_parent, one_thread
from pudistill.utils.time_limit import current_limit, limited_by

# Seconds that a process computes alone, over all its tasks, before it starts workers: starting them
# takes about as long.
PATIENCE = 5.0
_spent_alone = 0.0


def in_order(
    tasks: Iterable[tuple],
    n_jobs: int | None,
    *,
    alone: bool = False,
    prefer: str | None = None,
) -> Iterator[Any]:
    """Run tasks in parallel and yield their results in order.

    Warnings of workers are issued in this process, which has the user's warning filters. Tasks that
    were lost with a worker's process are run again.

    Parameters
    ----------
    tasks : iterable of tasks as from `joblib.delayed`
        The tasks. An iterator is read lazily: only the tasks that the workers need next are in
        memory.
    n_jobs : int or None
        Number of tasks at a time, as in joblib.
    alone : bool, default=False
        Whether each task can use all threads. By default a task computes on one thread, so that
        results do not depend on `n_jobs`.
    prefer : "threads" or None, default=None
        What to run tasks in unless the caller's ``joblib.parallel_config`` decides; processes by
        default.

    Yields
    ------
    result : object
        The return value of each task.
    """
    # Read here, because joblib draws some tasks in a thread without our context variables.
    cache, limit, elsewhere = current_cache(), current_limit(), runs_on_cluster()
    wanted = map(_unless_cached, tasks) if elsewhere else tasks
    recorded = (delayed(_run_recorded)(cache, limit, alone, *task) for task in wanted)
    for result, caught, files in _run_patiently(recorded, n_jobs, prefer):
        for warning in caught:
            warnings.warn_explicit(*warning)
        if files:
            cache.store(files)
        yield result


def _unless_cached(task: tuple) -> tuple:
    """Replace a task by its cached result, because nodes of a cluster may not see the cache."""
    call, args, kwargs = task
    result = call.lookup(*args, **kwargs) if hasattr(call, "lookup") else None
    return task if result is None else (_identity, (result,), {})


def _identity(result: Any) -> Any:
    return result


def _run_recorded(
    cache: Any, limit: Any, alone: bool, call: Callable, args: tuple, kwargs: dict
) -> tuple[Any, list[tuple], list[StageFile]]:
    """Run a task in a worker; return its result, its warnings and its stages to be stored."""
    threads = nullcontext() if alone else one_thread()
    with caching_in_worker(cache) as files, limited_by(limit), threads:
        # Warning filters belong to the whole process, so a thread cannot record its own warnings.
        if threading.current_thread() is not threading.main_thread():
            return call(*args, **kwargs), [], files
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            result = call(*args, **kwargs)
    recorded = [
        (record.message, record.category, record.filename, record.lineno) for record in caught
    ]
    return result, recorded, files


def _run_patiently(tasks: Iterator[tuple], n_jobs: int | None, prefer: str | None) -> Iterator[Any]:
    """Yield the results of tasks in order; start workers only if the tasks take long."""
    global _spent_alone
    if isinstance(get_active_backend(prefer)[0], BACKENDS["loky"]) and effective_n_jobs(n_jobs) > 1:
        while _spent_alone < PATIENCE:
            task = next(tasks, None)
            if task is None:
                return
            start = time.perf_counter()
            call, args, kwargs = task
            result = call(*args, **kwargs)
            _spent_alone += time.perf_counter() - start
            yield result
    yield from _run_surviving(tasks, n_jobs, prefer)


def _run_surviving(tasks: Iterator[tuple], n_jobs: int | None, prefer: str | None) -> Iterator[Any]:
    """Yield the results of tasks in order; run a task again if its worker was killed."""
    pending: deque[tuple] = deque()  # tasks drawn that have no result yet

    def draw() -> Iterator[tuple]:
        yield from list(pending)
        for task in tasks:
            pending.append(task)
            yield task

    generator = get_active_backend(prefer)[0].supports_return_generator
    parallel = Parallel(
        n_jobs=n_jobs,
        return_as="generator" if generator else "list",
        prefer=prefer,
        initializer=end_with_parent,
        initargs=(os.getpid(),),
    )
    n_killed = 0
    while True:
        results: Any = ()
        try:
            results = parallel(draw())
            for result in results:
                n_killed = 0
                pending.popleft()
                yield result
            return
        except TerminatedWorkerError as error:
            n_killed += 1
            if n_killed > MAX_KILLED_IN_A_ROW:
                raise InputError(
                    f"Workers were killed {n_killed} times in a row, which the system does when "
                    "memory is short: let fewer work at the same time, with a smaller n_jobs."
                ) from error
            lost = "1 task is" if len(pending) == 1 else f"{len(pending)} tasks are"
            warn_user(f"A worker was killed: {lost} run again.", RecoveredWarning)
        finally:
            if hasattr(results, "close"):
                # joblib advises to adjust the iterator of tasks if some are cancelled; here the
                # user interrupts the run, or an error ends it.
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", message=".*tasks (have been|which were)")
                    results.close()


def rows_in_order(tasks: Sequence[tuple], n_jobs: int | None, shape: tuple) -> Iterator[Any]:
    """Run tasks as `in_order` does; their results are arrays of one shape, with a row per sample.

    A result can also be a named tuple that has such an array as its field ``proba``. Workers on
    this machine write large arrays to a file, instead of sending them.
    """
    outputs: list[Any] = [None if runs_on_cluster() else arrays.in_file(shape) for _ in tasks]
    filling = (delayed(_fill)(output, *task) for output, task in zip(outputs, tasks, strict=True))
    for output, result in zip(outputs, in_order(filling, n_jobs), strict=True):
        if result is None:
            yield output
        elif getattr(result, "proba", result) is None:
            yield result._replace(proba=output)
        else:
            yield result


def _fill(output: Any, call: Callable, args: tuple, kwargs: dict) -> Any:
    """Write a result into `output` and return the rest; return all of it if `output` is no file."""
    result = call(*args, **kwargs)
    if output is None or not arrays.is_in_file(output):  # a copy that was sent to this process
        return result
    if hasattr(result, "proba"):
        output[:] = result.proba
        return result._replace(proba=None)
    output[:] = result
    return None
