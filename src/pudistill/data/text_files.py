"""Text files of tables: decompression by suffix, and their encoding."""

import codecs
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pyarrow as pa

from pudistill.data.memory import require_memory
from pudistill.exceptions import InputError

COMPRESSED = (".gz", ".bz2", ".zst", ".lz4")
"""Suffixes after which pyarrow decompresses a file."""
_BLOCK = 2**20
# The longest mark first: that of UTF-32 begins like that of UTF-16.
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def suffix_of(path: Path) -> str:
    """Return the suffix that names the format, in lower case: ``.csv`` for ``a.csv.gz``."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if len(suffixes) > 1 and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def open_bytes(file: Path) -> pa.NativeFile:
    """Open a file for reading, decompressed if its last suffix says so."""
    is_compressed = file.suffix.lower() in COMPRESSED
    # pyarrow knows these suffixes in lower case only.
    compression = pa.Codec.detect(file.name.lower()).name if is_compressed else None
    return pa.input_stream(str(file), compression=compression)


@contextmanager
def open_text(file: Path, encoding: str | None) -> Iterator[IO[str]]:
    """Open a text file for reading; see `encoding_of`."""
    encoding = encoding_of(file, encoding)
    with open_bytes(file) as stream:
        yield io.TextIOWrapper(stream, encoding="utf-8-sig" if encoding == "utf-8" else encoding)


def encoding_of(file: Path, named: str | None) -> str:
    """Return the encoding of a text file, which is read once for this.

    A mark at its beginning decides, as in files of spreadsheets. Otherwise a text with other than
    ASCII characters that is valid UTF-8 is UTF-8, whatever is `named`: no other encoding produces
    such a text by chance.

    Parameters
    ----------
    file : Path
        The file, which may be compressed.
    named : str or None
        The encoding that the user has named.

    Returns
    -------
    encoding : str

    Raises
    ------
    InputError
        If the text is not UTF-8 and no encoding is named, or does not fit into memory.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    n_bytes = n_lines = 0
    is_ascii = True
    with open_bytes(file) as stream:
        block = stream.read(_BLOCK)
        for mark, encoding in _BYTE_ORDER_MARKS.items():
            if block.startswith(mark):
                return encoding
        while block:
            try:
                text = decoder.decode(block)
            except UnicodeDecodeError as error:
                if named is not None:
                    return named
                line = n_lines + error.object[: error.start].count(b"\n") + 1
                raise InputError(
                    f"{file}, line {line}: this text is not UTF-8: name its encoding, such as "
                    "--encoding latin-1 or, for files of Windows, --encoding cp1252."
                ) from error
            n_bytes, n_lines = n_bytes + len(block), n_lines + block.count(b"\n")
            is_ascii &= text.isascii()
            if file.suffix.lower() in COMPRESSED:
                require_memory(file, n_bytes, "the decompressed texts")
            block = stream.read(_BLOCK)
    return named if named is not None and is_ascii else "utf-8"
