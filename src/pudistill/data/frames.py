"""Tables and columns of pandas, polars, pyarrow and Hugging Face's `datasets`, as one kind.

None of these libraries is imported unless the object comes from it.
"""

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute

from pudistill.data.columns import object_array
from pudistill.exceptions import InputError

_FOREIGN = ("polars", "pyarrow", "datasets")
_LABELS = ("label", "labels")


def library_of(values: Any) -> str:
    """Return the name of the package that an object comes from."""
    return type(values).__module__.partition(".")[0]


def name_of(source: Any) -> str:
    """Return what messages call a table in memory."""
    return f"the {library_of(source)} {type(source).__name__}".replace("builtins ", "")


def as_arrow(source: Any) -> pa.Table:
    """Return a table of pandas, polars, pyarrow or `datasets` as a table of pyarrow.

    Raises
    ------
    InputError
        If the object is no table, or a column mixes values of different kinds.
    """
    library, kind = library_of(source), type(source).__name__
    try:
        if isinstance(source, pd.DataFrame):
            return pa.Table.from_pandas(source)
        if library == "polars" and kind == "LazyFrame":
            source, kind = source.collect(), "DataFrame"
        if library == "polars" and kind == "DataFrame":
            return source.to_arrow()
        if library == "pyarrow" and kind == "RecordBatch":
            return pa.Table.from_batches([source])
        if library == "pyarrow" and kind == "Table":
            return source
        if library == "datasets" and kind == "Dataset":
            return source.with_format("arrow")[:]
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        raise InputError(
            f"{name_of(source)} cannot be read as a table ({error}): give every column one kind of "
            "values and its own name."
        ) from error
    raise InputError(
        f"{name_of(source)} is not a table: give a file, a folder, or a table of pandas, polars, "
        "pyarrow or datasets."
    )


def plain(table: pa.Table) -> pa.Table:
    """Return a table without types that only some libraries know, such as views of texts."""
    columns = [_plain(column) for column in table.columns]
    fields = [
        field.with_type(column.type) for field, column in zip(table.schema, columns, strict=True)
    ]
    return pa.table(columns, pa.schema(fields, table.schema.metadata))


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        chunks = [chunk.storage for chunk in column.chunks]
        return _plain(pa.chunked_array(chunks, kind.storage_type))
    if pa.types.is_dictionary(kind) and kind.value_type in (pa.string_view(), pa.binary_view()):
        chunks = [
            pa.DictionaryArray.from_arrays(
                chunk.indices, _plain(pa.chunked_array([chunk.dictionary])).combine_chunks()
            )
            for chunk in column.chunks
        ]
        values = pa.large_string() if kind.value_type == pa.string_view() else pa.large_binary()
        return pa.chunked_array(chunks, pa.dictionary(kind.index_type, values))
    if pa.types.is_string_view(kind):
        return column.cast(pa.large_string())
    if pa.types.is_binary_view(kind):
        return column.cast(pa.large_binary())
    return column


def spread_lists(where: Any, table: pa.Table) -> pa.Table:
    """Replace each column of numeric lists, such as embeddings, by a column for each position.

    Parameters
    ----------
    where : object
        Name of the table, for messages.
    table : pyarrow.Table
        Lists can be nested. Those of a column must all be of one length.

    Returns
    -------
    table : pyarrow.Table
        The columns of a list ``a`` are called ``a[0]``, ``a[1]`` and so on.

    Raises
    ------
    InputError
        If lists differ in length, are empty or missing.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from pudistill.data.frames import spread_lists
    >>> spread_lists("", pa.table({"a": [[1, 2], [3, 4]], "b": [5, 6]})).column_names
    ['a[0]', 'a[1]', 'b']
    """
    if not any(is_list(kind) for kind in table.schema.types):
        return table
    columns = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        matrix = _matrix(where, name, column) if is_list(column.type) else None
        if matrix is None:
            columns[name] = column
        else:
            columns |= {f"{name}[{n}]": pa.array(matrix[:, n]) for n in range(matrix.shape[1])}
    return pa.table(columns, metadata=table.schema.metadata)


