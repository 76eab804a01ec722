"""Read this first: the four stages, the channels between them, and the one function that runs them.

    sources --items--> synchronize --windows--> prepare, predict --predictions--> publish
       ^                                                                             |
       +------------------------------- cursor (commit) ----------------------------+

Data flows left to right; commit is the only thing that flows back. Each channel is bounded, so that a slow stage slows those before it.
Shutdown closes the channels from left to right: what was read is worked off, published and committed.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from streamfuse.interfaces import Batch, Clock, Runner, Sink, Source
from streamfuse.metrics import Metrics
from streamfuse.sync import Synchronizer
from streamfuse.types import SECOND, Cursor, Item, Loss, Offsets, Outcome, Packet, Prediction, Window

T = TypeVar("T")

Delivery = tuple[int, Sequence[Item] | None]  # which source, and a batch of its items; None: its input has ended


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What the stages work with. `lost` takes what no window got, for the side output. Bounds are items in a channel; times are ns."""

    sources: Sequence[Source]
    synchronizer: Synchronizer
    runner: Runner
    sinks: Sequence[Sink]
    clock: Clock
    metrics: Metrics
    lost: Callable[[Sequence[Loss]], Awaitable[None]]
    queue: int = 64
    max_batch: int = 32
    commit_interval: int = SECOND


async def run(pipeline: Pipeline, stop: anyio.Event) -> None:
    """Run until every source has ended, or until `stop` is set and what was read is published and committed.

    Sources, sinks and the runner are open, and stay the caller's. The end of input closes the open windows; being stopped leaves them
    open and uncommitted, for the next run to complete (rule 9). Any error of a part ends the run and is raised.
    """
    items_in, items = anyio.create_memory_object_stream[Delivery](pipeline.queue)
    windows_in, windows = anyio.create_memory_object_stream[Window](pipeline.queue)
    batches_in, batches = anyio.create_memory_object_stream[Batch](1)
    done_in, done = anyio.create_memory_object_stream[tuple[Sequence[Window], Sequence[Prediction]]](2)
    for name, channel in (("items", items_in), ("windows", windows_in), ("batches", batches_in), ("predictions", done_in)):
        pipeline.metrics.watch_queue(name, lambda channel=channel: channel.statistics().current_buffer_used)  # type: ignore[misc]

    async with anyio.create_task_group() as stages:
        stages.start_soon(_read, pipeline, items_in, stop)
        stages.start_soon(_synchronize, pipeline, items, windows_in, stop)
        stages.start_soon(_prepare, pipeline, windows, batches_in)
        stages.start_soon(_predict, pipeline, batches, done_in)
        stages.start_soon(_publish, pipeline, done)


async def _read(pipeline: Pipeline, out: MemoryObjectSendStream[Delivery], stop: anyio.Event) -> None:
    """One task per source; all of them end when it is time to stop."""

    async def read(number: int, source: Source) -> None:
        async for batch in source.batches():
            await out.send((number, batch))
        await out.send((number, None))

    async def cancel_on_stop(reading: anyio.CancelScope) -> None:
        await stop.wait()
        reading.cancel()

    async with out, anyio.create_task_group() as watching:
        async with anyio.create_task_group() as reading:
            watching.start_soon(cancel_on_stop, reading.cancel_scope)
            for number, source in enumerate(pipeline.sources):
                reading.start_soon(read, number, source)
        watching.cancel_scope.cancel()


async def _synchronize(
    pipeline: Pipeline, items: MemoryObjectReceiveStream[Delivery], out: MemoryObjectSendStream[Window], stop: anyio.Event
) -> None:
    """Feed the synchronizer, and tell it how long nothing came.

    Only time in which the channel was empty and we were free to take more counts as waiting (rule 6): an item that was there at once
    means a backlog, in which nothing can be said about silence, and time blocked by the stages after us is ours.
    """
    synchronizer, clock, metrics = pipeline.synchronizer, pipeline.clock, pipeline.metrics
    ends = _Ends(pipeline.sources)
    since = clock.monotonic()
    async with items, out:
        while True:
            windows: list[Window] = []
            try:
                delivery = items.receive_nowait()
                since = clock.monotonic()
            except anyio.WouldBlock:
                delivery = None
                wait = synchronizer.until_next()
                with anyio.move_on_after(math.inf if wait is None else wait / SECOND):
                    try:
                        delivery = await items.receive()
                    except anyio.EndOfStream:
                        break
                now = clock.monotonic()
                windows += synchronizer.elapse(now - since)
                since = now
            except anyio.EndOfStream:
                break
            if delivery is not None:
                source, batch = delivery
                with metrics.stage("synchronize"):
                    if batch is None:
                        for stream, key in ends.ended(source):
                            windows += synchronizer.finish(stream, key)
                    else:
                        ends.saw(source, batch)
                        windows += synchronizer.push_all(batch)
            losses = synchronizer.take_losses()
            if losses:
                await _report(pipeline, losses)
            if windows:
                before = clock.monotonic()
                for window in windows:
                    metrics.window(window)
                    await out.send(window)
                since += clock.monotonic() - before
        if not stop.is_set():
            for window in synchronizer.finish():
                metrics.window(window)
                await out.send(window)
            losses = synchronizer.take_losses()
            if losses:
                await _report(pipeline, losses)


