"""Whole runs of the command line, and its messages about wrong input."""

import io
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock
from rich.console import Console
from sklearn.datasets import load_digits, load_wine

import pudistill
from pudistill.cli import console
from pudistill.cli.console import progress_bars
from pudistill.cli.review_commands import _free_folder
from pudistill.data.loading import load_dataset
from pudistill.runs.folder import Run
from pudistill.runs.settings import DEMO
from pudistill.utils.progress import expect, planned, stage
from tests.helpers.pictures import digit_pictures, write_picture

QUICK = ["--n-members", "3", "--max-iter", "2", "--threshold", "0.7", "--min-confidence", "0.5"]
FAST = [*QUICK, "--no-compare"]  # for tests that need no accuracies
LIGHT = [*FAST, "--learner", "sklearn.naive_bayes:GaussianNB", "--n-teachers", "1"]
RUN_FILES = {
    *(".lock", "config.toml", "gallery.npz", "history.csv", "history.parquet", "labels.csv"),
    *("labels.parquet", "metrics.json", "model", "report.html", "run.json", "units"),
    *("log.jsonl", "SHA256SUMS"),
}


@pytest.fixture
def wine():
    """Wine as a table; a tenth is trusted, every third other label is wrong."""
    X, y = load_wine(return_X_y=True, as_frame=True)
    order = np.random.default_rng(0).permutation(len(X))
    X, y = X.iloc[order].reset_index(drop=True), y.to_numpy()[order]
    names = np.array(["barbera", "barolo", "grignolino"])
    table = X.round(3)
    table.insert(0, "id", [f"w{i:03}" for i in range(len(X))])
    table["trusted"] = np.arange(len(X)) % 10 == 0
    wrong = ~table["trusted"] & (np.arange(len(X)) % 3 == 1)
    table["label"] = names[np.where(wrong, (y + 1) % 3, y)]
    return table.assign(true_label=names[y])


@pytest.mark.parametrize("data", ["wine", pytest.param("digits", marks=pytest.mark.slow)])
def test_demo_writes_a_run_folder_and_prints_accuracies(command, data, tmp_path, monkeypatch):
    monkeypatch.setitem(DEMO, "data", data)
    code, out, _ = command("demo", "--trusted", "0.1")
    assert code == 0
    run = tmp_path / "pudistill-demo"
    assert {path.name for path in run.iterdir()} == (
        RUN_FILES | {"held_out_labels.npz", "learned.npz"}
    )
    metrics = json.loads((run / "metrics.json").read_text())
    accuracy = metrics["test_accuracy"]
    assert list(accuracy) == ["given_labels", "trusted_only", "pudistill", "true_labels"]
    assert accuracy["pudistill"] > accuracy["given_labels"] + 0.3
    for value in accuracy.values():
        assert f"{value:.1%}" in out
    assert metrics["label_accuracy"]["corrected"] > metrics["label_accuracy"]["given"] + 0.3


def test_certify_says_how_many_labels_can_be_used_and_writes_them(command, wine, tmp_path):
    wine.drop(columns="true_label").to_csv("noisy.csv", index=False)
    assert command("fit", "noisy.csv", "--output", "run", "--seed", "1", *QUICK)[0] == 0
    code, out, err = command("certify", "run", "--max-error", "0.4", "--output", "certified.csv")
    assert code == 0
    assert "labels that nobody verified are accepted: with 95% confidence, at most 40%" in out
    assert "178 labels written to certified.csv." in err
    table = pd.read_csv("certified.csv")
    assert table["id"].tolist() == wine["id"].tolist()
    new = (table["accepted"] & ~table["trusted"]).to_numpy()
    assert f"{new.sum()} of {(~table['trusted']).sum()} labels" in out
    assert (table["label"] == wine["true_label"])[new].mean() >= 0.6
    code, _, err = command("certify", "run", "--output", "certified.csv")
    assert (code, "certified.csv already exists" in err) == (2, True)
    code, _, err = command("certify", "run", "--max-error", "40")
    assert (code, "max_error is 40.0: it must be a number between 0 and 1" in err) == (2, True)


