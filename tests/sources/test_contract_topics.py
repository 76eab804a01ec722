"""The source of in-process topics fulfils the contract of all sources, and refuses to skip what is gone."""

from __future__ import annotations

import pytest

from streamfuse.codecs import encode_packet
from streamfuse.config import TopicsSourceSettings
from streamfuse.errors import SourceError
from streamfuse.sources.topics import TopicsSource
from streamfuse.testing import ManualClock
from streamfuse.topics import Topics
from streamfuse.types import MILLISECOND, SECOND, Cursor, Encoded, Offsets, Packet, Position
from tests.sources.contract import SourceContract, read

NOON = 1_777_636_800 * SECOND


class InProcessTopics:
    records, ends, resumes = 24, True, True

    def __init__(self) -> None:
        self.topics = Topics()

    async def fill(self) -> None:
        for n in range(10):
            for stream in ("video", "text"):
                packet = Packet(stream, f"room-{n % 2}", NOON + n, 0, f"words {n}", Position("file/0", n), NOON + n)
                await self.topics.publish(stream, *encode_packet(packet))
        for value in (None, b"gr\xfc\xdf", b"", b"plain"):
            await self.topics.publish("text", None, value)
        self.topics.close()

    def source(self) -> TopicsSource:
        return topics_source(self.topics)


def topics_source(topics: Topics) -> TopicsSource:
    return TopicsSource(TopicsSourceSettings(type="topics", topics={"video": "video", "text": "text"}), topics, ManualClock(NOON))


class TestTopicsSource(SourceContract):
    @pytest.fixture
    async def place(self) -> InProcessTopics:
        place = InProcessTopics()
        await place.fill()
        return place


@pytest.mark.anyio
async def test_a_record_without_a_timestamp_arrives_when_it_is_read() -> None:
    topics = Topics()
    await topics.publish("text", b"room", b"words")
    topics.close()
    (packet,) = await read(topics_source(topics), 1)
    assert packet == Packet("text", "room", NOON, 0, "words", Position("text/0", 0), NOON)


@pytest.mark.anyio
async def test_records_that_say_nothing_of_themselves_are_what_their_format_says() -> None:
    topics = Topics()
    await topics.publish("mic", b"room", bytes(640), timestamp=NOON)
    topics.close()
    formats = {"audio": {"media_type": "audio/pcm", "samplerate": 8_000, "channels": 1}}
    settings = TopicsSourceSettings.model_validate({"type": "topics", "topics": {"audio": "mic"}, "formats": formats})
    (packet,) = await read(TopicsSource(settings, topics, ManualClock(NOON)), 1)
    assert packet == Packet("audio", "room", NOON, 40 * MILLISECOND, Encoded(bytes(640), "audio/pcm", 8_000, 1), Position("mic/0", 0), NOON)


@pytest.mark.anyio
async def test_a_cursor_whose_records_are_gone_is_refused() -> None:
    topics = Topics(max_records=2)
    for value in (b"0", b"1", b"2"):
        await topics.publish("text", b"room", value)
    topics.commit("streamfuse", Cursor({"text/0": Offsets(0, 1)}))
    with pytest.raises(SourceError, match="expected topic text to hold offset 0, which the cursor still needs, found 1 as its oldest"):
        await read(topics_source(topics), 1)
