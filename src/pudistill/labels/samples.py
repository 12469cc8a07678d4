"""Checks of samples: what `fit` and `predict` accept as `X`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import _safe_indexing, get_tags
from sklearn.utils.validation import _num_samples, check_array, validate_data

from pudistill.data.encoding import TableEncoder, is_texts, needs_encoding
from pudistill.data.frames import as_frame
from pudistill.data.lazy_pictures import is_lazy
from pudistill.data.names import NO_CLASS_LABEL
from pudistill.exceptions import InputError
from pudistill.labels.alignment import index_of
from pudistill.labels.checks import Labels, check_labels
from pudistill.labels.groups import with_groups

# Half-precision samples are converted once if they take at most so much memory then; larger ones
# are converted block by block, each time they are read.
WIDENED_BYTES = 2**27


def check_features(
    estimator: BaseEstimator, X: Any, learners: Sequence[Any], *, reset: bool = True
) -> Any:
    """Return checked samples, with everything that a learner can need, such as column names.

    Parameters
    ----------
    estimator : estimator
        Its ``n_features_in_`` and ``feature_names_in_`` are set or, without `reset`, checked.
    X : {array-like, sparse matrix, data frame} of shape (n_samples, n_features), texts (sequence \
            of str), or pictures of shape (n_samples, height, width) or (n_samples, height, width, \
            channels)
        Samples; a data frame of any library, see `as_frame`. Texts, and a data frame with words,
        dates or missing values, are encoded as numbers unless a learner takes them as they are; the
        encoder is stored as ``encoder_``.
    learners : sequence of estimators or None
        NaN is accepted if all learners might accept it; ``None``, the default learner, does not.
    reset : bool, default=True
        Whether to store the shape of the samples, as in ``fit``, or to check it.

    Returns
    -------
    X : ndarray, sparse matrix or data frame
        The samples; a pandas data frame stays a data frame.
    """
    X = as_frame(X)
    if reset:
        estimator.encoder_ = _new_encoder(X, learners)
    if estimator.encoder_ is not None:
        _require_samples(X)
        if not reset:
            return estimator.encoder_.transform(X)
        estimator.picture_shape_ = None
        if isinstance(X, pd.DataFrame):
            validate_data(estimator, X, skip_check_array=True)
        return estimator.encoder_.fit_transform(X)
    if is_texts(X):  # a learner takes them as they are
        return np.asarray(X, dtype=object)
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
        if X.dtype == np.float16 and 2 * X.nbytes <= WIDENED_BYTES:
            X = X.astype(np.float32)
        if X.dtype.kind in "OUS":
            X = check_array(X, **(checks | {"dtype": "numeric"}))
    _require_samples(X)
    if reset:
        estimator.picture_shape_ = X.shape[1:] if is_pictures(X) else None
    return X


def _require_samples(X: Any) -> None:
    if _num_samples(X) == 0:
        raise InputError("There are 0 samples: pass at least one.")


def check_samples(
    estimator: BaseEstimator,
    X: Any,
    y: Any,
    trusted: Any,
    learners: Sequence[Any],
    *,
    groups: Any = None,
    reset: bool = True,
) -> tuple[Any, Labels]:
    """Return checked samples and labels; see `check_features`, `check_labels` and `with_groups`."""
    index = index_of(X)
    X = check_features(estimator, X, learners, reset=reset)
    no_class_label = getattr(estimator, "no_class_label", NO_CLASS_LABEL)
    labels = check_labels(y, trusted, index=index, no_class_label=no_class_label)
    if len(labels.given) != _num_samples(X):
        raise InputError(
            f"X has {_num_samples(X)} samples but y has {len(labels.given)} labels: "
            "pass one label per sample."
        )
    index = index_of(y) if index is None else index
    return X, with_groups(labels, X, groups, index, are_verified=trusted is not None, warn=reset)


def _new_encoder(X: Any, learners: Sequence[Any]) -> TableEncoder | None:
    """Return an encoder of texts and mixed tables; None if the learners take X as it is."""
    if not needs_encoding(X):
        return None
    nan_allowed = all(_may_take_nan(learner) for learner in learners)
    if isinstance(X, pd.DataFrame) and all(map(is_numeric_dtype, X.dtypes)):  # numbers with gaps
        takes_as_is = nan_allowed
    else:
        takes_as_is = any(_takes_raw(learner, X) for learner in learners)
    return None if takes_as_is else TableEncoder(impute=not nan_allowed)


def _takes_raw(learner: Any, X: Any) -> bool:
    """Return whether a learner says that it takes texts, or tables with words, itself."""
    if isinstance(learner, Pipeline):
        return _takes_raw(learner.steps[0][1], X)
    inner = getattr(learner, "estimator", None)
    if inner is not None and not isinstance(inner, str):
        return _takes_raw(inner, X)
    if learner is None or isinstance(learner, ColumnTransformer | FunctionTransformer):
        return learner is not None
    if isinstance(X, pd.DataFrame) and hasattr(learner, "categorical_features"):
        words = (kind for kind in X.dtypes if not is_numeric_dtype(kind))
        return all(isinstance(kind, pd.CategoricalDtype) for kind in words)
    if not hasattr(learner, "__sklearn_tags__"):
        return True
    tags = get_tags(learner)
    if isinstance(learner, FeatureUnion):
        return any(_takes_raw(part, X) for _, part in learner.transformer_list)
    is_foreign_transformer = hasattr(learner, "transform") and not type(
        learner
    ).__module__.startswith("sklearn.")
    return tags.input_tags.string or tags.input_tags.categorical or is_foreign_transformer


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
