"""Groups as codes, and folds that split none of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pudistill import InputError, TrustedKFold
from pudistill.labels.groups import check_groups, joined
from pudistill.labels.model_selection import deal_folds


@pytest.mark.parametrize(
    "groups", [["b", "a", "b", None], [1.5, 0.0, 1.5, np.nan], np.array([7, 3, 7, 9])]
)
def test_groups_may_have_any_names(groups):
    assert check_groups(groups, 4).tolist() == [0, 1, 0, 2]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([1, 2, 3], "`groups` has 3 entries for 4 samples"),
        ([[1, 2], [3, 4]], r"`groups` has shape \(2, 2\)"),
        (["a"] * 4, "one group only"),
    ],
)
def test_wrong_groups_are_named(groups, message):
    with pytest.raises(InputError, match=message):
        check_groups(groups, 4)


def test_groups_are_joined_by_chains():
    first, second = np.array([0, 0, 1, 1, 2, 3]), np.array([0, 1, 1, 2, 2, 3])
    assert joined(first, second).tolist() == [0, 0, 0, 0, 0, 1]
    assert joined(first, None) is first
    assert joined(None, None) is None


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(1, 80),
    n_groups=st.integers(1, 30),
    n_classes=st.integers(1, 4),
    n_folds=st.integers(2, 5),
    constant=st.booleans(),
)
def test_no_fold_splits_a_group_or_takes_a_class_away(
    seed, n, n_groups, n_classes, n_folds, constant
):
    rng = np.random.default_rng(seed)
    groups = check_groups([*rng.integers(n_groups, size=n).tolist(), "other"], n + 1)
    labels = rng.integers(-1, n_classes, size=n + 1)
    if constant:
        labels = rng.integers(-1, n_classes, size=groups.max() + 1)[groups]
    folds = deal_folds(labels, n_folds, seed, groups)
    for group in range(groups.max() + 1):
        assert len(np.unique(folds[groups == group])) == 1
    assert set(folds) - {-1} == set(range(folds.max() + 1))  # no gaps
    for fold in range(folds.max() + 1):
        for c in np.unique(labels[(folds == fold) & (labels >= 0)]):
            assert ((folds != fold) & (labels == c)).sum() >= 1


def test_folds_of_groups_are_balanced():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(200), 5)
    labels = np.repeat(rng.choice(3, size=200, p=[0.6, 0.3, 0.1]), 5)
    folds = deal_folds(labels, 5, 0, groups)
    shares = [np.bincount(labels[folds == fold]) / 200 for fold in range(5)]
    np.testing.assert_allclose(shares, np.tile(np.bincount(labels) / 1000, (5, 1)), atol=0.05)


def test_a_class_in_a_single_group_is_never_held_out():
    labels, groups = np.repeat([0, 1], [20, 6]), np.repeat(np.arange(6), [5, 5, 5, 5, 3, 3])
    groups[20:] = 4  # all of class 1 is in group 4
    folds = deal_folds(labels, 3, 0, groups)
    assert (folds[20:] == -1).all()
    assert (folds[:20] >= 0).all()


@pytest.mark.parametrize("seed", range(3))
def test_cross_validation_splits_no_group(seed):
    rng = np.random.default_rng(seed)
    groups = rng.integers(40, size=300)
    y = rng.integers(2, size=40)[groups]
    trusted = rng.random(300) < 0.3
    X = rng.normal(size=(300, 5))
    tested = np.zeros(300, dtype=int)
    for train, test in TrustedKFold(4, random_state=seed).split(X, y, groups, trusted=trusted):
        assert not set(groups[train]) & set(groups[test])
        assert set(y[train[trusted[train]]]) == {0, 1}
        assert trusted[test].any()
        tested[test] += 1
    assert (tested == 1).all()


def test_a_fold_without_trusted_samples_is_named():
    groups = np.array([0, 0, 1, 1, 1, 2, 3, 3, 4])
    y = np.array([0, 1, 1, 0, 1, 1, 1, 0, 0])
    trusted = np.array([1, 1, 1, 1, 0, 1, 0, 1, 0], dtype=bool)
    splits = TrustedKFold(3, shuffle=False).split(np.zeros((9, 1)), y, groups, trusted=trusted)
    with pytest.raises(InputError, match="Fold 3 of 3 holds no trusted sample to score on: verify"):
        list(splits)


def test_cross_validation_keeps_copies_together_and_counts_groups():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 5))
    X, y = np.vstack([X, X]), np.tile(np.arange(60) % 2, 2)
    for train, test in TrustedKFold(3, random_state=0).split(X, y, trusted=np.arange(120) < 60):
        assert not set(train % 60) & set(test % 60)
    with pytest.raises(InputError, match="Class 1 has 1 groups with trusted samples, too few"):
        list(TrustedKFold(3).split(X, y, np.where(y == 1, 99, np.arange(120)), trusted=y >= 0))
