"""A task that trains in a second: two streams of three numbers, each a noisy picture of one of three classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from streamfuse.models.fusion_model import FusionModel, build
from streamfuse.training.data import open_data
from streamfuse.training.recipe import TrainingRecipe
from streamfuse.training.samples import Samples
from streamfuse.training.train import EpochEnd, Finished, Job, Record, train

LABELS = ["x", "y", "z"]
ENCODERS: dict[str, Any] = {stream: {"type": "mlp", "hidden": 16, "size": 3} for stream in ("a", "b")}
HEADS: dict[str, Any] = {"label": {"type": "classification", "labels": LABELS}}


def write_arrays(folder: Path, rows: int = 200, seed: int = 0) -> Path:
    draw = np.random.default_rng(seed)
    label = draw.integers(0, 3, rows)
    seen = {stream: (np.eye(3)[label] + draw.normal(0, 0.6, (rows, 3))).astype(np.float32) for stream in "ab"}
    height = (label + draw.normal(0, 0.1, rows)).astype(np.float32)
    np.savez(folder / "rows.npz", **seen, label=np.array(LABELS)[label], height=height)  # type: ignore[arg-type]
    return folder / "rows.npz"


def samples(folder: Path, rows: int = 200, seed: int = 0, targets: dict[str, str] | None = None) -> Samples:
    folder.mkdir(exist_ok=True)
    path = write_arrays(folder, rows, seed)
    return open_data({"type": "features", "path": path.name, **({"targets": targets} if targets else {})}, folder)


def recipe(**training: Any) -> dict[str, Any]:
    return {
        "name": "tiny",
        "data": {"type": "features", "path": "rows.npz"},
        "model": {"features": 16, "encoders": {stream: {"type": "mlp", "hidden": 16} for stream in "ab"}},
        "training": {"epochs": 3, "batch": 32, "optimizer": {"type": "adamw", "rate": 0.01}, **training},
    }


def write_recipe(folder: Path, **training: Any) -> Path:
    folder.mkdir(exist_ok=True)
    write_arrays(folder)
    (folder / "tiny.yaml").write_text(yaml.safe_dump(recipe(**training)))
    return folder / "tiny.yaml"


def model(heads: dict[str, Any] | None = None, seed: int = 0, encoders: dict[str, Any] | None = None) -> FusionModel:
    torch.manual_seed(seed)
    return build({"features": 16, "encoders": encoders or ENCODERS, "fusion": {"type": "late_transformer"}, "heads": heads or HEADS})


def settings(**training: Any) -> TrainingRecipe:
    return TrainingRecipe.model_validate({"epochs": 3, "batch": 32, "optimizer": {"type": "adamw", "rate": 0.01}, **training})


def trained(made: FusionModel, rows: Samples, validation: Samples, wanted: TrainingRecipe, **job: Any) -> tuple[Record, list[Record]]:
    """The record that was kept, and all of them."""
    ends = [event for event in train(made, rows, validation, Job(wanted, **{"seed": 0, **job})) if isinstance(event, EpochEnd | Finished)]
    last = ends[-1]
    assert isinstance(last, Finished)
    return last.kept, list(last.history)
