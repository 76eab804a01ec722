"""Lays a window's decoded packets on the window's time axis, one array a modality, by recipes that a bundle names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from streamfuse.models.batch import Items
from streamfuse.models.decode import Decoded
from streamfuse.models.faces import FaceFinder, face_crops
from streamfuse.types import MILLISECOND, SECOND, Audio, Image, Packet

T = TypeVar("T")
Remember = Callable[[Packet, str, Callable[[], T]], T]
"""Called with a packet, a word for what is computed from it, and how; computes it once for all windows that the
packet stands in."""


class Preprocessor(Protocol):
    """Prepares one stream. It has no state: what it makes of a window depends on the window alone."""

    modality: str
    """What it reads: `image`, `audio` or `text`."""

    min_width: int
    """Images may be scaled down to this width while they are decoded; 0 where that is no matter."""

    def reduce(self, decoded: Decoded) -> Any:
        """What to keep of a decoded packet, made once and shared by all windows that it stands in."""
        ...

    def prepare(self, start: int, end: int, packets: Sequence[tuple[Packet, Any]], remember: Remember[Any]) -> Items:
        """The stream's part of the window `[start, end)`; `packets` are in order of event time, each with its reduced
        payload."""
        ...

    def empty(self) -> Items:
        """Nothing of this stream, in the usual shape."""
        ...


class FaceCrops:
    """Images as crops of the face that speaks most likely: `(frames, size, size)` uint8, steadied; zeros in a frame
    without a face.

    At most `fps` frames a second are used and a face is looked for every `detect_every_ms`; both by event time, so
    that overlapping windows choose the same frames. `max_faces` bounds the cost in a crowd, `max_seconds`
    (those before the end count) that of a long window.
    """

    modality = "image"

    def __init__(
        self,
        size: int = 48,
        fps: float = 16,
        detect_every_ms: int = 250,
        width: int = 320,
        max_faces: int = 2,
        seconds: float = 1.0,
        max_seconds: float = 10.0,
    ) -> None:
        self.size, self.spacing, self.min_width, self.max_faces = size, round(SECOND / fps), width, max_faces
        self.detect_every = detect_every_ms * MILLISECOND
        self.longest = round(max_seconds * SECOND)
        self.frames = round(seconds * fps) + 1  # a window begins between two of its frames
        self._finder = FaceFinder()

    def reduce(self, decoded: Decoded) -> NDArray[np.uint8]:
        assert isinstance(decoded, Image)
        return self._finder.shrink(decoded.pixels, self.min_width)

    def prepare(self, start: int, end: int, packets: Sequence[tuple[Packet, Any]], remember: Remember[Any]) -> Items:
        packets = [(p, grey) for p, grey in packets if p.event_time >= end - self.longest]
        chosen = [packets[i] for i in _first_of_each([p.event_time for p, _ in packets], self.spacing)]
        looked = _first_of_each([p.event_time for p, _ in chosen], self.detect_every)
        found = {i: remember(chosen[i][0], "faces", partial(self._finder.find, chosen[i][1])) for i in looked}
        data = face_crops([grey for _, grey in chosen], found, self.size, self.max_faces)
        time = np.array([(p.event_time - end) / SECOND for p, _ in chosen], np.float32)
        return Items(data, time, np.ones(len(chosen), np.bool_))

    def empty(self) -> Items:
        n = self.frames
        return Items(np.zeros((n, self.size, self.size), np.uint8), np.zeros(n, np.float32), np.zeros(n, np.bool_))


class Waveform:
    """Sound as blocks of samples: `(blocks, rate * block_ms / 1000)` int16, one channel, at `rate` whatever came in.

    A window shorter than `seconds` is filled up with absent blocks before its start, one longer than `max_seconds`
    keeps its end.
    """

    modality = "audio"
    min_width = 0

    def __init__(self, rate: int = 16_000, block_ms: int = 20, seconds: float = 1.0, max_seconds: float = 10.0) -> None:
        self.rate, self.block = rate, rate * block_ms // 1000
        self.block_ns = block_ms * MILLISECOND
        self.least, self.most = round(seconds * 1000 / block_ms), round(max_seconds * 1000 / block_ms)

    def reduce(self, decoded: Decoded) -> Audio:
        assert isinstance(decoded, Audio)
        if decoded.samples.shape[1] == 1:
            return decoded
        return Audio(decoded.samples.mean(1, keepdims=True).astype(np.int16), decoded.rate)

    def prepare(self, start: int, end: int, packets: Sequence[tuple[Packet, Any]], remember: Remember[Any]) -> Items:
        blocks = min(max(-(-(end - start) // self.block_ns), self.least), self.most)
        begin = end - blocks * self.block_ns
        line = np.zeros(blocks * self.block, np.float32)
        covered = np.zeros(blocks * self.block, np.bool_)
        for rate in sorted({audio.rate for _, audio in packets}):
            chunks = [(p.event_time, audio.samples[:, 0]) for p, audio in packets if audio.rate == rate]
            samples, there = lay_out(chunks, rate, max(begin, start), begin, end)
            line += resample(samples, len(line))
            covered |= there[np.arange(len(line)) * len(there) // len(line)]
        data = np.clip(np.rint(line), -32768, 32767).astype(np.int16).reshape(blocks, self.block)
        time = (np.arange(-blocks, 0, dtype=np.float32) + 0.5) * np.float32(self.block_ns / SECOND)
        return Items(data, time, covered.reshape(blocks, self.block).mean(1) >= 0.5)

    def empty(self) -> Items:
        n = self.least
        return Items(np.zeros((n, self.block), np.int16), np.zeros(n, np.float32), np.zeros(n, np.bool_))


class TextBytes:
    """Text as its UTF-8 bytes: `(texts, length)` uint8, cut or filled with zeros; of more than `most` texts the last
    ones count."""

    modality = "text"
    min_width = 0

    def __init__(self, length: int = 128, most: int = 4) -> None:
        self.length, self.most = length, most

    def reduce(self, decoded: Decoded) -> NDArray[np.uint8]:
        assert isinstance(decoded, str)
        raw = decoded.strip().encode()[: self.length]
        return np.frombuffer(raw.ljust(self.length, b"\0"), np.uint8)

    def prepare(self, start: int, end: int, packets: Sequence[tuple[Packet, Any]], remember: Remember[Any]) -> Items:
        last = packets[-self.most :]
        data = np.stack([raw for _, raw in last]) if last else np.zeros((0, self.length), np.uint8)
        time = np.array([(max(p.event_time, start) - end) / SECOND for p, _ in last], np.float32)
        return Items(data, time, np.ones(len(last), np.bool_))

    def empty(self) -> Items:
        n = self.most
        return Items(np.zeros((n, self.length), np.uint8), np.zeros(n, np.float32), np.zeros(n, np.bool_))


PREPROCESSORS: Mapping[str, Callable[..., Preprocessor]] = {
    "face_crops": FaceCrops,
    "waveform": Waveform,
    "text_bytes": TextBytes,
}
"""Every recipe by the name that a bundle's config calls it."""


