"""A fit that starts from an earlier one of the same samples."""

import copy

import numpy as np
import pytest
from sklearn.datasets import load_digits, load_wine
from sklearn.linear_model import LogisticRegression

from pudistill import InputError, PUDistillClassifier, TorchClassifier
from pudistill.labels.checks import MISSING

NAMES = np.array(["ant", "bee", "cow", "doe"])
NONE = "none of these"


def noisy(n=400, noise=0.4, seed=0):
    """Return digits of four classes, their true labels, and labels of which a share is wrong."""
    digits = load_digits(n_class=4)
    rng = np.random.default_rng(seed)
    rows = rng.choice(len(digits.target), n, replace=False)
    X, y = digits.data[rows] / 16, digits.target[rows]
    wrong = rng.random(n) < noise
    given = np.where(wrong, (y + rng.integers(1, 4, n)) % 4, y)
    return X, NAMES[y], NAMES[given]


def order(y):
    """The samples in the order in which they are verified."""
    return np.random.default_rng(1).permutation(len(y))


def verified(y, n):
    """Return the verified labels of the first samples in that order, as `trusted`."""
    labels = np.full(len(y), None, dtype=object)
    labels[order(y)[:n]] = y[order(y)[:n]]
    return labels


def classifier(**options):
    settings = {"n_members": 2, "max_iter": 1, "warm_start": True, "random_state": 0}
    return PUDistillClassifier(LogisticRegression(), **settings | options)


@pytest.fixture(scope="module")
def fits():
    """A fit with 60 verified samples, and its update with 40 more."""
    X, y, given = noisy()
    before = classifier().fit(X, given, verified(y, 60))
    return X, y, given, before, copy.deepcopy(before).fit(X, given, verified(y, 100))


def test_a_sample_keeps_its_fold_for_good(fits):
    _, y, _, before, after = fits
    had_one = before.filter_.folds_ != MISSING
    assert had_one.sum() == 60
    np.testing.assert_array_equal(after.filter_.folds_[had_one], before.filter_.folds_[had_one])
    sizes = np.bincount(after.filter_.folds_[order(y)[60:100]])  # new ones are dealt evenly
    assert sizes.sum() == 40
    assert sizes.max() - sizes.min() <= 1


def test_a_team_learns_no_new_label_of_the_fold_that_it_leaves_out(fits):
    _, y, _, before, after = fits
    codes, first = after._fitted_labels.verified, order(y)[:100]
    teams = zip(before.filter_.team_labels_, after.filter_.team_labels_, strict=True)
    for fold, (team_before, team) in enumerate(teams):
        is_held_out = after.filter_.folds_[first] == fold
        assert is_held_out[60:].any()
        assert (team[first[is_held_out]] == MISSING).all()
        learned = first[~is_held_out]
        np.testing.assert_array_equal(team[learned], codes[learned])
        # What it has found among samples that nobody verified stays.
        np.testing.assert_array_equal(team[order(y)[100:]], team_before[order(y)[100:]])


def test_an_update_is_about_as_good_as_a_fit_from_scratch(fits):
    X, y, given, before, after = fits
    anew = classifier(warm_start=False).fit(X, given, verified(y, 100))
    right = [np.mean(found.label_table_["label"] == y) for found in (before, after, anew)]
    assert right[1] > right[0] - 0.01
    assert right[1] == pytest.approx(right[2], abs=0.03)
    rest = order(y)[100:]
    truth = np.mean(after.label_table_["label"].to_numpy()[rest] == y[rest])
    low, high = after.label_accuracy_.interval
    assert low <= truth <= high


def test_a_label_verified_since_does_not_change_what_judges_it(fits):
    X, y, given, before, after = fits
    labels, row = verified(y, 100), order(y)[99]
    labels[row] = NAMES[np.flatnonzero(y[row] == NAMES)[0] - 1]
    lied_to = copy.deepcopy(before).fit(X, given, labels)
    fold = after.filter_.folds_[row]
    assert lied_to.filter_.folds_[row] == fold
    # But for the temperature, which all held-out samples decide together.
    logs = [np.log(found.held_out_proba_[fold][row]) for found in (after, lied_to)]
    assert np.corrcoef(*logs)[0, 1] > 0.99


