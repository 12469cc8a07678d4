"""The training loop's arithmetic against hand-computed numbers and a plain loop."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

from pudistill import TorchClassifier
from pudistill.exceptions import InputError
from pudistill.learners.networks.architectures import mlp, preact_resnet18, small_cnn
from pudistill.learners.networks.batches import (
    balanced_order,
    move_to_device,
    shared_batches,
    split_batches,
)
from pudistill.learners.networks.cross_entropy import CrossEntropy
from pudistill.learners.networks.fitting import _measure_stack, stacking_pays
from pudistill.learners.networks.hardware import Hardware, choose_hardware, seeded
from pudistill.learners.networks.input_checks import are_certain
from pudistill.learners.networks.job import Job
from pudistill.learners.networks.likelihood import Likelihood
from pudistill.learners.networks.losses import (
    consistency_loss,
    label_posterior,
    likelihood_loss,
    soft_loss,
)
from pudistill.learners.networks.normalisation import Normalisation, network_input
from pudistill.learners.networks.objectives import Objective, step_on_trial
from pudistill.learners.networks.prediction import compute_embeddings, predict_probabilities
from pudistill.learners.networks.recipes import Recipe
from pudistill.learners.networks.trainer import Trainer

CROSS_ENTROPY, LIKELIHOOD = CrossEntropy(), Likelihood()
CPU = Hardware(torch.device("cpu"), torch.float32, bf16=False)
EXACT = Hardware(torch.device("cpu"), torch.float64, bf16=False)


def trained(*job, **options):
    """Train one network; return the loss of each epoch."""
    return [loss for (loss,) in Trainer([Job(*job, **options)])]


def test_soft_cross_entropy_by_hand():
    logits = torch.tensor([[math.log(1), math.log(3)], [0.0, 0.0]])
    targets = torch.tensor([[0.2, 0.8], [1.0, 0.0]])
    expected = (-0.2 * math.log(1 / 4) - 0.8 * math.log(3 / 4) + math.log(2)) / 2
    assert soft_loss(logits, targets).item() == pytest.approx(expected)


def test_entropy_by_hand():
    logits = torch.tensor([[math.log(1), math.log(3)], [0.0, 0.0]])
    targets = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    entropies = -0.25 * math.log(0.25) - 0.75 * math.log(0.75), math.log(2)
    added = soft_loss(logits, targets, 0.8) - soft_loss(logits, targets)
    assert added.item() == pytest.approx(0.8 * sum(entropies) / 2)


@given(st.integers(1, 9), st.integers(2, 6), st.integers(0, 2**31))
def test_without_entropy_the_loss_is_pytorchs_cross_entropy(n, n_classes, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, n_classes, generator=generator, dtype=torch.float64)
    targets = torch.rand(n, n_classes, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(soft_loss(logits, targets), cross_entropy(logits, targets))


def test_a_weight_of_two_equals_two_copies_in_the_loss():
    logits, targets = torch.randn(3, 4), torch.eye(4)[:3]
    weights = torch.tensor([2.0, 1.0, 1.0])
    weighted = soft_loss(logits, targets * (weights / weights.mean())[:, None], 0.8)
    copied = [0, 0, 1, 2]
    torch.testing.assert_close(weighted, soft_loss(logits[copied], targets[copied], 0.8))


def random_likelihoods(n, n_classes, seed):
    """Return logits, log-likelihoods that rule out some classes, and weights."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n, n_classes, generator=generator, dtype=torch.float64)
    likelihood = torch.rand(n, n_classes, generator=generator, dtype=torch.float64)
    possible = torch.rand(n, n_classes, generator=generator) < 0.7
    possible[:, seed % n_classes] = True
    weights = torch.rand(n, generator=generator, dtype=torch.float64)
    return logits.requires_grad_(), (likelihood * possible).log(), weights


RANDOM_LIKELIHOODS = (st.integers(1, 9), st.integers(2, 6), st.integers(0, 2**31))


