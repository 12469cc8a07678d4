"""The first samples to verify, of data of which nothing is verified yet."""

from typing import Any

import numpy as np
from sklearn.cluster import MiniBatchKMeans
from sklearn.decomposition import TruncatedSVD
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler

from pudistill.data.dataset import TrustedDataset
from pudistill.data.encoding import TableEncoder, needs_encoding

# Samples that clusters are found from, features that are kept of them, pixels of a picture's side.
MOST_CLUSTERED, N_COMPONENTS, SIDE = 20_000, 20, 8
CLUSTERS_PER_CLASS, FEWEST_CLUSTERS = 2, 8


def first_gain(dataset: TrustedDataset, seed: int = 0) -> np.ndarray:
    """Say what it is worth to verify each sample first, so that every class is met soon.

    All given labels are worth the same together, and so are all clusters of the features: a class
    that few samples have, or that no given label names, is met sooner than by uniform draws.

    Parameters
    ----------
    dataset : TrustedDataset
        The samples, with their given labels.
    seed : int, default=0
        Seed of the clusters.

    Returns
    -------
    gain : ndarray of shape (n_samples,)
        See `draw`.

    Examples
    --------
    >>> from pudistill.data.loading import load_dataset
    >>> from pudistill.review.first_draw import first_gain
    >>> gain = first_gain(load_dataset("digits"))
    >>> gain.shape, round(gain.sum(), 6)
    ((1797,), 2.0)
    """
    codes = {name: number for number, name in enumerate(dataset.classes)}
    given = np.array([codes.get(label, len(codes)) for label in dataset.y])
    n_clusters = max(FEWEST_CLUSTERS, CLUSTERS_PER_CLASS * len(codes))
    gain = np.zeros(len(dataset))
    for groups in (given, clusters(dataset.X, n_clusters, seed)):
        sizes = np.bincount(groups)
        gain += 1 / (sizes[groups] * (sizes > 0).sum())
    return gain


def clusters(X: Any, n_clusters: int, seed: int = 0) -> np.ndarray:
    """Group samples by their features: (n_samples,), int.

    Parameters
    ----------
    X : samples
        As in a `TrustedDataset`.
    n_clusters : int
        Largest number of clusters.
    seed : int, default=0
        Seed of the clusters, and of the samples that they are found from if there are many.
    """
    rng = np.random.default_rng(seed)
    n = X.shape[0]
    rows = np.sort(rng.choice(n, min(n, MOST_CLUSTERED), replace=False))
    some = X.iloc[rows] if hasattr(X, "iloc") else X[rows]
    encoder = TableEncoder().fit(some) if needs_encoding(X) else None

    def features(part: Any) -> Any:
        if encoder is not None:
            return encoder.transform(part)
        pixels = np.asarray(part)
        if pixels.ndim > 2:
            high, wide = (max(1, size // SIDE) for size in pixels.shape[1:3])
            pixels = pixels[:, ::high, ::wide]
        return pixels.reshape(len(pixels), -1).astype(np.float32)

    seen = features(some)
    steps: list[Any] = [MaxAbsScaler()]
    if seen.shape[1] > N_COMPONENTS:
        steps.append(TruncatedSVD(min(N_COMPONENTS, max(1, len(rows) - 1)), random_state=seed))
    n_clusters = min(n_clusters, len(rows))
    found = make_pipeline(*steps, MiniBatchKMeans(n_clusters, random_state=seed, n_init=3))
    found.fit(seen)
    parts = []
    for start in range(0, n, MOST_CLUSTERED):
        block = slice(start, start + MOST_CLUSTERED)
        parts.append(found.predict(features(X.iloc[block] if hasattr(X, "iloc") else X[block])))
    return np.concatenate(parts)
