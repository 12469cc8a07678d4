"""Copies of a table or of an ``.npz`` file with other labels: same format, columns and rows."""

import csv
import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from pudistill.data.table_columns import class_names, is_words
from pudistill.data.table_files import Table, as_table_error
from pudistill.data.table_sources import files_of, training_split
from pudistill.data.text_files import COMPRESSED, encoding_of, open_bytes, open_text, suffix_of
from pudistill.exceptions import InputError
from pudistill.utils.files import open_atomic, write_npz
from pudistill.utils.shown import shown

ADDED = ("given", "confidence", "accepted")
"""The columns that a copy has beside those of the original."""
NEW_COLUMN = "label"  # where the original has no single column of labels
_HUGGING_FACE = b"huggingface"
_ROWS_AT_ONCE, _PICTURES_AT_ONCE = 65_536, 256


@dataclass(frozen=True)
class NewLabels:
    """The labels of a copy, a value for each row of the original.

    Attributes
    ----------
    label : ndarray of object
        Class names; None without a label.
    differs : ndarray of bool
        Whether the label is another one than in the original.
    given : ndarray of object
        Class names before the correction; used only where the original has no column of them.
    confidence : ndarray of float
        Probability that the label is right; NaN where it is unknown.
    accepted : ndarray of object
        Whether the label is certified; None where that is unknown.
    no_class_label : str or None
        The label of samples of no class. A column of numbers, which cannot hold it, gets a missing
        value instead.
    """

    label: np.ndarray
    differs: np.ndarray
    given: np.ndarray
    confidence: np.ndarray
    accepted: np.ndarray
    no_class_label: str | None = None

    def __len__(self) -> int:
        return len(self.label)

    def rows(self, start: int, n_rows: int) -> "NewLabels":
        """Return some rows."""
        part = slice(start, start + n_rows)
        arrays: dict[str, Any] = {
            name: value[part] for name, value in vars(self).items() if isinstance(value, np.ndarray)
        }
        return replace(self, **arrays)


def write_corrected(
    source: Path, table: Table, output: Path, column: str | None, names: Any, new: NewLabels
) -> None:
    """Write a copy of a table with other labels, and the columns `ADDED`.

    Parameters
    ----------
    source : Path
        The file, or the folder, of the table.
    table : Table
        The same table, opened.
    output : Path
        The copy, which must not exist yet; a folder if `source` is one.
    column : str or None
        The column of labels. None: there is none, or one for each of several sources; the copy gets
        the column ``label``.
    names : ndarray of object
        The names of the labels in the column, as `identify` reads them.
    new : NewLabels
        What the copy holds.

    Raises
    ------
    InputError
        If the format cannot be written, or a column of the copy exists already.
    """
    added = ADDED if column is not None else (NEW_COLUMN, *ADDED)
    taken = [name for name in added if name in table.schema.names]
    if taken:
        raise InputError(
            f"{source} has a column {taken[0]!r} already, which the corrected copy would need: "
            "rename it."
        )
    if (
        source.is_dir()
        and (source / "dataset_dict.json").exists() | (source / "state.json").exists()
    ):
        _copy_saved_dataset(source, output, column, _spelling(table, column, names), new)
        return
    files = files_of(source) if source.is_dir() else [source]
    suffix = suffix_of(files[0])
    if suffix not in _COPIES:
        raise InputError(
            f"{source}: a corrected copy of this format cannot be written: "
            "pudistill.load(RUN).to_datasets().to_parquet(FILE) writes one as parquet."
        )
    if not source.is_dir() and suffix_of(output) != suffix:
        raise InputError(f"{output}: the copy has the format of {source}: let it end in {suffix}.")
    spelling = _spelling(table, column, names)
    start = 0
    for file in files:
        place = output / file.relative_to(source) if source.is_dir() else output
        place.parent.mkdir(parents=True, exist_ok=True)
        with as_table_error(file):
            start += _COPIES[suffix](file, table, place, column, spelling, new, start)
    if start != len(new):
        raise InputError(f"{source} changed while it was copied: begin again.")


