import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pudistill.labels.pseudo_labels import (
    LABEL_TYPES,
    bayes_rule,
    hard_bootstrap,
    hard_label,
    likelihood,
    one_hot,
    soft_bootstrap,
)

# The paper's labels: equations 4-6

# Three samples, three classes: the teacher is sure of the first, exactly at η for the second,
# unsure of the third.
TEACHER = np.array([[0.8, 0.15, 0.05], [0.1, 0.7, 0.2], [0.3, 0.3, 0.4]])
GIVEN = np.array([2, 1, 0])


def test_soft_bootstrap_is_equations_4_and_5():
    result = soft_bootstrap(TEACHER, GIVEN, min_confidence=0.7, blend=0.4)
    # λ f_t + (1 - λ) y for the first two (max f_t >= η), y for the third
    expected = [[0.32, 0.06, 0.62], [0.04, 0.88, 0.08], [1, 0, 0]]
    np.testing.assert_allclose(result, expected, atol=1e-15)


def test_hard_bootstrap_replaces_the_prediction_by_its_one_hot_vector():
    result = hard_bootstrap(TEACHER, GIVEN, min_confidence=0.7, blend=0.4)
    np.testing.assert_allclose(result, [[0.4, 0, 0.6], [0, 1, 0], [1, 0, 0]], atol=1e-15)


def test_hard_label_is_equation_6():
    result = hard_label(TEACHER, GIVEN, min_confidence=0.7)
    np.testing.assert_array_equal(result, [[1, 0, 0], [0, 1, 0], [1, 0, 0]])


def test_without_a_given_label_the_teacher_is_followed():
    nothing = np.full(3, -1)
    soft = soft_bootstrap(TEACHER, nothing, min_confidence=0.7, blend=0.4)
    np.testing.assert_allclose(soft, TEACHER)
    hard = hard_label(TEACHER, nothing, min_confidence=0.7)
    np.testing.assert_array_equal(hard.argmax(axis=1), TEACHER.argmax(axis=1))


def test_blend_and_confidence_at_their_ends():
    y = one_hot(GIVEN, 3)
    np.testing.assert_array_equal(soft_bootstrap(TEACHER, GIVEN, min_confidence=0, blend=0), y)
    np.testing.assert_allclose(soft_bootstrap(TEACHER, GIVEN, min_confidence=0, blend=1), TEACHER)
    np.testing.assert_array_equal(soft_bootstrap(TEACHER, GIVEN, min_confidence=1, blend=1), y)


@pytest.mark.parametrize("label_type", LABEL_TYPES)
@settings(max_examples=50)
@given(
    logits=hnp.arrays(
        float, st.tuples(st.integers(1, 20), st.integers(2, 6)), elements=st.floats(-5, 5)
    ),
    seed=st.integers(0, 1000),
    min_confidence=st.floats(0, 1),
    blend=st.floats(0, 1),
)
def test_every_kind_gives_probabilities(label_type, logits, seed, min_confidence, blend):
    proba = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    given_labels = np.random.default_rng(seed).integers(-1, proba.shape[1], len(proba))
    result = LABEL_TYPES[label_type](
        proba, given_labels, min_confidence=min_confidence, blend=blend
    )
    assert (result >= 0).all()
    np.testing.assert_allclose(result.sum(axis=1), 1)


# Posterior labels

# Cat, dog and eel: cats are often called dogs, eels are always called cats.
T = np.array([[0.6, 0.4, 0.0], [0.1, 0.9, 0.0], [1.0, 0.0, 0.0]])


def test_likelihood_is_a_column_of_the_transition_matrix():
    np.testing.assert_array_equal(
        likelihood(T, np.array([0, 1, 2])), [[0.6, 0.1, 1], [0.4, 0.9, 0], [0, 0, 0]]
    )


def test_a_verified_label_leaves_one_class_whatever_was_given():
    known = likelihood(T, np.array([0, -1, 1]), np.array([1, 0, -1]))
    np.testing.assert_array_equal(known, [[0, 1, 0], [1, 0, 0], [0.4, 0.9, 0]])


def test_without_a_given_label_all_classes_are_equally_likely():
    np.testing.assert_array_equal(likelihood(T, np.array([-1])), [[1, 1, 1]])


def test_posterior_is_bayes_rule():
    proba = np.array([[0.5, 0.3, 0.2]] * 2)
    result = bayes_rule(proba, likelihood(T, np.array([0, 1])))
    # Called cat: 0.5 · 0.6, 0.3 · 0.1, 0.2 · 1; called dog: 0.5 · 0.4, 0.3 · 0.9, 0.
    expected = [[0.3 / 0.53, 0.03 / 0.53, 0.2 / 0.53], [0.2 / 0.47, 0.27 / 0.47, 0]]
    np.testing.assert_allclose(result, expected, atol=1e-8)


def test_posterior_without_a_given_label_is_the_prediction():
    np.testing.assert_allclose(bayes_rule(TEACHER, likelihood(T, np.full(3, -1))), TEACHER)


def test_a_verified_label_wins_over_a_certain_prediction():
    certain = np.array([[1.0, 0.0, 0.0]])
    known = likelihood(T, np.array([0]), np.array([2]))
    np.testing.assert_array_equal(bayes_rule(certain, known), [[0, 0, 1]])


def test_labels_that_say_nothing_change_nothing():
    random = np.full((3, 3), 1 / 3)
    np.testing.assert_allclose(bayes_rule(TEACHER, likelihood(random, GIVEN)), TEACHER)


def test_labels_that_are_always_wrong_in_the_same_way_are_as_good_as_right_ones():
    flips = np.roll(np.eye(3), 1, axis=1)  # class c is called c + 1
    for matrix, given_labels in ((np.eye(3), GIVEN), (flips, (GIVEN + 1) % 3)):
        result = bayes_rule(TEACHER, likelihood(matrix, given_labels))
        np.testing.assert_allclose(result, one_hot(GIVEN, 3))


@settings(max_examples=100)
@given(
    n_classes=st.integers(2, 6),
    seed=st.integers(0, 10_000),
    scale=st.floats(1e-6, 1e6),
)
def test_posteriors_are_probabilities_and_do_not_depend_on_scale(n_classes, seed, scale):
    rng = np.random.default_rng(seed)
    matrix = rng.dirichlet(np.ones(n_classes), n_classes)
    proba = rng.dirichlet(np.full(n_classes, 0.3), 20)
    given_labels = rng.integers(-1, n_classes, 20)
    verified = np.where(rng.random(20) < 0.2, rng.integers(0, n_classes, 20), -1)
    known = likelihood(matrix, given_labels, verified)
    result = bayes_rule(proba, known)
    assert (result >= 0).all()
    np.testing.assert_allclose(result.sum(axis=1), 1)
    np.testing.assert_allclose(bayes_rule(proba, scale * known), result)
    sure = verified >= 0
    np.testing.assert_array_equal(result[sure], one_hot(verified[sure], n_classes))


@settings(max_examples=100)
@given(seed=st.integers(0, 10_000), rate=st.floats(0.05, 0.6))
def test_a_given_label_makes_its_class_more_likely_if_most_labels_are_right(seed, rate):
    rng = np.random.default_rng(seed)
    matrix = (1 - rate) * np.eye(4) + rate / 4
    proba, given_labels = rng.dirichlet(np.ones(4), 20), rng.integers(4, size=20)
    result = bayes_rule(proba, likelihood(matrix, given_labels))
    rows = np.arange(20)
    assert (result[rows, given_labels] >= proba[rows, given_labels] - 1e-6).all()
