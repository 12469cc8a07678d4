"""Whole fits of `PUDistillClassifier`, with both methods and all kinds of data and learners."""

import pickle
from copy import deepcopy

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_digits, make_blobs, make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier, ExtraTreeClassifier
from sklearn.utils.estimator_checks import parametrize_with_checks

from pudistill import (
    InputError,
    PUDistillClassifier,
    TorchClassifier,
    TrustedKFold,
    TrustedWarning,
    corrupt_labels,
    trusted_accuracy_scorer,
)
from pudistill.labels.pseudo_labels import one_hot
from pudistill.learners.defaults import default_learner
from tests.helpers.pictures import digit_pictures

QUICK = {"n_members": 5, "max_iter": 2, "random_state": 0}
SMALL = {"n_members": 3, "max_iter": 2}  # less to train; for tests of what any size shows
FEWEST = {"n_members": 2, "max_iter": 1}
WEIGHTS_ARE_NOT_COPIES = dict.fromkeys(
    [
        "check_sample_weight_equivalence_on_dense_data",
        "check_sample_weight_equivalence_on_sparse_data",
    ],
    "weights are above 0, and folds and subsets are drawn from the samples, not from copies",
)
UNMEASURED = {"compare": False}  # a sixth of the time; for tests of anything but the comparison
PAPER = {
    "method": "paper",
    "n_members": 5,
    "max_iter": 3,
    "threshold": 0.7,
    "blend": 0.9,
    "random_state": 0,
}


@parametrize_with_checks(
    [
        PUDistillClassifier(**FEWEST),
        PUDistillClassifier(**FEWEST, method="paper"),
    ],
    expected_failed_checks=lambda _: WEIGHTS_ARE_NOT_COPIES,
)
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


@pytest.fixture(scope="module")
def fitted(blobs):
    X, _, noisy, trusted = blobs
    return PUDistillClassifier(**QUICK).fit(X, noisy, trusted=trusted)


@pytest.fixture(params=["default", "paper"])
def quick(request):
    """Settings of either method."""
    return QUICK if request.param == "default" else PAPER


def test_beats_training_on_the_given_labels(blobs, quick):
    X, y, noisy, trusted = blobs
    ours = PUDistillClassifier(**quick).fit(X, noisy, trusted=trusted).score(X, y)
    assert ours > 0.97 > 0.5 > LogisticRegression().fit(X, noisy).score(X, y)


# The paper's method


@pytest.mark.parametrize(("kind", "level"), [("symmetric", 0.9), ("asymmetric", 0.8)])
def test_recovers_real_data_from_heavy_noise(kind, level):
    X, y = load_digits(return_X_y=True)
    trusted = np.arange(len(y)) % 10 == 0
    noisy = corrupt_labels(y, kind, level, trusted=trusted, random_state=0).y
    learner = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    ours = PUDistillClassifier(learner, min_confidence=0.5, **PAPER)
    alone = clone(learner).fit(X, noisy).score(X, y)
    assert ours.fit(X, noisy, trusted=trusted).score(X, y) > max(0.9, alone + 0.1)


def test_the_label_table_tells_where_each_label_comes_from(blobs):
    X, y, noisy, trusted = blobs
    classifier = PUDistillClassifier(**PAPER).fit(X, noisy, trusted=trusted)
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
    classifier = PUDistillClassifier(**PAPER).fit(X, noisy, trusted=trusted)
    np.testing.assert_array_equal(classifier.targets_[trusted], one_hot(noisy[trusted], 3))
    clean = classifier.filter_.clean_labels_
    corrected = one_hot(np.where(clean >= 0, clean, noisy), 3)[~trusted]
    proba = classifier.teacher_proba_
    weight = 0.9 * (proba.max(axis=1, keepdims=True) >= 0.7)
    expected = weight * proba + (1 - weight) * corrected
    np.testing.assert_allclose(classifier.targets_[~trusted], expected)


def test_teachers_serve_any_number_of_students(blobs, quick):
    X, y, noisy, trusted = blobs
    quick = quick | FEWEST | {"estimator": GaussianNB()}
    classifier = PUDistillClassifier(**quick).fit_teachers(X, noisy, trusted)
    other = corrupt_labels(y, "symmetric", 0.5, trusted=trusted, random_state=1).y
    for labels in (noisy, other):
        shared = classifier.fit_student(X, labels, trusted).predict_proba(X)
        alone = PUDistillClassifier(**quick).fit(X, labels, trusted).predict_proba(X)
        np.testing.assert_array_equal(shared, alone)
    with pytest.raises(InputError, match="not those that the teachers were fitted with"):
        classifier.fit_student(X, y, np.arange(400) % 9 == 0)


