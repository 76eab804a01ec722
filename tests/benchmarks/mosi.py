"""CMU-MOSI: sentiment of utterances in their recording, by a causal and by a bidirectional model; answers for the test rows as a file.

    STREAMFUSE_DATA=folder python -m tests.benchmarks.mosi --prepare     writes out/mosi/mosi.npz
    STREAMFUSE_DATA=folder python -m tests.benchmarks.mosi               five seeds of each, writes out/mosi/mosi_predictions*.csv

The test labels are not at hand: what is told here is the training side alone, which says little, as the training part of the text and
video features was fitted to the training labels. Settings stand in config/recipes/mosi.yaml; nothing was chosen by a measurement.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamfuse.training.noise import Noise
from tests.benchmarks.measure import table
from tests.benchmarks.trained import Bench, accuracy, spread

RECIPE = Path("config/recipes/mosi.yaml")
OUT = Path("out/mosi")
CONTEXTS = {"causal": "causal", "bidirectional": "whole"}
STREAMS = ("text", "audio", "video")
NOISE = 0.9
FOLDS = 2


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.mosi", description=__doc__.split("\n")[0])
    parser.add_argument("--prepare", action="store_true", help="write the arrays and leave")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    if options.prepare or not (OUT / "mosi.npz").is_file():
        source = Path(os.environ["STREAMFUSE_DATA"]) / "mosi"
        with np.load(source / "train.npz") as train, np.load(source / "test.npz") as test:
            columns = prepare(dict(train), dict(test))
        OUT.mkdir(parents=True, exist_ok=True)
        np.savez(OUT / "mosi.npz", allow_pickle=False, **columns)
    if not options.prepare:
        report(options.seeds)


def prepare(train: Mapping[str, NDArray[np.generic]], test: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
    """All rows with a `part`: features in standard units of the training rows, -1 for labels that are not known."""
    columns: dict[str, NDArray[np.generic]] = {}
    for stream in STREAMS:
        known = train[stream].astype(np.float64)
        deviation = known.std(0)
        scaled = [(rows.astype(np.float64) - known.mean(0)) / np.where(deviation > 0, deviation, 1) for rows in (known, test[stream])]
        columns[stream] = np.clip(np.concatenate(scaled), -5, 5).astype(np.float32)
    columns["label"] = np.concatenate([train["label"].astype(np.int64), np.full(len(test["text"]), -1)])
    columns["group"] = np.concatenate([train["recording"], test["recording"]])
    columns["position"] = np.concatenate([train["position"], test["position"]])
    columns["part"] = np.array(["train"] * len(train["label"]) + ["test"] * len(test["text"]))
    return columns


def report(seeds: int) -> None:
    found: dict[str, object] = {}
    lines, robust = [], []
    for name, context in CONTEXTS.items():
        bench = Bench.open(RECIPE, OUT / "bundles", {"data.context": context})
        split = bench.prepared.splits[0]
        noise = Noise(bench.prepared.samples, split.train)
        training, probabilities, kept = [], [], []
        for seed in range(seeds):
            bundle = bench.train(name, {"data.context": context}, seed)
            probabilities.append(bench.examine(bundle, "test").said("label")[:, 1])
            own = bench.examine(bundle, "train")
            training.append(accuracy(own.said("label"), own.targets["label"]))
            kept.append(held_out(bench, bundle, noise))
        write(OUT / f"mosi_predictions_{name}.csv", {str(seed): one for seed, one in enumerate(probabilities)})
        found[name] = {"training": training, "held out": kept}
        lines.append([name, spread(training)])
        robust.append([name, *(spread([one[case] for one in kept]) for case in kept[0])])
        cases = list(kept[0])
    table("MOSI: accuracy on the training rows themselves, %", ["", "all"], lines)
    print("  text and video of these rows were fitted to their labels: this tells that training ran, and nothing more")
    table(f"MOSI: the recording held out of training ({seeds} seeds; features fitted to its labels too), %", ["", *cases], robust)
    (OUT / "mosi.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def held_out(bench: Bench, bundle: Path, noise: Noise) -> dict[str, float]:
    """Accuracy with everything, without a stream, and with a stream at noise 0.9."""
    seen = bench.examine(bundle, "validation", noise, (NOISE,))
    truth = seen.targets["label"]
    cases = {"all": accuracy(seen.said("label"), truth)}
    for stream in STREAMS:
        others = [other for other in STREAMS if other != stream]
        cases[f"no {stream}"] = accuracy(seen.answers["label"][seen.number(others)], truth)
        cases[f"{stream} noised"] = accuracy(seen.noised[stream]["label"][0], truth)
    return cases


def write(path: Path, columns: Mapping[str, NDArray[np.floating]]) -> None:
    """`row` (of test.npz, from 0), `probability` (that it is positive, the mean over the seeds), and each seed's own."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "probability", *(f"seed_{seed}" for seed in columns)])
        each = np.stack(list(columns.values()), 1)
        for row, values in enumerate(each):
            writer.writerow([row, f"{values.mean():.6f}", *(f"{value:.6f}" for value in values)])


if __name__ == "__main__":
    main()
