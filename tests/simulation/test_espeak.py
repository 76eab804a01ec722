"""espeak-ng speaks the words where it is installed."""

from __future__ import annotations

import numpy as np
import pytest

from streamfuse.simulation import Room, espeak

PROGRAM = espeak.find()
needs_espeak = pytest.mark.skipif(PROGRAM is None, reason="needs espeak-ng (Debian: apt install espeak-ng)")


@needs_espeak
@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_more_words_take_longer_at_any_rate(rate: int) -> None:
    assert PROGRAM is not None
    short, long = (espeak.speak(PROGRAM, words, rate, 120, 1, 1) for words in ("yes", "seven boxes near the old bridge"))
    assert 0.2 < len(short) / rate < 1.5 < len(long) / rate < 5
    assert np.abs(long).max() == pytest.approx(0.5, abs=0.01)


@needs_espeak
def test_a_room_speaks_through_it_and_stays_the_same() -> None:
    one, other = (Room(3, use_espeak=True).sound(0, 320_000) for _ in range(2))
    assert np.array_equal(one, other)
    assert not np.array_equal(one, Room(3).sound(0, 320_000))


def test_a_program_that_does_not_speak_is_an_error() -> None:
    with pytest.raises(OSError, match="expected sound from false"):
        espeak.speak("false", "words", 16_000, 120, 1, 1)


def test_without_it_the_room_has_a_voice_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert np.array_equal(Room(3, use_espeak=True).sound(0, 160_000), Room(3).sound(0, 160_000))
