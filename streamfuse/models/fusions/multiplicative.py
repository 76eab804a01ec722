"""Multiplicative interaction: one modality after the other changes how what is known so far is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from streamfuse.models.batch import Modality
from streamfuse.models.fusions.pooling import pool
from streamfuse.models.parts import FUSIONS


@FUSIONS.register("multiplicative")
class Multiplicative(nn.Module):
    """From a learned start `x`, one step a modality: `z W x + U z + V x + b`, normalised, where `z` is what the modality says in
    `size` numbers.

    Jayakumar et al., "Multiplicative Interactions and Where to Find Them", ICLR 2020, equation 1, chained for more than two. An absent
    modality's step is left out; with nothing present the start is the answer.
    """

    missing = "its step is left out"

    def __init__(self, streams: Sequence[str], features: int, size: int = 16) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"expected a size of 1 or more, found {size}")
        self.streams, self.features = tuple(streams), features
        self.start = nn.Parameter(torch.randn(features))
        self.parts = nn.ModuleList([nn.Linear(features, size) for _ in self.streams])
        # All four terms are one layer on the products of (x, 1) and (z, 1).
        self.steps = nn.ModuleList([nn.Linear((features + 1) * (size + 1), features, bias=False) for _ in self.streams])
        self.norms = nn.ModuleList([nn.LayerNorm(features) for _ in self.streams])

    def forward(self, tokens: Mapping[str, Modality]) -> Tensor:
        means, present = pool(tokens, self.streams)
        x = self.start.expand(means.shape[0], -1)
        for i, (part, step, norm) in enumerate(zip(self.parts, self.steps, self.norms, strict=True)):
            products = (_and_one(x)[:, :, None] * _and_one(part(means[:, i]))[:, None]).flatten(1)
            x = torch.where(present[:, i, None], norm(step(products)), x)
        return x


def _and_one(x: Tensor) -> Tensor:
    return torch.cat([x, torch.ones_like(x[:, :1])], 1)
