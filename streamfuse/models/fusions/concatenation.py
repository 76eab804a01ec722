"""Concatenation of what the modalities say, each summed up by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from streamfuse.models.batch import Modality
from streamfuse.models.fusions.pooling import pool
from streamfuse.models.parts import FUSIONS


@FUSIONS.register("concatenation")
class Concatenation(nn.Module):
    """Each modality's mean token, and a flag that says whether it has one, side by side through two layers.

    As the shared layer of Ngiam et al., "Multimodal Deep Learning", ICML 2011. An absent modality is zeros, as there, and its flag
    says so.
    """

    missing = "zeros, and a flag that says so"

    def __init__(self, streams: Sequence[str], features: int, hidden: int = 128) -> None:
        super().__init__()
        self.streams, self.features = tuple(streams), features
        self.layers = nn.Sequential(
            nn.Linear(len(self.streams) * (features + 1), hidden), nn.GELU(), nn.Linear(hidden, features), nn.GELU()
        )

    def forward(self, tokens: Mapping[str, Modality]) -> Tensor:
        means, present = pool(tokens, self.streams)
        out: Tensor = self.layers(torch.cat([means.flatten(1), present.to(means.dtype)], 1))
        return out
