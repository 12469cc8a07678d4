"""What a run reads: columns that a trusted file shows, and samples like the training data."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier

from pudistill import DataWarning, InputError
from pudistill.data.loading import load_dataset
from pudistill.methods.registry import load_class
from pudistill.runs.fit import fit_run
from pudistill.runs.folder import Run
from pudistill.runs.inputs import (
    as_raw,
    like_training_data,
    load_data,
    with_columns,
    with_noise,
)
from pudistill.runs.predict import predict_run
from pudistill.runs.settings import Settings

TABLE = pd.DataFrame(
    {
        "customer": ["c0", "c1", "c2", "c3"],
        "Status": ["good", "bad", "good", "bad"],
        "home": ["rent", None, "owner", "rent"],
        "age": [20, 30, None, 40],
    }
)


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    TABLE.to_csv("credit.csv", index=False)
    TABLE[["customer", "Status"]][:2].to_csv("checked.csv", index=False)
    TABLE[TABLE.columns[::-1]].assign(note="x").to_csv("test.csv", index=False)


def test_settings_name_the_columns_that_a_trusted_file_shows(files):
    settings = Settings.read({"data": "credit.csv", "trusted": "checked.csv"})
    with pytest.warns(DataWarning, match="'customer' names the samples"):
        found = with_columns(settings)
    assert (found.id_column, found.label_column) == ("customer", "Status")
    assert with_columns(found) == found
    assert with_columns(settings.model_copy(update={"trusted": None})).id_column is None


def test_a_table_with_words_and_its_test_data(files):
    settings = Settings.read(
        {"data": "credit.csv", "trusted": "checked.csv", "test_data": "test.csv"}
        | {"id_column": "customer", "label_column": "Status"}
    )
    dataset, test = load_data(settings)
    assert list(dataset.X) == ["home", "age"]
    assert dataset.X.loc["c0"].tolist() == ["rent", 20]
    # Columns of tomorrow are chosen, and ordered, by the classifier.
    assert list(test.X) == ["age", "home", "note"]
    assert list(test.ids) == list(dataset.ids)
    assert list(test.y) == list(TABLE["Status"])


@pytest.mark.filterwarnings("ignore::pudistill.TrustedWarning", "ignore::pudistill.DataWarning")
def test_only_cleannet_learns_with_a_class_that_is_not_verified(files):
    TABLE[["customer", "Status"]][::2].to_csv("good.csv", index=False)
    columns = {"id_column": "customer", "label_column": "Status"}
    settings = Settings.read({"data": "credit.csv", "trusted": "good.csv"} | columns)
    for method in ("default", "sigua"):
        with pytest.raises(InputError, match="no trusted sample of class 'bad'"):
            load_data(settings.model_copy(update={"method": method}))
    run = fit_run(settings.model_copy(update={"method": "cleannet", "epochs": 1}), Path("run"))
    assert run.read_json("metrics.json")["n_trusted"] == 2


def test_samples_with_their_names(files):
    iris = load_dataset("iris").take([3, 2])
    X = as_raw(iris)
    assert list(X.columns) == list(iris.feature_names)
    assert list(X.index) == ["3", "2"]
    assert as_raw(replace(iris, feature_names=None)) is iris.X


def test_texts_need_no_model(tmp_path):
    frame = pd.DataFrame({"text": ["a b", ""] * 4, "label": ["u", "v"] * 4, "trusted": [1] * 8})
    frame.to_csv(tmp_path / "texts.csv", index=False)
    settings = Settings.read({"data": str(tmp_path / "texts.csv"), "test_fraction": 0.25})
    dataset, test = load_data(settings)
    assert sorted(test.X) == ["", "a b"]
    assert set(dataset.X) == {"a b", ""}


def test_test_data_of_another_kind_are_refused(files, tmp_path):
    frame = pd.DataFrame({"text": ["a b", "c"], "Status": ["good", "bad"]})
    frame.to_csv("texts.csv", index=False)
    settings = {"data": "credit.csv", "trusted": "checked.csv", "label_column": "Status"}
    settings |= {"id_column": "customer", "test_data": "texts.csv"}
    with pytest.raises(InputError, match="texts holds texts, but the training data are columns of"):
        load_data(Settings.read(settings))


class TestLikeArrays:
    """New samples for a model of numbers without gaps."""

    def read(self, frame, tmp_path):
        frame.to_csv(tmp_path / "new.csv", index=False)
        return load_dataset(tmp_path / "new.csv", labels_required=False, columns_required=False)

    def like(self, dataset):
        return like_training_data(dataset, (2,), ("u", "v"), ["a", "b"])

    def test_columns_are_found_by_name(self, tmp_path):
        frame = pd.DataFrame({"note": ["x", None], "v": [1, 2], "Status": ["?", "a"], "u": [3, 4]})
        X = self.like(self.read(frame, tmp_path)).X
        assert isinstance(X, np.ndarray)
        np.testing.assert_array_equal(X, [[3, 1], [4, 2]])

    def test_all_missing_columns_are_named(self, tmp_path):
        with pytest.raises(
            InputError, match="new lacks columns of the training data: add 'u', 'v'"
        ):
            self.like(self.read(pd.DataFrame({"w": [1]}), tmp_path))

    def test_all_columns_with_gaps_and_words_are_named_with_the_first_row(self, tmp_path):
        frame = pd.DataFrame({"id": ["p", "q"], "u": [1, None], "v": ["oops", "3"]})
        with pytest.raises(InputError) as error:
            self.like(self.read(frame, tmp_path))
        assert str(error.value) == (
            "new: the training data hold numbers without gaps, but column 'u' holds no value in "
            "the row with id 'q', column 'v' holds 'oops' in the row with id 'p': give numbers."
        )

    def test_all_unknown_classes_are_named(self, tmp_path):
        frame = pd.DataFrame({"u": [1, 2], "v": [1, 2], "label": ["c", "d"]})
        with pytest.raises(InputError, match="has labels of class 'c', 'd', which the training"):
            self.like(self.read(frame, tmp_path))


def test_a_learner_that_accepts_gaps_gets_those_of_tomorrow(tmp_path):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"a": rng.normal(size=60), "label": ["x", "y"] * 30})
    table["b"] = np.where(rng.random(60) < 0.2, np.nan, table["label"] == "x")
    run = Run.create(tmp_path / "run", {"data": "today.csv"})
    classifier = load_class("cross_entropy")(HistGradientBoostingClassifier(max_iter=2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run.write_model(classifier.fit(table[["a", "b"]], table["label"]))
    run.finish({})
    table[["b", "a"]].to_csv(tmp_path / "tomorrow.csv", index=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = predict_run(run, str(tmp_path / "tomorrow.csv"))
    assert list(found["label"]) == list(classifier.predict(table[["a", "b"]]))


def test_a_given_label_that_is_never_right_takes_no_trusted_sample(tmp_path):
    y = np.repeat(["cat", "dog"], 20)
    given = y.astype(object)
    given[0] = "catt"
    table = pd.DataFrame({"x": np.arange(40.0), "label": given, "true_label": y})
    table.to_csv(tmp_path / "data.csv", index=False)
    dataset = load_dataset(tmp_path / "data.csv")
    found = with_noise(dataset, "symmetric", 0.2, 0.2, seed=0)
    assert found.trusted.sum() == 8
