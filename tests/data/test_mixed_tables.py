"""Tables of numbers, words, dates and missing values, and what of them is no feature."""

import datetime
import decimal
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pudistill import DataWarning, InputError
from pudistill.data.hashing import key_of
from pudistill.data.loading import load_dataset
from pudistill.data.writing import write_table

FRAME = pd.DataFrame(
    {
        "id": ["a", "b", "c", "d"],
        "label": ["x", "y", "x", None],
        "number": [1.5, None, 3, 4],
        "count": [1, 2, 3, 4],
        "flag": [True, False, True, True],
        "maybe": [True, None, False, True],
        "word": ["red", None, "blue", "red"],
        "day": pd.to_datetime(["2024-01-01", "2024-02-02", None, "2024-04-04"]),
        "empty": [None] * 4,
    }
)


def write(frame, folder, suffix):
    """Write a data frame as pandas, or a program that writes JSON, does."""
    path = Path(folder) / f"data{suffix}"
    if suffix == ".csv":
        frame.to_csv(path, index=False)
    elif suffix == ".parquet":
        frame.to_parquet(path, index=False)
    else:
        rows = [
            {name: None if pd.isna(value) else value for name, value in row.items()}
            for row in frame.astype(object).to_dict("records")
        ]
        path.write_text("\n".join(json.dumps(row, default=str) for row in rows))
    return path


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_columns_keep_their_kind_and_their_gaps(tmp_path, suffix):
    data = load_dataset(write(FRAME, tmp_path, suffix))
    assert data.feature_names == (*("number", "count", "flag", "maybe", "word", "day", "empty"),)
    assert list(data.X.index) == ["a", "b", "c", "d"]
    kinds = {name: str(dtype) for name, dtype in data.X.dtypes.items()}
    assert kinds == {
        **dict.fromkeys(["number", "count", "maybe", "empty"], "float64"),
        **{"flag": "bool", "word": "object", "day": "datetime64[us]"},
    }
    assert data.X["word"].tolist() == ["red", None, "blue", "red"]
    np.testing.assert_array_equal(data.X["maybe"], [1, np.nan, 0, 1])
    np.testing.assert_array_equal(data.X["number"], [1.5, np.nan, 3, 4])
    assert data.X["day"]["b"] == pd.Timestamp("2024-02-02")
    assert data.X["day"].isna().tolist() == [False, False, True, False]
    assert repr(data) == "<TrustedDataset 'data': 4 samples (7 columns), 2 classes, 0 trusted>"


def test_numbers_without_gaps_stay_an_array(tmp_path):
    frame = FRAME[["id", "label", "count", "flag"]]
    X = load_dataset(write(frame, tmp_path, ".csv")).X
    assert isinstance(X, np.ndarray)
    np.testing.assert_array_equal(X, [[1, 1], [2, 0], [3, 1], [4, 1]])


def test_types_of_parquet(tmp_path):
    columns = {
        "label": ["a", "b"],
        "money": pa.array([decimal.Decimal("1.5"), None]),
        "city": pa.array(["x", None]).dictionary_encode(),
        "level": pa.array([3, None]).dictionary_encode(),
        "f16": pa.array(np.array([1, 2], np.float16)),
        "clock": pa.array([datetime.time(1, 0, 3), None]),
        "span": pa.array([datetime.timedelta(seconds=3), None]),
        "date": pa.array([datetime.date(9999, 1, 1), None]),
        "berlin": pa.array([pd.Timestamp("2024-01-01 10:00", tz="Europe/Berlin"), None]),
        "long": pa.array(["x", None], pa.large_string()),
    }
    pq.write_table(pa.table(columns), tmp_path / "data.parquet")
    X = load_dataset(tmp_path / "data.parquet").X
    first = X.iloc[0].to_dict()
    assert first.pop("berlin") == pd.Timestamp("2024-01-01 09:00")
    assert first.pop("date") == datetime.datetime(9999, 1, 1)
    assert first == {
        **{"money": 1.5, "city": "x", "level": 3, "f16": 1, "clock": 3603, "span": 3, "long": "x"}
    }
    assert X.iloc[1].isna().sum() == len(columns) - 2  # all but the label and f16
    assert X["f16"].dtype == np.float32
    assert X["city"].dtype == X["long"].dtype == object


names = st.sampled_from(["red", "blue", "über", "a,b", 'a "b"', "a\nb", "x y"])
numbers = st.floats(-1e9, 1e9, allow_nan=False)
labels = st.sampled_from([["cat", "dog"], [0, 1, 7], [1, -1, 2], ["01", "1"]])


