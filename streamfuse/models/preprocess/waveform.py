"""Sound as blocks of samples."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamfuse.models.batch import Items
from streamfuse.models.decode import Decoded
from streamfuse.models.preprocess import PREPROCESSORS, Remember, identity
from streamfuse.types import MILLISECOND, SECOND, Audio, Packet


@PREPROCESSORS.register("waveform")
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
        return Items(data, time, covered.reshape(blocks, self.block).mean(1) >= 0.5, self._keys(packets, max(begin, start), begin, end))

    def _keys(self, packets: Sequence[tuple[Packet, Audio]], earliest: int, begin: int, end: int) -> list[Hashable] | None:
        """Each block's packets and which of their samples stands first in it; none where sound is resampled, as one sample then
        depends on all of the window."""
        blocks = (end - begin) // self.block_ns
        if any(audio.rate != self.rate for _, audio in packets) or (end - begin) * self.rate != blocks * self.block * SECOND:
            return None
        keys: list[tuple[Hashable, ...]] = [() for _ in range(blocks)]
        places = place([(p.event_time, audio.samples[:, 0]) for p, audio in packets], self.rate, begin)
        for (packet, audio), at in zip(packets, places, strict=True):
            who = identity(packet)
            for block in range(max(at // self.block, 0), min(-(-(at + len(audio.samples)) // self.block), blocks)):
                keys[block] += ((who, block * self.block - at),)
        cut, within = divmod((earliest - begin) * self.rate // SECOND, self.block)
        if within:
            keys[cut] += (within,)
        return list(keys)

    def empty(self) -> Items:
        n = self.least
        return Items(np.zeros((n, self.block), np.int16), np.zeros(n, np.float32), np.zeros(n, np.bool_))


def lay_out(
    chunks: Sequence[tuple[int, NDArray[np.int16]]], rate: int, earliest: int, begin: int, end: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Chunks (event time, samples) on the axis `[begin, end)` at their own rate, with what is covered; nothing before
    `earliest`."""
    length = (end - begin) * rate // SECOND
    line = np.zeros(length, np.float32)
    covered = np.zeros(length, np.bool_)
    first = max((earliest - begin) * rate // SECOND, 0)
    for (_, samples), at in zip(chunks, place(chunks, rate, begin), strict=True):
        low, high = max(at, first), min(at + len(samples), length)
        if low < high:
            line[low:high] = samples[low - at : high - at]
            covered[low:high] = True
    return line, covered


def place(chunks: Sequence[tuple[int, NDArray[np.int16]]], rate: int, begin: int) -> list[int]:
    """At which sample from `begin` on each chunk (event time, samples) starts.

    One that begins within 10 ms of where the one before it ended follows on it without a seam: event times jitter by more than
    a sample, and every seam is a click.
    """
    places: list[int] = []
    after: int | None = None
    for event_time, samples in chunks:
        at = round((event_time - begin) * rate / SECOND)
        if after is not None and abs(at - after) * 100 <= rate:
            at = after
        places.append(at)
        after = at + len(samples)
    return places


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
