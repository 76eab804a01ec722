"""Features that were computed elsewhere, and readings of sensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamfuse.errors import UndecodablePayload
from streamfuse.models.batch import Items
from streamfuse.models.decode import Decoded
from streamfuse.models.preprocess import PREPROCESSORS, Remember
from streamfuse.models.preprocess.last_rows import last_rows, no_rows
from streamfuse.types import Packet


@PREPROCESSORS.register("features")
class Features:
    """Rows of `size` numbers, one a packet: `(rows, size)` float32; of more than `most` rows the last ones count."""

    modality = "features"
    min_width = 0

    def __init__(self, size: int, most: int = 1) -> None:
        self.size = size
        self._empty = no_rows(most, size, np.float32)

    def reduce(self, decoded: Decoded) -> NDArray[np.float32]:
        """Raises `UndecodablePayload` for a row of another length."""
        assert isinstance(decoded, np.ndarray)
        if len(decoded) != self.size:
            raise UndecodablePayload(f"expected a row of {self.size} numbers, found {len(decoded)}; send what the model was trained on")
        return decoded

    def prepare(self, start: int, end: int, packets: Sequence[tuple[Packet, Any]], remember: Remember[Any]) -> Items:
        return last_rows(start, end, packets, self._empty)

    def empty(self) -> Items:
        return self._empty
