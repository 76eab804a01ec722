"""Retrieval between modalities: what belongs together lies close together in one space, and is found by looking around."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streamfuse.models.batch import Modality, mean_token

COLDEST = 100.0
"""The most that similarities are multiplied with, as in CLIP: beyond, training gets unstable."""


class Retrieval(nn.Module):
    """For each stream a projection of its mean token onto the unit sphere of `size` dimensions.

    Learned by contrast with the rest of the batch (InfoNCE; van den Oord, Li and Vinyals, 2018), in both directions and with a learned
    temperature (CLIP; Radford et al., ICML 2021). Where processes share a batch, each contrasts the rows of its own share.
    """

    def __init__(self, streams: Sequence[str], features: int, size: int = 64, temperature: float = 0.07) -> None:
        super().__init__()
        if size < 1 or temperature < 1 / COLDEST:
            raise ValueError(f"expected a size of 1 or more and a temperature from {1 / COLDEST} up, found {size} and {temperature}")
        self.streams = tuple(streams)
        self.projections = nn.ModuleDict({stream: nn.Sequential(nn.LayerNorm(features), nn.Linear(features, size)) for stream in streams})
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))

    def forward(self, tokens: Mapping[str, Modality]) -> dict[str, Tensor]:
        """Each stream's place in the common space, `(batch, size)` of length 1; without meaning where it is absent."""
        return {stream: F.normalize(self.projections[stream](mean_token(part)).float(), dim=1) for stream, part in tokens.items()}

    def loss(self, tokens: Mapping[str, Modality]) -> Tensor:
        """`(batch,)`: the mean over the pairs of streams that the row has both of; 0 where it has none. A row that lacks either
        stream of a pair is no counterexample in it."""
        places, scale = self(tokens), self.log_scale.clamp(max=math.log(COLDEST)).exp()
        there = {stream: part.present for stream, part in tokens.items()}
        pairs = list(itertools.combinations(self.streams, 2))
        losses = torch.stack([info_nce(places[a], places[b], there[a] & there[b], scale) for a, b in pairs], 1)
        both = torch.stack([there[a] & there[b] for a, b in pairs], 1)
        return losses.sum(1) / both.sum(1).clamp(min=1)


def info_nce(a: Tensor, b: Tensor, there: Tensor, scale: Tensor) -> Tensor:
    """`(batch,)`: how surprising each row's own partner is among all, the mean of both directions; 0 where the row is not `there`.

    `a` and `b` are `(batch, size)`, `there` `(batch,)` bool, `scale` the inverse of the temperature.
    """
    own = torch.arange(len(a), device=a.device)
    counted = there[None] | (own[:, None] == own)  # a row's own partner always: otherwise there is none to be surprised by
    with torch.autocast(a.device.type, enabled=False):  # half precision is too coarse for what is multiplied by up to 100
        alike = a @ b.T * scale
    directions = [F.cross_entropy(each.masked_fill(~counted, -math.inf), own, reduction="none") for each in (alike, alike.T)]
    return (directions[0] + directions[1]) / 2 * there
