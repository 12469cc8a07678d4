"""Time limits: how they are written, and when a stage has to end."""

import time

import pytest

from pudistill import InputError
from pudistill.utils.time_limit import (
    TimeLimit,
    current_limit,
    is_time_up,
    limited_by,
    note_cut,
    seconds_of,
)


@pytest.mark.parametrize(
    ("limit", "seconds"),
    [("90s", 90), ("10m", 600), ("1h 30m", 5400), ("1h30m", 5400), ("1.5H", 5400), ("20", 20)],
)
def test_a_limit_can_be_written_in_several_ways(limit, seconds):
    assert seconds_of(limit) == seconds


@pytest.mark.parametrize("limit", [0, -1, "0s", "m", "10 minutes", "ten", "", True, float("nan")])
def test_a_wrong_limit_is_named(limit):
    with pytest.raises(InputError, match=f"time_limit cannot be {limit!r}: .*such as 90s, 10m"):
        seconds_of(limit)


def test_without_a_limit_there_is_time_for_everything():
    assert seconds_of(None) is seconds_of("none") is None
    assert not is_time_up("filter", 1e9)
    note_cut("the filter")
    assert current_limit() is None


def test_each_part_of_a_stage_has_its_share_of_the_time():
    now = time.time()
    with limited_by(TimeLimit(now - 50, {"filter": now + 50})):
        assert [is_time_up("filter", 0, part, 4) for part in range(4)] == [True, True, False, False]
        assert is_time_up("filter", 60, 3, 4)  # the next step would take too long
        assert not is_time_up("another stage")
    with limited_by(TimeLimit(now - 50, {"filter": now + 50}, workers=4)):
        assert not is_time_up("filter", 0, 0, 4)  # all four are computed at the same time