def value_type(kind: pa.DataType) -> pa.DataType:
    """Return the type of the values of a column, which can be stored as numbers of a dictionary."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def is_list(kind: pa.DataType) -> bool:
    """Return whether values of this type are lists."""
    tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(test(kind) for test in tests)


def _matrix(where: Any, name: str, column: pa.ChunkedArray) -> np.ndarray | None:
    """Return a column of lists as a matrix with a row for each; None if they hold no numbers."""
    kind = column.type
    while is_list(kind):
        kind = kind.value_type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        return None
    values = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    while is_list(values.type):
        lengths = pa.compute.list_value_length(values).unique()
        if len(lengths) != 1 or not lengths[0].as_py():
            raise InputError(
                f"{where}: the lists in column {name!r} are not of one length: give every row as "
                "many values, or drop the column."
            )
        values = values.flatten()
    return values.to_numpy(zero_copy_only=False).reshape(len(column), -1)


def as_frame(X: Any) -> Any:
    """Return a table of polars, pyarrow or `datasets` as a pandas DataFrame, lists as columns.

    Columns of a DataFrame that have names of several types are named by texts, and columns of
    pyarrow's types become those of pandas. What a masked array hides becomes NaN. Rows of words and
    numbers in lists become an array.

    Parameters
    ----------
    X : object
        Samples. Columns of a `datasets.Dataset` that hold labels (those of type ClassLabel, and
        ``label`` and ``labels``) are left out.

    Returns
    -------
    X : object
        A data frame; a single column as an array, see `as_column`; anything else as it is.

    Raises
    ------
    InputError
        If a column holds pictures or other objects with parts, two columns have the same name, or
        the samples are a dict or dicts.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from pudistill.data.frames import as_frame
    >>> as_frame(pa.table({"a": [1.0, 2.0]}))["a"].tolist()
    [1.0, 2.0]
    """
    if isinstance(X, pd.DataFrame):
        return _with_plain_columns(X)
    if library_of(X) not in _FOREIGN:
        return _with_plain_rows(X)
    if not _has_columns(X):
        return as_column(X)
    if library_of(X) == "datasets" and type(X).__name__ == "Dataset":
        labels = [
            name
            for name, feature in X.features.items()
            if name in _LABELS or type(feature).__name__ == "ClassLabel"
        ]
        X = X.remove_columns(labels)
    table = plain(as_arrow(X))
    for field in table.schema:
        if pa.types.is_struct(field.type):
            raise InputError(
                f"Column {field.name!r} of {name_of(X)} is of type {field.type}: read pictures "
                "with pudistill.load_dataset, or drop the column."
            )
    try:
        frame = spread_lists(name_of(X), table).to_pandas(date_as_object=False)
    except (pa.ArrowException, ValueError) as error:
        raise InputError(
            f"{name_of(X)} holds a column that pandas cannot hold ({error})."
        ) from error
    return _with_plain_columns(frame)


def _with_plain_columns(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a data frame whose columns have unique names of one type, and types of pandas."""
    names = frame.columns
    if isinstance(names, pd.MultiIndex) or len({type(name) for name in names}) > 1:
        frame = frame.set_axis([str(name) for name in names], axis=1)
    repeated = frame.columns[frame.columns.duplicated()]
    if len(repeated):
        raise InputError(f"Two columns are called {str(repeated[0])!r}: rename or drop one.")
    of_arrow = [n for n, kind in enumerate(frame.dtypes) if isinstance(kind, pd.ArrowDtype)]
    if of_arrow:
        frame = frame.copy(deep=False)
    for n in of_arrow:
        values = pa.chunked_array(pa.array(frame.iloc[:, n]))
        frame.isetitem(n, values.to_pandas(date_as_object=False).array)
    return frame


def _with_plain_rows(X: Any) -> Any:
    """Return samples of Python and numpy as arrays in which words stay words, gaps are None."""
    if isinstance(X, np.ma.MaskedArray):
        return np.ma.filled(X.astype(float), np.nan) if X.dtype.kind in "biuf" else as_column(X)
    is_list = isinstance(X, list | tuple) and len(X) > 0
    is_dicts = type(X) is dict or (is_list and isinstance(X[0], dict))  # sparse DOK is a dict, too
    if is_dicts or getattr(getattr(X, "dtype", None), "names", None):
        raise InputError("The samples are named fields, not a table: pass pandas.DataFrame(X).")
    if getattr(getattr(X, "dtype", None), "kind", "") == "S" or (
        is_list and isinstance(X[0], bytes)
    ):
        raise InputError("The samples are bytes: decode them, [text.decode() for text in X].")
    lengths = {len(row) if isinstance(row, list | tuple) else 0 for row in X} if is_list else {0}
    if len(lengths) == 1 and 0 not in lengths:
        table = np.array(X, dtype=object)
        if table.ndim == 2 and any(isinstance(value, str | None) for value in table.flat):
            return table
    return X


def as_column(values: Any) -> Any:
    """Return a column of polars, pyarrow or `datasets` as an array; anything else as it is.

    Whole numbers beside missing values stay whole numbers. What a masked array hides is missing. A
    list of names with NaN among them, which NumPy would make the name 'nan', becomes an array, too.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from pudistill.data.frames import as_column
    >>> as_column(pa.array([1, None])).tolist()
    [1, None]
    """
    if isinstance(values, np.ma.MaskedArray):
        with_gaps = values.data.astype(object)
        with_gaps[np.ma.getmaskarray(values)] = None
        return with_gaps
    if isinstance(values, list | tuple):
        has_names = any(isinstance(value, str) for value in values)
        has_nan = any(isinstance(value, float) and value != value for value in values)
        return object_array(values) if has_names and has_nan else values
    if library_of(values) not in _FOREIGN or _has_columns(values):
        return values
    convert = getattr(values, "to_pylist", None) or getattr(values, "to_list", None)
    entries = list(values) if convert is None else convert()
    return object_array(entries) if None in entries else np.asarray(entries)


def _has_columns(values: Any) -> bool:
    """Return whether an object is a table. Its class is asked: a LazyFrame warns when it is."""
    return hasattr(type(values), "columns") or hasattr(type(values), "column_names")
