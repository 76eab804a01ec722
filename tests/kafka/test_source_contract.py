"""The Kafka source fulfils the contract of all sources, on a real broker."""

from __future__ import annotations

import pytest
from kafka import KafkaProducer

from streamfuse.sources.kafka import KafkaSource
from tests.kafka.broker import Broker
from tests.kafka.traffic import PATIENCE, source_of
from tests.sources.contract import SourceContract

pytestmark = [pytest.mark.kafka, pytest.mark.usefixtures("transport")]


class KafkaTopics:
    records, ends, resumes = 24, False, True

    def __init__(self, broker: Broker, name: str) -> None:
        self.broker = broker
        self.group = name
        self.topics = {"video": f"{name}.video", "text": f"{name}.text"}
        producer = KafkaProducer(bootstrap_servers=broker.bootstrap, metrics_enabled=False)
        for topic in self.topics.values():
            broker.create_topic(topic)
            for n in range(10):
                producer.send(topic, f"words {n}".encode(), f"room-{n % 2}".encode())
        for value in (None, b"gr\xfc\xdf", b"", b"plain"):
            producer.send(self.topics["text"], value, b"room-0")
        producer.flush(PATIENCE)
        producer.close()

    def source(self) -> KafkaSource:
        return source_of(self.broker, self.topics, self.group)


class TestKafkaSource(SourceContract):
    @pytest.fixture
    def place(self, broker: Broker, unique: str) -> KafkaTopics:
        return KafkaTopics(broker, unique)
