"""Samples of no class, found or verified: labels, table, noise and run folder."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB

from pudistill import PUDistillClassifier, TieredPUFilter, TrustedKFold, load
from pudistill.exceptions import TrustedWarning
from pudistill.labels.checks import check_labels
from pudistill.methods import CrossEntropyClassifier, GoldLossCorrectionClassifier
from pudistill.runs.fit import fit_run
from pudistill.runs.settings import Settings

NONE = "none of these"
N_JUNK = 60
QUICK = {"n_members": 2, "max_iter": 1, "random_state": 0}


@pytest.fixture(scope="module")
def junky():
    """Three blobs with a fifth of wrong labels, then junk with any label; verified blobs."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 300)
    X = 1.5 * rng.normal(size=(3, 6))[y] + rng.normal(size=(300, 6))
    junk = rng.normal(size=(N_JUNK, 6)) + np.tile([9, -9], 3)
    given = np.where(rng.random(300) < 0.3, rng.integers(0, 3, 300), y)
    verified = np.full(300 + N_JUNK, None, dtype=object)
    verified[:80] = y[:80]
    return np.r_[X, junk], np.r_[given, rng.integers(0, 3, N_JUNK)], verified, y


def test_junk_gets_no_confidence_and_is_no_noise(junky):
    X, given, verified, y = junky
    classifier = PUDistillClassifier(**QUICK).fit(X, given, trusted=verified)
    table = classifier.label_table_
    assert table["outlier"][300:].all()
    assert table["outlier"][:300].mean() <= 0.01
    assert table["confidence"][300:].max() <= 0.1
    low, high = classifier.noise_.rate_interval
    assert low <= np.mean(given[80:300] != y[80:]) <= high


def test_samples_verified_to_be_of_no_class_are_in_no_training(junky):
    X, given, verified, _ = junky
    verified = verified.copy()
    verified[300:320] = NONE
    frame = pd.DataFrame(X, index=[f"s{i}" for i in range(len(X))])
    taught = PUDistillClassifier(GaussianNB(), **QUICK).fit(frame, given, trusted=verified)
    table = taught.label_table_
    assert taught.classes_.tolist() == [0, 1, 2]
    assert table.index.equals(frame.index)
    assert set(table["label"][300:320]) == {NONE}
    assert set(table["label"][320:]) <= {0, 1, 2}
    assert table["given"].tolist() == given.tolist()
    assert (table["confidence"][300:320] == 1).all()
    assert table["trusted"][300:320].all()
    assert table["outlier"][320:].all()
    assert table["outlier"][:300].mean() <= 0.01
    kept = np.r_[:300, 320 : len(X)]
    without = PUDistillClassifier(GaussianNB(), **QUICK).fit(
        frame.iloc[kept], given[kept], trusted=verified[kept]
    )
    np.testing.assert_array_equal(taught.predict_proba(frame), without.predict_proba(frame))
    again = taught.fit_student(frame, given, trusted=verified).label_table_
    pd.testing.assert_frame_equal(again, table)


@pytest.mark.parametrize("method", [CrossEntropyClassifier, GoldLossCorrectionClassifier])
def test_other_methods_leave_them_out(method, junky):
    X, given, verified, _ = junky
    verified = verified.copy()
    verified[300:] = NONE
    model = method(LogisticRegression(), random_state=0).fit(X, given, trusted=verified)
    without = method(LogisticRegression(), random_state=0).fit(
        X[:300], given[:300], trusted=verified[:300]
    )
    np.testing.assert_array_equal(model.predict_proba(X), without.predict_proba(X))


def test_filter_folds_and_the_papers_method_cope(junky):
    X, given, verified, _ = junky
    verified = verified.copy()
    verified[300:320] = NONE
    found = TieredPUFilter(LogisticRegression(), **QUICK).fit(X, given, verified)
    assert (found.clean_labels_[300:320] == -1).all()
    for train, test in TrustedKFold(3, random_state=0).split(X, given, trusted=verified):
        assert len(train) + len(test) == len(X)
    paper = PUDistillClassifier(method="paper", **QUICK).fit(X, given, trusted=verified)
    assert paper.label_table_["outlier"][300:].all()
    assert paper.label_table_["label"][300] == NONE


def test_the_filter_puts_samples_of_no_class_into_no_clean_set(junky):
    X, given, verified, _ = junky
    verified = verified.copy()
    verified[250:300] = NONE  # although they look like samples of the classes
    found = TieredPUFilter(threshold=0.6, min_votes="auto", **QUICK).fit(X, given, verified)
    assert (found.team_labels_[:, 80:250] >= 0).mean() > 0.5
    assert (found.votes_[250:300] > 0).any()
    assert (found.team_labels_[:, 250:300] == -1).all()
    assert (found.clean_labels_[250:300] == -1).all()


def test_the_label_of_no_class_is_a_missing_label_unless_it_is_verified():
    with pytest.warns(TrustedWarning, match="1 given labels are 'none of these'"):
        labels = check_labels(["a", "b", NONE, NONE], np.array([True, True, True, False]))
    assert labels.classes.tolist() == ["a", "b"]
    assert labels.no_class.tolist() == [False, False, True, False]
    assert labels.given.tolist() == [0, 1, -1, -1]
    assert labels.trusted.sum() == 2
    labels = check_labels([0, 1, 1, 0], [0, 1, NONE, None])
    assert labels.classes.tolist() == [0, 1]
    assert labels.given.tolist() == [0, 1, 1, 0]
    labels = check_labels([0, 1, 1], [0, 1, 9], no_class_label=9)
    assert labels.classes.tolist() == [0, 1]
    assert labels.no_class.tolist() == [False, False, True]
    assert check_labels(["a", NONE], ["a", NONE], no_class_label=None).n_classes == 2


@pytest.mark.parametrize("method", ["default", "cross_entropy"])
def test_a_run_lists_them(method, junky, tmp_path):
    X, given, verified, _ = junky
    pd.DataFrame(X).assign(label=[f"c{g}" for g in given]).to_csv(tmp_path / "d.csv", index=False)
    known = [(i, f"c{v}") for i, v in enumerate(verified) if v is not None]
    known += [(i, "junk") for i in range(300, 310)]
    pd.DataFrame(known, columns=["id", "label"]).to_csv(tmp_path / "t.csv", index=False)
    settings = Settings.read(
        {
            "data": str(tmp_path / "d.csv"),
            "trusted": str(tmp_path / "t.csv"),
            "no_class_label": "junk",
            "method": method,
            "n_members": 2,
            "max_iter": 1,
        }
    )
    fit_run(settings, tmp_path / "run")
    table = pd.read_csv(tmp_path / "run" / "labels.csv")
    assert set(table["label"][300:310]) == {"junk"}
    assert table["outlier"][300:].all()
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["classes"] == ["c0", "c1", "c2"]
    assert N_JUNK - 10 <= metrics["n_outliers"] <= N_JUNK - 7
    assert "Samples unlike all classes" in (tmp_path / "run" / "report.html").read_text()
    assert load(tmp_path / "run").classes_.tolist() == ["c0", "c1", "c2"]
