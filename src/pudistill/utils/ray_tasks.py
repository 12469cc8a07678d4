"""A joblib backend on Ray: arrays are sent once per node, and tasks lost with a node run again.

Ray has its own backend for joblib, which starts new processes for each call, sends whole arrays
with each task, and gives up when a node dies. This one uses the workers that Ray keeps.
"""

import io
import pickle
import socket
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple
from weakref import ref

import numpy as np
import ray
from joblib.parallel import ParallelBackendBase
from ray import cloudpickle
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pudistill import __version__
from pudistill.exceptions import InputError, RecoveredWarning, warn_user
from pudistill.utils.mapped import MappedArray
from pudistill.utils.threads import one_thread

ANSWER_SECONDS = 20.0  # within which a node must answer
MAX_RESTARTS = 3  # of one task; if it is lost again, the task itself must be the reason
MIN_SHARED_BYTES = 1_000_000  # a larger array is sent once per node, not with each task


class RayTasks(ParallelBackendBase):
    """Runs joblib's tasks as tasks of Ray, on all nodes of the connected cluster.

    Parameters
    ----------
    gpus : float, default=0
        Number of GPUs, or share of one GPU, that each task asks for in addition to its core.
    """

    supports_retrieve_callback = True
    is_cluster = True

    def __init__(self, gpus: float = 0.0) -> None:
        super().__init__()
        self.gpus = gpus
        self._task = ray.remote(_run).options(
            num_cpus=1, num_gpus=gpus, max_retries=0, scheduling_strategy="SPREAD"
        )
        self._object_store = ObjectStore(ray.put)
        self._running: set = set()
        self._n_lost = 0
        # joblib draws the next task in a callback. Callbacks run in their own thread, because Ray
        # needs the thread in which it reports the end of a task.
        self._callback_thread = ThreadPoolExecutor(1, "pudistill-ray")

    def check_nodes(self) -> None:
        """Raise an `InputError` if a node cannot run tasks, or no node has the GPUs for one."""
        nodes = self._nodes()
        if not any(map(self._n_slots, nodes)):
            most = max((node["Resources"].get("GPU", 0.0) for node in nodes), default=0.0)
            raise InputError(
                f"A member asks for {self.gpus:g} GPUs, but the largest number on a node of the "
                f"cluster is {most:g}: lower --gpus-per-member, or add a node."
                if self.gpus
                else "No node of the cluster has a core for tasks: add a node with cores."
            )
        answers = {self._ask_version(node["NodeID"]): _name(node) for node in nodes}
        received, missing = ray.wait(
            list(answers), num_returns=len(answers), timeout=ANSWER_SECONDS
        )
        for answer in received:
            version = ray.get(answer)
            if version != __version__:
                has = f"pudistill {version}" if version else "no pudistill"
                raise InputError(
                    f"The node {answers[answer]} of the cluster has {has}, but this machine has "
                    f"{__version__}: install the same version on all nodes."
                )
        if missing:
            raise InputError(
                f"The node {answers[missing[0]]} of the cluster gave no answer for "
                f"{ANSWER_SECONDS:.0f} s: stop its other work, or remove it."
            )

    def _nodes(self) -> list[dict[str, Any]]:
        """Return the nodes that are alive and have cores for tasks."""
        alive = [node for node in ray.nodes() if node["Alive"]]
        return [node for node in alive if node["Resources"].get("CPU", 0) >= 1]

    def _n_slots(self, node: dict[str, Any]) -> int:
        """Return the number of tasks that a node can run at the same time."""
        cores, gpus = node["Resources"]["CPU"], node["Resources"].get("GPU", 0.0)
        return int(min(cores, gpus / self.gpus + 1e-9) if self.gpus else cores)

    def _ask_version(self, node_id: str) -> Any:
        # A local function: a node without pudistill could not unpickle a function of this module.
        def version() -> str | None:
            try:
                from pudistill import __version__
            except ImportError:
                return None
            return __version__

        on_node = NodeAffinitySchedulingStrategy(node_id, soft=False)
        return ray.remote(version).options(num_cpus=0, scheduling_strategy=on_node).remote()

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return the number of tasks that run at a time; for -1, as many as the nodes can run.

        For -1 it is at least 2: if it were 1, joblib would run the tasks here and not on a node.
        """
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None or n_jobs > 0:
            return n_jobs or 1
        return max(2, sum(map(self._n_slots, self._nodes())) + 1 + n_jobs)

    def start_call(self) -> None:
        """Check arrays again: they might have changed since the last call."""
        self._object_store.recheck()

    def submit(self, func: Callable, callback: Callable | None = None) -> Future:
        """Send a task to the cluster."""
        outcome: Future = Future()
        if callback is not None:
            outcome.add_done_callback(callback)
        self._start(_serialise(func, self._object_store), outcome, n_restarts=MAX_RESTARTS)
        return outcome

    def _start(self, message: tuple, outcome: Future, n_restarts: int) -> None:
        try:
            task = self._task.remote(*message)
        except Exception as error:  # of any type; joblib would not notice it
            outcome.set_exception(
                InputError(
                    f"The cluster has ended ({_reason(error)}): start it and resume the run."
                )
            )
            return
        self._running.add(task)
        end = partial(self._end, task, message, outcome, n_restarts)
        task.future().add_done_callback(partial(self._callback_thread.submit, end))

    def _end(
        self, task: Any, message: tuple, outcome: Future, n_restarts: int, done: Future
    ) -> None:
        """Pass on the result or error of a task; a task lost with its worker is run again."""
        is_wanted = task in self._running
        self._running.discard(task)
        error = done.exception()
        if error is None:
            outcome.set_result(done.result())
        elif isinstance(error, RayTaskError):
            outcome.set_exception(getattr(error, "cause", error))
        elif n_restarts and is_wanted:
            self._n_lost += 1
            self._start(message, outcome, n_restarts - 1)
        else:
            outcome.set_exception(
                InputError(
                    f"The cluster lost a task {MAX_RESTARTS + 1} times ({_reason(error)}): check "
                    "that its nodes have enough memory for all tasks that run at a time, or lower "
                    "--n-jobs."
                )
            )

    @contextmanager
    def holding(self, parts: Sequence[Any]) -> Iterator[Callable[..., Iterator[Any]]]:
        """Let the nodes hold parts of a computation inside the ``with`` block.

        Parameters
        ----------
        parts : sequence of object
            Objects that can be pickled; each core holds some that follow each other. If a node is
            lost, another one starts with the parts as they were here.

        Yields
        ------
        each : callable
            ``each(name, *args)`` yields the result of this method of each part, in order.
        """
        self._object_store.recheck()
        bounds = np.linspace(0, len(parts), min(len(parts), self.effective_n_jobs(-1)) + 1)
        holder = ray.remote(_Holder).options(
            num_cpus=1,
            max_restarts=MAX_RESTARTS,
            max_task_retries=MAX_RESTARTS,
            scheduling_strategy="SPREAD",
        )
        holders: list[Any] = [
            holder.remote(*_serialise(parts[start:end], self._object_store))
            for start, end in pairwise(bounds.astype(int))
        ]

        def each(name: str, *args: Any) -> Iterator[Any]:
            sent = ray.put(args)
            for answer in [one.call.remote(name, sent) for one in holders]:
                yield from self._answer(answer)

        try:
            yield each
        finally:
            for one in holders:
                ray.kill(one)

    def _answer(self, answer: Any) -> Any:
        """Wait for what a node computes from its parts."""
        try:
            return ray.get(answer)
        except RayTaskError as error:
            raise getattr(error, "cause", error) from error
        except RayError as error:
            raise InputError(
                f"The cluster lost a part of a fit {MAX_RESTARTS + 1} times ({_reason(error)}): "
                "check that its nodes have enough memory and resume the run."
            ) from error

    def retrieve_result_callback(self, out: Future) -> Any:
        """Return the result of a task, or raise its error."""
        return pickle.loads(out.result())

    def stop_call(self) -> None:
        """Warn about tasks that were lost and run again."""
        n_lost, self._n_lost = self._n_lost, 0
        if n_lost:
            lost = "1 task was" if n_lost == 1 else f"{n_lost} tasks were"
            warn_user(f"{lost} lost with a worker of the cluster, and run again.", RecoveredWarning)

    def abort_everything(self, ensure_ready: bool = True) -> None:  # noqa: ARG002
        """Stop tasks whose results are no longer wanted."""
        running, self._running = self._running, set()
        for task in running:
            ray.cancel(task)


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0].rstrip(".")


def _name(node: dict[str, Any]) -> str:
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"


class _StoredArray(NamedTuple):
    reference: Any
    checksum: int
    is_alive: ref


class ObjectStore:
    """Puts each array into Ray's object store once, and keeps it there while it exists here.

    Parameters
    ----------
    put : callable
        Puts an array into the store, and returns a reference to it.
    """

    def __init__(self, put: Callable) -> None:
        self._put = put
        self._stored: dict[int, _StoredArray] = {}
        self._checked: set[int] = set()

    def recheck(self) -> None:
        """Check each array for changes before its next use."""
        self._checked.clear()

    def reference(self, array: np.ndarray) -> Any:
        """Return the reference to an array; an array that has changed is put there again."""
        key = id(array)
        if key not in self._checked:
            as_bytes = (
                np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            )  # dates have no buffer
            checksum = zlib.adler32(as_bytes.data)
            stored = self._stored.get(key)
            if stored is None or stored.checksum != checksum:
                is_alive = ref(array, lambda _: self._forget(key))
                self._stored[key] = _StoredArray(self._put(array), checksum, is_alive)
            self._checked.add(key)
        return self._stored[key].reference

    def _forget(self, key: int) -> None:
        """Forget an array that is gone: another one can get its address."""
        self._stored.pop(key, None)
        self._checked.discard(key)


def _serialise(func: Any, object_store: ObjectStore) -> tuple:
    """Return a task as arguments for Ray: its pickle, and references to its large arrays."""
    content = io.BytesIO()
    pickler = _TaskPickler(content, object_store)
    pickler.dump(func)
    return content.getvalue(), *pickler.references


class _TaskPickler(cloudpickle.CloudPickler):
    def __init__(self, file: io.BytesIO, object_store: ObjectStore) -> None:
        super().__init__(file)
        self.object_store = object_store
        self.references: list = []

    def persistent_id(self, value: Any) -> MappedArray | int | None:
        """Replace an array in a file by its place, and any other large array by a number."""
        is_array = isinstance(value, np.ndarray)
        if not is_array or value.nbytes < MIN_SHARED_BYTES or value.dtype.hasobject:
            return None
        if (mapped := MappedArray.of(value)) is not None:
            return mapped
        self.references.append(self.object_store.reference(value))
        return len(self.references) - 1


class _TaskUnpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, arrays: Sequence[np.ndarray]) -> None:
        super().__init__(file)
        self.arrays = arrays

    def persistent_load(self, pid: MappedArray | int) -> np.ndarray:
        return pid.open() if isinstance(pid, MappedArray) else self.arrays[pid]


class _Holder:
    """Holds parts of a computation on a node."""

    def __init__(self, content: bytes, *arrays: np.ndarray) -> None:
        with _explained_on_node():
            self._parts = _TaskUnpickler(io.BytesIO(content), arrays).load()

    def call(self, name: str, args: tuple) -> list[Any]:
        """Call a method of each part."""
        with _explained_on_node(), one_thread():
            return [getattr(part, name)(*args) for part in self._parts]


def _run(content: bytes, *arrays: np.ndarray) -> bytes:
    """Run a task on a node and return its pickled result; Ray has replaced references by arrays."""
    with _explained_on_node():
        return cloudpickle.dumps(_TaskUnpickler(io.BytesIO(content), arrays).load()())


@contextmanager
def _explained_on_node() -> Iterator[None]:
    """Raise what a node lacks as an `InputError` that names the node."""
    node = f"The node {socket.gethostname()} of the cluster"
    try:
        yield
    except ModuleNotFoundError as error:
        raise InputError(
            f"{node} lacks the module {error.name}: install it on all nodes."
        ) from error
    except (FileNotFoundError, PermissionError) as error:
        raise InputError(
            f"{node} cannot read {error.filename} ({error.strerror}): store it where "
            "every node can read it."
        ) from error
