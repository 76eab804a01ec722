"""What every source promises. A test module subclasses `SourceContract` and gives it a `place`.

class TestMySource(SourceContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place: ...
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, Protocol, cast

import anyio
import anyio.lowlevel
import pytest

from streamfuse.interfaces import Source
from streamfuse.types import Cursor, Item, Loss, Offsets, Packet, Position, Resume

PATIENCE = 60
"""Seconds after which a source that says nothing has failed."""
WATERMARK = 12_345
FOREIGN = Cursor({"somebody/else/0": Offsets(3, 4)}, {"nobody's key": 1})


class Place(Protocol):
    """The same records for each source that is opened on them, one after the other."""

    records: int
    """How many of them there are. At least 10."""
    ends: bool
    """Whether a source comes to their end by itself; a live one goes on waiting."""
    resumes: bool
    """Whether a source goes on from the committed cursor of the one before it."""

    def source(self) -> Source:
        """A new source, as the next run would open it."""
        ...


@asynccontextmanager
async def reading(source: Source) -> AsyncIterator[AsyncIterator[Sequence[Item]]]:
    """The batches of an open source; the iteration is closed before the source is."""
    async with source:
        batches = cast(Any, source.batches())
        async with aclosing(batches):
            yield batches


async def commit(source: Source, cursor: Cursor) -> None:
    """Open the source, read a little, and commit."""
    async with reading(source) as batches:
        await anext(batches)
        await source.commit(cursor)


async def read(source: Source, records: int) -> list[Item]:
    """What the source says, until it has told `records` packets and losses or ended."""
    said: list[Item] = []
    with anyio.fail_after(PATIENCE):
        async with reading(source) as batches:
            async for batch in batches:
                said.extend(batch)
                if sum(isinstance(item, Packet | Loss) for item in said) >= records:
                    break
    return said


def positions(said: Sequence[Item]) -> list[Position]:
    """Where the packets and losses stand, in the order in which they were said."""
    return [item.position for item in said if isinstance(item, Packet | Loss) and item.position is not None]


def cursor_after(said: Sequence[Item], seen: Sequence[Position]) -> Cursor:
    """The cursor of somebody who is done with `seen`, out of all that was said."""
    offsets = {p.partition: p.offset for p in reversed(positions(said))}
    offsets.update({p.partition: p.offset + 1 for p in seen})
    keys = sorted({item.key for item in said if isinstance(item, Packet | Loss)})
    return Cursor({p: Offsets(o, o) for p, o in offsets.items()}, dict.fromkeys(keys, WATERMARK))


@pytest.mark.anyio
class SourceContract:
    @pytest.fixture
    def place(self) -> Place:
        raise NotImplementedError

    async def test_a_source_says_its_name(self, place: Place) -> None:
        assert place.source().name

    async def test_packets_belong_to_the_streams_that_were_announced(self, place: Place) -> None:
        source = place.source()
        said = await read(source, place.records)
        assert {item.stream for item in said if isinstance(item, Packet)} <= source.streams

    async def test_every_record_is_told_once(self, place: Place) -> None:
        found = Counter(positions(await read(place.source(), place.records)))
        assert len(found) == place.records >= 10
        assert set(found.values()) == {1}

    async def test_offsets_ascend_within_a_partition(self, place: Place) -> None:
        last: dict[str, int] = {}
        for partition, offset in positions(await read(place.source(), place.records)):
            assert offset > last.get(partition, -1)
            last[partition] = offset

    async def test_reading_again_says_the_same(self, place: Place) -> None:
        first = positions(await read(place.source(), place.records))
        assert sorted(positions(await read(place.source(), place.records))) == sorted(first)

    async def test_without_a_committed_cursor_nothing_is_resumed(self, place: Place) -> None:
        said = await read(place.source(), place.records)
        assert not any(p for item in said if isinstance(item, Resume) for p in item.cursor.offsets)

    async def test_it_ends_with_its_input_if_it_says_so(self, place: Place) -> None:
        if not place.ends:
            pytest.skip("a live source goes on waiting")
        assert len(positions(await read(place.source(), place.records + 1))) == place.records

    async def test_leaving_before_the_first_batch_is_fine(self, place: Place) -> None:
        with anyio.fail_after(PATIENCE):
            async with place.source():
                pass

    async def test_leaving_after_any_batch_is_fine(self, place: Place) -> None:
        with anyio.fail_after(PATIENCE):
            for taken in range(1, 4):
                left = place.records
                async with reading(place.source()) as batches:
                    for _ in range(taken):
                        left -= len(await anext(batches, ())) if left > 0 else 0

    async def test_cancelling_the_wait_for_a_batch_leaves_cleanly(self, place: Place) -> None:
        with anyio.fail_after(PATIENCE):
            for _ in range(3):
                async with reading(place.source()) as batches, anyio.create_task_group() as tasks:
                    tasks.start_soon(_drain, batches)
                    await anyio.lowlevel.checkpoint()
                    tasks.cancel_scope.cancel()

    async def test_a_run_goes_on_where_the_committed_cursor_says(self, place: Place) -> None:
        if not place.resumes:
            pytest.skip("this source begins anew each time")
        whole = await read(place.source(), place.records)
        order = positions(whole)
        for cut in sorted({1, 2, 3, len(order) - 1, *range(5, len(order), max(1, len(order) // 8))}):
            cursor = cursor_after(whole, order[:cut])
            await commit(place.source(), cursor)
            said = await read(place.source(), len(order) - cut)
            assert isinstance(said[0], Resume)
            assert sorted(positions(said)) == sorted(order[cut:])

    async def test_the_cursor_comes_back_before_the_first_record(self, place: Place) -> None:
        if not place.resumes:
            pytest.skip("this source begins anew each time")
        whole = await read(place.source(), place.records)
        cursor = cursor_after(whole, positions(whole)[:5])
        await commit(place.source(), cursor)
        said = await read(place.source(), 1)
        assert isinstance(said[0], Resume)
        assert said[0].cursor == cursor

    async def test_cursors_of_other_sources_are_passed_over(self, place: Place) -> None:
        await commit(place.source(), FOREIGN)
        said = await read(place.source(), place.records)
        assert len(positions(said)) == place.records
        told = [p for item in said if isinstance(item, Resume) for p in (*item.cursor.offsets, *item.cursor.watermarks)]
        assert not set(told) & {*FOREIGN.offsets, *FOREIGN.watermarks}


async def _drain(batches: AsyncIterator[Sequence[Item]]) -> None:
    async for _ in batches:
        pass
