"""Checks of the labels that ``fit`` accepts: given labels, verified labels, trusted samples."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from pudistill.data.columns import is_whole, read_mark
from pudistill.data.draws import Draws
from pudistill.data.frames import as_column
from pudistill.data.names import NO_CLASS_LABEL
from pudistill.data.spelling import describe_look_alikes
from pudistill.exceptions import DataWarning, InputError, TrustedWarning, warn_user
from pudistill.labels.alignment import aligned, index_of
from pudistill.labels.sources import Sources
from pudistill.utils.shown import listed, shown

MISSING = -1
NO_TRUSTED = "No sample is trusted: verify some labels of each class and pass them as `trusted`."
# Samples that are picked by hand are few beside the others up to this share of them.
MANY_PICKED = 0.005
_MINUS_ONE = {-1, "-1"}


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
    groups : ndarray of shape (n_samples,), int, or None
        The group of each sample, from 0: no fold splits a group. None: no groups. Exact copies of
        a sample are in its group, see `labels.copies`.
    copied : ndarray of shape (n_samples,), bool, or None
        Whether a sample is trusted only as an exact copy of a verified sample. None: there are no
        such samples.
    noise_groups : ndarray of shape (n_samples,), int, or None
        The group of each sample whose given labels can have noise of their own, such as those of an
        annotator, from 0. None: there are no such groups.
    sample_weight : ndarray of shape (n_samples,), default=None
        Weights of the samples in every training, with mean 1; None: all weigh the same.
    sources : Sources, default=None
        What several sources say; then `given` is their majority vote. None: there is one.
    draws : Draws, default=None
        How verified samples were drawn. None: uniformly.
    picked : ndarray of shape (n_samples,), bool, or None
        Whether a sample was picked by hand to be verified, and not drawn. None: none was.
    """

    classes: np.ndarray
    given: np.ndarray
    trusted: np.ndarray
    verified: np.ndarray
    from_mask: bool = False
    no_class: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))
    groups: np.ndarray | None = None
    copied: np.ndarray | None = None
    noise_groups: np.ndarray | None = None
    sample_weight: np.ndarray | None = None
    sources: Sources | None = None
    draws: Draws | None = None
    picked: np.ndarray | None = None

    def __post_init__(self) -> None:
        if len(self.no_class) == 0:
            object.__setattr__(self, "no_class", np.zeros(len(self.given), dtype=bool))

    @property
    def n_classes(self) -> int:
        """Number of classes `C`."""
        return len(self.classes)

    @property
    def drawn(self) -> np.ndarray:
        """Whether each sample was itself drawn to be verified: (n_samples,), bool.

        Estimates count these samples only. Copies have learned their label from one of them: they
        are no further random draw, and would count a sample that has copies several times. Samples
        that were picked by hand can be of any kind.
        """
        drawn = self.trusted
        for others in (self.copied, self.picked):
            drawn = drawn if others is None else drawn & ~others
        return drawn

    def drawn_weight(self, *, of_all: bool = False) -> np.ndarray | None:
        """Return the weights of `Draws.for_means`: (n_samples,); None if all weigh the same.

        Estimates use them. Trainings do not: which samples were drawn depends on the samples and
        their given labels, which models know, and not on the verified labels.
        """
        if self.draws is None:
            return None
        n_rest = int((~(self.trusted | self.no_class)).sum())
        return self.draws.for_means(n_rest, of_all=of_all)

    def take(self, rows: np.ndarray) -> "Labels":
        """Return the labels of the samples at `rows`, a mask or positions."""
        of_samples: dict[str, Any] = {
            name: values[rows]
            for name, values in vars(self).items()
            if name != "classes" and isinstance(values, np.ndarray)
        }
        if self.sources is not None:
            of_samples["sources"] = self.sources.take(rows)
        if self.draws is not None:
            of_samples["draws"] = self.draws.take(rows)
        return replace(self, **of_samples)


