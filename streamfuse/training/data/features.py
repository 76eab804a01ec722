"""Features that were computed elsewhere, as arrays in a .npz or .safetensors file.

Each stream is an array `(rows, size)` or `(rows, steps, size)`. Beside an array `audio` there may be `audio_length` (rows), how many
steps are there; `audio_mask` (rows, steps); `audio_time` (rows, steps), seconds from the window's end, without which the steps are spread
over the second before it. Where all numbers of an item are NaN, it is absent.

With `context`, a row is an utterance in a recording (its `group`, in the order of `position`), and each of its streams is the sequence of
the recording's utterances: `causal` those up to its own, which is the last one; `whole` those after it too. An item's time is its position
less the row's own, so that the row's own item stands at 0 and a model knows it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from streamfuse.config import Settings
from streamfuse.errors import DataError, Problem
from streamfuse.models.batch import Items
from streamfuse.models.preprocess.features import Features
from streamfuse.training.data import PARTS, Heads, Inputs, checked, shortened
from streamfuse.training.data.arrays import Array, read_arrays
from streamfuse.training.data.targets import encode
from streamfuse.training.samples import DATA, Rows

BESIDE = ("length", "mask", "time")


class FeatureSettings(Settings):
    path: str
    """A .npz or .safetensors file."""
    streams: dict[str, str] | list[str] | None = None
    """Stream -> its array, or the arrays that are streams; all float arrays of two or three dimensions where not given."""
    targets: dict[str, str] | None = None
    """Task -> its array: whole numbers and text are labels, floats values. `label` where not given and there is one; `{}`: none."""
    tasks: dict[str, dict[str, Any]] = Field({})
    """Task -> its head: `type`, `labels` (where the array numbers them from 0: their names) or `targets`."""
    group: str | None = None
    """The array that says which talker, room or recording a row is of; `group` where there is one."""
    part: str | None = None
    """The array that says train, validation or test of each row, or one of these for all rows; `part` where there is one."""
    name: str | None = None
    """The array that names the rows; `name` where there is one."""
    position: str | None = None
    """The array that says which place in its group a row has; `position` where there is one. For `context`."""
    context: Literal["causal", "whole"] | None = None
    context_items: int = Field(64, gt=0)
    """Of a longer recording, so many utterances: the row's own, and those before it or on both sides."""
    spacing: float = Field(1.0, gt=0)
    """Seconds from one position to the next."""


@DATA.register("features")
def features(folder: Path, inputs: Inputs | None, heads: Heads | None, **options: Any) -> Rows:
    """The rows of a file of arrays. Raises `DataError` with all that is wrong."""
    settings = checked(FeatureSettings, options)
    path = folder / settings.path
    arrays = read_arrays(path)
    problems: list[Problem] = []
    used = _find(path, settings, arrays, inputs, heads, problems)
    _raise(problems, path)
    count = len(arrays[next(iter(used.streams.values()))])
    group, position = used.column(arrays, "group"), used.column(arrays, "position")
    names = used.column(arrays, "name") or _names(path, group, position, count)
    streams = {stream: _stream(arrays, name, path, problems) for stream, name in used.streams.items()}
    _raise(problems, path)
    described = {task: {**settings.tasks.get(task, {}), **(heads or {}).get(task, {})} for task in used.targets}
    values = {task: _values(arrays[name], described[task].get("labels")) for task, name in used.targets.items()}
    made_heads, targets = encode(values, count, settings.tasks, heads, lambda row: names[row], problems)
    context = None
    if settings.context:
        deep = [used.streams[stream] for stream, part in streams.items() if part.data.shape[1] > 1]
        problems += [Problem(str(path), f"context takes arrays (rows, size), found more steps in {name}; leave it out") for name in deep]
        context = _Context.of(group, position, settings, path, problems)
    made_inputs = {s: _preprocessing(s, part, context, (inputs or {}).get(s, {}), problems) for s, part in streams.items()}
    _raise(problems, path)

    def read(row: int) -> dict[str, Items]:
        made = {s: part.alone(row) if context is None else context.items(part, row) for s, part in streams.items()}
        return {stream: items for stream, items in made.items() if items.mask.any()}

    parts = [settings.part] * count if settings.part in PARTS and "part" not in used.columns else used.column(arrays, "part")
    # recordings differ in length: a batch of short ones is not padded to the longest possible
    empty = {stream: Features(own["size"], own["most"] if context is None else 1).empty() for stream, own in made_inputs.items()}
    return Rows(made_inputs, empty, made_heads, targets, names, read, group, parts)


