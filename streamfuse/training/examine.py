"""Asks a model everything that a report tells, in one pass: each row is read and encoded once, and every subset of the
modalities is fused from those tokens. Only a modality under noise is encoded again, alone."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from torch import Tensor

from streamfuse.models.batch import Modality
from streamfuse.models.fusion_model import FusionModel
from streamfuse.models.heads import Kind
from streamfuse.models.shapley import subsets_of
from streamfuse.training.noise import Noise
from streamfuse.training.samples import Batch, Samples, make_batch

Answers = NDArray[np.float32]
LEVELS = (0.2, 0.4, 0.6, 0.8, 0.9, 1.0)
"""Of noise; 0 is what the model says without."""
MOST_STREAMS = 6
"""With more, not all subsets are asked for: those of one, of all but one, and the whole."""


@dataclass(frozen=True, slots=True)
class Task:
    name: str
    kind: Kind
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Examination:
    """What a model says of rows. `subsets` say which streams are shown, nothing first and everything last."""

    streams: tuple[str, ...]
    tasks: Mapping[str, Task]
    names: tuple[str, ...]  # of each row
    groups: tuple[str, ...]  # of each row, or none
    targets: Mapping[str, NDArray[Any]]
    present: NDArray[np.bool_]  # (rows, streams): what each row has
    subsets: tuple[tuple[bool, ...], ...]
    answers: Mapping[str, Answers]  # task -> (subsets, rows, names)
    levels: tuple[float, ...]
    noised: Mapping[str, Mapping[str, Answers]]  # stream -> task -> (levels, rows, names)
    weights: NDArray[np.float32] | None  # (rows, streams), where the fusion has them

    @property
    def is_whole(self) -> bool:
        """All subsets were asked for, so that Shapley values are exact."""
        return len(self.subsets) == 1 << len(self.streams)

    def said(self, task: str) -> Answers:
        """`(rows, names)`: with everything shown that a row has."""
        whole: Answers = self.answers[task][-1]
        return whole

    def number(self, shown: Sequence[str]) -> int:
        """Of the subset that shows these streams."""
        return self.subsets.index(tuple(stream in shown for stream in self.streams))


def examine(
    model: FusionModel,
    samples: Samples,
    rows: Sequence[int],
    *,
    noise: Noise | None = None,
    levels: Sequence[float] = LEVELS,
    subsets: bool = True,
    size: int = 64,
    title: str = "",
) -> Examination:
    """What the model, in evaluation mode, says of these rows; without `subsets` only with everything shown. A `title` draws a
    progress bar on a terminal. Raises `DataError` where a row can't be read."""
    tasks = {name: Task(name, model.head(name).kind, model.head(name).names) for name in model.tasks}
    asked = _asked(len(model.streams)) if subsets else [(True,) * len(model.streams)]
    device = next(model.parameters()).device
    chunks = [rows[at : at + size] for at in range(0, len(rows), size)]
    shown = title and sys.stderr.isatty()
    found = [
        _examine(model, make_batch(samples, chunk), device, asked, noise, levels)
        for chunk in track(chunks, title, console=Console(stderr=True), disable=not shown, transient=True)
    ]
    width = {name: len(task.names) for name, task in tasks.items()}
    return Examination(
        streams=model.streams,
        tasks=tasks,
        names=tuple(samples.names[row] for row in rows),
        groups=tuple(samples.groups[row] for row in rows) if samples.groups else (),
        targets={name: samples.targets[name][list(rows)] for name in tasks},
        present=_joined([part.present for part in found], 0, (0, len(model.streams)), bool),
        subsets=tuple(asked),
        answers={name: _joined([part.answers[name] for part in found], 1, (len(asked), 0, width[name])) for name in tasks},
        levels=tuple(levels) if noise is not None else (),
        noised={
            stream: {name: _joined([part.noised[stream][name] for part in found], 1, (len(levels), 0, width[name])) for name in tasks}
            for stream in (model.streams if noise is not None else ())
        },
        weights=_joined([part.weights for part in found if part.weights is not None], 0, (0, len(model.streams)))
        if found and found[0].weights is not None
        else None,
    )


def join(parts: Sequence[Examination]) -> Examination:
    """Those of different rows (the folds of a split) as one. All have the same streams, tasks and subsets."""
    first = parts[0]
    if len(parts) == 1:
        return first
    return Examination(
        streams=first.streams,
        tasks=first.tasks,
        names=tuple(itertools.chain.from_iterable(part.names for part in parts)),
        groups=tuple(itertools.chain.from_iterable(part.groups for part in parts)),
        targets={name: np.concatenate([part.targets[name] for part in parts]) for name in first.tasks},
        present=np.concatenate([part.present for part in parts]),
        subsets=first.subsets,
        answers={name: np.concatenate([part.answers[name] for part in parts], 1) for name in first.tasks},
        levels=first.levels,
        noised={
            stream: {name: np.concatenate([part.noised[stream][name] for part in parts], 1) for name in first.tasks}
            for stream in first.noised
        },
        weights=None if first.weights is None else np.concatenate([part.weights for part in parts if part.weights is not None]),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    present: NDArray[Any]
    answers: Mapping[str, NDArray[Any]]
    noised: Mapping[str, Mapping[str, NDArray[Any]]]
    weights: NDArray[Any] | None


@torch.inference_mode()
def _examine(
    model: FusionModel, batch: Batch, device: torch.device, asked: Sequence[tuple[bool, ...]], noise: Noise | None, levels: Sequence[float]
) -> _Part:
    tokens = {stream: model.encode(stream, batch.inputs[stream].to(device))[0] for stream in model.streams}
    shown = torch.tensor(asked, device=device)[:, None].expand(-1, len(batch.rows), -1)  # (subsets, batch, streams)
    answers = [_read(model, tokens, some) for some in shown]
    noised = {}
    for stream in model.streams if noise is not None else ():
        assert noise is not None
        said = []
        for level in levels:
            under = noise.modality(stream, batch.inputs[stream], level, batch.rows, seed=0).to(device)
            said.append(_read(model, {**tokens, stream: model.encode(stream, under)[0]}))
        noised[stream] = {task: _numpy(torch.stack([one[task] for one in said])) for task in model.tasks}
    weights = model.weights(tokens)
    return _Part(
        present=_numpy(torch.stack([batch.inputs[stream].present for stream in model.streams], 1)),
        answers={task: _numpy(torch.stack([said[task] for said in answers])) for task in model.tasks},
        noised=noised,
        weights=None if weights is None else _numpy(weights),
    )


def _read(model: FusionModel, tokens: Mapping[str, Modality], present: Tensor | None = None) -> dict[str, Tensor]:
    return {task: model.head(task).read(outputs) for task, outputs in model.fuse(tokens, present).items()}


def _asked(count: int) -> list[tuple[bool, ...]]:
    if count <= MOST_STREAMS:
        return subsets_of(count)
    alone = [tuple(i == own for i in range(count)) for own in range(count)]
    without = [tuple(i != own for i in range(count)) for own in range(count)]
    return [(False,) * count, *alone, *without, (True,) * count]


def _numpy(values: Tensor) -> NDArray[Any]:
    found: NDArray[Any] = values.cpu().numpy()
    return found


def _joined(parts: Sequence[NDArray[Any]], axis: int, empty: tuple[int, ...], dtype: type = np.float32) -> NDArray[Any]:
    return np.concatenate(parts, axis) if parts else np.zeros(empty, dtype)
