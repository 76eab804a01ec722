"""Data sets by the name that a recipe calls them. A new kind is a new file in this folder, registered with `DATA`.

What is registered is called with `folder` (paths are relative to it), `inputs` (stream -> preprocessing, None where the recipe
leaves it to the data), `heads` (task -> head, None where the data says which tasks there are) and its own options. It gives `Samples`,
or raises `DataError` with all that is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from streamfuse.config import Settings
from streamfuse.errors import DataError, Problem
from streamfuse.loading import problems_of
from streamfuse.models.parts import UnknownPart
from streamfuse.training.samples import DATA, Samples

Inputs = Mapping[str, Mapping[str, Any]]
Heads = Mapping[str, Mapping[str, Any]]
S = TypeVar("S", bound=Settings)

PARTS = ("train", "validation", "test")
MOST_PROBLEMS = 20
"""Told of one kind; of the others only how many there are."""


def open_data(data: Mapping[str, Any], folder: Path, inputs: Inputs | None = None, heads: Heads | None = None) -> Samples:
    """The data set that a recipe describes: `type` and its options.

    `inputs` are the streams that are wanted, with their preprocessing; `heads` the tasks, with their labels, where a model knows
    them already. Both None: what the data has. Raises `DataError`.
    """
    try:
        return DATA.make(data, folder=folder, inputs=inputs, heads=heads)
    except UnknownPart as error:
        raise DataError([Problem("data", str(error))]) from None


def checked(settings: type[S], options: Mapping[str, Any]) -> S:
    """The options of a data set as its settings. Raises `DataError`."""
    try:
        return settings.model_validate(options)
    except ValidationError as error:
        found = problems_of(error, settings)
        raise DataError([Problem(f"data.{problem.path}", problem.message) for problem in found]) from None


def shortened(problems: list[Problem], path: str) -> list[Problem]:
    """The first problems, and how many more there are."""
    more = len(problems) - MOST_PROBLEMS
    return [*problems[:MOST_PROBLEMS], Problem(path, f"and {more} more problems")] if more > 0 else problems
