"""Layers of transformers, and how a token tells its modality and its time: what fusions that look at each token stand on.

Layers are pre-norm (Xiong et al., "On Layer Normalization in the Transformer Architecture", ICML 2020).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streamfuse.models.batch import Modality


class Layer(nn.Module):
    """Each token looks at all tokens that are there. Some token has to be there always."""

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.heads = _divisor(heads, features)
        self.before_attention, self.before_mlp = nn.LayerNorm(features), nn.LayerNorm(features)
        self.qkv, self.out = nn.Linear(features, 3 * features), nn.Linear(features, features)
        self.mlp = _mlp(features)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """`(batch, tokens, features)`; `mask`, `(batch, tokens)`, says which are there to be looked at."""
        q, k, v = self._asked(x)
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None])  # (batch, heads, tokens, d)
        x = x + self.out(seen.transpose(1, 2).flatten(2))
        out: Tensor = x + self.mlp(self.before_mlp(x))
        return out

    def attention(self, x: Tensor, mask: Tensor) -> Tensor:
        """How much each token looks at each, `(batch, tokens, tokens)`, the mean over the heads; rows sum to 1."""
        q, k, _ = self._asked(x)
        scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[3])
        return scores.masked_fill(~mask[:, None, None], -math.inf).softmax(3).mean(1)

    def _asked(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.qkv(self.before_attention(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return q, k, v


class CrossLayer(nn.Module):
    """Each token looks at the tokens of another sequence, and at a learned one that is always there: where the sequence has
    none, that is what is seen."""

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.heads = _divisor(heads, features)
        self.nothing = nn.Parameter(torch.randn(features) * 0.02)
        self.before_asking, self.before_answering = nn.LayerNorm(features), nn.LayerNorm(features)
        self.before_mlp = nn.LayerNorm(features)
        self.q, self.kv, self.out = nn.Linear(features, features), nn.Linear(features, 2 * features), nn.Linear(features, features)
        self.mlp = _mlp(features)

    def forward(self, x: Tensor, other: Tensor, mask: Tensor) -> Tensor:
        """`x` is `(batch, tokens, features)`, `other` `(batch, others, features)`, `mask` `(batch, others)` which are there."""
        other = torch.cat([self.nothing.expand(other.shape[0], 1, -1), other], 1)
        q = self.q(self.before_asking(x)).unflatten(2, (self.heads, -1)).transpose(1, 2)
        k, v = self.kv(self.before_answering(other)).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=F.pad(mask, (1, 0), value=True)[:, None, None])
        x = x + self.out(seen.transpose(1, 2).flatten(2))
        out: Tensor = x + self.mlp(self.before_mlp(x))
        return out


def vectors(streams: Sequence[str], features: int) -> nn.ParameterDict:
    """What tells each stream's tokens from the others', learned."""
    return nn.ParameterDict({s: nn.Parameter(torch.randn(features) * 0.02) for s in streams})


def mark(part: Modality, vector: Tensor, clock: nn.Linear) -> Tensor:
    """The tokens with their modality's vector and, by `clock` from `WAVES` numbers, their time; zeros where no token is."""
    marked: Tensor = part.data + vector + clock(waves(part.time))
    return marked * part.mask[..., None]


WAVES = 16


def waves(time: Tensor) -> Tensor:
    """`(batch, tokens, 16)`: the time in seconds as sines and cosines with periods from 8 s down to 1/16 s."""
    angles = time[..., None] * (2 * math.pi / 8) * 2 ** torch.arange(8, device=time.device)
    return torch.cat([angles.sin(), angles.cos()], -1)


def _mlp(features: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(features, 2 * features), nn.GELU(), nn.Linear(2 * features, features))


def _divisor(heads: int, features: int) -> int:
    if heads < 1 or features % heads:
        raise ValueError(f"expected features in a multiple of heads, found {features} features and {heads} heads")
    return heads
