"""One or two trusted samples a class: the result leans on the given labels, and says so."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from pudistill import PUDistillClassifier
from pudistill.exceptions import TrustedWarning


def few(per_class, *, shift, level, seed=0):
    """Three blobs with wrong labels; return training samples, labels, mask and test samples."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, 700)
    X = 1.5 * rng.normal(size=(3, 6))[y] + rng.normal(size=(700, 6))
    given = np.where(rng.random(700) < level, (y + shift) % 3, y)
    trusted = np.zeros(700, dtype=bool)
    for c in range(3):
        trusted[np.flatnonzero(y == c)[:per_class]] = True
    given[trusted] = y[trusted]
    return X[:300], given[:300], trusted[:300], X[300:], y[300:]


@pytest.mark.parametrize("per_class", [1, 2])
def test_very_few_trusted_samples_lean_on_the_given_labels(per_class):
    shift = np.random.default_rng(1).integers(0, 3, 700)
    X, given, trusted, X_test, y_test = few(per_class, shift=shift, level=0.5)
    with pytest.warns(TrustedWarning, match=f"Verify {9 - 3 * per_class} more"):
        classifier = PUDistillClassifier(n_members=3, max_iter=3, random_state=0).fit(
            X, given, trusted=trusted
        )
    plain = LogisticRegression(max_iter=1000).fit(X, given).score(X_test, y_test)
    assert classifier.score(X_test, y_test) > plain - 0.03
    assert (classifier.expected_accuracy_ is None) == (per_class == 1)


def test_labels_that_nothing_doubts_join_the_first_guess_of_few_trusted_samples(monkeypatch):
    shift = np.random.default_rng(1).integers(1, 3, 700)
    X, given, trusted, X_test, y_test = few(3, shift=shift, level=0.3, seed=2)
    settings = {"n_members": 3, "max_iter": 2, "random_state": 0}
    found = {}
    for limit in (0, 10):
        monkeypatch.setattr("pudistill.distillation.few_trusted.STRONG", limit)
        classifier = PUDistillClassifier(LogisticRegression(), **settings)
        classifier.fit(X, given, trusted=trusted)
        found[limit] = classifier.score(X_test, y_test)
    assert found[10] > found[0] + 0.01
    assert found[10] > LogisticRegression().fit(X, given).score(X_test, y_test) - 0.02


def test_labels_that_are_mostly_wrong_are_seen_through():
    X, given, trusted, X_test, y_test = few(1, shift=1, level=0.7)
    with pytest.warns(TrustedWarning):
        classifier = PUDistillClassifier(n_members=3, max_iter=3, random_state=0).fit(
            X, given, trusted=trusted
        )
    plain = LogisticRegression(max_iter=1000).fit(X, given).score(X_test, y_test)
    assert classifier.score(X_test, y_test) > plain + 0.3


@pytest.mark.parametrize("unlucky", [2, 3])
def test_a_few_unlucky_samples_do_not_turn_all_labels_round(unlucky):
    rng = np.random.default_rng(0)
    y = np.arange(600) % 2
    X = rng.normal(size=(600, 40))
    X[:, 0] += np.where(y, 1.2, -1.2)
    given = np.where(rng.random(600) < 0.1, 1 - y, y)
    order = np.argsort(np.where(y, X[:, 0], -X[:, 0]))  # first those that look like the other class
    trusted = np.zeros(600, dtype=bool)
    for c in range(2):
        of_class = order[y[order] == c]
        n = unlucky // 2 if c else unlucky - unlucky // 2
        trusted[[*of_class[:n], *of_class[200 : 202 - n]]] = True
    with pytest.warns(TrustedWarning):
        classifier = PUDistillClassifier(n_members=3, max_iter=2, random_state=0).fit(
            X, given, trusted=np.where(trusted, y, np.nan)
        )
    assert (classifier.label_table_["label"] == y)[~trusted].mean() > 0.8
