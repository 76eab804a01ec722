"""`streamfuse.subscribe` on a real broker, by both clients: what comes, once, and where it goes on."""

from __future__ import annotations

import gc
import logging
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from kafka import KafkaProducer, TopicPartition

import streamfuse
from streamfuse.codecs import encode_prediction
from streamfuse.config import KafkaConnection
from streamfuse.subscription import Subscription
from streamfuse.testing import predict
from streamfuse.types import MILLISECOND, SECOND, Prediction, Window
from tests.kafka.broker import Broker, free_ports
from tests.kafka.rooms import Place, Published, records, repeats
from tests.kafka.traffic import PATIENCE
from tests.running import Running

pytestmark = [pytest.mark.kafka, pytest.mark.anyio]

NOON = 1_777_636_800 * SECOND


@pytest.fixture(params=["kafka-python", "confluent"])
def transport(request: pytest.FixtureRequest) -> Any:
    return request.param


def make_topic(broker: Broker, name: str, partitions: int = 1) -> None:
    broker.create_topic(name, partitions, {"retention.ms": "-1"})  # the predictions are of a day long ago


@pytest.fixture
def topic(broker: Broker, unique: str) -> str:
    make_topic(broker, unique, 2)
    return unique


def prediction(number: int, revision: int = 0, key: str = "room-1") -> Prediction:
    """It is published as the window ends."""
    start = NOON + number * SECOND
    return predict(Window(key, start, start + SECOND, {}, {}, revision), start + SECOND)


def send(producer: KafkaProducer, topic: str, predictions: Iterable[Prediction], partition: int = 0) -> None:
    for one in predictions:
        key, value, headers, timestamp = encode_prediction(one)
        producer.send(topic, value, key, list(headers), timestamp_ms=timestamp // MILLISECOND, partition=partition)


def publish(broker: Broker, topic: str, predictions: Iterable[Prediction], partition: int = 0) -> None:
    """Returns when all are acknowledged."""
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap, acks="all", metrics_enabled=False)
    try:
        send(producer, topic, predictions, partition)
        producer.flush(PATIENCE)
    finally:
        producer.close()


def publish_broken(broker: Broker, topic: str, values: Sequence[bytes | None]) -> None:
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap, acks="all", metrics_enabled=False)
    try:
        for value in values:
            producer.send(topic, value, b"room-1", partition=0)
        producer.flush(PATIENCE)
    finally:
        producer.close()


def committed(broker: Broker, group: str) -> dict[int, int]:
    """Where the group stands, by partition."""
    with broker.admin() as admin:
        offsets: dict[TopicPartition, Any] = admin.list_group_offsets({group: None})[group]
    return {partition.partition: place.offset for partition, place in offsets.items()}


async def take(predictions: Subscription, count: int) -> list[Prediction]:
    with anyio.fail_after(PATIENCE):
        return [await anext(predictions) for _ in range(count)]


@asynccontextmanager
async def collecting(predictions: Subscription) -> AsyncIterator[list[Prediction]]:
    """What has come of it so far, while another task iterates over it."""
    came: list[Prediction] = []

    async def collect() -> None:
        async for one in predictions:
            came.append(one)

    async with predictions, anyio.create_task_group() as tasks:
        tasks.start_soon(collect)
        yield came
        tasks.cancel_scope.cancel()


async def until(holds: Callable[[], bool]) -> None:
    with anyio.fail_after(PATIENCE):
        while not holds():
            await anyio.sleep(0.02)


async def until_in_thread(holds: Callable[[], bool]) -> None:
    with anyio.fail_after(PATIENCE):
        while not await anyio.to_thread.run_sync(holds):
            await anyio.sleep(0.05)


# --- where it begins -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", [None, "readers"])
async def test_what_is_published_from_now_on_comes(broker: Broker, topic: str, transport: Any, group: str | None) -> None:
    publish(broker, topic, [prediction(0)])
    group = group and f"{topic}.{group}"
    async with streamfuse.subscribe(broker.bootstrap, topic=topic, group=group, transport=transport) as predictions:
        publish(broker, topic, [prediction(1)])
        assert await take(predictions, 1) == [prediction(1)]