# --- which arrays are what -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Used:
    """Names of arrays: of each stream, of each task, and of the columns that are there."""

    streams: Mapping[str, str]
    targets: Mapping[str, str]
    columns: Mapping[str, str]

    def column(self, arrays: Mapping[str, Array], what: str) -> list[str]:
        return [str(value) for value in arrays[self.columns[what]].tolist()] if what in self.columns else []


def _find(
    path: Path, settings: FeatureSettings, arrays: Mapping[str, Array], inputs: Inputs | None, heads: Heads | None, problems: list[Problem]
) -> _Used:
    columns = {what: name for what in ("group", "part", "name", "position") if (name := getattr(settings, what) or what) in arrays}
    wanted = {"group": settings.group, "name": settings.name, "position": settings.position}
    wanted["part"] = None if settings.part in PARTS else settings.part
    targets = settings.targets if settings.targets is not None else {"label": "label"} if "label" in arrays else None
    if targets is None and heads is None:
        message = f"expected an array `label`, found {_list(arrays)}; name those with the targets in data.targets"
        problems.append(Problem(str(path), f"{message}, or set it to {{}} where the file has none"))
    streams = _streams(settings, arrays, inputs, {*columns.values(), *(targets or {}).values()})
    if not streams:
        problems.append(Problem(str(path), f"expected float arrays (rows, size), found {_list(arrays)}; name them in data.streams"))
    for where, name in [
        *((f"data.{what}", name) for what, name in wanted.items() if name is not None),
        *((f"data.streams.{stream}", name) for stream, name in streams.items()),
        *((f"data.targets.{task}", name) for task, name in (targets or {}).items()),
    ]:
        if name not in arrays:
            problems.append(Problem(where, f"expected an array of {path.name}, found {name!r}; it has {_list(arrays)}"))
    known = {name for name in (*streams.values(), *(targets or {}).values(), *columns.values()) if name in arrays}
    known |= {f"{name}_{what}" for name in streams.values() for what in BESIDE} & arrays.keys()
    lengths = {name: len(arrays[name]) if arrays[name].ndim else 0 for name in sorted(known)}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name} {length}" for name, length in lengths.items())
        problems.append(Problem(str(path), f"expected arrays with equally many rows, found {shown}; cut them to the same rows"))
    elif known and not any(lengths.values()):
        problems.append(Problem(str(path), "expected rows, found none; is it the wrong file?"))
    return _Used(streams, targets or {}, columns)


def _streams(settings: FeatureSettings, arrays: Mapping[str, Array], inputs: Inputs | None, taken: set[str]) -> dict[str, str]:
    if isinstance(settings.streams, dict):
        named = settings.streams
    elif settings.streams is not None:
        named = {name: name for name in settings.streams}
    elif inputs:
        named = {name: name for name in inputs}
    else:
        beside = {f"{name}_{what}" for name in arrays for what in BESIDE}
        floats = (name for name, array in arrays.items() if np.issubdtype(array.dtype, np.floating) and array.ndim in (2, 3))
        named = {name: name for name in floats if name not in taken and name not in beside}
    return {stream: name for stream, name in named.items() if not inputs or stream in inputs}


def _names(path: Path, group: Sequence[str], position: Sequence[str], count: int) -> list[str]:
    if group and position:
        return [f"{one}, {place}" for one, place in zip(group, position, strict=True)]
    return [f"{path.stem} {row}" for row in range(count)]


def _list(names: Mapping[str, object]) -> str:
    return ", ".join(names) or "none"


def _raise(problems: list[Problem], path: Path) -> None:
    if problems:
        raise DataError(shortened(problems, str(path)))


# --- what they hold ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Stream:
    data: NDArray[np.float32]  # (rows, steps, size)
    time: NDArray[np.float32]  # (rows, steps)
    mask: NDArray[np.bool_]  # (rows, steps)

    def alone(self, row: int) -> Items:
        return Items(self.data[row], self.time[row], self.mask[row])


