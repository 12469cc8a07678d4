"""MetaCleaner, MLNT, DeepSelf and CleanNet, against values computed by hand or another way."""

import copy

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, rel_entr, softmax
from sklearn.datasets import make_blobs
from torch import nn
from torch.func import functional_call, hessian
from torch.nn.functional import cross_entropy, kl_div, scaled_dot_product_attention

from pudistill import InputError, TorchClassifier
from pudistill.labels.checks import check_labels
from pudistill.methods import (
    CleanNetClassifier,
    DeepSelfClassifier,
    MetaCleanerClassifier,
    MLNTClassifier,
)
from pudistill.methods.base import LabelledSamples
from pudistill.methods.cleannet import JointEmbedding, reference_sets, relevance_loss
from pudistill.methods.deepself import (
    LARGEST_SIMILARITY,
    NEAR_QUANTILE,
    SelfLearning,
    choose_prototypes,
    correct_by_prototypes,
)
from pudistill.methods.metacleaner import CleanHallucinating, MetaCleaner, hallucinate
from pudistill.methods.mlnt import NoiseTolerance, nearest, perturb
from pudistill.utils.progress import epoch_callback
from tests.helpers.training import batch_of, generator

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def blobs():
    """Three groups: every third label names the next class, and 24 of 240 samples are trusted."""
    X, y = make_blobs(240, centers=[[0, 0], [9, 0], [0, 9]], random_state=0)
    trusted = np.arange(240) % 10 == 0
    given = np.where(trusted | (np.arange(240) % 3 > 0), y, (y + 1) % 3)
    return X, y, given, trusted


def job_of(X, labels, **params):
    return TorchClassifier(random_state=0, **params).make_job(X, np.eye(3)[labels])


# MetaCleaner


def test_the_mean_of_a_set_has_the_logits_of_the_mean_of_its_features():
    last, features = nn.Linear(4, 3), torch.randn(6, 4, generator=generator())
    weights = torch.tensor([[0.2, 0.8, 0.0], [0.5, 0.25, 0.25]])
    means = torch.stack([weights[0] @ features[:3], weights[1] @ features[3:]])
    torch.testing.assert_close(hallucinate(last(features), weights), last(means))


def test_a_meta_cleaner_starts_from_the_plain_mean_and_learns_the_weights():
    network = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 3))
    cleaner = MetaCleaner(network, n_features=4, set_size=2)
    x = torch.randn(4, 2, generator=generator())
    logits = cleaner(x)
    singles = network(x)
    expected = torch.stack([singles[:2].mean(dim=0), singles[2:].mean(dim=0)])
    torch.testing.assert_close(logits, expected.repeat_interleave(2, dim=0))
    cross_entropy(logits, torch.tensor([0, 0, 1, 1])).backward()
    assert cleaner.weighting[2].weight.grad.abs().sum() > 0
    assert network[0].weight.grad.abs().sum() > 0


def test_batches_hold_whole_sets():
    labels = torch.arange(100) % 3
    batches = CleanHallucinating(labels, 4, batch_size=18).batches(generator())
    assert max(map(len, batches)) <= 18
    for rows in batches:
        assert (labels[rows].view(-1, 4) == labels[rows].view(-1, 4)[:, :1]).all()


def test_a_set_that_is_larger_than_a_batch_is_refused(blobs):
    X, _, given, trusted = blobs
    method = MetaCleanerClassifier(TorchClassifier(batch_size=4, epochs=1), set_size=5)
    with pytest.raises(InputError, match=r"set_size=5 .* batch of 4 .* smaller"):
        method.fit(X, given, trusted)


# DeepSelf


def test_prototypes_by_the_definitions_of_the_paper():
    features = RNG.normal(size=(40, 3)) + 1
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    similarity = features @ features.T
    threshold = np.sort(similarity.ravel())[round(NEAR_QUANTILE * 1600) - 1]
    density = [sum(np.sign(similarity[i, j] - threshold) for j in range(40)) for i in range(40)]
    ranked = sorted(range(40), key=lambda i: (-density[i], i))
    expected = [
        i
        for place, i in enumerate(ranked)
        if all(similarity[i, j] < LARGEST_SIMILARITY for j in ranked[:place])
    ]
    chosen = choose_prototypes(torch.tensor(similarity), 40).tolist()
    assert chosen == expected
    assert 1 < len(chosen) < 40
    assert choose_prototypes(torch.tensor(similarity), 3).tolist() == expected[:3]


