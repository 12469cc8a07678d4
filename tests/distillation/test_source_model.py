"""The noise of several sources: their matrices, silence and copies."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from pudistill.distillation.source_model import (
    SourceModel,
    fit_source_model,
    representatives,
    weighted,
    without_copies,
)
from pudistill.labels.pseudo_labels import bayes_rule, one_hot
from pudistill.labels.sources import Sources

NOTHING = (np.arange(0), np.arange(0))
CONFUSION = np.array([[0.9, 0.1], [0.3, 0.7]])


def sources_of(codes, n_classes=2):
    """Sources whose labels are the columns of an array, -1 where they are silent."""
    said = np.hstack([one_hot(column, n_classes) for column in codes.T])
    return Sources(np.array([f"s{n}" for n in range(codes.shape[1])]), csr_array(said))


def noisy(rng, classes, T):
    return (rng.random(len(classes)) > T[classes].cumsum(axis=1)[:, 0]).astype(int)


def fit(codes, proba, verified=NOTHING):
    rows = np.setdiff1d(np.arange(len(codes)), verified[0])
    return fit_source_model(sources_of(codes), proba, rows, verified)


@pytest.fixture
def classes():
    return np.random.default_rng(0).integers(2, size=4000)


def test_the_likelihood_is_the_product_of_the_sources():
    matrices = np.array([CONFUSION, CONFUSION[::-1, ::-1]])
    speaks = np.array([[0.5, 0.25], [0.8, 0.8]])
    codes = np.array([[0, 1], [1, -1], [-1, -1]])
    model = SourceModel(sources_of(codes), matrices, speaks, np.eye(2), np.ones(2))
    by_hand = np.array(
        [
            [0.5 * 0.9 * 0.8 * 0.3, 0.25 * 0.3 * 0.8 * 0.9],
            [0.5 * 0.1 * 0.2, 0.25 * 0.7 * 0.2],
            [0.5 * 0.2, 0.75 * 0.2],
        ]
    )
    by_hand /= by_hand.max(axis=1, keepdims=True)
    np.testing.assert_allclose(model.likelihood(np.arange(3)), by_hand)
    np.testing.assert_allclose(model.likelihood(np.array([1])), by_hand[1:2])


def test_matrices_are_found_from_predictions(classes):
    rng = np.random.default_rng(1)
    flipped = CONFUSION[::-1, ::-1]
    codes = np.column_stack([noisy(rng, classes, T) for T in (CONFUSION, CONFUSION, flipped)])
    proba = np.where(rng.random(4000)[:, None] < 0.8, np.eye(2)[classes], np.eye(2)[1 - classes])
    model = fit(codes, 0.6 * proba + 0.2)
    for found, expected in zip(model.matrices, (CONFUSION, CONFUSION, flipped), strict=True):
        np.testing.assert_allclose(found, expected, atol=0.04)


def test_silence_tells_the_class_where_it_depends_on_it(classes):
    rng = np.random.default_rng(2)
    rule = np.where((classes == 1) & (rng.random(4000) < 0.6), 1, -1)  # speaks of one class only
    crowd = np.where(rng.random(4000) < 0.5, classes, -1)
    proba = np.full((4000, 2), 0.1) + 0.8 * np.eye(2)[classes]
    model = fit(np.column_stack([rule, crowd]), proba)
    np.testing.assert_allclose(model.speaks, [[0, 0.6], [0.5, 0.5]], atol=0.05)
    silent = model.likelihood(np.flatnonzero((rule == -1) & (crowd == -1))[:1])[0]
    assert silent[1] == pytest.approx(0.4, abs=0.1)


def test_copies_are_found_and_left_out():
    rng = np.random.default_rng(3)
    codes = rng.integers(-1, 2, size=(200, 2))
    nearly = np.where(np.arange(200) == 0, 0, codes[:, 0])
    sources = sources_of(np.column_stack([codes, nearly]))
    assert representatives(sources).tolist() == [0, 1, 0]
    assert without_copies(sources).names.tolist() == ["s0", "s1"]


def test_rules_that_say_the_same_of_other_samples_are_no_copies():
    codes = np.where(np.arange(200)[:, None] % 3 == [0, 1], 1, -1)
    assert representatives(sources_of(codes)).tolist() == [0, 1]


def test_copies_count_once():
    said = csr_array(np.array([[1, 0, 1, 0, 0, 1]]))
    correlation = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1.0]])
    assert weighted(said, correlation).data.tolist() == [0.5, 0.5, 1]


def test_near_copies_do_not_outvote_others(classes):
    rng = np.random.default_rng(4)
    bad = np.where(rng.random(4000) < 0.4, 1 - classes, classes)
    copies = [np.where(rng.random(4000) < 0.05, 1 - bad, bad) for _ in range(6)]
    good = [np.where(rng.random(4000) < 0.2, 1 - classes, classes) for _ in range(3)]
    codes = np.column_stack([*copies, *good])
    verified = (np.arange(200), classes[:200])
    proba = np.full((4000, 2), 0.5)
    proba[:] = np.where(rng.random(4000)[:, None] < 0.7, 0.3 + 0.4 * np.eye(2)[classes], 0.5)
    model = fit(codes, proba, verified)
    assert model.correlation[0, 1] > 0.7
    assert model.correlation[7, 8] < 0.2
    right = bayes_rule(proba, model.likelihood(slice(None))).argmax(axis=1) == classes
    assert right.mean() > 0.88  # that of the three good ones


def test_an_adversary_informs(classes):
    rng = np.random.default_rng(5)
    bad = np.where(rng.random(4000) < 0.9, 1 - classes, classes)
    weak = np.where(rng.random(4000) < 0.35, 1 - classes, classes)
    proba = 0.2 + 0.6 * np.eye(2)[np.where(rng.random(4000) < 0.25, 1 - classes, classes)]
    model = fit(np.column_stack([bad, weak]), proba, (np.arange(100), classes[:100]))
    right = bayes_rule(proba, model.likelihood(slice(None))).argmax(axis=1) == classes
    assert right.mean() > 0.88


def test_rules_that_speak_together_do_not_decide_the_class(classes):
    rng = np.random.default_rng(6)
    speaks = rng.random(4000) < np.where(classes == 1, 0.4, 0.2)
    rules = [np.where(speaks, rng.integers(2, size=4000), -1) for _ in range(6)]  # say nothing else
    good = np.where(rng.random(4000) < 0.2, 1 - classes, classes)
    proba = 0.4 + 0.2 * np.eye(2)[np.where(rng.random(4000) < 0.4, 1 - classes, classes)]
    model = fit(np.column_stack([*rules, good]), proba, (np.arange(100), classes[:100]))
    np.testing.assert_allclose(model.speaks[0], [0.2, 0.4], atol=0.1)
    right = bayes_rule(proba, model.likelihood(slice(None))).argmax(axis=1) == classes
    assert right.mean() > 0.78
