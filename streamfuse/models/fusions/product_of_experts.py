"""Product of experts: each modality tells a normal distribution, and the answer is the mean of their product."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streamfuse.models.batch import Modality
from streamfuse.models.fusions.pooling import pool, scaled_to_one
from streamfuse.models.parts import FUSIONS


@FUSIONS.register("product_of_experts")
class ProductOfExperts(nn.Module):
    """Each modality is an expert that tells a mean and a precision for each feature; a prior expert says 0 with precision 1.

    Wu and Goodman, "Multimodal Generative Models for Scalable Weakly-Supervised Learning", NeurIPS 2018, without drawing from the
    product: the answer is its mean. An absent modality is an expert without a say, which is the exact marginal; with nothing
    present the prior's mean, zeros, is left.
    """

    missing = "left out of the product, which is the exact marginal"

    def __init__(self, streams: Sequence[str], features: int) -> None:
        super().__init__()
        self.streams, self.features = tuple(streams), features
        self.experts = nn.ModuleList([nn.Linear(features, 2 * features) for _ in self.streams])

    def forward(self, tokens: Mapping[str, Modality]) -> Tensor:
        means, precisions = self._said(tokens)
        return (means * precisions).sum(1) / (1 + precisions.sum(1))

    def weigh(self, tokens: Mapping[str, Modality]) -> Tensor:
        """Each expert's part in the precision of all but the prior, the mean over the features."""
        _, precisions = self._said(tokens)
        return scaled_to_one(precisions).mean(2)

    def _said(self, tokens: Mapping[str, Modality]) -> tuple[Tensor, Tensor]:
        """Means and precisions, `(batch, streams, features)`; an absent stream's precision is 0."""
        pooled, present = pool(tokens, self.streams)
        said = torch.stack([layer(pooled[:, i]) for i, layer in enumerate(self.experts)], 1)
        means, precisions = said.chunk(2, 2)
        return means, F.softplus(precisions) * present[..., None]
