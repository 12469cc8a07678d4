"""`correct_labels`: labels and predictions in, corrected labels and their noise out."""

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression

from pudistill import InputError, PUDistillClassifier, TrustedWarning, correct_labels
from pudistill.distillation import correction
from pudistill.exceptions import DataNotice


def simulate(n=1500, n_verified=150, *, seed=0, level=0.3):
    """Return calibrated predictions, true and given labels, and which samples are verified."""
    rng = np.random.default_rng(seed)
    proba = rng.dirichlet(np.full(3, 0.4), n)
    y = (rng.random(n)[:, None] > proba.cumsum(axis=1)).sum(axis=1).clip(max=2)
    given = np.where(rng.random(n) < level, (y + 1) % 3, y)
    is_verified = np.zeros(n, dtype=bool)
    is_verified[rng.choice(n, n_verified, replace=False)] = True
    return proba, y, given, is_verified


def test_labels_are_corrected_and_their_noise_is_known():
    proba, y, given, is_verified = simulate()
    found = correct_labels(given, proba, np.where(is_verified, y, np.nan))
    rest = ~is_verified
    label = found.label_table["label"].to_numpy()
    best = (proba * np.where(given[:, None] == np.arange(3), 0.7, 0.0)).argmax(axis=1)
    assert (label == y)[rest].mean() > max((given == y)[rest].mean(), (best == y)[rest].mean())
    assert found.noise.basis == "verified originals"
    low, high = found.noise.rate_interval
    assert low < (given != y)[rest].mean() < high
    low, high = found.label_accuracy.interval
    assert low < (label == y)[rest].mean() < high
    assert (label == y)[is_verified].all()
    certified = found.certify(max_error=0.2)
    assert certified.n_accepted > 0
    assert (certified.labels != y)[certified.accepted & rest].mean() < 0.2


def test_it_returns_the_labels_of_fit_for_the_probabilities_of_fit():
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=600)
    X = 1.5 * np.eye(3)[y] + rng.normal(size=(600, 3))
    given = np.where(rng.random(600) < 0.4, rng.integers(3, size=600), y)
    trusted = np.where(rng.random(600) < 0.2, y, np.nan)
    classifier = PUDistillClassifier(LogisticRegression(), random_state=0).fit(X, given, trusted)
    found = correct_labels(
        given,
        classifier.cross_fitted_proba_,
        trusted,
        held_out_proba=classifier.held_out_proba_,
        folds=classifier.folds_,
        calibrate=False,
    )
    np.testing.assert_allclose(found.proba, classifier.targets_, atol=1e-9)
    np.testing.assert_array_equal(found.label_table["label"], classifier.label_table_["label"])
    assert found.noise.rate == pytest.approx(classifier.noise_.rate)


@pytest.mark.parametrize("as_mask", [True, False])
def test_predictions_that_have_seen_their_labels_are_found(as_mask):
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=2000)
    is_verified = rng.random(2000) < 0.1
    given = np.where(rng.random(2000) < 0.3, 1 - y, y)
    learned = np.where(is_verified, y, given)
    sureness = np.where(is_verified, 0.97, 0.9)[:, None]
    learned_by_heart = np.where(np.eye(2)[learned], sureness, 1 - sureness)
    trusted = is_verified if as_mask else np.where(is_verified, y, np.nan)
    with pytest.warns(TrustedWarning, match="treat verified samples unlike others"):
        found = correct_labels(learned if as_mask else given, learned_by_heart, trusted)
    with pytest.raises(InputError, match="cross-validated"):
        found.certify(max_error=0.2)


def test_nothing_is_promised_without_verified_labels():
    proba, y, given, _ = simulate()
    found = correct_labels(given, proba)
    assert (found.label_table["label"] == y).mean() > (given == y).mean()
    assert found.noise.rate_interval == (0.0, 1.0)
    assert found.label_accuracy is None
    with pytest.raises(InputError, match="no verified sample was held out"):
        found.certify()


def test_a_frame_names_classes_and_samples():
    proba, y, given, is_verified = simulate()
    names, ids = np.array(["ant", "bee", "cat"]), pd.Index(np.arange(1500), name="id").astype(str)
    frame = pd.DataFrame(proba[:, [2, 0, 1]], index=ids, columns=names[[2, 0, 1]])
    labels = pd.Series(names[given], index=ids)
    verified = pd.Series(names[y], index=ids)[is_verified]
    found = correct_labels(labels, frame.sample(frac=1, random_state=0), verified)
    expected = correct_labels(given, proba, np.where(is_verified, y, np.nan))
    assert found.label_table.index.equals(ids)
    np.testing.assert_array_equal(found.label_table["label"], names[expected.label_table["label"]])


