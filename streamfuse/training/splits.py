"""Which rows are trained on, which decide when to stop, and which are for the test alone. A group never stands on two sides."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from streamfuse.config import Settings
from streamfuse.errors import DataError, Problem
from streamfuse.loading import problems_of
from streamfuse.training.data import PARTS
from streamfuse.training.samples import Samples

Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Row numbers of each part, in order; `name` says what is left out (`fold 1`, a group), empty where there is one split only."""

    name: str
    train: Numbers
    validation: Numbers
    test: Numbers

    @property
    def parts(self) -> Mapping[str, Numbers]:
        return {"train": self.train, "validation": self.validation, "test": self.test}


class ByPart(Settings):
    """As the data says of each row. Where it has no validation part, a share of the training part becomes it."""

    by: Literal["part"] = "part"
    validation: float = Field(0.15, gt=0, lt=1)
    seed: int = 0


class ByShare(Settings):
    by: Literal["share"] = "share"
    validation: float = Field(0.15, gt=0, lt=1)
    test: float = Field(0.15, ge=0, lt=1)
    """Of all rows; that of the validation, too."""
    seed: int = 0


class ByFolds(Settings):
    """Each fold is the test once; of the rest, a share is the validation."""

    by: Literal["folds"]
    folds: int = Field(5, ge=2)
    validation: float = Field(0.15, gt=0, lt=1)
    seed: int = 0


class ByGroup(Settings):
    """Whole groups (talkers, rooms). Without `test`, each group is the test once."""

    by: Literal["group"]
    test: list[str] = Field([])
    validation: list[str] | float = 0.15
    """Groups, or a share of the rows that are not tested on, in whole groups."""
    seed: int = 0


SplitSettings = ByPart | ByShare | ByFolds | ByGroup
KINDS: Mapping[object, type[SplitSettings]] = {"part": ByPart, "share": ByShare, "folds": ByFolds, "group": ByGroup}


def make_splits(samples: Samples, split: Mapping[str, Any]) -> list[Split]:
    """The splits that a recipe describes: one, or as many as there are folds or groups.

    Without `by` they are the data's own parts where it has any, and shares otherwise. Whole groups stay together where the rows have
    groups; classes of the first task that has classes are spread evenly as far as that allows. The same rows and seed give the same
    splits. Raises `DataError`.
    """
    settings = _settings(split, samples)
    groups = [group or f"row {row}" for row, group in enumerate(samples.groups)]  # a row without a group stands for itself
    columns = _Columns(groups, _classes(samples), settings.seed)
    rows = np.arange(len(samples.names))
    if not len(rows):
        raise DataError([Problem("data", "expected rows, found none; is the file empty, or the wrong one?")])
    splits = list(_splits(samples, settings, columns, rows))
    problems = [problem for each in splits for problem in _problems(each, columns.groups)]
    if problems:
        raise DataError(problems)
    return splits


@dataclass(frozen=True, slots=True)
class _Columns:
    groups: Sequence[str]
    classes: Numbers
    seed: int


def _settings(split: Mapping[str, Any], samples: Samples) -> SplitSettings:
    by = split.get("by", "part" if any(samples.parts) else "share")
    if not isinstance(by, str) or by not in KINDS:
        raise DataError([Problem("split.by", f"expected one of {', '.join(map(str, KINDS))}, found {by!r}")])
    try:
        return KINDS[by].model_validate({**split, "by": by})
    except ValidationError as error:
        raise DataError([Problem(f"split.{p.path}", p.message) for p in problems_of(error, KINDS[by])]) from None


def _splits(samples: Samples, settings: SplitSettings, columns: _Columns, rows: Numbers) -> Iterator[Split]:
    if isinstance(settings, ByPart):
        yield _by_part(samples, settings, columns)
    elif isinstance(settings, ByShare):
        if settings.validation + settings.test >= 1:
            message = f"expected shares that leave rows to train on, found validation {settings.validation} and test {settings.test}"
            raise DataError([Problem("split", message)])
        rest, test = _held_out(rows, settings.test, columns, "split.test")
        train, validation = _held_out(rest, settings.validation / (1 - settings.test), columns, "split.validation")
        yield Split("", train, validation, test)
    elif isinstance(settings, ByFolds):
        for number, (rest, test) in enumerate(_folds(rows, settings.folds, columns, "split.folds")):
            train, validation = _held_out(rest, settings.validation, columns, "split.validation")
            yield Split(f"fold {number + 1} of {settings.folds}", train, validation, test)
    else:
        yield from _by_group(settings, columns, rows)


