"""How much of a file there is room for."""

from pathlib import Path

import psutil

from pudistill.exceptions import InputError

# Data of more than this share of the free memory stay on disk.
LARGEST_SHARE = 0.5


def fits(n_bytes: int) -> bool:
    """Whether data of so many bytes may be held in memory, and leave room to work with them."""
    return n_bytes <= LARGEST_SHARE * psutil.virtual_memory().available


def require_memory(
    path: Path, n_bytes: int, what: str, remedy: str = "give a part of them"
) -> None:
    """Refuse what would not fit, before the system stops the process for it.

    Parameters
    ----------
    path : Path
        Where the data come from, for the message.
    n_bytes : int
        What they take in memory.
    what : str
        What they are, for the message.
    remedy : str, default="give a part of them"
        What to do, for the message.

    Raises
    ------
    InputError
        If they take more memory than there is.
    """
    available = psutil.virtual_memory().available
    if n_bytes > available:
        raise InputError(
            f"{path}: {what} take {n_bytes / 2**30:,.1f} GiB, and there are "
            f"{available / 2**30:,.1f} GiB of free memory: {remedy}."
        )
