import pickle

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn import config_context
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_digits, make_blobs
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from pudistill import (
    InputError,
    PUDistillClassifier,
    TorchClassifier,
    TrustedKFold,
    corrupt_labels,
    trusted_accuracy_scorer,
)
from pudistill.pseudo_labels import one_hot

FAST = {"n_members": 5, "max_iter": 3, "threshold": 0.7, "blend": 0.9, "random_state": 0}


@parametrize_with_checks([PUDistillClassifier()])
@pytest.mark.filterwarnings("ignore::pudistill.TrustedWarning")
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def blobs():
    """Three classes, a tenth trusted, 60 % of the other labels shifted by one class."""
    X, y = make_blobs(400, centers=[[0, 0], [6, 0], [0, 6]], random_state=0)
    trusted = np.arange(400) % 10 == 0
    noisy = corrupt_labels(y, "asymmetric", 0.54, trusted=trusted, random_state=0).y
    return X, y, noisy, trusted


def test_beats_training_on_the_given_labels(blobs):
    X, y, noisy, trusted = blobs
    ours = PUDistillClassifier(**FAST).fit(X, noisy, trusted=trusted).score(X, y)
    assert ours > 0.97 > 0.5 > LogisticRegression().fit(X, noisy).score(X, y)


@pytest.mark.parametrize(("kind", "level"), [("symmetric", 0.9), ("asymmetric", 0.8)])
def test_recovers_real_data_from_heavy_noise(kind, level):
    X, y = load_digits(return_X_y=True)
    trusted = np.arange(len(y)) % 10 == 0
    noisy = corrupt_labels(y, kind, level, trusted=trusted, random_state=0).y
    learner = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    ours = PUDistillClassifier(learner, min_confidence=0.5, **FAST)
    alone = clone(learner).fit(X, noisy).score(X, y)
    assert ours.fit(X, noisy, trusted=trusted).score(X, y) > max(0.9, alone + 0.1)


def test_the_label_table_tells_where_each_label_comes_from(blobs):
    X, y, noisy, trusted = blobs
    classifier = PUDistillClassifier(**FAST).fit(X, noisy, trusted=trusted)
    table = classifier.label_table_
    assert (table["label"] == y).mean() > 0.97
    assert (table["changed"] == (table["label"] != table["given"])).all()
    assert (table.loc[trusted, "source"] == "trusted").all()
    assert (table.loc[trusted, "confidence"] == 1).all()
    by_filter = table["source"] == "filter"
    np.testing.assert_array_equal(by_filter, (classifier.filter_.clean_labels_ >= 0) & ~trusted)
    assert (table.loc[by_filter, "votes"] == 5).all()  # 0.95 of 5 members
    assert table.loc[trusted, "votes"].isna().all()
    teacher = (table["source"] == "teacher").to_numpy()
    proba = classifier.teacher_proba_[teacher[~trusted]]
    assert (proba.max(axis=1) >= 0.7).all()
    np.testing.assert_array_equal(table["label"][teacher], proba.argmax(axis=1))
    kept = table["source"] == "given"
    assert (table.loc[kept, "label"] == table.loc[kept, "given"]).all()


def test_targets_are_verified_labels_and_equation_4(blobs):
    X, _, noisy, trusted = blobs
    classifier = PUDistillClassifier(**FAST).fit(X, noisy, trusted=trusted)
    np.testing.assert_array_equal(classifier.targets_[trusted], one_hot(noisy[trusted], 3))
    clean = classifier.filter_.clean_labels_
    corrected = one_hot(np.where(clean >= 0, clean, noisy), 3)[~trusted]
    proba = classifier.teacher_proba_
    weight = 0.9 * (proba.max(axis=1, keepdims=True) >= 0.7)
    expected = weight * proba + (1 - weight) * corrected
    np.testing.assert_allclose(classifier.targets_[~trusted], expected)


def test_teachers_serve_any_number_of_students(blobs):
    X, y, noisy, trusted = blobs
    classifier = PUDistillClassifier(**FAST).fit_teachers(X, noisy, trusted)
    other = corrupt_labels(y, "symmetric", 0.5, trusted=trusted, random_state=1).y
    for labels in (noisy, other):
        shared = classifier.fit_student(X, labels, trusted).predict_proba(X)
        alone = PUDistillClassifier(**FAST).fit(X, labels, trusted).predict_proba(X)
        np.testing.assert_array_equal(shared, alone)
    with pytest.raises(InputError, match="not those that the teachers were fitted with"):
        classifier.fit_student(X, y, np.arange(400) % 9 == 0)


