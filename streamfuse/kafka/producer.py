"""An asyncio face on a Kafka producer: sends records, tells when they are durable."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Self

import anyio
import anyio.to_thread

from streamfuse.config import KafkaConnection
from streamfuse.errors import SinkError
from streamfuse.kafka.client import Patience, missing
from streamfuse.kafka.clients import MAX_RECORD_BYTES, connect, make_producer
from streamfuse.kafka.transport import Outgoing, Passing, Producer, Refused, TransportError

PATIENCE = 10.0  # seconds without an acknowledgement until we say so
CLOSE_TIMEOUT = 2.0

log = logging.getLogger(__name__)

Done = Callable[[TransportError | None], None]


class RecordProducer:
    """Idempotent, acknowledged by all replicas, in order within a partition. Use it with `async with`.

    A broker that is gone is waited for, at the start and later: what was not acknowledged is repeated for as long as it takes.
    """

    def __init__(self, settings: KafkaConnection, what: str, topics: Iterable[str] = (), max_record_bytes: int = MAX_RECORD_BYTES) -> None:
        """`what` names it in logs. `topics` are waited for when it opens."""
        self._settings = settings
        self._what = what
        self._topics = sorted(set(topics))
        self._max_record_bytes = max_record_bytes
        self._producer: Producer | None = None

    async def __aenter__(self) -> Self:
        """Waits for the broker and the topics, as long as it takes, and says so in the log. Raises SinkError where waiting won't help."""
        try:
            self._producer = await connect(lambda: make_producer(self._settings, self._max_record_bytes), self._settings, self._what)
            await self._require_topics(self._producer)
        except Refused as error:
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
        futures: list[asyncio.Future[None]] = [loop.create_future() for _ in records]
        waiting: list[tuple[Outgoing, Done]] = [
            (record, partial(_tell, loop, future)) for record, future in zip(records, futures, strict=True)
        ]
        waiting.reverse()
        patience = Patience(f"{self._what} hands records over")
        while waiting:
            try:
                await anyio.to_thread.run_sync(_hand_over, producer, waiting)
            except Passing as error:
                await anyio.sleep(patience.delay(str(error)))
            except Refused as error:
                raise self._refusal(error) from error
        patience.over()
        return futures

    async def delivered(self, futures: Sequence[asyncio.Future[None]]) -> None:
        """Returns when all are durable. Raises SinkError where waiting won't help."""
        for future in futures:
            while not future.done():
                with anyio.move_on_after(PATIENCE):
                    await asyncio.wait([future])
                    break
                trouble = await self._absent() or (self._producer and self._producer.trouble) or "no cause given"
                log.warning("%s: no acknowledgement for %.0f s, trying on: %s", self._what, PATIENCE, trouble)
            if error := future.exception():
                absent = await self._absent()
                raise (SinkError(f"{self._what}: {absent}") if absent else self._refusal(error)) from error

    async def _require_topics(self, producer: Producer) -> None:
        patience = Patience(f"{self._what} looks for its topics")
        for topic in self._topics:
            while True:
                cause = missing([topic], self._settings.bootstrap)
                try:
                    if await anyio.to_thread.run_sync(producer.count, topic):
                        break
                except Passing as error:
                    cause = str(error)
                await anyio.sleep(patience.delay(cause))
        patience.over()

    async def _absent(self) -> str | None:
        """What to say of topics that are gone, if there are any: clients don't, of one that they have known."""
        producer = self._producer
        if producer is not None:
            with suppress(TransportError):
                gone = [topic for topic in self._topics if not await anyio.to_thread.run_sync(producer.count, topic)]
                return missing(gone, self._settings.bootstrap) if gone else None
        return None

    def _refusal(self, error: BaseException) -> SinkError:
        return SinkError(f"{self._what}: expected the broker to take records, found {error}")

    async def _close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(producer.close, CLOSE_TIMEOUT)


def _hand_over(producer: Producer, waiting: list[tuple[Outgoing, Done]]) -> None:
    """From the end of the list on; takes off it what has been handed over."""
    while waiting:
        (topic, record, partition), done = waiting[-1]
        producer.send(topic, record, done, partition)
        waiting.pop()


def _tell(loop: asyncio.AbstractEventLoop, future: asyncio.Future[None], error: TransportError | None) -> None:
    """Called on the client's thread."""
    with suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(_settle, future, error)


def _settle(future: asyncio.Future[None], error: TransportError | None) -> None:
    if future.cancelled():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
        future.exception()  # a publish that was cancelled asks no more
