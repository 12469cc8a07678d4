"""The choice of where parallel tasks run: on the cores of this machine, or on a Ray cluster."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from joblib import parallel_config
from joblib.parallel import get_active_backend

from pudistill.exceptions import InputError

ANSWER_SECONDS = 10.0  # within which a cluster must answer
# Addresses: start a cluster on this machine; find a running cluster; connect as a client.
LOCAL, ANY, CLIENT = "local-ray", "auto", "ray://"


@contextmanager
def running_on(address: str | None, gpus: float = 0.0) -> Iterator[None]:
    """Run all parallel tasks inside the ``with`` block on a Ray cluster.

    Parameters
    ----------
    address : str or None
        "local-ray": start a cluster on this machine for the duration of the block;
        "ray://HOST:PORT", "HOST:PORT" or "auto": use a running cluster and leave it running. If
        Ray is connected already, "local-ray" and "auto" use that connection. None: no cluster;
        joblib's configuration decides.
    gpus : float, default=0
        Number of GPUs, or share of one GPU, that each task asks for.

    Raises
    ------
    InputError
        If the cluster does not answer, a node lacks this version of pudistill, or no node has the
        cores and GPUs for a task.

    Examples
    --------
    >>> from pudistill import TieredPUFilter
    >>> from pudistill.utils.cluster import running_on
    >>> with running_on(None):
    ...     pu_filter = TieredPUFilter(n_jobs=2)
    """
    if address is None:
        if gpus:
            raise InputError(
                f"GPUs per member need a cluster: name one, for example --cluster {LOCAL}."
            )
        yield
        return
    if gpus > 1 and gpus % 1:
        raise InputError(
            f"A member cannot ask for {gpus:g} GPUs: give a share of one GPU, or a whole number."
        )
    ray = _import_ray()
    # If the caller has connected to Ray already, leave that connection open.
    connects = not (ray.is_initialized() and address in (ANY, LOCAL))
    if connects:
        _connect(ray, address)
    try:
        from pudistill.utils.ray_tasks import RayTasks

        backend = RayTasks(gpus)
        backend.check_nodes()
        with parallel_config(backend, n_jobs=-1):
            yield
    finally:
        if connects:
            ray.shutdown()


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no reports to Ray's makers
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
def _explained(problem: str, advice: str) -> Iterator[None]:
    """Raise an error inside the ``with`` block as an `InputError` of one sentence.

    Also restore the handler of SIGTERM, which interrupts a run: Ray's own would end the process.
    """
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # Ray raises errors of many types
        raise InputError(f"{problem} ({_reason(error)}): {advice}.") from error
    finally:
        if signal.getsignal(signal.SIGTERM) is not before:
            signal.signal(signal.SIGTERM, before)


def _check_answer(address: str) -> None:
    """Raise an error if no cluster answers: Ray itself would wait for a minute."""
    if address == ANY:
        return
    host, _, port = address.removeprefix(CLIENT).rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(f"an address is {CLIENT}HOST:PORT, HOST:PORT, {ANY} or {LOCAL}")
    socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()
    if os.environ.get("RAY_USE_TLS", "0") == "1":
        return
    try:
        import grpc
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    with grpc.insecure_channel(f"{host}:{port}") as channel:
        try:
            grpc.channel_ready_future(channel).result(ANSWER_SECONDS)
        except grpc.FutureTimeoutError:
            raise TimeoutError(
                f"the server there gave no answer for {ANSWER_SECONDS:.0f} s"
            ) from None


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def runs_on_cluster() -> bool:
    """Return whether parallel tasks run on a cluster."""
    return getattr(get_active_backend()[0], "is_cluster", False)
