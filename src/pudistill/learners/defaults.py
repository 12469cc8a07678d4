"""The default learner for given data, and the scaling of a network's inputs."""

from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _num_samples

from pudistill.exceptions import torch_extra
from pudistill.labels.samples import is_pictures

ENOUGH_TO_SCALE = 10_000  # samples that suffice to estimate features' means and scales


def default_learner(X: Any, *, encoded: bool = False) -> BaseEstimator:
    """Choose a learner for the data: logistic regression, or a small network for pictures.

    Features are scaled unless they are sparse or come from a `TableEncoder`, which has scaled them.
    """
    if is_pictures(X):
        with torch_extra():
            from pudistill.learners.networks.classifier import TorchClassifier

        return TorchClassifier()
    if issparse(X) or encoded:  # scaled to unit variance, rare words would outweigh all others
        return LogisticRegression(max_iter=1000)
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


def normalised(estimator: Any, X: Any) -> Any:
    """Make a network scale its inputs by the statistics of all samples.

    A member is trained on few samples. A feature that hardly differs among them would be scaled up
    without bounds, and take extreme values in the other samples.

    Parameters
    ----------
    estimator : classifier
        Template.
    X : samples of shape (n_samples, ...)
        All samples.

    Returns
    -------
    estimator : classifier
        A copy with a `normalisation`, if the template is a network for tables that has none; else
        the template. A few pictures are enough to scale the channels, so networks for pictures are
        not changed.
    """
    params = estimator.get_params(deep=False)
    if "normalisation" not in params or params["normalisation"] is not None or is_pictures(X):
        return estimator
    from pudistill.learners.networks.normalisation import Normalisation

    step = -(-_num_samples(X) // ENOUGH_TO_SCALE)
    sample = np.asarray(_safe_indexing(X, slice(None, None, step)))
    if sample.dtype.kind not in "fiub":  # the network itself will refuse it
        return estimator
    return clone(estimator).set_params(normalisation=Normalisation.of(sample, np.ones(len(sample))))
