"""What a model says with some of the modalities only: the subset table, and what each modality contributes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from streamfuse.models.shapley import shares
from streamfuse.training.examine import Examination
from streamfuse.training.metrics import primary
from streamfuse.training.statistics import mean_and_deviation

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True, slots=True)
class SubsetScore:
    """The primary measure with only these streams shown: mean and deviation over seeds, over `rows` rows."""

    shown: tuple[str, ...]
    rows: int
    mean: float | None
    deviation: float | None


@dataclass(frozen=True, slots=True)
class Contribution:
    """One stream's exact Shapley values over the rows: how much it moves the answer, whichever way (`size`, the mean of absolute
    values), its part of all streams' sizes, and the `QUANTILES` of the values themselves. For labels on the probability of the
    most probable one; for estimates on each, in its unit, their mean."""

    stream: str
    size: float
    part: float
    quantiles: tuple[float, ...]


def subset_table(seeds: Sequence[Examination], task: str) -> list[SubsetScore]:
    """Every subset that was asked for, the smallest first.

    All over the rows that have every stream, so that they can be compared; where no row has, each over the rows that have what it
    shows.
    """
    first = seeds[0]
    return [_subset_score(seeds, task, number) for number in sorted(range(len(first.subsets)), key=lambda n: sum(first.subsets[n]))]


def contributions(seeds: Sequence[Examination], task: str) -> list[Contribution]:
    """Of each stream, over all seeds' rows; empty where not all subsets were asked for, or there is no row."""
    first = seeds[0]
    if not first.is_whole or not len(first.names):
        return []
    values = np.concatenate([shapley_values(seed, task) for seed in seeds])  # (seeds * rows, streams)
    sizes = np.abs(values).mean(0)
    parts = sizes / max(sizes.sum(), 1e-12)
    quantiles = np.quantile(values, QUANTILES, 0).T
    return [
        Contribution(stream, float(sizes[i]), float(parts[i]), tuple(map(float, quantiles[i]))) for i, stream in enumerate(first.streams)
    ]


def shapley_values(examination: Examination, task: str) -> NDArray[np.float64]:
    """`(rows, streams)`; see `Contribution`. The values of a row add up to what it was answered less what is answered with nothing
    shown."""
    answers = torch.from_numpy(np.asarray(examination.answers[task], np.float64))  # (subsets, rows, names)
    each = shares(answers, len(examination.streams))  # (rows, names, streams)
    if examination.tasks[task].kind == "regression":
        return each.mean(1).numpy()
    greatest = answers[-1].argmax(1)
    return each[torch.arange(len(each)), greatest].numpy()


def _subset_score(seeds: Sequence[Examination], task: str, number: int) -> SubsetScore:
    first = seeds[0]
    shown = tuple(stream for stream, there in zip(first.streams, first.subsets[number], strict=True) if there)
    wanted = np.ones(len(first.streams), bool) if first.present.all(1).any() else np.asarray(first.subsets[number], bool)
    has_all = first.present[:, wanted].all(1)
    kind = first.tasks[task].kind
    found = [primary(kind, seed.answers[task][number][has_all], seed.targets[task][has_all]) for seed in seeds]
    return SubsetScore(shown, int(has_all.sum()), *mean_and_deviation(found))
