"""Heads: one vector in, the answer to one task out, with its loss and how to read it.

A head takes `(batch, features)` and gives `outputs`. `read(outputs)` makes them what a person is told: probabilities of
`names`, or values of them. `loss(outputs, targets, smoothing)` is one number a sample, 0 where its target is missing.
Targets are class numbers, -1 where missing, or rows of numbers, NaN where missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streamfuse.models.parts import HEADS

Kind = Literal["classification", "multilabel", "regression", "ordinal"]


class Head(nn.Module):
    """What all heads have in common. `names` are the labels, or the targets that are estimated."""

    kind: Kind

    def __init__(self, features: int, names: Sequence[str], outputs: int, normalised: bool) -> None:
        super().__init__()
        if len(set(names)) != len(names) or not names:
            raise ValueError(f"expected names that differ, found {list(names)}")
        self.names = tuple(names)
        self.norm = nn.LayerNorm(features) if normalised else nn.Identity()
        self.linear = nn.Linear(features, outputs)

    def forward(self, fused: Tensor) -> Tensor:
        out: Tensor = self.linear(self.norm(fused))
        return out

    def read(self, outputs: Tensor) -> Tensor:
        """`(batch, names)` float32."""
        raise NotImplementedError

    def loss(self, outputs: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
        """`(batch,)`."""
        raise NotImplementedError


@HEADS.register("classification")
class Classification(Head):
    """One of `labels`: softmax and cross entropy."""

    kind = "classification"

    def __init__(self, features: int, labels: Sequence[str], normalised: bool = True) -> None:
        super().__init__(features, labels, len(labels), normalised)

    def read(self, outputs: Tensor) -> Tensor:
        return outputs.float().softmax(1)

    def loss(self, outputs: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
        return F.cross_entropy(outputs, targets, reduction="none", label_smoothing=smoothing, ignore_index=-1)


@HEADS.register("multilabel")
class Multilabel(Head):
    """Any number of `labels`, each for itself: sigmoid and binary cross entropy, the mean over the labels that are known."""

    kind = "multilabel"

    def __init__(self, features: int, labels: Sequence[str], normalised: bool = True) -> None:
        super().__init__(features, labels, len(labels), normalised)

    def read(self, outputs: Tensor) -> Tensor:
        return outputs.float().sigmoid()

    def loss(self, outputs: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
        known = ~targets.isnan()
        wanted = targets.nan_to_num() * (1 - smoothing) + smoothing / 2
        return _mean_of_known(F.binary_cross_entropy_with_logits(outputs, wanted, reduction="none"), known)


@HEADS.register("regression")
class Regression(Head):
    """Values of `targets`. The model works in standard units; `mean` and `scale`, one number a target, are those of the
    training part. Smooth L1 (Huber) loss in standard units."""

    kind = "regression"
    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        features: int,
        targets: Sequence[str],
        mean: Sequence[float] | None = None,
        scale: Sequence[float] | None = None,
        normalised: bool = True,
    ) -> None:
        super().__init__(features, targets, len(targets), normalised)
        count = len(targets)
        means, scales = list(mean or [0.0] * count), list(scale or [1.0] * count)
        if len(means) != count or len(scales) != count or min(scales) <= 0:
            raise ValueError(f"expected a mean and a scale above 0 for each of {list(targets)}, found {means} and {scales}")
        self.register_buffer("mean", torch.tensor(means, dtype=torch.float32))
        self.register_buffer("scale", torch.tensor(scales, dtype=torch.float32))

    def read(self, outputs: Tensor) -> Tensor:
        return outputs.float() * self.scale + self.mean

    def loss(self, outputs: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
        known = ~targets.isnan()
        wanted = ((targets - self.mean) / self.scale).nan_to_num()
        return _mean_of_known(F.smooth_l1_loss(outputs, wanted, reduction="none"), known)


@HEADS.register("ordinal")
class Ordinal(Head):
    """One of `labels` that have an order: the probabilities of being beyond each of them, by thresholds on one score
    that never cross (proportional odds; McCullagh 1980)."""

    kind = "ordinal"

    def __init__(self, features: int, labels: Sequence[str], normalised: bool = True) -> None:
        super().__init__(features, labels, 1, normalised)
        if len(labels) < 2:
            raise ValueError(f"expected two labels or more, found {list(labels)}")
        self.first = nn.Parameter(torch.tensor(-1.0))
        self.steps = nn.Parameter(torch.zeros(len(labels) - 2))

    def forward(self, fused: Tensor) -> Tensor:
        """`(batch, labels - 1)`: the log odds of being beyond each label but the last."""
        thresholds = self.first + F.pad(F.softplus(self.steps).cumsum(0), (1, 0))
        return super().forward(fused) - thresholds

    def read(self, outputs: Tensor) -> Tensor:
        beyond = F.pad(F.pad(outputs.float().sigmoid(), (1, 0), value=1.0), (0, 1), value=0.0)  # (batch, labels + 1)
        return beyond[:, :-1] - beyond[:, 1:]

    def loss(self, outputs: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
        beyond = (targets[:, None] > torch.arange(outputs.shape[1], device=outputs.device)).to(outputs.dtype)
        wanted = beyond * (1 - smoothing) + smoothing / 2
        each = F.binary_cross_entropy_with_logits(outputs, wanted, reduction="none").sum(1)
        return each * (targets >= 0)


def _mean_of_known(losses: Tensor, known: Tensor) -> Tensor:
    return (losses * known).sum(1) / known.sum(1).clamp(min=1)
