"""Where what runs in parallel runs: on the cores of this machine, or on the nodes of a cluster."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from joblib import parallel_config
from joblib.parallel import get_active_backend

from pudistill.exceptions import InputError

PATIENCE = 10.0  # seconds that a cluster has to answer
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
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told of it
    try:
        import ray
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    return ray


def _missing(error: ModuleNotFoundError) -> InputError:
    return InputError(
        f"A cluster needs {error.name}, which is not installed: pip install 'pudistill[ray]'."
    )


def _connect(ray: Any, address: str) -> None:
    """Start Ray here, or join a cluster."""
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address == LOCAL:
        with _explained("Ray did not start on this machine", "try again, or leave --cluster out"):
            ray.init("local", include_dashboard=False, **options)
        return
    advice = f"start it with `ray start --head`, correct the address, or use --cluster {LOCAL}"
    with _explained(f"The Ray cluster {address} cannot be reached", advice):
        _check_answer(address)
        ray.init(address, **options)


@contextmanager
def _explained(what: str, advice: str) -> Iterator[None]:
    """Say in one sentence what went wrong inside the ``with`` block.

    SIGTERM interrupts a run afterwards as before: Ray would let it end the process.
    """
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # of any kind: Ray has no error of its own for it
        raise InputError(f"{what} ({_reason(error)}): {advice}.") from error
    finally:
        if signal.getsignal(signal.SIGTERM) is not before:
            signal.signal(signal.SIGTERM, before)


def _check_answer(address: str) -> None:
    """Raise an error where nobody answers: Ray itself would wait for a minute."""
    if address == ANY:
        return
    host, _, port = address.removeprefix(CLIENT).rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(f"an address is {CLIENT}HOST:PORT, HOST:PORT, {ANY} or {LOCAL}")
    socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE).close()
    if os.environ.get("RAY_USE_TLS", "0") == "1":
        return
    try:
        import grpc
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    with grpc.insecure_channel(f"{host}:{port}") as channel:
        try:
            grpc.channel_ready_future(channel).result(PATIENCE)
        except grpc.FutureTimeoutError:
            raise TimeoutError(f"what is there gave no answer for {PATIENCE:.0f} s") from None


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def is_elsewhere() -> bool:
    """Whether what runs in parallel here runs on a cluster."""
    return getattr(get_active_backend()[0], "is_elsewhere", False)
