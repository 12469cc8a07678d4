"""Files in Arrow's format, whose sizes are counted before they are unpacked."""

import struct
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from pudistill.data.memory import ROW_SIZE, Budget

_MAGIC = b"ARROW1"  # at the start and the end of a file that is no stream
_DICTIONARY, _BATCH = 2, 3  # kinds of messages that hold data


def read_arrow(file: Path, budget: Budget) -> pa.Table:
    """Read a file or a stream in Arrow's format, within a budget of memory.

    Columns that are not compressed stay on disk until they are used, and cost nothing.

    Parameters
    ----------
    file : Path
        The file.
    budget : Budget
        Bytes that may be spent; they are spent.

    Returns
    -------
    table : Table

    Raises
    ------
    InputError
        If the file unpacks to more.
    pyarrow.ArrowException
        If it cannot be read.
    """
    with pa.memory_map(str(file)) as source:
        is_file = source.read(len(_MAGIC)) == _MAGIC
        source.seek(0)
        try:
            for message in (
                _indexed(source) if is_file else pa.ipc.MessageReader.open_stream(source)
            ):
                budget.spend(sum(_sizes(message)))
        except struct.error as error:
            raise pa.ArrowInvalid("its description of the columns is damaged") from error
        source.seek(0)
        return (pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)).read_all()


def _indexed(source: pa.NativeFile) -> Iterator[pa.ipc.Message]:
    """Yield the messages that the index at the end of a file lists, which is how it is read."""
    end = source.size() - len(_MAGIC) - 4
    source.seek(max(end, 0))
    (size,) = struct.unpack("<i", source.read(4))
    source.seek(max(end - size, 0))
    index = _Flatbuffer(source.read(max(min(size, end), 0)))
    for part in (2, 3):  # dictionaries and batches
        for block in index.vector(index.root, part, 24):
            source.seek(max(index.number("q", block), 0))
            yield pa.ipc.read_message(source)


def _sizes(message: pa.ipc.Message) -> Iterator[int]:
    """Yield the bytes that the rows and the compressed columns of a message will take."""
    about = _Flatbuffer(message.metadata)
    kind = about.field(about.root, 1)
    if not kind or about.number("B", kind) not in (_DICTIONARY, _BATCH):
        return
    batch = about.inner(about.root, 2)
    if about.number("B", kind) == _DICTIONARY:
        batch = about.inner(batch, 1)
    n_rows = about.field(batch, 0)
    yield max(about.number("q", n_rows), 0) * ROW_SIZE if n_rows else 0
    if about.field(batch, 3):  # it is compressed
        for column in about.vector(batch, 2, 16):
            start, length = about.number("q", column), about.number("q", column + 8)
            if length and start >= 0:  # it begins with its size, -1 if it is as it was
                yield max(struct.unpack_from("<q", message.body, start)[0], 0)


class _Flatbuffer:
    """Tables of numbers, which is how Arrow describes its messages.

    A table begins with the distance back to a list of the distances to its fields, 0 for those that
    it lacks. A `struct.error` says that a place is outside.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.root = self.number("i", 0)

    def number(self, form: str, at: int) -> int:
        if at < 0:
            raise struct.error("a place before the start")
        return struct.unpack_from(f"<{form}", self.content, at)[0]

    def field(self, table: int, index: int) -> int:
        """Return where a field of a table is; 0 if the table lacks it."""
        fields, entry = table - self.number("i", table), 4 + 2 * index
        distance = self.number("H", fields + entry) if entry < self.number("H", fields) else 0
        return table + distance if distance else 0

    def inner(self, table: int, index: int) -> int:
        """Return where the table or the list in a field is."""
        at = self.field(table, index)
        return at + self.number("i", at)

    def vector(self, table: int, index: int, size: int) -> Iterator[int]:
        """Yield where the entries of a list in a field are; none if the table lacks it."""
        if self.field(table, index):
            start = self.inner(table, index)
            yield from range(start + 4, start + 4 + size * self.number("I", start), size)
