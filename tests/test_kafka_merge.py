"""The order in which a Kafka source reads its partitions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streamfuse.kafka.merge import Merge, Queued
from streamfuse.kafka.transport import Partition
from streamfuse.types import SECOND, Item, Loss, Outcome

VIDEO, AUDIO, TEXT = Partition("video", 0), Partition("audio", 0), Partition("text", 0)
PATIENCE = 100


def queued(*times: int, size: int = 1) -> list[Queued]:
    return [Queued(time, size, item(time)) for time in times]


def item(time: int) -> Loss:
    return Loss("stream", "key", Outcome.SHED, "", event_time=time)


def times(items: list[Item]) -> list[int | None]:
    return [one.event_time for one in items if isinstance(one, Loss)]


def reading(*partitions: Partition, lagging: tuple[Partition, ...] = ()) -> Merge:
    merge = Merge(PATIENCE)
    merge.gain(partitions, 0)
    merge.heard(frozenset(lagging), 0)
    return merge


def test_partitions_are_read_in_order_of_event_time() -> None:
    merge = reading(VIDEO, AUDIO)
    merge.add(VIDEO, queued(1, 4, 5))
    merge.add(AUDIO, queued(2, 3, 6))
    assert times(merge.take(0)[0]) == [1, 2, 3, 4, 5, 6]


def test_a_time_beyond_64_bits_is_taken_like_any_other() -> None:
    merge = reading(VIDEO, AUDIO)
    merge.add(VIDEO, queued(1, 253_402_300_799 * SECOND))
    merge.add(AUDIO, queued(2))
    assert times(merge.take(0)[0]) == [1, 2, 253_402_300_799 * SECOND]


def test_a_partition_that_has_more_holds_back_the_one_that_is_ahead() -> None:
    merge = reading(VIDEO, AUDIO, lagging=(AUDIO,))
    merge.add(VIDEO, queued(1, 2))
    assert merge.take(0)[0] == []
    assert merge.behind(0)
    merge.add(AUDIO, queued(1))
    assert times(merge.take(0)[0]) == [1]  # and no further: its next may be of the same time
    merge.heard(frozenset(), 0)
    assert times(merge.take(0)[0]) == [1, 2]
    assert not merge.behind(0)


def test_a_partition_read_to_its_end_holds_back_nobody() -> None:
    merge = reading(VIDEO, AUDIO)
    merge.add(VIDEO, queued(1, 2))
    assert times(merge.take(0)[0]) == [1, 2]


def test_a_partition_just_gained_has_more_until_heard_otherwise() -> None:
    merge = Merge(PATIENCE)
    merge.gain([VIDEO, AUDIO], 0)
    merge.add(VIDEO, queued(1))
    assert merge.take(0)[0] == []
    assert merge.behind(0)


def test_patience_with_a_partition_that_brings_nothing_ends() -> None:
    merge = reading(VIDEO, AUDIO, lagging=(AUDIO,))
    merge.add(VIDEO, queued(1))
    assert merge.until_next(60) == PATIENCE - 60
    assert merge.take(PATIENCE - 1)[0] == []
    assert times(merge.take(PATIENCE)[0]) == [1]
    assert not merge.behind(PATIENCE)
    merge.heard(frozenset([AUDIO]), PATIENCE)  # still nothing but the word of it
    merge.add(VIDEO, queued(2))
    assert times(merge.take(PATIENCE)[0]) == [2]
    merge.add(AUDIO, queued(1))  # it is back: patience begins anew
    merge.add(VIDEO, queued(3))
    assert times(merge.take(PATIENCE)[0]) == [1]
    assert merge.until_next(PATIENCE) == PATIENCE


def test_a_late_record_keeps_its_place_in_its_partition() -> None:
    merge = reading(VIDEO, AUDIO)
    merge.add(VIDEO, queued(5, 1, 6))
    merge.add(AUDIO, queued(4, 7))
    assert times(merge.take(0)[0]) == [4, 5, 1, 6, 7]


def test_what_is_queued_of_a_lost_partition_is_dropped() -> None:
    merge = reading(VIDEO, AUDIO, lagging=(AUDIO,))
    merge.add(VIDEO, queued(1))
    merge.lose([AUDIO])
    assert times(merge.take(0)[0]) == [1]
    merge.add(AUDIO, queued(2))
    merge.lose([VIDEO])
    assert merge.take(0)[0] == []
    assert not merge.behind(0)


def test_the_bytes_taken_are_told_by_partition() -> None:
    merge = reading(VIDEO, AUDIO)
    merge.add(VIDEO, queued(1, 2, size=10))
    merge.add(AUDIO, queued(3, size=5))
    assert merge.take(0, most=1)[1] == {VIDEO: 10}
    assert merge.take(0)[1] == {VIDEO: 10, AUDIO: 5}


@given(
    st.lists(st.lists(st.integers(0, 30), max_size=12), min_size=3, max_size=3),
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4), st.integers(0, 60), st.integers(1, 5)), max_size=60),
)
def test_nothing_is_lost_and_sorted_partitions_come_sorted_however_they_are_fetched(
    contents: list[list[int]], fetches: list[tuple[int, int, int, int]]
) -> None:
    partitions = [VIDEO, AUDIO, TEXT]
    rest = {partition: sorted(content) for partition, content in zip(partitions, contents, strict=True)}
    merge = Merge(10**9)
    merge.gain(partitions, 0)
    got: list[int | None] = []

    def fetch(partition: Partition, count: int, now: int, most: int) -> None:
        batch, rest[partition] = rest[partition][:count], rest[partition][count:]
        merge.add(partition, queued(*batch))
        merge.heard(frozenset(one for one in partitions if rest[one]), now)
        got.extend(times(merge.take(now, most)[0]))

    for number, count, now, most in fetches:
        fetch(partitions[number], count, now, most)
    for partition in partitions:
        fetch(partition, 100, 60, 100)
    got.extend(times(merge.take(60)[0]))
    assert got == sorted(time for content in contents for time in content)
    assert not merge.behind(60)
