"""The JSONL sink fulfils the contract, and neither a crash nor a full disk leaves half a line between others."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from streamfuse.config import JsonlSinkSettings
from streamfuse.documents import prediction_from_json, prediction_to_json
from streamfuse.errors import SinkError
from streamfuse.sinks.jsonl import JsonlSink, LossWriter, loss_to_json
from streamfuse.types import Loss, Outcome, Packet, Position, Prediction, Record
from tests.sinks.contract import NOON, SinkContract, prediction


class JsonlFile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def sink(self) -> JsonlSink:
        return JsonlSink(settings(self.path))

    async def predictions(self) -> list[Prediction]:
        return [prediction_from_json(line) for line in self.path.read_text().split("\n")[:-1]]


def settings(path: Path | str) -> JsonlSinkSettings:
    return JsonlSinkSettings(type="jsonl", path=str(path))


@pytest.fixture
def file(tmp_path: Path) -> JsonlFile:
    return JsonlFile(tmp_path / "not" / "yet" / "there.jsonl")


class TestJsonlSink(SinkContract):
    @pytest.fixture
    def place(self, file: JsonlFile) -> JsonlFile:
        return file


@pytest.mark.anyio
async def test_a_line_that_a_crash_cut_short_is_taken_away(file: JsonlFile) -> None:
    whole, torn = prediction_to_json(prediction(0)), prediction_to_json(prediction(1))[:50]
    file.path.parent.mkdir(parents=True)
    file.path.write_text(whole + "\n" + torn)
    async with file.sink() as sink:
        await sink.publish([prediction(2)])
    assert await file.predictions() == [prediction(0), prediction(2)]


@pytest.mark.anyio
async def test_a_first_line_that_a_crash_cut_short_is_taken_away(file: JsonlFile) -> None:
    file.path.parent.mkdir(parents=True)
    file.path.write_text(prediction_to_json(prediction(1))[:50])
    async with file.sink() as sink:
        await sink.publish([prediction(2)])
    assert await file.predictions() == [prediction(2)]


@pytest.mark.anyio
async def test_a_last_line_that_lacks_only_its_end_is_kept(file: JsonlFile) -> None:
    file.path.parent.mkdir(parents=True)
    file.path.write_text(prediction_to_json(prediction(0)))
    async with file.sink() as sink:
        await sink.publish([prediction(1)])
    assert await file.predictions() == [prediction(0), prediction(1)]


@pytest.mark.anyio
async def test_what_is_not_ours_is_never_taken_away(file: JsonlFile) -> None:
    file.path.parent.mkdir(parents=True)
    file.path.write_text("notes of somebody")
    async with file.sink():
        pass
    assert file.path.read_text() == "notes of somebody\n"


@pytest.mark.anyio
async def test_a_full_disk_is_a_sink_error_that_says_what_to_do() -> None:
    async with JsonlSink(settings("/dev/full")) as sink:
        with pytest.raises(SinkError, match="expected to write to /dev/full, found: No space left on device; free space"):
            await sink.publish([prediction()])


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    """The kernel cuts writes short at this size of file, as it does on a disk that is nearly full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.anyio
async def test_a_write_that_is_cut_short_leaves_no_half_line(file: JsonlFile) -> None:
    async with file.sink() as sink:
        await sink.publish([prediction(0)])
        with files_limited_to(file.path.stat().st_size + 50), pytest.raises(SinkError, match="expected to write to"):
            await sink.publish([prediction(1)])
        await sink.publish([prediction(2)])
    assert await file.predictions() == [prediction(0), prediction(2)]


@pytest.mark.anyio
async def test_a_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match="Is a directory; give the path of a file"):
        async with JsonlSink(settings(tmp_path)):
            pass


@pytest.mark.anyio
async def test_standard_output_takes_predictions(capfd: pytest.CaptureFixture[str]) -> None:
    async with JsonlSink(settings("-")) as sink:
        await sink.publish([prediction(0), prediction(1)])
    assert [prediction_from_json(line) for line in capfd.readouterr().out.splitlines()] == [prediction(0), prediction(1)]


BROKEN_PIPE = """
import anyio, sys
from streamfuse.config import JsonlSinkSettings
from streamfuse.errors import SinkError
from streamfuse.sinks.jsonl import JsonlSink
from tests.sinks.contract import prediction

async def main():
    async with JsonlSink(JsonlSinkSettings(type="jsonl")) as sink:
        sys.stdin.read()
        try:
            await sink.publish([prediction()])
        except SinkError as error:
            print(error, file=sys.stderr)

anyio.run(main)
"""


def test_a_reader_that_has_gone_is_a_sink_error() -> None:
    read, write = os.pipe()
    child = subprocess.Popen(
        [sys.executable, "-c", BROKEN_PIPE],
        stdin=subprocess.PIPE,
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    os.close(write)
    os.close(read)
    _, said = child.communicate("", timeout=60)
    assert said.strip() == (
        "expected to write to standard output, found: Broken pipe; its reader has gone; keep it running, or write to a file"
    )


# --- losses ---


@pytest.mark.anyio
async def test_losses_are_written_one_a_line(tmp_path: Path) -> None:
    path = tmp_path / "losses.jsonl"
    record = Record("text", 0, 7, b"room-1", b"\xff\xfe", (), NOON)
    loss = Loss("text", "room-1", Outcome.UNDECODABLE, "expected text in UTF-8", record.position, NOON, record=record)
    async with LossWriter(settings(path)) as writer:
        await writer.write([loss])
        await writer.write([])
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {
            "stream": "text",
            "key": "room-1",
            "reason": "undecodable",
            "stage": "decode",
            "detail": "expected text in UTF-8",
            "event_time": "2026-05-01T12:00:00.000000000Z",
            "event_time_ns": NOON,
            "partition": "text/0",
            "offset": 7,
            "id": "",
            "bytes": 2,
        }
    ]


def test_a_late_packet_tells_its_own_place_and_time() -> None:
    packet = Packet("text", "room-1", NOON, 0, "hm", Position("text/0", 7), NOON, "source#7")
    document = json.loads(loss_to_json(Loss("text", "room-1", Outcome.LATE, "too late", packet=packet)))
    assert (document["offset"], document["event_time_ns"], document["id"]) == (7, NOON, "source#7")


def test_an_absurd_event_time_stands_there_in_ns_alone() -> None:
    document = json.loads(loss_to_json(Loss("text", "room-1", Outcome.QUARANTINED, "absurd", event_time=10**21)))
    assert (document["event_time"], document["event_time_ns"]) == (None, 10**21)