def test_fit_a_table_then_predict_new_rows(command, wine, tmp_path):
    train, new = wine.iloc[:140], wine.iloc[140:]
    train.drop(columns="true_label").to_csv("noisy.csv", index=False)
    new.drop(columns=["label", "trusted", "true_label"]).to_csv("new.csv", index=False)
    code, _, err = command("fit", "noisy.csv", "--output", "run", "--seed", "1", *QUICK)
    assert (code, err) == (0, "")

    labels = pd.read_csv("run/labels.csv")
    assert labels.columns.tolist() == [
        *("id", "given", "trusted", "label", "changed", "source", "confidence"),
        *("given_quality", "votes", "outlier_score", "outlier"),
    ]
    assert labels["id"].tolist() == train["id"].tolist()
    assert (labels["label"] == train["true_label"]).mean() > 0.9
    pd.testing.assert_frame_equal(
        pd.read_parquet("run/labels.parquet")[labels.columns[:5]], labels[labels.columns[:5]]
    )
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert "test_accuracy" not in metrics

    code, out, _ = command("predict", "run", "new.csv")
    assert code == 0
    rows = [line.split(",") for line in out.splitlines()]
    assert rows[0] == ["id", "label", "confidence"]
    assert [row[0] for row in rows[1:]] == new["id"].tolist()
    assert np.mean([row[1] for row in rows[1:]] == new["true_label"]) > 0.9

    code, _, _ = command("predict", "run", "new.csv", "--output", "predictions.csv")
    assert code == 0
    assert (tmp_path / "predictions.csv").read_text() == out

    classifier = pudistill.load("run")
    features = new.drop(columns=["id", "label", "trusted", "true_label"])
    assert classifier.predict(features).tolist() == [row[1] for row in rows[1:]]
    assert len(classifier.label_table_) == 140


def test_another_method_leaves_the_same_run_folder(command, wine, tmp_path):
    pytest.importorskip("torch")
    right = wine.drop(columns=["label", "trusted"]).rename(columns={"true_label": "label"})
    right.to_csv("test.csv", index=False)
    options = ("--method", "co_teaching", "--test-data", "test.csv", "--output", "run")
    wine.drop(columns="true_label").to_csv("wine.csv", index=False)
    code, out, _ = command("fit", "wine.csv", *options)
    assert code == 0
    assert "Co-teaching" in out
    assert {path.name for path in (tmp_path / "run").iterdir()} == RUN_FILES
    labels = pd.read_csv("run/labels.csv")
    assert (labels["label"] == wine["true_label"]).mean() > 0.9
    assert set(labels["source"]) == {"trusted", "given", "model"}
    metrics = json.loads(Path("run/metrics.json").read_text())
    assert metrics["test_accuracy"]["co_teaching"] > 0.9
    assert 0.2 < metrics["noise_rate"] < 0.5
    code, out, _ = command("predict", "run", "test.csv")
    assert (code, len(out.splitlines())) == (0, 1 + len(wine))
    loaded = pudistill.load("run")
    assert type(loaded).__name__ == "CoTeachingClassifier"
    assert Path("run/report.html").read_text().count("Co-teaching") >= 2


