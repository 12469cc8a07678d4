"""Data that come in batches."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pudistill import InputError
from pudistill.data.batches import with_batch
from pudistill.data.loading import load_dataset


@pytest.fixture
def table(tmp_path):
    """Write a table of four rows and read it: ``table("may", ids=True)``."""

    def read(name, ids=False, **columns):
        content = pd.DataFrame(
            {"x": [1.0, 2.0, 3.0, 4.0], "word": ["u", "v", "u", "v"], "label": ["a", "b", "a", "b"]}
            | columns
        )
        if ids:
            content.insert(0, "id", [f"{name}-{n}" for n in range(4)])
        content.to_csv(tmp_path / f"{name}.csv", index=False)
        return load_dataset(str(tmp_path / f"{name}.csv"))

    return read


def test_a_batch_follows_and_is_a_noise_group(table):
    both = with_batch(table("may", ids=True), table("june", ids=True, label=["b", "b", "a", "c"]))
    assert both.ids.tolist() == [f"{name}-{n}" for name in ("may", "june") for n in range(4)]
    assert both.y.tolist() == list("ababbbac")
    assert both.X["x"].tolist() == [1, 2, 3, 4, 1, 2, 3, 4]
    assert both.noise_groups.tolist() == ["may"] * 4 + ["june"] * 4
    assert both.classes == ("a", "b", "c")


def test_row_numbers_go_on(table):
    both = with_batch(table("may"), table("june"))
    assert both.ids.tolist() == [str(n) for n in range(8)]
    assert both.X.index.tolist() == both.ids.tolist()


def test_each_batch_has_a_name_of_its_own(table):
    may = table("may")
    three = with_batch(with_batch(may, may), may)
    assert three.noise_groups[::4].tolist() == ["may", "may (2)", "may (3)"]


def test_samples_of_a_batch_without_groups_are_of_none(table):
    may = replace(table("may", ids=True), groups=np.array([*"abba"], dtype=object))
    assert with_batch(may, table("june", ids=True)).groups.tolist() == [*"abba", *[None] * 4]


def test_wrong_batches_are_refused(table):
    may = table("may", ids=True)
    with pytest.raises(InputError, match="id 'may-0' of may is already used"):
        with_batch(may, may)
    with pytest.raises(InputError, match="other columns"):
        with_batch(may, table("wide", ids=True, z=[1.0, 1.0, 2.0, 2.0]))
    with pytest.raises(InputError, match="other columns, or pictures of another size"):
        with_batch(may, load_dataset("digits"))
