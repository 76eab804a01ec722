"""What a window's packets become before a model sees them."""

from __future__ import annotations

import threading

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from streamfuse.errors import BundleError
from streamfuse.models.faces import Box, FaceFinder, face_crops
from streamfuse.models.preprocess import compute
from streamfuse.models.preprocess.face_crops import FaceCrops
from streamfuse.models.preprocess.text_bytes import TextBytes
from streamfuse.models.preprocess.waveform import Waveform, lay_out, resample
from streamfuse.models.remember import OnceCache
from streamfuse.types import MILLISECOND, SECOND, Audio
from tests.models.making import packet

RATE = 16_000


def tone(hz: float, rate: int, seconds: float) -> NDArray[np.int16]:
    return np.asarray(np.rint(10_000 * np.sin(2 * np.pi * hz * np.arange(round(rate * seconds)) / rate)), np.int16)


def chunks(samples: NDArray[np.int16], rate: int, every_ms: int = 40, late_ms: int = 0) -> list[tuple[object, Audio]]:
    size = rate * every_ms // 1000
    parts = [samples[at : at + size, None] for at in range(0, len(samples), size)]
    return [(packet("audio", "", i * every_ms + late_ms * (i % 2), every_ms), Audio(p, rate)) for i, p in enumerate(parts)]


def waveform(rows: list[tuple[object, Audio]], start: int = 0, end: int = 1000) -> NDArray[np.int16]:
    items = Waveform().prepare(start * MILLISECOND, end * MILLISECOND, rows, compute)  # type: ignore[arg-type]
    return np.asarray(items.data, np.int16).ravel()


def test_sound_at_the_bundles_rate_is_laid_out_to_the_sample() -> None:
    wave = tone(440, RATE, 1)
    assert (waveform(chunks(wave, RATE)) == wave).all()


def test_chunks_whose_times_jitter_join_without_a_seam() -> None:
    wave = tone(440, RATE, 1)
    assert (waveform(chunks(wave, RATE, late_ms=7)) == wave).all()


@pytest.mark.parametrize("rate", [8000, 22_050, 44_100, 48_000])
def test_sound_of_another_rate_keeps_its_tone(rate: int) -> None:
    got = waveform(chunks(tone(440, rate, 1), rate)).astype(np.float64)
    wanted = tone(440, RATE, 1)
    assert np.corrcoef(got, wanted)[0, 1] > 0.999
    assert abs(got.std() / wanted.std() - 1) < 0.01


