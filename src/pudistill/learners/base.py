"""The base of all classifiers here that learn from noisy labels: how they predict."""

from typing import Any, ClassVar

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from pudistill.data.names import NO_CLASS_LABEL
from pudistill.labels.samples import check_features
from pudistill.learners.scoring import predict_proba


class NoisyLabelClassifier(ClassifierMixin, BaseEstimator):
    """Base of classifiers that learn from noisy labels and predict with one fitted model.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    fitted_model : fitted estimator
        The model that `predict` uses, for classes 0 … C - 1; `_model_name` names its attribute.
    label_table_ : DataFrame
        See `PUDistillClassifier`; other methods have it only after `pudistill.load`.
    no_class_label : str, int or None
        The label of samples that are of no class, see `check_labels`.
    """

    classes_: np.ndarray
    label_table_: pd.DataFrame
    estimator: Any
    fitted_on_frame_: bool
    no_class_label: Any = NO_CLASS_LABEL
    _model_name: ClassVar[str] = "model_"

    @property
    def fitted_model(self) -> Any:
        """The model that `predict` uses, for classes 0 … C - 1."""
        check_is_fitted(self, self._model_name)
        return getattr(self, self._model_name)

    @fitted_model.setter
    def fitted_model(self, model: Any) -> None:
        setattr(self, self._model_name, model)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Predict class probabilities.

        Parameters
        ----------
        X : samples as in `fit`
            Samples.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes)
            Probabilities; columns in the order of `classes_`.
        """
        model = self.fitted_model
        X = check_features(self, X, self._learners(), reset=False)
        if isinstance(X, pd.DataFrame) and not self.fitted_on_frame_:
            X = X.to_numpy()  # the model was fitted on an array
        return predict_proba(model, X, len(self.classes_))

    def predict(self, X: Any) -> np.ndarray:
        """Predict classes.

        Parameters
        ----------
        X : samples as in `fit`
            Samples.

        Returns
        -------
        y : ndarray of shape (n_samples,)
            Class labels.
        """
        proba = self.predict_proba(X)
        return self.classes_[proba.argmax(axis=1)]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _learners(self) -> list:
        """List the learners, which decide how samples are checked; None: the default learner."""
        return [self.estimator]
