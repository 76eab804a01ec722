"""A dead letter: a record that was of no use, as it stood in its topic, and why.

In Kafka it is a record with the key, the value and the headers of the original, all as they were, in their order, duplicates and empty ones
included. After them stand headers of ours:

| header | |
|---|---|
| `streamfuse_dl_headers` | how many headers before this one are the original's |
| `streamfuse_dl_nulls` | what had no value, as kafka-python may write an empty one: numbers of headers, from 0, and `value` |
| `streamfuse_dl_error` | a sentence: what was expected, what was found, what to change |
| `streamfuse_dl_stage` | where it was found: `decode` at the source, `synchronize`, `prepare` when the model's turn came |
| `streamfuse_dl_reason` | `undecodable` for its payload, `quarantined` for its description |
| `streamfuse_dl_stream` | the stream that it was of, or would have been |
| `streamfuse_dl_topic`, `streamfuse_dl_partition`, `streamfuse_dl_offset` | where it stood |
| `streamfuse_dl_timestamp` | its own timestamp, ms since 1970; when it was read where it had none |
| `streamfuse_dl_time` | when it became a dead letter, RFC 3339; also the timestamp of the letter |
| `streamfuse_dl_value_bytes` | only where the topic had no room for the value: how many bytes it has where it stood |

All are text. A record that was published again by `streamfuse dlq replay` has one of them: `streamfuse_dl_replays`, how often.

Dead letters are written at least once: a crash may repeat some. Topic, partition and offset are what makes two of them the same.
In a file it is a line of JSON with the same fields; see `letter_to_json`.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from streamfuse.codecs import WireRecord, format_time, parse_time
from streamfuse.errors import InvalidRecord
from streamfuse.types import MILLISECOND, Loss, Outcome, Record

PREFIX = "streamfuse_dl_"
COUNT, NULLS, ERROR, STAGE, REASON, STREAM, TOPIC, PARTITION, OFFSET, TIMESTAMP, TIME, VALUE_BYTES, REPLAYS = (
    PREFIX + name
    for name in (
        "headers", "nulls", "error", "stage", "reason", "stream", "topic", "partition", "offset", "timestamp", "time", "value_bytes",
        "replays",
    )
)  # fmt: skip
REASONS = (Outcome.UNDECODABLE, Outcome.QUARANTINED)
"""The outcomes that make a record a dead letter. Late, duplicate and shed ones were fine."""
SCHEMA = 1
LONGEST_ERROR = 2000


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """`time` (ns UTC) is when it became one. `omitted`: the value had so many bytes, for which there was no room; its own is None."""

    record: Record
    stream: str
    stage: str
    reason: str
    error: str
    time: int
    omitted: int | None = None

    @property
    def replays(self) -> int:
        """How often it was published again before it came here."""
        said = [value for name, value in self.record.headers if name == REPLAYS and value is not None]
        return int(said[-1]) if said and said[-1].isdigit() and len(said[-1]) < 10 else 0


def letter_of(loss: Loss, time: int) -> DeadLetter | None:
    """None for what is no dead letter: a loss for another reason, or of what never stood in a topic."""
    if loss.record is None or loss.reason not in REASONS:
        return None
    return DeadLetter(loss.record, loss.stream, loss.stage.value, loss.reason.value, loss.detail[:LONGEST_ERROR], time)


def without_value(letter: DeadLetter) -> DeadLetter:
    """For a topic that has no room for the whole."""
    record = letter.record
    return replace(letter, record=record._replace(value=None), omitted=len(record.value or b""))


def replayed(letter: DeadLetter) -> WireRecord:
    """The original record, to be published to its topic again: the same but for one header, which counts.

    One without key and value gets an empty value, as kafka-python writes no such record.
    """
    record = letter.record
    headers = tuple(header for header in record.headers if header[0] != REPLAYS)
    return WireRecord(record.key, _writable(record), (*headers, (REPLAYS, b"%d" % (letter.replays + 1))), record.timestamp)


# --- as a record -------------------------------------------------------------------------------------------------------------------------


def letter_to_record(letter: DeadLetter) -> WireRecord:
    record = letter.record
    fields: list[tuple[str, str | int | None]] = [
        (COUNT, len(record.headers)),
        (NULLS, ",".join(_nulls(record)) or None),
        (ERROR, letter.error),
        (STAGE, letter.stage),
        (REASON, letter.reason),
        (STREAM, letter.stream),
        (TOPIC, record.topic),
        (PARTITION, record.partition),
        (OFFSET, record.offset),
        (TIMESTAMP, record.timestamp // MILLISECOND),
        (TIME, format_time(letter.time)),
        (VALUE_BYTES, letter.omitted),
    ]
    ours = ((name, str(value).encode(errors="replace")) for name, value in fields if value is not None)
    return WireRecord(record.key, _writable(record), (*record.headers, *ours), letter.time)


def letter_from_record(record: Record) -> DeadLetter:
    """Raises InvalidRecord for a record that is no dead letter."""
    names = [name for name, _ in record.headers]
    if COUNT not in names:
        raise InvalidRecord(f"expected a dead letter, found a record without the header {COUNT}; is this the topic of the dead letters?")
    at = len(names) - 1 - names[::-1].index(COUNT)  # the last one: the original may be a letter itself
    ours = {name: (value or b"").decode(errors="replace") for name, value in record.headers[at:]}
    if _integer(ours, COUNT) != at:
        raise InvalidRecord(f"expected {at} in the header {COUNT}, found {ours[COUNT]!r}; the headers were changed on their way")
    nulls = set(ours.get(NULLS, "").split(","))
    original = Record(
        _text(ours, TOPIC),
        _integer(ours, PARTITION),
        _integer(ours, OFFSET),
        record.key,
        None if "value" in nulls else record.value,
        tuple((name, None if str(number) in nulls else value) for number, (name, value) in enumerate(record.headers[:at])),
        _integer(ours, TIMESTAMP) * MILLISECOND,
    )
    omitted = _integer(ours, VALUE_BYTES) if VALUE_BYTES in ours else None
    stream, stage, reason, error = (_text(ours, name) for name in (STREAM, STAGE, REASON, ERROR))
    return DeadLetter(original, stream, stage, reason, error, parse_time(_text(ours, TIME)), omitted)


def _nulls(record: Record) -> list[str]:
    headers = [str(at) for at, (_, value) in enumerate(record.headers) if value is None]
    return [*headers, "value"] if record.key is None and record.value is None else headers


def _writable(record: Record) -> bytes | None:
    """Its value; an empty one where there is neither key nor value, which kafka-python refuses."""
    return b"" if record.key is None and record.value is None else record.value


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise InvalidRecord(f"expected a dead letter with {name} as text, found {value!r}; this is none, or one of another version")
    return value


def _integer(fields: Mapping[str, Any], name: str) -> int:
    value = fields.get(name)
    try:
        if isinstance(value, int | str) and not isinstance(value, bool):
            return int(value)
    except ValueError:
        pass
    raise InvalidRecord(f"expected a dead letter with {name} as a whole number, found {value!r}; this is none, or one of another version")


# --- as JSON -----------------------------------------------------------------------------------------------------------------------------


def letter_to_json(letter: DeadLetter) -> str:
    """One line. `key`, `value` and the values of `headers` (pairs, in their order) in base64 or null; `timestamp` in ms since 1970."""
    record = letter.record
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp // MILLISECOND,
        "time": format_time(letter.time),
        "stream": letter.stream,
        "stage": letter.stage,
        "reason": letter.reason,
        "error": letter.error,
        "key": _base64(record.key),
        "value": _base64(record.value),
        "headers": [[name, _base64(value)] for name, value in record.headers],
    }
    if letter.omitted is not None:
        document["value_bytes"] = letter.omitted
    return json.dumps(document, separators=(",", ":"))


def letter_from_json(text: str | bytes) -> DeadLetter:
    """Raises InvalidRecord for anything that `letter_to_json` did not write."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as damage:
        raise InvalidRecord(f"expected a dead letter as JSON, found {text[:80]!r}: {damage}") from None
    if not isinstance(document, dict) or document.get("schema") != SCHEMA or document["schema"] is True:
        raise InvalidRecord(f"expected a dead letter with schema {SCHEMA}, found {text[:80]!r}; it is none, or another version's")
    headers = document.get("headers")
    if not isinstance(headers, list) or not all(isinstance(h, list) and len(h) == 2 and isinstance(h[0], str) for h in headers):
        raise InvalidRecord(f"expected a dead letter with headers as pairs, found {str(headers)[:80]}")
    record = Record(
        _text(document, "topic"),
        _integer(document, "partition"),
        _integer(document, "offset"),
        _bytes(document.get("key")),
        _bytes(document.get("value")),
        tuple((name, _bytes(value)) for name, value in headers),
        _integer(document, "timestamp") * MILLISECOND,
    )
    omitted = _integer(document, "value_bytes") if "value_bytes" in document else None
    stream, stage, reason, error = (_text(document, name) for name in ("stream", "stage", "reason", "error"))
    return DeadLetter(record, stream, stage, reason, error, parse_time(_text(document, "time")), omitted)


def _base64(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


def _bytes(text: object) -> bytes | None:
    if text is None:
        return None
    try:
        if isinstance(text, str):
            return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        pass
    raise InvalidRecord(f"expected base64 or null, found {str(text)[:80]!r}")
