"""Users' learners: pipelines as they are, weights, inner folds, warnings that come once."""

import warnings

import numpy as np
import pytest
from imblearn.over_sampling import RandomOverSampler
from imblearn.pipeline import Pipeline as ImbalancedPipeline
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import make_blobs
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from pudistill import InputError, PUDistillClassifier
from pudistill.labels.checks import check_labels
from pudistill.learners.capabilities import takes_weights
from pudistill.learners.messages import user_messages
from pudistill.learners.tasks import Training, train
from pudistill.methods import CrossEntropyClassifier
from pudistill.runs.models import check_storable

X, Y = make_blobs(90, centers=[[0, 0], [5, 0], [0, 5]], random_state=0)
TRUSTED = np.arange(90) % 3 == 0
QUICK = {"n_members": 2, "max_iter": 1, "compare": False, "random_state": 0}
SOFT = 0.8 * np.eye(3)[Y] + 0.2 / 3


class OwnPipeline(Pipeline):
    """A subclass as a user might write it."""


class NeedsWholePipeline(ClassifierMixin, BaseEstimator):
    """Accepts any further parameters of ``fit``."""

    def fit(self, X, y, **params):
        assert not params
        self.model_ = LogisticRegression().fit(X, y)
        self.classes_ = self.model_.classes_
        return self

    def predict_proba(self, X):
        return self.model_.predict_proba(X)


def oversampled(learner):
    return ImbalancedPipeline([("sample", RandomOverSampler(random_state=0)), ("fit", learner)])


@pytest.mark.parametrize("learner", [LogisticRegression(), LinearSVC()], ids=str)
@pytest.mark.parametrize("targets", [np.eye(3)[Y], SOFT], ids=["hard", "soft"])
def test_a_pipeline_that_resamples_is_used_as_it_is(learner, targets):
    fitted = train(Training(oversampled(learner), X, targets, role="student", seed=0))
    inner = getattr(fitted, "estimator", fitted)  # scores are calibrated around the pipeline
    assert type(inner) is ImbalancedPipeline
    assert (fitted.predict_proba(X).argmax(axis=1) == Y).mean() > 0.9


def test_the_classifier_takes_a_pipeline_that_resamples():
    classifier = PUDistillClassifier(oversampled(LogisticRegression()), **QUICK)
    assert classifier.fit(X, Y, trusted=TRUSTED).score(X, Y) > 0.95


@pytest.mark.parametrize("learner", [LogisticRegression(), LinearSVC()], ids=str)
def test_a_subclass_of_pipeline_stays_one(learner):
    pipeline = OwnPipeline([("scale", StandardScaler()), ("fit", learner)])
    fitted = train(Training(pipeline, X, SOFT, role="student", seed=0))
    assert type(fitted) is OwnPipeline
    assert (fitted.predict_proba(X).argmax(axis=1) == Y).mean() > 0.95


def test_a_pipeline_that_no_run_can_store_is_named_before_the_run():
    with pytest.raises(InputError, match=r"RandomOverSampler.*choose another learner"):
        check_storable(oversampled(LogisticRegression()), X, Y)


@pytest.mark.parametrize(
    ("learner", "takes"),
    [
        (make_pipeline(StandardScaler(), LogisticRegression()), True),
        (GridSearchCV(LogisticRegression(), {}), True),
        (GridSearchCV(make_pipeline(StandardScaler(), LogisticRegression()), {}), True),
        (GridSearchCV(KNeighborsClassifier(), {}), False),
        (CalibratedClassifierCV(LogisticRegression()), True),
        (CalibratedClassifierCV(KNeighborsClassifier()), False),
        (OneVsRestClassifier(LogisticRegression()), False),
        (FixedThresholdClassifier(LogisticRegression()), False),
        (oversampled(LogisticRegression()), False),
        (NeedsWholePipeline(), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_weights_go_only_to_learners_that_take_them_all_the_way(learner, takes):
    assert takes_weights(learner) == takes


@pytest.mark.parametrize(
    "learner",
    [
        GridSearchCV(make_pipeline(StandardScaler(), LogisticRegression()), {}, cv=2),
        OneVsRestClassifier(LogisticRegression()),
        OneVsOneClassifier(LogisticRegression()),
        CalibratedClassifierCV(KNeighborsClassifier(), cv=2),
        NeedsWholePipeline(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_learners_around_learners_learn_soft_targets_without_a_warning(learner):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted = train(Training(learner, X, SOFT, role="student", seed=0))
    assert (fitted.predict_proba(X).argmax(axis=1) == Y).mean() > 0.9


@pytest.mark.parametrize(
    "learner", [GridSearchCV(LogisticRegression(), {}), CalibratedClassifierCV(cv=4)], ids=str
)
def test_a_class_too_small_for_inner_folds_is_named(learner):
    names = np.array(["cat", "dog", "eel"])[Y]
    trusted = np.zeros(90, dtype=bool)
    for name in ("cat", "dog", "eel"):
        trusted[np.flatnonzero(names == name)[: 3 if name == "eel" else 4]] = True
    classifier = PUDistillClassifier(learner, **QUICK)
    with pytest.raises(InputError, match=r"class 'eel' has only 3 trusted.*verify more.*\(cv\)"):
        classifier.fit(X, names, trusted=trusted)


def test_an_error_of_inner_folds_may_have_no_text():
    search = GridSearchCV(LogisticRegression(), {"C": [1.0]})
    found = pytest.raises(InputError, match=r"could not be fitted \(ValueError\): class")
    with found, user_messages([search], check_labels(Y, TRUSTED)):
        raise ValueError


def test_a_learners_own_warning_comes_once():
    learner = LogisticRegression(max_iter=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        PUDistillClassifier(learner, **QUICK).fit(X, Y, trusted=TRUSTED)
        CrossEntropyClassifier(learner).fit(X, Y, trusted=TRUSTED)
    expected = "Logistic regression has no"
    assert [str(warning.message)[:26] for warning in caught] == [expected] * 2


def test_log_probabilities_are_those_of_the_probabilities():
    classifier = CrossEntropyClassifier(KNeighborsClassifier()).fit(X, Y, trusted=TRUSTED)
    proba, log_proba = classifier.predict_proba(X), classifier.predict_log_proba(X)
    np.testing.assert_array_equal(np.exp(log_proba), proba)
    assert np.isneginf(log_proba[proba == 0]).all()
