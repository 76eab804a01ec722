"""What is remembered of rows that were read once: enough to judge a data set without keeping it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamfuse.errors import DataError, Problem
from streamfuse.models.batch import Items
from streamfuse.training.samples import Samples


@dataclass(frozen=True, slots=True)
class Seen:
    """What is remembered of one stream of a row."""

    digest: bytes
    items: int
    extent: float
    """Seconds from its first item to the window's end; 0 for single items."""
    finite: bool


@dataclass(frozen=True, slots=True)
class SeenRow:
    streams: Mapping[str, Seen] = field(default_factory=dict)
    error: Sequence[Problem] = ()


@dataclass(slots=True)
class Range:
    """Least and greatest of each feature so far."""

    least: NDArray[Any]
    greatest: NDArray[Any]


def look(samples: Samples, row: int, ranges: dict[str, Range]) -> SeenRow:
    """Reads a row; widens the ranges of its streams of floats."""
    try:
        read = samples.read(row)
    except DataError as error:
        return SeenRow(error=error.problems)
    seen = {}
    for stream, items in read.items():
        if items.mask.any():
            seen[stream] = _see(items)
            if np.issubdtype(items.data.dtype, np.floating):
                _widen(ranges, stream, items.data[items.mask])
    return SeenRow(seen)


def _see(items: Items) -> Seen:
    data, time = np.ascontiguousarray(items.data[items.mask]), items.time[items.mask]
    total = hashlib.blake2b(data.tobytes(), digest_size=16)
    total.update(np.rint(time * 1000).astype(np.int64).tobytes())
    finite = not np.issubdtype(data.dtype, np.floating) or bool(np.isfinite(data).all())
    return Seen(total.digest(), len(time), float(-time.min()) if len(time) > 1 else 0.0, finite)


def contents_of(traces: Sequence[SeenRow]) -> str:
    """`blake2b:...` over what all rows hold."""
    total = hashlib.blake2b(digest_size=32)
    for trace in traces:
        total.update(b"".join(stream.encode() + seen.digest for stream, seen in sorted(trace.streams.items())) + b"\n")
    return f"blake2b:{total.hexdigest()}"


def _widen(ranges: dict[str, Range], stream: str, data: NDArray[Any]) -> None:
    least, greatest = data.min(0), data.max(0)
    if stream in ranges:
        so_far = ranges[stream]
        so_far.least, so_far.greatest = np.minimum(so_far.least, least), np.maximum(so_far.greatest, greatest)
    else:
        ranges[stream] = Range(least, greatest)


def constant_features(span: Range | None) -> list[int]:
    """Numbers of the features that are the same in all rows."""
    return [] if span is None or not span.least.ndim else np.flatnonzero(span.least.ravel() == span.greatest.ravel()).tolist()
