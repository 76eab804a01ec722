"""Several sources of one group, crashes and broker failures: every record is read, and by whom the items tell."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from streamfuse.codecs import partition_name
from streamfuse.types import SECOND, Cursor, Offsets, Resume, Revoke
from tests.kafka.broker import Broker
from tests.kafka.test_sink import KafkaTopic, sink_of
from tests.kafka.traffic import PATIENCE, Reading, after, produce, source_of
from tests.sinks.contract import prediction

pytestmark = [pytest.mark.kafka, pytest.mark.anyio, pytest.mark.usefixtures("transport")]

NOON = 1_777_636_800 * SECOND
ROOT = Path(__file__).parents[2]


def partitions_of(reading: Reading) -> set[str]:
    return {packet.position.partition for packet in reading.seen}


async def test_all_topics_of_a_key_land_on_one_replica(broker: Broker, unique: str) -> None:
    topics = {"video": f"{unique}.video", "audio": f"{unique}.audio"}
    for topic in topics.values():
        broker.create_topic(topic, 4)
    rooms = [f"room-{n}" for n in range(20)]
    async with source_of(broker, topics, unique) as one, source_of(broker, topics, unique) as other, anyio.create_task_group() as tasks:
        readings = [Reading(one), Reading(other)]
        for reading in readings:
            tasks.start_soon(reading.forever)
        with anyio.fail_after(PATIENCE):
            while len(one.partitions) != 4 or len(other.partitions) != 4:
                await anyio.sleep(0.05)
        for reading in readings:
            reading.items.clear()
        for topic in topics.values():
            for room in rooms:
                await anyio.to_thread.run_sync(produce, broker, topic, [room], room)
        with anyio.fail_after(PATIENCE):
            while sum(len(reading.seen) for reading in readings) < 40:
                await anyio.sleep(0.05)
        tasks.cancel_scope.cancel()
    homes = [{(packet.key, packet.stream) for packet in reading.seen} for reading in readings]
    assert {key for key, _ in homes[0]} & {key for key, _ in homes[1]} == set()
    assert len(homes[0]) + len(homes[1]) == 40
    assert homes[0]
    assert homes[1]


async def test_a_rebalance_revokes_what_goes_and_resumes_it_where_it_went(broker: Broker, unique: str) -> None:
    broker.create_topic(unique, 2)
    for partition in range(2):
        produce(broker, unique, [str(n) for n in range(5)], key=f"room-{partition}", partition=partition)
    async with source_of(broker, {"text": unique}, unique) as one, anyio.create_task_group() as tasks:
        first = Reading(one)
        await first.packets(10)
        offsets = {partition_name(unique, p): Offsets(3, 5) for p in range(2)}
        await one.commit(Cursor(offsets, {"room-0": NOON, "room-1": NOON + 1}))
        tasks.start_soon(first.forever)
        async with source_of(broker, {"text": unique}, unique) as other:
            second = Reading(other)
            await second.packets(2)
            with anyio.fail_after(PATIENCE):
                while not first.revoked:
                    await anyio.sleep(0.05)
        (moved,) = first.revoked
        number = int(moved[-1])
        assert second.resumed == [Cursor({moved: Offsets(3, 5)}, {f"room-{number}": NOON + number})]
        assert second.texts == ["3", "4"]
        tasks.cancel_scope.cancel()
    assert partitions_of(second) == {moved}


async def test_what_a_replica_keeps_in_a_rebalance_goes_on_without_a_break(broker: Broker, unique: str) -> None:
    broker.create_topic(unique, 2)
    async with source_of(broker, {"text": unique}, unique) as one, anyio.create_task_group() as tasks:
        first = Reading(one)
        tasks.start_soon(first.forever)
        sent = 0
        with anyio.fail_after(PATIENCE):
            async with source_of(broker, {"text": unique}, unique):
                while not first.revoked:
                    for partition in range(2):
                        await anyio.to_thread.run_sync(produce, broker, unique, [str(sent)], "room", partition)
                    sent += 1
            (moved,) = first.revoked
            kept = partition_name(unique, 1 - int(moved[-1]))
            while len(texts := [packet.payload for packet in first.seen if packet.position.partition == kept]) < sent:
                await anyio.sleep(0.05)
        tasks.cancel_scope.cancel()
    assert texts == [str(n) for n in range(sent)]
    resumed = [item for item in first.items if isinstance(item, Resume) and kept in item.cursor.offsets]
    assert resumed == []


async def test_no_commit_for_a_partition_that_went(broker: Broker, unique: str) -> None:
    broker.create_topic(unique, 2)
    for partition in range(2):
        produce(broker, unique, [str(n) for n in range(5)], partition=partition)
    async with source_of(broker, {"text": unique}, unique) as one, anyio.create_task_group() as tasks:
        first = Reading(one)
        await first.packets(10)
        tasks.start_soon(first.forever)
        async with source_of(broker, {"text": unique}, unique) as other:
            second = Reading(other)
            await second.packets(5)
            with anyio.fail_after(PATIENCE):
                while not first.revoked:
                    await anyio.sleep(0.05)
                (moved,) = first.revoked
                await one.commit(Cursor({moved: Offsets(5, 5)}, {}))
        tasks.cancel_scope.cancel()
    async with source_of(broker, {"text": unique}, unique) as source:
        again = Reading(source)
        await again.packets(10)
    assert again.resumed == [Cursor({partition_name(unique, p): Offsets(0, 0) for p in range(2)}, {})]


CRASH = """
import sys, anyio
from streamfuse.clock import SystemClock
from streamfuse.config import KafkaSourceSettings
from streamfuse.sources.kafka import KafkaSource
from streamfuse.types import Cursor, Offsets, Packet