async def test_it_begins_with_the_oldest_or_at_a_time(broker: Broker, topic: str, transport: Any) -> None:
    publish(broker, topic, [prediction(number) for number in range(5)])
    async with streamfuse.subscribe(broker.bootstrap, topic=topic, start="earliest", transport=transport) as predictions:
        assert await take(predictions, 5) == [prediction(number) for number in range(5)]
    at = datetime.fromtimestamp((NOON + 4 * SECOND) // SECOND, UTC)  # the window from 3 to 4 is published then
    async with streamfuse.subscribe(broker.bootstrap, topic=topic, start=at, transport=transport) as predictions:
        assert await take(predictions, 2) == [prediction(3), prediction(4)]


async def test_one_key_comes_of_many(broker: Broker, topic: str, transport: Any) -> None:
    publish(broker, topic, [prediction(number, key=key) for number in range(3) for key in ("room-1", "room-2")])
    connection = KafkaConnection(bootstrap=broker.bootstrap, transport=transport)
    async with streamfuse.subscribe(connection, topic=topic, key="room-2", start="earliest") as predictions:
        assert await take(predictions, 3) == [prediction(number, key="room-2") for number in range(3)]


async def test_it_iterates_without_with(broker: Broker, topic: str, transport: Any) -> None:
    publish(broker, topic, [prediction(0), prediction(1)])
    came = []
    async for one in streamfuse.subscribe(broker.bootstrap, topic=topic, start="earliest", transport=transport):
        came.append(one)
        if len(came) == 2:
            break
    assert came == [prediction(0), prediction(1)]
    gc.collect()
    await until(lambda: not [thread for thread in threading.enumerate() if "subscription" in thread.name])


# --- once ----------------------------------------------------------------------------------------------------------------------------


async def test_repeats_and_old_revisions_are_dropped(broker: Broker, topic: str, transport: Any) -> None:
    first, second, third = (prediction(0, revision) for revision in range(3))
    publish(broker, topic, [first, second, first, second, third, second, prediction(1)])
    async with streamfuse.subscribe(broker.bootstrap, topic=topic, start="earliest", transport=transport) as predictions:
        assert await take(predictions, 4) == [first, second, third, prediction(1)]
        assert predictions.repeats == 3


async def test_repeats_that_straddle_a_restart_are_dropped(broker: Broker, topic: str, transport: Any) -> None:
    publish(broker, topic, [prediction(number, 1) for number in range(5)])

    def subscribe() -> Subscription:
        return streamfuse.subscribe(broker.bootstrap, topic=topic, group=topic, start="earliest", transport=transport)

    async with subscribe() as predictions:
        await take(predictions, 5)
        await predictions.commit()
    again = [prediction(number, 1) for number in range(5)]
    publish(broker, topic, [*again, prediction(2, 0), prediction(2, 2), prediction(5)])
    async with subscribe() as predictions:
        assert await take(predictions, 2) == [prediction(2, 2), prediction(5)]
        assert predictions.repeats == 6


async def test_what_is_remembered_is_bounded_after_a_restart_too(broker: Broker, unique: str, transport: Any) -> None:
    make_topic(broker, unique)
    publish(broker, unique, [prediction(number) for number in range(5)])

    def subscribe() -> Subscription:
        return streamfuse.subscribe(broker.bootstrap, topic=unique, group=unique, start="earliest", remember=2, transport=transport)

    async with subscribe() as predictions:
        await take(predictions, 5)
        await predictions.commit()
    publish(broker, unique, [prediction(number) for number in (4, 3, 2)])
    async with subscribe() as predictions:
        assert await take(predictions, 1) == [prediction(2)]
        assert predictions.repeats == 2


@pytest.mark.slow
async def test_what_a_daemon_repeats_after_a_crash_comes_once_and_late_packets_bring_the_latest_revision(
    broker: Broker, unique: str, tmp_path: Path
) -> None:
    place = Place.make(broker, unique, allowed_lateness="3s")
    sent = place.publish(records(5, ["a", "b"], 0, 12, late=0.05))
    expected = {window.id[:3]: window.revision for window in place.windows(sent)}
    config = place.config() | {"pipeline": {"commit_interval": "1h"}}  # so that the crash repeats everything
    latest: dict[tuple[Any, ...], int] = {}
    async with collecting(streamfuse.subscribe(broker.bootstrap, topic=f"{unique}.predictions", start="earliest")) as came:

        def complete() -> bool:
            latest.update({one.id[:3]: one.revision for one in came})
            return latest == expected

        with Running(tmp_path / "one", config) as daemon:
            await until(complete)
            daemon.kill()
        before = len(came)
        place.forget_the_dead()
        with Published(place) as published:
            published.to_the_end()
            once = len(published.all)
            with Running(tmp_path / "two", config) as daemon:
                await anyio.to_thread.run_sync(published.until_more, once, daemon)
        assert repeats(published.all)
        last = prediction(10_000)
        await anyio.to_thread.run_sync(publish, broker, f"{unique}.predictions", [last])
        await until(lambda: came[-1] == last)
    assert len({one.id for one in came}) == len(came)
    assert [one.revision for one in came[before:-1] if one.revision <= latest[one.id[:3]]] == []
    assert any(latest.values())


# --- a group -------------------------------------------------------------------------------------------------------------------------


async def test_a_group_goes_on_where_it_stopped(broker: Broker, topic: str, transport: Any) -> None:
    publish(broker, topic, [prediction(number) for number in range(6)])

    def subscribe() -> Subscription:
        return streamfuse.subscribe(broker.bootstrap, topic=topic, group=topic, start="earliest", transport=transport)

    async with subscribe() as predictions:
        assert await take(predictions, 3) == [prediction(0), prediction(1), prediction(2)]
    assert committed(broker, topic) == {0: 2, 1: 0}  # nobody asked for what follows the third: it may not be processed
    async with subscribe() as predictions:
        assert await take(predictions, 2) == [prediction(2), prediction(3)]
        await predictions.commit()
        assert committed(broker, topic)[0] == 4
    async with subscribe() as predictions:
        assert await take(predictions, 2) == [prediction(4), prediction(5)]


async def test_what_is_processed_is_committed_while_it_waits_for_more(broker: Broker, topic: str, transport: Any) -> None:
    publish(broker, topic, [prediction(0), prediction(1)])
    predictions = streamfuse.subscribe(broker.bootstrap, topic=topic, group=topic, start="earliest", transport=transport)
    async with collecting(predictions) as came:
        await until_in_thread(lambda: committed(broker, topic).get(0) == 2)
        assert came == [prediction(0), prediction(1)]


async def test_what_was_processed_is_committed_when_the_process_ends(broker: Broker, topic: str, transport: Any) -> None:
    publish(broker, topic, [prediction(number) for number in range(6)])
    options = {"topic": topic, "group": topic, "start": "earliest", "transport": transport}
    program = f"""
import asyncio, streamfuse

kept = []

async def main():
    options = {options}
    kept.append(streamfuse.subscribe("{broker.bootstrap}", **options))
    for _ in range(4):
        print(await anext(kept[0]))

asyncio.run(main())
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert ran.stderr == ""
    assert len(ran.stdout.splitlines()) == 4
    assert committed(broker, topic) == {0: 3, 1: 0}


async def test_the_members_of_a_group_share_its_partitions(broker: Broker, topic: str, transport: Any) -> None:
    def subscribe() -> Subscription:
        return streamfuse.subscribe(broker.bootstrap, topic=topic, group=topic, start="earliest", transport=transport)

    sent: list[Prediction] = []

    def publish_one() -> None:
        for partition in range(2):
            one = prediction(len(sent), key=f"room-{partition}")
            sent.append(one)
            publish(broker, topic, [one], partition)

    async with collecting(subscribe()) as first:
        for _ in range(3):
            await anyio.to_thread.run_sync(publish_one)
        await until(lambda: len(first) == 6)
        async with collecting(subscribe()) as second:
            with anyio.fail_after(PATIENCE):
                while len({one.key for one in second}) < 1 or len(second) < 3:
                    await anyio.to_thread.run_sync(publish_one)
            assert len({one.key for one in second}) == 1
            await until(lambda: len({one.id for one in (*first, *second)}) == len(sent))
        for _ in range(3):
            await anyio.to_thread.run_sync(publish_one)
        await until(lambda: len({one.id for one in (*first, *second)}) == len(sent))
    assert [len({one.id for one in came}) for came in (first, second)] == [len(first), len(second)]  # none has anything twice


@pytest.mark.slow
async def test_a_member_that_is_killed_loses_nothing(broker: Broker, topic: str, transport: Any) -> None:
    publish(broker, topic, [prediction(number) for number in range(2000)])
    options = {"topic": topic, "group": topic, "start": "earliest", "transport": transport}
    program = f"""
import asyncio, streamfuse

async def main():
    options = {options}
    async for one in streamfuse.subscribe("{broker.bootstrap}", **options):
        print(one.start, flush=True)
        await asyncio.sleep(0.01)

asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        printed = [int(next(process.stdout)) for _ in range(250)]
        process.kill()
        printed += [int(line) for line in process.stdout if line.endswith("\n")]
    async with streamfuse.subscribe(broker.bootstrap, topic=topic, group=topic, transport=transport) as predictions:
        (following,) = await take(predictions, 1)
        rest = [following, *await take(predictions, 2000 - (following.start - NOON) // SECOND - 1)]
    assert rest[0].start <= printed[-1] + SECOND
    assert rest[0].start > printed[0]
    assert rest == [prediction(number) for number in range((rest[0].start - NOON) // SECOND, 2000)]


# --- what is not as it should be -----------------------------------------------------------------------------------------------------


async def test_a_broken_record_does_not_end_it(broker: Broker, topic: str, transport: Any, caplog: pytest.LogCaptureFixture) -> None:
    publish(broker, topic, [prediction(0)])
    publish_broken(broker, topic, [b"{", None, b'{"schema": 2}', bytes(1000)])
    publish(broker, topic, [prediction(1)])
    async with streamfuse.subscribe(broker.bootstrap, topic=topic, start="earliest", transport=transport) as predictions:
        assert await take(predictions, 2) == [prediction(0), prediction(1)]
        assert predictions.invalid == 4
    assert f"{topic}/0 at offset 1 is no prediction" in caplog.text


async def test_what_a_transaction_aborted_does_not_come(broker: Broker, topic: str, transport: Any) -> None:
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap, transactional_id=topic, metrics_enabled=False)
    try:
        producer.init_transactions()
        for numbers, end in ((range(3), producer.commit_transaction), (range(3, 6), producer.abort_transaction)):
            producer.begin_transaction()
            send(producer, topic, [prediction(number) for number in numbers])
            producer.flush(PATIENCE)
            end()
    finally:
        producer.close()
    publish(broker, topic, [prediction(6)])
    for read_committed, numbers_read in ((True, [0, 1, 2, 6]), (False, list(range(7)))):
        predictions = streamfuse.subscribe(
            broker.bootstrap, topic=topic, start="earliest", read_committed=read_committed, transport=transport
        )
        async with predictions:
            assert await take(predictions, len(numbers_read)) == [prediction(number) for number in numbers_read]


async def test_a_topic_that_is_not_there_is_waited_for(
    broker: Broker, unique: str, transport: Any, caplog: pytest.LogCaptureFixture
) -> None:
    predictions = streamfuse.subscribe(broker.bootstrap, topic=unique, start="earliest", transport=transport)
    async with anyio.create_task_group() as tasks:

        async def publish_at_last() -> None:
            await until(lambda: f"there is no topic {unique} yet" in caplog.text)
            await anyio.to_thread.run_sync(make_topic, broker, unique)
            await anyio.to_thread.run_sync(publish, broker, unique, [prediction(0)])

        tasks.start_soon(publish_at_last)
        assert await take(predictions, 1) == [prediction(0)]
    await predictions.aclose()


@pytest.mark.slow
async def test_a_broker_that_goes_away_is_waited_for(own_broker: Broker, transport: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "streamfuse")
    predictions = streamfuse.subscribe(own_broker.bootstrap, topic="t", group="g", start="earliest", transport=transport)
    async with anyio.create_task_group() as tasks:

        async def start_broker() -> None:
            await until(lambda: "attempt 1 failed, trying on" in caplog.text)
            await anyio.to_thread.run_sync(own_broker.start)
            await anyio.to_thread.run_sync(make_topic, own_broker, "t")
            await anyio.to_thread.run_sync(publish, own_broker, "t", [prediction(0), prediction(1)])

        tasks.start_soon(start_broker)
        assert await take(predictions, 2) == [prediction(0), prediction(1)]
    async with collecting(predictions) as came:
        await until_in_thread(lambda: committed(own_broker, "g") == {0: 2})
        await anyio.to_thread.run_sync(own_broker.kill)
        await anyio.to_thread.run_sync(own_broker.start)
        await anyio.to_thread.run_sync(publish, own_broker, "t", [prediction(1), prediction(2)])
        await until(lambda: came == [prediction(2)])


async def test_a_wait_that_is_cut_short_goes_on_with_the_next(broker: Broker, topic: str, transport: Any) -> None:
    publish(broker, topic, [prediction(0)])
    predictions = streamfuse.subscribe(broker.bootstrap, topic=topic, group=topic, start="earliest", transport=transport)
    came = None
    with anyio.fail_after(PATIENCE):
        while came is None:
            with anyio.move_on_after(0.01):
                came = await anext(predictions)
    assert came == prediction(0)
    await predictions.aclose()


async def test_it_can_be_closed_while_it_waits_for_a_broker(transport: Any) -> None:
    (port,) = free_ports(1)
    predictions = streamfuse.subscribe(f"127.0.0.1:{port}", transport=transport)
    with anyio.move_on_after(0.1) as waiting:
        await anext(predictions)
    assert waiting.cancelled_caught
    with anyio.fail_after(5):
        await predictions.aclose()
    assert not [thread for thread in threading.enumerate() if "subscription" in thread.name]
