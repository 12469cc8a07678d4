import datetime
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from pudistill import DataWarning, InputError, TrustedWarning
from pudistill.labels.checks import check_labels


def test_a_mask_says_which_given_labels_are_right():
    labels = check_labels(["b", "a", "b"], np.array([True, True, False]))
    assert labels.classes.tolist() == ["a", "b"]
    assert labels.given.tolist() == [1, 0, 1]
    assert labels.verified.tolist() == [1, 0, -1]


@pytest.mark.parametrize(
    ("y", "trusted"),
    [
        ([0, 1, 1], [np.nan, 0, 1]),
        (["0", "1", "1"], [None, "0", "1"]),
        (pd.Series([0, 1, 1]), pd.Series([pd.NA, 0, 1], dtype="Int64")),
        (pd.Series(["0", "1", "1"]), pd.Series([pd.NA, "0", "1"], dtype="string")),
    ],
)
def test_verified_labels_are_kept_beside_the_given_ones(y, trusted):
    labels = check_labels(y, trusted)
    assert labels.trusted.tolist() == [False, True, True]
    assert labels.given.tolist() == [0, 1, 1]
    assert labels.verified.tolist() == [-1, 0, 1]


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
def test_samples_may_lack_a_given_label(missing):
    y = np.array(["a", missing, "b", "a"], dtype=object)
    labels = check_labels(y, np.array([True, False, True, False]))
    assert labels.given.tolist() == [0, -1, 1, 0]


def test_minus_one_is_a_missing_label_unless_it_is_a_class():
    trusted = np.array([True, False, True])
    assert check_labels([0, -1, 1], trusted).classes.tolist() == [0, 1]
    assert check_labels([-1, -1, 1], trusted).classes.tolist() == [-1, 1]


def test_no_trusted_argument_trusts_all_and_warns():
    with pytest.warns(TrustedWarning, match="all given labels are taken as right"):
        assert check_labels([0, 1]).trusted.all()


@pytest.mark.parametrize(
    ("y", "trusted", "message"),
    [
        ([0, 1, 1], [False] * 3, "No sample is trusted"),
        ([0, 1, 2], [True, True, False], "No trusted sample has class 2"),
        (["a", "b", "b"], [True, False, False], "No trusted sample has class 'b'"),
        ([1, 1, 1], [True] * 3, "only one class, 1"),
        ([0, 1, 1], [1, 0, 1], "mask or verified labels"),
        ([0, 1, 1], [1.0, 0.0, 1.0], "mask or verified labels"),
        ([0, 1, 1], [True, True], "2 entries for 3 samples"),
        (["a", None, "b"], [True, True, True], "Sample 1 is trusted but has no label"),
        ([np.nan, np.nan], [True, False], "no sample has a given label"),
        ([0, 1, 1], ["0", None, "1"], "verified label '0' of sample 0 is not of the same type"),
        (["0", "1", "1"], [0, np.nan, 1], "verified label 0 of sample 0 is not of the same type"),
        ([0, 1, 1], [0, 1, 0], "mask or verified labels"),
        (["0", "1", "1"], [1, 1, 0], "mask or verified labels"),
        ([True, False, True], [1, 0, 1], "mask or verified labels"),
        (np.array(["a", 1], dtype=object), [True, True], "are text and numbers, such as 'a' and 1"),
        (["a", "b", "b"], ["a", "b", ""], "the text ''"),
        (["a", "b", "b"], np.array(["a", "b", np.nan]), "the text 'nan'"),
    ],
)
def test_bad_labels_are_named(y, trusted, message):
    with pytest.raises(InputError, match=message):
        check_labels(np.array(y), np.array(trusted))


def test_whole_numbers_stay_whole_beside_missing_values():
    trusted = np.array([True, False, True])
    for y in (np.array([0, None, 2], dtype=object), pd.Series([0, pd.NA, 2], dtype="Int64")):
        labels = check_labels(y, trusted)
        assert labels.classes.dtype.kind == "i"
        assert labels.classes.tolist() == [0, 2]
        assert labels.given.tolist() == [0, -1, 1]


