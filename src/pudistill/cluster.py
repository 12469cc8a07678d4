"""Where what runs in parallel runs: on the cores of this machine, or on the nodes of a cluster."""

import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from joblib import parallel_config
from joblib.parallel import get_active_backend

from pudistill.exceptions import InputError

PATIENCE = 20.0  # seconds that a cluster has to answer
LOCAL = "local-ray"
CLIENT = "ray://"


@contextmanager
def running_on(address: str | None, gpus: float = 0.0) -> Iterator[None]:
    """Let everything that runs in parallel inside the ``with`` block run on a cluster.

    Parameters
    ----------
    address : str or None
        "local-ray": one that is started on this machine for the time of the block;
        "ray://HOST:PORT", "HOST:PORT" or "auto": one that runs, which is left running. None: no
        cluster, but whatever joblib is set to.
    gpus : float, default=0
        GPUs, or the share of one, that each task asks for.

    Raises
    ------
    InputError
        If the cluster does not answer, a node lacks this version of pudistill, or no node has what
        a task asks for.

    Examples
    --------
    >>> from pudistill import TieredPUFilter
    >>> from pudistill.cluster import running_on
    >>> with running_on(None):
    ...     pu_filter = TieredPUFilter(n_jobs=2)
    """
    if address is None:
        if gpus:
            raise InputError(
                "GPUs per member were asked for without a cluster: name one, as in "
                f"--cluster {LOCAL}."
            )
        yield
        return
    ray = _import_ray()
    connected_before = ray.is_initialized()
    if not connected_before:
        _connect(ray, address)
    try:
        from pudistill.ray_tasks import RayTasks

        backend = RayTasks(gpus)
        backend.check_nodes()
        with parallel_config(backend, n_jobs=-1):
            yield
    finally:
        if not connected_before:
            ray.shutdown()


def _import_ray() -> Any:
    try:
        import ray
    except ModuleNotFoundError as error:
        raise InputError(
            f"A cluster needs {error.name}, which is not installed: pip install 'pudistill[ray]'."
        ) from error
    return ray


def _connect(ray: Any, address: str) -> None:
    """Start Ray here, or join a cluster; one that does not answer soon is none."""
    options = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
    if address == LOCAL:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told of it
        ray.init(include_dashboard=False, **options)
        return
    _check_port(address)
    joined: Future = Future()

    def join() -> None:
        try:
            joined.set_result(ray.init(address, **options))
        except Exception as error:  # of any kind: Ray has no error of its own for it
            joined.set_exception(error)

    # Ray itself waits for more than half a minute.
    threading.Thread(target=join, daemon=True).start()
    try:
        joined.result(PATIENCE)
    except Exception as error:
        reason = str(error).strip().splitlines() or [f"it gave no answer for {PATIENCE:.0f} s"]
        raise InputError(f"{_unreachable(address)} ({reason[0]}){_ADVICE}") from error


_ADVICE = f": start it with `ray start --head`, correct the address, or use --cluster {LOCAL}."


def _unreachable(address: str) -> str:
    return f"The Ray cluster {address} cannot be reached"


def _check_port(address: str) -> None:
    """See whether anybody is there, sooner than Ray would say that nobody is."""
    if address == "auto":
        return
    host, _, port = address.removeprefix(CLIENT).rpartition(":")
    if not host or not port.isdecimal():
        raise InputError(
            f"{address!r} is no cluster: name {LOCAL}, {CLIENT}HOST:PORT, HOST:PORT, or auto."
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"{_unreachable(address)} ({error}){_ADVICE}") from error


def is_elsewhere() -> bool:
    """Whether what runs in parallel here runs on a cluster."""
    return getattr(get_active_backend()[0], "is_elsewhere", False)
