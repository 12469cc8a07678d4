"""Trusted files: how their columns, and those of the data, are recognised."""

import pandas as pd
import pytest

from pudistill import DataWarning, InputError
from pudistill.data.loading import load_dataset
from pudistill.exceptions import DataNotice

TABLE = pd.DataFrame(
    {
        "customer": ["c0", "c1", "c2", "c3"],
        "Status": ["good", "bad", "good", "bad"],
        "age": [20, 30, 20, 40],
    }
)
CHECKED = pd.DataFrame({"customer": ["c1", "c3"], "Status": ["good", "bad"]})


@pytest.fixture
def load(tmp_path):
    def write(frame, name, suffix):
        path = tmp_path / f"{name}{suffix}"
        if suffix == ".csv":
            frame.to_csv(path, index=False)
        else:
            frame.to_parquet(path)
        return path

    def load(table, trusted, suffix=".csv", **options):
        source = write(table, "data", suffix)
        return load_dataset(source, trusted=write(trusted, "checked", suffix), **options)

    return load


def test_columns_are_called_as_in_the_data(load):
    data = load(TABLE, CHECKED, id_column="customer", label_column="Status")
    assert list(data.verified) == [None, "good", None, "bad"]
    assert list(data.y) == ["good", "bad", "good", "bad"]
    assert data.feature_names == ("age",)


@pytest.mark.parametrize(
    "names", [["id", "label"], ["customer", "label"], ["id", "Status"], ["id", "verified_label"]]
)
def test_or_id_and_label(load, names):
    options = {"id_column": "customer", "label_column": "Status"}
    data = load(TABLE, CHECKED.set_axis(names, axis=1), **options)
    assert list(data.verified) == [None, "good", None, "bad"]


def test_a_column_of_verified_labels_goes_before_given_ones(load):
    trusted = CHECKED.assign(Status="bad", verified_label=CHECKED["Status"])
    data = load(TABLE, trusted, id_column="customer", label_column="Status")
    assert list(data.verified) == [None, "good", None, "bad"]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_the_two_columns_that_both_files_have_are_ids_and_labels(load, suffix):
    told = "'customer' names the samples and column 'Status' holds their labels"
    with pytest.warns(DataNotice, match=told):
        data = load(TABLE, CHECKED.assign(by="me"), suffix)
    assert list(data.ids) == ["c0", "c1", "c2", "c3"]
    assert list(data.verified) == [None, "good", None, "bad"]
    assert data.feature_names == ("age",)


@pytest.mark.parametrize(
    ("columns", "options", "told"),
    [
        ({"Status": "label"}, {}, "'customer' names the samples, as in"),
        ({"customer": "id"}, {}, "'Status' holds their labels, as in"),
        ({}, {"label_column": "Status"}, "'customer' names the samples, as in"),
        ({}, {"id_column": "customer"}, "'Status' holds their labels, as in"),
    ],
)
def test_only_what_is_not_known_is_looked_for(load, columns, options, told):
    with pytest.warns(DataWarning, match=told):
        data = load(TABLE.rename(columns=columns), CHECKED.rename(columns=columns), **options)
    assert list(data.verified) == [None, "good", None, "bad"]
    assert data.feature_names == ("age",)


def test_ids_alone_are_recognised(load):
    with pytest.warns(DataWarning, match="'customer' names the samples, as in"):
        data = load(TABLE, CHECKED[["customer"]], label_column="Status")
    assert list(data.verified) == [None, "bad", None, "bad"]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_columns_of_other_names_are_recognised_by_their_values(load, suffix):
    options = {"id_column": "customer", "label_column": "Status"}
    data = load(TABLE, CHECKED.set_axis(["key", "truth"], axis=1), suffix, **options)
    assert list(data.verified) == [None, "good", None, "bad"]
    with pytest.raises(InputError, match="no column 'Status' among 'key', 'score'"):
        load(TABLE, pd.DataFrame({"key": ["c1"], "score": [0.5]}), suffix, **options)


@pytest.mark.parametrize(
    ("trusted", "message"),
    [
        ({"customer": ["c1", "c3"], "age": [20, 40], "Status": ["good", "bad"]}, "no column of la"),
        ({"customer": ["c1", "c1"], "Status": ["good", "bad"]}, "no column of labels"),
        ({"key": ["c1", "c3"], "truth": ["good", "bad"]}, "no column of labels"),
    ],
)
def test_nothing_is_guessed_where_it_is_not_clear(load, trusted, message):
    with pytest.raises(InputError, match=message):
        load(TABLE, pd.DataFrame(trusted))


def test_a_file_without_ids_is_told_how_ids_look(load):
    table = pd.DataFrame({"id": ["a", "b"], "label": ["good", "bad"], "age": [20, 30]})
    with pytest.raises(InputError, match=r"'id' among 'file', 'kind': .* look like 'a'"):
        load(table, pd.DataFrame({"file": ["x", "y"], "kind": ["good", "bad"]}))


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("verified", [[0, 1], [0.0, 1.0], ["0", "1"], ["0.0", "1.0"]])
@pytest.mark.parametrize("ids", [[4, 5], [4.0, 5.0]])
def test_whole_numbers_are_whole_numbers_however_they_are_written(load, suffix, verified, ids):
    label = [0, 1, None, -1, 1, 0]
    table = pd.DataFrame({"id": range(6), "u": [0.5, 1, 2, 3, 4, 5], "label": label})
    data = load(table, pd.DataFrame({"id": ids, "label": verified}), suffix)
    assert data.classes == ("0", "1")
    assert list(data.y) == ["0", "1", None, None, "1", "0"]
    assert list(data.verified) == [None] * 4 + ["0", "1"]


def test_labels_that_are_no_whole_numbers_keep_their_spelling(load):
    table = pd.DataFrame(
        {"id": list("abcd"), "u": [1, 2, 3, 4], "label": ["1.0", "1.1", "2.0", "x"]}
    )
    assert load(table, pd.DataFrame({"id": ["a"]})).classes == ("1.0", "1.1", "2.0", "x")
    # A verified label is that class which has the same number.
    data = load(table, pd.DataFrame({"id": ["a", "b"], "label": [1, 2]}))
    assert list(data.verified) == ["1.0", "2.0", None, None]


@pytest.mark.parametrize(
    "marks",
    [
        ["x", None, None],
        ["yes", "no", "no"],
        ["Yes", None, None],
        ["✓", " ", None],
        [1, None, None],
        [1, 0, 0],
        [1.0, None, 0.0],
        [True, None, False],
        ["TRUE", "FALSE", None],
        ["ja", "nein", None],
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_marks_of_trusted_samples(tmp_path, marks, suffix):
    frame = pd.DataFrame({"label": ["a", "b", "b"], "u": [1, 2, 3], "checked": marks})
    path = tmp_path / f"data{suffix}"
    frame.to_csv(path, index=False) if suffix == ".csv" else frame.to_parquet(path)
    data = load_dataset(path, trusted_column="checked")
    assert list(data.trusted) == [True, False, False]
    assert data.feature_names == ("u",)
