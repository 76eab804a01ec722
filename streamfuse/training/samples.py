"""Data sets: what training and evaluation read, whatever it comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamfuse.models.batch import Items, Modality, collate
from streamfuse.models.fusion_model import FusionModel
from streamfuse.models.parts import Registry


class Samples(Protocol):
    """Rows, each one window with what is true of it. Rows are read one at a time, by several threads at once.

    Where rows of one group (a talker, a room) stand on both sides of a split, a model is judged on what it knows by heart.
    """

    @property
    def inputs(self) -> Mapping[str, Mapping[str, Any]]:
        """Stream -> its preprocessing, as a bundle's config has it, so that serving prepares windows as they were here."""
        ...

    @property
    def empty(self) -> Mapping[str, Items]:
        """Stream -> nothing of it, in the usual shape."""
        ...

    @property
    def heads(self) -> Mapping[str, Mapping[str, Any]]:
        """Task -> the head that answers it: `type`, and its labels or targets, as an architecture has it."""
        ...

    @property
    def targets(self) -> Mapping[str, NDArray[np.generic]]:
        """Task -> what is true of each row: `(rows,)` int64 class numbers, -1 where unknown, or `(rows, names)` float32, NaN
        where unknown."""
        ...

    @property
    def groups(self) -> Sequence[str]:
        """Of each row; empty where it has none."""
        ...

    @property
    def parts(self) -> Sequence[str]:
        """`train`, `validation` or `test` of each row, where the data says; otherwise empty."""
        ...

    @property
    def names(self) -> Sequence[str]:
        """Of each row, so that a person finds it again."""
        ...

    def read(self, row: int) -> Mapping[str, Items]:
        """What the row has of each stream, prepared; a stream that it lacks is left out. May decode media, and raises `DataError`
        where it can't."""
        ...


DATA: Registry[Samples] = Registry("data set", "streamfuse.data", "streamfuse.training.data")


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """`Samples` put together from columns and what reads one row."""

    inputs: Mapping[str, Mapping[str, Any]]
    empty: Mapping[str, Items]
    heads: Mapping[str, Mapping[str, Any]]
    targets: Mapping[str, NDArray[np.generic]]
    names: Sequence[str]
    reader: Callable[[int], Mapping[str, Items]]
    groups: Sequence[str] = field(default=())
    parts: Sequence[str] = field(default=())

    def read(self, row: int) -> Mapping[str, Items]:
        return self.reader(row)


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Rows as padded tensors, with their targets. `rows` are their numbers."""

    inputs: Mapping[str, Modality]
    targets: Mapping[str, Tensor]
    rows: Sequence[int]

    def to(self, device: torch.device) -> Batch:
        inputs = {stream: part.to(device) for stream, part in self.inputs.items()}
        return Batch(inputs, {task: target.to(device) for task, target in self.targets.items()}, self.rows)


def make_batch(samples: Samples, rows: Sequence[int]) -> Batch:
    targets = {task: torch.from_numpy(target[list(rows)]) for task, target in samples.targets.items()}
    return Batch(collate([samples.read(row) for row in rows], samples.empty), targets, rows)


def batches(samples: Samples, rows: Sequence[int], size: int) -> Iterator[Batch]:
    """All of these rows, in their order."""
    for at in range(0, len(rows), size):
        yield make_batch(samples, rows[at : at + size])


def hide(parts: Mapping[str, Modality], hidden: Tensor, streams: Sequence[str]) -> dict[str, Modality]:
    """Inputs or tokens with streams masked out where `hidden`, `(batch, streams)` bool, says so."""
    return {s: parts[s]._replace(mask=parts[s].mask & ~hidden[:, i, None]) for i, s in enumerate(streams)}


def answers(model: FusionModel, batch: Batch, shown: Sequence[str] | None = None) -> dict[str, Tensor]:
    """Task -> what the model says of it, `(batch, names)` as its head reads it, with only these streams shown."""
    with torch.inference_mode():
        inputs = {s: part for s, part in batch.inputs.items() if shown is None or s in shown}
        if not inputs:
            some = model.streams[0]
            inputs = {some: batch.inputs[some]._replace(mask=torch.zeros_like(batch.inputs[some].mask))}
        return {task: model.head(task).read(outputs) for task, outputs in model(inputs).items()}
