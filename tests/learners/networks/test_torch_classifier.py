"""TorchClassifier as a scikit-learn estimator, and on real pictures."""

import copy
import dataclasses
import gzip
import json
import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_matrix
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import DataConversionWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.utils.estimator_checks import check_estimator
from torch import nn

from pudistill.exceptions import InputError, RecoveredWarning
from pudistill.learners.networks.classifier import TorchClassifier
from pudistill.learners.networks.fitting import fit_together
from pudistill.learners.networks.hardware import Hardware, seeded
from pudistill.learners.networks.normalisation import Normalisation
from pudistill.learners.networks.objectives import Objective
from pudistill.learners.networks.recipes import RECIPES, Recipe
from pudistill.learners.networks.registry import OBJECTIVES
from pudistill.learners.networks.state import check_storable
from pudistill.methods import CrossEntropyClassifier
from pudistill.utils.checkpoint import Checkpoint, saving_to
from tests.helpers.pictures import digit_pictures
from tests.helpers.training import dropout_network

QUICK = {"epochs": 2, "batch_size": 32, "device": "cpu", "random_state": 0}


@pytest.fixture(scope="module")
def digits():
    return digit_pictures()


@pytest.fixture(scope="module")
def few(digits):
    pictures, labels = digits
    return pictures[:150], labels[:150]


def idx(path, offset):
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=offset)


def weights(estimator):
    return {name: value.clone() for name, value in estimator.module_.state_dict().items()}


def same_weights(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def one_logit(in_shape, _):
    return nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(in_shape)), 1))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_the_checks_of_scikit_learn_pass():
    check_estimator(TorchClassifier(epochs=10))  # the default is hundreds on such small data


def test_learns_digits(digits):
    train, test, y_train, y_test = train_test_split(*digits, random_state=0)
    network = TorchClassifier(augment=("crop",), epochs=8, mixup=0, random_state=0).fit(
        train, y_train
    )
    assert network.score(test, y_test) > 0.95
    assert network.n_iter_ == len(network.loss_curve_) == 8
    assert network.loss_curve_[-1] < network.loss_curve_[0] / 3
    assert network.in_shape_ == (1, 8, 8)


