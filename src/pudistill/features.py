"""Features in the place of samples: what a model makes of them, kept in a file, or the user's own.

The way for many samples on a small machine: a model sees each of them once, and all that follows
works on its features, which stay in their file.
"""

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pudistill import __version__
from pudistill.data import TrustedDataset
from pudistill.data.dataset import validate
from pudistill.exceptions import InputError, RecoveredWarning, torch_extra
from pudistill.progress import stage
from pudistill.row_file import BLOCK_SIZE, computed_rows
from pudistill.units import key_of

if TYPE_CHECKING:
    from pudistill.learners.embedding import Embedder


def embed_dataset(
    dataset: TrustedDataset, model: str, *, cache: str | os.PathLike[str]
) -> TrustedDataset:
    """Replace pictures or texts by what a model with trained weights makes of them.

    Parameters
    ----------
    dataset : TrustedDataset
        Pictures or texts.
    model : str
        Any model for them that `transformers` has: its name on the Hugging Face hub, such as
        ``facebook/dinov2-small`` or ``sentence-transformers/all-MiniLM-L6-v2``, or a folder that
        holds it. Code that comes with it is not run.
    cache : path
        Folder for the features. What it has of the same samples by the same model is not computed
        again, and what is interrupted goes on there.

    Returns
    -------
    dataset : TrustedDataset
        With features, a read-only memory map, float32 of shape (n_samples, n_features), as `X`, and
        the pictures, if it was some, as `pictures`.

    Raises
    ------
    InputError
        If the model cannot be loaded or does not fit the samples.

    Examples
    --------
    >>> from pudistill import embed_dataset, load_dataset
    >>> photos = load_dataset("photos")  # doctest: +SKIP
    >>> features = embed_dataset(photos, "facebook/dinov2-small", cache="cache")  # doctest: +SKIP
    >>> features.X.shape  # doctest: +SKIP
    (50000, 384)
    """
    return embedded(dataset, open_embedder(model, dataset), Path(cache))


def embedded(dataset: TrustedDataset, embedder: "Embedder", cache: Path) -> TrustedDataset:
    """Replace samples by features of a model that is loaded; see `embed_dataset`."""
    X = dataset.X
    if dataset.is_text:
        _warn_of_empty(dataset)
    key = key_of((__version__, embedder.checksum, X))
    path = cache / f"features-{key}.npy"
    shape = (len(X), n_features(embedder, X))
    with stage("features", total=len(X)) as advance:
        features = computed_rows(path, shape, lambda rows: embedder(X[rows]), advance)
    return dataset.with_features(features)


def n_features(embedder: "Embedder", X: Any) -> int:
    """Find out how many features a model makes, and whether it takes such samples at all."""
    return embedder(X[:1]).shape[1]


def _warn_of_empty(dataset: TrustedDataset) -> None:
    empty = np.flatnonzero([not text.strip() for text in dataset.X])
    if len(empty):
        warnings.warn(
            f"{dataset.name}: {len(empty):,} samples have no text, the first is "
            f"{dataset.ids[empty[0]]!r}: nothing but their labels is known of them.",
            RecoveredWarning,
            stacklevel=2,
        )


def open_embedder(model: str, dataset: TrustedDataset) -> "Embedder":
    """Load a model for the samples of a data set; see `embed_dataset`."""
    if not (dataset.is_pictures or dataset.is_text):
        raise InputError(
            f"{dataset.name} holds numeric features, of which {model} can make no others: give "
            "pictures or a column of text, or leave --features out."
        )
    with torch_extra():
        from pudistill.learners.embedding import PictureEmbedder, TextEmbedder

    return PictureEmbedder(model) if dataset.is_pictures else TextEmbedder(model)


def in_blocks(embedder: "Embedder", X: Any) -> Iterator[np.ndarray]:
    """Yield features of some samples at a time, where they are not to be kept."""
    with stage("features", total=len(X)) as advance:
        for start in range(0, len(X), BLOCK_SIZE):
            yield embedder(X[start : start + BLOCK_SIZE])
            advance(min(BLOCK_SIZE, len(X) - start))


def with_own_features(dataset: TrustedDataset, path: Path) -> TrustedDataset:
    """Replace samples by features of the user's own.

    Parameters
    ----------
    dataset : TrustedDataset
        Samples of any kind.
    path : Path
        An ``.npy`` file, float16, float32 or float64 of shape (n_samples, n_features): a row for
        each sample, in their order. It is mapped, not read.

    Returns
    -------
    dataset : TrustedDataset
        With the features as `X`.

    Raises
    ------
    InputError
        If it is no such file, or a value is not finite.
    """
    try:
        X = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"{path}: cannot be read as an array ({error}): save your features by numpy.save, as "
            "floating-point numbers."
        ) from error
    if not isinstance(X, np.ndarray) or X.ndim != 2 or X.dtype.kind != "f" or X.dtype.itemsize > 8:
        found = f"shape {X.shape} and type {X.dtype}" if isinstance(X, np.ndarray) else "arrays"
        raise InputError(
            f"{path} holds {found}: save one array of shape (samples, features) as float16, "
            "float32 or float64."
        )
    if len(X) != len(dataset):
        left_out = f" ({len(dataset.skipped)} were left out)" if dataset.skipped else ""
        raise InputError(
            f"{path} has {len(X):,} rows, but {dataset.name} has {len(dataset):,} samples"
            f"{left_out}: give a row for each, in the same order."
        )
    return validate(dataset.with_features(X), labels_required=False, source=str(path))