def write_corrected_npz(source: Path, output: Path, names: np.ndarray, new: NewLabels) -> None:
    """Write a copy of an ``.npz`` file with other labels in ``y``, and the arrays `ADDED`."""
    if output.suffix.lower() != ".npz":
        raise InputError(f"{output}: the copy has the format of {source}: let it end in .npz.")
    with np.load(source, allow_pickle=False) as file:
        arrays = dict(file)
    if taken := [name for name in ADDED if name in arrays]:
        raise InputError(f"{source} has an array {taken[0]!r} already: rename it.")
    y = arrays["y"]
    spelled = dict(zip(names.tolist(), y.tolist(), strict=True))
    changed = np.flatnonzero(new.differs)
    values = [_spelled(name, spelled, new, y.dtype.kind in "iuf") for name in new.label[changed]]
    if None in values:
        raise InputError(
            f"{source}: its labels are numbers, and {shown(new.no_class_label)} is none: fit with "
            "--no-class-label and a number, or use a table."
        )
    if y.dtype.kind == "U":  # a longer name would be cut
        y = y.astype(np.result_type(y.dtype, np.array([str(value) for value in values] + [""])))
    arrays["y"] = y.copy()
    arrays["y"][changed] = values
    accepted = new.accepted == True  # noqa: E712 - None is not accepted
    arrays |= {"given": y, "confidence": new.confidence, "accepted": accepted.astype(bool)}
    with open_atomic(output) as file:
        write_npz(file, arrays)


def _spelling(table: Table, column: str | None, names: Any) -> dict[str, Any]:
    """Return each class as the column of labels writes it: the class "1" may be 1 or "1.0"."""
    if column is None:
        return {}
    values = table.read([column], as_text=[column])[column]
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    spelling: dict[str, Any] = {}
    for name, value in zip(names.tolist(), values.to_pylist(), strict=True):
        if name is not None:
            spelling.setdefault(name, value)
    return spelling


def _spelled(name: str | None, spelling: dict[str, Any], new: NewLabels, are_numbers: bool) -> Any:
    """Return a class as the data write it; None for a sample of no class among numbers."""
    if name is None or name in spelling:
        return None if name is None else spelling[name]
    if not are_numbers:
        return name
    try:
        return int(name)
    except ValueError:
        if name == new.no_class_label:
            return None
        raise InputError(
            f"The labels of the data are numbers, and the label {shown(name)} is none: correct the "
            "verified labels."
        ) from None


@contextmanager
def _open_new(output: Path) -> Iterator[IO[bytes]]:
    """Open a new file for writing, compressed if its last suffix says so."""
    with open_atomic(output) as file:
        if output.suffix.lower() not in COMPRESSED:
            yield file
            return
        codec = pa.Codec.detect(output.name.lower()).name
        # pyarrow closes what it writes to.
        with (
            os.fdopen(os.dup(file.fileno()), "wb") as twin,
            pa.CompressedOutputStream(pa.PythonFile(twin, mode="w"), codec) as packed,
        ):
            yield packed


def _copy_csv(
    source: Path,
    table: Any,
    output: Path,
    column: str | None,
    spelling: dict[str, Any],
    new: NewLabels,
    _: int,
) -> int:
    """Copy a CSV file row by row; all other values stay as they are written."""
    encoding, delimiter = table.reading.encoding, table.parsing.delimiter
    at_end = "\r\n" if _first_line(source, encoding).endswith("\r\n") else "\n"
    csv.field_size_limit(sys.maxsize)
    with _open_new(output) as file, open_bytes(source) as stream:
        lines = io.TextIOWrapper(stream, encoding, newline="")
        text = io.TextIOWrapper(file, encoding, newline="", write_through=True)
        rows = (row for row in csv.reader(lines, delimiter=delimiter) if row)
        writer = csv.writer(text, delimiter=delimiter, lineterminator=at_end)
        header = next(rows)
        position = None if column is None else header.index(column)
        writer.writerow(header + ([] if position is not None else [NEW_COLUMN]) + [*ADDED])
        n_rows = 0
        for row, values in zip_longest(rows, _values(new)):
            if row is None or values is None or len(row) != len(header):
                raise InputError(
                    f"{source}: row {n_rows + 1:,} cannot be copied: write the file again with one "
                    "line for each row."
                )
            label, differs, given, confidence, accepted = values
            if position is not None:
                given = row[position]
                if differs:
                    row[position] = _text(_spelled(label, spelling, new, are_numbers=False))
            else:
                row.append(_text(label))
            writer.writerow([*row, _text(given), _text(confidence), _text(accepted)])
            n_rows += 1
        text.flush()
        text.detach()
    return n_rows


def _first_line(source: Path, encoding: str) -> str:
    with open_bytes(source) as stream:
        return next(io.TextIOWrapper(stream, encoding, newline=""), "")


