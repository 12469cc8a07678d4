"""NumPy archives: `.npz` files with arrays `X`, `y` and optional arrays; see `load_dataset`."""

import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from zipfile import ZIP_STORED, ZipInfo

import numpy as np

from pudistill.data.columns import (
    complete_trust,
    no_labels,
    object_array,
    row_numbers,
    whole_number,
)
from pudistill.data.dataset import TrustedDataset
from pudistill.data.memory import Budget, fits_in_memory, require_memory
from pudistill.data.pictures import resize_pictures
from pudistill.exceptions import InputError
from pudistill.utils.archives import array_header, check_array

if TYPE_CHECKING:
    from pudistill.data.options import ReadOptions

ZIP_HEADER_SIZE = 30
_PARTS = ("X", "y", "trusted", "verified", "ids", "true_labels", "feature_names")


def accepts(path: Path) -> bool:
    """Return whether `path` is a NumPy archive."""
    return path.is_file() and path.suffix.lower() == ".npz"


def read(path: Path, options: "ReadOptions") -> TrustedDataset:
    """Read an archive; missing labels are empty strings or NaN."""
    arrays = _load(path, lazy=options.lazy)
    needed = ("X", "y") if options.labels_required else ("X",)
    for part in needed:
        if part not in arrays:
            found = ", ".join(arrays) or "none of the known arrays"
            raise InputError(f"{path}: there is no array {part!r} (found: {found}): add it.")
    X = _samples(path, arrays["X"])
    if X.ndim > 2 and options.image_size is not None:
        X = resize_pictures(X, options.image_size)
    labels = {
        part: _as_labels(path, part, arrays[part])
        for part in ("y", "verified", "true_labels")
        if part in arrays
    }
    y = labels.get("y", no_labels(len(X)))
    trusted, verified, marked = _trusted(path, y, arrays.get("trusted"), labels.get("verified"))
    ids = row_numbers(len(X))
    if "ids" in arrays:
        ids = _as_labels(path, "ids", arrays["ids"])
        if None in ids:
            row = list(ids).index(None)
            raise InputError(f"{path}: entry {row} of 'ids' is missing: name every sample.")
    names = arrays.get("feature_names")
    if names is not None and (X.ndim > 2 or len(names) != X.shape[1]):
        raise InputError(f"{path}: 'feature_names' does not hold one name for each column of 'X'.")
    return TrustedDataset(
        X=X,
        y=y,
        trusted=trusted,
        verified=verified,
        ids=ids,
        true_labels=labels.get("true_labels"),
        feature_names=None if names is None else tuple(map(str, names)),
        name=path.stem,
        marked=marked,
    )


def _as_labels(path: Path, part: str, values: np.ndarray) -> np.ndarray:
    """Return a vector of names or whole numbers as an object array of str, None where missing."""
    if values.ndim != 1:
        raise InputError(f"{path}: {part!r} has shape {values.shape}: make it one-dimensional.")
    if values.dtype.kind == "U":
        return object_array(value or None for value in values.tolist())
    if values.dtype.kind in "iub":
        return object_array(str(value) for value in values.tolist())
    if values.dtype.kind == "f":
        return object_array(whole_number(path, part, value) for value in values.tolist())
    raise InputError(
        f"{path}: {part!r} is of type {values.dtype}: save class names (str) or whole numbers."
    )


def _load(path: Path, *, lazy: bool) -> dict[str, np.ndarray]:
    """Read all arrays, but map an `X` that is too large for the memory and not compressed."""
    arrays = {}
    part = ""
    budget = Budget(path, path.stat().st_size)
    try:
        with np.load(path, allow_pickle=False) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.zip.infolist()}
            for info in (members[known] for known in _PARTS if known in members):
                part = info.filename.removesuffix(".npy")
                check_array(archive.zip, info)
                if info.compress_type != ZIP_STORED:
                    budget.spend(info.file_size)
            part = "X"
            X = members.get(part)
            if X and X.compress_type == ZIP_STORED and (lazy or not fits_in_memory(X.file_size)):
                arrays[part] = _mapped(path, X)
            needed = sum(members[part].file_size for part in _PARTS if part in members)
            require_memory(
                path, needed - sum(array.nbytes for array in arrays.values()), "its arrays"
            )
            for part in _PARTS:
                if part in archive and part not in arrays:
                    arrays[part] = archive[part]
    except InputError:
        raise
    except Exception as error:  # a damaged archive raises nearly anything
        if "pickle" in str(error) and part:
            raise InputError(
                f"{path}: array {part!r} holds Python objects: save text with .astype(str) and "
                "numbers with a numeric dtype."
            ) from error
        problem = f"array {part!r} cannot be read" if part else "this is not a NumPy archive"
        raise InputError(f"{path}: {problem} ({error}): save it again.") from error
    return arrays


def _mapped(path: Path, member: ZipInfo) -> np.ndarray:
    """Map an array that is stored in an archive without compression."""
    with path.open("rb") as file:
        file.seek(member.header_offset)
        # The fixed part of the header ends with the lengths of the name and the extra field.
        lengths = struct.unpack("<HH", file.read(ZIP_HEADER_SIZE)[-4:])
        file.seek(sum(lengths), os.SEEK_CUR)
        shape, in_fortran_order, dtype = array_header(file)
        if dtype.hasobject:
            raise ValueError("a pickle")
        order: Literal["F", "C"] = "F" if in_fortran_order else "C"
        return np.memmap(path, dtype, "r", file.tell(), shape, order)


def _samples(path: Path, X: np.ndarray) -> np.ndarray:
    """Return features as floats, or pictures; grey pictures lose their axis of channels."""
    if X.dtype == np.uint8 and X.ndim in (3, 4):
        if X.ndim == 4 and X.shape[3] == 1:
            X = X[..., 0]
        if X.ndim == 3 or X.shape[3] == 3:
            return X
    if X.ndim != 2:
        raise InputError(
            f"{path}: 'X' has shape {X.shape} and type {X.dtype}: give features of shape "
            "(samples, features) or uint8 pictures of shape (samples, height, width) or "
            "(samples, height, width, 3)."
        )
    if X.dtype.kind not in "fiub":
        raise InputError(f"{path}: 'X' is of type {X.dtype}: give numbers.")
    if isinstance(X, np.memmap):
        if X.dtype.kind == "f":
            return X  # learners convert rows of float16 when they read them
        require_memory(path, 8 * X.size, "its arrays", "save 'X' as float32")
    return X.astype(np.float32 if X.dtype in (np.float16, np.float32) else np.float64, copy=False)


def _trusted(
    path: Path, y: np.ndarray, trusted: np.ndarray | None, verified: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if trusted is not None and (trusted.dtype != bool or trusted.shape != y.shape):
        raise InputError(
            f"{path}: 'trusted' is of type {trusted.dtype} and shape {trusted.shape}: save a "
            f"boolean mask of shape {y.shape}."
        )
    return complete_trust(path, y, trusted, verified)