def _stream(arrays: Mapping[str, Array], name: str, path: Path, problems: list[Problem]) -> _Stream:
    given = arrays[name]
    nothing = _Stream(np.zeros((1, 1, 1), np.float32), np.zeros((1, 1), np.float32), np.zeros((1, 1), np.bool_))
    if given.ndim not in (2, 3) or not (np.issubdtype(given.dtype, np.number) or given.dtype == np.bool_) or not given[0].size:
        message = f"expected {name} as numbers (rows, size) or (rows, steps, size), found {given.shape} {given.dtype}; reshape it"
        problems.append(Problem(str(path), message))
        return nothing
    with np.errstate(over="ignore", invalid="ignore"):
        data = given.astype(np.float32).reshape(len(given), -1, given.shape[-1])
    rows, steps, _ = data.shape
    beside: dict[str, Array] = {what: arrays[f"{name}_{what}"] for what in BESIDE if f"{name}_{what}" in arrays}
    for what, shape in (("length", (rows,)), ("mask", (rows, steps)), ("time", (rows, steps))):
        if what in beside and beside[what].shape != shape:
            message = f"expected {name}_{what} as {shape} beside {name} {given.shape}, found {beside[what].shape}; correct its shape"
            problems.append(Problem(str(path), message))
            return nothing
    mask: NDArray[np.bool_] = np.asarray(~np.isnan(data).all(axis=2))
    if "length" in beside:
        if beside["length"].min() < 0 or beside["length"].max() > steps:
            message = f"expected {name}_length from 0 to {steps}, the steps of {name}, found up to {beside['length'].max()}; correct it"
            problems.append(Problem(str(path), message))
        mask &= np.arange(steps) < beside["length"][:, None]
    if "mask" in beside:
        mask &= beside["mask"].astype(np.bool_)
    time = beside["time"] if "time" in beside else np.broadcast_to(np.arange(1 - steps, 1) / steps, (rows, steps))
    return _Stream(np.where(mask[..., None], data, np.float32(0)), time.astype(np.float32), mask)


def _values(array: Array, labels: Sequence[str] | None) -> list[object]:
    """One value a row, as people write them; None where unknown."""
    if array.ndim == 2 and not np.issubdtype(array.dtype, np.floating):
        names = labels if labels is not None and len(labels) == array.shape[1] else range(array.shape[1])
        return [[str(name) for name, mark in zip(names, row, strict=True) if mark] for row in array.tolist()]
    if np.issubdtype(array.dtype, np.floating):
        return [None if np.isnan(row).any() else row.tolist() for row in array]
    values = array.tolist()
    known = {str(label) for label in labels or ()}
    if labels and np.issubdtype(array.dtype, np.integer) and not {str(value) for value in values} <= known:
        return [None if value == -1 else labels[value] if 0 <= value < len(labels) else value for value in values]
    return [None if value == "" else value for value in values]


def _preprocessing(
    stream: str, part: _Stream, context: _Context | None, given: Mapping[str, Any], problems: list[Problem]
) -> dict[str, Any]:
    """What prepares such features where the model is served."""
    own = {"type": "features", "size": part.data.shape[2], "most": part.data.shape[1] if context is None else context.most, **given}
    if own["type"] != "features" or own["size"] != part.data.shape[2]:
        message = f"expected features of size {part.data.shape[2]}, as the data has them, found {dict(given)}; correct it"
        problems.append(Problem(f"model.inputs.{stream}", message))
    return own


# --- a row within its recording -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Context:
    """Which rows are read along with each row, in order, and how far they are from it in seconds."""

    rows: Sequence[NDArray[np.int64]]
    times: Sequence[NDArray[np.float32]]
    most: int

    @classmethod
    def of(
        cls, group: Sequence[str], position: Sequence[str], settings: FeatureSettings, path: Path, problems: list[Problem]
    ) -> _Context | None:
        try:
            places = np.array([float(place) for place in position])
        except ValueError:
            places = np.full(len(position), np.nan)
        if not group or not position or not np.isfinite(places).all():
            message = (
                "context needs to know which recording a row is of, and its place there as a number; name the arrays in data.group and"
            )
            problems.append(Problem(str(path), f"{message} data.position"))
            return None
        of_group: dict[str, list[int]] = {}
        for row in np.argsort(places, kind="stable"):
            of_group.setdefault(group[row], []).append(int(row))
        twice = sorted(one for one, rows in of_group.items() if len({places[row] for row in rows}) < len(rows))
        if twice:
            message = f"expected each row of a recording at its own position, found two at one in {', '.join(twice[:5])}; correct them"
            problems.append(Problem(str(path), message))
            return None
        before = settings.context_items - 1 if settings.context == "causal" else settings.context_items // 2
        after = 0 if settings.context == "causal" else settings.context_items - 1 - before
        rows: list[NDArray[np.int64]] = [np.empty(0, np.int64)] * len(group)
        times = [np.empty(0, np.float32)] * len(group)
        for members in of_group.values():
            for k, row in enumerate(members):
                rows[row] = np.array(members[max(k - before, 0) : k + 1 + after])
                times[row] = ((places[rows[row]] - places[row]) * settings.spacing).astype(np.float32)
        return cls(rows, times, settings.context_items)

    def items(self, part: _Stream, row: int) -> Items:
        rows = self.rows[row]
        return Items(part.data[rows, 0], self.times[row], part.mask[rows, 0])
