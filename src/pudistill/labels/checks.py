"""Checks of the labels that ``fit`` accepts: given labels, verified labels, trusted samples."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from pudistill.data.names import NO_CLASS_LABEL
from pudistill.exceptions import InputError, TrustedWarning, warn_user

MISSING = -1


@dataclass(frozen=True)
class Labels:
    """Given and verified labels, as codes: positions in `classes`.

    Attributes
    ----------
    classes : ndarray of shape (n_classes,)
        All classes, sorted.
    given : ndarray of shape (n_samples,), int
        The given labels; -1 for samples without a given label.
    trusted : ndarray of shape (n_samples,), bool
        Whether a sample is in `D_c`.
    verified : ndarray of shape (n_samples,), int
        The verified labels of the trusted samples; -1 elsewhere.
    from_mask : bool
        Whether trusted samples were passed as a mask of right given labels. Then their labels
        before verification are unknown.
    no_class : ndarray of shape (n_samples,), bool
        Samples that were verified to be of no class. They are not among the trusted samples. No
        sample by default.
    """

    classes: np.ndarray
    given: np.ndarray
    trusted: np.ndarray
    verified: np.ndarray
    from_mask: bool = False
    no_class: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))

    def __post_init__(self) -> None:
        if len(self.no_class) == 0:
            object.__setattr__(self, "no_class", np.zeros(len(self.given), dtype=bool))

    @property
    def n_classes(self) -> int:
        """Number of classes `C`."""
        return len(self.classes)

    def take(self, rows: np.ndarray) -> "Labels":
        """Return the labels of the samples at `rows`, a mask or positions."""
        return Labels(
            self.classes,
            self.given[rows],
            self.trusted[rows],
            self.verified[rows],
            self.from_mask,
            self.no_class[rows],
        )


def check_labels(
    y: Any,
    trusted: Any = None,
    *,
    for_fit: bool = True,
    no_class_label: Any = NO_CLASS_LABEL,
) -> Labels:
    """Convert given labels and trusted samples, in any form that ``fit`` accepts, to codes.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        Given labels. NaN, None and NA are missing labels, and so is -1 among integers unless a
        trusted sample has that class.
    trusted : array-like of shape (n_samples,), default=None
        A boolean mask of samples whose given label is right, or verified labels with NaN, None or
        NA for unverified samples. ``None``: all labels are trusted.
    for_fit : bool, default=True
        Whether at least two classes, and trusted samples of each, are required.
    no_class_label : str or int, default="none of these"
        The label of samples that are of no class, which is not a class itself. As a verified label
        it tells how such samples look. As a given label it is a missing label. ``None``: there is
        no such label.

    Returns
    -------
    labels : Labels
        The labels as codes.

    Raises
    ------
    InputError
        If no sample is trusted, a class has no trusted sample, there are fewer than two classes, a
        trusted sample has no label, or `trusted` is ambiguous.

    Examples
    --------
    >>> from pudistill.labels.checks import check_labels
    >>> labels = check_labels(["cat", "cat", "dog"], [None, "dog", "cat"])
    >>> labels.trusted.tolist(), labels.classes[labels.verified[1:]].tolist()
    ([False, True, True], ['dog', 'cat'])
    """
    y = column_or_1d(_without_extension_dtype(y), warn=True)
    y, trusted, no_class = _without_no_class(y, trusted, no_class_label)
    if y.dtype.kind == "f" and np.isinf(y).any():
        raise InputError("Input y contains infinity or a value too large for its type.")
    has_label = ~pd.isna(y)
    if not has_label.any() and (trusted is None or np.asarray(trusted).dtype == bool):
        raise InputError("Input y contains NaN only: no sample has a given label.")
    if y.dtype == object:  # for example integers beside None, which stay integers
        known = np.array(y[has_label].tolist())
        check_classification_targets(known)
    else:
        check_classification_targets(y[has_label])

    mask, verified_values = _read_trusted(y, has_label, trusted, for_fit)
    if _whole_numbers(y[has_label]) and not (verified_values[mask] == -1).any():
        has_label[has_label] = y[has_label] != -1
    if not mask.any():
        raise InputError(
            "No sample is trusted: verify some labels of each class and pass them as `trusted`."
        )

    classes = _sorted_classes(y[has_label], verified_values[mask])
    if for_fit and len(classes) < 2:
        raise InputError(
            f"There is only one class, {_show(classes[0])}: a classifier needs two classes or more."
        )
    given = _encode(y, has_label, classes)
    verified = _encode(verified_values, mask, classes)
    if for_fit:
        _check_every_class_is_trusted(classes, verified)
    from_mask = trusted is None or np.asarray(trusted).dtype == bool
    return Labels(classes, given, mask, verified, from_mask, no_class)


def _without_no_class(y: np.ndarray, trusted: Any, label: Any) -> tuple[Any, Any, np.ndarray]:
    """Take the label of no class out of given and verified labels; return where it was verified."""
    if label is None:
        return y, trusted, np.zeros(len(y), dtype=bool)
    given, verified = _equals(y, label), np.zeros(len(y), dtype=bool)
    values = None if trusted is None else np.asarray(trusted)
    if values is None:
        verified = given
        trusted = ~given if given.any() else None
    elif values.shape != y.shape:
        return y, trusted, verified  # which is refused later
    elif values.dtype == bool:
        verified = given & values
        trusted = values & ~verified
    elif (verified := _equals(values, label)).any():
        trusted = values.astype(object)
        trusted[verified] = None
    if n := int((given & ~verified).sum()):
        warn_user(
            f"{n} given labels are {_show(label)}, which is not a class: these samples count as "
            "samples without a given label.",
            TrustedWarning,
        )
    if given.any():
        others = y[~given].tolist()
        y = y.astype(object)
        y[given] = None
        y[~given] = others  # numbers, if only the label of no class was a text
    return y, trusted, verified


def _equals(values: np.ndarray, label: Any) -> np.ndarray:
    """Compare values of any kind with a label; a boolean equals no number."""
    if values.dtype.kind in ("iufb" if isinstance(label, str) else "USb"):
        return np.zeros(len(values), dtype=bool)
    same_kind = str if isinstance(label, str) else (int, float)
    return np.array(
        [
            isinstance(value, same_kind) and not isinstance(value, bool) and value == label
            for value in values.tolist()
        ],
        dtype=bool,
    )


def _whole_numbers(values: np.ndarray) -> bool:
    if values.dtype == object:
        return all(isinstance(value, int) and not isinstance(value, bool) for value in values)
    return values.dtype.kind in "iu" or (
        values.dtype.kind == "f" and bool((values == np.round(values)).all())
    )


def _without_extension_dtype(values: Any) -> Any:
    """Convert pandas' nullable types to arrays in which whole numbers stay integers."""
    if isinstance(getattr(values, "dtype", None), pd.api.extensions.ExtensionDtype):
        return np.array(values.tolist(), dtype=object) if pd.isna(values).any() else values
    return values


