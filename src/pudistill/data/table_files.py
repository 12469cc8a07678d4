"""The file formats of tables: parquet, CSV and JSONL."""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet

from pudistill.data.columns import listed
from pudistill.data.memory import Budget, require_memory
from pudistill.exceptions import InputError

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_SHARD = re.compile(r"(?P<split>.+)-\d{5}-of-(?P<count>\d{5})")
_PICTURES_AT_ONCE = 8  # of any size: the same megabytes can be in every row
_ROWS_AT_ONCE = 2**16
_ROW_SIZE = 40  # bytes that a row takes at least once it has an id and a label
_CSV_BLOCK = 2**26  # bytes; a row of a CSV file cannot be longer


def accepts(path: Path) -> bool:
    """Return whether `path` is a table, or a folder with the shards of a table."""
    if path.is_dir():
        return any(path.glob("*.parquet"))
    return path.suffix.lower() in _OPENERS


class Table(Protocol):
    """A table on disk."""

    schema: pa.Schema

    def read(self, names: list[str], as_text: Iterable[str]) -> pa.Table:
        """Return columns by name; formats without types read the columns `as_text` as text."""
        ...

    def batches(self, name: str) -> Iterator[list[Any]]:
        """Yield the values of one column a few at a time."""
        ...


class _Parquet:
    def __init__(self, files: list[Path]) -> None:
        self.files = files
        self.schema = pa.parquet.read_schema(files[0])

    def read(self, names: list[str], as_text: Iterable[str]) -> pa.Table:  # noqa: ARG002
        n_rows = sum(pa.parquet.read_metadata(file).num_rows for file in self.files)
        require_memory(self.files[0], 8 * n_rows * len(names), f"{n_rows:,} rows")
        budget = Budget(self.files[0], sum(file.stat().st_size for file in self.files))
        if not names:  # the rows alone
            budget.spend(n_rows * _ROW_SIZE)
            return pa.table({"": pa.nulls(n_rows)}).select([])
        parts = [read_parquet(file, budget, names) for file in self.files]
        return pa.concat_tables(parts, promote_options="permissive")

    def batches(self, name: str) -> Iterator[list[Any]]:
        for file in self.files:
            with pa.parquet.ParquetFile(file, memory_map=True) as shard:
                for batch in shard.iter_batches(_PICTURES_AT_ONCE, columns=[name]):
                    yield batch.column(name).to_pylist()


