"""Series are matched to the samples by their index; everything else counts by position."""

import warnings

import numpy as np
import pandas as pd
import pytest

from pudistill import InputError, PUDistillClassifier, TieredPUFilter, TrustedKFold, TrustedWarning
from pudistill.labels.checks import check_labels
from pudistill.labels.samples import check_samples
from pudistill.methods import CrossEntropyClassifier

IDS = pd.Index([f"p{n}" for n in range(6)])
Y = pd.Series(list("abbaab"), index=IDS)
TRUSTED = pd.Series(["a", "b", None, None, "a", None], index=IDS)
ORDER = [3, 0, 5, 1, 4, 2]


def checked(X, y, trusted, groups=None):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return check_samples(PUDistillClassifier(), X, y, trusted, [None], groups=groups)[1]


@pytest.fixture
def frame():
    return pd.DataFrame(np.arange(12.0).reshape(6, 2), index=IDS, columns=["u", "v"])


@pytest.mark.parametrize(
    ("y", "trusted"),
    [
        (Y, TRUSTED),
        (Y.iloc[ORDER], TRUSTED),
        (Y, TRUSTED.iloc[ORDER]),
        (Y.iloc[ORDER], TRUSTED.iloc[ORDER[::-1]]),
        (Y.to_numpy(), TRUSTED.iloc[ORDER]),
        (Y, TRUSTED.dropna()),  # shorter than X
        (Y, TRUSTED.dropna().iloc[::-1]),
        (Y, TRUSTED.dropna().to_dict()),
        (Y.astype("string").iloc[ORDER], TRUSTED.dropna().astype("category")),
    ],
)
def test_an_index_decides_which_sample_a_label_belongs_to(frame, y, trusted):
    labels = checked(frame, y, trusted)
    assert labels.given.tolist() == [0, 1, 1, 0, 0, 1]
    assert labels.verified.tolist() == [0, 1, -1, -1, 0, -1]


def test_a_mask_and_groups_are_aligned_too(frame):
    mask, groups = TRUSTED.notna(), pd.Series(list("uuvvww"), index=IDS)
    for part in (mask.iloc[ORDER], mask[mask].iloc[::-1]):
        labels = checked(frame, Y, part, groups.iloc[ORDER])
        assert labels.trusted.tolist() == mask.tolist()
        assert labels.from_mask
        assert labels.groups.tolist() == [0, 0, 1, 1, 2, 2]


def test_labels_are_aligned_with_each_other_where_samples_are_an_array(frame):
    labels = checked(frame.to_numpy(), Y, TRUSTED.iloc[ORDER])
    assert labels.verified.tolist() == [0, 1, -1, -1, 0, -1]
    with pytest.raises(InputError, match="does not have"):
        checked(frame.to_numpy(), Y, TRUSTED.rename({"p2": "p9"}))


@pytest.mark.parametrize(
    ("y", "trusted", "message"),
    [
        (Y.rename({"p2": "p9"}), TRUSTED, r"`y` holds the entry 'p9'.*pass `y.reindex\(X.index\)`"),
        (Y.iloc[:4], TRUSTED, r"`y` lacks the entry 'p4'"),
        (Y.reset_index(drop=True), TRUSTED, r"`y` holds the entry 0, .*`y.to_numpy\(\)`"),
        (Y, TRUSTED.rename({"p0": "p9"}), "`trusted` holds the entry 'p9'"),
        (Y, TRUSTED.dropna().rename({"p0": "p9"}), "`trusted` holds the entry 'p9'"),
        (Y, {"p0": "a", "p7": "b"}, "`trusted` holds the entry 'p7'.*keys must be entries of the"),
        (Y, TRUSTED.iloc[[0, 1, 1, 2, 3, 4]], "entries occur more than once"),
    ],
)
def test_other_entries_are_an_error_that_says_how_to_align(frame, y, trusted, message):
    with pytest.raises(InputError, match=message):
        checked(frame, y, trusted)


