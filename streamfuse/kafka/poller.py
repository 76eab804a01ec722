"""The thread that polls Kafka, and does nothing else: fetches, follows rebalances, commits between two polls.

A consumer of kafka-python is not thread-safe and has no way to be woken, and a join that finishes while nobody polls is thrown away
(measured: 27 generations in 10 s). So nothing ever runs between two polls but what is here, and backpressure is `pause`, never not polling.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import NamedTuple

import kafka.errors
from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.structs import OffsetAndMetadata

from streamfuse.errors import SourceError
from streamfuse.kafka.client import Patience
from streamfuse.kafka.cursor import Commit, Gained
from streamfuse.kafka.metadata import encode_metadata

POLL_MS = 500
PAUSED_POLL_MS = 50  # shorter, as nothing ends the poll when there is room again
REQUEST_MS = 3_000
CLOSE_MS = 3_000
PASSING = (  # the group has moved on, or the broker is away; polling on cures it
    kafka.errors.RetriableError,
    kafka.errors.CommitFailedError,
    kafka.errors.IllegalGenerationError,
    kafka.errors.RebalanceInProgressError,
    kafka.errors.UnknownMemberIdError,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Delivery:
    """What one poll brought, in this order: partitions lost, partitions gained, records."""

    lost: frozenset[TopicPartition]
    gained: Mapping[TopicPartition, Gained]
    records: list[ConsumerRecord]
    size: int


class Poller:
    """`deliver` and `fail` are called on the thread, which ends after `fail`. All other methods may be called from any thread."""

    def __init__(
        self,
        consumer: KafkaConsumer,
        topics: Iterable[str],
        buffer_bytes: int,
        what: str,
        deliver: Callable[[Delivery], None],
        fail: Callable[[BaseException], None],
    ) -> None:
        self._consumer = consumer
        self._topics = sorted(topics)
        self._buffer_bytes = buffer_bytes
        self._what = what
        self._deliver = deliver
        self._fail = fail
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"poll {what}", daemon=True)
        self._lock = threading.Lock()  # guards what follows
        self._buffered = 0
        self._commits: deque[tuple[Mapping[TopicPartition, Commit], Future[None]]] = deque()
        self._rebalances: deque[_Rebalance] = deque()
        self._member = _Member(-1, "")  # from here on, the thread's own
        self._epochs: dict[TopicPartition, int] = {}
        self._epoch = 0
        self._uncommitted: dict[TopicPartition, Commit] = {}
        self._waiting: list[Future[None]] = []
        self._paused = False

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Commits what was asked for, leaves the group and ends; returns when that is done, within seconds."""
        self._stopping.set()
        self._thread.join()

    @property
    def buffered(self) -> int:
        """Bytes that were delivered and not yet released."""
        with self._lock:
            return self._buffered

    @property
    def paused(self) -> bool:
        """Whether fetching stands still until there is room again."""
        return self._paused

    def release(self, size: int) -> None:
        """So many delivered bytes have been processed."""
        with self._lock:
            self._buffered -= size

    def commit(self, offsets: Mapping[TopicPartition, Commit]) -> Future[None]:
        """Done when they are durable, or their partitions are no longer ours. Later commits overtake earlier ones."""
        future: Future[None] = Future()
        with self._lock:
            self._commits.append((offsets, future))
        return future

    # --- the thread ---

    def _run(self) -> None:
        try:
            self._consumer.subscribe(self._topics, listener=_Listener(self._consumer, self._note))
            patience = Patience(f"{self._what} polls")
            while not self._stopping.is_set():
                try:
                    polled = self._consumer.poll(PAUSED_POLL_MS if self._paused else POLL_MS)
                except PASSING as error:
                    self._stopping.wait(patience.delay(f"{type(error).__name__}: {error}"))
                    continue
                patience.over()
                self._settle(polled)
                self._pause_or_resume()
                self._commit()
            self._commit()
        except Exception as error:
            self._fail(error)  # the loop raises it where it waits for records
        finally:
            try:
                self._consumer.close(autocommit=False, timeout_ms=CLOSE_MS)
            finally:
                self._give_up()

    def _note(self, rebalance: _Rebalance) -> None:
        with self._lock:
            self._rebalances.append(rebalance)

    def _settle(self, polled: dict[TopicPartition, list[ConsumerRecord]]) -> None:
        lost, gained = self._rebalanced()
        # Records must follow their partition's cursor, and its position may be of a time when it was ours before: it is read anew.
        skipped = {partition: polled.pop(partition) for partition in gained if partition in polled}
        records = [record for batch in polled.values() for record in batch]
        size = sum(len(record.value or b"") + len(record.key or b"") for record in records)
        if not (records or lost or gained):
            return
        with self._lock:
            self._buffered += size
        begun = {partition: self._begin(partition, skipped.get(partition)) for partition in gained}
        self._deliver(Delivery(lost, begun, records, size))

    def _rebalanced(self) -> tuple[frozenset[TopicPartition], list[TopicPartition]]:
        """Partitions lost and gained since the last poll; one that others may have had meanwhile is both."""
        with self._lock:
            rebalances, self._rebalances = self._rebalances, deque()
        lost: set[TopicPartition] = set()
        gained: set[TopicPartition] = set()
        for partitions, member in rebalances:
            unbroken = member == self._member.next()
            kept = partitions & self._epochs.keys() if unbroken else set()
            lost |= self._epochs.keys() - kept
            gained = (gained & kept) | (partitions - kept)
            self._member = member
            self._epochs = {partition: self._epochs[partition] for partition in kept}
            for partition in partitions - kept:
                self._epoch += 1
                self._epochs[partition] = self._epoch
        if gained:
            self._require_equal_counts()
        return frozenset(lost), sorted(gained)

    def _require_equal_counts(self) -> None:
        require_equal_counts({topic: len(self._consumer.partitions_for_topic(topic)) for topic in self._topics})

    def _begin(self, partition: TopicPartition, skipped: list[ConsumerRecord] | None) -> Gained:
        """Goes to where the group stands. Where it stands nowhere yet, commits the place where we begin, so that a crash before the first
        commit does not begin later still."""
        patience = Patience(f"{self._what} reads its cursor of {partition.topic}/{partition.partition}")
        while not self._stopping.is_set():
            try:
                committed = self._consumer.committed(partition, metadata=True, timeout_ms=REQUEST_MS)
                epoch = self._epochs[partition]
                if committed is None:
                    start = skipped[0].offset if skipped else self._consumer.position(partition, timeout_ms=REQUEST_MS)
                    self._consumer.seek(partition, start)
                    metadata, _ = encode_metadata(start, {})
                    self._uncommitted[partition] = Commit(epoch, OffsetAndMetadata(start, metadata, -1))
                else:
                    self._consumer.seek(partition, committed.offset)
            except PASSING as error:
                self._stopping.wait(patience.delay(f"{type(error).__name__}: {error}"))
            else:
                return Gained(epoch, committed)
        return Gained(self._epochs[partition], None)

    def _pause_or_resume(self) -> None:
        buffered = self.buffered
        if buffered >= self._buffer_bytes:
            self._paused = True
        elif buffered <= self._buffer_bytes // 2:
            self._paused = False
        paused = self._consumer.paused()
        if self._paused and (running := self._consumer.assignment() - paused):
            self._consumer.pause(*running)
        elif not self._paused and paused:
            self._consumer.resume(*paused)

    def _commit(self) -> None:
        with self._lock:
            commits, self._commits = self._commits, deque()
        for offsets, future in commits:
            self._uncommitted.update(offsets)
            self._waiting.append(future)
        self._uncommitted = {p: commit for p, commit in self._uncommitted.items() if self._epochs.get(p) == commit.epoch}
        if self._uncommitted:
            try:
                self._consumer.commit({p: commit.offset for p, commit in self._uncommitted.items()}, timeout_ms=REQUEST_MS)
            except PASSING as error:
                log.debug("%s: commit postponed: %s: %s", self._what, type(error).__name__, error)
                return  # the next poll finds the group, or that the partitions are no longer ours
        self._uncommitted = {}
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            future.set_result(None)

    def _give_up(self) -> None:
        with self._lock:
            commits, self._commits = self._commits, deque()
        for future in (*self._waiting, *(future for _, future in commits)):
            future.set_exception(SourceError(f"{self._what}: expected to commit, found that polling has ended; see the log"))


