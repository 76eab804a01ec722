"""Parts for tests, ours and yours: a clock that is set by hand, a source, a sink and a runner in memory, and faults to inject."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from streamfuse.interfaces import Batch, Clock, Unshared
from streamfuse.simulation.faults import inject
from streamfuse.types import Absence, Cursor, Item, Packet, Prediction, Resume, Window

__all__ = ["ManualClock", "MemoryBatch", "MemoryRunner", "MemorySink", "MemorySource", "inject", "predict"]


class ManualClock:
    """A clock that moves only when it is told to."""

    def __init__(self, now: int = 0) -> None:
        self._now = now

    def now(self) -> int:
        return self._now

    def monotonic(self) -> int:
        return self._now

    def advance(self, by: int) -> None:
        self._now += by


class _Opened:
    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        return None


class MemorySource(_Opened, Unshared):
    """Yields the batches that it was given; `committed` is the last cursor. Another with the same items and `resume` goes on from it."""

    def __init__(self, batches: Sequence[Sequence[Item]], *, name: str = "memory", resume: Cursor | None = None) -> None:
        self.name = name
        self._batches = batches
        self._resume = resume
        self.streams = frozenset(item.stream for batch in batches for item in batch if isinstance(item, Packet))
        self.committed: Cursor | None = None

    async def batches(self) -> AsyncIterator[Sequence[Item]]:
        needed: Mapping[str, int] = {}
        if self._resume is not None:
            yield [Resume(self._resume)]
            needed = {partition: offsets.needed for partition, offsets in self._resume.offsets.items()}
        for batch in self._batches:
            yield [item for item in batch if not isinstance(item, Packet) or item.position.offset >= needed.get(item.position.partition, 0)]

    async def commit(self, cursor: Cursor) -> None:
        self.committed = cursor


class MemorySink(_Opened):
    """Keeps what was published."""

    def __init__(self, name: str = "memory") -> None:
        self.name = name
        self.published: list[Prediction] = []

    async def publish(self, predictions: Sequence[Prediction]) -> None:
        self.published.extend(predictions)


@dataclass(frozen=True, slots=True)
class MemoryBatch:
    windows: Sequence[Window]
    undecodable: Sequence[tuple[Packet, str]] = field(default=())


class MemoryRunner(_Opened):
    """Labels each window with the number of its packets."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or ManualClock()
        self.inputs: Mapping[str, str] = {}
        self.batches: list[int] = []

    async def prepare(self, windows: Sequence[Window]) -> MemoryBatch:
        return MemoryBatch(windows)

    async def predict(self, batch: Batch) -> list[Prediction]:
        self.batches.append(len(batch.windows))
        return [predict(window, self._clock.now()) for window in batch.windows]


def predict(window: Window, now: int = 0) -> Prediction:
    """A prediction that says how many packets the window had."""
    counts = {stream: len(found) for stream, found in window.packets.items()}
    label = str(sum(counts.values()))
    absent: dict[str, str] = {stream: Absence(reason).value for stream, reason in window.absent.items()}
    return Prediction(
        window.key, window.start, window.end, window.revision, label, {label: 1.0}, absent, {}, counts, "count", "0" * 64, now
    )
