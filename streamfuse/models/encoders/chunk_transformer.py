"""Sound to tokens by a transformer that goes chunk by chunk."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streamfuse.models.batch import Modality
from streamfuse.models.encoders.blocks import Mlp
from streamfuse.models.encoders.causal import MelFrames, State, joined, whole
from streamfuse.models.parts import ENCODERS, Scope


@ENCODERS.register("chunk_transformer")
class ChunkTransformer(nn.Module):
    """Chunks of `stride` blocks of sound to one token each (200 ms for blocks of 20 ms), as in Streaming Audio Transformers (Dinkel et
    al., Interspeech 2024).

    Within a chunk all blocks attend to each other, and to those of the `memory` chunks before, whose keys and values are carried in the
    state. So the scope is causal and not item: a chunk alone is short, and what was just before tells a lot, at the same cost. Where
    blocks stand to each other goes in as a learned bias by distance (T5; Raffel et al., JMLR 2020), so that what is carried does not
    depend on where it stood.
    """

    scope: Scope = "causal"

    def __init__(
        self,
        features: int,
        rate: int = 16_000,
        block: int = 320,
        bands: int = 64,
        width: int = 128,
        stride: int = 10,
        memory: int = 2,
        depth: int = 3,
        heads: int = 4,
    ) -> None:
        super().__init__()
        self.stride, self.memory, self.carried = stride, memory, memory * stride
        self.mel = MelFrames(rate, block, bands)
        self.embed = nn.Linear(self.mel.outputs, width)
        self.distance = nn.Parameter(torch.zeros(heads, self.carried + 2 * stride - 1))
        self.layers = nn.ModuleList([_Layer(width, heads) for _ in range(depth)])
        self.project = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, features), nn.LayerNorm(features))
        self.context = self.mel.context + depth * self.carried

    def forward(self, sound: Modality) -> Modality:
        return self.step(sound, self.begin(sound.mask.shape[0]))[0]

    def begin(self, batch: int) -> State:
        width, weight = self.embed.out_features, self.embed.weight
        carried = tuple(weight.new_zeros(batch, self.carried, 2 * width) for _ in self.layers)
        return (self.mel.begin(batch), torch.zeros(batch, self.carried, dtype=torch.bool, device=weight.device), *carried)

    def step(self, sound: Modality, state: State) -> tuple[Modality, State]:
        sound = whole(sound, self.stride)
        before, were, *pasts = state
        frames, samples = self.mel(sound.data, sound.mask, before)
        x = self.embed(frames)  # (batch, blocks, width)
        there = torch.cat([were, sound.mask], 1)
        bias = self._bias(x.shape[1], there)
        after = []
        for layer, past in zip(self.layers, pasts, strict=True):
            x, carried = layer(x, past, bias)
            after.append(carried)
        time, mask = joined(sound, self.stride)
        weight = sound.mask.to(x.dtype).reshape(*mask.shape, self.stride, 1)
        mean = (x.reshape(*mask.shape, self.stride, -1) * weight).sum(2) / weight.sum(2).clamp(min=1)
        return Modality(self.project(mean) * mask[..., None], time, mask), (samples, there[:, there.shape[1] - self.carried :], *after)

    def _bias(self, blocks: int, there: Tensor) -> Tensor:
        """`(batch, heads, blocks, carried + blocks)`: what is added to attention, minus infinity where a block may not look."""
        own = torch.arange(blocks, device=there.device)[:, None] + self.carried
        other = torch.arange(self.carried + blocks, device=there.device)[None]
        chunks_back = own // self.stride - other // self.stride
        seen = (chunks_back >= 0) & (chunks_back <= self.memory)
        # A block always sees itself, as attention to nothing at all is not a number.
        seen = (seen & there[:, None, None]) | (own == other)
        far = (own - other + self.stride - 1).clamp(0, self.distance.shape[1] - 1)
        return self.distance[:, far].masked_fill(~seen, float("-inf"))


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"expected a width that {heads} heads divide, found {width}")
        self.heads = heads
        self.before_attention, self.before_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key_value, self.out = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.mlp = Mlp(width, 4 * width)

    def forward(self, x: Tensor, past: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        h = self.before_attention(x)
        line = torch.cat([past, self.key_value(h)], 1)  # (batch, carried + blocks, 2 * width)
        q = self.query(h).unflatten(2, (self.heads, -1)).transpose(1, 2)
        k, v = line.reshape(*line.shape[:2], 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype)).transpose(1, 2).flatten(2))
        return x + self.mlp(self.before_mlp(x)), line[:, line.shape[1] - past.shape[1] :]
