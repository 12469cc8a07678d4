"""Which columns of a table can be features: not labels, ids or row numbers in disguise."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from pudistill.data.encoding import ROW_NUMBER, is_row_number
from pudistill.data.table_columns import is_feature

# With fewer rows, a column can be a copy of the labels by chance.
_ENOUGH_ROWS, _ROWS_LOOKED_AT = 20, 1000


def unfit_by_name(
    schema: pa.Schema, names: Sequence[str], reserved: Sequence[str]
) -> dict[str, str]:
    """Return the columns that are no features, judging by name and type, each with the reason."""
    reasons = dict.fromkeys(reserved, "called like labels, ids or row numbers")
    return {
        name: reasons.get(name, f"of type {schema.field(name).type}")
        for name in names
        if name in reasons or not is_feature(schema.field(name).type)
    }


def unfit_by_content(columns: pa.Table, labels: Sequence[np.ndarray | None]) -> dict[str, str]:
    """Return the columns that are no features, judging by their values, each with the reason.

    Parameters
    ----------
    columns : pyarrow.Table
        Columns that could be features.
    labels : sequence of ndarray of object, shape (n_samples,), or None
        Given and true labels.

    Returns
    -------
    reasons : dict of str to str
        Row numbers and ids, and copies of the labels, whatever they call the classes.
    """
    if columns.num_rows < _ENOUGH_ROWS:
        return {}
    reasons = {}
    codes = [_codes(pa.array(part, pa.string())) for part in labels if part is not None]
    for name, column in zip(columns.column_names, columns.columns, strict=True):
        if pa.types.is_integer(column.type) and is_row_number(name, column.to_pandas()):
            reasons[name] = ROW_NUMBER
        elif any(_is_copy(column, part) for part in codes):
            reasons[name] = "a copy of the labels"
    return reasons


def _codes(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Return a number for each distinct value; -1 where missing."""
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.unify_dictionaries().combine_chunks()
    return encoded.indices.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False)


def _is_copy(column: pa.ChunkedArray, codes: np.ndarray) -> bool:
    """Return whether each value stands beside one label, and each label beside one value."""
    n_labels = codes.max(initial=-1) + 1
    if n_labels < 2 or len(column[:_ROWS_LOOKED_AT].unique()) > n_labels + 1:
        return False
    values = _codes(column)
    both = np.unique(np.stack([values, codes])[:, (codes >= 0) & (values >= 0)], axis=1)
    n_known = np.count_nonzero(codes >= 0)
    is_complete = n_known >= _ENOUGH_ROWS and np.count_nonzero(values >= 0) >= n_known
    is_copy = both.shape[1] == n_labels == len(set(both[0])) == len(set(both[1]))
    return bool(is_complete and is_copy)
