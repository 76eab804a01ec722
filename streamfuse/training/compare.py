"""Methods side by side: on the same rows, with what differs by more than chance, and the one that validation chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from streamfuse.errors import DataError, Problem
from streamfuse.training.evaluate import Method, MethodResult, TaskResult, evaluate, numerators, sample
from streamfuse.training.metrics import LOWER_IS_BETTER
from streamfuse.training.quality import Quality
from streamfuse.training.statistics import Difference
from streamfuse.training.statistics import compare as compare_pairs


@dataclass(frozen=True, slots=True)
class DataFacts:
    """What was judged on: the `part`, and rows by part. `remarks` are sentences on how far the judgement is to be trusted."""

    name: str
    part: str
    parts: Mapping[str, int] = field(default_factory=dict)
    groups: Sequence[str] = ()
    quality: Quality | None = None
    remarks: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """`chosen` is the best on validation, None where there is no validation part and more than one method. `differences` are of the
    first task, all pairs."""

    data: DataFacts
    methods: tuple[MethodResult, ...]
    chosen: str | None
    differences: Mapping[str, tuple[Difference, ...]]

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(self.methods[0].tasks)

    @property
    def streams(self) -> tuple[str, ...]:
        """Of all methods; one that fuses nothing has a single one."""
        return tuple(dict.fromkeys(stream for method in self.methods for stream in method.streams))

    @property
    def leading(self) -> MethodResult:
        """The one that is told in detail: the chosen one, or else the first."""
        return next((method for method in self.methods if method.name == self.chosen), self.methods[0])

    def ranked(self, task: str) -> list[MethodResult]:
        """By the primary measure on the part that is judged, the best first; those without one last."""

        def key(method: MethodResult) -> tuple[bool, float]:
            mean = method.tasks[task].summary.mean
            return mean is None, 0.0 if mean is None else _sign(method.tasks[task]) * mean

        return sorted(self.methods, key=key)


def compare(methods: Sequence[Method], data: DataFacts) -> Comparison:
    """Raises `DataError` where methods did not answer the same rows and tasks."""
    problems = list(_differing(methods))
    if problems:
        raise DataError(problems)
    first = methods[0].runs[0].test
    results = tuple(evaluate(method) for method in methods)
    differences = {
        task: tuple(compare_pairs({method.name: numerators(method, task) for method in methods}, sample(first, task)))
        for task in first.tasks
    }
    return Comparison(data, results, _chosen(results), differences)


def lower_is_better(task: TaskResult) -> bool:
    return task.primary in LOWER_IS_BETTER


def _differing(methods: Sequence[Method]) -> list[Problem]:
    first = methods[0].runs[0].test
    problems = []
    for method in methods:
        for run in method.runs:
            if run.test.names != first.names:
                what = f"{len(run.test.names)} rows, {len({*run.test.names} ^ {*first.names})} of them others"
                message = f"expected the {len(first.names)} test rows of {methods[0].name}, found {what}; give all the same data and split"
                problems.append(Problem(f"{method.name} (seed {run.seed})", message))
            elif {name: task.names for name, task in run.test.tasks.items()} != {name: task.names for name, task in first.tasks.items()}:
                message = f"expected the tasks {', '.join(first.tasks)} of {methods[0].name} with the same labels; give all the same heads"
                problems.append(Problem(f"{method.name} (seed {run.seed})", message))
    return problems


def _chosen(results: Sequence[MethodResult]) -> str | None:
    if len(results) == 1:
        return results[0].name
    task = next(iter(results[0].tasks))
    judged = {result.name: (result.tasks[task].validation, result.tasks[task]) for result in results}
    if any(value is None for value, _ in judged.values()):
        return None
    return min(judged, key=lambda name: _sign(judged[name][1]) * (judged[name][0] or 0.0))


def _sign(task: TaskResult) -> int:
    return 1 if lower_is_better(task) else -1
