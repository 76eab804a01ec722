"""Speaks: a formant synthesizer that turns written words into something that has a voice's pulses, formants and rhythm.

Each glottal pulse starts one decaying resonance per formant (FOF synthesis: Rodet, "Time-domain formant-wave-function
synthesis", 1984). Nobody will understand it, but pitch, spectrum, syllables and pauses are those of speech, and the
words last as long as the letters say.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Sound = NDArray[np.float32]
"""Samples of one channel; full scale is 1."""

_STEP = 0.005  # seconds between two points of the parameter tracks
_BANDWIDTHS = np.array([70.0, 100.0, 140.0, 220.0], np.float32)
_LEVELS = np.array([1.0, 0.55, 0.3, 0.12], np.float32)


@dataclass(frozen=True, slots=True)
class _Phone:
    """How a letter sounds: three formants in Hz, loudness of the pulses, loudness of the friction, how sharp that is
    (0-1), seconds."""

    formants: tuple[float, float, float]
    voiced: float
    friction: float
    sharp: float
    seconds: float


_PHONES = {
    "a": _Phone((730, 1190, 2440), 1.0, 0, 0, 0.12),
    "e": _Phone((530, 1840, 2480), 0.95, 0, 0, 0.1),
    "i": _Phone((290, 2250, 2950), 0.85, 0, 0, 0.095),
    "o": _Phone((570, 880, 2410), 1.0, 0, 0, 0.12),
    "u": _Phone((310, 870, 2240), 0.85, 0, 0, 0.11),
    "y": _Phone((300, 2100, 2900), 0.8, 0, 0, 0.08),
    **dict.fromkeys("mn", _Phone((260, 1250, 2300), 0.4, 0, 0, 0.065)),
    **dict.fromkeys("lr", _Phone((380, 1250, 2300), 0.5, 0, 0, 0.055)),
    "w": _Phone((300, 640, 2200), 0.5, 0, 0, 0.06),
    **dict.fromkeys("bdgj", _Phone((250, 1500, 2400), 0.22, 0.12, 0.4, 0.055)),
    **dict.fromkeys("vz", _Phone((280, 1500, 2500), 0.3, 0.25, 0.7, 0.065)),
    **dict.fromkeys("sx", _Phone((350, 1700, 2600), 0.0, 0.5, 1.0, 0.09)),
    **dict.fromkeys("fhc", _Phone((350, 1500, 2500), 0.0, 0.25, 0.4, 0.07)),
    **dict.fromkeys("ptkq", _Phone((350, 1600, 2500), 0.0, 0.3, 0.6, 0.05)),
}
_STOPS = frozenset("ptkqbdg")


def speak(words: str, rate: int, pitch: float, tract: float, pace: float, draw: np.random.Generator) -> Sound:
    """The words as sound at `rate` Hz. `pitch` in Hz, `tract` scales the formants, `pace` the speed."""
    tracks = _tracks(words, pitch, tract, pace, draw)
    length = round(len(tracks) * _STEP * rate)
    at = np.arange(length) / (rate * _STEP)
    points = np.arange(len(tracks))
    voiced = _pulses(tracks, length, rate, draw)
    hiss = np.asarray(draw.standard_normal(length), np.float32)
    sharp = np.diff(hiss, prepend=np.float32(0)) * 0.7
    dull = np.convolve(hiss, np.full(5, 0.2, np.float32), mode="same")
    keen = np.interp(at, points, tracks[:, 6]).astype(np.float32)
    loud = np.interp(at, points, tracks[:, 5]).astype(np.float32)
    sound = voiced + 0.35 * loud * (keen * sharp + (1 - keen) * dull)
    peak = float(np.abs(sound).max(initial=1e-6))
    return np.asarray(sound * (0.5 / peak), np.float32)


def _tracks(words: str, pitch: float, tract: float, pace: float, draw: np.random.Generator) -> NDArray[np.float32]:
    """`(steps, 7)`: pitch, three formants, loudness of pulses, of friction, sharpness; a step is 5 ms."""
    rows: list[tuple[float, ...]] = []
    for word in words.lower().split():
        stress = draw.uniform(0.75, 1.0)
        lift = draw.uniform(-0.06, 0.1)
        for letter, previous in zip(word, " " + word, strict=False):
            phone = _PHONES.get(letter)
            if phone is None or letter == previous:
                continue
            steps = max(3, round(phone.seconds / pace * draw.uniform(0.8, 1.25) / _STEP))
            formants = tuple(f * tract for f in phone.formants)
            for step in range(steps):
                shut = letter in _STOPS and step < steps * 0.6
                level = stress * (0.15 if shut else 1.0)
                rows.append((1 + lift, *formants, phone.voiced * level, phone.friction * (0.0 if shut else stress), phone.sharp))
        pause = round(draw.uniform(0.015, 0.06) / _STEP)
        rows.extend([(1.0, 500 * tract, 1500 * tract, 2500 * tract, 0.0, 0.0, 0.0)] * pause)
    tracks = np.array(rows or [(1.0, 500, 1500, 2500, 0, 0, 0)] * 4, np.float32)
    for column, width in ((0, 15), (1, 9), (2, 9), (3, 9), (4, 5), (5, 3), (6, 3)):
        tracks[:, column] = _smooth(tracks[:, column], width)
    fall = np.linspace(1.08, 0.88, len(tracks), dtype=np.float32)
    wave = 1 + 0.03 * np.sin(2 * np.pi * 3.1 * _STEP * np.arange(len(tracks)) + draw.uniform(0, 6))
    tracks[:, 0] *= (pitch * fall * wave).astype(np.float32)
    return tracks


def _pulses(tracks: NDArray[np.float32], length: int, rate: int, draw: np.random.Generator) -> Sound:
    """One decaying sinusoid per formant at each glottal pulse, added up."""
    phase = np.cumsum(np.interp(np.arange(length) / (rate * _STEP), np.arange(len(tracks)), tracks[:, 0])) / rate
    starts = np.flatnonzero(np.diff(np.floor(phase), prepend=0) > 0)
    steps = np.minimum((starts / (rate * _STEP)).astype(np.int64), len(tracks) - 1)
    heard = tracks[steps, 4] > 0.02
    starts, steps = starts[heard], steps[heard]
    starts = starts + draw.integers(-1, 2, len(starts))
    tail = round(0.02 * rate)
    t = np.arange(tail, dtype=np.float32) / rate
    fourth = np.full((len(steps), 1), 3500.0, np.float32)
    formants = np.concatenate([tracks[steps, 1:4], fourth], axis=1)  # (pulses, 4)
    decay = np.exp(-np.pi * _BANDWIDTHS[:, None] * t) * _LEVELS[:, None] * np.minimum(1, t * 2000)  # (4, tail)
    out = np.zeros(length + tail + 2, np.float32)
    for start, step, tones in zip(starts, steps, formants, strict=True):
        wave = (decay * np.sin((2 * np.pi) * tones[:, None] * t)).sum(axis=0) * tracks[step, 4]
        out[max(start, 0) : max(start, 0) + tail] += wave
    return out[:length]


def _smooth(values: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    if len(values) <= width:
        return values
    padded = np.pad(values, width // 2, mode="edge")
    return np.convolve(padded, np.full(width, 1 / width, np.float32), mode="valid")[: len(values)].astype(np.float32)
