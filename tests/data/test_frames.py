"""Tables in memory: pandas, polars, pyarrow and datasets, for `load_dataset` and for `fit`."""

import datetime

import datasets as hf
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from PIL import Image

from pudistill.data.frames import as_column, as_frame, spread_lists
from pudistill.data.loading import load_dataset
from pudistill.exceptions import DataWarning, InputError
from pudistill.labels.samples import check_samples
from pudistill.learners.base import NoisyLabelClassifier

FRAME = pd.DataFrame(
    {
        "id": ["p", "q", "r", "s"],
        "u": [0.5, 1, 2, 3],
        "v": [1, 2, 3, 4],
        "label": ["x", "y", "x", None],
        "trusted": [True, False, True, False],
    }
)
PICTURES = np.random.default_rng(0).integers(0, 256, (4, 4, 5, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def pictures():
    features = {
        "image": hf.Image(),
        "label": hf.ClassLabel(names=["cat", "dog"]),
        "note": hf.Value("string"),
    }
    columns = {
        "image": [Image.fromarray(picture) for picture in PICTURES],
        "label": [1, 0, -1, 0],
        "note": ["x"] * 4,
    }
    return hf.Dataset.from_dict(columns, hf.Features(features))


TABLES = {
    "pandas": FRAME,
    "polars": pl.from_pandas(FRAME),
    "lazy": pl.from_pandas(FRAME).lazy(),
    "categorical": pl.from_pandas(FRAME).with_columns(pl.col("label").cast(pl.Categorical)),
    "pyarrow": pa.Table.from_pandas(FRAME),
    "batch": pa.RecordBatch.from_pandas(FRAME),
    "views": pa.table(pl.from_pandas(FRAME).to_arrow(compat_level=pl.CompatLevel.newest())),
    "datasets": hf.Dataset.from_pandas(FRAME),
}


class TestLoadDataset:
    @pytest.mark.parametrize("kind", TABLES)
    def test_tables_are_read_as_files_are(self, kind):
        data = load_dataset(TABLES[kind])
        np.testing.assert_array_equal(data.X, FRAME[["u", "v"]])
        assert data.feature_names == ("u", "v")
        assert list(data.ids) == ["p", "q", "r", "s"]
        assert list(data.y) == ["x", "y", "x", None]
        assert list(data.verified) == ["x", None, "x", None]

    def test_pictures(self, pictures):
        data = load_dataset(pictures)
        np.testing.assert_array_equal(data.X, PICTURES)
        assert list(data.y) == ["dog", "cat", None, "cat"]
        lazy = load_dataset(pictures.select([3, 0]), lazy=True)
        np.testing.assert_array_equal(np.asarray(lazy.X), PICTURES[[3, 0]])
        assert list(lazy.y) == ["cat", "dog"]

    def test_texts(self):
        texts = hf.Dataset.from_dict({"text": ["a b", "c"], "label": ["x", "y"]})
        assert list(load_dataset(texts).X) == ["a b", "c"]

    def test_the_training_split_of_several(self, pictures):
        splits = hf.DatasetDict({"test": pictures.select([0]), "train": pictures})
        with pytest.warns(DataWarning, match="'train' is read, and 'test' is not"):
            assert len(load_dataset(splits)) == 4
        del splits["train"]
        splits["more"] = splits["test"]
        with pytest.raises(InputError, match=r"several tables in it \('more', 'test'\)"):
            load_dataset(splits)

    def test_lists_become_features(self):
        features = {
            "e": hf.List(hf.Value("float32"), length=3),
            "m": hf.Array2D((2, 2), "float32"),
            "v": hf.List(hf.Value("int8")),
            "label": hf.Value("string"),
        }
        columns = {
            "e": [[1, 2, 3], [4, 5, 6]],
            "m": [[[1, 2], [3, 4]], [[5, 6], [7, 8]]],
            "v": [[1, 2], [3, 4]],
            "label": ["a", "b"],
        }
        data = load_dataset(hf.Dataset.from_dict(columns, hf.Features(features)))
        np.testing.assert_array_equal(
            data.X, [[1, 2, 3, 1, 2, 3, 4, 1, 2], [4, 5, 6, 5, 6, 7, 8, 3, 4]]
        )
        assert data.feature_names[:5] == ("e[0]", "e[1]", "e[2]", "m[0]", "m[1]")

    @pytest.mark.parametrize("source", [3, [1, 2], np.zeros((2, 2)), None, pl.Series([1])])
    def test_refuses_other_objects(self, source):
        with pytest.raises(InputError, match="is not a table: give a file, a folder, or a table"):
            load_dataset(source)

    def test_refuses_streams(self):
        stream = object.__new__(hf.IterableDataset)  # a real one imports PyTorch, which is slow
        with pytest.raises(InputError, match="the datasets IterableDataset is not a table"):
            load_dataset(stream)

    def test_messages_name_the_table(self):
        with pytest.raises(
            InputError, match=r"^the polars DataFrame: there is no column of labels"
        ):
            load_dataset(pl.DataFrame({"u": [1]}))
        mixed = pd.DataFrame({"u": [1, "x"], "label": ["a", "b"]})
        with pytest.raises(InputError, match=r"^the pandas DataFrame cannot be read as a table"):
            load_dataset(mixed)


@pytest.mark.parametrize(
    "lists", [[[1, 2], [3]], [[], [1]], [[1], None], [[[1, 2]], [[1], [2]]]], ids=str
)
def test_lists_of_different_lengths_are_refused(lists):
    with pytest.raises(InputError, match="the lists in column 'e' are not of one length"):
        load_dataset(pa.table({"e": pa.array(lists), "label": ["a", "b"]}))


def test_lists_in_slices_and_lists_of_words():
    table = pa.table({"a": [[1, 2], [3, 4], [5, None]], "w": [["x"], ["y", "z"], []]})
    spread = spread_lists("", table.slice(1))
    assert spread.column_names == ["a[0]", "a[1]", "w"]
    np.testing.assert_array_equal(spread["a[1]"].to_numpy(), [4, np.nan])


class TestFit:
    """`fit` and `predict` take tables and columns of other libraries as those of pandas."""

    X = FRAME[["u", "v"]]

    @pytest.mark.parametrize(
        "convert",
        [
            (pl.from_pandas, pl.Series),
            (pa.Table.from_pandas, pa.array),
            (pa.Table.from_pandas, lambda values: pa.chunked_array([values])),
            (hf.Dataset.from_pandas, lambda values: hf.Dataset.from_dict({"c": values})["c"]),
        ],
        ids=["polars", "pyarrow", "chunked", "datasets"],
    )
    def test_samples_and_labels(self, convert):
        table, column = convert
        X, labels = check_samples(
            NoisyLabelClassifier(),
            table(self.X),
            column([3, None, 4, 4]),
            column([None, 4, 3, None]),
            [None],
        )
        pd.testing.assert_frame_equal(X, self.X)
        assert labels.classes.tolist() == [3, 4]
        assert labels.given.tolist() == [0, -1, 1, 1]
        assert labels.verified.tolist() == [-1, 1, 0, -1]
        mask = check_samples(
            NoisyLabelClassifier(),
            self.X,
            ["a", "b"] * 2,
            column([True, True, False, True]),
            [None],
        )[1]
        assert mask.trusted.tolist() == [True, True, False, True]
        assert mask.from_mask

    def test_labels_of_a_dataset_are_no_features(self):
        columns = {"u": [1.0], "kind": [0], "label": ["a"]}
        kinds = {"u": hf.Value("float64"), "kind": hf.ClassLabel(names=["x"])}
        features = hf.Features(kinds | {"label": hf.Value("string")})
        assert as_frame(hf.Dataset.from_dict(columns, features)).columns.tolist() == ["u"]

    def test_pictures_are_refused(self, pictures):
        with pytest.raises(
            InputError, match=r"'image' .* read pictures with pudistill.load_dataset"
        ):
            as_frame(pictures)

    def test_dates_and_categories(self):
        frame = as_frame(
            pl.DataFrame({"day": [datetime.date(2024, 1, 2)], "c": ["a"]}).with_columns(
                pl.col("c").cast(pl.Enum(["a", "b"]))
            )
        )
        assert frame["day"].dtype.kind == "M"
        assert isinstance(frame["c"].dtype, pd.CategoricalDtype)

    def test_a_column_is_an_array(self):
        assert as_frame(pl.Series(["a", "b"])).tolist() == ["a", "b"]
        assert as_column(pl.Series(["a", "b"], dtype=pl.Categorical)).tolist() == ["a", "b"]
        assert as_column(pa.array(["a", None]).dictionary_encode()).tolist() == ["a", None]

    def test_other_objects_stay_as_they_are(self):
        for values in (self.X, np.zeros(2), [1, 2], None):
            assert as_frame(values) is values
            assert as_column(values) is values


class TestPlain:
    def test_pyarrows_types_become_those_of_pandas(self):
        hours = pd.array(pd.to_timedelta([1, 2], unit="h"), dtype=pd.ArrowDtype(pa.duration("us")))
        frame = as_frame(pd.DataFrame({"a": hours}, index=["p", "q"]))
        assert frame["a"].dtype.kind == "m"
        assert frame.index.tolist() == ["p", "q"]

    @pytest.mark.parametrize(
        ("columns", "names"),
        [([1, "b"], ["1", "b"]), (pd.MultiIndex.from_tuples([("a", 1), ("a", 2)]), None)],
    )
    def test_names_of_several_types_become_text(self, columns, names):
        frame = as_frame(pd.DataFrame([[1.0, 2.0]], columns=columns))
        assert all(isinstance(name, str) for name in frame.columns)
        assert names is None or frame.columns.tolist() == names

    @pytest.mark.parametrize("columns", [["a", "a"], [1, "1"]])
    def test_two_columns_of_one_name_are_refused(self, columns):
        with pytest.raises(InputError, match="Two columns are called"):
            as_frame(pd.DataFrame([[1.0, 2.0]], columns=columns))

    @pytest.mark.parametrize(
        "X",
        [
            {"a": [1, 2]},
            [{"a": 1}, {"a": 2}],
            np.array([(1, 2.0)], dtype=[("a", int), ("b", float)]),
        ],
    )
    def test_named_fields_are_no_table(self, X):
        with pytest.raises(InputError, match=r"pass pandas.DataFrame"):
            as_frame(X)

    @pytest.mark.parametrize("X", [[b"a", b"b"], np.array([b"a", b"b"])])
    def test_bytes_are_no_texts(self, X):
        with pytest.raises(InputError, match="decode"):
            as_frame(X)

    def test_what_a_mask_hides_is_missing(self):
        X = as_frame(np.ma.masked_array([[1, 2], [3, 4]], mask=[[True, False], [False, False]]))
        assert np.array_equal(X, [[np.nan, 2], [3, 4]], equal_nan=True)

    def test_a_type_that_pandas_lacks_is_named(self):
        union = pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])])
        with pytest.raises(InputError, match="pandas cannot hold"):
            as_frame(pa.table({"a": union}))

    def test_codes_of_categories_may_be_unsigned(self):
        n = 40
        table = pl.DataFrame(
            {
                "a": np.arange(n) % 7,
                "c": pl.Series(["u", "v", "w", "z"] * 10, dtype=pl.Categorical),
                "label": ["x", "y"] * 20,
            }
        )
        assert load_dataset(table).X["c"].tolist()[:2] == ["u", "v"]
