"""From one line of JSON to a packet, or to the sentence that says why not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from streamfuse.config import parse_duration
from streamfuse.documents import parse_time
from streamfuse.errors import InvalidRecord, RecordError, UndecodablePayload
from streamfuse.types import SECOND, Loss, Outcome, Packet, Position

MAX_DURATION = 3600 * SECOND
MAX_INSTANT = 1 << 63
"""ns UTC as 64 bits hold them: up to the year 2262."""
_TIME_NAMES = ("timestamp", "ts", "time", "datetime", "date", "created_at", "eventTime")


@dataclass(frozen=True, slots=True)
class LineReader:
    """What to make of lines: the stream and key of those that name none, and the streams that they may name."""

    name: str
    stream: str
    key: str
    streams: frozenset[str]
    max_bytes: int

    def read(self, line: bytes, position: Position, arrival_time: int | None) -> Packet | Loss | None:
        """The packet of one line, without its newline; a Loss where it can't be one; None for a blank line.

        `arrival_time` None says that the line is a recording, which arrived at its event time. Never raises.
        """
        if not line.strip():
            return None
        stream, key, event_time = self.stream, self.key, None
        try:
            if len(line) > self.max_bytes:
                raise InvalidRecord(
                    f"expected at most {self.max_bytes} bytes, found a longer line; send shorter ones or raise max_line_bytes"
                )
            fields = _fields(line)
            key = _text(fields, "key", self.key, empty=False)
            stream = _text(fields, "stream", self.stream, empty=False)
            if stream not in self.streams:
                known = ", ".join(sorted(self.streams))
                stream, found = self.stream, stream
                raise InvalidRecord(f"stream: expected one of {known}, found {found[:80]!r}; add it to the source's streams")
            event_time = _event_time(fields)
            return Packet(
                stream=stream,
                key=key,
                event_time=event_time,
                duration=_duration(fields.get("duration", 0)),
                payload=_text(fields, "text", None),
                position=position,
                arrival_time=event_time if arrival_time is None else arrival_time,
                id=_text(fields, "id", ""),
            )
        except RecordError as error:
            return Loss(
                stream=stream,
                key=key,
                reason=Outcome.UNDECODABLE if isinstance(error, UndecodablePayload) else Outcome.QUARANTINED,
                detail=f"{self.name}, line {position.offset + 1}: {error}",
                position=position,
                event_time=event_time,
            )


class LineSplitter:
    """Cuts bytes into lines. Of a line that is too long it keeps `max_bytes + 1` bytes, enough to tell."""

    def __init__(self, max_bytes: int) -> None:
        self._max = max_bytes
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The lines that these bytes complete, without their newlines."""
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            self._keep(data, start, end)
            yield self._take()
            start = end + 1
        self._keep(data, start, len(data))

    def end(self) -> Iterator[bytes]:
        """The last line, where no newline ended it."""
        if self._rest:
            yield self._take()

    def _keep(self, data: bytes, start: int, end: int) -> None:
        room = self._max + 1 - len(self._rest)
        self._rest += data[start : min(end, start + room)]

    def _take(self) -> bytes:
        line = bytes(self._rest)
        self._rest.clear()
        return line.removesuffix(b"\r") if len(line) <= self._max else line


def _fields(line: bytes) -> dict[str, Any]:
    try:
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UndecodablePayload(
            f"expected UTF-8, found the byte 0x{line[error.start]:02x} at {error.start}; write the file as UTF-8"
        ) from None
    try:
        found = json.loads(text, parse_constant=_refuse, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise UndecodablePayload(f"expected one JSON object, found {text[:60]!r}: {error}") from None
    if not isinstance(found, dict):
        raise UndecodablePayload(f'expected a JSON object such as {{"text": "...", "event_time": ...}}, found {text[:60]!r}')
    return found


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a field stands in it twice")
    return found


def _text(fields: dict[str, Any], name: str, default: str | None, *, empty: bool = True) -> str:
    value = fields.get(name, default)
    if value is None:
        raise InvalidRecord(f"{name}: expected text, found nothing; give each line a {name!r}")
    if not isinstance(value, str):
        raise InvalidRecord(f"{name}: expected text, found {_shown(value)}; put it in quotes")
    if not value and not empty:
        raise InvalidRecord(f"{name}: expected at least one letter, found none; leave the field out for the default")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UndecodablePayload(f"{name}: expected Unicode text, found half of a surrogate pair; write whole characters") from None
    return value


def _event_time(fields: dict[str, Any]) -> int:
    value = fields.get("event_time")
    if value is None:
        other = next((n for n in _TIME_NAMES if n in fields), None)
        fix = f"rename {other!r} to 'event_time'" if other else "say when it happened"
        raise InvalidRecord(f"event_time: expected an instant, found none; {fix} (ISO 8601 with its zone, or ns since 1970)")
    if isinstance(value, str):
        return _believable(parse_time_or_raise(value))
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidRecord(
            f"event_time: expected text in ISO 8601 or whole ns since 1970, found {_shown(value)}; multiply seconds by 1000000000"
        )
    return _believable(value)


def parse_time_or_raise(value: str) -> int:
    """An instant as text -> ns UTC; the error says which field it is."""
    try:
        return parse_time(value)
    except InvalidRecord as error:
        raise InvalidRecord(f"event_time: {error}") from None


def _believable(instant: int) -> int:
    if not 0 <= instant < MAX_INSTANT:
        raise InvalidRecord(f"event_time: expected an instant from 1970 to 2262, found {_shown(instant)}; is it in ns?")
    return instant


def _duration(value: object) -> int:
    if isinstance(value, str):
        try:
            value = parse_duration(value)
        except ValueError as error:
            raise InvalidRecord(f"duration: {error}") from None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_DURATION:
        raise InvalidRecord(f"duration: expected ns from 0 to an hour, or text such as '2s', found {_shown(value)}")
    return value


def _shown(value: object) -> str:
    try:
        return repr(value)[:60]
    except ValueError:  # an int of more digits than Python prints
        return "a number of thousands of digits"
