"""A set of offsets comes back from a commit as it was, and says when it does not fit."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamfuse.errors import InvalidRecord
from streamfuse.kafka.offset_set import MAX_METADATA, OffsetSet
from streamfuse.kafka.transport import Committed

offsets = st.lists(st.integers(0, 300))


@given(st.integers(0, 100), offsets, st.integers(0, 300))
def test_it_holds_what_was_added_and_all_below_and_nothing_else(first: int, added: list[int], below: int) -> None:
    held = OffsetSet(first)
    for offset in added:
        held.add(offset)
    held.add_below(below)
    assert [offset for offset in range(400) if offset in held] == sorted({*range(max(first, below)), *added})


@given(st.integers(0, 2**62), offsets)
def test_it_comes_back_from_its_commit(first: int, added: list[int]) -> None:
    held = OffsetSet(first, (first + offset for offset in added))
    committed = held.to_commit()
    assert committed is not None
    assert committed.offset == held.first
    back = OffsetSet.from_commit(committed)
    assert (back.first, back.to_commit()) == (held.first, committed)
    assert all(first + offset in back for offset in added)


def test_a_copy_goes_its_own_way() -> None:
    held = OffsetSet(1)
    held.copy().add(1)
    assert 1 not in held


def test_what_is_too_scattered_to_fit_is_told() -> None:
    dice = random.Random(1)
    assert OffsetSet(0, (offset for offset in range(1, 200_000) if dice.random() < 0.5)).to_commit() is None
    some = OffsetSet(0, (offset for offset in range(1, 20_000) if dice.random() < 0.5)).to_commit()
    assert some is not None
    assert len(some.metadata) <= MAX_METADATA


@given(st.text(min_size=1, max_size=40).filter(lambda text: not text.startswith("s1:")))
def test_a_commit_of_somebody_else_is_refused(metadata: str) -> None:
    with pytest.raises(InvalidRecord, match="name another group"):
        OffsetSet.from_commit(Committed(5, metadata))


@given(st.text(max_size=40))
def test_a_commit_that_was_damaged_is_refused_or_read(metadata: str) -> None:
    with suppress(InvalidRecord):
        assert OffsetSet.from_commit(Committed(5, "s1:" + metadata)).first >= 5
