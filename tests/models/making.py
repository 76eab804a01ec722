"""Makes packets, windows and small bundles for the tests of models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from streamfuse.models.bundle import BundleConfig, WindowShape, save_bundle
from streamfuse.models.fusion_model import FusionModel, build
from streamfuse.types import MILLISECOND, SECOND, Absence, Encoded, Packet, Payload, Position, Window

LABELS = ["silence", "other sound", "voice off screen", "speaker on screen"]
ENCODERS: dict[str, dict[str, Any]] = {
    "video": {"type": "face_motion"},
    "audio": {"type": "log_mel", "channels": 8},
    "text": {"type": "byte_text", "width": 8, "hidden": 8},
}
INPUTS: dict[str, dict[str, Any]] = {
    "video": {"type": "face_crops"},
    "audio": {"type": "waveform"},
    "text": {"type": "text_bytes"},
}


def architecture(fusion: str = "late_transformer") -> dict[str, Any]:
    heads = {"state": {"type": "classification", "labels": LABELS}}
    return {"features": 16, "encoders": ENCODERS, "fusion": {"type": fusion}, "heads": heads}


def model(fusion: str = "late_transformer", seed: int = 0) -> FusionModel:
    torch.manual_seed(seed)
    return build(architecture(fusion)).eval()


def config(fusion: str = "late_transformer", **changes: Any) -> BundleConfig:
    values: dict[str, Any] = {
        "name": "small",
        "format": 2,
        "inputs": INPUTS,
        "architecture": architecture(fusion),
        "window": WindowShape(size_ms=1000, hop_ms=500),
    }
    return BundleConfig(**{**values, **changes})


def write_bundle(folder: Path, fusion: str = "late_transformer") -> Path:
    save_bundle(folder, config(fusion), model(fusion))
    return folder


def packet(stream: str, payload: Payload, at: int = 0, duration: int = 0, offset: int | None = None, key: str = "room") -> Packet:
    """A packet at `at` ms that lasts `duration` ms; its offset is its time unless given."""
    position = Position(stream, at if offset is None else offset)
    return Packet(stream, key, at * MILLISECOND, duration * MILLISECOND, payload, position, at * MILLISECOND)


def window(*packets: Packet, start: int = 0, end: int = 1000, absent: dict[str, Absence] | None = None) -> Window:
    """The packets in a window from `start` to `end` ms."""
    streams = {p.stream for p in packets}
    return Window(
        key="room",
        start=start * MILLISECOND,
        end=end * MILLISECOND,
        packets={s: tuple(p for p in packets if p.stream == s) for s in sorted(streams)},
        absent=absent or {},
    )


def jpeg(pixels: NDArray[np.uint8] | None = None) -> Encoded:
    image = np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8) if pixels is None else pixels
    return Encoded(cv2.imencode(".jpg", image)[1].tobytes(), "image/jpeg")


def png() -> Encoded:
    image = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)
    return Encoded(cv2.imencode(".png", image)[1].tobytes(), "image/png")


def sound(milliseconds: int = 40, rate: int = 16_000, level: float = 0.1) -> Encoded:
    samples = np.random.default_rng(0).normal(0, level * 32767, milliseconds * rate // 1000)
    return Encoded(samples.astype("<i2").tobytes(), "audio/pcm", rate, 1)


def full_window(start: int = 0) -> Window:
    """One second with frames at 10 Hz, sound in chunks of 40 ms and a caption."""
    frames = [packet("video", jpeg(), at, 100) for at in range(start, start + 1000, 100)]
    chunks = [packet("audio", sound(), at, 40) for at in range(start, start + 1000, 40)]
    return window(*frames, *chunks, packet("text", "hello there", start + 300), start=start, end=start + 1000)


assert SECOND == 1000 * MILLISECOND
