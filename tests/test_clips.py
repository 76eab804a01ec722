"""The main job on real recordings: files in, predictions out, through the whole daemon."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import anyio
import pytest

from streamfuse.assembly import build
from streamfuse.codecs import prediction_from_json
from streamfuse.config import Config
from streamfuse.types import MILLISECOND, SECOND, Prediction

pytestmark = [pytest.mark.anyio, pytest.mark.data]

NASA_CAPTIONS = {0.21: "This is the optical", 4.26: "space telescope", 8.35: "NASA’s Goddard", 12.47: "This half of the observatory"}


@pytest.fixture
def clips() -> Path:
    folder = os.environ.get("STREAMFUSE_DATA")
    if folder is None:
        pytest.skip("STREAMFUSE_DATA is not set: no recordings to run on")
    return Path(folder) / "clips"


async def predictions_of(paths: list[Path], out: Path, **sync: Any) -> list[Prediction]:
    config = Config.model_validate(
        {
            "sources": [{"type": "media", "path": [str(path) for path in paths], "pace": "full", "start": "file"}],
            "sync": {"streams": {"video": {}, "audio": {}, "text": {"required": False}}, **sync},
            "models": {"publish_texts": True},
            "sinks": [{"type": "jsonl", "path": str(out)}],
            "web": {"enabled": False},
        }
    )
    daemon = build(config)
    await daemon.run(anyio.Event())
    assert not any(daemon.synchronizer.unaccounted().values())
    return [prediction_from_json(line) for line in out.read_text().splitlines()]


async def test_the_narrator_of_a_film_is_off_screen_and_the_caption_of_the_moment_is_in_the_window(clips: Path, tmp_path: Path) -> None:
    made = await predictions_of([clips / "nasa_13013.mp4"], tmp_path / "out.jsonl")
    after_the_first = made[1:]
    assert len(after_the_first) >= 25
    off_screen = [p for p in after_the_first if p.label == "voice off screen"]
    assert len(off_screen) >= 0.8 * len(after_the_first)
    for begins, words in NASA_CAPTIONS.items():
        (said,) = [p for p in made if p.start <= begins * SECOND < p.start + 500 * MILLISECOND]
        assert words in said.texts["text"]


async def test_a_talker_is_on_screen_while_they_speak_four_at_a_time(clips: Path, tmp_path: Path) -> None:
    talkers = sorted(clips.glob("*.mpg"))
    assert len(talkers) == 4
    made = await predictions_of(talkers, tmp_path / "out.jsonl")
    assert {p.key for p in made} == {path.stem for path in talkers}
    for talker in talkers:
        # GRID's sentences take about two seconds in the middle of their three.
        spoken = [p for p in made if p.key == talker.stem and p.start >= 500 * MILLISECOND and p.end <= 2 * SECOND + 500 * MILLISECOND]
        assert len(spoken) == 3
        assert [p.label for p in spoken] == ["speaker on screen"] * 3, talker.stem


async def test_the_same_file_gives_the_same_predictions_again(clips: Path, tmp_path: Path) -> None:
    def told(made: list[Prediction]) -> list[tuple[object, ...]]:
        return [(p.id, p.label, dict(p.scores), dict(p.absent), dict(p.packets), dict(p.texts)) for p in made]

    first = await predictions_of([clips / "bbaf2n.mpg"], tmp_path / "first.jsonl", max_hold=None)
    second = await predictions_of([clips / "bbaf2n.mpg"], tmp_path / "second.jsonl", max_hold=None)
    assert [row[0] for row in told(first)] == [row[0] for row in told(second)]
    assert [row[3:] for row in told(first)] == [row[3:] for row in told(second)]
    assert [row[1] for row in told(first)] == [row[1] for row in told(second)]
