"""Windows of video for training, as face crops: talkers who speak, faces that do not, and things mistaken for faces."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from streamfuse.models.batch import Items
from streamfuse.models.faces import Box, face_crops
from streamfuse.models.preprocess import compute
from streamfuse.models.preprocess.face_crops import FaceCrops
from streamfuse.training.who_is_talking.recordings import Talker, grey_jpeg
from streamfuse.types import SECOND, Packet, Position

Draw = np.random.Generator
Frames = NDArray[np.uint8]  # (frames, height, width) grey

RATES = (8, 10, 12.5, 15, 20, 25, 30)


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """A second of a face before a camera of `fps`; `begins` is where it was cut from its talker's clip, in s."""

    items: Items
    speaks: bool
    kind: str
    begins: float


def speaking(talker: Talker, face: FaceCrops, draw: Draw) -> Clip:
    """A stretch in which the talker speaks most of the time, as another camera might have seen it."""
    spoken = talker.offset - talker.onset
    begins = draw.uniform(talker.onset - 0.3, talker.offset - min(0.7, 0.65 * spoken))
    pace = draw.uniform(0.85, 1.2)
    fps = float(draw.choice(RATES))
    at = (begins + np.arange(round(fps)) / fps * pace) * talker.fps
    frames = talker.frames[np.clip(np.rint(at).astype(int), 0, len(talker.frames) - 1)]
    return Clip(_seen(frames, fps, face, draw, moving=draw.random() < 0.5), True, "speaking", float(begins))


def still(talker: Talker, face: FaceCrops, draw: Draw) -> Clip:
    """A face that does not speak: frozen, shaken, zoomed, with something that moves beside the mouth, or listening."""
    fps = float(draw.choice(RATES))
    count = round(fps)
    kind = str(draw.choice(["frozen", "shaken", "spots", "listening", "flicker"], p=[0.15, 0.25, 0.25, 0.25, 0.1]))
    begins = 0.0
    if kind == "listening":
        frames = _listening(talker, fps, draw)
    else:
        frame = talker.frames[draw.integers(len(talker.frames))]
        frames = np.repeat(frame[None], count, 0)
    if kind == "spots":
        frames = _spots(frames, face, draw)
    elif kind == "flicker":
        gain = 1 + draw.uniform(0.02, 0.2) * draw.standard_normal(count)
        frames = np.stack([cv2.convertScaleAbs(f, alpha=g) for f, g in zip(frames, gain, strict=True)])
    moving = kind == "shaken" or (kind != "frozen" and draw.random() < 0.4)
    return Clip(_seen(frames, fps, face, draw, moving=moving), False, kind, begins)


def mistaken(face: FaceCrops, draw: Draw) -> Clip:
    """A box on something that is no face, such as a detector finds now and then: textures that drift, turn and
    flicker."""
    fps = float(draw.choice(RATES))
    size = int(draw.integers(80, 160))
    texture = draw.standard_normal((2 * size, 2 * size)).astype(np.float32)
    texture = np.asarray(cv2.GaussianBlur(texture, (0, 0), draw.uniform(1, 12)), np.float32)
    texture = 128 + texture / (texture.std() + 1e-6) * draw.uniform(10, 60)
    frames = np.repeat(np.clip(texture, 0, 255).astype(np.uint8)[None], round(fps), 0)
    if draw.random() < 0.5:
        frames = _spots(frames, None, draw)
    frames = np.stack(list(_through_camera(frames, draw, moving=draw.random() < 0.8, noise=draw.uniform(0, 6))))
    box = Box(size * draw.uniform(0.8, 1.2), size * draw.uniform(0.8, 1.2), size * draw.uniform(0.5, 1))
    chosen = frames[:: max(round(fps / 16), 1)]
    time = (np.arange(len(chosen)) / len(chosen) - 1).astype(np.float32)
    crops = face_crops(list(chosen), {0: [box]}, face.size, 1)
    return Clip(Items(crops, time, np.ones(len(chosen), np.bool_)), False, "mistaken", 0.0)


def faceless(face: FaceCrops, draw: Draw) -> Clip:
    """Frames in which no face is found: their crops are empty whatever they show."""
    count = int(draw.integers(8, face.frames + 1))
    time = (np.arange(count) / count - 1 + draw.uniform(0, 0.03)).astype(np.float32)
    return Clip(Items(np.zeros((count, face.size, face.size), np.uint8), time, np.ones(count, np.bool_)), False, "faceless", 0.0)


def as_items(frames: Sequence[NDArray[np.uint8]], fps: float, face: FaceCrops, draw: Draw) -> Items:
    """Grey frames of one second through the preprocessing that serves."""
    origin = int(draw.integers(0, 10 * SECOND))  # a window begins anywhere against the frames' clock
    first = origin + round(draw.uniform(0, 1) * SECOND / fps)
    times = [first + round(i * SECOND / fps) for i in range(len(frames))]
    packets = [
        (Packet("video", "", t, 0, "", Position("", i), t), frame)
        for i, (t, frame) in enumerate(zip(times, frames, strict=True))
        if t < origin + SECOND
    ]
    return face.prepare(origin, origin + SECOND, packets, compute)


