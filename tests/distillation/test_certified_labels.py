import numpy as np
import pytest
from sklearn.datasets import make_classification
from sklearn.exceptions import NotFittedError
from sklearn.neighbors import KNeighborsClassifier

from pudistill import PUDistillClassifier, corrupt_labels
from pudistill.distillation.certified_labels import certify
from pudistill.distillation.held_out_labels import HeldOutLabels
from pudistill.exceptions import InputError, TrustedWarning
from pudistill.labels.checks import check_labels

NAMES = np.array(["cat", "dog"], dtype=object)
N = 1000
TRUSTED = np.arange(N) % 2 == 0
LABEL = np.arange(N) // 2 % 2
SURE = HeldOutLabels(LABEL.copy(), np.linspace(1, 0.5, N, dtype=np.float32), 1.0, None)


def problem(seed, *, n=400, n_verified=120):
    X, y = make_classification(
        n, 6, n_informative=4, n_redundant=0, n_classes=2, flip_y=0.0, random_state=seed
    )
    rng = np.random.default_rng(seed)
    given = corrupt_labels(y, "symmetric", 0.3, random_state=seed).y
    verified = np.full(n, np.nan)
    chosen = rng.permutation(n)[:n_verified]
    verified[chosen] = y[chosen]
    return X, y, given, verified


def test_all_labels_are_accepted_if_none_is_wrong():
    result = certify(NAMES, LABEL, TRUSTED, SURE, max_error=0.01)
    assert result.accepted.all()
    assert (result.n_accepted, result.n_samples, result.n_verified, result.n_wrong) == (
        *(500, 500, 500, 0),
    )
    assert (result.labels == NAMES[LABEL]).all()
    assert "500 of 500 labels that nobody verified are accepted: with 95% confidence" in str(result)


def test_accepted_labels_are_those_that_were_judged():
    held_out = HeldOutLabels(np.where(TRUSTED, LABEL, 1 - LABEL), SURE.score, 1.0, None)
    result = certify(NAMES, LABEL, TRUSTED, held_out, max_error=0.01)
    assert (result.labels[TRUSTED] == NAMES[LABEL[TRUSTED]]).all()
    assert (result.labels[~TRUSTED] == NAMES[1 - LABEL[~TRUSTED]]).all()


def test_the_unsure_labels_are_left_out():
    label = np.where(SURE.score < 0.7, 1 - LABEL, LABEL)  # of these, all are wrong
    held_out = HeldOutLabels(label, SURE.score, 1.0, None)
    result = certify(NAMES, LABEL, TRUSTED, held_out, max_error=0.05)
    accepted = result.accepted & ~TRUSTED
    assert 0.9 * 300 < accepted.sum() <= 300 / 0.95
    assert SURE.score[accepted].min() > 0.68


def test_too_few_verified_samples_say_how_many_more_are_needed():
    few = np.arange(N) % 20 == 0
    held_out = HeldOutLabels(LABEL, np.linspace(1, 0.999, N), 1.0, None)
    result = certify(NAMES, LABEL, few, held_out, max_error=0.01)
    assert result.n_accepted == 0
    assert (result.accepted == few).all()
    assert "No label can be accepted yet" in str(result)
    assert "350 more for 100% of the labels" in str(result)


def test_samples_in_groups_prove_less():
    alone = certify(NAMES, LABEL, TRUSTED, SURE, max_error=0.01)
    grouped = HeldOutLabels(SURE.label, SURE.score, 0.2, None)
    assert alone.n_accepted > certify(NAMES, LABEL, TRUSTED, grouped, max_error=0.01).n_accepted


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_error": 0}, "max_error is 0: it must be a number between 0 and 1"),
        ({"max_error": 1.5}, "max_error is 1.5"),
        ({"max_error": "1%"}, "max_error is '1%'"),
        ({"max_error": 0.1, "confidence": 1.0}, "confidence is 1.0"),
    ],
)
def test_numbers_out_of_range(values, message):
    with pytest.raises(InputError, match=message):
        certify(NAMES, LABEL, TRUSTED, SURE, **values)


def test_nothing_that_a_promise_could_rest_on():
    unknown = HeldOutLabels(LABEL, np.where(TRUSTED, np.nan, 0.9), 1.0, None)
    with pytest.raises(InputError, match="no verified sample was held out"):
        certify(NAMES, LABEL, TRUSTED, unknown, 0.1)
    doubted = HeldOutLabels(LABEL, SURE.score, 1.0, "They are all cats.")
    with pytest.raises(InputError, match=r"No label can be certified\. They are all cats\."):
        certify(NAMES, LABEL, TRUSTED, doubted, 0.1)


def test_the_promise_holds_for_a_learner_that_memorises():
    # One nearest neighbour is certain of every label that it has seen, right or wrong.
    n_broken = 0
    for seed in range(4):
        X, y, given, verified = problem(seed)
        classifier = PUDistillClassifier(
            KNeighborsClassifier(1), n_members=2, max_iter=1, random_state=seed
        )
        certified = classifier.fit(X, given, trusted=verified).certify(0.15)
        new = certified.accepted & np.isnan(verified)
        n_broken += bool(new.any()) and np.mean(certified.labels[new] != y[new]) > 0.15
    assert n_broken <= 1


def test_verified_samples_of_no_class_count_as_wrong():
    labels = check_labels(
        LABEL, np.where(np.arange(N) < 100, -7, np.where(TRUSTED, LABEL, np.nan)), no_class_label=-7
    )
    kept = ~labels.no_class
    held_out = HeldOutLabels(LABEL[kept], SURE.score[kept], 1.0, None).with_no_class(labels)
    label = np.where(labels.no_class, 2, LABEL)
    names = np.array(["cat", "dog", "none of these"], dtype=object)
    trusted = labels.trusted | labels.no_class
    assert certify(NAMES, LABEL, TRUSTED, SURE, 0.1).n_accepted == 500
    assert certify(names, label, trusted, held_out, 0.1).n_accepted == 0


def test_samples_verified_from_one_end_are_doubted():
    X, y, given, _ = problem(0)
    verified = np.where(np.arange(len(X)) < 80, y, np.nan)
    classifier = PUDistillClassifier(n_members=5, random_state=0)
    with pytest.warns(TrustedWarning, match="not like a random sample"):
        classifier.fit(X, given, trusted=verified)
    with pytest.raises(InputError, match=r"No label can be certified\. The verified samples"):
        classifier.certify(0.1)


def test_the_papers_method_certifies_nothing():
    X, _, given, verified = problem(0)
    classifier = PUDistillClassifier(method="paper", n_members=3, max_iter=2, random_state=0)
    with pytest.raises(InputError, match='fit with method="default"'):
        classifier.fit(X, given, trusted=verified).certify()


def test_an_unfitted_classifier_says_so():
    with pytest.raises(NotFittedError):
        PUDistillClassifier().certify()
