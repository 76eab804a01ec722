"""Windows of simulated rooms for training: drawn talkers, made voices, captions, and the truth of each instant."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from streamfuse.models.batch import Items
from streamfuse.models.preprocess.face_crops import FaceCrops
from streamfuse.simulation.room import Room
from streamfuse.training.who_is_talking.pictures import Draw, as_items
from streamfuse.training.who_is_talking.recordings import RATE, grey_jpeg
from streamfuse.training.who_is_talking.voices import Samples
from streamfuse.types import SECOND


@dataclass(frozen=True, slots=True, eq=False)
class RoomWindow:
    """One second of a room. `label` held for at least three fifths of it."""

    items: Items
    samples: Samples
    texts: tuple[str, ...]
    label: str


def room_windows(seeds: Sequence[int], each: int, face: FaceCrops, draw: Draw) -> Iterator[RoomWindow]:
    """`each` windows a room, at random instants of its first minutes; those halfway between two states are passed over."""
    for seed in seeds:
        room = Room(seed, fps=float(draw.choice([10, 15, 15, 25])), rate=RATE)
        # In order of time, since a room keeps only its last few segments.
        for start in np.sort(draw.uniform(0, 3 * each, each)):
            window = _window(room, round(start * SECOND), face, draw)
            if window is not None:
                yield window


def _window(room: Room, start: int, face: FaceCrops, draw: Draw) -> RoomWindow | None:
    end = start + SECOND
    segments = [s for s in room.segments(end, max(start - 10 * SECOND, 0)) if s.end > start]
    share = {s.label: 0 for s in segments}
    for s in segments:
        share[s.label] += min(s.end, end) - max(s.start, start)
    label = max(share, key=lambda name: share[name])
    if share[label] < 0.6 * SECOND:
        return None
    first = -(-start * room.fps // SECOND)
    count = int(-(-end * room.fps // SECOND) - first)
    quality = int(draw.integers(50, 96))
    frames = [grey_jpeg(np.asarray(cv2.cvtColor(room.frame(int(first) + i), cv2.COLOR_BGR2GRAY), np.uint8), quality) for i in range(count)]
    texts = tuple(c.text for s in segments for c in room.captions_of(s) if c.start < end and c.start + c.duration > start)
    samples = room.sound(round(start * RATE / SECOND), RATE)
    return RoomWindow(as_items(frames, room.fps, face, draw), samples, texts, str(label))
