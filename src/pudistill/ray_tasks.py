"""joblib on Ray: each array is sent once a node, and what is lost with a node is run again.

Ray has a back end for joblib, which starts new processes for each call, sends whole arrays with
each task, and gives up when a node dies. This one uses the workers that Ray keeps.
"""

import io
import pickle
import socket
import warnings
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple
from weakref import ref

import numpy as np
import ray
from joblib.parallel import ParallelBackendBase
from ray import cloudpickle
from ray.exceptions import RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pudistill import __version__
from pudistill.exceptions import InputError, RecoveredWarning
from pudistill.mapped import MappedArray

PATIENCE = 20.0  # seconds that a node has to answer
MAX_LOSSES = 3  # of one task; then it is the task that kills its workers
LARGE = 1_000_000  # bytes from which on an array is sent once a node instead of with each task


class RayTasks(ParallelBackendBase):
    """joblib's tasks as tasks of Ray, on all nodes of the cluster that is connected to.

    Parameters
    ----------
    gpus : float, default=0
        GPUs, or the share of one, that each task asks for beside its core.
    """

    supports_retrieve_callback = True
    is_elsewhere = True

    def __init__(self, gpus: float = 0.0) -> None:
        super().__init__()
        self.gpus = gpus
        self._task = ray.remote(_run).options(
            num_cpus=1, num_gpus=gpus, max_retries=0, scheduling_strategy="SPREAD"
        )
        self._shelf = Shelf(ray.put)
        self._running: set = set()
        self._n_lost = 0
        # Ray calls back in a thread that it needs itself, and joblib then draws the next task.
        self._hands = ThreadPoolExecutor(1, "pudistill-ray")

    def check_nodes(self) -> None:
        """Raise an `InputError` if a node cannot run tasks, or none has the GPUs for one."""
        nodes = self._nodes()
        if not any(map(self._room, nodes)):
            most = max((node["Resources"].get("GPU", 0.0) for node in nodes), default=0.0)
            raise InputError(
                f"A member asks for {self.gpus:g} GPUs, and the most that a node of the cluster "
                f"has is {most:g}: ask for less by --gpus-per-member, or add a node."
                if self.gpus
                else "No node of the cluster has a core for tasks: add one that has."
            )
        asked = {self._ask_version(node["NodeID"]): _name(node) for node in nodes}
        answered, silent = ray.wait(list(asked), num_returns=len(asked), timeout=PATIENCE)
        for answer in answered:
            version = ray.get(answer)
            if version != __version__:
                has = f"pudistill {version}" if version else "no pudistill"
                raise InputError(
                    f"The node {asked[answer]} of the cluster has {has}, and here is "
                    f"{__version__}: install the same version on all nodes."
                )
        if silent:
            raise InputError(
                f"The node {asked[silent[0]]} of the cluster gave no answer for {PATIENCE:.0f} s: "
                "free it, or remove it."
            )

    def _nodes(self) -> list[dict[str, Any]]:
        """Return the nodes that are alive and have cores for tasks."""
        alive = [node for node in ray.nodes() if node["Alive"]]
        return [node for node in alive if node["Resources"].get("CPU", 0) >= 1]

    def _room(self, node: dict[str, Any]) -> int:
        """Count the tasks that a node can run at the same time."""
        cores, gpus = node["Resources"]["CPU"], node["Resources"].get("GPU", 0.0)
        return int(min(cores, gpus / self.gpus + 1e-9) if self.gpus else cores)

    def _ask_version(self, node_id: str) -> Any:
        def version() -> str | None:  # inside, or the node would need pudistill to read it
            try:
                from pudistill import __version__
            except ImportError:
                return None
            return __version__

        there = NodeAffinitySchedulingStrategy(node_id, soft=False)
        return ray.remote(version).options(num_cpus=0, scheduling_strategy=there).remote()

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return the number of tasks at the same time; -1: all that the nodes have room for.

        Of these there are two at least: joblib runs here, on no node, what runs one by one.
        """
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None or n_jobs > 0:
            return n_jobs or 1
        return max(2, sum(map(self._room, self._nodes())) + 1 + n_jobs)

    def start_call(self) -> None:
        """Look at arrays again, that may have been changed since the last call."""
        self._shelf.doubt()

    def submit(self, func: Callable, callback: Callable | None = None) -> Future:
        """Send a task off."""
        outcome: Future = Future()
        if callback is not None:
            outcome.add_done_callback(callback)
        self._start(_pack(func, self._shelf), outcome, n_chances=MAX_LOSSES)
        return outcome

    def _start(self, parcel: tuple, outcome: Future, n_chances: int) -> None:
        try:
            task = self._task.remote(*parcel)
        except Exception as error:  # of any kind, and nobody else would hear of it
            outcome.set_exception(
                InputError(f"The cluster is gone ({_reason(error)}): start it, and resume the run.")
            )
            return
        self._running.add(task)
        end = partial(self._end, task, parcel, outcome, n_chances)
        task.future().add_done_callback(partial(self._hands.submit, end))

    def _end(self, task: Any, parcel: tuple, outcome: Future, n_chances: int, done: Future) -> None:
        """Pass on what became of a task; one that was lost with its worker is run again."""
        is_wanted = task in self._running
        self._running.discard(task)
        error = done.exception()
        if error is None:
            outcome.set_result(done.result())
        elif isinstance(error, RayTaskError):
            outcome.set_exception(getattr(error, "cause", error))
        elif n_chances and is_wanted:
            self._n_lost += 1
            self._start(parcel, outcome, n_chances - 1)
        else:
            outcome.set_exception(
                InputError(
                    f"The cluster lost a task {MAX_LOSSES + 1} times ({_reason(error)}): see "
                    "whether its nodes have memory for as many tasks at a time, or ask for less by "
                    "--n-jobs."
                )
            )

    def retrieve_result_callback(self, out: Future) -> Any:
        """Unpack what a task returned, or raise what it raised."""
        return pickle.loads(out.result())

    def stop_call(self) -> None:
        """Say what was lost on the way."""
        n_lost, self._n_lost = self._n_lost, 0
        if n_lost:
            lost = "1 task was" if n_lost == 1 else f"{n_lost} tasks were"
            warnings.warn(
                f"{lost} lost with a worker of the cluster, and run again.",
                RecoveredWarning,
                stacklevel=2,
            )

    def abort_everything(self, ensure_ready: bool = True) -> None:  # noqa: ARG002
        """Stop tasks that nobody waits for any more."""
        running, self._running = self._running, set()
        for task in running:
            ray.cancel(task)


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0].rstrip(".")


def _name(node: dict[str, Any]) -> str:
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"


class Shelf:
    """Arrays that all nodes can get, each put there once and for as long as it lives here.

    Parameters
    ----------
    put : callable
        Puts an array there, and returns where it is.
    """

    def __init__(self, put: Callable) -> None:
        self._put = put
        self._shelved: dict[int, _Shelved] = {}
        self._looked_at: set[int] = set()

    def doubt(self) -> None:
        """Look at each array again before it is next used."""
        self._looked_at.clear()

    def __call__(self, array: np.ndarray) -> Any:
        """Return where an array is; one that has changed since is put there anew."""
        key = id(array)
        if key not in self._looked_at:
            checksum = zlib.adler32(np.ascontiguousarray(array).data.cast("B"))
            known = self._shelved.get(key)
            if known is None or known.checksum != checksum:
                alive = ref(array, lambda _: self._shelved.pop(key, None))
                self._shelved[key] = _Shelved(self._put(array), checksum, alive)
            self._looked_at.add(key)
        return self._shelved[key].where


class _Shelved(NamedTuple):
    where: Any
    checksum: int
    alive: ref


def _pack(func: Callable, shelf: Shelf) -> tuple:
    """Make of a task what Ray sends: bytes, and the arrays beside them."""
    content = io.BytesIO()
    packer = _Packer(content, shelf)
    packer.dump(func)
    return content.getvalue(), *packer.beside


class _Packer(cloudpickle.CloudPickler):
    def __init__(self, file: io.BytesIO, shelf: Shelf) -> None:
        super().__init__(file)
        self.shelf = shelf
        self.beside: list = []

    def persistent_id(self, value: Any) -> MappedArray | int | None:
        """Leave large arrays out of the bytes."""
        if not isinstance(value, np.ndarray) or value.nbytes < LARGE or value.dtype.hasobject:
            return None
        if (mapped := MappedArray.of(value)) is not None:
            return mapped
        self.beside.append(self.shelf(value))
        return len(self.beside) - 1


class _Unpacker(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, beside: Sequence[np.ndarray]) -> None:
        super().__init__(file)
        self.beside = beside

    def persistent_load(self, pid: MappedArray | int) -> np.ndarray:
        return pid.open() if isinstance(pid, MappedArray) else self.beside[pid]


def _run(content: bytes, *beside: np.ndarray) -> bytes:
    """Run a task, on a node, and return its result as bytes."""
    node = f"The node {socket.gethostname()} of the cluster"
    try:
        return cloudpickle.dumps(_Unpacker(io.BytesIO(content), beside).load()())
    except ModuleNotFoundError as error:
        raise InputError(
            f"{node} lacks the module {error.name}: install it on all nodes."
        ) from error
    except (FileNotFoundError, PermissionError) as error:
        raise InputError(
            f"{node} cannot read {error.filename} ({error.strerror}): put it where every node can."
        ) from error
