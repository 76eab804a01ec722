"""Sounds made from a seed that are not voices, and what rooms and microphones do to any sound."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from streamfuse.training.who_is_talking.recordings import RATE, Sound

Draw = np.random.Generator

_SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 4, 7, 9))


def other_sound(seconds: float, draw: Draw) -> Sound:
    """Music, a machine, weather, a crowd's hands, or two of them; loudness is left to the caller."""
    made = _KINDS[int(draw.choice(len(_KINDS), p=_SHARES))](seconds, draw)
    if draw.random() < 0.25:
        second = _KINDS[int(draw.choice(len(_KINDS), p=_SHARES))](seconds, draw)
        made = levelled(made, 1.0) + draw.uniform(0.1, 0.8) * levelled(second, 1.0)
    return made


def near_silence(seconds: float, draw: Draw) -> Sound:
    """Digital silence, or hiss and hum at -60 dB of full scale or less."""
    if draw.random() < 0.3:
        return np.zeros(round(seconds * RATE), np.float32)
    made = coloured_noise(seconds, draw.uniform(0, 2), draw)
    if draw.random() < 0.4:
        made = levelled(made, 1.0) + draw.uniform(0.2, 2) * levelled(hum(seconds, draw), 1.0)
    return levelled(made, 10 ** (draw.uniform(-90, -60) / 20))


def music(seconds: float, draw: Draw) -> Sound:
    """Chords, a melody, a bass and drums, each there or not, with timbres and fades of their own."""
    length = round(seconds * RATE)
    out = np.zeros(length, np.float32)
    beat = 60 / draw.uniform(60, 170)
    key, scale = draw.integers(0, 12), _SCALES[draw.integers(len(_SCALES))]
    shift = draw.uniform(0, 4 * beat)  # a window begins anywhere in a bar

    def tone(degree: int, octave: int) -> float:
        step, place = divmod(degree, len(scale))
        return float(55 * 2 ** (octave + step + (key + scale[place]) / 12))

    parts = draw.random(4) < (0.7, 0.6, 0.5, 0.5)
    if not parts.any():
        parts[draw.integers(4)] = True
    timbres = [_timbre(draw) for _ in range(3)]
    root = int(draw.integers(len(scale)))
    for bar in np.arange(-shift, seconds, 4 * beat):
        root = int(draw.integers(len(scale)))
        if parts[0]:
            for interval in (0, 2, 4, 6)[: draw.integers(2, 5)]:
                _add(out, bar, timbres[0](tone(root + interval, 2), 4 * beat, draw) * 0.2)
        if parts[2]:
            for at in np.arange(0, 4 * beat, beat * draw.choice([1, 2])):
                _add(out, bar + at, timbres[2](tone(root, 0), beat, draw) * 0.5)
    if parts[1]:
        at = -shift
        degree = int(draw.integers(14))
        while at < seconds:
            degree = int(np.clip(degree + draw.integers(-3, 4), 0, 16))
            lasts = beat * draw.choice([0.25, 0.5, 0.5, 1, 2])
            if draw.random() < 0.85:
                _add(out, at, timbres[1](tone(degree, 3), lasts * draw.uniform(0.8, 2), draw) * 0.4)
            at += lasts
    if parts[3]:
        for count, at in enumerate(np.arange(-shift, seconds, beat / 2)):
            kind = ("kick", "hat", "snare", "hat")[count % 4]
            if draw.random() < 0.85:
                _add(out, at, _drum(kind, draw) * draw.uniform(0.5, 1))
    return out


