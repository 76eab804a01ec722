"""Texts by a model of the transformers library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from streamfuse.models.batch import Modality
from streamfuse.models.hugging_face import load_model, make_model
from streamfuse.models.parts import ENCODERS, Scope


@ENCODERS.register("hf")
class Hf(nn.Module):
    """Each text to one token by a model of transformers (`AutoModel`; Wolf et al., EMNLP 2020): the mean over its last layer.

    A recipe names the `folder` of a pretrained model, which must be there: nothing is fetched. A bundle has the model's `config`
    instead, and the weights among its own, so that it needs no folder. Texts come from `hf_tokens`: `(batch, texts, length)` ids plus
    one, 0 behind the end. Needs the extra `hf`.
    """

    scope: Scope = "item"

    def __init__(self, features: int, folder: str | None = None, config: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        if folder is not None:
            self.model, config = load_model(folder)
        elif config is not None:
            self.model = make_model(config)
        else:
            raise ValueError("expected the folder of a model, found none; set folder")
        self.packed = {"type": "hf", "config": dict(config)}
        own: Any = self.model.config
        self.vocabulary, self.length = own.vocab_size + 1, getattr(own, "max_position_embeddings", None)
        self.project = nn.Sequential(nn.Linear(own.hidden_size, features), nn.LayerNorm(features))

    def forward(self, texts: Modality) -> Modality:
        raw = texts.data.flatten(0, 1).long()  # (batch * texts, length)
        if self.length is not None and raw.shape[1] > self.length:
            raise ValueError(f"expected texts of at most {self.length} tokens, found {raw.shape[1]}; set length of hf_tokens to that")
        there = raw > 0
        # Attention to nothing at all is not a number, so an absent text has one token, which is not counted.
        seen = there | (torch.arange(raw.shape[1], device=raw.device) == 0)
        x = self.model(input_ids=(raw - 1).clamp(min=0), attention_mask=seen.long()).last_hidden_state
        weight = there[..., None].to(x.dtype)
        mean = (x * weight).sum(1) / weight.sum(1).clamp(min=1)
        tokens = self.project(mean)
        return texts._replace(data=tokens.reshape(*texts.mask.shape, tokens.shape[1]) * texts.mask[..., None])