def _read_trusted(y: np.ndarray, has_label: np.ndarray, trusted: Any, for_fit: bool) -> tuple:
    """Return the mask of trusted samples, and an array with their verified labels."""
    if trusted is None:
        warn_user("No `trusted` was given: all given labels are taken as right.", TrustedWarning)
        if not has_label.all():
            raise InputError(
                f"Input y contains NaN: sample {np.flatnonzero(~has_label)[0]} has no label, so it "
                "cannot be trusted: pass the trusted samples as `trusted`."
            )
        return has_label, y
    values = np.asarray(trusted)
    if values.ndim != 1:
        raise InputError(
            f"`trusted` has shape {values.shape}: pass one entry for each sample, in one dimension."
        )
    if len(values) != len(y):
        raise InputError(
            f"`trusted` has {len(values)} entries for {len(y)} samples: pass one for each sample."
        )
    if values.dtype == bool:
        if (values & ~has_label).any():
            raise InputError(
                f"Sample {np.flatnonzero(values & ~has_label)[0]} is trusted but has no label: "
                "give it one, or take it out of `trusted`."
            )
        return values, y

    mask = ~np.asarray(pd.isna(values))
    _check_verified(values[mask].tolist(), y[has_label], mask, for_fit)
    return mask, _as_labels_like(y[has_label], values, mask)


def _check_verified(known: list, given: np.ndarray, mask: np.ndarray, for_fit: bool) -> None:
    """Raise an `InputError` if the entries of `trusted` are not clearly verified labels."""
    if mask.all() and -1 in known and -1 not in given.tolist():
        raise InputError(
            "`trusted` holds -1, which is not a given label, and no missing value: write NaN or "
            "None for unverified samples."
        )
    if known and all(isinstance(value, bool) for value in known) and given.dtype != bool:
        raise InputError(
            "`trusted` holds True and False beside missing values, so it is not a mask: replace "
            "missing values by False and pass an array of dtype bool."
        )
    empty = {"", "nan", "None"} & {value for value in known if isinstance(value, str)}
    if empty and not empty & set(given.tolist()):
        raise InputError(
            f"`trusted` holds the text {min(empty)!r}, which is not a label: write None for "
            "unverified samples, in an array of dtype object."
        )
    if for_fit and mask.all() and set(known) <= {0, 1}:
        raise InputError(
            "`trusted` holds 0 and 1 only, which can be a mask or verified labels: pass "
            "`trusted.astype(bool)` for a mask, or leave unverified samples NaN."
        )


def _as_labels_like(y: np.ndarray, values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Convert verified labels to the type of given labels: beside NaN, integers became floats."""
    verified = np.empty(len(values), dtype=object)
    numeric = all(isinstance(label, int | float | np.number) for label in y.tolist())
    for i in np.flatnonzero(mask):
        value = values[i].item() if isinstance(values[i], np.generic) else values[i]
        if isinstance(value, int | float) != numeric:
            raise InputError(
                f"The verified label {_show(value)} of sample {i} is not of the same type as the "
                f"given labels (such as {_show(y[0])}): write both the same way."
            )
        verified[i] = int(value) if isinstance(value, float) and value.is_integer() else value
    return verified


def _sorted_classes(given: np.ndarray, verified: np.ndarray) -> np.ndarray:
    if verified.dtype == given.dtype != object:
        return np.unique(np.concatenate([given, verified]))
    classes = sorted(set(given.tolist()) | set(verified.tolist()))
    keep_object = given.dtype == object and any(isinstance(name, str) for name in classes)
    return np.array(classes, dtype=object if keep_object else None)


def _encode(values: np.ndarray, known: np.ndarray, classes: np.ndarray) -> np.ndarray:
    codes = np.full(len(values), MISSING)
    lookup = {label: code for code, label in enumerate(classes.tolist())}
    codes[known] = [lookup[label] for label in values[known].tolist()]
    return codes


def _check_every_class_is_trusted(classes: np.ndarray, verified: np.ndarray) -> None:
    untrusted = np.setdiff1d(np.arange(len(classes)), verified)
    if len(untrusted):
        names = ", ".join(_show(name) for name in classes[untrusted][:5])
        more = f" and {len(untrusted) - 5} more" if len(untrusted) > 5 else ""
        raise InputError(
            f"No trusted sample has class {names}{more}: verify some of its samples, merge it into "
            "another class, or drop it."
        )


def _show(label: Any) -> str:
    return repr(label.item() if isinstance(label, np.generic) else label)
