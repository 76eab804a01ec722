"""Faults break what they say, from the seed alone, and leave the rest as it was."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamfuse.config import Faults
from streamfuse.simulation.faults import damage, inject
from streamfuse.types import MILLISECOND, SECOND, Encoded, Packet, Position

ORIGIN = 1_000 * SECOND
QUIET: dict[str, Any] = {"delay": {}}


def packet(stream: str, number: int, every: int) -> Packet:
    at = ORIGIN + number * every
    return Packet(stream, "room", at, every, f"{stream} {number}", Position(f"sim/{stream}", number), at, f"{stream}#{number}")


def packets(count: int = 200) -> list[Packet]:
    """Video at 25 Hz, sound at 50 Hz, in order of event time."""
    made = [packet("video", n, 40 * MILLISECOND) for n in range(count)] + [packet("audio", n, 20 * MILLISECOND) for n in range(2 * count)]
    return sorted(made, key=lambda p: (p.event_time, p.stream))


def broken(faults: dict[str, Any], sent: Sequence[Packet] | None = None, seed: int = 1) -> list[Packet]:
    return list(inject(packets() if sent is None else sent, Faults.model_validate({**QUIET, **faults}), seed=seed, origin=ORIGIN))


def of(stream: str, found: Sequence[Packet]) -> list[Packet]:
    return [p for p in found if p.stream == stream]


shares = st.floats(0, 1)
any_faults = st.builds(
    lambda delay, sigma, drop, duplicate, reorder, corrupt, late, burst: {
        "delay": {"video": f"{delay}ms"},
        "delay_sigma": sigma,
        "drop": drop,
        "duplicate": duplicate,
        "reorder": reorder,
        "corrupt": corrupt,
        "very_late": late,
        "burst": f"{burst}ms",
    },
    st.integers(0, 500),
    st.floats(0, 2),
    *[shares] * 5,
    st.integers(0, 300),
)


@settings(deadline=None)
@given(any_faults, st.integers(0, 99))
def test_packets_come_in_order_of_arrival_with_offsets_from_0(faults: dict[str, Any], seed: int) -> None:
    found = broken(faults, packets(20), seed)
    arrivals = [p.arrival_time for p in found]
    assert arrivals == sorted(arrivals)
    assert all(p.arrival_time >= p.event_time for p in found)
    for stream in ("video", "audio"):
        assert [p.position.offset for p in of(stream, found)] == list(range(len(of(stream, found))))


@settings(deadline=None)
@given(any_faults, st.integers(0, 99))
def test_the_same_seed_breaks_the_same(faults: dict[str, Any], seed: int) -> None:
    assert broken(faults, packets(20), seed) == broken(faults, packets(20), seed)


@settings(deadline=None)
@given(any_faults)
def test_a_stream_is_broken_alike_with_and_without_others(faults: dict[str, Any]) -> None:
    sent = packets(20)
    assert of("video", broken(faults, sent)) == broken(faults, of("video", sent))


@settings(deadline=None)
@given(any_faults)
def test_nothing_is_invented(faults: dict[str, Any]) -> None:
    sent = {p.id: p for p in packets(20)}
    for arrived in broken(faults, packets(20)):
        original = sent[arrived.id]
        assert (arrived.stream, arrived.key, arrived.duration) == (original.stream, original.key, original.duration)


def test_without_faults_nothing_changes() -> None:
    assert broken({}) == packets()


def test_untouched_streams_arrive_at_once_and_whole() -> None:
    faults = Faults(drop=1.0)
    found = list(inject(packets(), faults, seed=1, origin=ORIGIN, untouched=frozenset({"audio"})))
    assert found == of("audio", packets())


def test_endless_input_is_fine() -> None:
    endless = (packet("video", n, 40 * MILLISECOND) for n in itertools.count())
    found = itertools.islice(inject(endless, Faults(very_late=0.1), seed=1, origin=ORIGIN), 1000)
    assert len(list(found)) == 1000


def test_delays_have_the_median_that_was_asked_for() -> None:
    found = broken({"delay": {"video": "60ms"}}, packets(2000))
    delays = [p.arrival_time - p.event_time for p in of("video", found)]
    assert np.median(delays) == pytest.approx(60 * MILLISECOND, rel=0.05)
    assert np.std(np.log(delays)) == pytest.approx(0.35, rel=0.1)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_share_is_dropped(share: float) -> None:
    assert len(broken({"drop": share}, packets(1000))) == pytest.approx(3000 * (1 - share), abs=90)


def test_a_duplicate_is_the_same_packet_again_with_an_offset_of_its_own() -> None:
    found = broken({"duplicate": 1.0, "delay": {"video": "20ms", "audio": "20ms"}})
    assert set(Counter(p.id for p in found).values()) == {2}
    first, second = (p for p in found if p.id == "video#3")
    assert (first.event_time, first.payload) == (second.event_time, second.payload)
    assert first.arrival_time < second.arrival_time
    assert first.position != second.position


def test_reordered_packets_are_overtaken() -> None:
    found = of("video", broken({"reorder": 0.2}))
    overtaken = sum(a.event_time > b.event_time for a, b in itertools.pairwise(found))
    assert 0.1 * len(found) < overtaken < 0.3 * len(found)


def test_very_late_packets_come_half_a_second_to_two_later() -> None:
    found = of("video", broken({"very_late": 0.1}, packets(1000)))
    late = [d for p in found if (d := p.arrival_time - p.event_time)]
    assert len(late) == pytest.approx(100, abs=30)
    assert all(SECOND // 2 <= d <= 2 * SECOND for d in late)


def test_a_clock_drifts_by_parts_per_million() -> None:
    found = of("video", broken({"drift_ppm": {"video": 1000}}))
    assert [p.event_time for p in found] == [ORIGIN + n * 40 * MILLISECOND * 1001 // 1000 for n in range(200)]
    assert [p.arrival_time for p in found] == [p.event_time for p in of("video", packets())]


def test_a_clock_steps_at_its_instant_and_back() -> None:
    found = of("video", broken({"step": {"video": [["2s", 5], ["4s", -5]]}}))
    by = [(p.event_time - s.event_time) // SECOND for p, s in zip(found, of("video", packets()), strict=True)]
    assert by == [0] * 50 + [5] * 50 + [0] * 100


def test_a_silent_stretch_has_no_packets_and_other_streams_go_on() -> None:
    found = broken({"silent": {"video": [["2s", "3s"]]}})
    gone = {p.id for p in packets()} - {p.id for p in found}
    assert gone == {f"video#{n}" for n in range(50, 75)}


def test_a_burst_releases_what_was_held_back_together() -> None:
    found = broken({"burst": "200ms", "delay": {"video": "30ms"}})
    assert {(p.arrival_time - ORIGIN) % (200 * MILLISECOND) for p in found} == {0}
    assert max(Counter(p.arrival_time for p in found).values()) >= 10


def test_a_corrupt_picture_is_no_picture() -> None:
    _, jpeg = cv2.imencode(".jpg", np.random.default_rng(1).integers(0, 255, (48, 64, 3), np.uint8))
    for seed in range(20):
        hurt = damage(Encoded(jpeg.tobytes(), "image/jpeg"), np.random.default_rng(seed))
        assert isinstance(hurt, Encoded)
        assert hurt.data != jpeg.tobytes()
        assert not (hurt.data.startswith(b"\xff\xd8") and hurt.data.endswith(b"\xff\xd9"))


def test_corrupt_sound_has_half_a_sample() -> None:
    for size in (1, 2, 640, 641):
        hurt = damage(Encoded(bytes(size), "audio/pcm", 16_000, 1), np.random.default_rng(1))
        assert isinstance(hurt, Encoded)
        assert len(hurt.data) % 2 == 1


@settings(deadline=None)
@given(st.text(), st.integers(0, 99))
def test_corrupt_text_is_not_utf8(text: str, seed: int) -> None:
    for payload in (text, Encoded(text.encode(errors="replace"), "text/plain")):
        hurt = damage(payload if isinstance(payload, Encoded) or payload.isascii() else "x", np.random.default_rng(seed))
        assert isinstance(hurt, Encoded)
        with pytest.raises(UnicodeDecodeError):
            hurt.data.decode()


def test_a_share_is_corrupted_and_keeps_its_description() -> None:
    found = of("video", broken({"corrupt": 0.25}, packets(1000)))
    hurt = [p for p in found if isinstance(p.payload, Encoded)]
    assert len(hurt) == pytest.approx(250, abs=45)
    assert all(p.event_time == ORIGIN + int(p.id.split("#")[1]) * 40 * MILLISECOND for p in hurt)
