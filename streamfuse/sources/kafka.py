"""Reads packets from Kafka: at least once, one consumer group, offsets committed by cursor."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Self

import anyio
import anyio.to_thread
import kafka.errors
from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.coordinator.assignors.range import RangePartitionAssignor

from streamfuse.codecs import Record, RecordDecoder, partition_name
from streamfuse.config import KafkaSourceSettings
from streamfuse.errors import SourceError
from streamfuse.interfaces import Clock, Unshared
from streamfuse.kafka.client import Patience, checksum_problem, connect
from streamfuse.kafka.cursor import KafkaCursor
from streamfuse.kafka.poller import Delivery, Poller, require_equal_counts
from streamfuse.types import MILLISECOND, Cursor, Item, Packet, Resume, Revoke

log = logging.getLogger(__name__)


class KafkaSource(Unshared):
    """Reads all topics of its streams as a member of its group; all streams of a key land on one replica (Range, equal partition counts).

    Entering waits for the broker and the topics, as long as it takes, and says so in the log; it raises SourceError where waiting won't
    help. On a rebalance the items say `Revoke` for partitions lost and `Resume` for those gained, before their first record. Fetched
    records are bounded by `buffer_bytes`, above which the partitions are paused.
    """

    def __init__(self, settings: KafkaSourceSettings, clock: Clock) -> None:
        self.name = "kafka:" + ",".join(sorted(set(settings.topics.values())))
        self.streams = frozenset(settings.topics)
        self._settings = settings
        self._clock = clock
        self._topics = sorted(set(settings.topics.values()))
        self._decoder = RecordDecoder(settings.topics, settings.max_record_bytes)
        self._cursor = KafkaCursor(self.name)
        self._poller: Poller | None = None
        self._inbox: deque[Delivery] = deque()
        self._failure: BaseException | None = None
        self._arrived = anyio.Event()

    async def __aenter__(self) -> Self:
        if problem := checksum_problem():
            raise SourceError(problem)
        consumer = await self._connect()
        loop = asyncio.get_running_loop()

        def deliver(delivery: Delivery) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._receive, delivery)

        def fail(error: BaseException) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._end, error)

        self._poller = Poller(consumer, self._topics, self._settings.buffer_bytes, self.name, deliver, fail)
        self._poller.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        poller, self._poller = self._poller, None
        if poller is not None:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(poller.stop)

    async def batches(self) -> AsyncIterator[Sequence[Item]]:
        """Never ends. Raises SourceError where waiting won't help, such as a missing right to read."""
        if self._poller is None:
            raise SourceError(f"expected {self.name} to be open, found it closed; use it inside `async with`")
        while True:
            while self._inbox:
                delivery = self._inbox.popleft()
                self._poller.release(delivery.size)
                if items := self._items(delivery):
                    yield items
            if isinstance(self._failure, kafka.errors.KafkaError):
                raise self._refusal(self._failure) from self._failure
            if self._failure is not None:
                raise self._failure
            await self._arrived.wait()
            self._arrived = anyio.Event()

    @property
    def partitions(self) -> frozenset[str]:
        """The partitions that are ours, as far as their items have been asked for."""
        return self._cursor.partitions

    @property
    def buffered(self) -> int:
        """Bytes fetched and not yet asked for."""
        return self._poller.buffered if self._poller else 0

    @property
    def paused(self) -> bool:
        """Whether the partitions are paused, as `buffer_bytes` are waiting to be asked for."""
        return self._poller is not None and self._poller.paused

    async def commit(self, cursor: Cursor) -> None:
        """Returns when the cursor is durable, or its partitions are no longer ours; waits for a broker that is away."""
        if self._poller is None:
            raise SourceError(f"expected {self.name} to be open, found it closed; commit inside `async with`")
        if commits := self._cursor.commits(cursor):
            await asyncio.wrap_future(self._poller.commit(commits))

    async def _connect(self) -> KafkaConsumer:
        options = {
            "group_id": self._settings.group,
            "enable_auto_commit": False,
            "session_timeout_ms": 10_000,  # after a crash, the partitions stay with the dead for this long
            "auto_offset_reset": self._settings.start,
            "allow_auto_create_topics": False,
            "partition_assignment_strategy": [RangePartitionAssignor()],
            "fetch_min_bytes": 64 * 1024,  # a fetch costs 2-4 ms of CPU: rather 40 a second than one for each record
            "fetch_max_wait_ms": 25,
            "fetch_max_bytes": min(self._settings.buffer_bytes, 50 * 1024 * 1024),
            "max_partition_fetch_bytes": 4 * 1024 * 1024,
        }
        try:
            consumer = await connect(KafkaConsumer, self._settings, options, f"source {self.name}")
        except kafka.errors.KafkaError as error:
            raise self._refusal(error) from error
        try:
            await self._require_topics(consumer)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(lambda: consumer.close(autocommit=False, timeout_ms=1000))
            raise
        return consumer

    async def _require_topics(self, consumer: KafkaConsumer) -> None:
        """Waits until all topics exist. Raises SourceError where their numbers of partitions differ."""
        patience = Patience(f"source {self.name} looks for its topics")
        while True:
            try:
                counts = await anyio.to_thread.run_sync(_partition_counts, consumer, self._topics)
            except kafka.errors.RetriableError as error:
                cause = f"{type(error).__name__}: {error}"
            except kafka.errors.KafkaError as error:
                raise self._refusal(error) from error
            else:
                absent = [topic for topic, count in counts.items() if count == 0]
                if not absent:
                    require_equal_counts(counts)
                    patience.over()
                    return
                cause = f"expected topic {absent[0]}, found none; create it with kafka-topics.sh --create --topic {absent[0]}"
            await anyio.sleep(patience.delay(cause))

    def _receive(self, delivery: Delivery) -> None:
        self._inbox.append(delivery)
        self._arrived.set()

    def _end(self, error: BaseException) -> None:
        self._failure = error
        self._arrived.set()

    def _items(self, delivery: Delivery) -> list[Item]:
        items: list[Item] = []
        if delivery.lost:
            self._cursor.lose(delivery.lost)
            items.append(Revoke(frozenset(partition_name(*partition) for partition in delivery.lost)))
        if delivery.gained and (cursor := self._cursor.gain(delivery.gained)).offsets:
            items.append(Resume(cursor))
        for fetched in delivery.records:
            item = self._decoder.decode(self._record(fetched))
            if isinstance(item, Packet):
                self._cursor.note(TopicPartition(fetched.topic, fetched.partition), item.key, fetched.offset)
            items.append(item)
        return items

    def _record(self, fetched: ConsumerRecord) -> Record:
        return Record(
            fetched.topic,
            fetched.partition,
            fetched.offset,
            fetched.key,
            fetched.value,
            tuple(fetched.headers),
            fetched.timestamp * MILLISECOND if fetched.timestamp >= 0 else self._clock.now(),
        )

    def _refusal(self, error: kafka.errors.KafkaError) -> SourceError:
        fix = "check the brokers' logs"
        if isinstance(error, kafka.errors.AuthorizationError):
            fix = "grant this user the right to read the topics and the group (kafka-acls.sh), or set username and password"
        return SourceError(f"{self.name}: expected the broker to give records, found {type(error).__name__}: {error}; {fix}")


def _partition_counts(consumer: KafkaConsumer, topics: Sequence[str]) -> dict[str, int]:
    return {topic: len(consumer.partitions_for_topic(topic)) for topic in topics}