def test_a_config_repeats_a_run(command, wine, tmp_path):
    wine.to_csv("noisy.csv", index=False)
    options = ["--test-fraction", "0.4", "--seed", "3", *LIGHT]
    assert command("fit", "noisy.csv", "--output", "one", *options)[0] == 0
    config = tomllib.loads((tmp_path / "one" / "config.toml").read_text())
    assert (config["seed"], config["n_members"], config["threshold"]) == (3, 3, 0.7)
    assert command("fit", "--config", "one/config.toml", "--output", "two")[0] == 0
    for name in ("labels.csv", "config.toml"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    one, two = (pudistill.load(run).predict_proba(wine.iloc[:, 1:14]) for run in ("one", "two"))
    np.testing.assert_array_equal(one, two)
    command("fit", "--config", "one/config.toml", "--output", "three", "--seed", "4")
    assert tomllib.loads((tmp_path / "three" / "config.toml").read_text())["seed"] == 4


def test_a_sweep_draws_the_curve_and_its_report_can_be_written_again(command, tmp_path):
    options = ["--test-fraction", "0.3", "--trusted", "0.2", "--levels", "0.5,0.9"]
    options += ["--methods", "given_labels,gold_loss_correction,true_labels"]
    code, out, _ = command("sweep", "wine", *options, "--output", "curve")
    assert code == 0
    assert "Accuracy, symmetric noise of" in out
    assert "Gold Loss Correction" in out
    assert "50%" in out  # 90 % noise beside 20 % trusted samples is impossible
    assert "90%" not in out
    names = {path.name for path in (tmp_path / "curve").iterdir()}
    assert names >= {"curve.csv", "curve.parquet", "curve.svg", "report.html", "config.toml"}
    (tmp_path / "curve" / "report.html").unlink()
    assert command("report", "curve")[0] == 0
    assert "symmetric" in (tmp_path / "curve" / "report.html").read_text()
    code, _, err = command("sweep", "wine", *options, "--output", "curve")
    assert code == 2
    assert "already holds a run" in " ".join(err.split())


def test_a_sweep_has_all_levels(command):
    code, _, err = command("demo", "--sweep", "--level", "0.5")
    assert code == 2
    assert "leave --level out" in " ".join(err.split())


def test_given_labels_that_were_marked_as_right_do_not_count_for_the_noise(command, wine, tmp_path):
    wine.drop(columns="true_label").to_csv("noisy.csv", index=False)
    assert command("fit", "noisy.csv", *QUICK, "--output", "run")[0] == 0
    noise = json.loads((tmp_path / "run" / "metrics.json").read_text())["noise"]
    assert noise["basis"] == "bound"
    assert not any("overwritten" in warning for warning in noise["warnings"])


def test_an_interrupted_run_continues_where_it_stopped(command, wine, tmp_path, monkeypatch):
    wine.to_csv("noisy.csv", index=False)
    fit = ["fit", "noisy.csv", *LIGHT, "--output"]
    assert command(*fit, "whole")[0] == 0

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pudistill.distillation.noise_free_models.run_noise_free_stage", interrupt)
        code, _, err = command(*fit, "run")
    assert code == 130
    assert "Finished stages are kept in run" in " ".join(err.split())
    filtered = sorted((tmp_path / "run" / "units").iterdir())
    assert len(filtered) == 3
    code, out, _ = command("report", "run")
    assert code == 0
    assert "The run in run was interrupted.\nDone: finding clean samples (1 second).\n" in out
    assert "Still to come: learning from clean samples, learning from all labels.\n" in out
    assert "There is no result yet" in out
    assert "resume run" in out
    assert command(*fit, "run", "--seed", "5")[0] == 2  # another run

    with monkeypatch.context() as patch:
        patch.setattr("pudistill.pu_filter.one_class.train_members", interrupt)
        assert command(*fit, "run")[0] == 0
    for name in ("labels.csv", "config.toml"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.usefixtures("brief_training")
def test_fit_an_image_folder_with_a_trusted_file_then_predict(command, tmp_path):
    pytest.importorskip("torch")
    pictures, y = digit_pictures(300, 3)
    rng = np.random.default_rng(0)
    names = np.array(["zero", "one", "two"])
    trusted = []
    for i in range(240):
        given = names[y[i]] if rng.random() < 0.6 else names[(y[i] + 1) % 3]
        write_picture(tmp_path / "pictures" / given / f"{i:03}.png", pictures[i])
        if i % 6 == 0:
            trusted.append({"id": f"{given}/{i:03}.png", "label": names[y[i]]})
    pd.DataFrame(trusted).to_csv("checked.csv", index=False)
    for i in range(240, 300):
        write_picture(tmp_path / "new" / f"{i}.png", pictures[i])

    options = ["--trusted", "checked.csv", "--test-fraction", "0.25", *QUICK]
    code, _, _ = command("fit", "pictures", "--output", "run", *options)
    assert code == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["n_test"] == 10
    assert set(metrics["test_accuracy"]) == {"given_labels", "trusted_only", "pudistill"}
    stored = {path.name for path in (tmp_path / "run" / "model").iterdir()}
    assert stored >= {"model.json", "learner-0.safetensors"}
    assert {Path(name).suffix for name in stored} == {".json", ".safetensors"}
    report = (tmp_path / "run" / "report.html").read_text()
    assert report.count("data:image/png;base64") > 5
    code, out, _ = command("predict", "run", "new")
    assert code == 0
    predicted = [line.split(",")[1] for line in out.splitlines()[1:]]
    assert np.mean(predicted == names[y[240:300]]) > 0.8


def test_corrupt_writes_what_fit_reads(command, tmp_path):
    code, _, err = command(
        *("corrupt", "digits", "--noise", "symmetric", "--level", "0.6"),
        *("--output", "noisy.parquet"),
    )
    assert code == 0
    noisy = load_dataset("noisy.parquet")
    untrusted = ~noisy.trusted
    assert noisy.trusted.mean() == pytest.approx(0.1, abs=0.005)
    # 0.6 / 0.9 of the noisy set gets a uniform label, a tenth of which is right by chance
    wrong = (noisy.y != noisy.true_labels)[untrusted].mean()
    assert wrong == pytest.approx(0.6, abs=0.02)
    assert f"{wrong:.1%}" in err
    assert (noisy.verified == noisy.true_labels)[noisy.trusted].all()
    before = (tmp_path / "noisy.parquet").read_bytes()
    assert command("corrupt", "wine", "--output", "noisy.parquet")[0] == 2
    assert (tmp_path / "noisy.parquet").read_bytes() == before


def test_corrupt_simulates_sources(command, tmp_path):
    options = ["--sources", "5", "--abstain", "0.6", "--copies", "2", "--adversarial", "1"]
    assert command("corrupt", "wine", *options, "--output", "noisy.csv")[0] == 0
    assert command("corrupt", "wine", *options, "--output", "again.csv")[0] == 0
    table = pd.read_csv("noisy.csv")
    sources = [f"source_{n}" for n in range(1, 6)]
    assert {"label", "verified_label", "true_label", "trusted", "alcohol", *sources} < {*table}
    assert table["source_3"].equals(table["source_1"])
    assert 0.4 < table[sources].isna().to_numpy().mean() < 0.8
    assert (tmp_path / "noisy.csv").read_bytes() == (tmp_path / "again.csv").read_bytes()
    plain = command("corrupt", "wine", "--output", "plain.csv")
    assert plain[0] == 0
    pd.testing.assert_frame_equal(table.drop(columns=sources), pd.read_csv("plain.csv"))
    refuse(command, tmp_path, "corrupt", "wine", "--copies", "2", "--output", "x.csv", says="add")
    table.drop(columns="label").to_csv("sources.csv", index=False)
    args = ["corrupt", "sources.csv", "--label-column", "true_label", "--sources", "2"]
    refuse(command, tmp_path, *args, "--output", "x.csv", says="source_1 already")


def test_the_papers_ninety_percent_beside_ten_percent_trusted(command):
    for noise in ("symmetric", "asymmetric"):
        options = ["--noise", noise, "--level", "0.9", "--trusted", "0.1"]
        assert command("corrupt", "digits", "--output", f"{noise}.csv", *options)[0] == 0


def test_report_can_be_written_again(command, wine, tmp_path):
    wine.to_csv("noisy.csv", index=False)
    command("fit", "noisy.csv", "--output", "run", *FAST)
    report = tmp_path / "run" / "report.html"
    before = report.read_text()
    report.unlink()
    assert command("report", "run")[0] == 0
    assert report.read_text() == before


@pytest.mark.parametrize(
    "columns",
    [
        [f"pixel_{i}_{j}" for i in range(8) for j in range(8)],
        [f"pixel_{i}" for i in range(64)],
        [f"pixel_{i}_{j}" for i in range(1, 9) for j in range(1, 9)],
    ],
)
def test_features_named_as_pixels_are_shown_as_a_picture(command, columns, tmp_path):
    X, y = (values[:80] for values in load_digits(n_class=2, return_X_y=True))
    table = pd.DataFrame(X, columns=columns)
    table["label"] = np.where(np.arange(len(y)) % 4 == 1, "zero", np.where(y == 0, "zero", "one"))
    table["trusted"] = np.arange(len(y)) % 4 == 0
    table.to_csv("pixels.csv", index=False)
    assert command("fit", "pixels.csv", "--output", "run", *FAST)[0] == 0
    shown = (tmp_path / "run" / "report.html").read_text().count("data:image/png")
    assert (shown > 0) == (columns[0] == "pixel_0_0")


def test_class_names_are_escaped_in_the_report(command, wine, tmp_path):
    evil = "<script>alert(1)</script>"
    wine.replace("barolo", evil).to_csv("noisy.csv", index=False)
    assert command("fit", "noisy.csv", "--output", "run", *QUICK)[0] == 0
    report = (tmp_path / "run" / "report.html").read_text()
    assert evil not in report
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in report


@pytest.mark.parametrize(
    "name", ["demo", "fit", "predict", "report", "resume", "sweep", "corrupt", "reproduce"]
)
def test_help_shows_an_example(command, name):
    code, out, _ = command(name, "--help")
    assert code == 0
    assert f"Example: pudistill {name}" in " ".join(out.split())


# Wrong input ----------------------------------------------------------------------------------


def refuse(command, tmp_path, *args, says):
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    code, out, err = command(*args)
    text = " ".join(err.split())
    assert code == 2, text
    assert says in text
    assert "Traceback" not in text
    assert out == ""
    assert text.startswith("Error: ")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def change(table, column, rows, value):
    table = table.astype({column: object})
    table.loc[rows, column] = value
    return table


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda t: t.assign(trusted=False), "no trusted sample at all"),
        (lambda t: t.drop(columns="trusted"), "no trusted sample at all"),
        (
            lambda t: t[~(t["trusted"] & (t["label"] == "barolo"))],
            "no trusted sample of class 'barolo'",
        ),
        (lambda t: t.assign(label="barolo"), "only one class, 'barolo'"),
        (lambda t: t.assign(label=None, trusted=False), "all labels are empty"),
        (lambda t: change(t, "label", 10, None), "Trusted sample 'w010' has no label"),
        (lambda t: change(t, "alcohol", 7, np.inf), "row with id 'w007', column 'alcohol'"),
        (lambda t: change(t, "trusted", 7, "perhaps"), "perhaps"),
        (lambda t: t.assign(id="same"), "id 'same' occurs 178 times"),
        (lambda t: t.iloc[:0], "there are no samples"),
    ],
)
def test_bad_tables_are_named(command, wine, tmp_path, edit, says):
    edit(wine.drop(columns="true_label")).to_csv("noisy.csv", index=False)
    refuse(command, tmp_path, "fit", "noisy.csv", "--output", "run", says=says)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("id,label\nw001,barolo\nw999,barolo\n", "'w999'"),
        ("id,label\nw001,barolo\nw001,barolo\n", "Trusted id 'w001' occurs 2 times"),
        ("id,label\nw001,barolo\nw001,barbera\n", "contradictory labels ('barbera', 'barolo')"),
        ("id,label\nw001,\n", "'w001' has no label"),
        ("name\nnobody\n", "id"),
    ],
)
def test_bad_trusted_files_are_named(command, wine, tmp_path, rows, says):
    wine.drop(columns=["true_label"]).to_csv("noisy.csv", index=False)
    (tmp_path / "checked.csv").write_text(rows)
    args = ["fit", "noisy.csv", "--trusted", "checked.csv", "--output", "run"]
    refuse(command, tmp_path, *args, says=says)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--min-votes", "21"], "min_votes=21 can never be reached with n_members=20"),
        (["--threshold", "1.5"], "'threshold'"),
        (["--threshold", "0"], "'threshold'"),
        (["--label-column", "labels"], "there is no column 'labels'"),
        (["--recipe", "slow"], "'fast', 'slim', 'paper' or 'clothing1m'"),
        (["--min-votes", "x"], "should be a whole number, a fraction up to 1.0, or auto"),
        (["--test-data", "noisy.csv"], "are the training data"),
        (["--test-data", "noisy.csv", "--test-fraction", "0.2"], "both given"),
        (["--learner", "guess"], "The learner 'guess' cannot be used"),
        (["--learner", "small_cnn"], "small_cnn"),
        (["--test-fraction", "1.5"], "test_fraction"),
        (["--seed", "-1"], "seed"),
        (["--learner", "sklearn.gaussian_process:GaussianProcessClassifier"], "cannot be stored"),
        (["--learner", "builtins:dict"], "'builtins:dict' cannot be used"),
        (
            ["--learner", "sklearn.svm:SVR"],
            "SVR is neither a scikit-learn classifier nor a network",
        ),
        (
            ["--learner", "sklearn.discriminant_analysis:QuadraticDiscriminantAnalysis"],
            "QuadraticDiscriminantAnalysis cannot be fitted",
        ),
        (["--test-data", "missing.csv"], "missing.csv"),
        (["--config", "missing.toml"], "missing.toml cannot be read"),
    ],
)
def test_bad_options_are_named(command, wine, tmp_path, options, says):
    wine.to_csv("noisy.csv", index=False)
    refuse(command, tmp_path, "fit", "noisy.csv", "--output", "run", *options, says=says)


