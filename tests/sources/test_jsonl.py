"""Lines of JSON become text packets, or losses that name the line; a file that grows is followed through its changes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from streamfuse.config import JsonlSourceSettings
from streamfuse.errors import SourceError
from streamfuse.interfaces import Source
from streamfuse.sources.jsonl import JsonlSource
from streamfuse.testing import ManualClock
from streamfuse.types import SECOND, Cursor, Item, Loss, Offsets, Packet, Resume
from tests.sources.contract import PATIENCE, SourceContract, commit, positions, read, reading

NOW = 1_777_636_800 * SECOND


def source(path: Path | str, **settings: Any) -> JsonlSource:
    return JsonlSource(JsonlSourceSettings.model_validate({"type": "jsonl", "path": str(path), **settings}), ManualClock(NOW))


def line(number: int, **fields: Any) -> str:
    return json.dumps({"text": f"words {number}", "event_time": number, **fields}) + "\n"


def texts(said: Sequence[Item]) -> list[Any]:
    return [item.payload for item in said if isinstance(item, Packet)]


def words(*numbers: int) -> list[str]:
    return [f"words {n}" for n in numbers]


async def everything(path: Path, **settings: Any) -> list[Item]:
    return await read(source(path, **settings), 10**9)


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    path = tmp_path / "notes.jsonl"
    path.write_text("".join(line(n) for n in range(20)))
    return path


class JsonlFile:
    records, resumes = 22, True

    def __init__(self, path: Path, *, follow: bool) -> None:
        self.path, self.follow, self.ends = path, follow, not follow
        path.write_text("".join(line(n, key=f"room-{n % 2}") for n in range(10)) + "broken\n\n{}\n" + "".join(line(n) for n in range(10)))

    def source(self) -> Source:
        return source(self.path, follow=self.follow, state=str(self.path.with_suffix(".state")))


class TestJsonlSource(SourceContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> JsonlFile:
        return JsonlFile(tmp_path / "notes.jsonl", follow=False)


class TestJsonlSourceThatFollows(SourceContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> JsonlFile:
        return JsonlFile(tmp_path / "notes.jsonl", follow=True)


@pytest.mark.anyio
async def test_whatever_is_done_and_read_when_it_stops_nothing_is_lost_or_doubled(notes: Path, tmp_path: Path) -> None:
    partition = positions(await everything(notes))[0].partition
    for needed in range(21):
        for seen in {needed, min(needed + 3, 20), 20}:
            state = tmp_path / f"state-{needed}-{seen}"
            await commit(source(notes, state=str(state)), Cursor({partition: Offsets(needed, seen)}, {"default": needed}))
            assert texts(await everything(notes, state=str(state))) == words(*range(needed, 20))


@pytest.mark.anyio
async def test_lines_that_stood_in_the_file_arrived_at_their_event_time(notes: Path) -> None:
    assert [p.arrival_time for p in await everything(notes) if isinstance(p, Packet)] == list(range(20))


@pytest.mark.anyio
async def test_the_last_line_needs_no_newline(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    path.write_text(line(0) + line(1).rstrip())
    assert texts(await everything(path)) == words(0, 1)


@pytest.mark.anyio
async def test_windows_line_ends_and_a_byte_order_mark_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + (line(0) + line(1)).replace("\n", "\r\n").encode())
    assert texts(await everything(path)) == words(0, 1)


@pytest.mark.anyio
async def test_an_empty_file_has_no_packets(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    path.touch()
    assert await everything(path, state=str(tmp_path / "state")) == []


@pytest.mark.anyio
async def test_a_line_that_is_too_long_is_passed_over_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    path.write_text(line(0) + "x" * 300_000 + "\n" + line(2))
    first, loss, last = await everything(path, max_line_bytes=1000)
    assert isinstance(loss, Loss)
    assert loss.detail.startswith(f"{path}, line 2: expected at most 1000 bytes")
    assert texts([first, last]) == words(0, 2)
    assert [p.offset for p in positions([first, loss, last])] == [0, 1, 2]


@pytest.mark.anyio
async def test_appended_lines_are_told_and_arrive_now(notes: Path) -> None:
    said: list[Item] = []
    with anyio.fail_after(PATIENCE):
        async with reading(source(notes, follow=True)) as batches:
            async for batch in batches:
                if not said:
                    with notes.open("a") as file:
                        file.write(line(20) + line(21)[:10])
                said.extend(batch)
                if texts(said)[20:21]:
                    break
    assert texts(said) == words(*range(21))
    assert [p.arrival_time for p in said if isinstance(p, Packet)][20] in (20, NOW)


@pytest.mark.anyio
async def test_a_line_is_told_once_it_is_whole(notes: Path) -> None:
    said: list[Item] = []
    with anyio.fail_after(PATIENCE):
        async with reading(source(notes, follow=True)) as batches:
            said.extend(await anext(batches))
            for part in (line(20)[:10], line(20)[10:] + line(21)):
                with notes.open("a") as file:
                    file.write(part)
            while len(said) < 22:
                said.extend(await anext(batches))
    assert texts(said) == words(*range(22))


@pytest.mark.anyio
async def test_a_rotated_file_is_read_to_its_end_and_the_new_one_from_its_beginning(notes: Path) -> None:
    said: list[Item] = []
    with anyio.fail_after(PATIENCE):
        async with reading(source(notes, follow=True)) as batches:
            said.extend(await anext(batches))
            with notes.open("a") as old:
                notes.rename(notes.with_suffix(".1"))
                notes.write_text(line(100) + line(101))
                old.write(line(20))
            while len(said) < 23:
                said.extend(await anext(batches))
    assert texts(said) == words(*range(21), 100, 101)
    partitions = {p.partition for p in positions(said)}
    assert len(partitions) == 2


@pytest.mark.anyio
async def test_a_truncated_file_is_read_from_its_beginning_under_another_name(notes: Path) -> None:
    said: list[Item] = []
    with anyio.fail_after(PATIENCE):
        async with reading(source(notes, follow=True)) as batches:
            said.extend(await anext(batches))
            notes.write_text(line(0) + line(1))
            while len(said) < 22:
                said.extend(await anext(batches))
    assert texts(said) == words(*range(20), 0, 1)
    assert len(set(positions(said))) == 22


@pytest.mark.anyio
async def test_a_run_resumes_in_a_file_that_was_truncated_in_the_run_before(notes: Path, tmp_path: Path) -> None:
    state = str(tmp_path / "state")
    with anyio.fail_after(PATIENCE):
        async with (keeper := source(notes, follow=True, state=state)):
            said: list[Item] = []
            async for batch in keeper.batches():
                if not said:
                    notes.write_text("".join(line(n) for n in range(5)))
                said.extend(batch)
                if len(said) == 25:
                    break
            await keeper.commit(Cursor({positions(said)[-1].partition: Offsets(3, 3)}))
    assert texts(await everything(notes, state=state)) == words(3, 4)


@pytest.mark.anyio
async def test_another_file_in_the_same_place_is_read_from_its_beginning(notes: Path, tmp_path: Path) -> None:
    state = str(tmp_path / "state")
    partition = positions(await everything(notes))[0].partition
    await commit(source(notes, state=state), Cursor({partition: Offsets(7, 7)}, {"default": 7}))
    notes.write_text(line(50) + line(51))
    said = await everything(notes, state=state)
    assert texts(said) == words(50, 51)
    assert not any(isinstance(item, Resume) for item in said)


@pytest.mark.anyio
async def test_a_named_pipe_is_read_until_its_writer_leaves(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)

    async def write() -> None:
        await anyio.to_thread.run_sync(path.write_text, line(0) + line(1), abandon_on_cancel=True)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write)
        said = await everything(path)
    assert texts(said) == words(0, 1)
    assert [p.arrival_time for p in said if isinstance(p, Packet)] == [NOW, NOW]


STDIN = """
import anyio
from streamfuse.clock import SystemClock
from streamfuse.config import JsonlSourceSettings
from streamfuse.sources.jsonl import JsonlSource