def test_samples_of_no_class_and_missing_labels_have_rows():
    proba, y, given, is_verified = simulate()
    given = given.astype(object)
    given[:10] = None
    trusted = np.where(is_verified, y, None).astype(object)
    trusted[5] = "none of these"
    table = correct_labels(given, proba, trusted).label_table
    assert len(table) == 1500
    assert table["label"][5] == "none of these"
    assert table["label"][:10].notna().all()


def test_groups_and_noise_groups_are_used():
    proba, y, given, is_verified = simulate()
    group = np.arange(1500) // 5
    bad = np.arange(1500) % 2
    given = np.where(bad, given, y)
    trusted = np.where(is_verified, y, np.nan)
    plain = correct_labels(given, proba, trusted)
    by_noise = correct_labels(given, proba, trusted, noise_groups=bad)
    is_right = [
        (found.label_table["label"] == y)[~is_verified].mean() for found in (plain, by_noise)
    ]
    assert is_right[1] > is_right[0] + 0.01
    grouped = correct_labels(given, proba, trusted, groups=group)
    # Samples of a group are alike, so they tell less.
    assert np.ptp(grouped.label_accuracy.interval) > np.ptp(plain.label_accuracy.interval)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p[:-1], "a row for each of the 1,500 labels"),
        (lambda p: p[:, 0], "a column for each class"),
        (lambda p: 3 * p, "Row 0 of pred_probs .* is no distribution"),
        (lambda p: np.where(np.arange(1500)[:, None] == 7, np.nan, p), "Row 7 of pred_probs"),
        (lambda p: np.log(p), "pass the softmax"),
        (lambda p: np.c_[p, 0 * p[:, 0]][:, :2] / p[:, :2].sum(1)[:, None], "has 2 columns, but"),
        (lambda p: p.astype(str), "in place of numbers"),
        (lambda p: pd.DataFrame(p, columns=["a", "b", "c"]), "No column of pred_probs is of"),
        (lambda p: pd.DataFrame(p, columns=[0, 1, 1]), "Two columns"),
    ],
)
def test_bad_predictions_are_refused_with_a_sentence(change, message):
    proba, y, given, is_verified = simulate()
    with pytest.raises(InputError, match=message):
        correct_labels(given, change(proba), np.where(is_verified, y, np.nan))


@pytest.mark.parametrize("folds", [np.zeros(3, dtype=int), np.full(1500, 2), np.zeros(1500), None])
def test_bad_folds_are_refused_with_a_sentence(folds):
    proba, y, given, is_verified = simulate()
    with pytest.raises(InputError, match="folds must hold a whole number from -1 to 1"):
        correct_labels(
            given, proba, np.where(is_verified, y, np.nan), held_out_proba=[proba] * 2, folds=folds
        )


def test_columns_of_an_array_can_be_classes_that_no_label_has():
    proba, y, given, is_verified = simulate()
    wider = np.c_[proba, np.zeros(1500)]
    found = correct_labels(given, wider, np.where(is_verified, y, np.nan))
    assert found.proba.shape == (1500, 4)
    assert found.noise.classes.tolist() == [0, 1, 2, 3]


def test_own_predictions_join_the_first_guess_of_fit():
    proba, y, given, is_verified = simulate(level=0.6)
    trusted = np.where(is_verified, y, np.nan)
    X = np.random.default_rng(1).normal(size=(1500, 3)) + np.eye(3)[y] / 2  # says little
    plain = PUDistillClassifier(n_members=2, max_iter=1, random_state=0)
    helped = clone(plain)
    rest = ~is_verified
    right = [
        (model.fit(X, given, trusted, **own).label_table_["label"] == y)[rest].mean()
        for model, own in ((plain, {}), (helped, {"pred_probs": proba}))
    ]
    assert right[1] > right[0] + 0.02
    assert helped.predict_proba(X[:5]).shape == (5, 3)
    np.testing.assert_allclose(np.exp(helped.predict_log_proba(X[:5])), helped.predict_proba(X[:5]))


