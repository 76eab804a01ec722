"""What differs by more than chance: means over seeds, bootstrap intervals, and paired tests on the same rows.

A method is a matrix `(seeds, rows)` of numerators; with the rows' common denominators, the measure over any rows is the sum of
the one by the sum of the other (`metrics.primary_parts`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

DRAWS = 10_000
LEVEL = 0.95
LEAST_GROUPS = 10
"""With fewer groups, drawing whole groups says nothing: rows are drawn instead, and the report says so."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Over seeds. `deviation` is the sample's (n - 1), None for one seed; `low` and `high` hold `LEVEL` of the bootstrap's
    draws over `drawn`; both are None where no row is known."""

    mean: float | None
    deviation: float | None
    low: float | None
    high: float | None
    seeds: int
    drawn: str


@dataclass(frozen=True, slots=True)
class Difference:
    """`first` less `second`, with its interval, the two-sided p value and the one after Holm's correction for all pairs."""

    first: str
    second: str
    difference: float
    low: float
    high: float
    p: float
    corrected: float

    def towards(self, name: str) -> Difference:
        """The same, said from the side of this method if it is one of the two."""
        if name != self.second:
            return self
        return Difference(self.second, self.first, -self.difference, -self.high, -self.low, self.p, self.corrected)

    @property
    def significant(self) -> bool:
        return self.corrected < 1 - LEVEL


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """The rows that all methods answered: their denominators, `(rows,)`, and their groups, if they have any."""

    denominators: Floats
    groups: Sequence[str] = ()

    @property
    def by_group(self) -> bool:
        return len(set(self.groups)) >= LEAST_GROUPS

    def drawn(self, seeds: int) -> str:
        what = f"{len(set(self.groups))} groups" if self.by_group else f"{int((self.denominators > 0).sum())} rows"
        return f"{what} and {seeds} seeds" if seeds > 1 else f"{what} of one seed"


def summarise(numerators: Floats, sample: Sample, draws: int = DRAWS) -> Summary:
    """One method's measure over its seeds."""
    seeds = len(numerators)
    total = sample.denominators.sum()
    if not seeds or not total > 0:
        return Summary(None, None, None, None, seeds, sample.drawn(seeds))
    each = numerators.sum(1) / total
    drawn = np.concatenate([own["it"] for own in _draws({"it": numerators}, sample, draws)])
    low, high = _middle(drawn)
    return Summary(float(each.mean()), float(each.std(ddof=1)) if seeds > 1 else None, low, high, seeds, sample.drawn(seeds))


def compare(methods: Mapping[str, Floats], sample: Sample, draws: int = DRAWS) -> list[Difference]:
    """Every pair of methods by a paired bootstrap: each draw takes the same rows for both, and seeds for each by itself. The p
    value is twice the share of draws on the other side of 0 (never 0: one draw is added); Holm (1979) corrects it for the
    number of pairs. Empty where no row is known."""
    if len(methods) < 2 or not sample.denominators.sum() > 0:
        return []
    drawn: dict[str, list[Floats]] = {name: [] for name in methods}
    for values in _draws(methods, sample, draws):
        for name, own in values.items():
            drawn[name].append(own)
    whole = {name: np.concatenate(own) for name, own in drawn.items()}
    means = {name: numerators.sum(1).mean() / sample.denominators.sum() for name, numerators in methods.items()}
    pairs = list(itertools.combinations(methods, 2))
    found = []
    for first, second in pairs:
        gaps = whole[first] - whole[second]
        beyond = min(int((gaps <= 0).sum()), int((gaps >= 0).sum()))
        found.append((first, second, means[first] - means[second], *_middle(gaps), min(1.0, 2 * (beyond + 1) / (draws + 1))))
    corrected = holm([p for *_, p in found])
    return [
        Difference(first, second, float(gap), low, high, p, q)
        for (first, second, gap, low, high, p), q in zip(found, corrected, strict=True)
    ]


def holm(p: Sequence[float]) -> list[float]:
    """p values corrected for how many they are, step by step from the least (Holm 1979)."""
    corrected = [0.0] * len(p)
    least = 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        least = max(least, min(1.0, p[i] * (len(p) - rank)))
        corrected[i] = least
    return corrected


def mean_and_deviation(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Over seeds, of those that have a value; the sample's deviation, None for fewer than two."""
    there = [value for value in values if value is not None]
    if not there:
        return None, None
    return float(np.mean(there)), float(np.std(there, ddof=1)) if len(there) > 1 else None


def _draws(methods: Mapping[str, Floats], sample: Sample, draws: int) -> Iterator[dict[str, Floats]]:
    """The measure of each method in `draws` draws, some hundred at a time; the same every time it is asked."""
    if sample.by_group:
        _, number = np.unique(np.asarray(sample.groups), return_inverse=True)
        gather = np.eye(number.max() + 1)[number]  # (rows, groups)
        units = {name: own @ gather for name, own in methods.items()}
        denominators = sample.denominators @ gather
    else:
        # A row that counts for nothing is none: it would only thin the others.
        there = sample.denominators > 0
        units, denominators = {name: own[:, there] for name, own in methods.items()}, sample.denominators[there]
    count = len(denominators)
    random = np.random.default_rng(0)
    for at in range(0, draws, 200):
        some = min(200, draws - at)
        rows = random.multinomial(count, np.full(count, 1 / count), some).astype(np.float64)  # (draws, units)
        whole = np.maximum(rows @ denominators, 1e-12)
        values = {}
        for name, own in units.items():
            seeds = random.multinomial(len(own), np.full(len(own), 1 / len(own)), some) / len(own)  # (draws, seeds)
            values[name] = ((rows @ own.T) * seeds).sum(1) / whole
        yield values


def _middle(drawn: Floats) -> tuple[float, float]:
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
