"""Methods that are a robust loss."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import make_blobs

from pudistill import InputError, TorchClassifier, methods
from pudistill.learners.networks import robust_losses
from pudistill.methods import robust_losses as robust_methods
from pudistill.methods.backward_correction import LARGEST_CONDITION, stable_inverse
from pudistill.methods.registry import load_class

X, Y = make_blobs(120, centers=[[0, 0], [9, 0], [0, 9]], random_state=0)
TRUSTED = np.arange(120) % 6 == 0


@pytest.mark.parametrize(
    ("name", "params", "loss"),
    [
        ("bootstrap_soft", {"label_weight": 0.5}, robust_losses.SoftBootstrap(0.5)),
        ("bootstrap_hard", {"label_weight": 0.5}, robust_losses.HardBootstrap(0.5)),
        ("mean_absolute_error", {}, robust_losses.MeanAbsoluteError()),
        (
            "generalised_cross_entropy",
            {"q": 0.5, "threshold": 0.2, "warm_up": 0.1},
            robust_losses.GeneralisedCrossEntropy(0.5, 0.2, 0.1),
        ),
        (
            "symmetric_cross_entropy",
            {"forward_weight": 6, "reverse_weight": 2, "smallest_label": 0.1},
            robust_losses.SymmetricCrossEntropy(6, 2, 0.1),
        ),
        ("taylor_cross_entropy", {"order": 5}, robust_losses.TaylorCrossEntropy(5)),
        (
            "active_passive",
            {
                "active": "focal_loss",
                "passive": "mean_absolute_error",
                "active_weight": 10,
                "passive_weight": 2,
            },
            robust_losses.ActivePassive("focal_loss", "mean_absolute_error", 10, 2),
        ),
        ("sigua", {"noise_rate": 0.3, "warm_up": 0.2, "unlearned": 0.1, "scale": 0.5}, None),
    ],
)
def test_parameters_reach_the_loss(name, params, loss, monkeypatch):
    trained = []
    fit_with_retry = robust_methods.fit_with_retry

    def remember(network, job):
        trained.append(job.objective)
        return fit_with_retry(network, job)

    monkeypatch.setattr(robust_methods, "fit_with_retry", remember)
    method = load_class(name)(TorchClassifier(epochs=1), random_state=0, **params)
    method.fit(X, Y, TRUSTED)
    if loss is None:
        (loss,) = trained
        assert (loss.noise_rate, loss.warm_up, loss.unlearned, loss.scale) == (0.3, 0.2, 0.1, 0.5)
        assert loss.trusted.tolist() == TRUSTED.tolist()
        assert method.noise_rate_ == 0.3
    else:
        assert trained == [loss]


@pytest.mark.parametrize(
    ("name", "parameter", "value"),
    [
        ("bootstrap_soft", "label_weight", 1.1),
        ("bootstrap_hard", "label_weight", 0),
        ("generalised_cross_entropy", "q", 0),
        ("generalised_cross_entropy", "threshold", 1),
        ("symmetric_cross_entropy", "smallest_label", 0),
        ("taylor_cross_entropy", "order", 0),
        ("active_passive", "active", "mean_absolute_error"),
        ("active_passive", "passive_weight", -1),
        ("sigua", "noise_rate", 2),
        ("sigua", "scale", -1),
    ],
)
def test_parameters_out_of_range_are_named(name, parameter, value):
    method = load_class(name)(**{parameter: value})
    with pytest.raises(ValueError, match=f"The '{parameter}' parameter of {type(method).__name__}"):
        method.fit(X, Y, TRUSTED)


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("symmetric_cross_entropy", ("forward_weight", "reverse_weight")),
        ("active_passive", ("active_weight", "passive_weight")),
    ],
)
def test_a_loss_that_is_always_zero_is_refused(name, weights):
    with pytest.raises(InputError, match=f"{weights[0]} and {weights[1]} are 0"):
        load_class(name)(**dict.fromkeys(weights, 0)).fit(X, Y, TRUSTED)


# Backward correction


@given(st.lists(st.floats(0, 1), min_size=9, max_size=9))
def test_any_transition_matrix_can_be_inverted(values):
    T = np.reshape(values, (3, 3)) + 1e-3
    T /= T.sum(axis=1, keepdims=True)
    inverse = stable_inverse(T)
    np.testing.assert_allclose(inverse.sum(axis=1), 1)
    assert np.linalg.cond(inverse) <= LARGEST_CONDITION * (1 + 1e-9)
    if np.linalg.cond(T) <= LARGEST_CONDITION:
        np.testing.assert_allclose(inverse @ T, np.eye(3), atol=1e-12)


def test_labels_that_say_nothing_leave_the_trusted_samples_to_learn_from():
    given_labels = np.where(TRUSTED, Y, 0)  # of one class only
    method = methods.BackwardCorrectionClassifier(TorchClassifier(epochs=30), random_state=0)
    method.fit(X, given_labels, np.where(TRUSTED, Y, np.nan))
    np.testing.assert_array_equal(method.transition_matrix_, np.full((3, 3), 1 / 3))
    assert method.score(X, Y) > 0.9