def test_likelihood_by_hand():
    logits = torch.tensor([[math.log(1), math.log(3)], [0.0, 0.0]])
    likelihood = torch.tensor([[0.9, 0.2], [0.0, 0.4]])
    expected = (2 * -math.log(0.25 * 0.9 + 0.75 * 0.2) + 0.5 * -math.log(0.5 * 0.4)) / 2
    loss = likelihood_loss(logits, likelihood.log(), torch.tensor([2.0, 0.5]))
    assert loss.item() == pytest.approx(expected)


@given(*RANDOM_LIKELIHOODS)
def test_likelihood_of_a_certain_class_is_cross_entropy(n, n_classes, seed):
    logits, _, weights = random_likelihoods(n, n_classes, seed)
    targets = torch.eye(n_classes, dtype=torch.float64)[torch.arange(n) % n_classes]
    torch.testing.assert_close(
        likelihood_loss(logits, targets.log(), weights, entropy_weight=0.8),
        soft_loss(logits, targets * weights[:, None], entropy_weight=0.8),
    )


@given(*RANDOM_LIKELIHOODS)
def test_the_gradient_of_the_likelihood_is_that_of_cross_entropy_to_the_posterior(
    n, n_classes, seed
):
    logits, log_likelihood, weights = random_likelihoods(n, n_classes, seed)
    (ours,) = torch.autograd.grad(likelihood_loss(logits, log_likelihood, weights), logits)
    targets = label_posterior(logits, log_likelihood)
    assert not targets.requires_grad
    torch.testing.assert_close(targets.sum(1), torch.ones(n, dtype=torch.float64))
    expected = torch.autograd.grad(soft_loss(logits, targets * weights[:, None]), logits)
    torch.testing.assert_close(ours, *expected)


@given(*RANDOM_LIKELIHOODS, st.floats(-300, 300))
def test_the_scale_of_a_likelihood_does_not_change_the_gradient(n, n_classes, seed, shift):
    logits, log_likelihood, weights = random_likelihoods(n, n_classes, seed)
    gradients = [
        torch.autograd.grad(likelihood_loss(logits, log_likelihood + c, weights), logits)[0]
        for c in (0, shift)
    ]
    torch.testing.assert_close(*gradients)


def test_equal_likelihoods_have_no_gradient():
    logits = torch.randn(5, 4, requires_grad=True)
    loss = likelihood_loss(logits, torch.zeros(5, 4), torch.ones(5))
    loss.backward()
    torch.testing.assert_close(loss.detach(), torch.tensor(0.0))
    torch.testing.assert_close(logits.grad, torch.zeros(5, 4))


def test_extreme_logits_keep_likelihood_and_gradient_finite():
    logits = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    likelihood = torch.tensor([[0.0, 1.0, 0.0]])
    loss = likelihood_loss(logits, likelihood.log(), torch.ones(1))
    loss.backward()
    assert loss.item() == pytest.approx(2e4)
    assert logits.grad.tolist() == [[1.0, -1.0, 0.0]]


def test_consistency_by_hand():
    logits = torch.tensor([[0.0, math.log(3)], [0.0, 0.0], [5.0, 0.0]], requires_grad=True)
    sure = torch.tensor([[0.05, 0.95], [1.0, 0.0], [0.9, 0.1]])
    loss = consistency_loss(logits, sure, torch.tensor([1.0, 2.0, 0.0]))
    assert loss.item() == pytest.approx((-math.log(0.75) + 2 * math.log(2)) / 3)
    loss.backward()
    assert logits.grad[2].tolist() == [0, 0], "without weight"


@given(
    st.integers(1, 30), st.integers(1, 300), st.floats(0.02, 0.9), st.integers(1, 80), st.integers()
)
def test_every_batch_has_its_share_of_certain_samples(n_certain, n_others, share, size, seed):
    certain = torch.zeros(n_certain + n_others, dtype=torch.bool)
    certain[:n_certain] = True
    generator = torch.Generator().manual_seed(seed % 2**31)
    batches = shared_batches(certain, share, size, generator)
    others = torch.cat([batch[~certain[batch]] for batch in batches])
    assert others.sort().values.tolist() == list(range(n_certain, n_certain + n_others))
    drawn = torch.cat([batch[certain[batch]] for batch in batches]).bincount(minlength=n_certain)
    assert drawn.max() - drawn[:n_certain].min() <= 1, "drawn in turn"
    for batch in batches:
        n_sure = int(certain[batch].sum())
        assert n_sure < len(batch) <= size + 1
        # Both the number of certain samples and the number of uncertain samples are rounded.
        assert n_sure == 1 or abs(n_sure - share * len(batch)) <= 1.5


