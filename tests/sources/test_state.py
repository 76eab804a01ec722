"""The state of a file source survives, belongs to one source, and is refused when it can't be trusted."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamfuse.errors import SourceError
from streamfuse.sources.state import State
from streamfuse.types import Cursor, Offsets


def state(path: Path | None, owner: str = "jsonl notes") -> State:
    made = State(path, owner, lambda partition: partition.startswith("notes"))
    made.add_keys(["room"])
    return made


@pytest.mark.anyio
async def test_what_was_committed_is_loaded(tmp_path: Path) -> None:
    kept = state(tmp_path / "deep" / "state.json")
    kept.start = 42
    await kept.commit(Cursor({"notes": Offsets(3, 5)}, {"room": 7}))
    await kept.commit(Cursor({"notes": Offsets(4, 6)}))
    loaded = state(tmp_path / "deep" / "state.json")
    assert loaded.load()
    assert (loaded.cursor, loaded.start) == (Cursor({"notes": Offsets(4, 6)}, {"room": 7}), 42)


@pytest.mark.anyio
async def test_partitions_and_keys_of_others_are_not_written(tmp_path: Path) -> None:
    kept = state(tmp_path / "state.json")
    await kept.commit(Cursor({"other": Offsets(1, 1)}, {"elsewhere": 7}))
    assert not (tmp_path / "state.json").exists()
    await kept.commit(Cursor({"other": Offsets(1, 1), "notes": Offsets(2, 2)}, {"elsewhere": 7, "room": 8}))
    assert kept.cursor == Cursor({"notes": Offsets(2, 2)}, {"room": 8})


@pytest.mark.anyio
async def test_a_forgotten_key_has_no_watermark_any_more(tmp_path: Path) -> None:
    kept = state(tmp_path / "state.json")
    await kept.commit(Cursor({"notes": Offsets(2, 2)}, {"room": 8}))
    await kept.commit(Cursor({}, {"room": None}))
    loaded = state(tmp_path / "state.json")
    assert loaded.load()
    assert loaded.cursor == Cursor({"notes": Offsets(2, 2)}, {})


def test_without_a_file_there_is_nothing_to_load(tmp_path: Path) -> None:
    assert not state(tmp_path / "state.json").load()
    assert not state(None).load()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b'{"schema": 9, "offsets": {}, "watermarks": {}}',
        b'{"schema": 1, "offsets": {"notes": [1]}, "watermarks": {}, "source": "jsonl notes"}',
        b'{"schema": 1, "offsets": {}, "watermarks": {}, "source": "jsonl notes", "start": "noon"}',
    ],
)
def test_a_damaged_file_is_refused_with_the_fix(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state.json").write_bytes(content)
    with pytest.raises(SourceError, match=r"state\.json is damaged: .*; correct it, or delete it to begin at the first record"):
        state(tmp_path / "state.json").load()


@pytest.mark.anyio
async def test_a_file_that_another_source_keeps_is_refused(tmp_path: Path) -> None:
    await state(tmp_path / "state.json").commit(Cursor({"notes": Offsets(1, 1)}))
    with pytest.raises(SourceError, match="give each source its own file"):
        state(tmp_path / "state.json", "media clip.mp4").load()


@pytest.mark.anyio
async def test_a_place_that_takes_no_state_is_refused_with_the_fix(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SourceError, match="let `state` name a place that is writable"):
        await state(tmp_path / "file" / "state.json").commit(Cursor({"notes": Offsets(1, 1)}))


@pytest.mark.anyio
async def test_a_draft_that_a_crash_left_is_no_state(tmp_path: Path) -> None:
    (tmp_path / "state.json.new").write_text("{")
    kept = state(tmp_path / "state.json")
    assert not kept.load()
    await kept.commit(Cursor({"notes": Offsets(1, 1)}))
    assert state(tmp_path / "state.json").load()