@pytest.mark.slow
def test_learns_fashion_mnist(real_data):
    folder = real_data("fashion-mnist")
    X = idx(folder / "train-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)[:4000]
    y = idx(folder / "train-labels-idx1-ubyte.gz", 8)[:4000]
    network = TorchClassifier(role="member", epochs=4, random_state=0).fit(X[:3000], y[:3000])
    assert network.score(X[3000:], y[3000:]) > 0.75


@pytest.mark.parametrize("precision", ["fp32", "auto"])
def test_two_runs_are_identical_and_do_not_change_the_random_state_of_torch(few, precision):
    before = torch.get_rng_state()
    runs = [
        TorchClassifier(module, precision=precision, **QUICK).fit(*few)
        for module in ("small_cnn", "small_cnn", dropout_network, dropout_network)
    ]
    assert torch.equal(before, torch.get_rng_state())
    assert same_weights(weights(runs[0]), weights(runs[1]))
    assert same_weights(weights(runs[2]), weights(runs[3]))
    other = TorchClassifier("small_cnn", precision=precision, **QUICK | {"random_state": 1}).fit(
        *few
    )
    assert not same_weights(weights(runs[0]), weights(other))


def test_threads_do_not_disturb_each_other(few):
    def fit(seed):
        return weights(TorchClassifier(**QUICK | {"random_state": seed}).fit(*few))

    alone = [fit(seed) for seed in range(3)]
    together = joblib.Parallel(n_jobs=3, backend="threading")(
        joblib.delayed(fit)(s) for s in range(3)
    )
    assert all(same_weights(a, b) for a, b in zip(alone, together, strict=True))


def test_one_hot_targets_are_labels(few):
    X, y = few
    hard = TorchClassifier(**QUICK).fit(X, y)
    soft = TorchClassifier(**QUICK).fit(X, np.eye(10)[y])
    np.testing.assert_array_equal(soft.classes_, np.arange(10))
    assert same_weights(weights(hard), weights(soft))


def test_soft_targets_are_approached():
    X = np.random.RandomState(0).randn(200, 2)
    targets = np.full((200, 3), [0.2, 0.5, 0.3])
    network = TorchClassifier(random_state=0).fit(X, targets)
    np.testing.assert_allclose(network.predict_proba(X).mean(0), [0.2, 0.5, 0.3], atol=0.02)


LIKELIHOOD = QUICK | {"loss": "likelihood", "role": "noise_aware"}


def likelihoods(y, trusted, matrix):
    """Return rows of the noise matrix for given labels, one-hot rows for trusted labels."""
    rows = matrix[:, y].T.copy()
    rows[trusted] = np.eye(len(matrix))[y[trusted]]
    return rows


def test_certain_likelihoods_are_labels(few):
    X, y = few
    hard = TorchClassifier(precision="fp32", **QUICK | {"role": "noise_aware"}).fit(X, y)
    certain = TorchClassifier(precision="fp32", **LIKELIHOOD).fit(X, 5.0 * np.eye(10)[y])
    np.testing.assert_allclose(certain.predict_proba(X), hard.predict_proba(X), atol=1e-4)
    np.testing.assert_array_equal(certain.classes_, np.arange(10))


def test_a_network_trained_on_likelihoods_ignores_a_known_flip(digits):
    # Nine of ten labels are wrong, all in the same way.
    train, test, y_train, y_test = train_test_split(*digits, random_state=0)
    trusted = np.arange(len(y_train)) < 50
    flipped = np.random.RandomState(0).rand(len(y_train)) < 0.9
    given = np.where(flipped & ~trusted, (y_train + 1) % 10, y_train)
    matrix = 0.1 * np.eye(10) + 0.9 * np.eye(10)[(np.arange(10) + 1) % 10]
    settings = {"role": "noise_aware", "augment": ("crop",), "epochs": 5, "random_state": 0}
    naive = TorchClassifier(**settings).fit(train, given)
    corrected = TorchClassifier(loss="likelihood", **settings)
    corrected.fit(train, likelihoods(given, trusted, matrix))
    assert naive.score(test, y_test) < 0.5
    assert corrected.score(test, y_test) > 0.9


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_likelihoods_train_reproducibly(few, precision):
    X, y = few
    matrix = np.full((10, 10), 0.05) + 0.5 * np.eye(10)
    rows = likelihoods(y, np.arange(len(y)) < 10, matrix)
    weight = np.random.RandomState(0).rand(len(y))

    def fit(factor, **settings):
        network = TorchClassifier(precision=precision, **LIKELIHOOD | settings)
        return network.fit(X, rows * factor, sample_weight=weight).predict_proba(X)

    first = fit(1.0)
    np.testing.assert_array_equal(first, fit(1.0))
    assert np.isfinite(first).all()
    scales = 2.0 ** (np.arange(len(y)) - 70)
    np.testing.assert_array_equal(first, fit(scales[:, None]), "a row's scale means nothing")
    assert not np.array_equal(first, fit(1.0, random_state=1))


def test_likelihoods_that_say_nothing_are_left_out(few):
    X, y = few
    normalisation = Normalisation.of(X[..., None], np.ones(len(X)))
    rows = likelihoods(y, np.arange(len(y)) < 10, np.full((10, 10), 0.05) + 0.5 * np.eye(10))
    rows[100:] = 0.3

    def fit(n, **settings):
        network = TorchClassifier(normalisation=normalisation, **LIKELIHOOD | settings)
        return network.fit(X[:n], rows[:n])

    assert same_weights(weights(fit(150)), weights(fit(100)))
    consistent = {"consistency_weight": 1.0}  # which needs no label
    assert not same_weights(weights(fit(150, **consistent)), weights(fit(100, **consistent)))


def test_without_consistency_its_threshold_does_not_matter(few):
    recipes = [
        Recipe(epochs=2, learning_rate=0.1, augment=("flip", "crop"), consistency_threshold=t)
        for t in (0.5, 1.0)
    ]
    networks = [TorchClassifier(recipe=recipe, random_state=0).fit(*few) for recipe in recipes]
    assert same_weights(*map(weights, networks))


def test_consistency_with_labels_and_mixup(few):
    recipe = dataclasses.replace(RECIPES["fast"]["noise_aware"], epochs=2, mixup=2.0, min_steps=0)
    network = TorchClassifier(recipe=recipe, random_state=0).fit(*few)
    assert np.isfinite(network.loss_curve_).all()
    with pytest.raises(InputError, match="mixup=2"):
        TorchClassifier(recipe=recipe, loss="likelihood").fit(few[0], np.eye(10)[few[1]])


@pytest.mark.parametrize(
    ("row", "named"),
    [
        (0.0, "row 3"),
        ([-1.0] + [1.0] * 9, "row 3"),
        ([np.nan] * 10, "row 3"),
        ([np.inf] * 10, "row 3"),
    ],
)
def test_bad_likelihoods_are_named(few, row, named):
    rows = np.ones((150, 10))
    rows[3] = row
    with pytest.raises(InputError, match=named):
        TorchClassifier(**LIKELIHOOD).fit(few[0], rows)


def test_the_likelihood_loss_refuses_labels_and_the_bootstrap_of_uncertain_classes(few):
    X, y = few
    for labels in (y, y[:, None], None, "label"):
        with pytest.raises(InputError, match="n_classes"):
            TorchClassifier(**LIKELIHOOD).fit(X, labels)
    with pytest.raises(ValueError, match="inconsistent"):
        TorchClassifier(**LIKELIHOOD).fit(X, np.ones((149, 10)))
    rows = np.eye(10)[y]
    balanced = TorchClassifier(balanced_bootstrap=True, **LIKELIHOOD)
    assert balanced.fit(X, rows).n_iter_ == 2
    rows[7] = 1
    with pytest.raises(InputError, match="row 7"):
        balanced.fit(X, rows)


@dataclasses.dataclass(frozen=True)
class SquaredError(Objective):
    """A loss of `TorchClassifier` with everything that one needs."""

    is_stateful = False

    def check_targets(self, y, inputs, recipe, *, balanced):
        if recipe.mixup:
            raise InputError('loss="squared_error" mixes nothing')
        return super().check_targets(y, inputs, recipe, balanced=balanced)

    def __call__(self, batch):
        targets, weight = batch.label, batch.weight
        return batch.view(), lambda logits: (
            weight * (logits.softmax(dim=1) - targets).square().sum(dim=1)
        ).mean()


def test_a_new_loss_needs_one_class_and_one_record(few, monkeypatch):
    monkeypatch.setitem(OBJECTIVES, "squared_error", SquaredError)
    settings = QUICK | {"epochs": 4, "precision": "fp32", "loss": "squared_error"}
    network = TorchClassifier(**settings).fit(*few)
    assert 2 > network.loss_curve_[0] > network.loss_curve_[-1]
    stored = TorchClassifier.from_state(*network.to_state())
    assert np.array_equal(stored.predict_proba(few[0]), network.predict_proba(few[0]))
    stacks = []
    networks = [TorchClassifier(**settings) for _ in range(2)]
    fit_together(networks, [(*few, None)] * 2, stack=lambda jobs: stacks.append(len(jobs)) or True)
    assert stacks == [2]
    np.testing.assert_allclose(networks[1].loss_curve_, network.loss_curve_, rtol=1e-4)
    with pytest.raises(InputError, match="mixes nothing"):
        TorchClassifier(mixup=1.0, **settings).fit(*few)
    with pytest.raises(InputError, match="squared_error"):
        TorchClassifier(loss="cubed_error").fit(*few)


def test_any_labels(few):
    X, y = few
    for labels in (y.astype(str), y > 4, pd.Series(y).map("class {}".format), -2.0 * y):
        network = TorchClassifier(**QUICK).fit(X, labels)
        assert set(network.predict(X)) <= set(labels)
        assert network.classes_.dtype == np.asarray(labels).dtype
        assert network.predict_proba(X).shape == (150, len(network.classes_))
    with pytest.warns(DataConversionWarning):
        TorchClassifier(**QUICK).fit(X, y[:, None])


def test_pictures_of_every_kind(few):
    X, y = few
    colour = np.repeat(X[..., None], 3, axis=3)
    probabilities = TorchClassifier(**QUICK).fit(X, y).predict_proba(X)
    for same in (X[..., None], X.astype(np.float32), X.astype(int), X.tolist()):
        network = TorchClassifier(**QUICK).fit(same, y)
        np.testing.assert_allclose(network.predict_proba(same), probabilities, atol=1e-3)
    assert TorchClassifier(**QUICK).fit(colour, y).in_shape_ == (3, 8, 8)
    assert TorchClassifier("mlp", **QUICK).fit(X, y).predict(X).shape == (150,)


def test_probabilities(few):
    X, y = few
    network = TorchClassifier(**QUICK).fit(X, y)
    probabilities = network.predict_proba(X)
    assert probabilities.dtype == np.float64
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-12)
    np.testing.assert_array_equal(network.predict(X), network.classes_[probabilities.argmax(1)])
    np.testing.assert_array_equal(probabilities, network.predict_proba(X), "no augmentation")
    assert not network.module_.training


