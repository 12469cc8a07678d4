"""Corrected labels go back to the data they come from."""

import sys
from pathlib import Path

import datasets as hf
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import pudistill
from pudistill.data.loading import load_dataset
from pudistill.data.options import ReadOptions
from pudistill.data.results import Source, with_corrected_labels
from pudistill.exceptions import DataWarning, InputError
from pudistill.methods import MixupClassifier
from tests.helpers.pictures import write_picture

LABELS = pd.DataFrame(
    {
        "given": ["x", "y", "x", None],
        "label": ["x", "x", "x", "y"],
        "changed": [False, True, False, False],
        "confidence": [1.0, 0.75, 0.5, 0.25],
    }
)
FRAME = pd.DataFrame(
    {
        "name": ["07", "08", "09", "10"],
        "u": [0.5, 1, 2, 3],
        "note": ["p", "q", None, "s"],
        "label": LABELS["given"],
    }
)
STORED = Path(__file__).parents[1] / "stored" / "0.1.0" / "logistic_regression"
NEW = ["corrected_label", "label_changed", "label_confidence"]


def check(result, columns=tuple(FRAME)):
    assert result.column_names == [*columns, *NEW]
    assert result["corrected_label"][:] == ["x", "x", "x", "y"]
    assert result["label_changed"][:] == [False, True, False, False]
    assert result["label_confidence"][:] == [1.0, 0.75, 0.5, 0.25]
    for name in columns:
        assert (
            result[name][:] == FRAME[name].astype(object).where(FRAME[name].notna(), None).tolist()
        )


class TestInMemory:
    @pytest.mark.parametrize(
        "data",
        [
            FRAME,
            FRAME.astype({"label": "category"}),
            pl.from_pandas(FRAME),
            pl.from_pandas(FRAME).lazy(),
            pa.Table.from_pandas(FRAME),
            hf.Dataset.from_pandas(FRAME),
        ],
        ids=lambda data: type(data).__module__,
    )
    def test_all_columns_and_the_order_of_rows_are_kept(self, data):
        check(with_corrected_labels(LABELS, data))

    def test_rows_that_were_chosen_and_the_training_split(self):
        data = hf.Dataset.from_pandas(FRAME.iloc[::-1].reset_index(drop=True)).select([3, 2, 1, 0])
        check(with_corrected_labels(LABELS, data))
        splits = hf.DatasetDict({"train": data, "test": data})
        with pytest.warns(DataWarning, match="'train' is read"):
            check(with_corrected_labels(LABELS, splits))

    def test_files(self, tmp_path):
        FRAME.to_csv(tmp_path / "d.csv", index=False)
        options = ReadOptions(id_column="name")
        table = LABELS.assign(id=FRAME["name"])
        result = with_corrected_labels(table, source=Source(str(tmp_path / "d.csv"), options, True))
        assert result["name"][:] == ["07", "08", "09", "10"]
        assert result["u"][:] == [0.5, 1, 2, 3]
        assert result["corrected_label"][:] == ["x", "x", "x", "y"]

    @pytest.mark.parametrize("codes", [False, True])
    def test_a_class_label_stays_one(self, codes):
        names = hf.ClassLabel(names=["x", "y", "z"])
        data = hf.Dataset.from_pandas(FRAME).cast_column("label", names)
        labels = LABELS.replace({"label": {"x": 0, "y": 1}}) if codes else LABELS
        result = with_corrected_labels(labels, data)
        assert result.features["corrected_label"] == names
        assert result["corrected_label"][:] == [0, 0, 0, 1]
        unknown = LABELS.assign(label=["x", "new", "x", "y"])
        assert with_corrected_labels(unknown, data)["corrected_label"][1] == "new"

    def test_whole_numbers(self):
        result = with_corrected_labels(LABELS.assign(label=[3, 3, 3, 4]), FRAME)
        assert result["corrected_label"][:] == [3, 3, 3, 4]

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (None, r"Pass the data that were fitted: to_datasets\(data\)"),
            (FRAME[:3], "the pandas DataFrame: there are 3 rows, but 4 samples were fitted"),
            (FRAME.assign(label_changed=1), "has a column 'label_changed' already: rename"),
            (7, "the int is not a table"),
            ("nowhere.csv", "there is no such file or folder"),
        ],
    )
    def test_refused(self, data, message):
        with pytest.raises(InputError, match=message):
            with_corrected_labels(LABELS, data)

    def test_without_the_library(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "datasets", None)
        with pytest.raises(InputError, match=r"pip install 'pudistill\[datasets\]'"):
            with_corrected_labels(LABELS, FRAME)

    def test_a_classifier_without_a_label_table(self):
        with pytest.raises(InputError, match="This MixupClassifier has no label table"):
            MixupClassifier().to_datasets(FRAME)


class TestOfARun:
    def source(self, path="", own=True, **options):
        return Source(str(path), ReadOptions(**options), own)

    def test_ids_decide(self):
        table = LABELS.assign(id=FRAME["name"]).iloc[::-1]
        source = self.source(id_column="name")
        check(with_corrected_labels(table, FRAME, source))
        part = with_corrected_labels(table[:2], FRAME, source)  # the others were held out
        assert part["corrected_label"][:] == [None, None, "x", "y"]
        with pytest.raises(InputError, match="2 of 4 samples of the run are not there, such as"):
            with_corrected_labels(table, FRAME[:2], source)

    def test_row_numbers_need_the_same_given_labels(self):
        table = LABELS.assign(id=["0", "1", "2", "3"])
        check(with_corrected_labels(table, FRAME, self.source()))
        other = FRAME.iloc[[1, 0, 2, 3]]
        with pytest.raises(InputError, match="row 0 has the label 'y', but 'x' when it was fitted"):
            with_corrected_labels(table, other, self.source())
        with_corrected_labels(table, other, self.source(own=False))  # noise was added

    def test_a_source_that_is_gone(self, tmp_path):
        table = LABELS.assign(id=["0", "1", "2", "3"])
        with pytest.raises(InputError, match="is not there any more: pass the data"):
            with_corrected_labels(table, source=self.source(tmp_path / "gone.csv"))

    def test_folder_of_pictures(self, tmp_path):
        for n, name in enumerate(["cat/0.png", "cat/1.png", "dog/2.png", "dog/3.png"]):
            write_picture(tmp_path / name, n)
        table = LABELS.assign(id=load_dataset(tmp_path).ids)[1:]
        result = with_corrected_labels(table, source=self.source(tmp_path))
        assert np.asarray(result[3]["image"])[0, 0] == 3
        assert result["label"][:] == ["cat", "cat", "dog", "dog"]
        assert result["corrected_label"][:] == [None, "x", "x", "y"]

    def test_arrays(self, tmp_path):
        np.savez(tmp_path / "d.npz", X=np.eye(4), y=list("xyxy"), ids=list("abcd"))
        table = LABELS.assign(id=list("abcd"))
        result = with_corrected_labels(table, source=self.source(tmp_path / "d.npz"))
        assert result["x2"][:] == [0, 0, 1, 0]
        assert result["corrected_label"][:] == ["x", "x", "x", "y"]

    def test_a_stored_run(self):
        run = pudistill.load(STORED)
        result = run.to_datasets()
        assert len(result) == 150
        assert result.features["sepal length (cm)"].dtype == "float64"
        table = run.label_table_.set_index("id")
        for name, label in zip(result["id"], result["corrected_label"], strict=True):
            assert label == (table["label"][name] if name in table.index else None)
