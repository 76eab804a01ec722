"""A backlog on a real broker: topics of unequal weight, read in the order of event time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kafka import KafkaProducer

from streamfuse.codecs import encode_packet
from streamfuse.types import MILLISECOND, SECOND, Encoded, Packet, Position, Revoke
from tests.kafka.broker import Broker
from tests.kafka.rooms import NOON
from tests.kafka.traffic import PATIENCE, Reading, source_of

pytestmark = [pytest.mark.kafka, pytest.mark.anyio, pytest.mark.slow]

SECONDS = 60
EVERY = {"video": 20 * MILLISECOND, "audio": 40 * MILLISECOND, "text": SECOND}
BYTES = {"video": 6_000, "audio": 1_000, "text": 30}


def packets(stream: str, rooms: int) -> Iterator[Packet]:
    for at in range(0, SECONDS * SECOND, EVERY[stream]):
        for room in range(rooms):
            payload = Encoded(b"\xff\xd8\xff" + bytes(BYTES[stream]), "image/jpeg")
            yield Packet(stream, f"room-{room}", NOON + at, 0, payload, Position("", -1), NOON + at, f"{stream}#{room}.{at}")


async def test_it_is_read_in_order_of_event_time_whatever_the_topics_weigh(broker: Broker, unique: str) -> None:
    """With room for a fraction of it, so that partitions are paused and resumed all the while."""
    topics = {stream: f"{unique}.{stream}" for stream in EVERY}
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap, acks="all", linger_ms=20, metrics_enabled=False)
    expected = 0
    for stream, topic in topics.items():
        broker.create_topic(topic, 2, {"retention.ms": "-1"})
        for packet in packets(stream, rooms=4):
            key, value, headers, timestamp = encode_packet(packet)
            producer.send(topic, value, key, list(headers), timestamp_ms=timestamp // MILLISECOND)
            expected += 1
    producer.flush(PATIENCE)
    producer.close()
    async with source_of(broker, topics, unique, buffer_bytes=1024 * 1024) as source:
        reading = Reading(source)
        read = await reading.packets(expected)
    assert not any(isinstance(item, Revoke) for item in reading.items)
    times = [packet.event_time for packet in read]
    assert times == sorted(times)
    assert len({packet.id for packet in read}) == expected
