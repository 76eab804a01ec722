"""An asyncio face on kafka-python's producer: sends records, tells when they are durable."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import anyio
import anyio.to_thread
import kafka.errors
from kafka import KafkaProducer

from streamfuse.codecs import WireRecord
from streamfuse.config import KafkaConnection
from streamfuse.errors import SinkError
from streamfuse.kafka.client import Causes, checksum_problem, connect

FOR_EVER_MS = 2**31 - 1
PATIENCE = 10.0  # seconds without an acknowledgement until we say so
CLOSE_TIMEOUT = 2.0

log = logging.getLogger(__name__)

Outgoing = tuple[str, WireRecord]
"""A topic, and the record for it."""


class RecordProducer:
    """Idempotent, acknowledged by all replicas, in order within a partition. Use it with `async with`.

    A broker that is gone is waited for, at the start and later: kafka-python repeats what was not acknowledged for as long as it takes.
    """

    def __init__(self, settings: KafkaConnection, what: str, topics: Iterable[str] = (), max_record_bytes: int = 1024 * 1024) -> None:
        """`what` names it in logs. `topics` must exist, or the brokers must create them, when it opens."""
        self._settings = settings
        self._what = what
        self._topics = sorted(set(topics))
        self._max_record_bytes = max_record_bytes
        self._producer: KafkaProducer | None = None

    async def __aenter__(self) -> Self:
        """Waits for the broker. Raises SinkError where waiting won't help, such as for a topic that nobody creates."""
        if problem := checksum_problem():
            raise SinkError(problem)
        options = {
            "acks": "all",
            "enable_idempotence": True,
            "linger_ms": 5,
            "batch_size": 256 * 1024,
            "max_request_size": self._max_record_bytes + 64 * 1024,
            "delivery_timeout_ms": FOR_EVER_MS,
            "max_block_ms": self._settings.connect_timeout // 1_000_000,
        }
        try:
            self._producer = await connect(KafkaProducer, self._settings, options, self._what)
            for topic in self._topics:
                await anyio.to_thread.run_sync(self._require, self._producer, topic)
        except kafka.errors.KafkaError as error:
            await self._close()
            raise self._refusal(error) from error
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        await self._close()

    async def send(self, records: Sequence[Outgoing]) -> list[asyncio.Future[None]]:
        """Hands the records over; each future is done when its record is durable. Raises SinkError where waiting won't help."""
        producer = self._producer
        if producer is None:
            raise SinkError(f"expected {self._what} to be open, found it closed; use it inside `async with`")
        loop = asyncio.get_running_loop()
        handed: list[Any] = []
        while len(handed) < len(records):
            try:
                await anyio.to_thread.run_sync(_send, producer, records, handed)
            except kafka.errors.KafkaTimeoutError as error:  # no room, or no metadata: the broker is away
                log.warning("%s: waiting for the broker: %s", self._what, error)
            except (kafka.errors.KafkaError, TypeError, ValueError) as error:
                raise self._refusal(error) from error
        return [_bridge(loop, future) for future in handed]

    async def delivered(self, futures: Sequence[asyncio.Future[None]]) -> None:
        """Returns when all are durable. Raises SinkError where waiting won't help."""
        with Causes.listen() as causes:
            for future in futures:
                while not future.done():
                    with anyio.move_on_after(PATIENCE):
                        await asyncio.wait([future])
                        break
                    log.warning("%s: no acknowledgement for %.0f s, trying on: %s", self._what, PATIENCE, causes.last or "no cause given")
                if error := future.exception():
                    raise self._refusal(error) from error

    def _require(self, producer: KafkaProducer, topic: str) -> None:
        try:
            producer.partitions_for(topic)
        except kafka.errors.KafkaTimeoutError:
            raise SinkError(
                f"expected topic {topic} at {self._settings.bootstrap}, found none, and the brokers create none; create it with"
                f" kafka-topics.sh --create --topic {topic}"
            ) from None

    def _refusal(self, error: BaseException) -> SinkError:
        fix = "check the brokers' logs"
        if isinstance(error, kafka.errors.MessageSizeTooLargeError | kafka.errors.RecordListTooLargeError):
            fix = "raise max.message.bytes of the topic, or publish less per record"
        elif isinstance(error, kafka.errors.AuthorizationError):
            fix = "grant this user the right to write to the topic (kafka-acls.sh), or set username and password"
        elif isinstance(error, kafka.errors.InvalidTopicError | ValueError):
            fix = "choose a topic name of letters, digits, '.', '_' and '-'"
        return SinkError(f"{self._what}: expected the broker to take records, found {type(error).__name__}: {error}; {fix}")

    async def _close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(_end, producer)


def _end(producer: KafkaProducer) -> None:
    """Closes it; what is not acknowledged by then was not committed either, and comes again in the next run."""
    try:
        producer.close(CLOSE_TIMEOUT)
    except kafka.errors.KafkaTimeoutError:
        producer._sender.force_close()  # kafka-python raises before it has ended its thread
        with suppress(kafka.errors.KafkaTimeoutError):
            producer.close(CLOSE_TIMEOUT)


def _send(producer: KafkaProducer, records: Sequence[Outgoing], handed: list[Any]) -> None:
    for topic, wire in records[len(handed) :]:
        milliseconds = max(wire.timestamp // 1_000_000, 0)
        handed.append(producer.send(topic, wire.value, wire.key, list(wire.headers), timestamp_ms=milliseconds))


def _bridge(loop: asyncio.AbstractEventLoop, sent: Any) -> asyncio.Future[None]:
    future: asyncio.Future[None] = loop.create_future()

    def settle(error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
            future.exception()  # a publish that was cancelled asks no more

    def tell(error: BaseException | None) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, error)

    sent.add_callback(lambda _: tell(None))
    sent.add_errback(tell)
    return future
