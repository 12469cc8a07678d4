import numpy as np
import pytest

from pudistill import InputError, TrustedKFold, trusted_accuracy


@pytest.mark.parametrize("as_mask", [True, False])
def test_folds_are_stratified_by_class_and_trust(as_mask):
    rng = np.random.default_rng(0)
    y = rng.permutation(np.repeat([0, 1, 2], [200, 100, 60]))
    mask = np.zeros(360, dtype=bool)
    for c in range(3):
        mask[rng.choice(np.flatnonzero(y == c), 20, replace=False)] = True
    trusted = mask if as_mask else np.where(mask, y, np.nan)
    seen = np.zeros(360, dtype=int)
    for train, test in TrustedKFold(5, random_state=0).split(y[:, None], y, trusted=trusted):
        assert not set(train) & set(test)
        seen[test] += 1
        assert np.bincount(y[test][mask[test]]).tolist() == [4, 4, 4]
        assert np.bincount(y[test][~mask[test]]).tolist() == [36, 16, 8]
    assert (seen == 1).all()


def test_a_class_with_too_few_trusted_samples_is_named():
    y = np.array(["a", "b"] * 10)
    trusted = np.arange(20) < 5
    with pytest.raises(InputError, match="Class 'b' has 2 trusted samples, too few for 3 folds"):
        list(TrustedKFold(3).split(y, y, trusted=trusted))


def test_accuracy_counts_verified_labels_only():
    given = np.array([0, 1, 1, 0])
    verified = np.array([0, 0, np.nan, np.nan])
    assert trusted_accuracy([0, 1, 1, 0], [0, 0, 0, 1], np.array([1, 1, 0, 0], bool)) == 0.5
    assert trusted_accuracy(given, [0, 0, 0, 1], verified) == 1
