"""Tasks start workers only if they take long."""

import os

import pytest
from joblib import delayed, parallel_config

from pudistill.learners import parallel
from pudistill.learners.parallel import in_order


def process_of(n):
    return n, os.getpid()


def test_quick_tasks_are_computed_in_this_process(monkeypatch):
    monkeypatch.setattr(parallel, "_spent_alone", 0.0)
    with parallel_config("loky"):
        found = list(in_order((delayed(process_of)(n) for n in range(4)), 2))
    assert found == [(n, os.getpid()) for n in range(4)]


@pytest.mark.workers
def test_workers_compute_what_is_left_after_a_while(monkeypatch):
    monkeypatch.setattr(parallel, "_spent_alone", 0.0)
    monkeypatch.setattr(parallel, "PATIENCE", 1e-12)
    found = list(in_order((delayed(process_of)(n) for n in range(4)), 2))
    assert [n for n, _ in found] == [0, 1, 2, 3]
    assert found[0][1] == os.getpid()
    assert all(process != os.getpid() for _, process in found[1:])
