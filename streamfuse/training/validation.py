"""How well a model does on the validation part, between epochs: what decides which state is kept and when to stop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamfuse.errors import ConfigError, Problem
from streamfuse.models.fusion_model import FusionModel
from streamfuse.training.ahead import ahead
from streamfuse.training.distributed import Workers
from streamfuse.training.metrics import LOWER_IS_BETTER, NAMES, PRIMARY, known_rows, score
from streamfuse.training.recipe import TrainingRecipe
from streamfuse.training.samples import Samples, make_batch

Found = Mapping[str, float]
"""`loss` and `task.metric`; where encoders learn alone, the mean of them, and `task.metric of stream`."""

PATH = "training.early_stopping.metric"


def wanted_metrics(model: FusionModel, settings: TrainingRecipe) -> dict[str, list[str]]:
    """Task -> what is measured of it. Raises ConfigError where the metric to stop by is none."""
    wanted = {task: [PRIMARY[model.head(task).kind]] for task in model.tasks}
    metric = "loss" if settings.early_stopping is None else settings.early_stopping.metric
    if metric == "loss":
        return wanted
    task, name = _named(metric, model)
    if task not in wanted or name not in NAMES[model.head(task).kind]:
        known = ", ".join(["loss", *NAMES[model.head(model.tasks[0]).kind]])
        more = f", or of one of {', '.join(model.tasks)} as task.metric" if len(model.tasks) > 1 else ""
        raise ConfigError([Problem(PATH, f"expected one of {known}{more}, found {metric!r}")])
    if name not in wanted[task]:
        wanted[task].append(name)
    return wanted


def is_better(found: Found, than: Found, metric: str, model: FusionModel) -> bool:
    """By the metric to stop by. One that the rows do not define is never better."""
    task, name = _named(metric, model)
    key = metric if metric == "loss" else f"{task}.{name}"
    if key not in found or key not in than:
        return key in found
    return found[key] < than[key] if name == "loss" or name in LOWER_IS_BETTER else found[key] > than[key]


@torch.inference_mode()
def measure(
    model: FusionModel,
    rows: Samples,
    settings: TrainingRecipe,
    weights: Mapping[str, float],
    device: torch.device,
    workers: Workers,
    alone: bool,
) -> Found:
    """The model's losses, without smoothing and added with `weights`, and its metrics, over the rows whose targets are known; losses
    between modalities count with their own weight.

    `alone` asks each stream by itself, on the rows that have it. Every process gets the same.
    """
    model.eval()
    asked: Sequence[str] = model.streams if alone else ("",)
    heads = {(task, stream): model.head(task) for task in model.tasks for stream in asked}
    count = len(rows.names)
    answers = {key: torch.zeros(count, len(head.names), device=device) for key, head in heads.items()}
    losses = {key: torch.zeros(count, device=device) for key in heads}
    there = {stream: torch.zeros(count, device=device) for stream in asked}
    crossed = {name: torch.zeros(count, device=device) for name in (model.crossmodal.learned if model.crossmodal and not alone else ())}
    own = range(count)[workers.mine]
    chunks = [own[at : at + settings.batch] for at in range(0, len(own), settings.batch)]
    for made in ahead(chunks, partial(make_batch, rows), settings.threads, settings.ahead):
        batch = made.to(device)
        at = torch.tensor(batch.rows, device=device)
        tokens = {stream: model.encode(stream, batch.inputs[stream])[0] for stream in model.streams}
        said = model.alone(tokens) if alone else {"": model.fuse(tokens)}
        across = model.crossmodal.losses(batch.inputs, tokens) if crossed and model.crossmodal else {}
        for (task, stream), head in heads.items():
            answers[task, stream][at] = head.read(said[stream][task])
            losses[task, stream][at] = head.loss(said[stream][task], batch.targets[task]).float()
        for stream in asked:
            there[stream][at] = batch.inputs[stream].present.float() if alone else 1.0
        for name in crossed:
            crossed[name][at] = across[name].float()
    workers.sum_([*answers.values(), *losses.values(), *there.values(), *crossed.values()])

    metrics = wanted_metrics(model, settings)
    each: dict[str, dict[str, float]] = {stream: {"loss": 0.0} for stream in asked}
    for (task, stream), head in heads.items():
        target = rows.targets[task]
        counted = known_rows(head.kind, target) & (_array(there[stream]) > 0)
        each[stream]["loss"] += weights[task] * float(_array(losses[task, stream])[counted].mean()) if counted.any() else 0.0
        scores = score(head.kind, _array(answers[task, stream])[counted], target[counted], head.names)
        each[stream] |= {f"{task}.{name}": value for name in metrics[task] if (value := scores[name].value) is not None}
    if not alone:
        across_means = {name: float(_array(loss).mean()) for name, loss in crossed.items()}
        return {**each[""], "loss": each[""]["loss"] + settings.crossmodal * sum(across_means.values()), **across_means}
    means = {key: float(np.mean([found[key] for found in each.values() if key in found])) for key in {k for f in each.values() for k in f}}
    return {
        **dict(sorted(means.items())),
        **{f"{key} of {stream}": value for stream, found in each.items() for key, value in found.items()},
    }


def _named(metric: str, model: FusionModel) -> tuple[str, str]:
    task, _, name = metric.rpartition(".")
    return task or model.tasks[0], name


def _array(tensor: Tensor) -> NDArray[np.float32]:
    return np.asarray(tensor.cpu().numpy())