@st.composite
def frames(draw):
    n = draw(st.integers(3, 8))

    def column(values):
        return draw(st.lists(st.none() | values, min_size=n, max_size=n))

    kinds = draw(labels)
    frame = pd.DataFrame(
        {
            "label": [*kinds, *column(st.sampled_from(kinds))][:n],
            "word": pd.Series(column(names), dtype=object),
            "number": pd.Series([0.5, *column(numbers)][:n], dtype=float),
            "count": pd.Series(column(st.integers(-9, 9)), dtype="Int64"),
            "flag": pd.Series(column(st.booleans()), dtype=object),
            "day": pd.Series(column(st.dates(datetime.date(1900, 1, 1))), dtype=object),
        }
    )
    return frame.loc[:, ["label", *draw(st.permutations(list(frame)[1:]))]]


@settings(max_examples=15)
@given(frames())
def test_a_frame_is_the_same_whatever_its_format(frame):
    with tempfile.TemporaryDirectory() as folder:
        csv, parquet, jsonl = (
            load_dataset(write(frame, folder, suffix)) for suffix in (".csv", ".parquet", ".jsonl")
        )
    for other in (csv, jsonl):
        assert list(other.y) == list(parquet.y)
        assert type(other.X) is type(parquet.X)
        if isinstance(parquet.X, pd.DataFrame):
            pd.testing.assert_frame_equal(other.X, parquet.X)
            assert key_of(other.X) == key_of(parquet.X)  # for the caches of stages
        else:
            np.testing.assert_array_equal(other.X, parquet.X)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_what_is_written_is_read_back_the_same(tmp_path, suffix):
    data = load_dataset(write(FRAME, tmp_path, ".jsonl")).with_trusted(["b"], ["x"])
    data = replace(data, groups=np.array(["g", None, "g", "h"], dtype=object))
    write_table(data, tmp_path / f"again{suffix}")
    read = load_dataset(tmp_path / f"again{suffix}", group_column="group")
    pd.testing.assert_frame_equal(read.X, data.X)
    for part in ("y", "verified", "groups"):
        assert list(getattr(read, part)) == list(getattr(data, part))
    with pytest.raises(InputError, match=r"\.npz cannot hold words, dates or missing values"):
        write_table(data, tmp_path / "again.npz")


def test_samples_are_taken_and_held_out(tmp_path):
    data = load_dataset(write(FRAME, tmp_path, ".csv"))
    assert list(data.take([2, 0]).X.index) == ["c", "a"]
    assert list(data.take(data.y == "x").X["word"]) == ["red", "blue"]
    frame = pd.concat([FRAME.dropna(subset="label")] * 2).assign(id=list("abcdef"))
    train, test = load_dataset(write(frame, tmp_path, ".csv")).holdout(0.5, random_state=0)
    assert sorted([*train.X.index, *test.X.index]) == list("abcdef")


class TestNumbersAndWords:
    def test_signs_for_a_missing_value_among_numbers(self, tmp_path):
        path = tmp_path / "data.csv"
        path.write_text("label,u,v\na,1,-\nb,?,2\na, 2 ,n/a\n")
        X = load_dataset(path).X
        np.testing.assert_array_equal(X, [[1, np.nan], [np.nan, 2], [2, np.nan]])

    def test_words_in_several_columns_of_numbers_are_told_at_once(self, tmp_path):
        frame = pd.DataFrame({"id": range(100, 200), "label": list("ab") * 50})
        frame = frame.assign(u=np.arange(100) * 2, v=np.arange(100) / 7).astype(object)
        frame.loc[7, "u"], frame.loc[9, "v"] = "oops", "twelve"
        with pytest.raises(InputError) as error:
            load_dataset(write(frame, tmp_path, ".csv"))
        assert "column 'u' holds 'oops' in the row with id '107'" in str(error.value)
        assert "column 'v' holds 'twelve' in the row with id '109'" in str(error.value)

    def test_decimal_commas_and_thousands(self, tmp_path):
        path = tmp_path / "data.csv"
        path.write_text("label;u;v;w\na;1,5;1.234,5;1,250\nb;2;-7;\na;?;0,25;3\n")
        X = load_dataset(path).X
        np.testing.assert_array_equal(X, [[1.5, 1234.5, 1.25], [2, -7, np.nan], [np.nan, 0.25, 3]])
        path.write_text('label,u,v\na,"1,250.5","1,250"\nb,7,3\n')
        np.testing.assert_array_equal(load_dataset(path).X, [[1250.5, 1250], [7, 3]])
        path.write_text('label,u,v\na,"1,250","2,000"\nb,7,3\n')
        with pytest.raises(InputError, match=r"commas .* 'u' \('1,250'\), 'v' \('2,000'\): write"):
            load_dataset(path)
        path.write_text('label,u\na,"1,2,3"\nb,"1,2"\n')
        assert load_dataset(path).X["u"].tolist() == ["1,2,3", "1,2"]

    def test_categories_may_look_like_numbers(self, tmp_path):
        frame = pd.DataFrame({"label": list("ab") * 50, "rooms": ["1", "2", "3", "4"] * 25})
        frame.loc[5, "rooms"] = "5+"
        X = load_dataset(write(frame, tmp_path, ".csv")).X
        assert set(X["rooms"]) == {"1", "2", "3", "4", "5+"}

    def test_numbers_that_parquet_stores_as_text_are_numbers_as_in_csv(self, tmp_path):
        frame = pd.DataFrame({"label": ["a", "b"], "zip": ["01099", "10115"]})
        for suffix in (".parquet", ".csv"):
            X = np.asarray(load_dataset(write(frame, tmp_path, suffix)).X)
            assert X.tolist() == [[1099], [10115]]


