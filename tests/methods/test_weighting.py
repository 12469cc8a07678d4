"""Methods that weight samples or mini-batches: against values by hand and second routes.

The numbers "of the authors' code" are what it computes for the same small arrays: MW-Net.py and
resnet.py for Meta-Weight-Net, training_mentornet/models.py for MentorNet.
"""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from pudistill import InputError, TorchClassifier
from pudistill.learners.networks.batches import same_label_rows
from pudistill.methods import DeepBilevelClassifier, MentorNetClassifier, MetaWeightNetClassifier
from pudistill.methods.deep_bilevel import DeepBilevel, agreement
from pudistill.methods.mentornet import MentorNet, curriculum
from pudistill.methods.meta_weight_net import MetaWeightNet, weighting_network
from tests.helpers.training import PLAIN, batch_of, generator

EVERY_STEP = {"meta_learning_rate": 0.001, "meta_interval": 1, "warm_up": 0}


# Meta-Weight-Net


def linear(weight, bias):
    layer = nn.Linear(len(weight[0]), len(weight)).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
        layer.bias.copy_(torch.tensor(bias))
    return layer


def meta_step(rate=0.5):
    """Make a step on four noisy and two trusted samples; return everything that took part."""
    noisy = torch.tensor([[1, 0, 2], [0, 1, -1], [1, 1, 0], [-1, 2, 1]]).double()
    meta = torch.tensor([[2, 1, 0], [0, -1, 1]]).double()
    batch = batch_of([0, 1, 1, 0, 0, 1], torch.cat([noisy, meta]), n_classes=2)
    network = linear([[0, 0.1, 0.2], [0.3, 0.4, 0.5]], [0.1, -0.2])
    weighting = weighting_network(3)
    weighting[0] = linear([[0.5], [-0.3], [0.8]], [0.1, 0.4, -0.2])
    weighting[2] = linear([[0.7, -0.5, 0.2]], [0.05])
    before = copy.deepcopy(weighting)
    objective = MetaWeightNet(weighting, torch.arange(6) >= 4, batch_size=4, **EVERY_STEP)
    loss = objective.backward(replace(batch, module=network), rate)
    return network, weighting, before, batch, loss.item()


def test_a_step_is_that_of_the_authors_code():
    network, weighting, _, _, loss = meta_step()
    found = torch.cat([weight.grad.ravel() for weight in weighting.parameters()])
    expected = [
        *(0.02739326669836498, -0.019566619070260704, 0.007826647628104281),
        *(0.04028203573231486, -0.028772882665939192, 0.011509153066375673),
        *(0.02532119560344854, 0.01127833469059493, 0.019797437446041455),
        0.057545765331878385,
    ]
    np.testing.assert_allclose(found, expected)
    assert loss == pytest.approx(0.502429935215846)
    first_row = [0.04420276629855667, -0.027726582180293807, -0.3800765838438663]
    np.testing.assert_allclose(network.weight.grad[0], first_row)
    np.testing.assert_allclose(network.bias.grad, [-0.0431197805, 0.0431197805])


@pytest.mark.parametrize("rate", [0.0, 0.2, 1.0])
def test_the_meta_gradient_is_a_sum_of_agreements_of_gradients(rate):
    """The paper's equation 8, with one gradient for each sample, in place of second derivatives."""
    network, weighting, before, batch, _ = meta_step(rate)
    weights = dict(network.named_parameters())

    logits = functional_call(network, weights, (batch.raw[:4],))
    losses = cross_entropy(logits, batch.label[:4], reduction="none")
    own = [torch.autograd.grad(loss, list(weights.values()), retain_graph=True) for loss in losses]
    proba = before(losses.detach()[:, None])[:, 0]
    ahead = {
        name: weight - rate * sum(proba[i] * own[i][k] for i in range(4)) / 4
        for k, (name, weight) in enumerate(weights.items())
    }
    ahead = {name: weight.detach().requires_grad_() for name, weight in ahead.items()}
    meta_loss = cross_entropy(functional_call(network, ahead, (batch.raw[4:],)), batch.label[4:])
    direction = torch.autograd.grad(meta_loss, list(ahead.values()))
    agreements = torch.stack(
        [sum((a * b).sum() for a, b in zip(direction, of_sample, strict=True)) for of_sample in own]
    )
    (-rate / 4 * agreements.detach() * proba).sum().backward()
    for found, expected in zip(weighting.parameters(), before.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad)


