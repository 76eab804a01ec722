"""What training makes small: the fused answers' loss, each modality's own, and what an architecture adds, as one number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streamfuse.models.batch import Modality
from streamfuse.models.fusion_model import FusionModel
from streamfuse.training.recipe import TrainingRecipe


class Objective(nn.Module):
    """The loss of a batch, a sum over its rows with a weight each, so that shares of a batch add up to the whole of it.

    Several tasks are added with fixed weights or with learned ones: a task's loss is divided by its variance, whose logarithm is
    paid for (Kendall, Gal and Cipolla, CVPR 2018, equations 7 and 10). A row whose target is missing counts as 0 in that task.
    """

    def __init__(self, model: FusionModel, settings: TrainingRecipe) -> None:
        super().__init__()
        self.settings = settings
        self.weights = {task: settings.tasks.fixed.get(task, 1.0) for task in model.tasks}
        learned = model.tasks if settings.tasks.type == "uncertainty" else ()
        self.log_variances = nn.ParameterDict({task: nn.Parameter(torch.zeros(())) for task in learned})

    def forward(
        self,
        model: FusionModel,
        inputs: Mapping[str, Modality],
        targets: Mapping[str, Tensor],
        weight: Tensor,
        tasks: Sequence[str],
        alone: bool = False,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and its parts without their weights: `task`, and `task of stream` for a modality's own.

        `weight` is `(batch,)`: each row's share of the mean over the whole batch.
        """
        settings = self.settings
        tokens = {stream: model.encode(stream, inputs[stream])[0] for stream in model.streams}
        tokens = {stream: part._replace(data=F.dropout(part.data, settings.dropout, self.training)) for stream, part in tokens.items()}
        parts: dict[str, Tensor] = {}
        total = weight.new_zeros(())
        if not alone:
            for task, outputs in model.fuse(tokens).items():
                if task in tasks:
                    parts[task] = (model.head(task).loss(outputs, targets[task], settings.label_smoothing) * weight).sum()
                    total = total + self._weighted(model, task, parts[task], weight)
            if model.reconstruction is not None and settings.reconstruction:
                parts["reconstruction"] = (model.reconstruction_loss(tokens) * weight).sum()
                total = total + settings.reconstruction * parts["reconstruction"]
            if model.crossmodal is not None and settings.crossmodal:
                for name, losses in model.crossmodal.losses(inputs, tokens).items():
                    parts[name] = (losses * weight).sum()
                    total = total + settings.crossmodal * parts[name]
        if alone or settings.auxiliary:
            for stream, own in model.alone(tokens).items():
                there = weight * inputs[stream].present
                for task in tasks:
                    loss = model.head(task).loss(own[task], targets[task], settings.label_smoothing)
                    parts[f"{task} of {stream}"] = (loss * there).sum()
                    total = total + parts[f"{task} of {stream}"] * self.weights[task] * (1.0 if alone else settings.auxiliary)
        return total, parts

    def _weighted(self, model: FusionModel, task: str, loss: Tensor, weight: Tensor) -> Tensor:
        if task not in self.log_variances:
            return loss * self.weights[task]
        log_variance = self.log_variances[task]
        precision = torch.exp(-log_variance) * (0.5 if model.head(task).kind == "regression" else 1.0)
        weighted: Tensor = (precision * loss + log_variance / 2 * weight.sum()) * self.weights[task]
        return weighted
