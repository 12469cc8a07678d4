"""PENCIL and the noise layers: against values by hand and second routes.

The numbers "of the authors' code" are what PENCIL.py computes for the same small arrays.
"""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from scipy.stats import entropy

from pudistill import TorchClassifier
from pudistill.methods import NoiseLayerClassifier, NoiseLayerDropoutClassifier, PENCILClassifier
from pudistill.methods.noise_layer import Adaptation, StochasticLayer, nearest_probabilities
from pudistill.methods.noise_layer_dropout import SoftmaxLayer
from pudistill.methods.pencil import PENCIL, classification_loss
from tests.helpers.training import batch_of

LOGITS = torch.tensor([[1.0, -0.5, 0.2], [0.0, 2.0, -1.0]], dtype=torch.float64)
PROBA = softmax(LOGITS.numpy(), axis=1)


# PENCIL


def pencil(trusted=(False, False), n_kept=0, label_rate=0.5):
    objective = PENCIL(
        torch.eye(3, dtype=torch.float64)[[0, 2]],
        torch.tensor(trusted),
        n_kept=n_kept,
        compatibility_weight=0.4,
        entropy_weight=0.1,
        label_rate=label_rate,
    )
    objective.labels = torch.tensor([[10.0, 0.0, 0.0], [3.0, 1.0, 2.0]], dtype=torch.float64)
    return objective


def test_terms_of_pencil_by_hand():
    labels = torch.tensor([[10.0, 0.0, 0.0], [3.0, 1.0, 2.0]], dtype=torch.float64)
    expected = entropy(PROBA, softmax(labels.numpy(), axis=1), axis=1) / 3
    np.testing.assert_allclose(classification_loss(LOGITS, labels), expected)


def test_loss_and_gradients_are_those_of_the_authors_code():
    objective = pencil()
    objective.begin_epoch(0)
    before = objective.labels.clone()
    _, loss_fn = objective(batch_of([0, 2]))
    logits = LOGITS.clone().requires_grad_()
    loss = loss_fn(logits)
    loss.backward()
    assert loss.item() == pytest.approx(1.1621450710143924)
    network_gradient = [
        [-0.3634601372098916, 0.11124020019096405, 0.2522199370189276],
        [-0.0611062508290251, 0.08288581646718772, -0.02177956563816263],
    ]
    np.testing.assert_allclose(logits.grad, network_gradient)
    label_gradient = np.array(
        [
            [0.06698633311036516, -0.02222239762741622, -0.044763935482948936],
            [0.1317991483544228, -0.12376853248820693, -0.00803061586621587],
        ]
    )
    # Theirs is of the mean of the two losses, ours of their sum.
    np.testing.assert_allclose(before - objective.labels, 0.5 * 2 * label_gradient)


def test_labels_are_kept_at_first_and_trusted_ones_always():
    objective = pencil(trusted=(False, True), n_kept=2)
    before = objective.labels.clone()
    for epoch in (0, 1):
        objective.begin_epoch(epoch)
        _, loss_fn = objective(batch_of([0, 2]))
        expected = -log_softmax(LOGITS.numpy(), axis=1)[[0, 1], [0, 2]].mean()
        assert loss_fn(LOGITS).item() == pytest.approx(expected)
    assert torch.equal(objective.labels, before)
    objective.begin_epoch(2)
    objective(batch_of([0, 2]))[1](LOGITS)
    assert not torch.equal(objective.labels[0], before[0])
    assert torch.equal(objective.labels[1], before[1])
    objective.labels_are_final = True
    objective.begin_epoch(3)
    final = objective.labels.clone()
    found = objective(batch_of([0, 2]))[1](LOGITS)
    assert found.item() == pytest.approx(classification_loss(LOGITS, final).mean().item())
    assert torch.equal(objective.labels, final)


def test_distributions_name_the_right_class():
    rng = np.random.default_rng(0)
    y = np.arange(300) % 3
    X = np.eye(3)[y] * 6 + rng.normal(size=(300, 3))
    noisy = np.where(rng.random(300) < 0.3, (y + 1) % 3, y)
    trusted = np.arange(300) < 30
    method = PENCILClassifier(TorchClassifier(epochs=20), random_state=0)
    method.fit(X, np.where(trusted, y, noisy), trusted)
    distributions = method.label_distributions_
    np.testing.assert_allclose(distributions.sum(axis=1), 1)
    assert (distributions.argmax(axis=1) == y).mean() > 0.95
    np.testing.assert_allclose(distributions[trusted].max(axis=1), softmax([10, 0, 0]).max())


# Noise layers


