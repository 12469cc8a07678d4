"""The paper's teachers and student: balanced subsets, averages, soft targets."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import make_blobs
from sklearn.linear_model import LogisticRegression

from pudistill.distillation.paper import average_proba, train_student, train_teachers
from pudistill.learners.tasks import Training, train


class Recorder(ClassifierMixin, BaseEstimator):
    """Remembers what it was trained on."""

    def __init__(self, random_state=None):
        self.random_state = random_state

    def fit(self, X, y, sample_weight=None):
        self.classes_, self.counts_ = np.unique(y, return_counts=True)
        self.rows_, self.y_, self.sample_weight_ = X[:, 0].astype(int), y, sample_weight
        return self

    def predict_proba(self, X):
        return np.full((len(X), len(self.classes_)), 1 / len(self.classes_))


def samples(labels):
    return np.arange(len(labels))[:, None].repeat(2, axis=1).astype(float)


def test_an_unbalanced_clean_set_gets_five_teachers_on_balanced_subsets():
    clean = np.array([0] * 30 + [1] * 10 + [2] * 20 + [-1] * 40)
    teachers = train_teachers(Recorder(), samples(clean), clean, 3, seed=0)
    assert len(teachers) == 5
    for teacher in teachers:
        assert teacher.counts_.tolist() == [10, 10, 10]
        assert len(set(teacher.rows_)) == 30
        np.testing.assert_array_equal(clean[teacher.rows_], teacher.y_)
    assert len({tuple(teacher.rows_) for teacher in teachers}) == 5


def test_a_balanced_clean_set_gets_one_teacher_on_all_of_it():
    clean = np.array([0] * 21 + [1] * 20 + [-1] * 9)
    (teacher,) = train_teachers(Recorder(), samples(clean), clean, 2, seed=0)
    assert teacher.counts_.tolist() == [21, 20]


def test_the_number_of_teachers_can_be_set():
    clean = np.array([0] * 5 + [1] * 5)
    teachers = train_teachers(Recorder(), samples(clean), clean, 2, n_teachers=3, seed=0)
    assert len(teachers) == 3


def test_without_balance_teachers_learn_from_all_of_an_unbalanced_clean_set():
    clean = np.array([0] * 30 + [1] * 10 + [-1] * 20)
    weight = np.where(clean == 1, 3.0, 1.0)
    args = {"balance": False, "sample_weight": weight, "seed": 0}
    (teacher,) = train_teachers(Recorder(), samples(clean), clean, 2, **args)
    assert teacher.counts_.tolist() == [30, 10]
    np.testing.assert_array_equal(teacher.sample_weight_, weight[:40])
    teachers = train_teachers(Recorder(), samples(clean), clean, 2, n_teachers=3, **args)
    assert len(teachers) == 3


def test_teachers_are_averaged():
    X, y = make_blobs(60, centers=3, random_state=0)
    teachers = [LogisticRegression(C=c).fit(X, y) for c in (0.01, 1)]
    expected = (teachers[0].predict_proba(X) + teachers[1].predict_proba(X)) / 2
    np.testing.assert_allclose(average_proba(teachers, X, 3), expected)
    np.testing.assert_allclose(average_proba(teachers, X, 3, np.array([5, 2])), expected[[5, 2]])


def test_soft_targets_reach_any_learner_as_the_same_cross_entropy():
    rng = np.random.default_rng(0)
    X, y = make_blobs(200, centers=3, random_state=0)
    targets = 0.7 * np.eye(3)[y] + 0.3 * rng.dirichlet(np.ones(3), 200)
    student = train_student(LogisticRegression(C=1.0, tol=1e-8, max_iter=5000), X, targets, seed=0)

    # The gradient of the soft cross-entropy plus penalty must vanish at the solution.
    error = student.predict_proba(X) - targets
    gradient = error.T @ X + student.coef_
    assert np.abs(gradient).max() < 1e-2 * np.abs(targets.T @ X).max()
    assert np.abs(error.sum(axis=0)).max() < 0.5


def test_a_learner_without_sample_weights_gets_labels_drawn_from_the_targets():
    class Unweighted(Recorder):
        def fit(self, X, y):
            return super().fit(X, y)

    targets = np.tile([0.25, 0.75], (4000, 1))
    student = train_student(Unweighted(), samples(targets), targets, seed=0)
    assert len(student.y_) == 4000
    assert student.y_.mean() == pytest.approx(0.75, abs=0.03)


def test_samples_without_weight_are_left_out():
    targets = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    task = Training(Recorder(), samples(targets), targets, "student", 0, np.array([0.0, 1.0, 2.0]))
    learner = train(task)
    assert learner.rows_.tolist() == [1, 1, 2]
    assert learner.y_.tolist() == [0, 1, 1]
    assert learner.sample_weight_.tolist() == [0.5, 0.5, 2.0]


def test_a_class_that_no_target_names_gets_no_probability():
    X, y = make_blobs(40, centers=2, random_state=0)
    student = train_student(LogisticRegression(), X, np.eye(3)[y * 2], seed=0)
    proba = average_proba([student], X, 3)
    assert (proba[:, 1] == 0).all()
    np.testing.assert_allclose(proba.sum(axis=1), 1)