def test_certain_rows():
    targets = np.array([[0.0, 2.0], [0.5, 0.5], [1.0, 1e-9]])
    assert are_certain(targets).tolist() == [True, False, False]


@given(st.integers(1, 2000), st.integers(1, 300))
def test_batches_are_equal_and_complete(n, batch_size):
    batches = split_batches(torch.arange(n), batch_size)
    sizes = [len(batch) for batch in batches]
    assert torch.equal(torch.cat(batches), torch.arange(n))
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1
    assert len(sizes) == math.ceil(n / batch_size)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.integers(0, 2**31))
def test_balanced_order_balances_without_replacement(labels, seed):
    labels = torch.tensor(labels)
    order = balanced_order(labels, torch.Generator().manual_seed(seed))
    present, counts = labels.unique(return_counts=True)
    drawn, drawn_counts = labels[order].unique(return_counts=True)
    assert torch.equal(drawn, present)
    assert drawn_counts.eq(counts.min()).all()
    assert len(order.unique()) == len(order)


def test_balanced_order_changes_and_reaches_every_sample():
    labels = torch.tensor([0] * 90 + [1] * 10)
    generator = torch.Generator().manual_seed(0)
    draws = [set(balanced_order(labels, generator).tolist()) for _ in range(60)]
    assert draws[0] != draws[1]
    assert set().union(*draws) == set(range(100))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_normalisation_of_pictures(dtype):
    pictures = np.random.default_rng(0).integers(0, 256, (1500, 4, 5, 3)).astype(dtype)
    measured = Normalisation.of(pictures, np.ones(1500))
    np.testing.assert_allclose(measured.mean, pictures.astype(float).mean((0, 1, 2)))
    np.testing.assert_allclose(measured.scale, pictures.astype(float).std((0, 1, 2)))
    batch = network_input(torch.tensor(pictures), *measured.on(CPU))
    assert batch.shape == (1500, 3, 4, 5)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(batch.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)


def test_normalisation_uses_weights_and_does_not_scale_constants():
    table = np.array([[1.0, 1e6], [4.0, 1e6]])
    measured = Normalisation.of(table, np.array([2.0, 1.0]))
    np.testing.assert_allclose(measured.mean, [2, 1e6])
    np.testing.assert_allclose(measured.scale, [math.sqrt(2), 1])


def test_training_equals_a_plain_loop():
    rng = np.random.RandomState(0)
    table, targets = rng.randn(40, 6), np.eye(3)[rng.randint(3, size=40)]
    recipe = Recipe(epochs=4, learning_rate=0.1, milestones=(2,), batch_size=40, weight_decay=0.01)
    torch.manual_seed(0)
    ours, plain = mlp((6,), 3).double(), mlp((6,), 3).double()
    plain.load_state_dict(ours.state_dict())
    normalisation = Normalisation.of(table, np.ones(40))

    losses = trained(ours, table, targets, normalisation, recipe, EXACT, rng)

    x = torch.tensor((table - table.mean(0)) / table.std(0))
    optimiser = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimiser, [2])
    expected = []
    for _ in range(4):
        loss = cross_entropy(plain(x), torch.tensor(targets))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        scheduler.step()
        expected.append(loss.item())
    np.testing.assert_allclose(losses, expected)
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b)


class PlainStep(Objective):
    """Computes the gradients of the cross-entropy itself, after a look ahead."""

    def __init__(self):
        self.rates = []

    def backward(self, batch, rate):
        self.rates.append(rate)
        inputs, targets = batch.view(), batch.label * batch.weight[:, None]
        loss = soft_loss(batch.logits_with_gradient(inputs), targets)
        ahead = step_on_trial(batch.module, loss, rate)
        assert soft_loss(batch.logits_with_gradient(inputs, ahead), targets) < loss
        loss.backward()
        return loss


