"""A stale owner is told from a new one."""

from __future__ import annotations

from tests.kafka.log import GRACE, Generation, Written, stale

GENERATIONS = [Generation(7, 10_000), Generation(8, 20_000), Generation(9, 30_000)]


def test_a_key_may_change_hands_with_the_generation() -> None:
    records = [Written(11_000, 1, "room"), Written(21_000, 2, "room"), Written(31_000, 1, "room")]
    assert stale(records, GENERATIONS) == (3, [])


def test_a_producer_of_before_that_still_writes_is_stale() -> None:
    records = [Written(21_000, 2, "room"), Written(22_000, 1, "room")]
    assert stale(records, GENERATIONS).found == ["generation 8: room by producers [1, 2]"]


def test_other_keys_have_other_producers() -> None:
    assert stale([Written(21_000, 2, "room"), Written(22_000, 1, "hall")], GENERATIONS) == (2, [])


def test_what_comes_while_a_generation_begins_is_not_held_against_anybody() -> None:
    records = [Written(20_000 + GRACE - 1, 1, "room"), Written(21_000, 2, "room")]
    assert stale(records, GENERATIONS) == (1, [])


def test_what_came_before_the_first_generation_is_left_out() -> None:
    assert stale([Written(5_000, 1, "room")], GENERATIONS) == (0, [])
