"""Recordings as windows: read by the media source, aligned by the synchronizer, as in service."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from streamfuse.clock import SystemClock
from streamfuse.config import MediaSourceSettings
from streamfuse.sources.media import MediaSource
from streamfuse.sync import Sliding, StreamPolicy, Synchronizer
from streamfuse.types import SECOND, Audio, Image, Packet, Window

SPOKEN = 0.6
"""A window is spoken where at least this share of it lies between the first and the last sound of the sentence."""


async def packets_of(path: Path) -> list[Packet]:
    settings = MediaSourceSettings(type="media", path=str(path), pace="full", start="file")
    async with MediaSource(settings, SystemClock()) as source:
        return [item async for batch in source.batches() for item in batch if isinstance(item, Packet)]


def windows_of(packets: Sequence[Packet]) -> list[Window]:
    """Windows of 1 s, every 0.5 s, that lie within the recording."""
    streams = {name: StreamPolicy(required=name != "text") for name in ("video", "audio", "text")}
    synchronizer = Synchronizer(streams, Sliding(SECOND, SECOND // 2))
    windows = [w for packet in packets for w in synchronizer.push(packet)]
    windows += synchronizer.finish()
    end = max(p.end for p in packets if p.stream == "audio")
    return [w for w in windows if w.start >= 0 and w.end <= end + SECOND // 10]


def frozen(packets: Sequence[Packet]) -> list[Packet]:
    """The same sound over the first frame, held."""
    first = next(p.payload for p in packets if isinstance(p.payload, Image))
    return [replace(p, payload=first) if p.stream == "video" else p for p in packets]


def muted(packets: Sequence[Packet]) -> list[Packet]:
    """The same picture over digital silence."""
    return [
        replace(p, payload=Audio(np.zeros_like(p.payload.samples), p.payload.rate)) if isinstance(p.payload, Audio) else p for p in packets
    ]


def without(packets: Sequence[Packet], stream: str) -> list[Packet]:
    return [p for p in packets if p.stream != stream]


def spoken(packets: Sequence[Packet], windows: Sequence[Window]) -> list[Window]:
    """The windows in which somebody speaks, by where 99 % of the sound's energy lies."""
    sound = [(p.event_time, p.payload) for p in packets if isinstance(p.payload, Audio)]
    energy = np.cumsum([np.square(a.samples.astype(float)).sum() for _, a in sound])
    inside = [time for (time, _), share in zip(sound, energy / energy[-1], strict=True) if 0.005 < share < 0.995]
    first, last = inside[0], inside[-1]
    return [w for w in windows if min(last, w.end) - max(first, w.start) >= SPOKEN * SECOND]