def test_an_objective_can_make_its_own_step():
    recipe = Recipe(epochs=2, learning_rate=0.05, milestones=(1,), batch_size=20)
    ours, plain = (jobs_of(small_cnn, (8, 8, 1), recipe, n_jobs=1)[0] for _ in range(2))
    objective = PlainStep()
    losses = list(Trainer([replace(ours, objective=objective)]))
    assert losses == list(Trainer([plain]))
    assert sorted(set(objective.rates)) == [pytest.approx(0.005), 0.05]
    torch.testing.assert_close(
        ours.module.state_dict(), plain.module.state_dict(), rtol=0, atol=0
    )  # also the batch statistics: the look ahead changes none


def test_a_step_on_trial_can_be_differentiated():
    network = nn.Linear(2, 1, bias=False).double()
    x, scale = torch.tensor([[1.0, 2.0]]).double(), torch.tensor(3.0).double().requires_grad_()
    loss = scale * (network(x) ** 2).sum()
    (weight,) = step_on_trial(network, loss, 0.1, create_graph=True).values()
    # w - 0.1 · s · 2 (w x) x, so that the derivative of its sum by s is -0.2 (w x) (1 + 2).
    (found,) = torch.autograd.grad(weight.sum(), scale)
    assert found.item() == pytest.approx(-0.6 * network(x).item())


class Attention(nn.Module):
    """Attention of positions to each other, whose fast kernels have no second derivatives."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x):
        heads = self.scale * x.view(len(x), 2, 4, 16)
        return scaled_dot_product_attention(heads, heads, heads).sum(dim=(1, 3))


class LookAhead(Objective):
    def backward(self, batch, rate):
        loss = soft_loss(batch.logits_with_gradient(batch.view()), batch.label)
        ahead = step_on_trial(batch.module, loss, rate, create_graph=True)
        later = soft_loss(batch.logits_with_gradient(batch.view(), ahead), batch.label)
        later.backward()
        return loss


def test_looking_ahead_works_with_attention():
    table, targets = np.random.RandomState(0).randn(8, 128), np.eye(4)[np.arange(8) % 4]
    normalisation = Normalisation.of(table, np.ones(8))
    recipe = Recipe(epochs=1, learning_rate=0.1)
    job = Job(
        Attention(), table, targets, normalisation, recipe, CPU, np.random.RandomState(0),
        objective=LookAhead(),
    )  # fmt: skip
    Trainer([job]).run_epoch()
    assert job.module.scale.item() != 1


class Recorder(nn.Module):
    """Remembers its batches."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(2))
        self.batches = []

    def forward(self, x):
        self.batches.append(x.detach().clone())
        return self.bias.expand(len(x), 2)


def test_every_epoch_is_a_new_order_of_all_samples():
    recorder, table = Recorder(), np.arange(10.0)[:, None]
    identity = Normalisation(np.zeros(1), np.ones(1))
    recipe = Recipe(epochs=2, learning_rate=0.1, batch_size=4)
    trained(recorder, table, np.eye(2)[[0, 1] * 5], identity, recipe, CPU, np.random.RandomState(0))
    assert [len(batch) for batch in recorder.batches] == [4, 3, 3] * 2
    first, second = (torch.cat(recorder.batches[part]).ravel() for part in (slice(3), slice(3, 6)))
    assert first.sort().values.tolist() == second.sort().values.tolist() == list(range(10))
    assert first.tolist() != second.tolist()


def test_a_share_of_each_batch_is_certain():
    recorder, table = Recorder(), np.arange(100.0)[:, None]
    likelihoods = np.ones((100, 2))
    likelihoods[:3] = [1.0, 0.0]
    identity = Normalisation(np.zeros(1), np.ones(1))
    recipe = Recipe(epochs=2, learning_rate=0.1, batch_size=8, trusted_share=0.25)
    rng = np.random.RandomState(0)
    trained(recorder, table, likelihoods, identity, recipe, CPU, rng, objective=LIKELIHOOD)
    assert {int((batch < 3).sum()) for batch in recorder.batches} == {2}
    assert len(recorder.batches) == 2 * math.ceil(97 / 6)

    recorder.batches.clear()
    enough = Recipe(epochs=1, learning_rate=0.1, batch_size=8, trusted_share=0.02)
    trained(recorder, table, likelihoods, identity, enough, CPU, rng, objective=LIKELIHOOD)
    assert torch.cat(recorder.batches).ravel().sort().values.tolist() == list(range(100))


