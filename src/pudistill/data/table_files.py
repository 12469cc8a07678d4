"""The file formats of tables: one class for each way to read columns."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet

from pudistill.data.arrow_files import read_arrow
from pudistill.data.frames import as_arrow, library_of, plain, value_type
from pudistill.data.json_files import read_json, read_json_lines
from pudistill.data.memory import ROW_SIZE, Budget, require_memory
from pudistill.data.tar_files import TarTable
from pudistill.data.text_files import encoding_of, open_bytes, suffix_of
from pudistill.exceptions import InputError

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_PICTURES_AT_ONCE = 8  # of any size: the same megabytes can be in every row
_ROWS_AT_ONCE = 2**16
_CSV_BLOCK = 2**26  # bytes; a row of a CSV file cannot be longer
_HEADER = 2**16  # bytes in which the first line is looked for
_LFS_POINTER = b"version https://git-lfs"


class Table(Protocol):
    """A table, on disk or in memory."""

    schema: pa.Schema
    folder: Path
    """Where relative paths of pictures begin."""

    def read(self, names: list[str], as_text: Iterable[str]) -> pa.Table:
        """Return columns by name; formats without types read the columns `as_text` as text."""
        ...

    def batches(self, name: str) -> Iterator[list[Any]]:
        """Yield the values of one column a few at a time."""
        ...


class _Parquet:
    def __init__(self, files: list[Path]) -> None:
        self.files, self.folder = files, files[0].parent
        self.schema = pa.parquet.read_schema(files[0])
        for file in files[1:]:
            names = pa.parquet.read_schema(file).names
            if set(names) != set(self.schema.names):  # pyarrow would fill gaps in silence
                raise InputError(
                    f"{file}: the columns are not those of {files[0].name}: keep the files of one "
                    "table in the folder, or name one file."
                )

    def read(self, names: list[str], as_text: Iterable[str]) -> pa.Table:  # noqa: ARG002
        n_rows = sum(pa.parquet.read_metadata(file).num_rows for file in self.files)
        require_memory(self.files[0], 8 * n_rows * len(names), f"{n_rows:,} rows")
        budget = Budget(self.files[0], sum(file.stat().st_size for file in self.files))
        if not names:  # the rows alone
            budget.spend(n_rows * ROW_SIZE)
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
    return pa.Table.from_batches(parquet_batches(source, budget, names))


def parquet_batches(
    source: Path | BinaryIO, budget: Budget, names: list[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield columns of a parquet file as `read_parquet` reads them: first no rows, then a few."""
    with pa.parquet.ParquetFile(source) as file:
        schema, about = file.schema_arrow, file.metadata
        names = schema.names if names is None else names
        kinds = {name: value_type(schema.field(name).type) for name in names}
        widths = [kind.bit_width // 8 for kind in kinds.values() if _is_fixed(kind)]
        budget.spend(about.num_rows * (ROW_SIZE + sum(widths)))
        is_nested = any(pa.types.is_nested(kind) for kind in kinds.values())
    texts = [name for name, kind in kinds.items() if is_text_or_bytes(kind)]
    fields = [schema.field(name).with_type(kind) for name, kind in kinds.items()]
    schema = pa.schema(fields, schema.metadata)
    yield pa.RecordBatch.from_pylist([], schema=schema)
    if hasattr(source, "seek"):
        source.seek(0)
    with pa.parquet.ParquetFile(source, read_dictionary=texts) as file:
        at_once = _PICTURES_AT_ONCE if is_nested else _ROWS_AT_ONCE
        for batch in file.iter_batches(at_once, columns=names, use_threads=False):
            columns = [batch.column(name) for name in names]
            budget.spend(sum(_written_out(column) for column in columns))
            plain = [column.cast(kinds[name]) for name, column in zip(names, columns, strict=True)]
            yield pa.RecordBatch.from_arrays(plain, schema=schema)


def _is_fixed(kind: pa.DataType) -> bool:
    return pa.types.is_primitive(kind) or pa.types.is_fixed_size_binary(kind)


def is_text_or_bytes(kind: pa.DataType) -> bool:
    """Return whether a column of a type holds texts or bytes."""
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
    if pa.types.is_dictionary(column.type) and is_text_or_bytes(column.type.value_type):
        lengths = pa.compute.binary_length(column.dictionary)
        return pa.compute.sum(lengths.take(column.indices)).as_py() or 0
    return 0 if _is_fixed(column.type) else column.nbytes


class _Csv:
    def __init__(self, file: Path, encoding: str | None) -> None:
        self.file, self.folder = file, file.parent
        self.reading = pa.csv.ReadOptions(
            # With several threads, a message about a bad line does not say which line it is.
            use_threads=False,
            block_size=_CSV_BLOCK,
            encoding=encoding_of(file, encoding),
        )
        own = _DELIMITERS[suffix_of(file)]
        with open_bytes(file) as lines:
            header_bytes = lines.read(_HEADER).partition(b"\n")[0]
        # Some spreadsheets write others to .csv files, and commas within numbers.
        self._open(next((sign for sign in (own, ";", "\t") if sign.encode() in header_bytes), own))
        header = self.schema.names[0]
        for delimiter in (";", "\t"):
            if len(self.schema.names) == 1 and delimiter in header:
                self._open(delimiter)

    def _open(self, delimiter: str) -> None:
        self.parsing = pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
        with pa.csv.open_csv(open_bytes(self.file), self.reading, self.parsing) as reader:
            self.schema = reader.schema

    def read(self, names: list[str], as_text: Iterable[str]) -> pa.Table:
        converting = pa.csv.ConvertOptions(
            column_types={name: pa.string() for name in as_text}, include_columns=names
        )
        return pa.csv.read_csv(open_bytes(self.file), self.reading, self.parsing, converting)

    def batches(self, name: str) -> Iterator[list[Any]]:
        yield self.read([name], as_text=[name])[name].to_pylist()


class ArrowTable:
    """A table of pyarrow, in memory or in a mapped file.

    Parameters
    ----------
    table : pyarrow.Table
    folder : Path
        Where relative paths of pictures begin.
    encoding : str, default=None
        The encoding that the user named, of a file of text.
    """

    def __init__(self, table: pa.Table, folder: Path, encoding: str | None = None) -> None:
        self.table, self.folder, self.encoding = plain(table), folder, encoding
        self.schema = self.table.schema

    def read(self, names: list[str], as_text: Iterable[str]) -> pa.Table:  # noqa: ARG002
        """Return columns by name."""
        columns = self.table.select(names)
        columns.validate(full=True)  # wrong offsets in a file would end the process
        return columns

    def batches(self, name: str) -> Iterator[list[Any]]:
        """Yield the values of one column a few at a time."""
        for batch in self.read([name], []).to_batches(max_chunksize=_PICTURES_AT_ONCE):
            yield batch.column(0).to_pylist()


class _Dataset:
    """A `datasets.Dataset`, of which only the needed columns are read."""

    def __init__(self, dataset: Any) -> None:
        self.dataset, self.folder = dataset, Path()
        self.schema = dataset.features.arrow_schema

    def read(self, names: list[str], as_text: Iterable[str]) -> pa.Table:  # noqa: ARG002
        return plain(as_arrow(self.dataset.select_columns(names)))

    def batches(self, name: str) -> Iterator[list[Any]]:
        column = self.dataset.select_columns([name]).with_format("arrow")
        for start in range(0, len(column), _PICTURES_AT_ONCE):
            yield column[start : start + _PICTURES_AT_ONCE][name].to_pylist()


def _arrow_files(files: list[Path]) -> ArrowTable:
    """Read files in Arrow's format, without loading them, within a budget of memory."""
    budget = Budget(files[0], sum(file.stat().st_size for file in files))
    table = plain(pa.concat_tables([read_arrow(file, budget) for file in files]))
    for column in table.columns:
        if pa.types.is_dictionary(column.type):  # a row of a byte can stand for a long text
            column.validate(full=True)
            budget.spend(sum(_written_out(chunk) for chunk in column.chunks))
    return ArrowTable(table, files[0].parent)


def _json_table(read: Callable[..., pa.Table], file: Path, encoding: str | None) -> ArrowTable:
    return ArrowTable(read(file, encoding), file.parent, encoding)


_ONE_TABLE: dict[str, Callable[[Path, str | None], Table]] = {
    ".csv": _Csv,
    ".tsv": _Csv,
    ".jsonl": partial(_json_table, read_json_lines),
    ".ndjson": partial(_json_table, read_json_lines),
    ".json": partial(_json_table, read_json),
}
_SHARDS: dict[str, Callable[[list[Path]], Table]] = {
    ".parquet": _Parquet,
    ".pq": _Parquet,
    ".arrow": _arrow_files,
    ".feather": _arrow_files,
    ".tar": TarTable,
}
TEXT_SUFFIXES, SHARD_SUFFIXES = tuple(_ONE_TABLE), tuple(_SHARDS)
"""Suffixes of tables that are text, and of those that can lie in several files."""


def open_files(files: list[Path], encoding: str | None) -> Table:
    """Open the files of one table, which all have the same format."""
    for file in files:
        if file.exists() and not file.is_file():  # a pipe, which can block for ever
            raise InputError(f"{file}: this is not an ordinary file: give one.")
        with file.open("rb") as content:
            is_pointer = content.read(len(_LFS_POINTER)) == _LFS_POINTER
        if is_pointer:
            raise InputError(
                f"{file}: this is a pointer of git-lfs, without the data: run `git lfs pull` in "
                "its folder."
            )
    suffix = suffix_of(files[0])
    return _SHARDS[suffix](files) if suffix in _SHARDS else _ONE_TABLE[suffix](files[0], encoding)


def open_object(source: Any) -> Table:
    """Open a table in memory; see `as_arrow`."""
    if library_of(source) == "datasets" and type(source).__name__ == "Dataset":
        return _Dataset(source)
    return ArrowTable(as_arrow(source), Path())


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
