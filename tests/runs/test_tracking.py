"""Trackers: what is logged of a run."""

import numpy as np
import pytest

from pudistill.exceptions import InputError
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


def test_a_tracker_that_is_missing_is_named(monkeypatch):
    pytest.importorskip("accelerate")
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", list)
    with pytest.raises(InputError, match="mlflow is not installed"):
        check_tracker("mlflow")