def check_labels(
    y: Any,
    trusted: Any = None,
    *,
    index: pd.Index | None = None,
    for_fit: bool = True,
    every_class: bool = True,
    no_class_label: Any = NO_CLASS_LABEL,
) -> Labels:
    """Convert given labels and trusted samples, in any form that ``fit`` accepts, to codes.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        Given labels. NaN, None and NA are missing labels, and so is -1 among integers, or among
        names with a warning, unless a trusted sample has that class.
    trusted : array-like of shape (n_samples,), Series or dict, default=None
        A boolean mask of samples whose given label is right, or verified labels with NaN, None or
        NA for unverified samples. True and 1 beside missing values are marks, too, unless given
        labels are such values. ``None``: all labels are trusted. A Series or dict may also hold
        verified samples only, by the entries of the index or by row number.
    index : Index of length n_samples, default=None
        The index of the samples, to which a Series is aligned; by default that of `y`, if it has
        one.
    for_fit : bool, default=True
        Whether at least two classes, and trusted samples of each, are required.
    every_class : bool, default=True
        Whether `for_fit` requires trusted samples of each class.
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
        trusted sample has no label, `trusted` is ambiguous, or an index cannot be aligned.

    Examples
    --------
    >>> from pudistill.labels.checks import check_labels
    >>> labels = check_labels(["cat", "cat", "dog"], [None, "dog", "cat"])
    >>> labels.trusted.tolist(), labels.classes[labels.verified[1:]].tolist()
    ([False, True, True], ['dog', 'cat'])
    """
    y, trusted = as_column(y), as_column(trusted)
    index = index_of(y) if index is None else index
    if index is not None:
        y = aligned("y", y, index, len(index))
    y = column_or_1d(_without_extension_dtype(y), warn=True)
    n_samples = len(y) if index is None else len(index)
    trusted = aligned("trusted", trusted, index, n_samples, may_lack=True)
    y, trusted, no_class = _without_no_class(y, trusted, no_class_label)
    if y.dtype.kind == "f" and np.isinf(y).any():
        raise InputError("Input y contains infinity or a value too large for its type.")
    has_label = ~pd.isna(y)
    if not has_label.any() and (trusted is None or np.asarray(trusted).dtype == bool):
        raise InputError("Input y contains NaN only: no sample has a given label.")
    _check_are_names(y[has_label])
    trusted = _as_mask(trusted, y[has_label])
    has_label &= ~_is_minus_one_among_names(y, has_label, trusted)
    mask, verified_values = _read_trusted(y, has_label, trusted, for_fit)
    if _whole_numbers(y[has_label]) and not (verified_values[mask] == -1).any():
        has_label[has_label] = y[has_label] != -1
    if not mask.any():
        raise InputError(NO_TRUSTED)

    classes = _sorted_classes(y[has_label], verified_values[mask])
    if for_fit and len(classes) < 2:
        raise InputError(
            f"There is only one class, {shown(classes[0])}: a classifier needs two classes or more."
        )
    given = _encode(y, has_label, classes)
    verified = _encode(verified_values, mask, classes)
    if for_fit:
        look_alikes = _look_alikes(classes, np.where(given == MISSING, verified, given))
        if every_class:
            _check_every_class_is_trusted(classes, verified, look_alikes)
        if look_alikes is not None:
            warn_user(f"{look_alikes[0].upper()}{look_alikes[1:]}.", DataWarning)
    from_mask = trusted is None or np.asarray(trusted).dtype == bool
    return Labels(classes, given, mask, verified, from_mask, no_class)


def _check_are_names(given: np.ndarray) -> None:
    """Raise an `InputError` unless given labels are texts, whole numbers, booleans or dates."""
    # Integers beside None are an object array, and stay integers.
    values = np.array(given.tolist()) if given.dtype == object else given
    try:
        check_classification_targets(values if values.ndim == 1 else given)
    except (ValueError, TypeError) as error:
        raise InputError(
            f"Labels such as {shown(given[0])} name no class ({f'{error}'.partition('.')[0]}): "
            "write labels as texts or whole numbers, for example with `y.astype(str)`."
        ) from error


