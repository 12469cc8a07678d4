import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pudistill.pseudo_labels import (
    LABEL_TYPES,
    hard_bootstrap,
    hard_label,
    one_hot,
    soft_bootstrap,
)

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
@settings(max_examples=50, deadline=None)
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
