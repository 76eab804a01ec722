"""Text as bytes, without a tokenizer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from streamfuse.models.batch import Modality
from streamfuse.models.parts import ENCODERS, Scope


@ENCODERS.register("byte_text")
class ByteText(nn.Module):
    """Texts as UTF-8 bytes to one token each: an embedding a byte, a convolution over five of them, mean and
    greatest."""

    scope: Scope = "item"

    def __init__(self, features: int, width: int = 24, hidden: int = 48) -> None:
        super().__init__()
        self.embed = nn.Embedding(256, width)
        self.conv = nn.Conv1d(width, hidden, 5, padding=2)
        self.project = nn.Linear(2 * hidden, features)
        self.norm = nn.LayerNorm(features)

    def forward(self, texts: Modality) -> Modality:
        raw, time, mask = texts  # raw is (batch, texts, bytes) uint8, zeros behind the text's end
        batch, count, _ = raw.shape
        there = (raw > 0).flatten(0, 1)[:, None].float()  # (batch * texts, 1, bytes)
        x = self.embed(raw.flatten(0, 1).long()).transpose(1, 2) * there
        x = F.gelu(self.conv(x)) * there
        mean = x.sum(2) / there.sum(2).clamp(min=1)
        tokens = self.project(torch.cat([mean, x.amax(2)], 1)).unflatten(0, (batch, count))
        return Modality(self.norm(tokens) * mask[..., None], time, mask)