def test_warm_start_continues_from_its_weights(few):
    X, y = few
    network = TorchClassifier(warm_start=True, **QUICK).fit(X, y)
    first, module, normalisation = weights(network), network.module_, network.normalisation_
    frozen = copy.deepcopy(network).set_params(learning_rate=1e-30).fit(X[:100] // 2, y[:100])
    for name, value in weights(frozen).items():
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(value, first[name])
    network.fit(X, y)
    assert network.module_ is module
    assert network.normalisation_ is normalisation
    assert not same_weights(first, weights(network))
    afresh = network.set_params(warm_start=False).fit(X, y)
    assert same_weights(first, weights(afresh))


def test_warm_start_equals_one_longer_training():
    # With full batches and no momentum, two trainings of three epochs equal one of six.
    X, y = load_iris(return_X_y=True)
    recipe = Recipe(epochs=3, learning_rate=0.1, momentum=0.0, batch_size=150)
    twice = TorchClassifier(recipe=recipe, warm_start=True, random_state=0).fit(X, y).fit(X, y)
    once = TorchClassifier(recipe=recipe, epochs=6, random_state=0).fit(X, y)
    np.testing.assert_allclose(twice.predict_proba(X), once.predict_proba(X), rtol=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X, y: (X, np.where(y == 9, 77, y)), "first fit"),
        (lambda X, y: (X[:, :6], y), "resize"),
        (lambda X, y: (X.reshape(len(X), -1), y), "trained on pictures"),
    ],
)
def test_warm_start_refuses_other_data(few, change, message):
    network = TorchClassifier(warm_start=True, **QUICK).fit(*few)
    with pytest.raises(InputError, match=message):
        network.fit(*change(*few))


