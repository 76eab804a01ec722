"""Decodes the tracks of a media file: compressed packets in, frames, sound and captions out, each with its exact
time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, NamedTuple, Protocol

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.packet import Packet as Compressed
from av.subtitles.subtitle import AssSubtitle
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from streamfuse.types import MILLISECOND, SECOND, Audio, Image, Outcome

GAP = 10 * MILLISECOND
"""Sound whose time differs by more from what the samples before it say begins anew: a gap stays a gap."""

_ERRORS = (av.error.FFmpegError, ValueError)
_TAGS = re.compile(r"\{\\[^}]*\}|</?(?:b|i|u|s|c|v|font|lang|ruby|rt)(?:[\s.][^>]*)?>")
_BREAKS = re.compile(r"\\[Nnh]")


class Decoded(NamedTuple):
    """A payload and when it happened, in ns of the file's own time."""

    at: int
    duration: int
    payload: Image | Audio | str


class Damaged(NamedTuple):
    """What could not be decoded, as far as its time is known, and the sentence that says why."""

    at: int | None
    reason: Outcome
    detail: str


class Track(Protocol):
    """One track of an open file."""

    def decode(self, packet: Compressed[Any]) -> Iterator[Decoded | Damaged]:
        """What this packet completes. An empty packet ends the track and brings out the rest. Never raises for bad
        data."""
        ...


def ns(pts: int, base: Fraction) -> int:
    """A time stamp in ns, rounded to the nearest."""
    return (2 * pts * base.numerator * SECOND + base.denominator) // (2 * base.denominator)


class VideoTrack:
    """Frames as BGR, upright, with square pixels, at most `max_width` wide; scaled while they are converted."""

    def __init__(self, stream: VideoStream, max_width: int) -> None:
        self._stream = stream
        self._max_width = max_width
        rate = stream.average_rate
        self._usual = round(SECOND / rate) if rate else 0
        self._next: int | None = None

    def decode(self, packet: Compressed[Any]) -> Iterator[Decoded | Damaged]:
        frames, damaged = _decode(packet)
        for frame in frames:
            assert isinstance(frame, VideoFrame)
            base = frame.time_base or self._stream.time_base
            at = self._next if frame.pts is None or base is None else ns(frame.pts, base)
            if at is None:
                yield Damaged(None, Outcome.QUARANTINED, "expected a time stamp on the first frame, found none")
                continue
            duration = ns(frame.duration, base) if frame.duration and base else self._usual
            self._next = at + duration
            if frame.is_corrupt:
                yield Damaged(at, Outcome.UNDECODABLE, "expected a whole frame, found one that the decoder calls damaged")
            else:
                try:
                    yield Decoded(at, duration, Image(self._pixels(frame)))
                except _ERRORS as error:
                    yield Damaged(at, Outcome.UNDECODABLE, f"expected a frame that converts to BGR, found {frame.format.name}: {error}")
        if damaged:
            yield damaged

    def _pixels(self, frame: VideoFrame) -> NDArray[np.uint8]:
        aspect = self._stream.sample_aspect_ratio or Fraction(1)
        turns = round(frame.rotation / 90) % 4
        wide, high = max(1, round(frame.width * aspect)), frame.height
        shown = high if turns % 2 else wide
        scale = min(1.0, self._max_width / shown)
        wide, high = max(1, round(wide * scale)), max(1, round(high * scale))
        pixels = frame.to_ndarray(width=wide, height=high, format="bgr24", interpolation="AREA" if scale < 1 else "BILINEAR")
        return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else np.asarray(pixels, np.uint8)


