"""`streamfuse train`: trains the models of a recipe, shows how it goes, and says what came of it and how to serve it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean, stdev

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from streamfuse.durable import replace_whole
from streamfuse.errors import ConfigError, Problem
from streamfuse.training.distributed import workers
from streamfuse.training.recipe import load_recipe
from streamfuse.training.runs import Run, Started, carry_out, prepare, result, runs
from streamfuse.training.train import EpochEnd, Event, Finished, Record, Step


def train(options: argparse.Namespace) -> int:
    """Returns the exit code. Raises ConfigError, DataError and what reading the data raises."""
    path: Path = options.recipe
    recipe = load_recipe(path, changes(options.set))
    console = Console(stderr=True, highlight=False)
    with workers(recipe.training.device) as (own, device):
        console.quiet = not own.is_first
        with _bars(console) as progress:
            bar = progress.add_task("looking through the data", total=None, told="")
            prepared = prepare(recipe, path.parent, lambda done, of: progress.update(bar, completed=done, total=of))
        out = options.out or Path("out") / recipe.name
        planned = runs(prepared, out, options.seed)
        if not options.resume:
            _refuse_what_is_there(planned)
        console.print(prepared.quality.table())
        prepared.quality.require()
        if own.is_first:
            replace_whole(out / "data.json", json.dumps(prepared.quality.document(), indent=2, ensure_ascii=False).encode() + b"\n")
        for number, run in enumerate(planned, 1):
            if run.is_done:
                console.print(f"{run.name} is done")
                continue
            with shown(console, f"{run.name} ({number} of {len(planned)})" if len(planned) > 1 else run.name) as show:
                try:
                    for event in carry_out(prepared, run, device, own, options.resume):
                        show.tell(event)
                except KeyboardInterrupt:
                    console.print(f"{run.name} was interrupted; the same command with --resume goes on from its last checkpoint")
                    raise
        if own.is_first:
            _tell_results(planned, path)
    return 0


def changes(settings: Sequence[str]) -> dict[str, str]:
    """`["training.epochs=3"]` as a mapping. Raises ConfigError."""
    wrong = [text for text in settings if "=" not in text]
    if wrong:
        raise ConfigError([Problem("--set", f"expected path=value, such as training.epochs=3, found {text!r}") for text in wrong])
    return {path: value for path, _, value in (text.partition("=") for text in settings)}


def _refuse_what_is_there(planned: Sequence[Run]) -> None:
    there = [run.folder for run in planned if run.folder.is_dir() and any(run.folder.iterdir())]
    if there:
        message = f"expected new folders, found {there[0]}; go on there with --resume, choose another --out, or remove it"
        raise ConfigError([Problem("--out", message)])


# --- progress --------------------------------------------------------------------------------------------------------------------------


class _Show:
    """One run, told as it goes: a bar on a terminal, a line an epoch elsewhere."""

    def __init__(self, console: Console, progress: Progress, name: str) -> None:
        self._console, self._progress, self._name = console, progress, name
        self._bar: TaskID | None = None
        self._stage = ""
        self._loss = self._metric = ""

    def tell(self, event: Started | Event) -> None:
        if isinstance(event, Started):
            if event.loaded:
                self._console.print(event.loaded, soft_wrap=True)
        elif isinstance(event, Step):
            self._step(event)
        elif isinstance(event, EpochEnd):
            self._metric = _told(event.history[-1]["validation"])
            if not self._console.is_terminal:
                record = event.history[-1]
                self._console.print(
                    f"{self._name}  {record['stage']} epoch {record['epoch'] + 1}  loss {record['loss']:.4f}  {self._metric}"
                    f"  {record['rows'] / max(record['seconds'], 1e-9):,.0f} rows/s",
                    soft_wrap=True,
                )
        elif isinstance(event, Finished):
            kept = event.kept
            self._console.print(
                f"{self._name}: kept epoch {kept['epoch'] + 1} of {kept['stage']}: {_told(kept['validation'])}", soft_wrap=True
            )

    def _step(self, step: Step) -> None:
        if step.stage != self._stage:
            self._stage = step.stage
            self._bar = self._progress.add_task(f"{self._name} {step.stage}", total=step.epochs * step.steps, told="")
        if step.loss is not None:
            self._loss = f"loss {step.loss:.3f}"
        assert self._bar is not None, "a step began its stage"
        self._progress.update(
            self._bar,
            completed=step.epoch * step.steps + step.step,
            told=f"epoch {step.epoch + 1}/{step.epochs}  {self._loss}  {self._metric}",
        )


@contextmanager
def shown(console: Console, name: str) -> Iterator[_Show]:
    with _bars(console) as progress:
        yield _Show(console, progress, name)


def _bars(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]}"), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)


def _told(validation: Mapping[str, float]) -> str:
    return "validation " + " ".join(f"{name} {value:.4f}" for name, value in validation.items() if " of " not in name)


# --- results ---------------------------------------------------------------------------------------------------------------------------


def _tell_results(planned: Sequence[Run], recipe: Path) -> None:
    found = {run.name: result(run)["validation"] for run in planned}
    metrics = [name for name in next(iter(found.values())) if " of " not in name]
    table = Table(title="on the validation part", box=None, title_justify="left")
    table.add_column("run")
    for metric in metrics:
        table.add_column(metric, justify="right")
    for name, values in found.items():
        table.add_row(name, *(_number(values, metric) for metric in metrics))
    if len(found) > 1:
        table.add_row("mean", *(_over_runs(list(found.values()), metric) for metric in metrics))
    Console(highlight=False).print(table)
    first = planned[0].folder
    print(f"\nto see what it is worth:  streamfuse evaluate {first} {recipe}")
    print(f"to serve it, in a daemon's config:\n  models:\n    bundle: {first}")


def _number(values: Record, metric: str) -> str:
    return f"{values[metric]:.4f}" if metric in values else "-"


def _over_runs(found: Sequence[Record], metric: str) -> str:
    values = [each[metric] for each in found if metric in each]
    return f"{fmean(values):.4f} ± {stdev(values):.4f}" if len(values) > 1 else "-"
