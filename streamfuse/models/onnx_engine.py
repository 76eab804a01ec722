"""Computes with ONNX Runtime on the CPU, from the graphs that `streamfuse export` made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from streamfuse.models.batch import Modality
from streamfuse.models.fusion_model import FusionModel, State
from streamfuse.models.graphs import FUSION, graph_files, require_onnx, session_runner


class OnnxEngine:
    """Fulfils `Engine`. `folder` is the bundle's. Raises `BundleError` where its graphs or the library are not there."""

    device = torch.device("cpu")

    def __init__(self, model: FusionModel, folder: Path, digest: str, threads: int = 1) -> None:
        require_onnx("models.engine: onnx")
        files = graph_files(folder, digest, "onnx")
        self._model = model
        self._encoders = {s: session_runner(files[f"encoder-{number}"], threads) for number, s in enumerate(model.streams)}
        self._fusion = session_runner(files[FUSION], threads)

    def encode(self, stream: str, items: Modality, state: State | None = None) -> tuple[Modality, State]:
        begun: State = ()
        if self._model.scope(stream) == "causal":
            begun = self._model.encoders[stream].begin(len(items.mask)) if state is None else state  # type: ignore[operator]
        data, time, mask, *after = self._encoders[stream]([*items, *begun])
        return Modality(data, time, mask), tuple(after)

    def fuse(self, tokens: Mapping[str, Modality], present: Tensor | None = None) -> dict[str, Tensor]:
        streams = self._model.streams
        if present is None:
            present = torch.ones(len(tokens[streams[0]].mask), len(streams), dtype=torch.bool)
        said = self._fusion([part for stream in streams for part in tokens[stream]] + [present])
        return dict(zip(self._model.tasks, said, strict=True))

    def weigh(self, tokens: Mapping[str, Modality]) -> Tensor | None:
        """By the model itself: it is asked once a batch, not once a subset."""
        with torch.inference_mode():
            return self._model.weights(tokens)