def test_verified_labels_do_as_well_as_a_mask(blobs):
    X, y, noisy, trusted = blobs
    given = noisy.copy()
    given[trusted] = (y[trusted] + 1) % 3  # what they were called before somebody looked
    verified = np.where(trusted, y, np.nan)
    by_mask = PUDistillClassifier(**FAST).fit(X, noisy, trusted=trusted)
    by_label = PUDistillClassifier(**FAST).fit(X, given, trusted=verified)
    np.testing.assert_array_equal(by_label.predict_proba(X), by_mask.predict_proba(X))
    assert by_label.label_table_.loc[trusted, "changed"].all()


def test_string_labels_missing_labels_and_data_frames(blobs):
    X, y, noisy, trusted = blobs
    names = np.array(["cat", "dog", "eel"], dtype=object)
    given = pd.Series(names[noisy], index=[f"row {i}" for i in range(400)])
    given.iloc[np.flatnonzero(~trusted)[:50]] = None
    frame = pd.DataFrame(X, columns=["a", "b"], index=given.index)
    classifier = PUDistillClassifier(**FAST).fit(frame, given, trusted=trusted)
    assert classifier.classes_.tolist() == ["cat", "dog", "eel"]
    assert (classifier.predict(frame) == names[y]).mean() > 0.97
    table = classifier.label_table_
    assert table.index.equals(frame.index)
    assert table["given"].isna().sum() == 50
    assert table["label"].notna().all()


def test_sparse_features(blobs):
    X, y, noisy, trusted = blobs
    classifier = PUDistillClassifier(**FAST).fit(sparse.csr_matrix(X), noisy, trusted=trusted)
    assert classifier.score(sparse.csr_matrix(X), y) > 0.95


@pytest.mark.parametrize(
    "learner",
    [
        SVC(),  # no probabilities
        KNeighborsClassifier(),  # no sample weights
        RandomForestClassifier(20),  # has a length, which an unfitted one cannot tell
        make_pipeline(StandardScaler(), SVC(kernel="linear")),
    ],
)
@pytest.mark.parametrize("label_type", ["soft_bootstrap", "hard_label"])
def test_any_classifier_serves(blobs, learner, label_type):
    X, y, noisy, trusted = blobs
    classifier = PUDistillClassifier(learner, label_type=label_type, **FAST)
    assert classifier.fit(X, noisy, trusted=trusted).score(X, y) > 0.95


def test_each_role_may_have_its_own_learner(blobs):
    X, _, noisy, trusted = blobs
    classifier = PUDistillClassifier(
        LogisticRegression(),
        teacher=RandomForestClassifier(10),
        student=KNeighborsClassifier(),
        **FAST,
    ).fit(X, noisy, trusted=trusted)
    assert isinstance(classifier.teachers_[0], RandomForestClassifier)
    assert isinstance(classifier.student_, KNeighborsClassifier)


def test_runs_with_one_seed_are_identical_and_survive_pickling(blobs):
    X, _, noisy, trusted = blobs
    classifier = PUDistillClassifier(RandomForestClassifier(10), **FAST)
    one = classifier.fit(X, noisy, trusted=trusted)
    other = clone(classifier).fit(X, noisy, trusted=trusted)
    pd.testing.assert_frame_equal(one.label_table_, other.label_table_)
    np.testing.assert_array_equal(one.predict_proba(X), other.predict_proba(X))
    again = pickle.loads(pickle.dumps(one))
    np.testing.assert_array_equal(again.predict_proba(X), one.predict_proba(X))


def test_works_in_pipelines_cross_validation_and_grid_search(blobs):
    X, _, noisy, trusted = blobs
    with config_context(enable_metadata_routing=True):
        pipeline = make_pipeline(StandardScaler(), PUDistillClassifier(**FAST))
        routed = {
            "cv": TrustedKFold(3, random_state=0),
            "scoring": trusted_accuracy_scorer(),
        }
        scores = cross_val_score(pipeline, X, noisy, params={"trusted": trusted}, **routed)
        assert len(scores) == 3
        assert scores.min() > 0.9
        # Plain accuracy would count the wrong labels too.
        plain = cross_val_score(pipeline, X, noisy, params={"trusted": trusted}, cv=routed["cv"])
        assert plain.max() < 0.7
        grid = GridSearchCV(pipeline, {"pudistillclassifier__blend": [0.5, 0.9]}, **routed)
        grid.fit(X, noisy, trusted=trusted)
        assert grid.best_score_ > 0.9


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"threshold": 0.0}, "'threshold' parameter"),
        ({"min_votes": 6}, "min_votes=6 can never be reached with n_members=5"),
        ({"label_type": "medium"}, "'label_type' parameter"),
        ({"blend": 1.5}, "'blend' parameter"),
    ],
)
def test_bad_parameters_are_named(blobs, params, message):
    X, _, noisy, trusted = blobs
    with pytest.raises(ValueError, match=message):
        PUDistillClassifier(**(FAST | params)).fit(X, noisy, trusted=trusted)


