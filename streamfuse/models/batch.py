"""Lays windows of different content out as padded tensors, with a time and a mask for every item."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Items:
    """One modality of one window: `data` is `(items, ...)`, `time` is each item's offset from the window's end in
    seconds (float32).

    `mask` says which items are really there; the others are padding within the window (sound that never came). `keys` says
    what each item was made of, so that overlapping windows share what is computed of it: within a stream, equal keys mean equal
    data (the time may differ). Without keys nothing is shared.
    """

    data: NDArray[np.generic]
    time: NDArray[np.float32]
    mask: NDArray[np.bool_]
    keys: Sequence[Hashable] | None = None


class Modality(NamedTuple):
    """One modality of a batch: what an encoder reads, and, encoded, what a fusion reads."""

    data: Tensor  # (batch, items, ...), any dtype; tokens are (batch, items, features)
    time: Tensor  # (batch, items) seconds from the window's end
    mask: Tensor  # (batch, items) bool, True where an item is there

    @property
    def present(self) -> Tensor:
        """`(batch,)` bool: does the sample have any item of this modality?"""
        return self.mask.any(1)

    def to(self, device: torch.device) -> Modality:
        return Modality(*(part.to(device, non_blocking=True) for part in self))


def collate(samples: Sequence[Mapping[str, Items]], empty: Mapping[str, Items]) -> dict[str, Modality]:
    """Samples as one padded batch with every stream of `empty`; a stream that a sample lacks is masked out in it.

    `empty` gives each stream's shape and dtype, and the least number of items, so that usual batches have one shape.
    Padding is zeros and does not change what a model answers.
    """
    return {stream: _pad([sample.get(stream) for sample in samples], like) for stream, like in empty.items()}


def _pad(samples: Sequence[Items | None], like: Items) -> Modality:
    count = max([len(like.mask), *(len(s.mask) for s in samples if s is not None)])
    data = np.zeros((len(samples), count, *like.data.shape[1:]), like.data.dtype)
    time = np.zeros((len(samples), count), np.float32)
    mask = np.zeros((len(samples), count), np.bool_)
    for row, sample in enumerate(samples):
        if sample is not None:
            n = len(sample.mask)
            data[row, :n], time[row, :n], mask[row, :n] = sample.data, sample.time, sample.mask
    return Modality(torch.from_numpy(data), torch.from_numpy(time), torch.from_numpy(mask))


def mean_token(tokens: Modality) -> Tensor:
    """`(batch, features)`: the mean over the tokens that are there; zeros where there are none."""
    weight = tokens.mask.to(tokens.data.dtype)[..., None]
    return (tokens.data * weight).sum(1) / weight.sum(1).clamp(min=1)
