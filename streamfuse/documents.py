"""JSON documents that outlive a process: predictions, cursors, and the instants in them.

Instants are RFC 3339 with nanoseconds (for people and for any language) beside plain ns (for arithmetic; beyond
2^53, so JavaScript reads the former). Readers refuse a document they can't trust with an `InvalidRecord` that says
where and why, and pass over fields that they don't know: a later minor version may add some.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from streamfuse.errors import InvalidRecord
from streamfuse.types import SECOND, Cursor, Offsets, Prediction

PREDICTION_SCHEMA = 1
PREDICTION_SCHEMA_ID = f"urn:streamfuse:schema:prediction:{PREDICTION_SCHEMA}"
CURSOR_SCHEMA = 1

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,18}))?(?:([Zz])|([+-])(\d\d):(\d\d))", re.ASCII)

T = TypeVar("T")


def format_time(instant: int) -> str:
    """ns UTC -> `2026-05-01T12:00:00.000000001Z` (RFC 3339). Raises InvalidRecord outside the years 1 to 9999."""
    seconds, ns = divmod(instant, SECOND)
    try:
        moment = _EPOCH + timedelta(seconds=seconds)
    except OverflowError:
        raise InvalidRecord(
            f"expected an instant within the years 1 to 9999, found {instant} ns since 1970; set the producer's clock"
        ) from None
    return f"{moment.replace(tzinfo=None).isoformat()}.{ns:09d}Z"


def parse_time(text: str) -> int:
    """RFC 3339 -> ns UTC; digits beyond the ninth are cut off. Raises InvalidRecord for anything else, a time
    without its zone included."""
    found = _RFC3339.fullmatch(text)
    if not found:
        raise InvalidRecord(f"expected an RFC 3339 time such as 2026-05-01T12:00:00.000000001Z, found {text[:80]!r}")
    date, hour, minute, second, fraction, _, sign, zone_hours, zone_minutes = found.groups()
    leap = second == "60"  # RFC 3339 allows a leap second; UTC in ns has none, so it is the next second
    try:
        moment = datetime.fromisoformat(f"{date}T{hour}:{minute}:{'59' if leap else second}+00:00")
        if sign:
            if int(zone_hours) > 23 or int(zone_minutes) > 59:
                raise ValueError("zone")
            zone = timedelta(hours=int(zone_hours), minutes=int(zone_minutes))
            moment = moment + zone if sign == "-" else moment - zone
    except (ValueError, OverflowError):
        raise InvalidRecord(f"expected a date and time that exist, found {text[:80]!r}") from None
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds + leap) * SECOND + int((fraction or "0")[:9].ljust(9, "0"))


# --- predictions ------------------------------------------------------------------------------------------------------


def prediction_to_json(prediction: Prediction) -> str:
    """One line of JSON by `prediction_schema()`, keys always in the same order. Lone surrogates in texts become `?`.

    Raises InvalidRecord for what JSON can't carry: a score that is not a finite number, an instant outside the years
    1 to 9999.
    """
    p = prediction
    told = {"scores": p.scores, "contributions": p.contributions, "weights": p.weights}
    for name, numbers in {**told, **{f"outputs.{task}": answer for task, answer in p.outputs.items()}}.items():
        for label, number in numbers.items():
            if not math.isfinite(number):
                raise InvalidRecord(f"{name}.{label}: expected a finite number, found {number}; the model's output is broken")
    return _dump(
        {
            "schema": PREDICTION_SCHEMA,
            "key": p.key,
            "start": format_time(p.start),
            "end": format_time(p.end),
            "revision": p.revision,
            "label": p.label,
            "scores": {k: float(v) for k, v in p.scores.items()},
            "absent": {k: str(v) for k, v in p.absent.items()},
            "contributions": {k: float(v) for k, v in p.contributions.items()},
            "packets": dict(p.packets),
            "texts": dict(p.texts),
            "truth": p.truth,
            "kind": p.kind,
            "weights": {k: float(v) for k, v in p.weights.items()},
            "outputs": {task: {k: float(v) for k, v in answer.items()} for task, answer in p.outputs.items()},
            "model": p.model,
            "digest": p.digest,
            "produced_at": format_time(p.produced_at),
            "start_ns": p.start,
            "end_ns": p.end,
            "produced_at_ns": p.produced_at,
        }
    )


def prediction_from_json(text: str | bytes) -> Prediction:
    """Raises InvalidRecord that names the field for a document that `prediction_schema()` does not allow."""
    document = _object(text, "a prediction", PREDICTION_SCHEMA)
    instants = {name: _take(document, name + "_ns", _integer) for name in ("start", "end", "produced_at")}
    for name, instant in instants.items():
        if parse_time(_take(document, name, _string)) != instant:
            raise InvalidRecord(f"{name}: expected the same instant as {name}_ns, found {document[name]} and {instant}")
    truth = document.get("truth")
    return Prediction(
        key=_take(document, "key", _string),
        start=instants["start"],
        end=instants["end"],
        revision=_take(document, "revision", _natural),
        label=_take(document, "label", _string),
        scores=_take(document, "scores", _mapping(_number)),
        absent=_take(document, "absent", _mapping(_string)),
        contributions=_take(document, "contributions", _mapping(_number)),
        packets=_take(document, "packets", _mapping(_natural)),
        model=_take(document, "model", _string),
        digest=_take(document, "digest", _string),
        produced_at=instants["produced_at"],
        texts=_take(document, "texts", _mapping(_string)),
        truth=None if truth is None else _string(truth, "truth"),
        **{name: read(document[name], name) for name, read in _ADDED.items() if name in document},
    )


def prediction_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a prediction, made from the class. Within one `schema` number fields are only ever added."""
    hints = get_type_hints(Prediction)
    properties: dict[str, Any] = {"schema": {"const": PREDICTION_SCHEMA, "description": "Version of this schema."}}
    for name, text in _MEANINGS.items():
        properties[name] = {**(_INSTANT if name in _INSTANTS else _shape(hints.pop(name))), "description": text}
    for name in _INSTANTS:
        properties[f"{name}_ns"] = {"type": "integer", "description": f"`{name}` in ns since 1970-01-01T00:00:00Z."}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": PREDICTION_SCHEMA_ID,
        "title": "StreamFuse prediction",
        "description": "What a model says about one window. (key, start, end, revision) is its identity.",
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name != "truth" and name not in _ADDED],
    }


