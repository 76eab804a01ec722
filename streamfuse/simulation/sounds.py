"""Everything a room can sound of that is not a voice: music, noise, and the floor under silence."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Sound = NDArray[np.float32]

_CHORDS = ((0, 4, 7), (5, 9, 12), (7, 11, 14), (9, 12, 16), (2, 5, 9), (4, 7, 11))
_SCALE = (0, 2, 4, 5, 7, 9, 11, 12, 14, 16)


def music(length: int, rate: int, draw: np.random.Generator) -> Sound:
    """Chords, a melody and mostly drums, in a random key and tempo. Peak about 0.5."""
    seconds = length / rate
    beat = 60 / draw.uniform(72, 150)
    root = 110 * 2 ** (draw.integers(0, 12) / 12)
    rich = draw.uniform(0.3, 0.8)
    out = np.zeros(length, np.float32)
    for bar in np.arange(0, seconds, 4 * beat):
        for note in _CHORDS[draw.integers(len(_CHORDS))]:
            _note(out, rate, bar, 4 * beat, root * 2 ** (note / 12), 0.12, 4 * beat, rich)
    step = beat / draw.choice([1, 2])
    degree = int(draw.integers(len(_SCALE)))
    for at in np.arange(0, seconds, step):
        degree = int(np.clip(degree + draw.integers(-2, 3), 0, len(_SCALE) - 1))
        if draw.random() < 0.8:
            _note(out, rate, at, 2 * step, 2 * root * 2 ** (_SCALE[degree] / 12), 0.2, step, rich)
    if draw.random() < 0.75:
        for count, at in enumerate(np.arange(0, seconds, beat / 2)):
            if count % 4 == 0:
                _kick(out, rate, at)
            elif count % 4 == 2:
                _hit(out, rate, at, 0.12, 0.25, draw)
            else:
                _hit(out, rate, at, 0.03, 0.1, draw)
    return _levelled(out, draw.uniform(0.25, 0.6))


def noise(length: int, rate: int, draw: np.random.Generator) -> Sound:
    """One of hum, hiss, traffic, clicks, or two of them."""
    kinds = draw.permutation(4)[: 1 + int(draw.random() < 0.4)]
    out = np.zeros(length, np.float32)
    for kind in kinds:
        out += _NOISES[int(kind)](length, rate, draw)
    return _levelled(out, draw.uniform(0.08, 0.5))


def floor(length: int, rate: int, draw: np.random.Generator) -> Sound:
    """What a microphone hears of nothing: faint hiss, sometimes a faint hum, now and then digital silence."""
    level = draw.choice([0.0, 1e-4, 3e-4, 1e-3])
    hiss = level * draw.standard_normal(length).astype(np.float32)
    hum = level * draw.choice([0, 1]) * np.sin(2 * np.pi * 50 * np.arange(length, dtype=np.float32) / rate)
    return np.asarray(hiss + hum, np.float32)


def _note(out: Sound, rate: int, at: float, seconds: float, tone: float, level: float, fade: float, rich: float) -> None:
    start = int(at * rate)
    t = np.arange(min(int(seconds * rate), len(out) - start), dtype=np.float32) / rate
    if len(t) == 0:
        return
    shape = np.minimum(1, t / 0.012) * np.exp(-2.2 * t / fade) * np.minimum(1, (t[-1] - t) / 0.02 + 0.01)
    wave = np.zeros_like(t)
    for harmonic in range(1, 5):
        if tone * harmonic < rate / 2:
            wave += rich ** (harmonic - 1) * np.sin((2 * np.pi * tone * harmonic) * t)
    out[start : start + len(t)] += level * shape * wave


def _kick(out: Sound, rate: int, at: float) -> None:
    start = int(at * rate)
    t = np.arange(min(int(0.18 * rate), len(out) - start), dtype=np.float32) / rate
    out[start : start + len(t)] += 0.5 * np.exp(-18 * t) * np.sin(2 * np.pi * (50 * t + 3 * (1 - np.exp(-30 * t))))


def _hit(out: Sound, rate: int, at: float, seconds: float, level: float, draw: np.random.Generator) -> None:
    start = int(at * rate)
    t = np.arange(min(int(seconds * rate), len(out) - start), dtype=np.float32) / rate
    hiss = np.diff(draw.standard_normal(len(t) + 1)).astype(np.float32)
    out[start : start + len(t)] += level * np.exp(-4 * t / seconds) * hiss * 0.5


def _hum(length: int, rate: int, draw: np.random.Generator) -> Sound:
    t = np.arange(length, dtype=np.float32) / rate
    tone = draw.choice([50.0, 60.0, 100.0, 120.0]) * draw.uniform(0.98, 1.02)
    wave = sum(draw.uniform(0.1, 1) / k * np.sin(2 * np.pi * tone * k * t + draw.uniform(0, 6)) for k in range(1, 9))
    return np.asarray(wave, np.float32)


def _hiss(length: int, rate: int, draw: np.random.Generator) -> Sound:
    return _coloured(length, draw, float(draw.uniform(0, 0.7)))


def _traffic(length: int, rate: int, draw: np.random.Generator) -> Sound:
    t = np.arange(length, dtype=np.float32) / rate
    swell = np.full(length, 0.3, np.float32)
    for _ in range(int(draw.integers(1, 4))):
        swell += np.exp(-(((t - draw.uniform(0, length / rate)) / draw.uniform(0.4, 1.2)) ** 2))
    return _coloured(length, draw, 1.1) * swell


def _clicks(length: int, rate: int, draw: np.random.Generator) -> Sound:
    out = np.zeros(length, np.float32)
    every = draw.uniform(0.07, 0.4)
    at = draw.uniform(0, every)
    while at < length / rate:
        _hit(out, rate, at, float(draw.uniform(0.008, 0.04)), float(draw.uniform(0.3, 1)), draw)
        at += every * draw.uniform(0.5, 1.5)
    return out + 0.004 * draw.standard_normal(length).astype(np.float32)


_NOISES = (_hum, _hiss, _traffic, _clicks)


def _coloured(length: int, draw: np.random.Generator, slope: float) -> Sound:
    """Noise whose amplitude falls with frequency to the power of `slope`: 0 is white, 1 is brown."""
    size = 1 << max(4, (length - 1).bit_length())
    spectrum = np.fft.rfft(draw.standard_normal(size))
    spectrum *= np.maximum(np.arange(len(spectrum)), 30.0) ** -slope
    wave = np.fft.irfft(spectrum, size)[:length]
    return np.asarray(wave / (np.abs(wave).max() + 1e-9), np.float32)


def _levelled(sound: Sound, peak: float) -> Sound:
    return np.asarray(sound * (peak / (float(np.abs(sound).max(initial=1e-6)))), np.float32)
