"""Judges a smaller model beside the one that it was made of: it has to be measurably faster, and to lose no more than was allowed."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray

from streamfuse.models.engine import Engine
from streamfuse.models.fusion_model import FusionModel
from streamfuse.training.metrics import primary
from streamfuse.training.samples import Samples, batches, make_batch

FASTER = 0.95
"""The share of the original's time above which it is not faster, whatever the noise."""
WON = 0.75
"""The least share of rounds in which it has to be faster."""
ROUNDS = 40

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Verdict:
    """`before` and `after` are each task's measure; `loss` is the greatest that one lost: in points of 100 for shares (accuracy), in
    percent for errors (the mean absolute error). `times` are ms of CPU time for a window, medians; `won` is the share of rounds in which
    the smaller model was the faster one."""

    before: Mapping[str, float]
    after: Mapping[str, float]
    loss: float
    times: tuple[float, float]
    won: float
    max_loss: float

    @property
    def is_faster(self) -> bool:
        return self.times[1] <= FASTER * self.times[0] and self.won >= WON

    @property
    def accepted(self) -> bool:
        return self.is_faster and self.loss <= self.max_loss

    def __str__(self) -> str:
        speed = f"{self.times[0]:.2f} -> {self.times[1]:.2f} ms CPU a window ({self.times[0] / self.times[1]:.2f}x)"
        quality = ", ".join(f"{task} {self.before[task]:.4g} -> {after:.4g}" for task, after in self.after.items())
        loss = f"loss {self.loss:.2f} of at most {self.max_loss:g}"
        return f"{'accepted' if self.accepted else 'refused'}: {speed}; {quality}, {loss}" + ("" if self.is_faster else "; not faster")


def judge(
    model: FusionModel, original: Engine, smaller: Engine, samples: Samples, rows: Sequence[int], max_loss: float, tell: Tell
) -> Verdict:
    """Both engines on the same rows. `model` says what the tasks are; the two may differ in size, not in tasks."""
    tell(f"measuring on {len(rows)} rows")
    before, after = (_measures(model, engine, samples, rows) for engine in (original, smaller))
    loss = max(_loss(model, task, before[task], after[task]) for task in before)
    tell("timing the two in turn, a window at a time")
    times, won = _times(model, original, smaller, samples, rows)
    return Verdict(before, after, loss, times, won, max_loss)


def _measures(model: FusionModel, engine: Engine, samples: Samples, rows: Sequence[int]) -> dict[str, float]:
    said: dict[str, list[NDArray[np.float32]]] = {task: [] for task in model.tasks}
    for batch in batches(samples, rows, 32):
        for task, answer in _answer(model, engine, batch.inputs).items():
            said[task].append(answer.numpy())
    found = {task: primary(model.head(task).kind, np.concatenate(said[task]), samples.targets[task][list(rows)]) for task in model.tasks}
    return {task: value for task, value in found.items() if value is not None}


def _answer(model: FusionModel, engine: Engine, inputs: Mapping[str, object]) -> dict[str, torch.Tensor]:
    with torch.inference_mode():
        return engine.fuse({stream: engine.encode(stream, inputs[stream])[0] for stream in model.streams})  # type: ignore[arg-type]


def _loss(model: FusionModel, task: str, before: float, after: float) -> float:
    if model.head(task).kind in ("classification", "multilabel"):
        return 100 * (before - after)
    return 100 * (after - before) / before if before else (0.0 if after == before else float("inf"))


def _times(
    model: FusionModel, original: Engine, smaller: Engine, samples: Samples, rows: Sequence[int]
) -> tuple[tuple[float, float], float]:
    inputs = make_batch(samples, rows[:1]).inputs
    taken: tuple[list[float], list[float]] = ([], [])
    for number in range(ROUNDS + 3):
        for which in (0, 1) if number % 2 else (1, 0):
            engine = (original, smaller)[which]
            gc.disable()
            begun = time.thread_time()
            for _ in range(3):
                _answer(model, engine, inputs)
            taken[which].append((time.thread_time() - begun) / 3 * 1000)
            gc.enable()
    first, second = taken[0][3:], taken[1][3:]
    return (median(first), median(second)), sum(b < a for a, b in zip(first, second, strict=True)) / len(first)
