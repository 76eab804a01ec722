"""A topic that was deleted under the reader is noticed, and one that is only silent is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from streamfuse.errors import SourceError
from streamfuse.kafka.presence import Presence
from streamfuse.kafka.transport import Partition, Passing
from streamfuse.types import Record

VIDEO, TEXT = Partition("video", 0), Partition("text", 0)


def records(partition: Partition, *offsets: int) -> dict[Partition, list[Record]]:
    return {partition: [Record(partition.topic, partition.number, offset, None, b"", (), 0) for offset in offsets]}


class Broker:
    def __init__(self, **counts: int) -> None:
        self.counts = counts
        self.asked: list[Sequence[str]] = []

    def __call__(self, topics: Sequence[str]) -> Mapping[str, int]:
        self.asked.append(topics)
        return {topic: self.counts[topic] for topic in topics}


def test_a_topic_that_stays_away_is_told() -> None:
    presence, broker = Presence(["video", "text"], "source"), Broker(video=2, text=0)
    for now in (100, 105, 109):
        presence.look(broker, now)
    with pytest.raises(SourceError, match="expected topic text, which it was reading, found that it is gone"):
        presence.look(broker, 110)


def test_a_topic_that_comes_back_within_ten_seconds_is_not() -> None:
    presence, broker = Presence(["text"], "source"), Broker(text=0)
    presence.look(broker, 100)
    broker.counts["text"] = 2
    presence.look(broker, 108)
    broker.counts["text"] = 0
    presence.look(broker, 111)
    presence.look(broker, 120)


def test_only_topics_that_have_been_silent_are_asked_for_and_not_all_the_time() -> None:
    presence, broker = Presence(["video", "text"], "source"), Broker(video=2, text=2)
    presence.hear(records(VIDEO, 0), 100)
    for now in (100, 101, 104, 105, 106):
        presence.look(broker, now)
    assert broker.asked == [["text"], ["video", "text"]]


def test_records_show_that_the_topic_is_there() -> None:
    presence, broker = Presence(["text"], "source"), Broker(text=0)
    presence.look(broker, 100)
    presence.hear(records(TEXT, 0), 108)
    presence.look(broker, 111)
    presence.look(broker, 120)


def test_brokers_that_are_away_say_nothing_of_topics() -> None:
    def away(_: Sequence[str]) -> Mapping[str, int]:
        raise Passing("nobody there")

    presence = Presence(["text"], "source")
    for now in (100, 110, 120):
        with pytest.raises(Passing):
            presence.look(away, now)
    presence.look(Broker(text=2), 130)


def test_offsets_that_begin_again_are_told() -> None:
    presence = Presence(["video"], "source")
    presence.hear(records(VIDEO, 5, 6), 0)
    with pytest.raises(SourceError, match="expected offset 7 of video/0, or more, found 0: the topic was deleted and created anew"):
        presence.hear(records(VIDEO, 0, 1), 1)


def test_offsets_may_skip_what_was_deleted() -> None:
    presence = Presence(["video"], "source")
    presence.hear(records(VIDEO, 5, 6), 0)
    presence.hear(records(VIDEO, 90), 1)


def test_a_partition_that_was_gained_begins_anywhere() -> None:
    presence = Presence(["video"], "source")
    presence.hear(records(VIDEO, 5, 6), 0)
    presence.begin([VIDEO])
    presence.hear(records(VIDEO, 3), 1)
