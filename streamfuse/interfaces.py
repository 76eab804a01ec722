"""Every contract of StreamFuse on one page. An implementation inherits nothing; it passes the contract suite in `tests/`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Protocol, Self

from streamfuse.types import Cursor, Emitted, Item, Packet, Prediction, Rest, Window


class Clock(Protocol):
    """Reads time. Tests pass a `ManualClock`."""

    def now(self) -> int:
        """UTC in ns."""
        ...

    def monotonic(self) -> int:
        """ns from an unknown start; never goes back."""
        ...


class Source(Protocol):
    """Yields packets, each stamped with its event time, in the order of their offsets within a partition.

    Used as `async with source:`; entering opens what it reads and raises `SourceError` where waiting won't help. Losing a connection
    later is the source's own business: it retries with backoff and keeps its place.
    """

    name: str
    """Names the source in logs and metrics."""

    streams: frozenset[str]
    """The streams that its packets may belong to."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None: ...

    def batches(self) -> AsyncIterator[Sequence[Item]]:
        """Batches of items, in order, until the input ends; a live source never ends. Called once.

        Every record that was read is yielded, as a `Packet` or, where it can't be one, as a `Loss` with the reason. Backpressure is not
        asking for the next batch: a source with `when_full: block` then stops reading, one with `drop_oldest` gives up its oldest packets
        and yields each of them as a `Loss` with reason `shed`. Cancelling the iteration loses nothing that was not yielded.
        """
        ...

    async def commit(self, cursor: Cursor) -> None:
        """Make the cursor durable, so that the next run starts with `Resume(cursor)`. Partitions of other sources are passed over.

        Called only when every prediction before the cursor is durable. Cursors only move forward.
        """
        ...

    @property
    def behind(self) -> bool:
        """Whether records may be there that were not yielded yet. While they may, silence is ours and not the producers' (rule 6)."""
        ...

    def revoked_since(self, revokes: int) -> frozenset[str]:
        """The partitions taken from us after the first `revokes` `Revoke`s, those included that are not yielded yet: what was made of
        their packets before is not to be published, as another replica makes it anew."""
        ...


class Unshared:
    """What a source says that reads all there is as soon as it is there, and shares it with nobody."""

    @property
    def behind(self) -> bool:
        return False

    def revoked_since(self, revokes: int) -> frozenset[str]:
        return frozenset()


class Sink(Protocol):
    """Takes predictions. Used as `async with sink:`, like a source."""

    name: str

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None: ...

    async def publish(self, predictions: Sequence[Prediction]) -> None:
        """Returns when all of them are durable, in this order. Raises `SinkError` where waiting won't help.

        The same prediction may come twice (at least once); its identity is the window's, so that a reader can tell.
        """
        ...


class Batch(Protocol):
    """Windows made ready for a model: an opaque value between `Runner.prepare` and `Runner.predict`."""

    @property
    def windows(self) -> Sequence[Window]: ...

    @property
    def undecodable(self) -> Sequence[tuple[Packet, str]]:
        """Packets of these windows that turned out undecodable, with the sentence that says why; each is reported once."""
        ...


class Runner(Protocol):
    """Turns windows into predictions. Used as `async with runner:`; entering loads the model and warms it up."""

    @property
    def inputs(self) -> Mapping[str, str]:
        """The streams that the model reads, with their modality (`image`, `audio`, `text`)."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None: ...

    async def prepare(self, windows: Sequence[Window]) -> Batch:
        """Decode and preprocess on the pool. Never raises for bad payloads: they are listed as `undecodable` and count as absent."""
        ...

    async def predict(self, batch: Batch) -> list[Prediction]:
        """One prediction a window, in their order, computed on the thread that owns the device."""
        ...


class Delivery(Protocol):
    """Makes predictions durable, and behind them the cursor. Used as `async with delivery:`, inside the sources and sinks.

    Windows whose partitions were revoked are passed over, here and in the cursor.
    """

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None: ...

    @property
    def pending(self) -> bool:
        """Whether there is something to commit."""
        ...

    async def publish(self, emitted: Sequence[Emitted], predictions: Sequence[Prediction]) -> None:
        """Takes over these windows' predictions, in this order."""
        ...

    async def commit(self, rest: Rest | None = None) -> None:
        """Returns when what was published is durable, and the cursor behind it; `rest` comes with the last call."""
        ...
