"""Frames and texts become items of one shape, the same ones in every window that they stand in."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from streamfuse.models.parts import UnknownPart
from streamfuse.models.preprocess import PREPROCESSORS, compute
from streamfuse.models.preprocess.frames import Frames
from streamfuse.models.preprocess.tokens import Tokens, fitted
from streamfuse.types import MILLISECOND, Image, Packet
from tests.models.making import packet

TEXTS = ["谁在说话?她在说话。", "who is talking? she is talking"] * 4


def picture(blue: int, green: int, red: int, height: int = 60, width: int = 80) -> Image:
    return Image(np.full((height, width, 3), (blue, green, red), np.uint8))


def frames(part: Frames, at: range, start: int, end: int) -> NDArray[np.float64]:
    """Times, in ms since the epoch, of the frames that a window has."""
    rows: list[tuple[Packet, object]] = [(packet("video", "", t), np.zeros((2, 2), np.uint8)) for t in at if start <= t < end]
    items = part.prepare(start * MILLISECOND, end * MILLISECOND, rows, compute)
    return np.round(items.time.astype(np.float64) * 1000 + end)


def test_frames_are_rgb_and_of_one_size() -> None:
    reduced = Frames(height=6, width=8).reduce(picture(10, 20, 30))
    assert reduced.shape == (6, 8, 3)
    assert reduced.dtype == np.uint8
    assert reduced[0, 0].tolist() == [30, 20, 10]


def test_grey_frames_have_no_colours() -> None:
    reduced = Frames(height=6, width=8, colour=False).reduce(picture(100, 100, 100))
    assert reduced.shape == (6, 8)
    assert (reduced == 100).all()


def test_the_whole_picture_counts_whatever_its_shape() -> None:
    wide = np.zeros((10, 100, 3), np.uint8)
    wide[:, 50:] = 200
    assert Frames(height=4, width=4, colour=False).reduce(Image(wide))[0].tolist() == [0, 0, 200, 200]


def test_at_most_so_many_frames_a_second_the_same_in_every_window() -> None:
    part = Frames(fps=10)
    first, second = (set(frames(part, range(0, 2000, 40), start, start + 1000)) for start in (0, 500))
    assert len(first) == 10
    assert {t for t in first if t >= 500} == {t for t in second if t < 1000}


def test_of_a_long_window_the_last_seconds_count() -> None:
    assert frames(Frames(fps=1, max_seconds=2), range(0, 60_000, 1000), 0, 60_000).tolist() == [58_000, 59_000]


def test_usual_window_fits_into_the_usual_shape() -> None:
    part = Frames(height=2, width=2, colour=False, fps=10)
    assert len(frames(part, range(0, 2000, 10), 15, 1015)) == len(part.empty().mask) == 11
    assert part.empty().data.shape == (11, 2, 2)


def test_frames_of_no_size_are_refused() -> None:
    with pytest.raises(UnknownPart, match="a size and fps greater than 0"):
        PREPROCESSORS.make({"type": "frames", "fps": 0})


def test_texts_are_ids_with_zeros_behind_their_end() -> None:
    part = Tokens(**fitted({"length": 8}, TEXTS))
    ids = part.reduce(" who is talking? ")
    assert ids.dtype == np.int32
    assert ids.shape == (8,)
    assert part.tokenizer.decode(ids) == "who is talking?"
    assert (ids[-3:] == 0).all()


def test_long_text_is_cut() -> None:
    assert (Tokens(length=8).reduce("谁" * 100) > 0).all()


def test_empty_text_has_no_ids() -> None:
    assert not Tokens().reduce("  ").any()


def test_last_texts_count_and_what_began_earlier_counts_from_the_start() -> None:
    part = Tokens(most=2)
    rows: list[tuple[Packet, object]] = [(packet("text", str(at), at, 400), part.reduce(str(at))) for at in (100, 200, 300)]
    items = part.prepare(250 * MILLISECOND, 1250 * MILLISECOND, rows, compute)
    assert items.time == pytest.approx([-1.0, -0.95])
    assert items.data.shape == (2, 64)
    assert len(part.prepare(0, 1, [], compute).mask) == 0


def test_tokenizer_is_learned_once_and_then_stands_in_the_options() -> None:
    options = fitted({"type": "tokens", "vocabulary": 280, "length": 32}, TEXTS)
    assert options.keys() == {"type", "vocabulary", "merges", "length"}
    assert Tokens(options["merges"]).vocabulary == options["vocabulary"] == 280
    assert fitted(options, ["other texts", "other texts"]) == options


def test_vocabulary_is_what_the_texts_gave() -> None:
    assert fitted({"type": "tokens"}, ["ab", "ab"])["vocabulary"] == 260


def test_merges_beyond_the_vocabulary_are_refused() -> None:
    with pytest.raises(UnknownPart, match="at most 259 ids, found merges for 260; set vocabulary"):
        PREPROCESSORS.make({"type": "tokens", "merges": "100-101", "vocabulary": 259})


def test_damaged_tokenizer_is_refused_with_a_sentence() -> None:
    with pytest.raises(UnknownPart, match="expected a merge of two ids"):
        PREPROCESSORS.make({"type": "tokens", "merges": "1-2"})
