import numpy as np
import pytest

from pudistill.distillation.random_sample import doubt_of_random_sample
from pudistill.labels.checks import check_labels
from pudistill.labels.groups import with_groups

N = 600
rng = np.random.default_rng(0)
Y = rng.permutation(np.repeat([0, 1, 2], N // 3))
SCORE = rng.random(N)


def doubt(verified, *, groups=None):
    mask = np.zeros(N, dtype=bool)
    mask[verified] = True
    labels = check_labels(np.array(["cat", "dog", "eel"])[Y], mask)
    if groups is not None:
        labels = with_groups(labels, np.arange(N)[:, None], groups, warn=False)
    return doubt_of_random_sample(labels, Y, SCORE)


def of_each_class(rows):
    return np.concatenate([rows, [np.flatnonzero(c == Y)[0] for c in range(3)]])


def test_random_samples_are_not_doubted():
    draws = [np.random.default_rng(seed).permutation(N)[:60] for seed in range(300)]
    assert [doubt(of_each_class(rows)) for rows in draws].count(None) >= 299


def test_every_tenth_sample_is_not_doubted():
    assert doubt(of_each_class(np.arange(0, N, 10))) is None


@pytest.mark.parametrize(
    ("verified", "reason"),
    [
        (np.flatnonzero(Y == 0)[:60], "of class 'cat', and 33% of all"),
        (np.argsort(SCORE)[-60:], "among the 10% of which models are surest"),
        (np.argsort(SCORE)[:60], "least sure"),
        (np.arange(60, 120), "in the second tenth of the data"),
    ],
)
def test_the_reason_is_named(verified, reason):
    found = doubt(of_each_class(verified))
    assert reason in found
    assert "not like a random sample" in found


def test_all_of_one_group():
    groups = np.repeat(np.arange(6), N // 6)
    assert "in one group" in doubt(np.arange(100), groups=groups)


def test_whole_groups_that_are_verified_are_not_doubted():
    groups = np.repeat(np.arange(60), N // 60)
    assert doubt(np.flatnonzero(np.isin(groups, np.arange(0, 60, 6))), groups=groups) is None
