"""Writes a `TrustedDataset` to a file that `load_dataset` can read."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from pudistill.data.dataset import TrustedDataset
from pudistill.data.pictures import encode_picture
from pudistill.exceptions import InputError
from pudistill.utils.files import open_atomic

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS_AT_ONCE = 1024
_GROUPS = {"group": "groups", "noise_group": "noise_groups"}  # columns, and where they come from


def write_table(dataset: TrustedDataset, path: str | os.PathLike[str]) -> None:
    """Write a data set as `.parquet`, `.csv` (no pictures) or `.npz`.

    A table has the columns ``id``, ``label`` and ``trusted``; ``verified_label`` and
    ``true_label`` if they add anything; ``group`` and ``noise_group`` if there are any; and the
    features (x0, x1, ... if they have no names), or ``text``, or ``image`` with PNG pictures in
    Hugging Face's layout. The file appears only when it is complete.

    Parameters
    ----------
    dataset : TrustedDataset
        The data set.
    path : str or path
        The file, which must not exist yet; its suffix decides the format.

    Raises
    ------
    InputError
        If there are no samples, the path exists, its suffix is unknown, or the format cannot hold
        the data.

    Examples
    --------
    >>> import tempfile
    >>> from pudistill.data.loading import load_dataset
    >>> from pudistill.data.writing import write_table
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_table(load_dataset("wine"), f"{folder}/wine.csv")
    ...     load_dataset(f"{folder}/wine.csv").X.shape
    (178, 13)
    """
    path = Path(path)
    writers = {".parquet": _write_parquet, ".csv": _write_csv, ".npz": _write_npz}
    write = writers.get(path.suffix.lower())
    if write is None:
        raise InputError(f"{path}: name a file that ends in {', '.join(writers)}.")
    if path.exists():
        raise InputError(f"{path}: this file exists already: name a new one.")
    if len(dataset) == 0:
        raise InputError(f"{path}: there are no samples to write.")
    if not path.parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}: create it first.")
    with open_atomic(path) as file:
        write(dataset, file, path)


def _groups_of(dataset: TrustedDataset) -> dict[str, np.ndarray]:
    """Return the columns of groups by name."""
    columns = {name: getattr(dataset, part) for name, part in _GROUPS.items()}
    return {name: groups for name, groups in columns.items() if groups is not None}


def _write_parquet(dataset: TrustedDataset, file: IO[bytes], path: Path) -> None:
    import pyarrow.parquet

    _write_batches(pyarrow.parquet.ParquetWriter, file, batches_of(dataset, path))


def _write_csv(dataset: TrustedDataset, file: IO[bytes], path: Path) -> None:
    import pyarrow.csv

    if dataset.is_pictures:
        raise InputError(f"{path}: CSV cannot hold pictures: write .parquet or .npz.")
    if dataset.is_frame:
        floats = dataset.X.select_dtypes(np.float32).columns
        dataset = replace(dataset, X=dataset.X.astype(dict.fromkeys(floats, np.float64)))
    elif not dataset.is_text:
        # CSV is read as float64: a float32 in its shortest digits would become another number.
        dataset = replace(dataset, X=dataset.X.astype(np.float64))
    _write_batches(pyarrow.csv.CSVWriter, file, batches_of(dataset, path))


def _write_batches(
    open_writer: Callable[..., Any], file: IO[bytes], batches: Iterator["pa.RecordBatch"]
) -> None:
    first = next(batches)  # for its schema
    with open_writer(file, first.schema) as writer:
        for batch in chain([first], batches):
            writer.write_batch(batch)


def _write_npz(dataset: TrustedDataset, file: IO[bytes], path: Path) -> None:
    if dataset.is_text:
        raise InputError(f"{path}: .npz cannot hold texts: write .parquet or .csv.")
    if dataset.is_frame:
        raise InputError(
            f"{path}: .npz cannot hold words, dates or missing values: write .parquet or .csv."
        )
    if _groups_of(dataset):
        raise InputError(f"{path}: .npz cannot hold groups: write .parquet or .csv.")
    arrays = {"X": dataset.X, "trusted": dataset.trusted, "ids": _unicode(dataset.ids, path)}
    for part, labels in _label_columns(dataset).items():
        arrays[{"label": "y", "true_label": "true_labels"}.get(part, "verified")] = _unicode(
            labels, path
        )
    if dataset.feature_names is not None:
        arrays["feature_names"] = np.array(dataset.feature_names, dtype=str)
    np.savez(file, allow_pickle=False, **arrays)


def _unicode(texts: np.ndarray, path: Path) -> np.ndarray:
    values = ["" if text is None else text for text in texts]
    array = np.array(values, dtype=str)
    if array.tolist() != values:
        raise InputError(f"{path}: .npz cannot hold text that ends in NUL: write .parquet.")
    return array


def _label_columns(dataset: TrustedDataset) -> dict[str, np.ndarray]:
    """Return the columns of labels, without columns that add nothing."""
    columns = {"label": dataset.y}
    marked = dataset.marked if dataset.marked is not None else np.zeros(len(dataset), dtype=bool)
    if (dataset.trusted & ~marked).any():
        columns["verified_label"] = dataset.verified
    if dataset.true_labels is not None:
        columns["true_label"] = dataset.true_labels
    return columns


def batches_of(dataset: TrustedDataset, path: Path) -> "Iterator[pa.RecordBatch]":
    """Yield a data set as a table, see `write_table`, a few rows at a time."""
    import pyarrow as pa

    labels = _label_columns(dataset)
    names = _feature_names(dataset, path)
    metadata = {"huggingface": _hugging_face(labels)} if dataset.is_pictures else None
    for start in range(0, len(dataset), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        columns: dict[str, Any] = {"id": pa.array(dataset.ids[rows], pa.string())}
        for name, values in labels.items():
            columns[name] = pa.array(values[rows], pa.string())
        columns["trusted"] = pa.array(dataset.trusted[rows])
        for name, groups in _groups_of(dataset).items():
            columns[name] = pa.array(groups[rows], pa.string())
        if dataset.is_pictures:
            pictures = np.asarray(dataset.X[rows])
            encoded = [{"bytes": encode_picture(picture)} for picture in pictures]
            kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
            columns["image"] = pa.array(encoded, kind)
        elif dataset.is_text:
            columns["text"] = pa.array(dataset.X[rows], pa.string())
        else:
            for index, name in enumerate(names):
                columns[name] = _feature(dataset.X, rows, index)
        yield pa.RecordBatch.from_pydict(columns, metadata=metadata)


def _feature(X: Any, rows: slice, index: int) -> "pa.Array":
    import pyarrow as pa

    if isinstance(X, np.ndarray):
        return pa.array(X[rows, index])
    column = X.iloc[rows, index]
    kind = pa.string() if column.dtype == object else None  # also of a block without any word
    return pa.array(column.to_numpy(), kind, from_pandas=True)


def _feature_names(dataset: TrustedDataset, path: Path) -> tuple[str, ...]:
    if dataset.is_pictures or dataset.is_text:
        return ()
    from pudistill.data.tables import NO_FEATURES, TRUE_LABEL, VERIFIED_LABEL

    names = dataset.feature_names or tuple(f"x{index}" for index in range(dataset.X.shape[1]))
    # When the table is read, these columns would not be features.
    reserved = {*NO_FEATURES, VERIFIED_LABEL, TRUE_LABEL}
    reserved |= _groups_of(dataset).keys()
    for name in names:
        if name in reserved:
            raise InputError(f"{path}: a feature is called {name!r}: rename that column first.")
    return names


def _hugging_face(labels: dict[str, np.ndarray]) -> str:
    """Return metadata by which Hugging Face's `datasets` reads `image` as pictures."""
    texts = {name: {"dtype": "string", "_type": "Value"} for name in ("id", *labels)}
    features = {
        **texts,
        "trusted": {"dtype": "bool", "_type": "Value"},
        "image": {"_type": "Image"},
    }
    return json.dumps({"info": {"features": features}})
