"""Robust losses against values of their authors' code, limits, and enumeration."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_iris
from torch.nn.functional import cross_entropy as torch_cross_entropy

from pudistill import InputError, TorchClassifier
from pudistill.learners.networks.fitting import fit_together
from pudistill.learners.networks.losses import entropy, split_by_loss
from pudistill.learners.networks.recipes import Recipe
from pudistill.learners.networks.registry import OBJECTIVES
from pudistill.learners.networks.robust_losses import (
    SIGUA,
    ActivePassive,
    BackwardCorrection,
    GeneralisedCrossEntropy,
    HardBootstrap,
    MeanAbsoluteError,
    SoftBootstrap,
    SymmetricCrossEntropy,
    TaylorCrossEntropy,
    cross_entropy,
    focal_loss,
    generalised_cross_entropy,
    mean_absolute_error,
    normalised,
    reverse_cross_entropy,
    taylor_cross_entropy,
)
from pudistill.learners.networks.trainer import Trainer
from tests.helpers.training import batch_of

RECIPE = Recipe(epochs=10, learning_rate=0.1, batch_size=4)
LOGITS = torch.tensor(
    [[2, 0, -1], [0.5, 1.5, -0.5], [-1, 0, 3], [0, 0.5, 0.25]], dtype=torch.float64
)
LABELS = torch.tensor([0, 2, 2, 0])
TARGETS = torch.eye(3, dtype=torch.float64)[LABELS]
T = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]])
CORRECTED = torch.tensor(np.linalg.inv(T))[LABELS]
ROBUST = sorted(set(OBJECTIVES) - {"cross_entropy", "likelihood"})


def loss_of(objective, logits=LOGITS, targets=TARGETS, epoch=0, recipe=RECIPE):
    objective.begin_epoch(epoch)
    return objective.loss(logits, targets, batch_of(targets, recipe=recipe))


# Values


@pytest.mark.parametrize(
    ("objective", "targets", "theirs"),
    [
        (SoftBootstrap(), TARGETS, 0.986873504912545),
        (HardBootstrap(), TARGETS, 0.8781684930409434),
        (MeanAbsoluteError(), TARGETS, 2 * 0.4689149819703272),  # theirs is half of the paper's
        (BackwardCorrection(), CORRECTED, 0.3073351597076099),
        (GeneralisedCrossEntropy(), TARGETS, 0.5672607150309711),
        (SymmetricCrossEntropy(), TARGETS, 4.419183498744927),
        (ActivePassive(), TARGETS, 4.573342970647272),
        (ActivePassive(passive="mean_absolute_error"), TARGETS, 0.723391303176766),
        (ActivePassive("focal_loss", "mean_absolute_error"), TARGETS, 0.7325704943669448),
        (ActivePassive("focal_loss"), TARGETS, 4.582522161837451),
        (ActivePassive(passive_weight=0), TARGETS, 0.2544763212064388),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, tuple(OBJECTIVES.values())) else "",
)
def test_values_of_the_authors_code(objective, targets, theirs):
    """X. Ma's code and Y. Wang's, which also has the bootstrap and backward correction."""
    assert loss_of(objective, targets=targets).item() == pytest.approx(theirs, rel=1e-6)


def test_truncation_as_in_other_peoples_code():
    """AlanChou/Truncated-Loss, which subtracts the constant of the truncated labels."""
    losses = generalised_cross_entropy(LOGITS, 0.7, 0.5)[range(4), LABELS]
    constant = (1 - 0.5**0.7) / 0.7
    assert (losses - constant).mean().item() == pytest.approx(-0.21845986486780122)


def test_sigua_as_in_the_authors_code():
    loss = loss_of(SIGUA(noise_rate=0.5, unlearned=0.5), epoch=9)
    assert loss.item() == pytest.approx(0.1041715808128006)


def test_taylor_by_hand():
    p = LOGITS.softmax(dim=1)[range(4), LABELS]
    expected = (1 - p) + (1 - p) ** 2 / 2 + (1 - p) ** 3 / 3
    assert loss_of(TaylorCrossEntropy(3)).item() == pytest.approx(expected.mean().item())


# Limits


def test_generalised_cross_entropy_goes_from_cross_entropy_to_absolute_error():
    near_zero = generalised_cross_entropy(LOGITS, q=1e-9)
    torch.testing.assert_close(near_zero, cross_entropy(LOGITS), rtol=1e-6, atol=0)
    one = generalised_cross_entropy(LOGITS, q=1)
    torch.testing.assert_close(2 * one, mean_absolute_error(LOGITS))


def test_the_taylor_series_goes_from_absolute_error_to_cross_entropy():
    first = taylor_cross_entropy(LOGITS, 1)
    torch.testing.assert_close(2 * first, mean_absolute_error(LOGITS))
    many = taylor_cross_entropy(LOGITS, 2000)
    torch.testing.assert_close(many, cross_entropy(LOGITS))


def test_a_bootstrap_of_labels_alone_is_cross_entropy():
    expected = torch_cross_entropy(LOGITS, LABELS)
    for objective in (SoftBootstrap(1), HardBootstrap(1), SIGUA(noise_rate=0)):
        torch.testing.assert_close(loss_of(objective, epoch=9), expected)


LISTS = st.lists(st.floats(-30, 30), min_size=4, max_size=4)


@given(LISTS, st.floats(0.05, 1))
def test_sums_over_the_classes_are_bounded(values, q):
    """What makes a loss robust: for absolute error and normalised losses, the sum is constant."""
    logits, C = torch.tensor([values], dtype=torch.float64), 4
    assert mean_absolute_error(logits).sum().item() == pytest.approx(2 * (C - 1))
    for losses in (cross_entropy(logits), focal_loss(logits)):
        ours = normalised(losses)
        assert ours.sum().item() == pytest.approx(1)
        assert ((ours >= 0) & (ours <= 1)).all()
    total = generalised_cross_entropy(logits, q).sum().item()
    assert (C - C ** (1 - q)) / q - 1e-9 <= total <= (C - 1) / q + 1e-9


@pytest.mark.parametrize(
    "losses",
    [mean_absolute_error, reverse_cross_entropy, lambda logits: normalised(cross_entropy(logits))],
    ids=["mean_absolute_error", "reverse_cross_entropy", "normalised_cross_entropy"],
)
def test_uniform_noise_only_scales_and_shifts_a_robust_loss(losses):
    rate, C = 0.5, 3
    uniform = torch.tensor((1 - rate - rate / (C - 1)) * np.eye(C) + rate / (C - 1))
    clean = losses(LOGITS)
    noisy = clean @ uniform.T  # mean over the given labels of each true class
    constant = noisy - (1 - rate * C / (C - 1)) * clean
    torch.testing.assert_close(constant, constant[:1, :1].expand(4, 3))


def test_backward_correction_is_unbiased():
    """Its mean over the given labels of a class, by enumeration, is the cross-entropy."""
    inverse = torch.tensor(np.linalg.inv(T))
    for c in range(3):
        of_given = [
            loss_of(BackwardCorrection(), targets=inverse[j].expand(4, 3)) for j in range(3)
        ]
        mean = sum(share * loss for share, loss in zip(T[c], of_given, strict=True))
        torch.testing.assert_close(mean, cross_entropy(LOGITS)[:, c].mean())


def test_backward_correction_is_bounded_below():
    far = torch.tensor([[0.0, -1e4, 0.0]], dtype=torch.float64)
    signed = torch.tensor([[1.5, -1.0, 0.5]], dtype=torch.float64)
    assert -17 < loss_of(BackwardCorrection(), far, signed).item() < 0


# Gradients


@pytest.mark.parametrize("name", ROBUST)
def test_gradients(name):
    """Against differences; and they stay finite where a prediction is certain."""
    objective = OBJECTIVES[name]()
    logits = LOGITS.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss_of(objective, x, epoch=9), logits)
    for dtype in (torch.float32, torch.float64):
        certain = (1000 * TARGETS.roll(1, 0) + TARGETS).to(dtype).requires_grad_()
        loss_of(objective, certain, TARGETS.to(dtype), epoch=9).backward()
        assert certain.grad.isfinite().all()


def learned(objective, epoch):
    """Samples whose gradient is not zero."""
    logits = LOGITS.clone().requires_grad_()
    loss_of(objective, logits, epoch=epoch).backward()
    return (logits.grad.abs().sum(dim=1) > 1e-12).tolist()


def test_improbable_labels_are_truncated_once_the_network_has_decided():
    p, q = LOGITS.softmax(dim=1), 0.5
    assert (p[range(4), LABELS] > q).tolist() == [True, False, True, False]
    assert (p.amax(dim=1) > q).tolist() == [True, True, True, False]
    objective = GeneralisedCrossEntropy(warm_up=0.4)
    assert learned(objective, 3) == [True] * 4
    assert learned(objective, 4) == [True, False, True, True]
    assert learned(GeneralisedCrossEntropy(threshold=0), 9) == [True] * 4


def test_sigua_never_unlearns_trusted_samples():
    settings = {"noise_rate": 0.5, "warm_up": 0.1, "unlearned": 1}
    assert learned(SIGUA(**settings, scale=0), 9) == [True, False, True, False]
    trusted = torch.tensor([False, True, False, True])
    assert learned(SIGUA(**settings, scale=0, trusted=trusted), 9) == trusted.tolist()
    assert learned(SIGUA(**settings, scale=0), 0) == [True] * 4


def test_a_split_keeps_trusted_samples_and_at_least_one():
    losses = torch.tensor([3.0, 1.0, 4.0, 2.0])
    assert split_by_loss(losses, 0.0)[0].tolist() == [1]
    kept, others = split_by_loss(losses, 0.75, losses == 4)
    assert (kept.tolist(), others.tolist()) == ([2, 1, 3], [0])


# Weights and terms of the recipe


@pytest.mark.parametrize("name", ROBUST)
def test_weights_and_entropy_term(name):
    objective = OBJECTIVES[name]()
    loss = loss_of(objective)
    torch.testing.assert_close(loss_of(objective, targets=3 * TARGETS), 3 * loss)
    with_entropy = loss_of(objective, recipe=replace(RECIPE, entropy_weight=0.5))
    expected = loss + 0.5 * entropy(LOGITS.log_softmax(dim=1)).mean()
    torch.testing.assert_close(with_entropy, expected)


# As losses of `TorchClassifier`

IRIS = load_iris(return_X_y=True)


@pytest.mark.parametrize("name", ROBUST)
def test_every_loss_trains_a_network(name):
    settings = {"loss": name, "random_state": 0, "precision": "fp32"}
    network = TorchClassifier(**settings, epochs=40).fit(*IRIS)
    assert network.score(*IRIS) > 0.8  # SIGUA leaves out a fifth: it was not told the noise rate
    stored = TorchClassifier.from_state(*network.to_state())
    np.testing.assert_array_equal(stored.predict_proba(IRIS[0]), network.predict_proba(IRIS[0]))
    soft = np.eye(3)[IRIS[1]] * 0.9 + 0.1 / 3
    mixed = TorchClassifier(**settings, epochs=2, mixup=1.0).fit(IRIS[0], soft)
    assert np.isfinite(mixed.loss_curve_).all()
    # As a stack.
    alone, *stack = [TorchClassifier(**settings, epochs=4) for _ in range(3)]
    alone.fit(*IRIS)
    fit_together(stack, [(*IRIS, None)] * 2, stack=lambda _: True)
    np.testing.assert_allclose(stack[1].loss_curve_, alone.loss_curve_, rtol=1e-4)


@pytest.mark.parametrize("name", ["generalised_cross_entropy", "sigua"])
def test_an_interrupted_training_goes_on_in_its_epoch(name):
    network = TorchClassifier(loss=name, random_state=0, epochs=4)
    whole, half, rest = (copy.deepcopy(network).make_job(*IRIS) for _ in range(3))
    losses = list(Trainer([whole]))
    stopped, goes_on = Trainer([half]), Trainer([rest])
    assert stopped.can_be_saved
    stopped.run_epoch(), stopped.run_epoch()
    goes_on.restore(stopped.state())
    assert list(goes_on) == losses[2:]


def test_targets_of_backward_correction():
    X, y = IRIS
    signed = np.linalg.inv(T)[y]
    assert TorchClassifier(loss="backward_correction", epochs=20).fit(X, signed).score(X, y) > 0.9
    with pytest.raises(InputError, match=r"non-negative and sum to 1, but row 0 of y"):
        TorchClassifier().fit(X, signed)
    with pytest.raises(InputError, match=r"Soft targets must sum to 1, but row 3 of y"):
        TorchClassifier(loss="backward_correction").fit(
            X, np.where(np.arange(150) == 3, 2, signed.T).T
        )
    pictures = np.zeros((6, 8, 8), dtype=np.uint8)
    network = TorchClassifier(loss="backward_correction", consistency_weight=1)
    with pytest.raises(InputError, match="set consistency_weight=0"):
        network.fit(pictures, np.arange(6) % 2)
