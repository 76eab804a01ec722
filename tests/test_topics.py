"""In-process topics keep order, offsets and, within their bound, every record that a reader has not read."""

from __future__ import annotations

import anyio
import pytest

from streamfuse.codecs import Record
from streamfuse.topics import Subscription, Topics
from streamfuse.types import Cursor, Offsets

pytestmark = pytest.mark.anyio


async def publish(topics: Topics, topic: str, *values: bytes) -> None:
    for value in values:
        await topics.publish(topic, None, value)


async def read(subscription: Subscription) -> list[bytes]:
    return values(await anext(subscription))


def values(records: list[Record]) -> list[bytes]:
    return [record.value or b"" for record in records]


async def test_records_are_read_in_order_with_their_offsets() -> None:
    topics = Topics()
    await topics.publish("a", b"k", b"0", (("h", b"v"),), 17)
    await publish(topics, "a", b"1")
    with topics.subscribe("a") as subscription:
        assert await anext(subscription) == [
            Record("a", 0, 0, b"k", b"0", (("h", b"v"),), 17),
            Record("a", 0, 1, None, b"1", (), -1),
        ]


async def test_several_topics_are_read_in_the_order_of_publishing() -> None:
    topics = Topics()
    for topic, value in [("b", b"0"), ("a", b"1"), ("b", b"2"), ("a", b"3")]:
        await publish(topics, topic, value)
    with topics.subscribe(["a", "b"]) as subscription:
        assert await read(subscription) == [b"0", b"1", b"2", b"3"]


async def test_a_reader_waits_for_the_next_record() -> None:
    topics = Topics()
    with topics.subscribe("a") as subscription:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(publish, topics, "a", b"0")
            assert await read(subscription) == [b"0"]


async def test_a_reader_from_the_end_sees_only_what_follows() -> None:
    topics = Topics()
    await publish(topics, "a", b"0")
    with topics.subscribe("a", from_start=False) as subscription:
        await publish(topics, "a", b"1")
        assert await read(subscription) == [b"1"]


async def test_a_reader_may_begin_at_an_offset() -> None:
    topics = Topics()
    await publish(topics, "a", b"0", b"1", b"2")
    with topics.subscribe("a", at={"a": 2}) as subscription:
        assert await read(subscription) == [b"2"]


async def test_every_reader_reads_everything() -> None:
    topics = Topics()
    with topics.subscribe("a") as one, topics.subscribe("a") as other:
        await publish(topics, "a", b"0")
        assert await read(one) == await read(other) == [b"0"]


async def test_readers_end_when_their_topics_are_closed_and_read() -> None:
    topics = Topics()
    await publish(topics, "a", b"0")
    topics.close("a")
    with topics.subscribe("a") as subscription:
        assert [values(batch) async for batch in subscription] == [[b"0"]]


async def test_closing_everything_closes_topics_to_come() -> None:
    topics = Topics()
    topics.close()
    with pytest.raises(anyio.ClosedResourceError):
        await publish(topics, "a", b"0")


async def test_without_readers_the_oldest_records_go() -> None:
    topics = Topics(max_records=2)
    await publish(topics, "a", b"0", b"1", b"2")
    assert topics.offsets("a") == (1, 3)


async def test_bytes_bound_a_topic_too() -> None:
    topics = Topics(max_bytes=10)
    await publish(topics, "a", b"4444", b"4444", b"4444")
    assert topics.offsets("a") == (1, 3)


async def test_a_record_greater_than_the_bound_has_the_topic_to_itself() -> None:
    topics = Topics(max_bytes=10)
    await publish(topics, "a", b"0", b"x" * 100)
    assert topics.offsets("a") == (1, 2)


async def test_publishing_waits_for_a_reader_that_is_behind() -> None:
    topics = Topics(max_records=2)
    with topics.subscribe("a") as subscription:
        await publish(topics, "a", b"0", b"1")
        with anyio.move_on_after(0) as scope:
            await publish(topics, "a", b"2")
        assert scope.cancelled_caught
        assert await read(subscription) == [b"0", b"1"]
        await publish(topics, "a", b"2")
        assert await read(subscription) == [b"2"]


async def test_a_reader_that_leaves_lets_publishing_go_on() -> None:
    topics = Topics(max_records=1)
    subscription = topics.subscribe("a")
    await publish(topics, "a", b"0")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(publish, topics, "a", b"1")
        await anyio.wait_all_tasks_blocked()
        subscription.close()
    assert topics.offsets("a") == (1, 2)


async def test_nothing_is_lost_under_backpressure() -> None:
    topics = Topics(max_bytes=50)
    sent = [b"%05d" % number for number in range(1000)]
    with topics.subscribe("a") as subscription:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(publish_then_close, topics, sent)
            got = [value async for batch in subscription for value in values(batch)]
    assert got == sent


async def publish_then_close(topics: Topics, sent: list[bytes]) -> None:
    await publish(topics, "a", *sent)
    topics.close("a")


async def test_cursors_of_a_group_are_merged() -> None:
    topics = Topics()
    topics.commit("g", Cursor({"a/0": Offsets(1, 2)}, {"room": 5}))
    topics.commit("g", Cursor({"b/0": Offsets(3, 4)}, {"room": 6}))
    assert topics.committed("g") == Cursor({"a/0": Offsets(1, 2), "b/0": Offsets(3, 4)}, {"room": 6})
    assert topics.committed("other") == Cursor()
