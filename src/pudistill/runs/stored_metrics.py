"""The estimates in ``metrics.json`` that are read again, checked: anybody can have written them."""

from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pudistill.distillation.metrics import METRICS
from pudistill.distillation.noise_estimate import NoiseEstimate
from pudistill.exceptions import InputError
from pudistill.runs.folder import Run

ROUNDING = 1e-6
OF_GUESS = "_share_of_guess"
Count = Annotated[int, Field(ge=0)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(ge=-ROUNDING, le=1 + ROUNDING)]
Shares = Annotated[list[Share], Field(min_length=2, max_length=2)]
Numbers = Annotated[list[Number], Field(min_length=2, max_length=2)]


class _Stored(BaseModel):
    """Base of all models here: a number is no text, and what they do not name is not read."""

    model_config = ConfigDict(strict=True, extra="ignore")


class StoredNoise(_Stored):
    """The numbers of a `NoiseEstimate`; `checked_noise` checks its arrays."""

    basis: Literal["verified originals", "bound", "nothing"] | None = None  # None: of version 0.1.0
    rate: Share | None
    rate_interval: Shares
    warnings: list[str]
    per_source: dict[str, Any] | None = None


class StoredAccuracy(_Stored):
    """An `ExpectedAccuracy`."""

    value: Number
    interval: Numbers
    n: Count
    metric: Literal[*METRICS] = "accuracy"  # type: ignore[valid-type]

    @model_validator(mode="after")
    def _in_range(self) -> Self:
        values = np.array([self.value, *self.interval])
        if METRICS[self.metric].is_share and ((values < -ROUNDING) | (values > 1 + ROUNDING)).any():
            raise ValueError("a share is below 0 or above 1")
        return self


class StoredCandidate(_Stored):
    """A `Candidate`."""

    name: str
    accuracy: Share
    log_loss: Number | None = None
    score: Number | None = None


class StoredComparison(_Stored):
    """A `Comparison`."""

    shipped: str
    why: str
    candidates: list[StoredCandidate]


class StoredFilterSettings(_Stored):
    """The settings of the filter for a class."""

    class_name: str
    threshold: Number | None
    min_votes: Number | None


class StoredMetrics(_Stored):
    """What `restore_results` reads of ``metrics.json``."""

    n_conflicts: Count = 0
    filter_settings: list[StoredFilterSettings] | None = None
    noise: StoredNoise | None = None
    unknown_noise: StoredNoise | None = None
    adapted: dict[str, Number] | None = None
    comparison: StoredComparison | None = None
    expected_accuracy: StoredAccuracy | None = None
    expected_label_accuracy: StoredAccuracy | None = None
    cut_short: list[str] = []

    @field_validator("adapted")
    @classmethod
    def _has_what_is_shown(cls, adapted: dict[str, float] | None) -> dict[str, float] | None:
        if not adapted:
            return adapted
        of_guess = [name.removesuffix(OF_GUESS) for name in adapted if name.endswith(OF_GUESS)]
        needed = {"rounds", "held_out_trusted_samples", "sharpness_of_student"}
        needed |= {f"sharpness_of_{name}" for name in of_guess}
        if missing := sorted(needed - adapted.keys()):
            raise ValueError(f"{missing[0]} is missing")
        return adapted


def read_metrics(run: Run) -> dict[str, Any]:
    """Read ``metrics.json``, and check what is restored from it.

    Raises
    ------
    InputError
        If a value is missing, of another type, or out of range.
    """
    metrics = run.read_json("metrics.json")
    try:
        StoredMetrics.model_validate(metrics)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"])) or "its content"
        raise InputError(
            f"{run.path / 'metrics.json'} is damaged at {name} ({first['msg'].lower()}): restore a "
            "copy of it."
        ) from error
    return metrics


def checked_noise(noise: NoiseEstimate) -> NoiseEstimate:
    """Return an estimate as it is; a `ValueError` names an array that cannot be what it is called.

    Entries that nothing is known of are NaN.
    """
    C = len(noise.classes)
    shapes: dict[str, tuple[int, ...]] = {
        "transition_matrix": (C, C),
        "transition_interval": (2, C, C),
        "class_rate": (C,),
        "class_rate_interval": (C, 2),
        "class_prior": (C,),
    }
    if noise.group_rate is not None:
        G = noise.group_rate.size
        shapes |= {"group_rate": (G,), "group_rate_interval": (G, 2)}
    _check_shares(noise, shapes)
    if noise.per_source is not None:
        S = noise.per_source.names.size
        of_sources = {"rate": (S,), "rate_interval": (S, 2)}
        _check_shares(noise.per_source, of_sources)
        for name in ("names", "n_labels", "n_verified", "n_decided", "copy_of"):
            if np.shape(getattr(noise.per_source, name)) != (S,):
                raise ValueError(f"{name} of the sources has another length than their names")
    return noise


def _check_shares(holder: Any, shapes: dict[str, tuple[int, ...]]) -> None:
    for name, shape in shapes.items():
        values = np.asarray(getattr(holder, name))
        if values.dtype.kind != "f" or values.shape != shape:
            raise ValueError(f"{name} is no array of numbers of shape {shape}")
        if ((values < -ROUNDING) | (values > 1 + ROUNDING)).any():
            raise ValueError(f"{name} holds numbers that are no shares")