def test_nan_in_a_list_of_names_is_a_missing_label():
    labels = check_labels(["a", float("nan"), "b"], ["a", float("nan"), "b"])
    assert labels.classes.tolist() == ["a", "b"]
    assert labels.given.tolist() == [0, -1, 1]
    assert labels.trusted.tolist() == [True, False, True]


def test_a_mask_is_distinguished_from_verified_labels():
    mask = np.array([True, True, False])
    assert check_labels([0, 1, 1], mask).from_mask
    assert not check_labels([0, 1, 1], [0, 1, np.nan]).from_mask
    with pytest.warns(TrustedWarning):
        assert check_labels([0, 1, 1]).from_mask


def test_a_verified_label_may_be_minus_one_only_as_a_class():
    verified = [-1, 1, np.nan]
    labels = check_labels([1, 1, -1], verified)
    assert labels.classes.tolist() == [-1, 1]
    assert labels.given.tolist() == [1, 1, 0]


def test_a_trusted_sample_may_lack_a_given_label_where_it_has_a_verified_one():
    labels = check_labels([-1, 1, 0, -1], [0, 1, np.nan, np.nan])
    assert labels.given.tolist() == [-1, 1, 0, -1]
    assert labels.verified.tolist() == [0, 1, -1, -1]


def test_the_error_names_classes_without_trusted_samples_and_three_remedies():
    y = np.arange(14)
    with pytest.raises(InputError) as error:
        check_labels(y, y < 2)
    assert str(error.value) == (
        "No trusted sample has class 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 2 more: verify some of its "
        "samples, merge it into another class, or drop it."
    )


@pytest.mark.parametrize(
    "y",
    [
        np.array([0, 1, -1, 1, 0]),
        np.array([0.0, 1.0, -1.0, 1.0, 0.0]),
        np.array([0, 1, -1, 1, 0], dtype=object),
        pd.Series([0, 1, -1, 1, 0], dtype="Int64"),
    ],
)
def test_minus_one_is_a_missing_label_wherever_labels_are_whole_numbers(y):
    trusted = np.array([True, True, False, False, False])
    labels = check_labels(y, trusted)
    assert labels.classes.tolist() == [0, 1]
    assert labels.given.tolist() == [0, 1, -1, 1, 0]


def test_minus_one_for_unverified_samples_is_noticed():
    with pytest.raises(InputError, match="write NaN or None for unverified samples"):
        check_labels([0, 1, 1, 0], [0, 1, -1, -1])


@pytest.mark.parametrize(
    "marks",
    [
        np.array([True, True, None], dtype=object),
        np.array([True, True, np.nan], dtype=object),
        pd.array([True, True, pd.NA], dtype="boolean"),
        [1, 1, 0],
        [1.0, 1.0, np.nan],
        pd.array([1, 1, pd.NA], dtype="Int64"),
    ],
)
@pytest.mark.parametrize("y", [["b", "a", "b"], [3, 2, 3]])
def test_marks_that_cannot_be_labels_are_a_mask(y, marks):
    labels = check_labels(y, marks)
    assert labels.from_mask
    assert labels.trusted.tolist() == [True, True, False]
    assert labels.verified.tolist() == [1, 0, -1]


def test_true_and_none_are_marks_beside_zero_and_one():
    labels = check_labels([1, 0, 1], np.array([True, True, None], dtype=object))
    assert labels.from_mask
    assert labels.verified.tolist() == [1, 0, -1]


@pytest.mark.parametrize(
    ("y", "trusted"),
    [
        ([True, False, True], np.array([True, False, None], dtype=object)),
        ([np.nan, np.nan, np.nan], [1, 0, np.nan]),
    ],
)
def test_marks_that_can_be_labels_are_labels(y, trusted):
    labels = check_labels(y, trusted)
    assert not labels.from_mask
    assert labels.verified.tolist() == [1, 0, -1]


