"""Trains a model, stage by stage and epoch by epoch, and tells each step as it is made.

Whatever is drawn at random is drawn from the seed and the position, so that a run that was killed goes on from its checkpoint
to the same weights, and so do processes that share the work, but for the order of sums.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from streamfuse.errors import ConfigError, Problem
from streamfuse.models.batch import Modality
from streamfuse.models.fusion_model import FusionModel
from streamfuse.training.ahead import ahead
from streamfuse.training.checkpoint import Checkpoint, named, read, write
from streamfuse.training.distributed import Workers
from streamfuse.training.modes import Stage, let_learn, stages, train_mode
from streamfuse.training.noise import Noise
from streamfuse.training.objective import Objective
from streamfuse.training.optimizers import Optimizing
from streamfuse.training.recipe import TrainingRecipe
from streamfuse.training.rows import Epoch, Share, shares
from streamfuse.training.samples import Batch, Samples, hide, make_batch
from streamfuse.training.schedules import share as rate_share
from streamfuse.training.validation import is_better, measure, wanted_metrics

Record = dict[str, Any]
"""One epoch, as it stands in history.jsonl."""

TOLD_EVERY = 20
"""Steps between two looks at the loss on a GPU, which waits for it."""


@dataclass(frozen=True, slots=True)
class Step:
    """A step was made, the `step`-th of the epoch. `loss` is that of its rows, None where it was not looked at."""

    stage: str
    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float | None


@dataclass(frozen=True, slots=True)
class EpochEnd:
    """Everything so far, the epoch that has ended last."""

    history: Sequence[Record]


@dataclass(frozen=True, slots=True)
class Finished:
    """The model is in the state of the epoch `kept`."""

    kept: Record
    history: Sequence[Record]


Event = Step | EpochEnd | Finished


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """How to train, apart from what. `identity` says what a checkpoint belongs to: another one's is refused."""

    settings: TrainingRecipe
    seed: int
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    workers: Workers = field(default_factory=Workers)
    checkpoint: Path | None = None
    resume: bool = False
    identity: str = ""


def train(model: FusionModel, rows: Samples, validation: Samples, job: Job) -> Iterator[Event]:
    """Trains in place; the last event is `Finished`. Both sides have the streams and tasks of the model.

    Raises ConfigError for a checkpoint of another run, names that fit no parameter, a metric that is none and a loss that is not
    finite, and whatever `rows.read` raises. It leaves torch's generator seeded.
    """
    objective = Objective(model, job.settings)
    plan = stages(model, job.settings)
    wanted_metrics(model, job.settings)
    state = _State.begin(model.to(job.device), objective.to(job.device), job)
    reading = _Reading(rows, Noise(rows, range(len(rows.names))) if job.settings.noise else None, model.streams, job)
    with _reproducible(job.settings.deterministic):
        while state.stage < len(plan):
            yield from _stage(model, objective, plan[state.stage], reading, validation, job, state)
    model.eval()
    yield Finished(state.kept, tuple(state.history))


@dataclass(slots=True)
class _State:
    """Where a run stands."""

    stage: int = 0
    epoch: int = 0
    step: int = 0
    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    history: list[Record] = field(default_factory=list)
    kept: Record = field(default_factory=dict)
    waited: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def begin(cls, model: FusionModel, objective: Objective, job: Job) -> _State:
        found = read(job.checkpoint) if job.resume and job.checkpoint is not None else None
        if found is None:
            return cls()
        facts = dict(found.facts)
        if facts.pop("identity") != job.identity:
            message = "belongs to another recipe, seed, data set or number of processes; train anew, or into another folder"
            raise ConfigError([Problem(str(job.checkpoint), message)])
        model.load_state_dict(found.part("model"))
        objective.load_state_dict(found.part("objective"))
        sums = {name: tensor.to(job.device) for name, tensor in found.part("sums").items()}
        return cls(**facts, sums=sums, best=found.part("best"), optimizer=found.part("optimizer"))

    def save(self, model: FusionModel, objective: Objective, optimizer: Optimizing | None, job: Job) -> None:
        if job.checkpoint is None or not job.workers.is_first:
            return
        parts = {"model": model.state_dict(), "objective": objective.state_dict(), "best": self.best, "sums": self.sums}
        parts["optimizer"] = optimizer.state() if optimizer is not None else {}
        tensors = {key: tensor for name, part in parts.items() for key, tensor in named(name, part).items()}
        names = ("stage", "epoch", "step", "counts", "seconds", "history", "kept", "waited")
        write(job.checkpoint, Checkpoint(tensors, {**{name: getattr(self, name) for name in names}, "identity": job.identity}))

    def add(self, parts: Mapping[str, Tensor]) -> None:
        for name, value in parts.items():
            self.sums[name] = self.sums.get(name, 0) + value.detach().double()
            self.counts[name] = self.counts.get(name, 0) + 1


