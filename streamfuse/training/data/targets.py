"""What is true of rows, as values people write, turned into the numbers that heads learn from.

Words and whole numbers are labels (classification), a list of them several labels (multilabel), other numbers values (regression).
Where that guess is wrong, the data's `tasks` say the `type` of the head. None is unknown.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamfuse.errors import Problem
from streamfuse.training.data import Heads

Target = NDArray[np.generic]


def encode(
    values: Mapping[str, Sequence[object]],
    rows: int,
    tasks: Heads,
    heads: Heads | None,
    place: Callable[[int], str],
    problems: list[Problem],
) -> tuple[dict[str, dict[str, Any]], dict[str, Target]]:
    """Each task's head and targets. `tasks` is what the data says of them; `heads`, where given, are all tasks that are wanted, and what
    they say goes first; what the `rows` do not tell is unknown. `place` says where a row stands. What is wrong goes to `problems`.
    """
    found_heads: dict[str, dict[str, Any]] = {}
    targets: dict[str, Target] = {}
    for task in heads if heads is not None else {**values, **tasks}:
        column = values.get(task, [None] * rows)
        head = {**_guess(column), **tasks.get(task, {}), **(heads or {}).get(task, {})}
        if "type" not in head:
            message = f"expected targets of the task {task!r}, found none; say of what `type` it is, or take it out"
            problems.append(Problem(f"data.tasks.{task}", message))
            continue
        if head["type"] == "regression" or "targets" in head:
            found_heads[task], targets[task] = _numbers(task, head, column, place, problems)
        else:
            found_heads[task], targets[task] = _labels(task, head, column, place, problems)
    return found_heads, targets


def _guess(column: Sequence[object]) -> dict[str, Any]:
    known = [value for value in column if value is not None]
    if not known:
        return {}
    if any(isinstance(value, list) for value in known):
        numbers = all(isinstance(value, list) and all(isinstance(one, int | float) for one in value) for value in known)
        floats = any(isinstance(one, float) for value in known if isinstance(value, list) for one in value)
        return {"type": "regression" if numbers and floats else "multilabel"}
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in known)
    return {"type": "regression" if numbers and any(isinstance(value, float) for value in known) else "classification"}


def _labels(
    task: str, head: dict[str, Any], column: Sequence[object], place: Callable[[int], str], problems: list[Problem]
) -> tuple[dict[str, Any], Target]:
    several = head["type"] == "multilabel"
    named = [None if value is None else [_name(one) for one in (value if isinstance(value, list) else [value])] for value in column]
    if "labels" not in head:
        if head["type"] == "ordinal":
            problems.append(Problem(f"data.tasks.{task}.labels", "is needed: ordinal labels have an order, which the data does not say"))
        head["labels"] = _in_order({one for value in named if value is not None for one in value})
    places = {str(label): number for number, label in enumerate(head["labels"])}
    classes = np.full(len(column), -1, np.int64)
    marks = np.full((len(column), len(places)), np.nan, np.float32)
    for row, value in enumerate(named):
        if value is None:
            continue
        if not several and len(value) != 1:
            problems.append(Problem(place(row), f"{task}: expected one label, found {len(value)}; set data.tasks.{task}.type: multilabel"))
            continue
        outside = [one for one in value if one not in places]
        for one in outside:
            near = difflib.get_close_matches(one, places, 1)
            advice = f"did you mean {near[0]!r}? Otherwise " if near else "correct it, or "
            message = f"{task}: expected one of {_list(places)}, found {one[:60]!r}; {advice}add it to data.tasks.{task}.labels"
            problems.append(Problem(place(row), message))
        if not outside and several:
            marks[row] = 0
            marks[row, [places[one] for one in value]] = 1
        elif not outside:
            classes[row] = places[value[0]]
    return head, marks if several else classes


def _numbers(
    task: str, head: dict[str, Any], column: Sequence[object], place: Callable[[int], str], problems: list[Problem]
) -> tuple[dict[str, Any], Target]:
    rows = [None if value is None else list(_floats(value)) for value in column]
    first = next((len(row) for row in rows if row is not None), 1)
    head.setdefault("targets", [task] if first == 1 else [f"{task} {number}" for number in range(first)])
    target = np.full((len(column), len(head["targets"])), np.nan, np.float32)
    for number, row in enumerate(rows):
        if row is None:
            continue
        if len(row) != target.shape[1] or not all(math.isfinite(one) and abs(one) < 1e38 for one in row):
            what = "a finite number" if target.shape[1] == 1 else f"{target.shape[1]} finite numbers"
            shown = str(column[number])[:60]
            problems.append(Problem(place(number), f"{task}: expected {what}, found {shown!r}; correct it, or leave it out where unknown"))
        else:
            target[number] = row
    return head, target


def _floats(value: object) -> Iterator[float]:
    for one in value if isinstance(value, list) else [value]:
        try:
            yield float(one) if isinstance(one, int | float | str) else math.nan
        except (ValueError, OverflowError):
            yield math.nan


def _name(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _in_order(labels: set[str]) -> list[str]:
    whole = all(label.lstrip("-").isdecimal() and len(label) < 19 for label in labels)
    return sorted(labels, key=int) if whole else sorted(labels)


def _list(names: Mapping[str, int]) -> str:
    some = list(names)[:12]
    return ", ".join(some) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
