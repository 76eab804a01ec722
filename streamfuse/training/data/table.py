"""Reads a manifest: what each row of a data set consists of, as lines of JSON or as CSV. UTF-8, with or without a byte order mark.

A row in JSON; all fields may be left out, and any other name is a stream:

    {"name": "r1", "group": "anna", "part": "train", "media": "clips/a.mp4", "start": 3.0, "end": 4.0, "label": "yes",
     "audio": "a.wav", "text": "hello", "camera": {"media": "b.mp4", "track": "video:1", "start": 1.5, "end": 2.5}}

The same in CSV: one column a field, `camera.media` and `camera.start` for those of a stream, `target.mood` for one of several tasks,
`|` between labels. An empty cell is left out.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema, model_validator

from streamfuse.config import Settings
from streamfuse.errors import DataError, Problem
from streamfuse.loading import problems_of
from streamfuse.training.data import shortened

Seconds = Annotated[float, Field(ge=0, lt=1e9, allow_inf_nan=False)]


class TimedText(Settings):
    text: str
    at: Seconds = 0
    """Seconds after the row's start."""
    duration: Seconds = 0


class Cell(Settings):
    """What a row has of one stream. Without `plain`, `media`, `text` and `values` it is of the row's `media`."""

    plain: str | None = None
    """A path or, for a stream of text, the words; what a text in place of an object means."""
    media: str | None = None
    """A file of video, sound, captions, a picture or words; relative to the manifest."""
    track: str | None = Field(None, pattern=r"^(video|audio|subtitle):\d{1,3}$")
    """Which track of the file; the first of its kind where not given."""
    start: Seconds | None = None
    """Where the row's part of the file begins, in seconds from the file's first instant; the row's `start` where not given."""
    end: Seconds | None = None
    at: Seconds = 0
    """Seconds after the row's start at which a picture, words or values stand."""
    text: str | list[TimedText] | None = None
    values: list[float] | None = None
    """A row of numbers, for a stream of features."""

    @model_validator(mode="after")
    def _one_origin(self) -> Cell:
        given = [name for name in ("plain", "media", "text", "values") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"expected one of media, text and values, found {' and '.join(given)}")
        if self.values is not None and not all(map(math.isfinite, self.values)):
            raise ValueError("expected values that are finite numbers, found others; leave the stream out where unknown")
        return self


def _cell(given: object) -> object:
    if given is None or isinstance(given, str):
        return None if given is None else {"plain": given}
    if not isinstance(given, dict):
        raise ValueError(f"expected a path, words or an object, found {given!r:.60}; put it in quotes")
    unknown = [name for name in given if name not in Cell.model_fields]
    if unknown:
        raise ValueError(f"expected {', '.join(list(Cell.model_fields)[1:])}, found {unknown[0]!r:.60}; correct the name")
    return given


def _label(given: object) -> object:
    if not isinstance(given, str | int) or given == "":
        raise ValueError(f"expected a label as text or a whole number, found {given!r:.60}; put it in quotes, or use `value` for numbers")
    return given


def _labels(given: object) -> object:
    if not isinstance(given, list):
        raise ValueError(f"expected a list of labels, found {given!r:.60}; put it in brackets")
    return [_label(one) for one in given]


def _value(given: object) -> object:
    values = given if isinstance(given, list) else [given]
    try:
        numbers = [float(one) for one in values if isinstance(one, int | float | str) and not isinstance(one, bool)]
    except (ValueError, OverflowError):
        numbers = []
    if not values or len(numbers) != len(values) or not all(map(math.isfinite, numbers)):
        raise ValueError(f"expected a finite number or a list of them, found {given!r:.60}; leave it out where unknown")
    return numbers if isinstance(given, list) else numbers[0]


def _target(given: object) -> object:
    for one in given if isinstance(given, list) else [given]:
        if not isinstance(one, str | int | float) or (isinstance(one, float) and not math.isfinite(one)):
            raise ValueError(f"expected a label, a number, or a list of them, found {one!r:.60}; leave it out where unknown")
    return given


_ONE = ["string", "integer", "boolean"]
Label = Annotated[Any, BeforeValidator(_label), WithJsonSchema({"type": _ONE})]
Labels = Annotated[Any, BeforeValidator(_labels), WithJsonSchema({"type": "array", "items": {"type": _ONE}})]
Target = Annotated[Any, BeforeValidator(_target), WithJsonSchema({"type": ["string", "number", "boolean", "array"]})]
Value = Annotated[Any, BeforeValidator(_value), WithJsonSchema({"type": ["number", "array"], "items": {"type": "number"}})]


