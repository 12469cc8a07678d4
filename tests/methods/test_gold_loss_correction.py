import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits, make_blobs
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

from pudistill import InputError, TrustedWarning, corrupt_labels
from pudistill.learners.defaults import default_learner
from pudistill.methods import GoldLossCorrectionClassifier


@pytest.fixture(scope="module")
def blobs():
    """Three classes far apart; half of class 0 is labelled 1, and all of class 1 is labelled 2."""
    X, y = make_blobs(600, centers=[[0, 0], [20, 0], [0, 20]], random_state=0)
    trusted = np.arange(600) % 10 == 0
    given = np.where(y == 1, 2, np.where((y == 0) & (np.arange(600) % 2 == 0), 1, y))
    return X, y, np.where(trusted, y, given), trusted


def test_the_matrix_is_what_a_model_of_the_given_labels_predicts_for_trusted_samples(blobs):
    X, y, given, trusted = blobs
    found = GoldLossCorrectionClassifier(random_state=0).fit(X, given, trusted=trusted)
    T = found.transition_matrix_
    np.testing.assert_allclose(T.sum(axis=1), 1)
    np.testing.assert_allclose(T, [[0.5, 0.5, 0], [0, 0, 1], [0, 0, 1]], atol=0.1)
    model = default_learner(X).fit(X[~trusted], given[~trusted])
    proba = model.predict_proba(X[trusted])
    expected = [proba[y[trusted] == c].mean(axis=0) for c in range(3)]
    np.testing.assert_allclose(T, expected, atol=1e-3)
    assert found.score(X, y) > 0.98


def test_given_labels_of_trusted_samples_are_not_read(blobs):
    X, y, given, trusted = blobs
    before = np.where(trusted, (y + 1) % 3, given)
    first = GoldLossCorrectionClassifier(random_state=0).fit(X, given, trusted=trusted)
    other = clone(first).fit(X, before, trusted=np.where(trusted, y, np.nan))
    np.testing.assert_array_equal(first.predict_proba(X), other.predict_proba(X))


@pytest.mark.parametrize(("kind", "level"), [("asymmetric", 0.6), ("symmetric", 0.6)])
def test_beats_training_on_the_given_labels(kind, level):
    X, y = load_digits(return_X_y=True)
    train, test = np.arange(len(y)) < 1000, np.arange(len(y)) >= 1000
    trusted = np.arange(1000) % 10 == 0
    given = corrupt_labels(y[train], kind, level, trusted=trusted, random_state=0).y
    ours = GoldLossCorrectionClassifier(random_state=0).fit(X[train], given, trusted=trusted)
    plain = default_learner(X).fit(X[train], given)
    assert ours.score(X[test], y[test]) > plain.score(X[test], y[test]) + 0.03


@pytest.mark.parametrize("learner", [LinearSVC(), KNeighborsClassifier()])
def test_any_classifier_can_be_trained(blobs, learner):
    X, y, given, trusted = blobs
    found = GoldLossCorrectionClassifier(learner, random_state=0).fit(X, given, trusted=trusted)
    assert found.score(X, y) > 0.95


@pytest.mark.parametrize("labels", ["none at all", "all the same"])
def test_given_labels_without_information_do_no_harm(blobs, labels):
    X, y, _, trusted = blobs
    given = np.where(trusted, y, -1 if labels == "none at all" else 1)
    found = GoldLossCorrectionClassifier(random_state=0).fit(X, given, trusted=trusted)
    np.testing.assert_array_equal(found.transition_matrix_, np.full((3, 3), 1 / 3))
    assert found.score(X, y) > 0.98


def test_names_and_missing_labels(blobs):
    X, y, given, trusted = blobs
    names = np.array(["cat", "dog", "eel"], dtype=object)
    called = names[given]
    called[np.flatnonzero(~trusted)[:100]] = None
    found = GoldLossCorrectionClassifier(random_state=0).fit(X, called, trusted=trusted)
    assert found.classes_.tolist() == ["cat", "dog", "eel"]
    assert (found.predict(X) == names[y]).mean() > 0.98


def test_with_all_samples_trusted_it_is_plain_training(blobs):
    X, y, _, _ = blobs
    with pytest.warns(TrustedWarning):
        found = GoldLossCorrectionClassifier(LogisticRegression(), random_state=0).fit(X, y)
    plain = LogisticRegression().fit(X, y)
    np.testing.assert_allclose(found.predict_proba(X), plain.predict_proba(X), atol=1e-3)


def test_a_class_without_trusted_samples_is_named(blobs):
    X, y, given, trusted = blobs
    with pytest.raises(InputError, match="No trusted sample has class 2: verify some"):
        GoldLossCorrectionClassifier().fit(X, given, trusted=trusted & (y < 2))


def test_of_two_classes_one_may_be_rare():
    rng = np.random.default_rng(0)
    y = (np.arange(300) < 2).astype(int)
    X = rng.normal(size=(300, 2)) + 8 * y[:, None]
    found = GoldLossCorrectionClassifier(random_state=0).fit(X, y, trusted=np.arange(300) < 20)
    assert found.score(X, y) > 0.99


def test_a_class_that_is_never_predicted_gives_finite_probabilities():
    X, y = make_blobs(150, centers=[[0, 0], [9, 0], [0, 9]], random_state=0)
    trusted = np.arange(150) % 5 == 0
    given = np.where(trusted, y, np.where(np.arange(150) % 2, 0, 1))
    given[np.flatnonzero(~trusted)[0]] = 2
    classifier = GoldLossCorrectionClassifier(DecisionTreeClassifier(max_depth=1), random_state=0)
    assert np.isfinite(classifier.fit(X, given, trusted=trusted).predict_proba(X)).all()
