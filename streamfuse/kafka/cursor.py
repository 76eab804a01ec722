"""The cursor of a Kafka source: which partitions are ours, what is committed for them, and which keys live in them.

Pure: takes what happened, gives what to commit. A key lives where its records do, in the same partition number of every topic; its
watermark is committed with each of these partitions.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from streamfuse.errors import InvalidRecord
from streamfuse.kafka.metadata import decode_metadata, encode_metadata
from streamfuse.kafka.transport import Committed, Partition
from streamfuse.types import Cursor, Offsets

log = logging.getLogger(__name__)


class Gained(NamedTuple):
    """A partition is ours: since which `epoch` of our own counting, and what the group had committed for it."""

    epoch: int
    committed: Committed | None


class Commit(NamedTuple):
    """What to commit for a partition, if it is still in the same epoch."""

    epoch: int
    offset: Committed


class KafkaCursor:
    """`forgotten_watermarks` counts those that no commit had room for."""

    def __init__(self, what: str) -> None:
        self.forgotten_watermarks = 0
        self._what = what
        self._owned: dict[str, tuple[Partition, int]] = {}
        self._offsets: dict[str, Offsets] = {}
        self._watermarks: dict[str, int] = {}
        self._keys: dict[int, dict[str, dict[str, int]]] = {}  # partition number -> key -> partition -> offset of its last record

    @property
    def partitions(self) -> frozenset[str]:
        return frozenset(self._owned)

    def lose(self, partitions: Iterable[Partition]) -> None:
        for partition in partitions:
            name = partition.name
            self._owned.pop(name, None)
            self._offsets.pop(name, None)
        numbers = {partition.number for partition, _ in self._owned.values()}
        for number in self._keys.keys() - numbers:
            for key in self._keys.pop(number):
                if not any(key in keys for keys in self._keys.values()):
                    self._watermarks.pop(key, None)

    def gain(self, partitions: Mapping[Partition, Gained]) -> Cursor:
        """The committed cursor of these partitions; without offsets where the group has not been there before."""
        offsets: dict[str, Offsets] = {}
        watermarks: dict[str, int] = {}
        for partition, (epoch, committed) in partitions.items():
            name = partition.name
            self._owned[name] = (partition, epoch)
            if committed is None:
                continue
            seen, known = self._read(name, committed)
            offsets[name] = Offsets(committed.offset, max(seen, committed.offset))
            keys = self._keys.setdefault(partition.number, {})
            for key, watermark in known.items():
                keys.setdefault(key, {})[name] = seen - 1  # where its last record may stand
                watermarks[key] = max(watermark, watermarks.get(key, watermark))  # a partition that stood still holds an old one
        self._offsets.update(offsets)
        self._watermarks.update(watermarks)
        return Cursor(offsets, watermarks)

    def note(self, partition: Partition, key: str, offset: int) -> None:
        """A record of this key was read."""
        self._keys.setdefault(partition.number, {}).setdefault(key, {})[partition.name] = offset

    def commits(self, cursor: Cursor) -> dict[Partition, Commit]:
        """What to commit for the part of this cursor that is ours. Never goes back behind what was committed before."""
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
        return {
            partition: Commit(epoch, self._offset(name, partition.number))
            for name, (partition, epoch) in self._owned.items()
            if partition.number in numbers and name in self._offsets
        }

    def _offset(self, name: str, number: int) -> Committed:
        needed, seen = self._offsets[name]
        keys = self._keys.get(number, {})
        watermarks = {key: self._watermarks[key] for key in keys if key in self._watermarks}
        closed = [key for key in watermarks if not self._read_again(keys[key])]
        metadata, without = encode_metadata(seen, watermarks, closed)
        if without:
            if not self.forgotten_watermarks:
                log.warning(
                    "%s: expected the watermarks of all keys of %s to fit Kafka's commit metadata, found no room for %d of %d;"
                    " after a restart late records of these keys may open a window again; give the topics more partitions",
                    self._what,
                    name,
                    without,
                    len(watermarks),
                )
            self.forgotten_watermarks += without
        return Committed(needed, metadata)

    def _read_again(self, last_records: Mapping[str, int]) -> bool:
        """Whether a run that starts from here reads records of this key again: it must know what is closed already."""
        return any(offset >= self._offsets.get(name, Offsets(0, 0)).needed for name, offset in last_records.items())

    def _read(self, name: str, committed: Committed) -> tuple[int, dict[str, int]]:
        try:
            metadata = decode_metadata(committed.metadata)
        except InvalidRecord as error:
            log.warning("%s: the group's commit of %s is not ours, only its offset is used: %s", self._what, name, error)
            metadata = None
        return (committed.offset, {}) if metadata is None else metadata