class Row(BaseModel):
    """One row. Any other name is a stream, with a path, words or an object."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True, coerce_numbers_to_str=True)
    __pydantic_extra__: dict[str, Annotated[Cell | None, BeforeValidator(_cell, json_schema_input_type=str | Cell | None)]] = Field(
        init=False
    )

    name: str | None = None
    """By which a person finds it again; the file and its line where not given."""
    group: str | None = None
    """Whose it is: a talker, a room. A group never stands on two sides of a split."""
    part: Literal["train", "validation", "test"] | None = None
    media: str | None = None
    """The file of every stream that has none of its own."""
    start: Seconds = 0
    end: Seconds | None = None
    """Seconds in the file; to its end where not given."""
    label: Label | None = None
    """One class, the task `label`."""
    labels: Labels | None = None
    """Several classes, the task `labels`."""
    value: Value | None = None
    """A number or several, the task `value`."""
    targets: dict[str, Target | None] = Field({})
    """Further tasks."""

    @property
    def streams(self) -> Mapping[str, Cell | None]:
        return self.__pydantic_extra__ or {}


def manifest_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a line of a manifest."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Row.model_json_schema(), "title": "StreamFuse manifest, one line"}


def read_table(path: Path) -> list[tuple[int, Row]]:
    """The rows with their lines, from 1. Raises `DataError` with all that is wrong."""
    text = _text(path)
    problems: list[Problem] = []
    is_csv = path.suffix.lower() in (".csv", ".tsv") or (path.suffix.lower() not in (".jsonl", ".json", ".ndjson") and text[:1] != "{")
    rows = []
    for line, given in _csv(path, text, problems) if is_csv else _json(path, text, problems):
        try:
            rows.append((line, Row.model_validate(given)))
        except ValidationError as error:
            problems += [Problem(where(path, line), str(problem)) for problem in problems_of(error, Row)]
    if not rows and not problems:
        problems.append(Problem(str(path), "expected rows, found none; is it the wrong file?"))
    if problems:
        raise DataError(shortened(problems, str(path)))
    return rows


def where(path: Path, line: int) -> str:
    return f"{path.name}, line {line}"


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError([Problem(str(path), f"expected a manifest that can be read, found: {reason}; correct the path")]) from None
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError([Problem(str(path), "expected UTF-8, found UTF-16; save it as UTF-8 (in Excel: CSV UTF-8)")])
    if data[:1] == b"\x80":
        raise DataError(
            [Problem(str(path), "is a pickle, which can run code when it is opened; it was not opened. Write JSON lines or CSV")]
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"expected UTF-8, found the byte 0x{data[error.start]:02x} at {error.start}; save it as UTF-8"
        raise DataError([Problem(str(path), message)]) from None


def _json(path: Path, text: str, problems: list[Problem]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for line, content in enumerate(text.split("\n"), 1):
        if not content.strip():
            continue
        try:
            found = json.loads(content, parse_constant=_refuse, object_pairs_hook=_once)
            if "\\ud" in content.lower():
                json.dumps(found, ensure_ascii=False).encode()  # half of a surrogate pair is no character
        except (ValueError, RecursionError) as error:
            problems.append(Problem(where(path, line), f"expected one JSON object, found {content.strip()[:60]!r}: {error}"))
            continue
        if isinstance(found, dict):
            yield line, found
        else:
            message = f"expected a JSON object, found {content.strip()[:60]!r}; write one object a line, without a list around them"
            problems.append(Problem(where(path, line), message))


def _csv(path: Path, text: str, problems: list[Problem]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    first = text.split("\n", 1)[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count), strict=True)
    try:
        head = [name.strip() for name in next(reader, [])]
        twice = sorted({name for name in head if head.count(name) > 1 and name})
        if twice or not any(head):
            found = f"{twice[0]!r} twice" if twice else "none"
            problems.append(
                Problem(where(path, 1), f"expected the names of the columns, found {found}; give each column a name of its own")
            )
            return
        for cells in reader:
            if len(cells) > len(head):
                message = f"expected {len(head)} columns, found {len(cells)}; put texts that hold a comma in quotes"
                problems.append(Problem(where(path, reader.line_num), message))
            elif any(cells):
                yield reader.line_num, _row(dict(zip(head, cells, strict=False)))
    except csv.Error as error:
        problems.append(Problem(where(path, reader.line_num), f"expected CSV, found {error}; write it again, with quotes doubled"))


def _row(cells: Mapping[str, str]) -> dict[str, Any]:
    """The cells of a line as an object."""
    row: dict[str, Any] = {}
    for column, cell in cells.items():
        if not cell.strip() or not column:
            continue
        name, dot, field = column.partition(".")
        if name == "target" and dot:
            row.setdefault("targets", {})[field] = cell.strip()
        elif column == "labels":
            row[column] = [label.strip() for label in cell.split("|")]
        elif dot or (name not in Row.model_fields and any(other.startswith(f"{name}.") for other in cells)):
            row.setdefault(name, {})[field or "plain"] = cell.strip()
        else:
            row[column] = cell.strip()
    return row


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is not JSON; leave out what is unknown")


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a field stands in it twice")
    return found