def _values(new: NewLabels) -> Iterator[tuple[Any, ...]]:
    """Yield label, whether it differs, given label, confidence and acceptance of each row."""
    confidence = [None if value != value else round(value, 6) for value in new.confidence.tolist()]
    return zip(
        new.label.tolist(),
        new.differs.tolist(),
        new.given.tolist(),
        confidence,
        new.accepted.tolist(),
        strict=True,
    )


def _text(value: Any) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


# What an object that holds a whole data set has.
OF_COCO = {"images", "annotations", "categories"}


def _no_rows(source: Path) -> InputError:
    return InputError(
        f"{source}: a corrected copy of JSON is written for a list of objects, or lines of "
        "objects: pudistill.load(RUN).to_datasets().to_json(FILE) writes one."
    )


def _copy_json(
    source: Path,
    table: Any,
    output: Path,
    column: str | None,
    spelling: dict[str, Any],
    new: NewLabels,
    _: int,
) -> int:
    """Copy JSON: a list of objects, or lines of objects."""
    encoding = encoding_of(source, table.encoding)
    with open_text(source, encoding) as text:
        content = text.read().strip()
    is_list = content.startswith("[")
    lines = [content] if is_list else [line for line in content.split("\n") if line.strip()]
    try:
        parsed = [json.loads(line) for line in lines]
    except ValueError as error:  # an object on several lines, as in COCO
        raise _no_rows(source) from error
    found: list[Any] = parsed[0] if is_list else parsed
    if len(found) != len(new) or any({*row} >= OF_COCO for row in found[:1]):
        raise _no_rows(source)
    if is_list and found and {"data", "annotations"} <= {*found[0]}:
        raise InputError(
            f"{source}: these are tasks of Label Studio: `pudistill export RUN --to label-studio` "
            "writes them with the corrected labels."
        )
    are_numbers = all(isinstance(value, int | float) for value in spelling.values())
    rows = [
        json.dumps(
            _corrected_row(row, column, spelling, new, are_numbers, values), ensure_ascii=False
        )
        for row, values in zip(found, _values(new), strict=True)
    ]
    with _open_new(output) as file:
        written = "[" + ",\n".join(rows) + "]\n" if is_list else "\n".join(rows) + "\n"
        file.write(written.encode(encoding))
    return len(rows)


def _corrected_row(
    row: dict[str, Any],
    column: str | None,
    spelling: dict[str, Any],
    new: NewLabels,
    are_numbers: bool,
    values: tuple[Any, ...],
) -> dict[str, Any]:
    label, differs, given, confidence, accepted = values
    if column is None:
        row[NEW_COLUMN] = label
    else:
        given = row.get(column)
        if differs:
            row[column] = _spelled(label, spelling, new, bool(spelling) and are_numbers)
    return row | dict(zip(ADDED, (given, confidence, accepted), strict=True))


def _copy_parquet(
    source: Path,
    _: Table,
    output: Path,
    column: str | None,
    spelling: dict[str, Any],
    new: NewLabels,
    start: int,
) -> int:
    """Copy a parquet file a few rows at a time."""
    with pa.parquet.ParquetFile(source) as file:
        schema, n_rows = file.schema_arrow, file.metadata.num_rows
        is_nested = any(pa.types.is_nested(kind) for kind in schema.types)
        groups = file.metadata.num_row_groups
        packing = file.metadata.row_group(0).column(0).compression if groups else "SNAPPY"
        batches = file.iter_batches(_PICTURES_AT_ONCE if is_nested else _ROWS_AT_ONCE)
        parts = chain([pa.Table.from_batches([], schema)], map(_as_table, batches))
        corrected = _with_new_columns(parts, column, spelling, new, start)
        with open_atomic(output) as written:
            first = next(corrected)
            packing = "NONE" if packing == "UNCOMPRESSED" else packing
            with pa.parquet.ParquetWriter(written, first.schema, compression=packing) as writer:
                for part in corrected:
                    writer.write_table(part)
    return n_rows


def _as_table(batch: pa.RecordBatch) -> pa.Table:
    return pa.Table.from_batches([batch])