def coloured_noise(seconds: float, slope: float, draw: Draw) -> Sound:
    """Noise whose power falls with the frequency to the power of `slope`: 0 white, 1 pink, 2 brown."""
    length = round(seconds * RATE)
    spectrum = draw.standard_normal(length // 2 + 1) + 1j * draw.standard_normal(length // 2 + 1)
    hz = np.fft.rfftfreq(length, 1 / RATE)
    return np.fft.irfft(spectrum * np.maximum(hz, 30) ** (-slope / 2), length).astype(np.float32)


def band_noise(seconds: float, draw: Draw) -> Sound:
    """Noise in a band that drifts in loudness: wind, traffic, surf, a fan."""
    made = shaped(coloured_noise(seconds, draw.uniform(0, 2), draw), draw, steps=10, depth=18)
    return made * _drift(len(made), draw, draw.uniform(0, 1))


def hum(seconds: float, draw: Draw) -> Sound:
    """Mains or an engine: harmonics of a low tone that may wander."""
    length = round(seconds * RATE)
    base = draw.choice([50.0, 60.0, draw.uniform(25, 250)])
    wander = 1 + draw.uniform(0, 0.04) * np.cumsum(draw.standard_normal(length)) / np.sqrt(length)
    phase = 2 * np.pi * np.cumsum(base * wander) / RATE
    out = np.zeros(length, np.float32)
    for harmonic in range(1, int(draw.integers(2, 16))):
        if base * harmonic < RATE / 2:
            out += draw.uniform(0, 1) / harmonic ** draw.uniform(0.2, 1.5) * np.sin(harmonic * phase + draw.uniform(0, 6))
    return out


def clicks(seconds: float, draw: Draw) -> Sound:
    """Keys, knocks, steps, drops: short sounds with a ring, regular or not."""
    out = np.zeros(round(seconds * RATE), np.float32)
    every = draw.uniform(0.05, 0.6)
    regular = draw.random() < 0.4
    at = -draw.uniform(0, every)
    while at < seconds:
        lasts = draw.uniform(0.005, 0.15)
        t = np.arange(int(lasts * RATE), dtype=np.float32) / RATE
        ring = np.sin(2 * np.pi * draw.uniform(150, 5000) * t) * draw.uniform(0, 1)
        hit = (ring + draw.standard_normal(len(t)) * draw.uniform(0.1, 1)) * np.exp(-t * draw.uniform(3, 8) / lasts)
        _add(out, at, hit.astype(np.float32) * draw.uniform(0.3, 1))
        at += every if regular else draw.exponential(every)
    return out + 0.003 * draw.standard_normal(len(out)).astype(np.float32)


def applause(seconds: float, draw: Draw) -> Sound:
    """Many hands: band-passed bursts at random, dense."""
    out = np.zeros(round(seconds * RATE), np.float32)
    for at in draw.uniform(-0.05, seconds, int(draw.integers(20, 250) * seconds)):
        t = np.arange(int(0.03 * RATE), dtype=np.float32) / RATE
        burst = draw.standard_normal(len(t)) * np.exp(-t * draw.uniform(100, 400)) * draw.uniform(0.1, 1)
        _add(out, float(at), burst.astype(np.float32))
    return shaped(out, draw, steps=6, depth=8)


def alarm(seconds: float, draw: Draw) -> Sound:
    """Beeps, sirens, rings and birds: one tone, switched or swept."""
    length = round(seconds * RATE)
    t = np.arange(length, dtype=np.float32) / RATE
    base, rate = draw.uniform(300, 4500), draw.uniform(0.5, 12)
    sweep = draw.choice([0, 0, 1]) * draw.uniform(0.02, 0.5) * np.sin(2 * np.pi * rate * t + draw.uniform(0, 6))
    tone = np.sin(2 * np.pi * np.cumsum(base * (1 + sweep)) / RATE)
    switched = (np.sin(2 * np.pi * rate * t + draw.uniform(0, 6)) > draw.uniform(-0.8, 0.6)) if draw.random() < 0.6 else 1.0
    return np.asarray(np.tanh(tone * draw.uniform(0.5, 4)) * switched + 0.002 * draw.standard_normal(length), np.float32)


def shaped(sound: Sound, draw: Draw, *, steps: int = 6, depth: float = 10.0) -> Sound:
    """Through a random smooth filter of up to +-`depth` dB: a microphone, a loudspeaker, a wall."""
    spectrum = np.fft.rfft(sound)
    octaves = np.log2(np.maximum(np.fft.rfftfreq(len(sound), 1 / RATE), 40) / 40)
    gain = np.interp(octaves, np.linspace(0, octaves[-1], steps), draw.uniform(-depth, depth, steps))
    return np.fft.irfft(spectrum * 10 ** (gain / 20), len(sound)).astype(np.float32)


def band_limited(sound: Sound, low: float, high: float) -> Sound:
    """Only what lies between two frequencies, as over a telephone or in an old recording."""
    spectrum = np.fft.rfft(sound)
    hz = np.fft.rfftfreq(len(sound), 1 / RATE)
    gain = 1 / (1 + (np.maximum(hz, 1) / high) ** 12) / (1 + (low / np.maximum(hz, 1)) ** 8)
    return np.fft.irfft(spectrum * gain, len(sound)).astype(np.float32)


def in_a_room(sound: Sound, draw: Draw) -> Sound:
    """With the echo of a room: noise that dies away over 0.1 to 0.7 s behind the direct sound."""
    lasts = draw.uniform(0.1, 0.7)
    t = np.arange(int(lasts * RATE), dtype=np.float32) / RATE
    tail = draw.standard_normal(len(t)) * np.exp(-6.9 * t / lasts) * draw.uniform(0.02, 0.12)
    tail[0] = 1
    size = len(sound) + len(tail) - 1
    return np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(tail, size), size)[: len(sound)].astype(np.float32)


