"""One row of numbers a packet, of the last packets of a window: what texts and features have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from streamfuse.models.batch import Items
from streamfuse.models.preprocess import identity
from streamfuse.types import SECOND, Packet


def last_rows(start: int, end: int, packets: Sequence[tuple[Packet, Any]], empty: Items) -> Items:
    """The packets' reduced payloads as items, the last ones, as many as `empty` has. What began before the window counts from its
    start."""
    last = packets[-len(empty.mask) :]
    data = np.stack([row for _, row in last]) if last else empty.data[:0]
    time = np.array([(max(p.event_time, start) - end) / SECOND for p, _ in last], np.float32)
    return Items(data, time, np.ones(len(last), np.bool_), [identity(p) for p, _ in last])


def no_rows(count: int, length: int, dtype: type[np.generic]) -> Items:
    """`count` absent rows of `length` numbers. Raises `ValueError`."""
    if count < 1 or length < 1:
        raise ValueError(f"expected at least one row of at least one number, found {count} of {length}")
    return Items(np.zeros((count, length), dtype), np.zeros(count, np.float32), np.zeros(count, np.bool_))
