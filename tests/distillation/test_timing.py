"""The time of a fit: its estimate, its limit, and its first result."""

import copy
import warnings

import joblib
import numpy as np
import pytest
from sklearn.datasets import load_wine
from sklearn.naive_bayes import GaussianNB
from sklearn.svm import LinearSVC

from pudistill import PUDistillClassifier, TimeLimitWarning
from pudistill.distillation import first_result
from pudistill.distillation.first_result import on_first_result
from pudistill.distillation.time_estimate import Step, TimeEstimate, Work, estimate_time
from pudistill.labels.checks import check_labels
from pudistill.learners.cache import StageCache, caching_to
from pudistill.learners.networks.classifier import TorchClassifier
from pudistill.learners.networks.recipes import Recipe
from pudistill.utils.progress import display


@pytest.fixture(scope="module")
def noisy():
    X, y = load_wine(return_X_y=True)
    trusted = np.arange(178) % 6 == 0
    return X, np.where(trusted, y, (y + np.arange(178) % 2) % 3), trusted


@pytest.fixture(scope="module")
def whole(noisy):
    """The fit without a limit, which no test changes."""
    return classifier().fit(*noisy)


def classifier(**params):
    return PUDistillClassifier(GaussianNB(), n_members=3, max_iter=2, random_state=0, **params)


def fitted_in_no_time(noisy, **params):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TimeLimitWarning)
        return classifier(time_limit=0.001, **params).fit(*noisy)


def test_a_fit_without_time_does_the_least_and_says_so(noisy):
    with pytest.warns(TimeLimitWarning) as recorded:
        fast = classifier(time_limit=0.001).fit(*noisy)
    too_short, cut = (str(warning.message) for warning in recorded)
    assert too_short.startswith("The time limit of 0.001 s is too short: this fit needs about")
    assert "the filter, the comparison (left out), self-training, the rounds" in cut
    assert fast.n_iter_ == 1
    assert fast.adapted_["rounds"] == 1
    assert fast.expected_accuracy_ is None
    assert fast.score(noisy[0], load_wine().target) > 0.8


def test_a_fit_with_enough_time_is_the_same_as_one_without_limit(noisy, whole):
    with warnings.catch_warnings():
        warnings.simplefilter("error", TimeLimitWarning)
        limited = classifier(time_limit="1h").fit(*noisy)
    assert limited.cut_short_ == []
    np.testing.assert_array_equal(limited.predict_proba(noisy[0]), whole.predict_proba(noisy[0]))


def test_what_was_cut_short_is_not_stored_as_a_whole(noisy, whole, tmp_path):
    for memory in (joblib.Memory(tmp_path / "joblib", verbose=0), StageCache(tmp_path / "units")):
        fitted_in_no_time(noisy, memory=memory)
        again = classifier(memory=memory).fit(*noisy)
        assert again.n_iter_ == whole.n_iter_ > 1
        np.testing.assert_array_equal(again.predict_proba(noisy[0]), whole.predict_proba(noisy[0]))


def test_workers_keep_to_the_limit_too(noisy):
    with joblib.parallel_backend("threading"):
        fast = fitted_in_no_time(noisy, n_jobs=2)
    assert fast.n_iter_ == 1
    assert "self-training" in fast.cut_short_


def test_an_estimate_changes_nothing(noisy, tmp_path):
    unfitted = classifier(memory=str(tmp_path / "memory"))
    before = vars(unfitted).copy()
    estimate = unfitted.estimate_time(*noisy)
    assert vars(unfitted) == before
    assert not (tmp_path / "memory").exists()
    assert estimate.interval[0] < estimate.seconds < estimate.interval[1]
    assert list(estimate.seconds_of_stages)[:3] == ["filter", "noise-free models", "student"]


def test_an_estimate_names_a_wrong_parameter(noisy):
    with pytest.raises(ValueError, match="'n_jobs' parameter of PUDistillClassifier must be"):
        classifier(n_jobs="many").estimate_time(*noisy)


