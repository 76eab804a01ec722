"""What the benchmarks of serving serve: a bundle of a usual size, and a room's windows that overlap by 87.5 %."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from streamfuse.models.bundle import BundleConfig, WindowShape, save_bundle
from streamfuse.models.fusion_model import build
from streamfuse.types import MILLISECOND, Audio, Image, Packet, Payload, Position, Window

SIZE, HOP = 2000, 250  # ms
FRAME, CHUNK, TEXT = 250, 50, 1000  # ms between two frames, chunks, texts: 8 frames, 2 s of sound and 2 texts in a window

INPUTS: dict[str, dict[str, Any]] = {
    "video": {"type": "frames", "fps": 1000 / FRAME, "seconds": (SIZE - FRAME) / 1000},
    "audio": {"type": "waveform", "block_ms": 10, "seconds": SIZE / 1000},
    "text": {"type": "tokens", "length": 32, "most": 2},
}


def architecture(image: str = "cnn", norm: str = "group", fusion: str = "late_transformer") -> dict[str, Any]:
    return {
        "features": 128,
        "encoders": {
            "video": {"type": image, "norm": norm},
            "audio": {"type": "causal_mel", "block": 160},
            "text": {"type": "text_transformer", "length": 32, "depth": 4},
        },
        "fusion": {"type": fusion},
        "heads": {"state": {"type": "classification", "labels": ["a", "b", "c", "d"]}},
    }


def write_bundle(folder: Path, described: dict[str, Any]) -> Path:
    """With random weights: they cost as much as trained ones."""
    torch.manual_seed(0)
    inputs = {stream: INPUTS[stream] for stream in described["encoders"]}
    config = BundleConfig(name=folder.name, format=2, inputs=inputs, architecture=described, window=WindowShape(size_ms=SIZE, hop_ms=HOP))
    save_bundle(folder, config, build(described))
    return folder


def windows(count: int, room: str = "room") -> list[Window]:
    """The room's windows, one every hop."""
    draw = np.random.default_rng(sum(room.encode()))
    length = SIZE + HOP * count

    def packets(stream: str, every: int, payload: Any) -> list[Packet]:
        return [packet(stream, room, at, every, payload(at)) for at in range(0, length, every)]

    made = [
        *packets("video", FRAME, lambda at: Image(draw.integers(0, 255, (120, 160, 3), np.uint8))),
        *packets("audio", CHUNK, lambda at: Audio(draw.normal(0, 3000, (CHUNK * 16, 1)).astype(np.int16), 16_000)),
        *packets("text", TEXT, lambda at: f"somebody says something at {at} milliseconds"),
    ]
    return [window(room, start, made) for start in range(0, HOP * count, HOP)]


def window(room: str, start: int, made: list[Packet]) -> Window:
    begin, end = start * MILLISECOND, (start + SIZE) * MILLISECOND
    inside = [p for p in made if begin <= p.event_time < end]
    streams = {stream: tuple(p for p in inside if p.stream == stream) for stream in ("video", "audio", "text")}
    return Window(room, begin, end, streams)


def packet(stream: str, room: str, at: int, duration: int, payload: Payload) -> Packet:
    return Packet(stream, room, at * MILLISECOND, duration * MILLISECOND, payload, Position(stream, at), at * MILLISECOND)
