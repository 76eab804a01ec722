"""Writes texts: a small transformer decoder that keeps the keys and values of what it has written."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streamfuse.models.batch import Modality
from streamfuse.models.crossmodal import DECODERS
from streamfuse.models.tokenizer import VOCABULARY

Kept = tuple[Tensor, Tensor]
"""Keys and values, each `(batch, heads, tokens, width / heads)`."""


class State(NamedTuple):
    """What a decoder keeps from id to id: the keys and values of the memory and of what is written, of each layer."""

    mask: Tensor  # (batch, 1, 1, tokens of the memory) bool
    memory: list[Kept]
    written: list[Kept]


@DECODERS.register("text_transformer")
class TextTransformer(nn.Module):
    """A pre-norm transformer decoder (Vaswani et al., NeurIPS 2017; Xiong et al., ICML 2020) over ids below `vocabulary`, of texts of at
    most `length` ids. It writes greedily, the likeliest id each time.

    Texts are `(batch, length)` whole numbers with zeros behind the end, as the preprocessors `tokens` and `text_bytes` lay them out;
    0 begins a text too. It is learned with the true text before each id (teacher forcing), by the mean cross entropy of a text's ids
    and its end.
    """

    def __init__(
        self, features: int, vocabulary: int = VOCABULARY, length: int = 64, width: int = 64, depth: int = 2, heads: int = 4
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"expected a width that {heads} heads divide, found {width}")
        self.vocabulary, self.length = vocabulary, length
        self.embed = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(torch.randn(length + 1, width) * 0.02)
        self.nothing = nn.Parameter(torch.randn(features) * 0.02)
        self.layers = nn.ModuleList([_Layer(width, heads, features) for _ in range(depth)])
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, vocabulary)

    def loss(self, memory: Modality, wanted: Tensor) -> Tensor:
        ids = wanted.long()
        logits, _ = self.step(F.pad(ids, (1, 0)), self.begin(memory))
        counted = _with_end(ids)
        each = F.cross_entropy(logits.transpose(1, 2), F.pad(ids, (0, 1)), reduction="none")
        return (each * counted).sum(1) / counted.sum(1)

    def generate(self, memory: Modality) -> Tensor:
        """`(batch, length)` int64. Ends as soon as all texts have."""
        state = self.begin(memory)
        last = torch.zeros(len(memory.mask), 1, dtype=torch.long, device=memory.mask.device)
        written, going = [], torch.ones_like(last, dtype=torch.bool)
        for _ in range(self.length):
            logits, state = self.step(last, state)
            last = logits.argmax(2) * going
            going = going & (last > 0)
            if not bool(going.any()):
                break
            written.append(last)
        text = torch.cat([*written, last[:, :0]], 1)
        return F.pad(text, (0, self.length - text.shape[1]))

    def measures(self, generated: Tensor, wanted: Tensor) -> dict[str, Tensor]:
        """`exact`: is it the same text? `token_accuracy`: the share of the true ids, their end included, that stand in their places."""
        ids, length = wanted.long(), max(generated.shape[1], wanted.shape[1]) + 1
        true, made = (F.pad(text, (0, length - text.shape[1])) for text in (ids, generated))
        right, counted = true == made, F.pad(_with_end(ids), (0, length - ids.shape[1] - 1))
        return {"exact": right.all(1).double(), "token_accuracy": (right * counted).sum(1).double() / counted.sum(1)}

    def begin(self, memory: Modality) -> State:
        """What is kept before anything is written: of the memory, computed once, and of the text, nothing yet."""
        nothing = self.nothing.expand(len(memory.data), 1, -1)  # there is always something to look at
        data = torch.cat([nothing, memory.data], 1)
        return State(F.pad(memory.mask, (1, 0), value=True)[:, None, None], [layer.keep(data) for layer in self.layers], [])  # type: ignore[operator]

    def step(self, ids: Tensor, state: State) -> tuple[Tensor, State]:
        """The next ids, `(batch, ids)`, to what is likely behind each, `(batch, ids, vocabulary)`, and what is kept after them.

        Raises `ValueError` beyond the greatest length.
        """
        before = state.written[0][0].shape[2] if state.written else 0
        after = before + ids.shape[1]
        if after > len(self.position):
            raise ValueError(f"expected texts of at most {self.length} ids, found {after - 1}; set the decoder's length to that")
        x = self.embed(ids) + self.position[before:after]
        places = torch.arange(after, device=ids.device)
        seen = places <= places[before:, None]  # (ids, all ids so far)
        written = []
        for i, layer in enumerate(self.layers):
            x, kept = layer(x, seen, state.written[i] if state.written else None, state.memory[i], state.mask)
            written.append(kept)
        return self.out(self.norm(x)), State(state.mask, state.memory, written)


class _Layer(nn.Module):
    """Attention to what is written, attention to the memory, then two layers, each added to what came in and normalised before."""

    def __init__(self, width: int, heads: int, features: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_writing, self.before_memory, self.before_mlp = (nn.LayerNorm(width) for _ in range(3))
        self.qkv, self.written = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.normalise = nn.LayerNorm(features)
        self.q, self.kv, self.remembered = nn.Linear(width, width), nn.Linear(features, 2 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, seen: Tensor, kept: Kept | None, memory: Kept, mask: Tensor) -> tuple[Tensor, Kept]:
        q, k, v = self._split(self.qkv(self.before_writing(x)), 3)
        if kept is not None:
            k, v = torch.cat([kept[0], k], 2), torch.cat([kept[1], v], 2)
        x = x + self.written(_joined(F.scaled_dot_product_attention(q, k, v, attn_mask=seen)))
        (q,) = self._split(self.q(self.before_memory(x)), 1)
        x = x + self.remembered(_joined(F.scaled_dot_product_attention(q, *memory, attn_mask=mask)))
        return x + self.mlp(self.before_mlp(x)), (k, v)

    def keep(self, memory: Tensor) -> Kept:
        k, v = self._split(self.kv(self.normalise(memory)), 2)
        return k, v

    def _split(self, x: Tensor, parts: int) -> Tensor:
        apart: Tensor = x.reshape(*x.shape[:2], parts, self.heads, -1).permute(2, 0, 3, 1, 4)
        return apart  # (parts, batch, heads, tokens, width / heads)


def _with_end(ids: Tensor) -> Tensor:
    """Each id of a text, and the end behind it: `(batch, length)` to `(batch, length + 1)` of 1 and 0."""
    return F.pad((ids > 0).cumprod(1), (1, 0), value=1)


def _joined(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)
