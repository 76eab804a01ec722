"""From predictions to a durable cursor, exactly once: both in one transaction.

Predictions wait until they are committed, so that a transaction is open no longer than it takes, and one that did not come about can be
tried again without what has moved to another replica meanwhile. The broker fences a replica that has missed a rebalance (KIP-447): the
transaction shows the membership that the group knew when we last looked at what is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import NamedTuple, Protocol, Self

import anyio
import anyio.to_thread

from streamfuse.codecs import encode_prediction
from streamfuse.delivery import Progress, is_stale, revoked
from streamfuse.errors import SinkError
from streamfuse.interfaces import Clock, Source
from streamfuse.kafka.client import Patience
from streamfuse.kafka.cursor import Commits
from streamfuse.kafka.transport import Committed, Outdated, Outgoing, Partition, Passing, Refused, TransactionalProducer
from streamfuse.metrics import Metrics
from streamfuse.types import Cursor, Emitted, Prediction, Rest

CLOSE_TIMEOUT = 2.0
MOST_PENDING = 5_000  # predictions in one transaction


class Offer(NamedTuple):
    """What makes a cursor durable: `offsets`, with `records` that belong to them; for the source, the `commits` that they come from."""

    offsets: Mapping[Partition, Committed]
    records: Sequence[Outgoing]
    commits: Commits


class Member(Source, Protocol):
    """A source that reads as a member of a group."""

    @property
    def group(self) -> str: ...

    @property
    def membership(self) -> object:
        """What the broker knows us by, as of the last rebalance that `revoked_since` tells of."""
        ...

    async def offer(self, cursor: Cursor) -> Offer:
        """What to commit for this cursor, of the partitions that are ours at this moment."""
        ...

    def settle(self, offer: Offer) -> None:
        """It is durable."""
        ...

    async def committed(self, partitions: Iterable[Partition]) -> dict[Partition, Committed]:
        """What the group has committed, once no transaction is about to change it. Waits for a broker that is away."""
        ...


class ExactlyOnce:
    """Publishes to `topics`, each prediction to all, and commits the source's offsets with them.

    `make` makes a producer, always with the same transactional id; entering waits for the broker. Readers see predictions when their
    transaction is committed, if they read committed records only.
    """

    def __init__(
        self,
        source: Member,
        topics: Sequence[str],
        make: Callable[[], TransactionalProducer],
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._source = source
        self._topics = topics
        self._make = make
        self._clock = clock
        self._metrics = metrics
        self._what = f"transactions to {', '.join(topics)}"
        self._producer: TransactionalProducer | None = None
        self._waiting: list[tuple[Emitted, Prediction]] = []
        self._complete = 0  # so many of them may be committed: a cursor follows

    async def __aenter__(self) -> Self:
        """Raises SinkError where waiting for the broker won't help."""
        await self._open()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        with anyio.CancelScope(shield=True):
            await self._close()

    @property
    def pending(self) -> bool:
        return self._complete > 0

    async def publish(self, emitted: Sequence[Emitted], predictions: Sequence[Prediction]) -> None:
        for one, prediction in zip(emitted, predictions, strict=True):
            self._waiting.append((one, prediction))
            if one.window.cursor is not None:
                self._complete = len(self._waiting)
        if self._complete >= MOST_PENDING:
            await self.commit()

    async def commit(self, rest: Rest | None = None) -> None:
        """Raises SinkError where waiting won't help; otherwise tries until it is done, or until nothing of it is ours any more."""
        patience = Patience(self._what)
        tried: Offer | None = None  # and may have been done
        while True:
            membership = self._source.membership  # looked at first: one of a later generation would vouch for windows of this one
            ready = self._waiting[: self._complete]
            gone = revoked([self._source], [emitted.revokes for emitted, _ in ready])
            ours = [prediction for (one, prediction), lost in zip(ready, gone, strict=True) if not is_stale(one.window, lost)]
            progress = Progress()
            for (one, _), lost in zip(ready, gone, strict=True):
                progress.add(one.window, lost)
            if rest is not None and not any(revoked([self._source], [rest.revokes])):
                progress.update(rest.cursor)
            offer = await self._source.offer(progress.take())
            try:
                if tried is not None and await self._is_done(tried, offer):
                    offer = tried
                elif offer.offsets:
                    await self._transact(ours, offer, membership)
                else:
                    ours = []  # of a window that is ours, so is a partition
                break
            except Outdated as error:
                tried = None
                await anyio.sleep(patience.delay(str(error)))
            except Passing as error:
                tried = offer
                await anyio.sleep(patience.delay(str(error)))
                await self._close()
                await self._open()
            except Refused as error:
                raise SinkError(f"{self._what}: expected the broker to take them, found {error}") from error
        patience.over()
        self._source.settle(offer)
        now = self._clock.now()
        for prediction in ours:
            self._metrics.published(prediction, now)
        self._metrics.stale(len(ready) - len(ours))
        self._metrics.committed()
        del self._waiting[: len(ready)]
        self._complete = 0

    async def _is_done(self, tried: Offer, offer: Offer) -> bool:
        """Whether the transaction of which we did not hear was committed: all of it was, or nothing. Where none of its partitions is ours
        any more there is nobody to ask, and nothing left to publish."""
        known = {partition: committed for partition, committed in tried.offsets.items() if partition in offer.offsets}
        return bool(known) and await self._source.committed(known) == known

    async def _transact(self, predictions: Sequence[Prediction], offer: Offer, membership: object) -> None:
        producer = self._producer
        if producer is None:
            raise SinkError(f"expected {self._what} to be open, found them closed; use them inside `async with`")
        records = [Outgoing(topic, wire) for wire in map(encode_prediction, predictions) for topic in self._topics]
        records += offer.records
        await anyio.to_thread.run_sync(producer.transact, records, offer.offsets, self._source.group, membership, abandon_on_cancel=True)

    async def _open(self) -> None:
        patience = Patience(f"{self._what}: opening")
        while True:
            try:
                self._producer = await anyio.to_thread.run_sync(self._make)
                await anyio.to_thread.run_sync(self._producer.open, abandon_on_cancel=True)
            except Passing as error:
                await self._close()
                await anyio.sleep(patience.delay(str(error)))
            except Refused as error:
                await self._close()
                raise SinkError(f"{self._what}: expected the broker to take them, found {error}") from error
            else:
                patience.over()
                return

    async def _close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await anyio.to_thread.run_sync(producer.close, CLOSE_TIMEOUT)
