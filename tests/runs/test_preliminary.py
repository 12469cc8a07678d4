"""The first result of a run, and the report of a run that is not finished."""

import json

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock
from sklearn.datasets import load_wine

from pudistill.cli.console import print_progress
from pudistill.distillation import first_result
from pudistill.runs.fit import fit_run
from pudistill.runs.preliminary import LABELS, METRICS, progress_of
from pudistill.runs.settings import Settings
from pudistill.utils.time_limit import note_cut


def interrupt(*_, **__):
    raise KeyboardInterrupt


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """Settings of a quick run on noisy wine; a first result is always worth its time."""
    monkeypatch.setattr(first_result, "WORTH_SECONDS", 0)
    X, y = load_wine(return_X_y=True, as_frame=True)
    trusted = np.arange(178) % 6 == 0
    given = np.where(trusted, y, (y + np.arange(178) % 2) % 3)
    X.assign(label=given, trusted=trusted, id=[f"w{n}" for n in range(178)]).to_csv(
        tmp_path / "wine.csv", index=False
    )
    return {
        "data": str(tmp_path / "wine.csv"),
        "learner": "sklearn.naive_bayes:GaussianNB",
        "n_members": 5,
        "n_jobs": 1,
    }


@pytest.fixture
def interrupted(settings, tmp_path, monkeypatch):
    """The folder of a run that was interrupted before its comparison."""
    with monkeypatch.context() as patch:
        patch.setattr("pudistill.distillation.shipping.judge", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fit_run(Settings.read(settings), tmp_path / "run")
    return tmp_path / "run"


def test_an_interrupted_run_shows_its_first_result(interrupted, capsys):
    labels = pd.read_csv(interrupted / LABELS)
    assert labels.columns.tolist() == ["id", "given", "trusted", "label", "changed", "confidence"]
    assert labels["id"].tolist() == [f"w{n}" for n in range(178)]
    assert (labels["label"] == load_wine().target).mean() > 0.8
    progress = progress_of(interrupted)
    assert list(progress.done) == ["filter", "noise-free models", "student"]
    assert (progress.begun, progress.to_come) == (None, ["comparison"])
    assert not progress.is_running
    print_progress(progress)
    out = capsys.readouterr().out
    assert "Still to come: comparing." in out
    assert f"{labels['changed'].sum()} of 178 given labels would be changed: " in out
    assert "of the given labels are wrong (95% interval: " in out
    assert "Preliminary" in out


def test_a_run_at_work_is_not_called_interrupted(interrupted):
    with FileLock(interrupted / ".lock"):
        assert progress_of(interrupted).is_running


def test_preliminary_files_are_gone_when_the_run_ends(settings, interrupted):
    assert (interrupted / METRICS).exists()
    fit_run(Settings.read(settings), interrupted)
    assert not any(path.name.startswith("preliminary") for path in interrupted.iterdir())


def test_a_log_of_anything_is_no_error(interrupted):
    (interrupted / "log.jsonl").write_text(
        '[]\n{"event": "planned", "stages": 3}\n{"stage": [1]}\n'
    )
    assert progress_of(interrupted).done == {}


def test_a_run_without_time_is_continued_with_more(settings, tmp_path, monkeypatch):
    whole = fit_run(Settings.read(settings), tmp_path / "whole")
    short = settings | {"time_limit": "0.01s"}
    with monkeypatch.context() as patch:
        patch.setattr("pudistill.distillation.shipping.judge", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fit_run(Settings.read(short), tmp_path / "run")
    assert not list((tmp_path / "run" / "units").glob("train_noise_free_models-*"))
    run = fit_run(Settings.read(settings | {"time_limit": "none"}), tmp_path / "run")
    assert "time_limit" not in run.read_config()
    pd.testing.assert_frame_equal(run.read_table("labels"), whole.read_table("labels"))


def test_what_was_cut_short_is_said(settings, tmp_path, monkeypatch):
    def cut(*args):
        note_cut("something")
        return False

    monkeypatch.setattr("pudistill.distillation.noise_free_models.is_time_up", cut)
    run = fit_run(Settings.read(settings | {"time_limit": "1h"}), tmp_path / "run")
    assert run.read_json("metrics.json")["cut_short"] == ["something"]
    assert "cut this short: something." in run.read_text("report.html")
    assert json.dumps(run.read_json("metrics.json")["warnings"]).count("cut this short") == 1