def test_verified_labels_do_as_well_as_a_mask(blobs):
    X, y, noisy, trusted = blobs
    given = noisy.copy()
    given[trusted] = (y[trusted] + 1) % 3  # their labels before somebody verified them
    verified = np.where(trusted, y, np.nan)
    by_mask = PUDistillClassifier(**PAPER).fit(X, noisy, trusted=trusted)
    by_label = PUDistillClassifier(**PAPER).fit(X, given, trusted=verified)
    np.testing.assert_array_equal(by_label.predict_proba(X), by_mask.predict_proba(X))
    assert by_label.label_table_.loc[trusted, "changed"].all()


def test_string_labels_missing_labels_and_data_frames(blobs, quick):
    X, y, noisy, trusted = blobs
    names = np.array(["cat", "dog", "eel"], dtype=object)
    given = pd.Series(names[noisy], index=[f"row {i}" for i in range(400)])
    given.iloc[np.flatnonzero(~trusted)[:50]] = None
    frame = pd.DataFrame(X, columns=["a", "b"], index=given.index)
    classifier = PUDistillClassifier(GaussianNB(), **quick | SMALL)
    classifier.fit(frame, given, trusted=trusted)
    assert classifier.classes_.tolist() == ["cat", "dog", "eel"]
    assert (classifier.predict(frame) == names[y]).mean() > 0.97
    table = classifier.label_table_
    assert table.index.equals(frame.index)
    assert table["given"].isna().sum() == 50
    assert table["label"].notna().all()


def test_sparse_features(blobs, quick):
    X, y, noisy, trusted = blobs
    classifier = PUDistillClassifier(**quick | SMALL).fit(
        sparse.csr_matrix(X), noisy, trusted=trusted
    )
    assert classifier.score(sparse.csr_matrix(X), y) > 0.95


@pytest.mark.parametrize(
    "learner",
    [
        SVC(),  # no probabilities
        LinearSVC(),
        KNeighborsClassifier(),  # no sample weights
        RandomForestClassifier(5),  # has a length, but raises if asked for it unfitted
        make_pipeline(StandardScaler(), SVC(kernel="linear")),
    ],
)
@pytest.mark.parametrize(
    "settings",
    [
        QUICK | SMALL | UNMEASURED,
        PAPER | SMALL | {"label_type": "soft_bootstrap"},
        pytest.param(PAPER | SMALL | {"label_type": "hard_label"}, marks=pytest.mark.slow),
    ],
    ids=["default", "soft_bootstrap", "hard_label"],
)
def test_any_classifier_can_be_used(blobs, learner, settings):
    X, y, noisy, trusted = blobs
    classifier = PUDistillClassifier(learner, **settings)
    assert classifier.fit(X, noisy, trusted=trusted).score(X, y) > 0.95


def test_each_role_can_have_its_own_learner(blobs):
    X, _, noisy, trusted = blobs
    classifier = PUDistillClassifier(
        LogisticRegression(),
        teacher=RandomForestClassifier(10),
        student=KNeighborsClassifier(),
        **PAPER,
    ).fit(X, noisy, trusted=trusted)
    assert isinstance(classifier.teachers_[0], RandomForestClassifier)
    assert isinstance(classifier.student_, KNeighborsClassifier)


def test_runs_with_one_seed_are_identical_and_survive_pickling(blobs, quick):
    X, _, noisy, trusted = blobs
    classifier = PUDistillClassifier(ExtraTreeClassifier(), **quick | FEWEST)
    first = classifier.fit(X, noisy, trusted=trusted)
    second = clone(classifier).fit(X, noisy, trusted=trusted)
    pd.testing.assert_frame_equal(first.label_table_, second.label_table_)
    np.testing.assert_array_equal(first.predict_proba(X), second.predict_proba(X))
    unpickled = pickle.loads(pickle.dumps(first))
    np.testing.assert_array_equal(unpickled.predict_proba(X), first.predict_proba(X))


def test_works_in_pipelines_cross_validation_and_grid_search(blobs):
    X, _, noisy, trusted = blobs
    with config_context(enable_metadata_routing=True):
        fast = PAPER | {"n_members": 2, "max_iter": 1}
        pipeline = make_pipeline(StandardScaler(), PUDistillClassifier(**fast))
        routed = {
            "cv": TrustedKFold(2, random_state=0),
            "scoring": trusted_accuracy_scorer(),
        }
        scores = cross_val_score(pipeline, X, noisy, params={"trusted": trusted}, **routed)
        assert len(scores) == 2
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
        ({"method": "robust"}, "'method' parameter"),
    ],
)
def test_bad_parameters_are_named(blobs, params, message):
    X, _, noisy, trusted = blobs
    with pytest.raises(ValueError, match=message):
        PUDistillClassifier(**(PAPER | params)).fit(X, noisy, trusted=trusted)


