"""Late-fusion transformer, the default: each modality is encoded by itself, then all tokens attend to each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streamfuse.models.batch import Modality
from streamfuse.models.fusions.blocks import WAVES, Layer, mark, vectors
from streamfuse.models.fusions.pooling import scaled_to_one
from streamfuse.models.parts import FUSIONS


@FUSIONS.register("late_transformer")
class LateTransformer(nn.Module):
    """A small transformer over the tokens of all modalities and one of its own, whose output is the answer.

    Vaswani et al., "Attention Is All You Need", NeurIPS 2017, read out as in Devlin et al., "BERT", NAACL 2019. Each token carries
    its modality and its time. An absent modality is masked out of the attention; the model's own token is never masked, so
    attention always has something to look at.
    """

    missing = "masked out of the attention"

    def __init__(self, streams: Sequence[str], features: int, layers: int = 2, heads: int = 4) -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"expected 1 layer or more, found {layers}")
        self.streams, self.features = tuple(streams), features
        self.own = nn.Parameter(torch.randn(1, 1, features) * 0.02)
        self.modality = vectors(self.streams, features)
        self.clock = nn.Linear(WAVES, features)
        self.layers = nn.ModuleList([Layer(features, heads) for _ in range(layers)])
        self.norm = nn.LayerNorm(features)

    def forward(self, tokens: Mapping[str, Modality]) -> Tensor:
        x, mask = self._laid_out(tokens)
        for layer in self.layers:
            x = layer(x, mask)
        out: Tensor = self.norm(x[:, 0])
        return out

    def weigh(self, tokens: Mapping[str, Modality]) -> Tensor:
        """Where the answer was looked up: attention followed from its own token back through the layers, each of which hands on
        half of what a token was before (attention rollout; Abnar and Zuidema, "Quantifying Attention Flow", ACL 2020)."""
        x, mask = self._laid_out(tokens)
        looked = []
        for layer in self.layers:
            looked.append(layer.attention(x, mask))  # type: ignore[operator]
            x = layer(x, mask)
        flow = F.one_hot(mask.new_zeros(mask.shape[0], dtype=torch.long), mask.shape[1]).to(x.dtype)[:, None]  # (batch, 1, tokens)
        for attention in reversed(looked):
            flow = (flow + flow @ attention) / 2
        counts = [tokens[s].mask.shape[1] for s in self.streams]
        return scaled_to_one(torch.stack([part.sum(1) for part in torch.split_with_sizes(flow[:, 0, 1:], counts, 1)], 1))

    def _laid_out(self, tokens: Mapping[str, Modality]) -> tuple[Tensor, Tensor]:
        """Its own token and all others, `(batch, 1 + tokens, features)`, and which are there."""
        x = torch.cat([mark(tokens[s], self.modality[s], self.clock) for s in self.streams], 1)
        mask = torch.cat([tokens[s].mask for s in self.streams], 1)
        return torch.cat([self.own.expand(x.shape[0], 1, -1), x], 1), F.pad(mask, (1, 0), value=True)
