"""CIFAR-10 as its authors distribute it: the folder `cifar-10-batches-py`.

Its files are pickles, which can run any code when they are read. This reader accepts only the five
names that occur in those files, and replaces each by a harmless stand-in.
"""

import io
import pickle
import pickletools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pudistill.data.columns import no_labels, object_array, row_numbers
from pudistill.data.dataset import TrustedDataset
from pudistill.data.pictures import resize_pictures
from pudistill.exceptions import InputError

if TYPE_CHECKING:
    from pudistill.data.options import ReadOptions

_META = "batches.meta"
_TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
_BATCHES = (*_TRAIN, "test_batch")
_N_BYTES = 3 * 32 * 32


def accepts(path: Path) -> bool:
    """Return whether `path` is CIFAR-10's folder or one of its batches."""
    if path.is_dir():
        return any((path / name).exists() for name in (_META, *_BATCHES))
    return path.name in _BATCHES


def read(path: Path, options: "ReadOptions") -> TrustedDataset:
    """Read the training batches of a folder, or one batch."""
    folder = path if path.is_dir() else path.parent
    files = [folder / name for name in _TRAIN] if path.is_dir() else [path]
    names = _class_names(folder / _META)
    X, labels = [], []
    for file in files:
        pictures, classes = _read_batch(file)
        X.append(pictures)
        for label in classes:
            if not 0 <= label < len(names):
                raise InputError(f"{file}: label {label} is not among the {len(names)} classes.")
            labels.append(names[label])
    pictures = np.concatenate(X)
    if options.image_size is not None:
        pictures = resize_pictures(pictures, options.image_size)
    return TrustedDataset(
        X=pictures,
        y=object_array(labels),
        trusted=np.zeros(len(labels), dtype=bool),
        verified=no_labels(len(labels)),
        ids=row_numbers(len(labels)),
        name=path.resolve().name,
    )


def _class_names(file: Path) -> list[str]:
    names = _unpickle(file).get(b"label_names")
    if not isinstance(names, list) or not all(isinstance(name, bytes) for name in names):
        raise InputError(f"{file}: it holds no label names: fetch CIFAR-10 again.")
    return [name.decode("utf-8", errors="replace") for name in names]


def _read_batch(file: Path) -> tuple[np.ndarray, list[int]]:
    batch = _unpickle(file)
    data = getattr(batch.get(b"data"), "array", None)
    labels = batch.get(b"labels")
    if (
        data is None
        or data.shape[1:] != (_N_BYTES,)
        or not isinstance(labels, list)
        or len(labels) != len(data)
        or not all(isinstance(label, int) for label in labels)
    ):
        raise InputError(f"{file}: this is not a CIFAR-10 batch: fetch CIFAR-10 again.")
    # Each row holds the red plane, then the green plane, then the blue plane.
    return np.ascontiguousarray(data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)), labels


class _PickledArray:
    """Stands in for `numpy.ndarray`: takes the state of a pickled array of bytes."""

    array: np.ndarray

    def __setstate__(self, state: tuple[int, tuple[int, ...], object, bool, bytes]) -> None:
        _, shape, _, in_fortran_order, content = state
        self.array = np.frombuffer(content, np.uint8).reshape(
            shape, order="F" if in_fortran_order else "C"
        )


class _ByteType:
    """Stands in for `numpy.dtype("u1")`, the only type in those files."""

    def __init__(self, name: str | bytes, *_: object) -> None:
        if name not in ("u1", b"u1"):
            raise pickle.UnpicklingError(f"an array of type {name!r}")

    def __setstate__(self, state: object) -> None:
        """Ignore byte order and alignment: a byte has neither."""


class _Unpickler(pickle.Unpickler):
    _STAND_INS: dict[tuple[str, str], Any] = {
        ("numpy", "ndarray"): _PickledArray,
        ("numpy", "dtype"): _ByteType,
        ("numpy.core.multiarray", "_reconstruct"): lambda *_: _PickledArray(),
        ("numpy._core.multiarray", "_reconstruct"): lambda *_: _PickledArray(),
        # In protocol 2, Python 3 writes bytes as text and a call that encodes it.
        ("_codecs", "encode"): None,
    }

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content), encoding="bytes")
        self._left = 4 * len(content)  # a few bytes can ask for a long text again and again

    def _encode(self, text: str, _: object) -> bytes:
        self._left -= len(text)
        if self._left < 0:
            raise pickle.UnpicklingError("it unpacks to far more than its size")
        return text.encode("latin1")

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._STAND_INS[module, name] or self._encode
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None


def _unpickle(file: Path) -> dict[Any, Any]:
    try:
        packed = file.read_bytes()
        for opcode, argument, _ in pickletools.genops(packed):
            # Python makes room for as many objects as the number of the last one.
            if opcode.name in ("PUT", "LONG_BINPUT") and (argument or 0) > len(packed):
                raise pickle.UnpicklingError(f"it numbers an object {argument:,}")
        content = _Unpickler(packed).load()
    except FileNotFoundError:
        raise InputError(f"{file}: this part of CIFAR-10 is missing: fetch it.") from None
    # A damaged pickle can raise almost any error.
    except Exception as error:
        raise InputError(
            f"{file}: this is not a file of CIFAR-10 ({error}): fetch CIFAR-10 again."
        ) from error
    if not isinstance(content, dict):
        raise InputError(f"{file}: this is not a file of CIFAR-10: fetch CIFAR-10 again.")
    return content