@pytest.mark.parametrize(
    ("threshold", "n_learned"),
    [(0.95, 0), (None, 9)],  # all are as sure as the mean
)
def test_consistency_shows_open_pictures_twice_and_learns_from_sure_classes(threshold, n_learned):
    class Views(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.batches = nn.Parameter(torch.zeros(2)), []

        def forward(self, x):
            self.batches.append(x.detach().clone())
            return self.weight.expand(len(x), 2)

    pictures = np.random.default_rng(0).integers(1, 256, (12, 8, 8, 1), dtype=np.uint8)
    identity = Normalisation(np.zeros(1), np.ones(1))
    likelihoods = np.ones((12, 2))
    likelihoods[:3] = [0.0, 7.0]
    recipe = Recipe(
        epochs=1,
        learning_rate=0.1,
        batch_size=12,
        consistency_weight=0.5,
        consistency_threshold=threshold,
    )
    views = Views()
    (loss,) = trained(
        views, pictures, likelihoods, identity, recipe, CPU, np.random.RandomState(0),
        objective=LIKELIHOOD,
    )  # fmt: skip
    # All are looked at without a gradient; then the labelled ones and changed views of the others.
    weak, learned = views.batches
    assert sorted(map(torch.sum, weak)) == sorted(map(torch.sum, torch.tensor(pictures).float()))
    is_weak = [any(torch.equal(one, other) for other in weak) for one in learned]
    assert is_weak == [True] * 3 + [False] * 9
    # p = 1/2 everywhere: only the three pictures of certain class count in the likelihood.
    assert loss == pytest.approx((3 + 0.5 * n_learned) * math.log(2) / 12)


def test_each_batch_has_one_beta_from_the_beta_distribution():
    recorder, table = Recorder(), np.eye(64)
    identity = Normalisation(np.zeros(64), np.ones(64))
    recipe = Recipe(epochs=400, learning_rate=0.1, batch_size=64, mixup=2.0)
    trained(
        recorder, table, np.eye(2)[[0, 1] * 32], identity, recipe, CPU, np.random.RandomState(0)
    )
    # A mixed row holds β and 1 - β and nothing else.
    shares = torch.stack([batch.sort(dim=1).values[:, -1] for batch in recorder.batches])
    torch.testing.assert_close(shares, shares[:, :1].expand_as(shares))
    larger = shares[:, 0].numpy()
    assert larger.min() >= 0.5
    draws = np.random.RandomState(1).beta(2, 2, 100_000)
    assert larger.mean() == pytest.approx(np.maximum(draws, 1 - draws).mean(), abs=0.02)


def test_a_loss_that_explodes_names_the_learning_rate():
    recipe = Recipe(epochs=30, learning_rate=1e18, batch_size=8)
    table = np.random.RandomState(0).randn(16, 3)
    normalisation = Normalisation.of(table, np.ones(16))
    with pytest.raises(InputError, match="lower learning_rate, which is 1e"):
        trained(
            mlp((3,), 2),
            table,
            np.eye(2)[[0, 1] * 8],
            normalisation,
            recipe,
            CPU,
            np.random.RandomState(0),
        )


def jobs_of(factory, shape, recipe, n_jobs=3, objective=CROSS_ENTROPY, hardware=CPU):
    """Return jobs of networks with different weights, samples and random numbers."""
    jobs = []
    for seed in range(n_jobs):
        rng = np.random.RandomState(seed)
        inputs = rng.randint(0, 256, (20, *shape), dtype=np.uint8)
        with seeded(seed, CPU.device):
            network = factory((shape[-1], *shape[:-1]), 3).to(hardware.dtype)
        job = Job(
            network,
            inputs,
            np.eye(3)[rng.randint(3, size=20)] if objective == CROSS_ENTROPY else rng.rand(20, 3),
            Normalisation.of(inputs, np.ones(20)),
            recipe,
            hardware,
            rng,
            weights=rng.uniform(0.5, 1.5, 20),
            objective=objective,
        )
        jobs.append(job)
    return jobs


@pytest.mark.parametrize(
    ("factory", "objective", "hardware", "tolerance"),
    # In float32 the rounding errors of a deep network grow fast; float64 shows that nothing else
    # differs.
    [
        (small_cnn, CROSS_ENTROPY, CPU, 1e-4),
        (small_cnn, LIKELIHOOD, CPU, 1e-4),
        (small_cnn, LIKELIHOOD, EXACT, 1e-10),
        pytest.param(preact_resnet18, CROSS_ENTROPY, EXACT, 1e-10, marks=pytest.mark.slow),
    ],
)
def test_a_stack_takes_the_steps_that_its_networks_take_alone(
    factory, objective, hardware, tolerance
):
    recipe = Recipe(
        epochs=5 if factory is small_cnn else 1,  # of two steps each
        learning_rate=0.01,
        batch_size=10,
        augment=("flip", "crop"),
        mixup=2.0 if objective == CROSS_ENTROPY else 0.0,
        entropy_weight=0.8,
    )
    alone, together = (
        jobs_of(factory, (8, 8, 3), recipe, objective=objective, hardware=hardware)
        for _ in range(2)
    )
    assert all(job.can_stack_with(alone[0]) for job in alone)
    losses = [[loss for (loss,) in Trainer([job])] for job in alone]
    stacked = list(zip(*Trainer(together), strict=True))
    np.testing.assert_allclose(stacked, losses, rtol=tolerance)
    for first, second in zip(alone, together, strict=True):
        for name, value in first.module.state_dict().items():
            found = second.module.state_dict()[name]
            # Batch statistics are as large as activations, so their errors are larger.
            atol = 10 * tolerance if "running" in name else tolerance
            torch.testing.assert_close(found, value, atol=atol, rtol=0, msg=name)


def test_a_training_goes_on_from_its_state_as_if_it_had_not_stopped():
    recipe = Recipe(epochs=3, learning_rate=0.05, batch_size=10, consistency_weight=1.0)
    whole, half, rest = (
        jobs_of(small_cnn, (8, 8, 1), recipe, n_jobs=1, objective=LIKELIHOOD) for _ in range(3)
    )
    losses = list(Trainer(whole))
    stopped, goes_on = Trainer(half), Trainer(rest)
    stopped.run_epoch()
    goes_on.restore(stopped.state())
    assert list(goes_on) == losses[1:]


def test_jobs_with_different_steps_cannot_be_a_stack():
    recipe = Recipe(epochs=1, learning_rate=0.1)
    first, second = jobs_of(small_cnn, (8, 8, 1), recipe, n_jobs=2)
    assert first.can_stack_with(second)
    assert not first.can_stack_with(replace(second, balanced=True))
    assert not first.can_stack_with(replace(second, recipe=replace(recipe, epochs=2)))
    assert not first.can_stack_with(replace(second, module=preact_resnet18((1, 8, 8), 3)))
    assert not first.can_stack_with(
        replace(second, inputs=second.inputs[:9], targets=second.targets[:9])
    )
    assert not stacking_pays([first, second])  # on a CPU


def test_the_trial_of_a_stack_leaves_its_networks_as_they_were():
    jobs = jobs_of(small_cnn, (8, 8, 1), Recipe(epochs=3, learning_rate=0.1, batch_size=4))
    before = copy.deepcopy([(job.module.state_dict(), job.rng.get_state()[1]) for job in jobs])
    assert _measure_stack(jobs) in (True, False)
    for job, (weights, random_numbers) in zip(jobs, before, strict=True):
        torch.testing.assert_close(job.module.state_dict(), weights, rtol=0, atol=0)
        np.testing.assert_array_equal(job.rng.get_state()[1], random_numbers)


def test_samples_in_a_file_are_streamed_with_the_same_result(tmp_path, monkeypatch):
    recipe = Recipe(epochs=2, learning_rate=0.1, batch_size=4, augment=("crop",))
    in_memory, in_file = jobs_of(small_cnn, (8, 8, 1), recipe, n_jobs=1) * 2
    np.save(tmp_path / "pictures.npy", in_memory.inputs)
    mapped = np.load(tmp_path / "pictures.npy", mmap_mode="r")
    in_file = replace(
        in_file,
        inputs=np.asarray(mapped),
        module=copy.deepcopy(in_memory.module),
        rng=copy.deepcopy(in_memory.rng),
    )
    assert move_to_device([mapped], CPU.device)[0] is not None  # there is room
    monkeypatch.setattr("pudistill.learners.networks.batches.LARGEST_SHARE", 0)
    assert move_to_device([in_file.inputs], CPU.device) == [None]
    assert move_to_device([in_memory.inputs], CPU.device)[0] is not None
    assert list(Trainer([in_memory])) == list(Trainer([in_file]))


def test_samples_that_jobs_share_are_moved_once():
    inputs = np.zeros((4, 2))
    first, second, third = move_to_device([inputs, inputs, inputs.copy()], CPU.device)
    assert first is second
    assert first is not third
    mirrored = np.arange(6.0).reshape(2, 3)[:, ::-1]
    assert move_to_device([mirrored], CPU.device)[0].tolist() == mirrored.tolist()


def test_an_embedding_is_the_input_of_the_last_layer():
    pictures = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 1), dtype=np.uint8)
    normalisation = Normalisation.of(pictures, np.ones(50))
    network = small_cnn((1, 8, 8), 3)
    embedding = compute_embeddings(network, pictures, normalisation, CPU)
    assert embedding.shape == (50, 128)
    assert embedding.dtype == np.float32
    with torch.inference_mode():
        logits = network.classifier(torch.tensor(embedding))
    np.testing.assert_allclose(
        logits.double().softmax(dim=1),
        predict_probabilities(network, pictures, normalisation, CPU),
        rtol=1e-5,
    )
    without_linear_layer = compute_embeddings(nn.Flatten(), pictures, normalisation, CPU)
    assert without_linear_layer.shape == (50, pictures[0].size)