def _seen(frames: Frames, fps: float, face: FaceCrops, draw: Draw, *, moving: bool) -> Items:
    noise = draw.uniform(0, 4.5) if draw.random() < 0.7 else 0.0
    return as_items(list(_through_camera(frames, draw, moving=moving, noise=noise)), fps, face, draw)


def _through_camera(frames: Frames, draw: Draw, *, moving: bool, noise: float) -> Iterator[NDArray[np.uint8]]:
    """Each frame from another distance and angle, in another light, blurred, with noise, and through JPEG."""
    count, height, width = frames.shape
    out_width = int(draw.choice([320, 320, 256, 360]))
    scale, angle = out_width / width * draw.uniform(0.7, 1.3), draw.uniform(-8, 8)
    shift = draw.uniform(-0.06, 0.06, 2) * out_width
    sway = draw.uniform(0, 1, 3) * (4.0, 4.0, 0.04) if moving else np.zeros(3)
    phases, speeds = draw.uniform(0, 6, 3), draw.uniform(0.3, 3, 3)
    trembles = draw.uniform(0, 0.6) if moving else 0.0
    gamma, alpha, beta = draw.uniform(0.7, 1.4), draw.uniform(0.6, 1.3), draw.uniform(-30, 30)
    curve = np.clip(alpha * 255 * (np.arange(256) / 255) ** gamma + beta, 0, 255).astype(np.uint8)
    blur = draw.uniform(0.3, 1.6) if draw.random() < 0.4 else 0.0
    quality = int(draw.integers(45, 96))
    for i, frame in enumerate(frames):
        dx, dy, zoom = sway * np.sin(speeds * 2 * np.pi * i / max(count, 1) + phases)
        dx, dy = dx + trembles * draw.standard_normal(), dy + trembles * draw.standard_normal()
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, scale * (1 + zoom))
        matrix[:, 2] += shift + np.array((dx + (out_width - width) / 2, dy + (out_width * 0.75 - height) / 2))
        seen = cv2.warpAffine(frame, matrix, (out_width, round(out_width * 0.75)), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT)
        seen = cv2.LUT(seen, curve)
        if blur:
            seen = cv2.GaussianBlur(seen, (0, 0), blur)
        if noise:
            grain = np.zeros(seen.shape, np.int16)
            cv2.randn(grain, np.zeros(1), np.full(1, noise))
            seen = np.clip(seen.astype(np.int16) + grain, 0, 255).astype(np.uint8)
        yield grey_jpeg(np.asarray(seen, np.uint8), quality)


def _listening(talker: Talker, fps: float, draw: Draw) -> Frames:
    """Frames from before the talker begins or after they have ended, there and back again: a mouth that is shut."""
    before = talker.frames[: max(int((talker.onset - 0.15) * talker.fps), 4)]
    after = talker.frames[min(int((talker.offset + 0.25) * talker.fps), len(talker.frames) - 4) :]
    part = before if draw.random() < 0.5 else after
    swing = np.abs((np.arange(round(fps)) / fps * talker.fps + draw.integers(100)) % (2 * len(part) - 2) - len(part) + 1)
    return np.asarray(part[np.clip(np.rint(swing).astype(int), 0, len(part) - 1)], np.uint8)


def _spots(frames: Frames, face: FaceCrops | None, draw: Draw) -> Frames:
    """Something that moves beside the mouth: eyes that blink, a hand at the forehead, a passer-by in the background."""
    height, width = frames.shape[1:]
    out = frames.copy()
    mouth = np.array((0.5 * width, 0.72 * height))
    for _ in range(int(draw.integers(1, 4))):
        centre = draw.uniform((0.1 * width, 0.05 * height), (0.9 * width, 0.95 * height))
        if face is not None and np.linalg.norm((centre - mouth) / (width, height)) < 0.3:
            centre[1] = draw.uniform(0.1, 0.4) * height
        radii, reach = draw.uniform(4, 30, 2), draw.uniform(0, 15, 2)
        level, speed, phase = float(draw.uniform(0, 255)), draw.uniform(0.5, 5), draw.uniform(0, 6)
        blinks = draw.random() < 0.5
        for i in range(len(out)):
            wave = np.sin(2 * np.pi * speed * i / len(out) + phase)
            if blinks and wave < 0.3:
                continue
            at = centre + reach * wave
            cv2.ellipse(out[i], (at.tolist(), (radii * 2).tolist(), 0.0), level, -1)
    return out


KINDS: tuple[Callable[[Talker, FaceCrops, Draw], Clip], ...] = (speaking, still)
