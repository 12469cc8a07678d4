"""Run folders: models, cached stages, checkpoints, the log, and damage."""

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits, load_iris, load_wine
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression, RidgeClassifier, SGDClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch import nn

from pudistill import InputError, PUDistillClassifier, TieredPUFilter, TorchClassifier, load
from pudistill.data.loading import load_dataset
from pudistill.exceptions import DamagedWarning, RecoveredWarning
from pudistill.labels.checks import check_labels
from pudistill.labels.table import Outliers, model_label_table
from pudistill.learners.cache import StageCache, caching_to
from pudistill.learners.tasks import Training, train
from pudistill.pu_filter.voting import vote_by_team
from pudistill.runs.folder import Run
from pudistill.runs.models import check_storable
from pudistill.runs.predict import predict_run
from pudistill.utils.files import write_atomic
from pudistill.utils.progress import stage
from tests.helpers.pictures import digit_pictures
from tests.helpers.training import dropout_network

LEARNERS = [
    LogisticRegression(max_iter=1000),
    make_pipeline(StandardScaler(), SVC()),
    RandomForestClassifier(10),
    ExtraTreesClassifier(10),
    HistGradientBoostingClassifier(max_iter=5),
    GradientBoostingClassifier(n_estimators=5),
    KNeighborsClassifier(),
    GaussianNB(),
    MLPClassifier(max_iter=20),
    RidgeClassifier(),
    SGDClassifier(),
    CalibratedClassifierCV(cv=2),
    TorchClassifier(epochs=2),
]


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "run", {"seed": 0})


@pytest.mark.parametrize("learner", LEARNERS, ids=lambda learner: type(learner).__name__)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_every_common_learner_can_be_stored(run, learner):
    X, y = load_wine(return_X_y=True)
    y = np.array(["barbera", "grignolino", "barolo"], dtype=object)[y]
    check_storable(learner, X, np.unique(y, return_inverse=True)[1])
    classifier = PUDistillClassifier(learner, random_state=0)
    classifier.fit(X, y, trusted=np.ones(len(y), dtype=bool))
    run.write_model(classifier)
    stored = run.read_model()
    assert stored.classes_.tolist() == classifier.classes_.tolist()
    np.testing.assert_array_equal(stored.predict_proba(X), classifier.predict_proba(X))


def test_a_network_for_pictures_is_stored_without_pickle(run):
    X, y = digit_pictures(n_class=3)
    classifier = PUDistillClassifier(TorchClassifier(epochs=1), random_state=0)
    classifier.fit(X, y, trusted=np.ones(len(y), dtype=bool))
    run.write_model(classifier)
    names = {path.name for path in (run.path / "model").iterdir()}
    assert names == {"model.json", "learner-0.safetensors"}
    stored = run.read_model()
    np.testing.assert_array_equal(stored.predict(X), classifier.predict(X))
    with pytest.raises(InputError, match="shape"):
        stored.predict(X[:, :6])


class Homemade(ClassifierMixin, BaseEstimator):
    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X):
        return np.full((len(X), len(self.classes_)), 1 / len(self.classes_))


@pytest.mark.parametrize("content", ["{}", "[]", '{"params": {"n_member": 3}}', '{"params": 1}'])
def test_a_damaged_model_is_named(run, content):
    (run.path / "model").mkdir()
    (run.path / "model" / "model.json").write_text(content)
    with pytest.raises(InputError, match=r"model.json is damaged"):
        Run(run.path).read_model()


def test_a_learner_that_cannot_be_stored_is_named():
    X, y = load_wine(return_X_y=True)
    with pytest.raises(InputError, match=r"Homemade cannot be stored safely.*test_runs.Homemade"):
        check_storable(Homemade(), X, y)


class Squares(NamedTuple):
    squares: np.ndarray


class TrainedLearners(NamedTuple):
    learners: list
    score: np.ndarray


def test_the_cache_holds_fitted_learners(tmp_path):
    X, y = load_iris(return_X_y=True)
    calls = []

    def learn(seed: int) -> TrainedLearners:
        calls.append(seed)
        network = TorchClassifier(epochs=1, random_state=seed).fit(X, y)
        return TrainedLearners([network, GaussianNB().fit(X, y)], np.array(0.5))

    cached = StageCache(tmp_path / "units").cache(learn)
    first, again = cached(3), cached(3)
    assert calls == [3]
    assert again.score == 0.5
    for learner, stored in zip(first.learners, again.learners, strict=True):
        assert type(learner) is type(stored)
        assert np.array_equal(learner.predict_proba(X), stored.predict_proba(X))