@pytest.mark.parametrize(
    ("params", "pred_probs", "message"),
    [
        ({"transition_matrix": np.eye(5)}, None, "transition_matrix has shape"),
        ({}, np.ones((3, 2)), "pred_probs"),
        (PAPER, np.ones((3, 2)), 'pred_probs is for method="default"'),
        ({"n_jobs": 0}, None, "'n_jobs' parameter"),
    ],
)
def test_what_the_user_knows_is_checked_before_any_training(
    blobs, params, pred_probs, message, monkeypatch
):
    X, _, noisy, trusted = blobs
    monkeypatch.setattr(PUDistillClassifier, "_new_filter", None)
    with pytest.raises(ValueError, match=message):
        PUDistillClassifier(**params).fit(X, noisy, trusted=trusted, pred_probs=pred_probs)


def test_a_number_of_votes_is_a_share_where_fewer_members_suffice():
    y = np.arange(1_800) % 2
    X = y[:, None] + np.random.default_rng(0).normal(size=(1_800, 2))
    classifier = PUDistillClassifier(threshold=0.5, min_votes=15, random_state=0)
    found = classifier.fit_teachers(X, y, np.arange(1_800) < 900).filter_
    assert found.n_members < 20
    assert found.min_votes == 15 / 20


def test_a_pipeline_can_impute_missing_features(blobs, quick):
    X, y, noisy, trusted = blobs
    X = np.where(np.random.default_rng(0).random(X.shape) < 0.02, np.nan, X)
    imputing = make_pipeline(SimpleImputer(), LogisticRegression())
    classifier = PUDistillClassifier(imputing, **quick | SMALL | UNMEASURED)
    classifier.fit(X, noisy, trusted=trusted)
    assert classifier.score(X, y) > 0.9
    with pytest.raises(ValueError, match="which is a missing value"):
        PUDistillClassifier(LogisticRegression(), **quick).fit(X, noisy, trusted=trusted)


def test_a_pipeline_can_choose_columns_by_name(blobs, quick):
    X, y, noisy, trusted = blobs
    frame = pd.DataFrame({"a": X[:, 0], "b": X[:, 1], "shop": np.where(X[:, 0] > 3, "x", "y")})
    chosen = ColumnTransformer(
        [("numbers", StandardScaler(), ["a", "b"]), ("names", OneHotEncoder(), ["shop"])]
    )
    learner = make_pipeline(chosen, LogisticRegression())
    classifier = PUDistillClassifier(learner, **quick | SMALL | UNMEASURED)
    assert classifier.fit(frame, noisy, trusted=trusted).score(frame, y) > 0.95


def test_a_search_is_a_learner_too(blobs, quick):
    X, y, noisy, trusted = blobs
    search = GridSearchCV(LogisticRegression(), {"C": [0.1, 10]}, cv=2)
    classifier = PUDistillClassifier(student=search, **quick | SMALL | UNMEASURED)
    assert classifier.fit(X, noisy, trusted=trusted).score(X, y) > 0.95


def test_learners_without_probabilities_are_seeded_too(blobs, quick):
    X, _, noisy, trusted = blobs
    classifier = PUDistillClassifier(SGDClassifier(), **quick | FEWEST | UNMEASURED)
    first, second = (clone(classifier).fit(X, noisy, trusted=trusted) for _ in range(2))
    np.testing.assert_array_equal(first.predict_proba(X), second.predict_proba(X))


def test_lengths_must_agree(blobs):
    X, _, noisy, trusted = blobs
    with pytest.raises(InputError, match="X has 399 samples but y has 400 labels"):
        PUDistillClassifier().fit(X[:-1], noisy, trusted=trusted)


def test_a_learner_that_cannot_be_calibrated_is_named(blobs, quick):
    X, y, noisy, _ = blobs
    few = np.zeros(400, dtype=bool)
    few[[np.flatnonzero(y == c)[0] for c in range(3)]] = True
    right = np.where(few, y, noisy)
    with pytest.raises(
        InputError, match="Class 0 has one trusted sample, too few to turn the scores of SVC"
    ):
        PUDistillClassifier(SVC(), **quick).fit(X, right, trusted=few)