def require_equal_counts(counts: Mapping[str, int]) -> None:
    """Raises SourceError with the fix where topics have different numbers of partitions: the streams of a key would part.

    Topics without any are passed over; they don't exist at the moment.
    """
    counts = {topic: count for topic, count in counts.items() if count}
    if len(set(counts.values())) > 1:
        most = max(counts.values())
        few = sorted(topic for topic, count in counts.items() if count < most)
        told = ", ".join(f"{topic} has {count}" for topic, count in sorted(counts.items()))
        raise SourceError(
            f"expected topics with equal numbers of partitions, so that all streams of a key land on one replica, found: {told};"
            f" kafka-topics.sh --alter --partitions {most} --topic {few[0]}"
        )


class _Member(NamedTuple):
    """Our membership of the group, as of one rebalance."""

    generation: int
    name: str

    def next(self) -> _Member:
        """What follows if we took part in the very next rebalance; anything else means that others may have owned our partitions."""
        return _Member(self.generation + 1, self.name)


class _Rebalance(NamedTuple):
    assigned: set[TopicPartition]
    member: _Member


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python has no types
    """Called on kafka-python's own thread, where nothing may block: notes what happened for the polling thread."""

    def __init__(self, consumer: KafkaConsumer, note: Callable[[_Rebalance], None]) -> None:
        self._consumer = consumer
        self._note = note

    def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Told of all partitions before each rebalance; which of them are lost, the assignment says."""

    def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        group = self._consumer.group_metadata()
        self._note(_Rebalance(set(assigned), _Member(group.generation_id, group.member_id)))

    def on_partitions_lost(self, lost: set[TopicPartition]) -> None:
        self._note(_Rebalance(set(), _Member(-1, "")))
