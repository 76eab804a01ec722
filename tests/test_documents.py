"""Predictions and cursors survive JSON, and a document that can't be trusted is refused with a sentence."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamfuse.documents import (
    cursor_from_json,
    cursor_to_json,
    format_time,
    parse_time,
    prediction_from_json,
    prediction_schema,
    prediction_to_json,
)
from streamfuse.errors import InvalidRecord
from streamfuse.types import SECOND, Absence, Cursor, Offsets, Prediction

NOON = 1_777_636_800 * SECOND
PREDICTION = Prediction(
    key="room-1",
    start=NOON,
    end=NOON + SECOND,
    revision=0,
    label="silence",
    scores={"silence": 0.75, "other": 0.25},
    absent={"text": Absence.IDLE},
    contributions={"video": 0.5, "audio": -0.25},
    packets={"video": 15, "audio": 25},
    model="who-is-talking",
    digest="sha256:00",
    produced_at=NOON + 2 * SECOND,
)

instants = st.integers(-62_135_596_800 * SECOND, 253_402_300_799 * SECOND)
texts = st.text(max_size=20)
numbers = st.floats(allow_nan=False, allow_infinity=False)
predictions = st.builds(
    Prediction,
    key=texts,
    start=instants,
    end=instants,
    revision=st.integers(0, 9),
    label=texts,
    scores=st.dictionaries(texts, numbers, max_size=4),
    absent=st.dictionaries(texts, st.sampled_from(list(Absence)), max_size=4),
    contributions=st.dictionaries(texts, numbers, max_size=4),
    packets=st.dictionaries(texts, st.integers(0, 10**6), max_size=4),
    model=texts,
    digest=texts,
    produced_at=instants,
    texts=st.dictionaries(texts, texts, max_size=3),
    truth=st.one_of(st.none(), texts),
    kind=texts,
    weights=st.dictionaries(texts, numbers, max_size=4),
    outputs=st.dictionaries(texts, st.dictionaries(texts, numbers, max_size=3), max_size=3),
)
offsets = st.tuples(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1)).map(lambda pair: Offsets(*pair))
cursors = st.builds(
    Cursor,
    offsets=st.dictionaries(texts, offsets, max_size=5),
    watermarks=st.dictionaries(texts, st.one_of(st.none(), st.integers(-(2**62), 2**62)), max_size=5),
)


def changed(**changes: Any) -> str:
    return json.dumps({**json.loads(prediction_to_json(PREDICTION)), **changes})


# --- what versions have in common ---


def test_a_prediction_of_an_earlier_version_is_read() -> None:
    document = json.loads(prediction_to_json(PREDICTION))
    added = {"kind", "weights", "outputs"}
    earlier = {name: value for name, value in document.items() if name not in added}
    jsonschema.validate(earlier, prediction_schema())
    assert prediction_from_json(json.dumps(earlier)) == PREDICTION


@pytest.mark.parametrize("wrong", [{"weights": {"a": "b"}}, {"outputs": {"a": 1}}, {"kind": 3}])
def test_what_was_added_is_read_as_strictly(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidRecord, match=next(iter(wrong))):
        prediction_from_json(changed(**wrong))


# --- instants ---


@given(instants)
def test_any_instant_survives_its_text(instant: int) -> None:
    assert parse_time(format_time(instant)) == instant


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2026-05-01T12:00:00Z", NOON),
        ("2026-05-01t14:00:00.5+02:00", NOON + SECOND // 2),
        ("2026-05-01T11:59:60Z", NOON),  # a leap second is the next second
        ("2026-05-01T12:00:00.0000000019Z", NOON + 1),
        ("1970-01-01T00:00:00-00:00", 0),
        ("1969-12-31T23:59:59.999999999Z", -1),
    ],
)
def test_rfc_3339_is_read_in_all_its_forms(text: str, instant: int) -> None:
    assert parse_time(text) == instant


@pytest.mark.parametrize("text", ["", "now", "2026-05-01", "2026-05-01T12:00:00", "2026-13-01T00:00:00Z", "2026-05-01T12:00:00+24:00"])
def test_what_is_not_an_instant_is_refused(text: str) -> None:
    with pytest.raises(InvalidRecord, match="expected"):
        parse_time(text)


def test_an_instant_after_the_year_9999_is_refused() -> None:
    with pytest.raises(InvalidRecord, match="within the years 1 to 9999"):
        format_time(253_402_300_800 * SECOND)


# --- predictions ---


@given(predictions)
def test_any_prediction_survives_json(prediction: Prediction) -> None:
    assert prediction_from_json(prediction_to_json(prediction)) == prediction


@given(predictions)
def test_any_prediction_is_valid_by_the_schema(prediction: Prediction) -> None:
    validator = jsonschema.Draft202012Validator(prediction_schema(), format_checker=jsonschema.FormatChecker())
    validator.validate(json.loads(prediction_to_json(prediction)))


@given(predictions)
def test_a_prediction_is_one_line(prediction: Prediction) -> None:
    assert "\n" not in prediction_to_json(prediction)


def test_the_schema_itself_is_valid() -> None:
    jsonschema.Draft202012Validator.check_schema(prediction_schema())


def test_the_schema_describes_every_field_of_a_prediction() -> None:
    described = {name.removesuffix("_ns") for name in prediction_schema()["properties"]}
    assert described == {field.name for field in fields(Prediction)} | {"schema"}


def test_the_keys_of_the_schema_stand_in_the_order_of_the_document() -> None:
    assert list(json.loads(prediction_to_json(PREDICTION))) == list(prediction_schema()["properties"])


def test_instants_stand_as_text_and_as_ns() -> None:
    document = json.loads(prediction_to_json(PREDICTION))
    assert (document["start"], document["start_ns"]) == ("2026-05-01T12:00:00.000000000Z", NOON)


def test_a_score_that_is_not_a_number_is_refused() -> None:
    with pytest.raises(InvalidRecord, match=r"scores\.silence: expected a finite number, found nan"):
        prediction_to_json(replace(PREDICTION, scores={"silence": float("nan")}))


def test_fields_that_a_later_version_adds_are_passed_over() -> None:
    assert prediction_from_json(changed(mood="good")) == PREDICTION


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ("", "expected a prediction as JSON"),
        ("[]", "expected a prediction as a JSON object, found a list"),
        ('{"schema":1,"x":NaN}', "NaN is not JSON"),
        ("[" * 100_000, "expected a prediction as JSON"),
        (changed(schema=2), "schema: expected 1, found 2"),
        ('{"schema":1}', "start_ns: expected this field, found none"),
        (changed(label=3), "label: expected text, found 3"),
        (changed(revision=-1), "revision: expected 0 or more, found -1"),
        (changed(revision=True), "revision: expected a whole number, found true or false"),
        (changed(scores={"silence": "high"}), r"scores\.silence: expected a number, found text"),
        (changed(scores={"silence": 10**400}), r"scores\.silence: expected a finite number"),
        (changed(start_ns=0), "start: expected the same instant as start_ns"),
        (changed(truth=4), "truth: expected text, found 4"),
    ],
)
def test_a_prediction_that_cannot_be_trusted_is_refused(document: str, sentence: str) -> None:
    with pytest.raises(InvalidRecord, match=sentence):
        prediction_from_json(document)


@given(st.binary(max_size=100))
def test_arbitrary_bytes_are_refused_and_nothing_worse(data: bytes) -> None:
    with pytest.raises(InvalidRecord):
        prediction_from_json(data)


# --- cursors ---


@given(cursors)
def test_any_cursor_survives_json(cursor: Cursor) -> None:
    assert cursor_from_json(cursor_to_json(cursor)) == cursor


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ("nonsense", "expected a cursor as JSON"),
        ('{"schema":1,"offsets":{"video/0":[1]},"watermarks":{}}', r"offsets\.video/0: expected \[needed, seen\]"),
        ('{"schema":1,"offsets":{"video/0":[1,-2]},"watermarks":{}}', r"offsets\.video/0: expected 0 or more"),
        (
            '{"schema":1,"offsets":{},"watermarks":{"room":0.5}}',
            r"watermarks\.room: expected a whole number, found 0\.5",
        ),
    ],
)
def test_a_cursor_that_cannot_be_trusted_is_refused(document: str, sentence: str) -> None:
    with pytest.raises(InvalidRecord, match=sentence):
        cursor_from_json(document)