def _stage(
    model: FusionModel, objective: Objective, stage: Stage, reading: _Reading, validation: Samples, job: Job, state: _State
) -> Iterator[Event]:
    settings = job.settings
    learning = {name for name, _ in model.named_parameters()} - stage.frozen
    optimizer = Optimizing(settings.optimizer, model, learning, objective, settings.mode.rates, settings.l1)
    optimizer.restore(state.optimizer)
    saved = time.monotonic()
    patience = settings.early_stopping.patience if settings.early_stopping else math.inf
    while state.epoch < stage.epochs and state.waited < patience:
        epoch = Epoch(len(reading.rows.names), settings.batch, (job.seed, state.stage), state.epoch, settings.epoch_rows)
        began = time.monotonic()
        train_mode(model, stage)
        for share, batch in reading.batches(epoch, _hidden_share(model, stage, settings), state.step):
            loss = _step(model, objective, stage, batch.to(job.device), share, epoch, optimizer, job, state)
            state.step += 1
            yield Step(stage.name, state.epoch, stage.epochs, state.step, epoch.steps, loss)
            is_due = time.monotonic() - saved >= settings.checkpoint_every / 1e9
            if is_due and state.step < epoch.steps and job.workers.world == 1:  # sums so far are of one process until the epoch ends
                state.seconds, began = state.seconds + time.monotonic() - began, time.monotonic()
                state.save(model, objective, optimizer, job)
                saved = time.monotonic()
        state.seconds += time.monotonic() - began
        _end_epoch(model, objective, stage, validation, epoch, job, state)
        state.save(model, objective, optimizer, job)
        saved = time.monotonic()
        yield EpochEnd(tuple(state.history))
    if state.best:
        model.load_state_dict(state.best)
    state.stage, state.epoch, state.waited, state.best, state.optimizer = state.stage + 1, 0, 0, {}, {}
    state.save(model, objective, None, job)


def _step(
    model: FusionModel,
    objective: Objective,
    stage: Stage,
    batch: Batch,
    share: Share,
    epoch: Epoch,
    optimizer: Optimizing,
    job: Job,
    state: _State,
) -> float | None:
    settings, workers = job.settings, job.workers
    done = epoch.number * epoch.steps + share.step
    turn = stage.turns[done % len(stage.turns)]
    let_learn(model, stage, turn)
    torch.manual_seed(mixed(*epoch.seed, epoch.number, share.step, workers.rank))
    weight = torch.from_numpy(share.weights).to(job.device)
    with half_precision(settings, job.device):
        loss, parts = objective(model, batch.inputs, batch.targets, weight, turn.tasks, stage.alone)
    optimizer.clear()
    loss.backward()
    workers.sum_gradients(optimizer.parameters)
    if settings.clip is not None:
        for group in _clipped(model, stage, optimizer.parameters):
            nn.utils.clip_grad_norm_(group, settings.clip)
    optimizer.step(rate_share(settings.schedule, done, stage.epochs * epoch.steps))
    state.add({"loss": loss, **parts})
    if job.device.type != "cpu" and state.step % TOLD_EVERY:
        return None
    told = float(loss.detach()) / max(float(share.weights.sum()), 1e-9)
    if not math.isfinite(told):
        raise _diverged(stage, epoch, share.step)
    return told


def _end_epoch(model: FusionModel, objective: Objective, stage: Stage, validation: Samples, epoch: Epoch, job: Job, state: _State) -> None:
    workers, settings = job.workers, job.settings
    workers.sum_(list(state.sums.values()))
    workers.average_statistics(model)
    means = {name: float(total) / state.counts[name] for name, total in state.sums.items()}
    if not math.isfinite(means["loss"]):
        raise _diverged(stage, epoch, epoch.steps - 1)
    with half_precision(settings, job.device):
        found = measure(model, validation, settings, objective.weights, job.device, workers, stage.alone)
    record = {
        "stage": stage.name,
        "epoch": state.epoch,
        "loss": means.pop("loss"),
        "parts": means,
        "validation": dict(found),
        "rate": settings.optimizer.rate * rate_share(settings.schedule, (epoch.number + 1) * epoch.steps - 1, stage.epochs * epoch.steps),
        "seconds": round(state.seconds, 3),
        "rows": settings.epoch_rows or epoch.rows,
    }
    state.history.append(record)
    if (
        settings.early_stopping is None
        or not state.best
        or is_better(found, state.kept["validation"], settings.early_stopping.metric, model)
    ):
        state.kept, state.waited = record, 0
        if settings.early_stopping is not None:
            state.best = {name: tensor.detach().to("cpu", copy=True) for name, tensor in model.state_dict().items()}
    else:
        state.waited += 1
    state.epoch, state.step, state.sums, state.counts, state.seconds = state.epoch + 1, 0, {}, {}, 0.0


