"""Arrays with one row per sample: filled block by block, and stored in a temporary file if large.

Memory therefore does not grow with the number of samples. Each step makes several arrays of
predictions and pseudo-labels, which for a million samples would fill gigabytes.
"""

import os
import tempfile
import weakref
from collections import deque
from collections.abc import Callable
from mmap import mmap
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

import numpy as np

from pudistill.utils.threads import one_thread, prefetch

# Rows of a block.
BLOCK_SIZE = 16_384
# Arrays of at least this size are stored in a file.
MIN_FILE_BYTES = 16 * 2**20
# Largest number of open files: each takes two file descriptors, and the usual limit of a process
# is 1,024.
MAX_FILES = 100
_files: weakref.WeakSet = weakref.WeakSet()


def empty(shape: tuple[int, ...], dtype: Any = np.float64) -> np.ndarray:
    """Allocate an array: in memory, or, if it is large, in a temporary file.

    Parameters
    ----------
    shape : tuple of int
        Shape of the array.
    dtype : dtype, default=float64
        Type of the array.

    Returns
    -------
    array : ndarray of shape `shape`
        The values are arbitrary. The file has no name and lies in ``TMPDIR``, so it disappears
        however the process ends. If the disk has no room for it, or the system is not Linux, the
        array is in memory.
    """
    array = in_file(shape, dtype)
    return np.empty(shape, dtype) if array is None else array


def in_file(shape: tuple[int, ...], dtype: Any = np.float64) -> np.ndarray | None:
    """Allocate a large array in a file, see `empty`; return None if it belongs in memory."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    if size < max(MIN_FILE_BYTES, 1) or len(_files) >= MAX_FILES:
        return None
    try:
        file = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the array)
    except OSError:
        return None
    try:
        # Allocate now: if the disk were full when pages are written, the process would be killed.
        os.posix_fallocate(file.fileno(), 0, size)
        if parent_process() is not None:
            # Other processes cannot open the file of a worker, which disappears with the worker's
            # array: the content of the array is sent to them.
            with file:
                return np.frombuffer(mmap(file.fileno(), size), dtype).reshape(shape)
        # Worker processes can open the file by this path while this process keeps it open.
        path = f"/proc/{os.getpid()}/fd/{file.fileno()}"
        if not os.path.samestat(Path(path).stat(), os.fstat(file.fileno())):
            raise OSError("/proc shows the processes of another namespace")
        mapped = np.memmap(path, dtype, "r+", shape=shape)
    except (OSError, AttributeError):  # AttributeError: not Linux
        file.close()
        return None
    weakref.finalize(mapped, file.close)
    _files.add(file)
    return np.asarray(mapped)


def is_in_file(array: np.ndarray) -> bool:
    """Return whether an array lies in a file that this process has opened."""
    return isinstance(array, np.memmap) or isinstance(array.base, np.memmap)


def is_temporary(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is that of an array of `empty`, which other machines cannot open."""
    return Path(path).is_relative_to("/proc")


def rowwise(function: Callable[..., np.ndarray], *arrays: Any) -> np.ndarray:
    """Apply a function that treats each row on its own, block by block.

    Parameters
    ----------
    function : callable
        Takes n rows of each array and returns an array of shape (n, ...).
    *arrays : ndarrays of n_samples rows
        Arguments of `function`.

    Returns
    -------
    result : ndarray of n_samples rows
        Equal to ``function(*arrays)``; allocated by `empty` if it has several blocks.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.utils.arrays import rowwise
    >>> rowwise(np.add, np.arange(3), np.array([10, 20, 30])).tolist()
    [10, 21, 32]
    """
    n_rows = len(arrays[0])
    if n_rows <= BLOCK_SIZE:
        return function(*arrays)
    return compute_in_blocks(lambda part: function(*(array[part] for array in arrays)), n_rows)


def compute_in_blocks(
    function: Callable[[slice], np.ndarray], n_rows: int, n_threads: int = 1
) -> np.ndarray:
    """Compute an array block by block.

    Parameters
    ----------
    function : callable
        Takes a slice of n rows and returns their values, of shape (n, ...).
    n_rows : int
        Number of rows.
    n_threads : int, default=1
        Threads that share the blocks.

    Returns
    -------
    result : ndarray of `n_rows` rows
        Equal to ``function(slice(0, n_rows))``; allocated by `empty` if it has several blocks.
    """
    n_first = min(BLOCK_SIZE, n_rows)
    n_threads = n_threads if n_rows > BLOCK_SIZE else 1
    first = function(slice(0, n_first if n_threads == 1 else 1))  # in threads, to know its shape
    if n_rows == len(first):
        return first
    result = empty((n_rows, *first.shape[1:]), first.dtype)

    def fill(start: int) -> None:
        part = slice(start, min(start + BLOCK_SIZE, n_rows))
        result[part] = function(part)

    if n_threads == 1:
        result[:n_first] = first
        deque(map(fill, range(n_first, n_rows, BLOCK_SIZE)), maxlen=0)
    else:
        with one_thread():
            deque(prefetch(fill, range(0, n_rows, BLOCK_SIZE), n_threads), maxlen=0)
    if isinstance(result.base, np.memmap):
        result.base.mode = "r"  # workers map it with this mode, and cannot change it
    return result


def take_rows(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return rows of an array; see `empty`."""
    return rowwise(lambda block: array[block], rows)


def without_nan(value: Any) -> Any:
    """Return a value for JSON, which has no NaN: arrays as nested lists, None in place of NaN."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [without_nan(entry) for entry in value]
    return None if isinstance(value, float) and np.isnan(value) else value
