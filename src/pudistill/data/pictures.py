"""Decodes pictures into one array, or onto the disk."""

import io
import re
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

import numpy as np
from joblib import cpu_count

from pudistill.data.lazy_pictures import LazyPictures, PictureWriter
from pudistill.data.memory import fits_in_memory
from pudistill.exceptions import InputError
from pudistill.utils.progress import stage
from pudistill.utils.threads import prefetch, prefetch_in_processes, usable_processes

if TYPE_CHECKING:
    from PIL.Image import Image

Encoded = bytes | Path | None
"""The bytes of a picture file, its path, or None if it is missing."""

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".webp", ".gif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)
# Pillow knows many more formats, some of which call other programs.
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM")
_SERVER = ("/data/upload/", "/data/local-files/?d=")  # how paths of Label Studio begin
_CODE = re.compile(r"^[0-9a-f]{8}-")
_REPORT_EVERY = 256
_SMALL = 256  # pixels of the longer side, up to which a picture is shown without loss
_DECODED_AT_ONCE = 8
_MAX_THREADS = 8
# Seconds that threads decode before processes do, as starting these takes about as long.
PATIENCE = 5.0
# Processor time of a task of a process: much longer than sending it, and few pictures in memory.
_SECONDS_OF_A_TASK = 0.05


class DecodedPictures(NamedTuple):
    """Pictures of one size, and the ids of those that could not be read."""

    X: np.ndarray | LazyPictures
    """uint8 of shape (n, height, width), or (n, height, width, 3) if any picture has colours."""
    rows: np.ndarray
    """Positions of the pictures in `X` among all pictures that were passed."""
    skipped: tuple[tuple[str, str], ...]
    """Id and reason of each picture that could not be read."""


def decode_pictures(
    origin: Path,
    ids: Sequence[str] | np.ndarray,
    contents: Iterable[Encoded],
    *,
    image_size: int | None = None,
    skip_bad: bool = False,
    lazy: bool = False,
    cache: int | None = None,
) -> DecodedPictures:
    """Decode pictures into one array or, if that would fill the memory, onto the disk.

    All pictures are decoded first, so that unreadable pictures, colours and different sizes are
    found before anything is computed: by threads and, if it takes long, by processes.

    Parameters
    ----------
    origin : Path
        The folder or table of the pictures, for messages.
    ids : sequence of str
        Id of each picture.
    contents : iterable of bytes, Path or None
        The pictures; a generator saves memory, as they are read one after the other.
    image_size : int, optional
        Resize the shorter side to this many pixels and crop the middle square.
    skip_bad : bool
        Leave out pictures that cannot be read, instead of raising an error.
    lazy : bool
        Write the pictures to disk even if there is memory for them.
    cache : int, optional
        Bytes on the disk for decoded pictures; further pictures stay encoded and are decoded
        whenever they are needed. By default half of the free disk.

    Raises
    ------
    InputError
        If a picture cannot be read, or differs in size from the first one.
    """
    readable = np.zeros(len(ids), dtype=bool)
    skipped: list[tuple[str, str]] = []
    writer: _ArrayWriter | PictureWriter | None = None
    first = ""
    decode = partial(_decode, image_size=image_size)
    with (
        stage("reading pictures", total=len(ids)) as advance,
        _pillow_warnings(),
        ExitStack() as open_writer,
    ):
        attempts = _attempts(decode, contents)
        for row, (sample, (content, picture)) in enumerate(zip(ids, attempts, strict=True)):
            if row % _REPORT_EVERY == 0:
                advance(min(_REPORT_EVERY, len(ids) - row))
            where = str(content) if isinstance(content, Path) else f"{origin}, id {sample!r}"
            # 1. A picture that cannot be read is refused, or skipped.
            if isinstance(picture, str):
                if not skip_bad:
                    raise InputError(
                        f"{where}: this picture cannot be read ({picture}): repair or remove it, "
                        "or leave such pictures out with --skip-bad."
                    )
                skipped.append((sample, picture))
                continue
            # 2. The first picture decides the size of all, and whether they go to memory or disk.
            if writer is None:
                in_rgb = len(ids) * 3 * picture.shape[0] * picture.shape[1]
                if lazy or not fits_in_memory(in_rgb):
                    writer = open_writer.enter_context(PictureWriter(decode, cache))
                else:
                    writer = _ArrayWriter(len(ids), picture.shape)
                first, size = where, picture.shape[:2]
            elif picture.shape[:2] != size:
                raise InputError(
                    f"The pictures have different sizes, {first} {_size(size)} and {where} "
                    f"{_size(picture.shape)}: give --image-size N to resize and crop all to N x N."
                )
            # 3. Any other picture is written.
            assert content is not None  # a missing picture cannot be read
            writer.append(picture, content)
            readable[row] = True
    X = np.empty((0, 0, 0), np.uint8) if writer is None else writer.pictures
    return DecodedPictures(X, np.flatnonzero(readable), tuple(skipped))


