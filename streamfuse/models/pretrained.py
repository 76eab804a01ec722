"""Goes on from weights that were learned before: loads what fits and reports it, and finds the parts to freeze or to slow down.

Parameters are named as in the model's state dict, `encoders.video.stem.0.weight`. Wherever names are chosen, a pattern stands
for a name, for all that begins with it and a dot, or, with `*`, for anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from torch import Tensor, nn

from streamfuse.errors import BundleError
from streamfuse.models.tensors import read_tensors

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Match:
    """What became of each tensor. Names are the model's, those of `unused` the file's own."""

    path: str
    matched: Mapping[str, Shape]
    missing: Mapping[str, Shape]
    """In the model and not in the file: they stay as they were."""
    unused: Mapping[str, Shape]
    """In the file, and the model has no place for them."""
    reshaped: Mapping[str, tuple[Shape, Shape]]
    """In both, with the shape in the model and the one in the file: they stay as they were."""

    def table(self) -> str:
        """As text: the counts, then what did not match, one line a module."""
        lines = [
            f"{self.path}: {len(self.matched)} tensors loaded with {_numbers(self.matched)} numbers, {len(self.missing)} missing from the "
            f"file, {len(self.reshaped)} of another shape, {len(self.unused)} unused"
        ]
        lines += [f"  {'missing':9} {line}" for line in _by_module(self.missing)]
        lines += [f"  {'unused':9} {line}" for line in _by_module(self.unused)]
        lines += [
            f"  {'reshaped':9} {name}: {list(own)} in the model, {list(found)} in the file" for name, (own, found) in self.reshaped.items()
        ]
        return "\n".join(lines)


def load_weights(model: nn.Module, path: Path, part: str = "", rename: Mapping[str, str] | None = None) -> Match:
    """Copies the tensors of a safetensors file into the model's of the same name and shape, in the model's dtype.

    With a `part`, `encoders.video`, the file is that part's alone. `rename` maps what names in the file begin with to what they
    begin with there instead: `{"module.": ""}`; the longest beginning that fits counts. Raises `BundleError` where the file is a
    pickle or no safetensors, has values that are not finite, or where nothing in it fits.
    """
    lead = f"{part}." if part else ""
    own = {name: tensor for name, tensor in model.state_dict().items() if name.startswith(lead)}
    if not own:
        raise BundleError(f"expected a part of the model, found {part!r}, which has no weights; it has {', '.join(_parts(model))}")
    found = read_tensors(path)
    named = {lead + _renamed(name, rename or {}): name for name in sorted(found)}
    if len(named) < len(found):
        raise BundleError(f"after renaming, tensors of {path} have one name; rename {dict(rename or {})} less")
    fits = {name: found[source] for name, source in named.items() if name in own and own[name].shape == found[source].shape}
    if not fits:
        raise BundleError(
            f"nothing in {path} fits the model: it has {', '.join(sorted(found)[:3])}, ..., the model {', '.join(sorted(own)[:3])}, ...; "
            "say which part it is for, or rename what its names begin with"
        )
    broken = [named[name] for name, tensor in fits.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        raise BundleError(f"{path} has values that are not finite in {', '.join(broken[:3])}; take other weights")
    with torch.no_grad():
        for name, tensor in fits.items():
            own[name].copy_(tensor)
    return Match(
        str(path),
        {name: _shape(tensor) for name, tensor in fits.items()},
        {name: _shape(own[name]) for name in sorted(own.keys() - named.keys())},
        {source: _shape(found[source]) for name, source in named.items() if name not in own},
        {n: (_shape(own[n]), _shape(found[source])) for n, source in named.items() if n in own and n not in fits},
    )


def matching(model: nn.Module, pattern: str) -> list[str]:
    """Names of the parameters that a pattern stands for. Raises `ValueError` where there is none, as a misspelt one would be obeyed by
    doing nothing."""
    names = [name for name, _ in model.named_parameters()]
    chosen = [name for name in names if fnmatchcase(name, pattern) or name.startswith(f"{pattern}.")]
    if not chosen:
        raise ValueError(
            f"expected a pattern for parameters of the model, found {pattern!r}, which none has; there is {', '.join(_parts(model))}"
        )
    return chosen


def shares(model: nn.Module, rates: Mapping[str, float]) -> dict[str, float]:
    """Name -> its share of the learning rate, of all parameters that a pattern of `rates` stands for; the longest pattern counts. Raises
    `ValueError` for a pattern without any."""
    found: dict[str, float] = {}
    for pattern in sorted(rates, key=len):
        found.update(dict.fromkeys(matching(model, pattern), rates[pattern]))
    return found


def _renamed(name: str, rename: Mapping[str, str]) -> str:
    for start in sorted(rename, key=len, reverse=True):
        if name.startswith(start):
            return rename[start] + name[len(start) :]
    return name


def _shape(tensor: Tensor) -> Shape:
    return tuple(tensor.shape)


def _numbers(shapes: Mapping[str, Shape]) -> str:
    return f"{sum(torch.Size(shape).numel() for shape in shapes.values()):,}"


def _by_module(shapes: Mapping[str, Shape]) -> list[str]:
    modules: dict[str, list[str]] = {}
    for name in shapes:
        module, _, tensor = name.rpartition(".")
        modules.setdefault(module, []).append(tensor)
    return [f"{module or '(model)'}: {', '.join(tensors)}" for module, tensors in modules.items()]


def _parts(model: nn.Module) -> list[str]:
    """`encoders.video`, `fusion`, ...: what patterns usually begin with."""
    return sorted(
        {".".join(name.split(".")[: 2 if name.startswith(("encoders.", "heads.")) else 1]) for name, _ in model.named_parameters()}
    )
