"""A run that was killed, damaged or short of disk space has the results of an undisturbed run."""

import errno
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import pandas as pd
import psutil
import pytest

from pudistill.cli.commands import main
from pudistill.exceptions import DamagedWarning, InputError
from pudistill.runs.fit import fit_run
from pudistill.runs.folder import SUMS, Run
from pudistill.runs.settings import Settings

N_KILLS = 20
QUICK = {"data": "iris", "noise": "symmetric", "n_members": 2, "max_iter": 2, "test_fraction": 0.3}
QUICK |= {"trusted_fraction": 0.2}
LONGEST = 60.0  # seconds on a busy machine for work of one or two seconds on an idle machine


def pudistill(folder, *args):
    with (folder / "stderr.txt").open("w") as stderr:
        return subprocess.Popen(
            [sys.executable, "-m", "pudistill", *args],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
            # A script's background jobs, and their children, ignore SIGINT.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )


def finish(process, folder):
    assert process.wait() == 0, (folder / "stderr.txt").read_text()


def result(run):
    """Return all results of a run, except its duration."""
    files = {path.name: path.read_bytes() for path in (run / "model").iterdir()}
    history = pd.read_csv(run / "history.csv").drop(columns="seconds")
    return files | {"labels": (run / "labels.csv").read_bytes(), "history": history.to_csv()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A run that was neither interrupted nor damaged."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    return fit_run(Settings.read(QUICK), folder).path


@pytest.fixture
def copied(undisturbed, tmp_path):
    return shutil.copytree(undisturbed, tmp_path / "run")


def resume(folder):
    command, config = Run.begun(folder)
    assert command == "fit"
    fit_run(Settings.read(config), folder)


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


WRITTEN = [
    *("labels.csv", "labels.parquet", "history.csv", "history.parquet", "gallery.npz"),
    *("metrics.json", "report.html", "model/model.json", "model/learner-0.skops"),
]


DAMAGES = [truncate, flip_a_bit, Path.unlink]


@pytest.mark.parametrize(
    "first", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, len(DAMAGES)))]
)
def test_damaged_files_are_named_and_written_again(undisturbed, copied, first):
    """Each file suffers one kind of damage after another; all kinds are there each time."""
    assert set(WRITTEN) <= set(Run(copied)._sums)
    for number, name in enumerate(WRITTEN, first):
        DAMAGES[number % len(DAMAGES)](copied / name)
    with pytest.warns(DamagedWarning) as recorded:
        resume(copied)
    for name in WRITTEN:
        path = re.escape(str(copied / name))
        messages = [str(warning.message) for warning in recorded]
        assert [message for message in messages if re.match(path, message)] == [
            f"{copied / name} is missing or damaged: it is written anew."
        ]
    assert result(copied) == result(undisturbed)
    with pytest.raises(InputError, match="is finished: there is nothing"):
        resume(copied)


@pytest.mark.parametrize("damage", [truncate, flip_a_bit])
@pytest.mark.parametrize("name", ["run.json", "config.toml"])
def test_the_error_names_a_damaged_file_of_settings(copied, name, damage):
    damage(copied / name)
    with pytest.raises(InputError, match=rf"{name} is missing or damaged .*another --output"):
        resume(copied)


def test_a_damaged_file_is_kept_under_another_name(copied):
    (copied / "labels.csv").write_text("my own notes")
    with pytest.warns(DamagedWarning):
        resume(copied)
    assert (copied / "labels.csv.damaged").read_text() == "my own notes"


@pytest.mark.parametrize("damage", [truncate, lambda path: path.write_text("")])
def test_damaged_checksums_are_named_and_nothing_is_moved(undisturbed, copied, damage):
    damage(copied / SUMS)
    before = sorted(path.name for path in copied.rglob("*"))
    with pytest.raises(InputError, match=f"{SUMS} is damaged: restore a copy of it, or remove"):
        resume(copied)
    assert sorted(path.name for path in copied.rglob("*")) == before
    (copied / SUMS).unlink()
    resume(copied)
    assert result(copied) == result(undisturbed)


