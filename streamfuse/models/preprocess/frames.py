"""Images as frames of one size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from streamfuse.models.batch import Items
from streamfuse.models.decode import Decoded
from streamfuse.models.preprocess import PREPROCESSORS, Remember, first_of_each, identity
from streamfuse.types import SECOND, Image, Packet


@PREPROCESSORS.register("frames")
class Frames:
    """Images as `(frames, height, width, 3)` uint8 in RGB order, or without `colour` `(frames, height, width)` grey.

    The whole picture is brought to this size, whatever its shape. At most `fps` frames a second are used, chosen by event time, so that
    overlapping windows choose the same ones; the last `max_seconds` of a long window count.
    """

    modality = "image"

    def __init__(
        self,
        height: int = 112,
        width: int = 112,
        colour: bool = True,
        fps: float = 8,
        seconds: float = 1.0,
        max_seconds: float = 10.0,
    ) -> None:
        if height < 1 or width < 1 or fps <= 0:
            raise ValueError(f"expected a size and fps greater than 0, found {height} x {width} at {fps}")
        self.size, self.colour = (height, width), colour
        # A picture is often wider than high, and decoding may not leave it lower than we need it.
        self.min_width = 2 * max(height, width)
        self.spacing, self.longest = round(SECOND / fps), round(max_seconds * SECOND)
        self.frames = round(seconds * fps) + 1  # a window begins between two of its frames

    def reduce(self, decoded: Decoded) -> NDArray[np.uint8]:
        assert isinstance(decoded, Image)
        pixels = cv2.cvtColor(decoded.pixels, cv2.COLOR_BGR2RGB if self.colour else cv2.COLOR_BGR2GRAY)
        return np.asarray(cv2.resize(pixels, self.size[::-1], interpolation=cv2.INTER_AREA), np.uint8)

    def prepare(self, start: int, end: int, packets: Sequence[tuple[Packet, Any]], remember: Remember[Any]) -> Items:
        packets = [(p, pixels) for p, pixels in packets if p.event_time >= end - self.longest]
        chosen = [packets[i] for i in first_of_each([p.event_time for p, _ in packets], self.spacing)]
        data = np.stack([pixels for _, pixels in chosen]) if chosen else self.empty().data[:0]
        time = np.array([(p.event_time - end) / SECOND for p, _ in chosen], np.float32)
        return Items(data, time, np.ones(len(chosen), np.bool_), [identity(p) for p, _ in chosen])

    def empty(self) -> Items:
        n, shape = self.frames, (*self.size, 3) if self.colour else self.size
        return Items(np.zeros((n, *shape), np.uint8), np.zeros(n, np.float32), np.zeros(n, np.bool_))
