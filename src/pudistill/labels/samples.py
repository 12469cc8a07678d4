"""Checks of samples: what `fit` and `predict` accept as `X`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing, get_tags
from sklearn.utils.validation import _num_samples, check_array, validate_data

from pudistill.data.lazy_pictures import is_lazy
from pudistill.data.names import NO_CLASS_LABEL
from pudistill.exceptions import InputError
from pudistill.labels.checks import Labels, check_labels


def check_features(
    estimator: BaseEstimator, X: Any, learners: Sequence[Any], *, reset: bool = True
) -> Any:
    """Return checked samples, with everything that a learner can need, such as column names.

    Parameters
    ----------
    estimator : estimator
        Its ``n_features_in_`` and ``feature_names_in_`` are set or, without `reset`, checked.
    X : {array-like, sparse matrix, data frame} of shape (n_samples, n_features), or pictures of \
            shape (n_samples, height, width) or (n_samples, height, width, channels)
        Samples.
    learners : sequence of estimators or None
        NaN is accepted if all learners might accept it; ``None``, the default learner, does not.
    reset : bool, default=True
        Whether to store the shape of the samples, as in ``fit``, or to check it.

    Returns
    -------
    X : ndarray, sparse matrix or data frame
        The samples; a pandas data frame stays a data frame.
    """
    expected = getattr(estimator, "picture_shape_", None)
    if not reset and expected is not None and np.shape(X)[1:] != expected:
        raise InputError(
            f"Each sample has shape {np.shape(X)[1:]}, but {type(estimator).__name__} was fitted "
            f"on samples of shape {expected}."
        )
    nan_allowed = all(_may_take_nan(learner) for learner in learners)
    checks: dict[str, Any] = {
        "accept_sparse": "csr",
        "dtype": None,
        "allow_nd": True,
        "ensure_all_finite": "allow-nan" if nan_allowed else True,
    }
    if isinstance(X, pd.DataFrame):
        validate_data(estimator, X, reset=reset, skip_check_array=True)
        numeric = X.select_dtypes("number")
        if numeric.shape[1] and len(X):
            check_array(numeric, **checks)
    elif is_lazy(X):  # there is nothing to check: bytes are finite
        validate_data(estimator, X, reset=reset, skip_check_array=True)
    else:
        X = validate_data(estimator, X, reset=reset, **checks)
        if X.dtype.kind in "OUS":
            X = check_array(X, **(checks | {"dtype": "numeric"}))
    if _num_samples(X) == 0:
        raise InputError("There are 0 samples: pass at least one.")
    if reset:
        estimator.picture_shape_ = X.shape[1:] if is_pictures(X) else None
    return X


def check_samples(
    estimator: BaseEstimator,
    X: Any,
    y: Any,
    trusted: Any,
    learners: Sequence[Any],
    *,
    reset: bool = True,
) -> tuple[Any, Labels]:
    """Return checked samples and labels; see `check_features` and `check_labels`."""
    X = check_features(estimator, X, learners, reset=reset)
    labels = check_labels(
        y, trusted, no_class_label=getattr(estimator, "no_class_label", NO_CLASS_LABEL)
    )
    if len(labels.given) != _num_samples(X):
        raise InputError(
            f"X has {_num_samples(X)} samples but y has {len(labels.given)} labels: "
            "pass one label per sample."
        )
    return X, labels


def split_off_no_class(X: Any, labels: Labels) -> tuple[Any, Labels, Any]:
    """Take samples that were verified to be of no class out of a data set.

    Parameters
    ----------
    X : samples of shape (n_samples, ...)
        Samples.
    labels : Labels
        Their labels.

    Returns
    -------
    X, labels
        All other samples.
    no_class : samples or None
        The samples of no class; None if there are none.
    """
    if not labels.no_class.any():
        return X, labels, None
    kept = np.flatnonzero(~labels.no_class)
    no_class = _safe_indexing(X, np.flatnonzero(labels.no_class))
    return _safe_indexing(X, kept), labels.take(kept), no_class


def _may_take_nan(learner: Any) -> bool:
    """Return whether a learner might accept NaN, as any pipeline or meta-estimator might."""
    if learner is None or not hasattr(learner, "__sklearn_tags__"):
        return False
    wraps = isinstance(learner, Pipeline) or hasattr(learner, "estimator")
    return wraps or get_tags(learner).input_tags.allow_nan


def is_pictures(X: Any) -> bool:
    """Return whether samples are pictures, of shape (n, height, width[, channels])."""
    return getattr(X, "ndim", 2) > 2
