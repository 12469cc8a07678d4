"""Groups of samples that belong together, such as rows of one patient: no fold splits them."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pudistill.exceptions import InputError, TrustedWarning, warn_user
from pudistill.labels.alignment import aligned
from pudistill.labels.checks import MISSING, Labels
from pudistill.labels.copies import find_repeats
from pudistill.labels.near_copies import MANY, share_of_near_copies
from pudistill.utils.shown import first_few, shown


def with_groups(
    labels: Labels,
    X: Any,
    groups: Any,
    index: pd.Index | None = None,
    *,
    texts: np.ndarray | None = None,
    are_verified: bool = True,
    warn: bool = True,
) -> Labels:
    """Return labels with groups, in which exact copies of a verified sample share its label.

    Copies of a sample that was verified to be of no class do not share this verdict.

    Parameters
    ----------
    labels : Labels
        Given and verified labels.
    X : samples of shape (n_samples, ...)
        Checked samples, which are searched for exact copies as `labels.copies` describes.
    groups : array-like of shape (n_samples,), Series, dict or None
        Names of the groups, see `check_groups`.
    index : Index of length n_samples or None
        The index of the samples, for the alignment of `groups` and for messages.
    texts : ndarray of str, shape (n_samples,), default=None
        The samples as texts, if they are: copies are looked for among these.
    are_verified : bool, default=True
        Whether trusted labels have been verified. If not, because no trusted samples were passed,
        copies keep their labels, however they differ.
    warn : bool, default=True
        Whether to warn if there are no groups, and many trusted samples have near copies.

    Returns
    -------
    labels : Labels
        The labels; the groups are None if there are neither groups nor copies.

    Raises
    ------
    InputError
        If copies are verified differently, as of a class and of none too, or groups are wrong.
    """
    n_samples = len(labels.given)
    if groups is not None:
        groups = check_groups(aligned("groups", groups, index, n_samples), n_samples)
    repeats = find_repeats(X if texts is None else texts)
    if repeats is None:
        return replace(labels, groups=groups)
    if repeats.copies is not None and are_verified:
        labels = with_copies(labels, repeats.copies, index)
    if warn and groups is None and are_verified:
        share = share_of_near_copies(X, labels.trusted, repeats.distinct)
        if share > MANY:
            warn_user(
                f"{share:.0%} of the trusted samples are nearly the same as other samples, so the "
                "expected accuracy will be too high for samples that are unlike all of these: if "
                "several samples come from one source (such as a patient, a document or a video), "
                "pass `groups` with the source of each sample.",
                TrustedWarning,
            )
    return replace(labels, groups=joined(groups, repeats.copies))


def with_copies(labels: Labels, copies: np.ndarray, index: pd.Index | None = None) -> Labels:
    """Give exact copies of trusted samples their verified labels.

    Copies of a sample that was verified to be of no class are left as they are.

    Parameters
    ----------
    labels : Labels
        Given and verified labels.
    copies : ndarray of shape (n_samples,), int
        As from `find_repeats`.
    index : Index of length n_samples or None
        Names of the samples in messages; row numbers by default.

    Returns
    -------
    labels : Labels
        The labels; copies are trusted, and marked in `copied`.

    Raises
    ------
    InputError
        If copies of one sample have different verified labels, or one of them is of no class.
    """
    rows = np.flatnonzero(labels.trusted)
    verified_of = np.full(copies.max() + 1, MISSING)
    verified_of[copies[rows]] = labels.verified[rows]
    differs = verified_of[copies[rows]] != labels.verified[rows]
    if differs.any():
        raise InputError(_about_conflicts(labels, copies, rows[differs], index))
    verified = verified_of[copies]
    if (in_doubt := labels.no_class & (verified != MISSING)).any():
        row = np.flatnonzero(in_doubt)[0]
        raise InputError(
            f"Sample {shown(row if index is None else index[row])} was verified to be of no class, "
            f"but an exact copy of it has the verified label {shown(labels.classes[verified[row]])}"
            ": correct one of them."
        )
    trusted = verified != MISSING
    copied = trusted & ~labels.trusted
    if not copied.any():
        return labels
    return replace(labels, trusted=trusted, verified=verified, copied=copied)


def _about_conflicts(
    labels: Labels, copies: np.ndarray, rows: np.ndarray, index: pd.Index | None
) -> str:
    """Describe sets of copies that are verified differently; `rows` has a row of each."""
    trusted = np.flatnonzero(labels.trusted)
    in_conflict = trusted[np.isin(copies[trusted], copies[rows])]
    names = range(len(copies)) if index is None else index
    conflicts = []
    for code in dict.fromkeys(copies[in_conflict].tolist()):
        members = in_conflict[copies[in_conflict] == code]
        classes = labels.classes[labels.verified[members]].tolist()
        conflicts.append(
            " and ".join(
                f"{names[row]} as {name!r}" for row, name in zip(members, classes, strict=True)
            )
        )
    return (
        f"Exact copies of a sample are verified differently: {first_few(conflicts, '; ')}: correct "
        "their labels, or remove the samples whose label is in doubt."
    )


def check_groups(groups: Any, n_samples: int) -> np.ndarray:
    """Convert the names of groups to codes.

    Parameters
    ----------
    groups : array-like of shape (n_samples,)
        The group of each sample: numbers, texts or any other values. A missing value (NaN, None,
        NA) means that a sample belongs to no other.
    n_samples : int
        Number of samples.

    Returns
    -------
    codes : ndarray of shape (n_samples,), int
        Codes 0, 1, 2 ...

    Raises
    ------
    InputError
        If there is not one group for each sample, or all samples are in the same group.

    Examples
    --------
    >>> from pudistill.labels.groups import check_groups
    >>> check_groups(["Ann", "Bob", None, "Ann", None], 5).tolist()
    [0, 1, 2, 0, 3]
    """
    codes = _codes("groups", groups, n_samples)
    alone = codes < 0
    codes[alone] = codes.max(initial=-1) + 1 + np.arange(alone.sum())
    if n_samples > 1 and codes.max() == 0:
        raise InputError(
            "`groups` holds one group only, so no sample can be predicted by a model that has not "
            "seen its group: pass a column that tells groups apart, or leave `groups` out."
        )
    return codes


def check_noise_groups(groups: Any, n_samples: int, index: pd.Index | None) -> np.ndarray:
    """Convert the names of noise groups to codes; samples of no group are in one together.

    Parameters
    ----------
    groups : array-like of shape (n_samples,), Series or dict
        The noise group of each sample, such as its annotator.
    n_samples : int
        Number of samples.
    index : Index of length n_samples or None
        The index of the samples, for the alignment of `groups`.

    Returns
    -------
    codes : ndarray of shape (n_samples,), int
        Codes 0, 1, 2 ...

    Raises
    ------
    InputError
        If there is not one group for each sample.

    Examples
    --------
    >>> from pudistill.labels.groups import check_noise_groups
    >>> check_noise_groups(["Ann", None, "Bob", "Ann", None], 5, None).tolist()
    [0, 2, 1, 0, 2]
    """
    groups = aligned("noise_groups", groups, index, n_samples)
    codes = _codes("noise_groups", groups, n_samples)
    return np.where(codes < 0, codes.max(initial=-1) + 1, codes)


def _codes(name: str, groups: Any, n_samples: int) -> np.ndarray:
    """Convert one name for each sample to codes; -1 where it is missing."""
    if np.ndim(groups) != 1:
        raise InputError(
            f"`{name}` has shape {np.shape(groups)}: pass one group for each sample, in one "
            "dimension."
        )
    if len(groups) != n_samples:
        raise InputError(
            f"`{name}` has {len(groups)} entries for {n_samples} samples: pass one for each sample."
        )
    return pd.factorize(pd.Series(groups))[0].astype(np.int64)


def joined(first: np.ndarray | None, second: np.ndarray | None) -> np.ndarray | None:
    """Join groups: samples that share a group in `first` or in `second` are in one group.

    Parameters
    ----------
    first, second : ndarray of shape (n_samples,), int, or None
        Codes of groups; None: no groups.

    Returns
    -------
    codes : ndarray of shape (n_samples,), int, or None
        The connected components.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.labels.groups import joined
    >>> joined(np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, 2, 3])).tolist()
    [0, 0, 0, 0, 1]
    """
    if first is None or second is None:
        return second if first is None else first
    n_first = first.max() + 1
    n = n_first + second.max() + 1
    links = coo_array((np.ones(len(first), bool), (first, n_first + second)), shape=(n, n))
    _, component = connected_components(links, directed=False)
    return np.unique(component[first], return_inverse=True)[1]
