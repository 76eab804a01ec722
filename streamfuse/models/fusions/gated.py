"""Gated multimodal unit: each feature of the answer comes from the modalities in parts of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from streamfuse.models.batch import Modality
from streamfuse.models.fusions.pooling import pool, softmax_of_present
from streamfuse.models.parts import FUSIONS


@FUSIONS.register("gated")
class Gated(nn.Module):
    """What each modality says, a gate on each feature of it that all modalities decide on, and the sum.

    Arevalo et al., "Gated Multimodal Units for Information Fusion", ICLR workshop 2017. Their unit for two modalities ties the gates,
    `z` and `1 - z`; ours does so for any number, by a softmax over the modalities. An absent modality's gates are shut, and the
    others share what it leaves; with nothing present the sum is zeros.
    """

    missing = "its gates are shut, the others share what it leaves"

    def __init__(self, streams: Sequence[str], features: int) -> None:
        super().__init__()
        self.streams, self.features = tuple(streams), features
        self.values = nn.ModuleList([nn.Linear(features, features) for _ in self.streams])
        self.gates = nn.Linear(len(self.streams) * features, len(self.streams) * features)

    def forward(self, tokens: Mapping[str, Modality]) -> Tensor:
        means, present = pool(tokens, self.streams)
        values = torch.stack([layer(means[:, i]).tanh() for i, layer in enumerate(self.values)], 1)
        return (values * self._opened(means, present)).sum(1)

    def weigh(self, tokens: Mapping[str, Modality]) -> Tensor:
        """How far each modality's gates are open, the mean over the features."""
        return self._opened(*pool(tokens, self.streams)).mean(2)

    def _opened(self, means: Tensor, present: Tensor) -> Tensor:
        return softmax_of_present(self.gates(means.flatten(1)).unflatten(1, (len(self.streams), -1)), present)
