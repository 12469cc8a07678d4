"""The first result of a run, and the report of a run that is not finished."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock
from sklearn.datasets import load_wine

from pudistill import TrustedDataset
from pudistill.cli.console import print_progress
from pudistill.distillation import first_result
from pudistill.distillation.noise_estimate import NOTHING
from pudistill.exceptions import DamagedWarning
from pudistill.labels.checks import check_labels
from pudistill.runs.fit import fit_run
from pudistill.runs.folder import Run
from pudistill.runs.preliminary import LABELS, METRICS, progress_of, write_first_result
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
    assert "the labels that nobody verified" in out
    assert "Preliminary" in out


def test_marked_samples_keep_their_given_labels(tmp_path):
    y, trusted = np.array(["a", "a", "b"], object), np.array([True, True, False])
    verified = np.array(["a", "b", None], object)
    marked = np.array([True, False, False])
    data = TrustedDataset(np.eye(3), y, trusted, verified, list("uvw"), marked=marked)
    labels = check_labels(*data.for_fit())
    noise = SimpleNamespace(basis=NOTHING)
    first = first_result.FirstResult(labels, np.eye(3, 2), noise)
    write_first_result(Run(tmp_path), data, labels, first)
    assert pd.read_csv(tmp_path / LABELS)["given"].tolist() == ["a", "a", "b"]


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


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "null",
        "{}",
        '{"note": 1, "n_samples": 1, "n_changed": 1}',
        '{"note": "", "n_samples": 1, "n_changed": "1"}',
        '{"note": "", "n_samples": 1, "n_changed": 1, "noise": {"rate": 1, "rate_interval": [0]}}',
        '{"note": "", "n_samples": 1, "n_changed": NaN}',
    ],
)
def test_a_damaged_first_result_does_not_hide_how_far_the_run_is(content, tmp_path):
    (tmp_path / LABELS).touch()
    (tmp_path / METRICS).write_text(content)
    stages = '{"event": "planned", "stages": ["filter"]}\n'
    (tmp_path / "log.jsonl").write_text(
        f'{stages}{{"stage": "filter", "event": "ends", "seconds": NaN}}'
    )
    with pytest.warns(DamagedWarning, match="preliminary-metrics.json is damaged: it is left out"):
        progress = progress_of(tmp_path)
    assert (progress.done, progress.first) == ({"filter": 0.0}, None)


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

    monkeypatch.setattr("pudistill.distillation.self_training.is_time_up", cut)
    run = fit_run(Settings.read(settings | {"time_limit": "1h"}), tmp_path / "run")
    assert run.read_json("metrics.json")["cut_short"] == ["something"]
    assert "cut this short: something." in run.read_text("report.html")
    assert json.dumps(run.read_json("metrics.json")["warnings"]).count("cut this short") == 1
