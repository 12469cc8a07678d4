"""The command line under ``torchrun``: two processes do together what one does."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
import tomli_w

from pudistill.learners.networks import launch
from pudistill.learners.networks.process_group import ProcessGroup
from pudistill.runs.fit import fit_run
from pudistill.runs.folder import Run
from pudistill.runs.settings import Settings

CONFIG = {
    "data": "wine",
    "noise": "symmetric",
    "trusted_fraction": 0.1,
    "test_fraction": 0.25,
    "learner": "mlp",
    "method": "paper",
    "n_members": 4,
    "max_iter": 1,
    "n_jobs": 1,
    "compare": False,
}
LONGEST = 300  # seconds on a busy machine; a process that takes longer waits forever
# Networks are saved after every epoch.
PROGRAM = """
from pudistill import cli
from pudistill.learners import cache
cache.CHECKPOINT_SECONDS = 0.0
cli.main()
"""


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The run of one process."""
    return fit_run(Settings.read(CONFIG), tmp_path_factory.mktemp("alone") / "run")


def start(folder, *arguments):
    """Start two processes, whose output goes to `said.txt`."""
    (folder / "program.py").write_text(PROGRAM)
    (folder / "fit.toml").write_text(tomli_w.dumps(CONFIG))
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    with (folder / "said.txt").open("w") as output:
        return subprocess.Popen(
            [sys.executable, *torchrun, "program.py", *arguments],
            cwd=folder,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def events(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def assert_same_result(run, expected):
    ours, theirs = (pd.read_csv(compared.path / "labels.csv") for compared in (run, expected))
    pd.testing.assert_frame_equal(ours, theirs, rtol=1e-6)
    accuracies = [
        compared.read_json("metrics.json")["test_accuracy"] for compared in (run, expected)
    ]
    assert accuracies[0] == accuracies[1]


@pytest.mark.slow
def test_two_processes_leave_the_run_of_one(alone, tmp_path):
    process = start(tmp_path, "fit", "--config", "fit.toml", "--output", "run")
    assert process.wait(LONGEST) == 0, (tmp_path / "said.txt").read_text()
    assert_same_result(Run.open(tmp_path / "run"), alone)
    together = [event for event in events(tmp_path / "run") if event["event"] == "together"]
    assert 3 <= len(together) < 12  # teachers and student, but none of the twelve members
    assert {event["processes"] for event in together} == {2}
    output = (tmp_path / "said.txt").read_text()
    assert output.count("samples, ") == 1
    assert "Warning" not in output


@pytest.mark.slow
def test_a_process_that_dies_ends_all_and_one_goes_on(alone, tmp_path):
    process = start(tmp_path, "fit", "--config", "fit.toml", "--output", "run")
    while not list(tmp_path.glob("run/units/train_network-*.part.npz")):
        assert process.poll() is None, (tmp_path / "said.txt").read_text()
        time.sleep(0.05)
    workers = psutil.Process(process.pid).children()
    (helper,) = [worker for worker in workers if worker.environ().get("RANK") == "1"]
    helper.kill()
    assert process.wait(LONGEST) != 0
    assert not any(worker.is_running() for worker in workers)
    output = (tmp_path / "said.txt").read_text()
    assert "Finished stages are kept in run: pudistill resume run continues from there." in output

    resumed = fit_run(Settings.read(Run.begun(tmp_path / "run")[1]), tmp_path / "run")
    assert "goes on" in [event["event"] for event in events(tmp_path / "run")]
    assert_same_result(resumed, alone)


@pytest.fixture
def messages(monkeypatch):
    """Make this process the main one of two; return the messages that it sends to the other."""
    sent = []
    group = ProcessGroup(0, 2)
    monkeypatch.setattr(group, "send", lambda *message: sent.append(message))
    monkeypatch.setattr(launch, "_connect", lambda: group)
    monkeypatch.setattr("torch.distributed.destroy_process_group", lambda: None)
    return sent


def test_the_other_process_ends_if_there_was_nothing_to_train(messages):
    with pytest.warns(UserWarning, match="One of 2 processes did"):
        launch.run(lambda: None)
    assert messages == [("end",)]


def test_the_other_process_gets_no_message_after_an_error(messages):
    # The other process, perhaps in the middle of an epoch, notices that this one has ended.
    with pytest.raises(SystemExit):
        launch.run(lambda: sys.exit(1))
    assert messages == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "output"),
    [
        (["fit", "nothing.csv", "--output", "run"], 1, "Error: nothing.csv: there is no such file"),
        (
            ["corrupt", "iris", "--output", "noisy.csv"],
            0,
            "Warning: One of 2 processes did all the",
        ),
    ],
)
def test_there_is_nothing_to_train(tmp_path, arguments, code, output):
    assert start(tmp_path, *arguments).wait(LONGEST) == code
    assert (tmp_path / "said.txt").read_text().count(output) == 1


@pytest.mark.slow
def test_batch_normalisation_by_parts_costs_no_accuracy(real_data, tmp_path):
    benchmark = [sys.executable, "-m", "benchmarks.scale.processes"]
    data = ["--data", real_data("fashion-mnist").parent, "--pictures", "2000"]
    output = tmp_path / "processes.json"
    root = Path(__file__).parents[2]
    subprocess.run([*benchmark, *data, "--output", output], check=True, cwd=root)
    rows = pd.DataFrame(json.loads(output.read_text())["rows"])
    accuracy = rows.groupby("processes")["accuracy"].mean()
    assert abs(accuracy[1] - accuracy[2]) <= 0.005
