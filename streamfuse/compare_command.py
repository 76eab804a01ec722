"""`streamfuse compare`: recipes, or what was trained by them, side by side on the same rows, as one report."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from streamfuse.errors import ConfigError, Problem
from streamfuse.evaluate_command import fusion_of, missing_of, tell
from streamfuse.models.bundle import CONFIG, load_bundle
from streamfuse.models.runner import pick_device
from streamfuse.train_command import changes, shown
from streamfuse.training.compare import Comparison
from streamfuse.training.compare import compare as compare_methods
from streamfuse.training.cost import measure_cost
from streamfuse.training.distributed import workers
from streamfuse.training.evaluate import Method, Run
from streamfuse.training.examine import join
from streamfuse.training.given import divide, open_given, own_split, prepared
from streamfuse.training.judge import (
    EvaluationSettings,
    batches_to_time,
    evaluation_settings,
    facts,
    fit_noise,
    history_of,
    judge,
    looking,
)
from streamfuse.training.noise import Noise
from streamfuse.training.quality import Quality
from streamfuse.training.recipe import Recipe, load_recipe
from streamfuse.training.report import write_report
from streamfuse.training.runs import WITHOUT_EFFECT, Prepared, carry_out, fingerprint, prepare, runs
from streamfuse.training.samples import Samples
from streamfuse.training.splits import Split


def compare(options: argparse.Namespace) -> int:
    """Trains what is not trained yet, writes the report, prints its answers and gives 0. Raises BundleError, ConfigError and
    DataError."""
    subjects = list(_subjects(options))
    names = [subject.name for subject in subjects]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError([Problem(name, "is the name of two of them; give each recipe a name of its own") for name in twice])
    comparison = _judged(subjects, options.part)
    out = options.out or Path("out") / "comparison"
    write_report(out, comparison)
    tell(comparison, out)
    return 0


@dataclass(frozen=True, slots=True, eq=False)
class _Trained:
    """A run that is done, with the rows that it was trained and is to be judged on."""

    seed: int
    folder: Path
    samples: Samples
    split: Split


@dataclass(frozen=True, slots=True, eq=False)
class _Subject:
    name: str
    settings: EvaluationSettings
    runs: Sequence[_Trained]
    data: str
    quality: Quality
    remarks: Sequence[str] = ()


def _subjects(options: argparse.Namespace) -> Iterator[_Subject]:
    opened: dict[str, Prepared] = {}
    for path in options.subjects:
        if path.is_dir():
            yield _from_folder(path, options.data)
        else:
            yield _from_recipe(path, options, opened)


# --- recipes -------------------------------------------------------------------------------------------------------------------------


def _from_recipe(path: Path, options: argparse.Namespace, opened: dict[str, Prepared]) -> _Subject:
    recipe = load_recipe(path, changes(options.set))
    settings = evaluation_settings(recipe.evaluation)
    console = Console(stderr=True, highlight=False)
    key = json.dumps([str(path.parent), recipe.data, recipe.split, recipe.model.inputs, recipe.model.heads], sort_keys=True)
    if key not in opened:
        with looking() as look:
            opened[key] = prepare(recipe, path.parent, look)
        opened[key].quality.require()
    ready = replace(opened[key], recipe=recipe)
    planned = runs(ready, options.runs / recipe.name, options.seed)
    with workers(recipe.training.device) as (own, device):
        for number, run in enumerate(planned, 1):
            if not run.is_done:
                with shown(console, f"{recipe.name}/{run.name} ({number} of {len(planned)})") as show:
                    for event in carry_out(ready, run, device, own, resume=True):
                        show.tell(event)
    mark = fingerprint(ready.samples, ready.quality)
    problems = [problem for run in planned if (problem := _other(run.folder, recipe, mark)) is not None]
    if problems:
        raise ConfigError(problems)
    trained = [_Trained(run.seed, run.folder, ready.samples, run.split) for run in planned]
    return _Subject(recipe.name, settings, trained, str(recipe.data.get("path", recipe.name)), ready.quality)


def _other(folder: Path, recipe: Recipe, data: str) -> Problem | None:
    """A run that is there was trained by another recipe, or on other data, than it is asked for now."""
    told = load_bundle(folder).config.training
    wanted = recipe.model_dump(mode="json", exclude={"training": WITHOUT_EFFECT, "evaluation": True})
    found = {key: value for key, value in told.get("recipe", {}).items() if key != "evaluation"}
    if found == wanted and told.get("data") == data:
        return None
    what = "on other data" if found == wanted else "by another recipe of this name"
    return Problem(str(folder), f"was trained {what}; remove it, give the recipe another name, or set --runs to another folder")


# --- folders -------------------------------------------------------------------------------------------------------------------------


def _from_folder(folder: Path, data: Path | None) -> _Subject:
    """A run, or the runs that one recipe left."""
    folders = [folder] if (folder / CONFIG).is_file() else sorted(path.parent for path in folder.glob(f"*/{CONFIG}"))
    if not folders:
        raise ConfigError(
            [Problem(str(folder), "expected a run or the runs of one recipe, found none; give the recipe's file to train it")]
        )
    configs = [load_bundle(each).config for each in folders]
    first = configs[0]
    if any(config.name != first.name or config.training.get("recipe") != first.training.get("recipe") for config in configs):
        raise ConfigError([Problem(str(folder), "expected runs of one recipe, found those of several; give each folder by itself")])
    recipe = first.training.get("recipe")
    with looking() as look:
        if data is not None:
            given = open_given(data, first, look)
        elif isinstance(recipe, dict):
            name = str(recipe["data"].get("path", first.name))
            given = divide(name, prepared(recipe["data"], Path(), first), recipe["split"], first, look)
        else:
            raise ConfigError([Problem(str(folder), "does not say what it was trained on; say what to judge it on with --data")])
    trained = [
        _Trained(
            seed=int(config.training.get("seed", 0)),
            folder=each,
            samples=given.samples,
            split=own_split(given.samples, config) if given.is_own else given.split,
        )
        for each, config in zip(folders, configs, strict=True)
    ]
    settings = evaluation_settings(recipe.get("evaluation", {}) if isinstance(recipe, dict) else {})
    return _Subject(first.name, settings, trained, given.name, given.quality, given.remarks)


# --- judging -------------------------------------------------------------------------------------------------------------------------


def _judged(subjects: Sequence[_Subject], which: str) -> Comparison:
    first = {subject.name: load_bundle(subject.runs[0].folder) for subject in subjects}
    models = {name: bundle.model for name, bundle in first.items()}
    inputs = {}
    for subject in subjects:
        samples, rows = subject.runs[0].samples, subject.runs[0].split.parts[which].tolist()
        if rows:  # otherwise `judge` says what is missing
            inputs[subject.name] = batches_to_time(samples, rows, models[subject.name].streams)
    costs = measure_cost({name: models[name] for name in inputs}, inputs)
    noises: dict[tuple[int, str, tuple[str, ...]], Noise | None] = {}
    methods = []
    for subject in subjects:
        found: dict[int, list[Run]] = {}
        for trained in subject.runs:
            found.setdefault(trained.seed, []).append(_judge(trained, subject, which, noises))
        bundle = first[subject.name]
        together = [_together(seed, own) for seed, own in found.items()]
        methods.append(Method(subject.name, fusion_of(bundle), missing_of(bundle), together, costs.get(subject.name)))
    about = subjects[0]
    return compare_methods(
        methods, facts(about.data, which, about.runs[0].split, methods[0].runs[0].test.groups, about.quality, about.remarks)
    )


def _judge(trained: _Trained, subject: _Subject, which: str, noises: dict[tuple[int, str, tuple[str, ...]], Noise | None]) -> Run:
    model = load_bundle(trained.folder).model.to(pick_device("auto"))
    key = (id(trained.samples), trained.split.name, model.streams)
    if key not in noises:
        noises[key] = fit_noise(trained.samples, trained.split, which, model.streams, subject.settings)
    return judge(
        model,
        trained.samples,
        trained.split,
        which,
        subject.settings,
        seed=trained.seed,
        noise=noises[key],
        history=history_of(trained.folder),
        title=f"asking {subject.name}, {trained.folder.name}",
    )


def _together(seed: int, folds: Sequence[Run]) -> Run:
    """The folds of one seed, each of which was judged on other rows, as one run; its history is that of the first."""
    held = [fold.validation for fold in folds if fold.validation is not None]
    return Run(seed, join([fold.test for fold in folds]), join(held) if len(held) == len(folds) else None, folds[0].history)