def test_a_weight_counts_as_copies_and_zero_leaves_a_sample_out():
    X, y = load_iris(return_X_y=True)
    X, y = X[::3], y[::3]
    counts = np.random.RandomState(0).randint(0, 3, size=len(y))
    weighted = TorchClassifier(random_state=0).fit(X, y, sample_weight=counts)
    copied = TorchClassifier(random_state=0).fit(X.repeat(counts, axis=0), y.repeat(counts))
    np.testing.assert_allclose(weighted.predict_proba(X), copied.predict_proba(X), rtol=1e-7)


def test_balanced_bootstrap_balances_predictions():
    rng = np.random.RandomState(0)
    X, y = rng.randn(1000, 2), (rng.rand(1000) < 0.03).astype(int)
    plain = TorchClassifier(random_state=0).fit(X, y)
    balanced = TorchClassifier(balanced_bootstrap=True, random_state=0).fit(X, y)
    assert plain.predict_proba(X)[:, 1].mean() < 0.1
    assert 0.35 < balanced.predict_proba(X)[:, 1].mean() < 0.65
    assert balanced.n_iter_ >= plain.n_iter_, "small epochs, but no fewer steps"


def test_a_last_batch_of_one_is_never_made(few):
    X, y = few
    network = TorchClassifier(**QUICK | {"batch_size": 149}).fit(X, y)
    assert np.isfinite(network.predict_proba(X)).all()


