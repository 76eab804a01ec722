"""What a model is worth between modalities: what is found by what, and how good is what it writes, on the rows of a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from streamfuse.models.crossmodal import newest
from streamfuse.models.fusion_model import FusionModel
from streamfuse.training.metrics import recall_at
from streamfuse.training.samples import Samples, batches

COUNTS = (1, 5, 10)
BATCH = 64


@dataclass(frozen=True, slots=True, eq=False)
class Written:
    """A stream that was written from some of the others, of the rows that have it and any of them."""

    stream: str
    given: tuple[str, ...]
    rows: NDArray[np.int64]
    items: NDArray[Any]  # (rows, ...)
    measures: Mapping[str, NDArray[np.float64]]  # (rows,) each


@dataclass(frozen=True, slots=True, eq=False)
class Crossed:
    """What a model made of rows. `places` are theirs in the common space, none without a retrieval; `present` says where a row has the
    stream."""

    names: Sequence[str]
    present: Mapping[str, NDArray[np.bool_]]  # (rows,)
    places: Mapping[str, NDArray[np.float32]]  # (rows, size), of length 1
    wanted: Mapping[str, NDArray[Any]]  # (rows, ...) of each stream that was written, as it really is
    written: Sequence[Written]


@torch.inference_mode()
def cross(model: FusionModel, samples: Samples, rows: Sequence[int]) -> Crossed:
    """Reads and encodes each row once, and writes each stream that has a decoder from each other stream alone and from all of them.

    Raises ValueError for a model that has no part between modalities, and what reading the rows raises.
    """
    part = model.crossmodal
    if part is None:
        raise ValueError("expected a model with `crossmodal` in its architecture, found none")
    asked = [(stream, given) for stream in part.written for given in _given(stream, model.streams)]
    found: dict[Any, list[NDArray[Any]]] = {}
    device = next(model.parameters()).device
    for read in batches(samples, rows, BATCH):
        batch = read.to(device)
        tokens = {stream: model.encode(stream, batch.inputs[stream])[0] for stream in model.streams}
        for stream in model.streams:
            found.setdefault(("present", stream), []).append(batch.inputs[stream].present.cpu().numpy())
        for stream, places in (part.retrieval(tokens) if part.retrieval else {}).items():
            found.setdefault(("place", stream), []).append(places.cpu().numpy())
        wanted = {stream: newest(batch.inputs[stream]) for stream in part.written}
        for stream in part.written:
            found.setdefault(("wanted", stream), []).append(wanted[stream].cpu().numpy())
        for stream, given in asked:
            hidden = {s: tokens[s]._replace(mask=tokens[s].mask & (s in given)) for s in model.streams}
            items = part.generate(stream, hidden)
            found.setdefault(("items", stream, given), []).append(items.cpu().numpy())
            for name, measure in part.decoders[stream].measures(items, wanted[stream]).items():  # type: ignore[operator]
                found.setdefault(("measure", stream, given, name), []).append(measure.cpu().numpy())
    whole = {key: np.concatenate(parts) for key, parts in found.items()}
    present = {stream: whole["present", stream] for stream in model.streams}
    written = []
    for stream, given in asked:
        there = np.flatnonzero(present[stream] & np.stack([present[s] for s in given]).any(0))
        measures = {key[3]: value[there] for key, value in whole.items() if key[:3] == ("measure", stream, given)}
        written.append(Written(stream, given, there, whole["items", stream, given][there], measures))
    return Crossed(
        names=[samples.names[row] for row in rows],
        present=present,
        places={key[1]: value for key, value in whole.items() if key[0] == "place"},
        wanted={stream: whole["wanted", stream] for stream in part.written},
        written=written,
    )


@dataclass(frozen=True, slots=True)
class Found:
    """One stream's rows looked for by another's: recall@k, and what an order by chance would come to."""

    query: str
    gallery: str
    queries: int
    recall: Mapping[int, float]
    chance: Mapping[int, float]


def retrieval(crossed: Crossed, values: NDArray[Any] | None = None) -> list[Found]:
    """For each pair of streams in both directions, over the rows that have both. What a query has to find is its own row, or, where
    `values`, `(rows,)`, are given, any row of the same value."""
    found = []
    for query in crossed.places:
        for gallery in crossed.places:
            rows = np.flatnonzero(crossed.present[query] & crossed.present[gallery])
            if query == gallery or not len(rows):
                continue
            same = np.eye(len(rows), dtype=np.bool_) if values is None else values[rows][:, None] == values[rows]
            similarity = crossed.places[query][rows].astype(np.float64) @ crossed.places[gallery][rows].T
            recall = {k: recall_at(similarity, k, same).value or 0.0 for k in COUNTS}
            found.append(Found(query, gallery, len(rows), recall, {k: _chance(same.sum(1), len(rows), k) for k in COUNTS}))
    return found


def nearest(queries: NDArray[np.float32], gallery: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """`(queries, count)`: which rows of the gallery lie closest in the common space, the closest first; fewer where it has fewer."""
    return np.asarray(np.argsort(-(queries @ gallery.T), 1, kind="stable")[:, :count], np.int64)


def _chance(correct: NDArray[np.int64], candidates: int, k: int) -> float:
    """That of `k` candidates in a drawn order one is correct, the mean over queries that have so many correct ones each."""
    drawn = np.arange(min(k, candidates))
    missed = np.clip(candidates - correct[:, None] - drawn, 0, None) / (candidates - drawn)
    return float(1 - missed.prod(1).mean())


def _given(stream: str, streams: Sequence[str]) -> list[tuple[str, ...]]:
    others = tuple(other for other in streams if other != stream)
    return [*((other,) for other in others), *([others] if len(others) > 1 else [])]
