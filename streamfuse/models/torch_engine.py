"""Computes with torch, in eager mode, on the CPU or on a CUDA device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from streamfuse.models.batch import Modality
from streamfuse.models.fusion_model import FusionModel, State
from streamfuse.models.uploads import Uploads


class TorchEngine:
    """Fulfils `Engine`. Moves the model to the device. On CUDA it computes in bfloat16 where torch's autocast holds that safe."""

    def __init__(self, model: FusionModel, device: torch.device) -> None:
        self.device = device
        self._model = model.to(device)
        self._upload = Uploads(device)

    def encode(self, stream: str, items: Modality, state: State | None = None) -> tuple[Modality, State]:
        with self._computing():
            return self._model.encode(stream, Modality(*self._upload(items)), state)

    def fuse(self, tokens: Mapping[str, Modality], present: Tensor | None = None) -> dict[str, Tensor]:
        with self._computing():
            outputs = self._model.fuse(tokens, present)
            return {task: self._model.head(task).read(found) for task, found in outputs.items()}

    def weigh(self, tokens: Mapping[str, Modality]) -> Tensor | None:
        with self._computing():
            weights = self._model.weights(tokens)
            return None if weights is None else weights.float()

    @contextmanager
    def _computing(self) -> Iterator[None]:
        with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda"):
            yield
