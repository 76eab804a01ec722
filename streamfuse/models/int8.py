"""Exported encoders with weights and activations of 8 bits (static quantisation, as pairs of QuantizeLinear and DequantizeLinear).

Per channel, and with one bit less for weights: without VNNI the sums of 8-bit products overflow otherwise.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from streamfuse.models.batch import Modality
from streamfuse.models.fusion_model import FusionModel
from streamfuse.models.graphs import MANIFEST, open_session, require_onnx


def quantise(model: FusionModel, folder: Path, inputs: Iterable[Mapping[str, Modality]]) -> list[str]:
    """Replaces, in a bundle's exported `onnx` folder, the encoders that have convolutions by their 8-bit form, calibrated on these
    inputs, and gives the names of their streams. Raises `BundleError` where the library is missing."""
    require_onnx("8-bit integers").set_default_logger_severity(3)
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quant_pre_process, quantize_static

    place = folder / "onnx"
    batches = list(inputs)
    manifest = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
    done = []
    for number, stream in enumerate(model.streams):
        path = place / f"encoder-{number}.onnx"
        if not any(node.op_type == "Conv" for node in onnx.load(str(path)).graph.node):
            continue
        # Normalisation is folded into the convolutions first: what stands between two 8-bit operations makes them no faster than before.
        quant_pre_process(str(path), str(path), skip_symbolic_shape=True)
        quantize_static(
            str(path),
            str(path),
            _Reader(model, stream, path, [batch[stream] for batch in batches]),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv", "MatMul", "Gemm"],
        )
        manifest["files"][path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
        done.append(stream)
    (place / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return done


class _Reader:
    """Fulfils `onnxruntime.quantization.CalibrationDataReader`."""

    def __init__(self, model: FusionModel, stream: str, path: Path, items: list[Modality]) -> None:
        self._names = [given.name for given in open_session(path).get_inputs()]
        self._model, self._stream = model, stream
        self._left = iter(items)

    def get_next(self) -> dict[str, Any] | None:
        items = next(self._left, None)
        if items is None:
            return None
        state: tuple[Tensor, ...] = ()
        if self._model.scope(self._stream) == "causal":
            state = self._model.encoders[self._stream].begin(len(items.mask))  # type: ignore[operator]
        with torch.inference_mode():
            return {name: part.numpy() for name, part in zip(self._names, [*items, *state], strict=True)}
