"""Reads one topic record by record, for a subscriber."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

import anyio
import anyio.to_thread
from anyio.lowlevel import checkpoint

from streamfuse.codecs import Record
from streamfuse.config import KafkaConnection
from streamfuse.errors import SourceError
from streamfuse.kafka.clients import Reading, make_consumer
from streamfuse.kafka.tail_poller import BUFFER_BYTES, Batch, Delivery, Tail, TailPoller
from streamfuse.kafka.transport import Partition, Refused

T = TypeVar("T")

RECORDS_BETWEEN_CHECKPOINTS = 64


class KafkaRecords:
    """Fulfils `records.Records` for one topic."""

    def __init__(self, settings: KafkaConnection, tail: Tail) -> None:
        self._what = f"subscription to {tail.topic} at {settings.bootstrap}"
        self._settings = settings
        self._tail = tail
        self._poller: TailPoller | None = None
        self._stands = False
        self._inbox: deque[Batch] = deque()
        self._epochs: Mapping[Partition, int] = {}
        self._taken: tuple[Partition, int, int] | None = None
        self._since_checkpoint = 0
        self._failure: BaseException | None = None
        self._arrived = anyio.Event()

    async def open(self) -> None:
        """Waits for the broker and the topic, as long as it takes, and says so in the log. Raises SourceError where waiting won't help.

        What is published after that will come. One that was cancelled goes on in the background; the next call waits for it.
        """
        if self._poller is None:
            self._poller = self._start()
        while not self._stands:
            await self._arrival()

    async def next(self) -> tuple[Record, bool]:
        """Never ends. Raises SourceError where waiting won't help, such as a missing right to read."""
        self._processed()
        self._since_checkpoint += 1
        if self._since_checkpoint >= RECORDS_BETWEEN_CHECKPOINTS:  # a backlog must not keep the event loop to itself
            self._since_checkpoint = 0
            await checkpoint()
        while True:
            if (taken := self._take()) is not None:
                return taken
            await self._arrival()

    async def commit(self) -> None:
        """Says that the record before was processed, and returns when that is durable, or its partition is no longer ours."""
        if self._tail.group is None:
            raise SourceError(f"{self._what}: expected a group to commit for, found none; give it one with group=")
        self._processed()
        if self._poller is not None:
            await asyncio.wrap_future(self._poller.commit())

    async def close(self) -> None:
        """Commits what was processed, leaves the group and ends, within seconds."""
        poller, self._poller = self._poller, None
        if poller is not None:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(poller.stop)

    def abandon(self) -> None:
        """The same without waiting for it, from any thread."""
        if self._poller is not None:
            self._poller.stop_soon()

    def _start(self) -> TailPoller:
        settings = self._settings
        reading = Reading(group=self._tail.group, start="earliest", read_committed=self._tail.read_committed, fetch_bytes=BUFFER_BYTES)
        loop = asyncio.get_running_loop()

        def on_loop(call: Callable[[T], None], value: T) -> None:
            try:
                loop.call_soon_threadsafe(call, value)
            except RuntimeError:  # the loop is closed: nobody reads any more
                self.abandon()

        make = partial(make_consumer, settings, reading)
        poller = TailPoller(make, self._tail, self._what, partial(on_loop, self._receive), partial(on_loop, self._end))
        poller.start()
        return poller

    async def _arrival(self) -> None:
        """Returns when something has come. Raises what has ended the reading."""
        if isinstance(self._failure, Refused):
            raise SourceError(f"{self._what}: {self._failure}") from self._failure
        if self._failure is not None:
            raise self._failure
        self._arrived = anyio.Event()
        await self._arrived.wait()

    def _take(self) -> tuple[Record, bool] | None:
        while self._inbox:
            batch = self._inbox[0]
            if batch.taken == len(batch.records) or self._epochs.get(batch.partition) != batch.epoch:
                self._inbox.popleft()
                if self._poller is not None:
                    self._poller.release(batch.size)
                continue
            record = batch.records[batch.taken]
            batch.taken += 1
            known = record.offset < batch.known
            if not known:
                self._taken = (batch.partition, batch.epoch, record.offset + 1)
            return record, known
        return None

    def _processed(self) -> None:
        taken, self._taken = self._taken, None
        if taken is not None and self._poller is not None:
            self._poller.processed(*taken)

    def _receive(self, delivery: Delivery) -> None:
        self._stands = True
        self._epochs = delivery.epochs
        self._inbox.extend(delivery.batches)
        self._arrived.set()

    def _end(self, error: BaseException) -> None:
        self._failure = error
        self._arrived.set()