async def main(bootstrap, topic, transport):
    connection = {"bootstrap": bootstrap, "transport": transport}
    settings = KafkaSourceSettings(type="kafka", topics={"text": topic}, group=topic, start="earliest", **connection)
    seen = 0
    async with KafkaSource(settings, SystemClock()) as source:
        async for batch in source.batches():
            seen += sum(isinstance(item, Packet) for item in batch)
            if seen >= 100:
                await source.commit(Cursor({f"{topic}/0": Offsets(30, 100)}, {"room": 5}))
                print("committed", flush=True)

anyio.run(main, *sys.argv[1:])
"""


async def test_a_killed_replica_loses_nothing_and_resumes_at_what_is_needed(broker: Broker, unique: str, transport: str) -> None:
    broker.create_topic(unique)
    produce(broker, unique, [str(n) for n in range(100)])
    child = subprocess.Popen(
        [sys.executable, "-c", CRASH, broker.bootstrap, unique, transport],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=dict(os.environ),
    )
    assert child.stdout is not None
    with child.stdout:
        assert await anyio.to_thread.run_sync(child.stdout.readline) == "committed\n"
        child.send_signal(signal.SIGKILL)
        child.wait()
    produce(broker, unique, [str(n) for n in range(100, 120)])
    async with source_of(broker, {"text": unique}, unique) as source:
        reading = Reading(source)
        await reading.packets(90)
    assert reading.resumed == [Cursor({f"{unique}/0": Offsets(30, 100)}, {"room": 5})]
    assert reading.texts == [str(n) for n in range(30, 120)]


@pytest.mark.slow
async def test_a_broker_that_is_killed_and_comes_back_loses_nothing(own_broker: Broker) -> None:
    with own_broker as broker:
        broker.create_topic("text")
        produce(broker, "text", [str(n) for n in range(50)])
        # librdkafka gives up its partitions itself when it has not heard of the group for so long
        async with source_of(broker, {"text": "text"}, session_timeout="5m") as source:
            reading = Reading(source)
            packets = await reading.packets(50)
            broker.kill()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(source.commit, after(packets[29].position, {"room": NOON}))  # waits for the broker
                await anyio.to_thread.run_sync(broker.start)
            await anyio.to_thread.run_sync(produce, broker, "text", [str(n) for n in range(50, 60)])
            await reading.packets(60)
        assert reading.texts == [str(n) for n in range(60)]
        assert [item for item in reading.items if isinstance(item, Revoke)] == []
        async with source_of(broker, {"text": "text"}) as source:
            again = Reading(source)
            await again.packets(30)
        assert again.texts == [str(n) for n in range(30, 60)]


@pytest.mark.slow
async def test_an_absent_broker_is_waited_for_and_named_in_the_log(own_broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    texts: list[object] = []

    async def read() -> None:
        async with source_of(own_broker, {"text": "text"}) as source:
            reading = Reading(source)
            await reading.packets(1)
            texts.extend(reading.texts)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        with anyio.fail_after(PATIENCE):
            while f"connects to {own_broker.bootstrap}: attempt 1 failed" not in caplog.text:
                await anyio.sleep(0.05)
        assert "Connection refused" in caplog.text
        await anyio.to_thread.run_sync(own_broker.start)
        own_broker.create_topic("text")
        await anyio.to_thread.run_sync(produce, own_broker, "text", ["there"])
    assert texts == ["there"]


@pytest.mark.slow
async def test_predictions_wait_for_a_broker_that_is_killed_and_comes_back(own_broker: Broker) -> None:
    with own_broker as broker:
        place = KafkaTopic(broker, "predictions")
        async with sink_of(broker) as sink:
            await sink.publish([prediction(0)])
            broker.kill()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(sink.publish, [prediction(1), prediction(2)])
                await anyio.to_thread.run_sync(broker.start)
        assert await place.predictions() == [prediction(0), prediction(1), prediction(2)]
