"""Attention bottlenecks: modalities tell each other what they know through a few tokens only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streamfuse.models.batch import Modality
from streamfuse.models.fusions.blocks import WAVES, Layer, mark, vectors
from streamfuse.models.fusions.pooling import mean_of_present
from streamfuse.models.parts import FUSIONS


@FUSIONS.register("bottleneck")
class Bottleneck(nn.Module):
    """A transformer a modality, over its tokens, one of its own and the shared bottleneck; after each layer the bottleneck is the
    mean of what the modalities made of it. The answer is the mean of the modalities' own tokens.

    Nagrani et al., "Attention Bottlenecks for Multimodal Fusion", NeurIPS 2021. An absent modality has no part in either mean; with
    nothing present the answer does not depend on the sample. Two layers or more: in the first nobody knows of the others.
    """

    missing = "has no part in the bottleneck, nor in the answer"

    def __init__(self, streams: Sequence[str], features: int, bottlenecks: int = 4, layers: int = 2, heads: int = 4) -> None:
        super().__init__()
        if layers < 2 or bottlenecks < 1:
            raise ValueError(f"expected 2 layers and 1 bottleneck or more, found {layers} and {bottlenecks}")
        self.streams, self.features = tuple(streams), features
        self.own = vectors(self.streams, features)
        self.shared = nn.Parameter(torch.randn(1, bottlenecks, features) * 0.02)
        self.modality = vectors(self.streams, features)
        self.clock = nn.Linear(WAVES, features)
        self.layers = nn.ModuleList([nn.ModuleDict({s: Layer(features, heads) for s in self.streams}) for _ in range(layers)])
        self.norm = nn.LayerNorm(features)

    def forward(self, tokens: Mapping[str, Modality]) -> Tensor:
        count = self.shared.shape[1]
        present = torch.stack([tokens[s].present for s in self.streams], 1)
        masks = {s: F.pad(tokens[s].mask, (1 + count, 0), value=True) for s in self.streams}
        each = {}
        for s in self.streams:
            marked = mark(tokens[s], self.modality[s], self.clock)
            each[s] = torch.cat([self.own[s].expand(marked.shape[0], 1, -1), marked], 1)
        shared = self.shared.expand(present.shape[0], -1, -1)
        for layer in self.layers:
            told = []
            for s, own_layer in cast(nn.ModuleDict, layer).items():
                x = own_layer(torch.cat([shared, each[s]], 1), masks[s])
                told.append(x[:, :count])
                each[s] = x[:, count:]
            shared = mean_of_present(torch.stack(told, 1).flatten(2), present).reshape(-1, count, self.features)
        out: Tensor = self.norm(mean_of_present(torch.stack([each[s][:, 0] for s in self.streams], 1), present))
        return out
