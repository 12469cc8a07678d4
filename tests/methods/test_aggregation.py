"""Methods that aggregate the labels of several sources."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from pudistill import Annotations, simulate_sources
from pudistill.exceptions import InputError
from pudistill.labels.annotations import check_annotations
from pudistill.labels.sources import count_labels
from pudistill.methods import (
    CrossEntropyClassifier,
    CrowdlabClassifier,
    DawidSkeneClassifier,
    LabelModelClassifier,
    MajorityVoteClassifier,
    aggregation,
)
from pudistill.methods.base import LabelledSamples
from pudistill.methods.registry import METHODS, load_class

ALL = [load_class(name) for name, system in METHODS.items() if system.aggregates_sources]
SILENT = -1


@pytest.fixture(scope="module")
def crowd():
    """Six sources of three classes, half of the time silent, one of them an adversary."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 400)
    X = np.eye(3)[y] + 0.7 * rng.normal(size=(400, 3))
    sources = simulate_sources(y, 6, level=0.4, abstain=0.5, adversarial=1, random_state=0)
    return X, y, sources, rng.random(400) < 0.1


def fitted(cls, X, sources, trusted=None, **params):
    return cls(LogisticRegression(), random_state=0, **params).fit(X, sources, trusted)


def share_right(method, y, rows=slice(None)):
    return np.mean(method.label_proba_[rows].argmax(axis=1) == y[rows])


@pytest.mark.parametrize("cls", ALL)
def test_labels_are_probabilities_and_nan_where_all_sources_are_silent(cls, crowd):
    X, y, sources, _ = crowd
    method = fitted(cls, X, sources)
    spoken = sources.notna().any(axis=1).to_numpy()
    assert (~spoken).sum() > 0
    assert np.isnan(method.label_proba_[~spoken]).all()
    np.testing.assert_allclose(method.label_proba_[spoken].sum(axis=1), 1)
    np.testing.assert_array_equal(method.learned_from_, spoken)
    assert method.source_names_.tolist() == list(sources)
    assert share_right(method, y, spoken) > 0.6
    assert method.score(X, y) > 0.7


@pytest.mark.parametrize("cls", ALL)
def test_a_verified_label_is_the_label(cls, crowd):
    X, y, sources, trusted = crowd
    method = fitted(cls, X, sources, np.where(trusted, y, np.nan))
    np.testing.assert_array_equal(method.label_proba_[trusted], np.eye(3)[y[trusted]])
    unknown = fitted(cls, X, sources, np.where(trusted, y, np.nan), use_trusted=False)
    np.testing.assert_array_equal(unknown.label_proba_, fitted(cls, X, sources).label_proba_)


@pytest.mark.parametrize("cls", ALL)
def test_a_long_table_is_as_good_as_columns(cls, crowd):
    X, _, sources, _ = crowd
    rows, columns = np.nonzero(sources.notna().to_numpy())
    labels = sources.to_numpy()[rows, columns]
    annotations = Annotations(len(sources), list(sources), rows, columns, labels)
    first, other = (fitted(cls, X, form).label_proba_ for form in (sources, annotations))
    np.testing.assert_array_equal(first, other)


@pytest.mark.parametrize("cls", ALL)
def test_one_label_a_sample_is_one_source(cls, crowd):
    X, y, _, trusted = crowd
    given = np.where(np.arange(400) % 10 == 3, (y + 1) % 3, y)
    method = fitted(cls, X, given, np.where(trusted, y, np.nan))
    assert method.label_proba_.shape == (400, 3)
    assert method.score(X, y) > 0.7


@pytest.mark.parametrize("cls", [DawidSkeneClassifier, LabelModelClassifier])
def test_marked_samples_say_nothing_of_the_sources(cls, crowd):
    """Only samples whose sources agree can be marked, so that sources would look too good."""
    X, y, sources, _ = crowd
    agree = sources.nunique(axis=1).eq(1).to_numpy() & (sources.bfill(axis=1).iloc[:, 0] == y)
    marked = fitted(cls, X, sources, agree.to_numpy())
    silent = sources.mask(agree)
    verified = fitted(cls, X, silent, np.where(agree, y, np.nan))
    np.testing.assert_allclose(marked.label_proba_, verified.label_proba_, atol=1e-12)


def test_sources_of_no_class_are_refused_with_their_name(crowd):
    X, y, sources, trusted = crowd
    wrong = sources.copy()
    wrong.loc[5, "source_2"] = 9
    with pytest.raises(InputError, match="Source 'source_2' says 9 of sample 5"):
        fitted(MajorityVoteClassifier, X, wrong, np.where(trusted, y, np.nan))


