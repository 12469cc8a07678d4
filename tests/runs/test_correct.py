"""`pudistill correct`: labels, verified labels and predictions in files."""

import numpy as np
import pandas as pd
import pytest

from pudistill import InputError
from pudistill.runs.correct import correct_table
from pudistill.runs.fit import fit_run
from pudistill.runs.settings import Settings


@pytest.fixture
def folder(tmp_path):
    """Labels of twelve classes, named by numbers, of which a fifth are wrong; predictions."""
    rng = np.random.default_rng(0)
    y = rng.integers(12, size=600)
    given = np.where(rng.random(600) < 0.2, (y + 1) % 12, y)
    proba = np.where(y[:, None] == np.arange(12), 0.78, 0.02)
    ids = np.array([f"s{n}" for n in range(600)])
    pd.DataFrame({"id": ids, "label": given}).to_csv(tmp_path / "labels.csv", index=False)
    checked = pd.DataFrame({"id": ids, "label": y})[rng.random(600) < 0.2]
    checked.to_csv(tmp_path / "checked.csv", index=False)
    np.save(tmp_path / "proba.npy", proba)
    frame = pd.DataFrame(proba, columns=np.arange(12).astype(str)).assign(id=ids)
    frame.sample(frac=1, random_state=0).to_csv(tmp_path / "proba.csv", index=False)
    frame.to_parquet(tmp_path / "proba.parquet")
    pd.DataFrame({"id": ids, "true": y}).to_csv(tmp_path / "true.csv", index=False)
    return tmp_path


def corrected(folder, predictions, **settings):
    settings = {"trusted": str(folder / "checked.csv")} | settings
    settings = Settings.read({"data": str(folder / "labels.csv")} | settings)
    return correct_table(settings, folder / predictions)[1].frame()


@pytest.mark.parametrize("predictions", ["proba.npy", "proba.csv", "proba.parquet"])
def test_predictions_of_any_file_correct_the_labels(folder, predictions):
    table = corrected(folder, predictions).set_index("id")
    true = pd.read_csv(folder / "true.csv", index_col="id")["true"].astype(str)
    assert (table["label"] == true).mean() > 0.98
    assert set(table["source"]) == {"trusted", "given", "model"}


def test_the_command_writes_a_table_and_says_what_it_found(folder, command):
    args = ["correct", "labels.csv", "--predictions", "proba.csv", "--trusted", "checked.csv"]
    args += ["--output", "out.csv"]
    code, out, _ = command(*args)
    assert code == 0
    assert "600 labels" in out
    assert "of the labels that nobody verified are wrong" in out
    assert len(pd.read_csv(folder / "out.csv")) == 600
    code, _, err = command(*args)
    assert code == 2
    assert "out.csv already exists" in err


def test_without_verified_labels_nothing_is_stated(folder):
    table = corrected(folder, "proba.npy", trusted=None)
    assert not table["trusted"].any()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,0,1\ns0,0.5,0.5\n", "has no row for 's1', 's2', 's3' and 596 other samples"),
        ("id,0,1\n" + "s0,0.5,0.5\n" * 2, "the id 's0' occurs twice"),
        ("0,1\n0.5,0.5\n", "pass a row for each of the 600 labels"),
    ],
)
def test_tables_that_do_not_fit_are_refused(folder, content, message):
    (folder / "bad.csv").write_text(content)
    with pytest.raises(InputError, match=message):
        corrected(folder, "bad.csv")


def test_arrays_that_cannot_be_read_are_refused(folder):
    (folder / "bad.npy").write_bytes(b"no array")
    with pytest.raises(InputError, match="cannot be read as an array"):
        corrected(folder, "bad.npy")


def test_fit_takes_predictions(folder):
    labels = pd.read_csv(folder / "labels.csv")
    labels["x"] = np.random.default_rng(0).normal(size=600)  # says nothing
    labels.to_csv(folder / "data.csv", index=False)
    settings = {"data": "data.csv", "trusted": "checked.csv", "predictions": "proba.npy"}
    settings = {name: str(folder / value) for name, value in settings.items()} | {
        "n_members": 2,
        "max_iter": 1,
        "learner": "sklearn.naive_bayes:GaussianNB",
    }
    run = fit_run(Settings.read(settings), folder / "run")
    true = pd.read_csv(folder / "true.csv")["true"].astype(str)
    assert (run.read_table("labels")["label"] == true).mean() > 0.9
    with pytest.raises(InputError, match="for the method default"):
        Settings.read(settings | {"method": "paper"})


def test_columns_that_are_no_probabilities_are_named(folder):
    frame = pd.read_csv(folder / "proba.csv").assign(score=0.3)
    frame.to_csv(folder / "bad.csv", index=False)
    with pytest.raises(InputError, match="the column 'score', which is no class"):
        corrected(folder, "bad.csv")
    (folder / "bad.npz").write_bytes(b"")
    with pytest.raises(InputError, match="is no table"):
        corrected(folder, "bad.npz")


def test_a_class_called_id_is_no_column_of_ids(tmp_path):
    rng = np.random.default_rng(0)
    y = np.array(["ID", "MT"])[rng.integers(2, size=300)]
    pd.DataFrame({"id": [f"s{n}" for n in range(300)], "label": y}).to_csv(
        tmp_path / "labels.csv", index=False
    )
    proba = np.where(y[:, None] == ["ID", "MT"], 0.9, 0.1)
    pd.DataFrame(proba, columns=["ID", "MT"]).to_csv(tmp_path / "proba.csv", index=False)
    settings = Settings.read({"data": str(tmp_path / "labels.csv")})
    assert (correct_table(settings, tmp_path / "proba.csv")[1].frame()["label"] == y).all()
