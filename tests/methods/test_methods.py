"""Properties that all methods share."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits, make_blobs
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import parametrize_with_checks

from pudistill import InputError, TorchClassifier, corrupt_labels, methods
from pudistill.exceptions import DivergedError, RecoveredWarning
from pudistill.learners.networks.recipes import RECIPES
from pudistill.learners.networks.trainer import Trainer
from pudistill.methods.base import NetworkMethod
from pudistill.methods.registry import METHODS, load_class

ALL = {name: load_class(name) for name in METHODS}
NETWORKS_ONLY = [name for name, cls in ALL.items() if issubclass(cls, NetworkMethod)]
WITHOUT_TRUSTED = [name for name, cls in ALL.items() if "use_trusted" in cls().get_params()]
# Methods that must beat cross-entropy under symmetric noise, to which all of them are robust.
AGGREGATING = {name for name, system in METHODS.items() if system.aggregates_sources}
# The soft bootstrap keeps 95 % of each label, so that it learns about what cross-entropy learns.
# Backward correction has negative losses, which a network that can memorise 718 samples makes ever
# smaller: it memorises wrong labels even sooner.
# Within the few steps of a table, a noise layer stays near the identity
# (docs/reference/methods.md).
WEAK = {"cross_entropy", "bootstrap_soft", "backward_correction", "noise_layer"}
ROBUST = set(ALL) - WEAK - AGGREGATING


def quick(name, **params):
    network = TorchClassifier(epochs=3, random_state=0)
    return ALL[name](network, random_state=0, **params)


# By default networks pass over small data sets hundreds of times.
CHECKED = {name: cls() for name, cls in ALL.items()}
for name in NETWORKS_ONLY:
    CHECKED[name].set_params(estimator=TorchClassifier(epochs=1))


# All checks of the others are slow tests: what these checks look at is the code that all share.
FULLY_CHECKED = {"gold_loss_correction", "co_teaching"}
CHECKS_THAT_TRAIN_MOST = {
    "check_classifier_data_not_an_array",
    "check_classifiers_classes",
    "check_classifiers_train",
    "check_dict_unchanged",
    "check_estimator_sparse_array",
    "check_estimator_sparse_matrix",
    "check_estimators_dtypes",
    "check_estimators_pickle",
    "check_fit_idempotent",
    "check_methods_sample_order_invariance",
    "check_methods_subset_invariance",
    "check_pipeline_consistency",
    "check_positive_only_tag_during_fit",
    "check_readonly_memmap_input",
    "check_supervised_y_2d",
}


def quick_or_slow(estimator, check):
    fully = isinstance(estimator, tuple(ALL[name] for name in FULLY_CHECKED))
    slow = not fully and check.func.__name__ in CHECKS_THAT_TRAIN_MOST
    return pytest.param(estimator, check, marks=[pytest.mark.slow] if slow else [])


ALL_CHECKS = parametrize_with_checks([*CHECKED.values()])


@pytest.mark.parametrize(
    ALL_CHECKS.args[0], [quick_or_slow(*pair) for pair in ALL_CHECKS.args[1]], **ALL_CHECKS.kwargs
)
@pytest.mark.filterwarnings("ignore::pudistill.TrustedWarning")
def test_scikit_learn_checks(estimator, check):
    asks_for_accuracy = check.func.__name__ == "check_classifiers_train"
    if asks_for_accuracy and isinstance(estimator, NetworkMethod):
        estimator.set_params(estimator__epochs=5)
    check(estimator)


@pytest.fixture(scope="module")
def digits():
    """Digits: half of the labels are drawn anew, and 70 of 718 samples are trusted."""
    X, y = load_digits(return_X_y=True)
    train, test = np.arange(len(y)) % 5 > 2, np.arange(len(y)) % 5 == 0
    rng = np.random.default_rng(0)
    trusted = np.zeros(train.sum(), dtype=bool)
    for c in range(10):
        trusted[rng.choice(np.flatnonzero(y[train] == c), 7, replace=False)] = True
    noisy = corrupt_labels(y[train], "symmetric", 0.5, trusted=trusted, random_state=0).y
    return X[train], y[train], noisy, trusted, X[test], y[test]


@pytest.fixture(scope="module")
def cross_entropy_accuracy(digits):
    X, _, noisy, trusted, X_test, y_test = digits
    plain = ALL["cross_entropy"](TorchClassifier(), random_state=0)
    return plain.fit(X, noisy, trusted).score(X_test, y_test)


@pytest.mark.parametrize("name", sorted(ROBUST))
def test_learns_noisy_labels_better_than_cross_entropy(name, digits, cross_entropy_accuracy):
    X, _, noisy, trusted, X_test, y_test = digits
    method = ALL[name](TorchClassifier(), random_state=0).fit(X, noisy, trusted)
    assert method.score(X_test, y_test) > cross_entropy_accuracy + 0.05


@pytest.fixture(scope="module")
def blobs():
    X, y = make_blobs(120, centers=[[0, 0], [9, 0], [0, 9]], random_state=0)
    return X, y, np.arange(120) % 6 == 0


@pytest.mark.parametrize("name", sorted(ALL))
def test_a_seed_decides_everything(name, blobs):
    X, y, trusted = blobs
    first, same, other = (
        clone(quick(name)).set_params(random_state=seed).fit(X, y, trusted).predict_proba(X)
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, same)
    assert np.abs(first - other).max() > 0


@pytest.mark.parametrize("name", sorted(ALL))
def test_samples_without_any_label_are_left_out(name, blobs):
    X, y, trusted = blobs
    given = y.astype(float)
    given[1::6] = np.nan
    verified = np.where(trusted, y, np.nan)
    incomplete = quick(name).fit(X, given, verified)
    known = ~np.isnan(given)
    rest = quick(name).fit(X[known], y[known], verified[known])
    np.testing.assert_allclose(incomplete.predict_proba(X), rest.predict_proba(X))


@pytest.mark.parametrize("name", sorted(set(ALL) - AGGREGATING))
def test_given_labels_of_trusted_samples_do_not_matter(name, blobs):
    X, y, trusted = blobs
    verified = np.where(trusted, y, np.nan)
    wrong = np.where(trusted, (y + 1) % 3, y)
    first, other = (quick(name).fit(X, given, verified).predict_proba(X) for given in (y, wrong))
    np.testing.assert_array_equal(first, other)


@pytest.mark.parametrize("name", sorted(WITHOUT_TRUSTED))
def test_the_papers_protocol_keeps_verified_labels_from_a_method(name, blobs):
    X, y, trusted = blobs
    wrong = np.where(trusted, (y + 1) % 3, y)
    method = quick(name, use_trusted=False)
    first = clone(method).fit(X, wrong, np.where(trusted, y, np.nan))
    other = clone(method).fit(X, wrong, trusted)  # the mask says that these labels are correct
    np.testing.assert_array_equal(first.predict_proba(X), other.predict_proba(X))


def test_methods_have_use_trusted_unless_their_record_says_that_they_need_trusted_samples():
    assert set(ALL) - set(WITHOUT_TRUSTED) == {
        name for name, system in METHODS.items() if system.needs_trusted
    }


def test_editors_and_type_checkers_know_every_method():
    source = Path(methods.__file__).read_text(encoding="utf-8")
    for name, cls in ALL.items():
        alias = f"{cls.__name__} as {cls.__name__}"
        assert alias in source, f"Add to {methods.__file__}: {name}'s import, {alias}"


@pytest.mark.parametrize("name", NETWORKS_ONLY)
def test_a_learner_that_is_no_network_is_refused(name, blobs):
    with pytest.raises(InputError, match=r"LogisticRegression .* pass a TorchClassifier"):
        ALL[name](LogisticRegression()).fit(*blobs)


@pytest.mark.parametrize("name", sorted(ALL))
def test_pictures(name):
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    X = rng.integers(0, 100, (60, 8, 8), dtype=np.uint8) + 100 * y[:, None, None].astype(np.uint8)
    recipe = RECIPES["fast"]["student"].changed(epochs=4, batch_size=16)
    network = TorchClassifier("small_cnn", recipe=recipe, random_state=0)
    method = ALL[name](network, random_state=0).fit(X, y, np.arange(60) % 5 < 2)
    proba = method.predict_proba(X)
    assert proba.shape == (60, 2)
    np.testing.assert_allclose(proba.sum(axis=1), 1)


@pytest.mark.parametrize("name", sorted(ALL))
def test_all_labels_right_and_trusted(name, blobs):
    X, y, _ = blobs
    method = ALL[name](TorchClassifier(epochs=20), random_state=0).fit(
        X, y, np.ones(len(y), dtype=bool)
    )
    assert method.score(X, y) > 0.95


def test_one_class_of_given_labels_says_what_to_do(blobs):
    X, y, trusted = blobs
    with pytest.raises(InputError, match="use_trusted=True"):
        quick("mixup", use_trusted=False).fit(X, np.zeros(120), np.where(trusted, y, np.nan))


@pytest.mark.parametrize("name", sorted(NETWORKS_ONLY))
def test_a_method_that_diverged_is_trained_again_at_a_smaller_rate(name, digits, monkeypatch):
    X, _, noisy, trusted, X_test, y_test = digits
    run_epoch, has_diverged = Trainer.run_epoch, []

    def diverge(self):
        if self.epoch == 2 and not has_diverged:
            has_diverged.append(True)
            raise DivergedError("The training loss became nan in epoch 3.")
        return run_epoch(self)

    monkeypatch.setattr(Trainer, "run_epoch", diverge)
    method = ALL[name](TorchClassifier(learning_rate=0.5, epochs=6), random_state=0)
    with pytest.warns(RecoveredWarning, match=r"trained (again|once more).*nan in epoch 3"):
        method.fit(X, noisy, trusted)
    assert method.score(X_test, y_test) > 0.12
