"""Recorded instants are due at the pace of the monotonic clock, or at once."""

from __future__ import annotations

import pytest

from streamfuse.errors import SourceError
from streamfuse.sources.pacing import Pacer, origin
from streamfuse.testing import ManualClock


def test_the_first_instant_is_due_at_once() -> None:
    assert Pacer("realtime", ManualClock(50)).wait(1000) == 0


def test_later_instants_are_due_after_their_distance() -> None:
    pacer = Pacer("realtime", ManualClock(50))
    assert [pacer.wait(instant) for instant in (1000, 1010, 1500)] == [0, 10, 500]


def test_time_that_passed_is_not_waited_for_again() -> None:
    clock = ManualClock(50)
    pacer = Pacer("realtime", clock)
    pacer.wait(1000)
    clock.advance(30)
    assert pacer.wait(1040) == 10


def test_who_is_behind_does_not_wait() -> None:
    clock = ManualClock(50)
    pacer = Pacer("realtime", clock)
    pacer.wait(1000)
    clock.advance(300)
    assert pacer.wait(1040) == 0


def test_full_speed_never_waits() -> None:
    pacer = Pacer("full", ManualClock(50))
    assert [pacer.wait(instant) for instant in (0, 10**18)] == [0, 0]


@pytest.mark.parametrize(("start", "instant"), [("now", 99), ("file", 0), ("1970-01-01T00:00:01Z", 1_000_000_000)])
def test_a_recording_begins_where_start_says(start: str, instant: int) -> None:
    assert origin(start, ManualClock(99)) == instant


def test_a_start_that_is_no_instant_is_refused() -> None:
    with pytest.raises(SourceError, match="start: expected now, file or an instant"):
        origin("tomorrow", ManualClock())
