"""Draws people: a shaded face with a mouth that opens, eyes that blink and a head that sways, none of whom exists."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Colour = tuple[float, float, float]  # BGR

WIDE, HIGH = 2.3, 2.9
"""Size of a patch in face widths. The face's centre stands at `(CENTRE_X, CENTRE_Y)` in it."""
CENTRE_X, CENTRE_Y = WIDE / 2, 0.98

_SHIFT = 4  # OpenCV's fixed-point bits: positions in 1/16 pixel
_SKINS: tuple[Colour, ...] = (
    (165, 190, 232),
    (150, 178, 224),
    (128, 160, 212),
    (112, 146, 200),
    (92, 126, 184),
    (138, 172, 226),
)
_HAIRS: tuple[Colour, ...] = ((26, 28, 34), (34, 52, 78), (52, 86, 122), (70, 120, 168), (120, 124, 128), (30, 40, 96))
_IRISES: tuple[Colour, ...] = ((40, 60, 80), (110, 80, 50), (60, 90, 60), (30, 34, 40))


@dataclass(frozen=True, slots=True)
class Person:
    """What somebody looks and sounds like. Lengths are in face widths, `pitch` in Hz, `tract` scales the formants,
    `pace` the syllables."""

    skin: Colour
    hair: Colour
    iris: Colour
    shirt: Colour
    length: float
    eyes: float
    mouth: float
    brow: float
    nose: float
    long_hair: bool
    light: float
    pitch: float
    tract: float
    pace: float

    @classmethod
    def draw(cls, draw: np.random.Generator) -> Person:
        """Somebody new."""
        high = draw.random() < 0.5
        return cls(
            skin=_vary(_SKINS[draw.integers(len(_SKINS))], draw),
            hair=_vary(_HAIRS[draw.integers(len(_HAIRS))], draw),
            iris=_IRISES[draw.integers(len(_IRISES))],
            shirt=_vary(tuple(draw.uniform(40, 200, 3)), draw),
            length=float(draw.uniform(1.22, 1.38)),
            eyes=float(draw.uniform(0.205, 0.235)),
            mouth=float(draw.uniform(0.16, 0.205)),
            brow=float(draw.uniform(0.028, 0.045)),
            nose=float(draw.uniform(0.09, 0.12)),
            long_hair=bool(draw.random() < (0.7 if high else 0.15)),
            light=float(draw.uniform(-0.35, 0.35)),
            pitch=float(draw.uniform(165, 245) if high else draw.uniform(85, 150)),
            tract=float(draw.uniform(1.05, 1.2) if high else draw.uniform(0.88, 1.05)),
            pace=float(draw.uniform(0.85, 1.2)),
        )


@dataclass(frozen=True, slots=True)
class Pose:
    """How a face is held at one instant. `x`, `y` are the face's centre in pixels, `size` its width in pixels, `roll`
    in degrees; `mouth` and `lids` run from 0 (shut, open eyes) to 1 (wide open, shut eyes), `brows` and `gaze` from
    -1 to 1."""

    x: float
    y: float
    size: float
    roll: float = 0.0
    mouth: float = 0.0
    lids: float = 0.0
    brows: float = 0.0
    gaze: float = 0.0


def paint(canvas: Pixels, person: Person, pose: Pose, detail: int) -> None:
    """Draw somebody onto `canvas` `(height, width, 3)` BGR, in place. `detail` is the face's width in pixels of the
    drawing before it is placed: keep it near `pose.size`, and constant, since a drawing without its moving parts is
    kept per detail."""
    patch = _still(person, detail).copy()
    _draw_eyes(patch, person, pose, detail)
    _draw_mouth(patch, person, pose, detail)
    scale = pose.size / detail
    turn = cv2.getRotationMatrix2D((CENTRE_X * detail, CENTRE_Y * detail), pose.roll, scale)
    reach = (WIDE * pose.size / 2 + 2, CENTRE_Y * pose.size + 2, (HIGH - CENTRE_Y) * pose.size + 2)
    left, right = max(0, int(pose.x - reach[0])), min(canvas.shape[1], int(pose.x + reach[0]) + 1)
    top, bottom = max(0, int(pose.y - reach[1])), min(canvas.shape[0], int(pose.y + reach[2]) + 1)
    if right <= left or bottom <= top:
        return
    turn[0, 2] += pose.x - CENTRE_X * detail - left
    turn[1, 2] += pose.y - CENTRE_Y * detail - top
    placed = cv2.warpAffine(patch, turn, (right - left, bottom - top), flags=cv2.INTER_LINEAR)
    region = canvas[top:bottom, left:right]
    cover = cv2.cvtColor(placed[:, :, 3], cv2.COLOR_GRAY2BGR)
    behind = cv2.multiply(region, cv2.bitwise_not(cover), scale=1 / 255)
    cv2.add(behind, cv2.multiply(np.ascontiguousarray(placed[:, :, :3]), cover, scale=1 / 255), dst=behind)
    region[:] = behind


