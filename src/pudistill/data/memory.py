"""Checks whether data fit into memory."""

from pathlib import Path

import psutil
import pyarrow as pa

from pudistill.exceptions import InputError
from pudistill.utils.archives import largest_unpacked

# Data that take more than this share of the free memory stay on disk.
LARGEST_SHARE = 0.5


def fits_in_memory(n_bytes: int) -> bool:
    """Return whether data of this size fit into memory and leave room to work with them."""
    return n_bytes <= LARGEST_SHARE * psutil.virtual_memory().available


def require_memory(
    path: Path, n_bytes: int, name: str, remedy: str = "give a part of them"
) -> None:
    """Raise an error if data do not fit into memory: otherwise the system kills the process.

    Parameters
    ----------
    path : Path
        Source of the data, for the message.
    n_bytes : int
        Size of the data in memory.
    name : str
        Name of the data, for the message.
    remedy : str, default="give a part of them"
        Advice to the user, for the message.

    Raises
    ------
    InputError
        If the data are larger than the free memory.
    """
    available = psutil.virtual_memory().available
    if n_bytes > available:
        raise InputError(
            f"{path}: {name} take {n_bytes / 2**30:,.1f} GiB, and there are "
            f"{available / 2**30:,.1f} GiB of free memory: {remedy}."
        )


def release_unused() -> None:
    """Give back the memory of tables that are gone, which Arrow keeps for the next one."""
    pa.default_memory_pool().release_unused()


# Bytes that a row of a table takes at least once it has an id and a label.
ROW_SIZE = 40


class Budget:
    """The bytes that a file may unpack to: its own size many times, and no more than is free.

    Parameters
    ----------
    path : Path
        The file, for the message.
    n_packed : int
        Size of the file on disk.

    Examples
    --------
    >>> from pathlib import Path
    >>> from pudistill.data.memory import Budget
    >>> budget = Budget(Path("small.parquet"), 800)
    >>> budget.spend(1_000_000)
    >>> budget.spend(10**12)
    Traceback (most recent call last):
        ...
    pudistill.exceptions.InputError: small.parquet: its 800 bytes unpack to more than ...
    """

    def __init__(self, path: Path, n_packed: int) -> None:
        self.path, self.n_packed = path, n_packed
        self.limit = min(largest_unpacked(n_packed), psutil.virtual_memory().available)
        self.left = self.limit

    def spend(self, n_bytes: int) -> None:
        """Count bytes; raise `InputError` if the file unpacks to more than it may."""
        self.left -= n_bytes
        if self.left < 0:
            raise InputError(
                f"{self.path}: its {self.n_packed:,} bytes unpack to more than {self.limit:,}, as "
                "those of a decompression bomb do: if you trust the file, write it without "
                "compression and dictionaries, or give a part of it."
            )
