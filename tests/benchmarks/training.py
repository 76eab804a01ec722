"""Training: what the engine costs beside a bare loop over the same tensors, in rows a second of CPU time and of wall time.

    python -m tests.benchmarks.training [--rounds N] [--rows N] [--width N]

The model, the loss (fused and auxiliary), AdamW and the clipping are the same in all. `bare` has all batches laid out beforehand and
draws nothing; the engine reads row by row, draws what is hidden, lays out batches and tells each step. Rows are held in memory, and
`slow rows` are those of a reader that waits 1 ms for each, as a disk or a network would: there threads count. Alternatives are run in
turn; the figures are medians.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable, Mapping
from functools import partial
from statistics import median

import numpy as np
import torch

from streamfuse.models.batch import Items
from streamfuse.models.fusion_model import FusionModel, build
from streamfuse.training.objective import Objective
from streamfuse.training.recipe import TrainingRecipe
from streamfuse.training.samples import Rows, make_batch
from streamfuse.training.train import Job, train
from tests.benchmarks.measure import table

BATCH = 64
STREAMS = {"video": 16, "audio": 50, "text": 4}
"""Items of each."""
WAIT = 0.001


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.training", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7, help="how often each is measured")
    parser.add_argument("--rows", type=int, default=640, help="rows of an epoch")
    parser.add_argument("--width", type=int, default=64, help="numbers in each item, and features")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows, slow = (make_rows(options.rows, options.width, wait) for wait in (0.0, WAIT))
    few = make_rows(BATCH, options.width, 0.0)
    subjects: dict[str, Callable[[], None]] = {
        "bare loop": bare_loop(rows, options.width),
        "engine": engine(rows, few, options.width, 0),
        "engine, 2 threads": engine(rows, few, options.width, 2),
        "engine, slow rows": engine(slow, few, options.width, 0),
        "engine, slow rows, 2 threads": engine(slow, few, options.width, 2),
        "engine, slow rows, 8 threads": engine(slow, few, options.width, 8),
    }
    cpu, wall = measure(subjects, options.rounds)
    bare = cpu["bare loop"], wall["bare loop"]
    figures = [
        [
            name,
            f"{options.rows / cpu[name]:,.0f}",
            f"{cpu[name] / bare[0]:.2f}",
            f"{options.rows / wall[name]:,.0f}",
            f"{wall[name] / bare[1]:.2f}",
        ]
        for name in subjects
    ]
    table(f"rows a second, batches of {BATCH}", ["", "CPU", "x bare", "wall", "x bare"], figures)


def measure(subjects: Mapping[str, Callable[[], None]], rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    """Median CPU and wall seconds of each, run in turn after one untimed round."""
    cpu: dict[str, list[float]] = {name: [] for name in subjects}
    wall: dict[str, list[float]] = {name: [] for name in subjects}
    for number in range(rounds + 1):
        for name, run in subjects.items():
            gc.collect()
            began = time.process_time(), time.perf_counter()
            run()
            if number:
                cpu[name].append(time.process_time() - began[0])
                wall[name].append(time.perf_counter() - began[1])
    return {name: median(taken) for name, taken in cpu.items()}, {name: median(taken) for name, taken in wall.items()}


def make_rows(count: int, width: int, wait: float) -> Rows:
    draw = np.random.default_rng(0)
    label = draw.integers(0, 4, count)
    data = {s: draw.standard_normal((count, items, width), np.float32) for s, items in STREAMS.items()}
    times = {s: np.linspace(-1, 0, items, dtype=np.float32) for s, items in STREAMS.items()}
    there = {s: np.ones(items, np.bool_) for s, items in STREAMS.items()}

    def read(row: int) -> dict[str, Items]:
        if wait:
            time.sleep(wait)
        return {s: Items(data[s][row], times[s], there[s]) for s in STREAMS}

    return Rows(
        inputs={s: {"type": "features", "size": width, "most": items} for s, items in STREAMS.items()},
        empty={s: Items(np.zeros_like(data[s][0]), times[s], np.zeros_like(there[s])) for s in STREAMS},
        heads={"label": {"type": "classification", "labels": list("abcd")}},
        targets={"label": label.astype(np.int64)},
        names=[str(row) for row in range(count)],
        reader=read,
    )


def make_model(rows: Rows, width: int) -> FusionModel:
    torch.manual_seed(0)
    encoders = {s: {"type": "mlp", "size": width} for s in STREAMS}
    return build({"features": width, "encoders": encoders, "fusion": {"type": "late_transformer"}, "heads": rows.heads})


def settings(threads: int) -> TrainingRecipe:
    return TrainingRecipe.model_validate(
        {"epochs": 1, "batch": BATCH, "early_stopping": None, "threads": threads, "ahead": max(threads, 1) * 2}
    )


def bare_loop(rows: Rows, width: int) -> Callable[[], None]:
    model = make_model(rows, width).train()
    objective = Objective(model, settings(0))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    batches = [make_batch(rows, range(at, at + BATCH)) for at in range(0, len(rows.names), BATCH)]
    weight = torch.full((BATCH,), 1 / BATCH)

    def run() -> None:
        for batch in batches:
            loss, _ = objective(model, batch.inputs, batch.targets, weight, model.tasks)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

    return run


def engine(rows: Rows, validation: Rows, width: int, threads: int) -> Callable[[], None]:
    """One epoch with `validation` at its end, one batch, which the bare loop does not have."""
    model = make_model(rows, width)
    return partial(_exhaust, model, rows, validation, Job(settings(threads), 0))


def _exhaust(model: FusionModel, rows: Rows, validation: Rows, job: Job) -> None:
    for _ in train(model, rows, validation, job):
        pass


if __name__ == "__main__":
    main()
