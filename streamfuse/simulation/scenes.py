"""What stands behind the people: a wall with things on it, something that moves, and the camera's own noise."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


def wall(width: int, height: int, draw: np.random.Generator) -> Pixels:
    """A background `(height, width, 3)` BGR: a lit wall, some furniture, out of focus."""
    tint = draw.uniform(60, 200) * draw.uniform(0.85, 1.15, 3)
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :, None]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None, None]
    light = 1 + draw.uniform(-0.25, 0.25) * x + draw.uniform(-0.25, 0.1) * y
    image = np.clip(tint.astype(np.float32) * light, 0, 255).astype(np.uint8)
    for _ in range(int(draw.integers(1, 6))):
        left, top = int(draw.integers(-width // 4, width)), int(draw.integers(-height // 4, height))
        right, bottom = (
            left + int(draw.integers(width // 12, width // 2)),
            top + int(draw.integers(height // 12, height // 2)),
        )
        colour = tuple(float(c) for c in np.clip(tint * draw.uniform(0.5, 1.4) + draw.uniform(-25, 25, 3), 0, 255))
        cv2.rectangle(image, (left, top), (right, bottom), colour, cv2.FILLED)
    blur = width / 160 * draw.uniform(0.5, 3)
    return np.asarray(cv2.GaussianBlur(image, (0, 0), blur), np.uint8)


def frame_around(image: Pixels, x: float, y: float, size: float) -> None:
    """Draw a picture frame for a portrait whose face is `size` pixels wide at `(x, y)`, in place. Shows its mat."""
    left, top = round(x - 0.95 * size), round(y - 1.0 * size)
    right, bottom = round(x + 0.95 * size), round(y + 1.25 * size)
    cv2.rectangle(image, (left, top), (right, bottom), (52, 78, 104), cv2.FILLED)
    edge = max(2, round(size * 0.07))
    cv2.rectangle(image, (left + edge, top + edge), (right - edge, bottom - edge), (176, 184, 188), cv2.FILLED)


def passer(image: Pixels, seconds: float, colour: tuple[float, float, float], speed: float) -> None:
    """Something that crosses the background, in place: motion that says nothing about who talks."""
    height, width = image.shape[:2]
    radius = height / 9
    span = width + 4 * radius
    x = (seconds * speed * width) % span - 2 * radius
    cv2.circle(image, (round(x * 16), round(height * 0.3 * 16)), round(radius * 16), colour, cv2.FILLED, cv2.LINE_AA, 4)


def grain(width: int, height: int, level: float, draw: np.random.Generator, count: int = 6) -> list[Pixels]:
    """A few frames of sensor noise; add one and subtract another."""
    return [np.clip(np.abs(draw.normal(0, level, (height, width, 3))), 0, 40).astype(np.uint8) for _ in range(count)]