# --- rows ----------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Reading:
    """Rows as training sees them: in a drawn order, with streams hidden and noise on what is left."""

    rows: Samples
    noise: Noise | None
    streams: Sequence[str]
    job: Job

    def batches(self, epoch: Epoch, hide_share: float, first: int) -> Iterator[tuple[Share, Batch]]:
        """From the step `first` on, read ahead by threads."""
        order = epoch.order()
        draws = epoch.draws(2 * len(self.streams))  # what is hidden, how much noise
        hidden = torch.from_numpy(draws[:, : len(self.streams)] < hide_share)
        levels = {
            stream: draws[:, i] * self.job.settings.noise.get(stream, 0.0) for i, stream in enumerate(self.streams, len(self.streams))
        }
        seed = mixed(*epoch.seed, epoch.number)

        def read(share: Share) -> tuple[Share, Batch]:
            batch = make_batch(self.rows, [int(row) for row in order[share.places]])
            if self.noise is not None:
                own = {stream: [float(level) for level in levels[stream][share.places]] for stream in self.job.settings.noise}
                batch = self.noise.disturb(batch, own, seed)
            inputs = hide(batch.inputs, hidden[torch.from_numpy(share.places)], self.streams)
            batch = Batch(inputs, batch.targets, batch.rows)
            return share, _pinned(batch) if self.job.device.type == "cuda" else batch

        return ahead(shares(epoch, self.job.workers, first), read, self.job.settings.threads, self.job.settings.ahead)


def _hidden_share(model: FusionModel, stage: Stage, settings: TrainingRecipe) -> float:
    """How often a stream is hidden from a row. Each is drawn for itself, so a row may lose all that it has: the answer to nothing is
    what a stream's contribution is told against, and without such rows it is off (on digits seen and heard, 0.5 and 0.7 nats from the
    share of the classes where a row kept all or one, against 0.1, at no difference in accuracy beyond chance). Where streams stand
    alone there is none to learn from the others' absence.
    """
    return 0.0 if stage.alone or len(model.streams) == 1 else settings.modality_dropout


def _pinned(batch: Batch) -> Batch:
    """In memory that a GPU copies from while the step before is computed."""
    inputs = {stream: Modality(*(tensor.pin_memory() for tensor in part)) for stream, part in batch.inputs.items()}
    return Batch(inputs, {task: target.pin_memory() for task, target in batch.targets.items()}, batch.rows)


# --- numbers -------------------------------------------------------------------------------------------------------------------------


def half_precision(settings: TrainingRecipe, device: torch.device) -> torch.autocast:
    """bfloat16 where it is wanted; it needs no scaling of the loss."""
    on = settings.precision == "bfloat16" or (settings.precision == "auto" and device.type == "cuda")
    return torch.autocast(device.type, torch.bfloat16, enabled=on)


@contextmanager
def _reproducible(wanted: bool) -> Iterator[None]:
    """Where an operation has no form that is, torch warns and uses the one there is."""
    before = torch.are_deterministic_algorithms_enabled()
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
        torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def _clipped(model: FusionModel, stage: Stage, parameters: Sequence[nn.Parameter]) -> list[list[nn.Parameter]]:
    """What is clipped together: all, or, where encoders learn alone, each stream, so that none feels the others."""
    if not stage.alone:
        return [list(parameters)]
    return [[*model.encoders[stream].parameters(), *model.auxiliary[stream].parameters()] for stream in model.streams]


def mixed(*numbers: int) -> int:
    """One seed of several."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]) >> 1


def _diverged(stage: Stage, epoch: Epoch, step: int) -> ConfigError:
    where = f"in step {step + 1} of epoch {epoch.number + 1} ({stage.name})"
    message = f"the loss is not a finite number {where}; lower the rate, set training.clip, or look for absurd values in the data"
    return ConfigError([Problem("training.optimizer.rate", message)])
