"""One open media file or live input: its tracks, brought into the order of time."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet as Compressed
from av.stream import Stream
from av.video.stream import VideoStream

from streamfuse.config import MediaSourceSettings
from streamfuse.errors import SourceError
from streamfuse.sources.tracks import AudioTrack, CaptionTrack, Damaged, Decoded, Track, VideoTrack, ns
from streamfuse.types import SECOND, Outcome

OPEN_TIMEOUT, READ_TIMEOUT = 10.0, 5.0
"""Seconds without a byte from a network or a device."""
LOOKAHEAD = 2 * SECOND
"""How far the tracks of a file may lie apart in it; read, still compressed, before anything is decoded."""
SILENT = SECOND
"""A track that is this far behind the others has a gap, and is not waited for."""
MOST_ERRORS = 20
"""Errors in a row while reading, after which the rest of a file is given up."""

_NEVER = 1 << 62
_TYPES = {"video": "video", "audio": "audio", "subtitle": "subtitles"}
_TEXT_CODECS = {"mov_text", "subrip", "srt", "ass", "ssa", "webvtt", "text", "microdvd", "ttml", "eia_608"}


class Read(NamedTuple):
    """Something of one stream, or what is left of it."""

    stream: str
    what: Decoded | Damaged


class Container:
    """Opened by the constructor, which raises SourceError with what to change. Used by one thread at a time."""

    def __init__(self, path: str, settings: MediaSourceSettings) -> None:
        self.path = path
        self._container = _open(path, settings.format)
        finite = self._container.duration is not None and self._container.duration > 0
        self.live = not finite and not Path(path).is_file()
        try:
            self._tracks = _tracks(self._container, path, settings, live=self.live)
        except SourceError:
            self._container.close()
            raise
        self.zero = self._first()
        """The file's own time of its first instant, in ns: the least start of its video and audio tracks."""
        length = self._container.duration
        self._end = _NEVER if self.live or not length else self.zero + length * SECOND // av.time_base

    @property
    def streams(self) -> frozenset[str]:
        return frozenset(stream for stream, _ in self._tracks.values())

    def close(self) -> None:
        self._container.close()

    def seek(self, at: int) -> None:
        """What is read next begins at `at`, ns of the file's own time, or before: at the picture before it that stands for itself. Raises
        SourceError where the file can't be entered in its middle."""
        try:
            self._container.seek(at * av.time_base // SECOND)
        except (av.error.FFmpegError, OSError) as error:
            raise SourceError(f"expected to read {self.path} from its middle, which does not work: {error}; convert the file") from None

    def read(self) -> Iterator[Read]:
        """Everything in the file, by time over all tracks, as far as no track is silent for longer than SILENT; of a live
        input at once. Never raises for bad data."""
        if self.live:
            for packet in self._demux():
                if isinstance(packet, Damaged):
                    yield Read(next(iter(sorted(self.streams))), packet)
                else:
                    yield from self._decode(packet)
        else:
            yield from self._merged()

    def _first(self) -> int:
        starts = [
            ns(s.start_time, s.time_base)
            for s in (*self._container.streams.video, *self._container.streams.audio)
            if s.start_time is not None and s.time_base is not None
        ]
        if starts:
            return min(starts)
        begin = self._container.start_time
        return 0 if begin is None else begin * SECOND // av.time_base

    def _decode(self, packet: Compressed[Any]) -> Iterator[Read]:
        stream, track = self._tracks[packet.stream.index]
        for what in track.decode(packet):
            if isinstance(what, Decoded) and isinstance(what.payload, str):  # shown no longer than there is a picture
                what = what._replace(duration=min(what.duration, max(0, self._end - what.at)))
            yield Read(stream, what)

    def _demux(self) -> Iterator[Compressed[Any] | Damaged]:
        """Compressed packets as they stand in the file. What can't be read is told, and passed over where that
        works."""
        wanted: list[Stream] = [self._container.streams[index] for index in self._tracks]
        errors = 0
        while errors < MOST_ERRORS:
            try:
                for packet in self._container.demux(wanted):
                    errors = 0
                    yield packet
                return
            except (av.error.FFmpegError, OSError) as error:
                errors += 1
                if errors == 1 or self.live:
                    yield Damaged(None, Outcome.UNDECODABLE, f"expected more of {self.path}, which can't be read here: {error}")
                if self.live:
                    return

    def _by_time(self) -> Iterator[Compressed[Any] | Damaged]:
        """The packets in the order of decoding, over all tracks, as far as they lie no further apart than LOOKAHEAD.
        Within a track they stay as they are, whatever their stamps say."""
        waiting: list[tuple[int, int, Compressed[Any] | Damaged]] = []
        last: dict[int, int] = {}
        newest = -_NEVER
        for order, packet in enumerate(self._demux()):
            if isinstance(packet, Damaged):
                at = newest
            elif packet.size == 0:
                at = _NEVER  # ends a track: after all of its packets
            else:
                at = last[packet.stream.index] = _decoding_time(packet, last.get(packet.stream.index))
                newest = max(newest, at)
            heapq.heappush(waiting, (at, order, packet))
            while waiting[0][0] <= newest - LOOKAHEAD:
                yield heapq.heappop(waiting)[2]
        while waiting:
            yield heapq.heappop(waiting)[2]

    def _merged(self) -> Iterator[Read]:
        waiting: list[tuple[int, int, Read]] = []
        order = count()
        reached: dict[str, int] = {}  # per stream of pictures or sound: all before is decoded
        newest = self.zero
        ongoing = {s for i, (s, _) in self._tracks.items() if self._container.streams[i].type != "subtitle"}
        for packet in self._by_time():
            if isinstance(packet, Damaged):
                found: Iterator[Read] = iter([Read(next(iter(sorted(self.streams))), packet)])
            else:
                found = self._decode(packet)
            for read in found:
                at = newest if read.what.at is None else read.what.at
                if read.stream in ongoing and isinstance(read.what, Decoded):
                    reached[read.stream] = max(reached.get(read.stream, at), at)
                    newest = max(newest, at)
                heapq.heappush(waiting, (at, next(order), read))
            if not isinstance(packet, Damaged) and packet.size == 0:
                ongoing.discard(self._tracks[packet.stream.index][0])
            bound = min((r for s in ongoing if (r := reached.get(s, self.zero)) > newest - SILENT), default=newest)
            while waiting and waiting[0][0] <= bound and ongoing:
                yield heapq.heappop(waiting)[2]
        while waiting:
            yield heapq.heappop(waiting)[2]


def _decoding_time(packet: Compressed[Any], last: int | None) -> int:
    """When a packet is due for decoding, in ns; never before the packet of its track before it."""
    if packet.dts is not None:
        at = ns(packet.dts, packet.time_base)
        return at if last is None else max(at, last)
    if last is not None:
        return last  # Matroska has no decoding times for the first frames; by their showing times they would swap
    return -_NEVER if packet.pts is None else ns(packet.pts, packet.time_base)


def _open(path: str, format: str | None) -> InputContainer:
    remote = "://" in path
    if not remote and format is None:
        if not Path(path).exists():
            raise SourceError(f"expected a media file, found nothing at {path}; correct the path")
        if Path(path).is_dir():
            raise SourceError(f"expected a media file, found the folder {path}; name the files in it")
    options = {"rtsp_transport": "tcp"} if path.startswith("rtsp") else {}
    timeout = (OPEN_TIMEOUT, READ_TIMEOUT) if remote or format else None
    try:
        return av.open(path, format=format, options=options, timeout=timeout)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise SourceError(f"expected media that FFmpeg can open, found {path}: {error}; try `ffprobe` on it") from None


def _tracks(container: InputContainer, path: str, settings: MediaSourceSettings, *, live: bool) -> Mapping[int, tuple[str, Track]]:
    """Index in the file -> the stream's name and its decoder, for the tracks that the file has."""
    found: dict[int, tuple[str, Track]] = {}
    for stream, name in settings.streams.items():
        kind, _, number = name.partition(":")
        if kind not in _TYPES or not number.isdecimal():
            raise SourceError(f"streams.{stream}: expected video:N, audio:N or subtitle:N, found {name!r}")
        tracks = getattr(container.streams, _TYPES[kind])
        if int(number) >= len(tracks):
            continue
        track = tracks[int(number)]
        if track.index in found:
            raise SourceError(f"streams.{stream}: expected a track of its own, found {name}, which is {found[track.index][0]}'s")
        if track.codec_context is None or (kind == "subtitle" and track.codec_context.name not in _TEXT_CODECS):
            continue  # no decoder for it, or captions that are pictures
        found[track.index] = (stream, _track(track, settings, live))
    if not found:
        has = ", ".join(f"{s.type}:{s.index}" for s in container.streams) or "no track at all"
        raise SourceError(f"expected at least one of {', '.join(settings.streams.values())} in {path}, found {has}")
    return found


def _track(track: Stream, settings: MediaSourceSettings, live: bool) -> Track:
    if isinstance(track, VideoStream):
        track.codec_context.thread_type = "SLICE" if live else "AUTO"  # threads by frame hold frames back
        track.codec_context.thread_count = 2
        return VideoTrack(track, settings.max_width)
    if isinstance(track, AudioStream):
        return AudioTrack(track, settings.audio_rate, settings.audio_chunk)
    return CaptionTrack()
