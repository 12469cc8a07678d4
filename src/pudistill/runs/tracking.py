"""Losses and results of a run for TensorBoard, MLflow or Weights & Biases, by `accelerate`."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from pudistill.exceptions import InputError, RecoveredWarning, torch_extra, warn_user
from pudistill.utils.progress import tracking_trainings

FOLDER = "tracking"  # of TensorBoard's files, in the run folder
PROJECT = "pudistill"  # of MLflow and Weights & Biases

LogResults = Callable[[dict[str, Any]], None]


def check_tracker(name: str | None) -> None:
    """Raise `InputError` if the package of a tracker is not installed."""
    if name is None:
        return
    with torch_extra():
        from accelerate.tracking import get_available_trackers
    if name not in [str(getattr(known, "value", known)) for known in get_available_trackers()]:
        raise InputError(
            f"The tracker {name} is not installed: pip install {name}, or 'pudistill[track]' for "
            "TensorBoard."
        )


@contextmanager
def tracking(name: str | None, run: Path, config: dict[str, Any]) -> Iterator[LogResults]:
    """Log all trainings of networks inside the ``with`` block, when they have ended.

    Parameters
    ----------
    name : {"tensorboard", "mlflow", "wandb"} or None
        The tracker; None logs nothing.
    run : Path
        The run folder.
    config : dict
        Settings of the run, which are logged.

    Yields
    ------
    log_results : callable
        Logs the numbers in the metrics of the run.
    """
    if name is None:
        yield lambda _: None
        return
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    from pudistill.learners.networks.own import reason_of

    kind = LOGGER_TYPE_TO_CLASS[name]
    where = {"tensorboard": (FOLDER, run), "mlflow": (PROJECT,), "wandb": (PROJECT,)}[name]
    PartialState()  # without it, trackers do not know which process they run in
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other packages
            tracker = kind(*where)
            tracker.start()
            tracker.store_init_configuration({key: _scalar(value) for key, value in config.items()})
    except Exception as error:  # no server, no login, no room: trackers raise anything
        raise InputError(
            f"The tracker {name} cannot be started ({reason_of(error)}): set it up, or leave "
            "--tracker out."
        ) from error
    # Weights & Biases drops what is logged at an earlier step: there, epochs are an axis.
    has_growing_steps = name == "wandb"
    numbers, is_lost = count(1), False

    def log(method: Callable[..., None], *args: Any, **options: Any) -> None:
        nonlocal is_lost
        if is_lost:
            return
        try:
            method(*args, **options)
        except Exception as error:  # a long run must not end with its tracker
            is_lost = True
            warn_user(
                f"The tracker {name} failed ({reason_of(error)}): nothing more is logged.",
                RecoveredWarning,
            )

    def log_training(role: str, losses: Sequence[float]) -> None:
        training = f"{next(numbers):02d} {role}"
        loss_name, epoch_name = f"{training}/loss", f"{training}/epoch"
        if has_growing_steps:
            log(tracker.tracker.define_metric, loss_name, step_metric=epoch_name)
        for epoch, loss in enumerate(losses, 1):
            if has_growing_steps:
                log(tracker.log, {loss_name: float(loss), epoch_name: epoch})
            else:
                log(tracker.log, {loss_name: float(loss)}, step=epoch)

    def log_results(metrics: dict[str, Any]) -> None:
        log(tracker.log, dict(_numbers(metrics)), step=None if has_growing_steps else 0)

    try:
        with tracking_trainings(log_training):
            yield log_results
    finally:
        log(tracker.finish)


def _scalar(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) else str(value)


def _numbers(metrics: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield the numbers in nested dictionaries, with their path as the name."""
    for name, value in metrics.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{name}", float(value)
