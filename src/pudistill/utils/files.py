"""Files that are complete or missing, whatever happens while they are written."""

import hashlib
import io
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

import numpy as np

from pudistill.utils.archives import check_archive

TEMPORARY = ".writing"  # suffix of a file that is not complete
LONGEST_FILE_NAME = 255  # bytes, on all common file systems
# What Windows refuses as a name, or reads as something else: devices, signs, and ends that it cuts.
_NOT_ON_WINDOWS = re.compile(
    r'(con|prn|aux|nul|com\d|lpt\d)(\..*)?|.*[<>:"|?*\x00-\x1f].*|.*[. ]', re.IGNORECASE | re.DOTALL
)


@contextmanager
def open_atomic(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for writing, which gets its name only if the ``with`` block succeeds.

    Parameters
    ----------
    path : Path
        The file; an existing file is replaced.

    Yields
    ------
    file : binary file
        A temporary file in the same folder.

    Raises
    ------
    OSError
        Naming the file, if it cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from pudistill.utils.files import open_atomic
    >>> path = Path(tempfile.mkdtemp()) / "notes.txt"
    >>> with open_atomic(path) as file:
    ...     _ = file.write(b"whole")
    >>> path.read_bytes()
    b'whole'
    """
    with named_in_errors(path):
        # The temporary name is longer, and the system may allow no more than 255 bytes.
        descriptor, name = tempfile.mkstemp(TEMPORARY, f".{path.name[:40]}-", path.parent)
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            # Only its owner may read a temporary file; the result gets the usual permissions.
            mask = os.umask(0)
            os.umask(mask)
            temporary.chmod(0o666 & ~mask)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def named_in_errors(path: Path) -> Iterator[None]:
    """Name the file in an OSError, which might name only its number or its temporary name."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def sync_folder(folder: Path) -> None:
    """Make sure that the names in a folder are on the disk, where the system can."""
    with suppress(OSError):  # Windows opens no folders
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def can_name_folder(name: str, *, on_windows: bool = os.name == "nt") -> bool:
    """Return whether a name is that of a visible folder here, not of another place.

    Examples
    --------
    >>> from pudistill.utils.files import can_name_folder
    >>> can_name_folder("cat"), can_name_folder("../cat"), can_name_folder("")
    (True, False, False)
    >>> can_name_folder("9:30", on_windows=True)
    False
    """
    if name == "" or name.startswith(".") or any(sign in name for sign in "/\\\0"):
        return False
    if len(name.encode(errors="surrogatepass")) > LONGEST_FILE_NAME:
        return False
    return not (on_windows and _NOT_ON_WINDOWS.fullmatch(name))


def remove_leftovers(folder: Path, *, seconds_old: float = 0.0) -> None:
    """Remove the incomplete files of a process that was killed.

    Files younger than `seconds_old` are kept: another process might be writing them.
    """
    for temporary in folder.glob(f".*{TEMPORARY}"):
        with suppress(FileNotFoundError):  # another process has just completed it
            if time.time() - temporary.stat().st_mtime < seconds_old:
                continue
            if temporary.is_dir():
                shutil.rmtree(temporary, ignore_errors=True)
            else:
                temporary.unlink()


def checksum_of(content: bytes | memoryview) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


class ChecksumWriter:
    """A file for writing that computes the checksum of its content.

    Parameters
    ----------
    file : binary file
        The file that the content is written to.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._sum = hashlib.sha256()
        self.closed = False  # pyarrow reads this attribute

    def write(self, content: bytes) -> int:
        """Write bytes."""
        self._sum.update(content)
        return self._file.write(content)

    def flush(self) -> None:
        """Write the content of the buffer to the file."""
        self._file.flush()

    def tell(self) -> int:
        """Return the number of bytes written."""
        return self._file.tell()

    @property
    def checksum(self) -> str:
        """Checksum of the content so far; see `checksum_of`."""
        return self._sum.hexdigest()


def write_atomic(path: Path, content: bytes) -> None:
    """Write a whole file; see `open_atomic`."""
    with open_atomic(path) as file:
        file.write(content)


def to_npz(arrays: dict[str, Any]) -> bytes:
    """Return arrays as the bytes of an ``.npz`` file."""
    buffer = io.BytesIO()
    write_npz(buffer, arrays)
    return buffer.getvalue()


def write_npz(file: IO[bytes], arrays: dict[str, Any]) -> None:
    """Write arrays as an ``.npz`` file, without a copy of any array."""
    with ZipFile(file, "w") as archive:
        for name, value in arrays.items():
            array = np.asanyarray(value)
            info = ZipInfo(f"{name}.npy")
            # Compression shrinks labels, votes and masks, but not probabilities and files.
            info.compress_type = ZIP_STORED if array.dtype.kind in "fV" else ZIP_DEFLATED
            info.file_size = array.nbytes  # about: large files need another header
            with archive.open(info, "w") as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def from_npz(content: bytes) -> dict[str, np.ndarray]:
    """Return the arrays in the bytes of an ``.npz`` file, which must not hold pickles.

    Raises
    ------
    Exception
        Of any kind, if the file is damaged; `ValueError` if it claims to hold far more than its
        size allows.
    """
    with ZipFile(io.BytesIO(content)) as archive:
        check_archive(archive, len(content))
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        return dict(file)
