"""Pictures that stay on disk and are decoded block by block, when they are needed."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from hashlib import sha256
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from filelock import FileLock, Timeout

from pudistill.exceptions import InputError

FOLDER, LOCK = "pudistill-pictures-", "lock"
# A younger folder is not removed: its process might not have locked it yet.
MIN_SECONDS_OLD = 60
DECODED, ENCODED, ENDS = "decoded", "encoded", "ends"
# First byte of the entry of an encoded picture: its path follows, or its content.
IS_PATH, IS_CONTENT = b"p", b"c"
LARGEST_SHARE_OF_DISK = 0.5
# Arrays up to this size, in bytes, are decoded once; the samples of a filter member are as few.
FEW_BYTES = 2**28


class _Region(NamedTuple):
    """Decoded pictures of one shape, side by side in a file."""

    first: int  # position of its first picture
    offset: int  # of its first byte
    shape: tuple[int, ...]  # of each picture


class LazyPictures:
    """Pictures on disk, with the part of an array's interface that learners need.

    Indexing rows or cropping returns another `LazyPictures` and reads nothing; `numpy.asarray`
    decodes. Only batches or blocks take memory, and a pickle holds the name of the folder. A
    `PictureWriter` makes instances.

    Attributes
    ----------
    shape : tuple of int
        (n_pictures, height, width), or (n_pictures, height, width, 3) in RGB.
    dtype : dtype
        uint8.
    fingerprint : tuple
        Equal for equal pictures, wherever they are stored.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.data.lazy_pictures import PictureWriter
    >>> with PictureWriter(decode=None) as writer:
    ...     for grey in (0, 128, 255):
    ...         writer.append(np.full((2, 2), grey, np.uint8), b"")
    >>> pictures = writer.pictures
    >>> pictures[1:].shape, np.asarray(pictures[[2, 0]])[:, 0, 0].tolist()
    ((2, 2, 2), [255, 0])
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, folder: Path, stored: "_Stored", decode: Callable, owner: Any) -> None:
        self._folder = folder
        self._stored = stored
        self._decode = decode
        self._owner = owner  # removes the folder when it is deleted
        self._rows: np.ndarray | None = None  # None: all
        self._parts: tuple[tuple, ...] = ()  # indices that crop a block, one after the other

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the decoded array."""
        n_rows = self._stored.n_pictures if self._rows is None else len(self._rows)
        return self._cut(np.broadcast_to(np.uint8(0), (n_rows, *self._stored.shape))).shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the decoded array."""
        return prod(self.shape)

    @property
    def fingerprint(self) -> tuple:
        """Key of these pictures in caches: equal for equal pictures."""
        return type(self).__name__, self._stored.digest, self._rows, self._parts

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<LazyPictures of shape {self.shape}>"

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_owner": None}

    def __getitem__(self, key: Any) -> Any:
        rows, *parts = key if isinstance(key, tuple) else (key,)
        if rows is Ellipsis:
            rows, parts = slice(None), [Ellipsis, *parts]
        elif parts and parts != [Ellipsis]:
            parts = [slice(None), *parts]
        if isinstance(rows, int | np.integer):
            return np.asarray(self[([rows], *parts[1:])])[0]
        view = LazyPictures(self._folder, self._stored, self._decode, self._owner)
        view._rows, view._parts = self._rows, self._parts
        if not (isinstance(rows, slice) and rows == slice(None)):
            chosen = _positions(rows, len(self))
            view._rows = chosen if self._rows is None else self._rows[chosen]
        if parts and parts != [Ellipsis]:
            view._parts = (*self._parts, tuple(parts))
        return view

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("Pictures on disk cannot be seen as an array without a copy.")
        rows = np.arange(self._stored.n_pictures) if self._rows is None else self._rows
        block = self._cut(self._read(rows))
        return block if dtype is None else block.astype(dtype, copy=False)

    def _cut(self, block: np.ndarray) -> np.ndarray:
        for part in self._parts:
            block = block[part]
        return block

    def _read(self, rows: np.ndarray) -> np.ndarray:
        stored = self._stored
        block = np.empty((len(rows), *stored.shape), np.uint8)
        ends = [*(region.first for region in stored.regions[1:]), stored.n_decoded]
        # Not mapped: the pages of a map count as memory of this process.
        with (self._folder / DECODED).open("rb", buffering=0) as file:
            for region, end in zip(stored.regions, ends, strict=True):
                places = np.flatnonzero((rows >= region.first) & (rows < end))
                _read_region(file, region, rows, places, block)
        places = np.flatnonzero(rows >= stored.n_decoded)
        if len(places):
            starts = np.memmap(self._folder / ENDS, np.int64, "r")
            with (self._folder / ENCODED).open("rb", buffering=0) as file:
                for place in places:
                    start, end = starts[rows[place] - stored.n_decoded :][:2].tolist()
                    file.seek(start)
                    block[place] = self._decoded(file.read(end - start))
        return block

    def _decoded(self, entry: bytes) -> np.ndarray:
        """Decode an entry, which was decoded without error when it was written."""
        content = entry[1:]
        source = Path(os.fsdecode(content)) if entry[:1] == IS_PATH else content
        name = source if isinstance(source, Path) else "A picture"
        try:
            picture = self._decode(source)
            if picture.shape[:2] != self._stored.shape[:2]:
                raise ValueError("its size has changed")
        except Exception as error:  # a damaged file can raise almost any error
            raise InputError(
                f"{name} could be read at first but cannot be read now ({error}): do not change "
                "data while a command uses them."
            ) from error
        return picture if picture.ndim == len(self._stored.shape) else picture[..., None]


