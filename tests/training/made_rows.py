"""Rows made in memory, for tests of what reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamfuse.models.batch import Items
from streamfuse.training.samples import Rows


def items(values: Any, dtype: Any = np.float32) -> Items:
    """One item a row of `values`, one second apart, the last at the end."""
    data = np.asarray(values, dtype)
    return Items(data, np.arange(1 - len(data), 1, dtype=np.float32), np.ones(len(data), np.bool_))


def made_rows(
    labels: Sequence[int],
    streams: Mapping[str, Sequence[Items | None]] | None = None,
    groups: Sequence[str] = (),
    parts: Sequence[str] = (),
    names: Sequence[str] = ("no", "yes"),
    targets: Mapping[str, NDArray[np.generic]] | None = None,
) -> Rows:
    """Rows of one task with classes; a stream `x` of one number that differs in each row where none is given."""
    given = streams if streams is not None else {"x": [items([[float(row)]]) for row in range(len(labels))]}
    empty = {stream: next(one for one in column if one is not None) for stream, column in given.items()}

    def read(row: int) -> dict[str, Items]:
        return {stream: one for stream, column in given.items() if (one := column[row]) is not None}

    return Rows(
        inputs={stream: {"type": "text_bytes"} for stream in given},
        empty={s: Items(np.zeros_like(e.data), np.zeros_like(e.time), np.zeros_like(e.mask)) for s, e in empty.items()},
        heads={"label": {"type": "classification", "labels": list(names)}},
        targets=targets if targets is not None else {"label": np.asarray(labels, np.int64)},
        names=[f"row {row}" for row in range(len(labels))],
        reader=read,
        groups=groups,
        parts=parts,
    )