def _copy_arrow(
    source: Path,
    _: Table,
    output: Path,
    column: str | None,
    spelling: dict[str, Any],
    new: NewLabels,
    start: int,
) -> int:
    """Copy a file in Arrow's format, which is mapped into memory."""
    with pa.memory_map(str(source)) as mapped:
        is_file = mapped.read(6) == b"ARROW1"
        mapped.seek(0)
        table = (pa.ipc.open_file if is_file else pa.ipc.open_stream)(mapped).read_all()
        (corrected,) = _with_new_columns(iter([table]), column, spelling, new, start)
        with open_atomic(output) as file:
            open_writer = pa.ipc.new_file if is_file else pa.ipc.new_stream
            with open_writer(file, corrected.schema) as writer:
                writer.write_table(corrected)
        return table.num_rows


def _copy_saved_dataset(
    source: Path, output: Path, column: str | None, spelling: dict[str, Any], new: NewLabels
) -> None:
    """Copy a folder of `save_to_disk`; splits other than the one that was fitted stay the same."""
    try:
        import datasets
        from datasets.table import InMemoryTable
    except ImportError as error:
        raise InputError(
            f"{source}: a corrected copy needs the package datasets: pip install "
            "'pudistill[datasets]'."
        ) from error
    loaded = datasets.load_from_disk(str(source))
    fitted = training_split(loaded)
    parts = iter([fitted.with_format("arrow")[:]])
    (corrected,) = _with_new_columns(parts, column, spelling, new, 0)
    copy = datasets.Dataset(InMemoryTable(corrected), split=fitted.split)
    if fitted is not loaded:
        split = next(name for name in loaded if loaded[name] is fitted)
        copy = datasets.DatasetDict(dict(loaded) | {split: copy})
    copy.save_to_disk(str(output))


def _with_new_columns(
    parts: Iterator[pa.Table],
    column: str | None,
    spelling: dict[str, Any],
    new: NewLabels,
    start: int,
) -> Iterator[pa.Table]:
    """Correct the column of labels in parts of a table, and add the columns `ADDED`."""
    for part in parts:
        yield _with_new(part, column, spelling, new.rows(start, part.num_rows))
        start += part.num_rows


def _with_new(
    part: pa.Table, column: str | None, spelling: dict[str, Any], new: NewLabels
) -> pa.Table:
    if column is None:
        part = part.append_column(NEW_COLUMN, pa.array(new.label, pa.string()))
        given, field = pa.array(new.given, pa.string()), pa.field("given", pa.string())
    else:
        place = part.schema.get_field_index(column)
        field, given = part.schema.field(place), part.column(place)
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        codes = {name: code for code, name in enumerate(class_names(part.schema, column) or ())}
        pairs = zip(new.label.tolist(), new.differs.tolist(), strict=True)
        values = [
            _spelled(label, codes | spelling, new, not is_words(kind)) if differs else None
            for label, differs in pairs
        ]
        old = given.cast(kind)
        label = pc.if_else(pa.array(new.differs), pa.array(values, kind), old)
        if pa.types.is_dictionary(field.type):
            label = label.dictionary_encode().cast(field.type)
        part = part.set_column(place, field, label)
    part = part.append_column(field.with_name("given").with_nullable(True), given)
    confidence = pa.array(new.confidence, pa.float64(), from_pandas=True)
    part = part.append_column("confidence", confidence)
    part = part.append_column("accepted", pa.array(new.accepted, pa.bool_()))
    return part.replace_schema_metadata(_described(part.schema, column))


def _described(schema: pa.Schema, column: str | None) -> dict[bytes, bytes] | None:
    """Return the metadata of a table, in which Hugging Face's `datasets` finds the new columns."""
    metadata = schema.metadata
    if metadata is None or _HUGGING_FACE not in metadata:
        return metadata
    about = json.loads(metadata[_HUGGING_FACE])
    features = about.get("info", {}).get("features")
    if features:
        words = {"dtype": "string", "_type": "Value"}
        if column is None:
            features[NEW_COLUMN] = words
        features["given"] = words if column is None else features[column]
        features["confidence"] = {"dtype": "float64", "_type": "Value"}
        features["accepted"] = {"dtype": "bool", "_type": "Value"}
    return metadata | {_HUGGING_FACE: json.dumps(about).encode()}


_COPIES: dict[str, Callable[..., int]] = {
    ".csv": _copy_csv,
    ".tsv": _copy_csv,
    ".jsonl": _copy_json,
    ".ndjson": _copy_json,
    ".json": _copy_json,
    ".parquet": _copy_parquet,
    ".pq": _copy_parquet,
    ".arrow": _copy_arrow,
    ".feather": _copy_arrow,
}
