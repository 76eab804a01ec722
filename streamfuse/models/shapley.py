"""What each stream contributes to an answer: exact Shapley values over all subsets of the streams, on tokens that are there already.

Shapley, "A Value for n-Person Games", 1953. The values of a sample add up to its answer less that with nothing present; an absent
stream's is 0.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from streamfuse.models.batch import Modality

Fuse = Callable[[Mapping[str, Modality], Tensor], Tensor]
"""Tokens and which streams to show, `(batch, streams)` bool, to probabilities or estimates, `(batch, names)`."""

ROWS = 512
"""The most windows fused in one pass, so that six streams (64 subsets) don't take 64 times the memory; more is not faster on a CPU."""


def shapley(fuse: Fuse, tokens: Mapping[str, Modality], streams: Sequence[str], rows: int = ROWS) -> tuple[Tensor, Tensor]:
    """What `fuse` gives, `(batch, names)`, and each stream's value on the greatest of it, `(batch, streams)`.

    `fuse` is called with each of the `2^streams` subsets of each sample, with as many subsets at once as `rows` allows.
    """
    present = torch.stack([tokens[s].present for s in streams], 1)
    batch, count = present.shape
    subsets = torch.tensor(subsets_of(count), device=present.device)  # (subsets, streams)
    at_once = max(1, rows // max(batch, 1))
    chunks = [subsets[at : at + at_once] for at in range(0, len(subsets), at_once)]
    values = torch.cat([_answers(fuse, tokens, chunk) for chunk in chunks])  # (subsets, batch, names)
    greatest = values.take_along_dim(values[-1].argmax(1)[None, :, None], 2)[..., 0]  # (subsets, batch)
    return values[-1], shares(greatest, count) * present


def subsets_of(count: int) -> list[tuple[bool, ...]]:
    """All subsets of so many streams, in the order of their binary number: nothing first, everything last."""
    return list(itertools.product((False, True), repeat=count))


def shares(value: Tensor, count: int) -> Tensor:
    """Each stream's part, `(..., streams)`, of what each subset is worth, `(subsets, ...)` in the order of `subsets_of`."""
    fair = [math.factorial(size) * math.factorial(count - size - 1) / math.factorial(count) for size in range(count)]
    # What a subset's worth counts for a stream in it, and for a stream without it, below 0.
    counts = [[fair[sum(s) - 1] if s[i] else -fair[sum(s)] for i in range(count)] for s in subsets_of(count)]
    out: Tensor = torch.tensordot(value, torch.tensor(counts, dtype=value.dtype, device=value.device), ([0], [0]))
    return out


def _answers(fuse: Fuse, tokens: Mapping[str, Modality], subsets: Tensor) -> Tensor:
    """`(subsets, batch, names)`, in one pass."""
    count = len(subsets)
    repeated = {s: Modality(*(part.repeat(count, *[1] * (part.dim() - 1)) for part in tokens[s])) for s in tokens}
    batch = len(next(iter(tokens.values())).mask)
    return fuse(repeated, subsets.repeat_interleave(batch, 0)).reshape(count, batch, -1)
