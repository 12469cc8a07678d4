"""Trackers: what is logged of a run."""

import numpy as np
import pytest
from accelerate import PartialState

from pudistill.exceptions import InputError, RecoveredWarning
from pudistill.learners.networks.classifier import TorchClassifier
from pudistill.learners.tasks import Training, train, train_all
from pudistill.runs.tracking import check_tracker, tracking
from pudistill.utils.progress import tracking_trainings


def tasks(roles):
    rng = np.random.default_rng(0)
    X, targets = rng.normal(size=(30, 3)), np.eye(2)[np.arange(30) % 2]
    network = TorchClassifier("mlp", epochs=2)
    return [Training(network, X, targets, role=role, seed=0) for role in roles]


def test_each_training_is_logged_once_and_members_are_not():
    seen = []
    with tracking_trainings(lambda role, losses: seen.append((role, len(losses)))):
        list(train_all(tasks(["student", "teacher", "member"]), None))
        train(tasks(["reference"])[0])
    assert seen == [("student", 2), ("teacher", 2), ("reference", 2)]


def test_tensorboard_gets_the_loss_of_each_epoch_and_the_results(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    check_tracker("tensorboard")
    with tracking("tensorboard", tmp_path, {"seed": 0, "data": "x", "levels": [1]}) as log_results:
        (network,) = train_all(tasks(["student"]), None)
        log_results({"n_samples": 30, "noise": {"rate": 0.25}, "warnings": []})
    events = EventAccumulator(str(tmp_path / "tracking")).Reload()
    losses = [(event.step, event.value) for event in events.Scalars("01 student/loss")]
    np.testing.assert_allclose(losses, list(enumerate(network.loss_curve_, 1)), rtol=1e-5)
    assert events.Scalars("noise/rate")[0].value == 0.25


class Tracker:
    """Stands in for a tracker of accelerate."""

    def __init__(self, *_, **__):
        self.tracker, self.axes, self.logged, Tracker.last = self, {}, [], self

    def start(self):
        assert PartialState._shared_state, "trackers cannot tell their process"

    def store_init_configuration(self, config):
        self.config = config

    def define_metric(self, name, step_metric):
        self.axes[name] = step_metric

    def log(self, values, step=None):
        self.logged.append((values, step))

    def finish(self):
        self.logged.append("finished")


@pytest.fixture
def installed(monkeypatch):
    """Put a class in the place of each tracker."""
    known = pytest.importorskip("accelerate").tracking.LOGGER_TYPE_TO_CLASS
    names = ("mlflow", "wandb")
    return lambda kind: [monkeypatch.setitem(known, name, kind) for name in names]


def test_weights_and_biases_gets_epochs_as_an_axis_because_its_steps_only_grow(installed, tmp_path):
    installed(Tracker)
    with tracking("wandb", tmp_path, {}) as log_results:
        list(train_all(tasks(["teacher", "student"]), None))
        log_results({"n_samples": 30})
    logged = Tracker.last.logged
    assert logged[-2:] == [({"n_samples": 30.0}, None), "finished"]
    assert [values["02 student/epoch"] for values, _ in logged[2:4]] == [1, 2]
    assert {step for _, step in logged[:-1]} == {None}
    assert Tracker.last.axes["02 student/loss"] == "02 student/epoch"


def test_a_tracker_that_fails_does_not_end_the_run(installed, tmp_path):
    class Lost(Tracker):
        def log(self, values, step=None):
            raise OSError("no server")

    installed(Lost)
    with pytest.warns(RecoveredWarning, match=r"mlflow failed \(no server\)") as warned:
        fit_tracked(tmp_path)
    assert len(warned) == 1


def fit_tracked(folder):
    with tracking("mlflow", folder, {}) as log_results:
        list(train_all(tasks(["student"]), None))
        log_results({"n_samples": 30})


def test_a_tracker_that_does_not_start_is_an_error(installed, tmp_path):
    class NotLoggedIn(Tracker):
        def start(self):
            raise RuntimeError("no key\nand more")

    installed(NotLoggedIn)
    with pytest.raises(InputError, match=r"mlflow cannot be started \(no key\): set it up"):
        fit_tracked(tmp_path)


def test_a_tracker_that_is_missing_is_named(monkeypatch):
    pytest.importorskip("accelerate")
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", list)
    with pytest.raises(InputError, match="mlflow is not installed"):
        check_tracker("mlflow")
