"""Data parallelism: processes that `torchrun` started share each batch, and all make the same step."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from streamfuse.errors import ConfigError, Problem


@dataclass(frozen=True, slots=True)
class Workers:
    """This process among those that train together; by itself, it is the only one.

    Gradients are summed over all in one piece after each backward pass (no overlap with it: the models are small). Every
    process must call `sum_` as often as the others.
    """

    rank: int = 0
    world: int = 1

    @property
    def is_first(self) -> bool:
        """Does this one write and show?"""
        return self.rank == 0

    @property
    def mine(self) -> slice:
        """Every `world`-th of rows that are shared."""
        return slice(self.rank, None, self.world)

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Each becomes its sum over all processes."""
        if self.world == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, part in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        self.sum_([p.grad for p in parameters if p.grad is not None])

    def average_statistics(self, model: nn.Module) -> None:
        """Of batch normalisation, which sees its own share of each batch only."""
        if self.world == 1:
            return
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None and module.running_var is not None:
                running = [module.running_mean.div_(self.world), module.running_var.div_(self.world)]
                self.sum_(running)


@contextmanager
def workers(device: str) -> Iterator[tuple[Workers, torch.device]]:
    """This process and its device, as `torchrun` tells them; alone without it. Gloo on the CPU, NCCL on GPUs.

    Raises ConfigError for a `cuda` that is not there.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if device == "cuda" and not torch.cuda.is_available():
        message = f"is cuda, but torch {torch.__version__} finds no CUDA device here; set auto or cpu, or install a CUDA build of torch"
        raise ConfigError([Problem("training.device", message)])
    kind = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
    if world == 1:
        yield Workers(), torch.device(kind)
        return
    place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if kind == "cuda" else torch.device("cpu")
    if kind == "cuda":
        torch.cuda.set_device(place)
    dist.init_process_group("nccl" if kind == "cuda" else "gloo", device_id=place if kind == "cuda" else None)
    try:
        yield Workers(dist.get_rank(), dist.get_world_size()), place
    finally:
        dist.destroy_process_group()