def test_pictures_with_negative_strides_are_accepted():
    pictures = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)
    network = TorchClassifier("small_cnn", epochs=1, random_state=0)
    found = [
        network.fit(same, np.arange(20) % 2).predict_proba(same)
        for same in (pictures[:, :, ::-1], pictures[:, :, ::-1].copy())
    ]
    np.testing.assert_array_equal(*found)


def test_probabilities_do_not_depend_on_the_batch(monkeypatch):
    pictures = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 1), dtype=np.uint8)
    normalisation = Normalisation.of(pictures, np.ones(50))
    network = small_cnn((1, 8, 8), 3).to(memory_format=torch.channels_last)
    at_once = predict_probabilities(network, pictures, normalisation, CPU)
    monkeypatch.setattr(
        "pudistill.learners.networks.prediction.PREDICTION_VALUES",
        {"cpu": 7 * 64, "accelerator": 1},
    )
    in_parts = predict_probabilities(network, pictures, normalisation, CPU)
    np.testing.assert_allclose(in_parts, at_once, atol=1e-6)
    np.testing.assert_allclose(at_once.sum(1), 1, atol=1e-12)


def test_seeding_restores_the_state_of_pytorch():
    before = torch.get_rng_state()
    with seeded(7, torch.device("cpu")):
        first = torch.rand(3)
    with seeded(7, torch.device("cpu")):
        assert torch.equal(first, torch.rand(3))
    assert torch.equal(before, torch.get_rng_state())


def test_hardware_of_different_precision_can_be_used_in_one_process():
    accelerate = pytest.importorskip("accelerate")
    host = accelerate.Accelerator(cpu=True, mixed_precision="no")
    assert choose_hardware("auto", "bf16", is_table=False).bf16
    assert not choose_hardware("auto", "fp32", is_table=False).bf16
    assert choose_hardware("cpu", "auto", is_table=True).dtype == torch.float64
    assert host.mixed_precision == "no"


@pytest.mark.parametrize(
    ("device", "precision", "named"),
    [("gpu", "auto", "gpu"), ("cuda:97", "auto", "cuda:97"), ("cpu", "fp16", "fp16")],
)
def test_impossible_hardware_is_named(device, precision, named):
    with pytest.raises(InputError, match=named):
        choose_hardware(device, precision, is_table=False)
