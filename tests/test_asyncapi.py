"""The AsyncAPI document is valid by the official schema, and tells every topic of a config and nothing secret.

`asyncapi/3.0.0.json` is schemas/3.0.0.json of @asyncapi/specs 6.11.1 (npm), unchanged, with its licence (Apache-2.0) beside it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from streamfuse.asyncapi import EXAMPLE, document
from streamfuse.cli import main
from streamfuse.config import Config
from streamfuse.documents import prediction_schema
from streamfuse.loading import load_config, parse_config

OFFICIAL = json.loads((Path(__file__).parent / "asyncapi" / "3.0.0.json").read_text())
CONFIGS = sorted((Path(__file__).parents[1] / "config").glob("*.yaml"))
WIDE = """
sources:
  - type: kafka
    bootstrap: "a:9092, b:9093"
    security: sasl_ssl
    username: robot
    password: sesame
    certificate_file: /secret/place.pem
    group: fusion
    topics: {video: cam, audio: ears, words: ears}
    formats: {audio: {media_type: audio/pcm, samplerate: 16000, channels: 1, duration: 40ms}}
  - {type: kafka, bootstrap: "c:9092", topics: {far: cam}, group: other}
  - {type: topics, topics: {near: "a topic"}}
sync: {streams: {video: {}, audio: {}, words: {}, far: {}, near: {}}}
sinks: [{type: kafka, bootstrap: "c:9092", topic: said}, {type: topics}, {type: jsonl}]
dead_letters: {type: kafka, bootstrap: "c:9092"}
"""


def made(text: str = WIDE) -> dict[str, Any]:
    return document(parse_config(text, {}))


def mistakes(tree: dict[str, Any]) -> list[str]:
    return [error.message for error in jsonschema.Draft7Validator(OFFICIAL).iter_errors(tree)]


def resolved(tree: dict[str, Any], reference: str) -> Any:
    found: Any = tree
    for step in reference.removeprefix("#/").split("/"):
        found = found[step]
    return found


def references(tree: Any) -> list[str]:
    if isinstance(tree, dict):
        return [tree["$ref"]] if "$ref" in tree else [found for value in tree.values() for found in references(value)]
    return [found for value in tree for found in references(value)] if isinstance(tree, list) else []


@pytest.mark.parametrize("config", [Config.model_validate(EXAMPLE), parse_config(WIDE, {}), *(load_config(path, {}) for path in CONFIGS)])
def test_the_document_is_valid_by_the_official_schema(config: Config) -> None:
    assert mistakes(document(config)) == []


def test_the_official_schema_finds_mistakes() -> None:
    assert mistakes({**made(), "channels": {"said": {"addres": "said"}}})


def test_every_reference_leads_somewhere() -> None:
    tree = made()
    assert len(references(tree)) > 20
    assert all(resolved(tree, reference) for reference in references(tree))


def test_every_topic_is_a_channel() -> None:
    channels = made()["channels"]
    assert {name: channel["address"] for name, channel in channels.items()} == {
        "cam": "cam",
        "ears": "ears",
        "fusion-watermarks": "fusion-watermarks",
        "cam-2": "cam",
        "other-watermarks": "other-watermarks",
        "a_topic": "a topic",
        "said": "said",
        "predictions": "predictions",
        "dead-letters": "dead-letters",
    }
    assert [reference["$ref"] for reference in channels["cam"]["servers"]] == ["#/servers/kafka", "#/servers/kafka-2"]
    assert [reference["$ref"] for reference in channels["cam-2"]["servers"]] == ["#/servers/kafka-3"]
    assert channels["ears"]["messages"].keys() == {"audio", "words"}
    assert channels["fusion-watermarks"]["bindings"]["kafka"]["topicConfiguration"] == {"cleanup.policy": ["compact"]}


def test_the_daemon_receives_packets_and_sends_the_rest() -> None:
    operations = made()["operations"]
    received = {resolved(made(), o["channel"]["$ref"])["address"] for o in operations.values() if o["action"] == "receive"}
    assert received == {"cam", "ears", "a topic"}
    assert operations["receive.cam"]["bindings"]["kafka"]["groupId"]["enum"] == ["fusion"]


def test_a_message_says_what_the_config_says_of_its_stream() -> None:
    messages = made()["components"]["messages"]
    assert messages["audio"]["contentType"] == "audio/pcm"
    assert "samplerate 16000, channels 1, duration 40000000 ns" in messages["audio"]["summary"]
    assert messages["words"]["contentType"] == "application/octet-stream"


def test_predictions_are_described_by_their_schema() -> None:
    schema = resolved(made(), made()["components"]["messages"]["prediction"]["payload"]["$ref"])
    assert schema["properties"] == prediction_schema()["properties"]


def test_servers_tell_how_to_connect_and_no_secrets() -> None:
    tree = made()
    assert tree["servers"]["kafka-2"] == {
        "host": "b:9093",
        "protocol": "kafka-secure",
        "security": [{"$ref": "#/components/securitySchemes/scramSha512"}, {"$ref": "#/components/securitySchemes/certificate"}],
    }
    assert not any(secret in json.dumps(tree) for secret in ("sesame", "robot", "/secret/place.pem"))


def test_the_command_prints_yaml_that_reads_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(WIDE)
    assert main(["schema", "asyncapi", str(path)]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == made()
    assert main(["schema", "asyncapi", str(path), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == made()


def test_without_a_config_the_command_prints_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "asyncapi"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["channels"].keys() == {
        "video", "audio", "text", "streamfuse-watermarks", "predictions", "dead-letters",
    }  # fmt: skip