def test_bad_noise_is_named(command, tmp_path):
    refuse(command, tmp_path, "demo", "--noise", "pink", says="noise")
    args = ["demo", "--level", "0.99"]
    refuse(command, tmp_path, *args, says="largest")


def test_bad_pictures_are_named(command, tmp_path):
    for name in ("cat/a.png", "cat/b.png", "dog/c.png", "dog/d.png"):
        write_picture(tmp_path / "pictures" / name, size=(8, 8))
    fit = ["fit", "pictures", "--output", "run"]
    refuse(command, tmp_path, *fit, says="no trusted sample at all")
    whole = (tmp_path / "pictures/dog/d.png").read_bytes()
    (tmp_path / "pictures/dog/d.png").write_bytes(whole[:40])
    refuse(command, tmp_path, *fit, says="dog/d.png")
    (tmp_path / "pictures/dog/d.png").unlink()
    write_picture(tmp_path / "pictures/dog/d.png", size=(8, 9))
    refuse(command, tmp_path, *fit, says="--image-size")
    (tmp_path / "empty").mkdir()
    refuse(command, tmp_path, "fit", "empty", "--output", "run", says="empty")


@pytest.mark.usefixtures("brief_training")
def test_bad_pictures_can_be_left_out_and_are_listed(command, tmp_path):
    pytest.importorskip("torch")
    pictures, y = digit_pictures(60, 2)
    for i in range(60):
        write_picture(tmp_path / "pictures" / str(y[i]) / f"{i}.png", pictures[i])
    broken = tmp_path / "pictures" / "0" / "broken.png"
    broken.write_bytes(b"no picture")
    pd.DataFrame({"id": [f"{y[i]}/{i}.png" for i in range(20)]}).to_csv("checked.csv", index=False)
    fit = ["fit", "pictures", "--trusted", "checked.csv", "--output", "run"]
    refuse(command, tmp_path, *fit, says="--skip-bad")
    fast = ["--skip-bad", "--n-members", "2", "--max-iter", "1", "--threshold", "0.6"]
    assert command(*fit, *fast, "--n-teachers", "1", "--n-jobs", "1")[0] == 0
    assert (
        "0/broken.png" in json.loads((tmp_path / "run" / "metrics.json").read_text())["skipped"][0]
    )
    assert "0/broken.png" in (tmp_path / "run" / "report.html").read_text()
    assert "0/broken.png" not in (tmp_path / "run" / "labels.csv").read_text()


