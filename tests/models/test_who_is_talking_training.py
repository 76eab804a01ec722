"""Training material is what it claims to be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from streamfuse.errors import DataError
from streamfuse.training.data import open_data
from streamfuse.training.who_is_talking import sounds
from streamfuse.training.who_is_talking.dataset import FACE
from streamfuse.training.who_is_talking.pictures import Draw, faceless, mistaken, speaking, still
from streamfuse.training.who_is_talking.recordings import RATE, Sound, Talker, active_stretches, spoken_share
from streamfuse.training.who_is_talking.rooms import room_windows
from streamfuse.training.who_is_talking.texts import caption, sound_caption
from streamfuse.training.who_is_talking.voices import as_heard, other_windows, silent_windows
from tests.models.making import LABELS

KINDS = [sounds.music, sounds.band_noise, sounds.hum, sounds.clicks, sounds.applause, sounds.alarm, sounds.other_sound]


def draw(seed: int = 0) -> Draw:
    return np.random.default_rng(seed)


def decibel(samples: np.ndarray[tuple[int, ...], np.dtype[np.int16]]) -> float:
    return 20 * float(np.log10(np.sqrt(np.mean((samples / 32768.0) ** 2)) + 1e-9))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_made_sound_is_finite_and_as_long_as_asked_for(kind: Callable[[float, Draw], Sound]) -> None:
    for seed in range(3):
        made = kind(0.5, draw(seed))
        assert made.shape == (RATE // 2,)
        assert bool(np.isfinite(made).all())


def test_silence_is_at_60_db_below_full_scale_at_most() -> None:
    assert max(decibel(w) for w in silent_windows(20, draw())) < -59


def test_other_sounds_are_louder_than_silence() -> None:
    assert min(decibel(w) for w in other_windows(10, draw())) > -50


def test_voice_keeps_its_length_whatever_it_went_through() -> None:
    speech = sounds.levelled(sounds.music(1.2, draw()), 0.1)
    assert {as_heard(speech, draw(seed)).shape for seed in range(5)} == {(RATE,)}


def test_spoken_share_counts_overlapping_stretches_once() -> None:
    stretches = np.array([[0.0, 0.5], [0.25, 0.5]])
    assert spoken_share(stretches, 0, 1) == pytest.approx(0.5)


def test_stretches_of_speech_are_found_between_pauses() -> None:
    tone = sounds.hum(0.5, draw())
    sound = np.concatenate([np.zeros(RATE // 2), tone, np.zeros(RATE // 2), tone]).astype(np.float32)
    assert active_stretches(sound).round(1).tolist() == [[0.5, 1.0], [1.5, 2.0]]


def test_captions_are_words_and_described_sounds_are_marked() -> None:
    assert all(caption(draw(seed)).strip() for seed in range(50))
    assert all(set(sound_caption(draw(seed))) & set("[(*♪") for seed in range(50))


def test_clips_without_a_face_are_empty_and_those_of_something_else_are_not() -> None:
    assert not faceless(FACE, draw()).items.data.any()
    assert mistaken(FACE, draw()).items.data.any()


@pytest.fixture(scope="module")
def drawn_talker() -> Talker:
    """A talker from the simulator, who speaks from 1 s to 2 s."""
    from streamfuse.simulation.faces import Person, Pose, paint

    person = Person.draw(draw(3))
    frames = []
    for i in range(75):
        image = np.full((240, 320, 3), 90, np.uint8)
        open_ = 0.5 + 0.5 * np.sin(i) if 25 <= i < 50 else 0.0
        paint(image, person, Pose(x=160, y=120, size=90, roll=0, mouth=float(open_), lids=0, brows=0, gaze=0), 100)
        frames.append(np.asarray(image.mean(2), np.uint8))
    return Talker("drawn", np.stack(frames), 25, np.zeros(3 * RATE, np.float32), 1.0, 2.0)


def test_mouth_of_a_speaking_clip_moves_more_than_that_of_a_still_one(drawn_talker: Talker) -> None:
    def mouth(kind: Callable[..., object], seed: int) -> float:
        clip = kind(drawn_talker, FACE, draw(seed))
        crops = clip.items.data.astype(float)  # type: ignore[attr-defined]
        motion = np.abs(np.diff(crops, axis=0)).mean(0)
        return float(motion[30:44, 12:36].mean() / (motion[:24].mean() + 0.5))

    speaks, rests = ([mouth(kind, seed) for seed in range(6)] for kind in (speaking, still))
    assert np.median(speaks) > 1.3 * np.median(rests)


def test_windows_of_rooms_have_a_face_sound_and_a_label() -> None:
    windows = list(room_windows([11], 4, FACE, draw()))
    assert windows
    assert {w.label for w in windows} <= set(LABELS)
    assert {w.samples.shape for w in windows} == {(RATE,)}
    assert any(w.items.data.any() for w in windows)


@pytest.mark.data
@pytest.mark.slow
def test_windows_are_drawn_by_their_number_alone_and_a_left_out_talker_is_the_test(recordings: Path) -> None:
    small = {"type": "who_is_talking", "path": str(recordings), "scale": 0.02, "rows": 40}
    rows = open_data({**small, "left_out": 1}, Path())
    assert Counter(rows.parts) == {"train": 40, "validation": len(rows.names) - 70, "test": 30}
    assert set(rows.targets["state"].tolist()) == {0, 1, 2, 3}
    assert {*rows.read(3), *rows.read(4)} <= {"video", "audio", "text"}
    for row in (3, 60, len(rows.names) - 1):
        first, again = rows.read(row), rows.read(row)
        assert all(np.array_equal(first[stream].data, again[stream].data) for stream in first)


def test_folder_without_recordings_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.path.*clips"):
        open_data({"type": "who_is_talking", "path": "nowhere"}, tmp_path)
