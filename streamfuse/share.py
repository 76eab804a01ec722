"""Which share of what came lately was of no use: pure counting, with time passed in."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

RESOLUTION = 60  # so many samples are kept of the time that is looked back on


class Share(NamedTuple):
    refused: int
    received: int


class ShareLimit:
    """Looks back over a time of `over` and says when more than `most` of what was received in it was refused.

    It says nothing of fewer than `least` records. A `most` of 1 or more switches it off. It looks back to the last sample that is `over`
    old or older; samples are kept a 60th of `over` apart, so that its memory is bounded.
    """

    def __init__(self, most: float, over: int, least: int) -> None:
        self.most = most
        self.over = over
        self.least = least
        self._samples: deque[tuple[int, Share]] = deque()

    def note(self, now: int, received: int, refused: int) -> Share | None:
        """`received` and `refused` are counts since the beginning, `now` a time that never goes back. Gives the share where it is too
        great. The more often it is called, the less the time that is looked back on exceeds `over`."""
        samples = self._samples
        sample = now, Share(refused, received)
        if not samples:
            samples.append((now, Share(0, 0)))  # what came before the first look is of the time before it, however short
        if len(samples) > 2 and now - samples[-2][0] < self.over // RESOLUTION:
            samples[-1] = sample
        else:
            samples.append(sample)
        while len(samples) > 1 and samples[1][0] <= now - self.over:
            samples.popleft()
        before = samples[0][1]
        lately = Share(refused - before.refused, received - before.received)
        if self.most < 1 and lately.received >= self.least and lately.refused > self.most * lately.received:
            return lately
        return None
