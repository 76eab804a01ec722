"""Reads text events from lines of JSON: a file, a file that grows, or standard input."""

from __future__ import annotations

import logging
import os
import stat
import sys
import zlib
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import anyio
import anyio.to_thread

from streamfuse.config import JsonlSourceSettings
from streamfuse.errors import SourceError
from streamfuse.interfaces import Clock, Unshared
from streamfuse.sources.lines import LineReader, LineSplitter
from streamfuse.sources.state import State
from streamfuse.types import Cursor, Item, Packet, Position, Resume

log = logging.getLogger(__name__)

READ_BYTES = 64 * 1024
FIRST_POLL, LAST_POLL = 0.05, 1.0
"""Seconds between two looks at the end of a file that is followed: the first, and the longest."""


class JsonlSource(Unshared):
    """One packet a line, at its own event time; a line that can't be one is a `Loss` with its number.

    The partition is the path with the checksum of the file's first line (`notes.jsonl#1f0a83c2`), the offset the line,
    from 0. A file that is truncated, replaced or rotated while it is followed is therefore a new partition, and so is
    one that was replaced between two runs. Blank lines are no records.

    A line is a recording, which arrived at its event time, where it stood in the file before we first came to its end;
    what is appended after that, and what comes by standard input or a pipe, arrives now.
    """

    def __init__(self, settings: JsonlSourceSettings, clock: Clock) -> None:
        self.streams = frozenset({settings.stream, *settings.streams})
        self._settings = settings
        self._clock = clock
        self._stdin = settings.path == "-"
        self._label = "stdin" if self._stdin else settings.path
        self.name = f"jsonl:{self._label}"
        self._state = State(settings.state, f"jsonl {self._label}", lambda p: p.startswith(f"{self._label}#"))
        self._state.add_keys([settings.key])
        self._reader = LineReader(self._label, settings.stream, settings.key, self.streams, settings.max_line_bytes)
        self._open = ExitStack()
        self._fd = -1
        self._known = False
        self._used: set[str] = set()

    async def __aenter__(self) -> Self:
        self._known = self._state.load()
        self._fd = await anyio.to_thread.run_sync(self._open_file)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self._open.close()

    async def commit(self, cursor: Cursor) -> None:
        await self._state.commit(cursor)

    async def batches(self) -> AsyncIterator[Sequence[Item]]:
        live = not self._regular()
        follow = self._settings.follow and self._regular()
        while True:  # once per file: a rotated one is a new file
            file = _File(LineSplitter(self._settings.max_line_bytes))
            poll, replaced = FIRST_POLL, False
            while True:
                if data := await self._read():
                    poll = FIRST_POLL
                    if items := self._items(file, file.split.feed(data), live):
                        yield items
                elif not follow or replaced:  # a replaced file is read to its end first
                    break
                else:
                    live = True
                    replaced = await anyio.to_thread.run_sync(self._replaced)
                    if not replaced:
                        await anyio.sleep(poll)
                        poll = min(2 * poll, LAST_POLL)
            if items := self._items(file, file.split.end(), live):
                yield items
            if not follow:
                return
            await self._reopen()

    def _items(self, file: _File, lines: Iterable[bytes], live: bool) -> list[Item]:
        items: list[Item] = []
        arrival_time = self._clock.now() if live else None
        for line in lines:
            if not file.partition:
                file.partition, file.needed, said = self._begin(line)
                items.extend(said)
            number, file.lines = file.lines, file.lines + 1
            if number < file.needed:
                continue
            item = self._reader.read(line, Position(file.partition, number), arrival_time)
            if isinstance(item, Packet):
                self._state.add_keys([item.key])
            if item is not None:
                items.append(item)
        return items

    def _open_file(self) -> int:
        path = self._settings.path
        if self._stdin:
            if sys.__stdin__ is None:
                raise SourceError("expected lines on standard input, which is closed; pipe them in, or name a file")
            return sys.__stdin__.fileno()
        try:
            mode = os.stat(path).st_mode
            if stat.S_ISDIR(mode):
                raise SourceError(f"expected a file of JSON lines, found the folder {path}; name a file in it")
            ours = stat.S_ISFIFO(mode) and self._settings.follow  # a pipe whose writing end we hold never ends
            fd = os.open(path, (os.O_RDWR if ours else os.O_RDONLY) | os.O_NONBLOCK)
        except OSError as error:
            raise SourceError(f"expected a readable file, found {path}: {error.strerror}; correct the path") from None
        self._open.callback(os.close, fd)
        return fd

    def _regular(self) -> bool:
        return stat.S_ISREG(os.fstat(self._fd).st_mode)

    async def _read(self) -> bytes:
        if not self._regular():
            await anyio.wait_readable(self._fd)
            return os.read(self._fd, READ_BYTES)
        return await anyio.to_thread.run_sync(os.read, self._fd, READ_BYTES)

    def _replaced(self) -> bool:
        """Whether the file was truncated, or another one has its name."""
        ours = os.fstat(self._fd)
        try:
            named = os.stat(self._settings.path)
        except FileNotFoundError:
            return False  # between the two renames of a rotation
        other = (named.st_dev, named.st_ino) != (ours.st_dev, ours.st_ino)
        return other or ours.st_size < os.lseek(self._fd, 0, os.SEEK_CUR)

    async def _reopen(self) -> None:
        log.info("%s was replaced; reading the new one from its first line", self._label)
        poll = FIRST_POLL
        while True:
            try:
                fd = await anyio.to_thread.run_sync(os.open, self._settings.path, os.O_RDONLY)
            except FileNotFoundError:
                await anyio.sleep(poll)
                poll = min(2 * poll, LAST_POLL)
            else:
                break
        self._open.close()
        self._open.callback(os.close, fd)
        self._fd = fd

    def _begin(self, first: bytes) -> tuple[str, int, list[Item]]:
        """The partition of the file that begins with this line, the first line that is needed, and what to say
        before."""
        base = f"{self._label}#{zlib.crc32(first):08x}"
        partition, count = base, 1
        while partition in self._used:  # truncated and begun again with the same line
            count += 1
            partition = f"{base}.{count}"
        first_file, self._used = not self._used, self._used | {partition}
        if not self._known or not first_file:
            return partition, 0, []
        held = [p for p in self._state.cursor.offsets if p == base or p.startswith(f"{base}.")]
        if held:
            partition = max(held, key=lambda p: (len(p), p))
            self._used.add(partition)
            offsets = self._state.cursor.offsets[partition]
            self._state.cursor = Cursor({partition: offsets}, self._state.cursor.watermarks)
            return partition, offsets.needed, [Resume(self._state.cursor)]
        log.warning("%s is not the file that the state was kept for; reading it from its first line", self._label)
        watermarks = self._state.cursor.watermarks if self._settings.follow else {}
        self._state.cursor = Cursor({}, watermarks)
        return partition, 0, [Resume(self._state.cursor)] if watermarks else []


@dataclass(slots=True)
class _File:
    """How far one file was read: its partition, once its first line is known, its lines so far, and the first needed."""

    split: LineSplitter
    partition: str = ""
    lines: int = 0
    needed: int = 0