def find_picture(folder: Path, name: str) -> Path:
    """Return the file of a picture that a table in `folder` names.

    Annotation tools name a place on their server, ``/data/upload/1/0a1b2c3d-cat.jpg``: the picture
    is looked for under that name, without its folders, and without the code in front of it. Lists
    in the style of COCO leave the folder ``images`` out.
    """
    if name.startswith(_SERVER):
        name = unquote(name.split("?d=", 1)[-1].removeprefix("/data/"))
        last = name.rsplit("/", 1)[-1]
        names = [name, name.removeprefix("upload/"), last, _CODE.sub("", last)]
    else:
        names = [name]
    files = [folder / part / name for name in names for part in ("", "images")]
    return next((file for file in files if file.is_file()), files[0])


class _ArrayWriter:
    """Puts pictures into one array; has the interface of `PictureWriter`."""

    def __init__(self, n_pictures: int, shape: tuple[int, ...]) -> None:
        self._X = np.empty((n_pictures, *shape), np.uint8)
        self._n_filled = 0

    def append(self, picture: np.ndarray, content: Encoded) -> None:  # noqa: ARG002
        """Add a picture."""
        if picture.ndim > self._X.ndim - 1:
            self._X = _with_channels(self._X, self._n_filled)
        is_alike = picture.ndim == self._X.ndim - 1
        self._X[self._n_filled] = picture if is_alike else picture[..., None]
        self._n_filled += 1

    @property
    def pictures(self) -> np.ndarray:
        """The pictures."""
        return self._X[: self._n_filled]


@contextmanager
def _pillow_warnings() -> Iterator[None]:
    """Ignore Pillow's warnings about odd but readable files; raise those about bombs as errors."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _attempts(
    decode: Callable[[Encoded], np.ndarray], contents: Iterable[Encoded]
) -> Iterator[tuple[Encoded, np.ndarray | str]]:
    """Decode pictures; yield each with its pixels, or the reason why there are none, in order.

    Pillow releases the GIL while it decodes, but not while it opens a file, which takes most of the
    time of small pictures.
    """
    contents, drawn = iter(contents), deque[Encoded]()
    n_processes, n_decoded = usable_processes(), 0
    start, used = time.perf_counter(), time.process_time()

    def batches(size: int, seconds: float) -> Iterator[list[Encoded]]:
        while time.perf_counter() - start < seconds and (batch := list(islice(contents, size))):
            drawn.extend(batch)
            yield batch

    def with_contents(
        results: Iterable[list[np.ndarray | str]],
    ) -> Iterator[tuple[Encoded, np.ndarray | str]]:
        nonlocal n_decoded
        for pictures in results:
            for picture in pictures:
                n_decoded += 1
                yield drawn.popleft(), picture

    # 1. Threads decode, for a while if processes can.
    attempt = partial(_pictures_or_reasons, decode)
    alone = batches(_DECODED_AT_ONCE, PATIENCE if n_processes > 1 else np.inf)
    yield from with_contents(prefetch(attempt, alone, min(cpu_count(), _MAX_THREADS)))
    # 2. Processes decode what is left.
    seconds = time.process_time() - used
    at_once = max(1, int(_SECONDS_OF_A_TASK * n_decoded / max(seconds, 1e-3)))
    attempt = partial(_pictures_or_reasons_in_process, decode)
    rest = batches(at_once, np.inf)
    yield from with_contents(prefetch_in_processes(attempt, rest, n_processes))


def _pictures_or_reasons_in_process(
    decode: Callable[[Encoded], np.ndarray], contents: list[Encoded]
) -> list[np.ndarray | str]:
    with _pillow_warnings():
        return _pictures_or_reasons(decode, contents)


def _pictures_or_reasons(
    decode: Callable[[Encoded], np.ndarray], contents: list[Encoded]
) -> list[np.ndarray | str]:
    """Return the pixels of each picture, or the reason why it cannot be read."""
    return [_picture_or_reason(decode, content) for content in contents]


def _picture_or_reason(
    decode: Callable[[Encoded], np.ndarray], content: Encoded
) -> np.ndarray | str:
    try:
        return decode(content)
    except MemoryError:
        raise
    except Exception as error:  # a damaged file can raise almost any error
        return _reason(error)


def resize_pictures(X: np.ndarray, image_size: int) -> np.ndarray:
    """Resize the shorter side of each picture to `image_size` and crop the middle square."""
    from PIL import Image

    resized = np.empty((len(X), image_size, image_size, *X.shape[3:]), np.uint8)
    for row, picture in enumerate(X):
        resized[row] = np.asarray(_middle_square(Image.fromarray(picture), image_size))
    return resized


def encode_picture(picture: np.ndarray) -> bytes:
    """Return a picture as a PNG file, which is lossless."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", compress_level=3)
    return file.getvalue()


