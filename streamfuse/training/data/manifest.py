"""Rows of a manifest: media files with spans, words and numbers, with their labels. See `streamfuse.training.data.table`."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from streamfuse.config import Settings
from streamfuse.errors import DataError, Problem, SourceError, UndecodablePayload
from streamfuse.models.batch import Items
from streamfuse.models.remember import OnceCache
from streamfuse.models.truth import words
from streamfuse.training.data import Heads, Inputs, checked, shortened
from streamfuse.training.data.layout import MAX_PIXELS, Layout, with_tokens
from streamfuse.training.data.spans import read_span
from streamfuse.training.data.table import Cell, Row, read_table, where
from streamfuse.training.data.targets import encode
from streamfuse.training.samples import DATA, Rows
from streamfuse.types import SECOND, Encoded, Packet, Payload, Position

SINGLE = {
    ".png": ("image", "image/png"),
    ".jpg": ("image", "image/jpeg"),
    ".jpeg": ("image", "image/jpeg"),
    ".txt": ("text", "text/plain"),
    ".npy": ("features", "application/x-npy"),
}
"""Files that are one payload of one modality; all others have tracks."""
TRACKS = {"image": "video:0", "audio": "audio:0", "text": "subtitle:0"}
_NOWHERE = Position("", -1)


class ManifestSettings(Settings):
    path: str
    """Lines of JSON, or CSV."""
    tasks: dict[str, dict[str, Any]] = Field({})
    """Task -> its head: `type`, and its `labels` in their order."""
    part: Literal["train", "validation", "test"] | None = None
    """Of rows that say none."""
    max_seconds: float = Field(60.0, gt=0)
    """Of a row; a longer one is refused before it is decoded as a whole."""
    max_pixels: int = Field(MAX_PIXELS, gt=0)
    """Greater pictures are refused before they are decoded."""
    audio_rate: int = Field(16_000, gt=0)
    max_width: int = Field(640, gt=0)
    """As the media source that the model will be served with."""
    cache_bytes: int = Field(1024 * 1024 * 1024, gt=0)
    """Prepared rows that are kept from one epoch to the next."""


@DATA.register("manifest")
def manifest(folder: Path, inputs: Inputs | None, heads: Heads | None, **options: Any) -> Rows:
    """The rows of a manifest; media are read as the rows are. Raises `DataError` with all that is wrong."""
    settings = checked(ManifestSettings, options)
    if not inputs:
        raise DataError([Problem("model.inputs", "is needed with a manifest: stream -> how it is prepared, such as {type: waveform}")])
    path = folder / settings.path
    table = read_table(path)
    kinds = {stream: part.modality for stream, part in Layout(with_tokens(inputs, lambda _: ())).parts.items()}
    problems = list(_columns(path, [row for _, row in table], kinds, heads))
    reader = _Reader(path.parent, settings, kinds)
    for line, row in table:
        problems += [Problem(where(path, line), message) for message in reader.mistakes(row)]
    if problems:
        raise DataError(shortened(problems, str(path)))
    values = _values([row for _, row in table])
    names = [row.name or where(path, line) for line, row in table]
    made_heads, targets = encode(values, settings.tasks, heads, lambda number: where(path, table[number][0]), problems)
    if problems:
        raise DataError(shortened(problems, str(path)))
    parts = [row.part or settings.part or "" for _, row in table]
    learned = with_tokens(
        inputs, lambda stream: _words(reader, stream, [r for (_, r), p in zip(table, parts, strict=True) if p in ("", "train")])
    )
    layout = Layout(learned, settings.max_pixels)
    cache = OnceCache(settings.cache_bytes, _size)

    def read(number: int) -> dict[str, Items]:
        line, row = table[number]
        return dict(cache.get(number, partial(reader.prepared, layout, row, where(path, line))))

    groups = [row.group or "" for _, row in table]
    return Rows(learned, layout.empty, made_heads, targets, names, read, groups if any(groups) else (), parts if any(parts) else ())


# --- what the columns say ------------------------------------------------------------------------------------------------------------


def _columns(path: Path, rows: Sequence[Row], kinds: Mapping[str, str], heads: Heads | None) -> Iterable[Problem]:
    """Streams that no row has, and names that are nearly those of a field or a stream."""
    there = {name for row in rows for name in row.streams}
    shared = any(row.media for row in rows)
    for stream, kind in kinds.items():
        if stream not in there and not (shared and kind in TRACKS):
            message = (
                f"expected a column {stream!r} for the stream of that name, found {_list(there)}; add it, or take it out of model.inputs"
            )
            yield Problem(str(path), message)
    fields = set(Row.model_fields)
    for name in sorted(there - kinds.keys()):
        near = difflib.get_close_matches(name, {*kinds, *fields} - there, 1, cutoff=0.75)
        if near:
            yield Problem(str(path), f"the column {name!r} is no stream of the recipe and no field; did you mean {near[0]!r}?")
    if heads is None and not any(_values(rows)):
        yield Problem(
            str(path), f"expected label, labels, value or targets in the rows, found {_list(there)} only; add what is to be learned"
        )


def _values(rows: Sequence[Row]) -> dict[str, list[object]]:
    """Task -> what each row says of it."""
    said = [{**row.targets, **{task: getattr(row, task) for task in ("label", "labels", "value")}} for row in rows]
    tasks = dict.fromkeys(task for values in said for task, value in values.items() if value is not None)
    return {task: [values.get(task) for values in said] for task in tasks}


def _words(reader: _Reader, stream: str, rows: Sequence[Row]) -> Iterable[str]:
    """What the rows say in a stream of text."""
    for row in rows:
        for packet in reader.packets(row, stream):
            yield words(packet)


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


# --- one row -------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Part:
    """Where a row has a stream: a file, or what stands in the manifest itself. `start` and `end` are of the file, in ns."""

    path: Path | None
    inline: Sequence[tuple[float, float, str]]  # seconds after the row's start, duration, words
    track: str
    start: int
    end: int | None
    at: float


class _Reader:
    """Reads rows. It has no state, and may be used by several threads at once."""

    def __init__(self, folder: Path, settings: ManifestSettings, kinds: Mapping[str, str]) -> None:
        self._folder, self._settings, self._kinds = folder, settings, kinds

    def mistakes(self, row: Row) -> Iterable[str]:
        """What can be told without opening a file."""
        if row.end is not None and row.end <= row.start:
            yield f"expected an end after the start {row.start:g} s, found {row.end:g} s; correct them"
        told = set()
        for stream in self._kinds:
            part = self._part(row, stream)
            if part is None:
                continue
            if part.end is not None and part.end <= part.start:
                yield f"{stream}: expected an end after the start, found {part.start / SECOND:g} s to {part.end / SECOND:g} s; correct them"
            elif part.end is not None and part.end - part.start > self._settings.max_seconds * SECOND:
                yield (
                    f"{stream}: the row lasts {(part.end - part.start) / SECOND:g} s, more than data.max_seconds = "
                    f"{self._settings.max_seconds:g}; cut it into shorter rows, or raise it"
                )
            if part.path is not None and part.path not in told:
                told.add(part.path)
                yield from self._missing(stream, part.path)

    def prepared(self, layout: Layout, row: Row, place: str) -> dict[str, Items]:
        """The row's items, as serving prepares those of a window. Raises `DataError`."""
        begin = _ns(row.start)
        try:
            found = self._all_packets(row)
            reduced = {stream: [(packet, layout.reduce(packet)) for packet in packets] for stream, packets in found.items()}
        except (SourceError, UndecodablePayload) as error:
            raise DataError([Problem(place, str(error))]) from None
        if row.end is not None:
            end = _ns(row.end)
        else:
            end = max((packet.end for packets in found.values() for packet in packets if packet.duration), default=begin + SECOND)
        within = {s: [(p, r) for p, r in pairs if p.event_time < end] for s, pairs in reduced.items()}
        return layout.prepare(begin, end, within)

    def packets(self, row: Row, stream: str) -> list[Packet]:
        """What the row has of one stream; nothing where it can't be read, which preparing the row tells."""
        try:
            return self._all_packets(row, [stream]).get(stream, [])
        except (SourceError, UndecodablePayload):
            return []

    def _all_packets(self, row: Row, streams: Iterable[str] | None = None) -> dict[str, list[Packet]]:
        """Event times are the file's, moved so that each stream's part begins with the row."""
        found: dict[str, list[Packet]] = {}
        files: dict[tuple[Path, int, int | None], dict[str, list[str]]] = {}
        for stream in self._kinds if streams is None else streams:
            part = self._part(row, stream)
            if part is None:
                continue
            if part.path is None:
                found[stream] = [_packet(stream, _ns(row.start + after), _ns(lasts), text) for after, lasts, text in part.inline]
            elif part.path.suffix.lower() in SINGLE:
                found[stream] = [_packet(stream, _ns(row.start + part.at), 0, self._payload(part.path))]
            else:
                files.setdefault((part.path, part.start, part.end), {}).setdefault(part.track, []).append(stream)
        for (path, start, end), wanted in files.items():
            found |= self._span(row, path, start, end, wanted)
        return found

    def _span(self, row: Row, path: Path, start: int, end: int | None, wanted: Mapping[str, Sequence[str]]) -> dict[str, list[Packet]]:
        """`wanted` is track -> the streams that are made of it."""
        most = start + _ns(self._settings.max_seconds)
        tracks = {track: track for track in wanted}
        read = read_span(path, tracks, start, most + 1 if end is None else end, self._settings.audio_rate, self._settings.max_width)
        if end is None and any(one.at + one.duration > most for several in read.values() for one in several):
            raise SourceError(
                f"{path.name} goes on for more than data.max_seconds = {self._settings.max_seconds:g}; give the row a start and an end"
            )
        moved = _ns(row.start) - start
        return {
            stream: [_packet(stream, one.at + moved, one.duration, one.payload) for one in several]
            for track, several in read.items()
            for stream in wanted[track]
        }

    def _part(self, row: Row, stream: str) -> _Part | None:
        """None where the row lacks it."""
        kind = self._kinds[stream]
        cell = row.streams.get(stream, Cell())
        if cell is None:
            return None
        given = cell.media if kind == "text" else cell.media or cell.plain
        if cell.values is not None:
            return _Part(None, [(cell.at, 0, json.dumps(cell.values))], "", 0, None, cell.at)
        said = cell.text if cell.text is not None else cell.plain if kind == "text" else None
        if said is not None:
            timed = [(cell.at, 0.0, said)] if isinstance(said, str) else [(one.at, one.duration, one.text) for one in said]
            return _Part(None, timed, "", 0, None, cell.at)
        if given is None and not (row.media and _may_hold(row.media, kind)):
            return None
        path = self._folder / (given or row.media or "")
        start = cell.start if cell.start is not None else row.start
        end = cell.end if cell.end is not None else start + row.end - row.start if row.end is not None else None
        return _Part(path, (), cell.track or TRACKS.get(kind, ""), _ns(start), None if end is None else _ns(end), cell.at)

    def _payload(self, path: Path) -> Encoded:
        try:
            return Encoded(path.read_bytes(), SINGLE[path.suffix.lower()][1])
        except OSError as error:
            raise SourceError(f"expected a file that can be read, found {path}: {error.strerror}; correct the path") from None

    def _missing(self, stream: str, path: Path) -> Iterable[str]:
        if ":/" in str(path):
            yield f"{stream}: expected a file, found an address in {path}; fetch it first"
            return
        try:
            there = path.is_file()
        except (OSError, ValueError):
            there = False
        if not there:
            yield f"{stream}: there is no file {path}; correct the path, which is relative to the manifest's folder"
        elif self._kinds[stream] == "features" and SINGLE.get(path.suffix.lower(), ("",))[0] != "features":
            yield f"{stream}: expected a .npy file for a stream of features, found {path.name}; write values, or numpy.save one row"


def _may_hold(media: str, kind: str) -> bool:
    """Whether a file that is not of one stream alone may have something for this one."""
    single = SINGLE.get(Path(media).suffix.lower())
    return kind in TRACKS if single is None else single[0] == kind


def _packet(stream: str, at: int, duration: int, payload: Payload) -> Packet:
    return Packet(stream, "", at, duration, payload, _NOWHERE, at)


def _ns(seconds: float) -> int:
    return round(seconds * SECOND)


def _size(prepared: Mapping[str, Items]) -> int:
    return sum(items.data.nbytes + items.time.nbytes + items.mask.nbytes for items in prepared.values())
