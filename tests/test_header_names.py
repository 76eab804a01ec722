"""A header name that is not UTF-8 does not stop the reading of its partition."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.errors import CorruptRecordError
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from streamfuse.kafka import header_names
from streamfuse.kafka.header_names import read_any_header_name


class Raw(str):
    """A name of which kafka-python writes these bytes."""

    data: bytes

    def encode(self, *arguments: object) -> bytes:
        return self.data


def raw(data: bytes) -> Raw:
    name = Raw()
    name.data = data
    return name


def batch(records: list[tuple[bytes | None, bytes | None, list[tuple[bytes, bytes | None]]]]) -> DefaultRecordBatch:
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 20)
    for number, (key, value, headers) in enumerate(records):
        assert builder.append(number, 1_000, key, value, [(raw(name), data) for name, data in headers])
    return DefaultRecordBatch(bytes(builder.build()))


anything = st.none() | st.binary(max_size=30)
headers = st.lists(st.tuples(st.binary(max_size=10), anything), max_size=4)


@given(st.lists(st.tuples(anything, anything, headers), min_size=1, max_size=4))
def test_all_but_the_name_is_read_as_it_was_written(
    records: list[tuple[bytes | None, bytes | None, list[tuple[bytes, bytes | None]]]],
) -> None:
    read_any_header_name()
    found = [(one.key, one.value, [(name, value) for name, value in one.headers]) for one in batch(records)]
    assert [(key, value, [data for _, data in described]) for key, value, described in found] == [
        (key, value, [data for _, data in described]) for key, value, described in records
    ]
    for (_, _, read), (_, _, written) in zip(found, records, strict=True):
        try:
            names = [name.decode() for name, _ in written]
        except UnicodeDecodeError:
            assert [len(name.encode()) for name, _ in read] == [len(name) for name, _ in written]
        else:
            assert [name for name, _ in read] == names


def test_it_is_needed_by_this_kafka_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DefaultRecordBatch, "_read_msg", header_names._read_strictly)
    with pytest.raises(CorruptRecordError):
        list(batch([(b"k", b"v", [(b"\xff", b"")])]))
