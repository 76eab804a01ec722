"""Optimizers over named parameters, with rates of their own, and their state as named tensors."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer as TorchOptimizer

from streamfuse.models.pretrained import shares
from streamfuse.training.recipe import Optimizer


class Optimizing:
    """One optimizer over what learns of a model, and of its objective. A parameter without a gradient is left as it is.

    `rates` maps patterns of names to their share of the rate; the longest that fits counts. Weights (tensors of two dimensions
    and more) shrink by `weight_decay` and `l1`; biases, norms and single numbers don't.
    """

    def __init__(
        self, settings: Optimizer, model: nn.Module, learning: Collection[str], objective: nn.Module, rates: Mapping[str, float], l1: float
    ) -> None:
        self._rate, self._l1 = settings.rate, l1
        own = {name: parameter for name, parameter in model.named_parameters() if name in learning}
        self._named = {**own, **{f"objective.{name}": parameter for name, parameter in objective.named_parameters()}}
        share = shares(model, rates)
        groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
        for name, parameter in self._named.items():
            groups.setdefault((share.get(name, 1.0), _shrinks(parameter)), []).append(parameter)
        self._shares = [share for share, _ in groups]
        self._torch = _make(
            settings,
            [{"params": part, "weight_decay": settings.weight_decay if shrinks else 0.0} for (_, shrinks), part in groups.items()],
        )

    @property
    def parameters(self) -> list[nn.Parameter]:
        return list(self._named.values())

    def clear(self) -> None:
        self._torch.zero_grad()

    def step(self, share: float) -> None:
        """With this share of the greatest rate."""
        for group, own in zip(self._torch.param_groups, self._shares, strict=True):
            group["lr"] = self._rate * own * share
        if self._l1:
            for parameter in self._named.values():
                if parameter.grad is not None and _shrinks(parameter):
                    parameter.grad.add_(parameter.detach().sign(), alpha=self._l1)
        self._torch.step()

    def state(self) -> dict[str, Tensor]:
        """`parameter/quantity` -> tensor."""
        return {
            f"{name}/{quantity}": value
            for name, parameter in self._named.items()
            for quantity, value in self._torch.state.get(parameter, {}).items()
            if isinstance(value, Tensor)
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        for key, value in state.items():
            name, _, quantity = key.rpartition("/")
            parameter = self._named[name]
            self._torch.state[parameter][quantity] = value.to("cpu" if quantity == "step" else parameter.device)


def _shrinks(parameter: nn.Parameter) -> bool:
    return parameter.ndim >= 2


def _make(settings: Optimizer, groups: list[dict[str, Any]]) -> TorchOptimizer:
    if settings.type == "sgd":
        return torch.optim.SGD(groups, settings.rate)
    if settings.type == "momentum":
        return torch.optim.SGD(groups, settings.rate, momentum=settings.momentum, nesterov=settings.nesterov)
    kind = torch.optim.Adam if settings.type == "adam" else torch.optim.AdamW
    return kind(groups, settings.rate, betas=settings.betas)
