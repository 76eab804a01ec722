"""Reads video, sound and captions from media files, or live from an address or a device, with their exact times."""

from __future__ import annotations

import heapq
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import anyio.to_thread

from streamfuse.config import MediaSourceSettings
from streamfuse.errors import SourceError
from streamfuse.interfaces import Clock, Unshared
from streamfuse.sources.blocking import Bridge, Stop
from streamfuse.sources.container import Container, Read
from streamfuse.sources.pacing import Pacer, origin
from streamfuse.sources.state import State
from streamfuse.sources.tracks import Damaged
from streamfuse.types import SECOND, Cursor, Item, Loss, Packet, Position, Resume

log = logging.getLogger(__name__)

QUEUE = 64
FIRST_WAIT, LAST_WAIT = SECOND // 2, 10 * SECOND
"""ns between two attempts to reach a live input again."""


class MediaSource(Unshared):
    """One key per file, all from the same instant on, their packets decoded (`Image`, `Audio`, text) and merged by
    event time. The partitions are `clip.mp4/video` and so on, the offset counts the track's frames, chunks or captions.

    With `state` a run goes on with the event times of the first one, so that the watermarks keep their meaning. What
    was needed before is decoded again and passed over. A live input has one source of its own, no state, and event
    times from its first packet on, which is taken as now; a lost one is opened again, with backoff.
    """

    def __init__(self, settings: MediaSourceSettings, clock: Clock) -> None:
        self.streams = frozenset(settings.streams)
        self._settings = settings
        self._clock = clock
        self._inputs = _inputs(settings)
        self.name = "media:" + ",".join(i.key for i in self._inputs)
        prefixes = tuple(f"{i.partition}/" for i in self._inputs)
        self._state = State(settings.state, f"media {', '.join(i.path for i in self._inputs)}", lambda p: p.startswith(prefixes))
        self._state.add_keys(i.key for i in self._inputs)
        self._open: list[Container] = []
        self._bridge = Bridge(self._read, name="media", bound=QUEUE, when_full=settings.when_full)
        self._resumed = False

    async def __aenter__(self) -> Self:
        origin(self._settings.start, self._clock)
        self._resumed = self._state.load()
        await anyio.to_thread.run_sync(self._open_all)
        await self._bridge.__aenter__()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        await self._bridge.__aexit__(kind, error, trace)
        for container in self._open:
            container.close()

    async def batches(self) -> AsyncIterator[Sequence[Item]]:
        if self._state.start is None:
            self._state.start = origin(self._settings.start, self._clock)
        if self._resumed:
            yield [Resume(self._state.cursor)]
        async with aclosing(self._bridge.batches()) as batches:
            async for batch in batches:
                yield batch

    async def commit(self, cursor: Cursor) -> None:
        await self._state.commit(cursor)

    # --- on the bridge's thread -------------------------------------------------------------------------------------

    def _open_all(self) -> None:
        try:
            for each in self._inputs:
                self._open.append(Container(each.path, self._settings))
            self._check_live()
        except SourceError:
            for container in self._open:
                container.close()
            raise

    def _check_live(self) -> None:
        live = next((c.path for c in self._open if c.live), None)
        if live is None:
            return
        if len(self._open) > 1:
            raise SourceError(f"path: expected one live input, found {live} among {len(self._open)}; give each its own source")
        if self._settings.state is not None:
            raise SourceError(f"state: {live} is live, and what it sent can't be read again; take `state` away")
        if self._settings.start not in ("now", "file"):
            raise SourceError(f"start: {live} is live and happens now; let start be now, or file for its own time stamps")

    def _read(self, stop: Stop) -> Iterator[Item]:
        if self._open[0].live:
            yield from self._live(stop)
            return
        pacer = Pacer(self._settings.pace, self._clock)
        recordings = [self._recording(number, stop) for number in range(len(self._inputs))]
        for at, item in heapq.merge(*recordings, key=lambda read: read[0]):
            if stop.wait(pacer.wait(at)):
                return
            yield item

    def _recording(self, number: int, stop: Stop) -> Iterator[tuple[int, Item]]:
        """One file from where it is needed, over and over where it loops: instants (ns UTC) and items."""
        source = self._inputs[number]
        needed = {p: o.needed for p, o in self._state.cursor.offsets.items()}
        counts = dict.fromkeys(self.streams, 0)
        assert self._state.start is not None
        at = begin = self._state.start
        while True:
            container = self._open[number]
            zero = min(container.zero, 0) if self._settings.start == "file" else container.zero
            before, end = dict(counts), begin
            for read in container.read():
                if stop:
                    return
                if read.what.at is not None:
                    at = begin + read.what.at - zero
                item = source.item(read, at, counts[read.stream])
                counts[read.stream] += 1
                if isinstance(item, Packet) and not isinstance(item.payload, str):
                    end = max(end, item.end)
                if item.position and item.position.offset >= needed.get(item.position.partition, 0):
                    yield at, item
            if not self._settings.loop:
                return
            if end == begin:
                raise SourceError(f"loop: expected pictures or sound to play again, found none in {source.path}")
            gained = {s: counts[s] - before[s] for s in counts if counts[s] > before[s]}
            unneeded = (needed.get(f"{source.partition}/{s}", 0) - counts[s] for s in gained)
            skipped = max(0, min(n // g for n, g in zip(unneeded, gained.values(), strict=True)))
            for stream, count in gained.items():
                counts[stream] += skipped * count
            begin = end + skipped * (end - begin)
            container.close()
            self._open[number] = Container(source.path, self._settings)

    def _live(self, stop: Stop) -> Iterator[Item]:
        """What a live input sends, and sends again after it was lost."""
        source, counts, wait = self._inputs[0], dict.fromkeys(self.streams, 0), FIRST_WAIT
        while True:
            shift = 0 if self._settings.start == "file" else None
            for read in self._open[0].read():
                now = self._clock.now()
                if shift is None and read.what.at is not None:
                    shift = now - read.what.at
                at = now if read.what.at is None else read.what.at + (shift or 0)
                item = source.item(read, at, counts[read.stream])
                counts[read.stream] += 1
                if isinstance(item, Packet):
                    wait = FIRST_WAIT
                    item = replace(item, arrival_time=now)
                yield item
                if stop:
                    return
            self._open[0].close()
            while True:
                log.warning("%s was lost; opening it again in %.1f s", source.path, wait / SECOND)
                if stop.wait(wait):
                    return
                wait = min(2 * wait, LAST_WAIT)
                try:
                    self._open[0] = Container(source.path, self._settings)
                    break
                except SourceError as error:
                    log.warning("%s", error)


@dataclass(frozen=True, slots=True)
class _Input:
    path: str
    key: str
    partition: str

    def item(self, read: Read, at: int, offset: int) -> Packet | Loss:
        """A packet at the event time `at`, or the loss of one."""
        position, what = Position(f"{self.partition}/{read.stream}", offset), read.what
        if isinstance(what, Damaged):
            event_time = None if what.at is None else at
            return Loss(read.stream, self.key, what.reason, f"{self.path}: {what.detail}", position, event_time)
        return Packet(read.stream, self.key, at, what.duration, what.payload, position, at)


def _inputs(settings: MediaSourceSettings) -> list[_Input]:
    paths = [settings.path] if isinstance(settings.path, str) else settings.path
    if not paths:
        raise SourceError("path: expected at least one file, found an empty list; name one")
    inputs: list[_Input] = []
    for number, path in enumerate(paths, 1):
        key = settings.key if settings.key is not None else _stem(path)
        if settings.key is not None and len(paths) > 1:
            key = f"{key}-{number}"
        if any(key == other.key for other in inputs):
            raise SourceError(f"path: expected a key of its own for {path}, found {key!r} twice; set `key`, or rename one file")
        partition = path if path not in paths[: number - 1] else f"{path}#{number}"
        inputs.append(_Input(path, key, partition))
    return inputs


def _stem(path: str) -> str:
    if "://" in path:
        address = urlsplit(path)
        return PurePosixPath(address.path).stem or address.hostname or path
    return PurePosixPath(path).stem or path
