"""Reads packets from Kafka as a member of a group, in the order of their event times, and commits by cursor."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Self, cast

import anyio
import anyio.to_thread

from streamfuse.codecs import RecordDecoder, parse_time
from streamfuse.config import KafkaSourceSettings
from streamfuse.errors import ConfigError, InvalidRecord, Problem, SourceError
from streamfuse.interfaces import Clock
from streamfuse.kafka.client import Patience, missing
from streamfuse.kafka.clients import Reading, connect, make_consumer
from streamfuse.kafka.cursor import KafkaCursor
from streamfuse.kafka.exactly_once import Offer
from streamfuse.kafka.merge import Merge, Queued
from streamfuse.kafka.poller import Delivery, Poller, Start, require_equal_counts
from streamfuse.kafka.producer import RecordProducer
from streamfuse.kafka.transport import Committed, Consumer, Partition, Passing, Refused
from streamfuse.kafka.watermark_log import WatermarkLog
from streamfuse.kafka.watermark_topic import create, outgoing, read_watermarks
from streamfuse.sources.formats import formats_of
from streamfuse.types import SECOND, Cursor, Item, Packet, Record, Resume, Revoke

FETCH_BYTES = 50 * 1024 * 1024
BELIEVABLE = 24 * 3600 * SECOND

log = logging.getLogger(__name__)


class KafkaSource:
    """Reads all topics of its streams as a member of its group; all streams of a key land on one replica (Range, equal partition counts).

    Entering waits for the broker and the topics, as long as it takes, and says so in the log; it raises SourceError where waiting won't
    help. On a rebalance the items say `Revoke` for partitions lost and `Resume` for those gained, before their first record.

    A backlog is read in the order of event time over all partitions: one that has more to come holds back those that are ahead of it, for
    up to `patience`. A packet that nobody can believe, more than a day from its arrival, counts by that. Fetched records are bounded by
    `buffer_bytes`; a partition that has its share of them is paused.
    """

    def __init__(self, settings: KafkaSourceSettings, clock: Clock) -> None:
        """Raises ConfigError where `start` is no instant."""
        self.name = "kafka:" + ",".join(sorted(set(settings.topics.values())))
        self.streams = frozenset(settings.topics)
        self._settings = settings
        self._start = _start(settings.start)
        self._clock = clock
        self._topics = sorted(set(settings.topics.values()))
        self._decoder = RecordDecoder(settings.topics, settings.max_record_bytes, formats_of(settings.formats))
        self._cursor = KafkaCursor(self.name)
        self._watermarks_topic = settings.watermarks_topic or f"{settings.group}-watermarks"
        self._watermarks: RecordProducer | None = None
        self._looked_for_watermarks_topic = False
        self._poller: Poller | None = None
        self._merge = Merge(settings.patience)
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

        def read(versions: Mapping[int, int]) -> dict[int, WatermarkLog]:
            return read_watermarks(lambda: make_consumer(self._settings, Reading(start="earliest")), self._watermarks_topic, versions)

        self._poller = Poller(consumer, self._topics, self._start, self._settings.buffer_bytes, self.name, read, deliver, fail)
        self._poller.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        poller, self._poller = self._poller, None
        if poller is not None:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(poller.stop)
        watermarks, self._watermarks = self._watermarks, None
        if watermarks is not None:
            await watermarks.__aexit__(kind, error, trace)

    async def batches(self) -> AsyncIterator[Sequence[Item]]:
        """Never ends. Raises SourceError where waiting won't help, such as a missing right to read."""
        poller = self._open
        while True:
            while self._inbox:
                if told := self._accept(self._inbox.popleft()):
                    yield told
            now = self._clock.monotonic()
            items, sizes = self._merge.take(now)
            if items:
                poller.release(sizes)
                yield items
                continue
            if isinstance(self._failure, Refused):
                raise self._refusal(self._failure) from self._failure
            if self._failure is not None:
                raise self._failure
            wait = self._merge.until_next(now)
            with anyio.move_on_after(math.inf if wait is None else wait / SECOND):
                await self._arrived.wait()
            self._arrived = anyio.Event()

    @property
    def group(self) -> str:
        return self._settings.group

    @property
    def behind(self) -> bool:
        """Also while the broker is away: what it would have brought is not known."""
        return bool(self._inbox) or self._merge.behind(self._clock.monotonic())

    def revoked_since(self, revokes: int) -> frozenset[str]:
        return self._open.revoked_since(revokes)

    @property
    def membership(self) -> object:
        """What the broker knows us by, as of the last rebalance that `revoked_since` tells of."""
        return self._open.standing.membership

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
        poller = self._open
        offer = await self.offer(cursor)
        if offer.records:
            watermarks = await self._open_watermarks()
            await watermarks.delivered(await watermarks.send(offer.records))
        if offer.commits.offsets:
            await asyncio.wrap_future(poller.commit(offer.commits.offsets))
        self.settle(offer)

    async def offer(self, cursor: Cursor) -> Offer:
        """What makes this cursor durable, of the partitions that are ours at this moment; `settle` it when it is."""
        commits = self._cursor.commits(cursor)
        if commits.without and not self._cursor.has_log and await self._has_watermarks_topic():
            self._cursor.has_log = True
            commits = self._cursor.commits(cursor)
        epochs = self._open.standing.epochs
        offsets = {partition: commit.committed for partition, commit in commits.offsets.items() if epochs.get(partition) == commit.epoch}
        return Offer(offsets, outgoing(self._watermarks_topic, commits.records, self._clock.now()), commits)

    def settle(self, offer: Offer) -> None:
        self._cursor.settle(offer.commits)

    async def committed(self, partitions: Iterable[Partition]) -> dict[Partition, Committed]:
        """What the group has committed, once no transaction is about to change it. Waits for a broker that is away."""
        wanted = list(partitions)
        return await asyncio.wrap_future(self._open.ask(lambda consumer: consumer.committed(wanted)))

    @property
    def _open(self) -> Poller:
        if self._poller is None:
            raise SourceError(f"expected {self.name} to be open, found it closed; use it inside `async with`")
        return self._poller

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
                cause = missing(absent, self._settings.bootstrap)
            await anyio.sleep(patience.delay(cause))

    async def _has_watermarks_topic(self) -> bool:
        """Looked for once, and created. Where it is not there and may not be created, the cursor tells what that means."""
        if self._looked_for_watermarks_topic:
            return False
        self._looked_for_watermarks_topic = True
        topic, some = self._watermarks_topic, self._topics[0]
        patience = Patience(f"{self.name} looks for its topic {topic}")
        while True:
            try:
                counts = await asyncio.wrap_future(self._open.ask(lambda consumer: consumer.counts([topic, some])))
                if not counts[topic]:
                    log.info("%s: the watermarks of all keys are too long for Kafka's commit metadata; creating topic %s", self.name, topic)
                    await anyio.to_thread.run_sync(partial(create, self._settings, topic, counts[some]))
                elif counts[topic] < counts[some]:
                    log.warning("%s: expected topic %s with %d partitions, found %d", self.name, topic, counts[some], counts[topic])
                    return False
            except Passing as error:
                await anyio.sleep(patience.delay(str(error)))
            except Refused as error:
                log.warning("%s: expected topic %s for watermarks, found none, and could not create it: %s", self.name, topic, error)
                return False
            else:
                return True

    async def _open_watermarks(self) -> RecordProducer:
        if self._watermarks is None:
            self._watermarks = RecordProducer(self._settings, f"watermarks of {self.name}", [self._watermarks_topic])
            await self._watermarks.__aenter__()
        return self._watermarks

    def _receive(self, delivery: Delivery) -> None:
        self._inbox.append(delivery)
        self._arrived.set()

    def _end(self, error: BaseException) -> None:
        self._failure = error
        self._arrived.set()

    def _accept(self, delivery: Delivery) -> list[Item]:
        """Queues the records, and returns what is to be said at once."""
        now = self._clock.monotonic()
        told: list[Item] = []
        if delivery.lost:
            self._merge.lose(delivery.lost)
            self._cursor.lose(delivery.lost)
            told.append(Revoke(frozenset(partition.name for partition in delivery.lost)))
        if delivery.gained:
            self._merge.gain(delivery.gained, now)
            if (cursor := self._cursor.gain(delivery.gained)).offsets:
                told.append(Resume(cursor))
        for partition, records in delivery.records.items():
            self._merge.add(partition, self._decoded(partition, records))
        self._merge.heard(delivery.lagging, now)
        return told

    def _decoded(self, partition: Partition, records: Sequence[Record]) -> list[Queued]:
        queued: list[Queued] = []
        last: dict[str, int] = {}
        for record in records:
            if record.timestamp < 0:
                record = record._replace(timestamp=self._clock.now())
            item = self._decoder.decode(record)
            time = record.timestamp if item.event_time is None else item.event_time
            if not -BELIEVABLE < time - record.timestamp < BELIEVABLE:
                time = record.timestamp
            if isinstance(item, Packet):
                last[item.key] = record.offset
            queued.append(Queued(time, record.size, item))
        for key, offset in last.items():
            self._cursor.note(partition, key, offset)
        return queued

    def _refusal(self, refused: Refused) -> SourceError:
        return SourceError(f"{self.name}: expected the broker to give records, found {refused}")


def _start(text: str) -> Start:
    try:
        return cast(Start, text) if text in ("earliest", "latest") else parse_time(text)
    except InvalidRecord as error:
        raise ConfigError([Problem("start", f"expected earliest, latest or an instant such as 2026-05-01T12:00:00Z: {error}")]) from None
