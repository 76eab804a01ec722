"""The four stages with parts in memory: what comes out, what is committed, how it stops."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import anyio
import pytest

from streamfuse.delivery import AtLeastOnce
from streamfuse.errors import SinkError
from streamfuse.interfaces import Batch, Sink, Source
from streamfuse.metrics import Metrics
from streamfuse.pipeline import Pipeline, run
from streamfuse.sync import StreamPolicy, Synchronizer, Tumbling
from streamfuse.testing import ManualClock, MemoryRunner, MemorySink, MemorySource
from streamfuse.types import SECOND, Cursor, Item, Loss, Outcome, Packet, Position, Prediction

pytestmark = pytest.mark.anyio


def packet(stream: str, second: float, offset: int, key: str = "a") -> Packet:
    time = int(second * SECOND)
    return Packet(stream, key, time, 0, "", Position(stream, offset), time)


def synchronizer() -> Synchronizer:
    return Synchronizer(
        {"video": StreamPolicy(idle_timeout=SECOND), "audio": StreamPolicy(idle_timeout=SECOND)}, Tumbling(SECOND), side_output=True
    )


def pipeline(
    sources: Sequence[Source], sink: Sink, sync: Synchronizer, runner: MemoryRunner | None = None, lost: list[Loss] | None = None
) -> Pipeline:
    async def keep(losses: Sequence[Loss]) -> None:
        if lost is not None:
            lost.extend(losses)

    clock, metrics = ManualClock(), Metrics()
    return Pipeline(sources, sync, runner or MemoryRunner(), AtLeastOnce(sources, [sink], clock, metrics), clock, metrics, keep)


class Endless(MemorySource):
    """Yields its batches and then waits for ever; `drained` is set when all of them were taken."""

    def __init__(self, batches: Sequence[Sequence[Item]]) -> None:
        super().__init__(batches)
        self.drained = anyio.Event()

    async def batches(self) -> AsyncIterator[Sequence[Item]]:
        async for batch in super().batches():
            yield batch
        self.drained.set()
        await anyio.sleep_forever()


async def test_end_of_input_closes_the_open_windows() -> None:
    source = MemorySource([[packet("video", 0.1, 0), packet("audio", 0.2, 0), packet("video", 1.5, 1)]])
    sink = MemorySink()
    await run(pipeline([source], sink, synchronizer()), anyio.Event())
    assert [(p.start, p.end, p.label) for p in sink.published] == [(0, SECOND, "2"), (SECOND, 2 * SECOND, "1")]
    assert source.committed is not None
    assert source.committed.offsets["video"].needed == 2


async def test_being_stopped_leaves_open_windows_uncommitted() -> None:
    source = Endless([[packet("video", 0.1, 0), packet("audio", 0.2, 0), packet("video", 1.5, 1), packet("audio", 1.6, 1)]])
    sink = MemorySink()
    stop = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(run, pipeline([source], sink, synchronizer()), stop)
        await source.drained.wait()
        stop.set()
    assert [p.end for p in sink.published] == [SECOND]
    assert source.committed is not None
    assert source.committed.offsets["video"] == (1, 2)
    assert source.committed.watermarks == {"a": int(1.5 * SECOND)}


async def test_the_next_run_completes_what_a_stop_left_open() -> None:
    batches: list[list[Item]] = [[packet("video", 0.1, 0), packet("audio", 0.2, 0), packet("video", 1.5, 1), packet("audio", 1.6, 1)]]
    first = Endless(batches)
    sink = MemorySink()
    stop = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(run, pipeline([first], sink, synchronizer()), stop)
        await first.drained.wait()
        stop.set()
    assert first.committed is not None
    second = MemorySource([*batches, [packet("video", 2.5, 2), packet("audio", 2.5, 2)]], resume=first.committed)
    await run(pipeline([second], sink, synchronizer()), anyio.Event())
    assert [(p.end // SECOND, p.label) for p in sink.published] == [(1, "2"), (2, "2"), (3, "2")]


async def test_windows_that_wait_together_become_one_batch() -> None:
    items: list[Item] = []
    for second in range(20):
        items += [packet("video", second, second), packet("audio", second, second)]
    sink, runner = MemorySink(), MemoryRunner()
    await run(pipeline([MemorySource([items])], sink, synchronizer(), runner), anyio.Event())
    assert sum(runner.batches) == 20
    assert len(runner.batches) < 20
    assert [p.start // SECOND for p in sink.published] == list(range(20))


async def test_a_failing_sink_ends_the_run_and_commits_nothing() -> None:
    class Full(MemorySink):
        async def publish(self, predictions: Sequence[Prediction]) -> None:
            raise SinkError("the disk is full")

    source = MemorySource([[packet("video", 0.1, 0), packet("audio", 0.1, 0)]])
    with pytest.RaisesGroup(SinkError, flatten_subgroups=True):
        await run(pipeline([source], Full(), synchronizer()), anyio.Event())
    assert source.committed is None


async def test_a_stage_that_fails_while_others_hand_on_to_it_is_the_only_error() -> None:
    async def refuse(losses: Sequence[Loss]) -> None:
        await anyio.lowlevel.checkpoint()  # the source goes on meanwhile, until the channel is full
        raise SinkError("the disk is full")

    loss = Loss("video", "a", Outcome.UNDECODABLE, "noise", Position("video", 0), 0)
    source, sink, sync = MemorySource([[loss]] * 100), MemorySink(), synchronizer()
    clock, metrics = ManualClock(), Metrics()
    parts = Pipeline([source], sync, MemoryRunner(), AtLeastOnce([source], [sink], clock, metrics), clock, metrics, refuse)
    with pytest.RaisesGroup(SinkError, flatten_subgroups=True):
        await run(parts, anyio.Event())


async def test_one_source_ending_does_not_end_the_keys_of_another() -> None:
    short = MemorySource([[packet("video", 0.1, 0, "a"), packet("audio", 0.1, 0, "a")]])
    long = Endless([[packet("video", 0.1, 100, "b"), packet("audio", 0.1, 100, "b")]])
    sink, sync = MemorySink(), synchronizer()
    stop = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(run, pipeline([short, long], sink, sync), stop)
        await long.drained.wait()
        with anyio.fail_after(5):
            while not sink.published:
                await anyio.lowlevel.checkpoint()
        stop.set()
    assert [p.key for p in sink.published] == ["a"]
    assert sync.buffered() == {"video": 1, "audio": 1}


async def test_losses_are_reported_and_counted() -> None:
    lost: list[Loss] = []
    loss = Loss("video", "a", Outcome.UNDECODABLE, "expected JPEG, found noise", Position("video", 0), 0)
    source = MemorySource([[loss, packet("audio", 0, 0), packet("video", 0.5, 1), packet("video", 0.5, 1)]])
    sync = synchronizer()
    await run(pipeline([source], MemorySink(), sync, lost=lost), anyio.Event())
    assert [found.reason for found in lost] == [Outcome.UNDECODABLE, Outcome.DUPLICATE]
    assert sync.ledger.accounts["video"].undecodable == 1
    assert not any(sync.unaccounted().values())


async def test_a_commit_waits_for_its_predictions_to_be_durable() -> None:
    order: list[str] = []

    class Slow(MemorySink):
        async def publish(self, predictions: Sequence[Prediction]) -> None:
            await anyio.lowlevel.checkpoint()
            order.append("durable")

    class Watched(MemorySource):
        async def commit(self, cursor: Cursor) -> None:
            order.append("commit")

    source = Watched([[packet("video", 0.1, 0), packet("audio", 0.1, 0)]])
    await run(pipeline([source], Slow(), synchronizer()), anyio.Event())
    assert order == ["durable", "commit"]


class Paused(MemorySource):
    """Yields each batch a minute after the one before, `behind` or not all the while."""

    def __init__(self, batches: Sequence[Sequence[Item]], clock: ManualClock, behind: bool) -> None:
        super().__init__(batches)
        self._clock = clock
        self._is_behind = behind

    @property
    def behind(self) -> bool:
        return self._is_behind

    async def batches(self) -> AsyncIterator[Sequence[Item]]:
        async for batch in super().batches():
            yield batch
            await anyio.wait_all_tasks_blocked()
            self._clock.advance(60 * SECOND)


@pytest.mark.parametrize("behind", [True, False])
async def test_a_source_that_is_behind_makes_no_stream_idle(behind: bool) -> None:
    clock = ManualClock()
    batches = [[packet("video", 0.1, 0), packet("audio", 0.2, 0)], [packet("video", 1.5, 1)], [packet("audio", 0.5, 1)]]
    sink = MemorySink()
    parts = replace(pipeline([Paused(batches, clock, behind)], sink, synchronizer()), clock=clock)
    await run(parts, anyio.Event())
    assert sink.published[0].packets == {"video": 1, "audio": 2 if behind else 1}


class Shared(MemorySource):
    """Its partitions can be taken away before it says so in its items."""

    def __init__(self, batches: Sequence[Sequence[Item]]) -> None:
        super().__init__(batches)
        self.lost: list[frozenset[str]] = []

    def revoked_since(self, revokes: int) -> frozenset[str]:
        return frozenset().union(*self.lost[revokes:])


async def test_what_moves_to_another_replica_while_it_is_on_its_way_is_not_published_and_not_committed() -> None:
    mine, theirs = [packet("video", at, offset, "mine") for offset, at in enumerate((0.1, 1.2))], packet("audio", 0.1, 0, "theirs")
    source = Shared([[*mine, theirs, packet("audio", 1.2, 1, "theirs")]])

    class Slow(MemoryRunner):
        async def predict(self, batch: Batch) -> list[Prediction]:
            source.lost.append(frozenset({"audio"}))
            return await super().predict(batch)

    sink = MemorySink()
    metrics = pipeline([source], sink, synchronizer(), Slow())
    await run(metrics, anyio.Event())
    assert {p.key for p in sink.published} == {"mine"}
    assert source.committed is not None
    assert set(source.committed.offsets) == {"video"}
    assert set(source.committed.watermarks) == {"mine"}