def test_parameters_override_the_recipe(few):
    network = TorchClassifier(recipe="paper", role="member", mixup=1.0, augment=False, **QUICK)
    recipe = network.fit(*few).recipe_
    assert (recipe.epochs, recipe.batch_size, recipe.mixup, recipe.augment) == (2, 32, 1.0, ())
    assert recipe.learning_rate == RECIPES["paper"]["member"].learning_rate


@pytest.mark.parametrize(
    ("augment", "expected"),
    [(True, ("flip", "crop")), (False, ()), ("shift", ("shift",)), (["flip"], ("flip",))],
)
def test_augmentation_by_flag_name_or_names(few, augment, expected):
    fitted = TorchClassifier(augment=augment, **QUICK).fit(*few)
    assert fitted.recipe_.augment == expected
    again = TorchClassifier.from_state(*fitted.to_state())
    assert again.get_params()["augment"] in (augment, expected)


def test_a_network_of_a_device_that_is_not_here_predicts_on_another(few):
    fitted = TorchClassifier(**QUICK).fit(*few)
    arrays, meta = fitted.to_state()
    meta["params"]["device"] = "cuda:99"
    again = TorchClassifier.from_state(arrays, meta)
    assert again.device == "auto"
    assert again.predict(few[0]).shape == (len(few[0]),)
    meta["params"]["device"] = "cpu"
    assert TorchClassifier.from_state(arrays, meta).device == "cpu"


def test_tables_are_float32_only_on_a_device_without_float64(few):
    table = np.zeros((2, 3))
    for device, dtype in (("mps", np.float32), ("cpu", np.float64)):
        hardware = Hardware(torch.device(device), torch.float32, bf16=False)
        assert hardware.supported(table).dtype == dtype
        assert hardware.supported(few[0]) is few[0]


def test_seeding_the_cpu_leaves_gpus_alone(monkeypatch):
    before = torch.get_rng_state()
    expected = torch.rand(3, generator=torch.Generator().manual_seed(5))
    monkeypatch.setattr(torch.cuda, "manual_seed_all", None)  # `torch.manual_seed` would call it
    with seeded(5, torch.device("cpu")):
        assert torch.equal(torch.rand(3), expected)
    assert torch.equal(torch.get_rng_state(), before)


class InMemory(Checkpoint):
    is_due = True
    parts = None

    def load(self):
        return self.parts

    def save(self, **parts):
        self.parts = parts


def test_a_checkpoint_of_another_kind_of_device_is_not_continued(few, monkeypatch):
    trained = []
    monkeypatch.setattr(
        "pudistill.learners.networks.fitting.epoch_ended", lambda epoch, _: trained.append(epoch)
    )
    checkpoint = InMemory()
    with saving_to(checkpoint):
        first, same = (TorchClassifier(**QUICK).fit(*few) for _ in range(2))
        assert trained == [1, 2], "the second training has nothing left to do"
        assert same.n_iter_ == 2
        assert same.loss_curve_ == first.loss_curve_
        checkpoint.parts |= {"device": np.array("cuda"), "generator": np.zeros(16, np.uint8)}
        other = TorchClassifier(**QUICK).fit(*few)
    assert trained == [1, 2, 1, 2]
    assert same_weights(weights(first), weights(same))
    assert same_weights(weights(first), weights(other))


