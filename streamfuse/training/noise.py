"""Noise at a level from 0 (none) to 1 (nothing of the modality is left), for training and for the robustness curve.

After MultiBench (Liang et al., NeurIPS 2021, section 3.3 and appendix): noise fit for each modality, at test time, at growing levels. There
it is added to the signal, so that its greatest level still leaves something; here it takes the signal's place: amplitudes are mixed
`(1 - level) : level`, a signal to noise ratio of `20 log10((1 - level) / level)` dB (19 dB at 0.1, 0 dB at 0.5, -19 dB at 0.9).

- Pictures (uint8), sound (int16) and features (float): Gaussian noise with the mean and the deviation of the training rows, of each
  feature for floats.
- Text (bytes or token numbers): at each place with probability `level`, half of the time another one of the training rows', half of the
  time nothing. What is left at level 1 is about half its length.

The other way, `drop`, takes whole items away with probability `level`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray

from streamfuse.models.batch import Items, Modality
from streamfuse.models.parts import UnknownPart
from streamfuse.models.preprocess import PREPROCESSORS
from streamfuse.training.samples import Batch, Samples

Way = Literal["noise", "drop"]

MOST_ROWS = 1000
"""So many rows, evenly chosen, say what is usual."""
MOST_VALUES = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Usual:
    """What a stream's numbers usually are. `mean` and `deviation`, float32: of each feature for floats, else one number. `words`: bytes
    or token numbers as they come, for text; otherwise empty."""

    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]
    words: NDArray[np.generic]


class Noise:
    """Noise for the streams of `samples`, fit to what `rows` (those trained on) hold. Reads them once, and has no state after that."""

    def __init__(self, samples: Samples, rows: Sequence[int] | NDArray[np.integer]) -> None:
        chosen = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), MOST_ROWS)).astype(int))
        read = [samples.read(int(rows[i])) for i in chosen]
        self._usual = {
            stream: _usual(
                [row[stream] for row in read if stream in row], empty, _is_text(samples.inputs.get(stream, {}), empty.data.dtype)
            )
            for stream, empty in samples.empty.items()
        }

    def disturb(self, batch: Batch, levels: Mapping[str, float | Sequence[float]], seed: int, way: Way = "noise") -> Batch:
        """The batch with noise on the streams of `levels`: one level, or one a row. It is drawn by the seed, the row and the stream alone,
        so that a row gets the same noise in whatever batch it stands."""
        inputs = {s: self.modality(s, part, levels[s], batch.rows, seed, way) if s in levels else part for s, part in batch.inputs.items()}
        return replace(batch, inputs=inputs)

    def modality(
        self, stream: str, part: Modality, level: float | Sequence[float], rows: Sequence[int], seed: int, way: Way = "noise"
    ) -> Modality:
        """The same for one stream of these rows. It is made on the CPU, wherever the tensors are."""
        levels = [level] * len(rows) if isinstance(level, int | float) else level
        number = list(self._usual).index(stream)
        data, time, mask = (one.cpu().numpy().copy() for one in part)
        for i, (row, own) in enumerate(zip(rows, levels, strict=True)):
            noisy = self.items(stream, Items(data[i], time[i], mask[i]), own, np.random.default_rng([seed, int(row), number]), way)
            data[i], mask[i] = noisy.data, noisy.mask
        device = part.mask.device
        return Modality(torch.from_numpy(data).to(device), part.time, torch.from_numpy(mask).to(device))

    def items(self, stream: str, items: Items, level: float, draw: np.random.Generator, way: Way = "noise") -> Items:
        """The same for one row of one stream. Items that are not there stay so."""
        if not 0 <= level <= 1:
            raise ValueError(f"expected a level of noise from 0 to 1, found {level}")
        if level == 0 or not len(items.mask):
            return items
        if way == "drop":
            mask = items.mask & (draw.random(len(items.mask)) >= level)
            return Items(_where(mask, items.data), items.time, mask)
        usual = self._usual[stream]
        data = _garbled(items.data, level, draw, usual.words) if usual.words.size else _mixed(items.data, level, draw, usual)
        return Items(_where(items.mask, data), items.time, items.mask)


def _usual(column: Sequence[Items], empty: Items, is_text: bool) -> Usual:
    there = [items.data[items.mask] for items in column]
    if is_text:
        words = np.concatenate([empty.data[:0].ravel(), *(data[data != 0] for data in there)])
        some = np.unique(np.linspace(0, max(len(words) - 1, 0), min(len(words), MOST_VALUES)).astype(int))
        return Usual(np.zeros((), np.float32), np.ones((), np.float32), words[some] if len(words) else np.ones(1, empty.data.dtype))
    each_feature = np.issubdtype(empty.data.dtype, np.floating)
    axes = 0 if each_feature else None
    shape = empty.data.shape[1:] if each_feature else ()
    count, total, square = 0, np.zeros(shape), np.zeros(shape)
    for data in there:
        wide = data.astype(np.float64)
        count += len(data) if each_feature else data.size
        total, square = total + wide.sum(axes), square + np.square(wide).sum(axes)
    mean = total / max(count, 1)
    deviation = np.sqrt(np.maximum(square / max(count, 1) - mean**2, 0))
    return Usual(mean.astype(np.float32), deviation.astype(np.float32), np.empty(0, empty.data.dtype))


def _mixed(data: NDArray[np.generic], level: float, draw: np.random.Generator, usual: Usual) -> NDArray[np.generic]:
    noise = draw.standard_normal(data.shape, np.float32) * usual.deviation + usual.mean
    mixed = (1 - level) * data.astype(np.float32) + level * noise
    if np.issubdtype(data.dtype, np.integer):
        bounds = np.iinfo(cast(Any, data.dtype))
        mixed = np.clip(np.rint(mixed), bounds.min, bounds.max)
    return mixed.astype(data.dtype)


def _garbled(data: NDArray[np.generic], level: float, draw: np.random.Generator, words: NDArray[np.generic]) -> NDArray[np.generic]:
    """Zeros are padding, and stay at the end of each item."""
    garbled = data.copy()
    for item in garbled.reshape(len(garbled), -1):
        there = item[item != 0]
        hit = draw.random(len(there)) < level
        there[hit] = draw.choice(words, hit.sum())
        kept = there[~(hit & (draw.random(len(there)) < 0.5))]
        item[:] = 0
        item[: len(kept)] = kept
    return garbled


def _where(mask: NDArray[np.bool_], data: NDArray[np.generic]) -> NDArray[np.generic]:
    return np.where(mask.reshape(-1, *[1] * (data.ndim - 1)), data, np.zeros((), data.dtype)).astype(data.dtype, copy=False)


def _is_text(preprocessing: Mapping[str, Any], dtype: np.dtype[Any]) -> bool:
    if np.issubdtype(dtype, np.floating):
        return False
    try:
        return PREPROCESSORS.make(preprocessing).modality == "text"
    except UnknownPart:
        return bool(dtype.itemsize > 2)  # no pictures and no sound
