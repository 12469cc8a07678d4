"""Checks of zip archives of arrays, before anything in them is unpacked."""

import math
from typing import IO
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import numpy as np

LARGEST_RATIO = 128  # of the unpacked size to the packed one; labels and masks come near it
ALWAYS_ALLOWED = 2**28  # bytes: they do no harm, whatever the ratio is


def largest_unpacked(n_packed: int) -> int:
    """Return how many bytes a file of `n_packed` bytes may unpack to.

    Few bytes of a file of honest data stand for more than `LARGEST_RATIO` bytes, unless the file
    is small. A file that was made to fill the memory stands for a thousand times its size and more.

    Examples
    --------
    >>> from pudistill.utils.archives import largest_unpacked
    >>> largest_unpacked(1_000), largest_unpacked(10**9)
    (268435456, 128000000000)
    """
    return max(ALWAYS_ALLOWED, LARGEST_RATIO * n_packed)


def check_archive(archive: ZipFile, n_packed: int, *, is_stored: bool = False) -> None:
    """Check the sizes in an archive of arrays: those of its members, and those in their headers.

    Parameters
    ----------
    archive : ZipFile
        An archive that is open for reading; nothing in it is unpacked but headers of arrays.
    n_packed : int
        Size of the archive in bytes.
    is_stored : bool, default=False
        Whether the archive must be uncompressed: then it takes as much memory as its file says.

    Raises
    ------
    ValueError
        If the members are too large, or an array does not have the size of its member.
    """
    members = archive.infolist()
    if is_stored and any(member.compress_type != ZIP_STORED for member in members):
        raise ValueError("it is compressed, and pudistill writes it uncompressed")
    limit = n_packed if is_stored else largest_unpacked(n_packed)
    unpacked = sum(member.file_size for member in members)
    if unpacked > limit:
        raise ValueError(f"its {n_packed:,} bytes claim to hold {unpacked:,} bytes")
    for member in members:
        if member.filename.endswith(".npy"):
            check_array(archive, member)


def check_array(archive: ZipFile, member: ZipInfo) -> None:
    """Raise `ValueError` if an array does not have the size of its member of an archive."""
    with archive.open(member) as file:
        shape, _, dtype = array_header(file)
        n_bytes = member.file_size - file.tell()
    n_entries = math.prod(int(size) for size in shape)
    if not dtype.hasobject and (
        n_entries * dtype.itemsize != n_bytes or (dtype.itemsize == 0 and n_entries)
    ):
        raise ValueError(
            f"{member.filename} claims the shape {shape} of {dtype} and has {n_bytes:,} bytes"
        )


def array_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Read the header of an ``.npy`` file: shape, whether in Fortran's order, and type."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    return np.lib.format.read_array_header_2_0(file)
