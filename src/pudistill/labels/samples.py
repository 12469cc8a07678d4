"""Checks of samples: what `fit` and `predict` accept as `X`."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype
from scipy.sparse import issparse
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import _safe_indexing, get_tags
from sklearn.utils.validation import _num_samples, check_array, validate_data

from pudistill.data.column_values import LARGEST, as_numbers, as_texts, is_real
from pudistill.data.encoding import TableEncoder, is_texts, needs_encoding
from pudistill.data.frames import as_frame
from pudistill.data.lazy_pictures import is_lazy
from pudistill.data.names import NO_CLASS_LABEL
from pudistill.exceptions import InputError
from pudistill.labels.alignment import index_of
from pudistill.labels.annotations import (
    NO_NOISE_GROUPS,
    check_given,
    has_several_sources,
)
from pudistill.labels.checks import Labels, with_draws, with_weights
from pudistill.labels.groups import check_noise_groups, with_groups
from pudistill.utils.shown import shown

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
        The samples. Texts and tables that were encoded are an array or a sparse matrix; any other
        data frame stays a pandas data frame.
    """
    X = as_frame(X)
    _check_size(X)
    if reset:
        estimator.encoder_ = _new_encoder(X, learners)
    if estimator.encoder_ is not None:
        if not reset:
            return estimator.encoder_.transform(X)
        estimator.picture_shape_ = None
        if getattr(X, "ndim", 1) == 2:
            validate_data(estimator, X, skip_check_array=True)
        return estimator.encoder_.fit_transform(X)
    if is_texts(X):  # a learner takes them as they are
        return as_texts(X).to_numpy()
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
        "ensure_all_finite": False,
    }
    takes_raw = any(_takes_raw(learner, X) for learner in learners)
    if isinstance(X, pd.DataFrame):
        validate_data(estimator, X, reset=reset, skip_check_array=True)
        if not takes_raw:
            X = _with_numbers(X, nan_allowed=nan_allowed)
    elif is_lazy(X):  # there is nothing to check: bytes are finite
        validate_data(estimator, X, reset=reset, skip_check_array=True)
    else:
        has_words = needs_encoding(X)
        if has_words and not takes_raw:
            X = _with_numbers(pd.DataFrame(X), nan_allowed=nan_allowed).to_numpy()
        X = validate_data(estimator, X, reset=reset, **checks)
        if X.dtype == np.float16 and not issparse(X) and 2 * X.nbytes <= WIDENED_BYTES:
            X = X.astype(np.float32)
        if X.dtype.kind in "OUS" and not has_words:
            X = check_array(X, **(checks | {"dtype": "numeric"}))
        _refuse_gaps_and_large_numbers(X, nan_allowed=nan_allowed)
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
    groups: Any = None,
    noise_groups: Any = None,
    sample_weight: Any = None,
    draw_weight: Any = None,
    reset: bool = True,
) -> tuple[Any, Labels]:
    """Return checked samples and labels.

    See `check_features`, `check_given`, `with_groups`, `with_weights` and `with_draws`.
    """
    index, X = index_of(X), as_frame(X)
    # Encoded texts can be equal although the texts differ: in a number or a rare word.
    texts = as_texts(X).to_numpy() if is_texts(X) else None
    X = check_features(estimator, X, learners, reset=reset)
    no_class_label = getattr(estimator, "no_class_label", NO_CLASS_LABEL)
    has_sources = has_several_sources(y)
    if has_sources and len(y) != _num_samples(X):
        raise InputError(
            f"X has {_num_samples(X)} samples but y has {len(y)} rows: pass a row for each sample "
            "and a column for each source."
        )
    if has_sources and noise_groups is not None:
        raise InputError(NO_NOISE_GROUPS)
    every_class = getattr(estimator, "needs_every_class", True)
    labels = check_given(
        y, trusted, index=index, every_class=every_class, no_class_label=no_class_label
    )
    if len(labels.given) != _num_samples(X):
        raise InputError(
            f"X has {_num_samples(X)} samples but y has {len(labels.given)} labels: "
            "pass one label per sample."
        )
    index = index_of(y) if index is None else index
    if noise_groups is not None:
        codes = check_noise_groups(noise_groups, len(labels.given), index)
        labels = replace(labels, noise_groups=codes)
    are_verified = trusted is not None and bool(labels.trusted.any())
    labels = with_groups(
        labels, X, groups, index, texts=texts, are_verified=are_verified, warn=reset
    )
    return X, with_draws(with_weights(labels, sample_weight, index), draw_weight, index)


