"""`streamfuse export`: a bundle's model as graphs, for ONNX Runtime or for torch."""

from __future__ import annotations

import shutil
from pathlib import Path

from streamfuse.models.bundle import CONFIG, TENSORS, find_bundle, load_bundle
from streamfuse.models.graphs import Target, export_graphs


def export(bundle: str, to: Target, out: Path | None) -> int:
    """Writes the graphs beside the bundle's files, or with `out` beside a copy of them. Raises BundleError."""
    folder = find_bundle(bundle)
    loaded = load_bundle(folder)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        for name in (CONFIG, TENSORS):
            shutil.copyfile(folder / name, out / name)
        folder = out
    print(f"{loaded.config.name}: {len(loaded.model.streams)} encoders and a fusion, to {folder / to}")
    export_graphs(loaded, folder, to, lambda line: print(f"  {line}", flush=True))
    if to == "onnx":
        print(f"to use them: models.bundle: {folder}, models.engine: onnx")
    return 0
