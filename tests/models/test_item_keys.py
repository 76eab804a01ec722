"""What an item was made of is told so that windows share what is the same, and nothing else."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streamfuse.models.preprocess import compute
from streamfuse.models.preprocess.waveform import Waveform
from streamfuse.types import MILLISECOND, SECOND, Audio, Packet
from tests.models.making import packet


def block_keys(start: int, end: int, packets: Sequence[Packet]) -> list[tuple[Hashable, bytes]]:
    """Each block's key, with what is in it."""
    part = Waveform(seconds=0.1)
    inside = [(p, p.payload) for p in packets if start * MILLISECOND <= p.event_time < end * MILLISECOND]
    items = part.prepare(start * MILLISECOND, end * MILLISECOND, inside, compute)
    assert items.keys is not None
    return [(key, items.data[n].tobytes()) for n, key in enumerate(items.keys)]


@settings(deadline=None)
@given(
    begins=st.lists(st.integers(0, 40), unique=True, max_size=8).map(sorted),
    starts=st.lists(st.integers(0, 30), min_size=2, max_size=4),
    size=st.integers(3, 12),
    jitter=st.sampled_from([0, 0, 3, 15]),
)
def test_blocks_of_sound_with_one_key_are_the_same(begins: list[int], starts: list[int], size: int, jitter: int) -> None:
    draw = np.random.default_rng(sum(begins))
    sounds = [Audio(draw.integers(-999, 999, (800, 1)).astype(np.int16), 16_000) for _ in begins]  # 50 ms
    packets = [packet("audio", s, 20 * at + jitter * (n % 2), 50, offset=n) for n, (at, s) in enumerate(zip(begins, sounds, strict=True))]
    seen: dict[Hashable, bytes] = {}
    for start in starts:
        for key, data in block_keys(20 * start, 20 * (start + size), packets):
            assert seen.setdefault(key, data) == data


def test_windows_share_the_keys_of_the_blocks_that_they_share() -> None:
    packets = [packet("audio", Audio(np.ones((640, 1), np.int16), 16_000), at, 40) for at in range(0, 1000, 40)]
    first, second = ([key for key, _ in block_keys(start, start + 400, packets)] for start in (0, 200))
    assert first[10:] == second[:10]
    assert not set(first[:10]) & set(second)


def test_sound_that_is_resampled_has_no_keys() -> None:
    odd = packet("audio", Audio(np.ones((441, 1), np.int16), 44_100), 0, 10)
    assert Waveform().prepare(0, SECOND, [(odd, odd.payload)], compute).keys is None
