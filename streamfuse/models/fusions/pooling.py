"""One vector a modality, and which ones are there: what fusions that look at no single token stand on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from streamfuse.models.batch import Modality, mean_token


def pool(tokens: Mapping[str, Modality], streams: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Each stream's mean token, `(batch, streams, features)`, zeros where it is absent, and which ones are present,
    `(batch, streams)` bool."""
    parts = [tokens[s] for s in streams]
    return torch.stack([mean_token(part) for part in parts], 1), torch.stack([part.present for part in parts], 1)


def mean_of_present(x: Tensor, present: Tensor) -> Tensor:
    """`(batch, streams, features)` to `(batch, features)`: the mean over the streams that are present, zeros if none is."""
    weight = present.to(x.dtype)[..., None]
    return (x * weight).sum(1) / weight.sum(1).clamp(min=1)


def softmax_of_present(scores: Tensor, present: Tensor) -> Tensor:
    """Softmax over the streams, dimension 1, that are present: they sum to 1, the others are 0; all are 0 if none is."""
    there = present.reshape(*present.shape, *[1] * (scores.dim() - 2))
    # The least number, not minus infinity: with nothing present that would be NaN, in the gradient too.
    return scores.masked_fill(~there, torch.finfo(scores.dtype).min).softmax(1) * there


def scaled_to_one(weights: Tensor) -> Tensor:
    """`(batch, streams, ...)` weights of 0 or more, scaled so that they sum to 1 over the streams; zeros alone stay zeros."""
    return weights / weights.sum(1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
