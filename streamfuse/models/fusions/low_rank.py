"""Low-rank multimodal fusion: tensor fusion without ever making the tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from streamfuse.models.batch import Modality
from streamfuse.models.fusions.pooling import pool
from streamfuse.models.parts import FUSIONS


@FUSIONS.register("low_rank")
class LowRank(nn.Module):
    """For each of `rank` factors, one layer a modality, the product of what they give, and a weighted sum over the factors.

    Liu et al., "Efficient Low-rank Multimodal Fusion with Modality-Specific Factors", ACL 2018. A layer's bias is the factor of the 1 that
    stands beside a modality's features: an absent modality gives the bias alone, and the products of the others stay. Biases
    start at 1, so that a product of many modalities neither vanishes nor explodes.
    """

    missing = "its factor is the bias alone: the products of the others stay"

    def __init__(self, streams: Sequence[str], features: int, rank: int = 8) -> None:
        super().__init__()
        if rank < 1:
            raise ValueError(f"expected a rank of 1 or more, found {rank}")
        self.streams, self.features, self.rank = tuple(streams), features, rank
        self.factors = nn.ModuleList([nn.Linear(features, rank * features) for _ in self.streams])
        for factor in self.factors:
            nn.init.ones_(factor.bias)  # type: ignore[arg-type]
        self.weights = nn.Linear(rank, 1, bias=False)
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, tokens: Mapping[str, Modality]) -> Tensor:
        means, _ = pool(tokens, self.streams)  # zeros where a stream is absent
        product = means.new_ones(())
        for i, factor in enumerate(self.factors):
            product = product * factor(means[:, i])
        out: Tensor = self.weights(product.reshape(-1, self.features, self.rank))[..., 0] + self.bias
        return out
