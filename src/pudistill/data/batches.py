"""Data that come in batches, whose labels can have noise of their own."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pudistill.data.columns import row_numbers
from pudistill.data.dataset import TrustedDataset
from pudistill.data.lazy_pictures import LazyPictures
from pudistill.exceptions import InputError


def with_batch(dataset: TrustedDataset, batch: TrustedDataset) -> TrustedDataset:
    """Append further samples, and name the batch of each sample as its noise group.

    Parameters
    ----------
    dataset, batch : TrustedDataset
        Samples of the same kind. Where neither has ids of its own, row numbers go on.

    Returns
    -------
    dataset : TrustedDataset
        All samples, those of `batch` last.

    Raises
    ------
    InputError
        If the samples are of another kind, ids occur twice, or there are several sources.

    Examples
    --------
    >>> from pudistill.data.batches import with_batch
    >>> from pudistill.data.loading import load_dataset
    >>> iris = load_dataset("iris")
    >>> both = with_batch(iris, iris.take([0, 1]))
    >>> len(both), both.noise_groups[[0, 150]].tolist(), both.ids[151]
    (152, ['iris', 'iris (2)'], '151')
    """
    if dataset.annotations is not None or batch.annotations is not None:
        raise InputError(f"{batch.name} cannot be added to labels of several sources.")
    batch = _with_columns_of(dataset, batch)
    _check_same_kind(dataset, batch)
    if np.array_equal(batch.ids, row_numbers(len(batch))):
        numbers = row_numbers(len(dataset) + len(batch))
        if np.array_equal(dataset.ids, numbers[: len(dataset)]):
            batch = _renamed(batch, numbers[len(dataset) :])
    ids = pd.Index(np.concatenate([np.asarray(dataset.ids, object), np.asarray(batch.ids, object)]))
    if ids.has_duplicates:
        raise InputError(
            f"The id {ids[ids.duplicated()][0]!r} of {batch.name} is already used: give each "
            "sample an id of its own."
        )
    of_samples: dict[str, Any] = {
        name: _joined(getattr(dataset, name), getattr(batch, name))
        for name in ("y", "trusted", "verified", "true_labels", "pictures")
    }
    of_samples["marked"] = _filled(dataset.marked, batch.marked, dataset, batch, False)
    of_samples["groups"] = _filled(dataset.groups, batch.groups, dataset, batch, None)
    X = (
        pd.concat([dataset.X, batch.X])
        if dataset.is_frame
        else np.concatenate([dataset.X, batch.X])
    )
    names = _names_of_batches(dataset), _names_of_batches(batch)
    taken = set(names[0])
    return replace(
        dataset,
        X=X,
        ids=ids.to_numpy(),
        skipped=(*dataset.skipped, *batch.skipped),
        noise_groups=np.concatenate([names[0], [_free_name(name, taken) for name in names[1]]]),
        draws=None if dataset.draws is None else dataset.draws.extended(len(batch)),
        **of_samples,
    )


def _check_same_kind(dataset: TrustedDataset, batch: TrustedDataset) -> None:
    if isinstance(dataset.X, LazyPictures) or isinstance(batch.X, LazyPictures):
        raise InputError(
            f"The pictures of {batch.name} cannot be added, because they do not fit into memory: "
            "put all pictures into one folder, and run `pudistill fit` anew."
        )
    same = dataset.X.shape[1:] == batch.X.shape[1:] and dataset.is_frame == batch.is_frame
    if not same or dataset.feature_names != batch.feature_names:
        raise InputError(
            f"{batch.name} holds other columns, or pictures of another size, than {dataset.name}: "
            "add data of the same kind."
        )


def _with_columns_of(dataset: TrustedDataset, batch: TrustedDataset) -> TrustedDataset:
    """Return a batch with its columns in the order of the data, if it has the same ones."""
    names, found = dataset.feature_names, batch.feature_names
    if names is None or found is None or sorted(names) != sorted(found):
        return batch
    order = [found.index(name) for name in names]
    X = batch.X.iloc[:, order] if batch.is_frame else batch.X[:, order]
    return replace(batch, X=X, feature_names=names)


def _renamed(batch: TrustedDataset, ids: np.ndarray) -> TrustedDataset:
    X = batch.X.set_axis(ids, axis=0) if batch.is_frame else batch.X
    return replace(batch, ids=ids, X=X)


def _joined(first: np.ndarray | None, second: np.ndarray | None) -> np.ndarray | None:
    return None if first is None or second is None else np.concatenate([first, second])


def _filled(
    first: np.ndarray | None,
    second: np.ndarray | None,
    dataset: TrustedDataset,
    batch: TrustedDataset,
    value: Any,
) -> np.ndarray | None:
    """Join marks or groups; `value` stands for those that one of both lacks."""
    if first is None and second is None:
        return None
    parts = zip((first, second), (dataset, batch), strict=True)
    kind = (first if first is not None else second).dtype  # type: ignore[union-attr]
    return np.concatenate([np.full(len(of), value, kind) if x is None else x for x, of in parts])


def _names_of_batches(dataset: TrustedDataset) -> np.ndarray:
    if dataset.noise_groups is not None:
        return dataset.noise_groups
    return np.full(len(dataset), Path(dataset.name).name, dtype=object)


def _free_name(name: str, taken: set[str]) -> str:
    """Return the name of a batch's group, numbered if an earlier batch has the name."""
    return (
        name
        if name not in taken
        else next(free for n in range(2, len(taken) + 3) if (free := f"{name} ({n})") not in taken)
    )
