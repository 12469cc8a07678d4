"""The base of all classifiers here that learn from noisy labels: how they predict."""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from pudistill.data.encoding import TableEncoder
from pudistill.data.names import NO_CLASS_LABEL
from pudistill.exceptions import InputError
from pudistill.labels.samples import check_features
from pudistill.labels.table import LabelTable
from pudistill.learners.scoring import predict_proba

if TYPE_CHECKING:
    import datasets

    from pudistill.data.results import Source


class NoisyLabelClassifier(ClassifierMixin, BaseEstimator):
    """Base of classifiers that learn from noisy labels and predict with one fitted model.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    fitted_model : fitted estimator
        The model that `predict` uses, for classes 0 … C - 1; `_model_name` names its attribute.
    encoder_ : TableEncoder or None
        Encoder of texts and of tables with words, dates or missing values; None for other samples.
    label_table_ : DataFrame
        See `PUDistillClassifier`; other methods have it only after `pudistill.load`. It is made
        from `label_arrays_` when it is first read.
    no_class_label : str, int or None
        The label of samples that are of no class, see `check_labels`.
    fitted_learners_ : list of fitted estimators
        After `pudistill.load`: the learners, which decide what samples may be. Else empty.
    """

    classes_: np.ndarray
    label_arrays_: LabelTable
    source_: "Source"  # after `pudistill.load`: the data of the run
    estimator: Any
    fitted_on_frame_: bool
    encoder_: TableEncoder | None = None
    fitted_learners_: Sequence[Any] = ()
    no_class_label: Any = NO_CLASS_LABEL
    _model_name: ClassVar[str] = "model_"

    @cached_property
    def label_table_(self) -> pd.DataFrame:
        """The label table, made when it is first read."""
        return self.label_arrays_.frame()

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
        X = check_features(self, X, self.fitted_learners_ or self._learners(), reset=False)
        if isinstance(X, pd.DataFrame) and not self.fitted_on_frame_:
            X = X.to_numpy()  # the model was fitted on an array
        elif self.fitted_on_frame_ and isinstance(X, np.ndarray):
            X = pd.DataFrame(X, columns=getattr(self, "feature_names_in_", None))
        return predict_proba(model, X, len(self.classes_))

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Predict the logarithms of class probabilities.

        Parameters
        ----------
        X : samples as in `fit`
            Samples.

        Returns
        -------
        log_proba : ndarray of shape (n_samples, n_classes)
            Logarithms of `predict_proba`; minus infinity for a probability of 0.
        """
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

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

    def to_datasets(self, data: Any = None) -> "datasets.Dataset":
        """Return the original data with the corrected labels, for Hugging Face's `datasets`.

        Parameters
        ----------
        data : table in memory, str or path, default=None
            The data that were fitted: a table of pandas, polars, pyarrow or `datasets`, or anything
            else that `load_dataset` reads. ``None``, after `pudistill.load`: those of the run.

        Returns
        -------
        dataset : datasets.Dataset
            All columns and rows in their order, and the columns ``corrected_label``,
            ``label_changed`` and ``label_confidence``. A row of a run without a result, such as one
            held out for testing, has None there. Rows of a run are found by their ids.

        Raises
        ------
        InputError
            If the data are missing or not those that were fitted, the classifier has no
            `label_table_`, or the package datasets is missing.

        Examples
        --------
        >>> import pandas as pd
        >>> from pudistill import PUDistillClassifier
        >>> data = pd.DataFrame({"a": [0.0, 0.1, 1.0, 1.1] * 5, "note": ["x"] * 20})
        >>> classifier = PUDistillClassifier(random_state=0, compare=False)
        >>> classifier = classifier.fit(data[["a"]], [0, 0, 1, 1] * 5, [True] * 20)
        >>> classifier.to_datasets(data).column_names
        ['a', 'note', 'corrected_label', 'label_changed', 'label_confidence']
        """
        from pudistill.data.results import with_corrected_labels

        if not hasattr(self, "label_table_"):
            raise InputError(
                f"This {type(self).__name__} has no label table: fit a PUDistillClassifier, or "
                "load a run."
            )
        is_of_run = "id" in self.label_table_.columns
        return with_corrected_labels(self.label_table_, data, self.source_ if is_of_run else None)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _learners(self) -> list:
        """List the learners, which decide how samples are checked; None: the default learner."""
        return [self.estimator]