def test_a_label_becomes_that_of_the_most_similar_prototypes():
    # Two directions per class; the last sample of each class lies among the other class.
    angles = np.array([0.0, 0.05, 0.6, 0.65, 2.9, 2.0, 2.05, 2.6, 2.65, 0.1])
    features = torch.tensor(np.c_[np.cos(angles), np.sin(angles)] * RNG.uniform(1, 5, (10, 1)))
    labels = np.array([1] * 5 + [3] * 5)
    corrected = correct_by_prototypes(features, labels, 2, 100, np.random.RandomState(0))
    assert corrected.tolist() == [1, 1, 1, 1, 3, 3, 3, 3, 3, 1]
    # One sample of a class is its prototype.
    alone = correct_by_prototypes(features[:2], np.array([0, 2]), 8, 1, np.random.RandomState(0))
    assert alone.tolist() == [0, 2]


def test_the_loss_of_deepself_weights_both_labels(blobs):
    X, _, given, trusted = blobs
    samples = LabelledSamples(X, given, trusted, 3, check_labels(given, trusted))
    job = job_of(X, given, epochs=4)
    objective = SelfLearning(
        job, samples, n_prototypes=2, n_compared=50, corrected_weight=0.3, warm_up=2, seed=0
    )
    rows = torch.tensor([0, 3, 7])
    logits = RNG.normal(size=(3, 3))
    batch = type("Batch", (), {"rows": rows, "view": lambda _: rows})()
    batch.label = torch.tensor(job.targets[rows], dtype=torch.float64)
    nll = -log_softmax(logits, axis=1)
    objective.begin_epoch(1)
    before = objective(batch)[1](torch.tensor(logits))
    assert before.item() == pytest.approx((batch.label.numpy() * nll).sum(axis=1).mean())
    objective.begin_epoch(2)
    objective.corrected = objective.corrected.double()
    corrected = objective.corrected[rows].numpy()
    after = objective(batch)[1](torch.tensor(logits))
    expected = ((0.7 * batch.label.numpy() + 0.3 * corrected) * nll).sum(axis=1).mean()
    assert after.item() == pytest.approx(expected)
    of_trusted = objective.corrected.numpy().argmax(axis=1)[trusted]
    np.testing.assert_array_equal(of_trusted, given[trusted])


# MLNT


def test_nearest_samples():
    points = RNG.normal(size=(9, 2))
    distances = np.linalg.norm(points[:, None] - points, axis=2) + np.diag([np.inf] * 9)
    found = nearest(torch.tensor(points), 4)
    np.testing.assert_array_equal(found, np.argsort(distances, axis=1)[:, :4])
    assert nearest(torch.tensor(points), 100).shape == (9, 8)


def test_synthetic_labels_are_those_of_neighbours():
    labels = torch.arange(20)
    neighbours = nearest(torch.arange(20.0)[:, None], 2)
    synthetic = perturb(labels, neighbours, 0.5, generator())
    changed = (synthetic != labels).nonzero().ravel()
    assert len(changed) == 10
    assert all(synthetic[row] in neighbours[row] for row in changed)
    assert (perturb(labels, neighbours, 0.0, generator()) == labels).all()


def tolerance(network, features, **changes):
    options = {"n_label_sets": 1, "perturbed": 1.0, "n_neighbours": 1, "meta_learning_rate": 0.1}
    options |= {"consistency_weight": 1.0, "warm_up": 3, "teacher_momentum": 0.75}
    return NoiseTolerance(network, features, None, **options | changes)


def meta_step(rate, middle, n_label_sets=1):
    """Make a step with a teacher; return the network, the batch, synthetic labels and target.

    All samples get the label of their nearest neighbour, so that all sets are the same.
    """
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), middle, nn.Linear(4, 3)).double()
    x, labels = torch.randn(5, 3).double(), torch.tensor([0, 1, 2, 0, 1])
    batch = batch_of(labels, x, network=network)
    other = nn.Sequential(nn.Linear(3, 4), copy.deepcopy(middle), nn.Linear(4, 3)).double()
    objective = tolerance(other, x, meta_learning_rate=rate, n_label_sets=n_label_sets)
    objective.n_averaged, objective.teacher_momentum, objective.progress = 1, 0.5, 1.0
    loss = objective.backward(batch, 0.1)
    target = objective.teacher(x).softmax(dim=1)
    return network, x, labels, labels[nearest(x, 1)[:, 0]], target, loss.item()


def test_without_a_step_it_is_the_divergence_of_the_predictions():
    network, x, labels, _, target, loss = meta_step(0.0, nn.Tanh(), n_label_sets=3)
    logits = network(x).detach()
    divergence = rel_entr(target.numpy(), softmax(logits.numpy(), axis=1)).sum(axis=1).mean()
    assert loss == pytest.approx(cross_entropy(logits, labels).item() + divergence)
    # The authors' code divides the divergence by the number of classes, too.
    theirs = kl_div(logits.log_softmax(dim=1), target, reduction="none").mean()
    assert divergence == pytest.approx(3 * theirs.item())


