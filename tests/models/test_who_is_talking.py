"""The bundle `who-is-talking` tells who talks in recordings that it was not trained on, and needs both eyes and ears for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamfuse.clock import SystemClock
from streamfuse.config import ModelSettings
from streamfuse.models.runner import TorchRunner
from streamfuse.types import Packet, Prediction, Window
from tests.models.clips import frozen, muted, packets_of, spoken, windows_of, without

TALKERS = ("bbaf2n", "brbk7n", "lbax4n", "lbbc2a")
LEFT_OUT = Path(__file__).parent / "left_out"
"""Models that were trained without one talker, one folder each."""

SILENCE, OTHER, OFF_SCREEN, ON_SCREEN = "silence", "other sound", "voice off screen", "speaker on screen"

pytestmark = [pytest.mark.anyio, pytest.mark.data]


async def labels(windows: list[Window], bundle: str) -> list[str]:
    return [p.label for p in await predictions(windows, bundle)]


async def predictions(windows: list[Window], bundle: str) -> list[Prediction]:
    async with TorchRunner(ModelSettings(bundle=bundle, device="cpu"), SystemClock()) as runner:
        return await runner.predict(await runner.prepare(windows))


@pytest.fixture
async def narrated(recordings: Path) -> list[Packet]:
    return await packets_of(recordings / "clips" / "nasa_13013.mp4")


@pytest.fixture(params=TALKERS)
def talker(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def talking(recordings: Path, talker: str) -> list[Packet]:
    return await packets_of(recordings / "clips" / f"{talker}.mpg")


@pytest.fixture(params=["shipped", "left out"])
def bundle(request: pytest.FixtureRequest, talker: str) -> str:
    """The shipped model, or the one that never met this talker."""
    return "who-is-talking" if request.param == "shipped" else str(LEFT_OUT / f"without-{talker}")


async def test_narrator_over_music_is_a_voice_off_screen(narrated: list[Packet]) -> None:
    said = (await labels(windows_of(narrated), "who-is-talking"))[1:]
    assert said.count(OFF_SCREEN) >= 0.8 * len(said)


async def test_narrator_is_a_voice_off_screen_without_captions_too(narrated: list[Packet]) -> None:
    said = (await labels(windows_of(without(narrated, "text")), "who-is-talking"))[1:]
    assert said.count(OFF_SCREEN) >= 0.8 * len(said)


async def test_caption_of_the_moment_stands_in_the_narrators_windows(narrated: list[Packet]) -> None:
    windows = windows_of(narrated)
    captioned = [w for w in windows if "text" in w.packets]
    assert len(captioned) >= 0.8 * len(windows)


async def test_talker_is_on_screen_while_they_speak(talking: list[Packet], bundle: str) -> None:
    said = await labels(spoken(talking, windows_of(talking)), bundle)
    assert said
    assert set(said) == {ON_SCREEN}


async def test_same_sound_over_the_first_frame_is_a_voice_off_screen(talking: list[Packet], bundle: str) -> None:
    said = await labels(spoken(talking, windows_of(frozen(talking))), bundle)
    assert said
    assert set(said) == {OFF_SCREEN}


async def test_same_picture_over_silence_is_silence(talking: list[Packet], bundle: str) -> None:
    said = await labels(windows_of(muted(talking)), bundle)
    assert set(said) == {SILENCE}


async def test_same_sound_without_a_picture_is_a_voice_off_screen(talking: list[Packet], bundle: str) -> None:
    said = await labels(spoken(talking, windows_of(without(talking, "video"))), bundle)
    assert set(said) == {OFF_SCREEN}
