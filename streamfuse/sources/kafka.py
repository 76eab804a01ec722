"""Reads packets from Kafka: at least once, one consumer group, offsets committed by cursor."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Self, cast

import anyio
import anyio.to_thread

from streamfuse.codecs import RecordDecoder, parse_time
from streamfuse.config import KafkaSourceSettings
from streamfuse.errors import ConfigError, InvalidRecord, Problem, SourceError
from streamfuse.interfaces import Clock, Unshared
from streamfuse.kafka.client import Patience
from streamfuse.kafka.clients import Reading, connect, make_consumer
from streamfuse.kafka.cursor import KafkaCursor
from streamfuse.kafka.poller import Delivery, Poller, Start, require_equal_counts
from streamfuse.kafka.transport import Consumer, Partition, Passing, Refused
from streamfuse.types import Cursor, Item, Packet, Record, Resume, Revoke

FETCH_BYTES = 50 * 1024 * 1024

log = logging.getLogger(__name__)


class KafkaSource(Unshared):
    """Reads all topics of its streams as a member of its group; all streams of a key land on one replica (Range, equal partition counts).

    Entering waits for the broker and the topics, as long as it takes, and says so in the log; it raises SourceError where waiting won't
    help. On a rebalance the items say `Revoke` for partitions lost and `Resume` for those gained, before their first record. Fetched
    records are bounded by `buffer_bytes`, above which the partitions are paused.
    """

    def __init__(self, settings: KafkaSourceSettings, clock: Clock) -> None:
        """Raises ConfigError where `start` is no instant."""
        self.name = "kafka:" + ",".join(sorted(set(settings.topics.values())))
        self.streams = frozenset(settings.topics)
        self._settings = settings
        self._start = _start(settings.start)
        self._clock = clock
        self._topics = sorted(set(settings.topics.values()))
        self._decoder = RecordDecoder(settings.topics, settings.max_record_bytes)
        self._cursor = KafkaCursor(self.name)
        self._poller: Poller | None = None
        self._inbox: deque[Delivery] = deque()
        self._failure: BaseException | None = None
        self._arrived = anyio.Event()

    async def __aenter__(self) -> Self:
        try:
            consumer = await self._connect()
        except Refused as refused:
            raise self._refusal(refused) from refused
        loop = asyncio.get_running_loop()

        def deliver(delivery: Delivery) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._receive, delivery)

        def fail(error: BaseException) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._end, error)

        self._poller = Poller(consumer, self._topics, self._start, self._settings.buffer_bytes, self.name, deliver, fail)
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
            if isinstance(self._failure, Refused):
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

    async def _connect(self) -> Consumer:
        settings = self._settings
        reading = Reading(
            group=settings.group,
            instance=settings.instance,
            start="earliest",  # of a partition whose needed records were deleted we read what is left; where else to begin, the poller says
            session_timeout=settings.session_timeout,
            fetch_bytes=min(settings.buffer_bytes, FETCH_BYTES),
        )
        consumer = await connect(lambda: make_consumer(settings, reading), settings, f"source {self.name}")
        try:
            await self._require_topics(consumer)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(consumer.close)
            raise
        return consumer

    async def _require_topics(self, consumer: Consumer) -> None:
        """Waits until all topics exist. Raises SourceError where their numbers of partitions differ."""
        patience = Patience(f"source {self.name} looks for its topics")
        while True:
            try:
                counts = await anyio.to_thread.run_sync(consumer.counts, self._topics)
            except Passing as error:
                cause = str(error)
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
            items.append(Revoke(frozenset(partition.name for partition in delivery.lost)))
        if delivery.gained and (cursor := self._cursor.gain(delivery.gained)).offsets:
            items.append(Resume(cursor))
        for record in delivery.records:
            item = self._decoder.decode(self._timed(record))
            if isinstance(item, Packet):
                self._cursor.note(Partition(record.topic, record.partition), item.key, record.offset)
            items.append(item)
        return items

    def _timed(self, record: Record) -> Record:
        return record if record.timestamp >= 0 else record._replace(timestamp=self._clock.now())

    def _refusal(self, refused: Refused) -> SourceError:
        return SourceError(f"{self.name}: expected the broker to give records, found {refused}")


def _start(text: str) -> Start:
    try:
        return cast(Start, text) if text in ("earliest", "latest") else parse_time(text)
    except InvalidRecord as error:
        raise ConfigError([Problem("start", f"expected earliest, latest or an instant such as 2026-05-01T12:00:00Z: {error}")]) from None
