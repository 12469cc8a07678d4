"""Features in place of samples: computed by a pretrained model, or the user's own.

Features let a small machine learn from many samples: a model embeds each sample once, and all later
steps read the features, which stay in their file.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pudistill import __version__
from pudistill.data.dataset import TrustedDataset, validate
from pudistill.data.hashing import key_of
from pudistill.exceptions import InputError, RecoveredWarning, torch_extra, warn_user
from pudistill.learners.oriented_gradients import NAME as HOG
from pudistill.learners.oriented_gradients import OrientedGradients
from pudistill.utils.progress import stage
from pudistill.utils.row_file import ROWS_PER_CHECKSUM, computed_rows

if TYPE_CHECKING:
    from pudistill.learners.networks.embedding import Embedder


def embed_dataset(
    dataset: TrustedDataset, model: str, *, cache: str | os.PathLike[str]
) -> TrustedDataset:
    """Replace pictures or texts by the features of a pretrained model.

    Parameters
    ----------
    dataset : TrustedDataset
        Pictures or texts.
    model : str
        Any model of `transformers` for them: its name on the Hugging Face hub, such as
        ``facebook/dinov2-small`` or ``sentence-transformers/all-MiniLM-L6-v2``, or a folder that
        holds it. Code that comes with the model is not run. Or ``"hog"``, for pictures: histograms
        of oriented gradients, which need no model.
    cache : path
        Folder for the features. Features of the same samples by the same model are computed once,
        and an interrupted computation continues.

    Returns
    -------
    dataset : TrustedDataset
        Its `X` are the features, a read-only memory map, float32 of shape (n_samples, n_features);
        if the samples were pictures, they are its `pictures`.

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
    return with_model_features(dataset, open_embedder(model, dataset), Path(cache))


def with_model_features(
    dataset: TrustedDataset, embedder: "Embedder | OrientedGradients", cache: Path
) -> TrustedDataset:
    """Replace samples by features of a loaded model; see `embed_dataset`."""
    X = dataset.X
    if dataset.is_text:
        _warn_of_empty(dataset)
    key = key_of((__version__, embedder.checksum, X))
    path = cache / f"features-{key}.npy"
    shape = (len(X), n_features(embedder, X))
    with stage("features", total=len(X)) as advance:
        features = computed_rows(
            path, shape, lambda blocks: embedder.stream(X[rows] for rows in blocks), advance
        )
    return dataset.with_features(features)


def n_features(embedder: "Embedder | OrientedGradients", X: Any) -> int:
    """Return the number of features; raise `InputError` if the model cannot embed the samples."""
    return embedder(X[:1]).shape[1]


def _warn_of_empty(dataset: TrustedDataset) -> None:
    empty = np.flatnonzero([not text.strip() for text in dataset.X])
    if len(empty):
        warn_user(
            f"{dataset.name}: {len(empty):,} samples have no text, the first is "
            f"{dataset.ids[empty[0]]!r}: their features say nothing about their labels.",
            RecoveredWarning,
        )


def open_embedder(model: str, dataset: TrustedDataset) -> "Embedder | OrientedGradients":
    """Load a model for the samples of a data set; see `embed_dataset`."""
    if not (dataset.is_pictures or dataset.is_text):
        raise InputError(
            f"{dataset.name} holds numeric features, which {model} cannot embed: pass pictures or "
            "a column of text, or leave --features out."
        )
    if model == HOG:
        if not dataset.is_pictures:
            raise InputError(f"--features {HOG} is for pictures: {dataset.name} holds texts.")
        return OrientedGradients()
    with torch_extra():
        from pudistill.learners.networks.embedding import PictureEmbedder, TextEmbedder

    return PictureEmbedder(model) if dataset.is_pictures else TextEmbedder(model)


def feature_blocks(embedder: "Embedder | OrientedGradients", X: Any) -> Iterator[np.ndarray]:
    """Yield the features block by block, without storing them."""
    with stage("features", total=len(X)) as advance:
        starts = range(0, len(X), ROWS_PER_CHECKSUM)
        for features in embedder.stream(X[start : start + ROWS_PER_CHECKSUM] for start in starts):
            yield features
            advance(len(features))


def with_own_features(dataset: TrustedDataset, path: Path) -> TrustedDataset:
    """Replace samples by the user's own features.

    Parameters
    ----------
    dataset : TrustedDataset
        Samples of any kind.
    path : Path
        An ``.npy`` file, float16, float32 or float64 of shape (n_samples, n_features), whose rows
        are in the order of the samples. It is mapped, not read.

    Returns
    -------
    dataset : TrustedDataset
        With the features as `X`.

    Raises
    ------
    InputError
        If the file holds anything else, or a value is not finite.
    """
    try:
        X = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"{path}: cannot be read as an array ({error}): save your features with numpy.save, as "
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
            f"{left_out}: save one row for each sample, in the same order."
        )
    return validate(dataset.with_features(X), labels_required=False, source=str(path))
