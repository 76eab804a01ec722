"""A line is a packet, or a loss whose sentence says which line, what was expected, what was found and what to change."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamfuse.sources.lines import LineReader, LineSplitter
from streamfuse.types import SECOND, Loss, Outcome, Packet, Position

READER = LineReader("notes.jsonl", "text", "default", frozenset({"text", "notes"}), 1000)
AT = Position("notes.jsonl#0", 6)


def read(line: str | bytes, arrival_time: int | None = None) -> Packet | Loss | None:
    return READER.read(line if isinstance(line, bytes) else line.encode(), AT, arrival_time)


def test_a_line_needs_a_text_and_an_event_time() -> None:
    assert read('{"text": "hi", "event_time": 5}') == Packet("text", "default", 5, 0, "hi", AT, 5)


def test_a_line_may_say_everything() -> None:
    line = '{"text": "hi", "event_time": "2026-05-01T12:00:00.5Z", "key": "k", "stream": "notes", "duration": "2s", "id": "x", "more": 1}'
    assert read(line, 7) == Packet("notes", "k", 1_777_636_800 * SECOND + SECOND // 2, 2 * SECOND, "hi", AT, 7, "x")


@pytest.mark.parametrize("line", ["", "  ", "\t"])
def test_a_blank_line_is_no_record(line: str) -> None:
    assert read(line) is None


@pytest.mark.parametrize(
    ("line", "reason", "sentence"),
    [
        ("no json", Outcome.UNDECODABLE, "expected one JSON object"),
        ("[1]", Outcome.UNDECODABLE, "expected a JSON object"),
        ('{"text": "a", "event_time": NaN}', Outcome.UNDECODABLE, "NaN is not JSON"),
        ('{"text": "a", "text": "b", "event_time": 1}', Outcome.UNDECODABLE, "a field stands in it twice"),
        ("[" * 900, Outcome.UNDECODABLE, "expected one JSON object"),
        (b'{"text": "\xff", "event_time": 1}', Outcome.UNDECODABLE, "expected UTF-8, found the byte 0xff at 10"),
        ('{"text": "\\ud800", "event_time": 1}', Outcome.UNDECODABLE, "half of a surrogate pair"),
        ('{"event_time": 1}', Outcome.QUARANTINED, "text: expected text, found nothing"),
        ('{"text": 5, "event_time": 1}', Outcome.QUARANTINED, "text: expected text, found 5; put it in quotes"),
        ('{"text": "a"}', Outcome.QUARANTINED, "event_time: expected an instant, found none; say when it happened"),
        ('{"text": "a", "timestamp": 1}', Outcome.QUARANTINED, "rename 'timestamp' to 'event_time'"),
        ('{"text": "a", "event_time": 1.5}', Outcome.QUARANTINED, "multiply seconds by 1000000000"),
        ('{"text": "a", "event_time": true}', Outcome.QUARANTINED, "event_time: expected text in ISO 8601 or whole ns"),
        ('{"text": "a", "event_time": -1}', Outcome.QUARANTINED, "from 1970 to 2262, found -1"),
        ('{"text": "a", "event_time": 9223372036854775808}', Outcome.QUARANTINED, "from 1970 to 2262"),
        ('{"text": "a", "event_time": ' + "9" * 900 + "}", Outcome.QUARANTINED, "from 1970 to 2262"),
        ('{"text": "a", "event_time": "yesterday"}', Outcome.QUARANTINED, "event_time: expected an RFC 3339 time"),
        ('{"text": "a", "event_time": "2026-05-01T12:00:00"}', Outcome.QUARANTINED, "event_time: expected an RFC 3339 time"),
        ('{"text": "a", "event_time": 1, "duration": -1}', Outcome.QUARANTINED, "duration: expected ns from 0 to an hour"),
        ('{"text": "a", "event_time": 1, "duration": "soon"}', Outcome.QUARANTINED, "duration: expected a duration with its unit"),
        ('{"text": "a", "event_time": 1, "duration": 3600000000001}', Outcome.QUARANTINED, "to an hour"),
        ('{"text": "a", "event_time": 1, "key": ""}', Outcome.QUARANTINED, "key: expected at least one letter"),
        ('{"text": "a", "event_time": 1, "stream": "video"}', Outcome.QUARANTINED, "stream: expected one of notes, text, found 'video'"),
        ('{"text": "a", "event_time": 1, "id": 7}', Outcome.QUARANTINED, "id: expected text, found 7"),
        ('{"text": "' + "a" * 1000 + '", "event_time": 1}', Outcome.QUARANTINED, "raise max_line_bytes"),
    ],
)
def test_a_bad_line_is_a_loss_that_says_why(line: str | bytes, reason: Outcome, sentence: str) -> None:
    loss = read(line)
    assert isinstance(loss, Loss)
    assert loss.reason is reason
    assert loss.detail.startswith("notes.jsonl, line 7: ")
    assert sentence in loss.detail
    assert loss.position == AT


def test_a_loss_keeps_the_key_and_the_time_that_were_readable() -> None:
    loss = read('{"text": "a", "event_time": 5, "key": "room-1", "duration": -1}')
    assert isinstance(loss, Loss)
    assert (loss.key, loss.event_time) == ("room-1", 5)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_no_line_raises(line: bytes) -> None:
    assert read(line) is None or isinstance(read(line), Packet | Loss)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["text", "event_time", "key", "stream", "duration", "id"]), st.none() | st.integers() | st.text()))
def test_no_object_raises(fields: dict[str, object]) -> None:
    assert isinstance(read(json.dumps(fields)), Packet | Loss)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=30).map(lambda b: b.replace(b"\n", b"").rstrip(b"\r"))), st.lists(st.integers(1, 20)))
def test_lines_are_the_same_however_the_bytes_come(lines: list[bytes], cuts: list[int]) -> None:
    data, splitter, found = b"\n".join(lines), LineSplitter(10), list[bytes]()
    for cut in cuts:
        found.extend(splitter.feed(data[:cut]))
        data = data[cut:]
    found.extend([*splitter.feed(data), *splitter.end()])
    expected = [line[:11] if len(line) > 10 else line for line in lines]
    while expected and not expected[-1]:
        expected.pop()  # the end of the file ends a line only where there is one
    assert [line for line in found if line] == [line for line in expected if line]
    assert len(found) in (len(expected), len(lines) - 1, len(lines))