async def main():
    async with JsonlSource(JsonlSourceSettings(type="jsonl", path="-"), SystemClock()) as source:
        async for batch in source.batches():
            for item in batch:
                print(item.payload, item.position.partition.split("#")[0])

anyio.run(main)
"""


@pytest.mark.parametrize("piped", [True, False])
def test_standard_input_is_read_to_its_end(notes: Path, piped: bool) -> None:
    command = [sys.executable, "-c", STDIN]
    if piped:
        done = subprocess.run(command, input=notes.read_text(), capture_output=True, text=True, timeout=PATIENCE, check=True)
    else:
        with notes.open() as file:
            done = subprocess.run(command, stdin=file, capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert done.stdout.splitlines() == [f"{w} stdin" for w in words(*range(20))]


def test_a_closed_standard_input_is_refused() -> None:
    command = ["sh", "-c", 'exec "$@" <&-', "sh", sys.executable, "-c", STDIN]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert "SourceError: expected lines on standard input, which is closed" in done.stderr


@pytest.mark.anyio
@pytest.mark.parametrize(("name", "word"), [("missing.jsonl", "correct the path"), (".", "name a file in it")])
async def test_what_is_no_file_is_refused_with_a_sentence(tmp_path: Path, name: str, word: str) -> None:
    with pytest.raises(SourceError, match=word):
        await everything(tmp_path / name)
