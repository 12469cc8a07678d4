"""The strength of a penalty follows held-out likelihood, and only clear evidence."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from pudistill.learners.regularisation import (
    MAX_STEPS,
    STEP,
    choose_regularisation,
    with_regularisation,
)


def test_the_choice_is_the_best_of_the_grid_where_evidence_is_clear():
    X, y = load_digits(return_X_y=True)
    X = X / 16 / 20  # small features want a large C
    train, held_out = np.arange(200), np.arange(200, 1200)
    proba = {}

    def held_out_proba(C):
        model = LogisticRegression(C=C, max_iter=2000).fit(X[train], y[train])
        proba[C] = model.predict_proba(X[held_out])
        return proba[C]

    C = choose_regularisation(held_out_proba, np.eye(10)[y[held_out]])
    accuracy = {c: (p.argmax(axis=1) == y[held_out]).mean() for c, p in proba.items()}
    assert C > 1
    assert accuracy[C] >= max(accuracy.values()) - 0.02
    assert accuracy[C] > accuracy[1.0]


def test_chance_on_a_few_samples_does_not_move_it():
    truth = np.eye(2)[[0, 1, 0, 1, 0, 1]]
    rng = np.random.default_rng(0)
    noise = {}

    def held_out_proba(C):
        noise.setdefault(C, rng.normal(0, 0.2, 6))
        right = 0.6 + 0.1 * np.tanh(noise[C])
        return np.where(truth == 1, right[:, None], 1 - right[:, None])

    assert choose_regularisation(held_out_proba, truth) == 1


def test_without_held_out_samples_it_stays():
    assert choose_regularisation(lambda C: np.zeros((0, 3)), np.zeros((0, 3))) == 1


@pytest.mark.parametrize("sign", [1, -1])
def test_it_is_bounded(sign):
    truth = np.eye(2)[np.arange(400) % 2]

    def held_out_proba(C):  # the further, the more accurate; ranks differ, so scaling cannot help
        wrong = np.arange(400) < 200 - 20 * sign * np.log(C) / np.log(STEP)
        right = np.where(wrong, 0.3, 0.7)
        return np.where(truth == 1, right[:, None], 1 - right[:, None])

    C = choose_regularisation(held_out_proba, truth)
    assert np.isclose(C, STEP ** (sign * MAX_STEPS))


def test_only_logistic_regression_is_changed():
    pipeline = make_pipeline(StandardScaler(), LogisticRegression())
    assert with_regularisation(pipeline, 7)[-1].C == 7
    assert pipeline[-1].C == 1
    tree = DecisionTreeClassifier()
    assert with_regularisation(tree, 7) is tree
