"""What the synchronizer promises on the AVT-120 workload, in simulated time; its speed is the benchmark's to tell."""

from __future__ import annotations

import os
from math import inf

import pytest

from streamfuse import MILLISECOND
from tests.benchmarks.subjects import StreamFuse
from tests.benchmarks.workload import Record, Workload, read_ahead

HOLD = 0.040
FRAME = 1 / 30


@pytest.fixture(scope="module")
def workload() -> Workload:
    if not os.environ.get("STREAMFUSE_BENCH"):
        pytest.skip("needs the AVT-120 workload: set STREAMFUSE_BENCH to the folder that has avt120.py")
    return Workload()


def scored(workload: Workload, records: list[Record], *streams: str) -> dict[str, float]:
    subject = StreamFuse(*streams, max_hold=round(HOLD * 1000) * MILLISECOND)
    return workload.score(subject.run(subject.prepare(records)), records)


def test_every_frame_is_answered_with_the_true_nearest_sound_and_soon(workload: Workload) -> None:
    score = scored(workload, workload.records("video", "audio"), "video", "audio")
    assert score["coverage"] == 1
    assert score["right"] >= 0.99
    assert score["held_p99"] <= 0.080


def test_requiring_a_sparse_stream_costs_no_frame(workload: Workload) -> None:
    score = scored(workload, workload.records(), "video", "audio", "text")
    assert score["coverage"] == 1
    assert score["right"] >= 0.99


def test_a_stream_that_dies_stalls_nothing_past_the_hold(workload: Workload) -> None:
    score = scored(workload, workload.records("video", "audio", gap=("audio", 40.0, inf)), "video", "audio")
    assert score["coverage"] == 1
    # The hold counts from the packet that shows that the window's end has passed: here the next frame, or the one after a dropped one.
    assert score["held_max"] <= HOLD + Workload.TOLERANCE + 2 * FRAME


@pytest.mark.parametrize("ahead", ["video", "audio"])
def test_no_packet_is_late_because_a_topic_is_read_ahead(workload: Workload, ahead: str) -> None:
    subject = StreamFuse("video", "audio", live=False, max_hold=None, allowed_lateness=0)
    even = workload.records("video", "audio")
    expected = subject.run(subject.prepare(even))
    uneven = subject.run(subject.prepare(read_ahead(even, ahead, 5.0)))
    assert uneven.late == expected.late
    assert {(d.video, d.audio) for d in uneven.decisions} == {(d.video, d.audio) for d in expected.decisions}