def test_the_meta_gradient_has_the_second_derivatives_of_the_step():
    rate = 0.7
    network, x, labels, synthetic, target, _ = meta_step(rate, nn.Tanh())
    assert (synthetic != labels).any()
    shapes = {name: weight.shape for name, weight in network.named_parameters()}
    theta = torch.cat([weight.detach().ravel() for weight in network.parameters()])

    def logits_of(flat):
        parts = flat.split([shape.numel() for shape in shapes.values()])
        weights = {n: part.view(shapes[n]) for n, part in zip(shapes, parts, strict=True)}
        return functional_call(network, weights, (x,))

    def synthetic_loss(flat):
        return cross_entropy(logits_of(flat), synthetic)

    # The gradient g of the cross-entropy, and v - η H v, where v is the gradient of the divergence
    # after the step and H the Hessian of the synthetic loss.
    g = torch.func.grad(lambda flat: cross_entropy(logits_of(flat), labels))(theta)
    stepped = theta - rate * torch.func.grad(synthetic_loss)(theta)
    v = torch.func.grad(
        lambda flat: kl_div(logits_of(flat).log_softmax(dim=1), target, reduction="batchmean")
    )(stepped)
    expected = g + v - rate * hessian(synthetic_loss)(theta) @ v
    gradient = torch.cat([weight.grad.ravel() for weight in network.parameters()])
    torch.testing.assert_close(gradient, expected)


def test_a_synthetic_step_leaves_the_statistics_of_batch_normalisation():
    network, x, *_ = meta_step(0.1, nn.BatchNorm1d(4))
    of_batch = network[0](x).detach().mean(dim=0)
    torch.testing.assert_close(network[1].running_mean, 0.1 * of_batch)
    assert network[1].num_batches_tracked == 1


def test_the_teacher_is_a_mean_of_weights_that_forgets():
    X = RNG.normal(size=(12, 2))
    network = job_of(X, np.arange(12) % 3).module
    objective = tolerance(network, torch.tensor(X))
    progress = []
    for epoch in range(9):
        objective.begin_epoch(epoch)
        progress.append(objective.progress)
    assert progress == pytest.approx([-1, -2 / 3, -1 / 3, 0, 1 / 3, 2 / 3, 1, 1, 1])
    expected = None
    for step in range(7):
        with torch.no_grad():
            for weight in network.parameters():
                weight.fill_(step**2)
        objective._update_teacher(network)
        momentum = min(step / (step + 1), 0.75)
        expected = 0 if expected is None else momentum * expected + (1 - momentum) * step**2
        averaged = next(objective.teacher.parameters())
        torch.testing.assert_close(averaged, torch.full_like(averaged, expected))


def test_a_mentor_that_agrees_with_no_label_ends_the_trainings(blobs):
    X, _, given, trusted = blobs
    quick = {"estimator": TorchClassifier(epochs=2), "use_trusted": False, "random_state": 0}
    ended = MLNTClassifier(min_label_proba=1.0, **quick).fit(X, given, trusted)
    once = MLNTClassifier(n_trainings=1, **quick).fit(X, given, trusted)
    twice = MLNTClassifier(**quick).fit(X, given, trusted)
    np.testing.assert_array_equal(ended.predict_proba(X), once.predict_proba(X))
    assert np.abs(twice.predict_proba(X) - once.predict_proba(X)).max() > 0


class Attentive(nn.Module):
    """A network with PyTorch's attention, whose fast kernels have no second derivative."""

    def __init__(self, in_shape, n_classes):
        super().__init__()
        self.inputs, self.last = nn.Linear(*in_shape, 8), nn.Linear(8, n_classes)

    def forward(self, x):
        tokens = self.inputs(x).view(-1, 1, 2, 4)
        return self.last(scaled_dot_product_attention(tokens, tokens, tokens).flatten(1))


def test_networks_with_attention_have_second_derivatives(blobs):
    X, y, given, trusted = blobs
    method = MLNTClassifier(TorchClassifier(Attentive), n_trainings=1, random_state=0)
    assert method.fit(X, given, trusted).score(X, y) > 0.7


def test_neighbours_that_do_not_fit_into_a_batch_are_refused(blobs):
    X, _, given, trusted = blobs
    method = MLNTClassifier(TorchClassifier(batch_size=10, epochs=1), n_neighbours=10)
    with pytest.raises(InputError, match=r"n_neighbours=10 .* batch of 10: make"):
        method.fit(X, given, trusted)


# CleanNet


