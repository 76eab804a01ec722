"""Streams simulated rooms: their pictures, sound, captions and truth, with the faults that were asked for."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, closing
from dataclasses import replace
from types import TracebackType
from typing import Self

import anyio.to_thread
import cv2

from streamfuse.config import SimulatorSourceSettings
from streamfuse.interfaces import Clock, Unshared
from streamfuse.simulation.faults import inject
from streamfuse.simulation.room import Room
from streamfuse.simulation.timeline import Segment
from streamfuse.sources.blocking import Bridge, Stop, ahead
from streamfuse.sources.pacing import Pacer, origin
from streamfuse.types import MILLISECOND, SECOND, Cursor, Encoded, Item, Packet, Payload, Position

TRUTH = "truth"
JPEG_QUALITY = 85
TRUTH_PIECE = 500 * MILLISECOND
"""The truth comes in pieces no longer than this, each at its beginning, so that no window waits for it."""
QUEUE = 256
AHEAD = 40
"""Packets per room that are made before they are due, about a second: a new scene takes some 50 ms to set up."""
_BLOCK = 60 * SECOND


class SimulatorSource(Unshared):
    """Rooms `room-1`, `room-2`, ... as streams `video` (JPEG), `audio` (16-bit PCM), `text` (captions) and, where
    asked for, `truth` (the label, as text).

    Packets come in order of arrival time, in real time or as fast as they are taken; with a fixed start they depend on
    the settings alone. It keeps no cursor: each run begins at the rooms' first instant. Pictures and sound are made on
    a thread of its own.
    """

    name = "simulator"

    def __init__(self, settings: SimulatorSourceSettings, clock: Clock) -> None:
        self.streams = frozenset({"video", "audio", "text"} | ({TRUTH} if settings.truth else set()))
        self._settings = settings
        self._clock = clock
        self._bridge = Bridge(self._read, name="simulator", bound=QUEUE, when_full=settings.when_full)
        self._origin = 0
        self._rooms: list[Room] = []

    async def __aenter__(self) -> Self:
        self._origin = origin(self._settings.start, self._clock)
        self._rooms = await anyio.to_thread.run_sync(_warm, self._settings)
        await self._bridge.__aenter__()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        await self._bridge.__aexit__(kind, error, trace)

    async def batches(self) -> AsyncIterator[Sequence[Item]]:
        if self._settings.start == "now":
            self._origin = self._clock.now()
        async with aclosing(self._bridge.batches()) as batches:
            async for batch in batches:
                yield batch

    async def commit(self, cursor: Cursor) -> None:
        """Nothing to keep: a simulation begins anew."""

    def _read(self, stop: Stop) -> Iterator[Item]:
        pacer = Pacer(self._settings.pace, self._clock)
        pacer.wait(self._origin)
        made = packets(self._settings, self._origin, self._rooms)
        if self._settings.pace == "full":
            yield from made
            return
        with closing(ahead(made, AHEAD * self._settings.rooms)) as ready:
            for packet in ready:
                if stop.wait(pacer.wait(packet.arrival_time)):
                    return
                yield packet


def rooms(settings: SimulatorSourceSettings) -> list[Room]:
    """The rooms that these settings ask for, in order: `room-1` and so on."""
    return [
        Room(
            settings.seed * 1009 + number,
            width=settings.width,
            height=settings.height,
            fps=settings.fps,
            rate=settings.audio_rate,
            use_espeak=settings.espeak,
        )
        for number in range(settings.rooms)
    ]


def packets(settings: SimulatorSourceSettings, start: int, of: Sequence[Room] | None = None) -> Iterator[Packet]:
    """What the rooms send, in order of arrival; their first instant is the event time `start` (ns UTC). Blocks while
    pictures and sound are made; never waits. Ends, and cuts what is going on, after `settings.seconds`."""
    end = None if settings.seconds is None else round(settings.seconds * SECOND)
    streams = (_streams(settings, n, r, start) for n, r in enumerate(rooms(settings) if of is None else of))
    sent = heapq.merge(*(s for room in streams for s in room), key=_event_time)
    lasting = sent if end is None else _until(start + end, sent)
    return inject(lasting, settings.faults, seed=settings.seed, origin=start, untouched=frozenset({TRUTH}))


def _event_time(packet: Packet) -> int:
    return packet.event_time


def _until(end: int, sent: Iterator[Packet]) -> Iterator[Packet]:
    for packet in itertools.takewhile(lambda p: p.event_time < end, sent):
        yield packet if packet.end <= end else replace(packet, duration=end - packet.event_time)


def _warm(settings: SimulatorSourceSettings) -> list[Room]:
    """The rooms, with their first picture, sound and caption made: the first packets need not wait for them."""
    made = rooms(settings)
    for room in made:
        next((c for segment in room.segments(_BLOCK) for c in room.captions_of(segment)), None)
        room.sound(0, 1)
        room.frame(0)
    return made


def _streams(settings: SimulatorSourceSettings, number: int, room: Room, start: int) -> list[Iterator[Packet]]:
    key = f"room-{number + 1}"

    def packet(stream: str, index: int, at: int, duration: int, payload: Payload) -> Packet:
        partition = f"sim/{key}/{stream}"
        position = Position(partition, index)
        return Packet(stream, key, start + at, duration, payload, position, start + at, f"{partition}#{index}")

    def truth() -> Iterator[Packet]:
        count = itertools.count()
        for segment in _segments(room):
            for at in range(segment.start, segment.end, TRUTH_PIECE):
                length = min(TRUTH_PIECE, segment.end - at)
                yield packet(TRUTH, next(count), at, length, segment.label)

    def text() -> Iterator[Packet]:
        count = itertools.count()
        for segment in _segments(room):
            for caption in room.captions_of(segment):
                yield packet("text", next(count), caption.start, caption.duration, caption.text)

    def audio() -> Iterator[Packet]:
        rate = room.rate
        samples = max(1, round(settings.audio_chunk * rate / SECOND))
        for index in itertools.count():
            at, after = index * samples * SECOND // rate, (index + 1) * samples * SECOND // rate
            sound = room.sound(index * samples, samples).astype("<i2").tobytes()
            yield packet("audio", index, at, after - at, Encoded(sound, "audio/pcm", rate, 1))

    def video() -> Iterator[Packet]:
        for index in itertools.count():
            at, after = room.frame_time(index), room.frame_time(index + 1)
            done, jpeg = cv2.imencode(".jpg", room.frame(index), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
            assert done
            yield packet("video", index, at, after - at, Encoded(jpeg.tobytes(), "image/jpeg"))

    return [*([truth()] if settings.truth else []), text(), audio(), video()]


def _segments(room: Room) -> Iterator[Segment]:
    return (s for block in itertools.count() for s in room.segments((block + 1) * _BLOCK, block * _BLOCK))
