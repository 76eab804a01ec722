"""What computes a model: its encoders and its fusion with the heads, on some device or in some library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from streamfuse.models.batch import Modality
from streamfuse.models.fusion_model import State


class Engine(Protocol):
    """Used by one thread. Takes tensors of the CPU or of its own device and gives the latter; all engines answer alike."""

    @property
    def device(self) -> torch.device: ...

    def encode(self, stream: str, items: Modality, state: State | None = None) -> tuple[Modality, State]:
        """As `FusionModel.encode`."""
        ...

    def fuse(self, tokens: Mapping[str, Modality], present: Tensor | None = None) -> dict[str, Tensor]:
        """Task -> what its head reads from the fusion of these tokens, `(batch, names)`; all streams are there. `present` as in
        `FusionModel.fuse`."""
        ...

    def weigh(self, tokens: Mapping[str, Modality]) -> Tensor | None:
        """The weight that the fusion gives each stream, `(batch, streams)`; None for a fusion without weights."""
        ...