def test_centre_crop_in_training_and_prediction(few):
    X, y = few
    recipe = Recipe(epochs=2, learning_rate=0.1, centre_crop=6)
    whole = TorchClassifier(recipe=recipe, random_state=0).fit(X, y)
    cut = TorchClassifier(recipe=recipe, random_state=0).fit(X[:, 1:7, 1:7], y)
    assert whole.in_shape_ == (1, 6, 6)
    np.testing.assert_array_equal(whole.predict_proba(X), cut.predict_proba(X[:, 1:7, 1:7]))


def test_networks_of_different_precision_are_trained_in_one_process(few):
    X, y = few
    bf16 = TorchClassifier(precision="bf16", **QUICK).fit(X, y)
    fp32 = TorchClassifier(precision="fp32", **QUICK).fit(X, y)
    assert {p.dtype for p in bf16.module_.parameters()} == {torch.float32}
    difference = np.abs(bf16.predict_proba(X) - fp32.predict_proba(X)).max()
    assert 0 < difference < 0.2


@pytest.mark.parametrize("module", ["small_cnn", "mlp", dropout_network])
@pytest.mark.parametrize("labels", [int, str, bool, float])
def test_state_round_trip(few, module, labels):
    X, y = few
    network = TorchClassifier(module, augment=("crop",), **QUICK).fit(X, y.astype(labels))
    arrays, meta = network.to_state()
    meta = json.loads(json.dumps(meta))
    loaded = TorchClassifier.from_state(arrays, meta, module=module if callable(module) else None)
    np.testing.assert_array_equal(loaded.predict(X), network.predict(X))
    np.testing.assert_array_equal(loaded.predict_proba(X), network.predict_proba(X))
    assert loaded.get_params() == network.get_params()
    assert (loaded.recipe_, loaded.loss_curve_) == (network.recipe_, network.loss_curve_)


