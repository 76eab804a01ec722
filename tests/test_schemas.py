"""The published schemas are those of the code, and what goes in and out fits them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

import streamfuse
from streamfuse.cli import main
from streamfuse.codecs import Record, RecordDecoder, encode_packet, encode_prediction
from streamfuse.config import ModelSettings
from streamfuse.dead_letters import DeadLetter, letter_to_record
from streamfuse.documents import prediction_to_json
from streamfuse.header_schemas import dead_letter_headers, packet_headers, prediction_headers
from streamfuse.headers import Headers
from streamfuse.models.runner import TorchRunner
from streamfuse.testing import ManualClock
from streamfuse.types import Absence, Packet, Prediction, Window
from tests.models.making import full_window, window, write_bundle
from tests.test_codecs import EVENT, TOPICS, packets, wire_records
from tests.test_documents import predictions

PUBLISHED = Path(streamfuse.__file__).parent / "schemas"


def published(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((PUBLISHED / name).read_text())
    return found


def as_text(headers: Headers) -> dict[str, str]:
    return {name: (value or b"").decode() for name, value in headers}


# --- as published ---


@pytest.mark.parametrize("name", ["prediction", "packet"])
def test_what_is_published_is_what_the_code_says(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", name]) == 0
    path = PUBLISHED / f"{name}-1.json"
    assert capsys.readouterr().out == path.read_text(), f"streamfuse schema {name} > streamfuse/schemas/{path.name}"


def test_nothing_else_is_published() -> None:
    assert {path.name for path in PUBLISHED.iterdir()} == {"prediction-1.json", "packet-1.json"}


@pytest.mark.parametrize("name", ["prediction-1.json", "packet-1.json"])
def test_a_published_schema_is_one(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(published(name))


# --- predictions ---


@pytest.mark.anyio
async def test_predictions_of_a_model_fit_the_published_schema(tmp_path: Path) -> None:
    settings = ModelSettings(bundle=str(write_bundle(tmp_path / "small")), device="cpu", publish_texts=True)
    windows: list[Window] = [full_window(), replace(full_window(), revision=3), window(absent={"audio": Absence.SHED})]
    async with TorchRunner(settings, ManualClock(now=77)) as runner:
        made = await runner.predict(await runner.prepare(windows))
    for prediction in made:
        jsonschema.validate(json.loads(prediction_to_json(prediction)), published("prediction-1.json"))


@given(predictions)
def test_the_headers_of_any_prediction_fit_their_schema(prediction: Prediction) -> None:
    jsonschema.validate(as_text(encode_prediction(prediction).headers), prediction_headers())


# --- packets ---


@given(packets())
def test_the_headers_of_any_packet_fit_the_published_schema(packet: Packet) -> None:
    jsonschema.validate(as_text(encode_packet(packet).headers), published("packet-1.json"))


ATTRIBUTES = packet_headers()["properties"]
allowed = st.fixed_dictionaries(
    {name: st.just("1.0") if name == "ce_specversion" else st.from_regex(".") for name in packet_headers()["required"]},
    optional={
        "ce_time": st.sampled_from(["2026-05-01T12:00:00Z", "2026-05-01t12:00:00.5+02:00", "1969-12-31T23:59:59.000000001Z"]),
        "content-type": st.sampled_from(["image/jpeg", "IMAGE/PNG", "text/plain; charset=utf-8", "audio/flac", "audio/ogg;codecs=opus"]),
        "ce_duration": st.from_regex(r"\A0*[1-9][0-9]{0,11}\Z").filter(lambda text: len(text) < 20),
        "ce_samplerate": st.from_regex(ATTRIBUTES["ce_samplerate"]["pattern"]).filter(lambda text: len(text) < 20),
        "ce_channels": st.from_regex(ATTRIBUTES["ce_channels"]["pattern"]).filter(lambda text: len(text) < 20),
        "ce_encoding": st.sampled_from(ATTRIBUTES["ce_encoding"]["enum"]),
        "ce_sequence": st.text(max_size=20),
        "ce_stream": st.text(max_size=20).filter(lambda name: name not in TOPICS),
        "traceparent": st.text(max_size=20),
    },
)


@given(allowed)
def test_what_the_published_schema_allows_is_a_packet(attributes: dict[str, str]) -> None:
    attributes = {name: text.strip("\n") if name != "ce_id" else text for name, text in attributes.items()}
    jsonschema.validate(attributes, published("packet-1.json"))
    headers = tuple((name, text.encode(errors="replace")) for name, text in attributes.items())
    assert isinstance(RecordDecoder(TOPICS, 1000).decode(Record("room.video", 0, 5, b"room", b"hm", headers, 0)), Packet)


@pytest.mark.parametrize(
    "wrong",
    [
        {"ce_specversion": "0.3"},
        {"ce_id": ""},
        {"ce_time": "yesterday"},
        {"ce_time": "2026-05-01T12:00:00"},
        {"ce_duration": "-1"},
        {"ce_duration": "40ms"},
        {"ce_samplerate": "16k"},
        {"ce_samplerate": "0"},
        {"ce_samplerate": "1000001"},
        {"ce_channels": "65"},
        {"content-type": "jpeg"},
        {"content-type": "audio/pcm", "ce_encoding": "s24le", "ce_samplerate": "8000", "ce_channels": "1"},
        {"content-type": "audio/pcm", "ce_samplerate": "8000"},
        {"content-type": "audio/L16", "ce_channels": "1"},
    ],
)
def test_what_we_refuse_the_published_schema_refuses(wrong: dict[str, str]) -> None:
    attributes = {**as_text(EVENT), **wrong}
    assert not jsonschema.Draft202012Validator(published("packet-1.json")).is_valid(attributes)
    headers = tuple((name, text.encode()) for name, text in attributes.items())
    assert not isinstance(RecordDecoder(TOPICS, 1000).decode(Record("room.video", 0, 5, b"room", b"", headers, 0)), Packet)


# --- dead letters ---


@given(wire_records(), st.sampled_from(["decode", "synchronize", "prepare"]), st.sampled_from(["undecodable", "quarantined"]))
def test_the_headers_of_any_dead_letter_fit_their_schema(record: Record, stage: str, reason: str) -> None:
    letter = letter_to_record(DeadLetter(record, "video", stage, reason, "expected a JPEG, found none", 0))
    ours = letter.headers[len(record.headers) :]
    jsonschema.validate(as_text(ours), dead_letter_headers())
    assert {name for name, _ in ours} <= dead_letter_headers()["properties"].keys()


# --- the command ---


def test_the_schema_of_the_config_is_for_editors(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "config"]) == 0
    assert "sources" in json.loads(capsys.readouterr().out)["properties"]


def test_only_the_topics_depend_on_the_config(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "packet", "config.yaml"]) == 2
    assert "the same for every config" in capsys.readouterr().err
