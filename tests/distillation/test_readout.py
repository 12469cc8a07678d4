"""The last posterior is as sure as it is right, also where noise depends on the sample."""

import numpy as np
import pytest
from scipy.special import softmax

from pudistill.distillation.noise_model import NoiseModel
from pudistill.distillation.predictions import Predictions
from pudistill.distillation.readout import Readout
from pudistill.distillation.transition import Originals
from pudistill.distillation.views import View

T = np.array([[0.9, 0.1], [0.2, 0.8]])


def predictions_of(proba, given, n_held_out):
    verified = np.full(len(given), -1)
    return Predictions(View(verified, given, np.arange(n_held_out)), proba, NoiseModel(T))


def simulated(n, *, too_sure=1.0, seed=0):
    """Predictions, given and true labels; predictions can be surer than they are right."""
    rng = np.random.default_rng(seed)
    proba = softmax(2 * rng.normal(size=(n, 2)), axis=1)
    truth = (rng.random(n) > proba[:, 0]).astype(int)
    given = (rng.random(n) > T[truth, 0]).astype(int)
    return softmax(too_sure * np.log(proba), axis=1), given, truth


@pytest.mark.parametrize("too_sure", [1.0, 3.0])
def test_predictions_that_are_too_sure_count_less(too_sure):
    proba, given, truth = simulated(2000, too_sure=too_sure)
    originals = Originals(truth, given, np.arange(2000))
    readout = Readout.fit([predictions_of(proba, given, 2000)], originals)
    assert readout.of_prediction == pytest.approx(1 / too_sure, rel=0.15)
    assert readout.of_label == pytest.approx(1, rel=0.15)


def test_labels_that_err_where_predictions_do_count_less():
    proba, given, truth = simulated(2000)
    # Annotators see what the model sees: their wrong labels are its wrong predictions.
    given = np.where(proba.argmax(axis=1) != truth, 1 - truth, given)
    originals = Originals(truth, given, np.arange(2000))
    predictions = predictions_of(proba, given, 2000)
    readout = Readout.fit([predictions], originals)
    labels = readout.labels(predictions)
    plain = Readout(of_label=1.0).labels(predictions)
    right = labels.argmax(axis=1) == truth
    assert abs(labels.max(axis=1).mean() - right.mean()) < 0.03
    assert plain.max(axis=1).mean() - (plain.argmax(axis=1) == truth).mean() > 0.05


def test_few_samples_hardly_move_the_exponents():
    proba, given, truth = simulated(4, too_sure=3.0)
    originals = Originals(truth, given, np.arange(4))
    readout = Readout.fit([predictions_of(proba, given, 4)], originals)
    assert 0.4 < readout.of_prediction < 1.6
    assert 0.6 < readout.of_label < 1.6


@pytest.mark.parametrize("n_held_out", [0, None])
def test_without_originals_or_held_out_samples_nothing_is_fitted(n_held_out):
    proba, given, truth = simulated(10)
    originals = None if n_held_out is None else Originals(truth, given, np.arange(10))
    assert Readout.fit([predictions_of(proba, given, n_held_out or 0)], originals) == Readout()


def test_given_labels_count_less_than_bayes_rule_says_where_nothing_measures_it():
    """Predictions and labels are often wrong about the same samples."""
    assert Readout.fit([], None).of_prediction == 1
    assert 0.5 < Readout.fit([], None).of_label < 1


def test_verified_labels_stay():
    proba, given, truth = simulated(10)
    view = View(truth, given, np.arange(0))
    labels = Readout(0.5, 0.5).labels(Predictions(view, proba, NoiseModel(T)))
    np.testing.assert_array_equal(labels, np.eye(2)[truth])
