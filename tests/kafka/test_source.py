"""The Kafka source on a real broker: what it reads, where it resumes, what it refuses."""

from __future__ import annotations

import logging

import anyio
import pytest
from kafka import KafkaProducer

from streamfuse.clock import SystemClock
from streamfuse.codecs import encode_packet
from streamfuse.config import KafkaConnection, KafkaSourceSettings
from streamfuse.errors import ConfigError, SourceError
from streamfuse.feeder import KafkaPublisher
from streamfuse.sources.kafka import KafkaSource
from streamfuse.types import SECOND, Cursor, Encoded, Loss, Offsets, Outcome, Packet, Position
from tests.kafka.broker import Broker
from tests.kafka.traffic import PATIENCE, Reading, after, connection, produce, source_of

pytestmark = [pytest.mark.kafka, pytest.mark.anyio, pytest.mark.usefixtures("transport")]

NOON = 1_777_636_800 * SECOND
JPEG = b"\xff\xd8\xff\xe0 not much of a picture"


async def test_packets_of_our_own_publisher_arrive_as_they_were(broker: Broker, unique: str) -> None:
    broker.create_topic(unique)
    sent = [
        Packet("audio", "room", NOON + n, 40, Encoded(b"\0\1" * n, "audio/pcm", 16_000, 1), Position(f"{unique}/0", n), NOON, f"s#{n}")
        for n in range(50)
    ]
    async with KafkaPublisher(KafkaConnection.model_validate(connection(broker)), {"audio": unique}) as publish:
        for packet in sent:
            await publish(unique, encode_packet(packet))
    async with source_of(broker, {"audio": unique}, unique) as source:
        assert await Reading(source).packets(50) == sent


