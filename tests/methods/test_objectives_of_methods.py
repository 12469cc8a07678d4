"""The objective of each method, against values computed by hand or by a second library."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import rel_entr, softmax
from scipy.stats import beta, entropy
from sklearn.mixture import GaussianMixture

from pudistill import TorchClassifier
from pudistill.labels.checks import Labels
from pudistill.labels.samples import check_samples
from pudistill.learners.networks.hardware import choose_hardware
from pudistill.learners.networks.losses import prior_loss
from pudistill.learners.networks.recipes import scaled_learning_rate
from pudistill.methods import l_dmi
from pudistill.methods.base import LabelledSamples
from pudistill.methods.co_teaching import CoTeaching
from pudistill.methods.dividemix import CoDivision, DivideMix, sharpen, small_loss_proba
from pudistill.methods.jocor import joint_loss
from pudistill.methods.joint_optimization import JointOptimization
from pudistill.methods.l_dmi import determinant_loss
from pudistill.methods.label_distillation import best_blend
from pudistill.methods.loss_correction import BetaMixture, DynamicBootstrapping, sample_losses
from pudistill.methods.noise_level import NoiseLevel, anchor_matrix, estimate_noise_level
from pudistill.utils.progress import epoch_callback
from tests.helpers.training import PLAIN, batch_of

RNG = np.random.default_rng(0)
LOGITS = torch.tensor(RNG.normal(size=(2, 6, 3)))
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])
PROBA = softmax(LOGITS.numpy(), axis=2)


# Small losses


def test_the_share_to_learn_from_falls_to_one_minus_the_noise_rate():
    objective = CoTeaching(0.4, 100, 0.05, torch.zeros(6, dtype=torch.bool))
    kept = []
    for epoch in (0, 1, 4, 5, 99):
        objective.begin_epoch(epoch)
        kept.append(objective.kept_share)
    assert kept == pytest.approx([1, 0.92, 0.68, 0.6, 0.6])


def test_co_teaching_learns_samples_with_a_small_loss_in_the_other_network():
    objective = CoTeaching(0.5, 10, 0.1, torch.zeros(6, dtype=torch.bool))
    objective.begin_epoch(5)
    batch = batch_of(LABELS)
    _, loss_fn = objective(batch)
    losses = -np.log(PROBA[:, range(6), LABELS])
    easy = np.argsort(losses, axis=1)[:, :3]
    expected = losses[0, easy[1]].mean() + losses[1, easy[0]].mean()
    assert loss_fn(LOGITS).item() == pytest.approx(expected)


def test_trusted_samples_are_never_left_out():
    worst = int(np.argmax(-np.log(PROBA[0, range(6), LABELS])))
    objective = CoTeaching(0.9, 10, 0.1, torch.arange(6) == worst)
    objective.begin_epoch(9)
    losses = torch.tensor(-np.log(PROBA[0, range(6), LABELS]))
    assert objective.smallest(losses, batch_of(LABELS)).tolist() == [worst]


@pytest.mark.parametrize("agreement", [0.0, 0.3, 1.0])
def test_joint_loss_of_jocor(agreement):
    p, q = PROBA
    supervised = -np.log(PROBA[:, range(6), LABELS]).sum(axis=0)
    divergence = rel_entr(p, q).sum(axis=1) + rel_entr(q, p).sum(axis=1)
    expected = (1 - agreement) * supervised + agreement * divergence
    np.testing.assert_allclose(joint_loss(LOGITS, LABELS, agreement), expected)


# Joint Optimization


def test_both_terms_of_joint_optimization():
    prior = np.array([0.2, 0.3, 0.5])
    objective = JointOptimization(
        torch.eye(3, dtype=torch.float64)[LABELS],
        torch.tensor(prior),
        torch.zeros(6, dtype=torch.bool),
        prior_weight=1.2,
        entropy_weight=0.8,
        keep_until=1,
        n_averaged=2,
    )
    _, loss_fn = objective(batch_of(LABELS))
    p = PROBA[0]
    supervised = -np.log(p[range(6), LABELS]).mean()
    spread = rel_entr(prior, p.mean(axis=0)).sum()
    expected = supervised + 1.2 * spread + 0.8 * entropy(p, axis=1).mean()
    assert loss_fn(LOGITS[0]).item() == pytest.approx(expected)


def test_labels_become_the_average_of_the_last_predictions():
    trusted = torch.arange(6) == 0
    objective = JointOptimization(
        torch.eye(3, dtype=torch.float64)[LABELS],
        torch.full((3,), 1 / 3),
        trusted,
        prior_weight=1,
        entropy_weight=0,
        keep_until=2,
        n_averaged=2,
    )
    given_labels = objective.current.clone()
    answers = [LOGITS[0], LOGITS[1], LOGITS.mean(dim=0)]
    for epoch, answer in enumerate(answers):
        objective.begin_epoch(epoch)
        if epoch < 2:
            torch.testing.assert_close(objective.current, given_labels)
        _, loss_fn = objective(batch_of(LABELS))
        loss_fn(answer)
    average = (PROBA[0] + PROBA[1]) / 2  # of epochs 0 and 1
    np.testing.assert_allclose(objective.current[1:], average[1:])
    np.testing.assert_allclose(objective.current[0], [1, 0, 0])
    last = (PROBA[1] + softmax(answers[2].numpy(), axis=1)) / 2
    np.testing.assert_allclose(objective.final_labels()[1:], last[1:])


@given(st.lists(st.floats(-5, 5), min_size=6, max_size=6), st.floats(0.01, 0.99))
def test_the_prior_term_is_a_divergence(values, share):
    prior = torch.tensor([share, 1 - share], dtype=torch.float64)
    logits = torch.tensor(values, dtype=torch.float64).reshape(3, 2)
    assert prior_loss(logits, prior) > -1e-12
    assert prior_loss(prior.log().expand(3, 2), prior).item() == pytest.approx(0, abs=1e-12)


# Loss Correction


def test_a_step_of_the_beta_mixture_by_hand():
    losses = RNG.uniform(0.05, 0.95, 200)
    share = 0.5 * np.array([beta.pdf(losses, 1, 2), beta.pdf(losses, 2, 1)])
    share /= share.sum(axis=0)
    expected = []
    for weights in share:
        mean = np.average(losses, weights=weights)
        variance = np.average((losses - mean) ** 2, weights=weights)
        a = mean * (mean * (1 - mean) / variance - 1)
        expected.append((a, a * (1 - mean) / mean, weights.mean()))
    found = BetaMixture.fit(losses, n_steps=1)
    np.testing.assert_allclose(np.array([found.a, found.b, found.weight]).T, expected, rtol=1e-6)


def test_the_beta_mixture_finds_the_distributions_of_the_losses():
    losses = np.concatenate([RNG.beta(2, 20, 6000), RNG.beta(20, 3, 4000)])
    found = BetaMixture.fit(losses, n_steps=50)
    np.testing.assert_allclose(found.weight, [0.6, 0.4], atol=0.02)
    np.testing.assert_allclose(found.a / (found.a + found.b), [2 / 22, 20 / 23], atol=0.01)
    wrong = found.large(losses) > 0.5
    assert np.mean(wrong == (np.arange(10_000) >= 6000)) > 0.99


@given(st.lists(st.floats(0.001, 0.999), min_size=4, max_size=40))
def test_the_probability_of_a_wrong_label_is_a_probability(values):
    losses = np.array(values)
    wrong = BetaMixture.fit(losses).large(losses)
    assert np.isfinite(wrong).all()
    assert (wrong >= 0).all()
    assert (wrong <= 1).all()


class FixedJob:
    """A job whose network has fixed predictions."""

    def __init__(self, proba, labels):
        self.proba = proba
        self.targets = np.eye(proba.shape[1])[labels]
        self.hardware = choose_hardware("cpu", "fp32", is_table=True)
        self.recipe = PLAIN
        self.module = torch.nn.Identity()

    def predict(self):
        return self.proba


def confident(labels, n_classes=2, sure=0.95):
    rest = (1 - sure) / (n_classes - 1)
    noise = RNG.uniform(-0.01, 0.01, len(labels))
    proba = np.full((len(labels), n_classes), rest) - noise[:, None] / (n_classes - 1)
    proba[np.arange(len(labels)), labels] = sure + noise
    return proba


def test_predictions_take_over_where_the_loss_is_large():
    true = np.arange(200) % 2
    labels = np.where(np.arange(200) < 60, 1 - true, true)
    trusted = np.arange(200) == 5
    job = FixedJob(confident(true), labels)
    objective = DynamicBootstrapping(job, trusted, alpha=1, prior_weight=0, warm_up=3)
    objective.begin_epoch(2)
    assert objective.targets is None
    objective.begin_epoch(3)
    learned = objective.targets.argmax(dim=1).numpy()
    np.testing.assert_array_equal(learned[~trusted], true[~trusted])
    assert learned[5] == labels[5]


# DivideMix


def test_losses_are_divided_by_scikit_learns_mixture():
    losses = np.concatenate([RNG.normal(0.2, 0.05, 300), RNG.normal(0.8, 0.05, 100)])
    mixture = GaussianMixture(2, random_state=0, tol=1e-2, max_iter=10, reg_covar=5e-4)
    expected = mixture.fit(losses[:, None]).predict_proba(losses[:, None])
    np.testing.assert_allclose(small_loss_proba(losses), expected[:, mixture.means_.argmin()])
    assert small_loss_proba(np.full(5, 0.3)).tolist() == [1] * 5


def test_each_network_is_divided_by_the_other():
    true = np.arange(100) % 2
    labels = np.where(np.arange(100) < 40, 1 - true, true)
    memorised = confident(labels)  # predictions of the given labels: all losses are small
    jobs = [FixedJob(confident(true), labels), FixedJob(memorised, labels)]
    division = CoDivision(jobs, np.arange(100) == 0, n_averaged=1, seed=0)
    objectives = [objective_of(division, own) for own in (0, 1)]
    for objective in objectives:
        objective.begin_epoch(1)
    wrong = np.arange(100) < 40
    by_first = objectives[1].clean.numpy()  # what the second learns from
    np.testing.assert_array_equal(by_first[1:] < 0.5, wrong[1:])
    assert by_first[0] == 1  # trusted
    np.testing.assert_allclose(objectives[0].clean, division.clean_proba[1])
    batches = objectives[1].batches(torch.Generator().manual_seed(0))
    labelled = torch.cat([batch[: len(batch) // 2] for batch in batches])
    assert sorted(labelled.tolist()) == sorted(np.flatnonzero(by_first > 0.5).tolist())
    assert all(set(b[len(b) // 2 :].tolist()) <= set(range(1, 40)) for b in batches)


def test_without_a_sample_that_is_probably_right_all_labels_are_learned():
    labels = np.arange(100) % 2
    jobs = [FixedJob(confident(labels), 1 - labels) for _ in range(2)]
    division = CoDivision(jobs, np.zeros(100, dtype=bool), n_averaged=1, seed=0)
    objective = objective_of(division, threshold=1.0)
    objective.begin_epoch(1)
    assert objective.clean is None
    assert objective.batches(torch.Generator()) is None


@pytest.mark.parametrize("scale", [1.0, 0.1])
@pytest.mark.parametrize("own_rate", [None, 0.5])
def test_the_second_training_of_l_dmi_has_a_share_of_the_rate_of_the_first(
    scale, own_rate, monkeypatch
):
    rates = []
    monkeypatch.setattr(
        l_dmi,
        "fit_objective",
        lambda networks, jobs, seed: rates.append(jobs[0].recipe.learning_rate),
    )
    X, y = RNG.normal(size=(40, 2)), np.arange(40) % 2
    method = l_dmi.LDMIClassifier(TorchClassifier("mlp", learning_rate=own_rate), random_state=0)
    with scaled_learning_rate(scale):
        checked = check_samples(method, X, y, None, [method.estimator])[1]
        method._learn(LabelledSamples(X, y, np.zeros(40, dtype=bool), 2, checked), 0)
    assert rates[1] == pytest.approx(0.03 * rates[0])


def objective_of(division, own=0, **params):
    settings = {
        "unlabelled_weight": 25.0,
        "warm_up": 1,
        "ramp_up": 4,
        "warm_up_penalty": 0.0,
        "threshold": 0.5,
        "sharpness": 2.0,
        "alpha": 4.0,
    }
    return DivideMix(division, own=own, **settings | params)


def test_sharpening():
    np.testing.assert_allclose(sharpen(torch.tensor([[0.8, 0.2]]), 2.0), [[64 / 68, 4 / 68]])


def test_labels_are_refined_and_guessed():
    """Without mixing: the loss against targets computed by hand."""
    answers = torch.tensor(RNG.normal(size=(2, 4, 3)))  # of each network, for rows 0 to 3

    class Fixed(torch.nn.Module):
        def __init__(self, logits):
            super().__init__()
            self.logits = logits

        def forward(self, x):
            return self.logits[x[:, 0].long()]

    jobs = [FixedJob(np.full((4, 3), 1 / 3), LABELS[:4].numpy()) for _ in range(2)]
    for job, logits in zip(jobs, answers, strict=True):
        job.module = Fixed(logits)
    division = CoDivision(jobs, np.zeros(4, dtype=bool), n_averaged=1, seed=0)
    objective = objective_of(division, alpha=1e-9)  # Beta's ends: 0 or 1, and the larger is taken
    objective.clean = torch.tensor([0.9, 0.6, 0.1, 0.2], dtype=torch.float64)
    objective.progress = 0.5
    raw = torch.arange(4.0, dtype=torch.float64)[:, None].expand(4, 2)
    inputs, loss_fn = objective(batch_of(LABELS[:4], raw))
    assert inputs[:, 0].tolist() == [0, 1, 0, 1, 2, 3, 2, 3]

    own, peer = softmax(answers.numpy(), axis=2)
    y = np.eye(3)[LABELS[:2]]
    clean = np.array([[0.9], [0.6]])
    refined = (clean * y + (1 - clean) * own[:2]) ** 2
    guessed = ((own[2:] + peer[2:]) / 2) ** 2
    refined /= refined.sum(axis=1, keepdims=True)
    guessed /= guessed.sum(axis=1, keepdims=True)
    logits = answers[0][inputs[:, 0].long()]
    p = softmax(logits.numpy(), axis=1)
    labelled = -(np.tile(refined, (2, 1)) * np.log(p[:4])).sum(axis=1).mean()
    unlabelled = ((p[4:] - np.tile(guessed, (2, 1))) ** 2).mean()
    spread = rel_entr(np.full(3, 1 / 3), p.mean(axis=0)).sum()
    expected = labelled + 0.5 * 25 * unlabelled + spread
    assert loss_fn(logits).item() == pytest.approx(expected, rel=1e-6)


# L_DMI


def test_determinant_loss_by_hand():
    joint = PROBA[0].T @ np.eye(3)[LABELS] / 6 + 0.01 / 3 * np.eye(3)
    expected = -math.log(abs(np.linalg.det(joint)))
    loss = determinant_loss(LOGITS[0], torch.eye(3, dtype=torch.float64)[LABELS])
    assert loss.item() == pytest.approx(expected)


def test_noise_only_shifts_the_determinant_loss():
    """Noise that depends on the class adds the same constant to the losses of two classifiers."""
    labels = np.repeat([0, 1, 2], 100)
    good, bad = (torch.tensor(np.log(confident(labels, 3, sure))) for sure in (0.95, 0.6))
    T = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.2, 0.2, 0.6]])
    clean, noisy = torch.tensor(np.eye(3)[labels]), torch.tensor(T[labels])
    shift = [
        (determinant_loss(logits, noisy) - determinant_loss(logits, clean)).item()
        for logits in (good, bad)
    ]
    assert shift[0] == pytest.approx(-math.log(np.linalg.det(T)), abs=0.05)
    assert shift[1] == pytest.approx(shift[0], abs=0.05)


def test_a_batch_without_a_class_still_has_a_gradient():
    logits = torch.zeros(4, 3, requires_grad=True)
    determinant_loss(logits, torch.eye(3)[torch.tensor([0, 0, 1, 1])]).backward()
    assert torch.isfinite(logits.grad).all()


# Estimates


def test_best_blend_has_the_smallest_risk():
    risk = minimize_scalar(lambda blend: blend**2 * 0.6 + (1 - blend) ** 2 * 0.2)
    assert best_blend(0.2, 0.6) == pytest.approx(risk.x)
    assert best_blend(0, 0) == 1


@pytest.mark.parametrize("use_trusted", [True, False])
def test_noise_level_is_estimated(use_trusted):
    rng = np.random.default_rng(0)
    n = 2000
    true = rng.integers(0, 3, n)
    T = np.array([[0.6, 0.4, 0], [0, 0.7, 0.3], [0.1, 0, 0.9]])
    given_labels = np.array([rng.choice(3, p=T[c]) for c in true])
    trusted = (np.arange(n) < 600) & use_trusted
    labels = np.where(trusted, true, given_labels)
    X = np.eye(3)[true] * 6 + rng.normal(size=(n, 3))
    level = estimate_noise_level(
        lambda samples: TorchClassifier(random_state=0).fit(samples.X, samples.targets),
        LabelledSamples(X, labels, trusted, 3, Labels(np.arange(3), labels, trusted, labels)),
    )
    assert level.rate == pytest.approx((labels != true).mean(), abs=0.05)
    np.testing.assert_allclose(level.transition_matrix, T, atol=0.08)
    assert level.is_asymmetric
    even = np.full((3, 3), 0.2) + 0.4 * np.eye(3)
    assert not NoiseLevel(0.4, even).is_asymmetric
    assert not NoiseLevel(0.0, np.eye(3)).is_asymmetric


def test_anchors_are_at_the_quantile():
    proba = np.column_stack([np.linspace(0, 1, 101), 1 - np.linspace(0, 1, 101)])
    np.testing.assert_allclose(anchor_matrix(proba, 0.97), [[0.97, 0.03], [0.03, 0.97]])


def test_losses_of_impossible_labels_are_finite():
    assert np.isfinite(sample_losses(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]))).all()


# Epoch callback


def test_the_callback_is_called_after_each_epoch():
    X, y = np.eye(2)[np.arange(20) % 2] + RNG.normal(size=(20, 2)) / 9, np.arange(20) % 2
    seen = []
    with epoch_callback(lambda epoch, networks: seen.append((epoch, networks[0].score(X, y)))):
        network = TorchClassifier(epochs=3, random_state=0).fit(X, y)
    assert [epoch for epoch, _ in seen] == [1, 2, 3]
    assert seen[-1][1] == network.score(X, y)
