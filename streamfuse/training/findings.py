"""What would spoil a result: sentences about a data set and how it is divided, each with what to change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from streamfuse.training.data import PARTS
from streamfuse.training.samples import Samples
from streamfuse.training.seen import Range, SeenRow, constant_features
from streamfuse.training.splits import Split

IMBALANCE = 20
"""Times as many rows of the most frequent class as of the rarest are worth a word."""
FEW = 30
"""With fewer rows to judge on, a result says little: the 95 % interval of 80 % on 30 rows is 28 points wide."""
SPARSE = 0.1
UNEQUAL = 0.25
"""Streams of one row that cover stretches which differ by more than this share of the longest."""


@dataclass(frozen=True, slots=True)
class Finding:
    severity: Literal["error", "warning"]
    path: str
    """What it is about: a stream, a task, a part."""
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


def find(samples: Samples, splits: Sequence[Split], traces: Sequence[SeenRow], ranges: Mapping[str, Range]) -> Iterator[Finding]:
    """All of them. Classes are counted in the first split."""
    yield from _row_findings(samples, traces)
    yield from _stream_findings(samples, traces, ranges)
    yield from _task_findings(samples, splits[0])
    for split in splits:
        yield from _part_findings(samples, traces, split)


def _row_findings(samples: Samples, traces: Sequence[SeenRow]) -> Iterator[Finding]:
    if not traces:
        yield Finding("error", "data", "expected rows, found none; is the file empty, or the wrong one?")
    unread = [row for row, trace in enumerate(traces) if trace.error]
    for row in unread[:10]:
        yield Finding("error", samples.names[row], "; ".join(str(problem) for problem in traces[row].error))
    if len(unread) > 10:
        yield Finding("error", "data", f"and {len(unread) - 10} more rows can't be read; mend them, or take them out")
    bare = [row for row, trace in enumerate(traces) if not trace.streams and not trace.error]
    if bare and len(bare) < len(traces):
        yield Finding(
            "warning", "data", f"{_rows(samples, bare)} without any stream; they teach nothing: take them out, or mend their paths"
        )
    unequal = [row for row, trace in enumerate(traces) if _differ([seen.extent for seen in trace.streams.values() if seen.extent])]
    if unequal:
        extents = ", ".join(f"{s} {seen.extent:.2f} s" for s, seen in traces[unequal[0]].streams.items() if seen.extent)
        message = f"{_rows(samples, unequal)} with streams of unequal length ({extents}); cut them to one span with start and end"
        yield Finding("warning", "data", message)


def _stream_findings(samples: Samples, traces: Sequence[SeenRow], ranges: Mapping[str, Range]) -> Iterator[Finding]:
    for stream in samples.empty:
        rows = [row for row, trace in enumerate(traces) if stream in trace.streams]
        if not rows:
            if traces:
                yield Finding("error", stream, "is in no row; correct where the data takes it from, or take it out of the recipe")
            continue
        if len(rows) < SPARSE * len(traces):
            yield Finding("warning", stream, f"is in {len(rows)} of {len(traces)} rows only; a model learns little from it")
        broken = [row for row in rows if not traces[row].streams[stream].finite]
        if broken:
            message = f"holds NaN or infinite numbers in {_rows(samples, broken)}; replace them, or leave the stream out of these rows"
            yield Finding("error", stream, message)
        if len(rows) > 1 and len({traces[row].streams[stream].digest for row in rows}) == 1:
            message = f"is the same in all {len(rows)} rows that have it, so it can't tell them apart; take it out, or mend how it is made"
            yield Finding("error", stream, message)
            continue
        constant = constant_features(ranges.get(stream))
        if constant:
            of = ranges[stream].least.size
            some = ", ".join(map(str, constant[:8])) + (" ..." if len(constant) > 8 else "")
            yield Finding("warning", stream, f"{len(constant)} of {of} features are the same in all rows ({some}); take them out")


def _task_findings(samples: Samples, split: Split) -> Iterator[Finding]:
    for task, target in samples.targets.items():
        known = _known(target)
        if not known[split.train].any() and len(split.train):
            yield Finding("error", task, "is known of no row to train on; give the rows their targets, or take the task out")
        elif "labels" in samples.heads[task] and len(split.train):
            yield from _class_findings(samples, task, split)
        elif len(split.train):
            values = target[split.train][known[split.train]]
            if len(values) > 1 and (np.nanmin(values, 0) == np.nanmax(values, 0)).any():
                yield Finding(
                    "error", task, "has one and the same value in all rows to train on; there is nothing to learn: mend the targets"
                )


def _class_findings(samples: Samples, task: str, split: Split) -> Iterator[Finding]:
    counts = rows_of_classes(samples, task, split)
    trained = {label: parts.get("train", 0) for label, parts in counts.items()}
    there = {label: count for label, count in trained.items() if count}
    if samples.targets[task].ndim == 1 and len(there) == 1:
        message = f"has one class only among the rows to train on, {next(iter(there))!r}; add rows of another class, or mend the labels"
        yield Finding("error", task, message)
        return
    unseen = [label for label, parts in counts.items() if not trained[label] and any(parts.values())]
    if unseen:
        yield Finding(
            "warning", task, f"{_list(unseen)} can't be learned: no row to train on has it, but others do; divide them differently"
        )
    empty = [label for label, parts in counts.items() if not any(parts.values())]
    if empty:
        yield Finding("warning", task, f"{_list(empty)} has no row at all; take it out of the labels, or add rows")
    if there and max(there.values()) >= IMBALANCE * min(there.values()):
        most, least = max(there, key=lambda label: there[label]), min(there, key=lambda label: there[label])
        message = f"{most!r} has {there[most]} rows to train on, {least!r} {there[least]}; judge by balanced accuracy or macro F1"
        yield Finding("warning", task, message)


def _part_findings(samples: Samples, traces: Sequence[SeenRow], split: Split) -> Iterator[Finding]:
    where = f"split ({split.name})" if split.name else "split"
    for part in ("validation", "test"):
        if 0 < len(split.parts[part]) < FEW:
            yield Finding("warning", where, f"{len(split.parts[part])} rows for {part}: a result on so few says little; bring more data")
    if not len(split.test):
        yield Finding(
            "warning", where, "no rows for the test: nothing will say how good the model is on data it has not seen; set aside some"
        )
    first: dict[tuple[tuple[str, bytes], ...], int] = {}
    part_of = {int(row): part for part, rows in split.parts.items() for row in rows}
    twice: dict[tuple[str, str], list[int]] = {}
    for row in sorted(part_of):
        content = tuple(sorted((stream, seen.digest) for stream, seen in traces[row].streams.items()))
        if content:
            other = first.setdefault(content, row)
            if part_of[other] != part_of[row]:
                both = sorted((part_of[other], part_of[row]), key=PARTS.index)
                twice.setdefault((both[0], both[1]), []).append(row)
    for (one, other_part), rows in twice.items():
        message = (
            f"{_rows(samples, rows)} with the same content in {one} and {other_part}; take one of each pair out, or the result is too good"
        )
        yield Finding("warning", where, message)


def rows_of_classes(samples: Samples, task: str, split: Split) -> dict[str, dict[str, int]]:
    """Label -> part -> rows of it."""
    labels, target = [str(label) for label in samples.heads[task]["labels"]], samples.targets[task]
    counts: dict[str, dict[str, int]] = {label: {} for label in labels}
    for part, rows in split.parts.items():
        if target.ndim == 1:
            found = Counter(target[rows].tolist())
            of = [found.get(number, 0) for number in range(len(labels))]
        else:
            of = np.nansum(target[rows], 0).astype(int).tolist()
        for label, count in zip(labels, of, strict=True):
            counts[label][part] = count
    return counts


def _known(target: NDArray[np.generic]) -> NDArray[np.bool_]:
    return np.asarray(target.astype(np.int64) >= 0 if target.ndim == 1 else ~np.isnan(target.astype(np.float64)).all(axis=1))


def _differ(extents: Sequence[float]) -> bool:
    return len(extents) > 1 and max(extents) - min(extents) > UNEQUAL * max(extents)


def _rows(samples: Samples, rows: Sequence[int]) -> str:
    return f"1 row ({samples.names[rows[0]]})" if len(rows) == 1 else f"{len(rows)} rows (first: {samples.names[rows[0]]})"


def _list(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:8])) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
