"""Rows of a manifest: media files with spans, words and numbers, with their labels. See `streamfuse.training.data.table`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from streamfuse.errors import DataError, Problem
from streamfuse.models.batch import Items
from streamfuse.models.remember import OnceCache
from streamfuse.models.truth import words
from streamfuse.training.data import Heads, Inputs, checked, shortened
from streamfuse.training.data.layout import MAX_PIXELS, Layout, with_tokens
from streamfuse.training.data.row_reader import TRACKS, ReadSettings, RowReader
from streamfuse.training.data.table import Row, read_table, where
from streamfuse.training.data.targets import encode
from streamfuse.training.samples import DATA, Rows


class ManifestSettings(ReadSettings):
    path: str
    """Lines of JSON, or CSV."""
    tasks: dict[str, dict[str, Any]] = Field({})
    """Task -> its head: `type`, and its `labels` in their order."""
    part: Literal["train", "validation", "test"] | None = None
    """Of rows that say none."""
    max_pixels: int = Field(MAX_PIXELS, gt=0)
    """Greater pictures are refused before they are decoded."""
    cache_bytes: int = Field(1024 * 1024 * 1024, gt=0)
    """Prepared rows that are kept from one epoch to the next."""


@DATA.register("manifest")
def manifest(folder: Path, inputs: Inputs | None, heads: Heads | None, **options: Any) -> Rows:
    """The rows of a manifest; media are read as the rows are. Raises `DataError` with all that is wrong."""
    settings = checked(ManifestSettings, options)
    if not inputs:
        raise DataError([Problem("model.inputs", "is needed with a manifest: stream -> how it is prepared, such as {type: waveform}")])
    path = folder / settings.path
    table = read_table(path)
    kinds = {stream: part.modality for stream, part in Layout(with_tokens(inputs, lambda _: ())).parts.items()}
    problems = list(_columns(path, [row for _, row in table], kinds, heads))
    reader = RowReader(path.parent, settings, kinds)
    for line, row in table:
        problems += [Problem(where(path, line), message) for message in reader.mistakes(row)]
    if problems:
        raise DataError(shortened(problems, str(path)))
    values = _values([row for _, row in table])
    names = [row.name or where(path, line) for line, row in table]
    made_heads, targets = encode(values, len(table), settings.tasks, heads, lambda number: where(path, table[number][0]), problems)
    if problems:
        raise DataError(shortened(problems, str(path)))
    parts = [row.part or settings.part or "" for _, row in table]
    learned = with_tokens(
        inputs, lambda stream: _words(reader, stream, [r for (_, r), p in zip(table, parts, strict=True) if p in ("", "train")])
    )
    layout = Layout(learned, settings.max_pixels)
    cache = OnceCache(settings.cache_bytes, _size)

    def read(number: int) -> dict[str, Items]:
        line, row = table[number]
        return dict(cache.get(number, partial(reader.prepared, layout, row, where(path, line))))

    groups = [row.group or "" for _, row in table]
    return Rows(learned, layout.empty, made_heads, targets, names, read, groups if any(groups) else (), parts if any(parts) else ())


# --- what the columns say ------------------------------------------------------------------------------------------------------------


def _columns(path: Path, rows: Sequence[Row], kinds: Mapping[str, str], heads: Heads | None) -> Iterable[Problem]:
    """Streams that no row has, and names that are nearly those of a field or a stream."""
    there = {name for row in rows for name in row.streams}
    shared = any(row.media for row in rows)
    for stream, kind in kinds.items():
        if stream not in there and not (shared and kind in TRACKS):
            message = (
                f"expected a column {stream!r} for the stream of that name, found {_list(there)}; add it, or take it out of model.inputs"
            )
            yield Problem(str(path), message)
    fields = set(Row.model_fields)
    for name in sorted(there - kinds.keys()):
        near = difflib.get_close_matches(name, {*kinds, *fields} - there, 1, cutoff=0.75)
        if near:
            yield Problem(str(path), f"the column {name!r} is no stream of the recipe and no field; did you mean {near[0]!r}?")
    if heads is None and not any(_values(rows)):
        yield Problem(
            str(path), f"expected label, labels, value or targets in the rows, found {_list(there)} only; add what is to be learned"
        )


def _values(rows: Sequence[Row]) -> dict[str, list[object]]:
    """Task -> what each row says of it."""
    said = [{**row.targets, **{task: getattr(row, task) for task in ("label", "labels", "value")}} for row in rows]
    tasks = dict.fromkeys(task for values in said for task, value in values.items() if value is not None)
    return {task: [values.get(task) for values in said] for task in tasks}


def _words(reader: RowReader, stream: str, rows: Sequence[Row]) -> Iterable[str]:
    """What the rows say in a stream of text."""
    for row in rows:
        for packet in reader.packets(row, stream):
            yield words(packet)


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _size(prepared: Mapping[str, Items]) -> int:
    return sum(items.data.nbytes + items.time.nbytes + items.mask.nbytes for items in prepared.values())
