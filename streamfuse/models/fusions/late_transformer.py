"""Late-fusion transformer, the default: each modality is encoded by itself, then all tokens attend to each other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streamfuse.models.batch import Modality
from streamfuse.models.parts import FUSIONS


@FUSIONS.register("late_transformer")
class LateTransformer(nn.Module):
    """A small transformer over the tokens of all modalities and one of its own, whose output is the answer.

    Each token carries its modality and its time; its own token is never masked, so attention always has something to
    look at. Pre-norm (Xiong et al., ICML 2020).
    """

    missing = "masked out of the attention"

    def __init__(self, streams: Sequence[str], features: int, layers: int = 2, heads: int = 4) -> None:
        super().__init__()
        self.streams, self.features = tuple(streams), features
        self.own = nn.Parameter(torch.randn(1, 1, features) * 0.02)
        self.modality = nn.ParameterDict({s: nn.Parameter(torch.randn(features) * 0.02) for s in self.streams})
        self.clock = nn.Linear(16, features)
        self.layers = nn.ModuleList([_Layer(features, heads) for _ in range(layers)])
        self.norm = nn.LayerNorm(features)

    def forward(self, tokens: Mapping[str, Modality]) -> Tensor:
        parts = [(s, tokens[s]) for s in self.streams]
        x = torch.cat([part.data + self.modality[s] + self.clock(_waves(part.time)) for s, part in parts], 1)
        mask = torch.cat([part.mask for _, part in parts], 1)
        own = self.own.expand(len(x), 1, -1)
        x, mask = torch.cat([own, x * mask[..., None]], 1), F.pad(mask, (1, 0), value=True)
        for layer in self.layers:
            x = layer(x, mask)
        out: Tensor = self.norm(x[:, 0])
        return out


class _Layer(nn.Module):
    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_mlp = nn.LayerNorm(features), nn.LayerNorm(features)
        self.qkv, self.out = nn.Linear(features, 3 * features), nn.Linear(features, features)
        self.mlp = nn.Sequential(nn.Linear(features, 2 * features), nn.GELU(), nn.Linear(2 * features, features))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = self.qkv(self.before_attention(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None])  # (batch, heads, tokens, d)
        x = x + self.out(seen.transpose(1, 2).flatten(2))
        out: Tensor = x + self.mlp(self.before_mlp(x))
        return out


def _waves(time: Tensor) -> Tensor:
    """`(batch, tokens, 16)`: the time in seconds as sines and cosines with periods from 8 s down to 1/16 s."""
    angles = time[..., None] * (2 * math.pi / 8) * 2 ** torch.arange(8, device=time.device)
    return torch.cat([angles.sin(), angles.cos()], -1)
