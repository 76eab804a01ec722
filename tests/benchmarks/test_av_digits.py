"""What the AV-digits and MOSI benchmarks make of their data, on made-up numbers."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks import mosi
from tests.benchmarks.av_digits import half_missing
from tests.benchmarks.av_digits_data import ITEMS, PARTS, RATE, meeting, pair, principal, spoken, stretch_of, with_babble, without


def pictures(count: int = 200) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    deviations = np.array([4, 3, 2, 1], np.float32)
    return np.random.default_rng(0).standard_normal((count, 4), np.float32) * deviations + 5


def test_the_fewest_components_that_hold_the_energy_are_removed() -> None:
    clear = pictures()
    components = principal(clear, 0.75)  # of 16 + 9 + 4 + 1 the first holds 53 %, the first two 83 %
    assert components.axes.shape == (4, 2)
    left = np.square(without(clear, components)).sum() / np.square(clear - clear.mean(0)).sum()
    assert left == pytest.approx(5 / 30, abs=0.04)


def test_no_component_is_removed_where_no_energy_is() -> None:
    clear = pictures()
    assert without(clear, principal(clear, 0)) == pytest.approx(clear - clear.mean(0))


def test_babble_is_mixed_in_at_its_ratio() -> None:
    draw = np.random.default_rng(1)
    clip = 100 * np.sin(np.arange(4000, dtype=np.float32) / 7)
    meetings = [draw.standard_normal(20_000, np.float32)]
    babble = with_babble(clip, meetings, 10.0, draw) - clip
    assert 20 * np.log10(clip.std() / babble.std()) == pytest.approx(10, abs=0.01)


def test_silence_of_a_meeting_is_no_babble() -> None:
    draw = np.random.default_rng(2)
    whole = np.concatenate([np.zeros(50_000, np.float32), draw.standard_normal(50_000, np.float32)])
    assert all(stretch_of([whole], 1000, draw).std() == pytest.approx(1, abs=1e-3) for _ in range(20))


def test_each_spoken_digit_gets_a_picture_of_its_own() -> None:
    digits = np.repeat(np.arange(10), 7)
    spoken_digits = np.repeat(np.arange(10), 3)
    own = np.arange(0, 70, 2)
    chosen = pair(spoken_digits, digits, own, np.random.default_rng(3))
    assert (digits[chosen] == spoken_digits).all()
    assert len(set(chosen.tolist())) == 30
    assert set(chosen.tolist()) <= set(own.tolist())


def test_parts_share_no_talker_no_meeting_and_no_picture() -> None:
    parts = list(PARTS.values())
    talkers = [talker for part in parts for talker in part.talkers]
    meetings = [number for part in parts for number in part.meetings]
    assert len(set(talkers)) == len(talkers)
    assert len(set(meetings)) == len(meetings)
    shares = sorted(part.pictures for part in parts)
    assert all(before[1] <= after[0] for before, after in pairwise(shares))


def test_sound_is_stretches_without_their_mean_and_zeros_after_its_end() -> None:
    clip = np.random.default_rng(4).standard_normal(RATE // 2).astype(np.float32)
    items = spoken(clip)
    assert items.shape == (ITEMS, 288)
    assert np.abs(items[0]).max() > 0
    assert np.abs(items[-1]).max() == 0


def test_a_meeting_comes_at_half_its_rate(tmp_path: Path) -> None:
    tone = np.sin(np.arange(16_000) * 2 * np.pi * 440 / 16_000).astype("<f4")
    (tmp_path / "a.wav").write_bytes(b"RIFF....WAVEdata" + b"\0" * 4 + tone.tobytes())
    found = meeting(tmp_path / "a.wav")
    assert found == pytest.approx(tone[::2], abs=1e-3)


def test_half_missing_is_the_mean_over_what_is_shown() -> None:
    assert half_missing(90, {"audio": 50, "image": 70}) == 75


def test_mosi_is_scaled_by_its_training_rows_and_its_test_labels_are_unknown() -> None:
    train = {stream: np.array([[0.0, 3.0], [2.0, 3.0]], np.float32) for stream in mosi.STREAMS}
    test = {stream: np.array([[4.0, 3.0]], np.float32) for stream in mosi.STREAMS}
    columns = mosi.prepare(
        {**train, "label": np.array([0, 1]), "recording": np.array([0, 0]), "position": np.array([1, 2])},
        {**test, "recording": np.array([1]), "position": np.array([1])},
    )
    assert columns["text"].tolist() == [[-1, 0], [1, 0], [3, 0]]
    assert columns["label"].tolist() == [0, 1, -1]
    assert columns["part"].tolist() == ["train", "train", "test"]