def test_new_files_can_lack_the_label_column_or_have_another_order_of_columns(
    command, wine, tmp_path
):
    table = wine.drop(columns=["id", "true_label"])
    table = table.rename(columns={"label": "grade", "trusted": "checked"})
    table.to_csv("noisy.csv", sep=";")  # with row numbers in a nameless column
    right = wine.assign(grade=wine["true_label"]).drop(columns=["true_label", "label", "trusted"])
    right.to_csv("right.csv", index=False)
    names = ["--label-column", "grade", "--trusted-column", "checked"]
    fit = ["fit", "noisy.csv", "--output", "run", "--test-data", "right.csv", *names, *FAST]
    assert command(*fit)[0] == 0
    assert pd.read_csv("run/labels.csv")["id"].tolist() == list(range(len(wine)))
    code, with_labels, _ = command("predict", "run", "right.csv")
    assert code == 0
    shuffled = right[right.columns[::-1]].drop(columns="grade").assign(more="x")
    shuffled.to_csv("shuffled.csv", index=False)
    assert command("predict", "run", "shuffled.csv")[:2] == (0, with_labels)


def test_names_are_not_read_as_markup(command, wine, tmp_path):
    wine.to_csv("noisy.csv", index=False)
    code, out, _ = command("fit", "noisy.csv", "--output", "run[red] [", *FAST)
    assert code == 0
    assert "Corrected labels: run[red] [/labels.csv" in out
    assert "predict 'run[red] [' DATA" in out
    assert command("report", "run[red] [")[0] == 0