def encode_for_display(content: Encoded, largest: int) -> bytes:
    """Return a picture of any format for a browser: a JPEG, or a PNG if it is small.

    Parameters
    ----------
    content : bytes or Path
        The picture.
    largest : int
        Pixels of its longer side, at most.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    from PIL import Image

    with _pillow_warnings():
        pixels = _picture_or_reason(partial(_decode, image_size=None), content)
    if isinstance(pixels, str):
        raise InputError(f"{content!s:.200}: this picture cannot be read ({pixels}).")
    picture = Image.fromarray(pixels)
    picture.thumbnail((largest, largest))
    if max(picture.size) <= _SMALL:
        return encode_picture(np.asarray(picture))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=90)
    return file.getvalue()


def _decode(content: Encoded, image_size: int | None) -> np.ndarray:
    from PIL import Image, ImageOps

    if content is None:
        raise ValueError("it is missing")
    if isinstance(content, Path) and content.exists() and not content.is_file():
        raise ValueError("it is not a file")  # a folder, or a pipe, which can block for ever
    file = content if isinstance(content, Path) else io.BytesIO(content)
    with Image.open(file, formats=_FORMATS) as opened:
        opened.load()
        ImageOps.exif_transpose(opened, in_place=True)
        picture = _grey_or_rgb(opened)
    if image_size is not None:
        picture = _middle_square(picture, image_size)
    return np.asarray(picture)


def _grey_or_rgb(picture: "Image") -> "Image":
    from PIL import Image

    if picture.mode in ("L", "RGB") and not picture.has_transparency_data:
        return picture
    if picture.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range")
    if picture.mode.startswith("I"):
        values = np.asarray(picture).astype(np.int64)
        if values.min() < 0 or values.max() > 65_535:
            raise ValueError("its pixels have more than 16 bits")
        return Image.fromarray(((values + 128) // 257).astype(np.uint8))
    grey = picture.mode in ("1", "L", "LA") or _has_grey_palette(picture)
    if picture.has_transparency_data:
        # The colour of a transparent pixel is arbitrary: put white under it.
        paper = Image.new("RGBA", picture.size, "white")
        paper.alpha_composite(picture.convert("RGBA"))
        picture = paper
    return picture.convert("L" if grey else "RGB")


def _has_grey_palette(picture: "Image") -> bool:
    if picture.mode != "P":
        return False
    palette = np.array(picture.getpalette("RGB")).reshape(-1, 3)
    return bool((palette == palette[:, :1]).all())


def _middle_square(picture: "Image", image_size: int) -> "Image":
    from PIL import Image, ImageOps

    return ImageOps.fit(picture, (image_size, image_size), Image.Resampling.BICUBIC)


def _with_channels(X: np.ndarray, n_filled: int) -> np.ndarray:
    coloured = np.empty((*X.shape, 3), np.uint8)
    coloured[:n_filled] = X[:n_filled, ..., None]
    return coloured


def _reason(error: Exception) -> str:
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return "it claims to be too large, as decompression bombs do"
    if isinstance(error, UnidentifiedImageError):
        return "it is in no known picture format"
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} x {shape[0]}"
