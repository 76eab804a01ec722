"""Models trained for the benchmarks: what `streamfuse train` makes of a recipe with changes, without reading the data anew each time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import torch
from numpy.typing import NDArray

from streamfuse.models.bundle import CONFIG, load_bundle
from streamfuse.training.distributed import Workers
from streamfuse.training.examine import Examination, examine
from streamfuse.training.noise import Noise
from streamfuse.training.recipe import load_recipe
from streamfuse.training.runs import WITHOUT_EFFECT, Prepared, carry_out, prepare, runs


@dataclass(frozen=True, slots=True)
class Bench:
    """A recipe with its data, and the folder that bundles go to. A bundle of the same recipe that is there is not trained again."""

    path: Path
    prepared: Prepared
    out: Path

    @classmethod
    def open(cls, recipe: Path, out: Path, changes: Mapping[str, str] | None = None) -> Bench:
        torch.set_num_threads(1)
        return cls(recipe, prepare(load_recipe(recipe, changes), recipe.parent), out)

    def train(self, name: str, changes: Mapping[str, str], seed: int, streams: Sequence[str] | None = None) -> Path:
        """The bundle's folder. `changes` as `--set` takes them; with `streams`, of these alone."""
        recipe = load_recipe(self.path, changes)
        if streams is not None:
            encoders = {stream: recipe.model.encoders[stream] for stream in streams}
            recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"encoders": encoders})})
        prepared = replace(self.prepared, recipe=recipe)
        (run,) = runs(prepared, self.out / name, [seed])
        told = recipe.model_dump(mode="json", exclude={"training": WITHOUT_EFFECT})
        if not run.is_done or json.loads((run.folder / CONFIG).read_text(encoding="utf-8"))["training"]["recipe"] != told:
            for _ in carry_out(prepared, run, torch.device("cpu"), Workers()):
                pass
        return run.folder

    def examine(self, bundle: Path, part: str, noise: Noise | None = None, levels: Sequence[float] = ()) -> Examination:
        """What the bundle answers for the rows of this part."""
        rows = [int(row) for row in self.prepared.splits[0].parts[part]]
        return examine(load_bundle(bundle).model.eval(), self.prepared.samples, rows, noise=noise, levels=levels, size=500)


def accuracy(answers: NDArray[np.float32], truth: NDArray[np.generic]) -> float:
    """In percent."""
    return 100 * float((answers.argmax(1) == truth).mean())


def spread(values: Sequence[float]) -> str:
    """Mean and deviation over seeds."""
    return f"{fmean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")
