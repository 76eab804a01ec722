"""Puts models to their examination: which rows, which noise, and what they cost, so that a comparison can be made of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError
from rich.console import Console
from rich.progress import Progress

from streamfuse.config import Settings
from streamfuse.errors import ConfigError, DataError, Problem
from streamfuse.loading import problems_of
from streamfuse.models.batch import Modality
from streamfuse.models.fusion_model import FusionModel
from streamfuse.training.compare import DataFacts
from streamfuse.training.cost import SIZES
from streamfuse.training.crossings import crossings
from streamfuse.training.evaluate import Run
from streamfuse.training.examine import LEVELS, examine
from streamfuse.training.noise import Noise
from streamfuse.training.quality import Quality
from streamfuse.training.rows import part
from streamfuse.training.runs import HISTORY
from streamfuse.training.samples import Samples, make_batch
from streamfuse.training.splits import Split


class EvaluationSettings(Settings):
    """A recipe's `evaluation`."""

    levels: list[Annotated[float, Field(gt=0, le=1)]] = Field(list(LEVELS))
    """Of noise, for the robustness curve; empty: no curve. What 0 gives is known without."""
    batch: int = Field(64, gt=0)


def evaluation_settings(options: Mapping[str, Any]) -> EvaluationSettings:
    """Raises ConfigError."""
    try:
        return EvaluationSettings.model_validate(options)
    except ValidationError as error:
        found = problems_of(error, EvaluationSettings)
        raise ConfigError([Problem(f"evaluation.{problem.path}", problem.message) for problem in found]) from None


def judge(
    model: FusionModel,
    samples: Samples,
    split: Split,
    which: str,
    settings: EvaluationSettings,
    *,
    seed: int,
    noise: Noise | None,
    history: Sequence[Mapping[str, Any]] = (),
    title: str = "",
) -> Run:
    """One model on one part of a split. The validation part, from which temperature and thresholds come, is never the one that is
    judged. Raises DataError where the part has no rows."""
    rows = split.parts[which].tolist()
    if not rows:
        there = ", ".join(name for name, own in split.parts.items() if len(own))
        raise DataError([Problem("--part", f"expected rows in the {which} part, found none; there are rows for {there}")])
    held = split.validation.tolist() if which != "validation" else []
    return Run(
        seed=seed,
        test=examine(model, samples, rows, noise=noise, levels=sorted(settings.levels), size=settings.batch, title=title),
        validation=examine(model, samples, held, subsets=False, size=settings.batch) if held else None,
        history=history,
        crossings=crossings(model, samples, rows),
    )


def fit_noise(samples: Samples, split: Split, which: str, streams: Sequence[str], settings: EvaluationSettings) -> Noise | None:
    """Noise with the mean and deviation of the rows that were trained on, or, where there are none, of those that are judged."""
    if not settings.levels:
        return None
    rows = split.train if len(split.train) else split.parts[which]
    own = part(samples, rows, streams)
    return Noise(own, range(len(rows)))


@contextmanager
def looking() -> Iterator[Callable[[int, int], None]]:
    """Shows how many rows were looked through, on a terminal."""
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as progress:
        bar = progress.add_task("looking through the data")
        yield lambda done, of: progress.update(bar, completed=done, total=of)


def facts(name: str, which: str, split: Split, groups: Sequence[str], quality: Quality, remarks: Sequence[str] = ()) -> DataFacts:
    """What is judged on. `groups` are those of the rows that are judged."""
    return DataFacts(name, which, {part: len(rows) for part, rows in split.parts.items()}, sorted({*groups} - {""}), quality, remarks)


def batches_to_time(samples: Samples, rows: Iterable[int], streams: Sequence[str]) -> dict[int, Mapping[str, Modality]]:
    """Batches of real rows by their size, repeated where there are fewer."""
    some = list(rows)[: max(SIZES)]
    made: dict[int, Mapping[str, Modality]] = {}
    for size in SIZES:
        batch = make_batch(samples, [some[i % len(some)] for i in range(size)])
        made[size] = {stream: batch.inputs[stream] for stream in streams}
    return made


def history_of(folder: Path) -> list[Mapping[str, Any]]:
    """The lines that training wrote; none where it did not, or where they are damaged."""
    try:
        return [json.loads(line) for line in (folder / HISTORY).read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError):
        return []
