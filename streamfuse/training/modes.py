"""What learns when: a mode as stages one after another, and in each stage the turns that steps take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn

from streamfuse.errors import ConfigError, Problem
from streamfuse.models.fusion_model import FusionModel
from streamfuse.models.pretrained import matching
from streamfuse.training.recipe import TrainingRecipe


@dataclass(frozen=True, slots=True)
class Turn:
    """One step: which parameters rest besides the frozen ones, and which tasks count."""

    resting: frozenset[str]
    tasks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stage:
    """`alone`: each encoder learns from its auxiliary head, without the fusion. Steps take the turns in order, over and over."""

    name: Literal["joint", "alternating", "alone", "fuse", "transfer"]
    epochs: int
    frozen: frozenset[str]
    turns: Sequence[Turn]
    alone: bool = False


def stages(model: FusionModel, settings: TrainingRecipe) -> list[Stage]:
    """Raises ConfigError for a pattern of names that fits no parameter."""
    mode = settings.mode
    frozen = _matching(model, mode.freeze, "training.mode.freeze")
    _matching(model, mode.rates, "training.mode.rates")
    names = {name for name, _ in model.named_parameters()}
    everything = [Turn(frozenset(), model.tasks)]
    if mode.type == "alternating" and mode.by == "task":
        return [Stage("alternating", settings.epochs, frozen, [Turn(frozenset(), (task,)) for task in model.tasks])]
    if mode.type == "alternating":
        own = {stream: _of_stream(names, stream) for stream in model.streams}
        turns = [Turn(frozenset().union(*(own[s] for s in own if s != stream)), model.tasks) for stream in own]
        return [Stage("alternating", settings.epochs, frozen, turns)]
    if mode.type == "unimodal_then_fuse":
        encoders = frozenset(name for name in names if name.startswith("encoders."))
        learning = frozenset().union(*(_of_stream(names, stream) for stream in model.streams))
        return [
            Stage("alone", mode.epochs, frozen | (names - learning), everything, alone=True),
            Stage("fuse", settings.epochs, frozen | encoders if mode.frozen else frozen, everything),
        ]
    return [Stage(mode.type, settings.epochs, frozen, everything)]


def let_learn(model: nn.Module, stage: Stage, turn: Turn) -> None:
    """Parameters that are frozen or rest get no gradient."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in stage.frozen and name not in turn.resting)


def train_mode(model: nn.Module, stage: Stage) -> None:
    """Modules whose parameters are all frozen behave as they are served: without dropout, with statistics as they are."""
    model.train()
    for name, module in model.named_modules():
        own = [f"{name}.{parameter}" if name else parameter for parameter, _ in module.named_parameters()]
        if own and stage.frozen.issuperset(own):
            module.eval()


def _of_stream(names: set[str], stream: str) -> frozenset[str]:
    return frozenset(name for name in names if name.startswith((f"encoders.{stream}.", f"auxiliary.{stream}.")))


def _matching(model: nn.Module, patterns: Sequence[str] | Mapping[str, float], path: str) -> frozenset[str]:
    found: set[str] = set()
    problems = []
    for number, pattern in enumerate(patterns):
        try:
            found.update(matching(model, pattern))
        except ValueError as error:
            problems.append(Problem(f"{path}.{pattern if isinstance(patterns, Mapping) else number}", str(error)))
    if problems:
        raise ConfigError(problems)
    return frozenset(found)
