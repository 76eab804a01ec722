"""Reads a topic of dead letters to its end, and publishes the originals again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import NamedTuple, Self, TypeVar

from streamfuse.config import KafkaConnection, KafkaDeadLetterSettings
from streamfuse.dead_letters import DeadLetter, letter_from_record, replayed
from streamfuse.errors import InvalidRecord, SinkError, SourceError
from streamfuse.kafka.clients import Reading, make_consumer, make_producer
from streamfuse.kafka.dead_letters import MAX_LETTER_BYTES
from streamfuse.kafka.offset_set import OffsetSet
from streamfuse.kafka.transport import Consumer, Partition, Passing, Producer, Refused, TransportError
from streamfuse.types import SECOND, Record

T = TypeVar("T")

STALLED = 30.0  # seconds without an answer until reading or writing is given up
CLOSE_TIMEOUT = 2.0
FULL = 0.05  # seconds to wait where a producer has no room


class Place(NamedTuple):
    """Where a letter itself stands."""

    partition: int
    offset: int


class LetterTopic:
    """A topic of dead letters as it is when it is entered; what comes later is not read. `group` remembers what was replayed.

    Blocks. Raises SourceError where there is no such topic, no answer or no right to read.
    """

    def __init__(self, settings: KafkaDeadLetterSettings, group: str | None = None) -> None:
        self._settings = settings
        self._reading = Reading(group=group, start="earliest")
        self._consumer: Consumer | None = None
        self._begins: dict[Partition, int] = {}
        self._ends: dict[Partition, int] = {}

    def __enter__(self) -> Self:
        topic = self._settings.topic
        consumer = self._consumer = self._ask(lambda: make_consumer(self._settings, self._reading))
        try:
            count = self._ask(lambda: consumer.counts([topic])[topic])
            if not count:
                raise SourceError(
                    f"expected topic {topic} at {self._settings.bootstrap}, found none; correct --topic, or create it with"
                    f" kafka-topics.sh --create --topic {topic}"
                )
            partitions = [Partition(topic, number) for number in range(count)]
            self._begins = self._ask(lambda: consumer.begins(partitions))
            self._ends = self._ask(lambda: consumer.ends(partitions))
        except BaseException:
            consumer.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    def letters(self, since: int | None = None) -> Iterator[tuple[Place, DeadLetter | InvalidRecord]]:
        """From the oldest on, or those of `since` (ns UTC) and after; in order within a partition. An error is for what is no letter."""
        consumer = self._opened
        starts = self._begins if since is None else self._ask(lambda: consumer.since(list(self._ends), since))
        left = {partition: start for partition, start in starts.items() if start < self._ends[partition]}
        if left:
            self._ask(lambda: consumer.assign(left))
        heard = time.monotonic()
        while left:
            polled = self._poll(consumer)
            for partition, records in polled.items():
                for record in records:
                    if partition in left and record.offset < self._ends[partition]:
                        left[partition] = record.offset + 1
                        try:
                            letter: DeadLetter | InvalidRecord = letter_from_record(record)
                        except InvalidRecord as error:
                            letter = error
                        yield Place(partition.number, record.offset), letter
            if polled:
                heard = time.monotonic()
            lagging = consumer.lagging(left)  # the last offsets may be nothing that can be read
            left = {p: at for p, at in left.items() if at < self._ends[p] and (polled or p in lagging)}
            if time.monotonic() - heard > STALLED:
                raise SourceError(f"{self._what}: expected the rest of it, found no answer for {STALLED:.0f} s; look at the brokers")

    def replayed(self) -> dict[int, OffsetSet]:
        """Per partition, which of its letters the group remembers as replayed. What is no longer there counts as such."""
        consumer = self._opened
        committed = self._ask(lambda: consumer.committed(list(self._ends)))
        sets = {}
        for partition, begin in self._begins.items():
            try:
                held = OffsetSet.from_commit(committed[partition]) if partition in committed else OffsetSet()
            except InvalidRecord as error:
                raise SourceError(f"{self._what}: group {self._reading.group}: {error}") from None
            held.add_below(begin)
            sets[partition.number] = held
        return sets

    def remember(self, sets: Mapping[int, OffsetSet]) -> None:
        """Returns when the group remembers these. They must fit."""
        consumer = self._opened
        commits = {Partition(self._settings.topic, number): held.to_commit() for number, held in sets.items()}
        self._ask(lambda: consumer.commit({partition: commit for partition, commit in commits.items() if commit is not None}))

    @property
    def _opened(self) -> Consumer:
        if self._consumer is None:
            raise SourceError(f"expected {self._what} to be open, found it closed; use it inside `with`")
        return self._consumer

    @property
    def _what(self) -> str:
        return f"dead letters kafka:{self._settings.topic}"

    def _poll(self, consumer: Consumer) -> Mapping[Partition, Sequence[Record]]:
        try:
            return consumer.poll(0.5).records
        except Passing:
            time.sleep(FULL)
            return {}
        except Refused as error:
            raise SourceError(f"{self._what}: {error}") from error

    def _ask(self, ask: Callable[[], T]) -> T:
        """Tries again for as long as `connect_timeout` where the broker is not there."""
        deadline = time.monotonic() + self._settings.connect_timeout / SECOND
        while True:
            try:
                return ask()
            except Passing as error:
                if time.monotonic() > deadline:
                    raise SourceError(
                        f"{self._what}: expected brokers at {self._settings.bootstrap}, found: {error}; start them, or correct --bootstrap"
                    ) from error
                time.sleep(FULL)
            except Refused as error:
                raise SourceError(f"{self._what}: {error}") from error


class Originals:
    """Publishes the originals of letters again, to the topics and partitions that they stood in. Use it with `with`.

    `connection` says for a topic which cluster it is in. Blocks. Raises SinkError where there is no such topic, no answer or no right.
    """

    def __init__(self, connection: Callable[[str], KafkaConnection]) -> None:
        self._connection = connection
        self._producers: dict[str, Producer] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self._stack.close()

    def require(self, topic: str, partition: int) -> None:
        """Raises SinkError where there is no such partition: nothing is created here."""
        count = self._count(topic)
        if not count:
            raise SinkError(
                f"expected topic {topic} at {self._connection(topic).bootstrap}, where its letters come from, found none; create it, or"
                " leave its letters out with --from"
            )
        if partition >= count:
            raise SinkError(
                f"expected topic {topic} to have a partition {partition}, found {count} of them; give it as many as it had, as the"
                " streams of a key must stay together"
            )

    def publish(self, letters: Sequence[DeadLetter]) -> None:
        """Returns when all are durable, in this order within a partition."""
        outstanding = _Outstanding(len(letters))
        for letter in letters:
            record = letter.record
            producer = self._producer(record.topic)
            deadline = time.monotonic() + STALLED
            while True:
                try:
                    producer.send(record.topic, replayed(letter), outstanding.done, record.partition)
                    break
                except Passing as error:
                    if time.monotonic() > deadline:
                        raise SinkError(f"topic {record.topic}: expected the brokers to take records, found: {error}") from error
                    time.sleep(FULL)
                except Refused as error:
                    raise SinkError(f"topic {record.topic}: {error}") from error
        outstanding.wait()

    def _count(self, topic: str) -> int:
        deadline = time.monotonic() + self._connection(topic).connect_timeout / SECOND
        while True:
            try:
                return self._producer(topic).count(topic)
            except Passing as error:
                if time.monotonic() > deadline:
                    raise SinkError(f"topic {topic}: expected brokers at {self._connection(topic).bootstrap}, found: {error}") from error
                time.sleep(FULL)
            except Refused as error:
                raise SinkError(f"topic {topic}: {error}") from error

    def _producer(self, topic: str) -> Producer:
        settings = self._connection(topic)
        producer = self._producers.get(settings.bootstrap)
        if producer is None:
            producer = self._producers[settings.bootstrap] = make_producer(settings, MAX_LETTER_BYTES)
            self._stack.callback(producer.close, CLOSE_TIMEOUT)
        return producer


class _Outstanding:
    """Records on their way; `done` may be called on any thread."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._error: TransportError | None = None
        self._changed = threading.Condition()

    def done(self, error: TransportError | None) -> None:
        with self._changed:
            self._left -= 1
            self._error = self._error or error
            self._changed.notify()

    def wait(self) -> None:
        """Returns when all are done. Raises SinkError for the first that failed, and where nothing moves any more."""
        with self._changed:
            while self._left and self._error is None:
                if not self._changed.wait(STALLED):
                    raise SinkError(
                        f"expected the brokers to acknowledge records, found no answer for {STALLED:.0f} s; look at the brokers"
                    )
            if self._error is not None:
                raise SinkError(f"expected the brokers to take records, found: {self._error}") from self._error
