"""AV-digits: spoken digits paired with pictures of the same digit, both so degraded that neither suffices.

Two training talkers, one talker for validation and one for the test; pictures, and the meetings that babble is cut from, are of one
part only as well. From pictures, the principal components that hold 75 % of the energy (about the mean, of the training's pictures) are
removed and Gaussian noise of 2.5 times the residual's standard deviation is added. Babble, three stretches of meetings at once, is mixed
in at a signal to noise ratio of +10 dB.

Speech: Free Spoken Digit Dataset (CC BY-SA 4.0); pictures: MNIST (CC BY-SA 3.0); babble: AMI (CC BY 4.0).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamfuse.models.encoders.windowed import mel_matrix
from streamfuse.models.preprocess.waveform import resample

Floats = NDArray[np.float32]
Numbers = NDArray[np.int64]

RATE = 8000
LONGEST = RATE
"""Of longer clips the first second counts, which is all but a few."""
WIDTH, HOP, BANDS = 256, 160, 24
FRAMES = LONGEST // HOP
STEP, SPAN = 8, 12
"""An item is `SPAN` frames, and there is one every `STEP` frames."""
ITEMS = -(-FRAMES // STEP)


@dataclass(frozen=True, slots=True)
class Part:
    """A talker belongs to one part, and so do pictures (from this share of them on) and meetings. Each clip is paired `pairs`
    times, with another picture and other babble."""

    talkers: tuple[str, ...]
    meetings: tuple[int, ...]
    pictures: tuple[float, float]
    pairs: int


PARTS = {
    "train": Part(("george", "jackson"), (0, 1, 2, 3, 4, 5), (0.0, 0.7), 4),
    "validation": Part(("lucas",), (6, 7), (0.7, 0.85), 4),
    "test": Part(("theo",), (8, 9), (0.85, 1.0), 4),
}


@dataclass(frozen=True, slots=True)
class Degrading:
    energy: float = 0.75
    """Share of the pictures' energy whose components are removed."""
    noise: float = 2.5
    """On pictures, in standard deviations of what is left."""
    speech: float = 10.0
    """dB above the babble."""


