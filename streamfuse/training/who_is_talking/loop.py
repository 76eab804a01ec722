"""A plain training loop: batches in, a model that copes with any modality missing out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from streamfuse.models.batch import Modality
from streamfuse.models.fusion_model import FusionModel
from streamfuse.training.who_is_talking.dataset import Sample, as_batch, without

Report = Callable[[int, float], None]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train. Dropping a modality now and then and asking each one alone keeps a fusion from using only the
    strongest."""

    steps: int = 450
    batch: int = 64
    rate: float = 2e-3
    weight_decay: float = 0.02
    modality_dropout: float = 0.3
    auxiliary: float = 0.3
    label_smoothing: float = 0.05
    seed: int = 0


def train(model: FusionModel, batches: Iterable[tuple[Mapping[str, Modality], Tensor]], recipe: Recipe, report: Report) -> None:
    """Trains in place: AdamW, one cycle of the learning rate, `recipe.steps` batches; `report(step, loss)` after
    each."""
    draw = torch.Generator().manual_seed(recipe.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.rate, total_steps=recipe.steps, pct_start=0.15)
    model.train()
    for step, (inputs, labels) in enumerate(batches):
        drop = torch.rand(len(labels), len(model.streams), generator=draw) < recipe.modality_dropout
        loss = loss_of(model, without(inputs, drop, model.streams), labels, recipe)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        report(step, float(loss.detach()))
    model.eval()


def loss_of(model: FusionModel, inputs: Mapping[str, Modality], labels: Tensor, recipe: Recipe) -> Tensor:
    """Loss of the fused answer, and of each present modality's own with the weight `recipe.auxiliary`."""
    tokens = {stream: model.encode(stream, inputs[stream])[0] for stream in model.streams}
    (task,) = model.tasks
    loss = model.head(task).loss(model.fuse(tokens)[task], labels, recipe.label_smoothing).mean()
    for stream, outputs in model.alone(tokens).items():
        each = model.head(task).loss(outputs[task], labels, recipe.label_smoothing)
        loss = loss + recipe.auxiliary * (each * inputs[stream].present).sum() / len(labels)
    return loss


def predict(model: FusionModel, samples: Sequence[Sample], hidden: Sequence[str] = (), size: int = 128) -> Tensor:
    """The label of each sample, `(samples,)`, with some streams hidden."""
    answers = []
    (task,) = model.tasks
    with torch.inference_mode():
        for at in range(0, len(samples), size):
            inputs, labels = as_batch(samples[at : at + size])
            drop = torch.tensor([s in hidden for s in model.streams]).expand(len(labels), -1)
            answers.append(model(without(inputs, drop, model.streams))[task].argmax(1))
    return torch.cat(answers)
