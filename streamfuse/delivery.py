"""From predictions to a durable cursor, at least once; and what every delivery must know: which windows are still ours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self

from streamfuse.interfaces import Clock, Sink, Source
from streamfuse.metrics import Metrics
from streamfuse.types import Cursor, Emitted, Offsets, Prediction, Rest, Window

NOTHING: frozenset[str] = frozenset()


class AtLeastOnce:
    """Publishes to all sinks at once, and commits the cursor of what is durable when it is asked to.

    A crash repeats what was published after the last commit, with the same identities.
    """

    def __init__(self, sources: Sequence[Source], sinks: Sequence[Sink], clock: Clock, metrics: Metrics) -> None:
        self._sources = sources
        self._sinks = sinks
        self._clock = clock
        self._metrics = metrics
        self._progress = Progress()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        return None

    @property
    def pending(self) -> bool:
        return self._progress.moved

    async def publish(self, emitted: Sequence[Emitted], predictions: Sequence[Prediction]) -> None:
        gone = revoked(self._sources, [one.revokes for one in emitted])
        ours = [p for one, p, lost in zip(emitted, predictions, gone, strict=True) if not (lost and is_stale(one.window, lost))]
        for sink in self._sinks:
            await sink.publish(ours)
        now = self._clock.now()
        for prediction in ours:
            self._metrics.published(prediction, now)
        self._metrics.stale(len(predictions) - len(ours))
        for one, lost in zip(emitted, gone, strict=True):
            self._progress.add(one.window, lost)

    async def commit(self, rest: Rest | None = None) -> None:
        if rest is not None and not any(revoked(self._sources, [rest.revokes])):
            self._progress.update(rest.cursor)
        cursor = self._progress.take()
        for source in self._sources:
            await source.commit(cursor)
        self._metrics.committed()


class Progress:
    """The cursors of windows, merged in their order, less what was revoked after they were emitted."""

    def __init__(self) -> None:
        self.moved = False
        self._offsets: dict[str, Offsets] = {}
        self._watermarks: dict[str, int] = {}
        self._homes: dict[str, frozenset[str]] = {}  # of the keys with windows since the last cursor

    def add(self, window: Window, revoked: frozenset[str]) -> None:
        """The window is durable, or nobody's business any more since its partitions are `revoked`."""
        self._homes[window.key] = homes(window)
        if window.cursor is not None:
            self.update(window.cursor, revoked)
            self._homes.clear()

    def update(self, cursor: Cursor, revoked: frozenset[str] = NOTHING) -> None:
        self.moved = True
        self._offsets.update((name, offsets) for name, offsets in cursor.offsets.items() if name not in revoked)
        for key, watermark in cursor.watermarks.items():
            if revoked and not revoked.isdisjoint(self._homes.get(key, revoked)):
                continue  # it closed windows that nobody has published
            if watermark is None:
                self._watermarks.pop(key, None)
            else:
                self._watermarks[key] = watermark

    def take(self) -> Cursor:
        """The whole so far."""
        self.moved = False
        return Cursor(dict(self._offsets), dict(self._watermarks))


def revoked(sources: Sequence[Source], counts: Iterable[tuple[int, ...]]) -> list[frozenset[str]]:
    """For each of these counts of `Revoke`s (one a source), the partitions that were taken from us since."""
    known: dict[tuple[int, ...], frozenset[str]] = {}
    gone = []
    for of_sources in counts:
        if of_sources not in known:
            since = (source.revoked_since(count) for source, count in zip(sources, of_sources, strict=True))
            known[of_sources] = NOTHING.union(*since)
        gone.append(known[of_sources])
    return gone


def is_stale(window: Window, revoked: frozenset[str]) -> bool:
    """Whether another replica has to make this window now."""
    return not revoked.isdisjoint(homes(window))


def homes(window: Window) -> frozenset[str]:
    """The partitions of its packets; all packets of a stream and key are in one."""
    return frozenset(packets[0].position.partition for packets in window.packets.values() if packets)
