"""Overlapping windows: what it costs to encode each frame, chunk and text once, beside encoding every window anew.

    python -m tests.benchmarks.cached [--hops N] [--image NAME] [--torch]

Windows of 2 s every 0.25 s (87.5 % overlap): 8 frames of 112 x 112 through an image encoder, 2 s of sound through the causal net, 2
texts through a transformer, a late-fusion transformer over all tokens. CPU ms of one window, median over the hops, one thread, the ways
taken in turn; payloads are decoded already. Also how far the answers are apart, and what telling each stream's contribution costs.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from typing import Any

from streamfuse.clock import SystemClock
from streamfuse.config import ModelSettings
from streamfuse.models.bundle import load_bundle
from streamfuse.models.graphs import export_graphs
from streamfuse.models.runner import TorchRunner
from streamfuse.types import Window
from tests.benchmarks.measure import table
from tests.benchmarks.serving import architecture, windows, write_bundle

WAYS: dict[str, dict[str, Any]] = {
    "torch, every window anew": {"recompute": True, "explain": False},
    "torch, each item once": {"explain": False},
    "torch, each item once, explained": {"explain": True},
    "ONNX, every window anew": {"engine": "onnx", "recompute": True, "explain": False},
    "ONNX, each item once": {"engine": "onnx", "explain": False},
    "ONNX, each item once, explained": {"engine": "onnx", "explain": True},
}
WARM = 9
"""Hops until the first window's items have gone."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.cached", description=__doc__.split("\n")[0])
    parser.add_argument("--hops", type=int, default=24, help="how many windows are measured")
    parser.add_argument("--image", choices=["cnn", "resnet18"], default="cnn", help="the image encoder (default cnn)")
    parser.add_argument("--torch", action="store_true", help="leave ONNX out: exporting takes a minute")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle = write_bundle(Path(folder) / "bundle", architecture(options.image, norm="batch"))
        ways = {name: settings for name, settings in WAYS.items() if not options.torch or "engine" not in settings}
        if not options.torch:
            export_graphs(load_bundle(bundle), bundle, "onnx", lambda line: None)
        print(f"image encoder: {options.image}")
        asyncio.run(measure(bundle, ways, windows(WARM + options.hops)))


async def measure(bundle: Path, ways: dict[str, dict[str, Any]], through: list[Window]) -> None:
    async with AsyncExitStack() as stack:
        runners = {
            name: await stack.enter_async_context(TorchRunner(ModelSettings(bundle=str(bundle), device="cpu", **settings), SystemClock()))
            for name, settings in ways.items()
        }
        model: dict[str, list[float]] = {name: [] for name in ways}
        whole: dict[str, list[float]] = {name: [] for name in ways}
        apart = dict.fromkeys(ways, 0.0)
        for number, window in enumerate(through):
            first: list[float] = []
            for name, runner in runners.items():
                begun = time.process_time()
                batch = await runner.prepare([window])
                prepared = time.process_time()
                (made,) = await runner.predict(batch)
                ended = time.process_time()
                scores = list(made.scores.values())
                first = first or scores
                apart[name] = max(apart[name], *(abs(a - b) for a, b in zip(first, scores, strict=True)))
                if number >= WARM:
                    model[name].append((ended - prepared) * 1000)
                    whole[name].append((ended - begun) * 1000)
    names = list(ways)
    rows = []
    for name in names:
        anew = next(other for other in reversed(names[: names.index(name) + 1]) if "anew" in other)
        took, all_of_it = median(model[name]), median(whole[name])
        ratios = [f"{median(model[anew]) / took:.1f}x", f"{median(model[names[0]]) / took:.1f}x"]
        rows.append([name, f"{took:.2f}", f"{all_of_it:.2f}", *ratios, f"{apart[name]:.1e}"])
    header = ["", "model, CPU ms", "with preparing", "than anew", "than torch anew", "answers apart"]
    table(f"A window of 2 s every 0.25 s, {len(model[names[0]])} windows", header, rows)


if __name__ == "__main__":
    main()