@given(st.lists(st.floats(-3, 3), min_size=2, max_size=5))
def test_the_projection_is_the_nearest_row_of_probabilities(values):
    rows = torch.tensor([values], dtype=torch.float64)
    found = nearest_probabilities(rows)[0]
    assert found.min() >= 0
    assert found.sum().item() == pytest.approx(1)
    # No step towards a corner of the simplex leads nearer (the condition of a convex minimum).
    difference = rows[0] - found
    assert ((difference - difference @ found) < 1e-9).all()


def test_the_projection_agrees_with_a_general_optimiser():
    row = np.array([0.9, 0.4, -0.3, 0.2])
    found = minimize(
        lambda p: ((p - row) ** 2).sum(),
        np.full(4, 0.25),
        bounds=[(0, 1)] * 4,
        constraints={"type": "eq", "fun": lambda p: p.sum() - 1},
        tol=1e-12,
    )
    (projected,) = nearest_probabilities(torch.tensor(row[None]))
    np.testing.assert_allclose(projected, found.x, atol=1e-6)


def test_the_loss_of_the_stochastic_layer_by_hand():
    T = np.array([[0.8, 0.2, 0], [0.1, 0.7, 0.2], [0.3, 0, 0.7]])
    layer = StochasticLayer(3, trace_weight=0.5).double()
    with torch.no_grad():
        layer.matrix.copy_(torch.tensor(T))
    objective = Adaptation(layer, torch.tensor([True, False]), warm_up=1)
    batch = batch_of([0, 2])
    objective.begin_epoch(0)
    logits = LOGITS.clone().requires_grad_()
    loss = objective(batch)[1](logits)
    assert loss.item() == pytest.approx(-np.log(PROBA[[0, 1], [0, 2]]).mean())
    loss.backward()
    assert not layer.matrix.grad.any()  # but not None
    objective.begin_epoch(1)
    expected = -(np.log(PROBA[0, 0]) + np.log((PROBA @ T)[1, 2])) / 2 + 0.5 * np.diag(T).mean()
    assert objective(batch)[1](LOGITS).item() == pytest.approx(expected)


def test_an_update_is_projected_before_it_is_used():
    layer = StochasticLayer(2, trace_weight=0.0).double()
    with torch.no_grad():
        layer.matrix.copy_(torch.tensor([[1.3, 0.1], [-0.2, 0.6]], dtype=torch.float64))
    noisy = layer.log_noisy_proba(torch.eye(2).double(), torch.Generator()).exp()
    np.testing.assert_allclose(noisy.detach(), [[1, 0], [0.1, 0.9]], atol=1e-11)


def test_the_softmax_layer_by_hand_and_its_dropout_keeps_the_mean():
    layer = SoftmaxLayer(3, dropout=0.25).double()
    generator = torch.Generator().manual_seed(0)
    proba = torch.tensor(PROBA)
    layer.eval()
    expected = log_softmax(PROBA, axis=1)  # the weights are the identity
    np.testing.assert_allclose(layer.log_noisy_proba(proba, generator).detach(), expected)
    layer.train()
    with torch.no_grad():
        layer.weight.fill_(1.0)
        # softmax(p W) has the log-odds (p W)_0 - (p W)_1, a sum of differences of weights.
        drawn = torch.stack([layer.log_noisy_proba(proba[:1], generator)[0] for _ in range(4000)])
    odds = (drawn[:, 0] - drawn[:, 1]).numpy()
    # Each weight is 0 or 4/3 with the mean 1 and the variance 1/3.
    deviation = np.sqrt(2 / 3 * (PROBA[0] ** 2).sum())
    assert odds.mean() == pytest.approx(0, abs=4 * deviation / np.sqrt(4000))
    assert odds.std() == pytest.approx(deviation, rel=0.05)


@pytest.mark.parametrize("method_class", [NoiseLayerClassifier, NoiseLayerDropoutClassifier])
def test_the_layer_learns_the_noise(method_class):
    rng = np.random.default_rng(0)
    y = np.arange(600) % 3
    X = np.eye(3)[y] * 8 + rng.normal(size=(600, 3))
    trusted = np.arange(600) < 60
    noisy = np.where(~trusted & (rng.random(600) < 0.4), (y + 1) % 3, y)
    method = method_class(TorchClassifier(epochs=40), random_state=0).fit(X, noisy, trusted)
    T = method.transition_matrix_
    np.testing.assert_allclose(T.sum(axis=1), 1)
    np.testing.assert_array_equal((T - np.diag(np.diag(T))).argmax(axis=1), [1, 2, 0])
    assert method.score(X, y) > 0.95
