"""The README's examples of reading predictions run as they are printed, but for the broker's address."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from streamfuse.codecs import prediction_to_json
from streamfuse.types import Prediction
from tests.kafka.broker import Broker
from tests.kafka.test_subscribe import committed, make_topic, prediction, publish
from tests.kafka.traffic import PATIENCE

pytestmark = pytest.mark.kafka

SECTION = (Path(__file__).parents[2] / "README.md").read_text().partition("\n## Subscribe to predictions\n")[2].partition("\n## ")[0]
PROGRAMS = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)
COMMANDS = re.findall(r"^\$ (.*)", SECTION, re.MULTILINE)

PUBLISHED = [
    prediction(0),
    prediction(0, 1),
    prediction(1, key="room-2"),
    prediction(0, 1),
    prediction(0),
    prediction(1, key="room-2"),
    prediction(2),
]
LATEST = [PUBLISHED[number] for number in (0, 1, 2, 6)]


@pytest.fixture(scope="module")
def predictions(broker: Broker) -> str:
    """The topic that the README reads, with repeats and revisions in it."""
    make_topic(broker, "predictions")
    publish(broker, "predictions", PUBLISHED)
    return broker.bootstrap


def first_lines(command: Sequence[str], count: int) -> list[str]:
    with running(command) as process:
        assert process.stdout is not None
        found = []
        for line in process.stdout:
            found.append(line.rstrip("\n"))
            if len(found) == count:
                break
    return found


@contextmanager
def running(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def printed(one: Prediction) -> str:
    return f"{one.key} {one.start} {one.revision} {one.label}"


def test_there_are_three_programs_and_two_commands() -> None:
    assert ["streamfuse.subscribe" in program for program in PROGRAMS] == [True, False, False]
    assert [command.split()[0] for command in COMMANDS] == ["streamfuse", "kcat"]


@pytest.mark.parametrize("program", PROGRAMS, ids=["streamfuse", "kafka-python", "confluent-kafka"])
def test_a_program_prints_each_windows_latest_revision_once(program: str, predictions: str) -> None:
    assert "localhost:9092" in program
    found = first_lines([sys.executable, "-c", program.replace("localhost:9092", predictions)], len(LATEST))
    assert found == [printed(one) for one in LATEST]


def test_the_first_program_goes_on_where_it_was_killed(predictions: str, broker: Broker) -> None:
    program = PROGRAMS[0].replace("localhost:9092", predictions).replace("lights", "other-lights")
    with running([sys.executable, "-c", program]) as process:
        deadline = time.monotonic() + PATIENCE
        while committed(broker, "other-lights").get(0) != len(PUBLISHED):
            assert time.monotonic() < deadline
            assert process.poll() is None
        process.kill()
    publish(broker, "predictions", [prediction(2), prediction(3)])
    assert first_lines([sys.executable, "-c", program], 1) == [printed(prediction(3))]


@pytest.mark.skipif(shutil.which("kcat") is None, reason="needs kcat (Debian: apt install kcat)")
def test_kcat_prints_every_record(predictions: str) -> None:
    command = shlex.split(COMMANDS[1].replace("localhost:9092", predictions))
    found = first_lines(command, len(PUBLISHED))
    assert [line.split(" ", 1) for line in found] == [[one.key, prediction_to_json(one)] for one in PUBLISHED]
    assert json.loads(found[0].split(" ", 1)[1])["revision"] == 0


def test_the_command_prints_a_key(predictions: str) -> None:
    command = shlex.split(COMMANDS[0].replace("localhost:9092", predictions), comments=True)
    assert command[:2] == ["streamfuse", "subscribe"]
    found = first_lines([sys.executable, "-m", *command, "--from-start", "--json"], 3)
    assert found == [prediction_to_json(one) for one in LATEST if one.key == "room-1"]
