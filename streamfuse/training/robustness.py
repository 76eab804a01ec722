"""What noise does to a model, one modality at a time: the robustness curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from streamfuse.training.examine import Examination
from streamfuse.training.metrics import primary
from streamfuse.training.statistics import mean_and_deviation


@dataclass(frozen=True, slots=True)
class Curve:
    """The primary measure with noise on one stream, by level from 0 on: means and deviations over seeds. `area` is the mean over
    the levels from 0 to 1 (the area under the curve by trapezoids)."""

    stream: str
    levels: tuple[float, ...]
    means: tuple[float | None, ...]
    deviations: tuple[float | None, ...]
    area: float | None

    def at(self, level: float) -> float | None:
        return dict(zip(self.levels, self.means, strict=True)).get(level)


def curves(seeds: Sequence[Examination], task: str) -> list[Curve]:
    """One a stream; empty where no noise was asked for."""
    return [_curve(seeds, task, stream) for stream in seeds[0].noised]


def _curve(seeds: Sequence[Examination], task: str, stream: str) -> Curve:
    first = seeds[0]
    about = first.tasks[task]
    levels = (0.0, *first.levels)
    found = []
    for i in range(len(levels)):
        said = [seed.said(task) if i == 0 else seed.noised[stream][task][i - 1] for seed in seeds]
        found.append(
            mean_and_deviation([primary(about.kind, answers, seed.targets[task]) for seed, answers in zip(seeds, said, strict=True)])
        )
    means = [mean for mean, _ in found]
    known = [mean for mean in means if mean is not None]
    area = _area(levels, known) if len(known) == len(levels) > 1 else None
    return Curve(stream, levels, tuple(means), tuple(deviation for _, deviation in found), area)


def _area(levels: Sequence[float], values: Sequence[float]) -> float:
    steps = np.diff(levels)
    return float((steps * (np.asarray(values[1:]) + np.asarray(values[:-1])) / 2).sum() / steps.sum())