async def _prepare(pipeline: Pipeline, windows: MemoryObjectReceiveStream[Window], out: MemoryObjectSendStream[Batch]) -> None:
    """Micro-batches without a timer: one window, and whatever else waits. A lone window never waits; the batch grows with the load."""
    async with windows, out:
        async for first in windows:
            together = _and_waiting(first, windows, pipeline.max_batch)
            pipeline.metrics.batch(len(together))
            with pipeline.metrics.stage("prepare"):
                batch = await pipeline.runner.prepare(together)
            if batch.undecodable:
                await _report(pipeline, [_undecodable(pipeline, packet, why) for packet, why in batch.undecodable])
            await out.send(batch)


async def _predict(
    pipeline: Pipeline,
    batches: MemoryObjectReceiveStream[Batch],
    out: MemoryObjectSendStream[tuple[Sequence[Window], Sequence[Prediction]]],
) -> None:
    async with batches, out:
        async for batch in batches:
            with pipeline.metrics.stage("predict"):
                predictions = await pipeline.runner.predict(batch)
            await out.send((batch.windows, predictions))


async def _publish(pipeline: Pipeline, done: MemoryObjectReceiveStream[tuple[Sequence[Window], Sequence[Prediction]]]) -> None:
    """Publish, and when predictions are durable, commit the cursor behind them: every `commit_interval`, and at the end."""
    progress = _Progress()
    committed_at = pipeline.clock.monotonic()
    async with done:
        while True:
            left = committed_at + pipeline.commit_interval - pipeline.clock.monotonic()
            delivery = None
            with anyio.move_on_after(max(0, left) / SECOND if progress.moved else math.inf):
                try:
                    delivery = await done.receive()
                except anyio.EndOfStream:
                    break
            if delivery is not None:
                windows, predictions = delivery
                with pipeline.metrics.stage("publish"):
                    for sink in pipeline.sinks:
                        await sink.publish(predictions)
                now = pipeline.clock.now()
                for prediction in predictions:
                    pipeline.metrics.published(prediction, now)
                for window in windows:
                    progress.add(window.cursor)
            if progress.moved and pipeline.clock.monotonic() - committed_at >= pipeline.commit_interval:
                await _commit(pipeline, progress.cursor())
                committed_at = pipeline.clock.monotonic()
    # All that was emitted is durable: what is no longer needed includes packets that no window wanted.
    progress.add(pipeline.synchronizer.cursor())
    await _commit(pipeline, progress.cursor())


async def _commit(pipeline: Pipeline, cursor: Cursor) -> None:
    for source in pipeline.sources:
        await source.commit(cursor)
    pipeline.metrics.committed()


async def _report(pipeline: Pipeline, losses: Sequence[Loss]) -> None:
    for loss in losses:
        pipeline.metrics.lost(loss.stream, loss.reason)
    await pipeline.lost(losses)


def _undecodable(pipeline: Pipeline, packet: Packet, why: str) -> Loss:
    pipeline.synchronizer.ledger.found_undecodable(packet.stream)
    return Loss(packet.stream, packet.key, Outcome.UNDECODABLE, why, packet.position, packet.event_time, packet)


def _and_waiting(first: T, channel: MemoryObjectReceiveStream[T], most: int) -> list[T]:
    taken = [first]
    while len(taken) < most:
        try:
            taken.append(channel.receive_nowait())
        except (anyio.WouldBlock, anyio.EndOfStream):
            break
    return taken


@dataclass(slots=True)
class _Progress:
    """The cursors of the windows that are durable, merged."""

    offsets: dict[str, Offsets] = field(default_factory=dict)
    watermarks: dict[str, int] = field(default_factory=dict)
    moved: bool = False

    def add(self, cursor: Cursor | None) -> None:
        if cursor is None:
            return
        self.moved = True
        self.offsets.update(cursor.offsets)
        for key, watermark in cursor.watermarks.items():
            if watermark is None:
                self.watermarks.pop(key, None)
            else:
                self.watermarks[key] = watermark

    def cursor(self) -> Cursor:
        self.moved = False
        return Cursor(dict(self.offsets), dict(self.watermarks))


class _Ends:
    """Which streams end with which source, where several sources share a stream (several files are several keys of one stream)."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._streams: dict[int, frozenset[str]] = {number: source.streams for number, source in enumerate(sources)}
        self._seen: dict[int, set[tuple[str, str]]] = {number: set() for number in self._streams}

    def saw(self, source: int, batch: Sequence[Item]) -> None:
        if len(self._streams) > 1:
            self._seen[source].update((item.stream, item.key) for item in batch if isinstance(item, Packet))

    def ended(self, source: int) -> Sequence[tuple[str, str | None]]:
        """What ends with this source: a stream altogether, or for the keys that only this source had."""
        streams = self._streams.pop(source)
        seen = self._seen.pop(source)
        shared = {stream for others in self._streams.values() for stream in others}
        elsewhere: set[tuple[str, str]] = set().union(*self._seen.values()) if self._seen else set()
        whole: list[tuple[str, str | None]] = [(stream, None) for stream in sorted(streams - shared)]
        return [*whole, *((stream, key) for stream, key in sorted(seen) if stream in shared and (stream, key) not in elsewhere)]
