"""Arrays too large for memory: their rows are computed into a file, some at a time, and mapped.

Beside the ``.npy`` file lies one of checksums, a line for each block of rows that is finished. So
what was interrupted goes on where it was, and a block that is damaged is computed again.
"""

import io
import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from filelock import FileLock

from pudistill.atomic import checksum_of, naming, write_atomic
from pudistill.exceptions import DamagedWarning

BLOCK_SIZE = 256  # rows that an interruption may cost


def computed_rows(
    path: Path,
    shape: tuple[int, int],
    compute: Callable[[slice], np.ndarray],
    advance: Callable[..., None],
) -> np.memmap:
    """Map an array, after computing the rows that its file does not have yet.

    Parameters
    ----------
    path : Path
        An ``.npy`` file, whose name says what it is computed from. Another process that wants the
        same waits.
    shape : (int, int)
        Number of rows, and of columns.
    compute : callable
        Takes a slice of rows, and returns them.
    advance : callable
        Is told how many rows are there; see :func:`pudistill.progress.stage`.

    Returns
    -------
    array : memmap of shape `shape`, float32
        The rows, which cannot be written to.

    Raises
    ------
    OSError
        Naming the file, if it cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from pudistill.progress import ignore
    >>> from pudistill.row_file import computed_rows
    >>> path = Path(tempfile.mkdtemp()) / "squares.npy"
    >>> def squares(rows):
    ...     return np.arange(rows.start, rows.stop)[:, None] ** 2
    >>> float(computed_rows(path, (300, 1), squares, ignore)[299, 0])
    89401.0
    """
    blocks = [
        slice(start, min(start + BLOCK_SIZE, shape[0])) for start in range(0, shape[0], BLOCK_SIZE)
    ]
    with naming(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        file = _RowFile(path, shape)
        known = file.check(blocks)
        advance(to=sum(blocks[n].stop - blocks[n].start for n in known))
        for n, rows in enumerate(blocks):
            if n not in known:
                file.write(n, rows, compute(rows))
                advance(rows.stop - rows.start)
    return np.memmap(path, np.float32, "r", len(file.header), shape)


class _RowFile:
    """The file of rows, and that of their checksums."""

    def __init__(self, path: Path, shape: tuple[int, int]) -> None:
        self.path, self.sums = path, path.with_suffix(".sums")
        self.row_size = shape[1] * np.dtype(np.float32).itemsize
        header = io.BytesIO()
        about = {"descr": np.dtype(np.float32).str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(header, about)
        self.header = header.getvalue()

    def check(self, blocks: list[slice]) -> set[int]:
        """Find the blocks that are whole, and make ready to write the others."""
        said = self._said()
        whole = {n for n in said if n < len(blocks) and self._sum_of(blocks[n]) == said[n]}
        n_damaged = len(said) - len(whole)
        if n_damaged:
            warnings.warn(
                f"{self.path} is damaged: {n_damaged} of its {len(blocks)} blocks of rows are "
                "computed again.",
                DamagedWarning,
                stacklevel=3,
            )
        self._store(0, self.header)
        write_atomic(self.sums, "".join(f"{n} {said[n]}\n" for n in sorted(whole)).encode())
        return whole

    def write(self, n: int, rows: slice, values: np.ndarray) -> None:
        """Write a block, and only when it is there that it is."""
        content = np.ascontiguousarray(values, np.float32).tobytes()
        self._store(len(self.header) + rows.start * self.row_size, content)
        with naming(self.sums), self.sums.open("a") as file:
            file.write(f"{n} {checksum_of(content)}\n")

    def _said(self) -> dict[int, str]:
        """Checksums by number of block; a line that was cut off does not count."""
        if not (self.path.is_file() and self.sums.is_file()):
            return {}
        lines = self.sums.read_text(errors="replace").splitlines()
        found = [re.fullmatch(r"(\d{1,12}) ([0-9a-f]{64})", line) for line in lines]
        return {int(one[1]): one[2] for one in found if one is not None}

    def _sum_of(self, rows: slice) -> str:
        with self.path.open("rb") as file:
            file.seek(len(self.header) + rows.start * self.row_size)
            return checksum_of(file.read((rows.stop - rows.start) * self.row_size))

    def _store(self, position: int, content: bytes) -> None:
        # Written, and not through the map: a full disk is then an error and no crash.
        with naming(self.path), self.path.open("r+b" if self.path.exists() else "xb") as file:
            file.seek(position)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