def read_parquet(
    source: Path | BinaryIO, budget: Budget, names: list[str] | None = None
) -> pa.Table:
    """Read columns of a parquet file, a few rows at a time, within a budget of memory.

    A page of a few bytes can stand for a million rows, and each row for a text of a megabyte.
    Texts are therefore read as dictionaries, and counted before they are written out.

    Parameters
    ----------
    source : Path or binary file
        The file.
    budget : Budget
        Bytes that may be spent; they are spent.
    names : list of str, optional
        The columns; by default all.

    Returns
    -------
    table : Table
        The columns in this order, without dictionaries.

    Raises
    ------
    InputError
        If the file unpacks to more.
    pyarrow.ArrowException
        If it cannot be read.
    """
    with pa.parquet.ParquetFile(source) as file:
        schema, about = file.schema_arrow, file.metadata
        names = schema.names if names is None else names
        kinds = {name: _plain(schema.field(name).type) for name in names}
        widths = [kind.bit_width // 8 for kind in kinds.values() if _is_fixed(kind)]
        budget.spend(about.num_rows * (_ROW_SIZE + sum(widths)))
        is_nested = any(pa.types.is_nested(kind) for kind in kinds.values())
    texts = [name for name, kind in kinds.items() if _is_text_or_bytes(kind)]
    if hasattr(source, "seek"):
        source.seek(0)
    batches = []
    with pa.parquet.ParquetFile(source, read_dictionary=texts) as file:
        at_once = _PICTURES_AT_ONCE if is_nested else _ROWS_AT_ONCE
        for batch in file.iter_batches(at_once, columns=names, use_threads=False):
            columns = [batch.column(name) for name in names]
            budget.spend(sum(_written_out(column) for column in columns))
            plain = [column.cast(kinds[name]) for name, column in zip(names, columns, strict=True)]
            batches.append(pa.RecordBatch.from_arrays(plain, names))
    fields = [schema.field(name).with_type(kind) for name, kind in kinds.items()]
    return pa.Table.from_batches(
        [pa.RecordBatch.from_arrays(batch.columns, schema=pa.schema(fields)) for batch in batches],
        pa.schema(fields, schema.metadata),
    )


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_fixed(kind: pa.DataType) -> bool:
    return pa.types.is_primitive(kind) or pa.types.is_fixed_size_binary(kind)


def _is_text_or_bytes(kind: pa.DataType) -> bool:
    return any(
        test(kind)
        for test in (
            pa.types.is_string,
            pa.types.is_large_string,
            pa.types.is_binary,
            pa.types.is_large_binary,
        )
    )


def _written_out(column: pa.Array) -> int:
    """Return the size of a column without its dictionary; that of numbers is known before."""
    if pa.types.is_dictionary(column.type) and _is_text_or_bytes(column.type.value_type):
        lengths = pa.compute.binary_length(column.dictionary)
        return pa.compute.sum(lengths.take(column.indices)).as_py() or 0
    return 0 if _is_fixed(column.type) else column.nbytes


class _Csv:
    def __init__(self, file: Path) -> None:
        self.file = file
        # With several threads, a message about a bad line does not say which line it is.
        self.reading = pa.csv.ReadOptions(use_threads=False, block_size=_CSV_BLOCK)
        self._open(_DELIMITERS[file.suffix.lower()])
        header = self.schema.names[0]
        for delimiter in (";", "\t"):  # some spreadsheets write these to .csv files
            if len(self.schema.names) == 1 and delimiter in header:
                self._open(delimiter)

    def _open(self, delimiter: str) -> None:
        self.parsing = pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
        with pa.csv.open_csv(self.file, self.reading, self.parsing) as reader:
            self.schema = reader.schema

    def read(self, names: list[str], as_text: Iterable[str]) -> pa.Table:
        converting = pa.csv.ConvertOptions(
            column_types={name: pa.string() for name in as_text}, include_columns=names
        )
        return pa.csv.read_csv(self.file, self.reading, self.parsing, converting)

    def batches(self, name: str) -> Iterator[list[Any]]:
        yield self.read([name], as_text=[name])[name].to_pylist()


class _JsonLines:
    def __init__(self, file: Path) -> None:
        rows = []
        with file.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    rows.append(self._row(file, number, line))
        columns = {}
        names = dict.fromkeys(name for row in rows for name in row)
        # Each row can bring a column of its own.
        Budget(file, file.stat().st_size).spend(8 * len(rows) * len(names))
        for name in names:
            try:
                columns[name] = pa.array([row.get(name) for row in rows])
            except (pa.ArrowException, OverflowError) as error:
                raise InputError(
                    f"{file}: column {name!r} mixes values of different kinds ({error}): give all "
                    "rows the same kind."
                ) from error
        self.table = pa.table(columns)
        self.schema = self.table.schema

    @staticmethod
    def _row(file: Path, number: int, line: str) -> dict[str, Any]:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = getattr(error, "msg", error)
            raise InputError(f"{file}, line {number}: this is not JSON ({reason}).") from error
        if not isinstance(row, dict):
            raise InputError(
                f"{file}, line {number}: this is not a JSON object: write one on each line."
            )
        return row

    def read(self, names: list[str], as_text: Iterable[str]) -> pa.Table:  # noqa: ARG002
        return self.table.select(names)

    def batches(self, name: str) -> Iterator[list[Any]]:
        yield self.table[name].to_pylist()


_OPENERS: dict[str, Callable[[Path], Table]] = {
    ".parquet": lambda file: _Parquet([file]),
    ".pq": lambda file: _Parquet([file]),
    ".csv": _Csv,
    ".tsv": _Csv,
    ".jsonl": _JsonLines,
    ".ndjson": _JsonLines,
}
"""How to open a table, by the suffix of its file in lower case: one record a format."""


def open_table(path: Path) -> Table:
    """Open a table of any format."""
    with as_table_error(path):
        table = _Parquet(_shards(path)) if path.is_dir() else _OPENERS[path.suffix.lower()](path)
    names = table.schema.names
    if not names:
        raise InputError(f"{path}: the table is empty: give a table with columns and rows.")
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise InputError(f"{path}: there are several columns {repeated[0]!r}: rename them.")
    return table


@contextmanager
def as_table_error(path: Path) -> Iterator[None]:
    """Turn errors of pyarrow and of the system into an `InputError` that names the table."""
    try:
        yield
    except InputError:
        raise
    except (pa.ArrowException, OSError, UnicodeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path}: cannot be read as a table ({reason}): correct the file or write it again."
        ) from error


def _shards(folder: Path) -> list[Path]:
    """Return the files of one split: the training split if there are several."""
    files = sorted(folder.glob("*.parquet"))
    if len(files) == 1 and _SHARD.fullmatch(files[0].stem) is None:
        return files
    splits: dict[tuple[str, int], list[Path]] = {}
    for file in files:
        shard = _SHARD.fullmatch(file.stem)
        if shard is None:
            raise InputError(f"{folder}: there are several tables in it: name one, such as {file}.")
        splits.setdefault((shard["split"], int(shard["count"])), []).append(file)
    chosen = [key for key in splits if key[0] == "train"] or list(splits)
    if len(chosen) > 1:
        raise InputError(
            f"{folder}: there are several splits in it ({listed(name for name, _ in chosen)}): "
            "name a file of one, or leave one split in the folder."
        )
    split, count = chosen[0]
    if len(splits[chosen[0]]) != count:
        raise InputError(
            f"{folder}: split {split!r} has {len(splits[chosen[0]])} of its {count} files: fetch "
            "the others."
        )
    return splits[chosen[0]]
