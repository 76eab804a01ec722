"""Small models, made rows and made answers, for tests of how models are judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from streamfuse.models.fusion_model import FusionModel, build
from streamfuse.models.shapley import subsets_of
from streamfuse.training.examine import Examination, Task
from streamfuse.training.samples import Rows
from tests.training.made_rows import items, made_rows

SIZES = {"image": 4, "audio": 3}
LABELS = ("a", "b", "c")
HEADS: Mapping[str, Mapping[str, Any]] = {"label": {"type": "classification", "labels": list(LABELS)}}


def small_model(heads: Mapping[str, Mapping[str, Any]] = HEADS, fusion: str = "gated", **more: Any) -> FusionModel:
    """`more` of the architecture."""
    torch.manual_seed(0)
    encoders = {stream: {"type": "mlp", "size": SIZES[stream], "hidden": 8} for stream in SIZES}
    return build({"features": 8, "encoders": encoders, "fusion": {"type": fusion}, "heads": heads, **more}).eval()


def small_rows(count: int = 20, targets: Mapping[str, NDArray[Any]] | None = None, missing: bool = False) -> Rows:
    """Rows of noise; where some are `missing`, every third row has no sound."""
    random = np.random.default_rng(0)
    streams = {
        stream: [None if missing and stream == "audio" and i % 3 == 0 else items(random.normal(size=(2, size))) for i in range(count)]
        for stream, size in SIZES.items()
    }
    labels = random.integers(0, 3, count).tolist()
    return made_rows(labels, streams, names=LABELS, targets=targets)


def examined(
    said: Any,
    targets: Any,
    *,
    kind: str = "classification",
    names: Sequence[str] = LABELS,
    subsets: Mapping[str, Any] | None = None,
    noised: Any = None,
    groups: Sequence[str] = (),
    present: Any = None,
) -> Examination:
    """Answers with everything shown, and those with less (`image`, `audio`, `` for nothing), which are even where they are not given."""
    whole = np.asarray(said, np.float32)
    even = np.full_like(whole, 1 / whole.shape[1])
    by_name = {"": even, "image": even, "audio": even, **(subsets or {}), "image audio": whole}
    streams = tuple(SIZES)
    shown = [" ".join(s for s, there in zip(streams, subset, strict=True) if there) for subset in subsets_of(2)]
    return Examination(
        streams=streams,
        tasks={"label": Task("label", kind, tuple(names))},  # type: ignore[arg-type]
        names=tuple(f"row {i}" for i in range(len(whole))),
        groups=tuple(groups),
        targets={"label": np.asarray(targets)},
        present=np.ones((len(whole), 2), bool) if present is None else np.asarray(present, bool),
        subsets=tuple(subsets_of(2)),
        answers={"label": np.stack([np.asarray(by_name[name], np.float32) for name in shown])},
        levels=(0.5, 1.0) if noised is not None else (),
        noised={} if noised is None else {stream: {"label": np.asarray(noised, np.float32)} for stream in streams},
        weights=None,
    )


def sure_of(labels: Sequence[int], names: int = 3, of: float = 0.9) -> NDArray[np.float32]:
    """Answers that are `of` sure of these labels."""
    answers = np.full((len(labels), names), (1 - of) / (names - 1), np.float32)
    answers[np.arange(len(labels)), labels] = of
    return answers
