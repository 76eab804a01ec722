"""The feeder publishes what a source yields, and counts what it can't."""

from __future__ import annotations

import anyio
import numpy as np
import pytest

from streamfuse.codecs import RecordDecoder
from streamfuse.feeder import Fed, feed, publish_to
from streamfuse.testing import MemorySource
from streamfuse.topics import Topics
from streamfuse.types import SECOND, Encoded, Image, Item, Loss, Outcome, Packet, Payload, Position

pytestmark = pytest.mark.anyio

NOON = 1_777_636_800 * SECOND


def packet(number: int, stream: str = "text", payload: Payload = "words") -> Packet:
    return Packet(stream, "room", NOON + number, 5, payload, Position("file/0", number), NOON + number + 7, f"file#{number}")


async def arriving(topics: Topics, topic: str) -> list[Item]:
    decoder = RecordDecoder({"text": "text", "video": "frames"}, 10**6)
    topics.close(topic)
    with topics.subscribe(topic) as subscription:
        return [decoder.decode(record) async for batch in subscription for record in batch]


async def test_packets_arrive_as_they_were() -> None:
    topics = Topics()
    sent = [packet(n) for n in range(5)]
    fed = await feed(MemorySource([sent[:2], sent[2:]]), publish_to(topics), {"text": "text"})
    arrived = [item for item in await arriving(topics, "text") if isinstance(item, Packet)]
    assert [(p.id, p.event_time, p.duration, p.payload, p.arrival_time) for p in arrived] == [
        (p.id, p.event_time, p.duration, p.payload, p.arrival_time) for p in sent
    ]
    assert (fed.published, fed.lost) == ({"text": 5}, {})


async def test_each_stream_goes_to_its_topic() -> None:
    topics = Topics()
    sent = [packet(0, "video", Encoded(b"\xff\xd8\xff", "image/jpeg")), packet(1)]
    await feed(MemorySource([sent]), publish_to(topics), {"video": "frames", "text": "text"})
    assert (topics.offsets("frames"), topics.offsets("text")) == ((0, 1), (0, 1))


async def test_a_stream_without_a_topic_goes_to_one_of_its_name() -> None:
    topics = Topics()
    await feed(MemorySource([[packet(0, "truth")]]), publish_to(topics), {})
    assert topics.offsets("truth") == (0, 1)


async def test_images_are_published_as_jpeg() -> None:
    topics = Topics()
    await feed(MemorySource([[packet(0, "video", Image(np.zeros((4, 6, 3), np.uint8)))]]), publish_to(topics), {"video": "frames"})
    (item,) = await arriving(topics, "frames")
    assert isinstance(item, Packet)
    assert isinstance(item.payload, Encoded)
    assert item.payload.media_type == "image/jpeg"


async def test_losses_are_counted_and_told_once_a_reason(caplog: pytest.LogCaptureFixture) -> None:
    loss = Loss("text", "room", Outcome.SHED, "the queue was full")
    fed = await feed(MemorySource([[loss, packet(0), loss]]), publish_to(Topics()), {"text": "text"})
    assert (fed.published, fed.lost) == ({"text": 1}, {"text": 2})
    assert caplog.text.count("the queue was full") == 1


async def test_a_packet_that_cannot_be_encoded_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    empty = packet(0, "video", Image(np.zeros((0, 6, 3), np.uint8)))
    fed = await feed(MemorySource([[empty, packet(1)]]), publish_to(Topics()), {"text": "text"})
    assert (fed.published, fed.lost) == ({"text": 1}, {"video": 1})
    assert "found (0, 6, 3)" in caplog.text


async def test_feeding_waits_for_readers_that_are_behind() -> None:
    topics, fed = Topics(max_records=3), Fed()
    with topics.subscribe("text") as subscription:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(feed, MemorySource([[packet(n) for n in range(5)]]), publish_to(topics), {"text": "text"}, fed)
            await anyio.wait_all_tasks_blocked()
            assert fed.published["text"] == 3
            await anext(subscription)
    assert fed.published["text"] == 5