def test_a_result_that_cannot_be_stored_is_computed_again(tmp_path):
    calls = []

    def learn() -> TrainedLearners:
        calls.append(1)
        module = lambda _, n_classes: nn.Linear(4, n_classes)  # noqa: E731
        X, y = load_iris(return_X_y=True)
        return TrainedLearners([TorchClassifier(module, epochs=1).fit(X, y)], np.array(0.5))

    cached = StageCache(tmp_path / "units").cache(learn)
    assert cached().score == cached().score == 0.5
    assert len(calls) == 2
    assert not (tmp_path / "units").exists()


def test_a_stage_is_computed_once_for_each_input(tmp_path):
    calls = []

    def square(x: np.ndarray, workers: int) -> Squares:
        calls.append(workers)
        return Squares(x**2)

    cached = StageCache(tmp_path / "units").cache(square, ignore=["workers"])
    for workers in (1, 2):
        np.testing.assert_array_equal(cached(np.arange(3), workers).squares, [0, 1, 4])
    assert calls == [1]
    cached(np.arange(4), workers=1)
    assert calls == [1, 1]


def learn_and_warn(x: np.ndarray) -> Squares:
    warnings.warn("a member was left out", RecoveredWarning, stacklevel=1)
    return Squares(x**2)


def test_a_stage_that_is_read_gives_its_warnings_again(tmp_path):
    for _ in range(2):
        with pytest.warns(RecoveredWarning, match="a member was left out"):
            StageCache(tmp_path / "units").cache(learn_and_warn)(np.arange(3))


@pytest.mark.parametrize("damage", [lambda old: old[:20], lambda old: b"", lambda old: b"\0" + old])
def test_a_damaged_stage_is_named_and_computed_again(tmp_path, damage):
    def square(x: np.ndarray) -> Squares:
        return Squares(x**2)

    cached = StageCache(tmp_path / "units").cache(square)
    cached(np.arange(3))
    (path,) = (tmp_path / "units").iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    with pytest.warns(DamagedWarning, match=f"{path.name} is damaged .* computed again"):
        np.testing.assert_array_equal(cached(np.arange(3)).squares, [0, 1, 4])
    assert path.read_bytes() == whole


