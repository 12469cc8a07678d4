"""Checks of the samples, targets and weights that a network is fitted on."""

from typing import Any

import numpy as np
from sklearn.utils import check_consistent_length
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, assert_all_finite, column_or_1d

from pudistill.data.encoding import is_texts
from pudistill.exceptions import InputError, as_input_error
from pudistill.utils.shown import shown


def shape_of(X: Any) -> tuple[int, ...]:
    """Return the shape of any array-like, without copying an array."""
    return tuple(X.shape) if hasattr(X, "shape") else np.asarray(X).shape


def check_target_values(y: Any, inputs: np.ndarray, *, signed: bool = False) -> np.ndarray:
    """Return y as labels of shape (n,), or as soft targets of shape (n, n_classes).

    Rows of soft targets sum to 1; if they are signed, they can hold negative numbers.
    """
    if y is None:
        raise InputError(
            "This TorchClassifier estimator requires y to be passed, but the target y is None."
        )
    if len(shape_of(y)) != 2 or shape_of(y)[1] < 2:
        with as_input_error():
            y = column_or_1d(y, warn=True)
            check_consistent_length(inputs, y)
            assert_all_finite(y, input_name="y")
            try:
                check_classification_targets(y)
            except TypeError as error:  # they cannot be sorted
                kinds = sorted({type(label).__name__ for label in y})
                raise InputError(
                    f"y has labels of the types {' and '.join(kinds)}: use one type."
                ) from error
        return y
    with as_input_error():
        check_consistent_length(inputs, y)
    targets = np.asarray(y)
    if targets.dtype.kind != "f":
        raise InputError(
            f"y has the shape {targets.shape} and the dtype {targets.dtype}: pass labels of shape "
            "(n,), or soft targets as floats."
        )
    wrong = ~np.isclose(targets.sum(axis=1), 1, rtol=0, atol=1e-4)
    if not signed:
        wrong |= ~(targets >= 0).all(axis=1)
    if wrong.any():
        row = wrong.argmax()
        rule = "sum to 1" if signed else "be non-negative and sum to 1"
        raise InputError(
            f"Soft targets must {rule}, but row {row} of y is {targets[row].tolist()}."
        )
    return targets.astype(np.float64)


def are_certain(targets: np.ndarray) -> np.ndarray:
    """Return a mask of the rows of targets or likelihoods that allow one class only."""
    return (targets > 0).sum(axis=1) == 1


def are_pictures(X: Any) -> bool:
    """Return whether samples are pictures and not a feature table."""
    return len(shape_of(X)) > 2


def are_texts(X: Any) -> bool:
    """Return whether samples are texts."""
    return len(shape_of(X)) == 1 and is_texts(X)


def are_tokens(inputs: Any) -> bool:
    """Return whether a network's inputs are the tokens of texts: tables are floating-point."""
    return inputs.ndim == 2 and inputs.dtype.kind == "i"


def as_pictures(X: np.ndarray, centre_crop: int | None) -> np.ndarray:
    """Return pictures as ``(n, height, width, channels)``, uint8 or float32."""
    if X.ndim == 3:
        X = X[..., None]
    if X.ndim != 4:
        raise InputError(
            f"X has the shape {X.shape}: pictures have the shape (n, height, width) or "
            "(n, height, width, channels)."
        )
    if X.shape[-1] > 4 and X.shape[1] <= 4:
        raise InputError(
            f"X has the shape {X.shape}, with the channels in front: move them to the end with "
            "numpy.moveaxis(X, 1, -1)."
        )
    if centre_crop is not None:
        top, left = (max(0, size - centre_crop) // 2 for size in X.shape[1:3])
        X = X[:, top : top + centre_crop, left : left + centre_crop]
    return X if X.dtype == np.uint8 else X.astype(np.float32, copy=False)


def network_shape(inputs: np.ndarray) -> tuple[int, ...]:
    """Return the shape of a sample in the layout of networks, channels first."""
    return (inputs.shape[-1], *inputs.shape[1:-1])


def check_weights(sample_weight: Any, inputs: np.ndarray) -> np.ndarray:
    """Return sample weights of shape (n,), all 1 if none were passed."""
    with as_input_error():
        weights = _check_sample_weight(sample_weight, inputs, dtype=np.float64)
    if weights.min() < 0:
        raise InputError(
            f"sample_weight of sample {weights.argmin()} is {weights.min():g}: weights must not be "
            "negative."
        )
    if not weights.any():
        raise InputError("sample_weight is zero for every sample: give some a positive weight.")
    return weights


def as_targets(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the classes and the targets: labels become one-hot rows, targets stay as they are."""
    if y.ndim == 2:
        return np.arange(y.shape[1]), y
    classes, codes = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise InputError(
            f"y has only one class, {shown(classes[0])}: a classifier needs samples of two or more."
        )
    return classes, np.eye(len(classes))[codes]