def test_a_pipeline_may_mend_missing_features(blobs):
    X, y, noisy, trusted = blobs
    X = np.where(np.random.default_rng(0).random(X.shape) < 0.02, np.nan, X)
    mended = make_pipeline(SimpleImputer(), LogisticRegression())
    classifier = PUDistillClassifier(mended, **FAST).fit(X, noisy, trusted=trusted)
    assert classifier.score(X, y) > 0.9
    with pytest.raises(ValueError, match="contains NaN"):
        PUDistillClassifier(LogisticRegression(), **FAST).fit(X, noisy, trusted=trusted)


def test_a_pipeline_may_choose_columns_by_name(blobs):
    X, y, noisy, trusted = blobs
    frame = pd.DataFrame({"a": X[:, 0], "b": X[:, 1], "shop": np.where(X[:, 0] > 3, "x", "y")})
    chosen = ColumnTransformer(
        [("numbers", StandardScaler(), ["a", "b"]), ("names", OneHotEncoder(), ["shop"])]
    )
    classifier = PUDistillClassifier(make_pipeline(chosen, LogisticRegression()), **FAST)
    assert classifier.fit(frame, noisy, trusted=trusted).score(frame, y) > 0.95


def test_a_search_is_a_learner_too(blobs):
    X, y, noisy, trusted = blobs
    search = GridSearchCV(LogisticRegression(), {"C": [0.1, 10]}, cv=2)
    classifier = PUDistillClassifier(student=search, **FAST)
    assert classifier.fit(X, noisy, trusted=trusted).score(X, y) > 0.95


def test_learners_without_probabilities_are_seeded_too(blobs):
    X, _, noisy, trusted = blobs
    classifier = PUDistillClassifier(SGDClassifier(), **FAST)
    one, other = (clone(classifier).fit(X, noisy, trusted=trusted) for _ in range(2))
    np.testing.assert_array_equal(one.predict_proba(X), other.predict_proba(X))


def test_lengths_must_agree(blobs):
    X, _, noisy, trusted = blobs
    with pytest.raises(InputError, match="X has 399 samples, y has 400 labels"):
        PUDistillClassifier().fit(X[:-1], noisy, trusted=trusted)


def test_a_learner_that_cannot_be_calibrated_is_named(blobs):
    X, y, noisy, _ = blobs
    few = np.zeros(400, dtype=bool)
    few[[np.flatnonzero(y == c)[0] for c in range(3)]] = True
    right = np.where(few, y, noisy)
    with pytest.raises(InputError, match="SVC gives no probabilities"):
        PUDistillClassifier(SVC(), **FAST).fit(X, right, trusted=few)


def test_a_networks_settings_are_those_of_its_role():
    X, y = load_digits(n_class=2, return_X_y=True)
    X, y = (X[:80] * 15).astype(np.uint8).reshape(-1, 8, 8), y[:80]
    classifier = PUDistillClassifier(
        filter_estimator=TorchClassifier(epochs=1),
        teacher=TorchClassifier(epochs=2, mixup=2.0, balanced_bootstrap=False),
        student=TorchClassifier(epochs=3, entropy_weight=0.0),
        n_members=2,
        max_iter=1,
        n_teachers=1,
        random_state=0,
    ).fit(X, y, trusted=np.arange(80) % 4 == 0)
    (teacher,), student = classifier.teachers_, classifier.student_
    assert (teacher.role, student.role) == ("teacher", "student")
    assert (teacher.recipe_.mixup, student.recipe_.mixup) == (2.0, 0.0)
    assert (teacher.recipe_.entropy_weight, student.recipe_.entropy_weight) == (0.8, 0.0)
    assert teacher.balanced_bootstrap is False
    assert (teacher.n_iter_, student.n_iter_) == (2, 3)
