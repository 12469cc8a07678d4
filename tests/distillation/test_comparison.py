"""The favourite is shipped unless another candidate is clearly better."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from pudistill.distillation import comparison
from pudistill.distillation.comparison import choose, compare, favourite, unjudged
from pudistill.estimates.shares import exact_interval


def hits(n, *right):
    """Return a mask of `n` samples that is true in the given ranges."""
    result = np.zeros(n, dtype=bool)
    for rows in right:
        result[slice(*rows)] = True
    return result


def predictions(correct, labels, n_classes=2):
    """Return predictions that are right where `correct` is true."""
    predicted = np.where(correct, labels, (labels + 1) % n_classes)
    return 0.8 * np.eye(n_classes)[predicted] + 0.2 / n_classes


# The choice


@pytest.mark.parametrize(
    ("names", "name"),
    [
        (["teacher", "student", "mixture"], "mixture"),
        (["trusted_only", "given_labels", "student"], "student"),
    ],
)
def test_the_favourite_is_the_mixture_or_else_the_student(names, name):
    assert favourite(names) == name


@pytest.mark.parametrize(("lead", "shipped"), [(4, "student"), (5, "teacher")])
def test_a_lead_of_two_standard_errors_is_not_enough(lead, shipped):
    # A lead of k samples and no loss has a standard error of √k: 4 is exactly two of them.
    correct = {"student": hits(50, (0, 40)), "teacher": hits(50, (0, 40 + lead))}
    assert choose(correct) == shipped


def test_samples_on_which_the_favourite_wins_make_the_lead_less_certain():
    student = hits(100, (0, 80))
    clear = hits(100, (0, 80), (80, 90))
    contested = hits(100, (20, 80), (80, 100))  # loses 20, wins 20
    won = hits(100, (8, 100))  # wins 20, loses 8: a lead of 12, and a standard error of √28
    assert choose({"student": student, "teacher": clear}) == "teacher"
    assert choose({"student": student, "teacher": contested}) == "student"
    assert choose({"student": student, "teacher": won}) == "teacher"
    assert choose({"student": student, "teacher": won ^ hits(100, (8, 10))}) == "student"


def test_among_equal_candidates_the_favourite_is_shipped():
    same = hits(30, (0, 20))
    names = ["trusted_only", "given_labels", "teacher", "student"]
    assert choose(dict.fromkeys(names, same)) == "student"
    assert choose(dict.fromkeys([*names, "mixture"], same)) == "mixture"


def test_the_best_of_several_leaders_is_shipped():
    correct = {
        "trusted_only": hits(60, (0, 50)),
        "given_labels": hits(60, (0, 58)),
        "teacher": hits(60, (0, 54)),
        "student": hits(60, (0, 30)),
    }
    assert choose(correct) == "given_labels"


@settings(max_examples=100)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 60), accuracy=st.floats(0.1, 1))
def test_the_shipped_candidate_is_the_favourite_or_leads_it(seed, n, accuracy):
    rng = np.random.default_rng(seed)
    names = ["trusted_only", "given_labels", "teacher", "student", "mixture"]
    correct = {name: rng.random(n) < accuracy * rng.random() for name in names}
    shipped = choose(correct)
    lead = correct[shipped].sum() - correct["mixture"].sum()
    assert shipped == "mixture" or lead > 4  # never by a handful of samples


# The results


def test_candidates_are_measured_on_the_held_out_samples():
    labels = np.array([0, 1, 1, 0])
    student = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.5, 0.5]])
    found = compare({"student": student, "teacher": np.eye(2)[labels]}, labels, seed=0)
    first, second = found.candidates
    assert (first["name"], first["accuracy"]) == ("student", 0.75)
    assert first["log_loss"] == pytest.approx(-np.log([0.9, 0.8, 0.4, 0.5]).mean())
    assert (second["accuracy"], second["log_loss"]) == (1.0, pytest.approx(0, abs=1e-9))
    assert found.expected_accuracy.n == 4


def test_a_certain_mistake_costs_much_but_not_everything():
    found = compare({"student": np.eye(2)[[0, 0]]}, np.array([0, 1]), seed=0)
    assert 10 < found.candidates[0]["log_loss"] < 20


@pytest.mark.parametrize(
    ("student", "teacher", "words"),
    [
        ((0, 40), (0, 50), "The teachers got 100.0% of the held-out trusted samples right, the st"),
        ((0, 48), (0, 50), "a lead that chance explains"),
        ((0, 45), (5, 50), "right, the teachers 90.0%: no difference.$"),
        ((0, 50), (0, 45), "The student got 100.0% .* right, the teachers 90.0%.$"),
    ],
)
def test_the_reason_is_given(student, teacher, words):
    labels = np.arange(50) % 2
    correct = {"student": hits(50, student), "teacher": hits(50, teacher)}
    proba = {name: predictions(right, labels) for name, right in correct.items()}
    assert re.search(words, compare(proba, labels, seed=0).why)


def test_one_candidate_alone_is_shipped():
    found = compare({"student": np.eye(2)[[0, 1]]}, np.array([0, 1]), seed=0)
    assert found.shipped == "student"
    assert found.why == "There was nothing to compare the student with."


def test_with_nothing_held_out_the_favourite_is_shipped_unmeasured():
    nothing = np.zeros((0, 3))
    found = compare({"teacher": nothing, "student": nothing}, np.zeros(0, int), seed=0)
    assert found.shipped == "student"
    assert found.expected_accuracy is None
    assert found.candidates == []
    assert "No trusted sample could be held out" in found.why


# The expected accuracy


def test_one_sample_decides_nothing():
    found = compare({"student": np.eye(2)[[0]], "teacher": np.eye(2)[[1]]}, np.array([1]), seed=0)
    assert found.shipped == "student"
    low, high = found.expected_accuracy.interval
    assert low < 0.01
    assert high > 0.7


def test_the_accuracy_is_not_above_the_best_that_was_measured():
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=40)
    for seed in range(10):
        correct = {name: rng.random(40) < 0.7 for name in ("student", "teacher", "given_labels")}
        proba = {name: predictions(right, labels) for name, right in correct.items()}
        value = compare(proba, labels, seed=seed).expected_accuracy.value
        # The mean of 500 bootstraps is itself uncertain by about half a point.
        assert value <= max(right.mean() for right in correct.values()) + 0.01


def test_the_accuracy_is_corrected_for_the_choice_of_the_luckiest(monkeypatch):
    # With a rule that ships any leader, the measured accuracy of the leader is too high.
    monkeypatch.setattr(comparison, "LEAD", 0.0)
    monkeypatch.setattr(comparison, "BOOTSTRAPS", 100)
    rng = np.random.default_rng(1)
    labels = rng.integers(2, size=70)
    raw, corrected = [], []
    for seed in range(40):
        correct = {name: rng.random(70) < 0.7 for name in comparison.DESCRIPTIONS}
        raw.append(max(right.mean() for right in correct.values()))
        proba = {name: predictions(right, labels) for name, right in correct.items()}
        corrected.append(compare(proba, labels, seed=seed).expected_accuracy.value)
    assert np.mean(raw) > 0.75
    assert np.mean(corrected) == pytest.approx(0.7, abs=0.02)


@pytest.mark.parametrize("accuracy", [0.6, 0.85, 0.97])
def test_the_interval_covers_the_accuracy_as_often_as_it_claims(monkeypatch, accuracy):
    monkeypatch.setattr(comparison, "BOOTSTRAPS", 20)  # hundreds of comparisons
    rng = np.random.default_rng(0)
    n, names = 70, ["trusted_only", "given_labels", "teacher", "student", "mixture"]
    labels = rng.integers(2, size=n)
    covered = []
    for seed in range(300):
        # All are equally good, on different samples: one of them looks best by chance.
        proba = {name: predictions(rng.random(n) < accuracy, labels) for name in names}
        low, high = compare(proba, labels, seed=seed).expected_accuracy.interval
        covered.append(low <= accuracy <= high)
    assert np.mean(covered) >= 0.92


@settings(max_examples=50)
@given(n=st.integers(1, 500), share=st.floats(0, 1))
def test_the_interval_agrees_with_scipy(n, share):
    k = round(share * n)
    expected = binomtest(k, n).proportion_ci(method="exact")
    assert exact_interval(k / n, n) == pytest.approx(expected)


def test_one_seed_gives_one_result():
    labels = np.arange(30) % 2
    proba = {"student": predictions(hits(30, (0, 22)), labels)}
    first, second = (compare(proba, labels, seed=3) for _ in range(2))
    assert first == second


def test_classes_without_held_out_samples_are_named():
    classes = np.array(["cat", "dog", "eel"])
    assert unjudged(classes, np.array([0, 1, 2])) is None
    assert unjudged(classes, np.zeros(0, dtype=int)) is None
    assert "class 'cat', 'eel' could be held out" in unjudged(classes, np.array([1, 1]))


def test_weights_decide_which_candidate_leads():
    labels, likely = np.zeros(200, dtype=int), np.arange(200) < 100
    right = np.tile([0.9, 0.1], (200, 1))
    student = np.where(likely[:, None], [0.1, 0.9], [0.9, 0.1])  # wrong where many were drawn
    other = np.where(np.arange(200)[:, None] >= 180, [0.1, 0.9], right)
    candidates = {"student": student, "given_labels": other}
    weight = np.where(likely, 0.02, 1.0)
    assert compare(candidates, labels, seed=0).shipped == "given_labels"
    weighted = compare(candidates, labels, weight=weight, seed=0)
    assert weighted.shipped == "student"
    assert weighted.candidates[0]["accuracy"] == pytest.approx(100 / 102)