def _by_part(samples: Samples, settings: ByPart, columns: _Columns) -> Split:
    if not any(samples.parts):
        raise DataError(
            [Problem("split.by", "is part, but the rows say no part; give them one (train, validation, test), or set by: share")]
        )
    unknown = sorted(set(samples.parts) - {*PARTS})
    if unknown:
        message = f"expected {', '.join(PARTS)} as the part of each row, found {unknown[0] or 'none'!r}; correct it in the data"
        raise DataError([Problem("data", message)])
    found = {part: np.flatnonzero(np.asarray(samples.parts) == part) for part in PARTS}
    train, validation = found["train"], found["validation"]
    if not len(validation) and len(train):
        train, validation = _held_out(train, settings.validation, columns, "split.validation")
    return Split("", train, validation, found["test"])


def _by_group(settings: ByGroup, columns: _Columns, rows: Numbers) -> Iterator[Split]:
    if not columns.groups:
        message = "is group, but the rows have no groups; give each row one (its talker, its room), or set by: folds"
        raise DataError([Problem("split.by", message)])
    named = np.asarray(columns.groups)
    known = sorted(set(columns.groups))
    fixed = settings.validation if isinstance(settings.validation, list) else []
    problems = [
        Problem(f"split.{part}", f"expected groups of the data, found {group!r}; they are {_some(known)}")
        for part, groups in (("test", settings.test), ("validation", fixed))
        for group in groups
        if group not in known
    ]
    problems += [
        Problem("split", f"the group {group!r} is in both validation and test; leave it in one of them")
        for group in sorted({*fixed} & {*settings.test})
    ]
    if problems:
        raise DataError(problems)
    for tested in [settings.test] if settings.test else [[group] for group in known if group not in fixed]:
        test = rows[np.isin(named, tested)]
        rest = rows[~np.isin(named, tested)]
        if isinstance(settings.validation, list):
            chosen = np.isin(named[rest], fixed)
            train, validation = rest[~chosen], rest[chosen]
        else:
            train, validation = _held_out(rest, settings.validation, columns, "split.validation")
        yield Split("" if settings.test else f"without {tested[0]}", train, validation, test)


def _held_out(rows: Numbers, share: float, columns: _Columns, path: str) -> tuple[Numbers, Numbers]:
    """The rest and about this share of the rows, in whole groups: one fold of as many as the share asks for."""
    if share <= 0:
        return rows, rows[:0]
    most = len({columns.groups[row] for row in rows}) if columns.groups else len(rows)
    flipped = share > 0.5
    count = min(max(round(1 / (1 - share if flipped else share)), 2), max(most, 2))
    rest, held = next(_folds(rows, count, columns, path))
    return (held, rest) if flipped else (rest, held)


def _folds(rows: Numbers, count: int, columns: _Columns, path: str) -> Iterator[tuple[Numbers, Numbers]]:
    """`count` times the rest and a fold of the rows."""
    groups = [columns.groups[row] for row in rows] if columns.groups else None
    there = len(set(groups)) if groups is not None else len(rows)
    if there < count:
        what = "groups" if groups is not None else "rows"
        message = f"expected at least {count} {what} to divide, found {there}; set a smaller number of folds, or bring more data"
        raise DataError([Problem(path, message)])
    try:
        from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
    except ImportError:
        message = "dividing rows needs scikit-learn; pip install 'streamfuse[train]', or give each row its part"
        raise DataError([Problem(path, message)]) from None
    classes = columns.classes[rows]
    if np.bincount(classes - classes.min()).max() < count:
        classes = np.zeros_like(classes)  # no class has enough rows to be in every fold
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes with fewer rows than folds; the data report tells of them
        for rest, held in kind(count, shuffle=True, random_state=columns.seed).split(rows, classes, groups):
            yield rows[rest], rows[held]


def _classes(samples: Samples) -> Numbers:
    """The class of each row in the first task that has classes; one class for all where none has."""
    for target in samples.targets.values():
        if target.ndim == 1 and np.issubdtype(target.dtype, np.integer):
            return target.astype(np.int64)
    return np.zeros(len(samples.names), np.int64)


def _problems(split: Split, groups: Sequence[str]) -> Iterator[Problem]:
    where = f"split ({split.name})" if split.name else "split"
    for part in ("train", "validation"):
        if not len(split.parts[part]):
            yield Problem(where, f"expected rows in the {part} part, found none; bring more data, or divide it differently")
    if not groups:
        return
    of_part = {part: {groups[row] for row in rows} for part, rows in split.parts.items()}
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        both = sorted(of_part[one] & of_part[other])
        if both:
            these = f"the group {both[0]!r} is" if len(both) == 1 else f"{len(both)} groups ({_some(both)}) are"
            yield Problem(
                where,
                f"{these} in both {one} and {other}, so the model would be judged on what it knows by heart; "
                "put all rows of a group into one part, or leave the part out and set split.by: share",
            )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
