"""How the correction serves each class."""

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pudistill import PUDistillClassifier
from pudistill.distillation.class_accuracy import accuracy_by_class, warn_of_harm
from pudistill.distillation.held_out_labels import HeldOutLabels
from pudistill.estimates.shares import exact_interval
from pudistill.exceptions import DataWarning
from pudistill.labels.table import LabelTable, Outliers


def judged(verified, given, corrected, n_rest=10**6, **changes):
    """Return a table and held-out labels of verified samples, and many that nobody verified."""
    n = len(verified)
    nothing = np.zeros(n_rest, dtype=int)
    outliers = Outliers.unknown(n + n_rest)
    table = LabelTable(
        names=np.array(["cat", "dog"]),
        given=np.append(given, nothing),
        trusted=np.arange(n + n_rest) < n,
        label=np.append(verified, np.arange(n_rest) % 2),
        changed=np.zeros(n + n_rest, dtype=bool),
        source=np.zeros(n + n_rest, dtype=int),
        confidence=np.ones(n + n_rest),
        given_quality=np.ones(n + n_rest),
        votes=np.zeros(n + n_rest, dtype=int),
        outlier_score=outliers.score,
        outlier=outliers.is_outlier,
    )
    score = np.append(np.ones(n), np.full(n_rest, np.nan))
    held_out = HeldOutLabels(np.append(corrected, nothing), score, 1.0, None, given_score=score)
    return table, replace(held_out, **changes)


# 10 cats: 8 right as given, of which 5 become dogs; 2 wrong, of which 1 becomes right.
# 10 dogs: 6 right as given, all stay; 4 wrong, of which 3 become right.
VERIFIED = np.repeat([0, 1], 10)
GIVEN = np.array([0] * 8 + [1] * 2 + [1] * 6 + [0] * 4)
CORRECTED = np.array([1] * 5 + [0] * 3 + [0, 1] + [1] * 6 + [1] * 3 + [0])


def test_shares_are_counted_by_true_class():
    found = accuracy_by_class(*judged(VERIFIED, GIVEN, CORRECTED))
    assert list(found.index) == ["cat", "dog"]
    assert found["n"].tolist() == [10, 10]
    assert found["before"].tolist() == [0.8, 0.6]
    assert found["after"].tolist() == pytest.approx([0.4, 0.9])
    assert found["lost"].tolist() == [5, 0]
    assert found["gained"].tolist() == [1, 3]
    # P(at least 5 of 6 fair coins) = 7 / 64 = 0.109: that can be chance.
    assert found["is_harmed"].tolist() == [False, False]
    interval = found.loc["cat", ["low", "high"]].astype(float)
    assert interval.tolist() == pytest.approx(exact_interval(0.4, 10), abs=1e-3)


def test_a_class_that_loses_more_than_chance_is_named():
    corrected = CORRECTED.copy()
    corrected[8] = 1  # 5 lost, none gained: 1 / 32
    found = accuracy_by_class(*judged(VERIFIED, GIVEN, corrected))
    assert found["is_harmed"].tolist() == [True, False]
    with pytest.warns(DataWarning, match="harm class 'cat': of 10 verified samples of it, 5 right"):
        warn_of_harm(found)
    with pytest.warns(DataWarning, match=r"and 30 more\. Look at the changes of") as caught:
        warn_of_harm(pd.concat([found] * 40))
    assert len(caught) == 1


def test_weights_of_draws_count():
    n = len(VERIFIED) + 10
    weight, order = np.full(n, np.nan), np.full(n, -1)
    weight[:20], order[:20] = 1.0, np.arange(20)
    weight[:5] = 0.0  # picked by hand
    table, held_out = judged(VERIFIED, GIVEN, CORRECTED, 10, draw_weight=weight, draw_order=order)
    found = accuracy_by_class(table, held_out)
    assert found.loc["cat", "before"] < 0.8  # without the five that were picked
    assert found.loc["dog", "before"] == pytest.approx(0.6, abs=0.05)


def test_a_mask_says_nothing_of_given_labels():
    assert accuracy_by_class(*judged(VERIFIED, GIVEN, CORRECTED, given_score=None)) is None


def test_a_classifier_says_how_each_class_fares():
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=400)
    X = y[:, None] + rng.normal(size=(400, 3)) / 4
    given = np.where(rng.random(400) < 0.3, 1 - y, y)
    verified = np.where(np.arange(400) % 4 == 0, y, np.nan)
    classifier = PUDistillClassifier(n_members=5, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        found = classifier.fit(X, given, trusted=verified).class_accuracy_
    assert found["n"].sum() == 100
    assert (found["after"] > found["before"]).all()
    assert not found["is_harmed"].any()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_intervals_hold_the_share_of_samples_that_nobody_verified():
    held, harmed_though_helped, n_helped = [], 0, 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        y = rng.choice(3, size=600, p=[0.5, 0.3, 0.2])
        X = rng.normal(size=(600, 6))
        X[:, 0] += 1.8 * (y == 1)
        X[:, 1] += 1.8 * (y == 2)
        wrong = rng.random(600) < np.where(np.abs(X[:, 0] - 0.9) < 0.7, 0.4, 0.15)
        given = np.where(wrong, (y + rng.integers(1, 3, 600)) % 3, y)
        verified = pd.Series(y).sample(120, random_state=seed)
        classifier = PUDistillClassifier(n_members=5, random_state=0)
        classifier.fit(X, given, trusted=verified)
        label = classifier.label_table_["label"].to_numpy()
        for name, row in classifier.class_accuracy_.iterrows():
            rows = np.setdiff1d(np.flatnonzero(y == name), verified.index)
            share = (label[rows] == name).mean()
            held.append(row["low"] <= share <= row["high"])
            is_helped = share > (given[rows] == name).mean()
            n_helped += is_helped
            harmed_though_helped += is_helped and row["is_harmed"]
    assert np.mean(held) >= 0.93
    assert harmed_though_helped <= 0.1 * n_helped
