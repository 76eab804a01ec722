"""Perceiver: a few latent vectors look at all tokens, at a cost that grows with the tokens and not with their square."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from streamfuse.models.batch import Modality
from streamfuse.models.fusions.blocks import WAVES, CrossLayer, Layer, mark, vectors
from streamfuse.models.parts import FUSIONS


@FUSIONS.register("perceiver")
class Perceiver(nn.Module):
    """Learned latents that look at the tokens of all modalities and then at each other, `blocks` times; the answer is their mean.

    Jaegle et al., "Perceiver: General Perception with Iterative Attention", ICML 2021, with weights of its own in each block. An absent
    modality is masked out; a learned token beside the others is always there to be looked at.
    """

    missing = "masked out of the attention"

    def __init__(self, streams: Sequence[str], features: int, latents: int = 8, blocks: int = 2, heads: int = 4) -> None:
        super().__init__()
        if latents < 1 or blocks < 1:
            raise ValueError(f"expected 1 latent and 1 block or more, found {latents} and {blocks}")
        self.streams, self.features = tuple(streams), features
        self.latents = nn.Parameter(torch.randn(1, latents, features) * 0.02)
        self.modality = vectors(self.streams, features)
        self.clock = nn.Linear(WAVES, features)
        self.looks = nn.ModuleList([CrossLayer(features, heads) for _ in range(blocks)])
        self.layers = nn.ModuleList([Layer(features, heads) for _ in range(blocks)])
        self.norm = nn.LayerNorm(features)

    def forward(self, tokens: Mapping[str, Modality]) -> Tensor:
        seen = torch.cat([mark(tokens[s], self.modality[s], self.clock) for s in self.streams], 1)
        mask = torch.cat([tokens[s].mask for s in self.streams], 1)
        x = self.latents.expand(seen.shape[0], -1, -1)
        everyone = mask.new_ones(x.shape[:2])
        for look, layer in zip(self.looks, self.layers, strict=True):
            x = layer(look(x, seen, mask), everyone)
        out: Tensor = self.norm(x).mean(1)
        return out
