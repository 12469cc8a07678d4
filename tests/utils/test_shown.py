"""Labels in messages look as the user wrote them."""

import datetime

import numpy as np
import pandas as pd
import pytest

from pudistill import InputError
from pudistill.labels.checks import check_labels
from pudistill.utils.shown import listed, shown


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.str_("cat"), "'cat'"),
        ("1", "'1'"),
        (np.int64(1), "1"),
        (1.0, "1"),
        (np.float32(1.5), "1.5"),
        (np.bool_(True), "True"),
        (np.datetime64("2024-05-01"), "2024-05-01"),
        (pd.Timestamp("2024-05-01"), "2024-05-01 00:00:00"),
        (datetime.date(2024, 5, 1), "2024-05-01"),
        ((np.str_("a"), 1.0), "('a', 1)"),
        ("\x1b[31mred", "'\\x1b[31mred'"),
        ("x" * 100, f"'{'x' * 30}…{'x' * 30}'"),
    ],
    ids=repr,
)
def test_values_are_shown_without_numpys_types(value, expected):
    assert shown(value) == expected


def test_a_long_list_is_cut():
    assert listed(range(1_012)) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 1,002 more"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (np.array(["cat", "dog"]), "class 'dog'"),
        (np.array([0.0, 1.0]), "class 1:"),
        (np.array([False, True]), "class True"),
    ],
)
def test_a_message_shows_the_class(names, expected):
    y = names[[0, 0, 1]]
    with pytest.raises(InputError, match=expected):
        check_labels(y, np.array([True, True, False]))
