"""What a method is worth: all that a report says of it, from what its runs answered on the same rows.

A method is what one recipe describes; its runs differ in their seeds. Only the test's rows are judged here; temperature and
thresholds come from the validation's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamfuse.models.heads import Kind
from streamfuse.training.calibration import Reliability, fit_temperature, reliability, scale
from streamfuse.training.cost import Cost
from streamfuse.training.crossings import Crossing, mean_crossings
from streamfuse.training.examine import Examination, Task
from streamfuse.training.lines import Line, precision_recall_lines, roc_lines
from streamfuse.training.metrics import (
    NAMES,
    PRIMARY,
    choose_thresholds,
    confusion,
    primary,
    primary_parts,
    score,
    score_each,
)
from streamfuse.training.robustness import Curve, curves
from streamfuse.training.statistics import Sample, Summary, mean_and_deviation, summarise
from streamfuse.training.subsets import QUANTILES, Contribution, SubsetScore, contributions, subset_table

MOST_DRAWN = 5000
"""Estimates that are drawn beside their truth, at most."""


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One trained model: what it said of the test's rows, and of the validation's, if there are any. `history` has a line for each
    epoch, as training wrote it."""

    seed: int
    test: Examination
    validation: Examination | None = None
    history: Sequence[Mapping[str, Any]] = ()
    crossings: Sequence[Crossing] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Method:
    name: str
    fusion: str
    missing: str
    """How its fusion treats a modality that is not there."""
    runs: Sequence[Run]
    cost: Cost | None = None


