"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

DATA = Path(os.environ.get("PUDISTILL_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def real_data():
    """Path of a file of the real data sets: ``real_data("fashion-mnist")``; skips without it."""

    def find(name):
        path = DATA / name
        if not path.exists():
            pytest.skip(f"no {name} under {DATA}: set PUDISTILL_DATA to the folder that has it")
        return path

    return find
