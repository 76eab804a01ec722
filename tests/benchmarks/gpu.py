"""The GPU's part of `tests.benchmarks.engines`: images per second by bucket, and latency under an open-loop load."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch

from streamfuse.models.batch import Modality
from streamfuse.models.buckets import BucketedEngine
from streamfuse.models.cuda_engine import CudaEngine
from streamfuse.models.engine import Engine
from streamfuse.models.fusion_model import build
from streamfuse.models.torch_engine import TorchEngine
from tests.benchmarks.measure import table
from tests.benchmarks.serving import architecture

BUCKETS = (1, 8, 32, 64, 128)


def measure_gpu(seconds: float) -> None:
    device = torch.device("cuda")
    print(f"\n{torch.cuda.get_device_name(device)}, torch {torch.__version__}")
    for name, size in (("cnn", 112), ("resnet18", 224)):
        described = architecture(name, "batch", "concatenation")
        described["encoders"] = {"video": described["encoders"]["video"]}
        model = build(described).eval().requires_grad_(False)
        eager, graph = TorchEngine(model, device), CudaEngine(model, device)
        compiled = torch.compile(model.encoders["video"], mode="max-autotune-no-cudagraphs", dynamic=False)
        frames = {bucket: images(bucket, size) for bucket in BUCKETS}

        def run_compiled(items: Modality, compiled: Callable[[Modality], Modality] = compiled) -> Modality:
            with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16):
                return compiled(items.to(device))

        rows, best = [], 0.0
        for bucket, items in frames.items():
            rates = [
                rate(lambda: eager.encode("video", items), bucket),  # noqa: B023
                rate(lambda: run_compiled(items), bucket),  # noqa: B023
                rate(lambda: graph.encode("video", items), bucket),  # noqa: B023
            ]
            best = max(best, rates[-1])
            rows.append([str(bucket), *(f"{each:,.0f}" for each in rates), f"{rates[2] / rates[0]:.2f}x"])
        table(f"{name}, {size} x {size}: images per second, from host memory", ["bucket", "eager", "compiled", "graph", "than eager"], rows)
        bucketed = BucketedEngine(graph, ("video",), BUCKETS[-1])
        for bucket in (1, 2, 4, 8, 16, 32, 64, 128):  # captured before the load
            bucketed.encode("video", images(bucket, size))
        p50, p99, served = open_loop(bucketed, size, 0.7 * best, seconds)
        print(f"  {name} at 70 % of that ({0.7 * best:,.0f} a second): {served:,.0f} served, p50 {p50:.2f} ms, p99 {p99:.2f} ms")


def images(count: int, size: int) -> Modality:
    frames = torch.randint(0, 256, (count, 1, size, size, 3)).to(torch.uint8)
    return Modality(frames, torch.zeros(count, 1), torch.ones(count, 1, dtype=torch.bool))


def rate(run: Callable[[], object], bucket: int) -> float:
    """Images per second, the median of ten stretches of some tenths of a second."""
    for _ in range(5):
        run()
    torch.cuda.synchronize()
    begun = time.perf_counter()
    run()
    torch.cuda.synchronize()
    repeats = max(3, int(0.2 / (time.perf_counter() - begun)))
    rates = []
    for _ in range(10):
        begun = time.perf_counter()
        for _ in range(repeats):
            run()
        torch.cuda.synchronize()
        rates.append(bucket * repeats / (time.perf_counter() - begun))
    return median(rates)


def open_loop(engine: Engine, size: int, offered: float, seconds: float) -> tuple[float, float, float]:
    """Images come at random, whether or not those before are done (MLPerf's server scenario); whatever waits is one batch. Latency in
    ms from an image's arrival until its token is on the host: median and 99th percentile, and images served a second."""
    arrivals = np.cumsum(np.random.default_rng(0).exponential(1 / offered, int(offered * seconds)))
    pool = images(BUCKETS[-1], size)
    latencies: list[float] = []
    done, begun = 0, time.perf_counter()
    while done < len(arrivals):
        now = time.perf_counter() - begun
        waiting = min(int(np.searchsorted(arrivals, now)) - done, BUCKETS[-1])
        if waiting <= 0:
            continue
        engine.encode("video", Modality(*(part[:waiting] for part in pool)))[0].data.cpu()
        ended = time.perf_counter() - begun
        latencies += [(ended - at) * 1000 for at in arrivals[done : done + waiting].tolist()]
        done += waiting
    return float(np.quantile(latencies, 0.5)), float(np.quantile(latencies, 0.99)), done / (time.perf_counter() - begun)


if __name__ == "__main__":
    measure_gpu(5.0)
