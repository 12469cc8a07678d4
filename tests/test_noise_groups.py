"""Noise groups, from the classifier to the command line."""

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import make_blobs

from pudistill import PUDistillClassifier
from pudistill.data.loading import load_dataset
from pudistill.data.writing import write_table
from pudistill.distillation.noise_model import NoiseModel
from pudistill.distillation.transition import Originals, fit_group_matrices
from pudistill.exceptions import InputError
from pudistill.labels.pseudo_labels import likelihood

ANNOTATORS = np.array(["Ann", "Bob"], dtype=object)
T = np.array([[0.9, 0.1], [0.2, 0.8]])


@pytest.fixture(scope="module")
def annotated():
    """Two overlapping classes: Ann labels them right, Bob tosses a coin."""
    X, y = make_blobs(400, 2, centers=[[0, 0], [2, 0]], cluster_std=1.2, random_state=0)
    rng = np.random.default_rng(0)
    who = rng.integers(2, size=400)
    given = np.where((who == 1) & (rng.random(400) < 0.5), 1 - y, y)
    verified = np.full(400, np.nan)
    chosen = rng.permutation(400)[:80]
    verified[chosen] = y[chosen]
    return X, y, given, verified, ANNOTATORS[who]


def test_labels_of_a_careful_annotator_are_kept(annotated):
    X, y, given, verified, who = annotated
    others = np.isnan(verified)

    def share_right(**groups):
        classifier = PUDistillClassifier(n_members=5, random_state=0)
        classifier.fit(X, given, trusted=verified, **groups)
        return (classifier.label_table_["label"].to_numpy() == y)[others].mean()

    assert share_right(noise_groups=who) > share_right() + 0.03


def test_without_groups_the_likelihood_is_that_of_the_matrix():
    given, verified = np.array([0, 1, -1]), np.array([-1, -1, 1])
    expected = likelihood(T, given, verified)
    np.testing.assert_array_equal(NoiseModel(T).likelihood(given, verified), expected)
    same = NoiseModel(T, np.array([T, T]), np.array([0, 1, 0]))
    np.testing.assert_array_equal(same.likelihood(given, verified), expected)


def test_each_group_has_its_likelihood():
    model = NoiseModel(T, np.array([np.eye(2), 1 - np.eye(2)]), np.array([0, 1, 1]))
    found = model.likelihood(np.array([0, 0, -1])).tolist()
    assert found == [[1, 0], [0, 1], [1, 1]]
    assert model.likelihood(np.array([0]), rows=np.array([1])).tolist() == [[0, 1]]


def test_equal_groups_keep_the_common_matrix():
    rng = np.random.default_rng(0)
    true = rng.integers(2, size=4000)
    given = np.where(rng.random(4000) < T[true, 0], 0, 1)
    groups = rng.integers(40, size=4000)
    found = fit_group_matrices(T, np.eye(2)[true], given, groups, 40)
    assert np.abs(found - T).max() < 0.05


def test_originals_count():
    verified, given = np.repeat([0, 1], 50), np.repeat([1, 0], 50)
    originals = Originals(verified, given, np.arange(100), np.zeros(100, dtype=int))
    nothing = np.zeros(0, dtype=int)
    found = fit_group_matrices(T, np.zeros((0, 2)), nothing, nothing, 2, originals)
    assert found[0].argmax(axis=1).tolist() == [1, 0]


@pytest.mark.parametrize("groups", [["Ann"], np.zeros((400, 2))], ids=["too few", "2 dimensions"])
def test_wrong_groups_are_an_error(annotated, groups):
    X, _, given, verified, _ = annotated
    with pytest.raises(InputError, match="noise_groups"):
        PUDistillClassifier().fit(X, given, trusted=verified, noise_groups=groups)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_column_of_noise_groups(annotated, tmp_path, suffix):
    X, _, given, _, who = annotated
    frame = pd.DataFrame(X, columns=["u", "v"]).assign(label=given, who=who)
    frame.to_csv(tmp_path / "data.csv", index=False)
    data = load_dataset(tmp_path / "data.csv", noise_group_column="who")
    assert data.feature_names == ("u", "v")
    assert data.noise_groups.tolist() == who.tolist()
    write_table(data, tmp_path / f"again{suffix}")
    again = load_dataset(tmp_path / f"again{suffix}", noise_group_column="noise_group")
    assert again.noise_groups.tolist() == who.tolist()
    assert again.feature_names == ("u", "v")