@pytest.mark.parametrize("place", range(16))
def test_every_flipped_bit_of_a_stored_stage_is_noticed(tmp_path, place):
    def learn() -> TrainedLearners:
        X, y = load_iris(return_X_y=True)
        return TrainedLearners([GaussianNB().fit(X, y)], np.array(0.5))

    cached = StageCache(tmp_path / "units").cache(learn)
    cached()
    (path,) = (tmp_path / "units").iterdir()
    content = bytearray(path.read_bytes())
    content[place * len(content) // 16] ^= 1
    path.write_bytes(content)
    with pytest.warns(DamagedWarning):
        cached()


def test_stages_that_read_no_given_label_are_not_computed_again(tmp_path):
    X, y = load_wine(return_X_y=True)
    trusted = np.arange(len(y)) % 10 == 0
    units = StageCache(tmp_path / "units")
    classifier = PUDistillClassifier(n_members=3, max_iter=2, memory=units, random_state=0)
    first = classifier.fit(X, y, trusted=trusted)
    table, stored = first.label_table_, sorted((tmp_path / "units").iterdir())
    kinds = [path.name.split("-")[0] for path in stored]
    assert kinds.count("filter_class") == 3
    assert kinds.count("train_noise_free_models") == 4  # with each of three folds held out, too
    again = classifier.fit(X, y, trusted=trusted)
    pd.testing.assert_frame_equal(again.label_table_, table)
    # Given labels are not among the inputs of the filter.
    classifier.fit(X, np.where(trusted, y, (y + 1) % 3), trusted=trusted)
    assert sorted((tmp_path / "units").iterdir()) == stored


@pytest.mark.parametrize("learner", [None, TorchClassifier(epochs=2)])
def test_the_filter_continues_after_the_last_iteration(tmp_path, monkeypatch, learner):
    X, y = load_wine(return_X_y=True)
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    trusted = np.arange(len(y)) % 6 == 0
    options = {"n_members": 4, "max_iter": 4, "tol": None, "random_state": 0, "threshold": 0.6}
    expected = TieredPUFilter(learner, **options).fit(X, y, trusted=trusted)
    monkeypatch.setattr("pudistill.learners.cache.CHECKPOINT_SECONDS", 0.0)
    vote, calls = vote_by_team, []

    def stop(*args):
        calls.append(1)
        if len(calls) == 6:  # in the second iteration of the second class
            raise KeyboardInterrupt
        return vote(*args)

    units = StageCache(tmp_path / "units")
    with monkeypatch.context() as patch:
        patch.setattr("pudistill.pu_filter.one_class.vote_by_team", stop)
        with pytest.raises(KeyboardInterrupt):
            TieredPUFilter(learner, memory=units, **options).fit(X, y, trusted=trusted)
    assert len(list(units.folder.glob("*.part.npz"))) == 1
    again = TieredPUFilter(learner, memory=units, **options).fit(X, y, trusted=trusted)
    np.testing.assert_array_equal(again.votes_, expected.votes_)
    np.testing.assert_array_equal(again.clean_labels_, expected.clean_labels_)
    columns = ["iteration", "n_positives", "n_clean"]
    assert again.history_[columns].equals(expected.history_[columns])
    assert not list(units.folder.glob("*.part.npz"))


@pytest.mark.parametrize(
    "learner",
    [
        TorchClassifier("small_cnn", epochs=6, batch_size=32),
        TorchClassifier("mlp", epochs=6, mixup=1.0),
        TorchClassifier(dropout_network, epochs=6),
    ],
    ids=["small_cnn", "mlp", "dropout"],
)
def test_a_training_continues_after_the_last_epoch(tmp_path, monkeypatch, learner):
    digits = load_digits()
    X = digits.data if learner.module == "mlp" else digits.images.astype(np.float32)
    targets = np.eye(10)[digits.target]
    task = Training(learner, X[:200], targets[:200], role="student", seed=3)
    expected = train(task)
    monkeypatch.setattr("pudistill.learners.cache.CHECKPOINT_SECONDS", 0.0)

    def stop(epoch, networks):
        if epoch == 4:
            raise KeyboardInterrupt

    units = StageCache(tmp_path / "units")
    with monkeypatch.context() as patch, caching_to(units):
        patch.setattr("pudistill.learners.networks.fitting.epoch_ended", stop)
        with pytest.raises(KeyboardInterrupt):
            train(task)
    (part,) = units.folder.iterdir()
    assert part.name.endswith(".part.npz")
    seen = []
    with monkeypatch.context() as patch, caching_to(units):
        epoch_ended = "pudistill.learners.networks.fitting.epoch_ended"
        patch.setattr(epoch_ended, lambda epoch, _: seen.append(epoch))
        again = train(task)
    assert seen == [4, 5, 6]
    assert again.loss_curve_ == expected.loss_curve_
    np.testing.assert_array_equal(again.predict_proba(X), expected.predict_proba(X))
    left = [path.name for path in units.folder.iterdir()]
    assert len(left) == 1
    assert not left[0].endswith(".part.npz")
    with caching_to(units):
        loaded = train(task)
    np.testing.assert_array_equal(loaded.predict_proba(X), expected.predict_proba(X))


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomic(path, b"before")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, b"after")
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_overwritten(run, tmp_path):
    with pytest.raises(InputError, match="already holds an unfinished run with other settings"):
        Run.create(run.path, {"seed": 1})
    run.finish({})
    with pytest.raises(InputError, match="already holds a run"):
        Run.create(run.path, {"seed": 0})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="is not empty"):
        Run.create(tmp_path / "mine", {})
    with pytest.raises(InputError, match="is not empty"):
        Run.create(tmp_path / "mine" / "notes.txt", {})