def test_a_run_whose_data_are_missing_is_not_changed(copied, monkeypatch):
    flip_a_bit(copied / "report.html")
    monkeypatch.setattr("pudistill.runs.fit.load_data", no_data)
    with pytest.raises(InputError, match="no data"):
        resume(copied)
    assert (copied / SUMS).exists()
    assert not list(copied.glob("*.damaged"))


def no_data(settings):
    raise InputError("There are no data here.")


def test_a_run_of_another_format_is_not_changed(copied):
    (copied / SUMS).unlink()
    (copied / "run.json").write_text('{"format": 3}')
    with pytest.raises(InputError, match="was written in format 3"):
        fit_run(Settings.read(QUICK), copied)


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, Path.unlink])
def test_a_run_without_its_settings_continues_if_its_command_is_repeated(
    undisturbed, copied, damage
):
    (copied / SUMS).unlink()
    damage(copied / "config.toml")
    with pytest.raises(InputError, match=r"config.toml is missing or damaged .*repeat the command"):
        resume(copied)
    with pytest.warns(DamagedWarning, match="config.toml is missing or damaged"):
        fit_run(Settings.read(QUICK), copied)
    assert result(copied) == result(undisturbed)


@pytest.mark.parametrize(
    ("kind", "damage"),
    [
        ("filter_class", truncate),
        ("train_noise_free_models", flip_a_bit),
        ("reference_accuracy", truncate),
        pytest.param("filter_class", flip_a_bit, marks=pytest.mark.slow),
        pytest.param("train_noise_free_models", truncate, marks=pytest.mark.slow),
        pytest.param("reference_accuracy", flip_a_bit, marks=pytest.mark.slow),
    ],
)
def test_only_a_damaged_stage_is_computed_again(undisturbed, copied, kind, damage):
    (copied / SUMS).unlink()
    stages = sorted((copied / "units").iterdir())
    damaged = next(path for path in stages if path.name.startswith(kind))
    before = {path: path.stat().st_mtime_ns for path in stages}
    damage(damaged)
    with pytest.warns(DamagedWarning, match=f"{damaged.name} is damaged"):
        resume(copied)
    assert result(copied) == result(undisturbed)
    written = [path for path in before if path.stat().st_mtime_ns != before[path]]
    assert written == [damaged]


