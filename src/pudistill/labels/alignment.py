"""Alignment by index: labels, trusted samples and groups in the order of the samples."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from pudistill.exceptions import InputError, TrustedWarning, warn_user
from pudistill.utils.shown import shown


def index_of(values: Any) -> pd.Index | None:
    """Return the index of a pandas object; None for anything else, such as a list or an array."""
    return values.index if isinstance(values, pd.Series | pd.DataFrame) else None


def aligned(
    name: str, values: Any, index: pd.Index | None, n_samples: int, *, may_lack: bool = False
) -> Any:
    """Return values with an index in the order of the samples; all others as they are.

    Parameters
    ----------
    name : str
        What the values are, for error messages.
    values : array-like or mapping
        One value for each sample. A Series or a mapping is matched to the samples by its index or
        keys, anything else by position.
    index : Index of length n_samples or None
        The index of the samples; None if they have none. Then a Series counts by position, and
        keys are row numbers.
    n_samples : int
        Number of samples.
    may_lack : bool, default=False
        Whether `values` may lack samples, as verified labels do. Samples that a boolean Series
        lacks are False; those that other values lack are missing values.

    Returns
    -------
    values : array-like of shape (n_samples,)
        The values.

    Raises
    ------
    InputError
        If the index has other entries than that of the samples, or repeats an entry.

    Examples
    --------
    >>> import pandas as pd
    >>> from pudistill.labels.alignment import aligned
    >>> verified, ids = pd.Series(["dog", "cat"], index=["c", "a"]), pd.Index(["a", "b", "c"])
    >>> aligned("trusted", verified, ids, 3, may_lack=True).tolist()
    ['cat', nan, 'dog']
    """
    by_key = isinstance(values, Mapping)
    if by_key:
        values = pd.Series(dict(values), dtype=object)
    own = index_of(values)
    if own is None or (index is not None and own.equals(index)):
        return values
    if _counts_rows(own) and not by_key and (len(own) != n_samples or _counts_rows(index)):
        return values  # by position; another length is an error, which other checks report
    if index is None:
        if not by_key and (len(own) == n_samples or not may_lack):
            return values
        index = pd.RangeIndex(n_samples)
    if not (own.is_unique and index.is_unique):
        raise InputError(
            f"The index of `{name}` is not that of the samples, and entries occur more than once: "
            f"sort its rows like the samples and pass `{name}.to_numpy()`."
        )
    _check_entries(name, own, index, may_lack=may_lack, by_key=by_key)
    if len(own) == n_samples and not by_key and (_counts_rows(own) or _counts_rows(index)):
        # A count of rows can be the default index of an object that was made of shuffled rows.
        warn_user(
            f"`{name}` and the samples have the same row numbers as index, in another order: they "
            f"are matched by these numbers. If `{name}` already has the order of the samples, pass "
            f"`{name}.to_numpy()`.",
            TrustedWarning,
        )
    if len(own) == n_samples or isinstance(values, pd.DataFrame):
        return values.reindex(index)
    if values.dtype == bool:
        return values.reindex(index, fill_value=False)
    if not isinstance(values.dtype, pd.api.extensions.ExtensionDtype):
        values = values.astype(object)  # beside NaN, integers would become floats
    return values.reindex(index)


def _counts_rows(index: pd.Index | None) -> bool:
    """Whether an index is 0, 1, 2 ..., as pandas makes it where none is given."""
    return isinstance(index, pd.RangeIndex) and index.start == 0 and index.step == 1


def _check_entries(
    name: str, own: pd.Index, index: pd.Index, *, may_lack: bool, by_key: bool
) -> None:
    """Raise an `InputError` if entries are unknown or, unless they `may_lack`, missing."""
    unknown, lacking = own.difference(index, sort=False), index.difference(own, sort=False)
    if len(unknown):
        entry = shown(unknown[0])
        problem = f"holds the entry {entry}, which the index of the samples does not have"
    elif len(lacking) and not may_lack:
        problem = f"lacks the entry {shown(lacking[0])} of the samples"
    else:
        return
    if by_key:
        raise InputError(
            f"`{name}` {problem}: its keys must be entries of the samples' index, or row numbers "
            "if they have none."
        )
    raise InputError(
        f"The index of `{name}` {problem}: pass `{name}.reindex(X.index)`, or "
        f"`{name}.to_numpy()` if it already has the order of the samples."
    )
