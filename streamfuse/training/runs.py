"""The runs of a recipe: one for each seed and each split, each a folder with a bundle and the history of its training."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from streamfuse.durable import replace_whole
from streamfuse.errors import BundleError, ConfigError, Problem
from streamfuse.models.bundle import CONFIG, FORMAT, TENSORS, BundleConfig, find_bundle, save_bundle
from streamfuse.models.crossmodal import DECODERS
from streamfuse.models.fusion_model import FusionModel, build
from streamfuse.models.parts import ENCODERS, Registry, UnknownPart
from streamfuse.models.pretrained import load_weights
from streamfuse.training.data import open_data
from streamfuse.training.distributed import Workers
from streamfuse.training.quality import Quality, examine
from streamfuse.training.recipe import CrossModalRecipe, Recipe, Transfer
from streamfuse.training.rows import part
from streamfuse.training.samples import Samples
from streamfuse.training.splits import Split, make_splits
from streamfuse.training.train import EpochEnd, Event, Finished, Job, Record, train

CHECKPOINT, HISTORY = "checkpoint.safetensors", "history.jsonl"
WITHOUT_EFFECT = {"seeds", "threads", "ahead", "checkpoint_every"}
"""Settings that change nothing about what comes out, and so are not told in a bundle."""

SHARED = {"folder", "length", "rate", "vocabulary"}
"""Options that mean the same of an encoder or a decoder and of its stream's preprocessing, where both have them."""


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A recipe with its data and the splits of it. Paths in it are relative to `folder`."""

    recipe: Recipe
    folder: Path
    samples: Samples
    splits: Sequence[Split]
    quality: Quality


@dataclass(frozen=True, slots=True)
class Started:
    """A run begins, or goes on. `loaded` tells what was taken over of earlier weights, empty where nothing was wanted."""

    run: Run
    loaded: str


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One training. `folder` is where its bundle goes."""

    seed: int
    split: Split
    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def is_done(self) -> bool:
        return (self.folder / CONFIG).is_file() and (self.folder / TENSORS).is_file() and not (self.folder / CHECKPOINT).exists()


def prepare(recipe: Recipe, folder: Path, tell: Callable[[int, int], None] = lambda done, of: None) -> Prepared:
    """Opens the data, divides it and looks through every row of it once, of which `tell` is told.

    Raises DataError, and ConfigError where the recipe does not fit the data. What the quality report finds is not raised.
    """
    samples = open_data(recipe.data, folder, recipe.model.inputs or None, recipe.model.heads or None)
    problems = [
        Problem(f"model.encoders.{stream}", f"expected a stream of the data, found {stream!r}; there are {', '.join(samples.inputs)}")
        for stream in recipe.model.encoders
        if stream not in samples.inputs
    ]
    problems += [
        Problem(f"model.heads.{task}", f"expected a task of the data, found {task!r}; there are {', '.join(samples.targets)}")
        for task in recipe.model.heads
        if task not in samples.targets
    ]
    if problems:
        raise ConfigError(problems)
    splits = make_splits(samples, recipe.split)
    return Prepared(recipe, folder, samples, splits, examine(samples, splits, tell))


def runs(prepared: Prepared, out: Path, seeds: Sequence[int] | None = None) -> list[Run]:
    """One for each split and seed: `out/seed-0`, or `out/seed-0-fold-1-of-5`."""
    return [
        Run(seed, split, out / "-".join(["seed", str(seed), *re.findall(r"[\w.]+", split.name)]))
        for split in prepared.splits
        for seed in seeds or prepared.recipe.training.seeds
    ]


def carry_out(prepared: Prepared, run: Run, device: torch.device, workers: Workers, resume: bool = False) -> Iterator[Started | Event]:
    """Says `Started`, trains one model and writes its bundle and history (the first of several processes does), and says `Finished`.

    With `resume`, it goes on from where a run of the same recipe, seed and data was killed. Raises what `train` raises, and
    ConfigError for an architecture that can't be put together.
    """
    recipe = prepared.recipe
    streams = tuple(recipe.model.encoders)
    rows, validation = (part(prepared.samples, numbers, streams) for numbers in (run.split.train, run.split.validation))
    config = _config(prepared, run, rows, device, workers)
    model = _model(recipe, config.architecture, run.seed)
    mode = recipe.training.mode
    yield Started(run, _start_from(model, prepared.folder, mode) if mode.type == "transfer" else "")
    identity = hashlib.sha256(config.model_dump_json().encode()).hexdigest()
    job = Job(recipe.training, run.seed, device, workers, run.folder / CHECKPOINT, resume, identity)
    for event in train(model, rows, validation, job):
        if isinstance(event, EpochEnd) and workers.is_first:
            _write_history(run, event.history)
        if isinstance(event, Finished) and workers.is_first:
            _write_history(run, event.history)
            save_bundle(run.folder, _with_results(config, event), model)
            (run.folder / CHECKPOINT).unlink(missing_ok=True)
        yield event