@pytest.mark.parametrize(
    "y",
    [
        np.array(["a", "b", "-1", "a"]),
        np.array(["a", "b", -1, "a"], dtype=object),
        pd.Series(["a", "b", "-1", "a"], dtype="string"),
        ["0", "1", "-1", "0"],
    ],
)
def test_minus_one_beside_names_is_a_missing_label(y):
    with pytest.warns(DataWarning, match="label -1 of 1 samples stands beside names"):
        labels = check_labels(y, np.array([True, True, False, False]))
    assert labels.given.tolist() == [0, 1, -1, 0]
    assert check_labels(np.array(y).astype(str), np.array([True, True, True, False])).n_classes == 3


def test_look_alikes_get_one_warning():
    y = np.array(["cat", "Cat ", "dog", "cat"])
    with pytest.warns(DataWarning) as told:
        labels = check_labels(y, np.array([True, True, True, False]))
    assert labels.n_classes == 3
    (message,) = (str(warning.message) for warning in told)
    assert message.startswith("Some labels look like one class in several spellings, 'cat' (2), ")
    with pytest.raises(InputError, match=r"has class 'Cat ': .* drop it; some labels look like"):
        check_labels(y, np.array([True, False, True, False]))


@pytest.mark.parametrize(
    "y",
    [
        [0.5, 1.5, 0.5],
        [datetime.date(2020, 1, 1), datetime.date(2021, 1, 1), datetime.date(2020, 1, 1)],
        [b"a", b"b", b"a"],
        [10**30, 1, 1],
        [Decimal(1), Decimal(2), Decimal(1)],
    ],
)
def test_labels_that_are_no_names_are_shown(y):
    with pytest.raises(InputError, match=r"name no class .* write labels as texts"):
        check_labels(np.array(y, dtype=object), [True] * 3)


@pytest.mark.parametrize("marks", [["x", "", "yes"], ["True", "False", "true"], ["x", None, "x"]])
def test_marks_may_be_written_as_text(marks):
    labels = check_labels(["a", "b", "b"], np.array(marks, dtype=object))
    assert labels.from_mask
    assert labels.trusted.tolist() == [True, False, True]


def test_yes_and_no_are_labels_where_they_are_given():
    verified = np.array(["yes", None, "no"], dtype=object)
    labels = check_labels(["no", "no", "yes"], verified)
    assert labels.verified.tolist() == [1, -1, 0]


def test_minus_one_everywhere_is_no_class_beside_several_others():
    with pytest.raises(InputError, match="write NaN or None for unverified samples"):
        check_labels([0, 1, -1, 0], [0, 1, -1, -1])
    assert check_labels([1, -1, 1], [1, -1, -1]).classes.tolist() == [-1, 1]


def test_booleans_of_numpy_are_booleans():
    y = np.array([np.True_, np.False_, np.True_], dtype=object)
    labels = check_labels(y, np.array([True, False, None], dtype=object))
    assert labels.verified.tolist() == [1, 0, -1]


def test_no_sample_needs_a_given_label_if_names_are_verified():
    labels = check_labels([None] * 3, np.array(["a", "b", None], dtype=object))
    assert labels.classes.tolist() == ["a", "b"]
    assert labels.verified.tolist() == [0, 1, -1]


def test_what_a_masked_array_hides_is_not_verified():
    verified = np.ma.masked_array([0, 1, 2, 1], mask=[False, False, False, True])
    assert check_labels([0, 1, 2, 0], verified).trusted.tolist() == [True, True, True, False]


def test_labels_of_types_that_have_no_order_are_an_error():
    given = np.array(["2020-01-01", "2020-01-02"], dtype="datetime64[D]")
    verified = pd.Series([pd.Timestamp("2020-01-01"), None], dtype=object)
    with pytest.raises(InputError, match=r"several types \(Timestamp, date\): write all"):
        check_labels(given, verified)
