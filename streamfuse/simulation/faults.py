"""Breaks a sequence of packets the way networks, clocks and devices do, from a seed."""

from __future__ import annotations

import heapq
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from streamfuse.config import Faults
from streamfuse.types import MILLISECOND, SECOND, Encoded, Packet, Payload, Position

SHORTEST_HOLD = 40 * MILLISECOND
"""A reordered record is held back by 1-3 of its own durations, this long where it has a shorter one."""


def inject(
    packets: Iterable[Packet],
    faults: Faults,
    *,
    seed: int,
    origin: int,
    untouched: frozenset[str] = frozenset(),
) -> Iterator[Packet]:
    """The packets as they arrive: in order of arrival time, with what `faults` asks for.

    `packets` come in order of their true event time, none before `origin`, from which the instants in `faults` count.
    Each gets its arrival time (true event time + delay) and a new position: offsets count per partition in order of
    arrival. A duplicate has its original's id. Streams in `untouched` arrive at once and whole.

    Depends on the arguments alone, and each stream of a key on itself alone: breaking one leaves the others as they
    were. Looks ahead no further than the delays reach, so endless input is fine.
    """
    lanes: dict[tuple[str, str], _Lane] = {}
    offsets: dict[str, int] = {}
    waiting: list[tuple[int, int, Packet]] = []
    count = 0

    def arrive(packet: Packet) -> Packet:
        partition = packet.position.partition
        offset = offsets.get(partition, 0)
        offsets[partition] = offset + 1
        return replace(packet, position=Position(partition, offset))

    for packet in packets:
        while waiting and waiting[0][0] <= packet.event_time:
            yield arrive(heapq.heappop(waiting)[2])
        if packet.stream in untouched:
            sent = [replace(packet, arrival_time=packet.event_time)]
        else:
            lane = lanes.get((packet.key, packet.stream))
            if lane is None:
                lane = lanes[packet.key, packet.stream] = _Lane(packet, faults, seed, origin)
            sent = lane.send(packet)
        for copy in sent:
            heapq.heappush(waiting, (copy.arrival_time, count, copy))
            count += 1
    while waiting:
        yield arrive(heapq.heappop(waiting)[2])


def damage(payload: Payload, draw: np.random.Generator) -> Payload:
    """The payload, no longer what it says it is: an image cut short or with bytes overwritten, sound of an odd number
    of bytes, text that is not UTF-8. Decoded images and sound are not wire data; they are returned as they are."""
    if isinstance(payload, str):
        return Encoded(_not_utf8(payload.encode(), draw), "text/plain")
    if not isinstance(payload, Encoded):
        return payload
    kind = payload.media_type.partition("/")[0]
    if kind == "text":
        return replace(payload, data=_not_utf8(payload.data, draw))
    if kind == "audio":
        return replace(payload, data=payload.data[: max(1, len(payload.data) // 2 * 2 - 1)])
    if draw.random() < 0.5:
        return replace(payload, data=payload.data[: int(draw.integers(0, max(1, len(payload.data) // 2)))])
    head = min(len(payload.data), 24)
    return replace(payload, data=draw.bytes(head) + payload.data[head:])


class _Lane:
    """One stream of one key on its way."""

    def __init__(self, first: Packet, faults: Faults, seed: int, origin: int) -> None:
        self._draw = np.random.default_rng([seed, zlib.crc32(f"{first.key}\0{first.stream}".encode())])
        self._faults = faults
        self._origin = origin
        self._delay = faults.delay.get(first.stream, 0)
        self._drift = faults.drift_ppm.get(first.stream, 0.0)
        self._steps = faults.step.get(first.stream, [])
        self._silent = faults.silent.get(first.stream, [])

    def send(self, packet: Packet) -> list[Packet]:
        """What arrives of one packet: nothing, the packet, or the packet twice."""
        faults, draw = self._faults, self._draw
        dropped, doubled, held, broken, late = draw.random(5) < (
            faults.drop,
            faults.duplicate,
            faults.reorder,
            faults.corrupt,
            faults.very_late,
        )
        delay, again = (self._delay * draw.lognormal(0, faults.delay_sigma, 2)).tolist()
        hold, lateness = draw.uniform((1, 0.5), (3, 2.0)).tolist()
        damager = draw.spawn(1)[0] if broken else None
        elapsed = packet.event_time - self._origin
        if dropped or any(start <= elapsed < end for start, end in self._silent):
            return []
        if held:
            delay += hold * max(packet.duration, SHORTEST_HOLD)
        if late:
            delay += lateness * SECOND
        sent = replace(
            packet,
            event_time=self._origin + self._clock(elapsed),
            arrival_time=self._released(packet.event_time + round(delay)),
            payload=damage(packet.payload, damager) if damager else packet.payload,
        )
        if not doubled:
            return [sent]
        return [sent, replace(sent, arrival_time=self._released(packet.event_time + round(delay + again)))]

    def _clock(self, elapsed: int) -> int:
        """What the producer's clock says, `elapsed` ns after the origin."""
        stepped = sum(round(by * SECOND) for at, by in self._steps if at <= elapsed)
        return elapsed + round(elapsed * self._drift / 1_000_000) + stepped

    def _released(self, arrival_time: int) -> int:
        burst = self._faults.burst
        if not burst:
            return arrival_time
        return self._origin - (self._origin - arrival_time) // burst * burst


def _not_utf8(data: bytes, draw: np.random.Generator) -> bytes:
    at = int(draw.integers(0, len(data) + 1))
    return data[:at] + b"\xff\xfe" + data[at:]
