"""Batches in few sizes: what was compiled or captured for one size can then be used again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from streamfuse.models.batch import Modality
from streamfuse.models.engine import Engine
from streamfuse.models.fusion_model import State

Tensors = Sequence[Tensor]


def buckets(most: int) -> list[int]:
    """1, 2, 4, ... up to `most`, which is one of them."""
    return [*(1 << n for n in range((most - 1).bit_length())), most]


def in_buckets(count: int, most: int) -> Iterator[tuple[slice, int]]:
    """Which rows go together, and how many they are filled up to."""
    sizes = buckets(most)
    for at in range(0, count, most):
        rows = slice(at, min(at + most, count))
        yield rows, next(size for size in sizes if size >= rows.stop - at)


def run_in_buckets(run: Callable[[Tensors], Tensors], tensors: Tensors, most: int) -> list[Tensor]:
    """What `run` makes of all rows, in order, though it sees batches of these sizes only. Rows that fill up are zeros: nothing is there."""
    made: list[Tensors] = []
    for rows, size in in_buckets(len(tensors[0]), most):
        count = rows.stop - rows.start
        filled = [
            torch.cat([part[rows], part.new_zeros(size - count, *part.shape[1:])]) if size > count else part[rows] for part in tensors
        ]
        made.append([part[:count] for part in run(filled)])
    return [torch.cat(parts) if len(made) > 1 else parts[0] for parts in zip(*made, strict=True)]


class BucketedEngine:
    """Fulfils `Engine` by another one, which sees batches of 1, 2, 4, ... `most`."""

    def __init__(self, engine: Engine, streams: Sequence[str], most: int) -> None:
        self._engine, self._streams, self._most = engine, tuple(streams), most
        self.device = engine.device

    def encode(self, stream: str, items: Modality, state: State | None = None) -> tuple[Modality, State]:
        def run(parts: Tensors) -> Tensors:
            tokens, after = self._engine.encode(stream, Modality(*parts[:3]), None if state is None else tuple(parts[3:]))
            return [*tokens, *after]

        data, time, mask, *after = run_in_buckets(run, [*items, *(state or ())], self._most)
        return Modality(data, time, mask), tuple(after)

    def fuse(self, tokens: Mapping[str, Modality], present: Tensor | None = None) -> dict[str, Tensor]:
        names: list[str] = []

        def run(parts: Tensors) -> Tensors:
            several = {s: Modality(*parts[3 * n : 3 * n + 3]) for n, s in enumerate(self._streams)}
            said = self._engine.fuse(several, parts[-1])
            names[:] = said
            return list(said.values())

        if present is None:
            mask = tokens[self._streams[0]].mask
            present = torch.ones(len(mask), len(self._streams), dtype=torch.bool, device=mask.device)
        made = run_in_buckets(run, [part for s in self._streams for part in tokens[s]] + [present], self._most)
        return dict(zip(names, made, strict=True))

    def weigh(self, tokens: Mapping[str, Modality]) -> Tensor | None:
        return self._engine.weigh(tokens)
