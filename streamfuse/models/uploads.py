"""Copies batches to a CUDA device beside its computing: through host memory that was pinned once, on a stream of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

DEPTH = 2
"""Buffers: one is filled while the copy from the other is on its way."""
ALIGNED = 64


class Copied(Protocol):
    """Something that happens on the device once a copy is done."""

    def synchronize(self) -> None:
        """Wait for it."""
        ...


class Uploads:
    """Gives tensors of the host on the device, ready for what is asked of its current stream next. Belongs to one thread.

    A tensor may be changed as soon as the call has returned. Where the device is the CPU, tensors stay what they are.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._ring = _Ring(pinned=device.type == "cuda")
        self._side = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def __call__(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        if self._side is None or all(tensor.device == self._device for tensor in tensors):
            return list(tensors)
        here = [n for n, tensor in enumerate(tensors) if tensor.device.type == "cpu"]
        staged = self._ring.stage([tensors[n] for n in here])
        found = list(tensors)
        computing = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._side):
            for n, part in zip(here, staged, strict=True):
                found[n] = part.to(self._device, non_blocking=True)
            done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            done.record(self._side)
        self._ring.sent(done)
        computing.wait_event(done)
        for n in here:
            found[n].record_stream(computing)
        return found


class _Ring:
    """Host buffers that are filled in turn; one whose copy is still on its way is waited for. They grow to the greatest batch."""

    def __init__(self, pinned: bool, depth: int = DEPTH) -> None:
        self._pinned = pinned
        self._buffers: list[Tensor] = [torch.empty(0, dtype=torch.uint8) for _ in range(depth)]
        self._on_way: list[Copied | None] = [None] * depth
        self._at = 0

    def stage(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The same values in the next buffer."""
        self._at = (self._at + 1) % len(self._buffers)
        before = self._on_way[self._at]
        if before is not None:
            before.synchronize()
        sizes = [-(-tensor.nbytes // ALIGNED) * ALIGNED for tensor in tensors]
        if sum(sizes) > self._buffers[self._at].nbytes:
            self._buffers[self._at] = torch.empty(2 * sum(sizes), dtype=torch.uint8, pin_memory=self._pinned)
        staged, begin = [], 0
        for tensor, size in zip(tensors, sizes, strict=True):
            place = self._buffers[self._at][begin : begin + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
            staged.append(place.copy_(tensor))
            begin += size
        return staged

    def sent(self, copied: Copied) -> None:
        """The buffer that was filled last is free once this has happened."""
        self._on_way[self._at] = copied
