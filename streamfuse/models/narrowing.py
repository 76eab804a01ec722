"""Takes hidden units out of a model: those between two layers, which nothing else sees.

What can be narrowed is a chain: a linear layer or a 1 x 1 convolution, then whatever treats each unit by itself (activations, depthwise
convolutions, batch and group normalisation), then the layer that takes them together again. A chain is named by its first layer. How many
units each chain has left stands in a bundle's architecture as `narrowed`, chain -> units.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

ACTIVATIONS = (nn.GELU, nn.ReLU, nn.ReLU6, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Dropout, nn.Identity)


@dataclass(frozen=True, slots=True, eq=False)
class Chain:
    first: nn.Module
    between: tuple[nn.Module, ...]
    last: nn.Module

    @property
    def units(self) -> int:
        return _weight(self.first).shape[0]

    @property
    def together(self) -> int:
        """Units that can only go together: those of one group of a normalisation."""
        groups = [norm.num_channels // norm.num_groups for norm in self.between if isinstance(norm, nn.GroupNorm)]
        return max(groups, default=1)

    def importance(self) -> Tensor:
        """`(units,)`: how much each can move what comes out, by the norms of the weights to it and from it."""
        into, out = _weight(self.first), _weight(self.last)
        product: Tensor = into.flatten(1).norm(dim=1) * out.transpose(0, 1).flatten(1).norm(dim=1)
        return product

    def keep(self, kept: Tensor) -> None:
        """Leaves only these units, in their order."""
        for module in (self.first, *self.between):
            _cut(module, "weight", 0, kept)
            _cut(module, "bias", 0, kept)
            _cut(module, "running_mean", 0, kept)
            _cut(module, "running_var", 0, kept)
            _tell(module, len(kept))
        _cut(self.last, "weight", 1, kept)
        _set(self.last, ("in_features", "in_channels"), len(kept))


def chains(model: nn.Module) -> dict[str, Chain]:
    """All that can be narrowed, by name."""
    found: dict[str, Chain] = {}
    for path, module in model.named_modules():
        if isinstance(module, nn.Sequential):
            found.update(_in_sequence(path, list(module.named_children())))
        elif isinstance(getattr(module, "fc1", None), nn.Linear) and isinstance(getattr(module, "fc2", None), nn.Linear):
            found[f"{path}.fc1"] = Chain(module.fc1, (), module.fc2)
    return found


def narrow(model: nn.Module, units: Mapping[str, int]) -> None:
    """Gives each chain so many units, whichever. Raises `ValueError` for one that is not there or does not have so many."""
    known = chains(model)
    for name, count in units.items():
        if name not in known or not 0 < count <= known[name].units or count % known[name].together:
            raise ValueError(f"expected layers that can be narrowed in `narrowed`, found {name!r} with {count} units")
        known[name].keep(torch.arange(count))


def prune_units(model: nn.Module, share: float) -> dict[str, int]:
    """Takes this share of each chain's units out, the least important ones; gives what is left of each, for `narrow`."""
    left: dict[str, int] = {}
    for name, chain in chains(model).items():
        groups = chain.importance().reshape(-1, chain.together).norm(dim=1)
        count = max(round(len(groups) * (1 - share)), 1)
        best = groups.topk(count).indices.sort().values
        chain.keep((best[:, None] * chain.together + torch.arange(chain.together)).flatten())
        left[name] = chain.units
    return left


def prune_weights(model: nn.Module, share: float) -> None:
    """Sets this share of the weights of each linear layer and convolution to zero, the smallest ones (Han et al., NeurIPS 2015)."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
            size = module.weight.abs().flatten()
            cut = size.kthvalue(max(int(len(size) * share), 1)).values
            with torch.no_grad():
                module.weight[module.weight.abs() <= cut] = 0


def _in_sequence(path: str, layers: list[tuple[str, nn.Module]]) -> dict[str, Chain]:
    found: dict[str, Chain] = {}
    for at, (name, first) in enumerate(layers):
        if not _mixes(first):
            continue
        for end in range(at + 1, len(layers)):
            if _mixes(layers[end][1]):
                found[f"{path}.{name}"] = Chain(first, tuple(module for _, module in layers[at + 1 : end]), layers[end][1])
            if not _treats_each(layers[end][1]):
                break
    return found


def _mixes(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or (
        isinstance(module, nn.Conv1d | nn.Conv2d) and module.groups == 1 and set(module.kernel_size) == {1}
    )


def _treats_each(module: nn.Module) -> bool:
    is_depthwise = isinstance(module, nn.Conv1d | nn.Conv2d) and module.groups == module.in_channels == module.out_channels
    return is_depthwise or isinstance(module, (*ACTIVATIONS, nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm))


def _weight(module: nn.Module) -> Tensor:
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight.detach()


def _cut(module: nn.Module, name: str, dim: int, kept: Tensor) -> None:
    tensor = getattr(module, name, None)
    if isinstance(tensor, Tensor):
        part = tensor.detach().index_select(dim, kept.to(tensor.device))
        setattr(module, name, nn.Parameter(part, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else part)


def _tell(module: nn.Module, count: int) -> None:
    """Bring what a layer says of its size up to date."""
    if isinstance(module, nn.GroupNorm):
        module.num_groups = module.num_groups * count // module.num_channels
    elif isinstance(module, nn.Conv1d | nn.Conv2d) and module.groups > 1:
        module.groups = module.in_channels = count
    _set(module, ("out_features", "out_channels", "num_features", "num_channels"), count)


def _set(module: Any, names: tuple[str, ...], count: int) -> None:
    for name in names:
        if hasattr(module, name):
            setattr(module, name, count)