def test_batches_have_as_many_trusted_samples_as_others():
    trusted = torch.arange(50) < 3
    objective = MetaWeightNet(weighting_network(2), trusted, batch_size=16, **EVERY_STEP)
    batches = objective.batches(generator())
    assert {(int(trusted[rows].sum()), len(rows)) for rows in batches} == {(16, 31), (16, 32)}
    noisy = torch.cat([rows[~trusted[rows]] for rows in batches])
    assert sorted(noisy.tolist()) == list(range(3, 50))


def test_wrong_labels_get_smaller_weights():
    rng = np.random.default_rng(0)
    y = np.arange(200) % 2
    X = rng.normal(size=(200, 2)) + 4 * y[:, None]
    trusted = np.arange(200) < 20
    noisy = np.where(~trusted & (rng.random(200) < 0.3), 1 - y, y)
    method = MetaWeightNetClassifier(TorchClassifier(epochs=40), random_state=0)
    losses, weights = method.fit(X, noisy, trusted).weight_curve_
    assert weights[losses == 0.1] > 2 * weights[losses == 3]


# MentorNet


@pytest.mark.parametrize(
    ("epoch", "expected"),
    [
        (0, [1, 1, 1, 1, 1]),
        (18, [1, 1, 1, 1, 1]),
        (19, [1, 1, 1, 0, 0]),
        (89, [1, 1, 1, 0, 0]),
        (90, [1, 1, 1, 0.6, 0]),
        (99, [1, 1, 1, 0.6, 0]),
    ],
)
def test_the_curriculum_is_that_of_the_authors_code(epoch, expected):
    losses = torch.tensor([0.1, 0.9, 1.0, 1.4, 3.0]).double()
    np.testing.assert_allclose(curriculum(losses, torch.tensor(1.0), epoch / 100), expected)


def test_the_loss_of_mentornet_by_hand():
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2, 0])
    trusted = torch.arange(10) == 3
    batch = batch_of(labels)
    logits = torch.randn(10, 3, generator=generator(1), dtype=torch.float64)
    losses = cross_entropy(logits, labels, reduction="none")
    objective = MentorNet(trusted, percentile=0.5, decay=0.5, n_epochs=100)
    objective.begin_epoch(0)
    _, loss_fn = objective(batch)
    first = loss_fn(logits).item()  # half of the samples count
    possible = [losses.sort().values[:5].sum() / 10, losses.sort().values[5:].sum() / 10]
    assert possible[0] <= first <= possible[1] + losses[3] / 10
    objective.begin_epoch(50)
    _, loss_fn = objective(batch)
    threshold = (losses.median() + losses.sort().values[5]) / 2
    threshold = (threshold + np.quantile(2 * losses.numpy(), 0.5)) / 2
    # Of the losses that double, one sample in twenty is left out, here none of ten: int(9.5) = 9.
    found = loss_fn(_with_losses(2 * losses, labels)).item()
    small = (2 * losses <= threshold) | trusted
    every = (2 * losses * small).sum().item() / 10
    without_one = [every, *((every - 2 * loss / 10).item() for loss in losses[small & ~trusted])]
    assert min(abs(found - value) for value in without_one) < 1e-9


def _with_losses(losses, labels):
    """Return logits of three classes whose cross-entropies are `losses`."""
    right = (-losses).exp()
    proba = ((1 - right) / 2)[:, None].repeat(1, 3)
    proba[torch.arange(len(labels)), labels] = right
    return proba.log()


@pytest.mark.parametrize(("rate", "expected"), [(0.0, 0.75), (0.4, 0.6875), (0.9, 0.5)])
def test_the_percentile_follows_the_noise_rate(rate, expected):
    X = np.random.default_rng(0).normal(size=(40, 2))
    method = MentorNetClassifier(TorchClassifier(epochs=1), noise_rate=rate, random_state=0)
    # Of five classes, a rate of 0.4 is that of half of the labels redrawn.
    method.fit(X, np.arange(40) % 5, np.arange(40) < 10)
    assert method.percentile_ == pytest.approx(expected)
    method.set_params(percentile=0.3).fit(X, np.arange(40) % 5, np.arange(40) < 10)
    assert method.percentile_ == 0.3


# Deep bilevel learning


