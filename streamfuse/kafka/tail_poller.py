"""The thread that polls for a subscriber: from where its group stands, and committing what was processed.

It does nothing else, so that a slow subscriber stays in its group; backpressure is `pause`.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Literal, NamedTuple

from streamfuse.codecs import Record
from streamfuse.errors import SourceError
from streamfuse.kafka.client import Patience
from streamfuse.kafka.transport import Committed, Consumer, Partition, Passing, Polled

POLL = 0.5  # seconds
PAUSED_POLL = 0.05  # shorter, as nothing ends the poll when there is room again
BUFFER_BYTES = 8 * 1024 * 1024
COMMIT_EVERY = 1.0
LOOK_FOR_PARTITIONS_EVERY = 30.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tail:
    """What to read. `start` is where to begin without a group's commit; as an int the ns UTC that the first record is not older than.

    `look_back` is how many records before a group's commit are read again, over all partitions together.
    """

    topic: str
    group: str | None = None
    start: Literal["earliest", "latest"] | int = "latest"
    look_back: int = 0
    read_committed: bool = True


@dataclass(slots=True)
class Batch:
    """Records of one partition; those before the offset `known` were processed before. `taken` counts those that were handed on."""

    partition: Partition
    epoch: int
    known: int
    records: Sequence[Record]
    size: int
    taken: int = 0


class Delivery(NamedTuple):
    """The partitions that are ours, each with the epoch since when, and what one poll brought of them. The first one says that we stand
    where we begin: what is published from now on will come."""

    epochs: Mapping[Partition, int]
    batches: list[Batch]


class TailPoller:
    """`deliver` and `fail` are called on the thread, which ends after `fail`. All other methods may be called from any thread."""

    def __init__(
        self,
        make: Callable[[], Consumer],
        tail: Tail,
        what: str,
        deliver: Callable[[Delivery], None],
        fail: Callable[[BaseException], None],
    ) -> None:
        self._make = make
        self._tail = tail
        self._what = what
        self._deliver = deliver
        self._fail = fail
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=what, daemon=True)
        self._lock = threading.Lock()  # guards what follows
        self._buffered = 0
        self._done: dict[Partition, tuple[int, int]] = {}  # epoch and next offset of what was processed and not yet committed
        self._asked: list[Future[None]] = []
        self._consumer: Consumer  # from here on, the thread's own
        self._epoch = 0
        self._epochs: dict[Partition, int] = {}
        self._known: dict[Partition, int] = {}
        self._next: dict[Partition, int] = {}
        self._paused = False
        self._commit_at = 0.0
        self._look_at = 0.0

    def start(self) -> None:
        atexit.register(self.stop)  # a subscription that nobody closed commits and leaves its group when the process ends
        self._thread.start()

    def stop_soon(self) -> None:
        self._stopping.set()

    def stop(self) -> None:
        """Returns when it has committed what was processed, left the group and ended, within seconds."""
        self._stopping.set()
        self._thread.join()

    def release(self, size: int) -> None:
        with self._lock:
            self._buffered -= size

    def processed(self, partition: Partition, epoch: int, following: int) -> None:
        """All records of the partition before the offset `following` have been processed."""
        with self._lock:
            self._done[partition] = (epoch, following)

    def commit(self) -> Future[None]:
        """Done when all that was processed so far is durable, or its partitions are no longer ours."""
        future: Future[None] = Future()
        with self._lock:
            self._asked.append(future)
        if not self._thread.is_alive():
            self._give_up()
        return future

    # --- the thread ---

    def _run(self) -> None:
        try:
            if self._retry("connects", self._connect):
                try:
                    self._follow()
                finally:
                    self._consumer.close()
        except Exception as error:
            self._fail(error)  # raised where the subscriber waits for records
        finally:
            atexit.unregister(self.stop)
            self._give_up()

    def _connect(self) -> None:
        self._consumer = self._make()

    def _follow(self) -> None:
        self._retry("looks for its topic", self._find_topic)
        if self._tail.group is None:
            self._retry("looks for where to begin", self._assign)
        else:
            self._consumer.subscribe([self._tail.topic])
        patience = Patience(f"{self._what} polls")
        while not self._stopping.is_set():
            try:
                polled = self._consumer.poll(PAUSED_POLL if self._paused else POLL)
            except Passing as error:
                self._stopping.wait(patience.delay(str(error)))
                continue
            patience.over()
            self._settle(polled)
            self._pause_or_resume()
            if self._tail.group is None:
                self._look_for_partitions()
            elif self._asked or time.monotonic() >= self._commit_at:
                self._commit()
        if self._tail.group is not None:
            self._commit()

    def _find_topic(self) -> None:
        topic = self._tail.topic
        if not self._consumer.counts([topic])[topic]:
            raise Passing(f"there is no topic {topic} yet; start the daemon that publishes to it, or correct the name")

    def _settle(self, polled: Polled) -> None:
        gained = self._rebalanced(polled)
        if gained:
            self._retry("reads where its group stands", lambda: self._begin(gained))
        batches = []
        for partition, records in polled.records.items():
            if partition in gained or partition not in self._epochs or not records:
                continue  # what was read of a gained partition before it was sent to its place comes again from there
            known = self._known.get(partition, 0)
            if records[-1].offset + 1 >= known:
                self._known.pop(partition, None)  # from here on offsets that go back are those of a topic that was made anew
            self._next[partition] = records[-1].offset + 1
            batches.append(Batch(partition, self._epochs[partition], known, records, sum(record.size for record in records)))
        if not (batches or polled.rebalances):
            return
        with self._lock:
            self._buffered += sum(batch.size for batch in batches)
        self._deliver(Delivery(dict(self._epochs), batches))

    def _rebalanced(self, polled: Polled) -> set[Partition]:
        """The partitions that are ours and whose place is to be asked for; one that others may have had meanwhile is among them."""
        gained: set[Partition] = set()
        for rebalance in polled.rebalances:
            kept = rebalance.assigned & self._epochs.keys() if rebalance.unbroken else frozenset()
            gained = (gained & kept) | (rebalance.assigned - kept)
            self._epoch += 1
            self._epochs = {
                partition: self._epochs.get(partition, 0) if partition in kept else self._epoch for partition in rebalance.assigned
            }
        return gained

    def _begin(self, gained: Iterable[Partition]) -> None:
        """Goes to where the group stands, less the look back. Where it stands nowhere yet, it stands where we begin from now on."""
        committed = {partition: place.offset for partition, place in self._consumer.committed(gained).items()}
        oldest, ends = self._consumer.begins(committed), self._consumer.ends(committed)
        starts = self._starts(partition for partition in gained if partition not in committed)
        look_back = self._tail.look_back // len(self._epochs)
        for partition, offset in committed.items():
            if offset < oldest[partition]:
                log.warning(
                    "%s: expected to resume %s at offset %d, found that it begins at %d: what was between was deleted before it was read;"
                    " keep the topic for longer (retention.ms)",
                    self._what,
                    partition.name,
                    offset,
                    oldest[partition],
                )
            if offset <= ends[partition]:
                self._known[partition] = offset
                self._consumer.seek(partition, max(offset - look_back, oldest[partition]))
            else:  # the topic was made anew: the client finds its beginning
                self._known.pop(partition, None)
                self._consumer.seek(partition, offset)
        for partition, offset in starts.items():
            self._known.pop(partition, None)
            self._consumer.seek(partition, offset)
        with self._lock:
            self._done.update({partition: (self._epochs[partition], offset) for partition, offset in starts.items()})
        self._commit_at = 0.0

    def _starts(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        match self._tail.start:
            case "earliest":
                return self._consumer.begins(partitions)
            case "latest":
                return self._consumer.ends(partitions)
            case instant:
                return self._consumer.since(partitions, instant)

    def _assign(self) -> None:
        count = self._consumer.counts([self._tail.topic])[self._tail.topic]
        self._next = self._starts([Partition(self._tail.topic, number) for number in range(count)])
        self._epochs = dict.fromkeys(self._next, 0)
        self._consumer.assign(self._next)
        self._look_at = time.monotonic() + LOOK_FOR_PARTITIONS_EVERY
        self._deliver(Delivery(dict(self._epochs), []))

    def _look_for_partitions(self) -> None:
        """Nobody tells who is in no group that its topic got more partitions; they are read from their beginning."""
        if self._paused or time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + LOOK_FOR_PARTITIONS_EVERY
        try:
            count = self._consumer.counts([self._tail.topic])[self._tail.topic]
            if more := [p for number in range(count) if (p := Partition(self._tail.topic, number)) not in self._epochs]:
                self._next.update(self._consumer.begins(more))
                self._consumer.assign(self._next)
                self._epochs.update(dict.fromkeys(more, 0))
        except Passing as error:
            log.debug("%s: looks for new partitions later: %s", self._what, error)

    def _retry(self, doing: str, step: Callable[[], None]) -> bool:
        """Whether it was done before we were told to stop."""
        patience = Patience(f"{self._what} {doing}")
        while not self._stopping.is_set():
            try:
                step()
            except Passing as error:
                self._stopping.wait(patience.delay(str(error)))
            else:
                patience.over()
                return True
        return False

    def _pause_or_resume(self) -> None:
        with self._lock:
            buffered = self._buffered
        if buffered >= BUFFER_BYTES:
            self._paused = True
            self._consumer.pause(self._epochs)  # again after each poll: a partition that was gained meanwhile runs
        elif self._paused and buffered <= BUFFER_BYTES // 2:
            self._paused = False
            self._consumer.resume(self._epochs)

    def _commit(self) -> None:
        self._commit_at = time.monotonic() + COMMIT_EVERY
        with self._lock:
            done, self._done = self._done, {}
            asked, self._asked = self._asked, []
        ours = {p: Committed(offset, "") for p, (epoch, offset) in done.items() if self._epochs.get(p) == epoch}
        if ours:
            try:
                self._consumer.commit(ours)
            except Passing as error:  # the next one may succeed, or a poll tells that the partitions are no longer ours
                level = logging.WARNING if self._stopping.is_set() else logging.DEBUG
                log.log(level, "%s: what was processed last is not committed and may come again: %s", self._what, error)
                with self._lock:
                    self._done = {**done, **self._done}
                    self._asked += asked
                return
        for future in asked:
            if future.set_running_or_notify_cancel():
                future.set_result(None)

    def _give_up(self) -> None:
        with self._lock:
            asked, self._asked = self._asked, []
        for future in asked:
            if future.set_running_or_notify_cancel():
                future.set_exception(SourceError(f"{self._what}: expected to commit, found that reading has ended; see the log"))
