"""Several sources of labels, from the classifier to the command line."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import make_blobs
from sklearn.linear_model import LogisticRegression

from pudistill import PUDistillClassifier, correct_labels
from pudistill.data.loading import load_dataset
from pudistill.exceptions import InputError, TrustedWarning
from pudistill.methods import CrossEntropyClassifier, GoldLossCorrectionClassifier

QUICK = {"n_members": 2, "max_iter": 2, "random_state": 0}


@pytest.fixture(scope="module")
def crowd():
    """Three overlapping classes; three workers, each right on 60 % of two thirds of the samples."""
    X, y = make_blobs(600, 4, centers=3, cluster_std=6.0, random_state=0)
    rng = np.random.default_rng(0)
    said = np.where(rng.random((600, 3)) < 0.6, y[:, None], rng.integers(3, size=(600, 3)))
    said[rng.random((600, 3)) < 1 / 3] = -1
    verified = np.full(600, np.nan)
    chosen = rng.permutation(600)[:90]
    verified[chosen] = y[chosen]
    return X, y, said, verified


def fit(X, said, verified, **params):
    return PUDistillClassifier(**QUICK | params).fit(X, said, trusted=verified)


def share_right(classifier, y, verified):
    label = classifier.label_table_["label"].to_numpy()
    return (label == y)[np.isnan(verified)].mean()


@pytest.fixture(scope="module")
def fitted(crowd):
    X, _, said, verified = crowd
    return fit(X, said, verified)


def test_corrected_labels_are_better_than_votes(crowd, fitted):
    _, y, _, verified = crowd
    table = fitted.label_table_[np.isnan(verified)]
    assert share_right(fitted, y, verified) > (table["given"] == y[np.isnan(verified)]).mean() + 0.1


def test_each_source_has_a_rate_and_an_interval(crowd, fitted):
    _, y, said, verified = crowd
    sources = fitted.noise_.per_source
    for s, row in enumerate(sources.frame().itertuples()):
        spoke = np.isnan(verified) & (said[:, s] >= 0)
        assert row.n_labels == spoke.sum()
        assert row.rate_low <= (said[:, s] != y)[spoke].mean() <= row.rate_high
        assert row.rate_low <= row.rate <= row.rate_high
    assert sources.transition_matrix.shape == (3, 3, 3)
    np.testing.assert_allclose(sources.transition_matrix.sum(axis=2), 1)
    assert sources.n_decided.min() > 0
    json.dumps(fitted.noise_.to_dict(), allow_nan=False)


def test_copies_change_nothing(crowd, fitted):
    X, _, said, verified = crowd
    copied = fit(X, np.column_stack([said, *[said[:, 0]] * 5]), verified)
    np.testing.assert_allclose(copied.targets_, fitted.targets_, atol=0.02)
    assert copied.noise_.per_source.copy_of == [*[None] * 3, *["0"] * 5]


def test_an_adversary_helps(crowd, fitted):
    X, y, said, verified = crowd
    next_class = np.where(np.random.default_rng(1).random(600) < 0.9, (y + 1) % 3, y)
    helped = fit(X, np.column_stack([said, next_class]), verified)
    assert share_right(helped, y, verified) > share_right(fitted, y, verified) + 0.02


def test_without_verified_labels_nothing_is_promised(crowd):
    X, y, said, verified = crowd
    with pytest.warns(TrustedWarning, match="Nothing is verified"):
        classifier = fit(X, said, None)
    assert share_right(classifier, y, verified) > 0.75
    assert classifier.expected_accuracy_ is classifier.label_accuracy_ is None
    assert classifier.noise_.rate_interval == (0, 1)
    assert (classifier.noise_.per_source.rate_interval == [0, 1]).all()
    with pytest.raises(InputError, match="No label can be certified"):
        classifier.certify(0.1)
    assert (classifier.predict(X) == y).mean() > 0.65


def test_certificates_and_groups_work(crowd):
    X, _, said, verified = crowd
    classifier = PUDistillClassifier(**QUICK)
    classifier.fit(X, said, trusted=verified, groups=np.arange(600) // 2)
    assert classifier.certify(0.5).n_accepted > 0


def test_labels_of_fit_come_again_from_its_predictions(crowd, fitted):
    _, _, said, verified = crowd
    corrected = correct_labels(
        said,
        fitted.cross_fitted_proba_,
        verified,
        held_out_proba=fitted.held_out_proba_,
        folds=fitted.folds_,
        calibrate=False,
    )
    np.testing.assert_allclose(corrected.proba, fitted.targets_, atol=1e-6)


@pytest.mark.parametrize("verified", [True, False])
def test_a_network_learns_from_sources(crowd, verified):
    torch = pytest.importorskip("pudistill.learners.networks.classifier")
    X, y, said, known = crowd
    network = torch.TorchClassifier("mlp", epochs=3, random_state=0)
    classifier = fit(X, said, known if verified else None, estimator=network)
    assert share_right(classifier, y, known) > 0.7


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"method": "paper"}, "No sample is trusted"),
        ({"transition_matrix": np.eye(3)}, "that of one source"),
    ],
)
def test_what_cannot_be_is_refused(crowd, params, message):
    X, _, said, verified = crowd
    with pytest.raises(InputError, match=message):
        fit(X, said, None if "method" in params else verified, **params)


def test_noise_groups_are_for_one_source(crowd):
    X, _, said, verified = crowd
    groups = np.arange(600) % 2
    with pytest.raises(InputError, match="noise_groups are for labels of one source"):
        PUDistillClassifier(**QUICK).fit(X, said, trusted=verified, noise_groups=groups)
    with pytest.raises(InputError, match="noise_groups are for labels of one source"):
        correct_labels(said, np.full((600, 3), 1 / 3), verified, noise_groups=groups)


def test_rows_must_be_those_of_the_samples(crowd):
    X, _, said, verified = crowd
    with pytest.raises(InputError, match="X has 600 samples but y has 3 rows"):
        PUDistillClassifier(**QUICK).fit(X, said.T, trusted=verified)


def test_other_methods_learn_from_votes(crowd):
    X, y, said, _ = crowd
    learner = LogisticRegression()
    assert CrossEntropyClassifier(learner).fit(X, said).score(X, y) > 0.65
    with pytest.raises(InputError, match="No sample is trusted"):
        GoldLossCorrectionClassifier(learner).fit(X, said)


@pytest.mark.parametrize("form", ["columns", "table"])
def test_the_command_line_reads_sources(crowd, form, command, tmp_path):
    X, y, said, verified = crowd
    names = np.array(["ant", "bee", "cow", ""])
    samples = pd.DataFrame(X.round(3), columns=list("abcd"))
    samples.insert(0, "id", [f"s{row}" for row in range(len(X))])
    wide = samples.join(pd.DataFrame(names[said]).rename(columns="worker_{}".format))
    rows, source = np.nonzero(said >= 0)
    long = pd.DataFrame({"id": samples["id"].to_numpy()[rows], "source": source})
    long.assign(label=names[said[rows, source]]).to_csv(tmp_path / "said.csv", index=False)
    (samples if form == "table" else wide).to_csv(tmp_path / "data.csv", index=False)
    known = ~np.isnan(verified)
    checked = pd.DataFrame({"id": samples["id"][known], "label": names[y[known]]})
    checked.to_csv(tmp_path / "checked.csv", index=False)
    options = {"columns": ["--label-column", "worker_*"], "table": ["--annotations", "said.csv"]}
    quick = ["--n-members", "2", "--max-iter", "2", "--trusted", "checked.csv", "--output", "run"]
    code, out, error = command("fit", "data.csv", *options[form], *quick)
    assert code == 0, error
    assert "of the majority votes on samples that nobody verified are wrong" in out
    run = tmp_path / "run"
    table = pd.read_csv(run / "labels.csv")
    assert (table["label"] == names[y]).mean() > 0.8
    metrics = json.loads((run / "metrics.json").read_text())
    assert len(metrics["noise"]["per_source"]["names"]) == 3
    assert "<h2>The sources</h2>" in (run / "report.html").read_text()


def test_a_run_without_verified_labels_reads_sources(crowd, command, tmp_path):
    X, _, said, _ = crowd
    wide = pd.DataFrame(X, columns=list("abcd")).join(pd.DataFrame(said).add_prefix("worker_"))
    wide.to_csv(tmp_path / "data.csv", index=False)
    assert load_dataset(tmp_path / "data.csv", label_column="worker_*").classes == ("0", "1", "2")
    quick = ["--n-members", "2", "--label-column", "worker_*", "--output", "run"]
    code, out, error = command("fit", "data.csv", *quick)
    assert code == 0, error
    assert "cannot be told" in out
    assert "Nothing is verified" in error
    code, _, error = command("fit", "data.csv", *quick[:-1], "other", "--test-fraction", "0.2")
    assert code != 0
    assert "nothing is verified" in error
    code, _, error = command("fit", "data.csv", *quick[:-1], "other", "--method", "paper")
    assert code != 0
    assert "there is no trusted sample at all" in error
