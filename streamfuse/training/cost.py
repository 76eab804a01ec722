"""What a model costs: parameters, floating-point operations, and CPU time for one window and for a batch."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from streamfuse.models.batch import Modality
from streamfuse.models.fusion_model import FusionModel

SIZES = (1, 32)
ROUNDS = 25
SECONDS = 20.0
"""Measuring ends after about so long, but never before three rounds."""


@dataclass(frozen=True, slots=True)
class Latency:
    """CPU time in ms of one forward pass of so many windows, on one thread."""

    size: int
    median: float
    p90: float
    rounds: int


@dataclass(frozen=True, slots=True)
class Cost:
    """`parameters` by part: each stream's encoder, the fusion, the heads; what only training needs is not in it. `flops` are those of
    one window, an addition and a multiplication counted as two; None where they can't be counted."""

    parameters: Mapping[str, int]
    flops: int | None
    latency: tuple[Latency, ...]

    @property
    def all_parameters(self) -> int:
        return sum(self.parameters.values())


def measure_cost(
    models: Mapping[str, FusionModel], inputs: Mapping[str, Mapping[int, Mapping[str, Modality]]], rounds: int = ROUNDS
) -> dict[str, Cost]:
    """Of each model, by name; `inputs` are its batches of real rows, on the CPU, by their size.

    The models take turns, round by round, so that what disturbs one disturbs all.
    """
    latency = _latency(models, inputs, rounds)
    return {
        name: Cost(
            parameters=count_parameters(model), flops=count_flops(model, inputs[name][min(inputs[name])]), latency=latency.get(name, ())
        )
        for name, model in models.items()
    }


def count_parameters(model: FusionModel) -> dict[str, int]:
    parts: dict[str, nn.Module] = {**{f"encoder {stream}": model.encoders[stream] for stream in model.streams}}
    parts |= {"fusion": model.fusion, "heads": model.heads}
    if model.reconstruction is not None:
        parts["reconstruction"] = model.reconstruction
    return {name: sum(parameter.numel() for parameter in part.parameters()) for name, part in parts.items()}


@torch.inference_mode()
def count_flops(model: FusionModel, inputs: Mapping[str, Modality]) -> int | None:
    """Of one window of a batch: matrix products and convolutions, which are nearly all; not additions, norms and activations."""
    size = len(next(iter(inputs.values())).mask)
    # oneDNN's LSTM and the fused attention are one operation each, which the counter does not know: let torch take them apart.
    onednn = torch.backends.mkldnn  # its `flags` also sets what only Intel's GPUs have, which warns
    before, onednn.enabled = onednn.enabled, False  # type: ignore[assignment]
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model(inputs)
    except RuntimeError:
        return None
    finally:
        onednn.enabled = before
    return int(counter.get_total_flops() / size)


@torch.inference_mode()
def _latency(
    models: Mapping[str, FusionModel], inputs: Mapping[str, Mapping[int, Mapping[str, Modality]]], rounds: int
) -> dict[str, tuple[Latency, ...]]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        subjects = [(name, size) for size in SIZES for name in models if size in inputs[name]]
        for name, size in subjects:
            models[name](inputs[name][size])
        taken: dict[tuple[str, int], list[float]] = {subject: [] for subject in subjects}
        begun = time.monotonic()
        for done in itertools.count():
            if done >= rounds or (done >= 3 and time.monotonic() - begun > SECONDS):
                break
            for name, size in subjects:
                start = time.process_time()
                models[name](inputs[name][size])
                taken[name, size].append((time.process_time() - start) * 1000)
    finally:
        torch.set_num_threads(threads)
    found: dict[str, tuple[Latency, ...]] = {}
    for (name, size), times in taken.items():
        found[name] = (
            *found.get(name, ()),
            Latency(size, float(np.median(times)), float(np.quantile(times, 0.9)), len(times)),
        )
    return found
