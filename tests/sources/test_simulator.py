"""The simulator streams rooms with their truth, the same for a seed, and in real time when asked."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import anyio
import anyio.to_thread
import cv2
import numpy as np
import pytest

from streamfuse.config import SimulatorSourceSettings
from streamfuse.errors import SourceError
from streamfuse.interfaces import Source
from streamfuse.simulation import LABELS, Room
from streamfuse.sources.simulator import TRUTH_PIECE, SimulatorSource, packets, rooms
from streamfuse.testing import ManualClock
from streamfuse.types import SECOND, Encoded, Item, Loss, Outcome, Packet
from tests.sources.contract import PATIENCE, SourceContract, positions, read, reading

NOW = 1_777_636_800 * SECOND


def asked(**settings: Any) -> SimulatorSourceSettings:
    base = {"type": "simulator", "seconds": 4, "pace": "full", "start": "file", "espeak": False, "width": 160, "height": 120}
    return SimulatorSourceSettings.model_validate({**base, **settings})


async def everything(**settings: Any) -> list[Packet]:
    said = await read(SimulatorSource(asked(**settings), ManualClock(NOW)), 10**9)
    return [item for item in said if isinstance(item, Packet)]


def of(stream: str, said: Sequence[Packet]) -> list[Packet]:
    return sorted((p for p in said if p.stream == stream), key=lambda p: p.event_time)


class Simulation:
    ends, resumes = True, False

    def __init__(self, **settings: Any) -> None:
        self._settings = asked(**settings)
        self.records = len(list(packets(self._settings, 0)))

    def source(self) -> Source:
        return SimulatorSource(self._settings, ManualClock(NOW))


class TestSimulatorSource(SourceContract):
    @pytest.fixture
    def place(self) -> Simulation:
        return Simulation(rooms=2, seconds=2)


class TestSimulatorSourceWithFaults(SourceContract):
    @pytest.fixture
    def place(self) -> Simulation:
        faults = {"drop": 0.1, "duplicate": 0.1, "reorder": 0.1, "corrupt": 0.1, "very_late": 0.1, "burst": "100ms"}
        return Simulation(faults=faults, seconds=2)


@pytest.mark.anyio
async def test_pictures_are_jpeg_at_the_rate_that_was_asked_for() -> None:
    frames = of("video", await everything())
    assert [p.event_time for p in frames] == [round(n * SECOND / 15) for n in range(60)]
    for packet in frames:
        assert isinstance(packet.payload, Encoded)
        assert packet.payload.media_type == "image/jpeg"
        picture = cv2.imdecode(np.frombuffer(packet.payload.data, np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None
        assert picture.shape == (120, 160, 3)


@pytest.mark.anyio
@pytest.mark.parametrize(("rate", "chunk"), [(16_000, "40ms"), (44_100, "23ms"), (8_000, "100ms")])
async def test_sound_is_whole_however_it_is_cut(rate: int, chunk: str) -> None:
    settings = asked(audio_rate=rate, audio_chunk=chunk)
    chunks = of("audio", await everything(audio_rate=rate, audio_chunk=chunk))
    assert all(a.end == b.event_time for a, b in pairwise(chunks))
    payloads = [p.payload for p in chunks if isinstance(p.payload, Encoded)]
    assert {(p.media_type, p.rate, p.channels) for p in payloads} == {("audio/pcm", rate, 1)}
    heard = np.frombuffer(b"".join(p.data for p in payloads), "<i2")
    assert np.array_equal(heard, rooms(settings)[0].sound(0, len(heard)))


@pytest.mark.anyio
async def test_the_truth_covers_every_instant_in_short_pieces() -> None:
    truth = of("truth", await everything(seconds=20))
    assert truth[0].event_time == 0
    assert all(a.end == b.event_time for a, b in pairwise(truth))
    assert all(p.duration <= TRUTH_PIECE and p.payload in LABELS for p in truth)
    room = rooms(asked())[0]
    assert all(p.payload == room.truth(p.event_time) == room.truth(p.end - 1) for p in truth)


@pytest.mark.anyio
async def test_the_truth_is_a_stream_only_where_it_was_asked_for() -> None:
    assert "truth" not in SimulatorSource(asked(truth=False), ManualClock()).streams
    assert {p.stream for p in await everything(truth=False)} <= {"video", "audio", "text"}


@pytest.mark.anyio
async def test_the_truth_has_no_faults() -> None:
    assert of("truth", await everything(faults={"drop": 1.0})) == of("truth", await everything())


@pytest.mark.anyio
async def test_captions_come_with_their_length() -> None:
    text = of("text", await everything(seconds=60, fps=0.1))
    room: Room = rooms(asked())[0]
    assert [(p.event_time, p.duration, p.payload) for p in text] == [
        (c.start, min(c.duration, 60 * SECOND - c.start), c.text) for c in room.captions(60 * SECOND) if c.start < 60 * SECOND
    ]


@pytest.mark.anyio
async def test_nothing_goes_on_after_the_end() -> None:
    assert max(p.end for p in await everything(seconds=4.3, seed=9)) == 4_300_000_000


@pytest.mark.anyio
async def test_rooms_have_keys_and_differ() -> None:
    said = await everything(rooms=3)
    assert {p.key for p in said} == {"room-1", "room-2", "room-3"}
    assert len({of("video", [p for p in said if p.key == f"room-{n}"])[0].payload for n in (1, 2, 3)}) == 3


@pytest.mark.anyio
async def test_a_room_is_the_same_whoever_else_there_is() -> None:
    alone = await everything()
    together = await everything(rooms=2)
    assert sorted(alone, key=lambda p: p.id) == sorted((p for p in together if p.key == "room-1"), key=lambda p: p.id)


@pytest.mark.anyio
async def test_a_seed_decides_everything() -> None:
    assert await everything(faults={"drop": 0.2}) == await everything(faults={"drop": 0.2})
    assert await everything(seed=8) != await everything(seed=9)


@pytest.mark.anyio
async def test_packets_come_in_order_of_arrival_after_their_delay() -> None:
    said = await everything()
    arrivals = [p.arrival_time for p in said]
    assert arrivals == sorted(arrivals)
    assert all(p.arrival_time > p.event_time for p in said if p.stream != "truth")


@pytest.mark.anyio
@pytest.mark.parametrize(("start", "first"), [("now", NOW), ("2026-05-01T12:00:01Z", NOW + SECOND), ("file", 0)])
async def test_event_time_begins_where_start_says(start: str, first: int) -> None:
    assert min(p.event_time for p in await everything(start=start)) == first


@pytest.mark.anyio
async def test_a_start_that_is_no_instant_is_refused() -> None:
    with pytest.raises(SourceError, match="start: expected now, file or an instant"):
        await everything(start="soon")


@pytest.mark.anyio
async def test_ids_are_unique_but_for_duplicates() -> None:
    said = await everything()
    assert len({p.id for p in said}) == len(said)
    twice = await everything(faults={"duplicate": 1.0}, truth=False)
    assert len({p.id for p in twice}) * 2 == len(twice)


@pytest.mark.anyio
async def test_in_real_time_a_packet_waits_until_it_is_due() -> None:
    source = SimulatorSource(asked(pace="realtime", start="now", seconds=3600), ManualClock(NOW))
    said: list[Item] = []
    with anyio.fail_after(PATIENCE):
        async with reading(source) as batches:
            said.extend(await anext(batches))
    assert {p.arrival_time for p in said if isinstance(p, Packet)} == {NOW}  # the clock stands still


@pytest.mark.anyio
async def test_without_seconds_it_goes_on() -> None:
    said = await read(SimulatorSource(asked(seconds=None), ManualClock(NOW)), 1500)
    assert max(p.event_time for p in said if isinstance(p, Packet)) > 20 * SECOND


@pytest.mark.anyio
async def test_a_slow_reader_is_told_what_was_shed() -> None:
    source = SimulatorSource(asked(when_full="drop_oldest", seconds=30, fps=1, audio_chunk="20ms"), ManualClock(NOW))
    said: list[Item] = []
    with anyio.fail_after(PATIENCE):
        async with source:
            batches = source.batches()
            said.extend(await anext(batches))
            assert source._bridge._thread is not None
            await anyio.to_thread.run_sync(source._bridge._thread.join)
            async for batch in batches:
                said.extend(batch)
    shed = [item for item in said if isinstance(item, Loss)]
    assert shed
    assert {loss.reason for loss in shed} == {Outcome.SHED}
    whole = packets(asked(seconds=30, fps=1, audio_chunk="20ms"), 0)
    assert positions(said) == [p.position for p in whole]
