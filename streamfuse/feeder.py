"""Publishes the packets of a source in wire format: to in-process topics for the demo, to Kafka for `streamfuse sim`."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Self

import anyio.to_thread

from streamfuse.codecs import WireRecord, encode_packet
from streamfuse.errors import InvalidRecord
from streamfuse.interfaces import Source
from streamfuse.topics import Topics
from streamfuse.types import Image, Loss, Packet

if TYPE_CHECKING:
    from asyncio import Future

    from streamfuse.config import KafkaConnection

log = logging.getLogger(__name__)

RECORD_OVERHEAD = 512  # bytes of key and headers, about

Publish = Callable[[str, WireRecord], Awaitable[object]]
"""Writes a record to a topic; returns when there is room for the next."""


@dataclass
class Fed:
    """What became of a source's packets, by stream."""

    published: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)


async def feed(source: Source, publish: Publish, topics: Mapping[str, str], fed: Fed | None = None) -> Fed:
    """Enters the source and publishes its packets until it ends, each to the topic of its stream (one of the stream's name where none is
    given).

    Losses of the source, and packets that can't be encoded, are counted in `fed.lost` and logged, at the first of a stream and reason;
    they are not published. Give a `fed` to see the counts while it runs.
    """
    fed = fed or Fed()
    told: set[tuple[str, str]] = set()

    def lose(stream: str, reason: str, detail: str) -> None:
        fed.lost[stream] += 1
        if (stream, reason) not in told:
            told.add((stream, reason))
            log.warning(
                "%s: a record of stream %s is not published (%s; further ones are counted only): %s", source.name, stream, reason, detail
            )

    async with source:
        async for batch in source.batches():
            for item in batch:
                if isinstance(item, Loss):
                    lose(item.stream, item.reason, item.detail)
                elif isinstance(item, Packet):
                    try:
                        wire = await _encode(item)
                    except InvalidRecord as error:
                        lose(item.stream, "invalid", str(error))
                        continue
                    await publish(topics.get(item.stream, item.stream), wire)
                    fed.published[item.stream] += 1
    return fed


def publish_to(topics: Topics) -> Publish:
    """Publishes to in-process topics; waits while their readers are behind."""

    async def publish(topic: str, wire: WireRecord) -> object:
        return await topics.publish(topic, *wire)

    return publish


class KafkaPublisher:
    """Publishes to Kafka: `async with KafkaPublisher(connection) as publish: await feed(source, publish, topics)`.

    Records go on their way before the ones before them are acknowledged, up to `max_in_flight` bytes; leaving the block waits for all.
    """

    def __init__(
        self,
        settings: KafkaConnection,
        topics: Mapping[str, str],
        max_record_bytes: int = 16 * 1024 * 1024,
        max_in_flight: int = 16 * 1024 * 1024,
    ) -> None:
        from streamfuse.kafka.producer import RecordProducer

        self._producer = RecordProducer(settings, "feeder", topics.values(), max_record_bytes)
        self._max_in_flight = max_in_flight
        self._in_flight: deque[tuple[Future[None], int]] = deque()
        self._bytes = 0

    async def __aenter__(self) -> Self:
        """Waits for the broker. Raises SinkError where a topic does not exist and is not created."""
        await self._producer.__aenter__()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        try:
            if kind is None:
                await self._settle(0)
        finally:
            await self._producer.__aexit__(kind, error, trace)

    async def __call__(self, topic: str, wire: WireRecord) -> None:
        """Raises SinkError where waiting won't help, for this record or for one before it."""
        from streamfuse.kafka.transport import Outgoing

        size = len(wire.value or b"") + RECORD_OVERHEAD
        await self._settle(max(self._max_in_flight - size, 0))
        (future,) = await self._producer.send([Outgoing(topic, wire)])
        self._in_flight.append((future, size))
        self._bytes += size

    async def _settle(self, bound: int) -> None:
        while self._in_flight and (self._bytes > bound or self._in_flight[0][0].done()):
            future, size = self._in_flight.popleft()
            self._bytes -= size
            await self._producer.delivered([future])


async def _encode(packet: Packet) -> WireRecord:
    if isinstance(packet.payload, Image):  # JPEG encoding takes milliseconds
        return await anyio.to_thread.run_sync(encode_packet, packet)
    return encode_packet(packet)