def result(run: Run) -> Record:
    """The metrics that a bundle that is done was written with."""
    metrics: Record = json.loads((run.folder / CONFIG).read_text(encoding="utf-8"))["metrics"]
    return metrics


def fingerprint(samples: Samples, quality: Quality) -> str:
    """`sha256:...` over what all rows hold, their targets, names, groups and parts."""
    told = [quality.contents, list(samples.names), list(samples.groups), list(samples.parts)]
    total = hashlib.sha256(json.dumps(told).encode())
    for task, target in sorted(samples.targets.items()):
        total.update(task.encode())
        total.update(np.ascontiguousarray(target).tobytes())
    return f"sha256:{total.hexdigest()}"


def _start_from(model: FusionModel, folder: Path, mode: Transfer) -> str:
    """Loads what fits of a bundle's or a file's weights, and tells what did. Raises ConfigError."""
    path = folder / mode.start
    try:
        file = path if path.is_file() else find_bundle(path if path.is_dir() else mode.start) / TENSORS
        return load_weights(model, file, mode.part, mode.rename).table()
    except BundleError as error:
        raise ConfigError([Problem("training.mode.start", str(error))]) from None


def _config(prepared: Prepared, run: Run, rows: Samples, device: torch.device, workers: Workers) -> BundleConfig:
    """The bundle's config, but for what comes out of training."""
    recipe, samples = prepared.recipe, prepared.samples
    told = recipe.model_dump(mode="json", exclude={"training": WITHOUT_EFFECT})
    return BundleConfig(
        name=recipe.name,
        format=FORMAT,
        inputs={stream: dict(options) for stream, options in rows.inputs.items()},
        architecture=_architecture(recipe, rows),
        window=recipe.model.window,
        training={
            "command": "streamfuse train",
            "recipe": told,
            "seed": run.seed,
            "split": run.split.name,
            "rows": {name: len(numbers) for name, numbers in run.split.parts.items()},
            "data": fingerprint(samples, prepared.quality),
            "device": device.type,
            "processes": workers.world,
            "versions": {package: version(package) for package in ("streamfuse", "torch", "numpy")},
        },
    )


def _write_history(run: Run, history: Sequence[Record]) -> None:
    replace_whole(run.folder / HISTORY, "".join(json.dumps(record) + "\n" for record in history).encode())


def _with_results(config: BundleConfig, finished: Finished) -> BundleConfig:
    kept = finished.kept
    metrics = {"validation": {name: round(value, 6) for name, value in kept["validation"].items()}}
    told = {"epochs": len(finished.history), "kept": {"stage": kept["stage"], "epoch": kept["epoch"]}}
    return config.model_copy(update={"metrics": metrics, "training": {**config.training, **told}})


def _architecture(recipe: Recipe, rows: Samples) -> dict[str, Any]:
    heads = {
        task: _standardised({**rows.heads[task], **recipe.model.heads.get(task, {})}, rows.targets[task])
        for task in recipe.model.heads or rows.heads
    }
    encoders = {stream: _fitted(ENCODERS, options, rows.inputs[stream]) for stream, options in recipe.model.encoders.items()}
    optional = {"reconstruction": recipe.model.reconstruction, "crossmodal": _crossmodal(recipe.model.crossmodal, rows)}
    made = {"features": recipe.model.features, "encoders": encoders, "fusion": recipe.model.fusion, "heads": heads}
    return {**made, **{name: options for name, options in optional.items() if options is not None}}


def _crossmodal(wanted: CrossModalRecipe | None, rows: Samples) -> dict[str, Any] | None:
    if wanted is None:
        return None
    decoders = {stream: _fitted(DECODERS, options, rows.inputs.get(stream, {})) for stream, options in wanted.decoders.items()}
    return {"retrieval": wanted.retrieval, "decoders": decoders}


def _fitted(registry: Registry[Any], part: Mapping[str, Any], preprocessing: Mapping[str, Any]) -> dict[str, Any]:
    """A part's options; those that are not given and that it needs, such as `size`, or that mean the same in both, are the
    preprocessing's of the same name."""
    known = inspect.signature(registry[part["type"]]).parameters.values()
    taken = {one.name for one in known if one.default is inspect.Parameter.empty or one.name in SHARED} - part.keys()
    return {**part, **{name: preprocessing[name] for name in sorted(taken & preprocessing.keys())}}


def _standardised(options: Mapping[str, Any], targets: Any) -> dict[str, Any]:
    """A regression's head in the units of the rows that are trained on."""
    if options["type"] != "regression" or "mean" in options or "scale" in options:
        return dict(options)
    mean, scale = np.nanmean(targets, 0), np.nanstd(targets, 0)
    return {**options, "mean": mean.tolist(), "scale": np.where(scale > 0, scale, 1).tolist()}


def _model(recipe: Recipe, architecture: Mapping[str, Any], seed: int) -> FusionModel:
    torch.manual_seed(seed)
    try:
        return build(architecture)
    except UnknownPart as error:
        raise ConfigError([Problem("model", str(error))]) from None
