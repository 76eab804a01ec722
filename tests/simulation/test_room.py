"""A simulated room says the truth: what is seen and heard is what its labels say, at any instant, from the seed alone."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamfuse.simulation import LABELS, Room, Segment
from streamfuse.simulation.timeline import Timeline
from streamfuse.types import SECOND

MINUTE = 60 * SECOND
SEEDS = range(4)
HAAR = str(Path(cv2.__file__).parent / "data" / "haarcascade_frontalface_default.xml")


@pytest.fixture(scope="module")
def rooms() -> list[Room]:
    return [Room(seed) for seed in SEEDS]


def frames(room: Room, segment: Segment) -> range:
    """The frames that lie within a segment."""
    return range(-(-segment.start * 15 // SECOND), -(-segment.end * 15 // SECOND))


def sound(room: Room, segment: Segment) -> NDArray[np.float64]:
    first, last = segment.start * room.rate // SECOND, segment.end * room.rate // SECOND
    return room.sound(first, last - first).astype(float)


def rms(samples: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(samples**2)))


def test_labels_are_these_four() -> None:
    assert LABELS == ("silence", "other sound", "voice off screen", "speaker on screen")


@given(st.integers(0, 1000), st.integers(0, 10 * MINUTE))
@settings(max_examples=50, deadline=None)
def test_any_instant_lies_in_the_segment_that_is_found_for_it(seed: int, instant: int) -> None:
    segment = Timeline(seed).at(instant)
    assert segment.start <= instant < segment.end
    assert segment in Timeline(seed).between(segment.start, segment.start + 1)


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_segments_follow_each_other_for_2_to_6_seconds_and_change_the_label(seed: int) -> None:
    segments = Timeline(seed).between(0, 3 * MINUTE)
    assert segments[0].start == 0
    assert all(2 * SECOND <= s.end - s.start <= 6 * SECOND for s in segments)
    for before, after in pairwise(segments):
        assert before.end == after.start
        assert before.label != after.label
        assert before.index != after.index


def test_every_label_comes_with_every_picture_that_it_allows() -> None:
    seen = {(s.label, s.picture) for seed in range(20) for s in Timeline(seed).between(0, 5 * MINUTE)}
    anything = {"talker", "portrait", "frozen", "empty"}
    for label in ("silence", "other sound", "voice off screen"):
        assert {p for found, p in seen if found == label} == anything
    assert {p for found, p in seen if found == "speaker on screen"} == {"talker"}


def test_only_the_speaker_on_screen_is_both_seen_and_heard() -> None:
    for segment in Timeline(3).between(0, 10 * MINUTE):
        assert (segment.face is not None and segment.face == segment.voice) == (segment.label == "speaker on screen")


def test_a_negative_instant_is_refused(rooms: list[Room]) -> None:
    with pytest.raises(ValueError, match="from 0 on"):
        rooms[0].truth(-1)
    with pytest.raises(ValueError, match="from 0 on"):
        rooms[0].sound(-1, 5)


def test_a_room_too_small_to_draw_in_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 64x64"):
        Room(1, width=32)


def test_the_same_seed_makes_the_same_room_in_any_order() -> None:
    one, other = Room(5), Room(5)
    forwards = [one.frame(i) for i in range(0, 300, 20)]
    backwards = [other.frame(i) for i in reversed(range(0, 300, 20))][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(forwards, backwards, strict=True))
    assert np.array_equal(one.sound(0, 160_000), np.concatenate([Room(5).sound(at, 40_000) for at in range(0, 160_000, 40_000)]))
    assert one.captions(MINUTE) == other.captions(MINUTE)


def test_another_seed_makes_another_room() -> None:
    assert not np.array_equal(Room(5).frame(0), Room(6).frame(0))


@pytest.mark.parametrize(("width", "height", "seeds"), [(320, 240, 6), (640, 360, 2), (160, 120, 3)])
def test_the_haar_cascade_finds_the_face_in_nearly_every_frame(width: int, height: int, seeds: int) -> None:
    cascade = cv2.CascadeClassifier(HAAR)
    found = looked = wrong = 0
    for seed in range(seeds):
        room = Room(seed, width=width, height=height)
        for segment in room.segments(40 * SECOND):
            for index in frames(room, segment)[3::25]:
                grey = cv2.cvtColor(room.frame(index), cv2.COLOR_BGR2GRAY)
                faces = cascade.detectMultiScale(grey, 1.1, 3, minSize=(height // 6, height // 6))
                if segment.face is None:
                    wrong += len(faces)
                else:
                    looked += 1
                    found += len(faces) > 0
    assert found >= 0.95 * looked
    assert looked > 30
    assert wrong <= 2


def test_the_mouth_moves_with_the_voice_of_the_speaker_on_screen(rooms: list[Room]) -> None:
    for room in rooms:
        for segment in room.segments(30 * SECOND):
            if segment.label != "speaker on screen" or segment.bed:
                continue
            instants = np.arange(segment.start, segment.end - SECOND // 10, SECOND // 50)
            mouth = np.array([room.mouth(int(t)) for t in instants])
            samples = sound(room, segment)
            loud = [rms(samples[(k := (t - segment.start) * room.rate // SECOND) : k + 320]) for t in instants.tolist()]
            assert np.corrcoef(mouth, loud)[0, 1] > 0.7
            assert mouth.max() > 0.8
            assert mouth.min() < 0.2


def test_the_mouth_of_everybody_else_stands_still(rooms: list[Room]) -> None:
    for room in rooms:
        for segment in room.segments(MINUTE):
            if segment.label != "speaker on screen":
                openings = {room.mouth(t) for t in range(segment.start, segment.end, SECOND // 5)}
                assert len(openings) == 1
                if segment.picture == "talker":
                    assert openings == {0.0}


def test_a_face_that_is_silent_still_lives(rooms: list[Room]) -> None:
    segment = next(s for s in rooms[0].segments(10 * MINUTE) if s.picture == "talker" and s.label == "silence")
    first, *others = (rooms[0].frame(i).astype(int) for i in frames(rooms[0], segment)[::10])
    assert all(np.abs(first - other).mean() > 1.5 for other in others)


def test_a_frozen_picture_is_frozen(rooms: list[Room]) -> None:
    segment = next(s for s in rooms[0].segments(10 * MINUTE) if s.picture == "frozen")
    first, *others = (rooms[0].frame(i) for i in frames(rooms[0], segment)[::10])
    assert all(np.array_equal(first, other) for other in others)


def test_silence_is_quiet_and_everything_else_is_not(rooms: list[Room]) -> None:
    for room in rooms:
        for segment in room.segments(MINUTE):
            level = rms(sound(room, segment))
            assert level < 60 if segment.label == "silence" else level > 200, segment


def test_sound_never_clips_for_long(rooms: list[Room]) -> None:
    for room in rooms:
        samples = room.sound(0, 60 * room.rate)
        assert np.mean(np.abs(samples.astype(int)) >= 32767) < 1e-4


def test_a_voice_has_the_pitch_of_its_owner(rooms: list[Room]) -> None:
    checked = 0
    for room in rooms:
        for segment in room.segments(2 * MINUTE):
            if segment.voice is None or segment.bed:
                continue
            pitch = room.people[segment.voice].pitch
            assert 0.8 < _pitch(sound(room, segment), room.rate) / pitch < 1.25
            checked += 1
    assert checked > 10


def test_a_voice_has_the_rhythm_of_syllables(rooms: list[Room]) -> None:
    for room in rooms:
        for segment in room.segments(MINUTE):
            if segment.voice is not None and not segment.bed:
                samples = sound(room, segment)
                loud = np.sqrt((samples[: len(samples) // 160 * 160].reshape(-1, 160) ** 2).mean(axis=1))
                spectrum = np.abs(np.fft.rfft(loud - loud.mean()))
                rate = np.fft.rfftfreq(len(loud), 0.01)
                assert spectrum[(rate > 2) & (rate < 10)].sum() > spectrum[(rate > 15) & (rate < 50)].sum() * 0.8


def test_captions_lie_within_voices_and_do_not_overlap(rooms: list[Room]) -> None:
    for room in rooms:
        voiced = [s for s in room.segments(2 * MINUTE) if s.voice is not None]
        captions = room.captions(2 * MINUTE)
        assert all(a.start + a.duration <= b.start for a, b in pairwise(captions))
        for caption in captions:
            assert caption.text
            assert any(s.start <= caption.start and caption.start + caption.duration <= s.end for s in voiced)


def test_only_a_share_of_the_voices_has_captions() -> None:
    room = Room(2)
    voiced = [s for s in room.segments(5 * MINUTE) if s.voice is not None]
    captioned = [s for s in voiced if room.captions_of(s)]
    assert 0.4 < len(captioned) / len(voiced) < 0.8


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
def test_sound_is_made_at_any_rate(rate: int) -> None:
    room = Room(1, rate=rate)
    assert room.sound(0, 10 * rate).shape == (10 * rate,)


def _pitch(samples: NDArray[np.float64], rate: int) -> float:
    """The median over voiced frames of 64 ms of the strongest period between 60 and 350 Hz."""
    found = []
    size = 1024 * rate // 16_000
    for start in range(0, len(samples) - size, size):
        frame = samples[start : start + size] * np.hanning(size)
        if rms(frame) < 0.3 * rms(samples):
            continue
        power = np.abs(np.fft.rfft(frame, 2 * size)) ** 2
        periodic = np.fft.irfft(power)
        low, high = rate // 350, rate // 60
        found.append(rate / (low + int(np.argmax(periodic[low:high]))))
    return float(np.median(found))
