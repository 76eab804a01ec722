"""Encoders of texts as token ids: each text to one token, by itself.

Texts are `(batch, texts, length)` whole numbers, 0 behind a text's end, as the preprocessors `tokens` and `text_bytes` give them.
`vocabulary` is more than the greatest of them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from streamfuse.models.batch import Modality
from streamfuse.models.encoders.blocks import Block
from streamfuse.models.parts import ENCODERS, Scope
from streamfuse.models.tokenizer import VOCABULARY


class TextRecurrent(nn.Module):
    """An embedding, and a recurrent layer each from the front and from the back, whose last outputs are the token.

    The text is turned round by its own length, so that both directions end with the text and not with padding.
    """

    scope: Scope = "item"

    def __init__(self, features: int, cell: type[nn.LSTM] | type[nn.GRU], vocabulary: int, width: int, hidden: int) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.embed = nn.Embedding(vocabulary, width)
        self.forwards, self.backwards = cell(width, hidden, batch_first=True), cell(width, hidden, batch_first=True)
        self.project = nn.Linear(2 * hidden, features)
        self.norm = nn.LayerNorm(features)

    def forward(self, texts: Modality) -> Modality:
        ids = texts.data.flatten(0, 1).long()  # (batch * texts, length)
        last = (ids > 0).sum(1, keepdim=True) - 1  # (batch * texts, 1), -1 for an empty text
        turned = ids.gather(1, (last - torch.arange(ids.shape[1], device=ids.device)).clamp(min=0))
        ends = [
            net(self.embed(one))[0].gather(1, last.clamp(min=0)[..., None].expand(-1, -1, net.hidden_size))[:, 0]
            for net, one in ((self.forwards, ids), (self.backwards, turned))
        ]
        return _tokens(texts, self.norm(self.project(torch.cat(ends, 1))))


@ENCODERS.register("text_lstm")
def text_lstm(features: int, vocabulary: int = VOCABULARY, width: int = 64, hidden: int = 96) -> TextRecurrent:
    """Long short-term memory (Hochreiter and Schmidhuber, 1997)."""
    return TextRecurrent(features, nn.LSTM, vocabulary, width, hidden)


@ENCODERS.register("text_gru")
def text_gru(features: int, vocabulary: int = VOCABULARY, width: int = 64, hidden: int = 96) -> TextRecurrent:
    """Gated recurrent units (Cho et al., EMNLP 2014)."""
    return TextRecurrent(features, nn.GRU, vocabulary, width, hidden)


@ENCODERS.register("text_transformer")
class TextTransformer(nn.Module):
    """A small transformer (Vaswani et al., NeurIPS 2017) over a text of at most `length` tokens; their mean is the token."""

    scope: Scope = "item"

    def __init__(
        self, features: int, vocabulary: int = VOCABULARY, length: int = 64, width: int = 128, depth: int = 2, heads: int = 4
    ) -> None:
        super().__init__()
        self.vocabulary, self.length = vocabulary, length
        self.embed = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(torch.randn(length, width) * 0.02)
        self.blocks = nn.ModuleList([Block(width, heads) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.project = nn.Sequential(nn.Linear(width, features), nn.LayerNorm(features))

    def forward(self, texts: Modality) -> Modality:
        ids = texts.data.flatten(0, 1).long()
        if ids.shape[1] > self.length:
            raise ValueError(f"expected texts of at most {self.length} tokens, found {ids.shape[1]}; set the encoder's length to that")
        there = ids > 0
        x = self.embed(ids) + self.position[: ids.shape[1]]
        seen = _with_first(there)[:, None, None]
        for block in self.blocks:
            x = block(x, seen)
        weight = there[..., None].to(x.dtype)
        mean = (self.norm(x) * weight).sum(1) / weight.sum(1).clamp(min=1)
        return _tokens(texts, self.project(mean))


def _with_first(there: Tensor) -> Tensor:
    """The first place always counts, as attention to nothing at all is not a number."""
    return there | (torch.arange(there.shape[1], device=there.device) == 0)


def _tokens(texts: Modality, tokens: Tensor) -> Modality:
    return texts._replace(data=tokens.reshape(*texts.mask.shape, tokens.shape[1]) * texts.mask[..., None])