def test_chunk_that_reaches_over_the_windows_edge_is_cut_there() -> None:
    wave = tone(440, RATE, 2)
    assert (waveform(chunks(wave, RATE, every_ms=400), 500, 1500) == wave[RATE // 2 : RATE * 3 // 2]).all()


def test_blocks_without_sound_are_masked_out() -> None:
    items = Waveform().prepare(0, SECOND, chunks(tone(440, RATE, 0.5), RATE), compute)  # type: ignore[arg-type]
    assert items.mask.tolist() == [True] * 25 + [False] * 25


def test_short_window_is_filled_up_before_its_start() -> None:
    items = Waveform().prepare(0, 100 * MILLISECOND, chunks(tone(440, RATE, 0.1), RATE), compute)  # type: ignore[arg-type]
    assert items.mask.tolist() == [False] * 45 + [True] * 5
    assert items.time[-1] == pytest.approx(-0.01)


def test_stereo_becomes_the_mean_of_both() -> None:
    both = np.array([[100, 300], [-100, 0]], np.int16)
    assert Waveform().reduce(Audio(both, RATE)).samples[:, 0].tolist() == [200, -50]


def test_chunk_before_the_earliest_instant_does_not_count() -> None:
    line, covered = lay_out([(0, np.array([1, 2, 3, 4], np.int16))], 4, SECOND // 2, 0, SECOND)
    assert line.tolist() == [0, 0, 3, 4]
    assert covered.tolist() == [False, False, True, True]


def test_resampling_nothing_gives_silence() -> None:
    assert resample(np.zeros(0, np.float32), 4).tolist() == [0, 0, 0, 0]


def test_text_is_cut_to_its_length_and_the_last_ones_count() -> None:
    recipe = TextBytes(length=4, most=2)
    rows = [(packet("text", t, 100 * i), recipe.reduce(t)) for i, t in enumerate(["one", "two", "threefold"])]
    items = recipe.prepare(0, SECOND, rows, compute)
    assert [bytes(row) for row in items.data] == [b"two\0", b"thre"]
    assert items.time.tolist() == pytest.approx([-0.9, -0.8])


def test_caption_that_began_before_the_window_counts_from_its_start() -> None:
    recipe = TextBytes()
    items = recipe.prepare(SECOND, 2 * SECOND, [(packet("text", "hi", 0, 3000), recipe.reduce("hi"))], compute)
    assert items.time.tolist() == [-1.0]


def frames(count: int, shift: float = 0.0, mouth: bool = False) -> list[NDArray[np.uint8]]:
    """A picture with texture, shifted from frame to frame; its lower part flickers where `mouth` says so."""
    draw = np.random.default_rng(0)
    base = cv2.GaussianBlur(draw.integers(0, 255, (240, 320), np.uint8), (0, 0), 4)
    out = []
    for i in range(count):
        moved = cv2.warpAffine(base, np.array([[1.0, 0, shift * i], [0, 1, 0]]), (320, 240), borderMode=cv2.BORDER_REFLECT)
        if mouth and i % 2:
            cv2.ellipse(moved, (round(160 + shift * i), 155), (15, 10), 0, 0, 360, 0, -1)
        out.append(np.asarray(moved, np.uint8))
    return out


def motion(crops: NDArray[np.uint8]) -> float:
    return float(np.abs(np.diff(crops[:, 4:-4, 4:-4].astype(float), axis=0)).mean())


BOX = Box(160, 120, 120)


def test_frozen_face_does_not_move_at_all() -> None:
    assert motion(face_crops(frames(8), {0: [BOX], 4: [BOX]}, 48, 1)) == 0


def test_trembling_box_does_not_move_a_frozen_face() -> None:
    found = {i: [Box(160 + (-1) ** i * 4, 120, 120 + i)] for i in range(8)}
    assert motion(face_crops(frames(8), found, 48, 1)) == 0


def test_shaken_face_is_steadied() -> None:
    found = {0: [BOX], 7: [Box(167, 120, 120)]}
    still, moving = face_crops(frames(8, shift=1), found, 48, 1), face_crops(frames(8, mouth=True), {0: [BOX]}, 48, 1)
    assert motion(still) < 0.35 * motion(moving)


def test_face_that_moves_is_followed() -> None:
    found = {0: [BOX], 7: [Box(160 + 7 * 12, 120, 120)]}
    assert motion(face_crops(frames(8, shift=12), found, 48, 1)) < 6


def test_face_found_only_once_is_passed_over() -> None:
    assert not face_crops(frames(8), {0: [BOX], 2: [], 4: [], 6: []}, 48, 1).any()


def test_of_two_faces_the_one_whose_mouth_moves_is_taken() -> None:
    left, right = frames(8), frames(8, mouth=True)
    both = [np.hstack(pair) for pair in zip(left, right, strict=True)]
    crops = face_crops(both, {0: [Box(160, 120, 121), Box(480, 120, 120)]}, 48, 2)
    assert (crops == face_crops(right, {0: [BOX]}, 48, 1)).all()


def test_overlapping_windows_choose_the_same_frames() -> None:
    recipe = FaceCrops()
    grey = np.zeros((60, 80), np.uint8)
    rows = [(packet("video", "", at), grey) for at in range(0, 2000, 40)]

    def chosen(start: int) -> set[float]:
        part = [row for row in rows if start <= row[0].event_time // MILLISECOND < start + 1000]
        items = recipe.prepare(start * MILLISECOND, (start + 1000) * MILLISECOND, part, compute)
        return {round(float(t) + start / 1000 + 1, 3) for t in items.time}

    assert {t for t in chosen(0) if t >= 0.5} == {t for t in chosen(500) if t < 1}


def test_of_a_long_window_the_last_seconds_count() -> None:
    grey = np.zeros((60, 80), np.uint8)
    rows = [(packet("video", "", at), grey) for at in range(0, 60_000, 100)]
    items = FaceCrops().prepare(0, 60 * SECOND, rows, compute)
    assert items.time.min() == pytest.approx(-10.0)
    assert len(items.mask) == 100


def test_opencv_without_cascades_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(cv2, "CascadeClassifier")
    with pytest.raises(BundleError, match=r"install opencv-python-headless>=4\.10,<5"):
        FaceFinder()


def test_value_is_computed_once_for_two_threads_at_the_same_time() -> None:
    cache, inside, go = OnceCache(1000, lambda _: 1), threading.Event(), threading.Event()

    def slow() -> int:
        inside.set()
        assert go.wait(5)
        return 7

    got: list[int] = []
    threads = [threading.Thread(target=lambda: got.append(cache.get("k", slow))) for _ in range(2)]
    threads[0].start()
    assert inside.wait(5)
    threads[1].start()
    go.set()
    for thread in threads:
        thread.join()
    assert got == [7, 7]
    assert cache.computed == 1


def test_oldest_value_goes_when_the_bytes_are_full() -> None:
    cache = OnceCache(3 * 356, lambda _: 100)
    for key in "abacd":
        cache.get(key, lambda key=key: key)  # type: ignore[misc]
    assert cache.computed == 4
    cache.get("a", lambda: "a")
    assert cache.computed == 4
    cache.get("b", lambda: "b")
    assert cache.computed == 5
