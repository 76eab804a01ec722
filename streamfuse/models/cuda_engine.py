"""Computes on a CUDA device with compiled models, captured as CUDA graphs: one launch in place of some fifty."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from streamfuse.models.batch import Modality
from streamfuse.models.fusion_model import FusionModel, State
from streamfuse.models.graphs import flat_encoder, flat_fusion
from streamfuse.models.torch_engine import TorchEngine
from streamfuse.models.uploads import Uploads

MOST_GRAPHS = 64
"""A graph keeps its inputs and outputs; shapes beyond so many are computed eagerly."""


class CudaEngine:
    """Fulfils `Engine`. The first batch of each shape takes seconds to minutes, as it is compiled and captured; behind a
    `BucketedEngine` the shapes are few."""

    def __init__(self, model: FusionModel, device: torch.device) -> None:
        self.device = device
        self._eager = TorchEngine(model, device)
        self._model, self._graphs, self._upload = model, Graphs(device), Uploads(device)
        self._encoders = {stream: flat_encoder(model, stream) for stream in model.streams}
        self._fusion = flat_fusion(model)

    def encode(self, stream: str, items: Modality, state: State | None = None) -> tuple[Modality, State]:
        begun: State = ()
        if self._model.scope(stream) == "causal":
            begun = self._model.encoders[stream].begin(len(items.mask)) if state is None else state  # type: ignore[operator]
        made = self._graphs.run(stream, self._encoders[stream], self._upload([*items, *begun]))
        if made is None:
            return self._eager.encode(stream, items, state)
        return Modality(*made[:3]), tuple(made[3:])

    def fuse(self, tokens: Mapping[str, Modality], present: Tensor | None = None) -> dict[str, Tensor]:
        streams = self._model.streams
        if present is None:
            present = torch.ones(len(tokens[streams[0]].mask), len(streams), dtype=torch.bool, device=self.device)
        parts = self._upload([part for stream in streams for part in tokens[stream]] + [present])
        made = self._graphs.run("", self._fusion, parts)
        return self._eager.fuse(tokens, present) if made is None else dict(zip(self._model.tasks, made, strict=True))

    def weigh(self, tokens: Mapping[str, Modality]) -> Tensor | None:
        return self._eager.weigh(tokens)


class Graphs:
    """CUDA graphs by what they compute and by the shapes of their inputs; all take their memory from one pool."""

    def __init__(self, device: torch.device, most: int = MOST_GRAPHS) -> None:
        self._device, self._most = device, most
        self._pool: Any = None
        self._compiled: dict[str, Callable[..., Sequence[Tensor]]] = {}
        self._captured: dict[tuple[object, ...], tuple[Any, list[Tensor], Sequence[Tensor]]] = {}

    def run(self, name: str, module: nn.Module, inputs: Sequence[Tensor]) -> list[Tensor] | None:
        """The module's outputs; None for a new shape when there are as many graphs as may be."""
        key = (name, *((tensor.shape, tensor.dtype) for tensor in inputs))
        if key not in self._captured:
            if len(self._captured) >= self._most:
                return None
            self._captured[key] = self._capture(name, module, inputs)
        graph, given, made = self._captured[key]
        for place, tensor in zip(given, inputs, strict=True):
            place.copy_(tensor)
        graph.replay()
        return [tensor.clone() for tensor in made]  # the graph writes to the same place the next time

    def _capture(self, name: str, module: nn.Module, inputs: Sequence[Tensor]) -> tuple[Any, list[Tensor], Sequence[Tensor]]:
        if name not in self._compiled:
            self._compiled[name] = torch.compile(module, mode="max-autotune-no-cudagraphs", dynamic=False)
        given = [tensor.clone() for tensor in inputs]
        # Autocast's cache of cast weights would be filled within the capture and be gone after it.
        with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
            side = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
            side.wait_stream(torch.cuda.current_stream(self._device))
            with torch.cuda.stream(side):
                for _ in range(3):
                    self._compiled[name](*given)
            torch.cuda.current_stream(self._device).wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool):
                made = self._compiled[name](*given)
        self._pool = self._pool or graph.pool()
        return graph, given, made
