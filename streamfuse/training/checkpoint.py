"""Where a run stands, in one file that is replaced whole: tensors as safetensors, all else as JSON in their header.

It has no generator's state: every number that training draws is drawn anew from the seed and the position.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from streamfuse.durable import replace_whole
from streamfuse.errors import ConfigError, Problem

HEADER = "streamfuse"


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """`facts` are JSON."""

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors whose names begin with `name.`, without it."""
        return {key.removeprefix(f"{name}."): tensor for key, tensor in self.tensors.items() if key.startswith(f"{name}.")}


def named(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The opposite of `Checkpoint.part`: copies, on the CPU."""
    return {f"{name}.{key}": tensor.detach().to("cpu", copy=True).contiguous() for key, tensor in tensors.items()}


def write(path: Path, checkpoint: Checkpoint) -> None:
    """Whole or not at all, whenever the power goes."""
    replace_whole(path, save(dict(checkpoint.tensors), {HEADER: json.dumps(checkpoint.facts)}))


def read(path: Path) -> Checkpoint | None:
    """None where there is none. Raises ConfigError for a file that is none."""
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads(file.metadata()[HEADER])
            return Checkpoint({name: file.get_tensor(name) for name in file.keys()}, facts)  # noqa: SIM118  # no mapping
    except FileNotFoundError:
        return None
    except (SafetensorError, OSError, TypeError, KeyError, ValueError) as error:
        raise ConfigError(
            [Problem(str(path), f"expected a checkpoint, found something else ({error}); remove it to begin again")]
        ) from None
