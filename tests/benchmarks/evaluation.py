"""The subset table: each row encoded once and fused for every subset of its modalities, beside encoding it anew for each.

    python -m tests.benchmarks.evaluation [--rounds N] [--rows N] [--recipe FILE]

The recipe's model (config/recipes/toy.yaml: pictures, sound and words), untrained, on its rows: all subsets of its streams, reading
included. CPU time, medians, the ways taken in turn; ratios tell more than figures. Also how far the answers are apart.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from streamfuse.models.fusion_model import FusionModel, build
from streamfuse.models.shapley import subsets_of
from streamfuse.training.data import open_data
from streamfuse.training.examine import examine
from streamfuse.training.recipe import load_recipe
from streamfuse.training.samples import Samples, answers, batches
from tests.benchmarks.measure import Run, cpu_seconds, table

RECIPE = Path(__file__).parents[2] / "config" / "recipes" / "toy.yaml"
SIZE = 64


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.evaluation", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="how often each way is measured")
    parser.add_argument("--rows", type=int, default=256, help="rows that are judged")
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="whose model and data")
    options = parser.parse_args()
    torch.set_num_threads(1)
    recipe = load_recipe(options.recipe)
    samples = open_data(recipe.data, options.recipe.parent, recipe.model.inputs or None, recipe.model.heads or None)
    torch.manual_seed(0)
    model = build({**recipe.model.model_dump(exclude={"inputs", "window"}, exclude_none=True), "heads": samples.heads}).eval()
    rows = range(min(options.rows, len(samples.names)))

    cached = examine(model, samples, rows, size=SIZE).answers
    anew = encode_each_time(model, samples, rows)
    apart = max(float(np.abs(cached[task] - anew[task]).max()) for task in model.tasks)

    def once() -> Run:
        return lambda: examine(model, samples, rows, size=SIZE)

    def every_time() -> Run:
        return lambda: encode_each_time(model, samples, rows)

    taken = cpu_seconds({"each row encoded once": once, "anew for each subset": every_time}, options.rounds)
    fastest = taken["each row encoded once"]
    table(
        f"{2 ** len(model.streams)} subsets of {', '.join(model.streams)}, {len(rows)} rows",
        ("", "CPU s", "times"),
        [(name, f"{seconds:.3f}", f"{seconds / fastest:.2f}") for name, seconds in taken.items()],
    )
    print(f"  answers differ by at most {apart:.1e}")


def encode_each_time(model: FusionModel, samples: Samples, rows: range) -> Mapping[str, NDArray[np.float32]]:
    """Task -> `(subsets, rows, names)`."""
    said: dict[str, list[list[NDArray[np.float32]]]] = {task: [] for task in model.tasks}
    for subset in subsets_of(len(model.streams)):
        shown = [stream for stream, there in zip(model.streams, subset, strict=True) if there]
        found = [answers(model, batch, shown) for batch in batches(samples, rows, SIZE)]
        for task in model.tasks:
            said[task].append([np.asarray(one[task].numpy()) for one in found])
    return {task: np.stack([np.concatenate(parts) for parts in own]) for task, own in said.items()}


if __name__ == "__main__":
    main()
