"""A fusion model: encoders, a fusion and a head, put together by name from a bundle's config."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from streamfuse.models.batch import Modality
from streamfuse.models.encoders import ByteText, FaceMotion, LogMel
from streamfuse.models.fusion import Concatenation, LateTransformer, mean_token

ENCODERS: dict[str, Callable[..., nn.Module]] = {"face_motion": FaceMotion, "log_mel": LogMel, "byte_text": ByteText}
"""Called with `features` and the encoder's own options."""

FUSIONS: dict[str, Callable[..., nn.Module]] = {"late_transformer": LateTransformer, "concatenation": Concatenation}
"""Called with `streams`, `features` and the fusion's own options."""


class UnknownPart(ValueError):
    """An architecture names an encoder or a fusion that does not exist, or gives it options that it does not have."""


class FusionModel(nn.Module):
    """`encoders -> fusion -> head`. `forward` is the oracle; serving calls `encode` and `fuse`, with equal answers.

    `forward(inputs)` takes a mapping of stream to `Modality`, in any order. A stream that is left out, or that is
    masked out for a sample, is absent there. It gives logits, `(batch, labels)`, finite for any subset, none included.
    """

    def __init__(self, encoders: Mapping[str, nn.Module], fusion: nn.Module, features: int, labels: int) -> None:
        super().__init__()
        self.streams = tuple(encoders)
        self.features = features
        self.encoders = nn.ModuleDict(encoders)
        self.fusion = fusion
        self.head = nn.Sequential(nn.LayerNorm(features), nn.Linear(features, labels))
        self.auxiliary = nn.ModuleDict({s: nn.Linear(features, labels) for s in self.streams})

    def forward(self, inputs: Mapping[str, Modality]) -> Tensor:
        return self.fuse({stream: self.encode(stream, inputs[stream]) for stream in self.streams if stream in inputs})

    def encode(self, stream: str, items: Modality) -> Modality:
        """One stream's items as tokens, `(batch, tokens, features)`."""
        tokens: Modality = self.encoders[stream](items)
        return tokens

    def fuse(self, tokens: Mapping[str, Modality], present: Tensor | None = None) -> Tensor:
        """Tokens of any subset of the streams as logits, `(batch, labels)`.

        `present`, `(batch, streams)` bool in the order of `streams`, hides streams that are there.
        """
        some = next(iter(tokens.values()))
        whole = {s: tokens[s] if s in tokens else self._nothing(some) for s in self.streams}
        if present is not None:
            whole = {s: Modality(part.data, part.time, part.mask & present[:, i, None]) for i, (s, part) in enumerate(whole.items())}
        logits: Tensor = self.head(self.fusion(whole))
        return logits

    def auxiliary_logits(self, tokens: Mapping[str, Modality]) -> dict[str, Tensor]:
        """What each stream says alone, for training: `(batch, labels)`, without meaning where the stream is absent."""
        return {stream: self.auxiliary[stream](mean_token(part)) for stream, part in tokens.items()}

    def _nothing(self, like: Modality) -> Modality:
        batch = len(like.data)
        return Modality(
            like.data.new_zeros(batch, 1, self.features),
            like.time.new_zeros(batch, 1),
            torch.zeros(batch, 1, dtype=torch.bool, device=like.mask.device),
        )


def build(architecture: Mapping[str, Any], labels: int) -> FusionModel:
    """The model that an architecture describes: `features`, `encoders` (stream to type and options) and `fusion`.

    Raises `UnknownPart` with a sentence.
    """
    features = architecture["features"]
    encoders = {stream: _part(ENCODERS, "encoder", options, {"features": features}) for stream, options in architecture["encoders"].items()}
    fusion = _part(FUSIONS, "fusion", architecture["fusion"], {"streams": tuple(encoders), "features": features})
    return FusionModel(encoders, fusion, features, labels)


def _part(known: Mapping[str, Callable[..., nn.Module]], kind: str, options: Mapping[str, Any], given: Mapping[str, Any]) -> nn.Module:
    name = str(options.get("type"))
    if name not in known:
        raise UnknownPart(f"expected a {kind} that this version knows ({', '.join(sorted(known))}), found {name!r}")
    own = {key: value for key, value in options.items() if key != "type"}
    try:
        return known[name](**given, **own)
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise UnknownPart(f"the {kind} {name!r} does not take the options {own}: {error}") from None
