"""AV-digits: what fusion brings where no modality suffices, and what is left when one is missing or noised.

    STREAMFUSE_DATA=folder python -m tests.benchmarks.av_digits --prepare     writes out/av-digits/{pairs,clear}.npz
    python -m tests.benchmarks.av_digits --part validation --seeds 1          what settings were chosen by
    python -m tests.benchmarks.av_digits --seeds 5                            the figures, on the test talker

Settings stand in config/recipes/av-digits.yaml. Bundles go to out/av-digits; a run that was stopped goes on where it was. Each subset
of a fusion model is held against a model that was trained on that modality alone. "Half missing" is the mean over all ways to take
one modality from half of the rows, either as often; "attainable" is what the whole model and the two single ones reach on such rows.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from streamfuse.models.parts import FUSIONS
from streamfuse.training.noise import Noise
from tests.benchmarks.av_digits_data import Degrading, prepare
from tests.benchmarks.measure import table
from tests.benchmarks.trained import Bench, accuracy, spread

RECIPE = Path("config/recipes/av-digits.yaml")
OUT = Path("out/av-digits")
STREAMS = ("audio", "image")
DEFAULT = "late_transformer"
FIRST = (DEFAULT, "concatenation", "product_of_experts", "gated")
"""Fusions that are run with all seeds before the others are begun."""
ALONE = {"training.modality_dropout": "0"}
PLAIN = {"training.modality_dropout": "0", "training.auxiliary": "0"}
CLEAR = {"training.noise": "{audio: 1.0, image: 1.0}"}
NOISE = 0.9

Figures = dict[str, list[float]]
"""What was shown -> accuracy in percent, one a seed."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.av_digits", description=__doc__.split("\n")[0])
    parser.add_argument("--prepare", action="store_true", help="write the arrays and leave")
    parser.add_argument("--part", choices=("validation", "test"), default="test")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--others", type=int, default=None, help="seeds of the fusions beyond the first four")
    parser.add_argument("--fusions", nargs="*", default=None, help="instead of all; none: the single modalities alone")
    options = parser.parse_args()
    if options.prepare:
        source = Path(os.environ["STREAMFUSE_DATA"])
        prepare(source, OUT / "pairs.npz", Degrading())
        prepare(source, OUT / "clear.npz", Degrading(energy=0, noise=0.5))
        return
    found: dict[str, Figures] = {}
    for name, fusion in figures(options.part, options.seeds, options.others or options.seeds, options.fusions):
        found[name] = fusion
        (OUT / f"{options.part}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        told = {case: round(fmean(values), 1) for case, values in fusion.items()}
        print(f"{name} ({len(fusion['all'])} seeds): {told}", flush=True)
    report(found, options.part)


def figures(part: str, seeds: int, others: int, fusions: Sequence[str] | None) -> Iterator[tuple[str, Figures]]:
    """Name -> figures, as they are made: modalities alone, fusions, plain training, and what noise does to clear pictures."""
    bench = Bench.open(RECIPE, OUT)
    for stream in STREAMS:
        yield stream, asked(bench, part, f"{stream}-alone", ALONE, range(seeds), (stream,))
    names = FUSIONS.names() if fusions is None else fusions
    for fusion in sorted(names, key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST)):
        own = {} if fusion == DEFAULT else {"model.fusion": f"{{type: {fusion}}}"}
        yield fusion, asked(bench, part, fusion, own, range(seeds if fusion in FIRST else others))
        if fusion == DEFAULT:
            yield "plain training", asked(bench, part, "plain", PLAIN, range(seeds))
            clear = {**CLEAR, "data.path": "../../out/av-digits/clear.npz"}
            easy = Bench.open(RECIPE, OUT, clear)
            yield "clear pictures", asked(easy, part, "clear", clear, range(seeds), noised=True)


def asked(
    bench: Bench,
    part: str,
    name: str,
    changes: Mapping[str, str],
    seeds: Sequence[int],
    streams: Sequence[str] = STREAMS,
    noised: bool = False,
) -> Figures:
    """Trains a model for each seed and asks it about the rows of a part with every subset of the modalities."""
    found: Figures = {}
    noise = Noise(bench.prepared.samples, bench.prepared.splits[0].train) if noised else None
    for seed in seeds:
        seen = bench.examine(bench.train(name, changes, seed, streams), part, noise, (NOISE,))
        truth = seen.targets["label"]
        found.setdefault("all", []).append(accuracy(seen.said("label"), truth))
        for stream in streams if len(streams) > 1 else ():
            only = seen.answers["label"][seen.number([stream])]
            found.setdefault(f"only {stream}", []).append(accuracy(only, truth))
            if noised:
                found.setdefault(f"{stream} noised", []).append(accuracy(seen.noised[stream]["label"][0], truth))
    return found


# --- report --------------------------------------------------------------------------------------------------------------------------


def report(found: Mapping[str, Figures], part: str) -> None:
    single = {stream: fmean(found[stream]["all"]) for stream in STREAMS}
    best = max(single.values())
    lines = [
        [f"{stream} alone, trained for it", spread(found[stream]["all"]), *[""] * 6, str(len(found[stream]["all"]))] for stream in STREAMS
    ]
    for name, own in found.items():
        if name in STREAMS or name == "clear pictures":
            continue
        whole, only = fmean(own["all"]), {stream: fmean(own[f"only {stream}"]) for stream in STREAMS}
        lines.append(
            [
                name,
                spread(own["all"]),
                f"{whole - best:+.1f}",
                *(f"{only[stream]:.1f} ({only[stream] - single[stream]:+.1f})" for stream in STREAMS),
                f"{half_missing(whole, only):.1f}",
                f"{half_missing(whole, single):.1f}",
                f"{half_missing(whole, only) - half_missing(whole, single):+.1f}",
                str(len(own["all"])),
            ]
        )
    header = ["", "both", "over best single", "only audio", "only image", "half missing", "attainable", "difference", "seeds"]
    table(f"AV-digits, accuracy on the {part} talker, %", header, lines)
    if "clear pictures" in found:
        own = found["clear pictures"]
        whole = fmean(own["all"])
        cases = {"audio absent": "only image", "audio at noise 0.9": "audio noised", "image at noise 0.9": "image noised"}
        rows = [[case, spread(own[key]), f"{fmean(own[key]) / whole:.1%}"] for case, key in cases.items()]
        title = "Clear pictures, which suffice alone (no component removed, noise of half their deviation), %"
        table(title, ["", "accuracy", "kept"], [["nothing missing", spread(own["all"]), ""], *rows])


def half_missing(whole: float, only: Mapping[str, float]) -> float:
    return 0.5 * whole + 0.25 * sum(only.values())


if __name__ == "__main__":
    main()
