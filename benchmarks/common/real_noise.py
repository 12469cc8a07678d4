"""Data sets whose labels came from crowds, rules and keywords, with few verified samples."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

from benchmarks.common.problems import Problem, Split, draw_at_random
from pudistill.data.encoding import TableEncoder

SHARES = (0.1, 0.03)  # verified


def from_arrays(name: str, data: Path, _: int) -> Split:
    """Read features, the labels of several sources, and their majority."""
    with np.load(data / "real-noise" / f"{name}.npz") as file:
        X, X_test = (file[key].astype(np.float32) for key in ("X", "X_test"))
        y, y_test, given = (file[key].astype(int) for key in ("y", "y_test", "given"))
        sources = file["sources"].astype(int) if "sources" in file else None
        return Split(X, y, X_test, y_test, given, sources)


def from_texts(name: str, data: Path, _: int) -> Split:
    """Read texts and encode them as `fit` does."""
    train, test = (
        pd.read_csv(data / "real-noise" / f"{file}.csv") for file in (name, f"{name}_test")
    )
    classes = np.unique(train["true"])
    encoder = TableEncoder()
    X = encoder.fit_transform(train["text"].tolist())
    y, given, y_test = (
        np.searchsorted(classes, labels)
        for labels in (train["true"], train["label"], test["label"])
    )
    return Split(X, y, encoder.transform(test["text"].tolist()), y_test, given)


# Folder, column with given labels; training samples, test samples, right labels of the former.
TABLES = {
    "credit": ("tables", "Status", ("credit", "credit_test", "credit_truth")),
    "texts": ("texts", "label", ("texts", "test", "truth")),
}


def from_table(name: str, data: Path, _: int) -> Split:
    """Read a table whose right labels are known, and encode it as `fit` does."""
    folder, label, files = TABLES[name]
    train, test, truth = (pd.read_csv(data / folder / f"{file}.csv") for file in files)
    key = train.columns[0]
    right = truth.set_index(key)["true"].reindex(train[key])
    classes = np.unique(right)
    encoder = TableEncoder()
    # A single column of texts is encoded as texts.
    features = train.columns.drop([key, label])
    used = features[0] if len(features) == 1 else features
    X = encoder.fit_transform(train[used])
    y, given, y_test = (
        np.searchsorted(classes, labels.astype(str))
        for labels in (right, train[label], test[label])
    )
    return Split(X, y, encoder.transform(test[used]), y_test, given)


# Features as they are: scaled to unit variance, 384 text features of 2,500 samples are learned by
# heart, and the ceiling of `sentiment` ends below that of its noisy labels.
plain = partial(LogisticRegression, max_iter=1000)
real = partial(Problem, learner=plain, seeds=20, kinds=(), extremes=(), draw=draw_at_random)
REAL_PROBLEMS = tuple(
    real(f"{name}, {100 * share:.0f} % verified", partial(load, name), trusted=share)
    for name, load in (
        ("labelme", from_arrays),
        ("sentiment", from_arrays),
        ("youtube", from_arrays),
        ("hausa", from_texts),
    )
    for share in SHARES
)
