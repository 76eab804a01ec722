"""What a model is worth between modalities, in numbers for a report: recall@k of what it finds, errors of what it writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from streamfuse.models.fusion_model import FusionModel
from streamfuse.training.crossmodal import cross, retrieval
from streamfuse.training.samples import Samples


@dataclass(frozen=True, slots=True)
class Crossing:
    """`what` is said as `text found by image`. `chance`: what an order by chance would come to, where that is known."""

    what: str
    measure: str
    value: float
    rows: int
    chance: float | None = None


def crossings(model: FusionModel, samples: Samples, rows: Sequence[int]) -> list[Crossing]:
    """None for a model that has no part between modalities. Reads each row once more."""
    if model.crossmodal is None:
        return []
    device = next(model.parameters()).device
    try:
        return list(_crossings(model.cpu(), samples, rows))
    finally:
        model.to(device)


def mean_crossings(seeds: Sequence[Sequence[Crossing]]) -> Iterator[Crossing]:
    """Over seeds, of what all of them have."""
    for same in zip(*seeds, strict=False):
        yield replace(same[0], value=float(np.mean([one.value for one in same])))


def _crossings(model: FusionModel, samples: Samples, rows: Sequence[int]) -> Iterator[Crossing]:
    crossed = cross(model, samples, rows)
    for found in retrieval(crossed):
        for k, recall in found.recall.items():
            yield Crossing(f"{found.gallery} found by {found.query}", f"recall@{k}", recall, found.queries, found.chance[k])
    for written in crossed.written:
        for measure, values in written.measures.items():
            if len(values):
                what = f"{written.stream} written from {' + '.join(written.given)}"
                yield Crossing(what, measure, float(np.mean(values)), len(written.rows))