def levelled(sound: Sound, rms: float) -> Sound:
    """At this root mean square; what is silent stays so."""
    power = float(np.sqrt(np.mean(sound.astype(np.float64) ** 2)))
    return sound * np.float32(rms / power) if power > 1e-9 else sound


def faster(sound: Sound, factor: float) -> Sound:
    """Played `factor` times as fast, so also higher."""
    at = np.arange(0, len(sound) - 1, factor)
    return np.asarray(np.interp(at, np.arange(len(sound)), sound), np.float32)


def _timbre(draw: Draw) -> Callable[[float, float, Draw], Sound]:
    """An instrument: plucked (Karplus and Strong, CMJ 1983) or blown, with overtones and an attack of its own."""
    weights = draw.uniform(0.1, 0.9) ** np.arange(8) * draw.uniform(0.2, 1, 8)
    attack, fade = draw.choice([0.004, 0.02, 0.15]), draw.uniform(0.3, 4)
    vibrato = draw.choice([0, 0, 0.006])

    def play(tone: float, seconds: float, draw: Draw) -> Sound:
        t = np.arange(max(int(seconds * RATE), 1), dtype=np.float32) / np.float32(RATE)
        phase = 2 * np.pi * tone * (t + vibrato / 35 * np.sin(2 * np.pi * 5.5 * t))
        wave = np.zeros(len(t), np.float32)
        for harmonic, weight in enumerate(weights, 1):
            if tone * harmonic < RATE / 2:
                wave += weight * np.sin(harmonic * phase)
        return np.asarray(wave * np.minimum(1, t / attack) * np.exp(-t * fade) * np.minimum(1, (t[-1] - t) / 0.02), np.float32)

    def pluck(tone: float, seconds: float, draw: Draw) -> Sound:
        period, count = max(int(RATE / tone), 2), int(seconds * RATE)
        line = draw.uniform(-1, 1, period).astype(np.float32)
        rounds = []
        for _ in range(count // period + 1):
            rounds.append(line)
            line = 0.498 * (line + np.roll(line, 1))
        return np.concatenate(rounds)[:count]

    return pluck if draw.random() < 0.3 else play


def _drum(kind: str, draw: Draw) -> Sound:
    lasts = {"kick": 0.2, "snare": 0.15, "hat": 0.05}[kind]
    t = np.arange(int(lasts * RATE), dtype=np.float32) / RATE
    if kind == "kick":
        return np.asarray(np.sin(2 * np.pi * (50 * t + 4 * (1 - np.exp(-30 * t)))) * np.exp(-16 * t), np.float32)
    hiss = draw.standard_normal(len(t)) * np.exp(-t * (80 if kind == "hat" else 25))
    if kind == "hat":
        hiss = np.diff(hiss, prepend=0) * 0.6
    return np.asarray(hiss * 0.5, np.float32)


def _add(out: Sound, at: float, sound: Sound) -> None:
    start = int(at * RATE)
    low, high = max(start, 0), min(start + len(sound), len(out))
    if low < high:
        out[low:high] += sound[low - start : high - start]


def _drift(length: int, draw: Draw, depth: float) -> Sound:
    return np.interp(np.arange(length), np.linspace(0, length, 6), draw.uniform(1 - depth, 1, 6)).astype(np.float32)


def _pink(seconds: float, draw: Draw) -> Sound:
    return coloured_noise(seconds, draw.uniform(0, 2), draw)


_KINDS: tuple[Callable[[float, Draw], Sound], ...] = (music, band_noise, hum, clicks, applause, alarm, _pink)
_SHARES = (0.46, 0.14, 0.08, 0.1, 0.06, 0.08, 0.08)
