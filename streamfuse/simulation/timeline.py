"""What happens in a simulated room, and when: an endless sequence of segments drawn from a seed."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from streamfuse.types import MILLISECOND, SECOND

Label = Literal["silence", "other sound", "voice off screen", "speaker on screen"]
Picture = Literal["talker", "portrait", "frozen", "empty"]
Sound = Literal["silence", "music", "noise", "voice"]

LABELS: tuple[Label, ...] = ("silence", "other sound", "voice off screen", "speaker on screen")

PEOPLE = 4
"""Identities that a room knows. Whoever is seen or heard in it is one of them."""

_PICTURES: tuple[Picture, ...] = ("talker", "portrait", "frozen", "empty")
_SHARES = (0.55, 0.15, 0.1, 0.2)
_GRID = 10 * MILLISECOND  # a whole number of samples at every common rate, 44.1 kHz included
_BLOCK = 60 * SECOND  # made as a whole, so that any instant is found without what came before
_MOST = 32  # segments of a block, at most


@dataclass(frozen=True, slots=True)
class Segment:
    """One state of a room over `[start, end)`, in ns from the room's first instant. `index` is its own in the room.

    `talker` is somebody who moves, and speaks when the label is `speaker on screen`; `portrait` is a face in a
    picture frame, `frozen` a live face whose picture stands still, `empty` a room with nobody. `face` is the person
    seen, `voice` the one heard (None: nobody). `bed` is the share of music or noise under a voice, 0 for none.
    """

    index: int
    start: int
    end: int
    label: Label
    picture: Picture
    sound: Sound
    face: int | None
    voice: int | None
    bed: float


class Timeline:
    """The segments of one room, in blocks of a minute that are made when somebody asks. Neighbours never have the
    same label."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._block = lru_cache(maxsize=4)(self._make)

    def at(self, instant: int) -> Segment:
        """The segment that covers `instant` (ns, not negative)."""
        if instant < 0:
            raise ValueError(f"expected an instant from 0 on, found {instant}")
        block = self._block(instant // _BLOCK)
        return block[bisect_right(block, instant, key=lambda s: s.start) - 1]

    def between(self, start: int, end: int) -> list[Segment]:
        """All segments that start in `[start, end)`."""
        blocks = range(max(start, 0) // _BLOCK, -(-end // _BLOCK))
        return [s for b in blocks for s in self._block(b) if start <= s.start < end]

    def _make(self, block: int) -> tuple[Segment, ...]:
        made: list[Segment] = []
        start, end = block * _BLOCK, (block + 1) * _BLOCK
        follows = self._first(block + 1)
        while start < end:
            index = block * _MOST + len(made)
            draw = np.random.default_rng([self._seed, 1, index])
            length = int(draw.integers(200, 601)) * _GRID
            if end - start <= 6 * SECOND:
                length = end - start
            elif end - start <= 8 * SECOND:
                length = (end - start) // 2
            if made:
                last = start + length == end
                open_ = [x for x in LABELS if x != made[-1].label and not (last and x == follows)]
                label = open_[draw.integers(len(open_))]
            else:
                label = self._first(block)
            made.append(_segment(index, start, start + length, label, draw))
            start += length
        return tuple(made)

    def _first(self, block: int) -> Label:
        return LABELS[np.random.default_rng([self._seed, 9, block]).integers(len(LABELS))]


def _segment(index: int, start: int, end: int, label: Label, draw: np.random.Generator) -> Segment:
    picture = _PICTURES[draw.choice(len(_PICTURES), p=_SHARES)]
    seen, heard = (int(p) for p in draw.permutation(PEOPLE)[:2])
    sound: Sound = "music" if draw.random() < 0.5 else "noise"
    bed = float(draw.uniform(0.05, 0.25)) if draw.random() < 0.35 else 0.0
    voice: int | None = None
    match label:
        case "silence":
            sound, bed = "silence", 0.0
        case "other sound":
            bed = 0.0
        case "voice off screen":
            sound, voice = "voice", heard
        case "speaker on screen":
            sound, picture, voice = "voice", "talker", seen
    return Segment(index, start, end, label, picture, sound, None if picture == "empty" else seen, voice, bed)