def test_majority_vote_decides_ties_and_trains_as_cross_entropy_does(crowd):
    X, _, sources, _ = crowd
    vote = check_annotations(sources).given
    known = vote != SILENT
    method = fitted(MajorityVoteClassifier, X, sources)
    np.testing.assert_array_equal(method.label_proba_[known].argmax(axis=1), vote[known])
    plain = fitted(CrossEntropyClassifier, X, sources)
    np.testing.assert_array_equal(method.predict_proba(X), plain.predict_proba(X))


# Nine samples of three sources. The expected numbers are those of other libraries.
SMALL = np.array(
    [[0, 0, 0, 1, 1, 2, 2, 2, 1], [0, 0, 1, 1, -1, 2, 2, 0, 1], [1, -1, 0, 1, 1, 1, 2, 2, 0]]
).T


def test_dawid_and_skenes_steps_are_those_of_crowd_kit(monkeypatch):
    monkeypatch.setattr(aggregation, "MAX_STEPS", 3)
    labels = check_annotations(SMALL)
    samples = LabelledSamples(SMALL, labels.given, labels.trusted, 3, labels)

    def without_added_labels(proba):
        counts = np.maximum(count_labels(labels.sources.said, proba), 1e-10)
        return proba.mean(axis=0), counts / counts.sum(axis=2, keepdims=True)

    found = aggregation.maximise_expectation(samples, labels.sources, without_added_labels)
    # crowd-kit 1.4.2, DawidSkene(n_iter=3, tol=0)
    of_class_0 = [0.997513, 0.997628, 0.724591, 0.008117, 0.027999, 0, 0, 6e-06, 0.009083]
    of_class_1 = [0.002487, 0.002372, 0.275409, 0.991883, 0.972001, 1e-06, 0, 0, 0.990917]
    np.testing.assert_allclose(found[:, 0], of_class_0, atol=1e-6)
    np.testing.assert_allclose(found[:, 1], of_class_1, atol=1e-6)


def test_dawid_and_skene_find_the_matrix_of_each_source(crowd):
    X, y, sources, trusted = crowd
    method = fitted(DawidSkeneClassifier, X, sources, np.where(trusted, y, np.nan))
    adversary = method.transition_matrices_[-1]
    assert (adversary.argmax(axis=1) == [1, 2, 0]).all()
    true = pd.crosstab(y, sources["source_1"].to_numpy(), normalize="index")
    np.testing.assert_allclose(method.transition_matrices_[0], true, atol=0.15)
    majority = fitted(MajorityVoteClassifier, X, sources)
    spoken = method.learned_from_
    assert share_right(method, y, spoken) > share_right(majority, y, spoken) + 0.05


def test_the_label_model_finds_how_often_each_source_is_right(crowd):
    X, y, sources, trusted = crowd
    method = fitted(LabelModelClassifier, X, sources, np.where(trusted, y, np.nan))
    right = [(said[said.notna()] == y[said.notna()]).mean() for _, said in sources.items()]
    np.testing.assert_allclose(method.accuracy_[:5], right[:5], atol=0.1)
    assert 1 / 3 < method.accuracy_[5] < 0.5  # the adversary counts as little better than chance


def test_two_sources_that_agree_are_as_good_as_each_other():
    y = np.arange(1000) % 2
    sources = np.column_stack([np.where(np.arange(1000) % 10 < 2, 1 - y, y), y])
    accuracy = fitted(LabelModelClassifier, np.eye(2)[y], sources).accuracy_
    # They agree on 0.8 of the samples, and 0.89 ** 2 + 0.11 ** 2 is 0.8.
    np.testing.assert_allclose(accuracy, 0.89, atol=0.01)


def test_the_label_model_multiplies_odds():
    """Of two classes, sources that are right with probability a have odds a / (1 - a) each."""
    y = np.arange(200) % 2
    sources = np.column_stack([y, np.where(np.arange(200) % 10 < 2, 1 - y, y), y])
    method = fitted(LabelModelClassifier, np.eye(2)[y], sources)
    odds = method.accuracy_ / (1 - method.accuracy_)
    expected = odds[0] * odds[2] / odds[1]  # the second source contradicts the two others
    found = method.label_proba_[0, 0] / method.label_proba_[0, 1]
    assert found == pytest.approx(expected, rel=1e-3)


def test_crowdlab_trusts_a_good_classifier_where_sources_are_split(crowd):
    X, y, sources, _ = crowd
    method = fitted(CrowdlabClassifier, X, sources)
    majority = fitted(MajorityVoteClassifier, X, sources)
    spoken = method.learned_from_
    assert share_right(method, y, spoken) > share_right(majority, y, spoken) + 0.02
    assert method.source_weight_[-1] == method.source_weight_.min()
