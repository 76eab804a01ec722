"""A room made from a seed: its picture, sound, captions and truth, at any instant and in any order."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from streamfuse.simulation import espeak, scenes, sounds
from streamfuse.simulation.faces import Person, Pose, paint
from streamfuse.simulation.speech import Caption, Speech, speech
from streamfuse.simulation.timeline import PEOPLE, Label, Segment, Timeline
from streamfuse.types import SECOND

__all__ = ["Caption", "Room"]

_CAPTIONED = 0.6
"""Share of the voiced segments that have captions."""


class Room:
    """One room. All times are ns from its first instant, which is 0; it has no last one.

    Every answer depends on the arguments of the constructor and of the call alone. Asking in the order of time is
    cheap, since the last few segments are kept; asking elsewhere costs what drawing a segment's scene and sound anew
    costs (some 50 ms). Not for two threads at once.
    """

    def __init__(
        self,
        seed: int,
        *,
        width: int = 320,
        height: int = 240,
        fps: float = 15.0,
        rate: int = 16_000,
        use_espeak: bool = False,
    ) -> None:
        if width < 64 or height < 64 or fps <= 0 or rate < 4000:
            raise ValueError(
                f"expected a picture of at least 64x64, fps above 0 and a rate from 4000 on, found {width}x{height}, {fps} and {rate}"
            )
        self.seed, self.width, self.height, self.fps, self.rate = seed, width, height, fps, rate
        self.people = tuple(Person.draw(np.random.default_rng([seed, 2, p])) for p in range(PEOPLE))
        self._program = espeak.find() if use_espeak else None
        self._timeline = Timeline(seed)
        self._grain = scenes.grain(width, height, float(self._draw(3).uniform(1.5, 4.0)), self._draw(4))
        self._scene = lru_cache(maxsize=3)(self._make_scene)
        self._speech = lru_cache(maxsize=3)(self._make_speech)
        self._sounding = lru_cache(maxsize=3)(self._make_sound)

    def segments(self, until: int, since: int = 0) -> list[Segment]:
        """All segments that start in `[since, until)`, in order."""
        return self._timeline.between(since, until)

    def truth(self, instant: int) -> Label:
        """What is going on at `instant`."""
        return self._timeline.at(instant).label

    def frame_time(self, index: int) -> int:
        """The instant of frame `index`."""
        return round(index * SECOND / self.fps)

    def frame(self, index: int) -> NDArray[np.uint8]:
        """Frame `index`: `(height, width, 3)` uint8, BGR."""
        return self.picture(self.frame_time(index), index)

    def picture(self, instant: int, index: int = 0) -> NDArray[np.uint8]:
        """The picture at `instant`; `index` picks the sensor noise."""
        segment = self._timeline.at(instant)
        scene = self._scene(segment)
        if segment.picture == "frozen":
            return scene.still.copy()
        seconds = (instant - segment.start) / SECOND
        image = scene.background.copy()
        if scene.passer is not None:
            scenes.passer(image, seconds + scene.phases[0], scene.passer, 0.15)
        if segment.face is not None:
            self._paint(image, segment, scene, seconds if segment.picture == "talker" else 0.0)
        noisy = cv2.subtract(cv2.add(image, self._grain[index % len(self._grain)]), self._grain[(3 * index + 1) % len(self._grain)])
        return np.asarray(noisy, np.uint8)

    def sound(self, start: int, length: int) -> NDArray[np.int16]:
        """Samples `[start, start + length)`, counted from the room's first instant."""
        if start < 0 or length < 0:
            raise ValueError(f"expected samples from 0 on, found start {start} and length {length}")
        out = np.zeros(length, np.int16)
        at = start
        while at < start + length:
            segment = self._timeline.at(-(-at * SECOND // self.rate))
            first, last = self._samples(segment)
            end = min(last, start + length)
            out[at - start : end - start] = self._sounding(segment)[at - first : end - first]
            at = end
        return out

    def captions(self, until: int, since: int = 0) -> list[Caption]:
        """The captions of the segments that start in `[since, until)`, in order. Only a share of the voiced ones has
        any."""
        return [c for s in self.segments(until, since) for c in self.captions_of(s)]

    def captions_of(self, segment: Segment) -> list[Caption]:
        """The captions of one segment."""
        if segment.voice is None or self._draw(5, segment.index).random() >= _CAPTIONED:
            return []
        return [Caption(segment.start + c.start, c.duration, c.text) for c in self._speech(segment).captions]

    def mouth(self, instant: int) -> float:
        """How far the mouth of the face in the picture is open: 0 is shut, and nobody's."""
        segment = self._timeline.at(instant)
        if segment.face is None:
            return 0.0
        return self._pose(segment, self._scene(segment), (instant - segment.start) / SECOND).mouth

    def _draw(self, *of: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *of])

    def _samples(self, segment: Segment) -> tuple[int, int]:
        return -(-segment.start * self.rate // SECOND), -(-segment.end * self.rate // SECOND)

    def _make_speech(self, segment: Segment) -> Speech:
        first, last = self._samples(segment)
        assert segment.voice is not None
        return speech(self.people[segment.voice], last - first, self.rate, self._program, self._draw(6, segment.index))

    def _make_sound(self, segment: Segment) -> NDArray[np.int16]:
        first, last = self._samples(segment)
        length, draw = last - first, self._draw(7, segment.index)
        made = sounds.floor(length, self.rate, draw)
        if segment.sound == "music":
            made = made + sounds.music(length, self.rate, draw)
        elif segment.sound == "noise":
            made = made + sounds.noise(length, self.rate, draw)
        elif segment.sound == "voice":
            spoken = self._speech(segment).sound * np.float32(draw.uniform(0.3, 1.5))
            made = made + spoken
            if segment.bed:
                kind = sounds.music if draw.random() < 0.6 else sounds.noise
                bed = kind(length, self.rate, draw)
                made = made + bed * np.float32(segment.bed * _rms(spoken) / max(_rms(bed), 1e-6))
        return np.asarray(np.clip(made * 32767, -32768, 32767), np.int16)

    def _make_scene(self, segment: Segment) -> _Scene:
        draw = self._draw(8, segment.index)
        background = scenes.wall(self.width, self.height, draw)
        size = float(draw.uniform(0.3, 0.42)) * min(self.height, self.width * 0.75)
        scene = _Scene(
            background=background,
            still=background,
            passer=tuple(draw.uniform(30, 220, 3)) if draw.random() < 0.3 else None,
            size=size,
            x=float(self.width / 2 + draw.uniform(-0.5, 0.5) * (self.width - 1.6 * size)),
            y=float(0.46 * self.height + draw.uniform(-0.1, 0.1) * size),
            detail=max(24, round(size * 1.15)),
            phases=draw.uniform(0, 6, 8),
            swing=float(draw.uniform(0.3, 1.0)),
            blinks=np.cumsum(draw.uniform(0.8, 4.0, 12)),
            held=float(draw.uniform(0.2, 0.9) if draw.random() < 0.5 else 0.0),
            opening=self._speech(segment).opening if segment.label == "speaker on screen" else None,
        )
        if segment.picture == "portrait":
            scenes.frame_around(background, scene.x, scene.y, size)
        if segment.picture == "frozen":
            scene.still = background.copy()
            self._paint(scene.still, segment, scene, 0.0)
            scene.still = np.asarray(cv2.add(scene.still, self._grain[segment.index % len(self._grain)]), np.uint8)
        return scene

    def _paint(self, image: NDArray[np.uint8], segment: Segment, scene: _Scene, seconds: float) -> None:
        assert segment.face is not None
        pose = self._pose(segment, scene, seconds)
        if segment.picture == "portrait":
            left, top = max(0, round(scene.x - 0.88 * scene.size)), max(0, round(scene.y - 0.93 * scene.size))
            inside = image[top : round(scene.y + 1.18 * scene.size), left : round(scene.x + 0.88 * scene.size)]
            part = inside.copy()
            shifted = Pose(pose.x - left, pose.y - top, pose.size, pose.roll, pose.mouth, 0.0, pose.brows, pose.gaze)
            paint(part, self.people[segment.face], shifted, scene.detail)
            inside[:] = part
        else:
            paint(image, self.people[segment.face], pose, scene.detail)

    def _pose(self, segment: Segment, scene: _Scene, seconds: float) -> Pose:
        if segment.picture != "talker":
            seconds = 0.0
        wave = np.sin(np.array([1.1, 0.53, 1.7, 0.41, 0.9, 0.31, 1.3, 0.7]) * 2 * np.pi * seconds * 0.6 + scene.phases) * scene.swing
        mouth = 0.0
        if scene.opening is not None:
            mouth = float(np.interp(seconds * 100, np.arange(len(scene.opening)) + 0.5, scene.opening))
        elif segment.picture != "talker":
            mouth = scene.held
        since = seconds - scene.blinks
        lids = float(np.clip(1 - np.abs(since - 0.09) / 0.09, 0, 1).max()) if segment.picture == "talker" else 0.0
        return Pose(
            x=scene.x + scene.size * 0.06 * float(wave[0] + 0.6 * wave[1]),
            y=scene.y + scene.size * 0.035 * float(wave[2] + 0.6 * wave[3]),
            size=scene.size * (1 + 0.025 * float(wave[4])),
            roll=3.0 * float(wave[5]),
            mouth=mouth,
            lids=lids,
            brows=float(wave[6]),
            gaze=float(wave[7]),
        )


@dataclass(slots=True, eq=False)
class _Scene:
    """What stays the same over one segment's pictures. `held` is how far a still face's mouth is open, `opening` a
    talker's every 10 ms."""

    background: NDArray[np.uint8]
    still: NDArray[np.uint8]
    passer: tuple[float, float, float] | None
    size: float
    x: float
    y: float
    detail: int
    phases: NDArray[np.float64]
    swing: float
    blinks: NDArray[np.float64]
    held: float
    opening: NDArray[np.float32] | None


def _rms(sound: NDArray[np.float32]) -> float:
    return float(np.sqrt(np.mean(sound**2))) if len(sound) else 0.0
