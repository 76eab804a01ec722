"""Where a subscription takes its records from: the contract, and those that are no Kafka topic."""

from __future__ import annotations

import os
import stat
import sys
from collections import deque
from contextlib import suppress
from typing import Protocol

import anyio

from streamfuse.codecs import Record
from streamfuse.errors import SourceError
from streamfuse.sources.lines import LineSplitter
from streamfuse.topics import Subscription, Topics

READ_BYTES = 64 * 1024
MAX_LINE_BYTES = 16 * 1024 * 1024
FIRST_POLL, LAST_POLL = 0.05, 1.0
"""Seconds between two looks at the end of a file that is followed: the first, and the longest."""


class Records(Protocol):
    """Records one by one, for one task. Asking for the next one says that the one before was processed."""

    async def open(self) -> None:
        """Raises SourceError where waiting won't help."""
        ...

    async def next(self) -> tuple[Record, bool] | None:
        """The next record; None at the end. Cancelling it loses nothing.

        True stands beside a record that was processed in an earlier run and comes again only to recall which windows came.
        """
        ...

    async def commit(self) -> None:
        """Says that the record before was processed, and returns when the place after it is durable."""
        ...

    async def close(self) -> None:
        """Ends; what was processed is durable then."""
        ...

    def abandon(self) -> None:
        """The same soon, without waiting for it; may be called from any thread."""
        ...


class TopicRecords:
    """An in-process topic."""

    def __init__(self, topics: Topics, topic: str, from_start: bool) -> None:
        self._topics = topics
        self._topic = topic
        self._from_start = from_start
        self._subscription: Subscription | None = None
        self._batch: deque[Record] = deque()

    async def open(self) -> None:
        self._subscription = self._topics.subscribe(self._topic, from_start=self._from_start)

    async def next(self) -> tuple[Record, bool] | None:
        while not self._batch:
            if self._subscription is None:
                return None
            try:
                self._batch.extend(await anext(self._subscription))
            except StopAsyncIteration:
                return None
        return self._batch.popleft(), False

    async def commit(self) -> None:
        raise _no_group(f"the in-process topic {self._topic}")

    async def close(self) -> None:
        self.abandon()

    def abandon(self) -> None:
        if self._subscription is not None:
            self._subscription.close()


class FileRecords:
    """The lines of a file, or of standard input (`-`); the number of a line, from 0, is its offset. Blank lines are no records.

    With `follow` it waits for what is appended; a file that is put in its place is not followed.
    """

    def __init__(self, path: str, follow: bool) -> None:
        self._path = path
        self._follow = follow
        self._fd = -1
        self._split = LineSplitter(MAX_LINE_BYTES)
        self._lines: deque[bytes] = deque()
        self._count = 0
        self._ended = False

    async def open(self) -> None:
        if self._path == "-":
            if sys.__stdin__ is None:
                raise SourceError("expected predictions on standard input, which is closed; pipe them in, or name a file")
            self._fd = os.dup(sys.__stdin__.fileno())
            return
        try:
            self._fd = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            raise SourceError(f"can't read {self._path}: {error.strerror}; correct the path") from None

    async def next(self) -> tuple[Record, bool] | None:
        while True:
            while self._lines:
                line, number = self._lines.popleft(), self._count
                self._count += 1
                if line.strip():
                    return Record(self._path, 0, number, None, line, (), -1), False
            if self._ended:
                return None
            await self._read()

    async def commit(self) -> None:
        raise _no_group(self._path)

    async def close(self) -> None:
        self.abandon()

    def abandon(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    async def _read(self) -> None:
        poll = FIRST_POLL
        while not (data := await self._chunk()):
            if not self._follow:
                self._lines.extend(self._split.end())
                self._ended = True
                return
            await anyio.sleep(poll)
            poll = min(2 * poll, LAST_POLL)
        self._lines.extend(self._split.feed(data))

    async def _chunk(self) -> bytes:
        while True:
            if not stat.S_ISREG(os.fstat(self._fd).st_mode):
                with suppress(PermissionError):  # one that is always ready, such as /dev/null
                    await anyio.wait_readable(self._fd)
            try:
                return os.read(self._fd, READ_BYTES)
            except BlockingIOError:
                continue
            except OSError as error:
                raise SourceError(f"can't read {self._path}: {error.strerror}; name a file of JSON lines") from None


def _no_group(what: str) -> SourceError:
    return SourceError(f"expected a group of a Kafka topic to commit for, found {what}, which keeps no place")
