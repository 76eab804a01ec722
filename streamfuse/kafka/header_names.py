"""Lets kafka-python read past header names that are not UTF-8.

Kafka itself does not look at them, and kafka-python takes a record with such a name for corrupt, at every attempt: one record of a bad
producer would be the end of its partition. Here each byte of such a name that is not ASCII becomes a `?`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kafka.record.default_records import DefaultRecordBatch
from kafka.record.util import decode_varint

_read_strictly = DefaultRecordBatch._read_msg


def read_any_header_name() -> None:
    """From now on, in this process."""
    DefaultRecordBatch._read_msg = _read


def _read(batch: Any) -> Any:
    at = batch._pos
    try:
        return _read_strictly(batch)
    except UnicodeDecodeError:
        for start, end in _names(batch._buffer, at):
            name = batch._buffer[start:end]
            if not name.isascii():
                batch._buffer[start:end] = bytes(byte if byte < 0x80 else 0x3F for byte in name)
        batch._pos = at
        return _read_strictly(batch)


def _names(buffer: bytearray, at: int) -> Iterator[tuple[int, int]]:
    """Where the header names of the record at this place are (record format v2 of the Kafka protocol)."""
    for _ in range(4):  # its length, attributes, timestamp and offset
        _, at = decode_varint(buffer, at)
    for _ in range(2):  # key and value
        length, at = decode_varint(buffer, at)
        at += max(length, 0)
    count, at = decode_varint(buffer, at)
    for _ in range(count):
        length, at = decode_varint(buffer, at)
        yield at, at + length
        length, at = decode_varint(buffer, at + length)
        at += max(length, 0)