def test_a_networks_settings_are_those_of_its_role():
    X, y = digit_pictures(80, 2)
    classifier = PUDistillClassifier(
        filter_estimator=TorchClassifier(epochs=1),
        teacher=TorchClassifier(epochs=2, mixup=2.0, balanced_bootstrap=False),
        student=TorchClassifier(epochs=3, entropy_weight=0.0),
        n_members=2,
        max_iter=1,
        n_teachers=1,
        method="paper",
        random_state=0,
    ).fit(X, y, trusted=np.arange(80) % 4 == 0)
    (teacher,), student = classifier.teachers_, classifier.student_
    assert (teacher.role, student.role) == ("teacher", "student")
    assert (teacher.recipe_.mixup, student.recipe_.mixup) == (2.0, 0.0)
    assert (teacher.recipe_.entropy_weight, student.recipe_.entropy_weight) == (0.8, 0.0)
    assert teacher.balanced_bootstrap is False
    assert (teacher.n_iter_, student.n_iter_) == (2, 3)


# The default method


def digits(n=900, n_trusted=90, seed=0):
    """Return training samples, the first of them trusted, and test samples of ten digits."""
    X, y = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(y))
    X, y = X[order], y[order]
    return X[:n], y[:n], np.arange(n) < n_trusted, X[n:], y[n:]


def references(X, given, trusted, X_test, y_test):
    """Return the accuracies of plain training: on the trusted samples, and on the given labels."""
    learner = default_learner(X)
    return [
        clone(learner).fit(X[rows], given[rows]).score(X_test, y_test)
        for rows in (trusted, np.ones(len(X), dtype=bool))
    ]


