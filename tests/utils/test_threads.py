"""Processes compute ahead, in order, and their work is done again if one is killed."""

import os
import signal
from pathlib import Path

import pytest
from joblib import parallel_config

from pudistill.exceptions import InputError, RecoveredWarning
from pudistill.utils.threads import prefetch_in_processes, usable_processes

pytestmark = pytest.mark.workers


def process_of(n):
    return n, os.getpid()


def killed_once(path):
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return path.name


def killed(_):
    os.kill(os.getpid(), signal.SIGKILL)


def failing(n):
    raise ValueError(n)


def test_results_come_in_order_and_few_items_are_drawn_ahead():
    drawn = []
    results = prefetch_in_processes(process_of, (drawn.append(n) or n for n in range(20)), 2)
    n, process = next(results)
    assert (n, len(drawn)) == (0, 5)
    found = [(n, process), *results]
    assert [n for n, _ in found] == list(range(20))
    assert os.getpid() not in {process for _, process in found}
    with pytest.raises(ProcessLookupError):  # it has ended
        os.kill(process, 0)


def test_nothing_is_started_for_nothing():
    assert list(prefetch_in_processes(killed, [], 2)) == []


def test_an_error_of_a_task_is_raised_here():
    with pytest.raises(ValueError, match="7"):
        list(prefetch_in_processes(failing, [7], 2))


def test_the_work_of_a_killed_process_is_done_again(tmp_path):
    paths = [tmp_path / name for name in "abc"]
    for path in (paths[0], paths[2]):
        path.touch()
    with pytest.warns(RecoveredWarning, match="killed"):
        assert list(prefetch_in_processes(killed_once, paths, 2)) == ["a", "b", "c"]


def test_processes_that_are_killed_again_and_again_are_an_error(monkeypatch):
    monkeypatch.setattr("pudistill.utils.threads.MAX_KILLED_IN_A_ROW", 0)
    with pytest.raises(InputError, match=r"were killed 1 times.*LOKY_MAX_CPU_COUNT=1"):
        list(prefetch_in_processes(killed, [Path()], 1))


def test_a_worker_starts_no_processes(monkeypatch):
    monkeypatch.setattr("pudistill.utils.threads.effective_n_jobs", lambda _: 4)
    assert usable_processes() == 4
    with parallel_config("threading"):
        assert usable_processes() == 1
