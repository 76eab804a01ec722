"""What a broker has on its disk, and no client tells: which producer wrote a record, and when a group's generations began."""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kafka.record import MemoryRecords

GRACE = 500  # ms after the beginning of a generation in which its members may still be learning of it


class Written(NamedTuple):
    """A record: when it came (ms, by the broker's clock), who wrote it, and whose it is."""

    time: int
    producer: int
    key: str


class Generation(NamedTuple):
    number: int
    began: int
    """ms, by the broker's clock."""


def written(data: Path, topic: str) -> list[Written]:
    """All records of the topic's partition 0; it must have `message.timestamp.type=LogAppendTime`."""
    return [Written(record.timestamp, batch.producer_id, record.key.decode()) for batch, record in _records(data, topic)]


def generations(data: Path, group: str) -> list[Generation]:
    """When each generation of the group was complete, and every member had its partitions; a static member that came back counts as one."""
    found = []
    for _, record in _records(data, "__consumer_offsets"):
        if record.key == struct.pack(">hh", 2, len(group)) + group.encode() and record.value is not None:
            found.append(Generation(_generation(record.value), record.timestamp))
    return found


class Stale(NamedTuple):
    """`checked` counts the stretches in which somebody published for a key within one generation; `found` are those with two producers."""

    checked: int
    found: Sequence[str]


def stale(records: Iterable[Written], generations: Sequence[Generation]) -> Stale:
    """Within a generation one member has a key, so one producer writes for it: a second is an owner of before."""
    starts = [generation.began for generation in generations]
    producers: dict[tuple[int, str], set[int]] = defaultdict(set)
    for record in records:
        number = bisect_right(starts, record.time - GRACE) - 1
        if number >= 0 and (number + 1 == len(starts) or record.time < starts[number + 1]):
            producers[number, record.key].add(record.producer)
    found = [f"generation {generations[n].number}: {key} by producers {sorted(who)}" for (n, key), who in producers.items() if len(who) > 1]
    return Stale(len(producers), found)


def _records(data: Path, topic: str) -> Iterator[tuple[Any, Any]]:
    for segment in sorted((data / f"{topic}-0").glob("*.log")):
        batches = MemoryRecords(segment.read_bytes())
        while batches.has_next():
            batch = batches.next_batch()
            if not batch.is_control_batch:
                for record in batch:
                    yield batch, record


def _generation(value: bytes) -> int:
    """Of Kafka's GroupMetadataValue, up to version 3: the version, the type of protocol (a string), the generation."""
    version, length = struct.unpack_from(">hh", value)
    assert version <= 3, f"expected GroupMetadataValue of version 3 or less, found {version}"
    generation: int = struct.unpack_from(">i", value, 4 + length)[0]
    return generation