def test_an_estimate_is_a_sentence_or_two():
    estimate = TimeEstimate([Step("filter", 812, 60, 10)], {}, 0)
    assert str(estimate) == (
        "This fit trains about 800 models and will probably take 40 to 90 seconds."
    )
    least = TimeEstimate([Step("student", 0, 0.1, 0.1)], {}, 0)
    assert str(least) == "This fit trains one model and will probably take about 1 second."
    faster = TimeEstimate([Step("filter", 812, 600, 10)], {"a=1 (--a 1)": 200, "b=2": 390}, 0)
    assert str(faster) == (
        "This fit trains about 800 models and will probably take 6 to 15 minutes. "
        "With a=1 (--a 1) it would take about a third of that."
    )


def test_a_display_hears_how_long_a_fit_will_take(noisy):
    class Listening:
        def expect(self, text, seconds):
            heard.append((text, list(seconds)))

    heard = []
    with display(Listening()), pytest.raises(AttributeError):  # it shows no bars
        classifier().fit(*noisy)
    ((text, stages),) = heard
    assert text == ""  # the fit is short
    assert "filter" in stages


def test_time_is_kept_for_what_comes_afterwards():
    steps = [
        Step("filter", 1, 60, 10),
        Step("noise-free models", 1, 30, 10),
        Step("student", 1, 10, 10),
    ]
    ends = TimeEstimate(steps, {}, 0).limit(65, begin=0, workers=1).ends
    # 30 seconds are needed at least; half of the other 70 are there.
    assert ends["filter"] == pytest.approx(35)
    assert ends["noise-free models"] == pytest.approx(55)
    assert ends["student"] == 65
    assert ends["held-out views"] == 45  # later, 20 seconds would not be left


def test_the_first_result_comes_after_the_first_round(noisy, monkeypatch):
    monkeypatch.setattr(first_result, "WORTH_SECONDS", 0)
    results = []
    with on_first_result(results.append):
        whole = classifier().fit(*noisy)
    (first,) = results
    assert first.targets.shape == (178, 3)
    low, high = first.noise.rate_interval
    assert low < whole.noise_.rate < high
    assert (first.targets.argmax(axis=1) == load_wine().target).mean() > 0.8


def test_a_quick_fit_has_no_first_result(noisy, monkeypatch):
    monkeypatch.setattr(first_result, "WORTH_SECONDS", 1000)
    with on_first_result(lambda _: pytest.fail("it costs time")), caching_to(None):
        classifier().fit(*noisy)


def test_the_semi_supervised_network_is_part_of_the_estimate():
    pictures = np.random.default_rng(0).integers(0, 256, (60, 4, 4, 1), dtype=np.uint8)
    labels = check_labels(np.arange(60) % 2, np.arange(60) % 3 == 0)
    network = TorchClassifier(recipe=Recipe(epochs=1, learning_rate=0.1))

    def noise_free(semi_supervised):
        classifier = PUDistillClassifier(network, semi_supervised=semi_supervised)
        work = Work(pictures, labels, network, network, classifier.get_params(deep=False))
        steps = {step.name: step for step in estimate_time(work).steps}
        return steps["noise-free models"]

    without, whole = noise_free(False), noise_free(True)
    assert whole.n_models == without.n_models + 6, "one with each view"
    assert whole.least == whole.seconds, "a time limit cannot cut it short"


def test_if_all_labels_are_trusted_one_student_is_trained(noisy):
    estimate = classifier().estimate_time(*noisy[:2], np.ones(178, dtype=bool))
    assert [step.name for step in estimate.steps] == ["student"]
    assert estimate.seconds > 0


def test_samples_without_labels_can_come_first(noisy):
    X, given, trusted = noisy
    given = np.where(trusted | (np.arange(178) % 50 == 1), given, np.nan)
    svm = PUDistillClassifier(LinearSVC(), n_members=3, max_iter=2, random_state=0)
    order = np.random.default_rng(0).permutation(178)
    X, given, trusted = (np.repeat(part[order], 20, axis=0) for part in (X, given, trusted))
    assert svm.estimate_time(X, given, trusted).seconds > 0


def test_an_update_is_estimated_as_one(noisy, whole):
    with warnings.catch_warnings(record=True) as recorded:
        warnings.simplefilter("always", TimeLimitWarning)
        copy.deepcopy(whole).set_params(warm_start=True, time_limit="1h").fit(*noisy)
    assert not recorded
    estimate = TimeEstimate([Step("filter", 800, 60, 10)], {"b=2": 39}, 8).scaled(0.5)
    assert estimate == TimeEstimate([Step("filter", 400, 30, 5)], {}, 4)
