"""Engines: how fast the same model computes in torch's eager mode and in ONNX Runtime, and what the memory preset brings.

    python -m tests.benchmarks.engines [--rounds N] [--seconds S]

CPU ms, medians over rounds, one thread, the engines taken in turn; random weights, frames of 112 x 112 (ResNet: 224 x 224). Windows per
second of one core are those of CPU time, at batches of 1 and 32, every window encoded anew. With a CUDA device: images per second by
bucket, eager, compiled and as a CUDA graph, and the 99th percentile of the latency when frames come at random (Poisson) at 70 % of that
rate.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch

from streamfuse.allocator import keep_memory
from streamfuse.models.batch import Items, Modality, collate
from streamfuse.models.bundle import Bundle, find_bundle, load_bundle
from streamfuse.models.engine import Engine
from streamfuse.models.graphs import export_graphs
from streamfuse.models.onnx_engine import OnnxEngine
from streamfuse.models.torch_engine import TorchEngine
from tests.benchmarks.measure import Run, cpu_seconds, table
from tests.benchmarks.serving import architecture, write_bundle

CPU = torch.device("cpu")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.engines", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=11, help="how often each figure is measured")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each open-loop load lasts (with a CUDA device)")
    parser.add_argument("--allocating", choices=["with", "without"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.allocating:
        allocating(options.allocating == "with", options.rounds)
        return
    with tempfile.TemporaryDirectory() as folder:
        encoders(Path(folder), options.rounds)
        whole(Path(folder), options.rounds)
    allocator(options.rounds)
    if torch.cuda.is_available():
        from tests.benchmarks.gpu import measure_gpu

        measure_gpu(options.seconds)
    else:
        print("\nNo CUDA device here: the figures of a GPU are left out.")


def encoders(folder: Path, rounds: int) -> None:
    """The image encoders alone, a frame and eight frames."""
    rows = []
    for name, norm in (("cnn", "group"), ("cnn", "batch"), ("resnet18", "batch")):
        described = architecture(name, norm, "concatenation")
        described["encoders"] = {"video": described["encoders"]["video"]}
        bundle = load_bundle(write_bundle(folder / f"{name}-{norm}", described))
        both = engines(bundle, folder / f"{name}-{norm}")
        for count in (1, 8):
            size = 224 if name == "resnet18" else 112
            frames = torch.randint(0, 256, (1, count, size, size, 3)).to(torch.uint8)
            items = Modality(frames, torch.zeros(1, count), torch.ones(1, count, dtype=torch.bool))
            taken = timed({e: partial(engine.encode, "video", items) for e, engine in both.items()}, rounds)
            rows.append([f"{name}, {norm} norm, {count} frames", *figures(taken)])
    table("Image encoders, CPU ms", ["", "eager", "ONNX", "ONNX, times as fast"], rows)


def whole(folder: Path, rounds: int) -> None:
    """Whole models, every window encoded anew."""
    bundles = {"cnn + causal_mel + text_transformer": write_bundle(folder / "usual", architecture(norm="batch"))}
    bundles["who-is-talking"] = find_bundle("who-is-talking")
    rows = []
    for name, place in bundles.items():
        bundle = load_bundle(place)
        out = folder / name.split(" ")[0]
        both = engines(bundle, out)
        for size in (1, 32):
            inputs = full(bundle, size)
            taken = timed({e: partial(answer, bundle, engine, inputs) for e, engine in both.items()}, rounds)
            rates = [f"{size / seconds:.0f}" for seconds in taken.values()]
            rows.append([f"{name}, batch of {size}", *rates, f"{taken['torch'] / taken['onnx']:.2f}x"])
    table("Windows per second of one core", ["", "eager", "ONNX", "ONNX, times as fast"], rows)


def engines(bundle: Bundle, folder: Path) -> dict[str, Engine]:
    export_graphs(bundle, folder, "onnx", lambda line: None)
    return {"torch": TorchEngine(bundle.model, CPU), "onnx": OnnxEngine(bundle.model, folder, bundle.digest)}


def full(bundle: Bundle, size: int) -> dict[str, Modality]:
    """A batch of windows with everything there, random."""
    draw = np.random.default_rng(0)

    def items(like: Items) -> Items:
        data = (draw.integers(0, 200, like.data.shape)).astype(like.data.dtype)
        return Items(data, np.linspace(-1, 0, len(like.mask), dtype=np.float32), np.ones_like(like.mask))

    empty = {stream: part.empty() for stream, part in bundle.preprocessors.items()}
    return collate([{stream: items(like) for stream, like in empty.items()} for _ in range(size)], empty)


def answer(bundle: Bundle, engine: Engine, inputs: Mapping[str, Modality]) -> object:
    return engine.fuse({stream: engine.encode(stream, inputs[stream])[0] for stream in bundle.model.streams})


def timed(runs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """CPU seconds of each."""

    def subject(run: Run) -> Callable[[], Run]:
        def prepare() -> Run:
            run()  # warm again: the others were there in between
            return run

        return prepare

    return cpu_seconds({name: subject(run) for name, run in runs.items()}, rounds)


def figures(taken: Mapping[str, float]) -> list[str]:
    return [*(f"{seconds * 1000:.2f}" for seconds in taken.values()), f"{taken['torch'] / taken['onnx']:.2f}x"]


def allocator(rounds: int) -> None:
    """The preset, in processes of their own that take turns."""
    found: dict[str, list[dict[int, float]]] = {"without": [], "with": []}
    for _ in range(max(rounds // 4, 2)):
        for way, runs in found.items():
            command = [sys.executable, "-m", "tests.benchmarks.engines", "--allocating", way, "--rounds", str(rounds)]
            ran = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
            runs.append({int(size): float(ms) for size, ms in (line.split() for line in ran.stdout.splitlines())})
    rows = []
    for size in found["with"][0]:
        without, preset = (median(run[size] for run in found[way]) for way in ("without", "with"))
        rows.append([f"batch of {size}", f"{without:.1f}", f"{preset:.1f}", f"{without / preset:.2f}x"])
    table("Memory preset: cnn, 8 frames a window, eager, CPU ms a window", ["", "without", "with", "times as fast"], rows)


def allocating(preset: bool, rounds: int) -> None:
    if preset and not keep_memory():
        raise SystemExit("the preset can't be set here")
    from streamfuse.models.encoders.images import Cnn

    encoder = Cnn(128).eval()
    for size in (1, 8, 32):
        items = Modality(torch.zeros(size, 8, 112, 112, 3, dtype=torch.uint8), torch.zeros(size, 8), torch.ones(size, 8, dtype=torch.bool))
        taken: list[float] = []
        with torch.inference_mode():
            for _ in range(max(rounds // 3, 3)):
                begun = time.process_time()
                encoder(items)
                taken.append(time.process_time() - begun)
        print(size, median(taken) / size * 1000)


if __name__ == "__main__":
    main()
