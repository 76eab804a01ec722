"""Writes predictions and losses as JSON, one a line, to a file or to standard output."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import anyio
import anyio.to_thread

from streamfuse.config import JsonlSinkSettings
from streamfuse.documents import format_time, prediction_to_json
from streamfuse.errors import InvalidRecord, SinkError
from streamfuse.types import Loss, Prediction

TAIL_BYTES = 1024 * 1024


class JsonlSink:
    """Publishes predictions by `prediction_schema()`; they are on the disk (or handed to the pipe) when `publish`
    returns."""

    def __init__(self, settings: JsonlSinkSettings) -> None:
        self.name = f"jsonl:{settings.path}"
        self._lines = LineFile(settings.path)

    async def __aenter__(self) -> Self:
        await self._lines.open()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        await self._lines.close()

    async def publish(self, predictions: Sequence[Prediction]) -> None:
        await self._lines.write([prediction_to_json(prediction) for prediction in predictions])


class LossWriter:
    """Writes the records that no window will get: stream, key, reason, detail, event time and position, not the
    payload."""

    def __init__(self, settings: JsonlSinkSettings) -> None:
        self._lines = LineFile(settings.path)

    async def __aenter__(self) -> Self:
        await self._lines.open()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        await self._lines.close()

    async def write(self, losses: Sequence[Loss]) -> None:
        """Returns when they are durable. Raises SinkError where waiting won't help."""
        await self._lines.write([loss_to_json(loss) for loss in losses])


def loss_to_json(loss: Loss) -> str:
    """One line of JSON. `bytes` is the size of the original value, where it is known."""
    record = loss.record or (loss.packet.original if loss.packet else None)
    position = loss.position or (loss.packet.position if loss.packet else None)
    event_time = loss.event_time if loss.event_time is not None or loss.packet is None else loss.packet.event_time
    document: dict[str, Any] = {
        "stream": loss.stream,
        "key": loss.key,
        "reason": str(loss.reason),
        "stage": str(loss.stage),
        "detail": loss.detail,
        "event_time": None if event_time is None else _time_text(event_time),
        "event_time_ns": event_time,
        "partition": position.partition if position else None,
        "offset": position.offset if position else None,
        "id": loss.packet.id if loss.packet else "",
        "bytes": None if record is None or record.value is None else len(record.value),
    }
    return json.dumps(document, separators=(",", ":"))


def _time_text(instant: int) -> str | None:
    try:
        return format_time(instant)
    except InvalidRecord:
        return None  # absurd event times are the very reason for some losses; the ns still stand there


class LineFile:
    """An append-only file of whole lines, or standard output where the path is `-`.

    A line that a crash or a full disk cut short never runs into the next one: opening ends it, so that a reader
    loses that line alone, and a write that fails takes back what it wrote.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._regular = False
        self._lock = anyio.Lock()

    async def open(self) -> None:
        """Creates the file and its folders. Raises SinkError where that can't be."""
        await anyio.to_thread.run_sync(self._open)

    async def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None and self._path != "-":
            await anyio.to_thread.run_sync(os.close, descriptor)

    async def write(self, lines: Sequence[str]) -> None:
        """Appends the lines, in order; they are durable when this returns. May be called by several tasks at a time. Raises SinkError."""
        if lines:
            data = "".join(line + "\n" for line in lines).encode()
            # Shielded, as a cancelled write would leave a thread behind that still writes; one by one, so that lines stay whole.
            with anyio.CancelScope(shield=True):
                async with self._lock:
                    await anyio.to_thread.run_sync(self._write, data)

    def _open(self) -> None:
        if self._path == "-":
            self._descriptor = 1
            return
        try:
            if folder := os.path.dirname(self._path):
                os.makedirs(folder, exist_ok=True)
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            self._regular = os.path.isfile(self._path)
            if self._regular:
                _end_torn_line(self._descriptor)
        except OSError as error:
            raise self._refusal(error) from error

    def _write(self, data: bytes) -> None:
        if self._descriptor is None:
            raise SinkError(f"expected {self._path} to be open, found it closed; use it inside `async with`")
        before = os.fstat(self._descriptor).st_size if self._regular else 0
        try:
            _write_all(self._descriptor, data)
            if self._regular:
                os.fsync(self._descriptor)
        except OSError as error:
            if self._regular:
                os.ftruncate(self._descriptor, before)
            raise self._refusal(error) from error

    def _refusal(self, error: OSError) -> SinkError:
        where = "standard output" if self._path == "-" else self._path
        fix = {
            errno.ENOSPC: "free space on its disk or choose another path",
            errno.EDQUOT: "raise the quota or choose another path",
            errno.EPIPE: "its reader has gone; keep it running, or write to a file",
            errno.EACCES: "give this user the right to write there or choose another path",
            errno.EROFS: "choose a path on a disk that can be written to",
            errno.EISDIR: "give the path of a file",
        }.get(error.errno or 0, "check the path")
        return SinkError(f"expected to write to {where}, found: {error.strerror or error}; {fix}")


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _end_torn_line(descriptor: int) -> None:
    """A last line without its end is completed if it is JSON, and taken away if it is the beginning of an object: its write never
    returned."""
    size = os.fstat(descriptor).st_size
    tail = os.pread(descriptor, TAIL_BYTES, max(0, size - TAIL_BYTES))
    line = tail[tail.rfind(b"\n") + 1 :]
    if not line:
        return
    begins_here = len(line) < len(tail) or len(tail) == size
    if begins_here and line.startswith(b"{") and not _is_json(line):
        os.ftruncate(descriptor, size - len(line))
    else:
        _write_all(descriptor, b"\n")


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