def is_lazy(X: Any) -> bool:
    """Return whether samples are pictures on disk."""
    return isinstance(X, LazyPictures)


def decoded_if_few(X: Any) -> Any:
    """Return pictures on disk as an array if they take little memory; other samples unchanged."""
    return np.asarray(X) if is_lazy(X) and X.nbytes <= FEW_BYTES else X


class _Stored(NamedTuple):
    """The contents of a folder of pictures."""

    n_pictures: int
    n_decoded: int  # these come first; the others are encoded
    shape: tuple[int, ...]  # of a picture
    regions: tuple[_Region, ...]
    digest: str  # of all pictures


class PictureWriter:
    """Writes pictures to disk: decoded up to a limit, the others encoded as they are.

    If an encoded picture is a file, only its path is written.

    Parameters
    ----------
    decode : callable
        Takes an encoded picture, bytes or a path, and returns a uint8 array. Must be picklable.
    limit : int, default=None
        Bytes for decoded pictures; None: half of the free disk.

    Attributes
    ----------
    pictures : LazyPictures
        The written pictures, after the ``with`` block. Their folder, among the temporary files, is
        removed with the last object that uses it. If the process is killed, the next process that
        writes pictures removes the folder.
    """

    def __init__(self, decode: Any, limit: int | None = None) -> None:
        _remove_abandoned(Path(tempfile.gettempdir()))
        directory = tempfile.TemporaryDirectory(prefix=FOLDER, ignore_cleanup_errors=True)
        self._folder = Path(directory.name)
        lock = FileLock(self._folder / LOCK, thread_local=False)
        lock.acquire()
        self._owner = directory, lock
        self._decode = decode
        free = shutil.disk_usage(self._folder).free
        self._limit = int(LARGEST_SHARE_OF_DISK * free) if limit is None else limit
        self._n_pictures = self._n_decoded = 0
        self._regions: list[_Region] = []
        self._digest = sha256()

    def __enter__(self) -> "PictureWriter":
        self._files: dict[str, IO[bytes]] = {
            name: (self._folder / name).open("wb") for name in (DECODED, ENCODED, ENDS)
        }
        self._files[ENDS].write(np.int64(0).tobytes())
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()

    def append(self, picture: np.ndarray, content: bytes | Path) -> None:
        """Write a picture, grey or in RGB; all must have the same size.

        Parameters
        ----------
        picture : ndarray of shape (height, width) or (height, width, 3), uint8
            The decoded picture.
        content : bytes or Path
            The encoded picture.
        """
        used = self._files[DECODED].tell()
        if not self._regions or picture.ndim > len(self._regions[-1].shape):
            self._regions.append(_Region(self._n_decoded, used, picture.shape))
        shape = self._regions[-1].shape
        if picture.ndim < len(shape):
            picture = np.broadcast_to(picture[..., None], shape)
        pixels = picture.tobytes()
        self._digest.update(pixels)
        if self._n_decoded == self._n_pictures and used + len(pixels) <= self._limit:
            self._files[DECODED].write(pixels)
            self._n_decoded += 1
        else:
            if isinstance(content, Path):
                content = IS_PATH + os.fsencode(content.absolute())
            else:
                content = IS_CONTENT + content
            self._files[ENCODED].write(content)
            self._files[ENDS].write(np.int64(self._files[ENCODED].tell()).tobytes())
        self._n_pictures += 1

    @property
    def pictures(self) -> LazyPictures:
        """The written pictures."""
        shape = self._regions[-1].shape
        stored = _Stored(
            self._n_pictures,
            self._n_decoded,
            shape,
            tuple(self._regions),
            self._digest.hexdigest(),
        )
        return LazyPictures(self._folder, stored, self._decode, self._owner)


