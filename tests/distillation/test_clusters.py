"""Statistics of groups: intervals hold what they promise, however groups are made."""

import numpy as np
import pytest

from pudistill.distillation.clusters import draw_rows, effective_size, standard_error
from pudistill.distillation.comparison import choose, compare
from pudistill.estimates.shares import exact_interval, rectified_share


def draw_hits(rng, n_groups, sizes, accuracy, alike):
    """Draw hits whose chance is that of their group, which differs the more, the more `alike`."""
    counts = sizes(rng, n_groups)
    groups = np.repeat(np.arange(n_groups), counts)
    spread = (1 - alike) / max(alike, 1e-9)
    chance = rng.beta(accuracy * spread, (1 - accuracy) * spread, n_groups) if alike < 1 else None
    chance = rng.random(n_groups) < accuracy if chance is None else chance
    return rng.random(len(groups)) < chance[groups], groups


SIZES = {
    "equal": lambda rng, n: np.full(n, 6),
    "geometric": lambda rng, n: rng.geometric(0.15, n),
    "mostly one": lambda rng, n: np.where(rng.random(n) < 0.1, 8, 1),
}


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("n_groups", [6, 30])
@pytest.mark.parametrize("alike", [0.001, 0.3, 1])
@pytest.mark.parametrize("accuracy", [0.8])
def test_the_interval_of_a_share_in_groups_covers_it(sizes, n_groups, alike, accuracy):
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(150):
        hits, groups = draw_hits(rng, n_groups, SIZES[sizes], accuracy, alike)
        low, high = exact_interval(hits.mean(), effective_size(hits, groups))
        covered.append(low <= accuracy <= high)
    assert np.mean(covered) >= 0.91


def test_the_effective_size_lies_between_groups_and_samples():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(200), 5)
    alike = np.repeat(rng.random(200) < 0.7, 5)
    assert effective_size(alike, groups) == pytest.approx(200, rel=0.05)
    assert effective_size(rng.random(1000) < 0.7, groups) > 600
    assert effective_size(np.ones(1000), groups) == pytest.approx(200)  # nothing to measure
    assert effective_size(np.arange(10) % 2, np.arange(10)) == 10


def test_a_lead_must_be_that_of_many_groups():
    student, teacher = np.zeros(40, dtype=bool), np.arange(40) < 20
    correct = {"student": student, "teacher": teacher}
    assert choose(correct) == "teacher"
    assert choose(correct, np.arange(40) // 20) == "student"
    labels = np.arange(40) % 2
    proba = {name: np.eye(2)[np.where(hits, labels, 1 - labels)] for name, hits in correct.items()}
    found = compare(proba, labels, groups=np.arange(40) // 20, seed=0)
    assert found.shipped == "student"
    assert found.expected_accuracy.interval[1] > 0.8  # two groups tell little


def test_bootstraps_draw_whole_groups():
    groups = np.random.default_rng(0).integers(20, size=100)
    for seed in range(5):
        rows = draw_rows(100, groups, np.random.default_rng(seed))
        counts = np.bincount(rows, minlength=100)
        for group in np.unique(groups):
            assert len(np.unique(counts[groups == group])) == 1


def test_groups_of_one_have_the_error_of_samples():
    values = np.random.default_rng(0).normal(size=(3, 50))
    expected = standard_error(values, None) * np.sqrt(50 / 49)
    np.testing.assert_allclose(standard_error(values, np.arange(50)), expected)


@pytest.mark.parametrize("n_groups", [8, 40])
def test_the_interval_of_a_share_counts_groups(n_groups):
    # An annotator labels each group: in some groups all labels are wrong.
    rng = np.random.default_rng(0)
    covered = {"groups": [], "samples": []}
    for _ in range(100):
        groups = np.repeat(np.arange(n_groups), 10)
        is_wrong = (rng.random(n_groups) < 0.25)[groups]
        unpredicted = np.full(len(groups), np.nan)
        of_group = effective_size(is_wrong, groups) / len(groups)
        for name, worth in (("groups", of_group), ("samples", 1.0)):
            low, high = rectified_share(is_wrong, unpredicted, np.inf, worth=worth).interval
            covered[name].append(low <= 0.25 <= high)
    assert np.mean(covered["groups"]) >= 0.9
    assert np.mean(covered["groups"]) > np.mean(covered["samples"]) + 0.1