def test_own_predictions_are_refused_with_a_sentence_by_fit():
    proba, y, given, is_verified = simulate()
    fit = PUDistillClassifier(n_members=2, max_iter=1, compare=False).fit
    wider = pd.DataFrame(np.c_[proba, np.zeros(1500)])
    with pytest.raises(InputError, match="of which no sample is labelled"):
        fit(np.zeros((1500, 1)) + y[:, None], given, is_verified, pred_probs=wider)


def test_a_mask_cannot_show_what_predictions_have_learned_so_nothing_is_certified():
    proba, y, given, is_verified = simulate()
    found = correct_labels(np.where(is_verified, y, given), proba, is_verified)
    with pytest.raises(InputError, match="came as a mask"):
        found.certify(max_error=0.2)


def test_predictions_that_say_nothing_correct_nothing():
    proba, y, given, is_verified = simulate()
    shuffled = proba[:, [2, 0, 1]]
    with pytest.warns(
        TrustedWarning, match="no better than by guesses.* Check that the rows of pred_probs"
    ):
        found = correct_labels(given, shuffled, np.where(is_verified, y, np.nan))
    rest = ~is_verified
    assert (found.label_table["label"] == given)[rest].all()
    low, high = found.label_accuracy.interval
    assert low < (given == y)[rest].mean() < high


def test_corrections_that_verified_samples_show_to_be_harmful_are_not_made(monkeypatch):
    monkeypatch.setattr(correction, "informed_predictions", lambda by_view, *_: (by_view, True))
    proba, y, given, is_verified = simulate()
    with pytest.warns(TrustedWarning, match="Check that the rows of pred_probs"):
        found = correct_labels(given, proba[:, [2, 0, 1]], np.where(is_verified, y, np.nan))
    assert (found.label_table["label"] == given)[~is_verified].all()


def test_whole_numbers_as_texts_are_columns_by_their_value():
    proba, y, given, is_verified = simulate()
    names = np.array(["9", "10", "11"])
    found = correct_labels(names[given], proba, np.where(is_verified, names[y], None))
    assert (found.label_table["label"] == names[y]).mean() > (given == y).mean()


def test_missing_labels_are_no_class_where_nothing_is_verified():
    proba, _, given, _ = simulate()
    given[:20] = -1
    table = correct_labels(given, proba).label_table
    assert (table["label"][:20] != -1).all()


def test_held_out_predictions_have_the_columns_of_the_others():
    proba, y, given, is_verified = simulate()
    trusted = np.where(is_verified, y, np.nan)
    folds = np.where(is_verified, np.arange(1500) % 2, -1)
    order = [2, 0, 1]
    plain = correct_labels(given, proba, trusted, held_out_proba=[proba] * 2, folds=folds)
    frame = pd.DataFrame(proba[:, order], columns=order)
    named = correct_labels(given, frame, trusted, held_out_proba=[frame] * 2, folds=folds)
    listed = correct_labels(
        given,
        proba[:, order],
        trusted,
        classes=order,
        held_out_proba=[proba[:, order]] * 2,
        folds=folds,
    )
    np.testing.assert_array_equal(plain.label_table["label"], named.label_table["label"])
    np.testing.assert_array_equal(plain.label_table["label"], listed.label_table["label"])


def test_it_shows_itself_in_sentences():
    proba, y, given, is_verified = simulate()
    found = correct_labels(given, proba, np.where(is_verified, y, np.nan))
    assert "of the labels that nobody verified are wrong" in repr(found)
    assert "of the corrected labels that nobody verified are right" in found._repr_html_()
    assert "<table" in found._repr_html_()
    assert "cannot be told" in repr(correct_labels(given, proba))


def test_the_order_of_whole_numbers_as_texts_is_named():
    proba, y, given, is_verified = simulate()
    names = np.array(["10", "11", "9"])  # scikit-learn's order
    labels = (names[given], proba, np.where(is_verified, names[y], None))
    with pytest.warns(DataNotice, match="numeric order of the classes, '9', '10', '11'"):
        correct_labels(*labels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = correct_labels(*labels, classes=names)
    assert (found.label_table["label"] == names[y]).mean() > (given == y).mean()


def test_errors_name_the_argument():
    proba, y, given, is_verified = simulate()
    trusted, folds = np.where(is_verified, y, np.nan), np.where(is_verified, 0, -1)
    with pytest.raises(InputError, match=r"held_out_proba\[0\] has shape \(1499, 3\)"):
        correct_labels(given, proba, trusted, held_out_proba=[proba[1:]], folds=folds)
    with pytest.raises(InputError, match="folds belong to held_out_proba"):
        correct_labels(given, proba, trusted, folds=folds)
