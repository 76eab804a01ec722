"""A fusion model: encoders, a fusion and heads, put together by name from a bundle's config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from streamfuse.models.batch import Modality, mean_token
from streamfuse.models.crossmodal import CrossModal
from streamfuse.models.fusions.pooling import scaled_to_one
from streamfuse.models.heads import Head
from streamfuse.models.narrowing import narrow
from streamfuse.models.parts import ENCODERS, FUSIONS, HEADS, Scope, UnknownPart
from streamfuse.models.reconstruction import Reconstruction

P = TypeVar("P", Reconstruction, CrossModal)
State = tuple[Tensor, ...]
"""What a causal encoder remembers of the items before; empty for all others."""


class FusionModel(nn.Module):
    """`encoders -> fusion -> heads`. `forward` is the oracle; serving calls `encode` and `fuse`, with equal answers.

    `forward(inputs)` takes a mapping of stream to `Modality`, in any order. A stream that is left out, or that is
    masked out for a sample, is absent there. It gives each task's outputs, `(batch, ...)` as its head says, finite for any
    subset, none included. With a `reconstruction`, the fusion sees a predicted token in place of an absent stream. `crossmodal` is
    beside all that: it goes from tokens to other modalities.
    """

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        fusion: nn.Module,
        heads: Mapping[str, Head],
        auxiliary: Mapping[str, Mapping[str, Head]],
        features: int,
        reconstruction: Reconstruction | None = None,
        crossmodal: CrossModal | None = None,
    ) -> None:
        super().__init__()
        self.streams, self.tasks = tuple(encoders), tuple(heads)
        self.features = features
        self.encoders = nn.ModuleDict(encoders)
        self.reconstruction, self.crossmodal = reconstruction, crossmodal
        self.fusion = fusion
        self.heads = nn.ModuleDict(heads)
        self.auxiliary = nn.ModuleDict({stream: nn.ModuleDict(own) for stream, own in auxiliary.items()})

    def forward(self, inputs: Mapping[str, Modality]) -> dict[str, Tensor]:
        return self.fuse({stream: self.encode(stream, inputs[stream])[0] for stream in self.streams if stream in inputs})

    def encode(self, stream: str, items: Modality, state: State | None = None) -> tuple[Modality, State]:
        """One stream's items as tokens, `(batch, tokens, features)`, and the state after them.

        A causal encoder goes on from `state`, the one that the items before left; the others need none.
        """
        encoder = self.encoders[stream]
        if self.scope(stream) == "causal":
            begun = encoder.begin(items.data.shape[0]) if state is None else state  # type: ignore[operator]
            step: tuple[Modality, State] = encoder.step(items, begun)  # type: ignore[operator]
            return step
        return encoder(items), ()

    def fuse(self, tokens: Mapping[str, Modality], present: Tensor | None = None) -> dict[str, Tensor]:
        """Tokens of any subset of the streams as each task's outputs.

        `present`, `(batch, streams)` bool in the order of `streams`, hides streams that are there.
        """
        fused = self.fusion(self._filled(self.complete(tokens, present)))
        return {task: head(fused) for task, head in self.heads.items()}

    def weights(self, tokens: Mapping[str, Modality], present: Tensor | None = None) -> Tensor | None:
        """How much each stream counts in the fusion, `(batch, streams)`: rows sum to 1 over the streams that are present, or are
        zeros where none is. None for a fusion that has no weights. What a reconstructed stream counts is not told."""
        if not hasattr(self.fusion, "weigh"):
            return None
        whole = self.complete(tokens, present)
        there = torch.stack([whole[s].present for s in self.streams], 1)
        return scaled_to_one(cast(Tensor, self.fusion.weigh(self._filled(whole))) * there)  # type: ignore[operator]

    def complete(self, tokens: Mapping[str, Modality], present: Tensor | None = None) -> dict[str, Modality]:
        """All streams in their order, what is left out or hidden as masked tokens: what a fusion takes."""
        some = next(iter(tokens.values()))
        whole = {s: tokens[s] if s in tokens else self._nothing(some) for s in self.streams}
        if present is not None:
            whole = {s: part._replace(mask=part.mask & present[:, i, None]) for i, (s, part) in enumerate(whole.items())}
        return whole

    def alone(self, tokens: Mapping[str, Modality]) -> dict[str, dict[str, Tensor]]:
        """What each stream says alone, for training: stream -> task -> outputs, without meaning where it is absent."""
        return {
            stream: {task: head(mean_token(part)) for task, head in cast(nn.ModuleDict, self.auxiliary[stream]).items()}
            for stream, part in tokens.items()
        }

    def reconstruction_loss(self, tokens: Mapping[str, Modality]) -> Tensor:
        """`(batch,)`, for training: how far off the reconstruction of what is present is; zeros for a model without one."""
        whole = self.complete(tokens)
        some = whole[self.streams[0]].data
        return some.new_zeros(some.shape[0]) if self.reconstruction is None else self.reconstruction.loss(whole)

    def head(self, task: str) -> Head:
        return cast(Head, self.heads[task])

    def scope(self, stream: str) -> Scope:
        """What a token of this stream depends on."""
        return cast(Scope, self.encoders[stream].scope)

    def _filled(self, whole: Mapping[str, Modality]) -> Mapping[str, Modality]:
        return whole if self.reconstruction is None else self.reconstruction.fill(whole)

    def _nothing(self, like: Modality) -> Modality:
        batch = like.data.shape[0]
        return Modality(
            like.data.new_zeros(batch, 1, self.features),
            like.time.new_zeros(batch, 1),
            torch.zeros(batch, 1, dtype=torch.bool, device=like.mask.device),
        )


def build(architecture: Mapping[str, Any]) -> FusionModel:
    """The model that an architecture describes: `features`, `encoders` (stream -> `type` and options), `fusion` (`type` and
    options), `heads` (task -> `type` and options), and, if absent streams are to be reconstructed, `reconstruction` (its options);
    for retrieval and generation between modalities, `crossmodal` (its options).
    `narrowed` says how many units pruning left (`narrowing`).

    Raises `UnknownPart` with a sentence.
    """
    features, described = architecture["features"], architecture["heads"].items()
    encoders = {stream: ENCODERS.make(options, features=features) for stream, options in architecture["encoders"].items()}
    streams = tuple(encoders)
    try:
        fusion = FUSIONS.make(architecture["fusion"], streams=streams, features=features)
        heads = {task: cast(Head, HEADS.make(options, features=features)) for task, options in described}
        auxiliary = {
            stream: {task: cast(Head, HEADS.make(options, features=features, normalised=False)) for task, options in described}
            for stream in streams
        }
        model = FusionModel(
            encoders,
            fusion,
            heads,
            auxiliary,
            features,
            _optional(Reconstruction, architecture, "reconstruction"),
            _optional(CrossModal, architecture, "crossmodal"),
        )
    except KeyError as error:  # torch does not take a dot, or a name that its modules use themselves
        raise UnknownPart(f"expected streams and tasks with other names: {error.args[0]}") from None
    narrow(model, architecture.get("narrowed", {}))
    return model


def _optional(part: type[P], architecture: Mapping[str, Any], name: str) -> P | None:
    options = architecture.get(name)
    if options is None:
        return None
    try:
        return part(tuple(architecture["encoders"]), architecture["features"], **options)
    except (TypeError, ValueError) as error:
        raise UnknownPart(f"the {name} does not take the options {options}: {error}") from None
