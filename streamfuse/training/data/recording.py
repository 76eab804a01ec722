"""A recording of streams, cut into windows by the synchronizer that serving uses; a stream of text carries the labels.

`sources` and `sync` are those of a daemon's config: JSON lines, media files and the simulator, each with an end. Captions, sound and
pictures of a media file begin at its `start` (an instant, or `file`: 1970). The label of a window is what covers most of it, as in
predictions; windows that have none are left out. Each key (a room, a file) is a group.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any, cast

import anyio
from pydantic import Field

from streamfuse.assembly import make_source, make_synchronizer
from streamfuse.clock import SystemClock
from streamfuse.config import Settings, SourceSettings, SyncSettings
from streamfuse.documents import format_time
from streamfuse.errors import ConfigError, DataError, Problem, SourceError, UndecodablePayload
from streamfuse.interfaces import Source
from streamfuse.models.batch import Items
from streamfuse.models.preprocess import identity
from streamfuse.models.remember import OnceCache
from streamfuse.models.truth import true_label, words
from streamfuse.topics import Topics
from streamfuse.training.data import Heads, Inputs, checked
from streamfuse.training.data.layout import MAX_PIXELS, Layout, with_tokens
from streamfuse.training.data.targets import encode
from streamfuse.training.samples import DATA, Rows
from streamfuse.types import Audio, Image, Item, Packet, Window

log = logging.getLogger(__name__)

CACHE_BYTES = 256 * 1024 * 1024
"""Decoded packets that overlapping windows share."""


class RecordingSettings(Settings):
    sources: list[SourceSettings] = Field(min_length=1)
    sync: SyncSettings = SyncSettings()
    """All streams are waited for, as nothing comes late in a recording."""
    truth: str = "truth"
    """The stream of text that carries the labels."""
    task: str = "label"
    """What the labels are called."""
    tasks: dict[str, dict[str, Any]] = Field({})
    """Task -> its head: `type`, and its `labels` in their order."""
    max_pixels: int = Field(MAX_PIXELS, gt=0)
    max_bytes: int = Field(4 * 1024 * 1024 * 1024, gt=0)
    """Of all prepared windows, which are kept in memory."""


@DATA.register("recording")
def recording(folder: Path, inputs: Inputs | None, heads: Heads | None, **options: Any) -> Rows:
    """The windows of a recording. Reads it whole, and raises `DataError`."""
    settings = _finite(checked(RecordingSettings, options), folder)
    if not inputs:
        raise DataError([Problem("model.inputs", "is needed with a recording: stream -> how it is prepared, such as {type: waveform}")])
    problems = [
        Problem(path, f"expected a stream of data.sync.streams, found {stream!r}; there are {', '.join(settings.sync.streams)}")
        for path, stream in [*((f"model.inputs.{stream}", stream) for stream in inputs), ("data.truth", settings.truth)]
        if stream not in settings.sync.streams
    ]
    if problems:
        raise DataError(problems)
    learned = with_tokens(inputs, lambda stream: anyio.run(_texts, settings, stream))
    made = _Windows(Layout(learned, settings.max_pixels), settings)
    anyio.run(made.read)
    made.check()
    made_heads, targets = encode(
        {settings.task: made.labels}, len(made.labels), settings.tasks, heads, lambda row: made.names[row], problems
    )
    if problems:
        raise DataError(problems)
    return Rows(learned, made.layout.empty, made_heads, targets, made.names, made.items.__getitem__, made.keys)


def _finite(settings: RecordingSettings, folder: Path) -> RecordingSettings:
    """The same with paths of their own folder, at full pace, and every stream waited for. Raises `DataError` for what has no end."""
    problems = []
    sources: list[Any] = []
    for number, source in enumerate(settings.sources):
        where = f"data.sources.{number}"
        if source.type in ("kafka", "topics"):
            problems.append(Problem(f"{where}.type", f"expected jsonl, media or simulator, found {source.type}, which has no end"))
        elif source.type == "jsonl":
            if source.follow or source.path == "-":
                problems.append(Problem(where, "expected a file with an end, found one that is followed; take `follow` away"))
            sources.append(source.model_copy(update={"path": str(folder / source.path), "state": None}))
        elif source.type == "media":
            paths = [source.path] if isinstance(source.path, str) else source.path
            if source.loop or any("://" in path for path in paths):
                problems.append(Problem(where, "expected files with an end, found what goes on for ever; take `loop` or the address away"))
            start = "file" if source.start == "now" else source.start
            update = {"path": [str(folder / path) for path in paths], "pace": "full", "start": start, "state": None, "when_full": "block"}
            sources.append(source.model_copy(update=update))
        elif source.type == "simulator":
            if source.seconds is None:
                problems.append(Problem(f"{where}.seconds", "is needed: a recording has an end"))
            start = "file" if source.start == "now" else source.start
            sources.append(source.model_copy(update={"pace": "full", "start": start, "when_full": "block"}))
    if problems:
        raise DataError(problems)
    streams = {
        name: policy.model_copy(update={"required": True}) if name == settings.truth else policy
        for name, policy in settings.sync.streams.items()
    }
    return settings.model_copy(update={"sources": sources, "sync": settings.sync.model_copy(update={"streams": streams})})


async def _texts(settings: RecordingSettings, stream: str) -> list[str]:
    """What a stream of text says in the whole recording."""
    found = []
    async for items, _ in _items(settings):
        for item in items:
            if isinstance(item, Packet) and item.stream == stream:
                try:
                    found.append(words(item))
                except UndecodablePayload:  # told when its window is prepared
                    continue
    return found


async def _items(settings: RecordingSettings) -> AsyncIterator[tuple[Sequence[Item], frozenset[str]]]:
    """What the sources give, that which is furthest behind in event time first, and the streams that have ended with it."""
    clock = SystemClock()
    try:
        sources = [make_source(source, clock, Topics()) for source in settings.sources]
        async with AsyncExitStack() as stack:
            for source in sources:
                await stack.enter_async_context(source)
            async for read in _merged(sources):
                yield read
    except ConfigError as error:
        raise DataError([Problem(f"data.sources: {problem.path}", problem.message) for problem in error.problems]) from None
    except SourceError as error:
        raise DataError([Problem("data.sources", str(error))]) from None


async def _merged(sources: Sequence[Source]) -> AsyncIterator[tuple[Sequence[Item], frozenset[str]]]:
    async with AsyncExitStack() as stack:
        open_: dict[int, AsyncGenerator[Sequence[Item], None]] = {}
        for number, source in enumerate(sources):
            open_[number] = await stack.enter_async_context(aclosing(cast(AsyncGenerator[Sequence[Item], None], source.batches())))
        reached = dict.fromkeys(open_, -1)
        while open_:
            number = min(open_, key=lambda each: reached[each])
            try:
                items = await anext(open_[number])
            except StopAsyncIteration:
                del open_[number]
                yield (), sources[number].streams - {stream for other in open_ for stream in sources[other].streams}
            else:
                reached[number] = max([reached[number], *(item.event_time for item in items if isinstance(item, Packet))])
                yield items, frozenset()


class _Windows:
    """Windows as they are prepared: their items, labels, keys and names."""

    def __init__(self, layout: Layout, settings: RecordingSettings) -> None:
        self.layout = layout
        self.items: list[Mapping[str, Items]] = []
        self.labels: list[str] = []
        self.keys: list[str] = []
        self.names: list[str] = []
        self._settings = settings
        self._cache = OnceCache(CACHE_BYTES, _size)
        self._bytes = self._seen = 0
        self._refused: dict[tuple[str, int], str] = {}
        self._lost: Counter[str] = Counter()

    async def read(self) -> None:
        sync = self._settings.sync.model_copy(update={"max_hold": None, "allowed_lateness": 0})
        synchronizer = make_synchronizer(sync)
        async for items, ended in _items(self._settings):
            for window in synchronizer.push_all(items):
                self._add(window)
            for stream in sorted(ended & sync.streams.keys()):
                for window in synchronizer.finish(stream):
                    self._add(window)
        for window in synchronizer.finish():
            self._add(window)
        self._lost.update(str(loss.reason) for loss in synchronizer.take_losses())

    def check(self) -> None:
        """Tells what was not used. Raises `DataError` where nothing is left."""
        if not self.items:
            truth = self._settings.truth
            message = f"expected windows with a label from the stream {truth!r}, found none in {self._seen} windows; "
            raise DataError([Problem("data", f"{message}are its keys and event times those of the other streams?")])
        if unlabelled := self._seen - len(self.items):
            log.warning("%d of %d windows have no label and are left out", unlabelled, self._seen)
        for reason, count in sorted(self._lost.items()):
            log.warning("%d records stand in no window: %s", count, reason)
        for sentence in list(dict.fromkeys(self._refused.values()))[:10]:
            log.warning("left out a record: %s", sentence)

    def _add(self, window: Window) -> None:
        self._seen += 1
        failed: list[tuple[Packet, str]] = []
        label = true_label(window, self._settings.truth, failed)
        for packet, sentence in failed:
            self._refused[packet.stream, packet.event_time] = sentence
        if not label:
            return
        given = {stream: self._decoded(window.packets.get(stream, ())) for stream in self.layout.parts}
        items = self.layout.prepare(window.start, window.end, given, self._remember)
        self._bytes += sum(one.data.nbytes for one in items.values())
        if self._bytes > self._settings.max_bytes:
            message = f"the windows need more than data.max_bytes = {self._settings.max_bytes} of memory; raise it, or take a larger hop"
            raise DataError([Problem("data", message)])
        self.items.append(items)
        self.labels.append(label)
        self.keys.append(window.key)
        self.names.append(f"{window.key} {format_time(window.start)}")

    def _decoded(self, packets: Sequence[Packet]) -> list[tuple[Packet, Any]]:
        """Packets with what is kept of them, without those that are of no use, as in serving."""
        good = []
        for packet in packets:
            try:
                good.append((packet, self.layout.reduce(packet, self._remember)))
            except UndecodablePayload as error:
                self._refused[packet.stream, packet.event_time] = str(error)
        return good

    def _remember(self, packet: Packet, word: str, make: Callable[[], Any]) -> Any:
        return self._cache.get((word, identity(packet)), make)


def _size(value: Any) -> int:
    if isinstance(value, Image):
        return value.pixels.nbytes
    if isinstance(value, Audio):
        return value.samples.nbytes
    return int(getattr(value, "nbytes", 64))