def test_the_weights_of_mini_batches_by_hand():
    validation = [torch.tensor([1.0, 2.0]), torch.tensor([[1.0]])]
    gradients = [
        [torch.tensor([1.0, 0.0]), torch.tensor([[1.0]])],  # <g_v, g> = 2, |g|² = 2
        [torch.tensor([0.0, -2.0]), torch.tensor([[0.0]])],  # -4, 4
        [torch.tensor([0.0, 0.0]), torch.tensor([[0.0]])],
    ]
    omega = np.array([2 / 2.5, -4 / 4.5, 0])
    found = agreement(validation, gradients, mu=0.5)
    np.testing.assert_allclose(found, omega / np.abs(omega).sum(), rtol=1e-6)
    nothing = [torch.zeros(2), torch.zeros(1, 1)]
    assert agreement(validation, [nothing, nothing], mu=0.5).tolist() == [0, 0]


def test_the_gradient_is_the_weighted_sum_of_those_of_the_mini_batches():
    x = torch.randn(12, 3, generator=generator(), dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 0] * 3)
    network = linear(np.zeros((3, 3)).tolist(), [0.0, 0.0, 0.0])
    objective = DeepBilevel(labels, torch.zeros(12, dtype=torch.bool), n_parts=3, size=4, mu=0.01)
    loss = objective.backward(batch_of(labels, x, network=network), 0.1)
    # Of a linear network at zero: the gradient of the weights is the mean of (1/3 - y) x.
    residual = 1 / 3 - np.eye(3)[labels]
    parts = [
        np.column_stack([r.T @ np.asarray(own) / 4, r.mean(axis=0)])
        for r, own in zip(np.split(residual, 3), np.split(x.numpy(), 3), strict=True)
    ]
    omega = np.array([(parts[0] * g).sum() / ((g**2).sum() + 0.01) for g in parts[1:]])
    omega /= np.abs(omega).sum()
    expected = omega[0] * parts[1] + omega[1] * parts[2]
    np.testing.assert_allclose(network.weight.grad, expected[:, :3])
    np.testing.assert_allclose(network.bias.grad, expected[:, 3], atol=1e-12)
    assert loss.item() == pytest.approx(np.log(3))


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(1, 6), st.integers(0, 2**31)
)
def test_mini_batches_have_the_same_labels_and_reach_every_sample(labels, n_parts, seed):
    labels = torch.tensor(labels)
    rows = same_label_rows(labels, n_parts, generator(seed))
    assert set(rows.ravel().tolist()) == set(range(len(labels)))
    assert (labels[rows] == labels[rows][:, :1]).all()
    assert len(rows) == sum(-(-int(n) // n_parts) for n in labels.bincount())
    trusted = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        trusted[(labels == label).nonzero()[0]] = True
    rows = same_label_rows(labels, n_parts + 1, generator(seed), trusted)
    assert trusted[rows[:, 0]].all()
    assert set(rows[:, 1:].ravel().tolist()) == set(range(len(labels)))
    assert (labels[rows] == labels[rows][:, :1]).all()


def test_mini_batches_are_never_smaller_than_their_size():
    objective = DeepBilevel(
        torch.arange(90) % 3, torch.zeros(90, dtype=torch.bool), n_parts=4, size=5, mu=0.01
    )
    batches = objective.batches(generator())
    assert {len(rows) for rows in batches} <= {20, 24, 28, 32, 36}
    for rows in batches:
        first, *others = (rows % 3).chunk(4)
        assert all(torch.equal(first, other) for other in others)


def test_a_batch_too_small_for_its_mini_batches_is_named():
    X, y = np.eye(2)[np.arange(20) % 2], np.arange(20) % 2
    method = DeepBilevelClassifier(TorchClassifier(batch_size=8), n_parts=5)
    with pytest.raises(InputError, match=r"n_parts=5 .* a batch of 8: lower n_parts, or raise"):
        method.fit(X, y, np.arange(20) < 4)


def test_no_trusted_sample_is_named():
    X, y = np.eye(2)[np.arange(20) % 2], np.arange(20) % 2
    with pytest.raises(InputError, match="No sample is trusted"):
        MetaWeightNetClassifier().fit(X, y, np.zeros(20, dtype=bool))


def test_recipes_with_transforms_train_too():
    """Pictures are augmented once for the step and its look ahead."""
    rng = np.random.default_rng(0)
    y = np.arange(48) % 2
    X = rng.integers(0, 100, (48, 8, 8, 1)) + 100 * y[:, None, None, None]
    recipe = replace(PLAIN, batch_size=16, augment=("flip", "crop"))
    method = MetaWeightNetClassifier(TorchClassifier("small_cnn", recipe=recipe), random_state=0)
    assert method.fit(X.astype(np.uint8), y, np.arange(48) < 8).model_.n_iter_ == 2
