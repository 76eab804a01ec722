"""What the thread behind a subscription does with rebalances, commits and failures, on a broker in memory."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

import pytest

from streamfuse.codecs import Record
from streamfuse.kafka import tail_poller
from streamfuse.kafka.tail_poller import Delivery, Tail, TailPoller
from streamfuse.kafka.transport import Committed, Partition, Passing, Polled, Rebalance, Refused, TransportError

PATIENCE = 30
TOPIC = "predictions"
ZERO, ONE = Partition(TOPIC, 0), Partition(TOPIC, 1)


class MemoryTopic:
    """Records that have their offset as their timestamp; the group's commits; what fails next, by the consumer's method."""

    def __init__(self, *counts: int) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.records = {Partition(TOPIC, n): [self._record(n, offset) for offset in range(count)] for n, count in enumerate(counts)}
        self.oldest: dict[Partition, int] = defaultdict(int)
        self.commits: dict[Partition, int] = {}
        self.failures: dict[str, deque[TransportError]] = defaultdict(deque)

    def append(self, partition: Partition, count: int = 1, size: int = 1) -> None:
        with self.changed:
            log = self.records.setdefault(partition, [])
            log += [self._record(partition.number, offset, size) for offset in range(len(log), len(log) + count)]
            self.changed.notify_all()

    def fail(self, method: str, *errors: TransportError) -> None:
        with self.changed:
            self.failures[method] += errors
            self.changed.notify_all()

    def until(self, holds: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(holds, PATIENCE), (self.commits, self.failures)

    @staticmethod
    def _record(partition: int, offset: int, size: int = 1) -> Record:
        return Record(TOPIC, partition, offset, None, bytes(size), (), offset)


class MemoryConsumer:
    """Fulfils `transport.Consumer`. The test shares out the partitions, by `assign_by_group`."""

    def __init__(self, topic: MemoryTopic) -> None:
        self.closed = False
        self.positions: dict[Partition, int] = {}
        self.paused: set[Partition] = set()
        self.begun_at: list[tuple[Partition, int]] = []
        self._topic = topic
        self._rebalances: list[Rebalance] = []

    def assign_by_group(self, *partitions: Partition, unbroken: bool = True) -> None:
        with self._topic.changed:
            self._rebalances.append(Rebalance(frozenset(partitions), unbroken, None))
            self._topic.changed.notify_all()

    def subscribe(self, topics: Sequence[str]) -> None:
        pass

    def assign(self, offsets: Mapping[Partition, int]) -> None:
        self.positions = dict(offsets)

    def poll(self, timeout: float) -> Polled:
        with self._call("poll"):
            self._topic.changed.wait_for(self._anything, timeout)
            rebalances, self._rebalances = self._rebalances, []
            for rebalance in rebalances:
                kept = self.positions.keys() & rebalance.assigned if rebalance.unbroken else set()
                self.positions = {partition: self.positions[partition] if partition in kept else 0 for partition in rebalance.assigned}
            polled = {partition: records for partition in self.positions if (records := self._waiting(partition))}
            self.positions.update({partition: records[-1].offset + 1 for partition, records in polled.items()})
            return Polled(rebalances, polled)

    def lagging(self, partitions: Iterable[Partition]) -> frozenset[Partition]:
        return frozenset(partition for partition in partitions if self._waiting(partition))

    def seek(self, partition: Partition, offset: int) -> None:
        self.positions[partition] = offset
        self.begun_at.append((partition, offset))

    def pause(self, partitions: Iterable[Partition]) -> None:
        with self._call("pause"):
            self.paused |= set(partitions)

    def resume(self, partitions: Iterable[Partition]) -> None:
        self.paused -= set(partitions)

    def committed(self, partitions: Iterable[Partition]) -> dict[Partition, Committed]:
        with self._call("committed"):
            return {p: Committed(self._topic.commits[p], "") for p in partitions if p in self._topic.commits}

    def commit(self, offsets: Mapping[Partition, Committed]) -> None:
        with self._call("commit"):
            self._topic.commits.update({partition: place.offset for partition, place in offsets.items()})

    def counts(self, topics: Iterable[str]) -> dict[str, int]:
        with self._call("counts"):
            return dict.fromkeys(topics, len(self._topic.records))

    def begins(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        return {partition: self._topic.oldest[partition] for partition in partitions}

    def ends(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        return {partition: len(self._topic.records[partition]) for partition in partitions}

    def since(self, partitions: Iterable[Partition], time: int) -> dict[Partition, int]:
        return {partition: min(time, end) for partition, end in self.ends(partitions).items()}

    def close(self) -> None:
        self.closed = True

    def _anything(self) -> bool:
        return bool(self._rebalances or self._topic.failures["poll"] or any(self._waiting(partition) for partition in self.positions))

    def _waiting(self, partition: Partition) -> list[Record]:
        if partition in self.paused:
            return []
        log, position = self._topic.records[partition], self.positions[partition]
        if position > len(log):  # out of range: from the beginning, as it was told to
            position = 0
        return log[max(position, self._topic.oldest[partition]) :][:10]

    @contextmanager
    def _call(self, method: str) -> Iterator[None]:
        with self._topic.changed:
            if self._topic.failures[method]:
                raise self._topic.failures[method].popleft()
            yield
            self._topic.changed.notify_all()


class Following:
    """A poller that runs, and what it has delivered; use it with `with`."""

    def __init__(self, topic: MemoryTopic, tail: Tail) -> None:
        self.topic = topic
        self.consumer = MemoryConsumer(topic)
        self.deliveries: list[Delivery] = []
        self.failure: BaseException | None = None
        self.poller = TailPoller(lambda: self.consumer, tail, "test", self._deliver, self._fail)

    def __enter__(self) -> Following:
        self.poller.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.poller.stop()

    def came(self, partition: Partition = ZERO) -> list[int]:
        """The offsets of what is new."""
        return [record.offset for batch in self._batches(partition) for record in batch.records if record.offset >= batch.known]

    def known(self, partition: Partition = ZERO) -> list[int]:
        """The offsets of what comes only to be recalled."""
        return [record.offset for batch in self._batches(partition) for record in batch.records if record.offset < batch.known]

    def until(self, holds: Callable[[], bool]) -> None:
        self.topic.until(holds)

    def process(self, partition: Partition, following: int) -> None:
        """As of now, in the epoch of the last delivery."""
        self.poller.processed(partition, self.deliveries[-1].epochs[partition], following)

    def _batches(self, partition: Partition) -> list[tail_poller.Batch]:
        return [batch for delivery in self.deliveries for batch in delivery.batches if batch.partition == partition]

    def _deliver(self, delivery: Delivery) -> None:
        with self.topic.changed:
            self.deliveries.append(delivery)
            self.topic.changed.notify_all()

    def _fail(self, error: BaseException) -> None:
        with self.topic.changed:
            self.failure = error
            self.topic.changed.notify_all()


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail_poller, "POLL", 0.02)
    monkeypatch.setattr(tail_poller, "PAUSED_POLL", 0.005)
    monkeypatch.setattr(tail_poller, "COMMIT_EVERY", 0.01)
    monkeypatch.setattr("streamfuse.kafka.client.FIRST_DELAY", 0.001)


@pytest.mark.parametrize(("start", "place"), [("earliest", 0), ("latest", 5), (3, 3)])
def test_a_new_group_begins_where_it_is_told_and_stands_there_at_once(start: Literal["earliest", "latest"] | int, place: int) -> None:
    topic = MemoryTopic(5)
    with Following(topic, Tail(TOPIC, "group", start, look_back=10)) as following:
        following.consumer.assign_by_group(ZERO)
        following.until(lambda: topic.commits == {ZERO: place})
        topic.append(ZERO)
        following.until(lambda: following.came() == list(range(place, 6)))
        assert following.known() == []
    assert topic.commits == {ZERO: place}


def test_a_partition_that_is_gained_later_stands_at_once_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail_poller, "COMMIT_EVERY", 1000.0)
    topic = MemoryTopic(5, 6)
    with Following(topic, Tail(TOPIC, "group")) as following:
        following.consumer.assign_by_group(ZERO)
        following.until(lambda: topic.commits == {ZERO: 5})
        following.consumer.assign_by_group(ZERO, ONE)
        following.until(lambda: topic.commits == {ZERO: 5, ONE: 6})


def test_a_group_goes_on_where_it_stands_and_recalls_what_was_before() -> None:
    topic = MemoryTopic(8)
    topic.commits[ZERO] = 6
    with Following(topic, Tail(TOPIC, "group", look_back=4)) as following:
        following.consumer.assign_by_group(ZERO)
        following.until(lambda: following.came() == [6, 7])
        assert following.known() == [2, 3, 4, 5]


def test_the_look_back_is_shared_by_the_partitions() -> None:
    topic = MemoryTopic(8, 8)
    topic.commits = {ZERO: 8, ONE: 8}
    with Following(topic, Tail(TOPIC, "group", look_back=4)) as following:
        following.consumer.assign_by_group(ZERO, ONE)
        following.until(lambda: following.known() == [6, 7] and following.known(ONE) == [6, 7])


def test_what_was_deleted_before_it_was_read_is_told(caplog: pytest.LogCaptureFixture) -> None:
    topic = MemoryTopic(8)
    topic.commits[ZERO] = 2
    topic.oldest[ZERO] = 5
    with Following(topic, Tail(TOPIC, "group", look_back=4)) as following:
        following.consumer.assign_by_group(ZERO)
        following.until(lambda: following.came() == [5, 6, 7])
    assert "expected to resume predictions/0 at offset 2, found that it begins at 5" in caplog.text


def test_a_topic_that_was_made_anew_is_read_from_its_beginning() -> None:
    topic = MemoryTopic(3)
    topic.commits[ZERO] = 100
    with Following(topic, Tail(TOPIC, "group", look_back=50)) as following:
        following.consumer.assign_by_group(ZERO)
        following.until(lambda: following.came() == [0, 1, 2])


def test_a_topic_that_is_made_anew_while_it_is_read_is_read_from_its_beginning() -> None:
    topic = MemoryTopic(8)
    topic.commits[ZERO] = 6
    with Following(topic, Tail(TOPIC, "group", look_back=4)) as following:
        following.consumer.assign_by_group(ZERO)
        following.until(lambda: following.came() == [6, 7])
        topic.records[ZERO] = []
        topic.append(ZERO, 2)
        following.until(lambda: following.came() == [6, 7, 0, 1])


def test_a_second_rebalance_before_the_first_was_heard_of_forgets_nothing() -> None:
    topic = MemoryTopic(3, 3)
    topic.commits = {ZERO: 1, ONE: 2}
    with Following(topic, Tail(TOPIC, "group")) as following:
        with topic.changed:
            following.consumer.assign_by_group(ZERO)
            following.consumer.assign_by_group(ZERO, ONE)
        following.until(lambda: following.came() == [1, 2] and following.came(ONE) == [2])


def test_what_was_processed_is_committed_before_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail_poller, "COMMIT_EVERY", 1000.0)
    topic = MemoryTopic(3)
    with Following(topic, Tail(TOPIC, "group", "earliest")) as following:
        following.consumer.assign_by_group(ZERO)
        following.until(lambda: following.came() == [0, 1, 2])
        following.process(ZERO, 2)
    assert topic.commits == {ZERO: 2}
    assert following.consumer.closed


def test_it_commits_now_and_then_and_when_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    topic = MemoryTopic(3)
    with Following(topic, Tail(TOPIC, "group", "earliest")) as following:
        following.consumer.assign_by_group(ZERO)
        following.until(lambda: following.came() == [0, 1, 2])
        following.process(ZERO, 1)
        following.until(lambda: topic.commits == {ZERO: 1})
        monkeypatch.setattr(tail_poller, "COMMIT_EVERY", 1000.0)
        following.process(ZERO, 2)
        following.poller.commit().result(PATIENCE)
        assert topic.commits == {ZERO: 2}
        following.process(ZERO, 3)
        following.poller.commit().result(PATIENCE)
        assert topic.commits == {ZERO: 3}


def test_a_partition_that_is_kept_goes_on_without_a_break() -> None:
    topic = MemoryTopic(3, 3)
    with Following(topic, Tail(TOPIC, "group", "earliest", look_back=10)) as following:
        following.consumer.assign_by_group(ZERO, ONE)
        following.until(lambda: following.came() == [0, 1, 2])
        following.process(ZERO, 1)
        epoch = following.deliveries[-1].epochs[ZERO]
        following.consumer.assign_by_group(ZERO)
        following.until(lambda: following.deliveries[-1].epochs == {ZERO: epoch})
        topic.append(ZERO)
        following.until(lambda: following.came() == [0, 1, 2, 3])
        assert following.known() == []


def test_a_partition_that_others_may_have_had_is_read_from_where_the_group_stands() -> None:
    topic = MemoryTopic(3)
    with Following(topic, Tail(TOPIC, "group", "earliest", look_back=10)) as following:
        following.consumer.assign_by_group(ZERO)
        following.until(lambda: following.came() == [0, 1, 2])
        epoch = following.deliveries[-1].epochs[ZERO]
        topic.commits[ZERO] = 2
        following.consumer.assign_by_group(ZERO, unbroken=False)
        following.until(lambda: following.came() == [0, 1, 2, 2])
        assert following.known() == [0, 1]
        following.poller.processed(ZERO, epoch, 3)  # what is left over from before says nothing of now
        following.poller.commit().result(PATIENCE)
        assert topic.commits == {ZERO: 2}


def test_what_moved_away_is_not_committed() -> None:
    topic = MemoryTopic(3, 3)
    with Following(topic, Tail(TOPIC, "group", "earliest")) as following:
        following.consumer.assign_by_group(ZERO, ONE)
        following.until(lambda: following.came() == [0, 1, 2] and following.came(ONE) == [0, 1, 2])
        epoch = following.deliveries[-1].epochs[ONE]
        following.consumer.assign_by_group(ZERO)
        following.until(lambda: following.deliveries[-1].epochs.keys() == {ZERO})
        following.poller.processed(ONE, epoch, 3)
        following.process(ZERO, 3)
        following.poller.commit().result(PATIENCE)
    assert topic.commits == {ZERO: 3, ONE: 0}


def test_a_broker_that_is_away_is_waited_for_at_every_step() -> None:
    topic = MemoryTopic(3)
    topic.commits[ZERO] = 1
    with Following(topic, Tail(TOPIC, "group")) as following:
        topic.fail("poll", Passing("away"), Passing("away"))
        topic.fail("committed", Passing("away"))
        topic.fail("commit", Passing("away"), Passing("away"))
        following.consumer.assign_by_group(ZERO)
        following.until(lambda: following.came() == [1, 2])
        following.process(ZERO, 3)
        following.poller.commit().result(PATIENCE)
        assert topic.commits == {ZERO: 3}
        assert not any(topic.failures.values())


def test_a_broker_that_is_away_at_the_end_is_told(caplog: pytest.LogCaptureFixture) -> None:
    topic = MemoryTopic(3)
    topic.commits[ZERO] = 1
    with Following(topic, Tail(TOPIC, "group")) as following:
        following.consumer.assign_by_group(ZERO)
        following.until(lambda: following.came() == [1, 2])
        topic.fail("commit", *[Passing("away")] * 100_000)
        following.process(ZERO, 3)
    assert topic.commits == {ZERO: 1}
    assert "not committed and may come again: away" in caplog.text


def test_a_refusal_ends_it_and_what_waits_for_a_commit_is_told() -> None:
    topic = MemoryTopic(3)
    with Following(topic, Tail(TOPIC, "group")) as following:
        topic.fail("poll", Refused("no right to read"))
        following.until(lambda: following.failure is not None)
        assert isinstance(following.failure, Refused)
        with pytest.raises(Exception, match="found that reading has ended"):
            following.poller.commit().result(PATIENCE)
    assert following.consumer.closed


def test_a_commit_that_nobody_waits_for_any_more_does_no_harm() -> None:
    topic = MemoryTopic(3)
    with Following(topic, Tail(TOPIC, "group", "earliest")) as following:
        following.consumer.assign_by_group(ZERO)
        following.until(lambda: following.came() == [0, 1, 2])
        following.process(ZERO, 3)
        following.poller.commit().cancel()
        following.until(lambda: topic.commits == {ZERO: 3})
        topic.append(ZERO)
        following.until(lambda: following.came() == [0, 1, 2, 3])


def test_it_pauses_when_nobody_takes_what_came_and_goes_on_when_somebody_does() -> None:
    topic = MemoryTopic(0)
    with Following(topic, Tail(TOPIC, "group", "earliest")) as following:
        following.consumer.assign_by_group(ZERO)
        topic.append(ZERO, 50, tail_poller.BUFFER_BYTES // 15)
        following.until(lambda: following.consumer.paused == {ZERO})
        assert following.came() == list(range(20))  # polled by tens: the bound is passed by less than one poll
        for delivery in list(following.deliveries):
            for batch in delivery.batches:
                following.poller.release(batch.size)
        following.until(lambda: following.came() == list(range(40)))


def test_without_a_group_all_partitions_are_read_and_nothing_is_committed() -> None:
    topic = MemoryTopic(3, 3)
    with Following(topic, Tail(TOPIC, None, "earliest", look_back=10)) as following:
        following.until(lambda: following.came() == [0, 1, 2] and following.came(ONE) == [0, 1, 2])
        following.process(ZERO, 3)
    assert topic.commits == {}


def test_without_a_group_partitions_that_are_added_are_read_from_their_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail_poller, "LOOK_FOR_PARTITIONS_EVERY", 0.0)
    topic = MemoryTopic(3)
    with Following(topic, Tail(TOPIC, None, "latest")) as following:
        following.until(lambda: ZERO in following.consumer.positions)
        topic.append(ONE, 3)
        following.until(lambda: following.came(ONE) == [0, 1, 2])
        topic.append(ZERO)
        following.until(lambda: following.came() == [3])


def test_it_ends_at_once_while_the_broker_is_away() -> None:
    topic = MemoryTopic(3)
    topic.fail("poll", *[Passing("away")] * 100_000)
    following = Following(topic, Tail(TOPIC, "group"))
    with following:
        following.until(lambda: len(topic.failures["poll"]) < 100_000)
        began = time.monotonic()
    assert time.monotonic() - began < 5
    assert following.consumer.closed