def _remove_abandoned(where: Path) -> None:
    """Remove the folders of processes that were killed: nobody holds their locks."""
    for folder in where.glob(f"{FOLDER}*"):
        try:
            if folder.is_symlink() or (folder / LOCK).is_symlink():  # not made by this module
                continue
            if time.time() - folder.stat().st_mtime > MIN_SECONDS_OLD:
                with FileLock(folder / LOCK, timeout=0):
                    shutil.rmtree(folder, ignore_errors=True)
        except (Timeout, OSError):  # in use, just removed, or of another user
            continue


def _positions(rows: Any, n: int) -> np.ndarray:
    """Return a slice, a mask or positions as positions that are not negative."""
    if isinstance(rows, slice):
        return np.arange(*rows.indices(n))
    rows = np.asarray(rows)
    if rows.dtype == bool:
        if rows.shape != (n,):
            raise IndexError(f"A mask of shape {rows.shape} does not fit {n} pictures.")
        return np.flatnonzero(rows)
    rows = rows.astype(np.intp, casting="same_kind" if rows.size else "unsafe")
    if rows.size and not -n <= rows.min() <= rows.max() < n:
        raise IndexError(
            f"There are {n} pictures: position {rows.max()} or {rows.min()} is outside."
        )
    return np.where(rows < 0, rows + n, rows)


def _read_region(
    file: Any, region: _Region, rows: np.ndarray, places: np.ndarray, block: np.ndarray
) -> None:
    """Read the pictures ``rows[places]``, all in one region, into ``block[places]``."""
    if len(places) == 0:
        return
    # Pictures that are neighbours on disk and in the block are read together.
    is_neighbour = (np.diff(rows[places]) == 1) & (np.diff(places) == 1)
    starts = [0, *(np.flatnonzero(~is_neighbour) + 1), len(places)]
    size = prod(region.shape)
    grey_to_rgb = len(region.shape) < block.ndim - 1
    for start, end in pairwise(starts):
        part = block[places[start] : places[start] + end - start]
        pixels = np.empty((len(part), *region.shape), np.uint8) if grey_to_rgb else part
        _read_fully(file, pixels, region.offset + (int(rows[places[start]]) - region.first) * size)
        if grey_to_rgb:
            part[...] = pixels[..., None]


def _read_fully(file: Any, pixels: np.ndarray, offset: int) -> None:
    buffer = pixels.data.cast("B")
    file.seek(offset)
    while len(buffer):
        n_read = file.readinto(buffer)
        if n_read == 0:
            raise InputError(
                f"{file.name} has become shorter: do not change it while a command runs."
            )
        buffer = buffer[n_read:]
