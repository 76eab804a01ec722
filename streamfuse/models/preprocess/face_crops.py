"""Images as crops of a face."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamfuse.models.batch import Items
from streamfuse.models.decode import Decoded
from streamfuse.models.faces import FaceFinder, face_crops
from streamfuse.models.preprocess import PREPROCESSORS, Remember, first_of_each
from streamfuse.types import MILLISECOND, SECOND, Image, Packet


@PREPROCESSORS.register("face_crops")
class FaceCrops:
    """Images as crops of the face that speaks most likely: `(frames, size, size)` uint8, steadied; zeros in a frame
    without a face.

    At most `fps` frames a second are used and a face is looked for every `detect_every_ms`; both by event time, so
    that overlapping windows choose the same frames. `max_faces` bounds the cost in a crowd, `max_seconds`
    (those before the end count) that of a long window.
    """

    modality = "image"

    def __init__(
        self,
        size: int = 48,
        fps: float = 16,
        detect_every_ms: int = 250,
        width: int = 320,
        max_faces: int = 2,
        seconds: float = 1.0,
        max_seconds: float = 10.0,
    ) -> None:
        self.size, self.spacing, self.min_width, self.max_faces = size, round(SECOND / fps), width, max_faces
        self.detect_every = detect_every_ms * MILLISECOND
        self.longest = round(max_seconds * SECOND)
        self.frames = round(seconds * fps) + 1  # a window begins between two of its frames
        self._finder = FaceFinder()

    def reduce(self, decoded: Decoded) -> NDArray[np.uint8]:
        assert isinstance(decoded, Image)
        return self._finder.shrink(decoded.pixels, self.min_width)

    def prepare(self, start: int, end: int, packets: Sequence[tuple[Packet, Any]], remember: Remember[Any]) -> Items:
        packets = [(p, grey) for p, grey in packets if p.event_time >= end - self.longest]
        chosen = [packets[i] for i in first_of_each([p.event_time for p, _ in packets], self.spacing)]
        looked = first_of_each([p.event_time for p, _ in chosen], self.detect_every)
        found = {i: remember(chosen[i][0], "faces", partial(self._finder.find, chosen[i][1])) for i in looked}
        data = face_crops([grey for _, grey in chosen], found, self.size, self.max_faces)
        time = np.array([(p.event_time - end) / SECOND for p, _ in chosen], np.float32)
        return Items(data, time, np.ones(len(chosen), np.bool_))

    def empty(self) -> Items:
        n = self.frames
        return Items(np.zeros((n, self.size, self.size), np.uint8), np.zeros(n, np.float32), np.zeros(n, np.bool_))
