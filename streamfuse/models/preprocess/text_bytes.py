"""Text as bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamfuse.models.batch import Items
from streamfuse.models.decode import Decoded
from streamfuse.models.preprocess import PREPROCESSORS, Remember, identity
from streamfuse.types import SECOND, Packet


@PREPROCESSORS.register("text_bytes")
class TextBytes:
    """Text as its UTF-8 bytes: `(texts, length)` uint8, cut or filled with zeros; of more than `most` texts the last
    ones count."""

    modality = "text"
    min_width = 0

    def __init__(self, length: int = 128, most: int = 4) -> None:
        self.length, self.most = length, most

    def reduce(self, decoded: Decoded) -> NDArray[np.uint8]:
        assert isinstance(decoded, str)
        raw = decoded.strip().encode()[: self.length]
        return np.frombuffer(raw.ljust(self.length, b"\0"), np.uint8)

    def prepare(self, start: int, end: int, packets: Sequence[tuple[Packet, Any]], remember: Remember[Any]) -> Items:
        last = packets[-self.most :]
        data = np.stack([raw for _, raw in last]) if last else np.zeros((0, self.length), np.uint8)
        time = np.array([(max(p.event_time, start) - end) / SECOND for p, _ in last], np.float32)
        return Items(data, time, np.ones(len(last), np.bool_), [identity(p) for p, _ in last])

    def empty(self) -> Items:
        n = self.most
        return Items(np.zeros((n, self.length), np.uint8), np.zeros(n, np.float32), np.zeros(n, np.bool_))
