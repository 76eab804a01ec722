"""Producers that know nothing of CloudEvents, nor of us: the config says what their records are."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from kafka import KafkaProducer

from streamfuse.models.decode import decode
from streamfuse.types import MILLISECOND, SECOND, Audio, Encoded, Image, Packet, Position
from tests.kafka.broker import Broker
from tests.kafka.traffic import PATIENCE, Reading, source_of

pytestmark = [pytest.mark.kafka, pytest.mark.anyio]

NOON = 1_777_636_800 * SECOND
NOON_MS = NOON // MILLISECOND
JPEG = cv2.imencode(".jpg", np.full((8, 8, 3), 200, np.uint8))[1].tobytes()
TONE = (np.sin(np.arange(640) / 5) * 8000).astype("<i2")
FORMATS = {
    "video": {"media_type": "image/jpeg", "duration": "66ms"},
    "audio": {"media_type": "audio/pcm", "samplerate": 16_000, "channels": 1, "encoding": "s16be"},
    "text": {"duration": "2s"},
}


async def packets(broker: Broker, topics: dict[str, str], group: str) -> dict[str, Packet]:
    async with source_of(broker, topics, group, formats=FORMATS) as source:
        return {packet.stream: packet for packet in await Reading(source).packets(3)}


def check(found: dict[str, Packet], topics: dict[str, str]) -> None:
    sound = Encoded(TONE.astype(">i2").tobytes(), "audio/pcm", 16_000, 1, "s16be")
    at = {stream: Position(f"{topic}/0", 0) for stream, topic in topics.items()}
    assert found == {
        "video": Packet("video", "room-1", NOON, 66 * MILLISECOND, Encoded(JPEG, "image/jpeg"), at["video"], NOON),
        "audio": Packet("audio", "room-1", NOON + 5 * MILLISECOND, 40 * MILLISECOND, sound, at["audio"], NOON + 5 * MILLISECOND),
        "text": Packet("text", "room-1", NOON + SECOND, 2 * SECOND, "grüß Gott", at["text"], NOON + SECOND),
    }
    picture, heard = (decode(found[stream], kind, max_pixels=1000) for stream, kind in (("video", "image"), ("audio", "audio")))
    assert isinstance(picture, Image)
    assert picture.pixels.shape == (8, 8, 3)
    assert isinstance(heard, Audio)
    assert np.array_equal(heard.samples[:, 0], TONE)


async def test_a_plain_kafka_python_producer_is_understood_by_the_config_alone(broker: Broker, unique: str) -> None:
    topics = {stream: f"{unique}.{stream}" for stream in FORMATS}
    for topic in topics.values():
        broker.create_topic(topic)
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap)
    producer.send(topics["video"], JPEG, b"room-1", timestamp_ms=NOON_MS)
    producer.send(topics["audio"], TONE.astype(">i2").tobytes(), b"room-1", timestamp_ms=NOON_MS + 5)
    producer.send(topics["text"], "grüß Gott".encode(), b"room-1", timestamp_ms=NOON_MS + 1000)
    producer.flush(PATIENCE)
    producer.close()
    check(await packets(broker, topics, unique), topics)


async def test_a_plain_confluent_producer_is_understood_by_the_config_alone(broker: Broker, unique: str) -> None:
    confluent_kafka = pytest.importorskip("confluent_kafka", reason="needs confluent-kafka: pip install 'streamfuse[fast]'")
    topics = {stream: f"{unique}.{stream}" for stream in FORMATS}
    for topic in topics.values():
        broker.create_topic(topic)
    producer = confluent_kafka.Producer({"bootstrap.servers": broker.bootstrap})
    headers = [("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"), ("shard", None)]
    producer.produce(topics["video"], JPEG, "room-1", timestamp=NOON_MS, headers=headers)
    producer.produce(topics["audio"], TONE.astype(">i2").tobytes(), "room-1", timestamp=NOON_MS + 5)
    producer.produce(topics["text"], "grüß Gott", "room-1", timestamp=NOON_MS + 1000)
    assert producer.flush(PATIENCE) == 0
    check(await packets(broker, topics, unique), topics)
