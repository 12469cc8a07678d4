"""IDX files, the format of MNIST and Fashion-MNIST, plain or compressed by gzip."""

import gzip
import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pudistill.data.columns import no_labels, object_array, row_numbers
from pudistill.data.dataset import TrustedDataset
from pudistill.data.memory import Budget
from pudistill.data.pictures import resize_pictures
from pudistill.exceptions import InputError

if TYPE_CHECKING:
    from pudistill.data.options import ReadOptions

_FASHION = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_UNSIGNED_BYTE = 8


def accepts(path: Path) -> bool:
    """Return whether `path` is an IDX file or a folder with IDX files."""
    if path.is_dir():
        return any(path.glob("*idx3-ubyte*"))
    return "idx3-ubyte" in path.name or "idx1-ubyte" in path.name


def read(path: Path, options: "ReadOptions") -> TrustedDataset:
    """Read images, and their labels from the file beside them."""
    images_file = _training_images(path) if path.is_dir() else path
    X = _read_array(images_file)
    if X.ndim != 3:
        raise InputError(f"{images_file}: these are not images: name the ...-images-idx3 file.")
    if options.image_size is not None:
        X = resize_pictures(X, options.image_size)
    labels_file = _labels_beside(images_file)
    if labels_file is not None:
        y = _names(labels_file, _read_array(labels_file), len(X))
    elif options.labels_required:
        raise InputError(f"{images_file}: there is no file of labels beside it: put it there.")
    else:
        y = no_labels(len(X))
    return TrustedDataset(
        X=X,
        y=y,
        trusted=np.zeros(len(X), dtype=bool),
        verified=no_labels(len(X)),
        ids=row_numbers(len(X)),
        name=path.resolve().name.split(".")[0],
    )


def _training_images(folder: Path) -> Path:
    found = sorted(folder.glob("train*idx3-ubyte*"))
    if not found:
        raise InputError(f"{folder}: there are no training images: name the file to be read.")
    return found[0]


def _labels_beside(images_file: Path) -> Path | None:
    name = images_file.name.replace("images", "labels").replace("idx3", "idx1")
    plain = name.removesuffix(".gz")
    for candidate in (name, plain, plain + ".gz"):
        labels_file = images_file.with_name(candidate)
        if labels_file.exists() and labels_file != images_file:
            return labels_file
    return None


def _names(labels_file: Path, labels: np.ndarray, n_samples: int) -> np.ndarray:
    if labels.shape != (n_samples,):
        raise InputError(
            f"{labels_file}: there are {len(labels)} labels for {n_samples} images: the two files "
            "do not belong together."
        )
    if "fashion" not in str(labels_file.resolve()).lower() or labels.max(initial=0) > 9:
        return object_array(str(label) for label in labels)
    return object_array(_FASHION[label] for label in labels)


def _read_array(path: Path) -> np.ndarray:
    """Read one IDX file of unsigned bytes."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            shape = _read_shape(path, file.read)
            n_bytes = math.prod(shape)
            Budget(path, path.stat().st_size).spend(2 * n_bytes)  # once as bytes, once as an array
            content = file.read(n_bytes + 1)  # a small .gz file can hold endless data
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error}): fetch the file again.") from error
    if len(content) != n_bytes:
        found = f"more than {n_bytes}" if len(content) > n_bytes else len(content)
        raise InputError(
            f"{path}: there are {found} bytes of data where its header says {n_bytes}: fetch the "
            "file again."
        )
    return np.frombuffer(content, np.uint8).reshape(shape).copy()


def _read_shape(path: Path, read: Callable[[int], bytes]) -> tuple[int, ...]:
    start = read(4)
    n_axes = start[3] if len(start) == 4 else 0
    lengths = read(4 * n_axes)
    if start[:3] != bytes([0, 0, _UNSIGNED_BYTE]) or len(lengths) < 4 * n_axes:
        raise InputError(f"{path}: this is not an IDX file of bytes: fetch it again.")
    if n_axes not in (1, 3):
        raise InputError(
            f"{path}: images have 3 axes and labels have 1, but these data have {n_axes}: fetch "
            "the file again."
        )
    return tuple(int(length) for length in np.frombuffer(lengths, ">u4"))
