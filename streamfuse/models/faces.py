"""Finds faces in frames, follows them, and cuts them out so steadily that what still moves is the face itself."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from streamfuse.errors import BundleError

Grey = NDArray[np.uint8]  # (height, width)
CASCADE = Path(cv2.__file__).parent / "data" / "haarcascade_frontalface_alt2.xml"


class Box(NamedTuple):
    """A face in pixels of its frame: centre and side of the square that the detector reports."""

    x: float
    y: float
    side: float


class FaceFinder:
    """Finds frontal faces with OpenCV's Haar cascade (Viola and Jones, CVPR 2001) on a small grey copy. Safe to share
    between threads."""

    def __init__(self, width: int = 200) -> None:
        self.width = width
        self._local = threading.local()  # a cascade keeps its last image, so each thread needs its own
        if not hasattr(cv2, "CascadeClassifier") or not CASCADE.is_file():
            raise BundleError(
                f"expected OpenCV with Haar cascades, by which the model finds faces, found OpenCV {cv2.__version__} without; "
                "install opencv-python-headless>=4.10,<5"
            )

    def shrink(self, pixels: NDArray[np.uint8], width: int) -> Grey:
        """BGR pixels as grey ones, `width` wide at most."""
        grey = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)
        if grey.shape[1] > width:
            height = max(round(grey.shape[0] * width / grey.shape[1]), 1)
            grey = cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA)
        return np.asarray(grey, np.uint8)

    def find(self, grey: Grey) -> list[Box]:
        """Faces from a tenth of the frame's width on, greatest first."""
        scale = min(self.width / grey.shape[1], 1.0)
        small = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else grey
        least = max(small.shape[1] // 10, 20)
        found = self._cascade().detectMultiScale(small, 1.15, 4, minSize=(least, least))
        boxes = [Box((x + w / 2) / scale, (y + h / 2) / scale, w / scale) for x, y, w, h in np.asarray(found).reshape(-1, 4).tolist()]
        return sorted(boxes, key=lambda box: -box.side)

    def _cascade(self) -> cv2.CascadeClassifier:
        if not hasattr(self._local, "cascade"):
            self._local.cascade = cv2.CascadeClassifier(str(CASCADE))
        cascade: cv2.CascadeClassifier = self._local.cascade
        return cascade


def face_crops(frames: Sequence[Grey], found: Mapping[int, Sequence[Box]], size: int, max_faces: int) -> NDArray[np.uint8]:
    """`(frames, size, size)` uint8: the face whose mouth moves most, steadied; zeros where no face was found.

    `found` gives the faces of some frames. A face counts where at least half of the frames that were looked at show
    it, so that a false find, which seldom comes twice, is passed over.
    """
    best, best_score = np.zeros((len(frames), size, size), np.uint8), -np.inf
    for track in _tracks(found)[:max_faces]:
        crops = _steady_crops(frames, _follow(track, len(frames)), size)
        score = _mouth_motion(crops)
        if score > best_score:
            best, best_score = crops, score
    return best


def _tracks(found: Mapping[int, Sequence[Box]]) -> list[dict[int, Box]]:
    """Faces linked over frames, greatest first."""
    tracks: list[dict[int, Box]] = []
    for index, boxes in sorted(found.items()):
        free = list(tracks)
        for box in boxes:
            near = [t for t in free if _same_face(list(t.values())[-1], box)]
            if near:
                track = min(near, key=lambda t: _distance(list(t.values())[-1], box))
                free = [t for t in free if t is not track]
                track[index] = box
            else:
                tracks.append({index: box})
    kept = [t for t in tracks if 2 * len(t) >= len(found)]
    return sorted(kept, key=lambda t: -float(np.median([b.side for b in t.values()])))


def _same_face(a: Box, b: Box) -> bool:
    return _distance(a, b) < 0.5 * max(a.side, b.side) and 0.6 < a.side / b.side < 1.67


def _distance(a: Box, b: Box) -> float:
    return float(np.hypot(a.x - b.x, a.y - b.y))


def _follow(track: Mapping[int, Box], count: int) -> list[Box]:
    """A box for each of `count` frames. The detector's box trembles on a still face, so small changes count as none."""
    at = sorted(track)
    boxes = np.array([track[i] for i in at])
    middle = np.median(boxes, axis=0)
    side = middle[2]
    if np.abs(boxes[:, :2] - middle[:2]).max() < 0.08 * side:
        return [Box(*middle)] * count
    x, y = (np.interp(np.arange(count), at, boxes[:, column]) for column in (0, 1))
    return [Box(x[i], y[i], side) for i in range(count)]


def _steady_crops(frames: Sequence[Grey], boxes: Sequence[Box], size: int) -> NDArray[np.uint8]:
    """Crops around the boxes, each shifted onto the one before it by the shift of its upper half, where no mouth moves."""
    crops = np.zeros((len(frames), size, size), np.uint8)
    steady = _Steadier(size)
    for i, (frame, box) in enumerate(zip(frames, boxes, strict=True)):
        crops[i] = steady.next(_cut(frame, box, 2 * size))
    return crops


class _Steadier:
    """Follows one face: keeps the shift that lays the next crop onto those before it."""

    def __init__(self, size: int) -> None:
        # OpenCV's phase correlation is half a pixel off where the transform that it picks has an odd length.
        self._size, self._upper = size, slice(0, size // 4 * 2)
        self._window = cv2.createHanningWindow((size, self._upper.stop), cv2.CV_32F)
        self._shift = np.zeros(2)
        self._before: NDArray[np.float32] | None = None

    def next(self, double: Grey) -> Grey:
        """The crop, at half the size of `double`, where the ones before it were."""
        crop, part = self._at(double, self._shift)
        if self._before is not None:
            shift, response = cv2.phaseCorrelate(self._before, part, self._window)
            if response > 0.1 and 0.75 < math.hypot(*shift) < self._size / 6:
                self._shift = self._shift + np.array(shift)
                crop, part = self._at(double, self._shift)
            for _ in range(2):
                rest = _small_shift(self._before, part, self._window)
                if not 0.03 < math.hypot(*rest) < 2:
                    break
                self._shift = self._shift + rest
                crop, part = self._at(double, self._shift)
        self._before = part
        return crop

    def _at(self, double: Grey, shift: NDArray[np.float64]) -> tuple[Grey, NDArray[np.float32]]:
        crop = _moved(double, shift, self._size)
        part = cv2.GaussianBlur(crop[self._upper], (5, 5), 1.0).astype(np.float32)
        return crop, np.asarray(part - part.mean(), np.float32)


def _small_shift(before: NDArray[np.float32], after: NDArray[np.float32], weight: NDArray[Any]) -> NDArray[np.float64]:
    """By how many pixels (x, y) `after` is shifted against `before`: one step of Lucas and Kanade (IJCAI 1981)."""
    down, right = np.gradient(before)
    slopes = np.stack([right.ravel(), down.ravel()])
    weighted = slopes * weight.ravel()
    square = weighted @ slopes.T + np.eye(2) * (1 + 1e-3 * float(weight.sum()))
    return np.asarray(np.linalg.solve(square, -weighted @ (after - before).ravel()), np.float64)


def _cut(frame: Grey, box: Box, size: int) -> Grey:
    """The face with its chin, `(size, size)`; what is outside the frame repeats the frame's edge."""
    half = round(0.52 * box.side)
    left, top = round(box.x) - half, round(box.y + 0.06 * box.side) - half
    right, bottom = left + 2 * half, top + 2 * half
    height, width = frame.shape
    inside = frame[max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)]
    if not inside.size:
        return np.zeros((size, size), np.uint8)
    edges = max(-top, 0), max(bottom - height, 0), max(-left, 0), max(right - width, 0)
    if any(edges):
        inside = np.asarray(cv2.copyMakeBorder(inside, *edges, cv2.BORDER_REPLICATE), np.uint8)
    return np.asarray(cv2.resize(inside, (size, size), interpolation=cv2.INTER_AREA), np.uint8)


def _moved(double: Grey, shift: NDArray[np.float64], size: int) -> Grey:
    # Shifted at twice the size and then averaged down: the blur of a sub-pixel shift would look like a motion of
    # every edge.
    if shift.any():
        matrix = np.array([[1, 0, -2 * shift[0]], [0, 1, -2 * shift[1]]])
        double = np.asarray(cv2.warpAffine(double, matrix, double.shape[::-1], borderMode=cv2.BORDER_REPLICATE), np.uint8)
    return np.asarray(cv2.resize(double, (size, size), interpolation=cv2.INTER_AREA), np.uint8)


def _mouth_motion(crops: NDArray[np.uint8]) -> float:
    if len(crops) < 2:
        return 0.0
    size = crops.shape[1]
    motion = np.abs(np.diff(crops.astype(np.int16), axis=0)).mean(0)
    mouth = motion[round(0.62 * size) : round(0.92 * size), round(0.25 * size) : round(0.75 * size)].mean()
    return float(mouth - motion[: round(0.5 * size)].mean())
