"""Warnings are shown once, however many fits issue them."""

import warnings

import pytest

from pudistill.exceptions import DataWarning
from pudistill.utils.warning_log import each_once


def issue_all():
    with each_once():
        warnings.simplefilter("always")
        for n in (1, 1, 2):
            warnings.warn(f"Row {n} is odd.", DataWarning, stacklevel=1)
            warnings.warn(f"No convergence after {n} steps.", UserWarning, stacklevel=1)


def test_a_warning_is_shown_once_and_numbers_count_only_in_our_own():
    with pytest.warns() as seen:
        issue_all()
    assert [str(warning.message) for warning in seen] == [
        "Row 1 is odd.",
        "No convergence after 1 steps.",
        "Row 2 is odd.",
    ]
