"""Reads one row of a manifest: finds what it has of each stream, and prepares it as serving would."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from streamfuse.config import Settings
from streamfuse.errors import DataError, Problem, SourceError, UndecodablePayload
from streamfuse.models.batch import Items
from streamfuse.training.data.layout import Layout
from streamfuse.training.data.spans import read_span
from streamfuse.training.data.table import Cell, Row
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


class ReadSettings(Settings):
    """How media are read."""

    max_seconds: float = Field(60.0, gt=0)
    """Of a row; a longer one is refused before it is decoded as a whole."""
    audio_rate: int = Field(16_000, gt=0)
    max_width: int = Field(640, gt=0)
    """As the media source that the model will be served with."""


@dataclass(frozen=True, slots=True)
class _Part:
    """Where a row has a stream: a file, or what stands in the manifest itself. `start` and `end` are of the file, in ns."""

    path: Path | None
    inline: Sequence[tuple[float, float, str]]  # seconds after the row's start, duration, words
    track: str
    start: int
    end: int | None
    at: float


class RowReader:
    """Reads rows. It has no state, and may be used by several threads at once."""

    def __init__(self, folder: Path, settings: ReadSettings, kinds: Mapping[str, str]) -> None:
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
