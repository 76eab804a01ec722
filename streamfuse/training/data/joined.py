"""Several data sets as one: the rows of the first, then those of the next."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from streamfuse.config import Settings
from streamfuse.errors import DataError, Problem
from streamfuse.models.batch import Items
from streamfuse.training.data import Heads, Inputs, checked, open_data
from streamfuse.training.samples import DATA, Rows, Samples


class JoinedSettings(Settings):
    sets: list[dict[str, Any]] = Field(min_length=1)
    """Data sets, such as one for each part. The first one says which tasks and labels there are; a later one may lack their targets."""


@DATA.register("joined")
def joined(folder: Path, inputs: Inputs | None, heads: Heads | None, **options: Any) -> Rows:
    """All rows of all sets. Raises `DataError` with what is wrong in any of them."""
    opened: list[Samples] = []
    problems: list[Problem] = []
    known = heads
    for number, one in enumerate(checked(JoinedSettings, options).sets):
        try:
            opened.append(open_data(one, folder, inputs, known))
        except DataError as error:
            problems += [_within(problem, number) for problem in error.problems]
        else:
            known = known if known is not None else opened[0].heads
    if not problems:
        problems += [problem for number, one in enumerate(opened) for problem in _unlike(opened[0], one, number)]
    if problems:
        raise DataError(problems)
    first, ends = opened[0], list(accumulate(len(one.names) for one in opened))

    def read(row: int) -> Mapping[str, Items]:
        number = bisect_right(ends, row)
        return opened[number].read(row - (ends[number - 1] if number else 0))

    return Rows(
        inputs=first.inputs,
        empty={stream: max((one.empty[stream] for one in opened), key=lambda items: len(items.mask)) for stream in first.empty},
        heads=first.heads,
        targets={task: np.concatenate([one.targets[task] for one in opened]) for task in first.heads},
        names=[name for one in opened for name in one.names],
        reader=read,
        groups=_column([one.groups for one in opened], opened),
        parts=_column([one.parts for one in opened], opened),
    )


def _column(columns: Sequence[Sequence[str]], opened: Sequence[Samples]) -> list[str]:
    if not any(columns):
        return []
    return [value for column, one in zip(columns, opened, strict=True) for value in (column or [""] * len(one.names))]


def _within(problem: Problem, number: int) -> Problem:
    where = problem.path.removeprefix("data.") if problem.path.startswith("data.") else problem.path
    return Problem(f"data.sets.{number}: {where}", problem.message)


def _unlike(first: Samples, other: Samples, number: int) -> list[Problem]:
    where = f"data.sets.{number}"
    problems = []
    for stream in sorted(first.empty.keys() | other.empty.keys()):
        shapes = [one.empty[stream].data.shape[1:] if stream in one.empty else None for one in (first, other)]
        if shapes[0] != shapes[1]:
            shown = ["no such stream" if shape is None else str(shape) for shape in shapes]
            problems.append(
                Problem(where, f"expected {stream} with items of {shown[0]}, as in the first set, found {shown[1]}; prepare both alike")
            )
    return problems
