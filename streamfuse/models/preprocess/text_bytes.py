"""Text as bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamfuse.models.batch import Items
from streamfuse.models.decode import Decoded
from streamfuse.models.preprocess import PREPROCESSORS, Remember
from streamfuse.models.preprocess.last_rows import last_rows, no_rows
from streamfuse.types import Packet


@PREPROCESSORS.register("text_bytes")
class TextBytes:
    """Text as its UTF-8 bytes: `(texts, length)` uint8, cut or filled with zeros; of more than `most` texts the last
    ones count."""

    modality = "text"
    min_width = 0
    vocabulary = 256

    def __init__(self, length: int = 128, most: int = 4) -> None:
        self.length = length
        self._empty = no_rows(most, length, np.uint8)

    def reduce(self, decoded: Decoded) -> NDArray[np.uint8]:
        assert isinstance(decoded, str)
        raw = decoded.strip().encode()[: self.length]
        return np.frombuffer(raw.ljust(self.length, b"\0"), np.uint8)

    def words(self, row: NDArray[np.integer]) -> str:
        """What such a row says."""
        return bytes(byte for byte in row.tolist() if 0 < byte < self.vocabulary).decode("utf-8", "replace")

    def prepare(self, start: int, end: int, packets: Sequence[tuple[Packet, Any]], remember: Remember[Any]) -> Items:
        return last_rows(start, end, packets, self._empty)

    def empty(self) -> Items:
        return self._empty