def test_a_folder_that_cannot_be_written_to_is_named(command, tmp_path, monkeypatch):
    def refuse_to_write(*_, **__):
        raise PermissionError(13, "Permission denied", ".noisy.csv-k2j4.writing")

    monkeypatch.setattr("tempfile.mkstemp", refuse_to_write)
    args = ["corrupt", "wine", "--output", "noisy.csv"]
    refuse(command, tmp_path, *args, says="noisy.csv: Permission denied.")


def test_outputs_can_have_any_name_and_no_output_at_all(command, wine, tmp_path, monkeypatch):
    wine.to_csv("noisy.csv", index=False)
    assert command("fit", "noisy.csv", "--output", "run:fire:-2026", *FAST)[0] == 0
    for name in ("x:fire:.csv", f"{'n' * 250}.csv"):
        assert f"written to {name}" in command(
            "predict", "run:fire:-2026", "noisy.csv", "--output", name
        )[2].replace("\n", "")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        console.print_csv("id,label\n")
    # Only the number of an update is counted on.
    run = tmp_path / "run:fire:-2026"
    assert _free_folder(run).name == "run:fire:-2026-2"
    monkeypatch.chdir(run)
    assert _free_folder(Path()) == run.with_name("run:fire:-2026-2")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "run.json").write_text("{}")
    assert _free_folder(tmp_path / "a-2") == tmp_path / "a-2"


