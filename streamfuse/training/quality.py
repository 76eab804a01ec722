"""What the data is worth, told before training starts: how complete it is, how balanced, and what would spoil the result.

An error makes training or its judgement pointless, a warning may. Each is a sentence that says what to change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from streamfuse.errors import DataError, Problem
from streamfuse.training.data import PARTS
from streamfuse.training.findings import Finding, find, rows_of_classes
from streamfuse.training.samples import Samples
from streamfuse.training.seen import Range, SeenRow, constant_features, contents_of, look
from streamfuse.training.splits import Split


@dataclass(frozen=True, slots=True)
class StreamQuality:
    """`present`: rows that have it. `constant`: numbers of the features that are the same everywhere."""

    present: int
    items: float
    """Per row that has it."""
    constant: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Quality:
    """`rows` by part, of the first split where there are several; `classes` is task -> label -> part -> rows."""

    rows: Mapping[str, int]
    streams: Mapping[str, StreamQuality]
    classes: Mapping[str, Mapping[str, Mapping[str, int]]]
    findings: Sequence[Finding]
    contents: str = ""
    """`blake2b:...` over what all rows hold."""

    def require(self) -> None:
        """Raises DataError with all errors, where there are any."""
        errors = [Problem(finding.path, finding.message) for finding in self.findings if finding.severity == "error"]
        if errors:
            raise DataError(errors)

    def document(self) -> dict[str, Any]:
        """The same for JSON."""
        return {
            "rows": dict(self.rows),
            "streams": {s: {"present": q.present, "items": q.items, "constant": list(q.constant)} for s, q in self.streams.items()},
            "classes": {task: {label: dict(parts) for label, parts in labels.items()} for task, labels in self.classes.items()},
            "findings": [{"severity": f.severity, "path": f.path, "message": f.message} for f in self.findings],
        }

    def table(self) -> RenderableType:
        """The same for a person."""
        total = sum(self.rows.values())
        shown: list[RenderableType] = [_table(("rows", *PARTS), [("", *(str(self.rows[part]) for part in PARTS))])]
        streams = [(s, f"{q.present / max(total, 1):.0%}", f"{q.items:.1f}", str(len(q.constant) or "")) for s, q in self.streams.items()]
        shown.append(_table(("stream", "in rows", "items a row", "constant features"), streams))
        for task, labels in self.classes.items():
            rows = [(label, *(str(parts.get(part, 0)) for part in PARTS)) for label, parts in labels.items()]
            shown.append(_table((task, *PARTS), rows))
        for finding in self.findings:
            style = "bold red" if finding.severity == "error" else "yellow"
            shown.append(Text.assemble((f"{finding.severity}  ", style), str(finding)))
        return Group(*shown)


def examine(samples: Samples, splits: Sequence[Split], tell: Callable[[int, int], None] = lambda done, of: None) -> Quality:
    """Reads every row once, and tells after each how many are done, of how many."""
    seen: list[SeenRow] = []
    ranges: dict[str, Range] = {}
    total = len(samples.names)
    for row in range(total):
        seen.append(look(samples, row, ranges))
        tell(row + 1, total)
    split = splits[0] if splits else Split("", np.arange(total), np.arange(0), np.arange(0))
    columns = {stream: [row.streams[stream] for row in seen if stream in row.streams] for stream in samples.empty}
    return Quality(
        rows={part: len(rows) for part, rows in split.parts.items()},
        streams={
            stream: StreamQuality(
                len(column), sum(one.items for one in column) / max(len(column), 1), tuple(constant_features(ranges.get(stream)))
            )
            for stream, column in columns.items()
        },
        classes={task: rows_of_classes(samples, task, split) for task in samples.heads if "labels" in samples.heads[task]},
        findings=sorted(find(samples, splits or [split], seen, ranges), key=lambda finding: finding.severity),
        contents=contents_of(seen),
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(*head, box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for row in rows:
        table.add_row(*row)
    for column in table.columns[1:]:
        column.justify = "right"
    return table