def test_folders_without_a_finished_run_are_refused(run, tmp_path):
    with pytest.raises(InputError, match="holds no run"):
        load(tmp_path)
    with pytest.raises(InputError, match="did not finish"):
        load(run.path)
    (run.path / "run.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(InputError, match="written in format 99"):
        load(run.path)
    (run.path / "run.json").write_text("{")
    with pytest.raises(InputError, match=r"run.json is missing or damaged"):
        load(run.path)


STORED = Path(__file__).parents[1] / "stored"


@pytest.mark.parametrize("folder", sorted(STORED.glob("*/*")), ids=lambda path: path.name)
def test_runs_of_earlier_versions_are_still_read(folder):
    """Each version that changed the run folder has stored runs; see CONTRIBUTING.md."""
    expected = pd.read_csv(folder / "predictions.csv")
    predictions = predict_run(Run.open_fit(folder), "iris")
    assert predictions["label"].equals(expected["label"])
    np.testing.assert_allclose(predictions["confidence"], expected["confidence"], rtol=1e-6)
    classifier = load(folder)
    assert classifier.score(load_iris(as_frame=True).data, load_dataset("iris").y) > 0.9
    assert len(classifier.label_table_) == 150


@pytest.mark.filterwarnings("always::UserWarning")
def test_events_and_warnings_of_a_run_are_logged(tmp_path):
    with Run.begin(tmp_path / "run", {"seed": 0}) as run:
        warnings.warn("a member was left out", RecoveredWarning, stacklevel=1)
        warnings.warn("nothing of ours", UserWarning, stacklevel=1)
        with stage("teachers", total=2):
            pass
    lines = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["event"] for record in records][:3] == [
        *("begins", "a member was left out", "nothing of ours"),
    ]
    assert records[3]["stage"] == "teachers"
    assert records[-1] == {"level": "INFO", "logger": "pudistill.runs.folder", "event": "ends"} | {
        "time": records[-1]["time"]
    }
    assert run.warnings() == ["a member was left out"]
    with Run.begin(tmp_path / "run", {"seed": 0}) as again:
        warnings.warn("a member was left out", RecoveredWarning, stacklevel=1)  # repeated
    assert again.warnings() == ["a member was left out"]


@pytest.mark.filterwarnings("always::UserWarning")
def test_a_log_does_not_grow_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr("pudistill.runs.log.MAX_BYTES", 2000)
    with Run.begin(tmp_path / "run", {}) as run:
        for n in range(200):
            warnings.warn(f"member {n} was left out", RecoveredWarning, stacklevel=1)
    sizes = {path.name: path.stat().st_size for path in run.path.glob("log.jsonl*")}
    assert len(sizes) == 4
    assert max(sizes.values()) <= 2000
    assert run.warnings()[-1] == "member 199 was left out"


def test_an_error_is_logged(tmp_path):
    with pytest.raises(OSError, match="full"), Run.begin(tmp_path / "run", {}):
        raise OSError("disk full")
    last = (tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1]
    assert json.loads(last)["reason"] == "OSError: disk full"


def test_a_label_table_is_written_as_its_data_frame_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr("pudistill.runs.folder.ROWS_WRITTEN_AT_ONCE", 2)
    labels = check_labels([None, None, "=x", "y", "y"], [None, None, None, "=x", "y"])
    table = model_label_table(labels, np.full((5, 2), 0.5), Outliers.unknown(5))
    table = replace(table, ids=np.array(["a", "+b", "c", "d", "e"], dtype=object))
    runs = [Run.create(tmp_path / name, {}) for name in ("arrays", "frame")]
    for run, written in zip(runs, (table, table.frame()), strict=True):
        run.write_table("labels", written)
    for name in ("labels.csv", "labels.parquet"):
        assert len({(run.path / name).read_bytes() for run in runs}) == 1


@pytest.mark.parametrize("n_rows", [0, 5])
def test_tables_are_the_same_written_in_parts(n_rows, tmp_path, monkeypatch):
    table = pd.DataFrame(
        {
            "id": ["=cmd()", "b", "-1", "d", "e"],
            "given": [None, None, None, "x", "y"],  # the first part has no label
            "trusted": [True, False, False, True, False],
            "votes": pd.array([1, None, 3, None, 5], dtype="Int16"),
            "confidence": [1, 0.5, 0.1, 0.25, 1e-9],
        }
    ).iloc[:n_rows]
    found = []
    for at_once in (2, 100):
        monkeypatch.setattr("pudistill.runs.folder.ROWS_WRITTEN_AT_ONCE", at_once)
        run = Run.create(tmp_path / str(at_once), {})
        run.write_table("labels", table)
        run.finish({})
        found.append((run.read_text("labels.csv"), Run.open(run.path).read_table("labels")))
    assert found[0][0] == found[1][0]
    pd.testing.assert_frame_equal(found[0][1], found[1][1])
    pd.testing.assert_frame_equal(found[0][1], table)