def test_a_terminal_of_unknown_width_shows_errors():
    code = "from pudistill.cli.start import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "certify", "nosuch"],
        env=os.environ | {"COLUMNS": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "nosuch holds no run" in done.stderr


def test_a_method_that_diverged_everywhere_is_in_the_table_of_a_sweep(tmp_path, capsys):
    rows = [("pair", 0.3, "pudistill", 0.9), ("pair", 0.3, "mixup", np.nan)]
    table = pd.DataFrame(rows, columns=["noise", "level", "method", "accuracy"])
    console.print_curve(SimpleNamespace(path=tmp_path, read_table=lambda _: table))
    lines = capsys.readouterr().out.splitlines()
    (ours, mixup) = (line for line in lines if "pudistill" in line or "Mixup" in line)
    assert "90.0%" in ours
    assert "–" in mixup


def test_version(command):
    assert command("--version")[:2] == (0, f"pudistill {pudistill.__version__}\n")


def test_runs_and_files_are_never_overwritten(command, wine, tmp_path):
    wine.to_csv("noisy.csv", index=False)
    assert command("fit", "noisy.csv", "--output", "run", *FAST)[0] == 0
    refuse(command, tmp_path, "fit", "noisy.csv", "--output", "run", says="already holds a run")
    refuse(command, tmp_path, "fit", "noisy.csv", "--output", "noisy.csv", says="already exists")
    args = ["predict", "run", "noisy.csv", "--output", "noisy.csv"]
    refuse(command, tmp_path, *args, says="already exists")


def test_predict_refuses_samples_that_do_not_fit_the_run(command, wine, tmp_path):
    wine.to_csv("noisy.csv", index=False)
    assert command("fit", "noisy.csv", "--output", "run", *FAST)[0] == 0
    wine.drop(columns="alcohol").to_csv("narrow.csv", index=False)
    refuse(command, tmp_path, "predict", "run", "narrow.csv", says="training data: add 'alcohol'")
    wine.assign(alcohol="much").to_csv("words.csv", index=False)
    refuse(command, tmp_path, "predict", "run", "words.csv", says="'alcohol' holds 'much' in the")
    wine.replace("barolo", "rioja").to_csv("others.csv", index=False)
    refuse(command, tmp_path, "predict", "run", "others.csv", says="'rioja'")
    refuse(command, tmp_path, "predict", "run", "digits", says="training data")
    refuse(command, tmp_path, "predict", "nothing", "noisy.csv", says="holds no run")


@pytest.mark.usefixtures("brief_training")
def test_one_command_runs_several_experiments(command, tmp_path):
    pytest.importorskip("torch")
    code, out, err = command("reproduce", "table3", "table1", "--output", "all")
    assert code == 0
    assert "CleanNet" in out
    assert out.index("table3") < out.index("table1")
    assert "all/table1-smoke" in err
    code, _, err = command("reproduce", "table3", "table9", "--output", "other")
    assert code == 2
    assert "table9" in err
    assert not (tmp_path / "other").exists()
    for args in (["report", "all/table1-smoke"], ["predict", "all/table1-smoke", "digits"]):
        code, _, err = command(*args)
        assert code == 2
        assert "damaged" not in err


@pytest.mark.usefixtures("brief_training")
def test_clothing1m_is_fitted_with_a_network_of_the_hub(command, clothing, tiny_resnet, tmp_path):
    options = ["--learner", f"transformers:{tiny_resnet}", "--image-size", "32", "--skip-bad"]
    (clothing / "images/0/noisy_train-0.jpg").unlink()
    test = clothing / "clean_test_key_list.txt"
    quick = [*QUICK, "--method", "paper", "--output", "run"]
    code, _, err = command("fit", clothing, "--test-data", test, *options, *quick)
    assert code == 0, err
    labels = pd.read_csv(tmp_path / "run" / "labels.csv")
    assert len(labels) == 35
    code, out, err = command("predict", "run", test, "--skip-bad")
    assert code == 0, err
    assert len(out.splitlines()) == 13


@pytest.fixture
def interrupted(command, monkeypatch):
    """Run a command, and interrupt it before it writes its last file."""

    def run(*args):
        write = Run.write_json

        def stop(self, name, content):
            if name == "metrics.json":
                raise KeyboardInterrupt
            write(self, name, content)

        with monkeypatch.context() as patch:
            patch.setattr(Run, "write_json", stop)
            return command(*args)

    return run


def test_a_run_of_any_command_is_resumed_by_its_folder(command, interrupted, wine, tmp_path):
    wine.to_csv("noisy.csv", index=False)
    sweep = ["--test-fraction", "0.3", "--levels", "0.3", "--methods", "given_labels,true_labels"]
    runs = {
        "run": ["fit", "noisy.csv", "--output", "run", *LIGHT],
        "curve": ["sweep", "iris", "--output", "curve", *sweep],
        "all/table3-smoke": ["reproduce", "table3", "--output", "all", "--methods", "paper"],
    }
    for folder, args in runs.items():
        code, _, err = interrupted(*args)
        assert code == 130
        assert ("pudistill resume" in err) == (args[0] != "reproduce")
        code, _, err = command("predict", folder, "iris")
        assert code == 2
        assert f"pudistill resume {folder}" in err or args[0] != "fit"
        code, _, err = command("resume", folder)
        assert code == 0, err
        assert (tmp_path / folder / "metrics.json").exists()
        code, _, err = command("resume", folder)
        assert code == 2
        assert "is finished" in err
    code, _, err = command("resume", "nowhere")
    assert code == 2
    assert "holds no run" in err


def test_one_process_works_in_a_run_folder(command, wine, tmp_path):
    wine.to_csv("noisy.csv", index=False)
    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run" / ".lock"):
        code, _, err = command("fit", "noisy.csv", "--output", "run", *FAST)
        assert code == 2
        assert "Another process is at work" in err
    assert command("fit", "noisy.csv", "--output", "run", *FAST)[0] == 0


def test_the_lock_of_a_dead_process_is_released(command, wine, tmp_path):
    wine.to_csv("noisy.csv", index=False)
    (tmp_path / "run").mkdir()
    lock = str(tmp_path / "run" / ".lock")
    script = f"import os, filelock; filelock.FileLock({lock!r}).acquire(); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", script], check=False)
    assert (tmp_path / "run" / ".lock").exists()
    assert command("fit", "noisy.csv", "--output", "run", *FAST)[0] == 0


