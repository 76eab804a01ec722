"""In-process topics: named append-only logs of records with one partition each, for the demo and for tests.

They behave like Kafka's where it matters to a reader (offsets, keys, headers, groups with a committed cursor), and
are lossless: a log is bounded, and who publishes into a full one waits until every reader has read its oldest
record. Without readers the oldest records go. One event loop owns them; there are no threads, and nothing outlives
the process.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Self

import anyio

from streamfuse.codecs import Record
from streamfuse.headers import Headers
from streamfuse.types import Cursor

BATCH_RECORDS = 256
BATCH_BYTES = 4 * 1024 * 1024


class Topics:
    """`max_bytes` and `max_records` bound each log."""

    def __init__(self, max_bytes: int = 64 * 1024 * 1024, max_records: int = 100_000) -> None:
        self.max_bytes = max_bytes
        self.max_records = max_records
        self._logs: dict[str, _Log] = {}
        self._cursors: dict[str, Cursor] = {}
        self._published = 0
        self._change = _Change()
        self._closed = False

    async def publish(self, topic: str, key: bytes | None, value: bytes | None, headers: Headers = (), timestamp: int = -1) -> int:
        """Appends a record and returns its offset. Waits while the log is full and a reader has not read its oldest
        record.

        A record greater than `max_bytes` has the log to itself. `timestamp` in ns UTC. Raises
        `anyio.ClosedResourceError` after `close`.
        """
        log = self._log(topic)
        size = Record(topic, 0, 0, key, value, headers, timestamp).size
        while not log.closed and not self._make_room(log, size):
            await self._change.wait()
        if log.closed:
            raise anyio.ClosedResourceError
        offset = log.end
        log.append(self._published, Record(topic, 0, offset, key, value, headers, timestamp))
        self._published += 1
        self._change.notify()
        return offset

    def close(self, *topics: str) -> None:
        """No record follows: readers end once they have read the rest. Without names, all topics, those to come too."""
        self._closed = self._closed or not topics
        for topic in topics or tuple(self._logs):
            self._log(topic).closed = True
        self._change.notify()

    def offsets(self, topic: str) -> tuple[int, int]:
        """The offset of the oldest record that is still there, and the next one to be given."""
        log = self._log(topic)
        return log.start, log.end

    def subscribe(self, topics: str | Iterable[str], *, from_start: bool = True, at: Mapping[str, int] | None = None) -> Subscription:
        """A reader of one or more topics, in the order of publishing over all of them.

        It begins at the oldest record that is there, or at the next to come where not `from_start`; `at` gives an
        offset by topic, no older than the oldest. Until its `close` nothing is dropped that it has not read.
        """
        logs = [self._log(name) for name in ([topics] if isinstance(topics, str) else topics)]
        positions = {log.topic: log.start if from_start else log.end for log in logs}
        for topic, offset in (at or {}).items():
            positions[topic] = max(offset, self._log(topic).start)
        return Subscription(logs, positions, self._change)

    def commit(self, group: str, cursor: Cursor) -> None:
        """Merges the cursor into the group's."""
        self._cursors[group] = self.committed(group).merge(cursor)

    def committed(self, group: str) -> Cursor:
        return self._cursors.get(group, Cursor())

    def _log(self, topic: str) -> _Log:
        if topic not in self._logs:
            self._logs[topic] = _Log(topic, self._closed)
        return self._logs[topic]

    def _make_room(self, log: _Log, size: int) -> bool:
        while log.entries and (log.bytes + size > self.max_bytes or len(log.entries) >= self.max_records):
            if any(reader.position(log.topic) <= log.start for reader in log.readers):
                return False
            log.drop_oldest()
        return True


class Subscription:
    """Reads batches of records: `async for batch in subscription`. Ends when all its topics are closed and read.

    Use it with `with`: an open one holds back publishing.
    """

    def __init__(self, logs: Sequence[_Log], positions: dict[str, int], change: _Change) -> None:
        self._logs = logs
        self._positions = positions
        self._change = change
        for log in logs:
            log.readers.append(self)

    def position(self, topic: str) -> int:
        """The offset of the next record to read."""
        return self._positions[topic]

    def close(self) -> None:
        for log in self._logs:
            if self in log.readers:
                log.readers.remove(self)
        self._change.notify()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[Record]:
        while not (batch := self._take()):
            if all(log.closed for log in self._logs):
                raise StopAsyncIteration
            await self._change.wait()
        self._change.notify()
        return batch

    def _take(self) -> list[Record]:
        batch: list[Record] = []
        size = 0
        while len(batch) < BATCH_RECORDS and size < BATCH_BYTES:
            waiting = [log for log in self._logs if self._positions[log.topic] < log.end]
            if not waiting:
                break
            log = min(waiting, key=lambda log: log.entries[self._positions[log.topic]][0])
            record = log.entries[self._positions[log.topic]][1]
            self._positions[log.topic] += 1
            batch.append(record)
            size += record.size
        return batch


class _Log:
    """One topic's records, by offset, each with its place in the order of publishing over all topics."""

    def __init__(self, topic: str, closed: bool) -> None:
        self.topic = topic
        self.closed = closed
        self.start = 0
        self.end = 0
        self.bytes = 0
        self.entries: dict[int, tuple[int, Record]] = {}
        self.readers: list[Subscription] = []

    def append(self, sequence: int, record: Record) -> None:
        self.entries[self.end] = (sequence, record)
        self.end += 1
        self.bytes += record.size

    def drop_oldest(self) -> None:
        _, record = self.entries.pop(self.start)
        self.start += 1
        self.bytes -= record.size


class _Change:
    """Wakes everybody who waits for something to change."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    async def wait(self) -> None:
        await self._event.wait()

    def notify(self) -> None:
        self._event.set()
        self._event = anyio.Event()
