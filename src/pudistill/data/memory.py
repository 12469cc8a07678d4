"""Checks whether data fit into memory."""

from pathlib import Path

import psutil

from pudistill.exceptions import InputError

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