def _vary(colour: tuple[float, ...], draw: np.random.Generator) -> Colour:
    bright = draw.uniform(0.92, 1.06)
    b, g, r = (float(np.clip(c * bright * draw.uniform(0.97, 1.03), 0, 255)) for c in colour)
    return b, g, r


@lru_cache(maxsize=64)
def _still(person: Person, detail: int) -> Pixels:
    """All of a person that does not move: `(height, width, 4)`, the last channel is the cover (alpha)."""
    wide, high = round(WIDE * detail), round(HIGH * detail)
    y, x = np.mgrid[0:high, 0:wide].astype(np.float32)
    x = (x + 0.5) / detail - CENTRE_X
    y = (y + 0.5) / detail - CENTRE_Y
    tall = person.length / 2
    image = np.zeros((high, wide, 3), np.float32)
    cover = np.zeros((high, wide), np.float32)

    def lay(mask: NDArray[np.float32], colour: NDArray[np.float32] | Colour) -> None:
        nonlocal image, cover
        image = image * (1 - mask[..., None]) + np.asarray(colour, np.float32) * mask[..., None]
        cover = np.maximum(cover, mask)

    edge = 1.5 / detail
    # Hair behind the head, shoulders, neck.
    fall = 0.95 if person.long_hair else 0.0
    behind = _soft(1 - np.hypot(x / 0.6, (y + 0.1) / (tall + 0.12)), edge * 2)
    if fall:
        behind = np.maximum(behind, _soft(0.56 - np.abs(x), edge) * _soft(fall - y, 0.1) * _soft(y + 0.2, edge))
    lay(behind, _grain(person.hair, x, y))
    shoulders = _soft(1 - np.hypot(x / 1.05, np.minimum(y - 1.7, 0) / 0.8), edge * 2)
    lay(
        shoulders,
        np.asarray(person.shirt, np.float32) * (0.8 + 0.25 * np.exp(-((x + person.light) ** 2) / 0.3))[..., None],
    )
    neck = _soft(0.3 - np.abs(x), edge) * _soft(y - 0.2, edge) * _soft(1.02 - y - 0.4 * x * x, edge)
    lay(neck, np.asarray(person.skin, np.float32) * (0.62 + 0.1 * np.abs(y[..., None] - 0.7)))

    # The face: an ellipse that narrows to the chin, lit from one side.
    narrow = 0.5 * (1 - 0.16 * np.clip(y / tall, 0, 1) ** 2)
    round_ = np.hypot(x / narrow, y / tall)
    ears = np.maximum(_soft(1 - np.hypot((x - 0.5) / 0.07, y / 0.16), 0.1), _soft(1 - np.hypot((x + 0.5) / 0.07, y / 0.16), 0.1))
    lay(ears, np.asarray(person.skin, np.float32) * 0.8)
    bulge = np.sqrt(np.clip(1 - round_**2, 0, 1))
    light = 0.62 + 0.36 * bulge + person.light * 0.22 * x - 0.06 * y
    light += _blob(x, y, 0, -0.38, 0.36, 0.16, 0.10)  # forehead
    light += _blob(x, y, 0.25, 0.17, 0.14, 0.13, 0.11) + _blob(x, y, -0.25, 0.17, 0.14, 0.13, 0.11)  # cheeks
    light += _blob(x, y, 0, 0.03, 0.045, 0.2, 0.16)  # the bridge and the tip of the nose
    light -= _blob(x, y, person.eyes, -0.1, 0.14, 0.075, 0.34) + _blob(x, y, -person.eyes, -0.1, 0.14, 0.075, 0.34)  # sockets
    light -= _blob(x, y, person.nose, 0.2, 0.035, 0.06, 0.14) + _blob(x, y, -person.nose, 0.2, 0.035, 0.06, 0.14)
    light -= _blob(x, y, 0, 0.255, 0.1, 0.022, 0.18)  # under the nose
    light -= _blob(x, y, 0, 0.5, 0.14, 0.03, 0.1)  # under the lip
    light += _blob(x, y, 0, 0.57, 0.12, 0.06, 0.07)  # chin
    lay(_soft(1 - round_, edge * 2), np.clip(np.asarray(person.skin, np.float32) * light[..., None], 0, 255))
    for side in (-1, 1):
        lay(
            _soft(1 - np.hypot((x - side * person.nose * 0.55) / 0.035, (y - 0.235) / 0.018), 0.3) * 0.7,
            np.asarray(person.skin, np.float32) * 0.3,
        )
    # Hair over the forehead.
    fringe = _soft(1 - np.hypot(x / 0.57, (y + 0.2) / (tall - 0.06)), edge * 2) * _soft(
        -0.47 - y + 0.55 * x * x + 0.04 * np.sin(9 * x), 0.03
    )
    lay(fringe, _grain(person.hair, x, y))
    done = np.dstack([image, cover * 255])
    return np.clip(done, 0, 255).astype(np.uint8)