def test_row_numbers_in_messages_are_plain(frame):
    for X, y in ((frame.to_numpy(), Y.tolist()), (frame.reset_index(drop=True), Y.tolist())):
        with pytest.raises(InputError, match=r"^`trusted` holds the entry 120, .*row numbers if"):
            checked(X, y, {0: "a", np.int64(120): "b"})
    numbers = pd.Index(range(10, 16)).astype(object)
    with pytest.raises(InputError, match="`y` lacks the entry 15 of the samples"):
        checked(frame.set_axis(numbers), Y.set_axis(numbers).iloc[:5], TRUSTED.set_axis(numbers))


def test_repeated_entries_are_accepted_in_the_same_order_only(frame):
    index = pd.Index(list("uuvvww"))
    repeated, y, trusted = (part.set_axis(index) for part in (frame, Y, TRUSTED))
    assert checked(repeated, y, trusted).verified.tolist() == [0, 1, -1, -1, 0, -1]
    with pytest.raises(InputError, match="entries occur more than once"):
        checked(repeated, y.iloc[ORDER], trusted)


def test_arrays_and_counts_of_rows_keep_their_position():
    X = np.arange(12.0).reshape(6, 2)
    for samples in (X, pd.DataFrame(X)):
        for y in (Y.tolist(), Y.reset_index(drop=True)):
            for trusted in (TRUSTED.to_numpy(object), TRUSTED.reset_index(drop=True)):
                assert checked(samples, y, trusted).verified.tolist() == [0, 1, -1, -1, 0, -1]
    with pytest.raises(InputError, match="`trusted` has 3 entries for 6 samples"):
        checked(X, Y.tolist(), pd.Series(["a", "b", "a"]))
    by_row = {4: "a", 0: "a", 1: "b"}
    for trusted in (by_row, pd.Series(by_row)):
        assert checked(X, Y.tolist(), trusted).verified.tolist() == [0, 1, -1, -1, 0, -1]


def test_shuffled_row_numbers_are_matched_with_a_warning():
    # Numbers can come from a shuffled table, or from an object made anew of shuffled rows.
    y = Y.reset_index(drop=True)
    with pytest.warns(TrustedWarning, match="matched by these numbers"):
        labels = check_labels(y, TRUSTED.reset_index(drop=True).iloc[ORDER])
    assert labels.verified.tolist() == [0, 1, -1, -1, 0, -1]


def test_whole_numbers_stay_whole():
    y = pd.Series([2**60, 2**60 + 1, 2**60], index=list("abc"))
    labels = check_labels(y, pd.Series([2**60 + 1, 2**60], index=list("ba")))
    assert labels.classes.tolist() == [2**60, 2**60 + 1]
    assert labels.verified.tolist() == [0, 1, -1]


def test_every_estimator_and_splitter_aligns():
    rng = np.random.default_rng(0)
    quick = {"n_members": 2, "max_iter": 1, "random_state": 0}
    y = pd.Series(rng.integers(2, size=60), index=[f"p{n}" for n in range(60)])
    X = pd.DataFrame(rng.normal(size=(60, 3)) + 4 * y.to_numpy()[:, None], index=y.index)
    verified = y.where(rng.random(60) < 0.5).sample(frac=1, random_state=0)
    known = verified[X.index].notna().to_numpy()
    pu_filter = TieredPUFilter(**quick).fit(X, y, verified)
    assert (pu_filter.clean_labels_[known] == y[known]).all()
    method = CrossEntropyClassifier(random_state=0).fit(X, y.sample(frac=1), verified)
    assert method.score(X, y) > 0.9
    (train, test), *_ = TrustedKFold(2, random_state=0).split(X, y, trusted=verified)
    assert known[test].any()
    assert known[train].any()
    classifier = PUDistillClassifier(method="paper", **quick)
    table = classifier.fit(X, y, trusted=verified.dropna()).label_table_
    assert (table.trusted == known).all()
    assert table.index.equals(X.index)