def compute(packet: Packet, word: str, make: Callable[[], T]) -> T:
    """A `Remember` that remembers nothing."""
    return make()


def lay_out(
    chunks: Sequence[tuple[int, NDArray[np.int16]]], rate: int, earliest: int, begin: int, end: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Chunks (event time, samples) on the axis `[begin, end)` at their own rate, with what is covered; nothing before
    `earliest`.

    A chunk that begins within 10 ms of where the one before it ended follows on it without a seam: event times jitter
    by more than a sample, and every seam is a click.
    """
    length = (end - begin) * rate // SECOND
    line = np.zeros(length, np.float32)
    covered = np.zeros(length, np.bool_)
    first = max((earliest - begin) * rate // SECOND, 0)
    after: int | None = None
    for event_time, samples in chunks:
        at = round((event_time - begin) * rate / SECOND)
        if after is not None and abs(at - after) * 100 <= rate:
            at = after
        after = at + len(samples)
        low, high = max(at, first), min(after, length)
        if low < high:
            line[low:high] = samples[low - at : high - at]
            covered[low:high] = True
    return line, covered


def resample(samples: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """The same stretch of sound as `count` samples, band-limited: its spectrum is cut or filled up with zeros (exact
    for periodic sound)."""
    if len(samples) == count or not len(samples):
        return samples if len(samples) == count else np.zeros(count, np.float32)
    spectrum = np.fft.rfft(samples)
    bins = count // 2 + 1
    fitted = np.zeros(bins, spectrum.dtype)
    fitted[: min(bins, len(spectrum))] = spectrum[:bins]
    return (np.fft.irfft(fitted, count) * (count / len(samples))).astype(np.float32)


def _first_of_each(times: Sequence[int], spacing: int) -> list[int]:
    """Indices of the first time in each stretch of `spacing`, counted from the epoch and not from the window."""
    chosen: list[int] = []
    last: int | None = None
    for i, time in enumerate(times):
        if time // spacing != last:
            last = time // spacing
            chosen.append(i)
    return chosen
