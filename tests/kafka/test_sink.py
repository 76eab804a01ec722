"""The Kafka sink fulfils the contract on a real broker, and other clients can read what it writes."""

from __future__ import annotations

import json
import logging

import anyio
import jsonschema
import pytest
from kafka import KafkaConsumer, TopicPartition

from streamfuse.config import KafkaSinkSettings
from streamfuse.documents import prediction_from_json, prediction_schema
from streamfuse.errors import SinkError
from streamfuse.sinks.kafka import KafkaSink
from streamfuse.types import Prediction
from tests.kafka.broker import Broker
from tests.kafka.traffic import connection
from tests.sinks.contract import SinkContract, prediction

pytestmark = [pytest.mark.kafka, pytest.mark.usefixtures("transport")]


class KafkaTopic:
    def __init__(self, broker: Broker, topic: str) -> None:
        self.broker = broker
        self.topic = topic
        broker.create_topic(topic)

    def sink(self) -> KafkaSink:
        return sink_of(self.broker, self.topic)

    async def predictions(self) -> list[Prediction]:
        consumer = KafkaConsumer(bootstrap_servers=self.broker.bootstrap, auto_offset_reset="earliest", metrics_enabled=False)
        try:
            partition = TopicPartition(self.topic, 0)
            consumer.assign([partition])
            end = consumer.end_offsets([partition])[partition]
            found: list[Prediction] = []
            while consumer.position(partition) < end:
                for records in consumer.poll(1000).values():
                    found += [prediction_from_json(record.value) for record in records]
            return found
        finally:
            consumer.close()


def sink_of(broker: Broker, topic: str = "predictions") -> KafkaSink:
    return KafkaSink(KafkaSinkSettings.model_validate({"type": "kafka", **connection(broker), "topic": topic}))


@pytest.fixture
def topic(broker: Broker, unique: str) -> KafkaTopic:
    return KafkaTopic(broker, unique)


class TestKafkaSink(SinkContract):
    @pytest.fixture
    def place(self, topic: KafkaTopic) -> KafkaTopic:
        return topic


@pytest.mark.anyio
async def test_an_independent_client_reads_predictions_by_the_published_schema(topic: KafkaTopic) -> None:
    async with topic.sink() as sink:
        await sink.publish([prediction()])
    confluent_kafka = pytest.importorskip("confluent_kafka", reason="needs confluent-kafka: pip install 'streamfuse[fast]'")
    consumer = confluent_kafka.Consumer(
        {"bootstrap.servers": topic.broker.bootstrap, "group.id": topic.topic, "auto.offset.reset": "earliest"}
    )
    consumer.subscribe([topic.topic])
    message = consumer.poll(30)
    consumer.close()
    assert message is not None
    assert message.error() is None
    jsonschema.validate(json.loads(message.value() or b""), prediction_schema())
    headers = dict(message.headers() or [])
    assert (message.key(), headers["ce_type"], headers["content-type"]) == (b"room-1", b"streamfuse.prediction", b"application/json")
    assert message.timestamp() == (confluent_kafka.TIMESTAMP_CREATE_TIME, prediction().produced_at // 1_000_000)


@pytest.mark.anyio
async def test_an_absent_topic_is_waited_for_and_named_in_the_log(broker: Broker, unique: str, caplog: pytest.LogCaptureFixture) -> None:
    published = anyio.Event()

    async def publish() -> None:
        async with sink_of(broker, unique) as sink:
            await sink.publish([prediction()])
        published.set()

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            with caplog.at_level(logging.WARNING, "streamfuse"):
                tasks.start_soon(publish)
                while f"expected topic {unique} at {broker.bootstrap}, found none" not in caplog.text:
                    await anyio.sleep(0.05)
            place = KafkaTopic(broker, unique)
            await published.wait()
    assert await place.predictions() == [prediction()]


@pytest.mark.anyio
async def test_a_prediction_too_large_for_the_topic_is_a_sink_error(broker: Broker, unique: str) -> None:
    broker.create_topic(unique, configs={"max.message.bytes": "200"})
    async with sink_of(broker, unique) as sink:
        with pytest.raises(SinkError, match=r"raise max\.message\.bytes of the topic"):
            await sink.publish([prediction()])


@pytest.mark.anyio
async def test_publishing_waits_for_a_broker_that_stands_still(topic: KafkaTopic) -> None:
    async with topic.sink() as sink, anyio.create_task_group() as tasks:
        await sink.publish([prediction(0)])
        done = anyio.Event()

        async def publish() -> None:
            await sink.publish([prediction(1)])
            done.set()

        with topic.broker.stopped():
            tasks.start_soon(publish)
            with anyio.move_on_after(0.5):
                await done.wait()
            assert not done.is_set()
        with anyio.fail_after(60):
            await done.wait()
    assert await topic.predictions() == [prediction(0), prediction(1)]
