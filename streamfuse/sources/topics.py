"""Reads packets from in-process topics."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Self

from streamfuse.codecs import Record, RecordDecoder, partition_name
from streamfuse.config import TopicsSourceSettings
from streamfuse.errors import SourceError
from streamfuse.interfaces import Clock, Unshared
from streamfuse.sources.formats import formats_of
from streamfuse.topics import Subscription, Topics
from streamfuse.types import Cursor, Item, Resume

GROUP = "streamfuse"


class TopicsSource(Unshared):
    """Reads all its topics in the order of publishing, from the group's cursor, or from the oldest record where
    there is none.

    Ends when the topics are closed. Records without a timestamp have arrived when they are read.
    """

    def __init__(self, settings: TopicsSourceSettings, topics: Topics, clock: Clock) -> None:
        self.name = "topics:" + ",".join(sorted(set(settings.topics.values())))
        self.streams = frozenset(settings.topics)
        self._topics = topics
        self._clock = clock
        self._decoder = RecordDecoder(settings.topics, settings.max_record_bytes, formats_of(settings.formats))
        self._names = sorted(set(settings.topics.values()))
        self._partitions = {partition_name(topic, 0): topic for topic in self._names}
        self._resume: Cursor | None = None
        self._subscription: Subscription | None = None

    async def __aenter__(self) -> Self:
        """Raises SourceError where the topics no longer hold what the group's cursor still needs."""
        committed = self._topics.committed(GROUP)
        offsets = {p: o for p, o in committed.offsets.items() if p in self._partitions}
        for partition, (needed, _) in offsets.items():
            start, _ = self._topics.offsets(self._partitions[partition])
            if needed < start:
                raise SourceError(
                    f"expected topic {self._partitions[partition]} to hold offset {needed}, which the cursor still needs, found"
                    f" {start} as its oldest; give Topics a greater max_bytes or max_records"
                )
        if offsets:
            self._resume = Cursor(offsets, committed.watermarks)
        at = {self._partitions[partition]: needed for partition, (needed, _) in offsets.items()}
        self._subscription = self._topics.subscribe(self._names, at=at)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        if self._subscription is not None:
            self._subscription.close()
            self._subscription = None

    async def batches(self) -> AsyncIterator[Sequence[Item]]:
        if self._subscription is None:
            raise SourceError("expected an open source, found one outside `async with`; enter it first")
        if self._resume is not None:
            yield [Resume(self._resume)]
        async for batch in self._subscription:
            yield [self._decoder.decode(self._stamped(record)) for record in batch]

    async def commit(self, cursor: Cursor) -> None:
        ours = {partition: offsets for partition, offsets in cursor.offsets.items() if partition in self._partitions}
        if ours:
            self._topics.commit(GROUP, Cursor(ours, cursor.watermarks))

    def _stamped(self, record: Record) -> Record:
        return record if record.timestamp >= 0 else record._replace(timestamp=self._clock.now())