def test_without_a_terminal_lines_tell_the_progress(monkeypatch, capsys):
    monkeypatch.setattr("pudistill.cli.console.LINE_EVERY", 0)
    with progress_bars(), planned(["filter", "student"]):
        with stage("filter", 3000) as advance:
            advance(to=1200)
        with stage("trunks", 5), stage("teachers", 3):  # no more than one at a time
            pass
        with stage("student", 6):
            pass
    assert capsys.readouterr().err.splitlines() == [
        "1 of 2: finding clean samples, 0% done",
        "1 of 2: finding clean samples, 40% done",
        "training the filter's networks, 0% done",
        "2 of 2: learning from all labels, 0% done",
    ]


def test_in_a_cell_of_a_notebook_lines_tell_the_progress(monkeypatch):
    screen = Console(file=io.StringIO(), force_terminal=True, width=80, highlight=False)
    monkeypatch.setattr("pudistill.cli.console.messages", screen)
    monkeypatch.setattr("pudistill.cli.console.LINE_EVERY", 0)
    monkeypatch.setenv("GIT_PAGER", "cat")  # as a kernel of Jupyter does
    with progress_bars(), stage("filter", 3000):
        pass
    assert screen.file.getvalue().splitlines() == ["finding clean samples, 0% done"]


def test_in_a_terminal_the_whole_run_has_a_time_left(monkeypatch):
    monkeypatch.delenv("GIT_PAGER", raising=False)
    screen = Console(file=io.StringIO(), force_terminal=True, width=80, highlight=False)
    monkeypatch.setattr("pudistill.cli.console.messages", screen)
    with progress_bars(), planned(["filter", "student"]):
        expect("This fit will take 2 minutes.", {"filter": 60.0, "student": 60.0})
        with stage("filter", 2) as advance:
            advance(1, detail="class 1, iteration 1, member 20 of a long name")
    shown = re.sub("\x1b\\[[0-9;?]*[A-Za-z]", "", screen.file.getvalue())
    assert "This fit will take 2 minutes." in shown
    times = r"\S+ +\d+% 0:00:0\d left 0:0\d:\d\d"  # the detail does not squeeze them
    assert re.search(rf"whole run +{times}", shown)
    assert re.search(rf"1 of 2: finding clean samples +{times}", shown)


def test_a_wrong_time_limit_is_named(command, wine):
    wine.to_csv("wine.csv", index=False)
    code, _, err = command("fit", "wine.csv", "--output", "run", "--time-limit", "soon")
    assert code == 2
    assert "time_limit cannot be 'soon': it should be seconds, a text such as 90s" in " ".join(
        err.split()
    )
