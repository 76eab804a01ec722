"""What a thread reads reaches the loop in order and bounded; nothing is shed silently, and leaving never waits long."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from streamfuse.errors import SourceError
from streamfuse.sources.blocking import LOSSES_PER_ITEM, Bridge, Stop, ahead
from streamfuse.types import SECOND, Cursor, Item, Loss, Outcome, Packet, Position, Resume
from tests.sources.contract import PATIENCE

NAME = "bridge-under-test"


def packet(number: int) -> Packet:
    return Packet("video", "room", number, 1, "x", Position("p", number), number)


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name == NAME]


async def drain(bridge: Bridge) -> list[Item]:
    with anyio.fail_after(PATIENCE):
        async with bridge:
            return [item async for batch in bridge.batches() for item in batch]


async def happened(event: threading.Event) -> None:
    assert await anyio.to_thread.run_sync(event.wait, PATIENCE)


@pytest.mark.anyio
async def test_items_come_in_order_and_the_end_ends() -> None:
    sent: list[Item] = [Resume(Cursor()), *(packet(n) for n in range(500))]
    assert await drain(Bridge(lambda stop: iter(sent), name=NAME, bound=7, when_full="block")) == sent
    assert threads() == []


@pytest.mark.anyio
async def test_an_error_comes_after_everything_before_it() -> None:
    def read(stop: Stop) -> Iterator[Item]:
        yield packet(0)
        raise SourceError("gone")

    with anyio.fail_after(PATIENCE):
        async with Bridge(read, name=NAME, bound=7, when_full="block") as bridge:
            batches = bridge.batches()
            assert await anext(batches) == [packet(0)]
            with pytest.raises(SourceError, match="gone"):
                await anext(batches)


@pytest.mark.anyio
async def test_an_error_before_the_first_item_is_carried_over() -> None:
    def read(stop: Stop) -> Iterator[Item]:
        raise SourceError("never began")

    with pytest.raises(SourceError, match="never began"):
        await drain(Bridge(read, name=NAME, bound=7, when_full="block"))


@pytest.mark.anyio
async def test_a_blocking_bridge_reads_no_further_than_its_bound() -> None:
    produced = 0

    def read(stop: Stop) -> Iterator[Item]:
        nonlocal produced
        for number in range(300):
            produced += 1
            yield packet(number)

    taken = 0
    bridge = Bridge(read, name=NAME, bound=5, when_full="block")
    with anyio.fail_after(PATIENCE):
        async with bridge:
            async for batch in bridge.batches():
                assert len(batch) <= 5
                taken += len(batch)
                assert produced <= taken + 5 + 1
    assert taken == 300


@pytest.mark.anyio
async def test_the_oldest_packets_give_way_and_each_is_reported_in_its_place() -> None:
    first, done = threading.Event(), threading.Event()

    def read(stop: Stop) -> Iterator[Item]:
        yield packet(0)
        first.wait()
        for number in range(1, 100):
            yield packet(number)
        done.set()

    bridge = Bridge(read, name=NAME, bound=5, when_full="drop_oldest")
    with anyio.fail_after(PATIENCE):
        async with bridge:
            batches = bridge.batches()
            got = await anext(batches)
            first.set()
            await happened(done)
            async for batch in batches:
                got.extend(batch)
    assert [item.position.offset for item in got if isinstance(item, Packet | Loss) and item.position] == list(range(100))
    assert [item.position.offset for item in got if isinstance(item, Packet)] == [0, 95, 96, 97, 98, 99]
    losses = [item for item in got if isinstance(item, Loss)]
    assert {loss.reason for loss in losses} == {Outcome.SHED}
    assert all(loss.packet is None for loss in losses)  # what was shed is not held in memory


@pytest.mark.anyio
async def test_only_packets_are_shed() -> None:
    done = threading.Event()
    resume, loss = Resume(Cursor()), Loss("video", "room", Outcome.UNDECODABLE, "bad", Position("p", 0))

    def read(stop: Stop) -> Iterator[Item]:
        yield resume
        yield loss
        for number in range(1, 20):
            yield packet(number)
        done.set()

    bridge = Bridge(read, name=NAME, bound=3, when_full="drop_oldest")
    got: list[Item] = []
    with anyio.fail_after(PATIENCE):
        async with bridge:
            batches = bridge.batches()
            got.extend(await anext(batches))
            await happened(done)
            async for batch in batches:
                got.extend(batch)
    assert got[:2] == [resume, loss]
    assert len(got) == 21


@pytest.mark.anyio
async def test_what_was_shed_is_bounded_too() -> None:
    bound, produced, full = 2, 0, threading.Event()

    def read(stop: Stop) -> Iterator[Item]:
        nonlocal produced
        for number in range(10_000):
            produced += 1
            if number == bound * LOSSES_PER_ITEM:
                full.set()
            yield packet(number)

    bridge = Bridge(read, name=NAME, bound=bound, when_full="drop_oldest")
    taken = 0
    with anyio.fail_after(PATIENCE):
        async with bridge:
            async for batch in bridge.batches():
                taken += len(batch)
                assert produced <= taken + bound * (LOSSES_PER_ITEM + 1) + 2
                if not full.is_set():
                    await happened(full)
    assert taken == 10_000


@pytest.mark.anyio
async def test_leaving_wakes_an_iterator_that_waits() -> None:
    def read(stop: Stop) -> Iterator[Item]:
        yield packet(0)
        stop.wait(3600 * SECOND)

    bridge = Bridge(read, name=NAME, bound=5, when_full="block")
    with anyio.fail_after(PATIENCE):
        async with bridge:
            assert await anext(bridge.batches()) == [packet(0)]
    assert threads() == []


@pytest.mark.anyio
async def test_leaving_wakes_an_iterator_that_is_held_back() -> None:
    closed = threading.Event()

    def read(stop: Stop) -> Iterator[Item]:
        try:
            for number in range(1000):
                yield packet(number)
        finally:
            closed.set()

    bridge = Bridge(read, name=NAME, bound=1, when_full="block")
    with anyio.fail_after(PATIENCE):
        async with bridge:
            await anext(bridge.batches())
    assert closed.is_set()
    assert threads() == []


@pytest.mark.anyio
async def test_cancelling_the_reader_leaves_no_thread() -> None:
    def read(stop: Stop) -> Iterator[Item]:
        yield packet(0)
        stop.wait(3600 * SECOND)

    bridge = Bridge(read, name=NAME, bound=5, when_full="block")
    with anyio.fail_after(PATIENCE):
        async with bridge, anyio.create_task_group() as tasks:
            batches = bridge.batches()
            await anext(batches)

            async def wait() -> None:
                await anext(batches)

            tasks.start_soon(wait)
            await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
    assert threads() == []


@pytest.mark.anyio
async def test_a_bridge_is_crossed_once() -> None:
    bridge = Bridge(lambda stop: iter([]), name=NAME, bound=5, when_full="block")
    await drain(bridge)
    with pytest.raises(RuntimeError, match="crossed once"):
        await drain(bridge)


def test_a_bound_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Bridge(lambda stop: iter([]), name=NAME, bound=0, when_full="block")


def test_reading_ahead_changes_nothing() -> None:
    assert list(ahead(iter(range(100)), 7)) == list(range(100))


def test_reading_ahead_is_bounded() -> None:
    made = 0

    def make() -> Iterator[int]:
        nonlocal made
        for number in range(300):
            made += 1
            yield number

    for taken, _ in enumerate(ahead(make(), 5), 1):
        assert made <= taken + 5 + 1


def test_reading_ahead_carries_an_error_over_in_its_place() -> None:
    def make() -> Iterator[int]:
        yield 1
        raise SourceError("gone")

    items = ahead(make(), 5)
    assert next(items) == 1
    with pytest.raises(SourceError, match="gone"):
        next(items)


def test_leaving_what_is_read_ahead_leaves_no_thread() -> None:
    items = ahead(itertools.count(), 5)
    assert next(items) == 0
    items.close()
    assert not [t for t in threading.enumerate() if t.name == "ahead"]