def test_state_of_a_table(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    frame, y = load_iris(return_X_y=True, as_frame=True)
    network = TorchClassifier(recipe=RECIPES["fast_table"]["student"], random_state=0).fit(frame, y)
    arrays, meta = network.to_state()
    safetensors.save_file(arrays, tmp_path / "weights.safetensors")
    loaded = TorchClassifier.from_state(
        safetensors.load_file(tmp_path / "weights.safetensors"), json.loads(json.dumps(meta))
    )
    np.testing.assert_array_equal(loaded.predict_proba(frame), network.predict_proba(frame))
    with pytest.raises(ValueError, match="feature names"):
        loaded.predict(frame[frame.columns[::-1]])


def test_a_custom_network_must_be_passed_again(few):
    arrays, meta = TorchClassifier(dropout_network, **QUICK).fit(*few).to_state()
    with pytest.raises(InputError, match="dropout_network"):
        TorchClassifier.from_state(arrays, meta)
    with pytest.raises(InputError, match="does not fit the stored weights"):
        TorchClassifier.from_state(arrays, meta, module=lambda _, c: nn.Linear(3, c))


def test_a_module_without_an_import_path_cannot_be_stored():
    check_storable(TorchClassifier(dropout_network))
    with pytest.raises(InputError, match="no name"):
        check_storable(TorchClassifier(lambda _, n_classes: nn.Linear(2, n_classes)))


def test_pickle_deepcopy_clone(few):
    X, y = few
    network = TorchClassifier(**QUICK).fit(X, y)
    expected = network.predict_proba(X)
    for twin in (pickle.loads(pickle.dumps(network)), copy.deepcopy(network)):
        np.testing.assert_array_equal(twin.predict_proba(X), expected)
    with pytest.raises(NotFittedError):
        clone(network).predict(X)


@pytest.mark.slow
@pytest.mark.workers
def test_under_loky_and_in_a_grid_search():
    X, y = load_iris(return_X_y=True)
    search = GridSearchCV(
        TorchClassifier(random_state=0), {"learning_rate": [1e-6, 0.1]}, cv=2, n_jobs=2
    ).fit(X, y)
    assert search.best_params_ == {"learning_rate": 0.1}
    assert search.best_score_ > 0.85


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"module": "resnet"}, "resnet"),
        ({"recipe": "slow"}, "slow"),
        ({"role": "pupil"}, "pupil"),
        ({"epochs": 0}, "epochs"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"augment": ("rotate",)}, "rotate"),
        ({"precision": "fp16"}, "fp16"),
        ({"loss": "mse"}, "mse"),
        ({"module": one_logit}, "logits"),
    ],
)
def test_bad_settings(few, settings, named):
    with pytest.raises(InputError, match=named):
        TorchClassifier(**QUICK | settings).fit(*few)


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda X, y: (X, np.zeros_like(y)), "one class"),
        (lambda X, y: (X, np.full((len(y), 3), 0.5)), "row 0"),
        (lambda X, y: (X, np.ones((len(y), 3), dtype=int)), "soft targets as floats"),
        (lambda _, y: (np.zeros((len(y), 3, 32, 32)), y), "moveaxis"),
        (lambda X, y: (np.where(X > 200, np.nan, X), y), "NaN"),
        (lambda X, y: (X[:, :, :, None, None], y), "shape"),
        (lambda X, y: (X[:-1], y), "inconsistent"),
    ],
)
def test_bad_data(few, spoil, named):
    with pytest.raises(ValueError, match=named):
        TorchClassifier(**QUICK).fit(*spoil(*few))


def test_a_sparse_table_is_refused_with_a_remedy(few):
    X, y = few
    with pytest.raises(InputError, match=r"sparse matrix.*toarray\(\).*transformers"):
        TorchClassifier(**QUICK).fit(csr_matrix(X.reshape(len(X), -1)), y)


def test_a_method_does_not_repeat_a_training_that_was_repeated(few):
    X, y = few
    network = TorchClassifier(**QUICK | {"learning_rate": 1e30})
    with pytest.warns(RecoveredWarning) as warned, pytest.raises(InputError):
        CrossEntropyClassifier(network).fit(X, y, trusted=np.arange(len(y)) < 20)
    assert len(warned) == 1


def test_a_network_whose_training_failed_does_not_predict(few):
    network = TorchClassifier(warm_start=True, **QUICK).fit(*few)
    with (
        pytest.warns(RecoveredWarning, match="once more"),
        pytest.raises(InputError, match="lower learning_rate"),
    ):
        network.set_params(learning_rate=1e30).fit(*few)
    with pytest.raises(NotFittedError):
        network.predict(few[0])
    assert network.set_params(learning_rate=0.1).fit(*few).predict(few[0]).shape == (150,)


def diverging(rng):
    """Return samples that hardly differ in one feature, except one that is far off."""
    X = rng.normal(size=(60, 2)) * [1, 1e-3]
    return X + [0, 5e3] * (np.arange(60) == 0)[:, None], np.arange(60) % 2


def test_a_training_that_diverged_is_repeated_at_a_smaller_rate():
    X, y = diverging(np.random.default_rng(0))
    steep = TorchClassifier(learning_rate=30, epochs=30, batch_size=40, random_state=0)
    with pytest.warns(RecoveredWarning, match=r"learning_rate=3:.*became"):
        network = steep.fit(X, y)
    assert network.recipe_.learning_rate == 3
    assert np.isfinite(network.loss_curve_).all()
    slow = clone(steep).set_params(learning_rate=3).fit(X, y)
    assert same_weights(weights(slow), weights(network))