def test_a_run_stopped_by_a_full_disk_continues_when_there_is_room(
    undisturbed, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    sync, n_left, codes = os.fsync, 0, []

    def write_if_there_is_room(descriptor):
        nonlocal n_left
        if n_left == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        n_left -= 1
        sync(descriptor)

    options = [f"--{name.replace('_', '-')}={value}" for name, value in FIT_SETTINGS.items()]
    corrupt = ["corrupt", "iris", "--output", "noisy.csv", "--trusted", "0.2"]
    monkeypatch.setattr(sys, "argv", ["pudistill", *corrupt])
    with suppress(SystemExit):
        main()
    assert (tmp_path / "noisy.csv").exists()
    monkeypatch.setattr(os, "fsync", write_if_there_is_room)
    n_failures = 0
    while not (tmp_path / "run" / SUMS).exists():
        n_left = n_failures + 2  # files that can be written
        begun = (tmp_path / "run" / "run.json").exists()
        args = ["resume", "run"] if begun else ["fit", "noisy.csv", *options, "--output", "run"]
        monkeypatch.setattr(sys, "argv", ["pudistill", *args])
        try:
            main()
        except SystemExit as stop:
            codes.append(stop.code)
        error = capsys.readouterr().err
        if codes[-1] == 2:
            n_failures += 1
            assert re.search(r"run/\S+: No space left on device. Make room on the disk", error)
            assert "continues from there" in error
        assert not list(tmp_path.rglob("*.writing"))
    assert n_failures >= 5
    assert set(codes) == {0, 2}
    monkeypatch.setattr(os, "fsync", sync)
    whole = fit_run(Settings.read({"data": "noisy.csv"} | FIT_SETTINGS), tmp_path / "whole")
    assert result(tmp_path / "run") == result(whole.path)


FIT_SETTINGS = {"n_members": 2, "max_iter": 1, "n_jobs": 1, "method": "paper"}


def start_with_workers(folder):
    """Start a run, and wait until its workers have begun to filter and imported the learner."""
    fit = ["fit", "digits", "--learner", "svm", "--output", "run", "--n-jobs", "2"]
    fit += ["--n-members", "20"]  # so that even a fast machine starts workers
    fit += ["--config", "settings.toml"]
    (folder / "settings.toml").write_text('noise = "symmetric"\ndata = "digits"\n')
    process = pudistill(folder, *fit)
    log = folder / "run" / "log.jsonl"
    while not (log.exists() and '"filter"' in log.read_text()):
        assert process.poll() is None, (folder / "stderr.txt").read_text()
        time.sleep(0.05)
    while sum(map(has_learner, in_session(process.pid))) < 3:
        assert process.poll() is None, (folder / "stderr.txt").read_text()
        time.sleep(0.1)
    return process


def wait_for_a_stage(process, folder):
    """Wait until another stage, such as a class, is stored: by then no worker imports anything."""
    before = n_stored(folder)
    while n_stored(folder) == before:
        assert process.poll() is None, (folder / "stderr.txt").read_text()
        time.sleep(0.05)


def has_learner(pid):
    """Return whether a process has loaded the library of the learner."""
    with suppress(psutil.Error):
        return any("_libsvm." in library.path for library in psutil.Process(pid).memory_maps())
    return False


def n_stored(folder):
    return len(list((folder / "run" / "units").glob("*.npz")))


def in_session(number):
    """Return the ids of all processes of a session."""
    found = []
    for pid in psutil.pids():
        with suppress(ProcessLookupError):
            found += [pid] if os.getsid(pid) == number else []
    return found


@pytest.mark.slow
@pytest.mark.parametrize("sent_signal", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_stops_at_once_and_names_the_command_to_continue(tmp_path, sent_signal):
    process = start_with_workers(tmp_path)
    wait_for_a_stage(process, tmp_path)  # interrupted in an import, Python prints a traceback
    if sent_signal == signal.SIGINT:
        os.killpg(process.pid, sent_signal)  # as a terminal does: workers too
    else:
        process.send_signal(sent_signal)
    assert process.wait(LONGEST) == 130
    said = (tmp_path / "stderr.txt").read_text()  # before it, how long the run would have taken
    assert said.splitlines()[-1] == (
        "Interrupted. Finished stages are kept in run: pudistill resume run continues from there."
    )
    assert "Traceback" not in said
    log = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    last = json.loads(log[-1])
    assert (last["event"], last["reason"][:17]) == ("stops", "KeyboardInterrupt")


@pytest.mark.slow
def test_workers_do_not_outlive_a_run_that_is_killed(tmp_path):
    process = start_with_workers(tmp_path)
    wait_for_a_stage(process, tmp_path)
    process.kill()
    process.wait()
    end = time.monotonic() + LONGEST
    while in_session(process.pid):
        assert time.monotonic() < end, in_session(process.pid)
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["default", "paper"])
def test_kills_at_random_moments_change_nothing(tmp_path, method):
    seed = random.randrange(2**31)
    print(f"seed {seed}")
    rng = random.Random(seed)
    finish(pudistill(tmp_path, "corrupt", "digits", "--output", "noisy.csv"), tmp_path)
    fit = ["fit", "noisy.csv", "--learner", "mlp", "--method", method]
    start = time.monotonic()
    finish(pudistill(tmp_path, *fit, "--output", "undisturbed"), tmp_path)
    seconds = time.monotonic() - start

    process, n_kills = pudistill(tmp_path, *fit, "--output", "killed"), 0
    while n_kills < N_KILLS:
        try:
            process.wait(rng.uniform(0.05, 0.4) * seconds)
            break  # the run finished before the next kill
        except subprocess.TimeoutExpired:
            # Kill its workers too, as if the machine failed; or only the run, as if memory ran out.
            rng.choice([os.killpg, os.kill])(process.pid, signal.SIGKILL)
            process.wait()
            n_kills += 1
        begun = (tmp_path / "killed" / "run.json").exists()
        again = ["resume", "killed"] if begun else [*fit, "--output", "killed"]
        process = pudistill(tmp_path, *again)
    finish(process, tmp_path)
    print(f"{n_kills} kills in a run of {seconds:.0f} s")
    assert n_kills >= 5
    assert result(tmp_path / "killed") == result(tmp_path / "undisturbed")
