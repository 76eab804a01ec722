"""Puts sound, picture and text together into windows whose truth is known by construction.

On screen: a voice, and a face that speaks. Off screen: a voice, and a face that does not, none, or no picture. Which
voice goes with which face is drawn, since a model that had to learn four voices by heart would know nobody else's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import cv2
import numpy as np

from streamfuse.models.batch import Items
from streamfuse.models.preprocess import compute
from streamfuse.models.preprocess.face_crops import FaceCrops
from streamfuse.models.preprocess.text_bytes import TextBytes
from streamfuse.models.preprocess.waveform import Waveform
from streamfuse.simulation.timeline import LABELS
from streamfuse.training.who_is_talking.pictures import Clip, Draw, faceless
from streamfuse.training.who_is_talking.rooms import RoomWindow
from streamfuse.training.who_is_talking.texts import caption, sound_caption
from streamfuse.training.who_is_talking.voices import Samples
from streamfuse.types import SECOND, Packet, Position

FACE, WAVE, TEXT = FaceCrops(), Waveform(), TextBytes()
EMPTY: Mapping[str, Items] = {"video": FACE.empty(), "audio": WAVE.empty(), "text": TEXT.empty()}

T = TypeVar("T")

SILENCE, OTHER, OFF_SCREEN, ON_SCREEN = range(4)
assert LABELS == ("silence", "other sound", "voice off screen", "speaker on screen")


@dataclass(frozen=True, slots=True, eq=False)
class Pools:
    """What windows are drawn from. `own` holds, for each of `speaking`, the sound that belongs to it."""

    speaking: Sequence[Clip]
    own: Sequence[Samples]
    still: Sequence[Clip]
    mistaken: Sequence[Clip]
    voices: Sequence[Samples]
    others: Sequence[Samples]
    silences: Sequence[Samples]
    rooms: Sequence[RoomWindow] = field(default_factory=tuple)


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One window, by stream, with its true label."""

    items: Mapping[str, Items]
    label: int


def draw_sample(pools: Pools, draw: Draw, room_share: float = 0.25) -> Sample:
    """One window: of a simulated room with probability `room_share`, else put together."""
    if pools.rooms and draw.random() < room_share:
        return room_sample(_pick(pools.rooms, draw), draw)
    label = int(draw.choice(4, p=(0.18, 0.24, 0.32, 0.26)))
    clip: Clip | None
    if label == ON_SCREEN:
        i = int(draw.integers(len(pools.speaking)))
        clip = pools.speaking[i]
        sound = pools.own[i] if draw.random() < 0.45 else _pick(pools.voices, draw)
    else:
        clip = _any_clip(pools, draw, speaking=0.0 if label == OFF_SCREEN else 0.18)
        if label == OFF_SCREEN:
            sound = _pick(pools.own if draw.random() < 0.25 else pools.voices, draw)
        else:
            sound = _pick(pools.silences if label == SILENCE else pools.others, draw)
    items = {"audio": audio_items(sound)}
    if clip is not None:
        items["video"] = _varied(clip.items, draw)
    texts = _texts(label, draw)
    if texts:
        items["text"] = text_items(texts, draw)
    return Sample(items, label)


def room_sample(window: RoomWindow, draw: Draw | None = None) -> Sample:
    """A simulated window as a sample; varied where there is something to draw with."""
    video = window.items if draw is None else _varied(window.items, draw)
    items = {"audio": audio_items(window.samples), "video": video}
    if window.texts:
        items["text"] = text_items(window.texts, draw)
    return Sample(items, LABELS.index(window.label))


def audio_items(samples: Samples) -> Items:
    """One second of samples as the encoder reads them."""
    empty = WAVE.empty()
    blocks = len(empty.mask)
    time = (np.arange(-blocks, 0, dtype=np.float32) + 0.5) / np.float32(blocks)
    return Items(samples[: blocks * WAVE.block].reshape(blocks, WAVE.block), time, np.ones(blocks, np.bool_))


def text_items(texts: Sequence[str], draw: Draw | None = None) -> Items:
    """Texts that began before the window or within it."""
    begins = np.zeros(len(texts)) if draw is None else np.sort(np.maximum(draw.uniform(-0.5, 1, len(texts)), 0))
    packets = [
        (Packet("text", "", round(b * SECOND), 0, text, Position("", i), 0), TEXT.reduce(text))
        for i, (text, b) in enumerate(zip(texts, begins, strict=True))
    ]
    return TEXT.prepare(0, SECOND, packets, compute)


def _any_clip(pools: Pools, draw: Draw, speaking: float) -> Clip | None:
    if draw.random() < speaking:
        return _pick(pools.speaking, draw)
    kind = draw.choice(4, p=(0.4, 0.1, 0.25, 0.25))
    if kind == 0:
        return _pick(pools.still, draw)
    if kind == 1:
        return _pick(pools.mistaken, draw)
    return faceless(FACE, draw) if kind == 2 else None


def _texts(label: int, draw: Draw) -> list[str]:
    spoken = label in (OFF_SCREEN, ON_SCREEN)
    if draw.random() < (0.45 if spoken else 0.1):
        return [caption(draw) for _ in range(1 + int(draw.random() < 0.3))]
    if draw.random() < (0.3 if label == OTHER else 0.03):
        return [sound_caption(draw)]
    return []


def _varied(items: Items, draw: Draw) -> Items:
    """The face mirrored or not, a little nearer or further, and not quite where the detector puts it."""
    data = np.asarray(items.data, np.uint8)
    if draw.random() < 0.5:
        data = data[:, :, ::-1]
    if draw.random() < 0.7 and data.any():
        zoom, middle = 1 + draw.uniform(-0.1, 0.1), data.shape[1] / 2
        shift = middle * (1 - zoom) + draw.uniform(-3, 3, 2)
        matrix = np.array([[zoom, 0, shift[0]], [0, zoom, shift[1]]])
        size = data.shape[1:]
        moved = [cv2.warpAffine(np.ascontiguousarray(crop), matrix, size, borderMode=cv2.BORDER_REPLICATE) for crop in data]
        data = np.stack([np.asarray(crop, np.uint8) for crop in moved])
    return replace(items, data=data)


def _pick(pool: Sequence[T], draw: Draw) -> T:
    return pool[int(draw.integers(len(pool)))]
