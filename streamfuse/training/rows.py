"""Which rows training sees, and when: parts of a data set, and epochs in an order drawn by seed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamfuse.training.distributed import Workers
from streamfuse.training.samples import Rows, Samples

Numbers = NDArray[np.int64]
DRAWS = 1
"""Sets these draws apart from those of the order."""


def part(samples: Samples, rows: Sequence[int] | Numbers, streams: Sequence[str]) -> Rows:
    """Nothing but these rows and streams, renumbered. Training is given such parts, and so has no way to the rows of the test."""
    chosen = [int(row) for row in rows]
    return Rows(
        inputs={stream: samples.inputs[stream] for stream in streams},
        empty={stream: samples.empty[stream] for stream in streams},
        heads=samples.heads,
        targets={task: target[chosen] for task, target in samples.targets.items()},
        names=[samples.names[row] for row in chosen],
        reader=lambda row: samples.read(chosen[row]),
        groups=[samples.groups[row] for row in chosen] if samples.groups else (),
        parts=[samples.parts[row] for row in chosen] if samples.parts else (),
    )


@dataclass(frozen=True, slots=True)
class Epoch:
    """One epoch of a stage: which rows, in which order and steps. A pure function of its fields."""

    rows: int
    batch: int
    seed: Sequence[int]
    number: int
    length: int | None = None
    """Rows of an epoch, where it is not all of them: then epochs share passes over the rows."""

    @property
    def steps(self) -> int:
        return math.ceil((self.length or self.rows) / self.batch)

    def order(self) -> Numbers:
        length = self.length or self.rows
        first, last = self.number * length, (self.number + 1) * length
        passes = range(first // self.rows, -(-last // self.rows))
        orders = [np.random.default_rng([*self.seed, one]).permutation(self.rows) for one in passes]
        return np.concatenate(orders)[first - passes[0] * self.rows :][:length]

    def draws(self, columns: int) -> NDArray[np.float64]:
        """`(rows of the epoch, columns)` from 0 to 1: what is drawn for each row of `order`."""
        return np.random.default_rng([*self.seed, self.number, DRAWS]).random((self.length or self.rows, columns))


@dataclass(frozen=True, slots=True)
class Share:
    """What one process reads of one step: places in the epoch's order, and each row's weight in the step's mean."""

    step: int
    places: Numbers
    weights: NDArray[np.float32]


def shares(epoch: Epoch, workers: Workers, first: int) -> Iterator[Share]:
    """Steps from `first` on. Their sizes differ by one row at most, so that none is so small that it learns from noise."""
    cuts = np.array_split(np.arange(epoch.length or epoch.rows), epoch.steps)
    for step, places in enumerate(cuts[first:], first):
        mine = places[workers.mine]
        weight = 1 / len(places) if len(mine) else 0.0  # who has no row left still takes the step with the others
        mine = mine if len(mine) else places[:1]
        yield Share(step, mine, np.full(len(mine), weight, np.float32))