def test_the_loss_of_similarities():
    similarity = torch.tensor([[0.6, 0.3], [0.6, 0.05], [-0.2, 0.9], [0.4, 0.0], [0.09, 0.0]])
    labels = torch.tensor([[1.0, 0.0]] * 5)
    verified = torch.tensor([True, True, True, False, False])
    # By the authors' `total_loss` without the reconstruction, at equal weights of right and wrong
    # labels: 1 - 0.6 of the right class plus 0.3 - 0.1 of the wrong one; 0.4 plus 0; 1.2 plus 0.8;
    # 0.1 (1 - 0.4); 0, as 0.09 is below the margin.
    expected = torch.tensor([0.6, 0.4, 2.0, 0.06, 0.0])
    torch.testing.assert_close(relevance_loss(similarity, labels, verified), expected)


def test_reference_sets_are_samples_or_the_centres_of_their_clusters():
    X = np.array([[0.0, 0], [0, 1], [9, 9], [9, 8], [5, 5], [5, 5]])
    labels = np.array([0, 0, 0, 0, 2, 2])
    references = reference_sets(X, labels, 4, n_references=2, seed=0).numpy()
    assert references.shape == (4, 2, 2)
    assert sorted(references[0].tolist()) == [[0, 0.5], [9, 8.5]]
    np.testing.assert_array_equal(references[2], [[5, 5], [5, 5]])
    np.testing.assert_array_equal(references[[1, 3]], 0)
    all_of_them = reference_sets(X, labels, 4, n_references=9, seed=0).numpy()
    assert sorted(all_of_them[0].tolist()) == sorted(X[:4].tolist())


def test_the_joint_embedding_step_by_step():
    torch.manual_seed(0)
    references = torch.randn(3, 4, 5)
    network, x = JointEmbedding(references), torch.randn(6, 5)
    similarity = network(x).detach().numpy()

    def apply(layers, values):
        for layer in layers:
            if isinstance(layer, nn.Linear):
                values = values @ layer.weight.detach().numpy().T
                values = values if layer.bias is None else values + layer.bias.detach().numpy()
            elif isinstance(layer, nn.Tanh):
                values = np.tanh(values)
        return values

    of_samples = apply(network.encoder, x.numpy())
    for c in range(3):
        encoded = apply(network.reference_encoder, references[c].numpy())
        weights = softmax(apply(network.attention, encoded).ravel())
        of_class = apply(network.set_encoder, weights @ encoded)
        norms = np.linalg.norm(of_samples, axis=1) * np.linalg.norm(of_class)
        np.testing.assert_allclose(similarity[:, c], of_samples @ of_class / norms, rtol=1e-4)
    error = ((apply(network.decoder, of_samples) - x.numpy()) ** 2).mean(axis=1)
    np.testing.assert_allclose(network.reconstruction_error.detach(), error, rtol=1e-4)


@pytest.mark.parametrize("part", [False, True])
def test_right_labels_weigh_more(blobs, part):
    X, y, given, trusted = blobs
    if part:
        trusted = trusted & (y != 2)  # no sample of the last class is verified
        with pytest.raises(InputError, match="No trusted sample has class 2"):
            DeepSelfClassifier().fit(X, given, trusted)
    method = CleanNetClassifier(TorchClassifier(epochs=40), n_rounds=1, random_state=0)
    relevance = method.fit(X, given, trusted).relevance_
    assert ((relevance >= 0) & (relevance <= 1)).all()
    assert (relevance[trusted] == 1).all()
    for label in range(3):
        others = ~trusted & (given == label)
        assert np.mean(relevance[others & (given == y)]) > np.mean(relevance[others & (given != y)])
    assert method.score(X, y) > 0.95


def test_the_embedding_is_not_taken_for_a_classifier(blobs):
    X, y, given, trusted = blobs
    accuracies = []
    with epoch_callback(lambda _, networks: accuracies.append(networks[0].score(X, y))):
        CleanNetClassifier(TorchClassifier(epochs=2), n_rounds=1).fit(X, given, trusted)
    assert len(accuracies) == 4  # of the first network, then of the last one


@pytest.mark.filterwarnings("ignore::pudistill.exceptions.RecoveredWarning")
def test_features_that_are_not_finite_are_a_training_that_diverged(blobs, monkeypatch):
    X, _, given, trusted = blobs
    monkeypatch.setattr(TorchClassifier, "embed", lambda _, X: np.full((len(X), 2), np.inf))
    with pytest.raises(InputError, match=r"features .* are not finite: lower learning_rate, which"):
        CleanNetClassifier(TorchClassifier(epochs=1)).fit(X, given, trusted)


def test_cleannet_needs_verified_samples():
    given = np.array([[0, 0], [1, 1], [0, 0], [1, 1]])
    with pytest.raises(InputError, match="No sample is trusted: verify"):
        CleanNetClassifier().fit(np.arange(8.0).reshape(4, 2), given)
