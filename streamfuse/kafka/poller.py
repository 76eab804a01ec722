"""The thread that polls Kafka, and does nothing else: fetches, follows rebalances, commits between two polls.

A consumer is not thread-safe and has no way to be woken, and a join that finishes while nobody polls is thrown away by kafka-python
(measured: 27 generations in 10 s). So nothing ever runs between two polls but what is here, and backpressure is `pause`, never not polling.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

from streamfuse.codecs import Record
from streamfuse.errors import InvalidRecord, SourceError
from streamfuse.kafka.client import Patience
from streamfuse.kafka.cursor import Commit, Gained
from streamfuse.kafka.metadata import decode_metadata, encode_metadata
from streamfuse.kafka.presence import Presence
from streamfuse.kafka.transport import Committed, Consumer, Partition, Passing, Polled, Rebalance
from streamfuse.kafka.watermark_log import WatermarkLog

POLL = 0.5  # seconds
SHORT_POLL = 0.05  # as nothing ends a poll when there is room again, or when a partition turns out to have no more

Start = Literal["earliest", "latest"] | int
"""Where a partition begins for which the group has committed nothing; an int is an instant (ns UTC)."""

NOTHING: frozenset[str] = frozenset()

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Delivery:
    """What one poll brought, in this order: partitions lost, partitions gained, records; and of which partitions there may be more."""

    lost: frozenset[Partition]
    gained: Mapping[Partition, Gained]
    records: Mapping[Partition, Sequence[Record]]
    lagging: frozenset[Partition]


class Standing(NamedTuple):
    """Where we stand in the group: what proves it in a transaction, and the epoch of each partition that is ours."""

    membership: object
    epochs: Mapping[Partition, int]


class Poller:
    """`deliver` and `fail` are called on the thread, which ends after `fail`. All other methods may be called from any thread."""

    def __init__(
        self,
        consumer: Consumer,
        topics: Iterable[str],
        start: Start,
        buffer_bytes: int,
        what: str,
        read_watermarks: Callable[[Mapping[int, int]], dict[int, WatermarkLog]],
        deliver: Callable[[Delivery], None],
        fail: Callable[[BaseException], None],
    ) -> None:
        self._consumer = consumer
        self._topics = sorted(topics)
        self._begin_at = start
        self._buffer_bytes = buffer_bytes
        self._what = what
        self._read_watermarks = read_watermarks
        self._deliver = deliver
        self._fail = fail
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"poll {what}", daemon=True)
        self._lock = threading.Lock()  # guards what follows
        self._queued: dict[Partition, int] = {}
        self._commits: deque[tuple[Mapping[Partition, Commit], Future[None]]] = deque()
        self._questions: deque[tuple[Callable[[Consumer], Any], Future[Any]]] = deque()
        self._standing = Standing(None, {})
        self._revocations: list[frozenset[str]] = []
        self._epochs: dict[Partition, int] = {}  # from here on, the thread's own
        self._epoch = 0
        self._uncommitted: dict[Partition, Commit] = {}
        self._waiting: list[Future[None]] = []
        self._paused: frozenset[Partition] = frozenset()
        self._lagging: frozenset[Partition] = frozenset()
        self._presence = Presence(self._topics, what)

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
            return sum(self._queued.values())

    @property
    def paused(self) -> bool:
        """Whether fetching stands still, of one partition at least, until there is room again."""
        return bool(self._paused)

    @property
    def standing(self) -> Standing:
        """As of the last rebalance that `revoked_since` tells of."""
        with self._lock:
            return self._standing

    def revoked_since(self, count: int) -> frozenset[str]:
        """The partitions lost in rebalances after the first `count` that lost any."""
        with self._lock:
            return NOTHING.union(*self._revocations[count:])

    def release(self, sizes: Mapping[Partition, int]) -> None:
        """So many delivered bytes of each partition have been processed."""
        with self._lock:
            for partition, size in sizes.items():
                if partition in self._queued:
                    self._queued[partition] = max(self._queued[partition] - size, 0)

    def ask(self, question: Callable[[Consumer], T]) -> Future[T]:
        """The answer of the consumer, between two polls; asked again for as long as it raises Passing."""
        future: Future[T] = _open_future()
        with self._lock:
            self._questions.append((question, future))
        return future

    def commit(self, offsets: Mapping[Partition, Commit]) -> Future[None]:
        """Done when they are durable, or their partitions are no longer ours. Later commits overtake earlier ones."""
        future: Future[None] = _open_future()
        with self._lock:
            self._commits.append((offsets, future))
        return future

    # --- the thread ---

    def _run(self) -> None:
        try:
            self._consumer.subscribe(self._topics)
            patience = Patience(f"{self._what} polls")
            while not self._stopping.is_set():
                try:
                    polled = self._consumer.poll(SHORT_POLL if self._paused or self._lagging else POLL)
                except Passing as error:
                    self._stopping.wait(patience.delay(str(error)))
                    continue
                patience.over()
                self._settle(polled)
                self._look()
                self._pause_or_resume()
                self._commit()
                self._answer()
            self._commit()
        except Exception as error:
            self._fail(error)  # the loop raises it where it waits for records
        finally:
            try:
                self._consumer.close()
            finally:
                self._give_up()

    def _settle(self, polled: Polled) -> None:
        lost, gained = self._rebalanced(polled.rebalances)
        self._presence.begin(gained)
        self._presence.hear(polled.records, time.monotonic())
        begun = self._begin(gained)
        lagging = self._consumer.lagging(self._epochs)
        if not (polled.records or lost or gained or lagging != self._lagging):
            return
        self._lagging = lagging
        with self._lock:
            for partition, records in polled.records.items():
                self._queued[partition] = self._queued.get(partition, 0) + sum(record.size for record in records)
        self._deliver(Delivery(lost, begun, polled.records, lagging))

    def _rebalanced(self, rebalances: Sequence[Rebalance]) -> tuple[frozenset[Partition], list[Partition]]:
        """Partitions lost and gained; one that others may have had meanwhile is both."""
        if not rebalances:
            return frozenset(), []
        before = self._epochs
        for rebalance in rebalances:
            kept = rebalance.assigned & self._epochs.keys() if rebalance.unbroken else frozenset()
            self._epochs = {partition: self._epochs[partition] for partition in kept}
            for partition in rebalance.assigned - kept:
                self._epoch += 1
                self._epochs[partition] = self._epoch
        lost = frozenset(partition for partition, epoch in before.items() if self._epochs.get(partition) != epoch)
        gained = sorted(partition for partition, epoch in self._epochs.items() if before.get(partition) != epoch)
        with self._lock:  # both at once: of the membership of a generation goes what was lost by it
            self._standing = Standing(rebalances[-1].membership, dict(self._epochs))
            if lost:
                self._revocations.append(frozenset(partition.name for partition in lost))
            self._queued = {partition: self._queued.get(partition, 0) if partition not in gained else 0 for partition in self._epochs}
        return lost, gained

    def _begin(self, gained: Sequence[Partition]) -> dict[Partition, Gained]:
        """Goes to where the group stands. Where it stands nowhere yet, commits the place where we begin, so that a crash before the first
        commit does not begin elsewhere."""
        patience = Patience(f"{self._what} reads where its group stands")
        while gained and not self._stopping.is_set():
            try:
                require_equal_counts(self._consumer.counts(self._topics))
                committed = self._consumer.committed(gained)
                starts = self._starts([partition for partition in gained if partition not in committed])
                self._tell_of_deleted(committed)
                logs = self._logs(committed)
            except Passing as error:
                self._stopping.wait(patience.delay(str(error)))
                continue
            for partition, place in committed.items():
                self._consumer.seek(partition, place.offset)
            for partition, offset in starts.items():
                self._consumer.seek(partition, offset)
                metadata, _ = encode_metadata(offset, {})
                self._uncommitted[partition] = Commit(self._epochs[partition], Committed(offset, metadata))
            return {p: Gained(self._epochs[p], committed.get(p), logs.get(p.number) if p in committed else None) for p in gained}
        return {}

    def _logs(self, committed: Mapping[Partition, Committed]) -> dict[int, WatermarkLog]:
        """The watermarks that stand in their topic, of the partition numbers whose commits name a version of it."""
        versions: dict[int, int] = {}
        for partition, (_, text) in committed.items():
            with suppress(InvalidRecord):  # not ours: the cursor tells
                metadata = decode_metadata(text)
                if metadata is not None and metadata.version:
                    versions[partition.number] = max(metadata.version, versions.get(partition.number, 0))
        return self._read_watermarks(versions) if versions else {}

    def _starts(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        match self._begin_at:
            case "earliest":
                return self._consumer.begins(partitions)
            case "latest":
                return self._consumer.ends(partitions)
            case instant:
                return self._consumer.since(partitions, instant)

    def _tell_of_deleted(self, committed: Mapping[Partition, Committed]) -> None:
        for partition, oldest in self._consumer.begins(committed).items():
            if (needed := committed[partition].offset) < oldest:
                log.warning(
                    "%s: expected to resume %s at offset %d, found that it begins at %d: what was between was deleted before it was read;"
                    " keep the topic for longer (retention.ms, retention.bytes)",
                    self._what,
                    partition.name,
                    needed,
                    oldest,
                )

    def _look(self) -> None:
        """Raises SourceError where a topic is gone."""
        try:
            self._presence.look(self._consumer.counts, time.monotonic())
        except Passing as error:
            log.debug("%s: can't ask for its topics now: %s", self._what, error)

    def _pause_or_resume(self) -> None:
        """Each partition may have its share of the room, so that one that is ahead does not keep out those that are behind."""
        with self._lock:
            queued = dict(self._queued)
        share = self._buffer_bytes // max(len(self._epochs), 1)
        full = {partition for partition in self._epochs if queued.get(partition, 0) >= (share // 2 if partition in self._paused else share)}
        self._consumer.resume(self._paused - full)
        self._consumer.pause(full)  # again after each poll: what a rebalance has brought runs
        self._paused = frozenset(full)

    def _answer(self) -> None:
        while self._questions:
            question, future = self._questions[0]
            try:
                future.set_result(question(self._consumer))
            except Passing as error:
                log.debug("%s: asked again later: %s", self._what, error)
                return
            except Exception as error:
                future.set_exception(error)
            self._questions.popleft()

    def _commit(self) -> None:
        with self._lock:
            commits, self._commits = self._commits, deque()
        for offsets, future in commits:
            self._uncommitted.update(offsets)
            self._waiting.append(future)
        self._uncommitted = {p: commit for p, commit in self._uncommitted.items() if self._epochs.get(p) == commit.epoch}
        if self._uncommitted:
            try:
                self._consumer.commit({partition: commit.committed for partition, commit in self._uncommitted.items()})
            except Passing as error:
                log.debug("%s: commit postponed: %s", self._what, error)
                return  # the next poll finds the group, or that the partitions are no longer ours
        self._uncommitted = {}
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            future.set_result(None)

    def _give_up(self) -> None:
        with self._lock:
            commits, self._commits = self._commits, deque()
            questions, self._questions = self._questions, deque()
        ended = SourceError(f"{self._what}: expected the broker to be asked, found that polling has ended; see the log")
        for future in (*self._waiting, *(future for _, future in commits), *(future for _, future in questions)):
            future.set_exception(ended)


def _open_future() -> Future[Any]:
    """One that takes its answer even if whoever waits for it was cancelled meanwhile."""
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()
    return future


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
