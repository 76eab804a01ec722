"""`streamfuse compress`: a smaller model from a bundle, if that makes it faster and no worse."""

from __future__ import annotations

import argparse
import copy
import shutil
from pathlib import Path
from typing import Any

import torch

from streamfuse.errors import BundleError, DataError, Problem
from streamfuse.models.bundle import Bundle, BundleConfig, find_bundle, load_bundle, save_bundle
from streamfuse.models.graphs import export_graphs
from streamfuse.models.int8 import quantise
from streamfuse.models.narrowing import prune_units, prune_weights
from streamfuse.models.onnx_engine import OnnxEngine
from streamfuse.models.torch_engine import TorchEngine
from streamfuse.training.compress import Verdict, judge
from streamfuse.training.data import open_data
from streamfuse.training.recipe import load_recipe
from streamfuse.training.samples import Samples, make_batch
from streamfuse.training.splits import Split, make_splits

CALIBRATED_ON = 64
"""Rows of the training part that 8-bit ranges are taken from."""


def compress(options: argparse.Namespace) -> int:
    """Writes the new bundle and gives 0, or says why not and gives 0 too: keeping the original is a result. Raises BundleError,
    ConfigError and DataError."""
    bundle = load_bundle(options.bundle)
    samples, split = _data(bundle, Path(options.data))
    judged = [*split.validation.tolist(), *split.test.tolist()]
    if not judged:
        raise DataError([Problem("split", "expected rows that were not trained on, found none; give the recipe a validation or test part")])
    torch.set_num_threads(1)
    out = options.out or Path(f"{Path(options.bundle).name}-{options.method}")
    if out.exists():
        raise BundleError(f"expected a folder that is not there yet, found {out}; set --out, or remove it")
    print(f"{bundle.config.name}: {options.method}, at most {options.max_loss:g} lost; {len(judged)} rows were not trained on", flush=True)
    if options.method == "int8":
        verdict = _int8(bundle, samples, split, judged, options.max_loss, out)
    else:
        verdict = _prune(bundle, samples, judged, options, out)
    print(verdict)
    if verdict.accepted:
        print(f"the smaller model is in {out}")
    else:
        shutil.rmtree(out, ignore_errors=True)
        print(f"kept the original: {find_bundle(options.bundle)}")
    return 0


def _data(bundle: Bundle, path: Path) -> tuple[Samples, Split]:
    """The data of a recipe, prepared as the bundle has it, and the recipe's first split."""
    recipe = load_recipe(path)
    samples = open_data(recipe.data, path.parent, bundle.config.inputs, bundle.config.architecture["heads"])
    return samples, make_splits(samples, recipe.split)[0]


def _prune(bundle: Bundle, samples: Samples, rows: list[int], options: argparse.Namespace, out: Path) -> Verdict:
    smaller = copy.deepcopy(bundle.model)
    architecture = dict(bundle.config.architecture)
    if options.method == "structured":
        architecture["narrowed"] = prune_units(smaller, options.share)
        _tell(f"took {options.share:.0%} of the units out of {len(architecture['narrowed'])} parts")
    else:
        prune_weights(smaller, options.share)
        _tell(f"set {options.share:.0%} of the weights to zero")
    cpu = torch.device("cpu")
    engines = TorchEngine(bundle.model, cpu), TorchEngine(smaller, cpu)
    verdict = judge(bundle.model, *engines, samples, rows, options.max_loss, _tell)
    if verdict.accepted:
        save_bundle(out, _noted(bundle, str(verdict), architecture), smaller)
    return verdict


def _int8(bundle: Bundle, samples: Samples, split: Split, rows: list[int], max_loss: float, out: Path) -> Verdict:
    digest = save_bundle(out, _noted(bundle, "int8", bundle.config.architecture), bundle.model)
    _tell("exporting to ONNX, to compare with")
    export_graphs(load_bundle(out), out, "onnx", _tell)
    original = OnnxEngine(bundle.model, out, digest)
    learned = (split.train if len(split.train) else split.validation).tolist()[:CALIBRATED_ON]
    _tell(f"calibrating on {len(learned)} rows")
    done = quantise(bundle.model, out, [make_batch(samples, [row]).inputs for row in learned])
    _tell(f"8 bits: {', '.join(done) or 'no encoder has convolutions'}")
    return judge(bundle.model, original, OnnxEngine(bundle.model, out, digest), samples, rows, max_loss, _tell)


def _noted(bundle: Bundle, what: str, architecture: dict[str, Any]) -> BundleConfig:
    training = {**bundle.config.training, "compressed": {"of": bundle.digest, "how": what}}
    return bundle.config.model_copy(update={"architecture": architecture, "training": training})


def _tell(line: str) -> None:
    print(f"  {line}", flush=True)