class TestNoFeatures:
    """Labels, ids and row numbers are left out, and one notice names them all."""

    def test_by_name_and_type(self, tmp_path):
        rows = [
            {"key": "k1", "id": 1, "label": "u", "grade": "a", "v": 1.5, "e": ["1", "2"]},
            {"key": "k2", "id": 2, "label": "w", "grade": "b", "v": 2.5, "e": ["3", "4"]},
        ]
        path = tmp_path / "data.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)))
        with pytest.warns(DataWarning) as notices:
            data = load_dataset(path, id_column="key", label_column="grade")
        (notice,) = map(str, (warning.message for warning in notices))
        assert (
            "columns 'id', 'label' (called like labels, ids or row numbers); column 'e'" in notice
        )
        assert "'e' (of type list<" in notice
        assert data.feature_names == ("v",)

    def test_by_content(self, tmp_path):
        rng = np.random.default_rng(0)
        y = rng.integers(0, 3, 40)
        frame = pd.DataFrame({"label": np.array(["a", "b", "c"])[y], "v": rng.normal(size=40)})
        frame = frame.assign(row=range(7, 47), code=y * 2, half=np.where(y == 2, "no", "yes"))
        frame = frame.assign(case_id=rng.permutation(400)[:40])
        frame.loc[3, "label"] = None
        path = write(frame, tmp_path, ".csv")
        with pytest.warns(
            DataWarning, match="'row', 'case_id' .a name or number of the sample.*'code' .a copy"
        ):
            data = load_dataset(path)
        assert data.feature_names == ("v", "half")
        # Samples to predict are not searched: their columns are chosen by name.
        new = load_dataset(path, labels_required=False, columns_required=False)
        assert new.feature_names == ("v", "row", "code", "half", "case_id")

    def test_a_column_that_says_much_about_the_labels_is_a_feature(self, tmp_path):
        y = np.arange(40) % 2
        frame = pd.DataFrame({"label": y, "v": np.where(np.arange(40) == 7, 1 - y, y)})
        assert load_dataset(write(frame, tmp_path, ".csv")).feature_names == ("v",)

    def test_columns_beside_texts(self, tmp_path):
        frame = pd.DataFrame({"text": ["hello", ""], "label": ["a", "b"], "stars": [1, 2]})
        with pytest.warns(DataWarning, match="texts of column 'text', and 'stars' are not used"):
            data = load_dataset(write(frame, tmp_path, ".csv"))
        assert list(data.X) == ["hello", ""]
        assert data.feature_names is None

    def test_a_column_of_groups(self, tmp_path):
        frame = pd.DataFrame({"label": list("abab"), "u": [1, 2, 3, 4], "who": [1, None, 2, 1]})
        data = load_dataset(write(frame, tmp_path, ".csv"), group_column="who")
        assert list(data.groups) == ["1", None, "2", "1"]
        assert data.feature_names == ("u",)
        with pytest.raises(InputError, match="no column 'patient' for --group-column"):
            load_dataset(tmp_path / "data.csv", group_column="patient")


def test_infinite_values_are_an_error_that_names_all_columns(tmp_path):
    frame = pd.DataFrame(
        {
            "id": ["p", "q"],
            "label": ["a", "b"],
            "u": [np.inf, 1],
            "v": [2, -np.inf],
            "w": ["x", "y"],
        }
    )
    with pytest.raises(InputError) as error:
        load_dataset(write(frame, tmp_path, ".csv"))
    assert "row with id 'p', column 'u' holds inf; row with id 'q', column 'v' holds -inf" in str(
        error.value
    )
