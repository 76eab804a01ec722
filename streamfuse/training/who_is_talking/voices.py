"""Windows of sound for training: voices as microphones hear them, other sounds, and silence, with no picture yet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from streamfuse.training.who_is_talking.recordings import RATE, Sound, Voice, spoken_share
from streamfuse.training.who_is_talking.sounds import (
    Draw,
    band_limited,
    faster,
    in_a_room,
    levelled,
    music,
    near_silence,
    other_sound,
    shaped,
)

Samples = NDArray[np.int16]  # one window, one channel at RATE


def voice_windows(voices: Sequence[Voice], count: int, draw: Draw, seconds: float = 1.0) -> Iterator[Samples]:
    """`count` windows of which at least half is spoken, from all voices alike."""
    for number in range(count):
        voice = voices[number % len(voices)]
        yield as_heard(_spoken_cut(voice, seconds * 1.2, draw), draw, seconds)


def as_heard(speech: Sound, draw: Draw, seconds: float = 1.0) -> Samples:
    """Speech (a little longer than needed) at another pitch, in a room, over music or noise, and at some loudness."""
    length = round(seconds * RATE)
    speech = faster(speech, draw.uniform(0.88, 1.15)) if draw.random() < 0.6 else speech
    speech = np.pad(speech, (0, max(length - len(speech), 0)))[:length]
    if draw.random() < 0.4:
        speech = in_a_room(speech, draw)
    if draw.random() < 0.7:
        speech = shaped(speech, draw)
    speech = levelled(speech, 1.0)
    if draw.random() < 0.6:
        under = music(seconds, draw) if draw.random() < 0.6 else other_sound(seconds, draw)
        speech = speech + levelled(under, 10 ** (-draw.uniform(-5, 20) / 20))
    return _to_int16(_recorded(speech, draw), draw.uniform(-42, -8))


def other_windows(count: int, draw: Draw, seconds: float = 1.0) -> Iterator[Samples]:
    """`count` windows with sound but no voice. All are made: half of what meetings call unspoken has a voice in it."""
    for _ in range(count):
        made = other_sound(seconds, draw)
        if draw.random() < 0.3:
            made = in_a_room(made, draw)
        if draw.random() < 0.5:
            made = shaped(made, draw)
        yield _to_int16(_recorded(levelled(made, 1.0), draw), draw.uniform(-46, -8))


def silent_windows(count: int, draw: Draw, seconds: float = 1.0) -> Iterator[Samples]:
    """`count` windows of digital silence or of noise at -60 dB or less."""
    for _ in range(count):
        yield np.rint(np.clip(near_silence(seconds, draw), -1, 1) * 32767).astype(np.int16)


def _spoken_cut(voice: Voice, seconds: float, draw: Draw) -> Sound:
    longest = len(voice.sound) / RATE - seconds
    start = 0.0
    for _ in range(50):
        stretch = voice.spoken[draw.integers(len(voice.spoken))]
        start = float(np.clip(draw.uniform(stretch[0], stretch[1]) - 0.5 * seconds, 0, max(longest, 0)))
        if spoken_share(voice.spoken, start, start + seconds) >= 0.5:
            break
    return voice.sound[round(start * RATE) :][: round(seconds * RATE)]


def _recorded(sound: Sound, draw: Draw) -> Sound:
    # Half of the voices at hand end at 4 kHz: every kind of sound must, sometimes, or the band would give the voice
    # away.
    if draw.random() < 0.5:
        sound = band_limited(sound, draw.uniform(20, 250), draw.uniform(3000, 7900))
    if draw.random() < 0.3:
        sound = sound + draw.standard_normal(len(sound)).astype(np.float32) * 10 ** (-draw.uniform(20, 45) / 20)
    return sound


def _to_int16(sound: Sound, decibel: float) -> Samples:
    return np.rint(np.clip(levelled(sound, 10 ** (decibel / 20)), -1, 1) * 32767).astype(np.int16)
