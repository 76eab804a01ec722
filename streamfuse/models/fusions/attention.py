"""Attention over modalities: how much each one counts depends on what they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from streamfuse.models.batch import Modality
from streamfuse.models.fusions.pooling import mean_of_present, pool, softmax_of_present
from streamfuse.models.parts import FUSIONS


@FUSIONS.register("attention")
class Attention(nn.Module):
    """A weighted sum of what the modalities say, with weights from what each one says and from the mean of all.

    Hori et al., "Attention-Based Multimodal Fusion for Video Description", ICCV 2017; the mean stands where their decoder's state
    does. An absent modality has weight 0 and the others share its part; with nothing present the sum is zeros.
    """

    missing = "has weight 0, the others share its part"

    def __init__(self, streams: Sequence[str], features: int, hidden: int = 64) -> None:
        super().__init__()
        self.streams, self.features = tuple(streams), features
        self.values = nn.ModuleList([nn.Linear(features, features) for _ in self.streams])
        self.keys = nn.ModuleList([nn.Linear(features, hidden) for _ in self.streams])
        self.context = nn.Linear(features, hidden, bias=False)
        self.score = nn.Linear(hidden, 1, bias=False)

    def forward(self, tokens: Mapping[str, Modality]) -> Tensor:
        means, present = pool(tokens, self.streams)
        values = torch.stack([layer(means[:, i]) for i, layer in enumerate(self.values)], 1)
        return (values * self._weights(means, present)[..., None]).sum(1).tanh()

    def weigh(self, tokens: Mapping[str, Modality]) -> Tensor:
        """The weights of the sum."""
        return self._weights(*pool(tokens, self.streams))

    def _weights(self, means: Tensor, present: Tensor) -> Tensor:
        keys = torch.stack([layer(means[:, i]) for i, layer in enumerate(self.keys)], 1)  # (batch, streams, hidden)
        context = self.context(mean_of_present(means, present))[:, None]
        return softmax_of_present(self.score((keys + context).tanh())[..., 0], present)
