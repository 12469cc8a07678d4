"""Arrays too large for memory: their rows are computed into a file, block by block, and mapped.

A file of checksums lies beside the ``.npy`` file and has a line for each finished block of rows.
An interrupted computation continues where it stopped, and a damaged block is computed again.
"""

import io
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from filelock import FileLock

from pudistill.exceptions import DamagedWarning, warn_user
from pudistill.utils.files import checksum_of, named_in_errors, write_atomic

ROWS_PER_CHECKSUM = 256  # an interruption loses at most this many rows


def computed_rows(
    path: Path,
    shape: tuple[int, int],
    compute: Callable[[list[slice]], Iterator[np.ndarray]],
    advance: Callable[..., None],
) -> np.memmap:
    """Map an array, after computing the rows that its file lacks.

    Parameters
    ----------
    path : Path
        An ``.npy`` file, whose name must identify the data and the computation. Another process
        that needs the same file waits.
    shape : (int, int)
        Number of rows, and of columns.
    compute : callable
        Takes slices of rows, and yields the values of each.
    advance : callable
        Called with the number of finished rows; see :func:`pudistill.utils.progress.stage`.

    Returns
    -------
    array : memmap of shape `shape`, float32
        The rows, read-only.

    Raises
    ------
    OSError
        Naming the file, if it cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from pudistill.utils.progress import ignore
    >>> from pudistill.utils.row_file import computed_rows
    >>> path = Path(tempfile.mkdtemp()) / "squares.npy"
    >>> def squares(blocks):
    ...     return (np.arange(rows.start, rows.stop)[:, None] ** 2 for rows in blocks)
    >>> float(computed_rows(path, (300, 1), squares, ignore)[299, 0])
    89401.0
    """
    blocks = [
        slice(start, min(start + ROWS_PER_CHECKSUM, shape[0]))
        for start in range(0, shape[0], ROWS_PER_CHECKSUM)
    ]
    with named_in_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        file = _RowFile(path, shape)
        finished = file.check(blocks)
        advance(to=sum(blocks[n].stop - blocks[n].start for n in finished))
        missing = [n for n in range(len(blocks)) if n not in finished]
        for n, values in zip(missing, compute([blocks[n] for n in missing]), strict=True):
            file.write(n, blocks[n], values)
            advance(len(values))
    return np.memmap(path, np.float32, "r", len(file.header), shape)


class _RowFile:
    """The file of rows, and the file of their checksums."""

    def __init__(self, path: Path, shape: tuple[int, int]) -> None:
        self.path, self.sums = path, path.with_suffix(".sums")
        self.row_size = shape[1] * np.dtype(np.float32).itemsize
        header = io.BytesIO()
        fields = {"descr": np.dtype(np.float32).str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(header, fields)
        self.header = header.getvalue()

    def check(self, blocks: list[slice]) -> set[int]:
        """Return the numbers of the undamaged blocks, and prepare to write the others."""
        sums = self._read_sums()
        whole = {n for n in sums if n < len(blocks) and self._sum_of(blocks[n]) == sums[n]}
        n_damaged = len(sums) - len(whole)
        if n_damaged:
            warn_user(
                f"{self.path} is damaged: {n_damaged} of its {len(blocks)} blocks of rows are "
                "computed again.",
                DamagedWarning,
            )
        self._store(0, self.header)
        write_atomic(self.sums, "".join(f"{n} {sums[n]}\n" for n in sorted(whole)).encode())
        return whole

    def write(self, n: int, rows: slice, values: np.ndarray) -> None:
        """Write a block, and then its checksum, which marks the block as finished."""
        content = np.ascontiguousarray(values, np.float32).tobytes()
        self._store(len(self.header) + rows.start * self.row_size, content)
        with named_in_errors(self.sums), self.sums.open("a", encoding="utf-8") as file:
            file.write(f"{n} {checksum_of(content)}\n")

    def _read_sums(self) -> dict[int, str]:
        """Return checksums by block number, without a line that a crash cut off."""
        if not (self.path.is_file() and self.sums.is_file()):
            return {}
        lines = self.sums.read_text("utf-8", "replace").splitlines()
        matches = [re.fullmatch(r"(\d{1,12}) ([0-9a-f]{64})", line) for line in lines]
        return {int(match[1]): match[2] for match in matches if match is not None}

    def _sum_of(self, rows: slice) -> str:
        with self.path.open("rb") as file:
            file.seek(len(self.header) + rows.start * self.row_size)
            return checksum_of(file.read((rows.stop - rows.start) * self.row_size))

    def _store(self, position: int, content: bytes) -> None:
        # Not through a memory map, where a full disk kills the process instead of raising an error.
        with (
            named_in_errors(self.path),
            self.path.open("r+b" if self.path.exists() else "xb") as file,
        ):
            file.seek(position)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