class AudioTrack:
    """Sound as one channel of int16 at `rate` Hz, in chunks of `chunk` ns. Within one run without gaps the time of a
    chunk is counted in samples from the run's first."""

    def __init__(self, stream: AudioStream, rate: int, chunk: int) -> None:
        self._stream = stream
        self._rate = rate
        self._size = max(1, round(chunk * rate / SECOND))
        self._resampler: AudioResampler | None = None
        self._format: tuple[object, ...] = ()
        self._anchor = 0
        self._out = 0  # samples given out since the anchor
        self._end = 0  # of what went in, ns
        self._heard = Fraction(0)  # of what went in since the anchor, ns
        self._waiting: list[NDArray[np.int16]] = []

    def decode(self, packet: Compressed[Any]) -> Iterator[Decoded | Damaged]:
        frames, damaged = _decode(packet)
        for frame in frames:
            assert isinstance(frame, AudioFrame)
            base = frame.time_base or self._stream.time_base
            at = self._end if frame.pts is None or base is None else ns(frame.pts, base)
            made = (frame.format.name, frame.layout.name, frame.sample_rate)
            if self._resampler is None or made != self._format or abs(at - self._end) > GAP:
                yield from self._finish()
                self._resampler = AudioResampler("s16", "mono", self._rate)
                self._format, self._anchor, self._out, self._heard = made, at, 0, Fraction(0)
            try:
                self._heard += Fraction(frame.samples * SECOND, frame.sample_rate)
                self._end = self._anchor + round(self._heard)
                yield from self._chunks(self._resampler.resample(frame), last=False)
            except (*_ERRORS, ZeroDivisionError) as error:
                self._resampler = None
                yield Damaged(at, Outcome.UNDECODABLE, f"expected sound that can be resampled, found {made}: {error}")
        if damaged:
            yield damaged
        if packet.size == 0:
            yield from self._finish()

    def _finish(self) -> Iterator[Decoded]:
        if self._resampler is not None:
            yield from self._chunks(self._resampler.resample(None), last=True)
            self._resampler = None

    def _chunks(self, frames: list[AudioFrame], *, last: bool) -> Iterator[Decoded]:
        self._waiting.extend(frame.to_ndarray().reshape(-1).astype(np.int16, copy=False) for frame in frames)
        ready = sum(len(part) for part in self._waiting)
        if ready < self._size and not (last and ready):
            return
        samples = np.concatenate(self._waiting)
        whole = ready if last else ready // self._size * self._size
        self._waiting = [samples[whole:]] if whole < ready else []
        for start in range(0, whole, self._size):
            part = samples[start : min(start + self._size, whole)]
            at = self._anchor + self._out * SECOND // self._rate
            self._out += len(part)
            duration = self._anchor + self._out * SECOND // self._rate - at
            yield Decoded(at, duration, Audio(part.reshape(-1, 1).copy(), self._rate))


class CaptionTrack:
    """Captions as plain text. The gaps that some formats write between two captions are no captions."""

    def decode(self, packet: Compressed[Any]) -> Iterator[Decoded | Damaged]:
        if packet.size == 0:
            return
        rects, damaged = _decode(packet)
        lines = [plain(r.dialogue or r.text or r.ass) for r in rects if isinstance(r, AssSubtitle)]
        text = " ".join(line for line in lines if line)
        stamp = packet.pts if packet.pts is not None else packet.dts
        if text and stamp is not None:
            yield Decoded(ns(stamp, packet.time_base), ns(packet.duration or 0, packet.time_base), text)
        elif text:
            yield Damaged(None, Outcome.QUARANTINED, f"expected a time stamp on the caption {text[:60]!r}, found none")
        if damaged:
            yield damaged


def plain(markup: bytes | str) -> str:
    """The words of a caption, without the tags of ASS and SubRip and without line breaks."""
    text = markup.decode("utf-8", "replace") if isinstance(markup, bytes) else markup
    return " ".join(_BREAKS.sub(" ", _TAGS.sub("", text)).split())


def _decode(packet: Compressed[Any]) -> tuple[list[object], Damaged | None]:
    try:
        return list(packet.decode()), None
    except _ERRORS as error:
        stamp = packet.pts if packet.pts is not None else packet.dts
        at = None if stamp is None else ns(stamp, packet.time_base)
        kind = packet.stream.type
        return [], Damaged(at, Outcome.UNDECODABLE, f"expected {kind} of {packet.stream.name}, found damaged data: {error}")