@dataclass(frozen=True, slots=True)
class Spread:
    """A measure over seeds; `note` says why it has no value, or what it leaves out."""

    mean: float | None
    deviation: float | None
    values: tuple[float | None, ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Calibration:
    """How far probabilities are to be believed, as they are and after the temperature, which is the mean over seeds and was
    fitted on validation; None where there is no validation part."""

    before: Reliability
    after: Reliability | None
    temperature: float | None


@dataclass(frozen=True, slots=True)
class TaskResult:
    """One task. Confusion, curves and reliability are of all seeds' answers together."""

    kind: Kind
    names: tuple[str, ...]
    primary: str
    rows: int
    summary: Summary
    validation: float | None
    """The primary measure on the validation part: what methods are chosen by."""
    scores: Mapping[str, Spread]
    each: Mapping[str, Mapping[str, Spread]]
    subsets: tuple[SubsetScore, ...]
    robustness: tuple[Curve, ...]
    contributions: tuple[Contribution, ...]
    calibration: Calibration | None = None
    thresholds: tuple[float, ...] | None = None
    confusion: tuple[tuple[int, ...], ...] | None = None
    roc: tuple[Line, ...] = ()
    precision_recall: tuple[Line, ...] = ()
    estimates: tuple[tuple[float, float], ...] = ()
    """Truth and answer of each row, for the first of the values that are estimated."""


@dataclass(frozen=True, slots=True)
class Weight:
    """How much a stream counts in the fusion, by the fusion's own weights: the mean, and the `QUANTILES` over rows."""

    stream: str
    mean: float
    quantiles: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class MethodResult:
    name: str
    fusion: str
    missing: str
    seeds: tuple[int, ...]
    streams: tuple[str, ...]
    tasks: Mapping[str, TaskResult]
    weights: tuple[Weight, ...] = ()
    cost: Cost | None = None
    crossings: tuple[Crossing, ...] = ()
    """Means over seeds."""
    history: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    """Seed -> its lines."""


def evaluate(method: Method) -> MethodResult:
    """All that there is to say of a method. Its runs answered the same rows in the same order."""
    first = method.runs[0].test
    return MethodResult(
        name=method.name,
        fusion=method.fusion,
        missing=method.missing,
        seeds=tuple(run.seed for run in method.runs),
        streams=first.streams,
        tasks={name: _task(method.runs, task) for name, task in first.tasks.items()},
        weights=_weights([run.test for run in method.runs]),
        cost=method.cost,
        crossings=tuple(mean_crossings([run.crossings for run in method.runs])),
        history={str(run.seed): run.history for run in method.runs if run.history},
    )


def numerators(method: Method, task: str) -> NDArray[np.float64]:
    """`(seeds, rows)`, for `statistics.compare`."""
    kind = method.runs[0].test.tasks[task].kind
    return np.stack([np.asarray(primary_parts(kind, run.test.said(task), run.test.targets[task])[0], np.float64) for run in method.runs])


def sample(test: Examination, task: str) -> Sample:
    _, denominators = primary_parts(test.tasks[task].kind, test.said(task), test.targets[task])
    return Sample(np.asarray(denominators, np.float64), test.groups)


def _task(runs: Sequence[Run], task: Task) -> TaskResult:
    tests = [run.test for run in runs]
    kind, names = task.kind, task.names
    said = [test.said(task.name) for test in tests]
    targets = tests[0].targets[task.name]
    cuts = [_thresholds(run, task) for run in runs]
    scores = [score(kind, answers, targets, names, cut) for answers, cut in zip(said, cuts, strict=True)]
    each = [score_each(kind, answers, targets, names, cut) for answers, cut in zip(said, cuts, strict=True)] if len(names) > 1 else []
    method = Method("", "", "", runs)
    pooled, all_targets = np.concatenate(said), np.concatenate([targets] * len(runs))
    counts = confusion(kind, pooled, all_targets, names)
    return TaskResult(
        kind=kind,
        names=names,
        primary=PRIMARY[kind],
        rows=int((sample(tests[0], task.name).denominators > 0).sum()),
        summary=summarise(numerators(method, task.name), sample(tests[0], task.name)),
        validation=mean_and_deviation([_on_validation(run, task) for run in runs])[0],
        scores={name: _spread([own[name].value for own in scores], scores[0][name].note) for name in NAMES[kind]},
        each={
            name: {measure: _spread([own[name][measure].value for own in each], one.note) for measure, one in each[0][name].items()}
            for name in (names if each else ())
        },
        subsets=tuple(subset_table(tests, task.name)),
        robustness=tuple(curves(tests, task.name)),
        contributions=tuple(contributions(tests, task.name)),
        calibration=_calibration(runs, task),
        thresholds=tuple(np.mean(cuts, 0).tolist()) if kind == "multilabel" and runs[0].validation is not None else None,
        confusion=None if counts is None else tuple(map(tuple, counts.tolist())),
        roc=tuple(roc_lines(kind, pooled, all_targets, names)),
        precision_recall=tuple(precision_recall_lines(kind, pooled, all_targets, names)),
        estimates=_estimates(pooled, all_targets) if kind == "regression" else (),
    )


def _thresholds(run: Run, task: Task) -> NDArray[np.floating[Any]]:
    if task.kind != "multilabel" or run.validation is None:
        return np.full(len(task.names), 0.5)
    return choose_thresholds(run.validation.said(task.name), run.validation.targets[task.name])


def _on_validation(run: Run, task: Task) -> float | None:
    if run.validation is None:
        return None
    return primary(task.kind, run.validation.said(task.name), run.validation.targets[task.name])


def _calibration(runs: Sequence[Run], task: Task) -> Calibration | None:
    if task.kind == "regression":
        return None
    temperatures: list[float] = []
    before, after = [], []
    for run in runs:
        said, targets = run.test.said(task.name), run.test.targets[task.name]
        before.append(_confidence(task.kind, said, targets))
        held = run.validation
        temperature = None if held is None else fit_temperature(task.kind, held.said(task.name), held.targets[task.name])
        if temperature is not None:
            temperatures.append(temperature)
            after.append(_confidence(task.kind, scale(task.kind, said, temperature), targets))
    return Calibration(
        before=_reliability(before),
        after=_reliability(after) if len(after) == len(runs) else None,
        temperature=mean_and_deviation(temperatures)[0],
    )


def _confidence(kind: Kind, answers: NDArray[Any], targets: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """What each answer is sure of, and whether it came true."""
    if kind == "multilabel":
        known = ~np.isnan(targets)
        return answers[known], targets[known] > 0.5
    rows = targets >= 0
    return answers[rows].max(1), answers[rows].argmax(1) == targets[rows]


def _reliability(parts: Sequence[tuple[NDArray[Any], NDArray[np.bool_]]]) -> Reliability:
    return reliability(np.concatenate([sure for sure, _ in parts]), np.concatenate([true for _, true in parts]))


def _estimates(answers: NDArray[Any], targets: NDArray[Any]) -> tuple[tuple[float, float], ...]:
    known = np.flatnonzero(~np.isnan(targets[:, 0]))[:MOST_DRAWN]
    return tuple(zip(targets[known, 0].tolist(), answers[known, 0].tolist(), strict=True))


def _weights(tests: Sequence[Examination]) -> tuple[Weight, ...]:
    found = [test.weights for test in tests if test.weights is not None]
    if not found or not len(tests[0].names):
        return ()
    values = np.concatenate(found)
    quantiles = np.quantile(values, QUANTILES, 0).T
    return tuple(Weight(stream, float(values[:, i].mean()), tuple(map(float, quantiles[i]))) for i, stream in enumerate(tests[0].streams))


def _spread(values: Sequence[float | None], note: str) -> Spread:
    return Spread(*mean_and_deviation(values), tuple(values), note)
