"""Where kafka-python alone would not get over a failure."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from streamfuse.codecs import WireRecord
from streamfuse.config import KafkaConnection
from streamfuse.kafka.clients import make_producer
from streamfuse.kafka.kafka_python import KafkaPythonProducer
from streamfuse.kafka.transport import TransportError
from tests.kafka.broker import Broker
from tests.kafka.traffic import PATIENCE

pytestmark = pytest.mark.kafka


def test_a_producer_outlives_a_leader_that_is_no_broker_any_more(broker: Broker, unique: str) -> None:
    """Of a cluster, metadata may for a moment name a leader that is not among its brokers; kafka-python's sender then spun for ever."""
    broker.create_topic(unique)
    producer = make_producer(KafkaConnection(bootstrap=broker.bootstrap))
    assert isinstance(producer, KafkaPythonProducer)
    try:
        send(producer, unique)(PATIENCE)
        metadata = producer._producer._metadata
        (partition,) = metadata._partitions[unique].values()
        partition.leader_id = 99
        assert send(producer, unique)(10) is None
    finally:
        producer.close(1)


def send(producer: KafkaPythonProducer, topic: str) -> Callable[[float], TransportError | None]:
    """Sends a record, and gives what waits until it is durable and tells the error."""
    durable = threading.Event()
    errors: list[TransportError | None] = []

    def done(error: TransportError | None) -> None:
        errors.append(error)
        durable.set()

    producer.send(topic, WireRecord(b"key", b"value", (), 0), done)

    def wait(seconds: float) -> TransportError | None:
        assert durable.wait(seconds), f"expected the record to be durable within {seconds:g} s"
        return errors[0]

    return wait