_INSTANTS = ("start", "end", "produced_at")
_INSTANT = {"type": "string", "format": "date-time", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z$"}
_MEANINGS = {  # in the order of the document
    "key": "The room, session or camera group.",
    "start": "Event time at which the window begins (inclusive).",
    "end": "Event time at which the window ends (exclusive).",
    "revision": "0 as the window closed; greater where late packets changed it. The greatest one holds.",
    "label": "The name with the greatest score: the most probable label.",
    "scores": "Label -> probability; where the kind is regression, what is estimated -> the estimate.",
    "absent": "Stream without a packet in the window -> why: idle, late, gap, shed, undecodable, clock.",
    "contributions": "Present stream -> its Shapley value on the score of the label; empty unless the config asks for it.",
    "packets": "Stream -> how many packets the model saw.",
    "texts": "Text stream -> its words in the window; empty unless the config publishes them.",
    "truth": "The true label, where a stream carries it.",
    "kind": "What the scores are: of one of the labels (classification, ordinal), of each for itself (multilabel), estimates (regression).",
    "weights": "Present stream -> the weight that the fusion gave it; empty where it gives none.",
    "outputs": "Task -> name -> score, for a model of several tasks; label and scores are of the first.",
    "model": "The model bundle's name.",
    "digest": "The model bundle's digest.",
    "produced_at": "When the prediction was made.",
}


def _shape(hint: Any) -> dict[str, Any]:
    """What values of this type are in JSON."""
    if hint in _SHAPES:
        return _SHAPES[hint]
    if get_origin(hint) is UnionType:  # X | None
        return {"type": [_shape(one)["type"] if one is not NoneType else "null" for one in get_args(hint)]}
    return {"type": "object", "additionalProperties": _shape(get_args(hint)[1])}  # a mapping


_SHAPES: dict[Any, dict[str, Any]] = {str: {"type": "string"}, float: {"type": "number"}, int: {"type": "integer", "minimum": 0}}


# --- cursors ----------------------------------------------------------------------------------------------------------


def cursor_to_json(cursor: Cursor) -> str:
    """One line of JSON: `offsets` as partition -> [needed, seen], `watermarks` as key -> ns or null, both sorted by
    name."""
    return _dump(
        {
            "schema": CURSOR_SCHEMA,
            "offsets": {p: list(o) for p, o in sorted(cursor.offsets.items())},
            "watermarks": dict(sorted(cursor.watermarks.items())),
        }
    )


def cursor_from_json(text: str | bytes) -> Cursor:
    """Raises InvalidRecord that names the field for anything that `cursor_to_json` did not write."""
    document = _object(text, "a cursor", CURSOR_SCHEMA)
    return Cursor(_take(document, "offsets", _mapping(_offsets)), _take(document, "watermarks", _mapping(_integer_or_null)))


# --- reading strictly -------------------------------------------------------------------------------------------------

Reader = Callable[[object, str], T]


def _dump(document: Mapping[str, Any]) -> str:
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text if text.isascii() else text.encode(errors="replace").decode()


def _object(text: str | bytes, what: str, schema: int) -> dict[str, Any]:
    try:
        document = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidRecord(f"expected {what} as JSON, found {text[:80]!r}: {error}") from None
    if not isinstance(document, dict):
        raise InvalidRecord(f"expected {what} as a JSON object, found {_kind(document)}")
    if document.get("schema") != schema or isinstance(document["schema"], bool):
        raise InvalidRecord(f"schema: expected {schema}, found {document.get('schema')!r}; this is not {what} or one of another version")
    return document


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _take(document: Mapping[str, Any], name: str, read: Reader[T]) -> T:
    if name not in document:
        raise InvalidRecord(f"{name}: expected this field, found none")
    return read(document[name], name)


def _kind(value: object) -> str:
    return {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}.get(type(value), repr(value))


def _string(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise InvalidRecord(f"{where}: expected text, found {_kind(value)}")
    return value


def _integer(value: object, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidRecord(f"{where}: expected a whole number, found {_kind(value)}")
    return value


def _natural(value: object, where: str) -> int:
    number = _integer(value, where)
    if number < 0:
        raise InvalidRecord(f"{where}: expected 0 or more, found {number}")
    return number


def _integer_or_null(value: object, where: str) -> int | None:
    return None if value is None else _integer(value, where)


def _number(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidRecord(f"{where}: expected a number, found {_kind(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise InvalidRecord(f"{where}: expected a finite number, found one beyond 64-bit floating point")
    return number


def _offsets(value: object, where: str) -> Offsets:
    if not isinstance(value, list) or len(value) != 2:
        raise InvalidRecord(f"{where}: expected [needed, seen], found {_kind(value)}")
    return Offsets(_natural(value[0], where), _natural(value[1], where))


def _mapping(read: Reader[T]) -> Reader[dict[str, T]]:
    def mapping(value: object, where: str) -> dict[str, T]:
        if not isinstance(value, dict):
            raise InvalidRecord(f"{where}: expected an object, found {_kind(value)}")
        return {name: read(entry, f"{where}.{name}") for name, entry in value.items()}

    return mapping


_ADDED: dict[str, Reader[Any]] = {"kind": _string, "weights": _mapping(_number), "outputs": _mapping(_mapping(_number))}
"""Fields of predictions that earlier versions did not write, and how they are read."""