def prepare(source: Path, path: Path, degrading: Degrading) -> None:
    """Writes `audio` (rows, 7, 288) with its `audio_length`, `image` (rows, 784), `label`, `group` (the talker), `part` and `name` as
    .npz."""
    with np.load(source / "digits" / "speech_train.npz") as file:
        speech = dict(file)
    with np.load(source / "digits" / "images_train.npz") as file:
        pictures, digits = file["image"].reshape(len(file["image"]), -1).astype(np.float32) / 255, file["digit"]
    draw = np.random.default_rng(0)
    order = draw.permutation(len(pictures))
    own = {name: order[int(part.pictures[0] * len(order)) : int(part.pictures[1] * len(order))] for name, part in PARTS.items()}
    components = principal(pictures[own["train"]], degrading.energy)
    residual = without(pictures, components)
    deviation = float(residual[own["train"]].std())
    clips = np.split(speech["samples"].astype(np.float32), np.cumsum(speech["lengths"])[:-1])
    names = ("audio", "audio_length", "image", "label", "group", "part", "name")
    columns: dict[str, list[NDArray[np.generic]]] = {name: [] for name in names}
    for name, part in PARTS.items():
        rows = np.repeat(np.flatnonzero(np.isin(speech["speaker"], part.talkers)), part.pairs)
        chosen = pair(speech["digit"][rows], digits, own[name], draw)
        noise = draw.standard_normal((len(rows), residual.shape[1]), np.float32) * np.float32(degrading.noise * deviation)
        image = (residual[chosen] + noise) / np.float32(deviation * np.hypot(1, degrading.noise))
        meetings = [meeting(source / "ami" / f"trn{number:02d}.wav") for number in part.meetings]
        heard = [with_babble(clips[row][:LONGEST], meetings, degrading.speech, draw) for row in rows]
        columns["audio"].append(np.stack([spoken(sound) for sound in heard]))
        columns["audio_length"].append(np.array([-(-len(sound) // (STEP * HOP)) for sound in heard]))
        columns["image"].append(image)
        columns["label"].append(speech["digit"][rows].astype(np.int64))
        columns["group"].append(speech["speaker"][rows])
        columns["part"].append(np.full(len(rows), name))
        columns["name"].append(
            np.array(
                [
                    f"{speech['speaker'][r]} {speech['digit'][r]} take {speech['take'][r]}, picture {p}"
                    for r, p in zip(rows, chosen, strict=True)
                ]
            )
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, allow_pickle=False, **{name: np.concatenate(column) for name, column in columns.items()})


# --- pictures ------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Components:
    mean: Floats  # (pixels,)
    axes: Floats  # (pixels, components)


def principal(pictures: Floats, energy: float) -> Components:
    """The fewest principal components that hold this share of the energy about the mean."""
    mean = pictures.mean(0)
    centred = (pictures - mean).astype(np.float64)
    values, axes = np.linalg.eigh(centred.T @ centred)
    shares = np.cumsum(values[::-1]) / values.sum()
    count = int(np.searchsorted(shares, energy)) + 1 if energy > 0 else 0
    return Components(mean, axes[:, ::-1][:, :count].astype(np.float32))


def without(pictures: Floats, components: Components) -> Floats:
    centred = pictures - components.mean
    return np.asarray(centred - (centred @ components.axes) @ components.axes.T, np.float32)


def pair(spoken_digits: NDArray[np.integer], digits: NDArray[np.integer], pictures: Numbers, draw: np.random.Generator) -> Numbers:
    """For each spoken digit a picture of the same digit, none of them twice."""
    chosen = np.zeros(len(spoken_digits), np.int64)
    for digit in range(10):
        places = np.flatnonzero(spoken_digits == digit)
        chosen[places] = draw.permutation(pictures[digits[pictures] == digit])[: len(places)]
    return chosen


# --- sound ---------------------------------------------------------------------------------------------------------------------------


def meeting(path: Path) -> Floats:
    """A recording at 8 kHz. The file is WAV of 32-bit floats at 16 kHz, which Python's `wave` does not read."""
    raw = path.read_bytes()
    at = raw.index(b"data") + 8
    samples = np.frombuffer(raw[at : at + (len(raw) - at) // 4 * 4], "<f4")
    return resample(samples, len(samples) // 2)


def with_babble(clip: Floats, meetings: Sequence[Floats], ratio: float, draw: np.random.Generator) -> Floats:
    """The clip with three equally loud stretches of meetings over it, together `ratio` dB quieter than the clip."""
    babble = np.zeros(len(clip), np.float32)
    for _ in range(3):
        babble += stretch_of(meetings, len(clip), draw)
    return np.asarray(clip + babble * np.float32(clip.std() / babble.std() * 10 ** (-ratio / 20)), np.float32)


def stretch_of(meetings: Sequence[Floats], length: int, draw: np.random.Generator) -> Floats:
    """A stretch in which somebody speaks (it is no quieter than half of its meeting), with standard deviation 1."""
    while True:
        whole = meetings[int(draw.integers(len(meetings)))]
        start = int(draw.integers(len(whole) - length))
        stretch = whole[start : start + length]
        if stretch.std() >= 0.5 * whole.std():
            return np.asarray(stretch / stretch.std(), np.float32)


MEL = mel_matrix(RATE, WIDTH, BANDS).numpy()
TAPER = np.hanning(WIDTH).astype(np.float32)


def spoken(clip: Floats) -> Floats:
    """`(7, 288)`: stretches of the clip's log-mel spectrum, less its mean over time, which is much of the talker and the
    microphone; zeros after its end."""
    count = -(-len(clip) // HOP)
    padded = np.pad(clip / max(float(clip.std()), 1e-6), (WIDTH // 2, WIDTH // 2 + HOP))
    frames = np.lib.stride_tricks.sliding_window_view(padded, WIDTH)[::HOP][:count] * TAPER
    logs = np.log(np.square(np.abs(np.fft.rfft(frames))) @ MEL + 1e-2)
    line = np.zeros((ITEMS * STEP + SPAN - STEP, BANDS), np.float32)
    before = (SPAN - STEP) // 2
    line[before : before + count] = (logs - logs.mean(0)) / 2
    return np.stack([line[at : at + SPAN].ravel() for at in range(0, ITEMS * STEP, STEP)])