def _new_encoder(X: Any, learners: Sequence[Any]) -> TableEncoder | None:
    """Return an encoder of texts and mixed tables; None if the learners take X as it is."""
    if not needs_encoding(X):
        return None
    nan_allowed = all(_may_take_nan(learner) for learner in learners)
    kinds = X.dtypes if isinstance(X, pd.DataFrame) else [getattr(X, "dtype", np.dtype(object))]
    if all(map(is_real, kinds)):  # numbers with gaps
        takes_as_is = nan_allowed
    else:
        takes_as_is = any(_takes_raw(learner, X) for learner in learners)
    return None if takes_as_is else TableEncoder(impute=not nan_allowed)


def _check_size(X: Any) -> None:
    """Raise an `InputError` if there are no samples, or samples without columns."""
    if X is None or isinstance(X, str | bytes):
        raise InputError(
            f"X is {shown(X)}, not samples: pass a table, an array or a list of texts; files are "
            "read by pudistill.load_dataset."
        )
    shape = X.shape if hasattr(X, "shape") else (len(X) if hasattr(X, "__len__") else 1,)
    if shape[:1] == (0,):
        raise InputError("There are 0 samples: pass at least one.")
    if shape[1:] == (0,):
        raise InputError(f"Found 0 feature(s) (shape={shape}) while a minimum of 1 is required.")


def _with_numbers(X: pd.DataFrame, *, nan_allowed: bool) -> pd.DataFrame:
    """Return a data frame of numbers; an `InputError` names the first entry that is none."""
    if all(map(is_real, X.dtypes)):
        values = X.to_numpy(float, na_value=np.nan)
        if (np.abs(values) <= LARGEST).all():
            return X
    columns = {name: as_numbers(str(name), X[name]) for name in X}
    for name, numbers in columns.items():
        gaps = X.index[np.isnan(numbers)].tolist()
        if gaps and not nan_allowed:
            raise InputError(
                f"Column {str(name)!r} has no value in row {gaps[0]!r} (NaN), but the model "
                "learned from complete columns: fill the gap, or fit with some gaps."
            )
    return X if all(map(is_real, X.dtypes)) else pd.DataFrame(columns, index=X.index)


def _refuse_gaps_and_large_numbers(X: Any, *, nan_allowed: bool) -> None:
    """Raise an `InputError` that names the first entry of an array that is no ordinary number."""
    values = X.data if issparse(X) else X
    if values.dtype.kind != "f" or values.size == 0:
        return
    # NaN if there is a gap that counts, or nothing but gaps.
    least, most = (np.fmin, np.fmax) if nan_allowed else (np.minimum, np.maximum)
    lowest, highest = float(least.reduce(values, axis=None)), float(most.reduce(values, axis=None))
    if (lowest >= -LARGEST and highest <= LARGEST) or (nan_allowed and np.isnan(lowest)):
        return
    wrong = np.abs(values) > min(LARGEST, np.finfo(values.dtype).max)
    if not nan_allowed:
        wrong |= np.isnan(values)
    if issparse(X):
        raise InputError(f"X holds {values[wrong][0]} (infinity, NaN or too large): correct it.")
    row, *column = np.argwhere(wrong)[0].tolist()
    what = f"X holds {X[(row, *column)]} in row {row}, column {', '.join(map(str, column))}"
    if np.isnan(X[(row, *column)]):
        raise InputError(
            f"{what}, which is a missing value: pass a data frame (pudistill then fills its gaps), "
            "or use a learner that accepts NaN."
        )
    raise InputError(f"{what}, which is infinity or too large: correct the value.")


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
