"""Where what runs in parallel runs: on the cores of this machine, or on the nodes of a cluster."""

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from joblib import parallel_config
from joblib.parallel import get_active_backend

from pudistill.exceptions import InputError

# Seconds that somebody has to answer at an address, and that Ray has to join what is there.
PATIENCE, PATIENCE_TO_JOIN = 5.0, 20.0
LOCAL, ANY, CLIENT = "local-ray", "auto", "ray://"


@contextmanager
def running_on(address: str | None, gpus: float = 0.0) -> Iterator[None]:
    """Let everything that runs in parallel inside the ``with`` block run on a cluster.

    Parameters
    ----------
    address : str or None
        "local-ray": one that is started on this machine for the time of the block;
        "ray://HOST:PORT", "HOST:PORT" or "auto": one that runs, which is left running. None: no
        cluster, but whatever joblib is set to. Where Ray is connected to a cluster already,
        "local-ray" and "auto" mean that one.
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
    if gpus > 1 and gpus % 1:
        raise InputError(
            f"A member cannot ask for {gpus:g} GPUs: name a share of one, or a whole number."
        )
    ray = _import_ray()
    # Whoever has connected before goes on being connected.
    connects = not (ray.is_initialized() and address in (ANY, LOCAL))
    if connects:
        _connect(ray, address)
    try:
        from pudistill.ray_tasks import RayTasks

        backend = RayTasks(gpus)
        backend.check_nodes()
        with parallel_config(backend, n_jobs=-1):
            yield
    finally:
        if connects:
            ray.shutdown()


def _import_ray() -> Any:
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "error")  # what we do not say ourselves
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told of it
    try:
        import ray
    except ModuleNotFoundError as error:
        raise InputError(
            f"A cluster needs {error.name}, which is not installed: pip install 'pudistill[ray]'."
        ) from error
    return ray


def _connect(ray: Any, address: str) -> None:
    """Start Ray here, or join a cluster; one that does not answer soon is none."""
    options = {"log_to_driver": False, "logging_level": "ERROR"}
    if address == LOCAL:
        try:
            with _sigterm_as_before():
                ray.init(include_dashboard=False, **options)
        except Exception as error:  # of any kind: Ray has no error of its own for it
            raise InputError(
                f"Ray did not start on this machine ({_reason(error)}): try again, or leave "
                "--cluster out."
            ) from error
        return
    try:
        _check_port(address)
        _within(PATIENCE_TO_JOIN, lambda: ray.init(address, **options))
    except Exception as error:
        raise InputError(
            f"The Ray cluster {address} cannot be reached ({_reason(error)}): start it with `ray "
            f"start --head`, correct the address, or use --cluster {LOCAL}."
        ) from error


@contextmanager
def _sigterm_as_before() -> Iterator[None]:
    """Let SIGTERM interrupt a run as ever: Ray, where it is started, would end the process."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def _check_port(address: str) -> None:
    """Raise an error where nobody listens, long before Ray would."""
    if address == ANY:
        return
    host, _, port = address.removeprefix(CLIENT).rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(f"an address is {CLIENT}HOST:PORT, HOST:PORT, {ANY} or {LOCAL}")
    socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE).close()


def _within(seconds: float, act: Callable[[], object]) -> None:
    """Do what may take for ever, and raise an error if it has not ended in time."""
    outcome: Future = Future()

    def run() -> None:
        try:
            outcome.set_result(act())
        except Exception as error:
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        outcome.result(seconds)
    except TimeoutError:
        raise TimeoutError(f"no answer for {seconds:.0f} s") from None


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def is_elsewhere() -> bool:
    """Whether what runs in parallel here runs on a cluster."""
    return getattr(get_active_backend()[0], "is_elsewhere", False)
