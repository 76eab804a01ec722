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
from dataclasses import dataclass
from typing import TypeVar

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from streamfuse.interfaces import Batch, Clock, Delivery, Runner, Source
from streamfuse.metrics import Metrics
from streamfuse.sync import Synchronizer
from streamfuse.types import MILLISECOND, SECOND, Emitted, Item, Loss, Outcome, Packet, Prediction, Rest, Revoke, Stage, Window

T = TypeVar("T")

MOST_BATCHES = 4  # read ahead of the synchronizer: a batch may hold megabytes

LOOK_AGAIN = 20 * MILLISECOND  # whether a source is still behind

Read = tuple[int, Sequence[Item] | None]  # which source, and a batch of its items; None: its input has ended
Prepared = tuple[Sequence[Emitted], Batch]
Predicted = tuple[Sequence[Emitted], Sequence[Prediction]]


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What the stages work with; all of it is open. `lost` takes what no window got, for the side output.

    Bounds are items in a channel; times are ns.
    """

    sources: Sequence[Source]
    synchronizer: Synchronizer
    runner: Runner
    delivery: Delivery
    clock: Clock
    metrics: Metrics
    lost: Callable[[Sequence[Loss]], Awaitable[None]]
    queue: int = 64
    max_batch: int = 32
    commit_interval: int = SECOND


async def run(pipeline: Pipeline, stop: anyio.Event) -> None:
    """Run until every source has ended, or until `stop` is set and what was read is published and committed.

    All parts are open, and stay the caller's. The end of input closes the open windows; being stopped leaves them
    open and uncommitted, for the next run to complete (rule 9). Any error of a part ends the run and is raised.
    """
    items_in, items = anyio.create_memory_object_stream[Read](min(pipeline.queue, MOST_BATCHES))
    windows_in, windows = anyio.create_memory_object_stream[Emitted](pipeline.queue)
    batches_in, batches = anyio.create_memory_object_stream[Prepared](1)
    done_in, done = anyio.create_memory_object_stream[Predicted](2)
    for name, channel in (("items", items_in), ("windows", windows_in), ("batches", batches_in), ("predictions", done_in)):
        pipeline.metrics.watch_queue(name, lambda channel=channel: channel.statistics().current_buffer_used)  # type: ignore[misc]

    async with anyio.create_task_group() as stages:
        stages.start_soon(_read, pipeline, items_in, stop)
        revokes = [0] * len(pipeline.sources)
        stages.start_soon(_synchronize, pipeline, items, windows_in, revokes, stop)
        stages.start_soon(_prepare, pipeline, windows, batches_in)
        stages.start_soon(_predict, pipeline, batches, done_in)
        stages.start_soon(_publish, pipeline, done, revokes)


async def _read(pipeline: Pipeline, out: MemoryObjectSendStream[Read], stop: anyio.Event) -> None:
    """One task per source; all of them end when it is time to stop."""

    async def read(number: int, source: Source) -> None:
        async for batch in source.batches():
            await _hand_on(out, (number, batch))
        await _hand_on(out, (number, None))

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
    pipeline: Pipeline, items: MemoryObjectReceiveStream[Read], out: MemoryObjectSendStream[Emitted], revokes: list[int], stop: anyio.Event
) -> None:
    """Feed the synchronizer, and tell it how long nothing came. Counts each source's `revokes`.

    Only time counts as waiting (rule 6) in which the channel was empty, we were free to take more, and no source had more for us than it
    had yielded: an item that was there at once means a backlog, in which nothing can be said about silence.
    """
    synchronizer, clock, metrics = pipeline.synchronizer, pipeline.clock, pipeline.metrics
    ends = _Ends(pipeline.sources)
    since = clock.monotonic()

    async def emit(windows: Sequence[Window]) -> None:
        losses = synchronizer.take_losses()
        if losses:
            await _report(pipeline, losses)
        counts = tuple(revokes)
        for window in windows:
            metrics.window(window)
            await _hand_on(out, Emitted(window, counts))

    async with items, out:
        while True:
            windows: list[Window] = []
            try:
                read = items.receive_nowait()
                since = clock.monotonic()
            except anyio.WouldBlock:
                read = None
                behind = any(source.behind for source in pipeline.sources)
                wait = synchronizer.until_next()
                if behind and wait is not None:
                    wait = max(wait, LOOK_AGAIN)  # this time does not count, so that the wait would not shorten
                with anyio.move_on_after(math.inf if wait is None else wait / SECOND):
                    try:
                        read = await items.receive()
                    except anyio.EndOfStream:
                        break
                now = clock.monotonic()
                if not behind and (read is not None or not any(source.behind for source in pipeline.sources)):
                    windows += synchronizer.elapse(now - since)
                since = now
            except anyio.EndOfStream:
                break
            if read is not None:
                source, batch = read
                with metrics.stage("synchronize"):
                    if batch is None:
                        for stream, key in ends.ended(source):
                            windows += synchronizer.finish(stream, key)
                    else:
                        ends.saw(source, batch)
                        windows += synchronizer.push_all(batch)
                        revokes[source] += sum(isinstance(item, Revoke) for item in batch)
            before = clock.monotonic()
            await emit(windows)
            since += clock.monotonic() - before
        if not stop.is_set():
            await emit(synchronizer.finish())


async def _prepare(pipeline: Pipeline, windows: MemoryObjectReceiveStream[Emitted], out: MemoryObjectSendStream[Prepared]) -> None:
    """Micro-batches without a timer: one window, and whatever else waits. A lone window never waits; the batch grows with the load."""
    async with windows, out:
        async for first in windows:
            together = _and_waiting(first, windows, pipeline.max_batch)
            pipeline.metrics.batch(len(together))
            with pipeline.metrics.stage("prepare"):
                batch = await pipeline.runner.prepare([emitted.window for emitted in together])
            if batch.undecodable:
                await _report(pipeline, [_undecodable(pipeline, packet, why) for packet, why in batch.undecodable])
            await _hand_on(out, (together, batch))


async def _predict(pipeline: Pipeline, batches: MemoryObjectReceiveStream[Prepared], out: MemoryObjectSendStream[Predicted]) -> None:
    async with batches, out:
        async for together, batch in batches:
            with pipeline.metrics.stage("predict"):
                predictions = await pipeline.runner.predict(batch)
            await _hand_on(out, (together, predictions))


async def _publish(pipeline: Pipeline, done: MemoryObjectReceiveStream[Predicted], revokes: Sequence[int]) -> None:
    """Publish, and commit every `commit_interval` and at the end."""
    delivery, clock = pipeline.delivery, pipeline.clock
    committed_at = clock.monotonic()
    async with done:
        while True:
            left = committed_at + pipeline.commit_interval - clock.monotonic()
            predicted = None
            with anyio.move_on_after(max(0, left) / SECOND if delivery.pending else math.inf):
                try:
                    predicted = await done.receive()
                except anyio.EndOfStream:
                    break
            if predicted is not None:
                with pipeline.metrics.stage("publish"):
                    await delivery.publish(*predicted)
            if delivery.pending and clock.monotonic() - committed_at >= pipeline.commit_interval:
                with pipeline.metrics.stage("commit"):
                    await delivery.commit()
                committed_at = clock.monotonic()
    # All that was emitted is durable by this: what is no longer needed includes packets that no window wanted.
    await delivery.commit(Rest(pipeline.synchronizer.cursor(), tuple(revokes)))


async def _report(pipeline: Pipeline, losses: Sequence[Loss]) -> None:
    for loss in losses:
        pipeline.metrics.lost(loss.stream, loss.reason)
    await pipeline.lost(losses)


async def _hand_on(out: MemoryObjectSendStream[T], item: T) -> None:
    """To the next stage. Where that has failed, its error is the one that ends the run, and this stage along with it."""
    try:
        await out.send(item)
    except anyio.BrokenResourceError:
        await anyio.sleep_forever()


def _undecodable(pipeline: Pipeline, packet: Packet, why: str) -> Loss:
    pipeline.synchronizer.ledger.found_undecodable(packet.stream)
    return Loss(
        packet.stream,
        packet.key,
        Outcome.UNDECODABLE,
        why,
        packet.position,
        packet.event_time,
        packet,
        packet.original,
        Stage.PREPARE,
    )


def _and_waiting(first: T, channel: MemoryObjectReceiveStream[T], most: int) -> list[T]:
    taken = [first]
    while len(taken) < most:
        try:
            taken.append(channel.receive_nowait())
        except (anyio.WouldBlock, anyio.EndOfStream):
            break
    return taken


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
