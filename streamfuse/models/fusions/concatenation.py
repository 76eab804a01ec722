"""Concatenation of what the modalities say, each summed up by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from streamfuse.models.batch import Modality, mean_token
from streamfuse.models.parts import FUSIONS


@FUSIONS.register("concatenation")
class Concatenation(nn.Module):
    """Each modality's mean token, zeros where it is absent, and which ones are present, side by side through two
    layers."""

    missing = "zeros, and a flag that says so"

    def __init__(self, streams: Sequence[str], features: int, hidden: int = 128) -> None:
        super().__init__()
        self.streams, self.features = tuple(streams), features
        self.layers = nn.Sequential(
            nn.Linear(len(self.streams) * (features + 1), hidden), nn.GELU(), nn.Linear(hidden, features), nn.GELU()
        )

    def forward(self, tokens: Mapping[str, Modality]) -> Tensor:
        parts = [tokens[s] for s in self.streams]
        means = [mean_token(part) for part in parts]
        present = [part.present.to(part.data.dtype)[:, None] for part in parts]
        out: Tensor = self.layers(torch.cat([*means, *present], 1))
        return out