async def test_records_that_know_nothing_of_cloud_events_are_packets(broker: Broker, unique: str) -> None:
    broker.create_topic(unique)
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap)
    producer.send(unique, JPEG, b"room-1", timestamp_ms=NOON // 1_000_000).get(PATIENCE)
    producer.close()
    async with source_of(broker, {"video": unique}, unique) as source:
        (packet,) = await Reading(source).packets(1)
    assert packet == Packet("video", "room-1", NOON, 0, Encoded(JPEG, "image/jpeg"), Position(f"{unique}/0", 0), NOON)


async def test_an_independent_client_can_produce_to_us(broker: Broker, unique: str) -> None:
    confluent_kafka = pytest.importorskip("confluent_kafka", reason="needs confluent-kafka: pip install 'streamfuse[fast]'")
    broker.create_topic(unique)
    headers = {
        "ce_specversion": "1.0",
        "ce_id": "7",
        "ce_source": "//microphone",
        "ce_type": "chunk",
        "ce_time": "2026-05-01T14:00:00.000000001+02:00",
        "content-type": "audio/L16;rate=8000;channels=1",
    }
    producer = confluent_kafka.Producer({"bootstrap.servers": broker.bootstrap})
    producer.produce(unique, b"\0" * 160, b"room-1", headers=headers, timestamp=NOON // 1_000_000 + 5)
    assert producer.flush(PATIENCE) == 0
    async with source_of(broker, {"audio": unique}, unique) as source:
        (packet,) = await Reading(source).packets(1)
    assert packet == Packet(
        stream="audio",
        key="room-1",
        event_time=NOON + 1,
        duration=10_000_000,
        payload=Encoded(b"\0" * 160, "audio/l16", 8000, 1),
        position=Position(f"{unique}/0", 0),
        arrival_time=NOON + 5_000_000,
        id="//microphone#7",
    )


async def test_an_independent_client_reads_the_packets_that_we_publish(broker: Broker, unique: str) -> None:
    confluent_kafka = pytest.importorskip("confluent_kafka", reason="needs confluent-kafka: pip install 'streamfuse[fast]'")
    broker.create_topic(unique)
    packet = Packet("text", "room", NOON, 0, "grüß Gott", Position("file/0", 3), NOON, "captions#3")
    async with KafkaPublisher(KafkaConnection.model_validate(connection(broker)), {"text": unique}) as publish:
        await publish(unique, encode_packet(packet))
    consumer = confluent_kafka.Consumer({"bootstrap.servers": broker.bootstrap, "group.id": unique, "auto.offset.reset": "earliest"})
    consumer.subscribe([unique])
    message = consumer.poll(PATIENCE)
    consumer.close()
    assert (message.key(), message.value()) == (b"room", "grüß Gott".encode())
    assert dict(message.headers())["ce_time"] == b"2026-05-01T12:00:00.000000000Z"


async def test_a_record_that_cannot_be_a_packet_is_a_loss_and_its_neighbours_are_not(broker: Broker, unique: str) -> None:
    broker.create_topic(unique)
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap)
    for value in (b"before", b"gr\xfc\xdf", None, b"x" * 2000, b"after"):
        producer.send(unique, value, b"room")
    producer.flush()
    producer.close()
    async with source_of(broker, {"text": unique}, unique, max_record_bytes=1000) as source:
        reading = Reading(source)
        await reading.packets(2)
    assert reading.texts == ["before", "after"]
    losses = [item for item in reading.items if isinstance(item, Loss)]
    assert [loss.reason for loss in losses] == [Outcome.UNDECODABLE, Outcome.UNDECODABLE, Outcome.QUARANTINED]


# --- where it begins ---


async def test_without_a_commit_the_latest_begins_at_the_end(broker: Broker, unique: str) -> None:
    broker.create_topic(unique)
    produce(broker, unique, ["before"])
    async with source_of(broker, {"text": unique}, unique, start="latest") as source:
        reading = Reading(source)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(reading.forever)
            with anyio.fail_after(PATIENCE):
                while not reading.texts:
                    await anyio.to_thread.run_sync(produce, broker, unique, ["after"])
            tasks.cancel_scope.cancel()
    assert set(reading.texts) == {"after"}


async def test_without_a_commit_an_instant_begins_with_the_first_record_of_that_time(broker: Broker, unique: str) -> None:
    broker.create_topic(unique, 2, {"retention.ms": "-1"})  # the records are of a day long ago
    for second in range(4):
        produce(broker, unique, [str(second)], partition=0, timestamp=NOON // 1_000_000 + 1000 * second)
    produce(broker, unique, ["old"], partition=1, timestamp=NOON // 1_000_000)
    async with source_of(broker, {"text": unique}, unique, start="2026-05-01T14:00:01.5+02:00") as source:
        reading = Reading(source)
        await reading.packets(2)
        produce(broker, unique, ["new"], partition=1)
        await reading.packets(3)
    assert reading.texts == ["2", "3", "new"]


async def test_where_an_instant_began_is_committed_at_once(broker: Broker, unique: str) -> None:
    broker.create_topic(unique, configs={"retention.ms": "-1"})
    for second in range(4):
        produce(broker, unique, [str(second)], timestamp=NOON // 1_000_000 + 1000 * second)
    async with source_of(broker, {"text": unique}, unique, start="2026-05-01T12:00:02Z") as source:
        await Reading(source).packets(2)
    async with source_of(broker, {"text": unique}, unique, start="earliest") as source:
        reading = Reading(source)
        await reading.packets(2)
    assert reading.texts == ["2", "3"]


async def test_a_crash_before_the_first_commit_loses_nothing_that_came_since_the_start(broker: Broker, unique: str) -> None:
    broker.create_topic(unique)
    async with source_of(broker, {"text": unique}, unique, start="latest") as source:
        reading = Reading(source)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(reading.forever)
            with anyio.fail_after(PATIENCE):
                while not reading.texts:
                    await anyio.to_thread.run_sync(produce, broker, unique, ["heard"])
            tasks.cancel_scope.cancel()
    first = reading.seen[0].position.offset
    async with source_of(broker, {"text": unique}, unique, start="latest") as source:
        again = Reading(source)
        await again.packets(1)
    assert again.seen[0].position.offset == first


async def test_it_resumes_exactly_at_the_first_record_still_needed(broker: Broker, unique: str) -> None:
    broker.create_topic(unique)
    produce(broker, unique, [str(n) for n in range(10)])
    committed = Cursor({f"{unique}/0": Offsets(4, 8)}, {"room": NOON})
    async with source_of(broker, {"text": unique}, unique) as source:
        await Reading(source).packets(10)
        await source.commit(committed)
    async with source_of(broker, {"text": unique}, unique) as source:
        reading = Reading(source)
        await reading.packets(6)
    assert reading.resumed == [committed]
    assert reading.texts == ["4", "5", "6", "7", "8", "9"]


async def test_the_cursor_comes_before_the_records(broker: Broker, unique: str) -> None:
    broker.create_topic(unique)
    produce(broker, unique, ["0", "1"])
    async with source_of(broker, {"text": unique}, unique) as source:
        first, _ = await Reading(source).packets(2)
        await source.commit(after(first.position, {"room": NOON}))
    async with source_of(broker, {"text": unique}, unique) as source:
        reading = Reading(source)
        await reading.packets(1)
    assert [type(item).__name__ for item in reading.items] == ["Resume", "Packet"]


async def test_a_cursor_never_goes_back(broker: Broker, unique: str) -> None:
    broker.create_topic(unique)
    produce(broker, unique, [str(n) for n in range(10)])
    async with source_of(broker, {"text": unique}, unique) as source:
        await Reading(source).packets(10)
        await source.commit(Cursor({f"{unique}/0": Offsets(8, 10)}, {"room": NOON}))
        await source.commit(Cursor({f"{unique}/0": Offsets(2, 5)}, {"room": NOON - 1}))
    async with source_of(broker, {"text": unique}, unique) as source:
        reading = Reading(source)
        await reading.packets(2)
    assert reading.resumed == [Cursor({f"{unique}/0": Offsets(8, 10)}, {"room": NOON})]


async def test_partitions_of_other_sources_are_passed_over(broker: Broker, unique: str) -> None:
    broker.create_topic(unique)
    async with source_of(broker, {"text": unique}, unique) as source:
        with anyio.fail_after(PATIENCE):
            await source.commit(Cursor({"somewhere/0": Offsets(1, 1)}, {"elsewhere": NOON}))


# --- what it refuses ---


def test_a_start_that_is_no_instant_is_refused() -> None:
    with pytest.raises(ConfigError, match="start: expected earliest, latest or an instant such as"):
        KafkaSource(KafkaSourceSettings(type="kafka", topics={"text": "text"}, start="yesterday"), SystemClock())


async def test_unequal_partition_counts_are_refused_with_the_fix(broker: Broker, unique: str) -> None:
    broker.create_topic(f"{unique}.video", 2)
    broker.create_topic(f"{unique}.text", 3)
    with pytest.raises(
        SourceError, match=rf"{unique}\.text has 3, {unique}\.video has 2; .*--alter --partitions 3 --topic {unique}\.video"
    ):
        async with source_of(broker, {"video": f"{unique}.video", "text": f"{unique}.text"}, unique):
            pass


async def test_a_missing_crc32c_is_refused_with_the_fix(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kafka.record.util.crc32c_c", None)
    with pytest.raises(SourceError, match=r"pip install 'kafka-python\[crc32c\]'"):
        async with source_of(broker, {"text": "any"}, transport="kafka-python"):
            pass


async def test_an_absent_topic_is_waited_for_and_named_in_the_log(broker: Broker, unique: str, caplog: pytest.LogCaptureFixture) -> None:
    reading: list[Reading] = []

    async def read() -> None:
        async with source_of(broker, {"text": unique}, unique) as source:
            reading.append(Reading(source))
            await reading[0].packets(1)

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            with caplog.at_level(logging.WARNING, "streamfuse"):
                tasks.start_soon(read)
                while f"expected topic {unique} at {broker.bootstrap}, found none" not in caplog.text:
                    await anyio.sleep(0.05)
            broker.create_topic(unique)
            await anyio.to_thread.run_sync(produce, broker, unique, ["there"])
    assert reading[0].texts == ["there"]


# --- backpressure ---


async def test_nothing_is_lost_while_partitions_are_paused(broker: Broker, unique: str) -> None:
    broker.create_topic(unique, 2)
    for partition in range(2):
        produce(broker, unique, [f"{partition}:{n:04d}" + "x" * 1000 for n in range(2000)], partition=partition)
    async with source_of(broker, {"text": unique}, unique, buffer_bytes=100_000) as source:
        reading = Reading(source)
        with anyio.fail_after(PATIENCE):
            while not source.paused:
                await anyio.sleep(0.05)
        assert 100_000 <= source.buffered < 1_000_000  # of 4 MB; one poll brings up to 500 records
        await reading.packets(4000)
    for partition in range(2):
        texts = [str(text)[:6] for text in reading.texts if str(text).startswith(f"{partition}:")]
        assert texts == [f"{partition}:{n:04d}" for n in range(2000)]