def test_a_refit_that_fails_leaves_no_fitted_network(few):
    def broken(in_shape, n_classes):
        raise RuntimeError("no such layer")

    network = TorchClassifier(**QUICK).fit(*few)
    with pytest.raises(InputError, match="no such layer"):
        network.set_params(module=broken).fit(few[0], few[1] + 10)
    with pytest.raises(NotFittedError):
        network.predict(few[0])


@pytest.mark.parametrize("precision", ["auto", "fp32"])
def test_features_that_vary_little_beside_their_mean_are_learned(precision):
    seconds = np.random.default_rng(0).uniform(0, 60, size=400)
    X, y = 1.7e9 + seconds[:, None], (seconds > 30).astype(int)
    network = TorchClassifier(precision=precision, epochs=20, random_state=0).fit(X, y)
    assert network.score(X, y) > 0.95


@pytest.mark.parametrize("value", [0.7, 1 / 3, 200.3])
def test_a_constant_channel_is_known_as_constant(value):
    pictures = np.full((100, 28, 28, 1), value, np.float32)
    assert Normalisation.of(pictures, np.ones(100)).scale == 1


def test_a_training_of_a_single_step_learns():
    X, y = np.repeat([[0.0], [1.0]], 20, axis=0), np.repeat([0, 1], 20)
    network = TorchClassifier(epochs=1, batch_size=40, learning_rate=1, random_state=0).fit(X, y)
    assert network.predict_proba([[1.0]])[0, 1] > 0.5


def test_labels_of_several_types_are_refused():
    with pytest.raises(InputError, match="int and str"):
        TorchClassifier().fit([[0.0], [1.0]], np.array(["a", 1], dtype=object))


def test_a_network_that_diverges_in_a_stack_leaves_the_others_alone():
    X, y = diverging(np.random.default_rng(0))
    samples = [(X, y, None), (X[1:], y[1:], None)]
    networks = [TorchClassifier(learning_rate=30, epochs=30, random_state=0) for _ in samples]
    with pytest.warns(RecoveredWarning, match="once more"):
        fit_together(networks, samples, stack=lambda jobs: True)
    with pytest.warns(RecoveredWarning, match="once more"):
        alone = TorchClassifier(learning_rate=30, epochs=30, random_state=0).fit(*samples[1][:2])
    assert same_weights(weights(networks[1]), weights(alone))


def test_a_normalisation_can_be_passed(few):
    X, y = few[0].reshape(150, -1), few[1]
    normalisation = Normalisation(np.full(64, 100.0), np.full(64, 50.0))
    network = TorchClassifier(normalisation=normalisation, **QUICK).fit(X, y)
    assert network.normalisation_ is not None
    assert (network.normalisation_.scale == 50).all()
    again = TorchClassifier.from_state(*network.to_state())
    assert np.array_equal(again.predict_proba(X), network.predict_proba(X))
    with pytest.raises(InputError, match="must be a Normalisation"):
        TorchClassifier(normalisation=5).fit(X, y)
    with pytest.raises(InputError, match="64 features"):
        network.fit(X[:, :3], y)


def test_bad_weights(few):
    with pytest.raises(InputError, match="sample 3"):
        TorchClassifier(**QUICK).fit(*few, sample_weight=np.where(np.arange(150) == 3, -1.0, 1.0))


@pytest.mark.parametrize("params", [{"augment": True}, {"consistency_weight": 1.0}])
def test_what_is_for_pictures_is_refused_for_tables(params):
    with pytest.raises(InputError, match="is for pictures"):
        TorchClassifier(**params).fit(np.zeros((4, 2)), [0, 1, 0, 1])


def test_pictures_of_another_shape_than_in_training_are_named(few):
    network = TorchClassifier(**QUICK).fit(*few)
    with pytest.raises(InputError, match=r"\(3, 8, 8\).*\(1, 8, 8\)"):
        network.predict(np.zeros((2, 8, 8, 3), dtype=np.uint8))
