"""`streamfuse dlq` without Kafka: letters in a file, and what is wrong with how it was asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streamfuse.cli import main
from streamfuse.dead_letters import DeadLetter, letter_to_json
from streamfuse.types import SECOND, Record

NOON = 1_777_636_800 * SECOND


def letter(offset: int, value: bytes | None = b"a word") -> DeadLetter:
    record = Record("text", 0, offset, b"room", value, (("content-type", b"text/plain"),), NOON)
    return DeadLetter(record, "text", "decode", "quarantined", "expected more, found less", NOON + offset * SECOND)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Of a daemon that keeps its dead letters in a file, with two of them and a line that is none."""
    path = tmp_path / "dead.jsonl"
    path.write_text("\n".join([letter_to_json(letter(1)), "noise", letter_to_json(letter(2, None))]) + "\n")
    made = tmp_path / "config.yaml"
    made.write_text(json.dumps({"dead_letters": {"type": "jsonl", "path": str(path)}}))
    return made


def test_show_reads_a_file(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dlq", "show", str(config)]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        "2026-05-01T12:00:01Z  text/0@1  key room  decode quarantined  6 bytes  expected more, found less",
        "2026-05-01T12:00:02Z  text/0@2  key room  decode quarantined  no value  expected more, found less",
    ]
    assert "dead.jsonl, line 2: expected a dead letter as JSON" in said.err


def test_show_writes_a_file_as_it_stands(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dlq", "show", str(config), "--json", "--newest", "1"]) == 0
    assert capsys.readouterr().out == letter_to_json(letter(2, None)) + "\n"


def test_show_saves_what_has_a_value(config: Path, tmp_path: Path) -> None:
    assert main(["dlq", "show", str(config), "--save", str(tmp_path / "saved")]) == 0
    assert [(path.name, path.read_bytes()) for path in (tmp_path / "saved").iterdir()] == [("text-0-1.txt", b"a word")]


def test_a_file_that_is_not_there_is_named(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "dead.jsonl").unlink()
    assert main(["dlq", "show", str(config)]) == 5
    assert f"can't read {tmp_path / 'dead.jsonl'}: No such file or directory" in capsys.readouterr().err


def test_a_replay_needs_a_kafka_topic(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dlq", "replay", str(config)]) == 3
    assert "dead_letters.type: expected kafka, found jsonl" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "dead_letters: name a config, or brokers with --bootstrap or STREAMFUSE_DEAD_LETTERS__BOOTSTRAP"),
        (["--bootstrap", "localhost:1", "--since", "yesterday"], "or how long ago, such as 10m"),
        (["NONE"], "dead_letters: expected type kafka or jsonl, found none"),
        (["CONFIG", "--topic", "dead"], "dead_letters.topic: is no setting"),
    ],
)
def test_what_can_not_be_is_told(
    arguments: list[str], sentence: str, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    none = tmp_path / "none.yaml"
    none.write_text("sources: []")
    places = {"CONFIG": str(config), "NONE": str(none)}
    assert main(["dlq", "show", *(places.get(argument, argument) for argument in arguments)]) == 3
    assert sentence in capsys.readouterr().err


def test_the_environment_says_how_to_connect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("STREAMFUSE_DEAD_LETTERS__SECURITY", "tls")
    assert main(["dlq", "show", "--bootstrap", "localhost:1"]) == 3
    assert "dead_letters.security: " in capsys.readouterr().err