@pytest.mark.parametrize(
    ("kind", "level", "gain"), [("symmetric", 0.6, 0.005), ("asymmetric", 0.9, 0.02)]
)
@pytest.mark.parametrize("compare", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_noisy_labels_help_at_the_default_settings(kind, level, gain, compare):
    X, y, trusted, X_test, y_test = digits()
    noisy = corrupt_labels(y, kind, level, trusted=trusted, random_state=0).y
    classifier = PUDistillClassifier(compare=compare, **QUICK | SMALL).fit(
        X, noisy, trusted=trusted
    )
    best = max(references(X, noisy, trusted, X_test, y_test))
    assert classifier.score(X_test, y_test) > best + gain
    assert classifier.noise_.rate == pytest.approx((noisy != y)[~trusted].mean(), abs=0.06)


@pytest.mark.parametrize(
    "labels", ["all flipped", pytest.param("all random", marks=pytest.mark.slow)]
)
def test_labels_that_are_all_wrong_do_no_harm(labels):
    X, y, trusted, X_test, y_test = digits(400)
    noisy = np.random.default_rng(1).integers(10, size=len(y))
    if labels == "all flipped":
        noisy = (y + 1) % 10
    given = np.where(trusted, y, noisy)
    classifier = PUDistillClassifier(**QUICK | SMALL).fit(X, given, trusted=trusted)
    alone, _ = references(X, given, trusted, X_test, y_test)
    assert classifier.score(X_test, y_test) > alone - 0.02
    assert classifier.noise_.rate > 0.8


def test_nothing_is_lost_if_all_labels_are_right():
    X, y, trusted, X_test, y_test = digits(400)
    classifier = PUDistillClassifier(**QUICK | SMALL).fit(X, y, trusted=trusted)
    plain = default_learner(X).fit(X, y).score(X_test, y_test)
    assert classifier.score(X_test, y_test) > plain - 0.02
    assert classifier.noise_.rate < 0.05
    assert (classifier.label_table_["label"] == y).mean() > 0.98


def test_the_noise_is_found(blobs, fitted):
    _, y, noisy, trusted = blobs
    noise = fitted.noise_
    assert noise.classes.tolist() == fitted.classes_.tolist()
    assert noise.rate == pytest.approx((noisy != y)[~trusted].mean(), abs=0.05)
    np.testing.assert_array_equal(
        noise.transition_matrix.argmax(axis=1), [1, 2, 0]
    )  # most labels are wrong, and in the same way
    assert noise.warnings == []


def test_the_comparison_is_reported_and_the_expected_accuracy_is_met(blobs, fitted):
    trusted = blobs[3]
    X, y = make_blobs(2000, centers=[[0, 0], [6, 0], [0, 6]], random_state=1)
    expected = fitted.expected_accuracy_
    low, high = expected.interval
    assert low <= fitted.score(X, y) <= high
    assert expected.n == trusted.sum()  # each was held out once
    names = [candidate["name"] for candidate in fitted.comparison_.candidates]
    assert names[:4] == ["trusted_only", "given_labels", "teacher", "student"]
    assert fitted.shipped_ == fitted.comparison_.shipped
    assert fitted.comparison_.why.endswith(".")


def test_right_labels_are_used_if_trusted_samples_teach_little():
    # One line divides a single cloud: no structure for the filter to find.
    rng = np.random.default_rng(0)
    X = rng.normal(size=(800, 30))
    y = (X[:, :3].sum(axis=1) > 0).astype(int)
    trusted = np.arange(800) < 40
    classifier = PUDistillClassifier(**QUICK | SMALL).fit(X, y, trusted=trusted)
    _, plain = references(X, y, trusted, X, y)
    assert classifier.score(X, y) > plain - 0.03


def test_every_label_of_the_table_has_a_source(blobs, fitted):
    _, y, noisy, trusted = blobs
    table = fitted.label_table_
    assert list(table) == [
        *("given", "trusted", "label", "changed", "source", "confidence", "given_quality", "votes"),
        *("outlier_score", "outlier"),
    ]
    assert set(table["source"]) == {"trusted", "given", "student"}
    np.testing.assert_array_equal(table["source"] == "trusted", trusted)
    np.testing.assert_array_equal(table["trusted"], trusted)
    assert (table.loc[trusted, "label"] == y[trusted]).all()
    assert (table.loc[trusted, "confidence"] == 1).all()
    kept = (table["source"] == "given").to_numpy()
    np.testing.assert_array_equal(kept, (table["label"] == noisy) & ~trusted)
    np.testing.assert_array_equal(table["changed"], table["label"] != noisy)
    others = fitted.targets_[~trusted]
    np.testing.assert_array_equal(table["label"][~trusted], others.argmax(axis=1))
    np.testing.assert_allclose(table["confidence"][~trusted], others.max(axis=1))
    assert (table["label"] == y).mean() > 0.97


def test_targets_are_verified_labels_and_posteriors(blobs, fitted):
    _, _, noisy, trusted = blobs
    np.testing.assert_array_equal(fitted.targets_[trusted], one_hot(noisy[trusted], 3))
    np.testing.assert_allclose(fitted.targets_.sum(axis=1), 1)


def test_nothing_before_the_student_reads_the_label_of_a_noisy_sample(blobs, quick):
    X, y, noisy, trusted = blobs
    random = np.where(trusted, y, np.random.default_rng(0).integers(3, size=400))
    first, second = (
        PUDistillClassifier(**quick | SMALL).fit_teachers(X, labels, trusted)
        for labels in (noisy, random)
    )
    np.testing.assert_array_equal(first.teacher_proba_, second.teacher_proba_)
    np.testing.assert_array_equal(first.filter_.clean_labels_, second.filter_.clean_labels_)


def test_verified_labels_tell_more_than_a_mask(blobs, fitted):
    X, y, noisy, trusted = blobs
    given = np.where(trusted & (np.arange(400) % 20 == 0), (y + 1) % 3, noisy)  # half of them
    by_label = PUDistillClassifier(**QUICK).fit(X, given, trusted=np.where(trusted, y, np.nan))
    assert fitted.noise_.basis == "bound"
    assert by_label.noise_.basis == "verified originals"
    assert by_label.score(X, y) > 0.97
    changed = by_label.label_table_.loc[trusted, "changed"]
    np.testing.assert_array_equal(changed, (given != y)[trusted])


def test_verified_labels_that_overwrote_the_given_ones_are_noticed(blobs):
    X, y, noisy, trusted = blobs
    classifier = PUDistillClassifier(**QUICK | SMALL | UNMEASURED)
    classifier.fit(X, noisy, trusted=np.where(trusted, y, np.nan))
    (warning,) = classifier.noise_.warnings
    assert "seem to have been overwritten" in warning
    assert classifier.noise_.basis == "bound"


@pytest.mark.parametrize("missing", [np.nan, None, -1])
def test_samples_without_a_given_label_get_one(blobs, quick, missing):
    X, y, noisy, trusted = blobs
    given = noisy.astype(float if missing is np.nan else object if missing is None else int)
    without = ~trusted & (np.arange(400) % 3 == 0)
    given[without] = missing
    classifier = PUDistillClassifier(**quick | SMALL | UNMEASURED)
    classifier.fit(X, given, trusted=trusted)
    table = classifier.label_table_
    assert table.loc[without, "given"].isna().all()
    assert (table["label"].to_numpy() == y)[without].mean() > 0.95
    assert not table.loc[without, "changed"].any()
    assert set(table.loc[without, "source"]) <= {"filter", "teacher", "student"}
    assert classifier.score(X, y) > 0.95


def test_without_any_given_label_it_is_semi_supervised(blobs):
    X, y, _, trusted = blobs
    classifier = PUDistillClassifier(**QUICK | SMALL)
    classifier.fit(X, np.where(trusted, y, -1), trusted=trusted)
    assert classifier.score(X, y) > 0.97
    (warning,) = classifier.noise_.warnings
    assert warning.startswith("3 classes seem to have fewer than 10 samples")


def test_a_known_matrix_is_used(blobs):
    X, y, noisy, trusted = blobs
    T = 0.4 * np.eye(3) + 0.6 * np.roll(np.eye(3), 1, axis=1)
    right = PUDistillClassifier(transition_matrix=T, **QUICK | SMALL | UNMEASURED)
    right.fit(X, noisy, trusted=trusted)
    assert right.score(X, y) > 0.97
    # Labels that the matrix calls right are believed, unless the comparison shows the harm.
    believed = PUDistillClassifier(transition_matrix=np.eye(3), **QUICK | SMALL)
    believed.fit(X, noisy, trusted=trusted)
    labels = believed.label_table_.loc[~trusted, "label"]
    assert (labels == noisy[~trusted]).mean() > 0.97
    assert believed.shipped_ in ("trusted_only", "teacher", "mixture")
    assert believed.score(X, y) > 0.9


@pytest.mark.parametrize(
    "T", [np.eye(2), np.full((3, 3), 0.5), [[1.1, -0.1, 0], [0, 1, 0], [0, 0, 1]], [1, 0, 0]]
)
def test_an_invalid_transition_matrix_is_refused(blobs, T):
    X, _, noisy, trusted = blobs
    classifier = PUDistillClassifier(transition_matrix=T, n_members=1, max_iter=1)
    with pytest.raises(InputError, match=r"it must have shape \(3, 3\), no negative entry"):
        classifier.fit(X, noisy, trusted=trusted)


@pytest.mark.workers
@pytest.mark.parametrize("compare", [True, False])  # workers get views, or the folds of one view
def test_workers_do_not_change_what_is_learned(blobs, compare):
    X, noisy, trusted = blobs[0][::2], blobs[2][::2], blobs[3][::2]
    alone = PUDistillClassifier(GaussianNB(), compare=compare, **QUICK | FEWEST)
    alone.fit(X, noisy, trusted=trusted)
    together = clone(alone).set_params(n_jobs=2).fit(X, noisy, trusted=trusted)
    np.testing.assert_array_equal(together.targets_, alone.targets_)
    np.testing.assert_array_equal(together.predict_proba(X), alone.predict_proba(X))
    assert together.adapted_ == alone.adapted_


def test_without_a_comparison_the_student_is_shipped_unmeasured(blobs):
    X, y, noisy, trusted = blobs
    classifier = PUDistillClassifier(compare=False, **QUICK).fit(X, noisy, trusted=trusted)
    assert classifier.shipped_ == "student"
    assert classifier.expected_accuracy_ is None
    assert classifier.comparison_.candidates == []
    assert classifier.score(X, y) > 0.97


@pytest.mark.filterwarnings("ignore::pudistill.TrustedWarning")
def test_a_fit_on_trusted_samples_only_is_plain_training(blobs):
    X, y, _, _ = blobs
    classifier = PUDistillClassifier(LogisticRegression(), **QUICK).fit(X, y)
    plain = LogisticRegression().fit(X, y)
    np.testing.assert_allclose(classifier.predict_proba(X), plain.predict_proba(X), atol=5e-3)
    assert (classifier.label_table_["source"] == "trusted").all()
    assert classifier.noise_ is None
    assert classifier.comparison_ is None


def test_a_second_fit_forgets_the_first(blobs, fitted):
    X, _, noisy, trusted = blobs
    classifier = deepcopy(fitted).fit_teachers(X, noisy, trusted)
    assert not hasattr(classifier, "noise_")
    classifier.set_params(method="paper").fit(X, noisy, trusted=trusted)
    assert classifier.expected_accuracy_ is None
    with pytest.raises(InputError, match="call fit_teachers again"):
        classifier.set_params(method="default").fit_student(X, noisy, trusted)


def test_two_classes(blobs):
    X, y, _, trusted = blobs
    y = (y == 2).astype(int)
    noisy = corrupt_labels(y, "symmetric", 0.6, trusted=trusted, random_state=0).y
    classifier = PUDistillClassifier(**QUICK | SMALL).fit(X, noisy, trusted=trusted)
    assert classifier.score(X, y) > 0.97
    assert classifier.noise_.transition_matrix.shape == (2, 2)


@pytest.mark.parametrize("rule", [{}, {"threshold": 0.7, "min_votes": 3}])
def test_a_class_can_have_a_single_trusted_sample(blobs, rule):
    X, y, noisy, trusted = blobs
    trusted = trusted & (y < 2)
    trusted[np.flatnonzero(y == 2)[0]] = True
    given = np.where(trusted, y, noisy)
    with pytest.warns(TrustedWarning, match="No trusted sample of class 2 could be held out"):
        classifier = PUDistillClassifier(**QUICK | SMALL | rule).fit(X, given, trusted=trusted)
    assert classifier.score(X, y) > max(references(X, given, trusted, X, y))
    assert classifier.expected_accuracy_.n == trusted.sum() - 1  # that sample is never held out
    assert "says nothing about it" in classifier.comparison_.why


def test_one_trusted_sample_of_each_class_is_enough_to_learn(blobs):
    X, y, noisy, _ = blobs
    trusted = np.zeros(400, dtype=bool)
    trusted[[np.flatnonzero(y == c)[0] for c in range(3)]] = True
    given = np.where(trusted, y, noisy)
    classifier = PUDistillClassifier(**QUICK | SMALL).fit(X, given, trusted=trusted)
    assert classifier.expected_accuracy_ is None  # no sample could be held out
    assert classifier.score(X, y) > 0.9


def test_a_class_without_trusted_samples_is_named_with_the_ways_out(blobs, quick):
    X, y, noisy, trusted = blobs
    message = "No trusted sample has class 2: verify some of its samples, merge it into another "
    with pytest.raises(InputError, match=message + "class, or drop it"):
        PUDistillClassifier(**quick).fit(X, noisy, trusted=trusted & (y < 2))


def test_one_of_two_classes_can_be_rare():
    rng = np.random.default_rng(0)
    y = (np.arange(300) < 1).astype(int)
    X = rng.normal(size=(300, 2)) + 8 * y[:, None]
    with pytest.warns(TrustedWarning, match="No trusted sample of class 1 could be held out"):
        classifier = PUDistillClassifier(**QUICK | SMALL).fit(X, y, trusted=np.arange(300) < 20)
    assert classifier.score(X, y) > 0.99


def test_four_samples_are_enough():
    X, y = np.array([[0.0], [9], [0.1], [9.1]]), np.array([0, 1, 0, 1])
    classifier = PUDistillClassifier(**QUICK).fit(X, y, trusted=np.array([1, 1, 0, 0], bool))
    assert classifier.score(X, y) == 1


def test_two_trusted_samples_of_each_class_calibrate_a_learner_without_probabilities(blobs):
    X, y, noisy, _ = blobs
    trusted = np.zeros(400, dtype=bool)
    trusted[np.concatenate([np.flatnonzero(y == c)[:2] for c in range(3)])] = True
    given = np.where(trusted, y, noisy)
    for settings in (PAPER | SMALL, QUICK | FEWEST):
        classifier = PUDistillClassifier(SVC(), **settings).fit(X, given, trusted=trusted)
        assert classifier.score(X, y) > 0.9


class MemorisingNetwork(ClassifierMixin, BaseEstimator):
    """Stands in for a network: predicts the label of the nearest sample that has one."""

    accepts_soft_targets = continues_training = True

    def __init__(self, loss="cross_entropy", warm_start=False):
        self.loss = loss
        self.warm_start = warm_start

    def fit(self, X, y):
        has_label = y.max(axis=1) > y.min(axis=1)
        self.classes_ = np.arange(y.shape[1])
        self.nearest_ = KNeighborsClassifier(1).fit(X[has_label], y[has_label].argmax(axis=1))
        return self

    def predict_proba(self, X):
        return 0.98 * np.eye(len(self.classes_))[self.nearest_.predict(X)] + 0.01


@pytest.mark.parametrize(
    "learner", [KNeighborsClassifier(1), DecisionTreeClassifier(), MemorisingNetwork()]
)
@pytest.mark.parametrize("originals", [True, False])
def test_a_learner_that_memorises_is_not_judged_on_samples_it_has_seen(learner, originals):
    # Half of the labels cannot be predicted: a model that memorises looks better than it is.
    X, y = make_classification(1600, n_informative=5, n_redundant=0, flip_y=0.5, random_state=1)
    X_test, y_test, X, y = X[400:], y[400:], X[:400], y[:400]
    trusted = np.random.default_rng(0).random(400) < 0.4
    noise = corrupt_labels(y, "pair", 0.05, trusted=trusted, random_state=0)
    given, verified = noise.y, trusted
    if originals:
        given, verified = noise.would_be, np.where(trusted, y, np.nan)
    classifier = PUDistillClassifier(learner, **QUICK | SMALL).fit(X, given, trusted=verified)
    expected = classifier.expected_accuracy_
    assert expected.value == pytest.approx(classifier.score(X_test, y_test), abs=0.1)
    candidates = classifier.comparison_.candidates
    accuracy = {candidate["name"]: candidate["accuracy"] for candidate in candidates}
    assert accuracy["given_labels"] < 0.75
    assert expected.n == trusted.sum()
    known = classifier.label_accuracy_.interval
    right = classifier.targets_.argmax(axis=1) == y
    assert known[0] <= right[~trusted].mean() <= known[1]


def test_without_any_given_label_the_noise_rate_is_unknown(blobs):
    X, y, _, trusted = blobs
    labels = np.where(trusted, y, np.nan)
    classifier = PUDistillClassifier(**QUICK | SMALL | UNMEASURED)
    classifier.fit(X, labels, trusted=trusted)
    assert np.isnan(classifier.noise_.rate)
    assert classifier.noise_.rate_interval == (0, 1)
    assert classifier.score(X, y) > 0.95
    nothing_given = clone(classifier).fit(X, np.full(400, np.nan), trusted=labels)
    assert nothing_given.score(X, y) > 0.95


# Weights of the samples, and many classes


def test_weights_of_samples_count_in_the_training(quick):
    X, y = make_blobs(120, centers=[[0, 0], [1, 0]], random_state=0)
    trusted = np.arange(120) % 4 == 0

    def share_of_class_1(sample_weight):
        classifier = PUDistillClassifier(**quick | SMALL | UNMEASURED)
        classifier.fit(X, y, trusted=trusted, sample_weight=sample_weight)
        return classifier.predict_proba(X)[:, 1].mean()

    only_ratios_matter = share_of_class_1(np.full(120, 3.0))
    assert only_ratios_matter == pytest.approx(share_of_class_1(None))
    heavy, light = (share_of_class_1(np.where(y == c, 5.0, 1.0)) for c in (1, 0))
    assert heavy > light + 0.1


@pytest.mark.parametrize(
    ("sample_weight", "message"),
    [
        (np.r_[1.0, 0.0, np.ones(398)], "sample_weight of sample 1 is 0"),
        (np.r_[np.nan, np.ones(399)], "sample_weight of sample 0 is nan"),
        (np.ones(3), "shape \\(3,\\).*each of the 400 samples"),
        (["a"] * 400, "one number"),
    ],
)
def test_bad_weights_are_named(blobs, sample_weight, message):
    X, _, noisy, trusted = blobs
    with pytest.raises(InputError, match=message):
        PUDistillClassifier().fit(X, noisy, trusted=trusted, sample_weight=sample_weight)


@pytest.mark.parametrize("indexed", ["X", "y"])
def test_weights_follow_the_index_of_the_samples(blobs, indexed):
    X, _, noisy, trusted = blobs
    ids = pd.Index([f"p{n}" for n in range(len(X))])
    weight = pd.Series(np.arange(1.0, len(X) + 1), index=ids)
    shuffled = weight.sample(frac=1, random_state=0)
    if indexed == "X":
        X = pd.DataFrame(X, index=ids)
    else:
        noisy = pd.Series(noisy, index=ids)
    classifier = PUDistillClassifier(**QUICK | SMALL | UNMEASURED)
    for found in (shuffled, shuffled.to_dict()):
        classifier.fit_teachers(X, noisy, trusted=trusted, sample_weight=found)
        np.testing.assert_allclose(classifier._fitted_labels.sample_weight, weight / weight.mean())
    with pytest.raises(InputError, match="`sample_weight` lacks the entry 'p0'"):
        classifier.fit(X, noisy, trusted=trusted, sample_weight=shuffled.drop("p0"))
    with pytest.raises(InputError, match="`sample_weight` lacks the entry 'p0'"):
        classifier.fit_student(X, noisy, trusted=trusted, sample_weight=shuffled.drop("p0"))


@pytest.mark.slow
def test_many_classes_with_two_trusted_samples_each():
    rng, n_classes = np.random.default_rng(0), 130
    y = np.repeat(np.arange(n_classes), 5)
    X = rng.normal(size=(n_classes, 24))[y] + 0.5 * rng.normal(size=(len(y), 24))
    trusted = np.arange(len(y)) % 5 < 2
    noisy = np.where(~trusted & (rng.random(len(y)) < 0.4), rng.integers(n_classes, size=len(y)), y)
    classifier = PUDistillClassifier(max_iter=2, random_state=0).fit(X, noisy, trusted=trusted)
    plain = default_learner(X).fit(X, noisy)
    assert classifier.score(X, y) > max(0.95, plain.score(X, y))
    assert classifier.noise_.rate == pytest.approx((noisy != y)[~trusted].mean(), abs=0.05)
    low, high = classifier.noise_.rate_interval
    assert 0 <= low < classifier.noise_.rate < high <= 1
    assert classifier.noise_.transition_interval.shape == (2, n_classes, n_classes)
