"""Exact copies: rows of the samples that are identical because they are one sample.

Identical rows are not always copies of one sample: two people can have the same sex and age. A row
counts as a copy only if chance does not explain that it occurs again. The rule is:

1. It occurs at most `MAX_COPIES` times. More often, it is the row of an empty or a typical sample.
2. A small part of its columns already singles it out: no other row agrees with it in this part and
   differs elsewhere. The columns are dealt at random into `N_PARTS` parts, and `ENOUGH_PARTS` of
   them must single the row out. In coarse tables, such as a few columns of categories, rows that
   agree in a part of the columns are far more frequent than rows that agree in all columns, so no
   part singles a row out. In two columns of measurements, each value alone does.
3. There are at least `MIN_DISTINCT` distinct rows of at least `N_PARTS` columns. Otherwise rule 2
   would mean little: any of two different rows is singled out by a column in which they differ.

Rows that this rule does not find are treated like all others. A text is a copy if it has at least
`MIN_CHARACTERS` characters and rule 1 holds.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.sparse import csr_array, issparse

from pudistill.data.lazy_pictures import is_lazy
from pudistill.utils.arrays import BLOCK_SIZE

MAX_COPIES = 10
N_PARTS, ENOUGH_PARTS = 4, 2
MIN_DISTINCT = 20
MIN_CHARACTERS = 30
# Ways to deal the columns that are tried. One suffices unless all that a row has, such as the words
# of a short text, falls into one part.
N_DEALS = 4


class Repeats(NamedTuple):
    """Equal rows of the samples.

    Attributes
    ----------
    copies : ndarray of shape (n_samples,), int, or None
        Copies of one sample have the same code, and all other samples have codes of their own;
        None if there are no copies.
    distinct : ndarray, int
        The first of each set of equal rows, whether they are copies or not.
    """

    copies: np.ndarray | None
    distinct: np.ndarray


def find_repeats(X: Any) -> Repeats | None:
    """Find equal rows, and those that are copies as the module's docstring defines them.

    Parameters
    ----------
    X : {ndarray, sparse matrix, data frame, array or Series of texts} of shape (n_samples, ...)
        Samples.

    Returns
    -------
    repeats : Repeats or None
        None if such samples cannot be compared quickly: pictures on disk, or objects.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.labels.copies import find_repeats
    >>> X = np.random.default_rng(0).normal(size=(100, 5))
    >>> copies = find_repeats(np.vstack([X, X[:2]])).copies
    >>> bool(copies[100] == copies[0]), bool(copies[2] == copies[0])
    (True, False)
    >>> find_repeats(np.ones((100, 5))).copies is None  # equal rows that say nothing
    True
    """
    rows = _as_rows(X)
    if rows is None:
        return None
    keys = _keys(rows)
    _, first, codes, counts = np.unique(
        keys, return_index=True, return_inverse=True, return_counts=True
    )
    # In the order of the rows: Python's hashes differ from process to process.
    order = np.argsort(first)
    first, counts, codes = first[order], counts[order], np.argsort(order)[codes]
    is_copied = (counts > 1) & (counts <= MAX_COPIES)
    if is_copied.any():
        if rows.ndim == 1:
            is_copied &= np.array([len(str(rows[n])) for n in first]) >= MIN_CHARACTERS
        else:
            is_copied &= _singled_out(rows, first, is_copied)
    if not is_copied.any():
        return Repeats(None, first)
    # Rows that are no copies get codes of their own.
    copies = np.where(is_copied[codes], codes, len(counts) + np.arange(len(codes)))
    return Repeats(copies, first)


def _as_rows(X: Any) -> Any:
    """Return samples as an array of one or two dimensions or a CSR matrix; None: not compared."""
    if is_lazy(X):
        return None
    if issparse(X):
        rows = csr_array(X, copy=True)
        rows.sum_duplicates()
        rows.eliminate_zeros()
        return rows
    if isinstance(X, pd.DataFrame):
        if X.shape[1] == 1 and X.dtypes.iloc[0].kind == "O":
            return X.iloc[:, 0].to_numpy()
        try:
            columns = [pd.util.hash_pandas_object(X[name], index=False) for name in X]
        except TypeError:  # values such as lists
            return None
        return np.column_stack(columns)
    rows = np.asarray(X)
    if rows.ndim > 1:
        return None if rows.dtype == object else rows.reshape(len(rows), -1)
    return rows


def _keys(rows: Any, of: np.ndarray | None = None, columns: np.ndarray | None = None) -> np.ndarray:
    """Return a 64-bit hash of each row, or of the rows `of`, in all columns or in some `columns`.

    Rows with the same hash are taken as equal: for a million rows, the probability that any two
    different rows have the same hash is below 1e-7.
    """
    n_rows = rows.shape[0] if of is None else len(of)
    keys = np.empty(n_rows, dtype=np.int64)
    for start in range(0, n_rows, BLOCK_SIZE):
        part = slice(start, start + BLOCK_SIZE)
        block = rows[part] if of is None else rows[of[part]]
        contents = _contents(block if columns is None else block[:, columns])
        keys[part] = [hash(content) for content in contents]
    return keys


def _contents(block: Any) -> Iterator[Any]:
    """Yield what a hash of each row is computed from."""
    if issparse(block):
        for start, end in zip(block.indptr[:-1], block.indptr[1:], strict=True):
            yield block.indices[start:end].tobytes(), block.data[start:end].tobytes()
    elif block.ndim == 1:
        yield from map(str, block)
    else:
        if block.dtype.kind == "f":
            block = block + 0.0  # -0.0 equals 0.0 but has other bytes
        yield from (row.tobytes() for row in block)


def _singled_out(rows: Any, first: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return which distinct rows are singled out by small parts of their columns.

    Parameters
    ----------
    rows : array or sparse matrix of shape (n_samples, n_columns)
        Samples.
    first : ndarray of shape (n_distinct,), int
        The first of each set of equal rows.
    wanted : ndarray of shape (n_distinct,), bool
        The rows that matter: columns are not dealt again when all of them are singled out.
    """
    found = np.zeros(len(first), dtype=bool)
    if len(first) < MIN_DISTINCT or rows.shape[1] < N_PARTS:
        return found
    rng = np.random.default_rng(0)
    for _ in range(N_DEALS):
        parts = np.array_split(rng.permutation(rows.shape[1]), N_PARTS)
        n_parts = sum(_is_unique(_keys(rows, first, np.sort(part))) for part in parts)
        found |= n_parts >= ENOUGH_PARTS
        if found[wanted].all():
            break
    return found


def _is_unique(keys: np.ndarray) -> np.ndarray:
    _, codes, counts = np.unique(keys, return_inverse=True, return_counts=True)
    return (counts[codes] == 1).astype(int)
