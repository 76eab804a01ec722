"""The cursor of a Kafka source: which partitions are ours, what is committed for them, and which keys live in them.

Pure: takes what happened, gives what to commit. A key lives where its records do, in the same partition number of every topic; its
watermark is committed with each of these partitions, in the commit's metadata or, where those of all keys are too long for it, in the
compacted topic of watermarks.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from streamfuse.errors import InvalidRecord
from streamfuse.kafka.metadata import CommitMetadata, decode_metadata, encode_metadata, encode_reference
from streamfuse.kafka.transport import Committed, Partition
from streamfuse.kafka.watermark_log import LogRecord, WatermarkLog
from streamfuse.types import Cursor, Offsets

log = logging.getLogger(__name__)


class Gained(NamedTuple):
    """A partition is ours: since which `epoch` of our own counting, what the group had committed for it, and the topic of watermarks as
    of that commit, where it names a version of it."""

    epoch: int
    committed: Committed | None
    log: WatermarkLog | None = None


class Commit(NamedTuple):
    """What to commit for a partition, if it is still in the same epoch."""

    epoch: int
    committed: Committed


@dataclass(frozen=True, slots=True)
class Commits:
    """What makes a cursor durable: first `records`, each into its partition number of the topic of watermarks, then `offsets`.

    `without` tells for which partitions there was no room for so many watermarks.
    """

    offsets: Mapping[Partition, Commit] = field(default_factory=dict)
    records: Sequence[tuple[int, LogRecord]] = ()
    versions: Mapping[int, int] = field(default_factory=dict)
    without: Mapping[Partition, int] = field(default_factory=dict)


class KafkaCursor:
    """With `has_log` there is a topic of watermarks; without one, `forgotten_watermarks` counts those that no commit had room for."""

    def __init__(self, what: str, has_log: bool = False) -> None:
        self.has_log = has_log
        self.forgotten_watermarks = 0
        self._what = what
        self._owned: dict[str, tuple[Partition, int]] = {}
        self._offsets: dict[str, Offsets] = {}
        self._watermarks: dict[str, int] = {}
        self._keys: dict[int, dict[str, dict[str, int]]] = {}  # partition number -> key -> partition -> offset of its last record
        self._logs: dict[int, WatermarkLog] = {}

    @property
    def partitions(self) -> frozenset[str]:
        return frozenset(self._owned)

    def lose(self, partitions: Iterable[Partition]) -> None:
        for partition in partitions:
            self._owned.pop(partition.name, None)
            self._offsets.pop(partition.name, None)
        numbers = {partition.number for partition, _ in self._owned.values()}
        for number in self._keys.keys() - numbers:
            for key in self._keys.pop(number):
                if not any(key in keys for keys in self._keys.values()):
                    self._watermarks.pop(key, None)
        for number in self._logs.keys() - numbers:
            del self._logs[number]

    def gain(self, partitions: Mapping[Partition, Gained]) -> Cursor:
        """The committed cursor of these partitions; without offsets where the group has not been there before."""
        offsets: dict[str, Offsets] = {}
        watermarks: dict[str, int] = {}
        for partition, (epoch, committed, watermark_log) in partitions.items():
            name = partition.name
            self._owned[name] = (partition, epoch)
            if committed is None:
                continue
            known = self._read(name, committed)
            offsets[name] = Offsets(committed.offset, max(known.seen, committed.offset))
            closed = known.watermarks
            if watermark_log is not None:
                closed = watermark_log.watermarks()
                if (other := self._logs.get(partition.number)) is None or other.version < watermark_log.version:
                    self._logs[partition.number] = watermark_log
            keys = self._keys.setdefault(partition.number, {})
            for key, watermark in closed.items():
                keys.setdefault(key, {})[name] = known.seen - 1  # where its last record may stand
                watermarks[key] = max(watermark, watermarks.get(key, watermark))  # a partition that stood still holds an old one
        self._offsets.update(offsets)
        self._watermarks.update(watermarks)
        return Cursor(offsets, watermarks)

    def note(self, partition: Partition, key: str, offset: int) -> None:
        """A record of this key was read."""
        self._keys.setdefault(partition.number, {}).setdefault(key, {})[partition.name] = offset

    def commits(self, cursor: Cursor) -> Commits:
        """What to commit for the part of this cursor that is ours. Never goes back behind what was committed before."""
        numbers = self._advance(cursor)
        offsets: dict[Partition, Commit] = {}
        records: list[tuple[int, LogRecord]] = []
        versions: dict[int, int] = {}
        forgotten: dict[Partition, int] = {}
        for number in sorted(numbers):
            keys = self._keys.get(number, {})
            watermarks = {key: self._watermarks[key] for key in keys if key in self._watermarks}
            closed = [key for key in watermarks if not self._read_again(keys[key])]
            ours = [(p, epoch) for p, epoch in self._owned.values() if p.number == number and p.name in self._offsets]
            packed = {p: encode_metadata(self._offsets[p.name].seen, watermarks, closed) for p, _ in ours}
            if number in self._logs or (self.has_log and any(without for _, without in packed.values())):
                versions[number], written = self._logs.setdefault(number, WatermarkLog()).write(watermarks)
                records += ((number, record) for record in written)
                packed = {p: (encode_reference(self._offsets[p.name].seen, versions[number]), 0) for p in packed}
            for partition, epoch in ours:
                metadata, without = packed[partition]
                if without:
                    forgotten[partition] = without
                offsets[partition] = Commit(epoch, Committed(self._offsets[partition.name].needed, metadata))
        return Commits(offsets, records, versions, forgotten)

    def settle(self, commits: Commits) -> None:
        """They are durable."""
        for number, version in commits.versions.items():
            if number in self._logs:
                self._logs[number].settle(version)
        for partition, without in commits.without.items():
            if not self.forgotten_watermarks:
                log.warning(
                    "%s: expected the watermarks of all keys of %s to fit Kafka's commit metadata, found no room for %d;"
                    " after a restart late records of these keys may open a window again; create watermarks_topic, compacted, or give the"
                    " topics more partitions",
                    self._what,
                    partition.name,
                    without,
                )
            self.forgotten_watermarks += without

    def _advance(self, cursor: Cursor) -> set[int]:
        """Take in what of this cursor is ours; returns the partition numbers that it moves."""
        numbers: set[int] = set()
        for name, (needed, seen) in cursor.offsets.items():
            if name in self._owned:
                before = self._offsets.get(name, Offsets(0, 0))
                self._offsets[name] = Offsets(max(needed, before.needed), max(seen, before.seen))
                numbers.add(self._owned[name][0].number)
        moved = tuple(numbers)
        for key, watermark in cursor.watermarks.items():
            living_in = [number for number, keys in self._keys.items() if key in keys]
            numbers.update(living_in)
            if watermark is None:
                self._watermarks.pop(key, None)
                for number in living_in:
                    self._keys[number].pop(key)
            elif living_in or moved:
                self._watermarks[key] = max(watermark, self._watermarks.get(key, watermark))
                for number in () if living_in else moved:  # a key that we have not met: it goes with the partitions of this cursor
                    self._keys.setdefault(number, {})[key] = {}
        return numbers

    def _read_again(self, last_records: Mapping[str, int]) -> bool:
        """Whether a run that starts from here reads records of this key again: it must know what is closed already."""
        return any(offset >= self._offsets.get(name, Offsets(0, 0)).needed for name, offset in last_records.items())

    def _read(self, name: str, committed: Committed) -> CommitMetadata:
        try:
            metadata = decode_metadata(committed.metadata)
        except InvalidRecord as error:
            log.warning("%s: the group's commit of %s is not ours, only its offset is used: %s", self._what, name, error)
            metadata = None
        return CommitMetadata(committed.offset, {}) if metadata is None else metadata