def _draw_eyes(patch: Pixels, person: Person, pose: Pose, detail: int) -> None:
    shut = min(max(pose.lids, 0.0), 1.0)
    for side in (-1, 1):
        x, y = side * person.eyes, -0.1
        high = 0.046 * (1 - shut)
        if high > 0.008:
            _ellipse(patch, detail, x, y, 0.085, high, (205, 208, 212))
            _ellipse(patch, detail, x + 0.025 * pose.gaze, y, min(0.042, high), high * 0.97, person.iris)
            _ellipse(patch, detail, x + 0.025 * pose.gaze, y, min(0.02, high), min(0.02, high), (12, 12, 14))
        else:
            _ellipse(patch, detail, x, y, 0.085, 0.03, _times(person.skin, 0.72))
        lid = 0.1 * np.linspace(-1, 1, 9)
        arch = y - high - 0.012 + 0.35 * (lid * lid) / 0.1 * 0.4
        _line(patch, detail, x + lid, arch, 0.018, _times(person.skin, 0.22))
        brow = y - 0.115 - 0.02 * pose.brows + 0.3 * lid * lid / 0.1 * 0.5
        _line(patch, detail, x + 1.15 * lid, brow, person.brow, _times(person.hair, 0.8))


def _draw_mouth(patch: Pixels, person: Person, pose: Pose, detail: int) -> None:
    wide = person.mouth * (1 - 0.18 * pose.mouth)
    gap = 0.11 * min(max(pose.mouth, 0.0), 1.0)
    y = 0.375 + gap * 0.45
    lip = _mix(person.skin, (70, 62, 150), 0.55)
    if gap > 0.004:
        _ellipse(patch, detail, 0, y, wide + 0.02, gap + 0.04, lip)
        _ellipse(patch, detail, 0, y, wide * 0.94, gap, (28, 20, 44))
        if gap > 0.02:
            _ellipse(patch, detail, 0, y - gap * 0.62, wide * 0.66, gap * 0.3, (196, 202, 208))
            _ellipse(patch, detail, 0, y + gap * 0.6, wide * 0.5, gap * 0.34, (72, 64, 150))
    else:
        _ellipse(patch, detail, 0, y, wide + 0.01, 0.04, lip)
        bend = wide * np.linspace(-1, 1, 9)
        _line(patch, detail, bend, y + 0.012 - 0.02 * (bend / wide) ** 2, 0.016, _times(lip, 0.45))


def _soft(inside: NDArray[np.float32], edge: float) -> NDArray[np.float32]:
    """1 where `inside` is well above 0, 0 well below, a ramp of width `edge` between."""
    return np.asarray(np.clip(inside / edge + 0.5, 0, 1), np.float32)


def _blob(
    x: NDArray[np.float32], y: NDArray[np.float32], at_x: float, at_y: float, wide: float, high: float, by: float
) -> NDArray[np.float32]:
    return np.asarray(by * np.exp(-(((x - at_x) / wide) ** 2) - ((y - at_y) / high) ** 2), np.float32)


def _grain(colour: Colour, x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.float32]:
    strands = (0.9 + 0.18 * np.sin(46 * x + 9 * np.sin(5 * y)))[..., None]
    return np.asarray(np.asarray(colour, np.float32) * strands, np.float32)


def _fixed(value: float) -> int:
    return round(value * (1 << _SHIFT))


def _ellipse(patch: Pixels, detail: int, x: float, y: float, wide: float, high: float, colour: Colour) -> None:
    centre = (_fixed((x + CENTRE_X) * detail - 0.5), _fixed((y + CENTRE_Y) * detail - 0.5))
    axes = (_fixed(wide * detail), _fixed(high * detail))
    cv2.ellipse(patch, centre, axes, 0, 0, 360, (*colour, 255), cv2.FILLED, cv2.LINE_AA, _SHIFT)


def _line(patch: Pixels, detail: int, x: NDArray[np.float64], y: NDArray[np.float64], thick: float, colour: Colour) -> None:
    points = np.column_stack([(x + CENTRE_X) * detail - 0.5, (y + CENTRE_Y) * detail - 0.5])
    fixed = np.round(points * (1 << _SHIFT)).astype(np.int32)
    cv2.polylines(patch, [fixed], False, (*colour, 255), max(1, round(thick * detail)), cv2.LINE_AA, _SHIFT)


def _times(colour: Colour, by: float) -> Colour:
    return colour[0] * by, colour[1] * by, colour[2] * by


def _mix(one: Colour, other: Colour, share: float) -> Colour:
    return tuple(a * (1 - share) + b * share for a, b in zip(one, other, strict=True))  # type: ignore[return-value]
