"""Encoded pictures become one array of bytes."""

import io
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pudistill.data.memory import require_memory
from pudistill.exceptions import InputError
from pudistill.progress import stage

if TYPE_CHECKING:
    from PIL.Image import Image

Encoded = bytes | Path | None
"""The bytes of a picture file, where it lies, or None if it is missing."""

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".webp", ".gif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)
# Pillow knows many more formats, some of which call other programs.
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM")
_REPORT_EVERY = 256


class DecodedPictures(NamedTuple):
    """Pictures of one size, and what became of the rest."""

    X: np.ndarray
    """uint8 of shape (n, height, width), or (n, height, width, 3) if any has colours."""
    rows: np.ndarray
    """Positions of the pictures that could be read."""
    skipped: tuple[tuple[str, str], ...]
    """Id and reason of those that could not."""


def decode_pictures(
    origin: Path,
    ids: Sequence[str] | np.ndarray,
    contents: Iterable[Encoded],
    *,
    image_size: int | None = None,
    skip_bad: bool = False,
) -> DecodedPictures:
    """Decode pictures one after the other into one array.

    Parameters
    ----------
    origin : Path
        The folder or table that they come from, for messages.
    ids : sequence of str
        One for each picture.
    contents : iterable of bytes, Path or None
        The pictures; consumed step by step, so that a generator saves memory.
    image_size : int, optional
        Resize the shorter side to this many pixels and crop the middle square.
    skip_bad : bool
        Leave out what cannot be read.

    Raises
    ------
    InputError
        If a picture cannot be read, or has another size than the first one.
    """
    try:
        from PIL import Image
    except ImportError:
        raise InputError(
            f"{origin}: reading pictures needs Pillow: pip install 'pudistill[torch]'."
        ) from None

    X: np.ndarray | None = None
    first = ""
    rows: list[int] = []
    skipped: list[tuple[str, str]] = []
    with stage("reading pictures", total=len(ids)) as advance, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on odd but readable files
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for row, (sample, content) in enumerate(zip(ids, contents, strict=True)):
            if row % _REPORT_EVERY == 0:
                advance(min(_REPORT_EVERY, len(ids) - row))
            where = str(content) if isinstance(content, Path) else f"{origin}, id {sample!r}"
            try:
                picture = _decode(content, image_size)
            except MemoryError:
                raise
            # A damaged file can raise nearly anything.
            except Exception as error:
                reason = _reason(error)
                if not skip_bad:
                    raise InputError(
                        f"{where}: this picture cannot be read ({reason}): repair or remove it, "
                        "or leave such pictures out with --skip-bad."
                    ) from error
                skipped.append((sample, reason))
                continue
            if X is None:
                _require_room(origin, len(ids), picture)
                X, first = np.empty((len(ids), *picture.shape), np.uint8), where
            elif picture.shape[:2] != X.shape[1:3]:
                raise InputError(
                    f"The pictures have different sizes, {first} {_size(X[0])} and {where} "
                    f"{_size(picture)}: give --image-size N to resize and crop all to N x N."
                )
            if picture.ndim > X.ndim - 1:
                _require_room(origin, len(ids), picture)
                X = _in_colour(X, n_filled=len(rows))
            X[len(rows)] = picture if picture.ndim == X.ndim - 1 else picture[..., None]
            rows.append(row)
    if X is None:
        X = np.empty((0, 0, 0), np.uint8)
    return DecodedPictures(X[: len(rows)], np.array(rows, dtype=np.intp), tuple(skipped))


def _require_room(origin: Path, n_pictures: int, like: np.ndarray) -> None:
    what = f"{n_pictures:,} pictures of {_size(like)}"
    remedy = "give a smaller --image-size, or a part of them"
    require_memory(origin, n_pictures * like.nbytes, what, remedy)


def resize_pictures(X: np.ndarray, image_size: int) -> np.ndarray:
    """Resize the shorter side of each picture to `image_size` and crop the middle square."""
    from PIL import Image

    resized = np.empty((len(X), image_size, image_size, *X.shape[3:]), np.uint8)
    for row, picture in enumerate(X):
        resized[row] = np.asarray(_middle_square(Image.fromarray(picture), image_size))
    return resized


def encode_picture(picture: np.ndarray) -> bytes:
    """Return a picture as a PNG file, which loses nothing."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", compress_level=3)
    return file.getvalue()


def _decode(content: Encoded, image_size: int | None) -> np.ndarray:
    from PIL import Image, ImageOps

    if content is None:
        raise ValueError("it is missing")
    if isinstance(content, Path) and content.exists() and not content.is_file():
        raise ValueError("it is no file")  # but a folder, or a pipe that nobody may write to
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
        # What colour lies under a transparent pixel is an accident of the program that wrote it.
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


def _in_colour(X: np.ndarray, n_filled: int) -> np.ndarray:
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


def _size(picture: np.ndarray) -> str:
    return f"{picture.shape[1]} x {picture.shape[0]}"
