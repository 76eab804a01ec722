"""Watermarks in a compacted topic: those that were committed come back, whatever was written beside them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamfuse.errors import InvalidRecord
from streamfuse.kafka.watermark_log import LogRecord, WatermarkLog, version_of


class Topic:
    """A compacted topic at its most forgetful: of each key the last record only."""

    def __init__(self) -> None:
        self.last: dict[bytes, bytes | None] = {}

    def append(self, records: list[LogRecord]) -> None:
        for key, value in records:
            self.last.pop(key, None)
            self.last[key] = value

    @property
    def records(self) -> list[LogRecord]:
        return [LogRecord(key, value) for key, value in self.last.items()]


def test_what_was_committed_comes_back() -> None:
    topic, log = Topic(), WatermarkLog()
    version, records = log.write({"a": 10, "b": 20})
    topic.append(records)
    assert WatermarkLog(topic.records, version).watermarks() == {"a": 10, "b": 20}
    assert version_of(topic.records[-1]) == version


def test_what_was_written_and_not_committed_does_not_hold() -> None:
    topic, log = Topic(), WatermarkLog()
    first, records = log.write({"a": 10, "b": 20})
    topic.append(records)
    log.settle(first)
    topic.append(log.write({"a": 11, "b": 20, "c": 1})[1])
    topic.append(log.write({"a": 12, "c": 2})[1])
    assert WatermarkLog(topic.records, first).watermarks() == {"a": 10, "b": 20}


def test_only_what_changed_is_written() -> None:
    log = WatermarkLog()
    version, _ = log.write({"a": 10, "b": 20})
    log.settle(version)
    _, records = log.write({"a": 10, "b": 21})
    assert [record.key for record in records] == [b"kb", b"v"]


def test_a_forgotten_key_goes_and_then_its_record_too() -> None:
    topic, log = Topic(), WatermarkLog()
    for watermarks in ({"a": 1}, {}, {}, {}):
        version, records = log.write(watermarks)
        topic.append(records)
        log.settle(version)
        assert WatermarkLog(topic.records, version).watermarks() == watermarks
    assert topic.last[b"ka"] is None


@pytest.mark.parametrize(
    "record", [(b"x", b"{}"), (b"ka", b"{}"), (b"ka", b"[]"), (b"ka", b'{"w":[]}'), (b"ka", b'{"w":[[1]]}'), (b"ka", b"\xff")]
)
def test_a_record_of_somebody_else_is_refused(record: tuple[bytes, bytes]) -> None:
    with pytest.raises(InvalidRecord, match="a topic of their own"):
        WatermarkLog([LogRecord(*record)], 1)


STEP = st.tuples(
    st.dictionaries(st.sampled_from("abcd"), st.integers(0, 5), max_size=4),
    st.sampled_from(["committed", "not committed", "unknown, committed", "crash before the commit", "crash in writing", "crash after it"]),
    st.integers(0, 5),
)


@given(st.lists(STEP, max_size=20))
def test_the_committed_watermarks_come_back_after_any_crash(steps: list[tuple[dict[str, int], str, int]]) -> None:
    topic, log = Topic(), WatermarkLog()
    committed: dict[str, int] = {}
    version = 0
    for watermarks, fate, cut in steps:
        new, records = log.write(watermarks)
        assert new > version
        topic.append(records[:cut] if fate == "crash in writing" else records)
        if fate in ("committed", "unknown, committed", "crash after it"):
            committed, version = watermarks, new
        if fate == "committed":
            log.settle(new)
        if fate.startswith("crash"):
            log = WatermarkLog(topic.records, version)
            assert log.watermarks() == committed
    assert WatermarkLog(topic.records, version).watermarks() == committed
