"""The watermarks of many keys, in a compacted topic: where they don't fit into what Kafka keeps with a committed offset.

A commit names the version of the watermarks that go with it, and is what makes that version hold. So a record tells a key's watermark by
version, from the last that a commit is known to have named: `{"w":[[version, ns], ...]}`, ns null for a forgotten key. Of these the
greatest holds that is not beyond the committed one, whatever was written after it by who crashed before the commit. The last record of a
batch has the key `v` and its version, so that a reader knows when it has seen all of it; those of the keys are `k` and the key.

Pure: takes records and gives records.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from streamfuse.errors import InvalidRecord

VERSION_KEY = b"v"
_KEY_PREFIX = b"k"

History = list[tuple[int, int | None]]  # version and watermark, oldest first


class LogRecord(NamedTuple):
    """A record of the compacted topic; without a value it takes the key out of it."""

    key: bytes
    value: bytes | None


class WatermarkLog:
    """The watermarks of the keys in one partition number, by the records read back and the version that was committed.

    `InvalidRecord` is raised for a record that is not ours.
    """

    def __init__(self, records: Iterable[LogRecord] = (), version: int = 0) -> None:
        self.version = version
        self._histories: dict[str, History] = {}
        self._unsettled: set[str] = set()  # keys with more than one possible watermark
        self._last = version
        for key, value in records:
            if key == VERSION_KEY:
                continue
            name = _name(key)
            if value is None:
                self._histories.pop(name, None)
            else:
                self._histories[name] = _history(value)
        self._last = max([version, *(history[-1][0] for history in self._histories.values())])
        for name, history in self._histories.items():
            self._histories[name] = [entry for entry in history if entry[0] <= version][-1:] + [e for e in history if e[0] > version]
            if any(entry[0] > version for entry in history):
                self._unsettled.add(name)

    def watermarks(self) -> dict[str, int]:
        """Those that go with the committed version."""
        held = {name: [watermark for version, watermark in history if version <= self.version] for name, history in self._histories.items()}
        return {name: last for name, found in held.items() if found and (last := found[-1]) is not None}

    def write(self, watermarks: Mapping[str, int]) -> tuple[int, list[LogRecord]]:
        """A new version with these watermarks, and the records that bring the topic up to it. Another may follow without a `settle`."""
        version = self._last = self._last + 1
        records: list[LogRecord] = []
        for name in [*watermarks, *(name for name in self._histories if name not in watermarks)]:
            watermark = watermarks.get(name)
            history = self._histories.get(name, [])
            if name not in self._unsettled and (history[-1][1] if history else None) == watermark:
                if history and watermark is None:  # forgotten, and every reader may know it
                    del self._histories[name]
                    records.append(LogRecord(_KEY_PREFIX + name.encode(errors="replace"), None))
                continue
            history = [*history, (version, watermark)]
            self._histories[name] = history
            self._unsettled.add(name)
            records.append(LogRecord(_KEY_PREFIX + name.encode(errors="replace"), _dump({"w": history})))
        records.append(LogRecord(VERSION_KEY, _dump({"version": version})))
        return version, records

    def settle(self, version: int) -> None:
        """This version was committed."""
        self.version = version
        for name in list(self._unsettled):
            history = self._histories[name]
            base = [entry for entry in history if entry[0] <= version][-1:]
            self._histories[name] = base + [entry for entry in history if entry[0] > version]
            if len(self._histories[name]) == len(base) == 1:
                self._unsettled.discard(name)


def version_of(record: LogRecord) -> int | None:
    """The version that is complete with this record; None for one of a key."""
    if record.key != VERSION_KEY or record.value is None:
        return None
    try:
        return int(json.loads(record.value)["version"])
    except (ValueError, TypeError, KeyError) as error:
        raise _not_ours(record.value, error) from None


def _name(key: bytes) -> str:
    if not key.startswith(_KEY_PREFIX):
        raise _not_ours(key, "its key")
    return key.removeprefix(_KEY_PREFIX).decode(errors="replace")


def _history(value: bytes) -> History:
    try:
        found = [(int(version), None if ns is None else int(ns)) for version, ns in json.loads(value)["w"]]
    except (ValueError, TypeError, KeyError) as error:
        raise _not_ours(value, error) from None
    if not found:
        raise _not_ours(value, "no watermark")
    return found


def _not_ours(what: bytes, why: object) -> InvalidRecord:
    return InvalidRecord(f"expected a record of StreamFuse's watermarks, found {what[:80]!r} ({why}); give them a topic of their own")


def _dump(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
