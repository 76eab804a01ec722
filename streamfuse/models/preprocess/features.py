"""Features that were computed elsewhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamfuse.errors import UndecodablePayload
from streamfuse.models.batch import Items
from streamfuse.models.decode import Decoded
from streamfuse.models.preprocess import PREPROCESSORS, Remember, identity
from streamfuse.types import SECOND, Packet


@PREPROCESSORS.register("features")
class Features:
    """Rows of `size` numbers: `(rows, size)` float32; of more than `most` rows the last ones count. A packet is a row, as a text
    that is a JSON list."""

    modality = "text"
    min_width = 0

    def __init__(self, size: int, most: int = 1) -> None:
        if size < 1 or most < 1:
            raise ValueError(f"expected a size and most of at least 1, found {size} and {most}")
        self.size, self.most = size, most

    def reduce(self, decoded: Decoded) -> NDArray[np.float32]:
        try:
            with np.errstate(over="ignore"):
                row = np.asarray(json.loads(str(decoded)), np.float32)
        except (ValueError, TypeError, RecursionError, OverflowError):
            row = np.empty(0, np.float32)
        if row.shape != (self.size,) or not np.isfinite(row).all():
            raise UndecodablePayload(f"expected a JSON list of {self.size} finite numbers, found {str(decoded)[:60]!r}; send one a packet")
        return row

    def prepare(self, start: int, end: int, packets: Sequence[tuple[Packet, Any]], remember: Remember[Any]) -> Items:
        last = packets[-self.most :]
        data = np.stack([row for _, row in last]) if last else np.zeros((0, self.size), np.float32)
        time = np.array([(p.event_time - end) / SECOND for p, _ in last], np.float32)
        return Items(data, time, np.ones(len(last), np.bool_), [identity(p) for p, _ in last])

    def empty(self) -> Items:
        n = self.most
        return Items(np.zeros((n, self.size), np.float32), np.zeros(n, np.float32), np.zeros(n, np.bool_))
