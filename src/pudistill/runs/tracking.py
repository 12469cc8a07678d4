"""Losses and results of a run for TensorBoard, MLflow or Weights & Biases, by `accelerate`."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from pudistill.exceptions import InputError, torch_extra
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
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    kind = LOGGER_TYPE_TO_CLASS[name]
    where = {"tensorboard": (FOLDER, run), "mlflow": (PROJECT,), "wandb": (PROJECT,)}[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other packages
        tracker = kind(*where)
        tracker.start()
        tracker.store_init_configuration({key: _scalar(value) for key, value in config.items()})
    numbers = count(1)

    def log_training(role: str, losses: Sequence[float]) -> None:
        training = f"{next(numbers):02d} {role}"
        for epoch, loss in enumerate(losses, 1):
            tracker.log({f"{training}/loss": float(loss)}, step=epoch)

    def log_results(metrics: dict[str, Any]) -> None:
        tracker.log(dict(_numbers(metrics)), step=0)

    try:
        with tracking_trainings(log_training):
            yield log_results
    finally:
        tracker.finish()


def _scalar(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) else str(value)


def _numbers(metrics: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield the numbers in nested dictionaries, with their path as the name."""
    for name, value in metrics.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{name}", float(value)
