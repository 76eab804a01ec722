"""Tensor fusion: the products of every feature of a modality with every feature of each other one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from streamfuse.models.batch import Modality
from streamfuse.models.fusions.pooling import pool
from streamfuse.models.parts import FUSIONS

USUAL_PRODUCTS = 17**3
MOST_PRODUCTS = 1 << 16


@FUSIONS.register("tensor")
class TensorFusion(nn.Module):
    """Each modality as `size` numbers and a 1, their outer product over all modalities, and two layers on it.

    Zadeh et al., "Tensor Fusion Network for Multimodal Sentiment Analysis", EMNLP 2017. Thanks to the 1, the tensor holds each subset's own
    products as well: an absent modality is zeros beside its 1, and those of the others stay as they are.

    There are `(size + 1) ** streams` products, so `size` is by default what keeps them to 4,913: 16 for up to three modalities,
    7, 4 and 3 for four, five and six. Raises `ValueError` for more than 65,536.
    """

    missing = "zeros beside its 1: the products of the others stay"

    def __init__(self, streams: Sequence[str], features: int, size: int | None = None) -> None:
        super().__init__()
        self.streams, self.features = tuple(streams), features
        count = len(self.streams)
        size = next(s for s in range(16, 0, -1) if (s + 1) ** count <= USUAL_PRODUCTS or s == 1) if size is None else size
        if size < 1 or (size + 1) ** count > MOST_PRODUCTS:
            raise ValueError(
                f"expected a size of 1 or more whose (size + 1) ** {count} products are {MOST_PRODUCTS} at most, found size {size} "
                f"and {(size + 1) ** count} products; set a smaller size, or the fusion low_rank, which has no such bound"
            )
        self.parts = nn.ModuleList([nn.Linear(features, size) for _ in self.streams])
        self.layers = nn.Sequential(nn.Linear((size + 1) ** count, features), nn.GELU(), nn.Linear(features, features))

    def forward(self, tokens: Mapping[str, Modality]) -> Tensor:
        means, present = pool(tokens, self.streams)
        products = means.new_ones(means.shape[0], 1)
        for i, layer in enumerate(self.parts):
            part = layer(means[:, i]).tanh() * present[:, i, None]
            part = torch.cat([part, torch.ones_like(part[:, :1])], 1)
            products = (products[:, :, None] * part[:, None]).flatten(1)
        out: Tensor = self.layers(products)
        return out
