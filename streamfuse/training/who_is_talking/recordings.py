"""Reads the recordings that training uses: talkers who can be seen, voices, and who speaks when."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from streamfuse.models.preprocess.waveform import resample

RATE = 16_000
Sound = NDArray[np.float32]  # one channel at RATE, full scale is 1

TALKERS = ("bbaf2n", "brbk7n", "lbax4n", "lbbc2a")
"""The GRID clips (Cooke et al., JASA 2006), one talker each."""


@dataclass(frozen=True, slots=True, eq=False)
class Talker:
    """A clip of somebody who speaks into the camera: grey `frames` at `fps`, `sound`, and the stretch of speech in s.
    A clip of somebody who speaks into the camera: grey `frames` at `fps`, `sound`, and the stretch of speech in s."""

    name: str
    frames: NDArray[np.uint8]  # (frames, height, width)
    fps: float
    sound: Sound
    onset: float
    offset: float


@dataclass(frozen=True, slots=True, eq=False)
class Voice:
    """A recording with voices. `spoken` is `(stretches, 2)` in s, where somebody speaks; `group` is who, for splits."""

    group: str
    sound: Sound
    spoken: NDArray[np.float64]


def read_talkers(data: Path) -> list[Talker]:
    """The four GRID clips."""
    return [_talker(data / "clips" / f"{name}.mpg") for name in TALKERS]


def read_voices(data: Path) -> list[Voice]:
    """Meetings (AMI), digits (FSDD) and a speech; each meeting and each speaker of digits is a group."""
    voices = list(_meetings(data / "ami"))
    voices += _digits(data / "digits" / "speech_train.npz")
    speech = read_sound(data / "speech" / "jfk.flac")
    voices.append(Voice("jfk", speech, active_stretches(speech)))
    return voices


def read_sound(path: Path) -> Sound:
    """A file's first sound track, one channel at `RATE`."""
    with av.open(str(path)) as container:
        resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE)
        parts = [out.to_ndarray()[0] for frame in container.decode(audio=0) for out in resampler.resample(frame)]
        parts += [out.to_ndarray()[0] for out in resampler.resample(None)]
    return np.concatenate(parts).astype(np.float32)


def active_stretches(sound: Sound, below_peak: float = 30.0) -> NDArray[np.float64]:
    """Where clean speech is within `below_peak` dB of its loudest 20 ms, pauses up to 0.2 s filled: `(stretches, 2)`
    s."""
    block = RATE // 50
    power = (sound[: len(sound) // block * block].reshape(-1, block) ** 2).mean(1)
    loud = 10 * np.log10(power + 1e-10)
    active = np.flatnonzero(loud > loud.max() - below_peak)
    breaks = np.flatnonzero(np.diff(active) > 10)
    first, last = np.append(0, breaks + 1), np.append(breaks, len(active) - 1)
    return np.stack([active[first], active[last] + 1], 1) * (block / RATE)


def spoken_share(spoken: NDArray[np.float64], start: float, end: float) -> float:
    """How much of `[start, end)` is covered by the stretches, from 0 to 1. They may overlap."""
    steps = np.linspace(start, end, 51)[:-1] + (end - start) / 100
    return float(((steps[:, None] >= spoken[:, 0]) & (steps[:, None] < spoken[:, 1])).any(1).mean())


def _talker(path: Path) -> Talker:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        fps = float(stream.average_rate or 25)
        frames = [frame.to_ndarray(format="gray") for frame in container.decode(stream)]
    sound = read_sound(path)
    energy = np.cumsum(sound.astype(np.float64) ** 2)
    onset, offset = np.searchsorted(energy / energy[-1], (0.005, 0.995)) / RATE
    return Talker(path.stem, np.stack(frames), fps, sound, float(onset), float(offset))


def _meetings(folder: Path) -> Iterator[Voice]:
    spoken: dict[str, list[tuple[float, float]]] = {}
    for line in (folder / "debug.train.rttm").read_text(encoding="utf-8").splitlines():
        word = line.split()
        spoken.setdefault(word[1], []).append((float(word[3]), float(word[3]) + float(word[4])))
    for name, stretches in sorted(spoken.items()):
        yield Voice(f"ami-{name}", read_sound(folder / f"{name}.wav"), np.array(stretches))


def _digits(path: Path, each: int = 150) -> Iterator[Voice]:
    """Per speaker, `each` digits in a row with short random pauses."""
    draw = np.random.default_rng(0)
    with np.load(path) as file:
        samples, lengths, speakers, rate = file["samples"], file["lengths"], file["speaker"], int(file["rate"])
    ends = np.cumsum(lengths)
    for speaker in np.unique(speakers):
        parts: list[Sound] = []
        for i in draw.permutation(np.flatnonzero(speakers == speaker))[:each]:
            digit = samples[ends[i] - lengths[i] : ends[i]].astype(np.float32) / 32768
            parts += [resample(digit, len(digit) * RATE // rate), np.zeros(int(draw.uniform(0.02, 0.15) * RATE), np.float32)]
        sound = np.concatenate(parts)
        yield Voice(f"fsdd-{speaker}", sound, active_stretches(sound))


def grey_jpeg(frame: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """A frame as it comes back from JPEG of this quality."""
    packed = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(packed, cv2.IMREAD_GRAYSCALE), np.uint8)
