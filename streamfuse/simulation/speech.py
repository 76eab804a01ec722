"""What is said in one segment: sentences one after the other, their sound, and when each was spoken."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamfuse.simulation import espeak, voice, words
from streamfuse.simulation.faces import Person
from streamfuse.types import SECOND

_SHORTEST = SECOND // 2  # a sentence that is cut off sooner gets no caption


@dataclass(frozen=True, slots=True)
class Caption:
    """Words and when they are spoken: `[start, start + duration)` in ns."""

    start: int
    duration: int
    text: str


@dataclass(frozen=True, slots=True, eq=False)
class Speech:
    """`sound` is one channel, float32, `captions` count from its first sample, `opening` is how far the mouth is open
    (0-1) every 10 ms."""

    sound: NDArray[np.float32]
    captions: tuple[Caption, ...]
    opening: NDArray[np.float32]


def speech(person: Person, length: int, rate: int, program: str | None, draw: np.random.Generator) -> Speech:
    """`person` talks for `length` samples, through espeak-ng where `program` says where that is."""
    sound = np.zeros(length, np.float32)
    captions: list[Caption] = []
    at = int(draw.uniform(0, 0.1) * rate)
    while at < length:
        text = words.sentence(draw)
        if program is None:
            said = voice.speak(text, rate, person.pitch, person.tract, person.pace, draw)
        else:
            said = _trimmed(espeak.speak(program, text, rate, person.pitch, person.tract, person.pace))
        kept = min(len(said), length - at)
        sound[at : at + kept] += said[:kept]
        start, end = at * SECOND // rate, (at + kept) * SECOND // rate
        if end - start >= _SHORTEST:
            captions.append(Caption(start, end - start, text))
        at += len(said) + int(draw.uniform(0.1, 0.28) * rate)
    fade = min(length, rate // 100)
    sound[length - fade :] *= np.linspace(1, 0, fade, dtype=np.float32)
    return Speech(sound, tuple(captions), opening(sound, rate))


def opening(sound: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    """How far (0-1) a mouth is open that makes this sound, every 10 ms: its loudness, as fast as a jaw can follow."""
    hop = rate // 100
    steps = len(sound) // hop
    power = np.sqrt((sound[: steps * hop].reshape(steps, hop) ** 2).mean(axis=1))
    kernel = np.hanning(9)[1:-1]
    smooth = np.convolve(power, kernel / kernel.sum(), mode="same")
    loud = float(np.percentile(smooth, 95)) if steps else 0.0
    return np.asarray(np.clip(smooth / max(loud, 1e-6), 0, 1) ** 0.8, np.float32)


def _trimmed(sound: NDArray[np.float32]) -> NDArray[np.float32]:
    loud = np.flatnonzero(np.abs(sound) > 0.01)
    return sound[loud[0] : loud[-1] + 1] if len(loud) else sound