def check_same_labels(labels: Labels, fitted: Labels) -> None:
    """Raise an `InputError` unless verified samples and groups are those of an earlier fit."""
    is_same = (
        np.array_equal(labels.classes, fitted.classes)
        and np.array_equal(labels.verified, fitted.verified)
        and np.array_equal(labels.no_class, fitted.no_class)
    )
    if not is_same:
        raise InputError(
            "The trusted samples or the classes are not those that the teachers were fitted with: "
            "call fit_teachers, or fit, again."
        )
    if not np.array_equal(labels.groups, fitted.groups):  # type: ignore[arg-type]
        raise InputError(
            "The groups are not those that the teachers were fitted with: pass the same `groups`, "
            "or call fit_teachers, or fit, again."
        )
    if not np.array_equal(labels.picked, fitted.picked):  # type: ignore[arg-type]
        raise InputError(
            "draw_weight marks other samples as picked by hand than when the teachers were fitted: "
            "pass the same `draw_weight` to fit_teachers and fit_student."
        )


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
            f"{n} given labels are {shown(label)}, which is not a class: these samples count as "
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


def with_weights(labels: Labels, sample_weight: Any, index: pd.Index | None = None) -> Labels:
    """Return the labels with checked weights of the samples, scaled to a mean of 1.

    A Series or a dict is aligned to `index`, that of the samples.

    Raises
    ------
    InputError
        If there is not one number above 0 for each sample, or an index cannot be aligned.
    """
    if sample_weight is None:
        return labels
    n_samples = len(labels.given)
    values = aligned("sample_weight", sample_weight, index, n_samples)
    weights = np.asarray(values.infer_objects() if isinstance(values, pd.Series) else values)
    if weights.ndim == 0:
        weights = np.full(n_samples, weights)
    if weights.shape != (n_samples,) or weights.dtype.kind not in "fiub":
        raise InputError(
            f"sample_weight has shape {weights.shape} and type {weights.dtype}: pass one number "
            f"for each of the {n_samples} samples."
        )
    weights = weights.astype(float)
    if not (np.isfinite(weights) & (weights > 0)).all():
        row = np.flatnonzero(~(np.isfinite(weights) & (weights > 0)))[0]
        raise InputError(
            f"The sample_weight of sample {row} is {weights[row]:g}: weights must be above zero, "
            "as each class needs trusted samples that count; leave out the sample instead."
        )
    return replace(labels, sample_weight=weights / weights.mean())


def with_draws(labels: Labels, draw_weight: Any, index: pd.Index | None = None) -> Labels:
    """Return the labels with the weights of the draws that chose the verified samples.

    Parameters
    ----------
    labels : Labels
        Labels. Those that were verified, of whatever class or of none, were drawn.
    draw_weight : Draws, array-like of shape (n_samples,), Series, dict or None
        See `Draws`. The entries of a Series or dict are in the order of drawing. In an array,
        samples with the weight 1 were drawn first, and all others in the order of the rows. A
        verified sample without a weight was drawn uniformly, before all others. One with the weight
        0 was picked by hand: it is learned from, and counts in no estimate.
    index : Index of length n_samples or None
        The index of the samples.

    Raises
    ------
    InputError
        If there is not one number of at least 0 for each sample, or an entry is none of the
        samples.
    """
    if draw_weight is None:
        return labels
    n_samples = len(labels.given)
    if isinstance(draw_weight, Draws):
        weight, order = draw_weight
    else:
        weight, order = _read_draws(draw_weight, index, n_samples)
    picked = (labels.trusted | labels.no_class) & (weight == 0)
    if picked.any():
        labels = replace(labels, picked=picked)
        _warn_of_picked(labels)
    drawn = labels.drawn | (labels.no_class & ~picked)
    first = drawn & np.isnan(weight)
    weight = np.where(drawn, np.where(first, 1.0, weight), np.nan)
    return replace(labels, draws=Draws.of(weight, np.where(first, -1, order), index))


