"""Ways of tests to write to topics and to read from a source."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence

import anyio
from kafka import KafkaProducer

from streamfuse.clock import SystemClock
from streamfuse.config import KafkaSourceSettings
from streamfuse.sources.kafka import KafkaSource
from streamfuse.types import Cursor, Item, Offsets, Packet, Position, Resume, Revoke
from tests.kafka.broker import Broker

PATIENCE = 60  # seconds that a test waits for what must come
transport = "kafka-python"  # of what connects as we do here; the fixture of this name sets it


def connection(broker: Broker) -> dict[str, object]:
    """The settings of a connection of ours."""
    return {"bootstrap": broker.bootstrap, "transport": transport}


def source_of(broker: Broker, topics: dict[str, str], group: str = "streamfuse", **settings: object) -> KafkaSource:
    """A source from the earliest record on, unless `settings` say otherwise."""
    given = {"start": "earliest", **settings}
    return KafkaSource(
        KafkaSourceSettings.model_validate({"type": "kafka", **connection(broker), "topics": topics, "group": group, **given}),
        SystemClock(),
    )


def produce(
    broker: Broker, topic: str, texts: Iterable[str], key: str = "room", partition: int | None = None, timestamp: int | None = None
) -> None:
    """As a producer that knows nothing of CloudEvents; returns when all is acknowledged. `timestamp` in ms."""
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap, acks="all", metrics_enabled=False)
    try:
        for text in texts:
            producer.send(topic, text.encode(), key.encode(), partition=partition, timestamp_ms=timestamp)
        producer.flush(PATIENCE)
    finally:
        producer.close()


class Reading:
    """Reads a source step by step and keeps all that came."""

    def __init__(self, source: KafkaSource) -> None:
        self.items: list[Item] = []
        self._source = source
        self._batches: AsyncIterator[Sequence[Item]] = source.batches()

    async def until(self, enough: Callable[[], bool]) -> None:
        with anyio.fail_after(PATIENCE):
            while not enough():
                self.items += await anext(self._batches)

    async def packets(self, count: int) -> list[Packet]:
        """All packets so far, once there are so many."""
        await self.until(lambda: len(self.seen) >= count)
        return self.seen

    async def forever(self) -> None:
        async for batch in self._batches:
            self.items += batch

    @property
    def seen(self) -> list[Packet]:
        return [item for item in self.items if isinstance(item, Packet)]

    @property
    def texts(self) -> list[object]:
        return [packet.payload for packet in self.seen]

    @property
    def resumed(self) -> list[Cursor]:
        return [item.cursor for item in self.items if isinstance(item, Resume)]

    @property
    def revoked(self) -> set[str]:
        return {partition for item in self.items if isinstance(item, Revoke) for partition in item.partitions}


def after(position: Position, watermarks: dict[str, int | None] | None = None) -> Cursor:
    """A cursor that needs nothing up to and including this record."""
    following = position.offset + 1
    return Cursor({position.partition: Offsets(following, following)}, watermarks or {})