def test_groups_are_dealt_as_a_whole():
    X, y, given = noisy(200)
    groups = np.arange(200) // 4
    found = classifier(compare=False).fit(X, given, verified(y, 50), groups)
    before = found.filter_.folds_.copy()
    found.fit(X, given, verified(y, 75), groups)
    folds, had_one = found.filter_.folds_, before != MISSING
    np.testing.assert_array_equal(folds[had_one], before[had_one])
    is_verified = np.isin(np.arange(200), order(y)[:75])
    for group in range(50):
        of_group = folds[groups == group]
        assert len(set(of_group)) == 1
        assert (of_group[0] != MISSING) == is_verified[groups == group].any()


def test_samples_of_no_class_found_since_leave_the_training(fits):
    X, y, given, before, _ = fits
    labels, (early, late) = verified(y, 90), order(y)[[5, 70]]
    labels[[early, late]] = NONE
    found = copy.deepcopy(before).set_params(compare=False).fit(X, given, labels)
    assert found.label_table_["label"].iloc[[early, late]].tolist() == [NONE, NONE]
    folds = np.delete(before.filter_.folds_, [early, late])
    had_one = folds != MISSING
    np.testing.assert_array_equal(found.filter_.folds_[had_one], folds[had_one])


def test_samples_can_be_added_at_the_end(fits):
    X, y, given, before, _ = fits
    more_X, more_y, more_given = noisy(100, noise=0.6, seed=1)
    labels = np.append(verified(y, 60), np.full(100, None))
    labels[400::4] = more_y[::4]
    found = copy.deepcopy(before).fit(
        np.concatenate([X, more_X]),
        np.append(given, more_given),
        labels,
        noise_groups=np.repeat(["old", "new"], [400, 100]),
    )
    had_one = before.filter_.folds_ != MISSING
    np.testing.assert_array_equal(
        found.filter_.folds_[:400][had_one], before.filter_.folds_[had_one]
    )
    assert np.mean((found.label_table_["label"] == np.append(y, more_y))[400:]) > 0.85
    assert found.noise_.group_rate.shape == (2,)


@pytest.mark.parametrize("other", ["another class", "fewer samples"])
def test_other_data_are_refused(fits, other):
    X, y, given, before, _ = fits
    n = 350 if other == "fewer samples" else 400
    labels = verified(y, 60)
    if other == "another class":
        labels[order(y)[60]] = "elk"
    with pytest.raises(InputError, match=r"same samples and classes.*warm_start=False"):
        copy.deepcopy(before).fit(X[:n], given[:n], labels[:n])


def test_a_network_goes_on_learning():
    X, y, given = noisy(200)
    network = TorchClassifier("mlp", epochs=4)
    found = PUDistillClassifier(
        network,
        n_members=2,
        max_iter=1,
        n_teachers=1,
        warm_start=True,
        compare=False,
        random_state=0,
    )
    found.fit(X, given, verified(y, 50))
    folds, right = found.filter_.folds_.copy(), np.mean(found.label_table_["label"] == y)
    found.fit(X, given, verified(y, 80))
    had_one = folds != MISSING
    np.testing.assert_array_equal(found.filter_.folds_[had_one], folds[had_one])
    assert np.mean(found.label_table_["label"] == y) > right - 0.02


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X, given, trusted: (X[::-1], given[::-1], trusted[::-1]), "Sample"),
        (lambda X, given, trusted: (X, given, np.append(np.nan, trusted[1:])), "is not now"),
        (lambda X, given, trusted: (X, np.roll(given, 1), trusted), "another given label"),
    ],
)
def test_other_labels_are_refused(change, message):
    X, y = load_wine(return_X_y=True)
    rng = np.random.default_rng(0)
    given = np.where(rng.random(len(y)) < 0.3, (y + 1) % 3, y)
    trusted = np.where(np.arange(len(y)) % 4 == 0, y, np.nan)
    fast = {"n_members": 2, "max_iter": 1, "random_state": 0}
    classifier = PUDistillClassifier(warm_start=True, **fast).fit(X, given, trusted)
    with pytest.raises(InputError, match=message):
        classifier.fit(*change(X, given, trusted))


def test_a_fit_with_a_given_rule_has_no_folds_to_keep_and_is_repeated():
    X, y, given = noisy()
    rule = {"threshold": 0.9, "min_votes": 0.5}
    updated = classifier(**rule).fit(X, given, verified(y, 60)).fit(X, given, verified(y, 100))
    anew = classifier(**rule, warm_start=False).fit(X, given, verified(y, 100))
    np.testing.assert_array_equal(updated.targets_, anew.targets_)