def _warn_of_picked(labels: Labels) -> None:
    n_picked = int(labels.picked.sum())  # type: ignore[union-attr]
    n_rest = max(int((~(labels.trusted | labels.no_class)).sum()), 1)
    if n_picked > MANY_PICKED * n_rest:
        warn_user(
            f"{n_picked:,} samples were picked by hand. Estimates rest on the samples that were "
            "drawn before, when these were among the others: a share of the samples that nobody "
            f"verified can differ from them by {min(n_picked / n_rest, 1):.1%}.",
            TrustedWarning,
        )


def _read_draws(
    draw_weight: Any, index: pd.Index | None, n_samples: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the weight and the order of each draw; NaN where there is none."""
    values = aligned("draw_weight", draw_weight, index, n_samples, may_lack=True)
    try:
        weight = np.array(pd.Series(values, dtype=object), dtype=float)
    except (TypeError, ValueError):
        raise InputError(
            "draw_weight holds values that are no numbers: pass one number for each verified "
            "sample."
        ) from None
    if weight.shape != (n_samples,):
        raise InputError(
            f"draw_weight has {len(weight)} entries for {n_samples} samples: pass one for each "
            "sample, or a Series whose index names the verified samples."
        )
    if isinstance(draw_weight, Mapping | pd.Series) and values is not draw_weight:
        positions = range(len(draw_weight))
        position: Any = dict(zip(draw_weight, positions, strict=True))
        if isinstance(draw_weight, pd.Series):
            position = pd.Series(positions, index=draw_weight.index)
        found = aligned("draw_weight", position, index, n_samples, may_lack=True)
        return weight, np.array(pd.Series(found, dtype=float).fillna(-1), dtype=int)
    order = np.empty(n_samples, dtype=int)
    order[np.argsort(weight != 1, kind="stable")] = np.arange(n_samples)
    return weight, order


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


def _as_mask(trusted: Any, given: np.ndarray) -> Any:
    """Return marks as a mask: True, False, 1, 0, "x", "yes", or missing; anything else as it is.

    Values that may be verified labels are left alone.
    """
    if trusted is None or len(given) == 0:
        return trusted
    values = np.asarray(trusted)
    if values.dtype == bool or values.ndim != 1:
        return trusted
    is_known = ~np.asarray(pd.isna(values))
    known, labels = values[is_known].tolist(), given.tolist()
    if known and all(isinstance(mark, str) and read_mark(mark) is not None for mark in known):
        mask = np.zeros(len(values), dtype=bool)
        mask[is_known] = [read_mark(mark) for mark in known]
        return trusted if {*known} & {*map(str, labels)} or not mask.any() else mask
    if not known or not all(
        isinstance(mark, bool | int | float) and mark in (0, 1) for mark in known
    ):
        return trusted
    if all(isinstance(mark, bool) for mark in known):
        may_be_labels = any(isinstance(label, bool | np.bool_) for label in labels)
    else:
        may_be_labels = not {0, 1, "0", "1"}.isdisjoint(labels)
    if may_be_labels:
        return trusted
    mask = np.zeros(len(values), dtype=bool)
    mask[is_known] = known
    return mask


def _is_minus_one_among_names(y: np.ndarray, has_label: np.ndarray, trusted: Any) -> np.ndarray:
    """Return where -1 beside names means a missing label; nowhere if a trusted sample has it.

    A warning tells so. Among whole numbers, `check_labels` finds -1 itself.
    """
    found = np.zeros(len(y), dtype=bool)
    if trusted is None or y.dtype.kind not in "OU":
        return found
    names = set(y[has_label].tolist()) - _MINUS_ONE
    are_whole = {isinstance(name, str) and is_whole(name) for name in names}
    values = np.asarray(trusted)
    if values.dtype == bool and values.shape == y.shape:
        values = y[values]
    verified = set(values[~np.asarray(pd.isna(values))].tolist())
    if len(are_whole) != 1 or not all(isinstance(name, str) for name in names):
        return found
    found[has_label] = [label in _MINUS_ONE for label in y[has_label].tolist()]
    if not found.any() or verified & _MINUS_ONE:
        return np.zeros(len(y), dtype=bool)
    warn_user(
        f"The label -1 of {found.sum():,} samples stands beside names and is taken as missing: if "
        "it is a class, verify a sample of it.",
        DataWarning,
    )
    return found


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
    if mask.all() and -1 in known and (-1 not in given.tolist() or len({*given.tolist()}) > 2):
        raise InputError(
            "`trusted` holds -1 and no missing value: write NaN or None for unverified samples, or "
            "another number for the class -1."
        )
    empty = {"", "nan", "None"} & {value for value in known if isinstance(value, str)}
    if empty and not empty & set(given.tolist()):
        raise InputError(
            f"`trusted` holds the text {shown(min(empty))}, which is not a label: write None for "
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
    like = y if len(y) else values[mask]  # there may be verified labels only
    numeric = all(isinstance(label, int | float | np.number | np.bool_) for label in like.tolist())
    for i in np.flatnonzero(mask):
        value = values[i].item() if isinstance(values[i], np.generic) else values[i]
        if isinstance(value, int | float) != numeric:
            raise InputError(
                f"The verified label {shown(value)} of sample {i} is not of the same type as the "
                f"given labels (such as {shown(like[0])}): write both the same way."
            )
        verified[i] = int(value) if isinstance(value, float) and value.is_integer() else value
    return verified


def _sorted_classes(given: np.ndarray, verified: np.ndarray) -> np.ndarray:
    if verified.dtype == given.dtype != object:
        return np.unique(np.concatenate([given, verified]))
    found = set(given.tolist()) | set(verified.tolist())
    texts = [label for label in found if isinstance(label, str)]
    if texts and len(texts) < len(found):
        number = next(label for label in found if not isinstance(label, str))
        raise InputError(
            f"Given labels are text and numbers, such as {min(texts)!r} and {number!r}: write all "
            "the same way."
        )
    try:
        classes = sorted(found)
    except TypeError as error:
        kinds = sorted({type(label).__name__ for label in found})
        raise InputError(
            f"Given and verified labels are of several types ({', '.join(kinds)}): write all the "
            "same way, as texts or whole numbers."
        ) from error
    keep_object = given.dtype == object and any(isinstance(name, str) for name in classes)
    return np.array(classes, dtype=object if keep_object else None)


def _encode(values: np.ndarray, known: np.ndarray, classes: np.ndarray) -> np.ndarray:
    codes = np.full(len(values), MISSING)
    lookup = {label: code for code, label in enumerate(classes.tolist())}
    codes[known] = [lookup[label] for label in values[known].tolist()]
    return codes


def _look_alikes(classes: np.ndarray, codes: np.ndarray) -> str | None:
    """Describe classes whose names look alike; None if there are none."""
    if not all(isinstance(name, str) for name in classes.tolist()):
        return None
    counts = np.bincount(codes[codes != MISSING], minlength=len(classes))
    return describe_look_alikes(dict(zip(classes.tolist(), counts.tolist(), strict=True)))


def _check_every_class_is_trusted(
    classes: np.ndarray, verified: np.ndarray, look_alikes: str | None
) -> None:
    untrusted = np.setdiff1d(np.arange(len(classes)), verified)
    if len(untrusted):
        raise InputError(
            f"No trusted sample has class {listed(classes[untrusted])}: verify some of its "
            "samples, merge it into another class, or drop it"
            f"{'' if look_alikes is None else f'; {look_alikes}'}."
        )
